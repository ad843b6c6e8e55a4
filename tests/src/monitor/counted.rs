//! What the kernel and the agent have counted, and what lines say of it: the sums that have to come out to the unit.

use std::time::{Duration, Instant, SystemTime};

use portcullis_ebpf::Kernel;
use portcullis_ebpf::monitor::Monitor;
use serde_json::Value;

use super::agent::status;
use super::unusable;
use crate::guest::Guest;
use crate::process::Dialogue;
use crate::{Failure, Result};

/// Lines of what is over are there within this, under emulation too.
const QUIET: Duration = Duration::from_millis(1000);
/// How long it is read on where something is missing.
const PATIENCE: Duration = Duration::from_secs(60);
/// A storm is told within this.
const STORM_LIMIT: Duration = Duration::from_secs(300);

/// Counters of the kernel's programs. Reading them starts no process, which would be counted itself.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counted {
    /// Alerts: raised, and those of them that found no room.
    pub alerts: u64,
    pub alerts_lost: u64,
    /// Decisions: denied, let through with an alert, and those of them that were only counted.
    pub blocked: u64,
    pub audited: u64,
    pub aggregated: u64,
    /// Denied because there was no working memory: these raise no alert.
    pub busy: u64,
    /// Calls that the kernel skipped the look at.
    pub calls_missed: u64,
    /// Events of processes, and those of them that found no room.
    pub processes: u64,
    pub processes_lost: u64,
    /// Accesses: raised, those of them that found no room, and those that were only counted.
    pub accesses: u64,
    pub accesses_lost: u64,
    pub accesses_aggregated: u64,
    /// Events that the kernel skipped the program for.
    pub missed: u64,
}

impl Counted {
    /// As it is now.
    pub(super) fn now() -> Result<Counted> {
        let kernel = Kernel::open().map_err(unusable)?;
        let decided = kernel.counts().map_err(unusable)?;
        let told = Monitor::open().and_then(|monitor| monitor.counts()).map_err(unusable)?;
        Ok(Counted {
            alerts: decided.seq,
            alerts_lost: decided.lost,
            blocked: decided.blocked,
            audited: decided.audited,
            aggregated: decided.repeated,
            busy: decided.busy,
            calls_missed: kernel.programs().map_err(unusable)?.iter().map(|program| program.missed).sum(),
            processes: told.events,
            processes_lost: told.lost,
            accesses: told.accesses,
            accesses_lost: told.accesses_lost,
            accesses_aggregated: told.accesses_aggregated,
            missed: told.missed,
        })
    }

    /// What came since then.
    pub(super) fn since(self, before: Counted) -> Counted {
        Counted {
            alerts: self.alerts - before.alerts,
            alerts_lost: self.alerts_lost - before.alerts_lost,
            blocked: self.blocked - before.blocked,
            audited: self.audited - before.audited,
            aggregated: self.aggregated - before.aggregated,
            busy: self.busy - before.busy,
            calls_missed: self.calls_missed - before.calls_missed,
            processes: self.processes - before.processes,
            processes_lost: self.processes_lost - before.processes_lost,
            accesses: self.accesses - before.accesses,
            accesses_lost: self.accesses_lost - before.accesses_lost,
            accesses_aggregated: self.accesses_aggregated - before.accesses_aggregated,
            missed: self.missed - before.missed,
        }
    }
}

/// What the agent has counted: what came to it of each kind, and what readers did not get.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Passed {
    pub alerts: u64,
    pub alerts_unread: u64,
    pub executions: u64,
    pub executions_unread: u64,
    pub accesses: u64,
    pub accesses_unread: u64,
}

impl Passed {
    /// As it is now.
    pub(super) fn now(guest: &Guest) -> Result<Passed> {
        let agent = status(guest)?["agent"].clone();
        let number = |pointer: &str| {
            agent.pointer(pointer).and_then(Value::as_u64).ok_or_else(|| Failure::Answer {
                what: format!("portcullis status, asked for {pointer},"),
                text: agent.to_string(),
            })
        };
        let mut accesses = 0;
        for class in ["file", "network", "capability"] {
            accesses += number(&format!("/accesses/{class}/passed"))? + number(&format!("/accesses/{class}/denied"))?;
        }
        Ok(Passed {
            alerts: number("/alerts/alerts")?,
            alerts_unread: number("/alerts/lost")?,
            executions: number("/logs/logs")?,
            executions_unread: number("/logs/lost")?,
            accesses,
            accesses_unread: number("/accesses/unread")?,
        })
    }

