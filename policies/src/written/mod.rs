//! Policies *as written*: the fields of a document with their types, before inheritance, defaults and spelling are resolved.
//!
//! Field names are KubeArmor's. A field that is absent, or null, is `None` or empty. What is here has passed validation, each
//! field by itself; [`crate::meaning`] is made of it by the `mean` module.

mod selector;

use serde::{Deserialize, Serialize};

pub use selector::{ContainerNames, Expression, ExpressionKey, HostNames, NamePattern, Operator, Selector};

use crate::capability::Capability;
use crate::diagnostic::Position;
use crate::glob::Glob;
use crate::meaning::{Action, Location};
use crate::network::Protocol;
use crate::syscall::Syscall;

/// The four kinds of policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// Of a namespace: selects containers by labels.
    KubeArmorPolicy,
    /// Of the cluster: selects containers by namespace and labels.
    KubeArmorClusterPolicy,
    /// Of the hosts: selects nodes.
    KubeArmorHostPolicy,
    /// The network of hosts, and bandwidth.
    KubeArmorNetworkPolicy,
}

impl Kind {
    /// All there are.
    pub const ALL: [Self; 4] =
        [Self::KubeArmorPolicy, Self::KubeArmorClusterPolicy, Self::KubeArmorHostPolicy, Self::KubeArmorNetworkPolicy];

    /// The kind's name in a document.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KubeArmorPolicy => "KubeArmorPolicy",
            Self::KubeArmorClusterPolicy => "KubeArmorClusterPolicy",
            Self::KubeArmorHostPolicy => "KubeArmorHostPolicy",
            Self::KubeArmorNetworkPolicy => "KubeArmorNetworkPolicy",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A whole document.
#[derive(Debug, Clone)]
pub struct Document {
    /// `kind`.
    pub kind: Kind,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`, or empty.
    pub namespace: String,
    /// `spec`.
    pub spec: Spec,
    /// Where the document starts.
    pub at: Position,
}

/// The attributes that a rule inherits from its section, and a section from the spec.
#[derive(Debug, Clone, Default)]
pub struct Common {
    /// `severity`, 1 to 10.
    pub severity: Option<u8>,
    /// `tags`.
    pub tags: Vec<String>,
    /// `message`.
    pub message: Option<String>,
    /// `action`.
    pub action: Option<Action>,
}

/// `spec`, of any kind. What a kind does not have is empty.
#[derive(Debug, Clone, Default)]
pub struct Spec {
    /// Attributes for every section.
    pub common: Common,
    /// `selector` and `nodeSelector`.
    pub selector: Selector,
    /// `process`, `file`, `network`, `capabilities`, `syscalls`, `device`.
    pub sections: Vec<Section>,
    /// `presets`.
    pub presets: Vec<Item<Preset>>,
    /// `apparmor`: where it stands. Its text is for AppArmor alone.
    pub apparmor: Option<Position>,
    /// `ingress` and `egress`.
    pub traffic: Vec<Item<Traffic>>,
}

/// A section of the spec.
#[derive(Debug, Clone)]
pub struct Section {
    /// Attributes for every rule of the section.
    pub common: Common,
    /// Its rules, of every `match…` list.
    pub rules: Vec<Item<Match>>,
}

/// An element of a list, with its own attributes and its place.
#[derive(Debug, Clone)]
pub struct Item<T> {
    /// Where it stands.
    pub at: Position,
    /// Its path in the document, e.g. `spec.process.matchPaths[0]`.
    pub field: String,
    /// Its attributes.
    pub common: Common,
    /// What it says.
    pub says: T,
}

/// What a rule matches.
#[derive(Debug, Clone)]
pub enum Match {
    /// `process.matchPaths`, `process.matchDirectories`, `process.matchPatterns`.
    Process {
        /// `path`, `execname`, `dir` or `pattern`. Both `path` and `execname` may be given: either matches.
        targets: Vec<Target>,
        /// `fromSource`, `ownerOnly`.
        limits: Limits,
        /// `allowedArgs` is given.
        allowed_args: bool,
        /// `pts: false` is given.
        terminal_only: bool,
    },
    /// `file.match…`.
    File {
        /// `path`, `dir` or `pattern`.
        target: Target,
        /// `fromSource`, `ownerOnly`.
        limits: Limits,
        /// `readOnly`.
        read_only: bool,
    },
    /// `network.matchProtocols`.
    Protocols {
        /// `protocol`, a comma list.
        protocols: Vec<Protocol>,
        /// `fromSource`.
        limits: Limits,
        /// `pts: false` is given.
        terminal_only: bool,
    },
    /// `network.matchDNSQueries`: the domains.
    Dns(Vec<String>),
    /// `capabilities.matchCapabilities`.
    Capabilities {
        /// `capability`, a comma list.
        capabilities: Vec<Capability>,
        /// `fromSource`.
        limits: Limits,
    },
    /// `syscalls.matchSyscalls` and `syscalls.matchPaths`.
    Syscalls {
        /// `syscall`, each with its place in the list.
        calls: Vec<(Syscall, String)>,
        /// `path` and `recursive`, of `matchPaths`.
        at: Option<Location>,
        /// `fromSource`.
        limits: Limits,
    },
    /// `device.matchDevice`: the class.
    Device(String),
}

/// What a file or process rule names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A file.
    Path(Vec<u8>),
    /// The last component of an executable.
    ExecName(Vec<u8>),
    /// A directory.
    Directory {
        /// Its path, empty for the root.
        dir: Vec<u8>,
        /// `recursive`.
        recursive: bool,
    },
    /// An AppArmor glob.
    Pattern(Glob),
}

/// Who a rule is limited to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// `fromSource[].path`, and `fromSource[].dir` of `syscalls`.
    pub sources: Vec<Location>,
    /// `ownerOnly`.
    pub owner_only: bool,
}

/// `presets[]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preset {
    /// `name`, one of [`PRESETS`].
    pub name: String,
}

/// `ingress[]` or `egress[]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traffic {
    /// Whether it limits bandwidth (`limit`) or filters packets.
    pub quota: bool,
}

/// The names of presets.
pub const PRESETS: [&str; 5] = ["anonymousMapExec", "filelessExec", "protectEnv", "exec", "protectProc"];
