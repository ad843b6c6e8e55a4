//! What is told of a container: what its pod or it says itself, or what the configuration says.

use std::collections::BTreeMap;
use std::fmt;

use portcullis_ebpf::monitor::{self, Classes};
use portcullis_policy::ContainerFacts;
use portcullis_policy::select::CONTAINER_NAMESPACE;
use serde::{Deserialize, Serialize};

use crate::{Enforcer, Known, Monitor};

/// The annotation of a pod or container that says what is told of it: classes, separated by commas, or by blanks: Podman before 5
/// takes what follows a comma for the next annotation.
pub const VISIBILITY_ANNOTATION: &str = "kubearmor-visibility";
/// Longest that is read, in bytes. All words that KubeArmor knows take 45.
pub const MAX_VISIBILITY_BYTES: usize = 256;

/// The classes that can be told, in KubeArmor's words.
const CLASSES: [(&str, Classes); 4] = [
    ("process", Classes::PROCESS),
    ("file", Classes::FILE),
    ("network", Classes::NETWORK),
    ("capabilities", Classes::CAPABILITY),
];
/// KubeArmor's word for nothing.
const NONE: &str = "none";

/// What is told of a container, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visible {
    /// The classes.
    pub classes: Classes,
    /// What says so.
    pub by: VisibleBy,
    /// What was said and is not told, as a sentence.
    pub untold: Option<String>,
}

/// What says what is told of a container. The first that is there counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum VisibleBy {
    /// The annotation of its pod, or its own.
    Annotation,
    /// The annotation of its namespace, or the configuration's `monitor.namespaces`.
    Namespace,
    /// The configuration's `monitor.visibility`.
    Default,
}

impl fmt::Display for VisibleBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            VisibleBy::Annotation => "its annotation",
            VisibleBy::Namespace => "its namespace",
            VisibleBy::Default => "the configuration",
        })
    }
}

/// What decides which classes are a container's own, but for the configuration, of which only that of whoever names its events counts:
/// it may have changed since this was written. So these are the words themselves, and not what they came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Asks {
    /// The annotation of its pod, or its own; not one that is too long to be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    annotation: Option<String>,
    /// The annotation of its namespace, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace_annotation: Option<String>,
    /// Its namespace's name in `monitor.namespaces`.
    namespace: String,
}

impl Asks {
    /// What a container asks for.
    #[must_use]
    pub fn of(facts: &ContainerFacts) -> Asks {
        let readable = |annotations: &BTreeMap<String, String>| {
            annotations.get(VISIBILITY_ANNOTATION).filter(|text| text.len() <= MAX_VISIBILITY_BYTES).cloned()
        };
        Asks {
            annotation: readable(&facts.annotations),
            namespace_annotation: readable(&facts.namespace_annotations),
            namespace: namespace(facts).to_owned(),
        }
    }
}

/// The name by which the configuration has a container's namespace.
fn namespace(facts: &ContainerFacts) -> &str {
    if facts.orchestrated { &facts.namespace } else { CONTAINER_NAMESPACE }
}

/// The class of a word.
pub(crate) fn class(word: &str) -> Option<Classes> {
    CLASSES.into_iter().find(|(name, _)| *name == word).map(|(_, class)| class)
}

/// The words that there are.
pub(crate) fn words() -> String {
    CLASSES.map(|(name, _)| name).join(", ")
}

/// The words of these classes.
#[must_use]
pub fn words_of(classes: Classes) -> Vec<&'static str> {
    CLASSES.into_iter().filter(|(_, class)| classes.contain(*class)).map(|(name, _)| name).collect()
}

impl Visible {
    fn own(&self) -> Option<Classes> {
        (self.by != VisibleBy::Default).then_some(self.classes)
    }
}