    /// Whether lines have all that came since then, as far as it was not lost on the way to their reader.
    pub(super) fn is_read(guest: &Guest, before: Passed, lines: &[Read]) -> Result<bool> {
        let now = Passed::now(guest)?.since(before);
        let read = |is_it: fn(&Read) -> bool| lines.iter().filter(|read| is_it(read)).count() as u64;
        // Among the accesses that were lost may be lines about repeats, which are none of those that came.
        Ok(now.alerts <= read(Read::is_alert) + now.alerts_unread
            && now.executions <= read(Read::is_execution) + now.executions_unread
            && now.accesses <= read(Read::is_access) + now.accesses_unread)
    }

    /// What came since then.
    pub(super) fn since(self, before: Passed) -> Passed {
        Passed {
            alerts: self.alerts - before.alerts,
            alerts_unread: self.alerts_unread - before.alerts_unread,
            executions: self.executions - before.executions,
            executions_unread: self.executions_unread - before.executions_unread,
            accesses: self.accesses - before.accesses,
            accesses_unread: self.accesses_unread - before.accesses_unread,
        }
    }
}

/// A line of a reader, and when it was read.
#[derive(Debug)]
pub(super) struct Read {
    pub at: SystemTime,
    pub line: Value,
}

impl Read {
    pub(super) fn is_alert(&self) -> bool {
        self.line["schema"] == "portcullis.alert/1"
    }

    pub(super) fn is_execution(&self) -> bool {
        self.line["schema"] == "portcullis.process/1"
    }

    /// An access itself, and not the repeats of one.
    pub(super) fn is_access(&self) -> bool {
        self.line["schema"] == "portcullis.access/1" && self.line["repeatsOf"].is_null()
    }

    pub(super) fn is_of(&self, container: &str) -> bool {
        self.line["container"]["name"] == container
    }

    /// Events of this class that the reader was told to have lost.
    pub(super) fn lost(&self, class: &str) -> u64 {
        let is_it = self.line["schema"] == "portcullis.lost/1" && self.line["class"] == class;
        if is_it { self.line["lost"].as_u64().unwrap_or_default() } else { 0 }
    }

    /// From when it was raised, as it says, until it was read.
    pub(super) fn took(&self) -> Option<Duration> {
        let raised = humantime::parse_rfc3339(self.line["time"].as_str()?).ok()?;
        self.at.duration_since(raised).ok()
    }
}

/// What a reader is told until nothing has come for a while. A line that is no JSON is a failure.
pub(super) fn read(reader: &mut Dialogue) -> Result<Vec<Read>> {
    let (mut raw, since) = (Vec::new(), Instant::now());
    loop {
        match reader.stamped_line(QUIET) {
            Ok(line) => raw.push(line),
            Err(Failure::Timeout { .. }) => break,
            // It may have ended, with its agent.
            Err(Failure::Command { .. }) => break,
            Err(error) => return Err(error),
        }
        if since.elapsed() > STORM_LIMIT {
            return Err(Failure::Timeout { what: "the end of what a reader is told".to_owned(), limit: STORM_LIMIT });
        }
    }
    // Only now: the reader must not wait for it.
    let parse = |(at, text): (SystemTime, String)| match serde_json::from_str(&text) {
        Ok(line) => Ok(Read { at, line }),
        Err(_) => Err(Failure::Answer { what: "portcullis events".to_owned(), text }),
    };
    raw.into_iter().map(parse).collect()
}

/// The same until it is enough, or has not become so for long: on a busy machine a reader may be silent with more to come.
pub(super) fn read_until(reader: &mut Dialogue, is_enough: impl Fn(&[Read]) -> Result<bool>) -> Result<Vec<Read>> {
    let (mut all, since) = (read(reader)?, Instant::now());
    while !is_enough(&all)? && since.elapsed() < PATIENCE {
        all.extend(read(reader)?);
    }
    Ok(all)
}

/// The same of a reader whose agent has ended, to its own end.
pub(super) fn read_to_the_end(reader: &mut Dialogue) -> Result<Vec<Read>> {
    let mut all = Vec::new();
    loop {
        match read(reader) {
            Ok(lines) if lines.is_empty() && !reader.running() => return Ok(all),
            Ok(lines) => all.extend(lines),
            Err(error) => return Err(error),
        }
    }
}
