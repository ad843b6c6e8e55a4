//! The tree.

use std::sync::Arc;

use crate::diagnostic::Position;

/// A value in a document, and where it starts.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) value: Value,
}

/// What a node holds. Text is shared, so that an alias to a long string costs nothing.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// `plain` is a scalar without quotes: only those can be null, a number or a boolean.
    Scalar { text: Arc<str>, plain: bool },
    /// A list.
    Sequence(Vec<Node>),
    /// A mapping in the order it was written. A document with duplicate keys is refused; the tree has them all.
    Mapping(Vec<(Key, Node)>),
}

/// A key of a mapping, and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) at: Position,
    pub(crate) text: Arc<str>,
}

impl Node {
    /// Whether the node says nothing: Kubernetes treats null as absent, and so do we.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true }
            if matches!(&**text, "" | "~" | "null" | "Null" | "NULL"))
    }

    /// What the node is, for messages.
    pub(crate) fn describe(&self) -> &'static str {
        match &self.value {
            Value::Scalar { .. } if self.is_null() => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
        }
    }

    /// The value of `key`, where the node is a mapping that has it and it is not null.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        let Value::Mapping(entries) = &self.value else { return None };
        entries.iter().find(|(k, _)| &*k.text == key).map(|(_, node)| node).filter(|node| !node.is_null())
    }

    /// The text, where the node is a scalar that is not null.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } if !self.is_null() => Some(text),
            _ => None,
        }
    }

    /// How many nodes there are in the tree, this one included.
    pub(crate) fn size(&self) -> usize {
        match &self.value {
            Value::Scalar { .. } => 1,
            Value::Sequence(items) => 1 + items.iter().map(Node::size).sum::<usize>(),
            Value::Mapping(entries) => 1 + entries.iter().map(|(_, node)| node.size()).sum::<usize>(),
        }
    }

    /// How deep the tree is: 0 for a scalar.
    pub(crate) fn depth(&self) -> usize {
        match &self.value {
            Value::Scalar { .. } => 0,
            Value::Sequence(items) => 1 + items.iter().map(Node::depth).max().unwrap_or(0),
            Value::Mapping(entries) => 1 + entries.iter().map(|(_, node)| node.depth()).max().unwrap_or(0),
        }
    }

    /// Writes the tree as YAML in one line. What is plain and a number, a boolean or null stays plain; all else is quoted.
    pub(crate) fn write_flow(&self, out: &mut String) {
        match &self.value {
            Value::Scalar { text, plain } => {
                let typed = self.is_null() || text.parse::<f64>().is_ok() || matches!(&**text, "true" | "false");
                if *plain && typed { out.push_str(if text.is_empty() { "null" } else { text }) } else { write_quoted(text, out) }
            }
            Value::Sequence(items) => {
                out.push('[');
                for item in items {
                    item.write_flow(out);
                    out.push_str(", ");
                }
                out.push(']');
            }
            Value::Mapping(entries) => {
                out.push('{');
                for (key, node) in entries {
                    write_quoted(&key.text, out);
                    out.push_str(": ");
                    node.write_flow(out);
                    out.push_str(", ");
                }
                out.push('}');
            }
        }
    }
}

/// As a double-quoted scalar.
fn write_quoted(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}
