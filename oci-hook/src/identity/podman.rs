//! Who a podman container is. Podman tells a hook nothing but the id; name, image and labels are in three places that can be
//! read without asking podman, which holds the container's lock while hooks run:
//!
//! - the configuration in libpod's database: `db.sql` (SQLite) or `libpod/bolt_state.db` (BoltDB); all of it, labels too;
//! - containers/storage's `…-containers/containers.json` (or `volatile-containers.json` for `--rm`): name and image;
//! - the arguments of conmon, the runtime's parent: `-c ID -n NAME`, and `-p` with a path below the run root.
//!
//! Where they are is told by the bundle's own path, `GRAPHROOT/DRIVER-containers/ID/userdata`, never by a fixed one: `--root`
//! and `storage.conf` move it. The sources have to agree on the name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Fact, IdentityError, bolt, conmon, sqlite, storage};
use portcullis_enforcer::place::{Host, ReadError, host};

/// One container's configuration in libpod's database. Real ones have 10 to 100 KiB.
pub const MAX_CONFIG_JSON_BYTES: usize = 8 << 20;

/// What podman knows of a container.
#[derive(Debug)]
pub struct Podman {
    /// `--name`.
    pub name: Option<String>,
    /// The image by the name it was asked for; empty for a container without one (`--rootfs`).
    pub image: Option<String>,
    /// `--label`, and the image's labels.
    pub labels: Fact<BTreeMap<String, String>>,
}

/// Where a podman container's files are.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    /// `…/storage`: what is before `DRIVER-containers`.
    pub root: PathBuf,
    /// `overlay-containers`.
    pub containers: String,
}

impl Layout {
    /// Reads `ROOT/DRIVER-containers/ID/userdata`.
    pub fn of_bundle(bundle: &Path, id: &str) -> Option<Layout> {
        let container = bundle.parent()?;
        let containers = container.parent()?;
        let name = containers.file_name()?.to_str()?;
        let fits = bundle.ends_with("userdata") && container.ends_with(id) && name.ends_with("-containers");
        fits.then(|| Layout { root: containers.parent().unwrap_or(Path::new("/")).to_owned(), containers: name.to_owned() })
    }
}

/// The parts of libpod's ContainerConfig that identify a container (libpod/container_config.go).
#[derive(Deserialize)]
struct Config {
    id: String,
    name: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default, rename = "rootfsImageName")]
    image: Option<String>,
}

/// Collects what the three sources say.
pub fn identify(host: &Host, id: &str, bundle: &Path) -> Result<Podman, IdentityError> {
    let layout = Layout::of_bundle(bundle, id).ok_or_else(|| IdentityError::PodmanBundle { bundle: bundle.to_owned() })?;
    let conmon = conmon::find(host, id);
    let mut roots = vec![layout.root.clone()];
    roots.extend(conmon.as_ref().and_then(|conmon| conmon.run_root(&layout.containers, id)));
    roots.push(PathBuf::from("/run/containers/storage"));
    roots.dedup();

    let stored = storage::find(&roots, &layout.containers, id);
    let config = config(&roots, id);
    let mut names = Vec::new();
    let (mut image, labels) = match config {
        Ok(config) => {
            names.push(("libpod's database", vec![config.name]));
            (config.image, Fact::Known(config.labels.unwrap_or_default()))
        }
        Err(reason) => (None, Fact::Unknown(reason)),
    };
    // A list that can't be read leaves the name and the image to the other sources; without them they are not known.
    if let Ok(Some(stored)) = stored {
        names.push(("containers/storage", stored.names));
        image = image.filter(|image| !image.is_empty()).or(stored.image);
    }
    if let Some(name) = conmon.and_then(|conmon| conmon.name) {
        names.push(("conmon", vec![name]));
    }
    // A container without an image (`--rootfs`) is one whose configuration could be read and has none.
    if image.is_none() && matches!(labels, Fact::Known(_)) {
        image = Some(String::new());
    }
    Ok(Podman { name: agreed(names)?, image, labels })
}

/// The name that all sources have. Storage keeps a list of names, of which podman uses one.
fn agreed(sources: Vec<(&'static str, Vec<String>)>) -> Result<Option<String>, IdentityError> {
    let Some((first, name)) = sources.iter().find_map(|(source, names)| Some((*source, names.first()?.clone()))) else {
        return Ok(None);
    };
    for (source, names) in &sources {
        if !names.is_empty() && !names.contains(&name) {
            return Err(IdentityError::Names { first, name, second: source, other: names.join(",") });
        }
    }
    Ok(Some(name))
}

/// The configuration from whichever database has the container. The reason otherwise is a clause for people.
fn config(roots: &[PathBuf], id: &str) -> Result<Config, String> {
    let mut reasons = Vec::new();
    for root in roots {
        for name in ["db.sql", "libpod/db.sql", "libpod/bolt_state.db"] {
            let path = root.join(name);
            if !path.exists() {
                continue;
            }
            let found = if name.ends_with(".sql") {
                sqlite::container_config(&path, id).map_err(|error| error.to_string())
            } else {
                bolt_config(&path, id)
            };
            match found {
                Ok(Some(json)) => match parse(&json, id) {
                    Ok(config) => return Ok(config),
                    Err(reason) => reasons.push(format!("{}: {reason}", path.display())),
                },
                Ok(None) => reasons.push(format!("{} does not have the container", path.display())),
                Err(reason) => reasons.push(format!("{}: {reason}", path.display())),
            }
        }
    }
    if reasons.is_empty() {
        let places: Vec<String> = roots.iter().map(|root| root.display().to_string()).collect();
        return Err(format!("podman's database (db.sql, libpod/bolt_state.db) is not in {}", places.join(" or ")));
    }
    Err(reasons.join("; "))
}

fn parse(json: &[u8], id: &str) -> Result<Config, String> {
    let config: Config =
        serde_json::from_slice(json).map_err(|error| format!("the container's entry is not libpod's: {error}"))?;
    if config.id == id { Ok(config) } else { Err("the container's entry is another container's".to_owned()) }
}

fn bolt_config(path: &Path, id: &str) -> Result<Option<Vec<u8>>, String> {
    let file = host::open_regular(rustix::fs::CWD, path, path).map_err(|error: ReadError| error.to_string())?;
    bolt::lookup(&file, &[b"ctr", id.as_bytes()], b"config").map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_graph_root_is_told_by_the_bundle() {
        let layout = |path: &str| Layout::of_bundle(Path::new(path), "c1");
        let found = layout("/data/graph/overlay-containers/c1/userdata").unwrap();
        assert_eq!((found.root.as_path(), found.containers.as_str()), (Path::new("/data/graph"), "overlay-containers"));
        assert_eq!(layout("/vfs-containers/c1/userdata").unwrap().root, Path::new("/"));
        for path in [
            "/run/containerd/io.containerd.runtime.v2.task/k8s.io/c1",
            "/x-containers/c2/userdata",
            "/x/c1/userdata",
            "/",
            "/userdata",
        ] {
            assert_eq!(layout(path), None, "{path}");
        }
    }

    #[test]
    fn sources_have_to_agree_on_the_name() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let same = vec![("a", names(&["web"])), ("b", names(&["old", "web"])), ("c", names(&[]))];
        assert_eq!(agreed(same).unwrap().as_deref(), Some("web"));
        assert_eq!(agreed(vec![("a", names(&[]))]).unwrap(), None);
        let error = agreed(vec![("libpod's database", names(&["web"])), ("conmon", names(&["db"]))]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "libpod's database calls the container \"web\" and conmon \"db\"; a rename may be under way, start the container again"
        );
    }
}
