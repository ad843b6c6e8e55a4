//! Denials and audited operations on their way to whoever asks for them.
//!
//! The kernel's ring has one reader. While the agent runs it is the agent, which names each alert and passes it on to any number
//! of readers; without an agent, `portcullis events` reads the ring itself. Both write the same lines ([`mod@line`]), or KubeArmor's.

mod alert;
pub mod clock;
pub(crate) mod fanout;
mod filter;
pub(crate) mod format;
pub mod line;
mod names;
pub(crate) mod process;
mod residence;
mod text;
pub(crate) mod turns;

pub use self::alert::Alert;
pub use self::filter::{Filter, Verdict};
pub use self::format::Format;
pub use self::names::Names;
pub use self::process::{ParentFacts, PathFlags, ProcessFacts, Program};
pub use self::text::Short;
