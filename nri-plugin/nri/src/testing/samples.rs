//! Pods and containers of a usual size.

use crate::proto::{Container, PodSandbox};

/// Annotations of a sample pod, and the bytes of each.
const ANNOTATIONS: (usize, usize) = (10, 100);
/// Variables in the environment of a sample container, and the bytes of each.
const VARIABLES: (usize, usize) = (40, 60);

/// A pod as a kubelet makes them: with the label `app`, and with annotations as tools leave them.
pub fn sample_pod(number: usize, namespace: &str, app: &str) -> PodSandbox {
    let name = format!("pod-{number}");
    let (annotations, bytes) = ANNOTATIONS;
    PodSandbox {
        id: format!("{number:064x}"),
        namespace: namespace.to_owned(),
        labels: [("app", app), ("io.kubernetes.pod.name", &name)].map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        annotations: (0..annotations).map(|n| (format!("example.com/annotation-{n}"), "x".repeat(bytes))).collect(),
        name,
        ..PodSandbox::default()
    }
}

/// The only container of the sample pod of this number, before it has a process.
pub fn sample_container(number: usize) -> Container {
    let (variables, bytes) = VARIABLES;
    Container {
        id: format!("{:064x}", number + (1 << 32)),
        pod_sandbox_id: format!("{number:064x}"),
        name: "main".to_owned(),
        args: vec!["/usr/bin/server".to_owned(); 5],
        env: (0..variables).map(|n| format!("VARIABLE_{n}={}", "x".repeat(bytes))).collect(),
        annotations: [("io.kubernetes.cri.image-name".to_owned(), "docker.io/library/server:1".to_owned())].into(),
        ..Container::default()
    }
}
