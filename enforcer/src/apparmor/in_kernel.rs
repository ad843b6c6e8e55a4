//! What AppArmor in this kernel has: our profiles, and the tasks that they confine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvError, channel};

use super::PREFIX;
use super::label::{Label, ProfileName, container_of};
use super::store::{CompiledProfiles, Profiles, StoreError, is_gone};

/// Most bytes of the kernel's list of profiles.
const MAX_LIST_BYTES: u64 = 16 << 20;
/// Longest label of a task: the kernel gives no more than a page.
const MAX_LABEL_BYTES: u64 = 4096;
/// The first pid namespace, that of the host (`PROC_PID_INIT_INO` in the kernel's `include/linux/proc_ns.h`).
pub(super) const HOST_PID_NAMESPACE: &str = "pid:[4026531836]";
/// What confines a task, in its directory in `/proc`.
const CURRENT: &str = "attr/apparmor/current";
/// What will when it executes something, if that is something else.
const AT_EXEC: &str = "attr/apparmor/exec";

impl Profiles {
    /// Makes sure that there is AppArmor in the kernel, and its parser.
    ///
    /// # Errors
    /// If one of them is missing.
    pub fn check(&self) -> Result<(), StoreError> {
        if !self.security.join(".replace").exists() {
            return Err(StoreError::NotActive { path: self.security.clone() });
        }
        self.parser().map(drop)
    }

    /// Puts profiles in force as those of a container, in one step in the place of those that it has.
    ///
    /// # Errors
    /// If the kernel does not take them: then all are as before.
    pub fn load(&self, compiled: &CompiledProfiles, name: &ProfileName) -> Result<(), StoreError> {
        let told = self.tell(".replace", &compiled.named(name))?;
        told.map_err(|source| StoreError::NotLoaded { name: name.to_string(), source })
    }

    /// The names of our profiles that the kernel has.
    ///
    /// # Errors
    /// If there is no AppArmor, or its list cannot be read.
    pub fn loaded(&self) -> Result<BTreeSet<String>, StoreError> {
        let path = self.security.join("profiles");
        let list = self.read(&path, MAX_LIST_BYTES)?;
        let name = |line: &str| line.split(" (").next().filter(|name| name.starts_with(PREFIX)).map(str::to_owned);
        Ok(list.lines().filter_map(name).collect())
    }

    /// Whether a container's profile is in the kernel.
    ///
    /// # Errors
    /// As [`Profiles::loaded`].
    pub fn is_loaded(&self, name: &ProfileName) -> Result<bool, StoreError> {
        Ok(self.loaded()?.contains(name.as_str()))
    }

    /// How many tasks have profiles of each container.
    ///
    /// # Errors
    /// If not all tasks can be seen.
    pub fn carriers(&self) -> Result<BTreeMap<String, u32>, StoreError> {
        Ok(self.carried()?.0)
    }

    /// The labels of a process: what confines it, and what will when it executes something.
    ///
    /// # Errors
    /// If they cannot be read. Those of a process that is gone are empty.
    pub fn labels_of(&self, pid: u32) -> Result<[String; 2], StoreError> {
        let process = self.proc.join(pid.to_string());
        let read = |attribute| self.label(&process.join(attribute));
        Ok([read(CURRENT)?, read(AT_EXEC)?])
    }

    /// Whether this kernel tells others what will confine a task when it executes something. Linux 6.1 answers with the reader's own
    /// (`apparmor_getprocattr` in `security/apparmor/lsm.c` there). Found out by a thread that would take a profile, executes
    /// nothing, and ends.
    ///
    /// # Errors
    /// If it cannot be tried.
    pub fn tells_at_exec(&self, name: &ProfileName) -> Result<bool, StoreError> {
        let path = self.proc.join("thread-self").join(AT_EXEC);
        let take = || {
            let tid = rustix::thread::gettid();
            let mut file = OpenOptions::new().write(true).open(&path)?;
            file.write_all(format!("exec {name}").as_bytes())?;
            Ok(tid.as_raw_nonzero())
        };
        std::thread::scope(|scope| {
            let (tell, told) = channel();
            let (looked, wait) = channel::<()>();
            scope.spawn(move || {
                // Whoever does not receive any more does not wait either.
                if tell.send(take()).is_ok() {
                    let _: Result<(), RecvError> = wait.recv();
                }
            });
            let taken = told.recv().unwrap_or_else(|_| Err(std::io::Error::other("the thread ended")));
            let label = taken.map(|tid| self.label(&self.proc.join(format!("self/task/{tid}")).join(AT_EXEC)));
            drop(looked);
            let label = label.map_err(|source| StoreError::File { what: "write", path: path.clone(), source })??;
            Ok(Label::new(&label).has(name))
        })
    }

