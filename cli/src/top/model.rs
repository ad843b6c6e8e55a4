//! What is shown: the last two samples, and the events since the start. Everything that grows has a limit.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use portcullis_agent::alerts::Verdict;
use portcullis_agent::control::{AgentStatus, EventClass, Tree};
use portcullis_ebpf::abi::Stats;

/// Most events that can be scrolled back to.
pub(super) const MAX_EVENTS: usize = 2000;
/// Longest text of an event that is kept, in bytes: more than any screen shows.
pub(super) const MAX_EVENT_BYTES: usize = 2048;
/// Most processes whose verdicts are counted. When there are more, those go that no tree has.
pub(super) const MAX_MARKED: usize = 8192;

/// How things are at a moment.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) agent: AgentStatus,
    /// What the kernel counts, or why that can't be read.
    pub(super) kernel: Result<Stats, String>,
    pub(super) containers: Vec<Container>,
    /// Containers that are not among them: there are too many.
    pub(super) left_out: usize,
}

/// A container.
#[derive(Debug, Clone, Default)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) name: String,
    /// `armed`, `audited`, …
    pub(super) state: String,
    /// Whether nobody has to look at it.
    pub(super) is_well: bool,
    /// What its policies say of each class.
    pub(super) coverage: Vec<(&'static str, String)>,
    /// Its processes, or why they are not known.
    pub(super) tree: Option<Result<Tree, String>>,
}

/// How often something was denied and audited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Verdicts {
    pub(super) block: u64,
    pub(super) audit: u64,
}

/// An event, or what is missing in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// Nothing of what is no alert.
    pub(super) verdict: Option<Verdict>,
    /// Who did it, by number and container.
    pub(super) pid: u32,
    pub(super) container: String,
    /// Fit for a terminal.
    pub(super) text: String,
}

/// What changes per second between two samples.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) alerts: f64,
    pub(super) logs: f64,
    /// As the kernel counts them.
    pub(super) verdicts: Option<(f64, f64)>,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) sample: Option<Sample>,
    pub(super) rates: Option<Rates>,
    /// Why the agent can't be asked now; the sample is an old one then.
    pub(super) trouble: Option<String>,
    /// Events that did not get here, of those that were to be shown or counted.
    pub(super) missed: u64,
    pub(super) events: Events,
    processes: HashMap<u32, Verdicts>,
    containers: HashMap<String, Verdicts>,
}

impl Model {
    pub(super) fn sampled(&mut self, sample: Sample) {
        self.rates = self.sample.as_ref().and_then(|before| rates(before, &sample));
        self.sample = Some(sample);
        self.trouble = None;
    }

    /// Counts an event's verdict.
    pub(super) fn count(&mut self, event: &Event) {
        let Some(verdict) = event.verdict else { return };
        if self.processes.len() >= MAX_MARKED && !self.processes.contains_key(&event.pid) {
            self.forget();
        }
        let of_process = self.processes.entry(event.pid).or_default();
        let of_container = self.containers.entry(event.container.clone()).or_default();
        for counts in [of_process, of_container] {
            match verdict {
                Verdict::Block => counts.block += 1,
                Verdict::Audit => counts.audit += 1,
                // Of accesses: what a policy denied is an alert, too.
                Verdict::Passed | Verdict::Denied => {}
            }
        }
    }

    pub(super) fn missed(&mut self, class: EventClass, lost: u64) {
        self.missed += lost;
        let what = if class == EventClass::Alert { "alerts" } else { "events that are no alerts" };
        let text = format!("{lost} {what} are missing here: they came faster than they were read");
        self.events.push(Event { verdict: None, pid: 0, container: String::new(), text });
    }

    pub(super) fn of_process(&self, pid: u32) -> Verdicts {
        self.processes.get(&pid).copied().unwrap_or_default()
    }

    pub(super) fn of_container(&self, id: &str) -> Verdicts {
        self.containers.get(id).copied().unwrap_or_default()
    }

    /// Drops the counts of those who are not there any more.
    fn forget(&mut self) {
        let containers = self.sample.iter().flat_map(|sample| &sample.containers);
        let trees = containers.clone().filter_map(|container| container.tree.as_ref()?.as_ref().ok());
        let alive: std::collections::HashSet<u32> = trees.flat_map(|tree| &tree.processes).map(|process| process.pid).collect();
        let there: std::collections::HashSet<&str> = containers.map(|container| container.id.as_str()).collect();
        self.processes.retain(|pid, _| alive.contains(pid));
        self.containers.retain(|id, _| there.contains(id.as_str()));
        if self.processes.len() >= MAX_MARKED {
            self.processes.clear();
        }
    }
}

