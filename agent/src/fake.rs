//! A node that does what a test says, and remembers what it was asked; and alerts that no kernel has raised.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use portcullis_ebpf::monitor::{AccessEvent, ProcessEvent, Repeat, abi as monitor};
use portcullis_ebpf::{Event, abi};
use portcullis_enforcer::place::Place;
use portcullis_enforcer::{Door, Expected, FailPolicy, Known, Missing, Policies, PolicyDir, Refreshed, Started};
use portcullis_nri_plugin::Failure;
use portcullis_policy::meaning::{Action, Class, Origin, Postures, Rule, RuleSet};
use portcullis_policy::select::applies;
use portcullis_policy::{Backend, ContainerFacts};

use crate::alerts::clock::Moment;
use crate::alerts::line::Container;
use crate::alerts::{Alert, ProcessFacts};
use crate::kubearmor::Host;
use crate::logs::{Log, Named};
use crate::node::Node;
use crate::processes::Processes;

/// A denied reading of `path`, which no rule is behind.
pub(crate) fn event(number: u64, path: &[u8]) -> Event {
    let mut header = abi::Event { seq: number, verdict: abi::BLOCK, op: abi::op::READ, ..abi::Event::default() };
    header.comm[..3].copy_from_slice(b"cat");
    Event { header, path: path.to_vec(), lost_before: 0 }
}

/// The alert of such a reading in a container, numbered in its sequence.
pub(crate) fn alert(number: u64, path: &[u8], container: &str) -> Alert {
    alert_of(&event(number, path), named(container), &RuleSet::default())
}

/// A container by its id.
pub(crate) fn named(id: &str) -> Container {
    Container { id: id.to_owned(), name: format!("name-of-{id}"), ..Container::default() }
}

/// The alert of an event.
pub(crate) fn alert_of(event: &Event, container: Container, rules: &RuleSet) -> Alert {
    Alert::new(
        event.clone(),
        (moment(event.header.time_ns), Backend::Bpf),
        Some((Arc::new(container), rules)),
        None,
        Arc::new(Host::default()),
    )
}

/// The beginning of time, a millisecond before it is told.
fn moment(raised_ns: u64) -> Moment {
    Moment { time: SystemTime::UNIX_EPOCH, raised_ns, latency: Duration::from_millis(1) }
}

/// The alert of a container.
pub(crate) fn alert_in(number: u64, container: Container) -> Alert {
    alert_of(&event(number, b"/etc/shadow"), container, &RuleSet::default())
}

/// A denial by the rule of a policy in a line of its file.
pub(crate) fn alert_by(policy: &str, line: u32) -> Alert {
    let rule = Rule {
        origin: Origin {
            kind: "KubeArmorPolicy".into(),
            namespace: "default".into(),
            policy: policy.into(),
            file: Arc::new("/p.yaml".into()),
            line,
            column: 1,
            field: "spec.file.matchPaths[0]".to_owned(),
        },
        class: Class::File,
        objects: Vec::new(),
        sources: Vec::new(),
        read_only: false,
        owner_only: false,
        action: Action::Block,
        severity: 0,
        tags: Vec::new(),
        message: String::new(),
    };
    alert_of(&event(1, b"/etc/shadow"), named("aaaa"), &RuleSet { rules: vec![Arc::new(rule)], postures: Postures::default() })
}

/// That process 7, in a container by its pid namespace, executes `cat /etc/shadow`.
pub(crate) fn exec() -> ProcessEvent {
    let mut header = monitor::Process {
        kind: monitor::EXEC,
        seq: 5,
        time_ns: 2_000,
        started_ns: 1_000,
        parent_started_ns: 500,
        cgroup: 99,
        slot: monitor::NO_SLOT,
        tgid: 7,
        tid: 7,
        parent: 6,
        ns_pid: 2,
        ns_parent: 1,
        pid_ns: 77,
        uid: 33,
        ..monitor::Process::default()
    };
    header.comm[..3].copy_from_slice(b"cat");
    let (exe, cwd, args) = (b"/bin/cat".to_vec(), b"/".to_vec(), b"cat\0/etc/shadow\0".to_vec());
    ProcessEvent { header, exe, cwd, args, lost_before: 0 }
}

