//! Which policies hold for a container or a host.
//!
//! Outside Kubernetes a container's namespace is [`CONTAINER_NAMESPACE`]. A `KubeArmorPolicy` that names no namespace is for
//! containers there, and so is one that names that namespace; one that names another was written for a cluster and selects
//! nothing, `default` included: in a cluster that is a namespace like any other. In Kubernetes a policy without a namespace is
//! in `default`, as every object is.
//!
//! Facts outrank labels: whoever starts a container may label it at will, but not pass it off as another image or another name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::meaning::{Posture, Postures, Rule, RuleSet};
use crate::policy::{Kind, Policy, Unenforced};
use crate::written::{ContainerNames, Expression, ExpressionKey, HostNames, Operator};

/// The namespace of containers outside Kubernetes.
pub const CONTAINER_NAMESPACE: &str = "container_namespace";
/// Where Kubernetes puts what names no namespace.
const DEFAULT_NAMESPACE: &str = "default";
/// The label that is a container's image.
pub const IMAGE_LABEL: &str = "kubearmor.io/image";
/// The label that is a container's name.
pub const NAME_LABEL: &str = "kubearmor.io/container.name";
/// The annotation that turns policies off, or to audit, for a container.
pub const MODE_ANNOTATION: &str = "kubearmor-policy";

/// What is known of a container when it is started.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ContainerFacts {
    /// The engine's id of it.
    pub id: String,
    /// Its name; in Kubernetes that of the container in its pod.
    pub name: String,
    /// Its image, as it was asked for.
    pub image: String,
    /// The pod's labels, or those of the engine (`podman run --label`).
    pub labels: BTreeMap<String, String>,
    /// The pod's annotations, or the OCI annotations.
    pub annotations: BTreeMap<String, String>,
    /// The pod's namespace; not read outside Kubernetes.
    pub namespace: String,
    /// Whether it is a pod's.
    pub orchestrated: bool,
    /// The annotations of the pod's namespace.
    pub namespace_annotations: BTreeMap<String, String>,
    /// The pod's name; empty outside Kubernetes, and where nobody told it. It selects nothing: alerts carry it.
    #[serde(default)]
    pub pod: String,
    /// What the pod belongs to, where somebody told it. It selects nothing either.
    #[serde(default)]
    pub owner: Option<Owner>,
}

/// The workload that a pod belongs to, in the pod's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Owner {
    /// Its kind, e.g. `Deployment`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// What is known of a host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HostFacts {
    /// Its name.
    pub hostname: String,
    /// The node's labels.
    pub labels: BTreeMap<String, String>,
}

/// Whether policies are enforced on a container, by its annotation `kubearmor-policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// They are.
    #[default]
    Enabled,
    /// None is: the set is empty.
    Disabled,
    /// Nothing is denied; what would be, alerts. The set is what it would be if they were enforced.
    Audited,
}

/// What holds for a container or a host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Selection {
    /// Its rules and postures. Rules are in the order of their origins, so that equal policies make equal sets.
    pub set: RuleSet,
    /// The policies that select it, as [`Policy::id`]s, sorted.
    pub policies: Vec<String>,
    /// Whether they are enforced.
    pub mode: Mode,
    /// What those policies say that is not enforced.
    pub unenforced: Vec<Unenforced>,
}

/// What of `policies` holds for a container, with `defaults` for postures that nothing sets.
#[must_use]
pub fn select(policies: &[Policy], facts: &ContainerFacts, defaults: Postures) -> Selection {
    let mode = match facts.annotations.get(MODE_ANNOTATION).map(String::as_str) {
        Some("disabled") => Mode::Disabled,
        Some("audited") => Mode::Audited,
        _ => Mode::Enabled,
    };
    // Outside Kubernetes nothing stands above the container that could carry annotations.
    let annotations = if facts.orchestrated { &facts.namespace_annotations } else { &facts.annotations };
    let postures = Postures {
        file: posture(annotations, "kubearmor-file-posture", defaults.file),
        network: posture(annotations, "kubearmor-network-posture", defaults.network),
        capabilities: posture(annotations, "kubearmor-capabilities-posture", defaults.capabilities),
    };
    gather(policies.iter().filter(|policy| applies(policy, facts).is_ok()), postures, mode)
}

/// What of `policies` holds for a host.
#[must_use]
pub fn select_host(policies: &[Policy], facts: &HostFacts, defaults: Postures) -> Selection {
    let selected = |policy: &&Policy| policy.kind == Kind::KubeArmorHostPolicy && selects_host(policy, facts);
    gather(policies.iter().filter(selected), defaults, Mode::Enabled)
}

