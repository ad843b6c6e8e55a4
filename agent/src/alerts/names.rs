//! Who is behind the kernel's numbers: containers and rules, by what is in the state directory.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_ebpf::Event;
use portcullis_ebpf::monitor::Classes;
use portcullis_enforcer::{ContainerRecord, Error, Monitor, StateDir, Tenants};
use portcullis_policy::Backend;
use portcullis_policy::meaning::RuleSet;

use super::alert::Alert;
use super::clock::Moment;
use super::line::Container;
use super::process::ProcessFacts;
use super::residence::Residence;
use crate::kubearmor::Host;
use crate::processes::Key;

/// Containers and rules by the numbers of the kernel.
pub struct Names {
    tenants: Tenants,
    residence: Residence,
    monitor: Arc<Monitor>,
    backend: Backend,
    host: Arc<Host>,
    known: HashMap<Tenant, Arc<Named>>,
    unknown: HashMap<Tenant, Instant>,
    /// By slot and epoch; nothing for those whom nobody knew at that time.
    labels: HashMap<(u32, u32), Found>,
    sets: HashMap<String, Arc<RuleSet>>,
}

/// Slot, epoch and generation: one policy of one container.
type Tenant = (u32, u32, u32);

/// The container of a label, and when it was looked for.
type Found = (Option<Arc<Container>>, Instant);

/// A container, and its rules in one generation of its policy.
struct Named {
    container: Arc<Container>,
    rules: Arc<RuleSet>,
}

/// Most containers that are remembered; then all are looked up anew.
const MAX_KNOWN: usize = 4096;
/// Most rule sets that are remembered, likewise. Containers with the same rules share one.
const MAX_SETS: usize = 64;
/// A switch is told by the kernel before it is on record, by as long as it takes to write a file.
const RECORD_PATIENCE: Duration = Duration::from_millis(5);
const RECORD_LOOKS: usize = 20;
/// How long a container that nobody knows is not asked for again: a look goes through all records.
const UNKNOWN_FOR: Duration = Duration::from_secs(1);

impl Names {
    /// By the records of a state directory of this host.
    #[must_use]
    pub fn new(state: StateDir, host: Host) -> Names {
        Names {
            residence: Residence::new(state.clone()),
            tenants: Tenants::of(state),
            monitor: Arc::default(),
            backend: Backend::Bpf,
            host: Arc::new(host),
            known: HashMap::new(),
            unknown: HashMap::new(),
            labels: HashMap::new(),
            sets: HashMap::new(),
        }
    }

    /// With what containers have told of them by this configuration.
    pub(crate) fn by(mut self, monitor: Arc<Monitor>) -> Names {
        self.residence = self.residence.by(Arc::clone(&monitor));
        self.monitor = monitor;
        self
    }

    /// With alerts of this backend, which is BPF otherwise.
    pub(crate) fn under(self, backend: Backend) -> Names {
        Names { backend, ..self }
    }

    /// What events say of this node.
    pub(crate) fn host(&self) -> Arc<Host> {
        Arc::clone(&self.host)
    }

    /// The container of a label, if it is on record.
    pub(crate) fn container(&mut self, slot: u32, epoch: u32) -> Result<Option<Arc<Container>>, Error> {
        if let Some((found, looked)) = self.labels.get(&(slot, epoch))
            && (found.is_some() || looked.elapsed() < UNKNOWN_FOR)
        {
            return Ok(found.clone());
        }
        let found = self.tenants.find(slot, epoch)?;
        let found = found.map(|record| Arc::new(Container { visibility: self.visibility(&record), ..Container::of(&record) }));
        if self.labels.len() >= MAX_KNOWN {
            self.labels.clear();
        }
        self.labels.insert((slot, epoch), (found.clone(), Instant::now()));
        Ok(found)
    }

    /// What an armed container asks for itself.
    fn visibility(&self, record: &ContainerRecord) -> Option<Classes> {
        match &record.asks {
            Some(asks) => self.monitor.own_by(asks),
            None => self.visibility_as_known(record),
        }
    }