impl Monitor {
    /// What is told of a container. What an annotation says and nobody can tell takes nothing from the rest of it.
    #[must_use]
    pub fn of(&self, facts: &ContainerFacts) -> Visible {
        let [own, of_namespace] =
            [&facts.annotations, &facts.namespace_annotations].map(|texts| texts.get(VISIBILITY_ANNOTATION));
        self.decide(own.map(String::as_str), of_namespace.map(String::as_str), namespace(facts))
    }

    fn decide(&self, annotation: Option<&str>, namespace_annotation: Option<&str>, namespace: &str) -> Visible {
        let mut untold = None;
        for (text, by) in [(annotation, VisibleBy::Annotation), (namespace_annotation, VisibleBy::Namespace)] {
            match text.map(annotated) {
                Some(Ok((classes, unknown))) => return Visible { classes, by, untold: untold.or(unknown) },
                Some(Err(why)) => untold = untold.or(Some(why)),
                None => {}
            }
        }
        match self.namespaces.get(namespace) {
            Some(classes) => Visible { classes: *classes, by: VisibleBy::Namespace, untold },
            None => Visible { classes: self.visibility.containers, by: VisibleBy::Default, untold },
        }
    }

    /// The same of a container that says so itself, or whose namespace does.
    #[must_use]
    pub fn own(&self, facts: &ContainerFacts) -> Option<Classes> {
        self.of(facts).own()
    }

    /// The same by what is on record of one that is armed.
    #[must_use]
    pub fn own_by(&self, asks: &Asks) -> Option<Classes> {
        self.decide(asks.annotation.as_deref(), asks.namespace_annotation.as_deref(), &asks.namespace).own()
    }
}

impl Enforcer {
    /// Has told of a container what it asks for, from its first instruction on. Only where somebody reads what is told: the agent, which
    /// does the same as soon as it sees the record, and tells where it cannot. So what fails here is nobody's loss.
    pub(crate) fn show(&self, known: &Known) {
        let Some((classes, place)) = self.config().monitor.own(&known.facts).zip(known.place.as_ref()) else { return };
        if let Ok(monitor) = monitor::Monitor::open()
            && monitor.visibility().is_ok_and(|visibility| visibility != monitor::Visibility::default())
        {
            drop(monitor.set_override(place.cgroup_id, classes | Classes::PROCESS));
        }
    }

    /// Takes that back before the record goes, likewise.
    pub(crate) fn hide(&self, id: &str) {
        let Ok(Some(known)) = self.state().known(id) else { return };
        if let Some((_, place)) = self.config().monitor.own(&known.facts).zip(known.place.as_ref())
            && let Ok(monitor) = monitor::Monitor::open()
        {
            drop(monitor.remove_override(place.cgroup_id));
        }
    }
}

/// The classes of an annotation, and what it has besides; or why it does not count.
fn annotated(text: &str) -> Result<(Classes, Option<String>), String> {
    if text.len() > MAX_VISIBILITY_BYTES {
        return Err(format!(
            "{VISIBILITY_ANNOTATION} has {} bytes and is not read; it may have {MAX_VISIBILITY_BYTES}",
            text.len()
        ));
    }
    let (mut classes, mut unknown) = (Classes::NONE, Vec::new());
    let is_between = |letter: char| letter == ',' || letter.is_whitespace();
    for word in text.split(is_between).filter(|word| !word.is_empty() && *word != NONE) {
        match class(word) {
            Some(class) => classes |= class,
            None => unknown.push(format!("{word:?}")),
        }
    }
    let told = |unknown: Vec<String>| {
        let words = words();
        format!(
            "{VISIBILITY_ANNOTATION} has {}, which is not told; the classes that can be told are: {words}",
            unknown.join(", ")
        )
    };
    Ok((classes, (!unknown.is_empty()).then(|| told(unknown))))
}

#[cfg(test)]
mod tests {
    use portcullis_ebpf::monitor::Visibility;

    use super::*;

    fn annotations(text: &str) -> BTreeMap<String, String> {
        [(VISIBILITY_ANNOTATION.to_owned(), text.to_owned())].into()
    }

