//! From text to [`Expectation`]s. Every mistake of a file is reported, each where it stands.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::network::{FAMILIES, PROTOCOLS, TYPES};
use super::{Abi, Case, Expectation, File, FileCall, FileKind, MAX_CASES, MAX_ENTRIES, Only, Op, SocketCall};
use crate::decide::Verdict;
use crate::diagnostic::{Diagnostic, Position, file_name, quote};
use crate::meaning::{Posture, Postures};
use crate::network::Socket;
use crate::parse::{self, Options};
use crate::select::ContainerFacts;
use crate::suggest;
use crate::yaml::{self, MAX_DOCUMENTS, MAX_FILE_BYTES, Node, Value};

pub(super) fn parse(file: &Path, text: &[u8]) -> Result<Vec<Expectation>, Vec<Diagnostic>> {
    let mut reader = Reader { file: file_name(file), errors: Vec::new() };
    let documents = reader.documents(text);
    if reader.errors.is_empty() { Ok(documents) } else { Err(reader.errors) }
}

struct Reader {
    file: Arc<PathBuf>,
    errors: Vec<Diagnostic>,
}

/// A mapping, and the path of fields that leads to it.
struct Map<'a> {
    node: &'a Node,
    path: String,
}

impl Reader {
    fn documents(&mut self, text: &[u8]) -> Vec<Expectation> {
        if text.len() > MAX_FILE_BYTES {
            self.error(Position::START, "", format!("the file has more than {MAX_FILE_BYTES} bytes"), "split it");
            return Vec::new();
        }
        let Ok(text) = std::str::from_utf8(text) else {
            self.error(Position::START, "", "the file is not UTF-8", "save it as UTF-8; `pathHex` is for names that are not");
            return Vec::new();
        };
        let chunks = yaml::split(text);
        if chunks.len() > MAX_DOCUMENTS {
            self.error(Position::START, "", format!("the file has more than {MAX_DOCUMENTS} documents"), "split it");
            return Vec::new();
        }
        let mut documents = Vec::new();
        for (index, chunk) in chunks.into_iter().enumerate() {
            match yaml::load(chunk) {
                Ok((node, duplicates)) => {
                    for duplicate in duplicates {
                        self.error(duplicate.at, "", duplicate.message, &duplicate.help);
                    }
                    documents.extend(self.document(&node, index));
                }
                Err(unreadable) => self.error(unreadable.at, "", unreadable.message, &unreadable.help),
            }
        }
        documents
    }

    fn document(&mut self, node: &Node, index: usize) -> Option<Expectation> {
        let known = ["name", "policies", "container", "postures", "files", "cases"];
        let map = self.map(node, String::new(), &known)?;
        let mut document = Expectation {
            name: self.text(&map, "name").map_or_else(|| format!("document {}", index + 1), str::to_owned),
            line: node.at.line,
            policy_files: Vec::new(),
            policies: Vec::new(),
            policy_text: String::new(),
            facts: self.container(&map),
            postures: self.postures(&map),
            files: Vec::new(),
            cases: Vec::new(),
        };
        for (entry, field) in self.list(&map, "policies", MAX_ENTRIES) {
            self.policy(entry, &field, &mut document);
        }
        for (entry, field) in self.list(&map, "files", MAX_ENTRIES) {
            document.files.extend(self.file(entry, field));
        }
        let cases = self.list(&map, "cases", MAX_CASES);
        if cases.is_empty() && map.node.get("cases").is_none() {
            self.error(node.at, "cases", "the document expects nothing", "write `cases:` and what should happen");
        }
        for (entry, field) in cases {
            let Some(case) = self.case(entry, field) else { continue };
            if document.cases.iter().any(|other| other.name == case.name) {
                let message = format!("another case is named {}", quote(&case.name));
                self.error(entry.at, &case.name, message, "give each case a name of its own");
            }
            document.cases.push(case);
        }
        Some(document)
    }