    /// The same by what doors know of it: an older version armed it, and this one has not brought it to the policies yet, or can't
    /// while they are unreadable. Whom nobody knows any more asks for nothing, nor does one whose record is damaged, of which
    /// `status` tells: its events must not lack a name for that.
    fn visibility_as_known(&self, record: &ContainerRecord) -> Option<Classes> {
        let known = self.tenants.state().known(&record.id).ok()??;
        let is_it = known.place.is_some_and(|place| place.cgroup_id == record.cgroup_id);
        if is_it { self.monitor.own(&known.facts) } else { None }
    }

    /// The container of a process that has no label, if a door has seen it; `line` is the process and its ancestors.
    pub(crate) fn resident(&mut self, cgroup: u64, line: impl FnOnce() -> Vec<Key>) -> Result<Option<Arc<Container>>, Error> {
        self.residence.container(cgroup, line)
    }

    fn of(&mut self, tenant: Tenant) -> Result<Option<Arc<Named>>, Error> {
        if let Some(known) = self.known.get(&tenant) {
            return Ok(Some(Arc::clone(known)));
        }
        if self.unknown.get(&tenant).is_some_and(|since| since.elapsed() < UNKNOWN_FOR) {
            return Ok(None);
        }
        let found = self.look_up(tenant)?;
        if self.known.len() + self.unknown.len() >= MAX_KNOWN {
            self.known.clear();
            self.unknown.clear();
        }
        match &found {
            Some(named) => drop(self.known.insert(tenant, Arc::clone(named))),
            None => drop(self.unknown.insert(tenant, Instant::now())),
        }
        Ok(found)
    }

    fn look_up(&mut self, (slot, epoch, generation): Tenant) -> Result<Option<Arc<Named>>, Error> {
        let Some(mut record) = self.tenants.find(slot, epoch)? else { return Ok(None) };
        for _ in 0..RECORD_LOOKS {
            if generation <= record.generation {
                break;
            }
            std::thread::sleep(RECORD_PATIENCE);
            match self.tenants.find(slot, epoch)? {
                Some(newer) => record = newer,
                None => break,
            }
        }
        let rules = self.rules(&record, generation)?;
        Ok(Some(Arc::new(Named { container: Arc::new(Container::of(&record)), rules })))
    }

    /// The rules of a generation; none if nobody knows them any more, rather than another generation's.
    fn rules(&mut self, record: &ContainerRecord, generation: u32) -> Result<Arc<RuleSet>, Error> {
        let recorded = record.generation == generation || record.earlier.iter().any(|earlier| earlier.generation == generation);
        if !recorded {
            return Ok(Arc::default());
        }
        let hash = record.hash_in(generation);
        if let Some(rules) = self.sets.get(hash) {
            return Ok(Arc::clone(rules));
        }
        let rules = Arc::new(self.tenants.state().rules_in(record, generation)?.unwrap_or_default());
        if self.sets.len() >= MAX_SETS {
            self.sets.clear();
        }
        self.sets.insert(hash.to_owned(), Arc::clone(&rules));
        Ok(rules)
    }

