//! Text in, policies and diagnostics out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::diagnostic::{self, Diagnostic, Position};
use crate::mean;
use crate::policy::Policy;
use crate::read::{self, Context};
use crate::yaml::{self, Chunk, MAX_DOCUMENTS, MAX_FILE_BYTES, Node, Unreadable, Value};

/// How strictly documents are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// A field that the language does not have is a warning and not an error.
    pub lenient: bool,
}

/// What a file holds.
#[derive(Debug, Clone, Default)]
pub struct Parsed {
    /// One entry for each policy in the file, in its order: the policy, or everything that is wrong with it. Never both empty:
    /// a refused document has at least one diagnostic.
    pub documents: Vec<Result<Policy, Vec<Diagnostic>>>,
    /// Which policy each entry of `documents` is, as far as that can be read: a refused document may have a name, by which its
    /// previous version is kept in force.
    pub identities: Vec<Identity>,
    /// What is doubtful in documents that were accepted or skipped, and in refused ones.
    pub warnings: Vec<Diagnostic>,
}

/// Kind, namespace and name of a document; empty where it has none that can be read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Identity {
    /// `kind`.
    pub kind: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl Parsed {
    /// The policies that were accepted.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.documents.iter().filter_map(|document| document.as_ref().ok())
    }

    /// Everything that is wrong, over all documents.
    pub fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.documents.iter().filter_map(|document| document.as_ref().err()).flatten()
    }
}

/// Reads the policies in `text`. `file` is what diagnostics and origins call it; nothing is opened.
///
/// A document that is wrong is refused whole and never affects another. Empty documents are nothing; documents that are
/// neither policies nor look like them (a Deployment beside its policy) are skipped with a warning. A Kubernetes `List` is
/// the documents it holds.
#[must_use]
pub fn parse(file: &Path, text: impl AsRef<[u8]>, options: Options) -> Parsed {
    let mut reader = Reader { file: diagnostic::file_name(file), options, parsed: Parsed::default() };
    reader.file(text.as_ref());
    reader.parsed
}

/// Reads a document that stands in another one of `file`: a policy in an expectation file.
pub(crate) fn parse_node(file: &Arc<PathBuf>, node: &Node, options: Options) -> Parsed {
    let mut reader = Reader { file: Arc::clone(file), options, parsed: Parsed::default() };
    reader.node(node, Vec::new());
    reader.parsed
}

struct Reader {
    file: Arc<PathBuf>,
    options: Options,
    parsed: Parsed,
}

impl Reader {
    fn file(&mut self, bytes: &[u8]) {
        if bytes.len() > MAX_FILE_BYTES {
            let message = format!("the file has {} bytes, and {MAX_FILE_BYTES} are the most there may be", bytes.len());
            return self.refuse_whole(Position::START, message, "split it into several files".to_owned());
        }
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
                let line = before.matches('\n').count() + 1;
                let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
                let at = Position { line: saturate(line), column: saturate(column) };
                let message = format!("the file is not UTF-8: byte 0x{:02x}", bytes[error.valid_up_to()]);
                return self.refuse_whole(at, message, "save it as UTF-8".to_owned());
            }
        };
        let chunks = yaml::split(text);
        if let Some(chunk) = chunks.get(MAX_DOCUMENTS) {
            let at = Position { line: chunk.lines_before.saturating_add(1), column: 1 };
            let message = format!("the file has {} documents, and {MAX_DOCUMENTS} are the most there may be", chunks.len());
            return self.refuse_whole(at, message, "split it into several files".to_owned());
        }
        for chunk in chunks {
            self.chunk(chunk);
        }
    }

    fn refuse_whole(&mut self, at: Position, message: String, help: String) {
        self.push(Err(vec![Diagnostic::new(&self.file, at, "", message, help)]), Identity::default());
    }

    fn chunk(&mut self, chunk: Chunk<'_>) {
        match yaml::load(chunk) {
            Ok((node, duplicates)) => {
                let duplicates = duplicates.into_iter().map(|duplicate| self.unreadable(duplicate)).collect();
                self.node(&node, duplicates);
            }
            Err(unreadable) => {
                let diagnostic = self.unreadable(unreadable);
                self.push(Err(vec![diagnostic]), identify_text(chunk.text));
            }
        }
    }

    fn unreadable(&self, what: Unreadable) -> Diagnostic {
        Diagnostic::new(&self.file, what.at, "", what.message, what.help)
    }

    /// Takes a tree and the errors that were found in reading it.
    fn node(&mut self, node: &Node, found: Vec<Diagnostic>) {
        // What `kubectl get -o yaml` writes. Lists do not nest in Kubernetes.
        if node.get("kind").and_then(Node::text).is_some_and(|kind| kind == "List" || kind.ends_with("PolicyList"))
            && let Some(Node { value: Value::Sequence(items), .. }) = node.get("items")
        {
            // Which item a duplicate key is in is not known here: all of them are refused.
            return items.iter().for_each(|item| self.document(item, &found));
        }
        self.document(node, &found);
    }

    fn document(&mut self, node: &Node, found: &[Diagnostic]) {
        let file = Arc::clone(&self.file);
        let cx = Context::new(&file, self.options.lenient, found.to_vec());
        let read = read::document(&cx, node);
        let (errors, warnings) = cx.finish();
        self.parsed.warnings.extend(warnings);
        match read {
            Ok(None) if errors.is_empty() => {}
            Ok(Some(document)) if errors.is_empty() => {
                let policy = mean::mean(document, &file);
                self.push(Ok(policy), read::identify(node));
            }
            _ => self.push(Err(errors), read::identify(node)),
        }
    }

    fn push(&mut self, document: Result<Policy, Vec<Diagnostic>>, identity: Identity) {
        self.parsed.documents.push(document);
        self.parsed.identities.push(identity);
    }
}

/// The identity of a document that cannot be read, from lines that look like its head. Good enough to find the version of it
/// that was in force.
fn identify_text(text: &str) -> Identity {
    let mut identity = Identity::default();
    let mut in_metadata = false;
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let indented = key.starts_with([' ', '\t']);
        let value = value.split(" #").next().unwrap_or_default().trim().trim_matches(['"', '\'']);
        match key.trim() {
            "kind" if !indented => identity.kind = value.to_owned(),
            key if !indented => in_metadata = key == "metadata",
            "name" if in_metadata && identity.name.is_empty() => identity.name = value.to_owned(),
            "namespace" if in_metadata && identity.namespace.is_empty() => identity.namespace = value.to_owned(),
            _ => {}
        }
    }
    identity
}

fn saturate(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
