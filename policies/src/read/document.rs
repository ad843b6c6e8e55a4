//! A whole document: what it is, and its parts.

use super::context::Context;
use super::fields::Fields;
use super::{metadata, rules, selector, traffic};
use crate::diagnostic::quote;
use crate::parse::Identity;
use crate::suggest;
use crate::written::{Document, Kind, Spec};
use crate::yaml::{Node, Value};

/// The `apiVersion` of every policy.
const API_VERSION: &str = "security.kubearmor.com/v1";

/// The identity of `node`.
pub(crate) fn identify(node: &Node) -> Identity {
    let text = |node: Option<&Node>, key: &str| node.and_then(|n| n.get(key)).and_then(Node::text).unwrap_or_default().to_owned();
    let metadata = node.get("metadata");
    Identity { kind: text(Some(node), "kind"), namespace: text(metadata, "namespace"), name: text(metadata, "name") }
}

/// Reads a document. `Ok(None)` is a document that is no policy and does not look like one; a warning says so.
/// `Err` means that there are errors in `cx`.
pub(crate) fn document(cx: &Context<'_>, node: &Node) -> Result<Option<Document>, ()> {
    if !matches!(node.value, Value::Mapping(_)) {
        let help = "write `apiVersion:`, `kind:`, `metadata:` and `spec:`";
        cx.error(node.at, "", format!("the document is {}, not a policy", node.describe()), help);
        return Err(());
    }
    if is_foreign(node) {
        let kind = node.get("kind").and_then(Node::text).unwrap_or_default();
        let help = format!("if it is meant as a policy, its `apiVersion` is `{API_VERSION}`");
        cx.warn(node.at, "kind", format!("{} is no kind of policy; the document is skipped", quote(kind)), help);
        return Ok(None);
    }
    let known = ["apiVersion", "kind", "metadata", "spec", "status"];
    let Some(fields) = Fields::open(cx, node, String::new(), &known, false) else { return Err(()) };
    let misspelt = ["Version", "version", "apiversion"].iter().any(|name| node.get(name).is_some());
    if !misspelt && let Some(_) = fields.require("apiVersion", &format!("write `apiVersion: {API_VERSION}`")) {
        match fields.text("apiVersion") {
            Some(API_VERSION) | None => {}
            Some(other) => {
                let help = format!("write `apiVersion: {API_VERSION}`");
                cx.error(fields.at("apiVersion"), "apiVersion", format!("{} is no version of policies", quote(other)), help);
            }
        }
    }
    // Without a kind nothing can be said about the spec.
    let kind = kind(&fields).ok_or(())?;
    let (name, namespace) = metadata::metadata(&fields, kind);
    let spec = match fields.get("spec") {
        Some(node) => spec(cx, node, kind),
        None => {
            missing_spec(&fields, kind);
            Spec::default()
        }
    };
    Ok(Some(Document { kind, name, namespace, spec, at: node.at }))
}

/// Whether neither `apiVersion` nor `kind` has anything of a policy: manifests often share a file with policies.
fn is_foreign(node: &Node) -> bool {
    let (Some(api), Some(kind)) = (node.get("apiVersion").and_then(Node::text), node.get("kind").and_then(Node::text)) else {
        return false;
    };
    let kinds = Kind::ALL.map(Kind::as_str);
    !api.to_ascii_lowercase().contains("security.kubearmor")
        && suggest::nearest(api, [API_VERSION]).is_none()
        && suggest::nearest(kind, kinds).is_none()
}

fn kind(fields: &Fields<'_>) -> Option<Kind> {
    let kinds = Kind::ALL.map(Kind::as_str);
    let help = format!("write `kind:` and one of {}", kinds.join(", "));
    fields.require("kind", &help)?;
    let text = fields.text("kind")?;
    let found = Kind::ALL.into_iter().find(|kind| kind.as_str() == text);
    if found.is_none() {
        let help = suggest::nearest(text, kinds).map_or(help, |word| format!("did you mean `{word}`?"));
        fields.cx.error(fields.at("kind"), "kind", format!("{} is no kind of policy", quote(text)), help);
    }
    found
}

/// A policy without a spec does nothing. One whose kind must select something cannot be accepted so.
fn missing_spec(fields: &Fields<'_>, kind: Kind) {
    let help = "write `spec:` and below it, indented, a selector and rules";
    // A mis-indented document has its spec beside `metadata`, which has been reported field by field.
    let misplaced = ["process", "file", "network", "nodeSelector", "selector"].iter().any(|name| fields.node.get(name).is_some());
    match kind {
        _ if misplaced => {}
        Kind::KubeArmorPolicy | Kind::KubeArmorClusterPolicy => {
            fields.cx.warn(fields.at("spec"), "spec", "the policy has no spec and does nothing", help);
        }
        Kind::KubeArmorHostPolicy | Kind::KubeArmorNetworkPolicy => {
            fields.cx.error(fields.at("spec"), "spec", "`spec` is missing", help);
        }
    }
}

fn spec(cx: &Context<'_>, node: &Node, kind: Kind) -> Spec {
    let known: &[&str] = match kind {
        Kind::KubeArmorPolicy | Kind::KubeArmorClusterPolicy => {
            &["selector", "process", "file", "network", "capabilities", "syscalls", "presets", "apparmor"]
        }
        Kind::KubeArmorHostPolicy => {
            &["nodeSelector", "process", "file", "network", "capabilities", "syscalls", "device", "apparmor"]
        }
        Kind::KubeArmorNetworkPolicy => &["nodeSelector", "selector", "ingress", "egress", "level"],
    };
    let Some(fields) = Fields::open(cx, node, "spec".to_owned(), known, true) else { return Spec::default() };
    let has = |name: &&str| known.contains(name);
    let sections = ["process", "file", "network", "capabilities", "syscalls", "device"];
    if kind == Kind::KubeArmorNetworkPolicy {
        traffic::level(&fields);
    }
    let spec = Spec {
        common: fields.common(),
        selector: selector::selector(&fields, kind),
        sections: sections.iter().filter(|name| has(name)).filter_map(|name| rules::section(&fields, name, kind)).collect(),
        presets: if has(&"presets") { rules::presets(&fields) } else { Vec::new() },
        apparmor: if has(&"apparmor") { apparmor(&fields) } else { None },
        traffic: ["ingress", "egress"].iter().filter(|name| has(name)).flat_map(|name| traffic::traffic(&fields, name)).collect(),
    };
    let silent = spec.presets.is_empty() && spec.traffic.is_empty() && spec.apparmor.is_none();
    if silent && spec.sections.iter().all(|section| section.rules.is_empty()) {
        cx.warn(node.at, "spec", "the policy has no rules and does nothing", "add a section such as `process` or `file`");
    }
    spec
}

/// `apparmor` is text for another program: only its presence counts.
fn apparmor(fields: &Fields<'_>) -> Option<crate::diagnostic::Position> {
    let node = fields.get("apparmor")?;
    if node.text().is_none() {
        let help = "write AppArmor rules as a block of text: `apparmor: |`";
        fields.cx.error(node.at, &fields.field("apparmor"), format!("{} stands where a text is expected", node.describe()), help);
    }
    Some(node.at)
}
