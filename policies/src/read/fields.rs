//! Reading typed fields out of a mapping.

use std::str::FromStr;

use super::context::Context;
use super::unknown;
use crate::diagnostic::{Position, quote};
use crate::meaning::Action;
use crate::suggest;
use crate::written::Common;
use crate::yaml::{MAX_STRING_BYTES, Node, Value};

/// The attributes that may stand at every level.
pub(super) const COMMON: [&str; 4] = ["severity", "tags", "message", "action"];

/// A mapping whose field names have been checked.
pub(super) struct Fields<'a> {
    pub(super) cx: &'a Context<'a>,
    pub(super) node: &'a Node,
    pub(super) path: String,
}

impl<'a> Fields<'a> {
    /// Opens `node` as a mapping with the fields `known` (and, with `common`, those of [`COMMON`]). Reports every other field.
    pub(super) fn open(cx: &'a Context<'a>, node: &'a Node, path: String, known: &[&str], common: bool) -> Option<Self> {
        let Value::Mapping(entries) = &node.value else {
            cx.error(
                node.at,
                &path,
                format!("{} stands where a mapping is expected", node.describe()),
                match known.first() {
                    Some(first) => format!("write its fields below it, indented: `{first}: …`"),
                    None => "write `name: value` pairs below it, indented".to_owned(),
                },
            );
            return None;
        };
        let all: Vec<&str> = known.iter().copied().chain(COMMON.into_iter().filter(|_| common)).collect();
        for (key, value) in entries.iter().filter(|(key, _)| !all.contains(&&*key.text)) {
            unknown::report(cx, key, value, &path, &all);
        }
        Some(Self { cx, node, path })
    }

    pub(super) fn field(&self, name: &str) -> String {
        join(&self.path, name)
    }

    /// The field's value, where it is there and not null.
    pub(super) fn get(&self, name: &str) -> Option<&'a Node> {
        self.node.get(name)
    }

    /// The field's value, or an error that says that it must be there.
    pub(super) fn require(&self, name: &str, help: &str) -> Option<&'a Node> {
        let found = self.get(name);
        if found.is_none() {
            self.cx.error(self.node.at, &self.path, format!("`{name}` is missing"), help);
        }
        found
    }

    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        text(self.cx, self.get(name)?, &self.field(name))
    }

    /// A boolean. YAML 1.1's words are understood, as Kubernetes does.
    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        let node = self.get(name)?;
        match &node.value {
            Value::Scalar { text, plain: true } if is_any(text, &["true", "yes", "on"]) => Some(true),
            Value::Scalar { text, plain: true } if is_any(text, &["false", "no", "off"]) => Some(false),
            Value::Scalar { text, .. } => {
                let message = format!("{} is not a boolean", quote(text));
                self.cx.error(node.at, &self.field(name), message, "write `true` or `false`, without quotes");
                None
            }
            _ => {
                let message = format!("{} stands where a boolean is expected", node.describe());
                self.cx.error(node.at, &self.field(name), message, "write `true` or `false`");
                None
            }
        }
    }

    /// A whole number within `range`.
    pub(super) fn number(&self, name: &str, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
        let node = self.get(name)?;
        let help = format!("write a whole number from {} to {}, without quotes", range.start(), range.end());
        if let Value::Scalar { text, plain: true } = &node.value
            && let Ok(number) = i64::from_str(text)
        {
            if range.contains(&number) {
                return Some(number);
            }
            self.cx.error(node.at, &self.field(name), format!("{number} is out of range"), help);
        } else {
            let what = node.text().map_or_else(|| node.describe().to_owned(), quote);
            self.cx.error(node.at, &self.field(name), format!("{what} is not a whole number"), help);
        }
        None
    }

    /// The elements of a list, each with its path; empty where the field is absent.
    pub(super) fn list(&self, name: &str) -> Vec<(&'a Node, String)> {
        let Some(node) = self.get(name) else { return Vec::new() };
        let field = self.field(name);
        let Value::Sequence(items) = &node.value else {
            self.cx.error(
                node.at,
                &field,
                format!("{} stands where a list is expected", node.describe()),
                "start each element with `- `, or write `[a, b]`",
            );
            return Vec::new();
        };
        items.iter().enumerate().map(|(index, item)| (item, format!("{field}[{index}]"))).collect()
    }

    /// A list of texts.
    pub(super) fn texts(&self, name: &str) -> Vec<&'a str> {
        self.list(name).into_iter().filter_map(|(node, field)| text(self.cx, node, &field)).collect()
    }

    /// The elements of a text that is a comma list, with the place of the text.
    pub(super) fn comma_list(&self, name: &str, help: &str) -> Vec<&'a str> {
        let Some(node) = self.require(name, help) else { return Vec::new() };
        let field = self.field(name);
        let Some(whole) = text(self.cx, node, &field) else { return Vec::new() };
        let words: Vec<&str> = whole.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
        if words.is_empty() {
            self.cx.error(node.at, &field, format!("`{name}` is empty"), help);
        }
        words
    }

    /// Where the field's value stands, or the mapping where it is absent.
    pub(super) fn at(&self, name: &str) -> Position {
        self.get(name).map_or(self.node.at, |node| node.at)
    }

    /// `severity`, `tags`, `message` and `action`.
    pub(super) fn common(&self) -> Common {
        Common {
            severity: self.number("severity", 1..=10).and_then(|number| u8::try_from(number).ok()),
            tags: self.texts("tags").into_iter().map(str::to_owned).collect(),
            message: self.text("message").map(str::to_owned),
            action: self.action(),
        }
    }

    fn action(&self) -> Option<Action> {
        let text = self.text("action")?;
        let known = [("Allow", Action::Allow), ("Audit", Action::Audit), ("Block", Action::Block)];
        let found = known.into_iter().find(|(word, _)| word.eq_ignore_ascii_case(text.trim()));
        if found.is_none() {
            let meant = match text.to_ascii_lowercase().as_str() {
                "deny" | "denied" | "enforce" | "forbid" => Some("Block"),
                "log" | "alert" | "warn" | "monitor" => Some("Audit"),
                "permit" | "accept" => Some("Allow"),
                _ => suggest::nearest(text, known.map(|(word, _)| word)),
            };
            let help = meant.map_or("write `Allow`, `Audit` or `Block`".to_owned(), |word| {
                format!("did you mean `{word}`? The actions are `Allow`, `Audit` and `Block`")
            });
            self.cx.error(self.at("action"), &self.field("action"), format!("{} is no action", quote(text)), help);
        }
        found.map(|(_, action)| action)
    }
}

/// A scalar's text, bounded. Numbers and booleans are taken as they are written.
pub(super) fn text<'a>(cx: &Context<'_>, node: &'a Node, field: &str) -> Option<&'a str> {
    match node.text() {
        Some(text) if text.len() > MAX_STRING_BYTES => {
            let message = format!("the text has {} bytes, and {MAX_STRING_BYTES} are the most there may be", text.len());
            cx.error(node.at, field, message, "shorten it");
            None
        }
        Some(text) => Some(text),
        None => {
            let message = format!("{} stands where a text is expected", node.describe());
            cx.error(node.at, field, message, "write the text; put quotes around it if it starts with `[`, `{`, `*`, `&` or `!`");
            None
        }
    }
}

pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn is_any(text: &str, words: &[&str]) -> bool {
    words.iter().any(|word| word.eq_ignore_ascii_case(text))
}
