//! The stages, the deadline, and what is said in the end.
//!
//! A thread does the work and another watches the clock: the hook ends by its own deadline, with a sentence, before the
//! runtime kills it without one. A container that cannot be protected is refused with exactly one line, and nothing that
//! was begun for it stays armed.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use portcullis_enforcer::place::{Cgroup, CgroupError, Host, Place, Process, ProcessError, host};
use portcullis_enforcer::unknown::{self, Undecided};
use portcullis_enforcer::{Door, Known};
use portcullis_policy::select::{MODE_ANNOTATION, applies};

use crate::args::{FailPolicy, Options, Stage};
use crate::bundle::{Bundle, BundleError};
use crate::enforcement::{Container, Enforcement, Failure, is_denial};
use crate::identity::{self, IdentityError};
use crate::progress::Progress;
use crate::state::{MAX_STATE_BYTES, State, StateError};

/// What arming that has begun may take beyond the deadline, and then its undoing: together within the second that is left
/// before the runtime's own timeout (contrib/hooks.d).
const GRACE: Duration = Duration::from_millis(500);
/// What this program calls itself.
pub(crate) const PROGRAM: &str = "portcullis-hook";
/// Longest line on standard error; names and paths in it come from others.
const MAX_LINE_CHARS: usize = 2000;

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Finish {
    /// Exit status.
    pub code: u8,
    /// Lines for standard error.
    pub lines: Vec<String>,
}

/// Why a container cannot be protected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HookError {
    /// The state.
    #[error(transparent)]
    State(#[from] StateError),
    /// The bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The init process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The cgroup.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// Who the container is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A policy that nobody can tell whether it applies.
    #[error(transparent)]
    Undecided(#[from] Undecided),
    /// The enforcer.
    #[error("{0}")]
    Enforcement(Failure),
    /// Rootless.
    #[error(
        "containers without root are not protected: the hook runs in a user namespace or not as root and cannot reach the kernel programs; run the container as root, or take this hook out of the hooks_dir of rootless containers"
    )]
    Rootless,
    /// Out of time.
    #[error("not done after {:.1} s, while: {phase}; start the container again, or raise --deadline and the timeout in hooks.d", deadline.as_secs_f64())]
    Deadline {
        /// The time that was allowed.
        deadline: Duration,
        /// What was being done.
        phase: &'static str,
    },
    /// The working thread ended without a result.
    #[error("the hook failed while: {0}; please report this with the output above")]
    Broken(&'static str),
}

impl From<Failure> for HookError {
    fn from(failure: Failure) -> Self {
        HookError::Enforcement(failure)
    }
}

/// Runs one stage to its end.
pub fn run<E: Enforcement>(host: &Host, options: &Options, enforcement: &Arc<E>, input: impl Read + Send + 'static) -> Finish {
    let progress = Arc::new(Progress::new());
    let result = within_deadline(host, options, enforcement, &progress, input);
    let mut finish = match (options.stage, result) {
        (_, Ok(())) => {
            Finish { code: 0, lines: progress.warning.get().map(|warning| line(PROGRAM, warning)).into_iter().collect() }
        }
        (Stage::CreateRuntime, Err(error)) => refuse_or_permit(options, &**enforcement, &progress, &error),
        (Stage::Poststop, Err(error)) => Finish {
            code: 0,
            lines: vec![line(PROGRAM, &format!("{}: cannot be taken out of force: {error}", container(&progress)))],
        },
    };
    if options.timings {
        finish.lines.push(line(PROGRAM, &format!("timings {}", progress.timings())));
    }
    finish
}

