//! Storms: eight containers do the same at once, one of them as fast as it can. Whatever becomes of the flood, each decision and each event
//! is told, counted as a repeat or counted as lost, to the unit, and what the quiet ones do is told and is not late.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::agent::ready;
use super::counted::{Counted, Passed, Read, read, read_until};
use super::odd;
use crate::bundle::Bundle;
use crate::guest::{self, COMMAND_LIMIT, Guest};
use crate::process::{Dialogue, Talk as _};
use crate::report::Report;
use crate::runtime::{Container, START_LIMIT};
use crate::{Failure, Result, image};

/// From SIGTERM to the agent's end.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Containers that are quiet.
const QUIET_ONES: usize = 7;
/// What each of them does, and the pause after each.
const FEW: u64 = 20;
const PAUSE_US: u64 = 25_000;
/// Until every alert of the quiet ones is read, on one processor that does the flood, the agent and the readers and takes a nanosecond
/// for an instruction.
const PROMISED: Duration = Duration::from_millis(100);
/// Until 99 of 100 of them are, in plain emulation on a machine that emulates two guests and does more besides.
const LATE: Duration = Duration::from_millis(1_000);

const POLICY: &str = "\
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata:
  name: denied
  namespace: default
spec:
  selector:
    matchLabels:
      app: stormy
  file:
    matchPaths:
      - path: /srv/secret
    matchPatterns:
      - pattern: /data/odd/*/f*
  process:
    matchPaths:
      - path: /srv/denied
  network:
    matchProtocols:
      - protocol: icmp
  action: Block
---
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata:
  name: told
  namespace: default
spec:
  selector:
    matchLabels:
      app: stormy
  file:
    matchPaths:
      - path: /srv/watched
  process:
    matchPaths:
      - path: /srv/told
  network:
    matchProtocols:
      - protocol: udp
  syscalls:
    matchSyscalls:
      - syscall:
          - umask
  action: Audit
";

/// What is done again and again, and what one of it comes to.
struct Storm {
    name: &'static str,
    /// As the probe is told: the operation, and its argument.
    flood: (&'static str, &'static str),
    quiet: (&'static str, &'static str),
    /// How often the flood does it where tests are kept short, 0 for not at all, and otherwise. What raises alerts faster than an emulated
    /// agent reads them must fit the kernel's ring, or some are lost, and counted.
    many: (u64, u64),
    /// What the flood waits after each.
    pause_us: u64,
    each: Each,
    /// Where these differ for the flood.
    each_of_flood: Each,
}

/// Decisions and events of one operation.
#[derive(Clone, Copy, Default)]
struct Each {
    blocked: u64,
    audited: u64,
    /// Births, executions and ends; executions among them.
    processes: u64,
    executions: u64,
    accesses: u64,
}

const NOTHING: Each = Each { blocked: 0, audited: 0, processes: 0, executions: 0, accesses: 0 };

/// One where the flood does what the others do.
const fn alike(name: &'static str, what: (&'static str, &'static str), many: (u64, u64), each: Each) -> Storm {
    Storm { name, flood: what, quiet: what, many, pause_us: 0, each, each_of_flood: each }
}

const STORMS: [Storm; 11] = [
    alike("block/open", ("open", "/srv/secret"), (4_000, 14_000), Each { blocked: 1, accesses: 1, ..NOTHING }),
    Storm {
        // No faster than an emulated agent and reader can go on for ever.
        pause_us: 2_000,
        ..alike("block/sustained", ("open", "/srv/secret"), (0, 10_000), Each { blocked: 1, accesses: 1, ..NOTHING })
    },
    alike("block/exec", ("exec", "/srv/denied"), (150, 2_000), Each { blocked: 1, processes: 2, ..NOTHING }),
    alike("block/socket", ("socket", "1"), (800, 14_000), Each { blocked: 1, accesses: 1, ..NOTHING }),
    alike("audit/open", ("open", "/srv/watched"), (800, 14_000), Each { audited: 1, accesses: 1, ..NOTHING }),
    alike("audit/exec", ("exec", "/srv/told"), (100, 1_000), Each { audited: 1, processes: 3, executions: 1, ..NOTHING }),
    Storm {
        // A socket, and its connection; each connection of the flood goes to another port.
        flood: ("connect", "10000"),
        ..alike("audit/connect", ("same", "9"), (500, 5_000), Each { audited: 2, accesses: 2, ..NOTHING })
    },
    alike("audit/call", ("call", "-"), (5_000, 200_000), Each { audited: 1, ..NOTHING }),
    Storm {
        // To make a file is an access, and to open it for writing another.
        flood: ("create", "/data/"),
        each_of_flood: Each { accesses: 2, ..NOTHING },
        ..alike("passed/open", ("open", "/etc/hosts"), (500, 5_000), Each { accesses: 1, ..NOTHING })
    },
    alike("passed/exec", ("exec", "/srv/tiny"), (0, 1_000), Each { processes: 3, executions: 1, ..NOTHING }),
    alike("passed/capability", ("chroot", "/"), (3_000, 100_000), Each { accesses: 1, ..NOTHING }),
];

/// The containers, whom the agent and its reader look at.
pub(super) struct Arena {
    pub reader: Dialogue,
    pub flood: Container,
    pub quiet: Vec<(String, Container)>,
}

/// Whether these alone were asked for.
pub(super) fn are_meant(guest: &Guest) -> bool {
    guest.only.as_ref().is_some_and(|only| only.starts_with("monitor/storm"))
}

/// Runs this part of the suite. Nobody else may read the kernel's rings.
pub(super) fn run(guest: &Guest, report: &mut Report) -> Result<()> {
    let begun = Instant::now();
    guest.set_policies(&[("stormy", POLICY)])?;
    let root = guest.work.join("monitor/storms-root");
    image::make(&root)?;
    image::add_programs(guest, &root)?;
    for name in ["secret", "watched"] {
        guest::write(&root.join("srv").join(name), b"x\n")?;
    }
    for name in ["denied", "told", "tiny"] {
        guest::copy(&guest.tiny, &root.join("srv").join(name))?;
    }
    let mut guest = guest.clone();
    let all = "visibility: [process, file, network, capabilities]";
    guest.settings.push_str(&format!("nri:\n  enabled: false\nmonitor:\n  enabled: true\n  {all}\n"));
    guest.configure("enforce", "audit")?;
    let mut agent = Dialogue::start(guest.command().arg("agent"))?;
    report.run("monitor/storm/ready", || ready(&guest, &mut agent));
    match Arena::make(&guest, &root) {
        Ok(mut arena) => {
            for storm in &STORMS {
                let name = format!("monitor/storm/{}", storm.name);
                let many = if guest.ci { storm.many.0 } else { storm.many.1 };
                if guest.wants(&name) && many > 0 {
                    report.run(&name, || storm.run(&guest, &mut arena, many));
                }
            }
            odd::run(&guest, report, &root, &mut arena, &mut agent)?;
        }
        Err(error) => report.fail("monitor/storm", error),
    }
    println!("# storms and odd inputs: {} s", begun.elapsed().as_secs());
    agent.signal(Signal::TERM);
    let code = agent.close(STOP_LIMIT);
    report.check("monitor/storm/stop", if code == Some(0) { Ok(()) } else { Err(format!("{code:?}: {}", agent.errors())) });
    Ok(())
}

/// A container that the policies are for.
pub(super) fn bundle(id: &str, root: &Path, arguments: &[&str]) -> Bundle {
    let mut bundle = Bundle::new(id, root, arguments);
    bundle.facts.labels.insert("app".to_owned(), "stormy".to_owned());
    bundle
}

impl Arena {
    fn make(guest: &Guest, root: &Path) -> Result<Arena> {
        let start = |id: &str, number: usize| -> Result<Container> {
            let runtime = guest.runtimes.get(number % guest.runtimes.len().max(1)).copied();
            let Some(runtime) = runtime else {
                return Err(Failure::Answer { what: "the search for crun and runc".to_owned(), text: String::new() });
            };
            let mut container = runtime.start(guest, &bundle(id, root, &["/probe", "--storm"]))?;
            container.line(START_LIMIT)?;
            Ok(container)
        };
        let flood = start("flood", 0)?;
        let mut quiet = Vec::new();
        for number in 0..QUIET_ONES {
            let id = format!("quiet-{number}");
            let container = start(&id, number)?;
            quiet.push((id, container));
        }
        let mut reader = Dialogue::start(guest.command().args(["events", "--class", "all"]))?;
        read(&mut reader)?;
        Ok(Arena { reader, flood, quiet })
    }

    /// All containers begin at once.
    pub(super) fn begin(&mut self, flood: &str, quiet: &str) -> Result<()> {
        for (_, container) in &mut self.quiet {
            container.tell(quiet)?;
        }
        self.flood.tell(flood)
    }

    /// What the flood and the others did, when all have ended.
    pub(super) fn end(&mut self) -> Result<(Done, Vec<Done>)> {
        let flood = Done::of(&mut self.flood)?;
        let quiet = self.quiet.iter_mut().map(|(_, container)| Done::of(container)).collect::<Result<_>>()?;
        Ok((flood, quiet))
    }
}

/// What a container did.
#[derive(Debug, Clone, Copy)]
pub(super) struct Done {
    pub all: u64,
    pub took: Duration,
}

impl Done {
    fn of(container: &mut Container) -> Result<Done> {
        let text = container.line(COMMAND_LIMIT)?;
        let json: Value = serde_json::from_str(&text).unwrap_or_default();
        match (json["done"].as_u64(), json["denied"].as_u64(), json["ns"].as_u64()) {
            (Some(done), Some(denied), Some(ns)) if json["errno"] == 0 => {
                Ok(Done { all: done + denied, took: Duration::from_nanos(ns) })
            }
            _ => Err(Failure::Answer { what: "a storm".to_owned(), text }),
        }
    }
}

/// The line that tells the probe what to do.
pub(super) fn order((op, argument): (&str, &str), count: u64, pause_us: u64) -> String {
    format!("{op}\t{count}\t{pause_us}\t{argument}")
}

impl Storm {
    fn run(&self, guest: &Guest, arena: &mut Arena, many: u64) -> Result<std::result::Result<(), String>> {
        let (before, counted) = (Passed::now(guest)?, Counted::now()?);
        arena.begin(&order(self.flood, many, self.pause_us), &order(self.quiet, FEW, PAUSE_US))?;
        let (flood, quiet) = arena.end()?;
        let counted = Counted::now()?.since(counted);
        let lines = read_until(&mut arena.reader, |lines| Passed::is_read(guest, before, lines))?;
        let passed = Passed::now(guest)?.since(before);
        let sum = |of: fn(&Each) -> u64| many * of(&self.each_of_flood) + QUIET_ONES as u64 * FEW * of(&self.each);
        let expected = Each {
            blocked: sum(|each| each.blocked),
            audited: sum(|each| each.audited),
            processes: sum(|each| each.processes),
            executions: sum(|each| each.executions),
            accesses: sum(|each| each.accesses),
        };
        let done = flood.all == many && quiet.iter().all(|done| done.all == FEW);
        println!("# {}: {:.0} a second; {counted:?}; {passed:?}", self.name, many as f64 / flood.took.as_secs_f64());
        let mut wrong = sums(&expected, &counted, &passed, &lines);
        wrong.extend(misnamed(&lines));
        wrong.extend(delays(guest, self.name, &lines, arena));
        if !done {
            wrong.push(format!("not all was done: {flood:?}, {quiet:?}"));
        }
        wrong.extend(self.of_quiet(&lines, arena));
        Ok(if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) })
    }

    /// What is missing of the alerts of those who were quiet.
    fn of_quiet(&self, lines: &[Read], arena: &Arena) -> Option<String> {
        // A call that is repeated is counted, and its count told with the next, if there is one.
        let wanted = if self.quiet.0 == "call" { 1 } else { FEW * (self.each.blocked + self.each.audited) };
        let told = |id: &str| lines.iter().filter(|read| read.is_alert() && read.is_of(id)).count() as u64;
        let told: Vec<u64> = arena.quiet.iter().map(|(id, _)| told(id)).collect();
        let is_told = told.iter().all(|&told| told == wanted || self.quiet.0 == "call" && told >= wanted);
        (!is_told).then(|| format!("of each quiet container {wanted} alerts were to be read, and were: {told:?}"))
    }
}

/// Each event has an id of its own.
fn misnamed(lines: &[Read]) -> Option<String> {
    let events = lines.iter().filter(|read| read.is_alert() || read.is_execution() || read.is_access());
    let ids: Vec<Option<&str>> = events.map(|read| read.line["id"].as_str()).collect();
    let different: HashSet<&str> = ids.iter().copied().flatten().collect();
    (different.len() != ids.len()).then(|| format!("{} events have {} ids", ids.len(), different.len()))
}

/// How long alerts took from when they were raised until they were read; what is wrong with that.
fn delays(guest: &Guest, name: &str, lines: &[Read], arena: &Arena) -> Option<String> {
    let of = |is_it: &dyn Fn(&Read) -> bool| {
        let mut took: Vec<Duration> = lines.iter().filter(|read| read.is_alert() && is_it(read)).filter_map(Read::took).collect();
        took.sort_unstable();
        took
    };
    let quiet = of(&|read| arena.quiet.iter().any(|(id, _)| read.is_of(id)));
    let flood = of(&|read| read.is_of("flood"));
    let at = |took: &[Duration], percent: usize| took.get(took.len().saturating_sub(1) * percent / 100).copied();
    let (Some(late), Some(latest), Some(of_flood)) = (at(&quiet, 99), quiet.last().copied(), at(&flood, 50)) else { return None };
    println!(
        "# {name}: {} alerts of the quiet ones took p50 {:.1?}, p99 {late:.1?}, at most {latest:.1?}; {} of the flood p50 {of_flood:.1?}",
        quiet.len(),
        at(&quiet, 50).unwrap_or_default(),
        flood.len()
    );
    if guest.counted_time {
        return (latest > PROMISED).then(|| format!("an alert of a quiet one was read {latest:?} after it was raised"));
    }
    // On a machine that is busy with other things both are late.
    (late > LATE && 2 * late > of_flood)
        .then(|| format!("of the alerts of the quiet ones one in a hundred was read {late:?} after it was raised"))
}

/// Each sum that does not come out.
fn sums(expected: &Each, counted: &Counted, passed: &Passed, lines: &[Read]) -> Vec<String> {
    let number = |is_it: fn(&Read) -> bool| lines.iter().filter(|read| is_it(read)).count() as u64;
    let lost = |class: &str| lines.iter().map(|read| read.lost(class)).sum::<u64>();
    let visible = counted.accesses + counted.accesses_aggregated;
    let is_all = |told: u64, missed: u64, done: u64| told <= done && told + missed >= done;
    let sums = [
        ("denied", counted.blocked + counted.busy == expected.blocked),
        ("audited", is_all(counted.audited, counted.calls_missed, expected.audited)),
        ("decisions = raised + repeated", counted.blocked + counted.audited == counted.alerts + counted.aggregated),
        ("raised = come to the agent + lost", counted.alerts == passed.alerts + counted.alerts_lost),
        ("come to the agent = read + unread", passed.alerts == number(Read::is_alert) + lost("alert")),
        ("no alert lost, nor denied without one", counted.alerts_lost + counted.busy == 0),
        ("alerts unread = told to be lost", passed.alerts_unread == lost("alert")),
        ("processes", is_all(counted.processes, counted.missed, expected.processes)),
        (
            "executions = come to the agent, but for those lost",
            is_all(passed.executions, counted.processes_lost + counted.missed, expected.executions),
        ),
        ("executions = read + unread", passed.executions == number(Read::is_execution) + lost("process")),
        ("accesses = raised + repeated", is_all(visible, counted.missed, expected.accesses)),
        ("accesses raised = come to the agent + lost", counted.accesses == passed.accesses + counted.accesses_lost),
        (
            "accesses come to the agent = read, but for those unread",
            is_all(number(Read::is_access), passed.accesses_unread, passed.accesses),
        ),
        ("accesses unread = told to be lost", passed.accesses_unread == lost("access")),
    ];
    sums.into_iter().filter(|(_, holds)| !holds).map(|(what, _)| format!("does not hold: {what}")).collect()
}
