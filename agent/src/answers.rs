//! What the agent answers on its control socket.

use std::sync::Arc;

use portcullis_enforcer::{Known, Policies};
use portcullis_nri_plugin::ConnectionStatus;
use portcullis_policy::select::applies;
use serde::Serialize;
use tokio::sync::oneshot;

use crate::alerts::line::meant;
use crate::control::{
    AgentStatus, AlertsStatus, Answers, Call, ContainersStatus, LogsStatus, NriStatus, PoliciesStatus, PolicyProblem, PolicyRow,
    PolicyTable, Refusal, RefusalKind, Tree, VisibilityStatus, Who,
};
use crate::node::Node;
use crate::processes::{Container, Key, Members};
use crate::reconcile::{Book, Inbox, Task};
use crate::sinks;
use crate::telemetry::Telemetry;

/// Tells how a connection stands.
pub(crate) type ConnectionTeller = Box<dyn Fn() -> ConnectionStatus + Send + Sync>;

/// All that there is to tell of.
pub(crate) struct Desk<N> {
    pub(crate) node: Arc<N>,
    pub(crate) inbox: Inbox,
    pub(crate) book: Book,
    pub(crate) telemetry: Telemetry,
    pub(crate) connections: Vec<ConnectionTeller>,
    pub(crate) nri_required: bool,
    /// Why nobody can follow alerts in KubeArmor's protocol.
    pub(crate) feeder_trouble: Option<String>,
    /// Why nobody can read metrics.
    pub(crate) metrics_trouble: Option<String>,
    /// Where events are put by the agent itself.
    pub(crate) sinks: Vec<sinks::Account>,
    /// In seconds since 1970.
    pub(crate) started_at: u64,
}

impl<N: Node> Answers for Desk<N> {
    fn answer(&self, call: Call) -> Result<serde_json::Value, Refusal> {
        match call {
            Call::Status => json(&self.status()?),
            Call::Who { container } => json(&self.who(&container)?),
            Call::Tree { container } => json(&self.tree(&container)?),
            Call::Policies => json(&self.policies()?),
            Call::Reload => json(&self.reload()?),
            Call::Events(_) => Err(Refusal::new(RefusalKind::Failed, "events are not answered in one line")),
        }
    }

    fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }
}