fn within_deadline<E: Enforcement>(
    host: &Host,
    options: &Options,
    enforcement: &Arc<E>,
    progress: &Arc<Progress>,
    input: impl Read + Send + 'static,
) -> Result<(), HookError> {
    let (send, done) = channel();
    let worker = (host.clone(), options.stage, Arc::clone(enforcement), Arc::clone(progress));
    std::thread::spawn(move || {
        let (host, stage, enforcement, progress) = worker;
        // The receiver is gone only when the process is about to be.
        drop(send.send(match stage {
            Stage::CreateRuntime => create_runtime(&host, &*enforcement, &progress, input),
            Stage::Poststop => poststop(&*enforcement, &progress, input),
        }));
    });
    let late = |phase| HookError::Deadline { deadline: options.deadline, phase };
    match done.recv_timeout(options.deadline) {
        Ok(result) => return result,
        Err(RecvTimeoutError::Disconnected) => return Err(HookError::Broken(progress.phase())),
        Err(RecvTimeoutError::Timeout) => {}
    }
    let phase = progress.phase();
    if options.stage == Stage::Poststop || progress.cancel() {
        return Err(late(phase));
    }
    if let Ok(result) = done.recv_timeout(GRACE) {
        return result;
    }
    // Arming hangs. Undo it from here, and don't wait for that either: the container does not start, and what may be left
    // is keyed by a cgroup that nobody else gets.
    let (send, undone) = channel();
    let (enforcement, id) = (Arc::clone(enforcement), progress.id.get().cloned());
    std::thread::spawn(move || {
        if let Some(id) = id {
            drop(send.send(enforcement.disarm(&id)));
        }
    });
    drop(undone.recv_timeout(GRACE));
    Err(late(phase))
}

/// Finds out who the container is and arms it.
fn create_runtime<E: Enforcement>(host: &Host, enforcement: &E, progress: &Progress, input: impl Read) -> Result<(), HookError> {
    progress.enter("reading the state");
    let state = read_state(progress, input);
    let own = Process::own(host)?;
    if host.uid != 0 || !own.is_in_initial_user_namespace()? {
        return Err(HookError::Rootless);
    }

    progress.enter("reading the policies");
    let fail_policy = enforcement.fail_policy()?;
    progress.fail_policy.get_or_init(|| fail_policy);
    let Some(policies) = enforcement.policies()? else { return Ok(()) };
    // A broken file withdraws nobody's start and no other policy, but not in silence.
    if let [first, others @ ..] = enforcement.problems().as_slice() {
        let more = if others.is_empty() { String::new() } else { format!(" (and {} more)", others.len()) };
        let warning = format!("WARNING: a policy is not in force: {first}{more}; see: portcullis status");
        progress.warning.get_or_init(|| warning);
    }

    let found = state.map_err(HookError::from).and_then(|state| find(host, &own, enforcement, progress, state));
    let (init, container) = match found {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(()),
        // No policy could speak of it, so who it is matters to nobody.
        Err(_) if policies.is_empty() => return Ok(()),
        Err(error) => return Err(error),
    };
    unknown::check(policies, &container.known.facts, &container.known.missing)?;
    progress.enter("planning");
    let selected = policies.iter().any(|policy| applies(policy, &container.known.facts).is_ok());
    let plan = if selected { enforcement.plan(&container)? } else { None };
    match plan {
        Some(plan) => arm(host, enforcement, progress, &init, &container, &plan)?,
        None => enforcement.let_start(&container.known.facts.id, Some(&container.process.label))?,
    }
    progress.enter("recording");
    if let Err(failure) = enforcement.remember(&container) {
        let warning = format!("WARNING: {}: policies that come later will not reach it: {failure}", self::container(progress));
        progress.warning.get_or_init(|| warning);
    }
    Ok(())
}

/// Who and where the container is; nothing if no policy is ever to speak of it.
fn find<E: Enforcement>(
    host: &Host,
    own: &Process,
    enforcement: &E,
    progress: &Progress,
    state: State,
) -> Result<Option<(Process, Container)>, HookError> {
    progress.enter("looking at the process");
    let init = Process::open(host, state.init_pid()?)?;
    init.check_not_younger_than(own)?;
    let runtime_mntns = own.mount_namespace()?;
    if init.mount_namespace()? == runtime_mntns {
        return Err(ProcessError::SameMounts { pid: init.pid }.into());
    }

    progress.enter("reading the bundle");
    let bundle = Bundle::read(host, state.bundle_dir()?)?;

    progress.enter("asking who the container is");
    let Some(known) = who(host, enforcement, &bundle, state)? else { return Ok(None) };
    if !known.facts.name.is_empty() {
        drop(progress.name.set(known.facts.name.clone()));
    }

    progress.enter("finding the cgroup and the root file system");
    let cgroup = Cgroup::of(own, &init, &known.facts.id)?;
    let root = init.open_root(&bundle.root)?;
    let place = Place::of_starting(&init, cgroup, runtime_mntns, &root)?;
    Ok(Some((init, Container { known, place, root, bundle: bundle.path, process: bundle.process, carrier: bundle.carrier })))
}

