//! No container of a pod runs a program that its policies deny: not as its entrypoint, as an init container, a sidecar or an
//! ephemeral container, not by `exec`, and not among the machine's processes. See also `crate::starts`.

use std::path::{Path, PathBuf};

use super::agent::Agent;
use super::engine::{Engine, handler};
use super::live::empty_out;
use super::pods::{ContainerSpec, Ended, Pod, PodSpec};
use crate::Result;
use crate::guest::{self, Guest};
use crate::report::Report;
use crate::runtime::Runtime;
use crate::starts::{POLICY, refused};

/// A policy for one of a pod's containers.
const SIDECAR: &str = "\
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata:
  name: sidecar
  namespace: default
spec:
  selector:
    matchLabels:
      app: pair
      kubearmor.io/container.name: \"[sidecar,other]\"
  process:
    matchPaths:
      - path: /attack
  action: Block
";

/// What the exit code of the program of [`attack`] is.
pub(super) const RAN: i32 = 77;

/// With `--ci`, with each of two containerds: fifty in a run of hack/test.
const CI_ENTRYPOINTS: u32 = 25;

/// Runs the tests.
pub(super) fn run(guest: &Guest, engine: &Engine, agent: &Agent, report: &mut Report) -> Result<()> {
    agent.put(guest, &[("starts", POLICY), ("sidecar", SIDECAR)])?;
    let place = Place { guest, engine, out: empty_out(guest)? };
    let count = guest.repetitions(CI_ENTRYPOINTS, 500);
    for (index, runtime) in guest.runtimes.iter().enumerate() {
        let name = |test: &str| format!("cri/starts/{}/{test}", runtime.name());
        let mut test = |test: &str, run: &dyn Fn() -> Result<std::result::Result<(), String>>| {
            if guest.wants(&name(test)) {
                report.run(&name(test), run);
            }
        };
        let (few, is_second) = (guest.ci, index > 0);
        // Two runtimes share the starts; with `--ci` the second has a fifth of them, which runc needs as long for.
        let share = match (few, is_second, guest.runtimes.len()) {
            (_, _, 1) => count,
            (true, true, _) => count.div_ceil(5),
            (true, false, _) => count - count.div_ceil(5),
            (false, ..) => count.div_ceil(2),
        };
        test("entrypoint", &|| place.entrypoints(*runtime, share));
        test("exec", &|| place.execs(*runtime, if few { 2 } else { 50 }));
        if few && is_second {
            continue;
        }
        test("init-container", &|| place.init(*runtime));
        test("sidecar", &|| place.sidecar(*runtime));
        test("ephemeral", &|| place.ephemeral(*runtime));
        test("host-pid", &|| place.host_pid(*runtime));
    }
    Ok(())
}

/// A program that leaves a mark outside when it runs.
pub(super) fn attack(name: &str, out: &Path) -> ContainerSpec {
    ContainerSpec::new(name, &["/attack", "--mark"]).with(out, "/out")
}

/// Did the program of [`attack`] run? Then its mark is removed.
pub(super) fn marked(out: &Path) -> Result<bool> {
    let mark = out.join("mark");
    let found = mark.exists();
    guest::remove_tree(&mark)?;
    Ok(found)
}

/// It did not run, because it was denied.
pub(super) fn denied(ended: &Ended, out: &Path) -> Result<std::result::Result<(), String>> {
    let ran = marked(out)? || ended.code == RAN;
    let said = format!("{} {}", ended.refusal.as_deref().unwrap_or_default(), ended.said);
    Ok(match (ran, refused(&said)) {
        (true, _) => Err(format!("the denied program ran: {ended}")),
        // What did not start for another reason would prove nothing.
        (false, false) => Err(format!("not the refusal that was expected: {ended}")),
        (false, true) => Ok(()),
    })
}

/// It ran, as it does without a policy.
pub(super) fn free(ended: &Ended, out: &Path) -> Result<std::result::Result<(), String>> {
    Ok(if marked(out)? && ended.code == RAN { Ok(()) } else { Err(format!("what nothing denies did not run: {ended}")) })
}

struct Place<'a> {
    guest: &'a Guest,
    engine: &'a Engine,
    out: PathBuf,
}

