//! Expectation files: what policies should allow, audit and block, written down beside them and checked by
//! `portcullis policy test`. The conformance corpus is written in the same format, and run on the kernel too.
//!
//! ```yaml
//! name: secrets            # optional; the document's place in the file otherwise
//! policies:                # file names, relative to this file, or whole policies
//!   - secrets.yaml
//! container:               # optional: what the policies' selectors look at
//!   {name: web, image: nginx:1.27, namespace: shop, labels: {app: web}, annotations: {}}
//! postures: {file: block, network: audit, capabilities: audit}   # optional; `audit` by default
//! files:                   # optional: what is not root's regular file of mode 0644
//!   - {path: /bin, symlink: usr/bin}
//!   - {path: /home/ann/key, owner: 1000, mode: "0600"}
//!   - {path: /opt/app, kind: exe}
//! cases:
//!   - {name: the key is secret, op: read, path: /etc/key, expect: block, rule: secrets}
//!   - {name: as the app, source: /opt/app, uid: 1000, op: connect, socket: {family: inet, type: stream}, expect: allow}
//!   - {name: moved away, op: rename, path: /etc/key, to: /tmp/key, expect: block}
//!   - {name: chroot, op: capability, capability: sys_chroot, expect: allow}
//!   - {name: as a 32-bit program would, op: syscall, syscall: rmdir, abi: i386, path: /home/ann, expect: audit}
//! ```
//!
//! A file may hold several documents, apart by `---`. Paths may pass through links that `files` declares; `pathHex` is a path
//! in hexadecimal, for names that are no text. `rule` is the name of the policy that must have decided, or `DefaultPosture`.
//! `only: {model: why}` or `only: {kernel: why}` leaves the other out.
//!
//! This module reads and evaluates. It opens nothing: whoever calls it loads [`Expectation::policy_files`].

mod evaluate;
mod network;
mod read;
mod tree;

use std::path::Path;

use crate::capability::Capability;
use crate::decide::Verdict;
use crate::diagnostic::Diagnostic;
use crate::links::through_links;
use crate::meaning::{Postures, RuleSet};
use crate::network::Socket;
use crate::policy::Policy;
use crate::select::{ContainerFacts, Selection, select};
use crate::syscall::{PathSeen, Syscall};

pub use evaluate::{Outcome, Reason};
use tree::Tree;

/// How expectation files end, so that they can lie in a directory of policies without being taken for one.
pub const FILE_ENDING: &str = ".test.yaml";
/// Most cases of one document.
pub const MAX_CASES: usize = 10_000;
/// Most policies of one document, and most files.
pub const MAX_ENTRIES: usize = 1_000;
/// What a case's `rule` says where the default posture must have decided: the name that alerts give it.
pub const DEFAULT_POSTURE: &str = "DefaultPosture";

/// One document: a policy set and what is expected of it.
#[derive(Debug, Clone)]
pub struct Expectation {
    /// `name`, or `document N`.
    pub name: String,
    /// Line where it starts.
    pub line: u32,
    /// Policy files, as written: relative to the expectation file.
    pub policy_files: Vec<String>,
    /// Policies that stand in the document itself.
    pub policies: Vec<Policy>,
    /// These again as a YAML text of their own, for those that need a policy file.
    pub policy_text: String,
    /// The container.
    pub facts: ContainerFacts,
    /// Default postures.
    pub postures: Postures,
    /// Files of the container.
    pub files: Vec<File>,
    /// What is expected.
    pub cases: Vec<Case>,
}

/// A file of the container. What no document declares is an existing regular file of root's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Where.
    pub path: Vec<u8>,
    /// What.
    pub kind: FileKind,
    /// Its owner.
    pub owner: u32,
    /// Its permissions, where they are not the usual ones of its kind.
    pub mode: Option<u32>,
}

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A link that leads there; relative to its directory unless absolute.
    Symlink(Vec<u8>),
    /// An executable.
    Exe,
}

/// One operation and its expected end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Unique in its document.
    pub name: String,
    /// Line where it starts.
    pub line: u32,
    /// The executable that does it; any that no policy names if `None`.
    pub source: Option<Vec<u8>>,
    /// Who does it; root by default.
    pub uid: u32,
    /// What is done.
    pub op: Op,
    /// How it must end.
    pub expect: Verdict,
    /// Name of the policy that must have decided, or [`DEFAULT_POSTURE`].
    pub rule: Option<String>,
    /// Where it is run.
    pub only: Only,
}

/// Which of the two implementations runs a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Only {
    /// Both.
    Both,
    /// The reference model alone, and why.
    Model(String),
    /// The kernel alone, and why.
    Kernel(String),
}

/// An operation as a case names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// On a file.
    File {
        /// How.
        call: FileCall,
        /// Which; for links and renames the existing name, for a symbolic link the new one.
        path: Vec<u8>,
        /// The second name, of [`FileCall::Rename`] and [`FileCall::Link`].
        to: Option<Vec<u8>>,
    },
    /// Execution of a file by its path.
    Exec(Vec<u8>),
    /// Execution of a file by a descriptor, after its name was removed.
    ExecDeleted(Vec<u8>),
    /// Execution of a memfd.
    Memfd,
    /// On a socket.
    Socket(SocketCall, Socket),
    /// Use of a capability.
    Capability(Capability),
    /// A system call.
    Syscall {
        /// Which.
        call: Syscall,
        /// How it is entered.
        abi: Abi,
        /// What it is about.
        path: Option<Vec<u8>>,
        /// The second name, of those that take two.
        to: Option<Vec<u8>>,
    },
}

