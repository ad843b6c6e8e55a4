//! Which container a cgroup or a first process is of, policies or not, for whoever asks with each event.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use portcullis_policy::ContainerFacts;

use crate::index::Index;
use crate::{Error, StateDir};

/// A directory's time says that nothing came since only if it is another than now by this: it moves in steps of a tick of the kernel.
const STEP: Duration = Duration::from_millis(20);
/// After a look nobody looks again for so many times as long as it took: what is asked of an unknown cgroup, whoever makes those, is
/// no more than a fifth of the asker's time.
const REST: u32 = 4;

/// An index of the containers that doors have seen, see [`StateDir::all_known`].
#[derive(Debug)]
pub struct Residents {
    state: StateDir,
    /// Of those that are somewhere: not only expected.
    records: Index<Where>,
    by_cgroup: HashMap<u64, String>,
    by_init: HashMap<u32, Vec<(u64, String)>>,
    /// The directory's time when it was listed, if it can be told from a later one.
    listed: Option<SystemTime>,
    rested: Instant,
}

/// Cgroup id, and the first process with the clock tick of its birth.
#[derive(Debug, Clone, Copy)]
struct Where {
    cgroup: u64,
    init: (u32, u64),
}

impl Residents {
    /// Of the records in a state directory.
    #[must_use]
    pub fn of(state: StateDir) -> Residents {
        Residents {
            state,
            records: Index::default(),
            by_cgroup: HashMap::new(),
            by_init: HashMap::new(),
            listed: None,
            rested: Instant::now(),
        }
    }

    /// Reads what has come or changed, and forgets what is gone. Whether there may be anything of either.
    ///
    /// # Errors
    /// If the records cannot be listed.
    pub fn look(&mut self) -> Result<bool, Error> {
        let begun = Instant::now();
        if begun < self.rested {
            return Ok(false);
        }
        let changed = std::fs::metadata(self.state.known_dir()).and_then(|directory| directory.modified()).ok();
        if changed.is_some() && changed == self.listed {
            return Ok(false);
        }
        // Before it is listed: what comes meanwhile is seen the next time.
        self.listed = changed.filter(|changed| distance(*changed) > STEP);
        let place = |id: &str| {
            let place = self.state.known(id).ok()??.place?;
            Some(Where { cgroup: place.cgroup_id, init: (place.pid, place.started) })
        };
        self.records.update(self.state.known_files()?, place);
        self.by_cgroup.clear();
        self.by_init.clear();
        for (id, Where { cgroup, init: (pid, started) }) in self.records.iter() {
            self.by_cgroup.insert(*cgroup, id.to_owned());
            self.by_init.entry(*pid).or_default().push((*started, id.to_owned()));
        }
        self.rested = Instant::now() + REST * begun.elapsed();
        Ok(true)
    }

    /// The container whose topmost cgroup this is, as it was when it was looked.
    #[must_use]
    pub fn of_cgroup(&self, cgroup: u64) -> Option<ContainerFacts> {
        self.facts(self.by_cgroup.get(&cgroup)?)
    }

    /// The container whose first process this is, by its number and whether it was born in a clock tick since boot.
    #[must_use]
    pub fn of_init(&self, pid: u32, was_born: impl Fn(u64) -> bool) -> Option<ContainerFacts> {
        let (_, id) = self.by_init.get(&pid)?.iter().find(|(started, _)| was_born(*started))?;
        self.facts(id)
    }

    fn facts(&self, id: &str) -> Option<ContainerFacts> {
        Some(self.state.known(id).ok()??.facts)
    }
}

/// How far a time is from now; a clock that was set back leaves times that are yet to come.
fn distance(time: SystemTime) -> Duration {
    time.elapsed().unwrap_or_else(|ahead| ahead.duration())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::place::Place;
    use crate::{Door, Known, Missing};

    fn known(id: &str, cgroup_id: u64, pid: u32, started: u64) -> Known {
        let place = Place { pid, started, cgroup_id, cgroup_path: PathBuf::from("/c"), runtime_mntns: 1, root: (1, 1) };
        let facts = ContainerFacts { id: id.to_owned(), ..ContainerFacts::default() };
        Known { facts, missing: Missing::default(), door: Door::Hook, place: Some(place) }
    }

    #[test]
    fn a_container_is_found_by_its_cgroup_and_its_first_process_until_it_is_gone() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDir::at(place.path());
        state.create().unwrap();
        let mut residents = Residents::of(state.clone());
        let id = |found: Option<ContainerFacts>| found.map(|facts| facts.id);
        let look = |residents: &mut Residents| {
            residents.rested = Instant::now();
            residents.look().unwrap()
        };
        look(&mut residents);
        assert_eq!(id(residents.of_cgroup(7)), None);
        state.write_known(&known("a", 7, 40, 1_000)).unwrap();
        state.write_known(&known("b", 8, 40, 2_000)).unwrap();
        state.write_known(&Known { place: None, ..known("c", 9, 41, 1) }).unwrap();
        std::fs::write(place.path().join("known/damaged.json"), "{").unwrap();
        assert!(look(&mut residents), "whatever the clock's step");
        assert_eq!(id(residents.of_cgroup(7)).as_deref(), Some("a"));
        assert_eq!(id(residents.of_init(40, |started| started == 2_000)).as_deref(), Some("b"));
        assert_eq!((residents.of_init(40, |_| false), residents.of_cgroup(9)), (None, None));
        state.write_known(&known("c", 9, 41, 1)).unwrap();
        state.remove_known("a").unwrap();
        look(&mut residents);
        assert_eq!((id(residents.of_cgroup(9)).as_deref(), residents.of_cgroup(7)), (Some("c"), None));
        std::thread::sleep(2 * STEP);
        look(&mut residents);
        assert!(!look(&mut residents), "nothing came, and nothing is listed");
    }

    #[test]
    fn looking_takes_a_share_of_the_time_whatever_comes() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDir::at(place.path());
        state.create().unwrap();
        (0..500).for_each(|number| state.write_known(&known(&format!("c{number}"), number, 40, number)).unwrap());
        let mut residents = Residents::of(state.clone());
        assert!(residents.look().unwrap());
        state.write_known(&known("new", 1_000, 41, 1)).unwrap();
        assert!(!residents.look().unwrap(), "so soon after reading 500");
        residents.rested = Instant::now();
        assert!(residents.look().unwrap());
        assert!(residents.of_cgroup(1_000).is_some());
    }

    #[test]
    fn a_clock_that_was_set_back_has_it_listed_once() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDir::at(place.path());
        state.create().unwrap();
        let later = SystemTime::now() + Duration::from_secs(3_600);
        std::fs::File::open(state.known_dir()).unwrap().set_modified(later).unwrap();
        let mut residents = Residents::of(state);
        assert!(residents.look().unwrap());
        residents.rested = Instant::now();
        assert!(!residents.look().unwrap());
    }
}
