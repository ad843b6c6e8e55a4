//! From events to nodes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span};

use super::{Chunk, Key, MAX_ALIASED_NODES, MAX_DEPTH, MAX_NODES, Node, Value, lines};
use crate::diagnostic::{Position, quote};

/// What keeps a document from being read at all.
pub(crate) struct Unreadable {
    pub(crate) at: Position,
    pub(crate) message: String,
    pub(crate) help: String,
}

/// Reads one document: its tree and its duplicate keys, each of which is an error (the tree has both values). A syntax error is
/// the only one that is reported, since nothing that follows it can be trusted to mean what it says.
pub(crate) fn load(chunk: Chunk<'_>) -> Result<(Node, Vec<Unreadable>), Unreadable> {
    let mut loader = Loader { chunk, open: Vec::new(), anchors: HashMap::new(), nodes: 0, aliased: 0, duplicates: Vec::new() };
    let mut root = None;
    for event in Parser::new_from_str(chunk.text) {
        let step = match event {
            Ok((event, span)) => loader.event(event, span),
            Err(error) => Err(loader.syntax(&error)),
        };
        match step {
            Ok(None) => {}
            Ok(Some(node)) if root.is_none() => root = Some(node),
            // `split` cuts at every marker. If the parser sees one where it does not, nothing may be lost in silence.
            Ok(Some(node)) => {
                return Err(Unreadable {
                    at: node.at,
                    message: "a second document starts here without a line `---` before it".to_owned(),
                    help: "write `---` on a line of its own".to_owned(),
                });
            }
            Err(unreadable) => return Err(unreadable),
        }
    }
    let empty = Unreadable {
        at: loader.position(Marker::new(0, 1, 0)),
        message: "the document is empty".to_owned(),
        help: "write a policy, or remove the `---` that starts it".to_owned(),
    };
    root.map(|root| (root, loader.duplicates)).ok_or(empty)
}

/// A mapping or list that has started and not yet ended.
struct Open {
    at: Position,
    anchor: usize,
    items: Items,
}

enum Items {
    Sequence(Vec<Node>),
    Mapping { entries: Vec<(Key, Node)>, seen: HashSet<Arc<str>>, key: Option<Key> },
}

struct Loader<'a> {
    chunk: Chunk<'a>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    aliased: usize,
    duplicates: Vec<Unreadable>,
}

