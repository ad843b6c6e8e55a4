//! Fields that the language does not have. Nearly all of them are typing errors or wrong indentation, and each would make a
//! policy do less than it says.

use super::context::Context;
use super::fields::{COMMON, join};
use crate::diagnostic::quote;
use crate::suggest;
use crate::yaml::{Key, Node};

/// The fields of a spec, of any kind.
const SPEC_FIELDS: [&str; 13] = [
    "selector",
    "nodeSelector",
    "process",
    "file",
    "network",
    "capabilities",
    "syscalls",
    "device",
    "presets",
    "apparmor",
    "ingress",
    "egress",
    "level",
];

/// Reports that the mapping at `path` has no field `key`; it has `known`.
pub(super) fn report(cx: &Context<'_>, key: &Key, value: &Node, path: &str, known: &[&str]) {
    let field = join(path, &key.text);
    let place = if path.is_empty() { "the document".to_owned() } else { format!("`{path}`") };
    let message = format!("{place} has no field {}", quote(&key.text));
    let help = help(key, value, path, known);
    // An empty field says nothing that could be lost. A field that is lost from a selector makes it select more: no leniency.
    if value.is_null() || (cx.lenient && !is_selector(path)) {
        cx.warn(key.at, &field, format!("{message}; it is ignored"), help);
    } else {
        cx.error(key.at, &field, message, help);
    }
}

fn is_selector(path: &str) -> bool {
    path.ends_with("elector") || path.contains(".matchExpressions[")
}

fn help(key: &Key, value: &Node, path: &str, known: &[&str]) -> String {
    let name = &*key.text;
    if name == "<<" {
        return "merge keys are not supported: write the fields out".to_owned();
    }
    if path.is_empty() && matches!(name, "version" | "Version" | "apiversion" | "ApiVersion" | "api") {
        return "did you mean `apiVersion`?".to_owned();
    }
    if path.is_empty() && matches!(name, "name" | "namespace") {
        return format!("indent it, so that it stands in `metadata`: `metadata.{name}`");
    }
    if path.is_empty() && (SPEC_FIELDS.contains(&name) || COMMON.contains(&name)) {
        return format!("indent it, so that it stands in `spec`: `spec.{name}`");
    }
    if path == "spec" && matches!(name, "selector" | "nodeSelector") {
        return match known.contains(&"nodeSelector") {
            true => "this kind of policy selects hosts: use `nodeSelector.matchLabels`".to_owned(),
            false => "this kind of policy selects containers: use `selector`".to_owned(),
        };
    }
    if path == "spec.selector" && name == "matchLabels" {
        return "write `matchExpressions: [{key: label, operator: In, values: [\"name=value\"]}]`".to_owned();
    }
    if path.ends_with("elector") && suggest::nearest(name, known.iter().copied()).is_none() && value.text().is_some() {
        return match known.contains(&"matchLabels") {
            true => format!("indent it, so that it stands in `matchLabels`: `{path}.matchLabels.{name}`"),
            false => format!("write `matchExpressions: [{{key: label, operator: In, values: [\"{name}=…\"]}}]`"),
        };
    }
    if path.contains(".fromSource[") && matches!(name, "dir" | "recursive" | "pattern") {
        return "a source is an executable: give its `path`".to_owned();
    }
    if let Some(section) = path.strip_prefix("spec.")
        && SPEC_FIELDS.contains(&name)
        && !section.contains('.')
    {
        return format!("correct its indentation, so that it stands in `spec`: `spec.{name}`");
    }
    match suggest::nearest(name, known.iter().copied()) {
        Some(word) => format!("did you mean `{word}`?"),
        None if known.is_empty() => "remove it".to_owned(),
        None => format!("remove it, or correct its indentation; the fields here are {}", known.join(", ")),
    }
}
