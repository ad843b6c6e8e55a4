//! The messages of NRI, generated from `proto/nri.proto`.
//!
//! All are plain structs with public fields and a [`Default`]; a field that a runtime does not know is not sent by it and
//! ignored by it, so one set of messages serves all versions. The schema's comments say since when a field exists.
//!
//! [`ContainerAdjustment`] and [`ContainerUpdate`] have builder methods, see [`crate::adjust`].

// Most fields say what they are by their name; those that do not have a comment in the schema.
#![allow(missing_docs)]

// Written by the test `generated`, so that whoever uses this crate compiles no generator.
#[rustfmt::skip]
mod generated;

pub use generated::*;

/// The ttrpc service that a plugin serves.
pub const PLUGIN_SERVICE: &str = "nri.pkg.api.v1alpha1.Plugin";
/// The ttrpc service that the runtime serves.
pub const RUNTIME_SERVICE: &str = "nri.pkg.api.v1alpha1.Runtime";