/// Why a policy does not select a container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotSelected {
    /// It is for hosts.
    #[error("it is for hosts")]
    Host,
    /// Its namespace is not the container's.
    #[error("it is for namespace `{policy}` and the container is in `{container}`")]
    Namespace {
        /// The policy's.
        policy: String,
        /// The container's.
        container: String,
    },
    /// `matchLabels` wants a label that the container does not have.
    #[error("the container has not the label `{0}`")]
    Label(String),
    /// It is for containers of another name.
    #[error("it is not for containers named `{0}`")]
    Name(String),
    /// One of `matchExpressions`, by its index, does not hold.
    #[error("`matchExpressions[{0}]` does not hold for the container")]
    Expression(usize),
}

/// Whether `policy` selects a container, and if not, the first reason why.
pub fn applies(policy: &Policy, facts: &ContainerFacts) -> Result<(), NotSelected> {
    let namespace = if facts.orchestrated { facts.namespace.as_str() } else { CONTAINER_NAMESPACE };
    let selector = &policy.selector;
    match policy.kind {
        Kind::KubeArmorHostPolicy => return Err(NotSelected::Host),
        Kind::KubeArmorNetworkPolicy if !selector.hosts.is_empty() || !selector.node_labels.is_empty() => {
            return Err(NotSelected::Host);
        }
        Kind::KubeArmorPolicy => {
            let own = match &*policy.namespace {
                "" if facts.orchestrated => DEFAULT_NAMESPACE,
                "" => CONTAINER_NAMESPACE,
                own => own,
            };
            if own != namespace {
                return Err(NotSelected::Namespace { policy: own.to_owned(), container: namespace.to_owned() });
            }
        }
        Kind::KubeArmorClusterPolicy | Kind::KubeArmorNetworkPolicy => {}
    }
    if let Some((name, value)) = selector.labels.iter().find(|(name, value)| label(facts, name) != Some(value.as_str())) {
        return Err(NotSelected::Label(format!("{name}={value}")));
    }
    let named = match &selector.containers {
        None | Some(ContainerNames::All) => true,
        Some(ContainerNames::List(names)) => names.contains(&facts.name),
        Some(ContainerNames::Bare(pattern)) if facts.orchestrated => pattern.text() == facts.name,
        Some(ContainerNames::Bare(pattern)) => pattern.matches(&facts.name),
    };
    if !named {
        return Err(NotSelected::Name(facts.name.clone()));
    }
    match selector.expressions.iter().position(|expression| !holds(expression, facts, namespace)) {
        Some(index) => Err(NotSelected::Expression(index)),
        None => Ok(()),
    }
}

/// The value of label `name`.
fn label<'a>(facts: &'a ContainerFacts, name: &str) -> Option<&'a str> {
    match name {
        IMAGE_LABEL => Some(facts.image.as_str()),
        NAME_LABEL => Some(facts.name.as_str()),
        _ => facts.labels.get(name).or_else(|| facts.annotations.get(name).filter(|_| !facts.orchestrated)).map(String::as_str),
    }
}

fn holds(expression: &Expression, facts: &ContainerFacts, namespace: &str) -> bool {
    let present = expression.values.iter().any(|value| match expression.key {
        ExpressionKey::Namespace => value == namespace,
        ExpressionKey::Label => value.split_once('=').is_some_and(|(name, value)| label(facts, name) == Some(value)),
    });
    match expression.operator {
        Operator::In => present,
        Operator::NotIn => !present,
    }
}

fn selects_host(policy: &Policy, facts: &HostFacts) -> bool {
    policy.selector.node_labels.iter().all(|(name, value)| facts.labels.get(name) == Some(value))
        && policy.selector.hosts.iter().all(|hosts| match hosts {
            HostNames::All => true,
            HostNames::List(names) => names.contains(&facts.hostname),
            HostNames::Pattern(pattern) => pattern.matches(&facts.hostname),
        })
}

/// A posture from annotations. KubeArmor takes `allow` for `audit`; what is neither says nothing.
fn posture(annotations: &BTreeMap<String, String>, name: &str, default: Posture) -> Posture {
    match annotations.get(name).map(|value| value.trim().to_ascii_lowercase()).as_deref() {
        Some("block") => Posture::Block,
        Some("audit" | "allow") => Posture::Audit,
        _ => default,
    }
}

fn gather<'a>(selected: impl Iterator<Item = &'a Policy>, postures: Postures, mode: Mode) -> Selection {
    let mut selection = Selection { set: RuleSet { rules: Vec::new(), postures }, mode, ..Selection::default() };
    for policy in selected {
        selection.policies.push(policy.id());
        selection.unenforced.extend(policy.unenforced.iter().cloned());
        if mode != Mode::Disabled {
            selection.set.rules.extend(policy.rules.iter().cloned());
        }
    }
    selection.policies.sort();
    selection.policies.dedup();
    selection.set.rules.sort_by(|a, b| order(a).cmp(&order(b)));
    selection
}

/// The order of rules in a set.
fn order(rule: &Rule) -> impl Ord + '_ {
    let origin = &rule.origin;
    (&origin.kind, &origin.namespace, &origin.policy, &origin.file, origin.line, origin.column, &origin.field)
}