    fn policy(&mut self, node: &Node, field: &str, document: &mut Expectation) {
        match &node.value {
            Value::Scalar { text, .. } if !node.is_null() => document.policy_files.push(text.to_string()),
            Value::Mapping(_) => {
                let parsed = parse::parse_node(&self.file, node, Options::default());
                for result in parsed.documents {
                    match result {
                        Ok(policy) => document.policies.push(policy),
                        Err(errors) => self.errors.extend(errors),
                    }
                }
                document.policy_text.push_str("---\n");
                node.write_flow(&mut document.policy_text);
                document.policy_text.push('\n');
            }
            _ => {
                let message = format!("this is {}, and neither a policy nor a file name", node.describe());
                self.error(node.at, field, message, "write a policy, or the name of its file");
            }
        }
    }

    fn container(&mut self, map: &Map<'_>) -> ContainerFacts {
        let known = ["name", "image", "namespace", "labels", "annotations"];
        let mut facts = ContainerFacts { name: "test".to_owned(), ..ContainerFacts::default() };
        let Some(container) = map.node.get("container") else { return facts };
        let Some(container) = self.map(container, "container".to_owned(), &known) else { return facts };
        let text = |reader: &mut Self, key: &str| reader.text(&container, key).map(str::to_owned);
        facts.name = text(self, "name").unwrap_or(facts.name);
        facts.image = text(self, "image").unwrap_or_default();
        if let Some(namespace) = text(self, "namespace") {
            facts.orchestrated = true;
            facts.namespace = namespace;
        }
        facts.labels.extend(self.texts(&container, "labels"));
        facts.annotations.extend(self.texts(&container, "annotations"));
        facts
    }

    fn postures(&mut self, map: &Map<'_>) -> Postures {
        let Some(node) = map.node.get("postures") else { return Postures::default() };
        let Some(map) = self.map(node, "postures".to_owned(), &["file", "network", "capabilities"]) else {
            return Postures::default();
        };
        let words = [("audit", Posture::Audit), ("block", Posture::Block)];
        let mut of = |key| self.word(&map, key, &words).unwrap_or_default();
        Postures { file: of("file"), network: of("network"), capabilities: of("capabilities") }
    }

    fn file(&mut self, node: &Node, field: String) -> Option<File> {
        let map = self.map(node, field, &["path", "pathHex", "kind", "symlink", "owner", "mode"])?;
        let path = self.path(&map, "path")?;
        let kinds = [("file", FileKind::File), ("dir", FileKind::Dir), ("exe", FileKind::Exe)];
        let kind = match self.text(&map, "symlink") {
            Some(target) => FileKind::Symlink(target.into()),
            None => self.word(&map, "kind", &kinds).unwrap_or(FileKind::File),
        };
        let owner = self.number(&map, "owner", 10).unwrap_or(0);
        Some(File { path, kind, owner, mode: self.number(&map, "mode", 8) })
    }

    fn case(&mut self, node: &Node, field: String) -> Option<Case> {
        let known = [
            "name",
            "source",
            "uid",
            "op",
            "path",
            "pathHex",
            "to",
            "socket",
            "capability",
            "syscall",
            "abi",
            "expect",
            "rule",
            "only",
        ];
        let map = self.map(node, field, &known)?;
        let name = self.require(&map, "name", "name the case by what it shows")?.to_owned();
        let verdicts = [("allow", Verdict::Allow), ("audit", Verdict::Audit), ("block", Verdict::Block)];
        self.require(&map, "expect", "write `expect: allow`, `audit` or `block`");
        let expect = self.word(&map, "expect", &verdicts);
        let source = if map.node.get("source").is_some() { Some(self.path(&map, "source")?) } else { None };
        let op = self.op(&map);
        Some(Case {
            name,
            line: node.at.line,
            source,
            uid: self.number(&map, "uid", 10).unwrap_or(0),
            op: op?,
            expect: expect?,
            rule: self.text(&map, "rule").map(str::to_owned),
            only: self.only(&map),
        })
    }

