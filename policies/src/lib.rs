//! The policy language: what a policy says, what it means, and nothing of how it is enforced.
//!
//! Pure by design: no I/O, no clock, no kernel. See `SPECIFICATION.md` for the meaning in prose.

pub mod capability;
pub mod decide;
pub mod diagnostic;
pub mod expectation;
pub mod glob;
pub mod links;
mod mean;
pub mod meaning;
pub mod network;
pub mod parse;
mod path;
pub mod policy;
mod read;
mod reasons;
pub mod report;
pub mod select;
mod suggest;
pub mod syscall;
pub mod written;
pub mod yaml;

pub use diagnostic::Diagnostic;
pub use parse::{Options, Parsed, parse};
pub use policy::{Kind, Policy, Unenforced};
pub use report::{Backend, RuleReport, Support, report};
pub use select::{ContainerFacts, HostFacts, Mode, Selection, select, select_host};