/// The event that a container does so; nobody knows which if none is named.
pub(crate) fn executed(container: Option<Container>) -> Log {
    executed_with(container, |_| {})
}

/// The same, a little different.
pub(crate) fn executed_with(container: Option<Container>, change: impl FnOnce(&mut ProcessEvent)) -> Log {
    let mut event = exec();
    change(&mut event);
    let (header, lost_before) = (event.header, event.lost_before);
    let mut table = Processes::default();
    table.apply(event);
    let process = table.get(header.tgid, header.time_ns).map(|view| table.facts(view, header.time_ns));
    assert!(process.is_some(), "its own event tells it");
    Log::executed(&header, lost_before, named_as(header.time_ns, container, process))
}

fn named_as(raised_ns: u64, container: Option<Container>, process: Option<ProcessFacts>) -> Named {
    Named { moment: moment(raised_ns), container: container.map(Arc::new), process, host: Arc::new(Host::default()) }
}

/// An access of the process of [`exec`], a little later.
pub(crate) fn access(op: u32, path: &[u8]) -> AccessEvent {
    let process = exec().header;
    let header = monitor::Access {
        op,
        seq: 9,
        time_ns: 2_100,
        started_ns: process.started_ns,
        cgroup: process.cgroup,
        slot: process.slot,
        tgid: process.tgid,
        tid: process.tid,
        uid: process.uid,
        pid_ns: process.pid_ns,
        comm: process.comm,
        ..monitor::Access::default()
    };
    AccessEvent { header, path: path.to_vec(), second: Vec::new(), address: Vec::new(), lost_before: 0 }
}

/// So many repeats of such an access, by its number.
pub(crate) fn repeat(seq: u64, repeats: u64) -> Repeat {
    let process = exec().header;
    let what = monitor::Repeat {
        started_ns: process.started_ns,
        tgid: process.tgid,
        op: u16::try_from(abi::op::READ).unwrap(),
        result: 0,
        arg: [0; 3],
        object_len: 0,
        object: [0; monitor::OBJECT_MAX as usize],
    };
    Repeat { what, told: (0, seq), told_ns: 2_100, repeats }
}

/// What an access of that process is told as.
pub(crate) fn accessed(container: Option<Container>, event: &AccessEvent) -> Log {
    Log::accessed(Arc::new(event.clone()), named_as(event.header.time_ns, container, Some(facts())))
}

/// That it was repeated.
pub(crate) fn repeated(container: Option<Container>, event: &AccessEvent) -> Log {
    Log::repeated(Arc::new(event.clone()), named_as(event.header.time_ns, container, Some(facts())))
}

fn facts() -> ProcessFacts {
    let mut table = Processes::default();
    table.apply(exec());
    table.get(7, 2_100).map(|view| table.facts(view, 2_100)).unwrap()
}

pub(crate) struct FakeNode {
    policies: PolicyDir,
    state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) read: Arc<Policies>,
    pub(crate) reloads: usize,
    pub(crate) unreadable: Option<String>,
    pub(crate) known: BTreeMap<String, Known>,
    /// Containers whose refresh or adoption fails, with the sentence.
    pub(crate) failing: BTreeMap<String, String>,
    /// Containers that have tasks left.
    pub(crate) populated: BTreeSet<String>,
    pub(crate) refreshed: Vec<String>,
    pub(crate) adopted: Vec<(String, u32)>,
    pub(crate) forgotten: Vec<String>,
    pub(crate) sweeps: usize,
    pub(crate) delay: Duration,
}

