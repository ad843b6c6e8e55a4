//! The containers that doors have seen, whether or not a policy selects them.
//!
//! A policy that is changed later may select what none selected before. Then somebody must know who each container is and where:
//! labels and images are told to a door once, when the container is created.

use portcullis_policy::ContainerFacts;
use serde::{Deserialize, Serialize};

use crate::place::Place;
use crate::unknown::Missing;

/// A container that a door has seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Known {
    /// Who it is.
    pub facts: ContainerFacts,
    /// What of that nobody could tell.
    #[serde(default)]
    pub missing: Missing,
    /// Through which door it came.
    pub door: Door,
    /// Where it is; absent as long as it is expected and has no process yet.
    pub place: Option<Place>,
}

/// A way in which containers reach the enforcer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Door {
    /// The OCI hook, by itself.
    Hook,
    /// The NRI plugin. The hook may have armed what the plugin announced.
    Nri,
}
