//! Who a container is, by what its engine wrote down: name, image, labels, namespace.
//!
//! The hook asks no daemon. Each engine has its file here that knows where it leaves these facts. A fact that can't be read is
//! [`Fact::Unknown`] with the reason and never an empty value: "no labels" would select fewer policies than the author wrote.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use portcullis_enforcer::Missing;
use portcullis_enforcer::place::Host;
use portcullis_policy::ContainerFacts;

use crate::bundle::Bundle;

pub mod bolt;
pub mod conmon;
pub mod cri;
pub mod docker;
pub mod podman;
pub mod sqlite;
pub mod storage;

/// A fact, or why it can't be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact<T> {
    /// The fact.
    Known(T),
    /// A clause that says what is missing.
    Unknown(String),
}

impl<T> Fact<T> {
    fn from_option(fact: Option<T>, otherwise: impl FnOnce() -> String) -> Fact<T> {
        fact.map_or_else(|| Fact::Unknown(otherwise()), Fact::Known)
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
    /// Docker.
    Docker,
    /// None of these, or none at all.
    Other,
}

/// What selects policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Who says so.
    pub engine: Engine,
    /// The container's name: podman's, or the one in its pod.
    pub name: Fact<String>,
    /// The image by name.
    pub image: Fact<String>,
    /// The container's labels; in Kubernetes the pod's.
    pub labels: Fact<BTreeMap<String, String>>,
    /// The Kubernetes namespace.
    pub namespace: Option<String>,
    /// The pod's name, where the engine wrote it down.
    pub pod: Option<String>,
    /// The container is a pod's sandbox: the engine's own pause process, none of the user's.
    pub sandbox: bool,
}

impl Identity {
    /// What the policies want to know, and what of it is unknown.
    #[must_use]
    pub fn facts(self, id: &str, annotations: BTreeMap<String, String>) -> (ContainerFacts, Missing) {
        fn split<T: Default>(fact: Fact<T>) -> (T, Option<String>) {
            match fact {
                Fact::Known(fact) => (fact, None),
                Fact::Unknown(reason) => (T::default(), Some(reason)),
            }
        }
        let (name, no_name) = split(self.name);
        let (image, no_image) = split(self.image);
        let (labels, no_labels) = split(self.labels);
        let facts = ContainerFacts {
            id: id.to_owned(),
            name,
            image,
            labels,
            annotations,
            namespace: self.namespace.unwrap_or_default(),
            orchestrated: matches!(self.engine, Engine::CriO | Engine::Containerd),
            namespace_annotations: BTreeMap::new(),
            pod: self.pod.unwrap_or_default(),
            owner: None,
        };
        (facts, Missing { name: no_name, image: no_image, labels: no_labels })
    }
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
                name: Fact::from_option(found.name, || "podman's files do not name it".to_owned()),
                image: Fact::from_option(found.image, || "podman's files do not name its image".to_owned()),
                labels: found.labels,
                namespace: None,
                pod: None,
                sandbox: false,
            }
        }
        Engine::CriO => cri::crio(id, &bundle.path, annotations),
        Engine::Containerd => cri::containerd(id, annotations),
        Engine::Docker | Engine::Other if docker::is_docker(id, &bundle.path) => docker::identify(id, bundle),
        Engine::Docker | Engine::Other => {
            let missing = || format!("{} was made by an engine whose records Portcullis does not read", shown(&bundle.path));
            Identity {
                engine: Engine::Other,
                name: Fact::Unknown(missing()),
                image: Fact::Unknown(missing()),
                labels: Fact::Unknown(missing()),
                namespace: None,
                pod: None,
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
