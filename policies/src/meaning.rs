//! Policies *as meant*: what remains when spelling, inheritance and defaults are resolved.
//!
//! The types here are the contract between the language and every backend. The automaton builder, the AppArmor generator,
//! `explain`, `test` and the alerts read them; only this crate makes them out of YAML.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::glob::Glob;

/// What a rule does to an operation that it covers.
///
/// Ordered by strength: between rules of equal specificity the greater wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Lets the operation through, and makes its class an allow-list.
    Allow,
    /// Lets the operation through and always alerts.
    Audit,
    /// Denies the operation and alerts.
    Block,
}

/// The class of operations that a rule speaks about. Each class decides by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Execution of a file.
    Process,
    /// Reading and changing of files.
    File,
    /// Sockets.
    Network,
    /// Use of a capability.
    Capability,
    /// System calls. Such rules only ever audit.
    Syscall,
}

/// Where a rule stands, so that a verdict can always be traced to a line that somebody wrote.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The policy's kind, e.g. `KubeArmorPolicy`.
    pub kind: Arc<str>,
    /// `metadata.namespace`; empty for cluster-scoped kinds and where none was given.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub policy: Arc<str>,
    /// The file it was read from.
    pub file: Arc<PathBuf>,
    /// Line of the rule in `file`, from 1.
    pub line: u32,
    /// Column of the rule in `file`, from 1.
    pub column: u32,
    /// Path of the rule in the document, e.g. `spec.process.matchPaths[0]`.
    pub field: String,
}

/// A file, or what is in a directory. Paths are as those of an [`Object`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Location {
    /// Exactly this path.
    Path(Vec<u8>),
    /// The directory itself and what is in it; with `recursive`, at every depth. The root directory is the empty `dir`.
    Directory {
        /// The directory.
        dir: Vec<u8>,
        /// Whether it covers every depth, or the immediate entries only.
        recursive: bool,
    },
}

impl Location {
    /// The path, where it is one and no directory.
    #[must_use]
    pub fn path(&self) -> Option<&[u8]> {
        match self {
            Location::Path(path) => Some(path),
            Location::Directory { .. } => None,
        }
    }

    /// Whether `path` is there.
    #[must_use]
    pub fn covers(&self, path: &[u8]) -> bool {
        match self {
            Location::Path(exact) => exact == path,
            Location::Directory { dir, recursive } => directory_covers(dir, *recursive, path),
        }
    }
}

/// Whether `path` is `dir`, an entry of it or, with `recursive`, anything below it.
pub(crate) fn directory_covers(dir: &[u8], recursive: bool, path: &[u8]) -> bool {
    let Some(below) = path.strip_prefix(dir) else { return false };
    match below.strip_prefix(b"/") {
        None => below.is_empty(),
        Some(entry) => recursive || !entry.contains(&b'/'),
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match self {
            Location::Path(path) => f.write_str(&text(path)),
            Location::Directory { dir, recursive: true } => write!(f, "{}/ and all below", text(dir)),
            Location::Directory { dir, recursive: false } => write!(f, "{}/ and its entries", text(dir)),
        }
    }
}

/// What a rule names. Paths are bytes, absolute, without a trailing slash, with `.`, `..` and `//` removed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Object {
    /// Exactly this path.
    Path(Vec<u8>),
    /// Any executable whose last component is this. Only in [`Class::Process`].
    ExecName(Vec<u8>),
    /// The directory itself and what is in it; with `recursive`, at every depth. The root directory is the empty `dir`.
    Directory {
        /// The directory, e.g. `/etc/ssl`; empty for `/`.
        dir: Vec<u8>,
        /// Whether it covers every depth, or the immediate entries only.
        recursive: bool,
    },
    /// Paths that match an AppArmor glob.
    Pattern(Glob),
    /// Sockets of a protocol. Only in [`Class::Network`].
    Protocol(crate::network::Protocol),
    /// A capability. Only in [`Class::Capability`].
    Capability(crate::capability::Capability),
    /// A system call. Only in [`Class::Syscall`].
    Syscall {
        /// Which.
        call: crate::syscall::Syscall,
        /// The files that it is about; `None` for the call itself, whatever it is about.
        at: Option<Location>,
    },
}

/// One rule, with everything inherited filled in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rule {
    /// Where it was written.
    pub origin: Origin,
    /// The class it decides in.
    pub class: Class,
    /// What it covers: the object as written and, once a container's root is known, where that leads through symlinks.
    /// Never empty; an operation is covered when any of them matches.
    pub objects: Vec<Object>,
    /// The executables it is limited to; empty means every subject. Directories only in [`Class::Syscall`].
    pub sources: Vec<Location>,
    /// `readOnly`: see [`crate::decide`].
    pub read_only: bool,
    /// `ownerOnly`: see [`crate::decide`].
    pub owner_only: bool,
    /// What it does.
    pub action: Action,
    /// 1 to 10, or 0 where none was given.
    pub severity: u8,
    /// `tags`, in the order given.
    pub tags: Vec<String>,
    /// `message`, or empty.
    pub message: String,
}

/// What happens to an operation that no rule covers in a class that is an allow-list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Posture {
    /// It is let through, with an alert.
    #[default]
    Audit,
    /// It is denied, with an alert.
    Block,
}

/// The default posture of each kind of allow-list. `file` holds for the process class too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Postures {
    /// For [`Class::File`] and [`Class::Process`].
    pub file: Posture,
    /// For [`Class::Network`].
    pub network: Posture,
    /// For [`Class::Capability`].
    pub capabilities: Posture,
}

/// Every rule that applies to one container (or host): the unit that is compiled and decided on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct RuleSet {
    /// The rules. Their order means nothing; their index is the rule id in reports, tables and events.
    pub rules: Vec<Arc<Rule>>,
    /// The postures in force.
    pub postures: Postures,
}

/// Most rules that a set may have: rule ids are 16 bits in the kernel, and the topmost are reserved.
pub const MAX_RULES: usize = 0xff00;