/// How a system call is entered. It is the same call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Abi {
    /// `syscall`.
    #[default]
    X86_64,
    /// `int 0x80`.
    I386,
}

/// File operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the system calls")]
pub enum FileCall {
    Read,
    Write,
    Append,
    Create,
    Unlink,
    Rename,
    Link,
    Symlink,
    Mkdir,
    Rmdir,
    Mknod,
    Chmod,
    Chown,
    Truncate,
    Utimes,
}

impl FileCall {
    /// All there are.
    pub const ALL: [FileCall; 15] = [
        FileCall::Read,
        FileCall::Write,
        FileCall::Append,
        FileCall::Create,
        FileCall::Unlink,
        FileCall::Rename,
        FileCall::Link,
        FileCall::Symlink,
        FileCall::Mkdir,
        FileCall::Rmdir,
        FileCall::Mknod,
        FileCall::Chmod,
        FileCall::Chown,
        FileCall::Truncate,
        FileCall::Utimes,
    ];

    /// As cases write it.
    pub fn name(self) -> &'static str {
        match self {
            FileCall::Read => "read",
            FileCall::Write => "write",
            FileCall::Append => "append",
            FileCall::Create => "create",
            FileCall::Unlink => "unlink",
            FileCall::Rename => "rename",
            FileCall::Link => "link",
            FileCall::Symlink => "symlink",
            FileCall::Mkdir => "mkdir",
            FileCall::Rmdir => "rmdir",
            FileCall::Mknod => "mknod",
            FileCall::Chmod => "chmod",
            FileCall::Chown => "chown",
            FileCall::Truncate => "truncate",
            FileCall::Utimes => "utimes",
        }
    }

    /// Whether it makes its path, which must not exist before.
    pub fn creates(self) -> bool {
        matches!(self, FileCall::Create | FileCall::Symlink | FileCall::Mkdir | FileCall::Mknod)
    }

    /// Whether it is about the name itself, and so does not follow a link in the last component.
    pub fn keeps_last_link(self) -> bool {
        self.creates() || matches!(self, FileCall::Unlink | FileCall::Rename | FileCall::Link | FileCall::Rmdir)
    }
}

/// Socket operations. Each is decided by the socket's kind alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the system calls")]
pub enum SocketCall {
    Socket,
    Connect,
    Bind,
    Listen,
    Sendto,
}

impl SocketCall {
    /// All there are.
    pub const ALL: [SocketCall; 5] =
        [SocketCall::Socket, SocketCall::Connect, SocketCall::Bind, SocketCall::Listen, SocketCall::Sendto];

    /// As cases write it.
    pub fn name(self) -> &'static str {
        match self {
            SocketCall::Socket => "socket",
            SocketCall::Connect => "connect",
            SocketCall::Bind => "bind",
            SocketCall::Listen => "listen",
            SocketCall::Sendto => "sendto",
        }
    }
}

/// Whether a system call is about the name itself, and so does not follow a link in the last component.
#[must_use]
pub fn keeps_last_link(call: Syscall) -> bool {
    call.path_seen() == PathSeen::Name || matches!(call.name(), "lchown" | "lsetxattr" | "lremovexattr")
}

impl Op {
    /// As cases write it.
    pub fn name(&self) -> &'static str {
        match self {
            Op::File { call, .. } => call.name(),
            Op::Exec(_) => "exec",
            Op::ExecDeleted(_) => "exec-deleted",
            Op::Memfd => "memfd",
            Op::Socket(call, _) => call.name(),
            Op::Capability(_) => "capability",
            Op::Syscall { .. } => "syscall",
        }
    }
}

impl Expectation {
    /// What holds for the container, of the policies in the document and those that were loaded for it.
    pub fn select(&self, loaded: &[Policy]) -> Selection {
        let policies: Vec<Policy> = self.policies.iter().chain(loaded).cloned().collect();
        select(&policies, &self.facts, self.postures)
    }

    /// The rules of what [`Expectation::select`] has selected, with where their paths lead in the container.
    pub fn rules(&self, selection: &Selection) -> RuleSet {
        let tree = Tree::new(&self.files);
        through_links(&selection.set, |path| vec![tree.walk(path, true), tree.walk(path, false)])
    }

    /// Where a path of the container leads; with `keep_last` a link in its last component is not followed.
    pub fn leads(&self, path: &[u8], keep_last: bool) -> Vec<u8> {
        Tree::new(&self.files).walk(path, keep_last)
    }

    /// Whose file it is, of a path that leads nowhere else.
    pub fn owner(&self, path: &[u8]) -> u32 {
        Tree::new(&self.files).owner(path)
    }

    /// What the reference model says of a case, of what [`Expectation::select`] has selected.
    pub fn evaluate(&self, selection: &Selection, case: &Case) -> Outcome {
        evaluate::evaluate(self, selection, case)
    }

    /// Why a case has not ended as expected; `None` if it has.
    pub fn mismatch(&self, case: &Case, outcome: &Outcome) -> Option<String> {
        let word = |verdict: Verdict| format!("{verdict:?}").to_lowercase();
        if outcome.verdict != case.expect {
            return Some(format!("expected {}, and it is {} by {}", word(case.expect), word(outcome.verdict), outcome.reason));
        }
        let wanted = case.rule.as_deref()?;
        (outcome.reason.name() != Some(wanted)).then(|| format!("expected `{wanted}` to decide, and {} does", outcome.reason))
    }
}

/// Reads the documents of an expectation file. `file` is what diagnostics call it.
pub fn parse(file: &Path, text: &[u8]) -> Result<Vec<Expectation>, Vec<Diagnostic>> {
    read::parse(file, text)
}
