//! A model of the kernel's tables that can fail at any step, and what arming makes of it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use portcullis_ebpf::{Error as KernelError, abi};
use portcullis_policy::decide::{Operation, Verdict};
use portcullis_policy::meaning::{Action, Class, Object, Origin, Postures, Rule, RuleSet};
use portcullis_policy::{ContainerFacts, Options, parse};

use crate::arming::{Armed, arm_in, disarm_in};
use crate::automaton::{View, content_hash};
use crate::place::Place;
use crate::plan::Form;
use crate::plan::{Container, Enforce, Plan, Target, plan, tables};
use crate::state::StateDir;
use crate::tables::Tables;
use crate::{Config, Error, sets, slots};

mod arming;
mod live;

/// The tables. `fail_at` is the number of the write that fails, counted from 1.
struct Model {
    sets: RefCell<Vec<abi::Set>>,
    slots: RefCell<Vec<abi::Slot>>,
    segments: RefCell<BTreeMap<u32, Vec<u8>>>,
    cgroups: RefCell<BTreeMap<u64, abi::Cgroup>>,
    armed: Cell<u32>,
    waits: Cell<u32>,
    writes: Cell<u32>,
    fail_at: Cell<u32>,
    /// Tasks that each pass of labelling meets, the next one last.
    unlabelled: RefCell<Vec<u32>>,
    /// Tasks for whose label there is no memory.
    unlabelled_for_ever: Cell<u32>,
    init_is_gone: Cell<bool>,
    sees_few: Cell<bool>,
    calls_watched: Cell<bool>,
    /// By slot.
    tasks: RefCell<BTreeMap<u32, u32>>,
}

impl Model {
    fn new() -> Model {
        Model {
            sets: RefCell::new(vec![abi::Set::default(); abi::MAX_SETS as usize]),
            slots: RefCell::new(vec![abi::Slot::default(); abi::MAX_SLOTS as usize]),
            segments: RefCell::default(),
            cgroups: RefCell::default(),
            armed: Cell::new(0),
            waits: Cell::new(0),
            writes: Cell::new(0),
            fail_at: Cell::new(0),
            unlabelled: RefCell::default(),
            unlabelled_for_ever: Cell::new(0),
            init_is_gone: Cell::new(false),
            sees_few: Cell::new(false),
            calls_watched: Cell::new(false),
            tasks: RefCell::default(),
        }
    }

    fn write(&self) -> Result<(), KernelError> {
        self.writes.set(self.writes.get() + 1);
        if self.writes.get() == self.fail_at.get() { Err(KernelError::NotLoaded) } else { Ok(()) }
    }

    /// What the kernel would decide for a task of a cgroup.
    fn blocks(&self, cgroup: u64, path: &str) -> bool {
        let Some(found) = self.cgroups.borrow().get(&cgroup).copied() else { return false };
        let slot = self.slots.borrow()[found.slot as usize];
        if slot.epoch != found.epoch || slot.flags & abi::SLOT_ARMED == 0 {
            return false;
        }
        let set = self.sets.borrow()[slot.set as usize];
        let bytes = self.segments.borrow()[&set.segment].clone();
        let words: Vec<u32> = bytes.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect();
        let decision = View::new(&words, &set).evaluate(None, false, &Operation::Read { path: path.as_bytes() });
        decision.verdict == Verdict::Block
    }

    fn slot(&self, index: u32) -> abi::Slot {
        self.slots.borrow()[index as usize]
    }

    fn set_tasks(&self, slot: u32, tasks: u32) {
        self.tasks.borrow_mut().insert(slot, tasks);
    }

    fn used_sets(&self) -> usize {
        self.sets.borrow().iter().filter(|set| set.flags != 0).count()
    }
}

