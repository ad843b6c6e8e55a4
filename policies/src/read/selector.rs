//! `selector` and `nodeSelector`.

use super::fields::{Fields, text};
use crate::diagnostic::quote;
use crate::suggest;
use crate::written::{ContainerNames, Expression, ExpressionKey, HostNames, Kind, NamePattern, Operator, Selector};
use crate::yaml::{Node, Value};

/// The label that names containers.
const CONTAINER_NAME: &str = "kubearmor.io/container.name";
/// The labels that name hosts, and those that do so by a regular expression.
const HOST_NAME: [&str; 2] = ["kubernetes.io/hostname", "kubearmor.io/hostname"];
const HOST_PATTERN: [&str; 2] = ["kubernetes.io/hostnamereg", "kubearmor.io/hostnamereg"];

/// Reads what `spec` selects, and reports what its kind must have.
pub(super) fn selector(spec: &Fields<'_>, kind: Kind) -> Selector {
    let mut out = Selector::default();
    if let Some(node) = spec.get("selector") {
        let known: &[&str] = match kind {
            Kind::KubeArmorClusterPolicy => &["matchExpressions"],
            _ => &["matchLabels", "matchExpressions"],
        };
        if let Some(fields) = Fields::open(spec.cx, node, spec.field("selector"), known, false) {
            containers(&fields, kind, &mut out);
        }
    }
    if let Some(node) = spec.get("nodeSelector")
        && let Some(fields) = Fields::open(spec.cx, node, spec.field("nodeSelector"), &["matchLabels"], false)
    {
        hosts(&fields, &mut out);
    }
    // A selector that says something and selects nothing has an error of its own.
    let empty = match spec.get("selector").map(|node| &node.value) {
        None => true,
        Some(Value::Mapping(entries)) => entries.iter().all(|(_, value)| value.is_null()),
        Some(_) => false,
    };
    match kind {
        Kind::KubeArmorPolicy if empty => {
            let help = "if that is not meant, add `selector: {matchLabels: {…}}`";
            spec.cx.warn(
                spec.at("selector"),
                &spec.field("selector"),
                "the policy selects every container of its namespace",
                help,
            );
        }
        Kind::KubeArmorClusterPolicy if empty => {
            let help = "if that is not meant, add `selector: {matchExpressions: [{key: namespace, operator: In, values: […]}]}`";
            spec.cx.warn(
                spec.at("selector"),
                &spec.field("selector"),
                "the policy selects every container of every namespace",
                help,
            );
        }
        Kind::KubeArmorHostPolicy if spec.get("nodeSelector").is_none() => {
            let help =
                "write `nodeSelector: {matchLabels: {kubernetes.io/hostname: \"*\"}}` for every host, or a host's name or labels";
            spec.cx.error(
                spec.node.at,
                &spec.path,
                "`nodeSelector` is missing: a host policy must say which hosts it is for",
                help,
            );
        }
        Kind::KubeArmorNetworkPolicy if spec.get("nodeSelector").is_none() && spec.get("selector").is_none() => {
            let help = "write `nodeSelector: {matchLabels: {kubernetes.io/hostname: \"*\"}}`, or a `selector`";
            spec.cx.error(spec.node.at, &spec.path, "`nodeSelector` and `selector` are both missing", help);
        }
        _ => {}
    }
    out
}

fn containers(fields: &Fields<'_>, kind: Kind, out: &mut Selector) {
    for (name, value, node) in labels(fields) {
        if name == CONTAINER_NAME {
            out.containers = container_names(fields, node, value);
        } else {
            out.labels.insert(name.to_owned(), value.to_owned());
        }
    }
    for (node, field) in fields.list("matchExpressions") {
        let Some(fields) = Fields::open(fields.cx, node, field, &["key", "operator", "values"], false) else { continue };
        out.expressions.extend(expression(&fields, kind));
    }
}

fn container_names(fields: &Fields<'_>, node: &Node, value: &str) -> Option<ContainerNames> {
    let value = value.trim();
    if value.is_empty() {
        return Some(ContainerNames::All);
    }
    if let Some(list) = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let names: Vec<String> = list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        return Some(if names.is_empty() { ContainerNames::All } else { ContainerNames::List(names) });
    }
    pattern(fields, node, &format!("{}.matchLabels.{CONTAINER_NAME}", fields.path), value).map(ContainerNames::Bare)
}

