//! A denied entrypoint never runs, however often and by whatever the container is started, and neither does what is
//! executed in a running container afterwards.

use std::path::{Path, PathBuf};

use crate::Result;
use crate::bundle::Bundle;
use crate::guest::{self, Guest};
use crate::image;
use crate::podman::Podman;
use crate::process::Talk;
use crate::report::Report;
use crate::runtime::{Runtime, START_LIMIT};

pub(crate) const POLICY: &str = "\
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata:
  name: starts
  namespace: default
spec:
  selector:
    matchLabels:
      app: starts
  process:
    matchPaths:
      - path: /attack
  action: Block
";

/// The same outside of Kubernetes.
const PODMAN_POLICY: &str = "\
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata:
  name: starts-podman
  namespace: container_namespace
spec:
  selector:
    matchLabels:
      app: starts
  process:
    matchPaths:
      - path: /attack
  action: Block
";

/// With `--ci`, by each of two runtimes on each of three kernels: a hundred in a run of hack/test.
const CI_ENTRYPOINTS: u32 = 17;

/// Runs the suite.
pub(crate) fn run(guest: &Guest, suite: &str, report: &mut Report) -> Result<()> {
    guest.configure("enforce", "audit")?;
    guest.set_policies(&[("starts", POLICY), ("starts-podman", PODMAN_POLICY)])?;
    let root = guest.work.join("starts/root");
    image::make(&root)?;
    image::add_programs(guest, &root)?;
    let out = guest.work.join("starts/out");
    guest::make_open_directory(&out)?;
    let place = Place { root, out };
    for runtime in guest.runtimes.iter().copied() {
        let name = format!("{suite}/{}/entrypoint", runtime.name());
        if guest.wants(&name) {
            report.run(&name, || entrypoints(guest, &place, runtime, guest.repetitions(CI_ENTRYPOINTS, 500)));
        }
        let name = format!("{suite}/{}/exec", runtime.name());
        if guest.wants(&name) {
            report.run(&name, || execs(guest, &place, runtime, guest.repetitions(5, 100)));
        }
    }
    let name = format!("{suite}/podman");
    if guest.wants(&name) {
        match Podman::prepare(guest)? {
            None => report.skip(&name, "podman is not installed"),
            Some(podman) => {
                let podman = if guest.carried { podman.with(guest, guest.runtimes[0]) } else { podman };
                let count = guest.repetitions(2, 50);
                report.run(&format!("{name}/entrypoint"), || podman_entrypoints(guest, &place, &podman, count));
                report.run(&format!("{name}/exec"), || podman_execs(&place, &podman, count));
            }
        }
    }
    Ok(())
}

struct Place {
    root: PathBuf,
    out: PathBuf,
}

impl Place {
    fn mark(&self) -> PathBuf {
        self.out.join("mark")
    }

    fn bundle(&self, id: &str, arguments: &[&str]) -> Bundle {
        let mut bundle = Bundle::new(id, &self.root, arguments);
        bundle.facts.labels.insert("app".to_owned(), "starts".to_owned());
        bundle.binds.push((self.out.clone(), "/out".to_owned()));
        bundle
    }
}

fn marks(mark: &Path, round: u32, what: &str) -> std::result::Result<(), String> {
    if mark.exists() { Err(format!("round {round}: {what} ran")) } else { Ok(()) }
}

fn entrypoints(guest: &Guest, place: &Place, runtime: Runtime, count: u32) -> Result<std::result::Result<(), String>> {
    let mut free = place.bundle("starts-control", &["/attack", "--mark"]);
    free.hooked = false;
    guest::remove_tree(&place.mark())?;
    let outcome = runtime.run(&Guest { carried: false, ..guest.clone() }, &free)?;
    if !place.mark().exists() {
        return Ok(Err(format!("without a policy the entrypoint left no mark either ({})", outcome.complaint())));
    }
    guest::remove_tree(&place.mark())?;
    for round in 0..count {
        let bundle = place.bundle(&format!("starts-{}-{round}", runtime.name()), &["/attack", "--mark"]);
        let outcome = runtime.run(guest, &bundle)?;
        if let Err(why) = marks(&place.mark(), round, "the denied entrypoint") {
            return Ok(Err(why));
        }
        // A start that failed for another reason would prove nothing.
        if !refused_start(guest, &outcome.stderr) {
            return Ok(Err(format!("round {round}: not the refusal that was expected: {}", outcome.complaint())));
        }
    }
    let other = runtime.run(guest, &place.bundle("starts-other", &["/bin/true"]))?;
    Ok(if other.success() { Ok(()) } else { Err(format!("another entrypoint is refused, too: {}", other.complaint())) })
}

