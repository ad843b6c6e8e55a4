//! From the tree to the types as written: everything that validation says, it says here.
//!
//! One file per part of a document. Each reader takes what is right and reports what is wrong, and goes on: an author gets
//! every error of a document at once. Whether there was an error is known at the end, from [`Context`]; until then a value that
//! was refused is simply missing.

mod context;
mod document;
mod fields;
mod metadata;
mod paths;
mod rules;
mod selector;
mod traffic;
mod unknown;

pub(crate) use context::Context;
pub(crate) use document::{document, identify};
