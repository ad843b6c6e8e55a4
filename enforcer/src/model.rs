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

use crate::automaton::{View, content_hash};
use crate::enforcer::{Armed, arm_in, disarm_in};
use crate::place::Place;
use crate::plan::Form;
use crate::plan::{Container, Enforce, Plan, Target, plan, tables};
use crate::state::StateDir;
use crate::tables::Tables;
use crate::{Config, Error, sets, slots};

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

#[test]
fn an_armed_container_is_enforced_and_recorded() {
    let site = site();
    let plan = site.enforce(one("/etc/shadow"));
    let armed = site.arm("a", 11, &plan).unwrap();
    assert!(!armed.reused);
    assert!(site.model.blocks(11, "/etc/shadow") && !site.model.blocks(11, "/etc/passwd"));
    assert_eq!(site.model.armed.get(), 1);
    assert_eq!(site.model.waits.get(), 0, "nobody waits for readers at a start");
    let record = site.state.container("a").unwrap().unwrap();
    assert_eq!((record.slot, record.set, record.cgroup_id), (armed.slot, armed.set, 11));
    assert_eq!(site.state.rule_set(plan.hash).unwrap().unwrap(), plan.set);
}

#[test]
fn containers_with_the_same_rules_share_a_set() {
    let site = site();
    let plan = site.enforce(one("/a"));
    let (a, b) = (site.arm("a", 1, &plan).unwrap(), site.arm("b", 2, &plan).unwrap());
    assert_eq!((a.set, b.reused, a.slot != b.slot), (b.set, true, true));
    let other = site.arm("c", 3, &site.enforce(one("/b"))).unwrap();
    assert_ne!(other.set, a.set);
    let model = &site.model;
    assert!(model.blocks(1, "/a") && model.blocks(2, "/a") && model.blocks(3, "/b") && !model.blocks(3, "/a"));
    assert_eq!(model.segments.borrow().len(), 1, "small sets share a segment");
}

/// Whatever write fails, nothing is half armed, and the next attempt succeeds.
#[test]
fn a_failure_at_any_step_leaves_nothing() {
    for fail_at in 1..100 {
        let site = site();
        let plan = site.enforce(one("/a"));
        site.model.fail_at.set(fail_at);
        let armed = site.arm("a", 1, &plan);
        if armed.is_ok() {
            assert!(fail_at > 6, "there are as many steps");
            return;
        }
        assert!(!site.model.blocks(1, "/a"), "write {fail_at}");
        assert!(site.model.cgroups.borrow().is_empty(), "write {fail_at}");
        assert!(site.model.slots.borrow().iter().all(|slot| slot.flags & abi::SLOT_ARMED == 0), "write {fail_at}");
        assert_eq!(site.state.container("a").unwrap(), None, "write {fail_at}");
        site.arm("a", 1, &plan).unwrap();
        assert!(site.model.blocks(1, "/a"), "after write {fail_at}");
        assert_eq!(site.model.armed.get(), 1);
    }
    panic!("arming never succeeded");
}

/// And what was armed for the same container before stays armed.
#[test]
fn a_failed_replacement_leaves_the_old_policy() {
    let mut failures = 0;
    for fail_at in 1..100 {
        let site = site();
        site.arm("a", 1, &site.enforce(one("/old"))).unwrap();
        let before = site.state.container("a").unwrap();
        site.model.writes.set(0);
        site.model.fail_at.set(fail_at);
        if site.arm("a", 1, &site.enforce(one("/new"))).is_err() {
            failures += 1;
            assert!(site.model.blocks(1, "/old"), "write {fail_at}");
            assert_eq!(site.state.container("a").unwrap(), before, "write {fail_at}");
        } else {
            assert!(site.model.blocks(1, "/new") && !site.model.blocks(1, "/old"), "write {fail_at}");
        }
    }
    assert!(failures > 6);
}

/// Whatever write fails, what may still be armed keeps its record, and disarming again ends it.
#[test]
fn a_failed_disarming_can_be_repeated() {
    for fail_at in 1..8 {
        let site = site();
        site.arm("a", 1, &site.enforce(one("/a"))).unwrap();
        site.model.writes.set(0);
        site.model.fail_at.set(fail_at);
        let disarmed = site.disarm("a");
        let armed = site.model.slots.borrow().iter().any(|slot| slot.flags & abi::SLOT_ARMED != 0);
        let there = site.state.container("a").unwrap().is_some();
        assert!(there || !armed, "write {fail_at}");
        if disarmed.is_err() && there {
            site.disarm("a").unwrap();
        }
        assert!(!site.model.blocks(1, "/a") && site.state.container("a").unwrap().is_none(), "write {fail_at}");
        assert!(site.model.cgroups.borrow().is_empty());
        assert_eq!(site.model.armed.get(), 0, "write {fail_at}");
    }
}