impl Loader<'_> {
    /// Takes one event; returns the root once it is complete.
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<Option<Node>, Unreadable> {
        let at = self.position(span.start);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                self.complete(Node { at, value: Value::Scalar { text: Arc::from(&*text), plain } }, anchor)
            }
            Event::SequenceStart(anchor, _) => self.start(Open { at, anchor, items: Items::Sequence(Vec::new()) }),
            Event::MappingStart(anchor, _) => {
                self.start(Open { at, anchor, items: Items::Mapping { entries: Vec::new(), seen: HashSet::new(), key: None } })
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { at, anchor, items }) => {
                    let value = match items {
                        Items::Sequence(items) => Value::Sequence(items),
                        Items::Mapping { entries, .. } => Value::Mapping(entries),
                    };
                    self.complete(Node { at, value }, anchor)
                }
                None => Ok(None),
            },
            Event::Alias(anchor) => self.alias(anchor, at),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => Ok(None),
        }
    }

    fn start(&mut self, open: Open) -> Result<Option<Node>, Unreadable> {
        self.expect_no_key(open.at)?;
        if self.open.len() == MAX_DEPTH {
            return Err(too_deep(open.at));
        }
        self.open.push(open);
        Ok(None)
    }

    /// A collection cannot be a key: no field of a policy is named so.
    fn expect_no_key(&self, at: Position) -> Result<(), Unreadable> {
        match self.open.last() {
            Some(Open { items: Items::Mapping { key: None, .. }, .. }) => Err(Unreadable {
                at,
                message: "a mapping or a list stands where a field name is expected".to_owned(),
                help: "write `name: value`; put quotes around text that starts with `{` or `[`".to_owned(),
            }),
            _ => Ok(()),
        }
    }

    fn alias(&mut self, anchor: usize, at: Position) -> Result<Option<Node>, Unreadable> {
        let Some(target) = self.anchors.get(&anchor) else {
            return Err(Unreadable {
                at,
                message: "the alias refers to a value that is not complete yet".to_owned(),
                help: "write the value out".to_owned(),
            });
        };
        self.aliased += target.size();
        if self.aliased > MAX_ALIASED_NODES {
            return Err(Unreadable {
                at,
                message: format!("aliases add more than {MAX_ALIASED_NODES} values to the document"),
                help: "write the values out, or split the policy".to_owned(),
            });
        }
        if self.open.len() + target.depth() > MAX_DEPTH {
            return Err(too_deep(at));
        }
        if let Value::Mapping(_) | Value::Sequence(_) = target.value {
            self.expect_no_key(at)?;
        }
        // The copy stands where the alias is: an error in it is reported where it takes effect, its parts where they were written.
        let node = Node { at, ..target.clone() };
        self.complete(node, 0)
    }

    /// Puts a complete node where it belongs.
    fn complete(&mut self, node: Node, anchor: usize) -> Result<Option<Node>, Unreadable> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(Unreadable {
                at: node.at,
                message: format!("the document has more than {MAX_NODES} values"),
                help: "split it into several policies".to_owned(),
            });
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            None => return Ok(Some(node)),
            Some(Open { items: Items::Sequence(items), .. }) => items.push(node),
            Some(Open { items: Items::Mapping { entries, seen, key }, .. }) => match (key.take(), node) {
                (Some(key), node) => entries.push((key, node)),
                (None, Node { at, value: Value::Scalar { text, .. } }) => {
                    if !seen.insert(Arc::clone(&text)) && self.duplicates.len() < super::MAX_DIAGNOSTICS {
                        let first = entries.iter().find(|(k, _)| k.text == text).map_or(at.line, |(k, _)| k.at.line);
                        self.duplicates.push(Unreadable {
                            at,
                            message: format!("{} is given twice in the same mapping", quote(&text)),
                            help: format!(
                                "the first is in line {first}: keep one; if this belongs elsewhere, correct its indentation"
                            ),
                        });
                    }
                    *key = Some(Key { at, text });
                }
                // `expect_no_key` has refused collections as keys before they were opened.
                (None, _) => {}
            },
        }
        Ok(None)
    }

    fn position(&self, marker: Marker) -> Position {
        let line = u32::try_from(marker.line().max(1)).unwrap_or(u32::MAX);
        let column = u32::try_from(marker.col() + 1).unwrap_or(u32::MAX);
        Position { line: line.saturating_add(self.chunk.lines_before), column }
    }

    /// A syntax error, told by its usual cause where that can be seen: a TAB in the indentation.
    fn syntax(&self, error: &ScanError) -> Unreadable {
        let at = self.position(*error.marker());
        // The scanner looks ahead of the events, and has its own limit on `[` and `{` at 255 levels.
        if error.info().contains("recursion limit") {
            return too_deep(at);
        }
        let in_chunk = error.marker().line();
        let tab = lines(self.chunk.text).take(in_chunk).enumerate().filter_map(|(number, line)| {
            let indent = &line[..line.len() - line.trim_start_matches([' ', '\t', '-']).len()];
            indent.find('\t').map(|column| (number, column))
        });
        if let Some((number, column)) = tab.last() {
            let mut at = self.position(Marker::new(0, number + 1, column));
            at.line = at.line.max(1);
            return Unreadable {
                at,
                message: "the line is indented with a TAB character, which YAML forbids".to_owned(),
                help: "indent with spaces".to_owned(),
            };
        }
        Unreadable {
            at,
            message: format!("the YAML cannot be read: {}", error.info()),
            help: "correct the indentation, the quotes or the colon here or in the line before; values that start with \
                   `*`, `&`, `{`, `[`, `%` or `@` need quotes"
                .to_owned(),
        }
    }
}

fn too_deep(at: Position) -> Unreadable {
    Unreadable {
        at,
        message: format!("the document is nested deeper than {MAX_DEPTH} levels"),
        help: "remove the nesting: a policy needs 8 levels".to_owned(),
    }
}
