//! The events, translated into calls of the enforcer.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nri::proto::{Container, ContainerState, ContainerUpdate, PodSandbox, ValidateContainerAdjustmentRequest};
use nri::{Answer, Code, Configuration, Context, Creation, Disconnect, Events, Verdict};
use portcullis_enforcer::{Expected, FailPolicy, Started};
use portcullis_policy::ContainerFacts;
use serde::{Deserialize, Serialize};
use tracing::{debug, error, info, warn};

use crate::enforcement::{Enforcement, Failure, Running};
use crate::facts::facts_of;
use crate::gate::Gate;
use crate::init;

/// Left of a request's time for saying that the enforcer did not answer in it. A runtime that gets no answer goes on without.
const LAST_WORD: Duration = Duration::from_millis(50);
/// The enforcer's time where the runtime tells none. Runtimes wait two seconds unless configured otherwise.
const DEFAULT_PATIENCE: Duration = Duration::from_millis(1500);
/// Most containers that are remembered between CREATE and START.
const MAX_AWAITED: usize = 65_536;
/// An error at START fails the container there. Elsewhere it may only be logged.
const FAILS_AT_START: &str = "containerd";

/// A container that was refused.
#[derive(Debug, thiserror::Error)]
#[error("portcullis refuses container {name}: {cause}")]
pub struct Refused {
    /// Its name.
    pub name: String,
    /// Why.
    pub cause: Cause,
}

/// Why a container was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The enforcer says so.
    #[error("{0}")]
    Enforcer(Failure),
    /// The enforcer did not answer in time. The runtime would go on without an answer, so it gets this one.
    #[error(
        "its policies were not in force within {} ms; start it again, and raise the runtime's plugin_request_timeout if this happens under load",
        .0.as_millis()
    )]
    Late(Duration),
    /// The enforcer's call ended without a result.
    #[error("{0} ended without an answer; see the agent's log")]
    Broken(&'static str),
    /// The runtime tells no process of a container that is to be armed.
    #[error("the runtime did not tell its process at StartContainer; use a runtime that does")]
    NoProcess,
}

/// What came through the door.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Containers that were announced.
    pub created: u64,
    /// Of them, those with a policy to enforce: they got the gate hook, or had it.
    pub gated: u64,
    /// Containers that were started.
    pub started: u64,
    /// Of them, those that the gate hook had not armed. Somebody drops hooks.
    pub armed_at_start: u64,
    /// Containers that were refused.
    pub refused: u64,
    /// Containers that were let through without protection, by fail policy `permit`.
    pub permitted: u64,
    /// Inits that were killed because the runtime does not heed an error at START.
    pub killed: u64,
}

#[derive(Debug, Default)]
struct Counters {
    created: AtomicU64,
    gated: AtomicU64,
    started: AtomicU64,
    armed_at_start: AtomicU64,
    refused: AtomicU64,
    permitted: AtomicU64,
    killed: AtomicU64,
}

/// What outlives a single call; shared with whoever wants to know.
pub(crate) struct Inner<E> {
    enforcement: Arc<E>,
    gate: Gate,
    /// Containers that must have the gate hook, from CREATE to START.
    awaited: Mutex<BTreeSet<String>>,
    counters: Counters,
}

/// The plugin.
pub struct Plugin<E>(Arc<Inner<E>>);

impl<E> Clone for Plugin<E> {
    fn clone(&self) -> Self {
        Plugin(Arc::clone(&self.0))
    }
}

impl<E: Enforcement> Plugin<E> {
    /// A plugin that asks `enforcement`, and gives containers `gate`.
    pub fn new(enforcement: Arc<E>, gate: Gate) -> Plugin<E> {
        Plugin(Arc::new(Inner { enforcement, gate, awaited: Mutex::default(), counters: Counters::default() }))
    }