#[test]
fn arming_waits_for_the_lock_and_not_for_ever() {
    let site = site();
    let held = site.state.lock().unwrap();
    let state = site.state.clone();
    let release = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        drop(held);
        state
    });
    site.arm("a", 1, &site.enforce(one("/a"))).unwrap();
    let _held = release.join().unwrap().lock().unwrap();
    assert!(matches!(site.arm("b", 2, &site.enforce(one("/a"))), Err(Error::Locked { .. })));
}

#[test]
fn a_slot_is_another_s_only_when_its_tasks_are_gone() {
    let site = site();
    let plan = site.enforce(one("/a"));
    let first = site.arm("a", 1, &plan).unwrap();
    site.model.cgroups.borrow_mut().insert(99, abi::Cgroup { slot: first.slot, epoch: 1 });
    site.model.set_tasks(first.slot, 2);
    site.disarm("a").unwrap();
    assert!(site.model.cgroups.borrow().is_empty(), "children of its cgroup too");
    assert_eq!(site.model.slot(first.slot).flags, abi::SLOT_DYING);
    assert_eq!((site.model.armed.get(), site.model.waits.get()), (0, 1));
    assert_eq!(site.model.sets.borrow()[first.set as usize].retired_at, 0, "two tasks still need it");

    let second = site.arm("b", 2, &plan).unwrap();
    assert_ne!(second.slot, first.slot);
    site.model.set_tasks(first.slot, 0);
    for slot in 0..abi::MAX_SLOTS {
        if slot != first.slot && slot != second.slot {
            site.model.slots.borrow_mut()[slot as usize].flags = abi::SLOT_ARMED;
        }
    }
    site.model.sees_few.set(true);
    assert!(matches!(site.arm("c", 3, &plan), Err(Error::NoSlot { .. })), "it may have tasks that cannot be seen");
    site.model.sees_few.set(false);
    let third = site.arm("c", 3, &plan).unwrap();
    assert_eq!(third.slot, first.slot);
    assert_eq!(site.model.slot(third.slot).epoch, 2);
    assert!(matches!(site.arm("d", 4, &plan), Err(Error::NoSlot { .. })));
    assert_eq!(site.state.container("d").unwrap(), None);
}

#[test]
fn unused_sets_stay_for_a_while_and_make_room_when_it_is_needed() {
    let site = site();
    let plan = site.enforce(one("/a"));
    let set = site.arm("a", 1, &plan).unwrap().set;
    site.disarm("a").unwrap();
    assert_ne!(site.model.sets.borrow()[set as usize].retired_at, 0);
    let again = site.arm("a", 1, &plan).unwrap();
    assert!(again.reused);
    site.disarm("a").unwrap();
    assert_eq!(site.model.used_sets(), 1);
    // All other entries are taken by sets that nobody retired because nobody ever used them (a crash, say).
    for index in 0..abi::MAX_SETS as usize {
        if index != set as usize {
            site.model.sets.borrow_mut()[index] =
                abi::Set { flags: abi::SET_USED, hash: [1, index as u64], ..abi::Set::default() };
        }
    }
    let other = site.arm("b", 2, &site.enforce(one("/b"))).unwrap();
    assert!(site.model.blocks(2, "/b"));
    assert_eq!(site.model.used_sets(), 1, "all that nobody used is freed: {other:?}");
    sets::sweep(&site.model, u32::MAX).unwrap();
    assert_eq!(site.model.used_sets(), 1, "what is used stays");
}

