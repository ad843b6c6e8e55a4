//! Whose an event is that carries no label: of a container without policies, or under AppArmor.

use std::sync::Arc;

use portcullis_enforcer::{Error, Monitor, Residents, StateDir};
use rustc_hash::FxHashMap;

use super::line::Container;
use crate::processes::Key;

/// Most cgroups that are remembered; then all are looked up anew.
const MAX_CGROUPS: usize = 4096;

/// Containers by the cgroups of their processes.
pub(crate) struct Residence {
    residents: Residents,
    monitor: Arc<Monitor>,
    /// No id of a cgroup is used twice. Nothing for those that nobody knew when it was looked the last time.
    cgroups: FxHashMap<u64, Option<Arc<Container>>>,
}

impl Residence {
    pub(crate) fn new(state: StateDir) -> Residence {
        Residence { residents: Residents::of(state), monitor: Arc::default(), cgroups: FxHashMap::default() }
    }

    /// With what containers have told of them by this configuration.
    pub(crate) fn by(self, monitor: Arc<Monitor>) -> Residence {
        Residence { monitor, ..self }
    }

    /// The container of a process in a cgroup, which is the container's own, or one below it that has the container's first process or
    /// one that descends from it. `line` is the process and its ancestors.
    pub(crate) fn container(&mut self, cgroup: u64, line: impl FnOnce() -> Vec<Key>) -> Result<Option<Arc<Container>>, Error> {
        let remembered = self.cgroups.get(&cgroup);
        if let Some(Some(container)) = remembered {
            return Ok(Some(Arc::clone(container)));
        }
        let is_unknown = remembered.is_some();
        if self.residents.look()? {
            self.cgroups.retain(|_, container| container.is_some());
        } else if is_unknown {
            return Ok(None);
        }
        let is_init = |key: Key| self.residents.of_init(key.tgid, |ticks| Key::of_ticks(key.tgid, ticks).is(key));
        let facts = self.residents.of_cgroup(cgroup).or_else(|| line().into_iter().find_map(is_init));
        let container = facts.map(|facts| {
            let visibility = self.monitor.own(&facts);
            Arc::new(Container { visibility, ..Container::of_facts(facts) })
        });
        // What has none is not known by it.
        if cgroup != 0 {
            if self.cgroups.len() >= MAX_CGROUPS {
                self.cgroups.clear();
            }
            self.cgroups.insert(cgroup, container.clone());
        }
        Ok(container)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use portcullis_enforcer::Door;

    use super::*;
    use crate::fake;

    /// Of the containers of [`fake::known`], whose first process was born in the first tick.
    const CGROUP: u64 = 1;
    const BELOW: u64 = 8;

    fn record(state: &StateDir, id: &str) {
        std::fs::create_dir_all(state.known_dir()).unwrap();
        let record = serde_json::to_vec(&fake::known(id, Door::Hook, Some(40))).unwrap();
        std::fs::write(state.known_dir().join(format!("{id}.json")), record).unwrap();
    }

    #[test]
    fn processes_are_a_containers_by_its_cgroup_and_by_descent() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDir::at(place.path());
        let mut residence = Residence::new(state.clone());
        let asked = Cell::new(0);
        let mut name = |cgroup, line: &[Key]| {
            let line = || {
                asked.set(asked.get() + 1);
                line.to_vec()
            };
            residence.container(cgroup, line).unwrap().map(|container| container.id.clone())
        };
        let (init, other) = (Key { tgid: 40, started_ns: 10_000_077 }, Key { tgid: 40, started_ns: 5 });
        assert_eq!(name(CGROUP, &[init]), None, "nobody has seen it");
        record(&state, "a");
        // After a look there is a rest, as long as the look took; a busy machine may make it long.
        let seen = (0..500).find_map(|_| {
            name(CGROUP, &[other]).or_else(|| {
                std::thread::sleep(std::time::Duration::from_millis(10));
                None
            })
        });
        assert_eq!(seen.as_deref(), Some("a"));
        assert_eq!(name(BELOW, &[other]), None, "one that had its number");
        assert_eq!(
            name(BELOW + 1, &[Key { tgid: 41, started_ns: 9 }, init]).as_deref(),
            Some("a"),
            "a child of its first process"
        );
        let before = asked.get();
        assert_eq!(name(BELOW + 1, &[]).as_deref(), Some("a"), "whatever else is there, as one executed by the runtime");
        assert_eq!(asked.get(), before, "it is remembered");
        std::fs::remove_file(state.known_dir().join("a.json")).unwrap();
        assert_eq!(name(CGROUP, &[]).as_deref(), Some("a"), "its last events come after it");
        assert_eq!(name(0, &[init]), None);
    }
}
