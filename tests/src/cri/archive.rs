//! A container image without a registry: a docker-archive, made of the same root file system as everywhere else.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::engine::IMAGE;
use super::observer::FILES;
use crate::conformance;
use crate::guest::{self, COMMAND_LIMIT, Guest};
use crate::{Failure, Result};
use crate::{image, process};

/// Makes the archive below `place`.
pub(super) fn make(guest: &Guest, place: &Path) -> Result<PathBuf> {
    let root = place.join("image-root");
    image::make(&root)?;
    image::add_programs(guest, &root)?;
    conformance::add_driver(guest, &root)?;
    for file in FILES {
        guest::write(&root.join(file.trim_start_matches('/')), b"readable\n")?;
    }
    let parts = place.join("image");
    guest::remove_tree(&parts)?;
    guest::make_directory(&parts)?;
    let layer = parts.join("layer.tar");
    process::must(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&layer).arg("."), b"", COMMAND_LIMIT)?;
    guest::remove_tree(&root)?;
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        // As the image of a sandbox it has nothing to do but to stay.
        "config": { "Cmd": ["/bin/sleep", "2147483647"], "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", digest(&layer)?)] },
    });
    let manifest = json!([{ "Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"] }]);
    guest::write(&parts.join("config.json"), config.to_string().as_bytes())?;
    guest::write(&parts.join("manifest.json"), manifest.to_string().as_bytes())?;
    let archive = place.join("image.tar");
    process::must(Command::new("tar").arg("-C").arg(&parts).arg("-cf").arg(&archive).arg("."), b"", COMMAND_LIMIT)?;
    guest::remove_tree(&parts)?;
    Ok(archive)
}

fn digest(file: &Path) -> Result<String> {
    let said = process::must(Command::new("sha256sum").arg(file), b"", COMMAND_LIMIT)?.stdout;
    said.split_whitespace()
        .next()
        .map(str::to_owned)
        .ok_or_else(|| Failure::Answer { what: "sha256sum".to_owned(), text: said.clone() })
}
