//! The container's bundle: `config.json`, as far as the hook needs it.
//!
//! A bundle is reached through symbolic links where the engine's storage is (`/var/run`, a moved `/var/lib/containers`); the
//! file itself must be one. `linux.cgroupsPath` and `linux.namespaces` are deliberately not read: they say what was asked
//! for, and the kernel says what is.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::state::{object, strings};
use portcullis_enforcer::place::{Host, ReadError, host};

/// `config.json`. Real ones have 10 to 100 KiB, seccomp profiles most of it.
pub const MAX_CONFIG_BYTES: u64 = 8 << 20;

/// What a bundle says about its container.
#[derive(Debug)]
pub struct Bundle {
    /// The directory, without symbolic links on the way.
    pub path: PathBuf,
    /// `root.path`, made absolute with the bundle's directory.
    pub root: PathBuf,
    /// `hostname`.
    pub hostname: Option<String>,
    /// All annotations of the container.
    pub annotations: BTreeMap<String, String>,
}

/// Why a bundle is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// `config.json` could not be read.
    #[error("the container's configuration is unusable: {0}; the runtime has to leave config.json in its bundle while hooks run")]
    Read(#[from] ReadError),
    /// `config.json` is not one.
    #[error("{path} is not an OCI configuration: {source}; have the engine write it again")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where it goes wrong.
        source: serde_json::Error,
    },
    /// No root file system.
    #[error("{path} names no root file system (root.path); Portcullis protects containers that have one")]
    NoRoot {
        /// The file.
        path: PathBuf,
    },
}

#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    root: Option<Root>,
    #[serde(default)]
    hostname: Option<String>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, Value>>,
}

#[derive(Deserialize)]
struct Root {
    path: String,
}

impl Bundle {
    /// Reads a bundle's `config.json`.
    pub fn read(host: &Host, dir: &Path) -> Result<Bundle, BundleError> {
        let fd = host::open_dir(dir)?;
        let path = real_path(host, &fd).unwrap_or_else(|| dir.to_owned());
        let file = path.join("config.json");
        let bytes = host::read_at(&fd, Path::new("config.json"), &file, MAX_CONFIG_BYTES)?;
        let written: Written = object(&bytes).map_err(|source| BundleError::Json { path: file.clone(), source })?;
        let root = match written.root {
            Some(root) if !root.path.is_empty() && !root.path.contains('\0') => path.join(root.path),
            _ => return Err(BundleError::NoRoot { path: file }),
        };
        Ok(Bundle {
            path,
            root,
            hostname: written.hostname.filter(|name| !name.is_empty()),
            annotations: strings(written.annotations.unwrap_or_default()),
        })
    }
}

/// Where a directory is, symbolic links resolved: engines are told apart by the shape of this path.
fn real_path(host: &Host, dir: &OwnedFd) -> Option<PathBuf> {
    let link = host.proc.join("self/fd").join(dir.as_raw_fd().to_string());
    let target = rustix::fs::readlink(&link, Vec::new()).ok()?;
    let target = PathBuf::from(OsString::from(target.into_string().ok()?));
    target.is_absolute().then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(text: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), text).unwrap();
        dir
    }

    #[test]
    fn a_relative_root_is_the_bundles() {
        let dir = write(r#"{"root":{"path":"rootfs"},"hostname":"h","annotations":{"a":"b"},"linux":{"x":[1]}}"#);
        let bundle = Bundle::read(&Host::default(), dir.path()).unwrap();
        assert_eq!(bundle.root, bundle.path.join("rootfs"));
        assert_eq!(bundle.hostname.as_deref(), Some("h"));
        assert_eq!(bundle.annotations["a"], "b");
    }

    #[test]
    fn a_bundle_behind_a_symlink_is_told_by_its_real_path() {
        let dir = write(r#"{"root":{"path":"/m"}}"#);
        let links = tempfile::tempdir().unwrap();
        let link = links.path().join("bundle");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        let bundle = Bundle::read(&Host::default(), &link).unwrap();
        assert_eq!(bundle.path, dir.path().canonicalize().unwrap());
        assert_eq!(bundle.root, Path::new("/m"));
    }

    #[test]
    fn config_json_is_a_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.json");
        let refused = |dir: &Path| Bundle::read(&Host::default(), dir).unwrap_err().to_string();
        assert!(refused(dir.path()).contains("no such file"));
        std::os::unix::fs::symlink("/etc/passwd", &config).unwrap();
        assert!(refused(dir.path()).contains("is not a regular file"));
        std::fs::remove_file(&config).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &config, rustix::fs::Mode::RUSR).unwrap();
        assert!(refused(dir.path()).contains("is not a regular file"));
        std::fs::remove_file(&config).unwrap();
        let file = std::fs::File::create(&config).unwrap();
        file.set_len(MAX_CONFIG_BYTES + 1).unwrap();
        assert!(refused(dir.path()).contains("larger than 8388608 bytes"));
        for text in ["", "[]", "{", "{\"root\":7}", "{\"root\":{\"path\":7}}"] {
            std::fs::write(&config, text).unwrap();
            assert!(refused(dir.path()).contains("is not an OCI configuration"), "{text}");
        }
        for text in ["{}", "{\"root\":null}", "{\"root\":{\"path\":\"\"}}"] {
            std::fs::write(&config, text).unwrap();
            assert!(refused(dir.path()).contains("names no root file system"), "{text}");
        }
    }
}
