//! The visibilities that containers have of their own, kept in the kernel: given when a container is on record, taken back when it is
//! gone.
//!
//! Whoever records a container gives it its visibility too, before its first instruction (`enforcer/src/visibility.rs`). Here it is kept
//! true: for all that run when the agent starts, for those that found no room, and for what was left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use portcullis_ebpf::Error as KernelError;
use portcullis_ebpf::monitor::{Classes, Monitor};
use portcullis_enforcer::{Error, Known, StateDir, VisibleBy};
use tracing::{info, warn};

use super::watched::Watched;
use crate::control::{UntoldVisibility, VisibilityStatus};

/// How often all records are compared with the kernel, whatever was told.
const SWEEP_PERIOD: Duration = Duration::from_secs(300);
/// How soon it is tried again after a failure.
const RETRY: Duration = Duration::from_secs(10);
/// Most containers of whom it is told what they asked for in vain.
const MAX_UNTOLD: usize = 64;

/// What of the kernel is needed; a test has its own.
pub(super) trait Cgroups {
    /// The cgroups that have classes of their own.
    fn overrides(&self) -> Result<Vec<(u64, Classes)>, KernelError>;
    /// See [`Monitor::change_overrides`].
    fn change_overrides(&self, take: &[u64], give: &[(u64, Classes)]) -> Result<Vec<u64>, KernelError>;
}

impl Cgroups for Monitor {
    fn overrides(&self) -> Result<Vec<(u64, Classes)>, KernelError> {
        Monitor::overrides(self)
    }

    fn change_overrides(&self, take: &[u64], give: &[(u64, Classes)]) -> Result<Vec<u64>, KernelError> {
        Monitor::change_overrides(self, take, give)
    }
}

/// The containers that have a visibility of their own.
#[derive(Default)]
pub(super) struct Own {
    containers: BTreeMap<String, Entry>,
    /// By id: the name, and what nobody can tell of it.
    untold: BTreeMap<String, (String, String)>,
    /// Why the kernel does not have all of them.
    trouble: Option<String>,
    /// The kernel had no room for some of them.
    is_full: bool,
    /// Nobody is to be told any more.
    is_resting: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    cgroup: u64,
    /// What it asked for.
    classes: Classes,
    /// The kernel has it.
    is_given: bool,
}

/// What the kernel tells of a cgroup: processes in any case, since alerts take from them who raised them.
fn told(classes: Classes) -> Classes {
    classes | Classes::PROCESS
}

impl Own {
    /// Those that are on record, and nobody else.
    pub(super) fn read_all(
        &mut self,
        kernel: &impl Cgroups,
        config: &portcullis_enforcer::Monitor,
        records: impl FnOnce() -> Result<Vec<Known>, Error>,
    ) -> Result<(), String> {
        // What is there now was given for a record that is there now.
        let there = kernel.overrides().map_err(|error| error.to_string())?;
        let records = records().map_err(|error| error.to_string())?;
        let mut before = std::mem::take(&mut self.containers);
        let named: BTreeSet<&str> = records.iter().map(|known| known.facts.id.as_str()).collect();
        self.untold.retain(|id, _| named.contains(id.as_str()));
        for known in &records {
            before.remove(&known.facts.id);
            self.read(&known.facts.id, Some(known), config);
        }
        let given: BTreeMap<u64, Classes> = there.into_iter().collect();
        let left = given.keys().copied().chain(before.into_values().map(|entry| entry.cgroup)).collect();
        for entry in self.containers.values_mut() {
            entry.is_given = given.get(&entry.cgroup) == Some(&told(entry.classes));
        }
        self.put(kernel, left)
    }

    /// What is on record of these containers now.
    pub(super) fn read_some(
        &mut self,
        kernel: &impl Cgroups,
        config: &portcullis_enforcer::Monitor,
        ids: &BTreeSet<String>,
        record: impl Fn(&str) -> Result<Option<Known>, Error>,
    ) -> Result<(), String> {
        let mut left = Vec::new();
        let mut failed = None;
        for id in ids {
            match record(id) {
                Ok(known) => left.extend(self.read(id, known.as_ref(), config)),
                Err(error) => failed = Some(error.to_string()),
            }
        }
        self.put(kernel, left)?;
        failed.map_or(Ok(()), Err)
    }

