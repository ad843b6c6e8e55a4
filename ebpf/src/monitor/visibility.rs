//! What is told of whom.

use std::ops::{BitOr, BitOrAssign};

use super::{Monitor, abi, load};
use crate::Error;

/// Classes of what is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Classes(u32);

impl Classes {
    /// Nothing.
    pub const NONE: Classes = Classes(0);
    /// Births, executions and ends of processes.
    pub const PROCESS: Classes = Classes(abi::CLASS_PROCESS);
    /// What is opened, made, removed, renamed, linked, truncated, or given another mode or owner.
    pub const FILE: Classes = Classes(abi::CLASS_FILE);
    /// Sockets that are made, and with whom they connect, listen, accept and, where a call names its peer, send.
    pub const NETWORK: Classes = Classes(abi::CLASS_NETWORK);
    /// Capabilities that are used, or refused.
    pub const CAPABILITY: Classes = Classes(abi::CLASS_CAPABILITY);
    /// All of these.
    pub const ALL: Classes = Classes(abi::CLASS_PROCESS | abi::CLASS_FILE | abi::CLASS_NETWORK | abi::CLASS_CAPABILITY);

    /// Whether all of those are among these.
    #[must_use]
    pub const fn contain(self, those: Classes) -> bool {
        self.0 & those.0 == those.0
    }

    /// What a map holds; bits that mean nothing here are left out.
    fn from_bits(bits: u32) -> Classes {
        Classes(bits & Classes::ALL.0)
    }
}

impl BitOr for Classes {
    type Output = Classes;

    fn bitor(self, those: Classes) -> Classes {
        Classes(self.0 | those.0)
    }
}

impl BitOrAssign for Classes {
    fn bitor_assign(&mut self, those: Classes) {
        self.0 |= those.0;
    }
}

/// The classes that are told of everybody who has none of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Visibility {
    /// Of processes of the host.
    pub host: Classes,
    /// Of those of containers: labelled by enforcement, or in a pid namespace other than the first.
    pub containers: Classes,
}

impl Monitor {
    /// What is told.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn visibility(&self) -> Result<Visibility, Error> {
        let config = load::read_config(&self.config)?;
        Ok(Visibility { host: Classes::from_bits(config.host), containers: Classes::from_bits(config.containers) })
    }

    /// Sets what is told, from the next event on.
    ///
    /// # Errors
    /// If a map can't be read or written.
    pub fn set_visibility(&self, visibility: Visibility) -> Result<(), Error> {
        let _lock = self.place.lock()?;
        self.configure(|config| {
            config.host = visibility.host.0;
            config.containers = visibility.containers.0;
        })
    }

    /// The cgroups that have classes of their own, by cgroup id.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn overrides(&self) -> Result<Vec<(u64, Classes)>, Error> {
        let failed = |error| Error::system("reading pc_mon_override", error);
        let mut list = Vec::new();
        let mut at: Option<Vec<u8>> = None;
        // The lock of the place keeps the map as it is for who changes it; who only reads may see a key twice, never endlessly.
        while let Some(key) = self.overrides.next_key(at.as_deref()).map_err(failed)? {
            if list.len() >= abi::OVERRIDES_MAX as usize {
                break;
            }
            if let Some(value) = self.overrides.lookup(&key).map_err(failed)? {
                list.push((bytemuck::pod_read_unaligned(&key), Classes::from_bits(bytemuck::pod_read_unaligned(&value))));
            }
            at = Some(key);
        }
        Ok(list)
    }

    /// Gives a cgroup classes of its own, from the next event on: they are told of its processes and of those in cgroups
    /// below it (up to [`abi::OVERRIDE_LEVELS`] with itself), in place of what [`Visibility`] says. The nearest counts.
    ///
    /// # Errors
    /// [`Error::TooManyOverrides`], or if a map can't be read or written.
    pub fn set_override(&self, cgroup: u64, classes: Classes) -> Result<(), Error> {
        let _lock = self.place.lock()?;
        self.give(cgroup, classes)?;
        self.configure(|_| {})
    }

    /// The same for many: first the classes of those cgroups are taken back, then these get theirs. Those of them that there was no
    /// room for.
    ///
    /// # Errors
    /// If a map can't be read or written. What was done until then stays.
    pub fn change_overrides(&self, take: &[u64], give: &[(u64, Classes)]) -> Result<Vec<u64>, Error> {
        let _lock = self.place.lock()?;
        let failed = |error| Error::system("writing pc_mon_override", error);
        let changed = take.iter().try_for_each(|cgroup| self.overrides.delete(&cgroup.to_ne_bytes()).map(drop).map_err(failed));
        let mut left_out = Vec::new();
        let changed = changed.and_then(|()| {
            give.iter().try_for_each(|(cgroup, classes)| match self.give(*cgroup, *classes) {
                Err(Error::TooManyOverrides { .. }) => {
                    left_out.push(*cgroup);
                    Ok(())
                }
                given => given,
            })
        });
        // What follows from them must hold for those that were changed, whatever came of the others.
        self.configure(|_| {})?;
        changed.map(|()| left_out)
    }

    fn give(&self, cgroup: u64, classes: Classes) -> Result<(), Error> {
        let update = self.overrides.update(&cgroup.to_ne_bytes(), &classes.0.to_ne_bytes());
        update.map_err(|error| match error.raw_os_error() {
            Some(libc::E2BIG) => Error::TooManyOverrides { limit: abi::OVERRIDES_MAX },
            _ => Error::system("writing pc_mon_override", error),
        })
    }

    /// Takes a cgroup's own classes back. Whether it had any.
    ///
    /// # Errors
    /// If a map can't be read or written.
    pub fn remove_override(&self, cgroup: u64) -> Result<bool, Error> {
        let _lock = self.place.lock()?;
        let failed = |error| Error::system("writing pc_mon_override", error);
        let there = self.overrides.delete(&cgroup.to_ne_bytes()).map_err(failed)?;
        self.configure(|_| {})?;
        Ok(there)
    }

    /// Changes the configuration and what follows from it and the overrides. The caller holds the lock of the place.
    fn configure(&self, change: impl FnOnce(&mut abi::Config)) -> Result<(), Error> {
        let overrides = self.overrides()?;
        load::change_config(&self.config, |config| {
            change(config);
            config.overrides = u32::try_from(overrides.len()).unwrap_or(abi::OVERRIDES_MAX);
            config.any = overrides.iter().fold(config.host | config.containers, |any, (_, classes)| any | classes.0);
        })
    }
}