    /// Removes our profiles that neither `wanted` nor a task has. A task whose profile is removed would be unconfined.
    ///
    /// # Errors
    /// If it cannot be told who has which, or the kernel refuses.
    pub fn remove_unused(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>, StoreError> {
        let mut unused: BTreeSet<String> = self.loaded()?.into_iter().filter(|name| !wanted(name)).collect();
        if unused.is_empty() {
            return Ok(Vec::new());
        }
        let carried = self.carried()?;
        unused.retain(|name| !carried.contains(name));
        for name in &unused {
            let told = self.tell(".remove", name.as_bytes())?;
            told.map_err(|source| StoreError::NotRemoved { name: name.clone(), source })?;
        }
        Ok(unused.into_iter().collect())
    }

    /// Our profiles that tasks have, or will have when they execute something.
    fn carried(&self) -> Result<Carried, StoreError> {
        let namespace = self.proc.join("self/ns/pid");
        let seen = fs::read_link(&namespace).map_err(|source| StoreError::File { what: "read", path: namespace, source })?;
        if seen != Path::new(HOST_PID_NAMESPACE) {
            return Err(StoreError::SeesFewTasks);
        }
        let mut carried = Carried::default();
        for process in numbered(&self.proc)? {
            for task in numbered(&process.join("task"))? {
                carried.note([self.label(&task.join(CURRENT))?, self.label(&task.join(AT_EXEC))?]);
            }
        }
        Ok(carried)
    }

    /// A label of a task; empty for one that is gone.
    fn label(&self, path: &Path) -> Result<String, StoreError> {
        match self.read(path, MAX_LABEL_BYTES) {
            // A kernel thread and a task that dies have none, which the kernel calls an invalid argument (`proc_pid_attr_read`).
            Err(StoreError::File { source, .. }) if is_gone(&source) || source.kind() == std::io::ErrorKind::InvalidInput => {
                Ok(String::new())
            }
            label => label,
        }
    }

    fn read(&self, path: &Path, limit: u64) -> Result<String, StoreError> {
        let failed = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::NotFound if path.starts_with(&self.security) => {
                StoreError::NotActive { path: self.security.clone() }
            }
            _ => StoreError::File { what: "read", path: path.to_owned(), source },
        };
        let mut text = Vec::new();
        File::open(path).and_then(|file| file.take(limit).read_to_end(&mut text)).map_err(failed)?;
        // Others may name their profiles as they like; ours are letters and digits.
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Writes to a file of AppArmor's in one call, which is what the kernel reads as one request. The inner result is its answer.
    fn tell(&self, file: &str, bytes: &[u8]) -> Result<std::io::Result<()>, StoreError> {
        let path = self.security.join(file);
        let opened = OpenOptions::new().write(true).open(&path);
        let mut file = opened.map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => StoreError::NotActive { path: self.security.clone() },
            _ => StoreError::File { what: "open", path, source },
        })?;
        Ok(file.write(bytes).and_then(|written| match written == bytes.len() {
            true => Ok(()),
            false => Err(std::io::Error::other(format!("it took {written} of {} bytes", bytes.len()))),
        }))
    }
}

/// The containers whose profiles tasks have, and how many tasks. A profile leads to its set's others, so whoever has one has them all.
#[derive(Default)]
struct Carried(BTreeMap<String, u32>);

impl Carried {
    fn note(&mut self, labels: [String; 2]) {
        let names: BTreeSet<&str> =
            labels.iter().flat_map(|label| Label::new(label).profiles()).filter_map(container_of).collect();
        for name in names {
            *self.0.entry(name.to_owned()).or_default() += 1;
        }
    }

    fn contains(&self, profile: &str) -> bool {
        container_of(profile).is_some_and(|name| self.0.contains_key(name))
    }
}

/// The entries of a directory of `/proc` that are numbers. One that is gone meanwhile has none.
fn numbered(directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let failed = |source| StoreError::File { what: "list", path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut numbered = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) if entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) => numbered.push(entry.path()),
            Ok(_) => {}
            Err(error) if is_gone(&error) => break,
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(numbered)
}
