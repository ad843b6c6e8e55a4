//! The state directory: what the kernel's numbers mean.
//!
//! ```text
//! /run/portcullis/          root alone, gone after a reboot as the kernel's state is
//!   lock                    held by whoever changes slots, sets or segments
//!   containers/<id>.json    ContainerRecord: what is armed
//!   known/<id>.json         Known: who each container is, armed or not
//!   departed/<when>-<slot>-<epoch>.json   ContainerRecord of what was disarmed last: its events may be read later
//!   unprotected/<id>.json   Unprotected: what runs without
//!   sets/<hash>.json        RuleSet: what the rule ids in events mean
//!   cache/<hash>.bin        compiled sets
//!   policies/               accepted versions of policy files
//! ```
//!
//! Files appear whole or not at all.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::DirEntryExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use portcullis_policy::meaning::RuleSet;
use rustix::fs::FlockOperation;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::automaton::{Compiled, MAX_STORED_BYTES};
use crate::known::Known;
use crate::record::{ContainerRecord, Unprotected};
use crate::{Error, files};

/// Largest record that is read back, in bytes: a set of the most rules there can be.
const MAX_RECORD_BYTES: u64 = 256 << 20;
/// Longest id of a container. Engines use 64 characters.
const MAX_ID_BYTES: usize = 200;
/// Most records that are listed.
const MAX_RECORDS: usize = 65_536;
/// Compiled sets that are kept in the cache.
const MAX_CACHED: usize = 256;
/// Disarmed containers whose records are kept. A denied entrypoint makes a container that is gone before anybody asks why.
const MAX_DEPARTED: usize = 256;
/// How long the lock is waited for. Whoever holds it does a few system calls; a start must not hang on one that does not.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_POLL: Duration = Duration::from_millis(2);

/// The state directory.
#[derive(Debug, Clone)]
pub struct StateDir {
    root: PathBuf,
}

