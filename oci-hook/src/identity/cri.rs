//! Who a Kubernetes container is, by the annotations that CRI-O and containerd put into its configuration.
//!
//! CRI-O tells everything: a container's own annotations (internal/factory/container, SpecAddAnnotations), and the pod's
//! labels in the annotations of its sandbox, whose bundle is a sibling of the container's. containerd tells names only
//! (internal/cri/annotations); the pod's labels reach an NRI plugin, not a hook.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::podman::Layout;
use super::{Engine, Fact, Identity};
use crate::bundle::MAX_CONFIG_BYTES;
use portcullis_enforcer::place::host;

/// Set by containerd on containers and sandboxes.
pub(super) const CONTAINERD_SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";

type Annotations = BTreeMap<String, String>;

/// A container of CRI-O. `io.kubernetes.pod.namespace` and `io.kubernetes.container.name` are kubelet's labels.
pub fn crio(id: &str, bundle: &Path, annotations: &Annotations) -> Identity {
    let get = |keys: &[&str]| keys.iter().find_map(|key| annotations.get(*key).cloned());
    let sandbox = get(&["io.kubernetes.cri-o.SandboxID"]);
    let labels = match sandbox.as_deref() {
        Some(sandbox) => sandbox_labels(id, bundle, sandbox),
        None => Err("CRI-O did not annotate the container with its sandbox".to_owned()),
    };
    Identity {
        engine: Engine::CriO,
        name: known(
            get(&["io.kubernetes.container.name", "io.kubernetes.cri-o.ContainerName"]),
            "CRI-O did not annotate the container with its name",
        ),
        image: known(
            get(&["io.kubernetes.cri-o.ImageName", "io.kubernetes.cri-o.Image"]),
            "CRI-O did not annotate the container with its image",
        ),
        labels: labels.map_or_else(Fact::Unknown, Fact::Known),
        namespace: get(&["io.kubernetes.pod.namespace", "io.kubernetes.cri-o.Namespace"]),
        pod: get(&["io.kubernetes.pod.name"]),
        sandbox: sandbox.as_deref() == Some(id),
    }
}

/// A container of containerd.
pub fn containerd(id: &str, annotations: &Annotations) -> Identity {
    let get = |key: &str| annotations.get(key).cloned();
    Identity {
        engine: Engine::Containerd,
        name: known(get("io.kubernetes.cri.container-name"), "containerd did not annotate the container with its name"),
        image: known(get("io.kubernetes.cri.image-name"), "containerd did not annotate the container with its image"),
        labels: Fact::Unknown("containerd does not tell a pod's labels to hooks".to_owned()),
        namespace: get("io.kubernetes.cri.sandbox-namespace"),
        pod: get("io.kubernetes.cri.sandbox-name"),
        // A pod can't know the id that its own container will get, so it can't pretend to be a sandbox.
        sandbox: get(CONTAINERD_SANDBOX_ID).as_deref() == Some(id),
    }
}

fn known(fact: Option<String>, otherwise: &str) -> Fact<String> {
    Fact::from_option(fact.filter(|fact| !fact.is_empty()), || otherwise.to_owned())
}

/// The labels of the pod: annotation `io.kubernetes.cri-o.Labels` (JSON) in the sandbox's `config.json`.
fn sandbox_labels(id: &str, bundle: &Path, sandbox: &str) -> Result<BTreeMap<String, String>, String> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        annotations: Annotations,
    }

    let layout =
        Layout::of_bundle(bundle, id).ok_or_else(|| format!("the bundle {} is not where CRI-O puts one", bundle.display()))?;
    if !sandbox.bytes().all(|byte| byte.is_ascii_hexdigit()) || sandbox.is_empty() {
        return Err("the sandbox's id is not one of CRI-O's".to_owned());
    }
    let path = layout.root.join(layout.containers).join(sandbox).join("userdata/config.json");
    let bytes = host::read(&path, MAX_CONFIG_BYTES).map_err(|error| error.to_string())?;
    let config: Config = serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
    let labels =
        config.annotations.get("io.kubernetes.cri-o.Labels").ok_or_else(|| format!("{} has no labels", path.display()))?;
    serde_json::from_str(labels).map_err(|error| format!("{}: the labels: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations(pairs: &[(&str, &str)]) -> Annotations {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn crio_labels_are_those_of_the_sandbox() {
        let dir = tempfile::tempdir().unwrap();
        let userdata = |id: &str| dir.path().join("overlay-containers").join(id).join("userdata");
        std::fs::create_dir_all(userdata("5a")).unwrap();
        std::fs::write(
            userdata("5a").join("config.json"),
            r#"{"annotations":{"io.kubernetes.cri-o.Labels":"{\"app\":\"web\",\"io.kubernetes.pod.uid\":\"u\"}"}}"#,
        )
        .unwrap();
        let mut facts = annotations(&[
            ("io.container.manager", "cri-o"),
            ("io.kubernetes.container.name", "nginx"),
            ("io.kubernetes.pod.namespace", "shop"),
            ("io.kubernetes.pod.name", "web-7d4b9"),
            ("io.kubernetes.cri-o.ImageName", "docker.io/library/nginx:1"),
            ("io.kubernetes.cri-o.SandboxID", "5a"),
        ]);
        let who = crio("c1", &userdata("c1"), &facts);
        assert_eq!(who.name, Fact::Known("nginx".to_owned()));
        assert_eq!((who.namespace.as_deref(), who.pod.as_deref()), (Some("shop"), Some("web-7d4b9")));
        assert_eq!(who.image, Fact::Known("docker.io/library/nginx:1".to_owned()));
        assert!(matches!(&who.labels, Fact::Known(labels) if labels["app"] == "web"));
        assert!(!who.sandbox && crio("5a", &userdata("5a"), &facts).sandbox);
        for sandbox in ["../5a", "", "5b"] {
            facts.insert("io.kubernetes.cri-o.SandboxID".to_owned(), sandbox.to_owned());
            assert!(matches!(crio("c1", &userdata("c1"), &facts).labels, Fact::Unknown(_)), "{sandbox}");
        }
    }

    #[test]
    fn containerd_has_names_but_no_labels() {
        let facts = annotations(&[
            (CONTAINERD_SANDBOX_ID, "s1"),
            ("io.kubernetes.cri.container-name", "nginx"),
            ("io.kubernetes.cri.sandbox-namespace", "shop"),
            ("io.kubernetes.cri.sandbox-name", "web-7d4b9"),
        ]);
        let who = containerd("c1", &facts);
        assert_eq!((who.name, who.pod.as_deref()), (Fact::Known("nginx".to_owned()), Some("web-7d4b9")));
        assert!(matches!(who.labels, Fact::Unknown(_)) && matches!(who.image, Fact::Unknown(_)));
        assert!(!who.sandbox && containerd("s1", &facts).sandbox);
    }
}