fn rates(before: &Sample, now: &Sample) -> Option<Rates> {
    let seconds = now.at.checked_duration_since(before.at)?.as_secs_f64();
    // Another agent counts from zero.
    if seconds <= 0.0 || now.agent.pid != before.agent.pid {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "events between two samples are fewer than 2^52")]
    let rate = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds;
    let verdicts = match (&before.kernel, &now.kernel) {
        (Ok(before), Ok(now)) => Some((rate(before.blocked, now.blocked), rate(before.audited, now.audited))),
        _ => None,
    };
    Some(Rates {
        alerts: rate(before.agent.alerts.alerts, now.agent.alerts.alerts),
        logs: rate(before.agent.logs.logs, now.agent.logs.logs),
        verdicts,
    })
}

/// The newest events, and while they are held still those that came since.
#[derive(Debug, Default)]
pub(super) struct Events {
    shown: VecDeque<Event>,
    since: Option<VecDeque<Event>>,
    /// Those that were dropped while the view was held still, because too many came.
    pub(super) skipped: u64,
}

impl Events {
    pub(super) fn push(&mut self, mut event: Event) {
        if event.text.len() > MAX_EVENT_BYTES {
            let end = (0..=MAX_EVENT_BYTES).rev().find(|at| event.text.is_char_boundary(*at)).unwrap_or(0);
            event.text.truncate(end);
            event.text.push('…');
        }
        let queue = self.since.as_mut().unwrap_or(&mut self.shown);
        queue.push_back(event);
        if queue.len() > MAX_EVENTS {
            queue.pop_front();
            self.skipped += u64::from(self.since.is_some());
        }
    }

    /// Holds still what is shown, or goes on with what came since.
    pub(super) fn pause(&mut self) {
        match self.since.take() {
            None => self.since = Some(VecDeque::new()),
            Some(since) => {
                self.skipped = 0;
                since.into_iter().for_each(|event| self.push(event));
            }
        }
    }

    pub(super) fn is_paused(&self) -> bool {
        self.since.is_some()
    }

    /// How many came since it was paused.
    pub(super) fn waiting(&self) -> usize {
        self.since.as_ref().map_or(0, VecDeque::len)
    }

    pub(super) fn clear(&mut self) {
        *self = Events::default();
    }

    /// The newest last.
    pub(super) fn shown(&self) -> &VecDeque<Event> {
        &self.shown
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::top::tests::{event, sample};

    #[test]
    fn rates_are_what_changed_by_the_time_between() {
        let mut model = Model::default();
        let first = sample();
        let mut second = first.clone();
        model.sampled(first.clone());
        assert_eq!(model.rates, None, "one sample tells no change");
        second.at += Duration::from_secs(2);
        second.agent.alerts.alerts += 10;
        second.agent.logs.logs += 5;
        second.kernel =
            first.kernel.as_ref().map(|counts| Stats { blocked: counts.blocked + 8, ..*counts }).map_err(Clone::clone);
        model.sampled(second.clone());
        assert_eq!(model.rates, Some(Rates { alerts: 5.0, logs: 2.5, verdicts: Some((4.0, 0.0)) }));
        second.at += Duration::from_secs(1);
        second.agent.pid += 1;
        model.sampled(second);
        assert_eq!(model.rates, None, "of another agent");
    }

    #[test]
    fn events_are_kept_within_limits_and_held_still_on_demand() {
        let mut events = Events::default();
        (0..MAX_EVENTS + 3).for_each(|number| events.push(event(&number.to_string())));
        assert_eq!((events.shown().len(), events.shown()[0].text.as_str()), (MAX_EVENTS, "3"));
        events.pause();
        (0..MAX_EVENTS + 5).for_each(|_| events.push(event("later")));
        assert_eq!((events.shown()[0].text.as_str(), events.waiting(), events.skipped), ("3", MAX_EVENTS, 5));
        events.pause();
        assert_eq!((events.shown().len(), events.shown()[0].text.as_str(), events.skipped), (MAX_EVENTS, "later", 0));
        events.push(event(&"é".repeat(MAX_EVENT_BYTES)));
        let last = &events.shown()[MAX_EVENTS - 1].text;
        assert!(last.ends_with("é…") && last.len() <= MAX_EVENT_BYTES + '…'.len_utf8());
    }

    #[test]
    fn verdicts_are_counted_for_processes_and_containers_that_are_there() {
        let mut model = Model::default();
        model.sampled(sample());
        for verdict in [Some(Verdict::Block), Some(Verdict::Block), Some(Verdict::Audit), None] {
            model.count(&Event { verdict, ..event("") });
        }
        assert_eq!(model.of_process(4711), Verdicts { block: 2, audit: 1 });
        assert_eq!(model.of_container("4771ac3e9074"), Verdicts { block: 2, audit: 1 });
        for pid in 0..u32::try_from(MAX_MARKED).unwrap() {
            model.count(&Event { pid: 10_000 + pid, container: "gone".to_owned(), ..event("") });
        }
        assert_eq!(model.of_process(4711), Verdicts { block: 2, audit: 1 }, "it is in a tree");
        assert!(model.processes.len() < MAX_MARKED);
        assert_eq!(model.of_container("gone").block, 1, "only what came after they were forgotten");
    }
}