    /// The alert of an event that was raised at a time, with what is known of the process.
    ///
    /// # Errors
    /// If the records that name it cannot be read. An event that no record names is an alert all the same.
    pub fn alert(&mut self, event: Event, moment: Moment, process: Option<ProcessFacts>) -> Result<Alert, Error> {
        let header = &event.header;
        let known = self.of((header.slot, header.epoch, header.generation))?;
        let named = known.as_ref().map(|known| (Arc::clone(&known.container), &*known.rules));
        Ok(Alert::new(event, (moment, self.backend), named, process, Arc::clone(&self.host)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use portcullis_enforcer::{Asks, Door, VISIBILITY_ANNOTATION};
    use portcullis_policy::ContainerFacts;

    use super::*;
    use crate::fake;

    /// Slot and epoch of the container.
    const LABEL: (u32, u32) = (3, 4);
    /// Its cgroup: that of [`fake::known`].
    const CGROUP: u64 = 1;

    /// A container that asks for files, in a namespace of which nothing is told.
    fn facts() -> ContainerFacts {
        let mut facts = fake::known("a", Door::Hook, Some(40)).facts;
        facts.annotations.insert(VISIBILITY_ANNOTATION.to_owned(), "file".to_owned());
        ContainerFacts { namespace: "shop".to_owned(), orchestrated: true, ..facts }
    }

    fn monitor() -> Arc<Monitor> {
        Arc::new(Monitor { namespaces: [("shop".to_owned(), Classes::NONE)].into(), ..Monitor::default() })
    }

    fn write(place: &Path, kind: &str, record: &impl serde::Serialize) {
        std::fs::create_dir_all(place.join(kind)).unwrap();
        std::fs::write(place.join(kind).join("a.json"), serde_json::to_vec(record).unwrap()).unwrap();
    }

    /// As an older version wrote it.
    fn armed() -> ContainerRecord {
        let (slot, epoch) = LABEL;
        let text = format!(
            r#"{{"id":"a","name":"web","image":"i","namespace":"shop","pid":40,"cgroupId":{CGROUP},"cgroupPath":"/c","slot":{slot},
            "epoch":{epoch},"set":5,"hash":"h","audited":false,"policies":[],"unenforced":0,"armedAt":6}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    /// What the container is named with by somebody who has not seen it before.
    fn visibility(place: &Path, monitor: Arc<Monitor>) -> Option<Classes> {
        let mut names = Names::new(StateDir::at(place), Host::default()).by(monitor);
        let named = names.container(LABEL.0, LABEL.1).unwrap().unwrap();
        assert_eq!(named.name, "web");
        named.visibility
    }

    #[test]
    fn an_armed_container_has_its_own_visibility_when_nobody_knows_it_any_more() {
        let place = tempfile::tempdir().unwrap();
        let by_namespace = ContainerFacts { annotations: BTreeMap::new(), ..facts() };
        let bare = ContainerFacts { orchestrated: false, ..by_namespace.clone() };
        for (facts, asked) in [(facts(), Some(Classes::FILE)), (by_namespace, Some(Classes::NONE)), (bare, None)] {
            write(place.path(), "containers", &ContainerRecord { asks: Some(Asks::of(&facts)), ..armed() });
            assert_eq!(visibility(place.path(), monitor()), asked);
        }
        // Its namespace has a visibility since, or has none any more.
        write(place.path(), "containers", &ContainerRecord { asks: Some(Asks::of(&facts())), ..armed() });
        assert_eq!(visibility(place.path(), Arc::default()), Some(Classes::FILE));
        let of_namespace = ContainerFacts { annotations: BTreeMap::new(), ..facts() };
        write(place.path(), "containers", &ContainerRecord { asks: Some(Asks::of(&of_namespace)), ..armed() });
        assert_eq!(visibility(place.path(), Arc::default()), None);
        // It has left, and its last events are read.
        let departed = ContainerRecord { asks: Some(Asks::of(&facts())), ..armed() };
        std::fs::remove_file(place.path().join("containers/a.json")).unwrap();
        write(place.path(), "departed", &departed);
        let (slot, epoch) = LABEL;
        std::fs::rename(place.path().join("departed/a.json"), place.path().join(format!("departed/6-{slot}-{epoch}.json")))
            .unwrap();
        assert_eq!(visibility(place.path(), monitor()), Some(Classes::FILE));
    }

    #[test]
    fn one_that_an_older_version_armed_has_the_visibility_that_doors_know() {
        let place = tempfile::tempdir().unwrap();
        write(place.path(), "containers", &armed());
        assert_eq!(visibility(place.path(), monitor()), None, "nobody knows it any more");
        let mut known = fake::known("a", Door::Hook, Some(40));
        known.facts = facts();
        write(place.path(), "known", &known);
        assert_eq!(visibility(place.path(), monitor()), Some(Classes::FILE));
        known.place.as_mut().unwrap().cgroup_id = CGROUP + 1;
        write(place.path(), "known", &known);
        assert_eq!(visibility(place.path(), monitor()), None, "another container by the same id");
        std::fs::write(place.path().join("known/a.json"), "{").unwrap();
        assert_eq!(visibility(place.path(), monitor()), None, "its name does not depend on it");
    }
}
