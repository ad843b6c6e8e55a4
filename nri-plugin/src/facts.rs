//! Who a container is, by what NRI tells of it and its pod.

use std::collections::BTreeMap;

use nri::proto::{Container, PodSandbox};
use portcullis_policy::ContainerFacts;

/// Where runtimes write the image as it was asked for: containerd (internal/cri/annotations), CRI-O (pkg/annotations). From NRI
/// 0.12.1 on it has a field of its own.
const IMAGE_ANNOTATIONS: [&str; 3] =
    ["io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName", "io.kubernetes.cri-o.Image"];

/// The facts that select policies. Labels and annotations are the pod's: a container's own are the runtime's and the image's,
/// which whoever built the image chose.
#[must_use]
pub fn facts_of(pod: &PodSandbox, container: &Container) -> ContainerFacts {
    ContainerFacts {
        id: container.id.clone(),
        name: container.name.clone(),
        image: image(container),
        labels: pod.labels.clone(),
        annotations: pod.annotations.clone(),
        namespace: pod.namespace.clone(),
        orchestrated: true,
        pod: pod.name.clone(),
        // NRI does not tell those; in a cluster they come from its API.
        namespace_annotations: BTreeMap::new(),
        owner: None,
    }
}

fn image(container: &Container) -> String {
    let field = container.image.as_ref().map(|image| &image.name);
    let annotated = IMAGE_ANNOTATIONS.iter().filter_map(|key| container.annotations.get(*key));
    field.into_iter().chain(annotated).find(|image| !image.is_empty()).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use nri::proto::Image;

    use super::*;

    fn container(annotations: &[(&str, &str)], image: Option<&str>) -> Container {
        Container {
            id: "c1".to_owned(),
            name: "web".to_owned(),
            annotations: annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            labels: [("from".to_owned(), "the image".to_owned())].into(),
            image: image.map(|name| Image { name: name.to_owned(), ..Image::default() }),
            ..Container::default()
        }
    }

    #[test]
    fn labels_are_the_pods() {
        let pod = PodSandbox {
            name: "web-7d4b9".to_owned(),
            namespace: "shop".to_owned(),
            labels: [("app".to_owned(), "web".to_owned())].into(),
            annotations: [("kubearmor-policy".to_owned(), "audited".to_owned())].into(),
            ..PodSandbox::default()
        };
        let facts = facts_of(&pod, &container(&[], None));
        assert_eq!((facts.id.as_str(), facts.name.as_str(), facts.namespace.as_str()), ("c1", "web", "shop"));
        assert_eq!((facts.pod.as_str(), facts.owner), ("web-7d4b9", None));
        assert_eq!(facts.labels, BTreeMap::from([("app".to_owned(), "web".to_owned())]));
        assert_eq!(facts.annotations["kubearmor-policy"], "audited");
        assert!(facts.orchestrated && facts.image.is_empty());
    }

    #[test]
    fn the_image_is_where_the_runtime_puts_it() {
        let image = |annotations: &[(&str, &str)], field| facts_of(&PodSandbox::default(), &container(annotations, field)).image;
        assert_eq!(image(&[("io.kubernetes.cri.image-name", "docker.io/library/nginx:1")], None), "docker.io/library/nginx:1");
        assert_eq!(image(&[("io.kubernetes.cri-o.Image", "sha"), ("io.kubernetes.cri-o.ImageName", "nginx")], None), "nginx");
        assert_eq!(image(&[("io.kubernetes.cri-o.Image", "sha")], Some("")), "sha");
        assert_eq!(image(&[("io.kubernetes.cri.image-name", "a")], Some("b")), "b");
        assert_eq!(image(&[], None), "");
    }
}