    /// Notes what a record says; the cgroup that the container had until now, if it has none any more, or others classes.
    fn read(&mut self, id: &str, known: Option<&Known>, config: &portcullis_enforcer::Monitor) -> Option<u64> {
        let before = self.containers.remove(id);
        let Some((known, place)) = known.and_then(|known| Some((known, known.place.as_ref()?))) else {
            self.untold.remove(id);
            return before.map(|entry| entry.cgroup);
        };
        let visible = config.of(&known.facts);
        match visible.untold {
            Some(why) if self.untold.contains_key(id) || self.untold.len() < MAX_UNTOLD => {
                let said = self.untold.insert(id.to_owned(), (known.facts.name.clone(), why.clone()));
                if said.is_none_or(|(_, said)| said != why) {
                    warn!(id, name = known.facts.name, "not all is told of the container: {why}");
                }
            }
            Some(_) => {}
            None => drop(self.untold.remove(id)),
        }
        if visible.by == VisibleBy::Default {
            return before.map(|entry| entry.cgroup);
        }
        let entry = Entry { cgroup: place.cgroup_id, classes: visible.classes, is_given: false };
        let is_same = before.is_some_and(|before| Entry { is_given: false, ..before } == entry);
        self.containers.insert(id.to_owned(), if is_same { before.unwrap_or(entry) } else { entry });
        before.map(|before| before.cgroup).filter(|cgroup| *cgroup != entry.cgroup)
    }

    /// Gives what is not given yet, after what was left is taken back. Cgroups that have somebody else's by now keep it.
    fn put(&mut self, kernel: &impl Cgroups, left: Vec<u64>) -> Result<(), String> {
        let used: BTreeSet<u64> = self.containers.values().map(|entry| entry.cgroup).collect();
        let take: Vec<u64> = left.into_iter().filter(|cgroup| !used.contains(cgroup)).collect();
        let waiting = self.containers.values().filter(|entry| !entry.is_given);
        let give: Vec<(u64, Classes)> = waiting.map(|entry| (entry.cgroup, told(entry.classes))).collect();
        if take.is_empty() && give.is_empty() {
            return Ok(());
        }
        let left_out = kernel.change_overrides(&take, &give).map_err(|error| error.to_string())?;
        for entry in self.containers.values_mut() {
            entry.is_given = !left_out.contains(&entry.cgroup);
        }
        let was_full = std::mem::replace(&mut self.is_full, !left_out.is_empty());
        if self.is_full && !was_full {
            warn!(
                "{} containers have a visibility of their own that the kernel has no room for; what they do is told as of others",
                left_out.len()
            );
        }
        Ok(())
    }

    fn left_out(&self) -> usize {
        self.containers.values().filter(|entry| !entry.is_given).count()
    }

    /// Whether any of them asks for one of these classes.
    pub(super) fn asks_for(&self, classes: &[Classes]) -> bool {
        self.containers.values().any(|entry| classes.iter().any(|class| entry.classes.contain(*class)))
    }

    /// Takes all back, for ever.
    pub(super) fn rest(&mut self, kernel: &impl Cgroups) -> Result<(), KernelError> {
        self.is_resting = true;
        let all: Vec<u64> = kernel.overrides()?.into_iter().map(|(cgroup, _)| cgroup).collect();
        kernel.change_overrides(&all, &[]).map(drop)
    }

    /// What is told of how many, of so many containers of which others have what is told by `default`.
    pub(super) fn status(&self, known: usize, default: Classes) -> VisibilityStatus {
        let others = known.saturating_sub(self.containers.len());
        let count = |class: Classes| {
            let own = self.containers.values().filter(|entry| entry.classes.contain(class)).count();
            own + if default.contain(class) { others } else { 0 }
        };
        let untold =
            self.untold.iter().map(|(id, (name, why))| UntoldVisibility { id: id.clone(), name: name.clone(), why: why.clone() });
        VisibilityStatus {
            process: count(Classes::PROCESS),
            file: count(Classes::FILE),
            network: count(Classes::NETWORK),
            capabilities: count(Classes::CAPABILITY),
            own: self.containers.len(),
            left_out: self.left_out(),
            untold: untold.collect(),
            trouble: self.trouble.clone(),
        }
    }
}