    fn op(&mut self, map: &Map<'_>) -> Option<Op> {
        enum Kind {
            File(FileCall),
            Exec,
            Deleted,
            Memfd,
            Socket(SocketCall),
            Capability,
            Syscall,
        }
        let mut words = vec![
            ("exec", Kind::Exec),
            ("exec-deleted", Kind::Deleted),
            ("memfd", Kind::Memfd),
            ("capability", Kind::Capability),
            ("syscall", Kind::Syscall),
        ];
        words.extend(FileCall::ALL.map(|call| (call.name(), Kind::File(call))));
        words.extend(SocketCall::ALL.map(|call| (call.name(), Kind::Socket(call))));
        self.require(map, "op", "write `op: read`, `exec`, `connect` …")?;
        let text = self.text(map, "op")?;
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        let Some((_, kind)) = words.into_iter().find(|(name, _)| *name == text) else {
            self.unknown_word(map, "op", text, &names);
            return None;
        };
        Some(match kind {
            Kind::File(call @ (FileCall::Rename | FileCall::Link)) => {
                let path = self.path(map, "path")?;
                Op::File { call, path, to: Some(self.path(map, "to")?) }
            }
            Kind::File(call) => Op::File { call, path: self.path(map, "path")?, to: None },
            Kind::Exec => Op::Exec(self.path(map, "path")?),
            Kind::Deleted => Op::ExecDeleted(self.path(map, "path")?),
            Kind::Memfd => Op::Memfd,
            Kind::Socket(call) => Op::Socket(call, self.socket(map)?),
            Kind::Syscall => self.syscall(map)?,
            Kind::Capability => {
                let text = self.require(map, "capability", "write `capability: net_raw`")?;
                match text.parse() {
                    Ok(capability) => Op::Capability(capability),
                    Err(error) => {
                        let error: crate::capability::UnknownCapability = error;
                        self.error_at(map, "capability", error.to_string(), "see capabilities(7)");
                        return None;
                    }
                }
            }
        })
    }

    fn syscall(&mut self, map: &Map<'_>) -> Option<Op> {
        let text = self.require(map, "syscall", "write `syscall: unlink`")?;
        let call = match text.parse() {
            Ok(call) => call,
            Err(error) => {
                let error: crate::syscall::UnknownSyscall = error;
                self.error_at(map, "syscall", error.to_string(), "see syscalls(2)");
                return None;
            }
        };
        let abi = self.word(map, "abi", &[("x86-64", Abi::X86_64), ("i386", Abi::I386)]).unwrap_or_default();
        let has_path = map.node.get("path").is_some() || map.node.get("pathHex").is_some();
        let path = if has_path { Some(self.path(map, "path")?) } else { None };
        let to = if map.node.get("to").is_some() { Some(self.path(map, "to")?) } else { None };
        Some(Op::Syscall { call, abi, path, to })
    }

    fn socket(&mut self, map: &Map<'_>) -> Option<Socket> {
        let Some(node) = map.node.get("socket") else {
            self.error_at(map, "socket", "it is missing", "write `socket: {family: inet, type: stream}`");
            return None;
        };
        let map = self.map(node, format!("{}.socket", map.path), &["family", "type", "protocol"])?;
        self.require(&map, "family", "write `family: inet`")?;
        self.require(&map, "type", "write `type: stream`")?;
        let family = self.named_number(&map, "family", &FAMILIES)?;
        let kind = self.named_number(&map, "type", &TYPES)?;
        let protocol = if map.node.get("protocol").is_some() { self.named_number(&map, "protocol", &PROTOCOLS)? } else { 0 };
        Some(Socket { family, kind, protocol })
    }

    fn only(&mut self, map: &Map<'_>) -> Only {
        let Some(node) = map.node.get("only") else { return Only::Both };
        let Some(only) = self.map(node, format!("{}.only", map.path), &["model", "kernel"]) else { return Only::Both };
        match (self.text(&only, "model"), self.text(&only, "kernel")) {
            (Some(why), None) => Only::Model(why.to_owned()),
            (None, Some(why)) => Only::Kernel(why.to_owned()),
            _ => {
                self.error(node.at, &only.path, "it must name one side and the reason", "write `only: {model: why}`");
                Only::Both
            }
        }
    }

    // ---- what every part is made of