impl Place<'_> {
    fn pod(&self, name: &str, app: &str, runtime: Runtime) -> Result<Pod> {
        let spec = PodSpec::new(&format!("{name}-{}", runtime.name()), app, &handler(runtime, false));
        Pod::run(self.guest, self.engine, spec)
    }

    fn stays(&self) -> ContainerSpec {
        ContainerSpec::new("main", &["/bin/sleep", "100000"]).with(&self.out, "/out")
    }

    fn entrypoints(&self, runtime: Runtime, count: u32) -> Result<std::result::Result<(), String>> {
        let stranger = self.pod("stranger", "stranger", runtime)?;
        if let Err(why) = free(&stranger.complete(&attack("free", &self.out))?, &self.out)? {
            return Ok(Err(why));
        }
        let pod = self.pod("entrypoint", "starts", runtime)?;
        for round in 0..count {
            let ended = pod.complete(&attack("entrypoint", &self.out))?;
            if let Err(why) = denied(&ended, &self.out)? {
                return Ok(Err(format!("round {round}: {why}")));
            }
        }
        // Beside all of them a pod that no policy selects is as it was.
        free(&stranger.complete(&attack("still-free", &self.out))?, &self.out)
    }

    fn execs(&self, runtime: Runtime, count: u32) -> Result<std::result::Result<(), String>> {
        let pod = self.pod("exec", "starts", runtime)?;
        for round in 0..count {
            // A new container each time: the first exec is the one that a late policy would miss.
            let container = pod.start(&self.stays())?;
            if let Err(why) = denied(&container.exec(&["/attack", "--mark"])?, &self.out)? {
                return Ok(Err(format!("round {round}: {why}")));
            }
            let allowed = container.exec(&["/bin/true"])?;
            if !allowed.success() {
                return Ok(Err(format!("an exec that no rule forbids failed: {allowed}")));
            }
            container.kill()?;
        }
        Ok(Ok(()))
    }

    fn init(&self, runtime: Runtime) -> Result<std::result::Result<(), String>> {
        let pod = self.pod("init", "starts", runtime)?;
        for (name, command) in [("init-good", "/bin/true"), ("init-bad", "/attack")] {
            let spec = ContainerSpec::new(name, &[command, "--mark"]).with(&self.out, "/out");
            let ended = pod.complete(&spec)?;
            let right = if command == "/attack" { denied(&ended, &self.out)? } else { success(&ended) };
            if let Err(why) = right {
                return Ok(Err(format!("{name}: {why}")));
            }
        }
        let main = pod.start(&self.stays())?;
        denied(&main.exec(&["/attack", "--mark"])?, &self.out)
    }

    /// Of two containers in one pod one is selected by name.
    fn sidecar(&self, runtime: Runtime) -> Result<std::result::Result<(), String>> {
        let pod = self.pod("pair", "pair", runtime)?;
        let main = pod.start(&self.stays())?;
        if let Err(why) = denied(&pod.complete(&attack("sidecar", &self.out))?, &self.out)? {
            return Ok(Err(format!("the sidecar: {why}")));
        }
        if let Err(why) = free(&main.exec(&["/attack", "--mark"])?, &self.out)? {
            return Ok(Err(format!("the other container: {why}")));
        }
        free(&pod.complete(&attack("unnamed", &self.out))?, &self.out)
    }

    /// As `kubectl debug` adds one: created in a pod that has run for a while, in another container's process namespace.
    fn ephemeral(&self, runtime: Runtime) -> Result<std::result::Result<(), String>> {
        let pod = self.pod("debug", "starts", runtime)?;
        let main = pod.start(&self.stays())?;
        let mut debugger = attack("debugger", &self.out);
        debugger.processes_of = Some(main.id.clone());
        if let Err(why) = denied(&pod.complete(&debugger)?, &self.out)? {
            return Ok(Err(why));
        }
        debugger.command = vec!["/bin/true".to_owned()];
        Ok(success(&pod.complete(&debugger)?))
    }

    fn host_pid(&self, runtime: Runtime) -> Result<std::result::Result<(), String>> {
        let mut spec = PodSpec::new(&format!("host-pid-{}", runtime.name()), "starts", &handler(runtime, false));
        spec.host_pid = true;
        let pod = Pod::run(self.guest, self.engine, spec)?;
        if let Err(why) = denied(&pod.complete(&attack("entrypoint", &self.out))?, &self.out)? {
            return Ok(Err(why));
        }
        let main = pod.start(&self.stays())?;
        denied(&main.exec(&["/attack", "--mark"])?, &self.out)
    }
}

fn success(ended: &Ended) -> std::result::Result<(), String> {
    if ended.success() { Ok(()) } else { Err(format!("what no rule forbids failed: {ended}")) }
}