/// Which records may have changed: these, or any.
pub(super) type Changed = Option<BTreeSet<String>>;

/// Keeps the visibilities that containers have of their own, on a thread that ends with the sender.
pub(super) fn keep(watched: Watched, state: StateDir) -> Result<Sender<Changed>, crate::Error> {
    let (send, changes) = channel();
    let failed = |source| crate::Error::Thread { name: "visibility", source };
    let work = move || run(&watched, &state, &changes);
    std::thread::Builder::new().name("visibility".to_owned()).spawn(work).map_err(failed)?;
    Ok(send)
}

fn run(watched: &Watched, state: &StateDir, changes: &Receiver<Changed>) {
    let mut patience = SWEEP_PERIOD;
    loop {
        let mut changed = match changes.recv_timeout(patience) {
            Ok(changed) => changed,
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        for more in changes.try_iter() {
            changed = changed.zip(more).map(|(mut all, more)| {
                all.extend(more);
                all
            });
        }
        patience = if look(watched, state, changed.as_ref()) { SWEEP_PERIOD } else { RETRY };
    }
}

/// Looks at these records, or all, and has told what they ask for. Whether that could be done.
pub(super) fn look(watched: &Watched, state: &StateDir, changed: Option<&BTreeSet<String>>) -> bool {
    let Some(kernel) = watched.kernel() else { return true };
    let (done, asks) = {
        let mut own = watched.own();
        if own.is_resting {
            return true;
        }
        let done = match changed {
            Some(ids) if own.trouble.is_none() => own.read_some(kernel, watched.config(), ids, |id| state.known(id)),
            _ => own.read_all(kernel, watched.config(), || state.all_known()),
        };
        let trouble = done.err();
        match &trouble {
            Some(trouble) if own.trouble.is_none() => warn!("not all containers are told of as they ask: {trouble}"),
            None if own.trouble.is_some() => info!("all containers are told of as they ask"),
            _ => {}
        }
        own.trouble = trouble;
        (own.trouble.is_none(), own.asks_for(&super::watched::ACCESSES))
    };
    if asks {
        watched.want_accesses();
    }
    done
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::path::PathBuf;

    use portcullis_enforcer::place::Place;
    use portcullis_enforcer::{Door, Missing, Monitor as Config, VISIBILITY_ANNOTATION};
    use portcullis_policy::ContainerFacts;

    use super::*;

    /// A kernel with room for so many.
    struct FakeKernel {
        cgroups: RefCell<BTreeMap<u64, Classes>>,
        room: Cell<usize>,
        changes: Cell<usize>,
    }

    impl FakeKernel {
        fn with_room(room: usize) -> FakeKernel {
            FakeKernel { cgroups: RefCell::default(), room: Cell::new(room), changes: Cell::new(0) }
        }

        fn has(&self) -> Vec<(u64, Classes)> {
            self.cgroups.borrow().iter().map(|(cgroup, classes)| (*cgroup, *classes)).collect()
        }
    }

    impl Cgroups for FakeKernel {
        fn overrides(&self) -> Result<Vec<(u64, Classes)>, KernelError> {
            Ok(self.has())
        }

        fn change_overrides(&self, take: &[u64], give: &[(u64, Classes)]) -> Result<Vec<u64>, KernelError> {
            self.changes.set(self.changes.get() + 1);
            let mut cgroups = self.cgroups.borrow_mut();
            cgroups.retain(|cgroup, _| !take.contains(cgroup));
            let mut left_out = Vec::new();
            for (cgroup, classes) in give {
                if cgroups.len() < self.room.get() || cgroups.contains_key(cgroup) {
                    cgroups.insert(*cgroup, *classes);
                } else {
                    left_out.push(*cgroup);
                }
            }
            Ok(left_out)
        }
    }

    fn known(id: &str, cgroup_id: u64, visibility: Option<&str>) -> Known {
        let place = Place { pid: 40, started: 1, cgroup_id, cgroup_path: PathBuf::from("/c"), runtime_mntns: 1, root: (1, 1) };
        let annotations = visibility.map(|text| (VISIBILITY_ANNOTATION.to_owned(), text.to_owned())).into_iter().collect();
        let facts = ContainerFacts { id: id.to_owned(), name: id.to_uppercase(), annotations, ..ContainerFacts::default() };
        Known { facts, missing: Missing::default(), door: Door::Hook, place: Some(place) }
    }

    fn ids(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    #[test]
    fn a_container_has_its_own_as_long_as_it_is_on_record() {
        let (mut own, kernel, config) = (Own::default(), FakeKernel::with_room(9), Config::default());
        let mut change = |ids: &BTreeSet<String>, records: &[Known]| {
            let record = |id: &str| Ok(records.iter().find(|known| known.facts.id == id).cloned());
            own.read_some(&kernel, &config, ids, record).unwrap();
            own.status(5, Classes::PROCESS)
        };
        let all = [known("a", 7, Some("file")), known("b", 8, None), known("c", 9, Some("none"))];
        let status = change(&ids(&["a", "b", "c", "d"]), &all);
        // Processes are told of all: the table of who was who is made of them.
        assert_eq!(kernel.has(), [(7, Classes::FILE | Classes::PROCESS), (9, Classes::PROCESS)]);
        assert_eq!((status.process, status.file, status.network, status.own), (3, 1, 0, 2));
        change(&ids(&["a", "c"]), &all);
        assert_eq!(kernel.changes.get(), 1, "what is there is not given again");
        change(&ids(&["a"]), &[known("a", 17, Some("network"))]);
        assert_eq!(kernel.has(), [(9, Classes::PROCESS), (17, Classes::NETWORK | Classes::PROCESS)], "started again");
        change(&ids(&["a"]), &[Known { place: None, ..known("a", 17, Some("file")) }]);
        assert_eq!(kernel.has(), [(9, Classes::PROCESS)], "only expected");
        change(&ids(&["a", "c"]), &[]);
        assert_eq!(kernel.has(), []);
    }

    #[test]
    fn what_was_left_behind_goes_and_what_a_door_gave_stays() {
        let (mut own, kernel, config) = (Own::default(), FakeKernel::with_room(9), Config::default());
        kernel.change_overrides(&[], &[(7, Classes::FILE | Classes::PROCESS), (66, Classes::ALL)]).unwrap();
        own.read_all(&kernel, &config, || Ok(vec![known("a", 7, Some("file"))])).unwrap();
        assert_eq!(kernel.has(), [(7, Classes::FILE | Classes::PROCESS)]);
        own.rest(&kernel).unwrap();
        assert_eq!((kernel.has(), own.is_resting), (vec![], true));
    }

    #[test]
    fn those_without_room_are_counted_and_come_in_when_there_is_some() {
        let (mut own, kernel, config) = (Own::default(), FakeKernel::with_room(2), Config::default());
        let records = [1, 2, 3, 4].map(|number| known(&format!("c{number}"), number, Some("file")));
        own.read_all(&kernel, &config, || Ok(records.to_vec())).unwrap();
        let status = own.status(4, Classes::NONE);
        assert_eq!((status.own, status.left_out, kernel.has().len(), own.is_full), (4, 2, 2, true));
        own.read_some(&kernel, &config, &ids(&["c1"]), |_| Ok(None)).unwrap();
        assert_eq!((own.left_out(), kernel.has().len()), (1, 2));
        own.read_some(&kernel, &config, &ids(&["c2", "c3"]), |_| Ok(None)).unwrap();
        assert_eq!((own.left_out(), own.is_full, kernel.has()), (0, false, vec![(4, Classes::FILE | Classes::PROCESS)]));
    }

    #[test]
    fn what_nobody_can_tell_is_said_as_long_as_the_container_is_there() {
        let (mut own, kernel, config) = (Own::default(), FakeKernel::with_room(9), Config::default());
        let record = known("a", 7, Some("dns,file"));
        own.read_all(&kernel, &config, || Ok(vec![record.clone()])).unwrap();
        let status = own.status(1, Classes::PROCESS);
        assert_eq!((status.file, status.untold.len(), status.untold[0].name.as_str()), (1, 1, "A"));
        assert!(status.untold[0].why.starts_with(r#"kubearmor-visibility has "dns", "#), "{status:?}");
        own.read_all(&kernel, &config, || Ok(Vec::new())).unwrap();
        assert_eq!(own.status(0, Classes::PROCESS), VisibilityStatus::default());
    }
}
