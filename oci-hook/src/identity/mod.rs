//! Who a container is, by what its engine wrote down: name, image, labels, namespace.
//!
//! The hook asks no daemon. Each engine has its file here that knows where it leaves these facts. A fact that can't be read is
//! [`Known::No`] with the reason and never an empty value: "no labels" would select fewer policies than the author wrote.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::bundle::Bundle;
use crate::host::Host;

pub mod bolt;
pub mod conmon;
pub mod cri;
pub mod podman;
pub mod sqlite;
pub mod storage;

/// A fact, or why it can't be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known<T> {
    /// The fact.
    Yes(T),
    /// A clause that says what is missing.
    No(String),
}

impl<T> Known<T> {
    fn from_option(fact: Option<T>, otherwise: impl FnOnce() -> String) -> Known<T> {
        fact.map_or_else(|| Known::No(otherwise()), Known::Yes)
    }
}

/// Who started the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Podman, as root.
    Podman,
    /// CRI-O.
    CriO,
    /// containerd, through the CRI.
    Containerd,
    /// None of these, or none at all.
    Other,
}

/// What selects policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Who says so.
    pub engine: Engine,
    /// The container's name: podman's, or the one in its pod.
    pub name: Known<String>,
    /// The image by name.
    pub image: Known<String>,
    /// The container's labels; in Kubernetes the pod's.
    pub labels: Known<BTreeMap<String, String>>,
    /// The Kubernetes namespace.
    pub namespace: Option<String>,
    /// The container is a pod's sandbox: the engine's own pause process, none of the user's.
    pub sandbox: bool,
}

/// Contradictions in what an engine wrote.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The annotations say podman, the place does not.
    #[error(
        "the container says that it is podman's, but its bundle {bundle} is not in a podman storage (…-containers/ID/userdata); remove the annotation io.container.manager"
    )]
    PodmanBundle {
        /// The bundle.
        bundle: PathBuf,
    },
    /// Two names for one container.
    #[error("{first} calls the container {name:?} and {second} {other:?}; a rename may be under way, start the container again")]
    Names {
        /// A source.
        first: &'static str,
        /// Its name for the container.
        name: String,
        /// Another source.
        second: &'static str,
        /// What that one has.
        other: String,
    },
}

/// The engine, by the annotations that it sets itself. Podman and CRI-O share annotation names (podman writes
/// `io.kubernetes.cri-o.TTY`), so the manager decides first; engines set it after the user's annotations.
pub fn engine(annotations: &BTreeMap<String, String>) -> Engine {
    match annotations.get("io.container.manager").map(String::as_str) {
        Some("libpod") => Engine::Podman,
        Some("cri-o") => Engine::CriO,
        _ if annotations.contains_key(cri::CONTAINERD_SANDBOX_ID) => Engine::Containerd,
        _ => Engine::Other,
    }
}

/// Collects who the container is.
pub fn identify(
    host: &Host,
    id: &str,
    bundle: &Bundle,
    annotations: &BTreeMap<String, String>,
) -> Result<Identity, IdentityError> {
    Ok(match engine(annotations) {
        Engine::Podman => {
            let found = podman::identify(host, id, &bundle.path)?;
            Identity {
                engine: Engine::Podman,
                name: Known::from_option(found.name, || "podman's files do not name it".to_owned()),
                image: Known::from_option(found.image, || "podman's files do not name its image".to_owned()),
                labels: found.labels,
                namespace: None,
                sandbox: false,
            }
        }
        Engine::CriO => cri::crio(id, &bundle.path, annotations),
        Engine::Containerd => cri::containerd(id, annotations),
        Engine::Other => {
            let missing = || format!("{} was made by an engine whose records Portcullis does not read", shown(&bundle.path));
            Identity {
                engine: Engine::Other,
                name: Known::No(missing()),
                image: Known::No(missing()),
                labels: Known::No(missing()),
                namespace: None,
                sandbox: false,
            }
        }
    })
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_decides_before_any_other_annotation() {
        let of =
            |pairs: &[(&str, &str)]| engine(&pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect());
        // As podman 4.3 writes it.
        assert_eq!(of(&[("io.container.manager", "libpod"), ("io.kubernetes.cri-o.TTY", "false")]), Engine::Podman);
        assert_eq!(of(&[("io.container.manager", "libpod"), ("io.kubernetes.cri.sandbox-id", "x")]), Engine::Podman);
        assert_eq!(of(&[("io.container.manager", "cri-o")]), Engine::CriO);
        assert_eq!(of(&[("io.kubernetes.cri.sandbox-id", "x")]), Engine::Containerd);
        assert_eq!(of(&[]), Engine::Other);
    }
}