/// The lock; released when dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl StateDir {
    /// The state directory at `root`. Nothing is created.
    #[must_use]
    pub fn at(root: &Path) -> StateDir {
        StateDir { root: root.to_owned() }
    }

    /// Where accepted policy texts are kept.
    #[must_use]
    pub fn policies(&self) -> PathBuf {
        self.root.join("policies")
    }

    /// Where programs that were refused are told; see [`crate::Refusals`].
    pub(crate) fn refusals(&self) -> PathBuf {
        self.root.join("refusals.sock")
    }

    /// Creates what is missing.
    pub(crate) fn create(&self) -> Result<(), Error> {
        for name in ["containers", "known", "departed", "unprotected", "sets", "cache", "policies"] {
            files::make_dir(&self.root.join(name))?;
        }
        Ok(())
    }

    /// Waits for the lock, but not for ever.
    pub(crate) fn lock(&self) -> Result<Lock, Error> {
        let path = self.root.join("lock");
        let failed = |source: std::io::Error| Error::file("lock", &path, source);
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        let since = Instant::now();
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) if since.elapsed() < LOCK_PATIENCE => {
                    std::thread::sleep(LOCK_POLL);
                }
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {
                    return Err(Error::Locked { path, seconds: LOCK_PATIENCE.as_secs() });
                }
                Err(errno) => return Err(failed(errno.into())),
            }
        }
    }

    /// The record of a container, if it has one.
    ///
    /// # Errors
    /// If it cannot be read or is damaged.
    pub fn container(&self, id: &str) -> Result<Option<ContainerRecord>, Error> {
        read_json(&self.record("containers", id)?)
    }

    /// All records of containers, without those that [`StateDir::damaged`] tells of.
    ///
    /// # Errors
    /// If the directory cannot be listed.
    pub fn containers(&self) -> Result<Vec<ContainerRecord>, Error> {
        self.records("containers")
    }

    pub(crate) fn write_container(&self, record: &ContainerRecord) -> Result<(), Error> {
        write_json(&self.record("containers", &record.id)?, record)
    }

    /// The container that had a slot during an epoch, and is armed no more.
    pub(crate) fn departed(&self, slot: u32, epoch: u32) -> Result<Option<ContainerRecord>, Error> {
        let directory = self.root.join("departed");
        let ending = format!("-{slot}-{epoch}.json");
        let names = files::list(&directory, MAX_RECORDS)?;
        names.iter().find(|name| name.ends_with(&ending)).map_or(Ok(None), |name| read_json(&directory.join(name)))
    }

    /// The ids of the containers that have a record, with the inode of its file: another one is another record.
    pub(crate) fn container_files(&self) -> Result<Vec<(String, u64)>, Error> {
        self.files_of("containers")
    }

    /// The same of those that doors have seen.
    pub(crate) fn known_files(&self) -> Result<Vec<(String, u64)>, Error> {
        self.files_of("known")
    }

    fn files_of(&self, kind: &str) -> Result<Vec<(String, u64)>, Error> {
        let path = self.root.join(kind);
        let failed = |source: std::io::Error| Error::file("list", &path, source);
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut files = Vec::new();
        for entry in entries.take(MAX_RECORDS) {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if let Some(id) = name.to_str().and_then(|name| name.strip_suffix(".json")).filter(|id| !id.starts_with('.')) {
                files.push((id.to_owned(), entry.ino()));
            }
        }
        Ok(files)
    }

    /// The rules that are armed for a container.
    ///
    /// # Errors
    /// If the record cannot be read or is damaged.
    pub fn rules_of(&self, record: &ContainerRecord) -> Result<Option<RuleSet>, Error> {
        unhex(&record.hash).map_or(Ok(None), |hash| self.rule_set(hash))
    }

    /// The rules that a container had in a generation of its policy.
    ///
    /// # Errors
    /// If the record cannot be read or is damaged.
    pub fn rules_in(&self, record: &ContainerRecord, generation: u32) -> Result<Option<RuleSet>, Error> {
        unhex(record.hash_in(generation)).map_or(Ok(None), |hash| self.rule_set(hash))
    }

    /// A container that a door has seen.
    ///
    /// # Errors
    /// If the record cannot be read or is damaged.
    pub fn known(&self, id: &str) -> Result<Option<Known>, Error> {
        read_json(&self.record("known", id)?)
    }

    /// All containers that doors have seen, without those that [`StateDir::damaged`] tells of.
    ///
    /// # Errors
    /// If the directory cannot be listed.
    pub fn all_known(&self) -> Result<Vec<Known>, Error> {
        self.records("known")
    }

    /// How many they are. Reads none of them: it is asked with every scrape of metrics.
    ///
    /// # Errors
    /// If the directory cannot be listed.
    pub fn count_known(&self) -> Result<usize, Error> {
        Ok(self.record_names("known")?.len())
    }

    /// Where the records of [`StateDir::all_known`] are, for whoever watches them come and go.
    #[must_use]
    pub fn known_dir(&self) -> PathBuf {
        self.root.join("known")
    }

    pub(crate) fn write_known(&self, known: &Known) -> Result<(), Error> {
        write_json(&self.record("known", &known.facts.id)?, known)
    }

    pub(crate) fn remove_known(&self, id: &str) -> Result<bool, Error> {
        files::remove(&self.record("known", id)?)
    }

    /// Keeps the record of a container that is armed no more among the departed, of which the oldest go.
    pub(crate) fn retire_container(&self, record: &ContainerRecord, now: u64) -> Result<(), Error> {
        let directory = self.root.join("departed");
        let mut names = files::list(&directory, MAX_RECORDS)?;
        names.sort();
        for name in names.iter().take((names.len() + 1).saturating_sub(MAX_DEPARTED)) {
            files::remove(&directory.join(name))?;
        }
        write_json(&directory.join(format!("{now:020}-{}-{}.json", record.slot, record.epoch)), record)
    }

    /// The hashes of the sets whose rules explain events: those that the departed had, and that the others had before.
    pub(crate) fn explained_sets(&self) -> Result<BTreeSet<String>, Error> {
        let mut records = self.records::<ContainerRecord>("departed")?;
        records.append(&mut self.containers()?);
        let earlier = |record: ContainerRecord| record.earlier.into_iter().map(|earlier| earlier.hash).chain([record.hash]);
        Ok(records.into_iter().flat_map(earlier).collect())
    }

    pub(crate) fn remove_container(&self, id: &str) -> Result<bool, Error> {
        files::remove(&self.record("containers", id)?)
    }

    /// The containers that run without protection, without those that [`StateDir::damaged`] tells of.
    ///
    /// # Errors
    /// If the directory cannot be listed.
    pub fn unprotected(&self) -> Result<Vec<Unprotected>, Error> {
        self.records("unprotected")
    }

    pub(crate) fn write_unprotected(&self, record: &Unprotected) -> Result<(), Error> {
        write_json(&self.record("unprotected", &record.id)?, record)
    }

    pub(crate) fn remove_unprotected(&self, id: &str) -> Result<bool, Error> {
        files::remove(&self.record("unprotected", id)?)
    }

    /// What is wrong with each record that a listing leaves out. What is in force stays so; changed policies do not reach its
    /// container.
    ///
    /// # Errors
    /// If a directory cannot be listed.
    pub fn damaged(&self) -> Result<Vec<Error>, Error> {
        let mut damaged = self.read_all::<ContainerRecord>("containers")?.1;
        damaged.append(&mut self.read_all::<Known>("known")?.1);
        damaged.append(&mut self.read_all::<Unprotected>("unprotected")?.1);
        Ok(damaged)
    }

    /// The rules of a set, by its hash: what rule ids in its events mean.
    ///
    /// # Errors
    /// If the record cannot be read or is damaged.
    pub fn rule_set(&self, hash: [u64; 2]) -> Result<Option<RuleSet>, Error> {
        read_json(&self.root.join("sets").join(format!("{}.json", hex(hash))))
    }

    pub(crate) fn write_rule_set(&self, hash: [u64; 2], set: &RuleSet) -> Result<(), Error> {
        let path = self.root.join("sets").join(format!("{}.json", hex(hash)));
        if path.exists() { Ok(()) } else { write_json(&path, set) }
    }

    /// How many sets have a record of their rules.
    pub(crate) fn rule_sets(&self) -> Result<usize, Error> {
        Ok(files::list(&self.root.join("sets"), MAX_RECORDS)?.len())
    }

    /// Removes the records of sets that `used` does not have.
    pub(crate) fn keep_rule_sets(&self, used: impl Fn(&str) -> bool) -> Result<(), Error> {
        let directory = self.root.join("sets");
        for name in files::list(&directory, MAX_RECORDS)? {
            if name.strip_suffix(".json").is_some_and(|hash| !used(hash)) {
                files::remove(&directory.join(&name))?;
            }
        }
        Ok(())
    }

    /// A compiled set from the cache. A damaged one is as good as none.
    pub(crate) fn cached(&self, hash: [u64; 2]) -> Option<Compiled> {
        let bytes = files::read(&self.cache_path(hash), MAX_STORED_BYTES).ok()?;
        Compiled::from_bytes(&bytes).filter(|compiled| compiled.hash() == hash)
    }

    /// Caches a compiled set. That it cannot be cached matters to nobody but the next start.
    pub(crate) fn cache(&self, compiled: &Compiled) {
        let directory = self.root.join("cache");
        let names = files::list(&directory, MAX_RECORDS).unwrap_or_default();
        // Any will do: a set in use is found in the kernel.
        for name in names.iter().take((names.len() + 1).saturating_sub(MAX_CACHED)) {
            drop(files::remove(&directory.join(name)));
        }
        drop(files::write(&self.cache_path(compiled.hash()), &compiled.to_bytes()));
    }

    fn cache_path(&self, hash: [u64; 2]) -> PathBuf {
        self.root.join("cache").join(format!("{}.bin", hex(hash)))
    }

    /// Forgets all containers and sets, after the kernel has.
    pub(crate) fn forget(&self) -> Result<(), Error> {
        for name in ["containers", "departed", "sets"] {
            let directory = self.root.join(name);
            for file in files::list(&directory, MAX_RECORDS)? {
                files::remove(&directory.join(file))?;
            }
        }
        Ok(())
    }

    fn record(&self, kind: &str, id: &str) -> Result<PathBuf, Error> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        if id.is_empty() || id.len() > MAX_ID_BYTES || id.starts_with('.') || !id.bytes().all(plain) {
            return Err(Error::Id { id: id.to_owned(), max: MAX_ID_BYTES });
        }
        Ok(self.root.join(kind).join(format!("{id}.json")))
    }

    fn records<T: DeserializeOwned>(&self, kind: &str) -> Result<Vec<T>, Error> {
        Ok(self.read_all(kind)?.0)
    }

    /// The records of a kind, and what is wrong with those that cannot be read.
    fn read_all<T: DeserializeOwned>(&self, kind: &str) -> Result<(Vec<T>, Vec<Error>), Error> {
        let directory = self.root.join(kind);
        let (mut whole, mut damaged) = (Vec::new(), Vec::new());
        for name in self.record_names(kind)? {
            match read_json(&directory.join(name)) {
                Ok(record) => whole.extend(record),
                Err(error) => damaged.push(error),
            }
        }
        Ok((whole, damaged))
    }

    fn record_names(&self, kind: &str) -> Result<Vec<String>, Error> {
        let mut names = files::list(&self.root.join(kind), MAX_RECORDS)?;
        names.retain(|name| name.ends_with(".json") && !name.starts_with('.'));
        Ok(names)
    }
}

/// A hash as the state directory writes it.
#[must_use]
pub fn hex(hash: [u64; 2]) -> String {
    format!("{:016x}{:016x}", hash[0], hash[1])
}

fn unhex(hash: &str) -> Option<[u64; 2]> {
    let (high, low) = (hash.get(..16)?, hash.get(16..)?);
    Some([u64::from_str_radix(high, 16).ok()?, u64::from_str_radix(low, 16).ok()?])
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let bytes = match files::read(path, MAX_RECORD_BYTES) {
        Ok(bytes) => bytes,
        Err(Error::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let damaged = |error: serde_json::Error| Error::Damaged { path: path.to_owned(), reason: error.to_string() };
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let bytes = serde_json::to_vec(value).map_err(|error| Error::file("write", path, std::io::Error::from(error)))?;
    files::write(path, &bytes)
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
