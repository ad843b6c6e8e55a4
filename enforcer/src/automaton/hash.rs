//! The content hash of a rule set: what makes two containers share one table.

use std::os::unix::ffi::OsStrExt;

use portcullis_ebpf::abi;
use portcullis_policy::meaning::{Location, Object, Origin, Posture, Rule, RuleSet};
use sha2::{Digest, Sha256};

/// Goes up when the same rules would be compiled to other words.
const FORMAT: u32 = 2;

/// A 128-bit hash of everything in a rule set: the rules in their order (their index is the rule id in events), where each
/// was written (events name the place), and the postures. And of nothing else but the format of the tables.
#[must_use]
pub fn content_hash(set: &RuleSet) -> [u64; 2] {
    let mut hasher = Fields(Sha256::new());
    hasher.bytes(b"portcullis rule set");
    hasher.number(abi::LAYOUT);
    hasher.number(FORMAT);
    for posture in [set.postures.file, set.postures.network, set.postures.capabilities] {
        hasher.number(u32::from(posture == Posture::Block));
    }
    hasher.number(set.rules.len() as u32);
    for rule in &set.rules {
        hasher.rule(rule);
    }
    let digest = hasher.0.finalize();
    let half = |from: usize| digest[from..from + 8].iter().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
    [half(0), half(8)]
}

/// Hashes fields with their lengths, so that no two different sets have the same bytes.
struct Fields(Sha256);

impl Fields {
    fn number(&mut self, value: u32) {
        self.0.update(value.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn rule(&mut self, rule: &Rule) {
        // Taken apart without `..`: a new field has to be thought of here.
        let Rule { origin, class, objects, sources, read_only, owner_only, action, severity, tags, message } = rule;
        let Origin { kind, namespace, policy, file, line, column, field } = origin;
        for text in [kind.as_bytes(), namespace.as_bytes(), policy.as_bytes(), file.as_os_str().as_bytes()] {
            self.bytes(text);
        }
        self.bytes(field.as_bytes());
        let flags = u32::from(*read_only) | u32::from(*owner_only) << 1;
        for number in [*line, *column, *class as u32, *action as u32, flags, u32::from(*severity)] {
            self.number(number);
        }
        self.bytes(message.as_bytes());
        self.number(tags.len() as u32);
        tags.iter().for_each(|tag| self.bytes(tag.as_bytes()));
        self.number(sources.len() as u32);
        sources.iter().for_each(|source| self.location(source));
        self.number(objects.len() as u32);
        objects.iter().for_each(|object| self.object(object));
    }

    fn location(&mut self, at: &Location) {
        let (kind, text): (u32, &[u8]) = match at {
            Location::Path(path) => (0, path),
            Location::Directory { dir, recursive } => (1 + u32::from(*recursive), dir),
        };
        self.number(kind);
        self.bytes(text);
    }

    fn object(&mut self, object: &Object) {
        let (kind, text): (u32, &[u8]) = match object {
            Object::Path(path) => (0, path),
            Object::ExecName(name) => (1, name),
            Object::Directory { dir, recursive } => (2 + u32::from(*recursive), dir),
            Object::Pattern(glob) => (4, glob.text()),
            Object::Protocol(protocol) => (5, protocol.name().as_bytes()),
            Object::Capability(capability) => (6, capability.name().as_bytes()),
            Object::Syscall { call, at } => {
                self.number(7 + u32::from(at.is_some()));
                self.bytes(call.name().as_bytes());
                return at.iter().for_each(|at| self.location(at));
            }
        };
        self.number(kind);
        self.bytes(text);
    }
}