    fn map<'a>(&mut self, node: &'a Node, path: String, known: &[&str]) -> Option<Map<'a>> {
        let Value::Mapping(entries) = &node.value else {
            self.error(node.at, &path, format!("this is {}, and must be a mapping", node.describe()), "write `name: value`");
            return None;
        };
        for (key, _) in entries.iter().filter(|(key, _)| !known.contains(&&*key.text)) {
            let help = match suggest::nearest(&key.text, known.iter().copied()) {
                Some(word) => format!("did you mean `{word}`?"),
                None => format!("known are {}", known.join(", ")),
            };
            self.error(key.at, &path, format!("there is no field {}", quote(&key.text)), &help);
        }
        Some(Map { node, path })
    }

    fn list<'a>(&mut self, map: &Map<'a>, key: &str, most: usize) -> Vec<(&'a Node, String)> {
        let Some(node) = map.node.get(key) else { return Vec::new() };
        let Value::Sequence(items) = &node.value else {
            self.error(
                node.at,
                key,
                format!("this is {}, and must be a list", node.describe()),
                "write `- ` before each element",
            );
            return Vec::new();
        };
        if items.len() > most {
            self.error(node.at, key, format!("{} are more than the {most} there may be", items.len()), "split the document");
        }
        items.iter().take(most).enumerate().map(|(index, item)| (item, format!("{key}[{index}]"))).collect()
    }

    fn text<'a>(&mut self, map: &Map<'a>, key: &str) -> Option<&'a str> {
        let node = map.node.get(key)?;
        if node.text().is_none() {
            self.error_at(map, key, format!("this is {}, and must be text", node.describe()), "write a single value");
        }
        node.text()
    }

    fn require<'a>(&mut self, map: &Map<'a>, key: &str, help: &str) -> Option<&'a str> {
        if map.node.get(key).is_none() {
            self.error_at(map, key, "it is missing", help);
        }
        self.text(map, key)
    }

    fn texts(&mut self, map: &Map<'_>, key: &str) -> Vec<(String, String)> {
        let Some(node) = map.node.get(key) else { return Vec::new() };
        let Value::Mapping(entries) = &node.value else {
            self.error_at(map, key, format!("this is {}, and must be a mapping", node.describe()), "write `name: value`");
            return Vec::new();
        };
        let text = |node: &Node| node.text().unwrap_or_default().to_owned();
        entries.iter().map(|(key, node)| (key.text.to_string(), text(node))).collect()
    }

    /// The absolute path in `key` or, for `path`, in `pathHex`.
    fn path(&mut self, map: &Map<'_>, key: &str) -> Option<Vec<u8>> {
        let hex = if key == "path" { self.text(map, "pathHex") } else { None };
        let path = match hex {
            Some(hex) => from_hex(hex),
            None => Some(self.require(map, key, "write an absolute path")?.as_bytes().to_vec()),
        };
        match path {
            Some(path) if path.starts_with(b"/") && !path.contains(&0) => Some(path),
            _ => {
                self.error_at(map, key, "it is no absolute path", "write it from the container's root: `/etc/passwd`");
                None
            }
        }
    }

    fn word<T: Clone>(&mut self, map: &Map<'_>, key: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(map, key)?;
        let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
        if found.is_none() {
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.unknown_word(map, key, text, &names);
        }
        found.map(|(_, meant)| meant.clone())
    }

    fn unknown_word(&mut self, map: &Map<'_>, key: &str, text: &str, names: &[&str]) {
        let help = match suggest::nearest(text, names.iter().copied()) {
            Some(word) => format!("did you mean `{word}`?"),
            None => format!("write one of {}", names.join(", ")),
        };
        self.error_at(map, key, format!("{} is not known here", quote(text)), &help);
    }

    fn number(&mut self, map: &Map<'_>, key: &str, radix: u32) -> Option<u32> {
        let text = self.text(map, key)?;
        let number = u32::from_str_radix(text, radix).ok();
        if number.is_none() {
            self.error_at(map, key, format!("{} is no number of base {radix}", quote(text)), "write a number");
        }
        number
    }

    fn named_number(&mut self, map: &Map<'_>, key: &str, names: &[(&str, u16)]) -> Option<u16> {
        let text = self.text(map, key)?;
        text.parse().ok().or_else(|| self.word(map, key, names))
    }

    fn error_at(&mut self, map: &Map<'_>, key: &str, message: impl Into<String>, help: &str) {
        let at = map.node.get(key).map_or(map.node.at, |node| node.at);
        let field = if map.path.is_empty() { key.to_owned() } else { format!("{}.{key}", map.path) };
        self.error(at, &field, message, help);
    }

    fn error(&mut self, at: Position, field: &str, message: impl Into<String>, help: &str) {
        if self.errors.len() < yaml::MAX_DIAGNOSTICS {
            self.errors.push(Diagnostic::new(&self.file, at, field, message, help));
        }
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok()).collect()
}
