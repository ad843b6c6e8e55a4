//! `metadata`.

use super::fields::{Fields, join};
use crate::diagnostic::{Position, quote};
use crate::written::Kind;
use crate::yaml::Node;

/// Every field of Kubernetes' ObjectMeta: a policy that was exported from a cluster has most of them.
const FIELDS: [&str; 15] = [
    "name",
    "namespace",
    "labels",
    "annotations",
    "generateName",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "ownerReferences",
    "finalizers",
    "managedFields",
    "selfLink",
];

/// Longest name of an object, and of a namespace (RFC 1123 subdomain and label, as Kubernetes has them).
const MAX_NAME_CHARS: usize = 253;
const MAX_NAMESPACE_CHARS: usize = 63;

/// `metadata.name` and `metadata.namespace`.
pub(super) fn metadata(document: &Fields<'_>, kind: Kind) -> (String, String) {
    let cx = document.cx;
    let help = "write `metadata:` and below it, indented, `name: …`";
    let Some(node) = document.require("metadata", help) else { return Default::default() };
    let Some(fields) = Fields::open(cx, node, join("", "metadata"), &FIELDS, false) else { return Default::default() };
    let name = fields.require("name", "write `name: …`").and_then(|node| name(&fields, node)).unwrap_or_default();
    let namespace = fields.get("namespace").and_then(|node| namespace(&fields, node, kind)).unwrap_or_default();
    (name, namespace)
}

fn name(fields: &Fields<'_>, node: &Node) -> Option<String> {
    let text = fields.text("name")?;
    let valid = text.len() <= MAX_NAME_CHARS && text.split('.').all(|part| is_label(part, false));
    if valid {
        return Some(text.to_owned());
    }
    complain(fields, node, "name", text, MAX_NAME_CHARS);
    None
}

fn namespace(fields: &Fields<'_>, node: &Node, kind: Kind) -> Option<String> {
    let text = fields.text("namespace")?;
    if kind != Kind::KubeArmorPolicy {
        let help = "remove it; a KubeArmorClusterPolicy selects namespaces by `matchExpressions`, a KubeArmorPolicy by its own";
        fields.cx.warn(node.at, &fields.field("namespace"), format!("a {kind} has no namespace: this has no effect"), help);
        return None;
    }
    // `container_namespace`, the namespace of containers outside Kubernetes, has an underscore.
    if text.len() <= MAX_NAMESPACE_CHARS && is_label(text, true) {
        return Some(text.to_owned());
    }
    complain(fields, node, "namespace", text, MAX_NAMESPACE_CHARS);
    None
}

fn complain(fields: &Fields<'_>, node: &Node, name: &str, text: &str, most: usize) {
    let fixed: String = text
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '.' { c } else { '-' })
        .take(most)
        .collect();
    let fixed = fixed.trim_matches(['-', '.']);
    let help = match fixed.is_empty() {
        true => "use lower-case letters, digits and `-`".to_owned(),
        false => format!("use lower-case letters, digits and `-`, such as `{fixed}`"),
    };
    let at: Position = node.at;
    fields.cx.error(at, &fields.field(name), format!("{} is no valid {name}", quote(text)), help);
}

fn is_label(text: &str, underscore: bool) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || (underscore && c == '_');
    !text.is_empty() && text.chars().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}
