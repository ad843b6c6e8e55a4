//! What a container's unknown facts mean for the policies: an error for each policy that they might select, nothing for others.
//!
//! A selector is a conjunction. Where the known part of it already rules the container out, the unknown part does not matter;
//! where the known part holds and something unknown remains, nobody can say whether the policy applies.

use std::collections::BTreeMap;

use portcullis_policy::select::{IMAGE_LABEL, NAME_LABEL, applies};
use portcullis_policy::written::{ContainerNames, Expression, ExpressionKey};
use portcullis_policy::{ContainerFacts, Policy};

use crate::identity::{Engine, Identity, Known};

/// A policy that cannot be decided upon.
#[derive(Debug, thiserror::Error)]
#[error(
    "policy {policy} selects containers by {what}, and this container's {what} cannot be read: {reason}; select by something else, or repair what is named"
)]
pub struct Undecided {
    /// The policy's id.
    pub policy: String,
    /// "labels", "name" or "image".
    pub what: &'static str,
    /// Why it is unknown.
    pub reason: String,
}

/// The facts as the policies want them; unknown ones are empty, see [`check`].
pub fn facts(id: &str, who: &Identity, annotations: BTreeMap<String, String>) -> ContainerFacts {
    fn or_empty<T: Default + Clone>(fact: &Known<T>) -> T {
        match fact {
            Known::Yes(fact) => fact.clone(),
            Known::No(_) => T::default(),
        }
    }
    ContainerFacts {
        id: id.to_owned(),
        name: or_empty(&who.name),
        image: or_empty(&who.image),
        labels: or_empty(&who.labels),
        annotations,
        namespace: who.namespace.clone().unwrap_or_default(),
        orchestrated: matches!(who.engine, Engine::CriO | Engine::Containerd),
        namespace_annotations: BTreeMap::new(),
    }
}

/// Refuses if an unknown fact decides whether one of the policies applies.
pub fn check(policies: &[Policy], who: &Identity, facts: &ContainerFacts) -> Result<(), Undecided> {
    for policy in policies {
        let (known, gap) = without_unknown(policy, who);
        if let Some((what, reason)) = gap
            && applies(&known, facts).is_ok()
        {
            return Err(Undecided { policy: policy.id(), what, reason: reason.to_owned() });
        }
    }
    Ok(())
}

/// The policy with the unknown part of its selector taken out, and what was taken out first.
fn without_unknown<'w>(policy: &Policy, who: &'w Identity) -> (Policy, Option<(&'static str, &'w str)>) {
    let unknown = |label: &str| match label {
        IMAGE_LABEL => missing("image", &who.image),
        NAME_LABEL => missing("name", &who.name),
        _ => missing("labels", &who.labels),
    };
    let of_expression = |expression: &Expression| match expression.key {
        ExpressionKey::Label => {
            expression.values.iter().find_map(|value| unknown(value.split_once('=').map_or(value.as_str(), |(label, _)| label)))
        }
        ExpressionKey::Namespace => None,
    };
    let mut gap = None;
    let mut known = policy.clone();
    known.selector.labels.retain(|label, _| {
        let missing = unknown(label);
        gap = gap.or(missing);
        missing.is_none()
    });
    known.selector.expressions.retain(|expression| {
        let missing = of_expression(expression);
        gap = gap.or(missing);
        missing.is_none()
    });
    if !matches!(known.selector.containers, None | Some(ContainerNames::All))
        && let Some(missing) = missing("name", &who.name)
    {
        gap = gap.or(Some(missing));
        known.selector.containers = None;
    }
    (known, gap)
}

fn missing<'w, T>(what: &'static str, fact: &'w Known<T>) -> Option<(&'static str, &'w str)> {
    match fact {
        Known::Yes(_) => None,
        Known::No(reason) => Some((what, reason)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn policy(selector: &str) -> Vec<Policy> {
        let text = format!(
            "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata:\n  name: p\nspec:\n  selector:\n{selector}\n  \
             process:\n    matchPaths:\n    - path: /bin/sh\n  action: Block\n"
        );
        let parsed = portcullis_policy::parse(Path::new("p.yaml"), text.as_bytes(), portcullis_policy::Options::default());
        parsed.documents.into_iter().map(|document| document.unwrap()).collect()
    }

    fn who(labels: Known<BTreeMap<String, String>>) -> Identity {
        Identity {
            engine: Engine::Podman,
            name: Known::Yes("web".to_owned()),
            image: Known::Yes("i".to_owned()),
            labels,
            namespace: None,
            sandbox: false,
        }
    }

    #[test]
    fn unknown_labels_are_not_no_labels() {
        let who = who(Known::No("db.sql is gone".to_owned()));
        let facts = facts("c1", &who, BTreeMap::new());
        let error = check(&policy("    matchLabels:\n      app: web"), &who, &facts).unwrap_err();
        assert_eq!(
            error.to_string(),
            "policy KubeArmorPolicy/p selects containers by labels, and this container's labels cannot be read: db.sql is gone; \
             select by something else, or repair what is named"
        );
        // By image, which is known: the policy is decided upon, either way.
        for image in ["i", "j"] {
            check(&policy(&format!("    matchLabels:\n      kubearmor.io/image: {image}")), &who, &facts).unwrap();
        }
        // Another name: the labels do not matter.
        check(&policy("    matchLabels:\n      kubearmor.io/container.name: db\n      app: web"), &who, &facts).unwrap();
        check(&policy("    matchLabels:\n      kubearmor.io/container.name: w.b\n      app: web"), &who, &facts).unwrap_err();
    }

    #[test]
    fn known_labels_decide() {
        let who = who(Known::Yes(BTreeMap::from([("app".to_owned(), "web".to_owned())])));
        let facts = facts("c1", &who, BTreeMap::new());
        for label in ["app: web", "app: db", "tier: x"] {
            check(&policy(&format!("    matchLabels:\n      {label}")), &who, &facts).unwrap();
        }
    }

    #[test]
    fn a_name_that_is_unknown_matters_only_where_it_is_asked_for() {
        let mut who = who(Known::Yes(BTreeMap::new()));
        who.name = Known::No("nobody knows".to_owned());
        let facts = facts("c1", &who, BTreeMap::new());
        let error = check(&policy("    matchLabels:\n      kubearmor.io/container.name: .*"), &who, &facts).unwrap_err();
        assert_eq!((error.what, error.reason.as_str()), ("name", "nobody knows"));
        check(&policy("    matchLabels:\n      app: web"), &who, &facts).unwrap();
    }
}