impl<N: Node> Desk<N> {
    pub(crate) fn status(&self) -> Result<AgentStatus, Refusal> {
        let page = self.book.page();
        let (alerts, logs) = (self.telemetry.alerts.counters(), self.telemetry.logs.counters());
        let (monitor, accesses) = self.telemetry.watched_status();
        let known = self.node.count_known().map_err(failed)?;
        let visibility = match monitor.loaded {
            true => self.telemetry.watched.visibility_status(known),
            false => VisibilityStatus::default(),
        };
        Ok(AgentStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_at: self.started_at,
            policies: PoliciesStatus {
                generation: page.generation,
                read_at: page.read_at,
                count: page.policies,
                problems: page.problems,
                unreadable: page.unreadable,
            },
            containers: ContainersStatus { known, leaving: page.leaving, troubles: page.troubles.into_values().collect() },
            nri: NriStatus {
                required: self.nri_required,
                connections: self.connections.iter().map(|connection| connection()).collect(),
            },
            metrics_trouble: self.metrics_trouble.clone(),
            alerts: AlertsStatus {
                alerts: alerts.items,
                readers: alerts.readers,
                waiting: alerts.waiting,
                lost: alerts.lost,
                trouble: self.telemetry.trouble(),
                feeder_trouble: self.feeder_trouble.clone(),
            },
            monitor,
            accesses,
            visibility,
            logs: LogsStatus { logs: logs.items, readers: logs.readers, waiting: logs.waiting, lost: logs.lost },
            sinks: self.sinks.iter().map(sinks::Account::status).collect(),
        })
    }

    fn find(&self, name: &str) -> Result<Known, Refusal> {
        let mut found = meant(self.known()?, name, |known| (&known.facts.id, &known.facts.name));
        let count = found.len();
        let not_found = |message| Err(Refusal::new(RefusalKind::NotFound, message));
        match (found.pop(), count) {
            (Some(known), 1) => Ok(known),
            (None, _) => not_found(format!("no container is called `{name}`; `portcullis status` lists them")),
            _ => not_found(format!("`{name}` could be {count} containers; give more of its id")),
        }
    }

    fn tree(&self, name: &str) -> Result<Tree, Refusal> {
        let (monitor, _) = self.telemetry.watched.status();
        if !monitor.loaded {
            let why = monitor.trouble.unwrap_or_else(|| "the configuration says so by monitor.enabled".to_owned());
            return Err(Refusal::new(
                RefusalKind::Failed,
                format!("nobody knows processes here, the monitor is not loaded: {why}"),
            ));
        }
        if self.telemetry.watched.is_behind() {
            self.telemetry.watched.look_around();
        }
        let known = self.find(name)?;
        let label = self.node.label(&known.facts.id).map_err(failed)?;
        let members = Members {
            label: label.map(|(slot, epoch)| Container { slot, epoch }),
            cgroup: known.place.as_ref().map(|place| place.cgroup_id),
            init: known.place.as_ref().map(|place| Key::of_ticks(place.pid, place.started)),
        };
        Ok(Tree::of(known.facts.id, known.facts.name, &self.telemetry.watched.table(), &members))
    }

    fn who(&self, name: &str) -> Result<Who, Refusal> {
        let known = self.find(name)?;
        let policies = self.node.policies().map_err(failed)?;
        let mut selected: Vec<String> =
            policies.policies.iter().filter(|policy| applies(policy, &known.facts).is_ok()).map(|policy| policy.id()).collect();
        selected.sort();
        let trouble = self.book.page().troubles.remove(&known.facts.id);
        let visibility = Some(self.telemetry.watched.visible(&known.facts)).filter(|_| self.telemetry.watched.is_loaded());
        Ok(Who { known, policies: selected, trouble, visibility })
    }

    fn policies(&self) -> Result<PolicyTable, Refusal> {
        let policies = self.node.policies().map_err(failed)?;
        Ok(policy_table(&policies, &self.known()?, Some(self.book.page().generation)))
    }

    fn reload(&self) -> Result<crate::control::Outcome, Refusal> {
        let (send, outcome) = oneshot::channel();
        self.inbox.send(Task::Reload(Some(send)));
        match outcome.blocking_recv() {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(error)) => Err(Refusal::new(RefusalKind::Failed, error)),
            Err(_) => Err(Refusal::new(RefusalKind::Failed, "the agent is stopping")),
        }
    }

    fn known(&self) -> Result<Vec<Known>, Refusal> {
        self.node.known().map_err(failed)
    }
}

fn failed(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(RefusalKind::Failed, error.to_string())
}

fn json(answer: &impl Serialize) -> Result<serde_json::Value, Refusal> {
    serde_json::to_value(answer).map_err(failed)
}

/// The policies in force, and how many of the known containers each selects.
#[must_use]
pub fn policy_table(policies: &Policies, known: &[Known], generation: Option<u64>) -> PolicyTable {
    let kept = |id: &String| policies.problems.iter().any(|problem| problem.kept.contains(id));
    let row = |policy: &portcullis_policy::Policy| {
        let id = policy.id();
        let origin = policy.rules.first().map(|rule| &rule.origin).or(policy.unenforced.first().map(|other| &other.origin));
        PolicyRow {
            file: origin.map(|origin| origin.file.to_path_buf()).unwrap_or_default(),
            line: origin.map_or(0, |origin| origin.line),
            rules: policy.rules.len(),
            unenforced: policy.unenforced.len(),
            containers: known.iter().filter(|known| applies(policy, &known.facts).is_ok()).count(),
            kept: kept(&id),
            id,
        }
    };
    let problem = |problem: &portcullis_enforcer::Problem| PolicyProblem {
        file: problem.file.clone(),
        message: problem.message.clone(),
        kept: problem.kept.clone(),
    };
    let mut rows: Vec<PolicyRow> = policies.policies.iter().map(row).collect();
    rows.sort_by(|a, b| (&a.id, &a.file, a.line).cmp(&(&b.id, &b.file, b.line)));
    PolicyTable { generation, policies: rows, problems: policies.problems.iter().map(problem).collect() }
}
