//! The life of a Podman container that AppArmor confines.

use crate::Result;
use crate::guest::Guest;
use crate::podman::Podman;
use crate::process::Outcome;
use crate::report::Report;
use crate::runtime::Runtime;

use super::profiles;

const NAME: &str = "portcullis-life";
const POLICY: &str = "\
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata:
  name: life
spec:
  selector:
    matchLabels:
      app: life
  file:
    matchPaths:
      - path: /etc/hosts
  process:
    matchPaths:
      - path: /attack
  network:
    matchProtocols:
      - protocol: raw
  capabilities:
    matchCapabilities:
      - capability: chown
  action: Block
";

type Checked = std::result::Result<(), String>;

/// Ways to start one.
const WAYS: &[(&str, &[&str])] =
    &[("plain", &[]), ("no-new-privileges", &["--security-opt=no-new-privileges"]), ("privileged", &["--privileged"])];

/// Podman with its image, where it was needed.
pub(super) fn run(guest: &Guest, report: &mut Report) -> Result<Option<Podman>> {
    let name = |runtime: Runtime, what: &str| format!("apparmor/podman/{}/{what}", runtime.name());
    let ways = guest.runtimes.iter().flat_map(|runtime| WAYS.iter().map(move |(what, options)| (*runtime, *what, *options)));
    // The more particular ways by one runtime each, where there is to be little.
    let (first, last) = (guest.runtimes.first().copied(), guest.runtimes.last().copied());
    let by_one = |runtime, what: &str| match what {
        "no-new-privileges" => Some(runtime) == first,
        "privileged" => Some(runtime) == last,
        _ => true,
    };
    let ways: Vec<_> =
        ways.filter(|(runtime, what, _)| guest.wants(&name(*runtime, what)) && (!guest.ci || by_one(*runtime, what))).collect();
    if ways.is_empty() {
        return Ok(None);
    }
    let Some(podman) = Podman::prepare(guest)? else {
        report.skip("apparmor/podman", "podman is not installed");
        return Ok(None);
    };
    guest.set_policies(&[("life", POLICY)])?;
    for (runtime, what, options) in ways {
        let podman = podman.with(guest, runtime);
        report.run(&name(runtime, what), || life(guest, &podman, runtime, options));
        podman.call(&["rm", "-f", "--ignore", "-t", "0", NAME])?;
    }
    Ok(Some(podman))
}

/// Started, asked, stopped, started again, removed.
fn life(guest: &Guest, podman: &Podman, runtime: Runtime, options: &[&str]) -> Result<Checked> {
    let options = [&["-d", "--name", NAME, "--label", "app=life"], options].concat();
    let script = "cat /etc/hosts; echo logged; trap 'exit 0' TERM; while :; do sleep 0.2; done";
    let started = podman.run(&options, &["/bin/sh", "-c", script])?;
    if !started.success() {
        return Ok(Err(format!("it does not start: {}", started.complaint())));
    }
    for (what, arguments, denied) in [
        ("a denied file", &["/bin/cat", "/etc/hosts"][..], true),
        ("the same by a link of its own", &["/bin/sh", "-c", "ln -s /etc/hosts /tmp/h; cat /tmp/h"], true),
        ("another file", &["/bin/cat", "/etc/passwd"], false),
        ("a denied program", &["/bin/sh", "-c", "/attack --list"], true),
        ("a denied program by exec", &["/attack", "--list"], true),
        ("another program", &["true"], false),
        ("a denied capability", &["/bin/sh", "-c", "touch /tmp/c; chown 7 /tmp/c"], true),
        ("another capability", &["/bin/sh", "-c", "touch /tmp/m; chmod 4755 /tmp/m"], false),
    ] {
        let done = podman.call(&[&["exec", NAME][..], arguments].concat())?;
        if let Err(why) = as_expected(what, &done, denied) {
            return Ok(Err(why));
        }
    }
    let logs = podman.call(&["logs", NAME])?;
    if !logs.stdout.contains("logged") || !refused(&logs.stderr) {
        return Ok(Err(format!("the first program was not denied the file: {} {}", logs.stdout, logs.stderr)));
    }
    let who = guest.portcullis(&["who", NAME])?;
    if !who.stdout.contains("AppArmor, profile portcullis.") || !who.stdout.contains("state     armed") {
        return Ok(Err(format!("who: {} {}", who.stdout, who.complaint())));
    }
    for arguments in [&["stop", "-t", "20", NAME][..], &["start", NAME], &["kill", NAME], &["rm", "-f", "-t", "5", NAME]] {
        let done = podman.call(arguments)?;
        if !done.success() {
            return Ok(Err(format!("podman {}: {}", arguments[0], done.complaint())));
        }
        if arguments[0] == "stop" && !profiles()?.is_empty() {
            return Ok(Err(format!("a profile stays when nobody has it: {:?}", profiles()?)));
        }
    }
    match profiles()?.as_slice() {
        [] => Ok(Ok(())),
        left => Ok(Err(format!("{} leaves profiles: {left:?}", runtime.name()))),
    }
}

fn refused(text: &str) -> bool {
    crate::starts::refused(text)
}

fn as_expected(what: &str, done: &Outcome, denied: bool) -> Checked {
    match (denied, done.success()) {
        (true, false) if refused(&done.stderr) => Ok(()),
        (false, true) => Ok(()),
        (true, _) => Err(format!("{what} is not denied: {} {}", done.stdout, done.complaint())),
        (false, false) => Err(format!("{what} is not let through: {}", done.complaint())),
    }
}