pub(crate) fn who<E: Enforcement>(
    host: &Host,
    enforcement: &E,
    bundle: &Bundle,
    state: State,
) -> Result<Option<Known>, HookError> {
    // Announced by the plugin, to which the runtime tells more than to a hook.
    if let Some(known) = enforcement.known(&state.id)?
        && known.door == Door::Nri
    {
        return Ok(Some(known));
    }
    let mut annotations = state.annotations;
    // The configuration's are all of them; a runtime may add some to the state.
    annotations.extend(bundle.annotations.clone());
    if annotations.get(MODE_ANNOTATION).is_some_and(|mode| mode == "disabled") {
        return Ok(None);
    }
    let who = identity::identify(host, &state.id, bundle, &annotations)?;
    if who.sandbox {
        return Ok(None);
    }
    let (facts, missing) = who.facts(&state.id, annotations);
    Ok(Some(Known { facts, missing, door: Door::Hook, place: None }))
}

fn arm<E: Enforcement>(
    host: &Host,
    enforcement: &E,
    progress: &Progress,
    init: &Process,
    container: &Container,
    plan: &E::Plan,
) -> Result<(), HookError> {
    progress.enter("loading the kernel programs");
    enforcement.load()?;
    progress.enter("arming");
    if !progress.begin_arming() {
        // Nobody waits for this result any more.
        return Err(HookError::Broken("arming"));
    }
    let armed = enforcement.arm(plan, container).map_err(HookError::from);
    let still_there = armed.and_then(|()| Ok(init.check_unchanged(host)?));
    if still_there.is_err() {
        // The error that is told is the first one.
        drop(enforcement.disarm(&container.known.facts.id));
    }
    still_there
}

fn poststop<E: Enforcement>(enforcement: &E, progress: &Progress, input: impl Read) -> Result<(), HookError> {
    progress.enter("reading the state");
    let state = read_state(progress, input)?;
    progress.enter("disarming");
    Ok(enforcement.disarm(&state.id)?)
}

fn read_state(progress: &Progress, input: impl Read) -> Result<State, StateError> {
    let bytes = host::read_to_limit(input, Path::new("the container state"), MAX_STATE_BYTES)?;
    let state = State::parse(&bytes)?;
    drop(progress.id.set(state.id.clone()));
    Ok(state)
}

fn refuse_or_permit<E: Enforcement>(options: &Options, enforcement: &E, progress: &Progress, error: &HookError) -> Finish {
    let policy = options.fail_policy.or(progress.fail_policy.get().copied());
    // What a policy denies is denied: that is no failure.
    if policy != Some(FailPolicy::Permit) || matches!(error, HookError::Enforcement(failure) if is_denial(failure)) {
        return Finish { code: 1, lines: vec![line(PROGRAM, &format!("{} refused: {error}", container(progress)))] };
    }
    let id = progress.id.get().map_or("", String::as_str);
    let name = progress.name.get().map_or("", String::as_str);
    let mut recorded = match enforcement.record_unprotected(id, name, &one_line(&error.to_string())) {
        Ok(()) => String::new(),
        Err(failure) => format!(" (and no record of this could be written: {failure})"),
    };
    if let Err(failure) = enforcement.let_start(id, None) {
        recorded.push_str(&format!(" (and the runtime may refuse it for want of a profile: {failure})"));
    }
    let text = format!("WARNING: {} starts WITHOUT PROTECTION, by fail policy permit: {error}{recorded}", container(progress));
    Finish { code: 0, lines: vec![line(PROGRAM, &text)] }
}

/// `container 6a63c4a301f4 (web)`.
fn container(progress: &Progress) -> String {
    /// What engines print of their 64-digit ids.
    const SHORT_ID: usize = 12;
    let id = match progress.id.get() {
        Some(id) if id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) => &id[..SHORT_ID],
        Some(id) => id,
        None => "of unknown id",
    };
    match progress.name.get() {
        Some(name) => format!("container {id} ({name})"),
        None => format!("container {id}"),
    }
}

pub(crate) fn line(program: &str, text: &str) -> String {
    format!("{program}: {}", one_line(text))
}

/// One line whatever is in it: names, paths and JSON of others may hold line breaks and terminal escapes.
pub(crate) fn one_line(text: &str) -> String {
    let clean = text.chars().map(|char| if char.is_control() { ' ' } else { char });
    clean.take(MAX_LINE_CHARS).collect()
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