impl FakeNode {
    pub(crate) fn new(policy_dir: impl Into<PathBuf>) -> Arc<FakeNode> {
        Arc::new(FakeNode { policies: PolicyDir::new(&policy_dir.into(), None), state: Mutex::default() })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Lets a container in, as a door does.
    pub(crate) fn let_in(&self, id: &str, door: Door, pid: Option<u32>) {
        self.state().known.insert(id.to_owned(), known(id, door, pid));
    }

    pub(crate) fn eventually(&self, what: &str, is_so: impl Fn(&State) -> bool) {
        let since = Instant::now();
        while !is_so(&self.state()) {
            assert!(since.elapsed() < Duration::from_secs(10), "never: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn bring(&self, id: &str) -> Result<Refreshed, Failure> {
        let delay = self.state().delay;
        std::thread::sleep(delay);
        match self.state().failing.get(id) {
            Some(sentence) => Err(sentence.clone().into()),
            None => Ok(Refreshed::Unchanged),
        }
    }
}

pub(crate) fn known(id: &str, door: Door, pid: Option<u32>) -> Known {
    let facts = ContainerFacts {
        id: id.to_owned(),
        name: format!("name-of-{id}"),
        labels: [("app".to_owned(), "web".to_owned())].into(),
        ..ContainerFacts::default()
    };
    let place =
        pid.map(|pid| Place { pid, started: 1, cgroup_id: 1, cgroup_path: PathBuf::from("/c"), runtime_mntns: 1, root: (1, 1) });
    Known { facts, missing: Missing::default(), door, place }
}

pub(crate) fn policy(name: &str) -> String {
    format!(
        "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata:\n  name: {name}\nspec:\n  selector:\n    \
         matchLabels:\n      app: web\n  file:\n    matchPaths:\n    - path: /etc/shadow\n  action: Block\n"
    )
}

impl Node for FakeNode {
    fn fail_policy(&self) -> FailPolicy {
        FailPolicy::Enforce
    }

    fn expect(&self, facts: &ContainerFacts) -> Result<Expected, Failure> {
        let mut state = self.state();
        let known = Known { facts: facts.clone(), ..known(&facts.id, Door::Nri, None) };
        state.known.insert(facts.id.clone(), known);
        let selected = state.read.policies.iter().any(|policy| applies(policy, facts).is_ok());
        Ok(if selected { Expected::Enforce } else { Expected::Nothing })
    }

    fn start(&self, facts: &ContainerFacts, pid: u32) -> Result<Started, Failure> {
        self.let_in(&facts.id, Door::Nri, Some(pid));
        Ok(Started::Armed)
    }

    fn record_unprotected(&self, _id: &str, _name: &str, _reason: &str) -> Result<(), Failure> {
        Ok(())
    }

    fn policies(&self) -> Result<Arc<Policies>, Failure> {
        Ok(Arc::clone(&self.state().read))
    }

    fn reload(&self) -> Result<Arc<Policies>, Failure> {
        let mut state = self.state();
        state.reloads += 1;
        if let Some(sentence) = &state.unreadable {
            return Err(sentence.clone().into());
        }
        state.read = Arc::new(self.policies.read()?);
        Ok(Arc::clone(&state.read))
    }

    fn known(&self) -> Result<Vec<Known>, Failure> {
        Ok(self.state().known.values().cloned().collect())
    }

    fn count_known(&self) -> Result<usize, Failure> {
        Ok(self.state().known.len())
    }

    fn label(&self, _id: &str) -> Result<Option<(u32, u32)>, Failure> {
        Ok(None)
    }

    fn refresh(&self, id: &str) -> Result<Refreshed, Failure> {
        self.state().refreshed.push(id.to_owned());
        self.bring(id)
    }

    fn adopt(&self, facts: &ContainerFacts, pid: u32) -> Result<Refreshed, Failure> {
        self.state().adopted.push((facts.id.clone(), pid));
        self.bring(&facts.id)?;
        self.let_in(&facts.id, Door::Nri, Some(pid));
        Ok(Refreshed::Adopted)
    }

    fn gone(&self, id: &str) -> Result<bool, Failure> {
        let mut state = self.state();
        if state.populated.contains(id) {
            return Ok(false);
        }
        state.known.remove(id);
        state.forgotten.push(id.to_owned());
        Ok(true)
    }

    fn sweep(&self) -> Result<Vec<String>, Failure> {
        self.state().sweeps += 1;
        Ok(Vec::new())
    }
}
