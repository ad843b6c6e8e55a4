//! What the state directory keeps of each container: what was armed for it, or that it runs without.

use std::collections::BTreeMap;
use std::path::PathBuf;

use portcullis_policy::select::Owner;
use serde::{Deserialize, Serialize};

use crate::apparmor::ProfileName;
use crate::slots::FIRST_GENERATION;
use crate::visibility::Asks;

/// What was armed for a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerRecord {
    /// The engine's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// Its namespace; empty outside Kubernetes.
    pub namespace: String,
    /// Its pod's name, where it was known.
    #[serde(default)]
    pub pod: String,
    /// Its labels, or its pod's.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What its pod belongs to, where that was known.
    #[serde(default)]
    pub owner: Option<Owner>,
    /// Its init when it was armed.
    pub pid: u32,
    /// The cgroup it was armed for.
    pub cgroup_id: u64,
    /// The same as a path below the root of the hierarchy.
    pub cgroup_path: PathBuf,
    /// Its slot.
    pub slot: u32,
    /// [`portcullis_ebpf::abi::Slot::epoch`]; a slot with another is another container's.
    pub epoch: u32,
    /// Index of its policy set.
    pub set: u32,
    /// Content hash of its policy set, the name of the record of its rules.
    pub hash: String,
    /// Nothing is denied to it, only alerted.
    pub audited: bool,
    /// The policies that select it.
    pub policies: Vec<String>,
    /// How many things those policies say that are not enforced.
    pub unenforced: usize,
    /// When it was armed, in seconds since 1970.
    pub armed_at: u64,
    /// [`portcullis_ebpf::abi::Slot::generation`]: goes up each time its policy is switched.
    #[serde(default = "first_generation")]
    pub generation: u32,
    /// It ran before it was armed, and not all of its tasks are under its policy yet.
    #[serde(default)]
    pub adopting: bool,
    /// What it had before, the newest first: events of those generations may be read later.
    #[serde(default)]
    pub earlier: Vec<Earlier>,
    /// What it asks to be told of it. Nothing in the record of an older version, until it is brought to the policies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asks: Option<Asks>,
    /// How AppArmor confines it; nothing where the kernel programs do. Then slot and epoch are [`ProfileName::tenancy`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confinement: Option<Confinement>,
}

/// How AppArmor confines a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Confinement {
    /// Its profile.
    pub profile: ProfileName,
    /// It was started with `no_new_privs`, for which profiles are others.
    pub no_new_privileges: bool,
    /// Its bundle, whose configuration says what it is executed with.
    pub bundle: PathBuf,
    /// Who has given it its label.
    #[serde(default)]
    pub carrier: Carrier,
}

/// Who gives a container its label, and what the label is not given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Carrier {
    /// `portcullis-runtime`, which gives it to what is executed in the container later, too.
    #[default]
    Runtime,
    /// Podman's hook `precreate`, which Podman does not ask about `podman exec`.
    Precreate,
}

impl Carrier {
    /// What is not confined in a container with a label of this carrier, for people.
    #[must_use]
    pub fn shortfall(self) -> Option<&'static str> {
        match self {
            Carrier::Runtime => None,
            Carrier::Precreate => Some(
                "protected in part: what `podman exec` executes in it is not confined, as its label is from Podman's precreate hook; have Podman run containers by portcullis-runtime (contrib/runtime)",
            ),
        }
    }
}

/// A policy set that a container had before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earlier {
    /// Its generation.
    pub generation: u32,
    /// Its content hash.
    pub hash: String,
}

/// Generations of a container whose rules are kept for events that are read late.
const MAX_EARLIER: usize = 4;

fn first_generation() -> u32 {
    FIRST_GENERATION
}

impl ContainerRecord {
    /// The hash of the set that it had in a generation; the present one's where nobody knows.
    #[must_use]
    pub fn hash_in(&self, generation: u32) -> &str {
        self.earlier.iter().find(|earlier| earlier.generation == generation).map_or(&self.hash, |earlier| &earlier.hash)
    }

    /// Notes that the present set makes room for another.
    pub(crate) fn switched(&mut self, generation: u32, hash: String) {
        let before = Earlier { generation: self.generation, hash: std::mem::replace(&mut self.hash, hash) };
        self.generation = generation;
        self.earlier.insert(0, before);
        self.earlier.truncate(MAX_EARLIER);
    }
}

/// A container that was let through without protection, by the fail policy `permit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unprotected {
    /// The engine's id.
    pub id: String,
    /// Its name, as far as it was known.
    pub name: String,
    /// Why it could not be armed.
    pub reason: String,
    /// When, in seconds since 1970.
    pub at: u64,
}

#[cfg(test)]
mod tests {
    use portcullis_policy::ContainerFacts;

    use super::*;

    #[test]
    fn a_confinement_of_an_older_version_is_by_the_runtime() {
        let old = r#"{"profile":"portcullis.0","noNewPrivileges":false,"bundle":"/b"}"#;
        let confinement: Confinement = serde_json::from_str(old).unwrap();
        assert_eq!(confinement.carrier, Carrier::Runtime);
        assert_eq!(confinement.carrier.shortfall(), None);
        let by_hook = Confinement { carrier: Carrier::Precreate, ..confinement };
        let written = serde_json::to_string(&by_hook).unwrap();
        assert!(written.contains(r#""carrier":"precreate""#), "{written}");
        assert_eq!(serde_json::from_str::<Confinement>(&written).unwrap(), by_hook);
    }

    #[test]
    fn a_record_of_an_older_version_is_read() {
        let old = r#"{"id":"c1","name":"web","image":"i","namespace":"shop","pid":1,"cgroupId":2,"cgroupPath":"/c","slot":3,"epoch":4,"set":5,"hash":"h","audited":false,"policies":[],"unenforced":0,"armedAt":6}"#;
        let record: ContainerRecord = serde_json::from_str(old).unwrap();
        assert_eq!((record.pod.as_str(), record.labels.len(), record.owner.as_ref(), record.asks.as_ref()), ("", 0, None, None));
        let pod = ContainerRecord {
            pod: "web-7d4b9".to_owned(),
            labels: [("app".to_owned(), "web".to_owned())].into(),
            owner: Some(Owner { kind: "Deployment".to_owned(), name: "web".to_owned() }),
            asks: Some(Asks::of(&ContainerFacts::default())),
            ..record
        };
        assert_eq!(serde_json::from_slice::<ContainerRecord>(&serde_json::to_vec(&pod).unwrap()).unwrap(), pod);
    }
}
