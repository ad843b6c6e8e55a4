//! What a container's unknown facts mean for the policies: an error for each policy that they might select, nothing for others.
//!
//! A selector is a conjunction. Where the known part of it already rules the container out, the unknown part does not matter;
//! where the known part holds and something unknown remains, nobody can say whether the policy applies.

use portcullis_policy::select::{IMAGE_LABEL, NAME_LABEL, applies};
use portcullis_policy::written::{ContainerNames, Expression, ExpressionKey};
use portcullis_policy::{ContainerFacts, Policy};
use serde::{Deserialize, Serialize};

/// The facts that nobody could tell, each with a clause that says what is missing. In [`ContainerFacts`] they are empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Missing {
    /// The name.
    pub name: Option<String>,
    /// The image.
    pub image: Option<String>,
    /// The labels.
    pub labels: Option<String>,
}

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

/// Refuses if an unknown fact decides whether one of the policies applies.
///
/// # Errors
/// [`Undecided`], for the first of them.
pub fn check(policies: &[Policy], facts: &ContainerFacts, missing: &Missing) -> Result<(), Undecided> {
    if *missing == Missing::default() {
        return Ok(());
    }
    for policy in policies {
        let (known, gap) = without_unknown(policy, missing);
        if let Some((what, reason)) = gap
            && applies(&known, facts).is_ok()
        {
            return Err(Undecided { policy: policy.id(), what, reason: reason.to_owned() });
        }
    }
    Ok(())
}

/// The policy with the unknown part of its selector taken out, and what was taken out first.
fn without_unknown<'m>(policy: &Policy, missing: &'m Missing) -> (Policy, Option<(&'static str, &'m str)>) {
    fn gap_of<'m>(what: &'static str, reason: &'m Option<String>) -> Option<(&'static str, &'m str)> {
        reason.as_deref().map(|reason| (what, reason))
    }
    let unknown = |label: &str| match label {
        IMAGE_LABEL => gap_of("image", &missing.image),
        NAME_LABEL => gap_of("name", &missing.name),
        _ => gap_of("labels", &missing.labels),
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
        let unknown = unknown(label);
        gap = gap.or(unknown);
        unknown.is_none()
    });
    known.selector.expressions.retain(|expression| {
        let unknown = of_expression(expression);
        gap = gap.or(unknown);
        unknown.is_none()
    });
    if !matches!(known.selector.containers, None | Some(ContainerNames::All))
        && let Some(unknown) = gap_of("name", &missing.name)
    {
        gap = gap.or(Some(unknown));
        known.selector.containers = None;
    }
    (known, gap)
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

    fn facts(labels: &[(&str, &str)]) -> ContainerFacts {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        ContainerFacts { id: "c1".into(), name: "web".into(), image: "i".into(), labels, ..ContainerFacts::default() }
    }

    #[test]
    fn unknown_labels_are_not_no_labels() {
        let missing = Missing { labels: Some("db.sql is gone".to_owned()), ..Missing::default() };
        let facts = facts(&[]);
        let error = check(&policy("    matchLabels:\n      app: web"), &facts, &missing).unwrap_err();
        assert_eq!(
            error.to_string(),
            "policy KubeArmorPolicy/p selects containers by labels, and this container's labels cannot be read: db.sql is gone; \
             select by something else, or repair what is named"
        );
        // By image, which is known: the policy is decided upon, either way.
        for image in ["i", "j"] {
            check(&policy(&format!("    matchLabels:\n      kubearmor.io/image: {image}")), &facts, &missing).unwrap();
        }
        // Another name: the labels do not matter.
        check(&policy("    matchLabels:\n      kubearmor.io/container.name: db\n      app: web"), &facts, &missing).unwrap();
        check(&policy("    matchLabels:\n      kubearmor.io/container.name: w.b\n      app: web"), &facts, &missing).unwrap_err();
    }

    #[test]
    fn known_labels_decide() {
        let facts = facts(&[("app", "web")]);
        for label in ["app: web", "app: db", "tier: x"] {
            check(&policy(&format!("    matchLabels:\n      {label}")), &facts, &Missing::default()).unwrap();
        }
    }

    #[test]
    fn a_name_that_is_unknown_matters_only_where_it_is_asked_for() {
        let facts = ContainerFacts { name: String::new(), ..facts(&[]) };
        let missing = Missing { name: Some("nobody knows".to_owned()), ..Missing::default() };
        let error = check(&policy("    matchLabels:\n      kubearmor.io/container.name: .*"), &facts, &missing).unwrap_err();
        assert_eq!((error.what, error.reason.as_str()), ("name", "nobody knows"));
        check(&policy("    matchLabels:\n      app: web"), &facts, &missing).unwrap();
    }
}