fn expression(fields: &Fields<'_>, kind: Kind) -> Option<Expression> {
    let cx = fields.cx;
    let key_help = match kind {
        Kind::KubeArmorClusterPolicy => "write `key: namespace` or `key: label`",
        _ => "write `key: label`; the values are then `name=value`",
    };
    let key = fields.require("key", key_help).and_then(|_| fields.text("key")).and_then(|text| match text {
        "label" => Some(ExpressionKey::Label),
        "namespace" if kind == Kind::KubeArmorClusterPolicy => Some(ExpressionKey::Namespace),
        "namespace" => {
            let help = "this policy holds in its own namespace only; use a KubeArmorClusterPolicy for several";
            cx.error(fields.at("key"), &fields.field("key"), "a KubeArmorPolicy cannot select namespaces", help);
            None
        }
        other => {
            cx.error(fields.at("key"), &fields.field("key"), format!("{} is no key", quote(other)), key_help);
            None
        }
    });
    let operator_help = "write `operator: In` or `operator: NotIn`";
    let operator = fields.require("operator", operator_help).and_then(|_| fields.text("operator")).and_then(|text| {
        let known = [("In", Operator::In), ("NotIn", Operator::NotIn)];
        let found = known.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)).map(|&(_, operator)| operator);
        if found.is_none() {
            let help = suggest::nearest(text, known.map(|(word, _)| word))
                .map_or(operator_help.to_owned(), |word| format!("did you mean `{word}`?"));
            cx.error(fields.at("operator"), &fields.field("operator"), format!("{} is no operator", quote(text)), help);
        }
        found
    });
    fields.require("values", "write `values: [\"name=value\"]`")?;
    let values: Vec<String> = fields.texts("values").into_iter().map(str::to_owned).collect();
    if values.is_empty() && fields.list("values").is_empty() && matches!(fields.get("values")?.value, Value::Sequence(_)) {
        cx.error(fields.at("values"), &fields.field("values"), "`values` is empty", "name at least one value");
    }
    if key == Some(ExpressionKey::Label) {
        for value in values.iter().filter(|value| !value.contains('=')) {
            let help = format!("write `{value}=…`: values of `key: label` are `name=value`");
            cx.error(fields.at("values"), &fields.field("values"), format!("{} is no label", quote(value)), help);
        }
    }
    Some(Expression { key: key?, operator: operator?, values })
}

fn hosts(fields: &Fields<'_>, out: &mut Selector) {
    let found = labels(fields);
    if found.is_empty() && fields.get("matchLabels").is_none_or(|node| matches!(node.value, Value::Mapping(_))) {
        fields.cx.error(
            fields.at("matchLabels"),
            &fields.path,
            "`matchLabels` is empty: a host policy must say which hosts it is for",
            "write `matchLabels: {kubernetes.io/hostname: \"*\"}` for every host, or a host's name or labels",
        );
    }
    for (name, value, node) in found {
        if HOST_NAME.contains(&name) {
            let names: Vec<String> = value.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
            out.hosts.push(if names.iter().any(|name| name == "*") { HostNames::All } else { HostNames::List(names) });
        } else if HOST_PATTERN.contains(&name) {
            let field = format!("{}.matchLabels.{name}", fields.path);
            out.hosts.extend(pattern(fields, node, &field, value).map(HostNames::Pattern));
        } else {
            out.node_labels.insert(name.to_owned(), value.to_owned());
        }
    }
}

/// The entries of `matchLabels`, and where each value stands.
fn labels<'a>(fields: &Fields<'a>) -> Labels<'a> {
    let cx = fields.cx;
    let Some(node) = fields.get("matchLabels") else { return Vec::new() };
    let path = fields.field("matchLabels");
    let Value::Mapping(entries) = &node.value else {
        let message = format!("{} stands where a mapping is expected", node.describe());
        cx.error(node.at, &path, message, "write `name: value` pairs below it, indented");
        return Vec::new();
    };
    let mut out = Vec::new();
    for (key, node) in entries {
        let field = format!("{path}.{}", key.text);
        if node.is_null() {
            // `app:` in Kubernetes is the empty value.
            out.push((&*key.text, "", node));
        } else if let Some(value) = text(cx, node, &field) {
            out.push((&*key.text, value, node));
        }
    }
    out
}

type Labels<'a> = Vec<(&'a str, &'a str, &'a Node)>;

fn pattern(fields: &Fields<'_>, node: &Node, field: &str, value: &str) -> Option<NamePattern> {
    match NamePattern::new(value) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let help = "write a name, a list `[a,b]`, or a regular expression that matches the whole name";
            fields.cx.error(node.at, field, format!("{} is no regular expression: {error}", quote(value)), help);
            None
        }
    }
}
