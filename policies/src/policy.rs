//! A policy that has been accepted: whom it selects, what it means, and what of it is not enforced.

use std::sync::Arc;

use serde::Serialize;

use crate::meaning::{Origin, Rule};
pub use crate::written::{Kind, Selector};

/// A policy as meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// Its kind.
    pub kind: Kind,
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.namespace`; empty where none was given and for kinds that have none.
    pub namespace: Arc<str>,
    /// Whom it selects.
    pub selector: Selector,
    /// Its rules. A rule that is also in `unenforced` is an inert one: see [`NOBODY`].
    pub rules: Vec<Arc<Rule>>,
    /// What it says that no backend of this version enforces.
    pub unenforced: Vec<Unenforced>,
}

impl Policy {
    /// `kind/namespace/name`, or `kind/name` where it has no namespace.
    #[must_use]
    pub fn id(&self) -> String {
        match &*self.namespace {
            "" => format!("{}/{}", self.kind, self.name),
            namespace => format!("{}/{namespace}/{}", self.kind, self.name),
        }
    }
}

/// Something that a policy says and that this version does not enforce.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Unenforced {
    /// Where it says so.
    pub origin: Origin,
    /// The field that is not enforced, e.g. `syscalls`.
    pub feature: &'static str,
    /// What that means, as a sentence for the author.
    pub reason: String,
}

/// The source of an inert rule: the root directory, which is never an executable, so that no subject has it.
///
/// An `Allow` rule with a limit that is not enforced (`allowedArgs`, `pts`) must not let anything through, for it would let
/// through more than it says. Nor may it vanish: as the only `Allow` rule of its class it would take the default posture with it,
/// and everything would be let through. It stays in the set, limited to this source: its class remains an allow-list.
pub const NOBODY: &[u8] = b"/";