    fn by(annotation: &str) -> Visible {
        let facts = ContainerFacts { annotations: annotations(annotation), ..ContainerFacts::default() };
        Monitor::default().of(&facts)
    }

    #[test]
    fn an_annotation_is_a_list_of_classes() {
        for (text, classes) in [
            ("process,file", Classes::PROCESS | Classes::FILE),
            (" network ,capabilities,network", Classes::NETWORK | Classes::CAPABILITY),
            ("process,file,network,capabilities", Classes::ALL),
            ("none", Classes::NONE),
            ("", Classes::NONE),
            ("none,file", Classes::FILE),
            ("process file", Classes::PROCESS | Classes::FILE),
        ] {
            assert_eq!(by(text), Visible { classes, by: VisibleBy::Annotation, untold: None }, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_class_is_said_and_takes_nothing_from_the_rest() {
        let visible = by("dns,file,File\n,ima");
        assert_eq!((visible.classes, visible.by), (Classes::FILE, VisibleBy::Annotation));
        let untold = visible.untold.unwrap();
        assert!(untold.starts_with(r#"kubearmor-visibility has "dns", "File", "ima", which is not told; "#), "{untold}");
        assert_eq!(by("proces").classes, Classes::NONE, "it does not mean the default");
    }

    #[test]
    fn one_that_is_too_long_is_not_read_and_says_so() {
        let most = format!("file{}", ",".repeat(MAX_VISIBILITY_BYTES - 4));
        assert_eq!(by(&most).classes, Classes::FILE);
        let visible = by(&format!("{most},"));
        assert_eq!((visible.classes, visible.by), (Classes::PROCESS, VisibleBy::Default));
        assert_eq!(visible.untold.unwrap(), "kubearmor-visibility has 257 bytes and is not read; it may have 256");
        let long = annotations(&format!("{most},"));
        let facts = ContainerFacts { annotations: long.clone(), namespace_annotations: long, ..ContainerFacts::default() };
        let nothing = Asks::of(&ContainerFacts::default());
        assert_eq!(Asks::of(&facts), nothing, "nor is it put on record");
        assert_eq!(Monitor::default().own_by(&nothing), None);
    }

    #[test]
    fn a_container_comes_before_its_namespace_and_that_before_the_default() {
        let visibility = Visibility { host: Classes::NONE, containers: Classes::NETWORK };
        let namespaces = [("shop", Classes::FILE), (CONTAINER_NAMESPACE, Classes::CAPABILITY)];
        let namespaces = namespaces.map(|(name, classes)| (name.to_owned(), classes)).into();
        let monitor = Monitor { visibility, namespaces, ..Monitor::default() };
        let pod =
            |namespace: &str| ContainerFacts { namespace: namespace.to_owned(), orchestrated: true, ..ContainerFacts::default() };
        let of = |facts: &ContainerFacts| {
            let visible = monitor.of(facts);
            let asks = serde_json::from_str(&serde_json::to_string(&Asks::of(facts)).unwrap()).unwrap();
            assert_eq!(monitor.own_by(&asks), monitor.own(facts), "on record it asks for the same: {asks:?}");
            (visible.classes, visible.by)
        };
        assert_eq!(of(&pod("bank")), (Classes::NETWORK, VisibleBy::Default));
        assert_eq!(of(&pod("shop")), (Classes::FILE, VisibleBy::Namespace));
        let bare = ContainerFacts { namespace: "shop".to_owned(), ..ContainerFacts::default() };
        assert_eq!(of(&bare), (Classes::CAPABILITY, VisibleBy::Namespace), "outside Kubernetes there is one namespace");
        let above = ContainerFacts { namespace_annotations: annotations("process"), ..pod("shop") };
        assert_eq!(of(&above), (Classes::PROCESS, VisibleBy::Namespace));
        let own = ContainerFacts { annotations: annotations("none"), ..above };
        assert_eq!(of(&own), (Classes::NONE, VisibleBy::Annotation));
    }
}
