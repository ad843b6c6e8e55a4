//! The fields of our lines by OpenTelemetry's names. Whatever this has no name for keeps its own, behind `portcullis.`: a field that
//! a line gets later needs nothing here.

use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use serde_json::Value;

/// Our field and the attribute of the semantic conventions (version 1.37) that says the same.
pub(super) const NAMES: [(&str, &str); 14] = [
    ("id", "log.record.uid"),
    ("container.id", "container.id"),
    ("container.name", "container.name"),
    ("container.image", "container.image.name"),
    ("container.namespace", "k8s.namespace.name"),
    ("process.pid", "process.pid"),
    ("process.nsPid", "process.vpid"),
    ("process.tid", "thread.id"),
    ("process.exe", "process.executable.path"),
    ("process.args", "process.command_args"),
    ("process.cwd", "process.working_directory"),
    ("process.parent.pid", "process.parent_pid"),
    ("policy", "security_rule.ruleset.name"),
    ("rule.message", "security_rule.description"),
];

/// The attributes of a line. What is empty or null says nothing and is left out.
pub(super) fn attributes(line: &Value) -> Vec<KeyValue> {
    let mut attributes = Vec::new();
    add("", line, &mut attributes);
    attributes
}

fn add(path: &str, value: &Value, attributes: &mut Vec<KeyValue>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                add(&path, value, attributes);
            }
        }
        // They are the record's own.
        _ if path == "schema" || path == "time" => {}
        value => attributes.extend(any(value).map(|value| pair(&name(path), value))),
    }
}

fn name(path: &str) -> String {
    let known = NAMES.iter().find(|(ours, _)| *ours == path);
    known.map_or_else(|| format!("portcullis.{path}"), |(_, theirs)| (*theirs).to_owned())
}

fn any(value: &Value) -> Option<Any> {
    Some(match value {
        Value::Null | Value::Object(_) => return None,
        Value::Bool(value) => Any::BoolValue(*value),
        Value::Number(number) => number.as_i64().map_or_else(|| Any::StringValue(number.to_string()), Any::IntValue),
        Value::String(text) if text.is_empty() => return None,
        Value::String(text) => Any::StringValue(text.clone()),
        Value::Array(values) => {
            let values = values.iter().map(|value| AnyValue { value: any(value).or(Some(Any::StringValue(String::new()))) });
            Any::ArrayValue(ArrayValue { values: values.collect() })
        }
    })
}

/// An attribute.
pub(super) fn pair(key: &str, value: Any) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    #[test]
    fn the_specification_has_these_names() {
        let specification = include_str!("../../../../SPECIFICATION.md");
        for (ours, theirs) in NAMES {
            assert!(specification.contains(&format!("| `{ours}` | `{theirs}` |")), "{ours}");
        }
        let rows = specification.lines().filter(|line| line.starts_with("| `container.") || line.starts_with("| `process."));
        assert!(rows.clone().count() >= 11 && rows.clone().all(|row| NAMES.iter().any(|(ours, _)| row.contains(ours))));
    }

    #[test]
    fn a_field_has_one_name_and_what_is_not_there_has_none() {
        let line = json!({
            "schema": "portcullis.alert/1", "time": "t", "policy": "no-shadow", "rule": null, "objectCut": false, "sequence": 7,
            "container": {"id": "aaaa", "namespace": ""}, "process": {"args": ["cat", ""], "parent": {"pid": 6}},
        });
        let found: BTreeMap<String, Any> =
            attributes(&line).into_iter().map(|pair| (pair.key, pair.value.unwrap().value.unwrap())).collect();
        let text = |text: &str| Any::StringValue(text.to_owned());
        let args = ["cat", ""].map(|arg| AnyValue { value: Some(text(arg)) });
        let expected = [
            ("container.id", text("aaaa")),
            ("portcullis.objectCut", Any::BoolValue(false)),
            ("portcullis.sequence", Any::IntValue(7)),
            ("process.command_args", Any::ArrayValue(ArrayValue { values: args.into() })),
            ("process.parent_pid", Any::IntValue(6)),
            ("security_rule.ruleset.name", text("no-shadow")),
        ];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value)).into());
    }
}
