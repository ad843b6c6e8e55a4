//! YAML as a tree of nodes that know where they stand, within limits.
//!
//! Policies come from people, from clusters and from whoever may write a file, so everything that is decoded is bounded here,
//! once: the rest of the crate walks trees that are known to be small and shallow. The parser underneath hands out events
//! and keeps its state on the heap; nothing here recurses over the input while it is being read.
//!
//! The file is cut into documents *before* it is parsed. A line that starts with `---` ends the document before it wherever it
//! stands (YAML 1.2.2, rule `c-forbidden`), so an error in one document cannot swallow the next.

mod load;
mod node;
mod split;

pub(crate) use load::{Unreadable, load};
pub(crate) use node::{Key, Node, Value};
pub(crate) use split::{Chunk, lines, split};

/// Largest file that is read, in bytes. An etcd object is at most 1.5 MiB; the largest published policy has 14 KiB.
pub const MAX_FILE_BYTES: usize = 1 << 20;
/// Most documents in one file.
pub const MAX_DOCUMENTS: usize = 1_000;
/// Deepest nesting of mappings and lists. A policy needs 8.
pub const MAX_DEPTH: usize = 32;
/// Most nodes (keys excluded) in one document.
pub const MAX_NODES: usize = 100_000;
/// Most nodes that aliases (`*name`) may add to one document. Bounds the "billion laughs".
pub const MAX_ALIASED_NODES: usize = 1_000;
/// Longest string that is read from a document, in bytes: PATH_MAX of Linux.
pub const MAX_STRING_BYTES: usize = 4_096;
/// Most errors that are reported for one document. Beyond it nobody reads on.
pub const MAX_DIAGNOSTICS: usize = 100;