impl Tables for Model {
    fn read_set(&self, index: u32) -> Result<abi::Set, KernelError> {
        Ok(self.sets.borrow()[index as usize])
    }
    fn write_set(&self, index: u32, set: &abi::Set) -> Result<(), KernelError> {
        self.write()?;
        self.sets.borrow_mut()[index as usize] = *set;
        Ok(())
    }
    fn store_set_retired(&self, index: u32, seconds: u32) -> Result<(), KernelError> {
        self.write()?;
        self.sets.borrow_mut()[index as usize].retired_at = seconds;
        Ok(())
    }
    fn read_slot(&self, index: u32) -> Result<abi::Slot, KernelError> {
        Ok(self.slot(index))
    }
    fn write_slot(&self, index: u32, slot: &abi::Slot) -> Result<(), KernelError> {
        self.write()?;
        self.slots.borrow_mut()[index as usize] = *slot;
        Ok(())
    }
    fn store_slot_flags(&self, index: u32, flags: u32) -> Result<(), KernelError> {
        self.write()?;
        self.slots.borrow_mut()[index as usize].flags = flags;
        Ok(())
    }
    fn store_slot_set(&self, index: u32, set: u32, generation: u32) -> Result<(), KernelError> {
        self.write()?;
        let slot = &mut self.slots.borrow_mut()[index as usize];
        (slot.set, slot.generation) = (set, generation);
        Ok(())
    }
    fn adopt(&self, asked: abi::Adoption) -> Result<abi::Adoption, KernelError> {
        self.write()?;
        if asked.cgroup == 0 {
            assert!(!self.cgroups.borrow().values().any(|cgroup| cgroup.slot == asked.slot), "the root is noted first");
            return Ok(abi::Adoption { rooted: u32::from(!self.init_is_gone.get()), ..asked });
        }
        let labelled = self.unlabelled.borrow_mut().pop().unwrap_or(0);
        *self.tasks.borrow_mut().entry(asked.slot).or_default() += labelled;
        Ok(abi::Adoption { labelled, rooted: 1, failed: self.unlabelled_for_ever.get(), ..asked })
    }
    fn labels(&self) -> Result<BTreeMap<abi::Label, u32>, KernelError> {
        let tasks = self.tasks.borrow();
        let label = |slot: u32| abi::Label { slot, epoch: self.slot(slot).epoch };
        Ok(tasks.iter().filter(|(_, tasks)| **tasks > 0).map(|(slot, tasks)| (label(*slot), *tasks)).collect())
    }
    fn sees_all_tasks(&self) -> bool {
        !self.sees_few.get()
    }
    fn stamp(&self, _slot: u32) -> Result<(), KernelError> {
        self.write()
    }
    fn segments(&self) -> Result<Vec<u32>, KernelError> {
        Ok(self.segments.borrow().keys().copied().collect())
    }
    fn write_segment(&self, index: u32, offset: u32, bytes: &[u8]) -> Result<(), KernelError> {
        self.write()?;
        let mut segments = self.segments.borrow_mut();
        let segment = segments.entry(index).or_insert_with(|| vec![0xee; abi::SEGMENT_BYTES as usize]);
        segment[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
    fn cgroup_arm(&self, cgroup_id: u64, cgroup: abi::Cgroup) -> Result<(), KernelError> {
        self.write()?;
        self.cgroups.borrow_mut().insert(cgroup_id, cgroup);
        Ok(())
    }
    fn cgroup_disarm(&self, cgroup_id: u64) -> Result<bool, KernelError> {
        self.write()?;
        Ok(self.cgroups.borrow_mut().remove(&cgroup_id).is_some())
    }
    fn cgroup_list(&self) -> Result<Vec<(u64, abi::Cgroup)>, KernelError> {
        Ok(self.cgroups.borrow().iter().map(|(&id, &cgroup)| (id, cgroup)).collect())
    }
    fn set_armed(&self, slots: u32) -> Result<(), KernelError> {
        self.write()?;
        self.armed.set(slots);
        Ok(())
    }
    fn set_calls_watched(&self, watched: bool) -> Result<(), KernelError> {
        if self.calls_watched.get() != watched {
            self.write()?;
            self.calls_watched.set(watched);
        }
        Ok(())
    }
    fn wait_readers(&self) -> Result<(), KernelError> {
        self.waits.set(self.waits.get() + 1);
        Ok(())
    }
}

struct Site {
    _temporary: tempfile::TempDir,
    state: StateDir,
    model: Model,
}

fn at(cgroup_id: u64) -> Place {
    Place { pid: 1, started: 2, cgroup_id, cgroup_path: "/x".into(), runtime_mntns: 7, root: (8, 9) }
}

fn site() -> Site {
    let temporary = tempfile::tempdir().unwrap();
    let state = StateDir::at(temporary.path());
    state.create().unwrap();
    Site { _temporary: temporary, state, model: Model::new() }
}

fn blocking(paths: &[String]) -> RuleSet {
    let rule = |(line, path): (usize, &String)| Rule {
        origin: Origin {
            kind: "KubeArmorPolicy".into(),
            namespace: "".into(),
            policy: "p".into(),
            file: Arc::new("p.yaml".into()),
            line: line as u32,
            column: 1,
            field: String::new(),
        },
        class: Class::File,
        objects: vec![Object::Path(path.clone().into_bytes())],
        sources: Vec::new(),
        read_only: false,
        owner_only: false,
        action: Action::Block,
        severity: 0,
        tags: Vec::new(),
        message: String::new(),
    };
    RuleSet { rules: paths.iter().enumerate().map(rule).map(Arc::new).collect(), postures: Postures::default() }
}

impl Site {
    fn facts(id: &str) -> ContainerFacts {
        ContainerFacts { id: id.to_owned(), ..ContainerFacts::default() }
    }

    fn enforce(&self, set: RuleSet) -> Enforce {
        let hash = content_hash(&set);
        let form = Form::Tables(Some(tables(&self.state, &set, hash, &Site::facts("c")).unwrap()));
        Enforce { set, hash, audited: false, policies: Vec::new(), unenforced: Vec::new(), form }
    }

    fn arm(&self, id: &str, cgroup_id: u64, plan: &Enforce) -> Result<Armed, Error> {
        let facts = Site::facts(id);
        arm_in(&self.model, &self.state, plan, &Target { facts: &facts, place: &at(cgroup_id), running: false, starting: None })
    }

    fn disarm(&self, id: &str) -> Result<(), Error> {
        disarm_in(&self.model, &self.state, &self.state.container(id).unwrap().unwrap())
    }
}

fn one(path: &str) -> RuleSet {
    blocking(&[path.to_owned()])
}