#[test]
fn system_calls_are_watched_while_a_set_in_use_has_rules_on_them() {
    let site = site();
    let mut rules = one("/a");
    let rule = Arc::make_mut(&mut rules.rules[0]);
    (rule.class, rule.objects) = (Class::Syscall, vec![Object::Syscall { call: "unlink".parse().unwrap(), at: None }]);
    site.arm("a", 1, &site.enforce(one("/a"))).unwrap();
    assert!(!site.model.calls_watched.get(), "nobody needs it");
    let plan = site.enforce(rules);
    site.arm("b", 2, &plan).unwrap();
    site.arm("c", 3, &plan).unwrap();
    site.disarm("b").unwrap();
    assert!(site.model.calls_watched.get(), "c needs it");
    site.disarm("c").unwrap();
    assert!(!site.model.calls_watched.get());
    site.arm("c", 3, &plan).unwrap();
    assert!(site.model.calls_watched.get(), "the set was there already");
    site.model.calls_watched.set(false);
    site.model.fail_at.set(site.model.writes.get() + 1);
    assert!(site.arm("d", 4, &plan).is_err(), "rules that nobody would see are not armed");
    assert!(!site.model.cgroups.borrow().contains_key(&4));
}

#[test]
fn the_set_of_a_plan_may_vanish_before_it_is_armed() {
    let site = site();
    let mut plan = site.enforce(one("/a"));
    plan.form = Form::Tables(None);
    site.arm("a", 1, &plan).unwrap();
    assert!(site.model.blocks(1, "/a"));
}

#[test]
fn a_set_that_fits_no_gap_gets_another_segment() {
    let site = site();
    let paths = |salt: usize| -> Vec<String> { (0..2500).map(|n| format!("/{salt}/{}", n * 7919 % 100_000)).collect() };
    let mut segments = std::collections::BTreeSet::new();
    for salt in 0..14 {
        let armed = site.arm(&format!("c{salt}"), salt as u64, &site.enforce(blocking(&paths(salt)))).unwrap();
        segments.insert(site.model.sets.borrow()[armed.set as usize].segment);
    }
    assert!(segments.len() > 1, "{segments:?}");
    assert!((0..14).all(|salt| site.model.blocks(salt as u64, &paths(salt)[77])));
    let ranges = slots::sets_in_use(&site.model).unwrap();
    assert_eq!(ranges.len(), 14);
}

#[test]
fn ids_that_are_no_file_names_are_refused() {
    let site = site();
    let plan = site.enforce(one("/a"));
    for id in ["", "../x", ".x", "a/b", "a\nb", &"x".repeat(300)] {
        assert!(matches!(site.arm(id, 1, &plan), Err(Error::Id { .. })), "{id:?}");
    }
    assert!(site.model.cgroups.borrow().is_empty());
}

#[test]
fn a_plan_follows_links_and_the_audited_annotation() {
    let site = site();
    let root = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("usr/bin", root.path().join("bin")).unwrap();
    let text = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata:\n  name: p\nspec:\n  selector:\n    \
                matchLabels:\n      app: x\n  process:\n    matchPaths:\n    - path: /bin/ls\n  action: Block\n";
    let policies: Vec<_> = parse(Path::new("p.yaml"), text, Options::default()).policies().cloned().collect();
    let mut facts = Site::facts("a");
    facts.labels.insert("app".into(), "x".into());
    let planned = |facts: &ContainerFacts| {
        let directory = std::fs::File::open(root.path()).unwrap();
        let container = Container { facts, root: Some(directory.as_fd()), no_new_privileges: false };
        let form = |set: &RuleSet, hash, _| Ok(Form::Tables(Some(tables(&site.state, set, hash, facts)?)));
        plan(&Config::default(), &policies, &container, form).unwrap()
    };
    let Plan::Enforce(enforce) = planned(&facts) else { panic!("it is selected") };
    let exec = |path: &'static [u8]| Operation::Exec { path: Some(path), unlinked: false };
    let Form::Tables(Some(compiled)) = &enforce.form else { panic!("it is compiled") };
    for path in [&b"/bin/ls"[..], b"/usr/bin/ls"] {
        assert_eq!(compiled.evaluate(None, false, &exec(path)).verdict, Verdict::Block);
    }
    facts.annotations.insert("kubearmor-policy".into(), "audited".into());
    assert!(matches!(planned(&facts), Plan::Enforce(enforce) if enforce.audited));
    facts.annotations.insert("kubearmor-policy".into(), "disabled".into());
    assert!(matches!(planned(&facts), Plan::Untouched { .. }));
    facts.annotations.clear();
    facts.labels.clear();
    assert!(matches!(planned(&facts), Plan::Untouched { policies, .. } if policies.is_empty()));
}