    /// What came through so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.0.counters;
        Counts {
            created: read(&counters.created),
            gated: read(&counters.gated),
            started: read(&counters.started),
            armed_at_start: read(&counters.armed_at_start),
            refused: read(&counters.refused),
            permitted: read(&counters.permitted),
            killed: read(&counters.killed),
        }
    }

    fn awaited(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the enforcer on a thread that may block, and waits no longer than the runtime does.
    async fn ask<T: Send + 'static>(
        &self,
        cx: &Context,
        what: &'static str,
        call: impl FnOnce(&E) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Cause> {
        let enforcement = Arc::clone(&self.0.enforcement);
        let patience = cx.remaining().map_or(DEFAULT_PATIENCE, |left| left.saturating_sub(LAST_WORD));
        let work = tokio::task::spawn_blocking(move || call(&enforcement));
        match tokio::time::timeout(patience, work).await {
            Ok(Ok(result)) => result.map_err(Cause::Enforcer),
            Ok(Err(_)) => Err(Cause::Broken(what)),
            Err(_) => Err(Cause::Late(patience)),
        }
    }

    /// What becomes of a container that cannot be armed: an error for the runtime, or nothing.
    async fn refuse_or_permit(&self, facts: &ContainerFacts, cause: Cause) -> Result<(), nri::Failure> {
        let refused = Refused { name: facts.name.clone(), cause };
        let enforcement = Arc::clone(&self.0.enforcement);
        if enforcement.fail_policy() == FailPolicy::Enforce {
            count(&self.0.counters.refused);
            error!(id = facts.id, namespace = facts.namespace, "{refused}");
            return Err(nri::Failure::new(Code::FailedPrecondition, refused.to_string()));
        }
        count(&self.0.counters.permitted);
        let reason = refused.to_string();
        error!(
            id = facts.id,
            namespace = facts.namespace,
            "container {} starts WITHOUT PROTECTION, by fail policy permit: {reason}",
            facts.name
        );
        let (id, name) = (facts.id.clone(), facts.name.clone());
        // Not waited for: whatever kept the enforcer from answering may keep it from writing, and the runtime's time is short.
        tokio::task::spawn_blocking(move || {
            if let Err(error) = enforcement.record_unprotected(&id, &name, &reason) {
                error!(id, "no record of this could be written: {error}");
            }
        });
        Ok(())
    }

    async fn kill_init(&self, facts: &ContainerFacts, pid: u32) {
        let id = facts.id.clone();
        let killed = tokio::task::spawn_blocking(move || init::kill(Path::new("/proc"), &id, pid)).await;
        match killed {
            Ok(Ok(true)) => {
                count(&self.0.counters.killed);
                warn!(id = facts.id, pid, "the container's init was killed before it executed anything");
            }
            Ok(Ok(false)) => error!(id = facts.id, pid, "the process that the runtime told is not in a cgroup of the container"),
            Ok(Err(error)) => error!(id = facts.id, pid, "the container's init could not be killed: {error}"),
            Err(_) => error!(id = facts.id, pid, "the container's init could not be killed"),
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl<E: Enforcement> nri::Plugin for Plugin<E> {
    fn events(&self) -> Events {
        Events::CREATE_CONTAINER
            | Events::START_CONTAINER
            | Events::STOP_CONTAINER
            | Events::REMOVE_CONTAINER
            | Events::VALIDATE_CONTAINER_ADJUSTMENT
    }

    async fn configure(&self, _cx: &Context, configuration: Configuration) -> Answer<()> {
        info!(runtime = %configuration.runtime, events = %configuration.subscribed, "configured");
        if !configuration.config.trim().is_empty() {
            warn!("the plugin's file in /etc/nri/conf.d is not read; write /etc/portcullis/config.yaml instead");
        }
        if configuration.unavailable.contains(Events::VALIDATE_CONTAINER_ADJUSTMENT) {
            info!(
                "this runtime creates containers without asking when the plugin is not connected or too slow; see contrib for the gate hook that holds then"
            );
        }
        Ok(())
    }

    async fn synchronize(&self, cx: &Context, pods: Vec<PodSandbox>, containers: Vec<Container>) -> Answer<Vec<ContainerUpdate>> {
        let Told { running, created, listed } = Told::of(&pods, &containers);
        // A full node's are tens of megabytes, of which little is needed any longer.
        drop((pods, containers));
        info!(containers = listed.len(), running = running.len(), "synchronized");
        let done = self.ask(cx, "Synchronize", move |enforcement| enforcement.synchronized(running, created, &listed)).await;
        let failed = |cause| nri::Failure::new(Code::Unavailable, format!("portcullis cannot take over what runs: {cause}"));
        done.map(|()| Vec::new()).map_err(failed)
    }

    async fn create_container(&self, cx: &Context, pod: PodSandbox, container: Container) -> Answer<Creation> {
        count(&self.0.counters.created);
        let facts = facts_of(&pod, &container);
        let asked = facts.clone();
        match self.ask(cx, "CreateContainer", move |enforcement| enforcement.expect(&asked)).await {
            Ok(Expected::Nothing) => Ok(Creation::default()),
            Ok(Expected::Enforce) => {
                count(&self.0.counters.gated);
                debug!(id = facts.id, name = facts.name, namespace = facts.namespace, "gated");
                let mut awaited = self.awaited();
                if awaited.len() < MAX_AWAITED {
                    awaited.insert(facts.id);
                }
                Ok(self.0.gate.adjustment(&container).into())
            }
            Err(cause) => self.refuse_or_permit(&facts, cause).await.map(|()| Creation::default()),
        }
    }

    async fn validate_container_adjustment(&self, _cx: &Context, request: ValidateContainerAdjustmentRequest) -> Answer<Verdict> {
        let container = request.container.unwrap_or_default();
        if !self.awaited().contains(&container.id) {
            return Ok(Verdict::Accept);
        }
        let adjusted = request.adjust.unwrap_or_default();
        let gate = &self.0.gate;
        if gate.is_among(adjusted.hooks.as_ref()) || gate.is_among(container.hooks.as_ref()) {
            return Ok(Verdict::Accept);
        }
        count(&self.0.counters.refused);
        let reason = format!(
            "portcullis refuses container {}: another plugin took away its createRuntime hook {}; have that plugin leave it",
            container.name,
            gate.path().display()
        );
        error!(id = container.id, "{reason}");
        Ok(Verdict::Reject(reason))
    }

    async fn start_container(&self, cx: &Context, pod: PodSandbox, container: Container) -> Answer<()> {
        count(&self.0.counters.started);
        let facts = facts_of(&pod, &container);
        let gated = self.awaited().remove(&facts.id);
        let pid = container.pid;
        let verified = if pid == 0 && gated {
            Err(Cause::NoProcess)
        } else if pid == 0 {
            Ok(Started::Untouched)
        } else {
            let asked = facts.clone();
            self.ask(cx, "StartContainer", move |enforcement| enforcement.start(&asked, pid)).await
        };
        match verified {
            Ok(Started::ArmedNow) => {
                count(&self.0.counters.armed_at_start);
                if gated {
                    warn!(id = facts.id, name = facts.name, "the gate hook had not armed this container: somebody drops hooks");
                }
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(cause) => {
                let answer = self.refuse_or_permit(&facts, cause).await;
                if answer.is_err() && cx.runtime.name != FAILS_AT_START && pid != 0 {
                    self.kill_init(&facts, pid).await;
                }
                answer
            }
        }
    }

    async fn stop_container(&self, _cx: &Context, _pod: PodSandbox, container: Container) -> Answer<Vec<ContainerUpdate>> {
        self.0.enforcement.leaving(&container.id);
        Ok(Vec::new())
    }

    async fn remove_container(&self, _cx: &Context, _pod: PodSandbox, container: Container) -> Answer<()> {
        self.awaited().remove(&container.id);
        self.0.enforcement.leaving(&container.id);
        Ok(())
    }

    async fn closed(&self, _reason: &Disconnect) {
        self.awaited().clear();
    }
}

/// What a runtime told of its containers.
struct Told {
    running: Vec<Running>,
    created: Vec<ContainerFacts>,
    listed: BTreeSet<String>,
}

impl Told {
    fn of(pods: &[PodSandbox], containers: &[Container]) -> Told {
        let mut told = Told { running: Vec::new(), created: Vec::new(), listed: BTreeSet::new() };
        let nobody = PodSandbox::default();
        let pods: std::collections::HashMap<&str, &PodSandbox> = pods.iter().map(|pod| (pod.id.as_str(), pod)).collect();
        for container in containers {
            told.listed.insert(container.id.clone());
            let facts = facts_of(pods.get(container.pod_sandbox_id.as_str()).copied().unwrap_or(&nobody), container);
            match (container.state(), container.pid) {
                (ContainerState::Stopped, _) => {}
                (_, 0) => told.created.push(facts),
                (_, pid) => told.running.push(Running { facts, pid }),
            }
        }
        told
    }
}
