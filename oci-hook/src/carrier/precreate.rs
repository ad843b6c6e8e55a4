//! Podman's hook `precreate`: a label for containers that Podman does not run by `portcullis-runtime`.
//!
//! Podman gives such a hook the configuration that it is about to write, each time that a container starts, and takes what the hook
//! answers in its place; a hook that fails makes the start fail (`RuntimeConfigFilter` in `pkg/hooks/exec` of containers/common).
//! `podman exec` does not come by: it takes the configuration that Podman keeps (`prepareProcessExec` in libpod), so what is executed
//! later has no label of ours. The label is marked for that ([`Carrier::Precreate`]), and whoever asks about the container is told.
//!
//! A hook is not told the container's id. The configuration has it in the name of the cgroup and in the source of
//! `/run/.containerenv`, and since Podman 5 the working directory is the bundle; those that there are have to agree. A wrong one
//! would be a wrong label, which the gate hook refuses.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use portcullis_enforcer::Carrier;
use portcullis_enforcer::place::{Host, Process, host};
use serde::Deserialize;

use super::{CarrierError, Create, configure, enforces, permits, unprotected};
use crate::args::FailPolicy;
use crate::bundle::{CONFIG, MAX_CONFIG_BYTES};
use crate::enforcement::Carrying;
use crate::identity::podman::Layout;
use crate::run::{HookError, PROGRAM, line};
use crate::state::object;

/// Digits of the ids that Podman makes.
const ID_DIGITS: usize = 64;
/// A mount whose source is in the container's directory below the run root.
const CONTAINER_ENV: &str = "/run/.containerenv";

/// What is said to Podman.
#[derive(Debug, PartialEq, Eq)]
pub struct Filtered {
    /// The configuration.
    pub answer: Answer,
    /// Lines for standard error.
    pub lines: Vec<String>,
}

/// A configuration in the place of the one that was given.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The same, of which nothing was read.
    Same,
    /// This one.
    Config(Vec<u8>),
    /// None: the container is not to start.
    Refused,
}

#[derive(Deserialize)]
struct Written {
    root: Option<Root>,
    linux: Option<Linux>,
    mounts: Option<Vec<Mount>>,
}

#[derive(Deserialize)]
struct Root {
    path: PathBuf,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    cgroups_path: Option<String>,
}

#[derive(Deserialize)]
struct Mount {
    destination: PathBuf,
    source: Option<PathBuf>,
}

/// Gives the container of a configuration its label, if a policy is for it.
pub fn filter<E: Carrying>(
    host: &Host,
    enforcement: &E,
    fail_policy: Option<FailPolicy>,
    directory: &Path,
    input: impl Read,
) -> Filtered {
    match enforces(enforcement) {
        Ok(true) => {}
        Ok(false) => return Filtered { answer: Answer::Same, lines: Vec::new() },
        Err(error) => return refused("of unknown id", &error),
    }
    // What is too long to be read can't be let through either.
    let bytes = match host::read_to_limit(input, Path::new("the configuration on the standard input"), MAX_CONFIG_BYTES) {
        Ok(bytes) => bytes,
        Err(error) => return refused("of unknown id", &error.into()),
    };
    let mut id = String::new();
    match label(host, enforcement, directory, &bytes, &mut id) {
        Ok(config) => Filtered { answer: Answer::Config(config.unwrap_or(bytes)), lines: Vec::new() },
        Err(error) if permits(enforcement, fail_policy, &error) => {
            let text = unprotected(enforcement, &id, &error);
            Filtered { answer: Answer::Config(bytes), lines: vec![line(PROGRAM, &text)] }
        }
        Err(error) => refused(if id.is_empty() { "of unknown id" } else { &id }, &error),
    }
}

fn refused(id: &str, error: &CarrierError) -> Filtered {
    Filtered { answer: Answer::Refused, lines: vec![line(PROGRAM, &format!("container {id} refused: {error}"))] }
}

fn label<E: Carrying>(
    host: &Host,
    enforcement: &E,
    directory: &Path,
    bytes: &[u8],
    id: &mut String,
) -> Result<Option<Vec<u8>>, CarrierError> {
    if host.uid != 0 || !Process::own(host).map_err(HookError::from)?.is_in_initial_user_namespace().map_err(HookError::from)? {
        return Err(HookError::Rootless.into());
    }
    let written: Written = object(bytes).map_err(|source| CarrierError::Json { path: "the standard input".into(), source })?;
    *id = written.id(directory)?;
    let bundle = written.bundle(directory, id).ok_or_else(|| CarrierError::NoStorage { id: id.clone() })?;
    let create = Create { id, directory: &bundle, file: &bundle.join(CONFIG), carrier: Carrier::Precreate, lsm_profile: false };
    Ok(configure(host, enforcement, &create, bytes)?.map(|config| config.bytes()))
}

impl Written {
    fn id(&self, directory: &Path) -> Result<String, CarrierError> {
        let cgroup = self.linux.as_ref().and_then(|linux| linux.cgroups_path.as_deref()).and_then(id_of_cgroup);
        let mount = self.mounts.iter().flatten().find(|mount| mount.destination == Path::new(CONTAINER_ENV));
        let mount = mount.and_then(|mount| id_of_directory(mount.source.as_deref()?.parent()?));
        let found: BTreeSet<&str> = [cgroup, mount, id_of_directory(directory)].into_iter().flatten().collect();
        match found.iter().collect::<Vec<_>>().as_slice() {
            [id] => Ok((**id).to_owned()),
            _ => Err(CarrierError::WhichContainer { found: found.into_iter().map(str::to_owned).collect() }),
        }
    }

    /// `GRAPHROOT/DRIVER-containers/ID/userdata`: where the hook is run, or beside the `DRIVER` that the root file system is in.
    fn bundle(&self, directory: &Path, id: &str) -> Option<PathBuf> {
        if id_of_directory(directory) == Some(id) {
            return Some(directory.to_owned());
        }
        let beside = |path: &Path| {
            let driver = path.file_name()?.to_str()?;
            Some(path.parent()?.join(format!("{driver}-containers")).join(id).join("userdata"))
        };
        self.root.as_ref()?.path.ancestors().filter_map(beside).find(|bundle| bundle.is_dir())
    }
}

/// `SLICE:libpod:ID`, `/PARENT/libpod-ID` or, with `--cgroups=split`, `/OF_PODMAN/libpod-payload-ID` (`getOCICgroupPath` in libpod).
fn id_of_cgroup(path: &str) -> Option<&str> {
    let last = path.rsplit(['/', ':']).next()?;
    let id = last.strip_prefix("libpod-payload-").or_else(|| last.strip_prefix("libpod-")).unwrap_or(last);
    is_id(id).then_some(id)
}

/// `ROOT/DRIVER-containers/ID/userdata`.
fn id_of_directory(path: &Path) -> Option<&str> {
    let id = path.parent()?.file_name()?.to_str()?;
    (is_id(id) && Layout::of_bundle(path, id).is_some()).then_some(id)
}

fn is_id(text: &str) -> bool {
    text.len() == ID_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
#[path = "precreate_tests.rs"]
mod tests;