/// The same for an entrypoint, which under AppArmor the gate hook refuses; crun tells no more of hooks than that one failed.
pub(crate) fn refused_start(guest: &Guest, text: &str) -> bool {
    refused(text) || (guest.carried && text.contains("error executing hook"))
}

/// What runtimes say when execve gives EACCES or EPERM.
pub(crate) fn refused(text: &str) -> bool {
    let text = text.to_lowercase();
    text.contains("permission denied") || text.contains("operation not permitted")
}

fn execs(guest: &Guest, place: &Place, runtime: Runtime, count: u32) -> Result<std::result::Result<(), String>> {
    let id = format!("starts-exec-{}", runtime.name());
    guest::remove_tree(&place.mark())?;
    let mut container = runtime.start(guest, &place.bundle(&id, &["/probe", "--drive"]))?;
    container.dialogue.line(START_LIMIT)?;
    // The first exec is the one that a late policy would miss.
    for round in 0..count {
        let outcome = runtime.exec(guest, &id, &["/attack", "--mark"])?;
        if let Err(why) = marks(&place.mark(), round, "the denied program") {
            return Ok(Err(why));
        }
        if !refused(&outcome.stderr) {
            return Ok(Err(format!("round {round}: not the refusal that was expected: {}", outcome.complaint())));
        }
    }
    let allowed = runtime.exec(guest, &id, &["/bin/true"])?;
    if !allowed.success() {
        return Ok(Err(format!("an exec that no rule forbids failed: {}", allowed.complaint())));
    }
    container.stop();
    Ok(Ok(()))
}

fn podman_entrypoints(guest: &Guest, place: &Place, podman: &Podman, count: u32) -> Result<std::result::Result<(), String>> {
    guest::remove_tree(&place.mark())?;
    let volume = format!("{}:/out", place.out.display());
    let free = podman.run(&["--rm", "-v", &volume], &["/attack", "--mark"])?;
    if !place.mark().exists() {
        return Ok(Err(format!("without the label the entrypoint left no mark either ({})", free.complaint())));
    }
    guest::remove_tree(&place.mark())?;
    for round in 0..count {
        let outcome = podman.run(&["--rm", "--label", "app=starts", "-v", &volume], &["/attack", "--mark"])?;
        if let Err(why) = marks(&place.mark(), round, "the denied entrypoint") {
            return Ok(Err(why));
        }
        if !refused_start(guest, &outcome.stderr) {
            return Ok(Err(format!("round {round}: not the refusal that was expected: {}", outcome.complaint())));
        }
    }
    Ok(Ok(()))
}

fn podman_execs(place: &Place, podman: &Podman, count: u32) -> Result<std::result::Result<(), String>> {
    const NAME: &str = "portcullis-starts";
    guest::remove_tree(&place.mark())?;
    let volume = format!("{}:/out", place.out.display());
    podman.call(&["rm", "-f", "--ignore", "-t", "0", NAME])?;
    let started = podman.run(&["-d", "--name", NAME, "--label", "app=starts", "-v", &volume], &["/bin/sleep", "100000"])?;
    if !started.success() {
        return Ok(Err(format!("the container did not start: {}", started.complaint())));
    }
    let mut result = Ok(());
    for round in 0..count {
        let outcome = podman.call(&["exec", NAME, "/attack", "--mark"])?;
        result = marks(&place.mark(), round, "the denied program");
        if result.is_ok() && !refused(&outcome.stderr) {
            result = Err(format!("round {round}: not the refusal that was expected: {}", outcome.complaint()));
        }
        if result.is_err() {
            break;
        }
    }
    podman.call(&["rm", "-f", "-t", "0", NAME])?;
    Ok(result)
}
