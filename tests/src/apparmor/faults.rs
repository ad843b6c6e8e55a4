//! What is wrong refuses the container, or is told.

use std::path::Path;

use super::{PROFILES, profiles};
use crate::bundle::Bundle;
use crate::guest::{self, Guest};
use crate::process::Talk;
use crate::report::Report;
use crate::runtime::{Runtime, START_LIMIT};
use crate::{Failure, Result, image};

const POLICY: &str = "\
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata:
  name: faults
  namespace: default
spec:
  selector:
    matchLabels:
      app: faults
  file:
    matchPaths:
      - path: /etc/hosts
  action: Block
";

const PARSER: &str = "/usr/sbin/apparmor_parser";

type Checked = std::result::Result<(), String>;
type Test = fn(&Guest, &Path) -> Result<Checked>;

pub(super) fn run(guest: &Guest, report: &mut Report) -> Result<()> {
    guest.set_policies(&[("faults", POLICY)])?;
    let root = guest.work.join("apparmor/root");
    image::make(&root)?;
    image::add_programs(guest, &root)?;
    let tests: [(&str, Test); 4] = [
        ("without-a-carrier", without_a_carrier),
        ("not-compiled", not_compiled),
        ("removed-by-hand", removed_by_hand),
        ("permit", permit),
    ];
    for (name, test) in tests {
        let name = format!("apparmor/faults/{name}");
        if guest.wants(&name) {
            report.run(&name, || test(guest, &root));
        }
    }
    guest.configure("enforce", "audit")
}

fn bundle(root: &Path, id: &str, arguments: &[&str]) -> Bundle {
    let mut bundle = Bundle::new(id, root, arguments);
    bundle.facts.labels.insert("app".to_owned(), "faults".to_owned());
    bundle
}

/// runc where there is one: crun does not tell what a hook says.
fn runtime(guest: &Guest) -> Runtime {
    guest.runtimes.iter().copied().find(|runtime| *runtime == Runtime::Runc).unwrap_or(guest.runtimes[0])
}

/// The gate hook refuses a container whose engine does not run it by `portcullis-runtime`.
fn without_a_carrier(guest: &Guest, root: &Path) -> Result<Checked> {
    let plain = Guest { carried: false, ..guest.clone() };
    let outcome = runtime(&plain).run(&plain, &bundle(root, "faults-plain", &["/bin/true"]))?;
    if outcome.success() || !outcome.stderr.contains("run it by portcullis-runtime") {
        return Ok(Err(format!("it is not refused: {}", outcome.complaint())));
    }
    let mut other = bundle(root, "faults-other", &["/bin/true"]);
    other.facts.labels.clear();
    let outcome = runtime(&plain).run(&plain, &other)?;
    Ok(if outcome.success() { Ok(()) } else { Err(format!("one that no policy is for is refused: {}", outcome.complaint())) })
}

/// A parser that fails, and one that is not there.
fn not_compiled(guest: &Guest, root: &Path) -> Result<Checked> {
    let aside = format!("{PARSER}.aside");
    let moved = |from: &str, to: &str| std::fs::rename(from, to).map_err(|source| Failure::io(from, source));
    guest::remove_tree(Path::new("/run/portcullis/apparmor"))?;
    moved(PARSER, &aside)?;
    let attempt = |message: &str| -> Result<Checked> {
        let outcome = runtime(guest).run(guest, &bundle(root, "faults-parser", &["/bin/true"]))?;
        let refused = !outcome.success() && outcome.stderr.contains(message);
        Ok(if refused { Ok(()) } else { Err(format!("not refused by {message:?}: {}", outcome.complaint())) })
    };
    let absent = attempt("apparmor_parser is in none of");
    let failing = guest::write_executable(Path::new(PARSER), b"#!/bin/sh\necho 'syntax error' >&2\nexit 1\n")
        .and_then(|()| attempt("did not accept the profile"));
    moved(&aside, PARSER)?;
    if let Err(why) = absent?.and(failing?) {
        return Ok(Err(why));
    }
    let outcome = runtime(guest).run(guest, &bundle(root, "faults-parser", &["/bin/true"]))?;
    Ok(if outcome.success() { Ok(()) } else { Err(format!("not with the parser either: {}", outcome.complaint())) })
}

/// Tasks whose profile is removed are unconfined for good; then nobody may think that they are not.
fn removed_by_hand(guest: &Guest, root: &Path) -> Result<Checked> {
    let id = "faults-removed";
    let mut container = runtime(guest).start(guest, &bundle(root, id, &["/probe", "--drive"]))?;
    container.dialogue.line(START_LIMIT)?;
    let state = |guest: &Guest| guest.portcullis(&["who", id]);
    let before = state(guest)?;
    if !before.stdout.contains("state     armed") {
        return Ok(Err(format!("it is not armed: {} {}", before.stdout, before.complaint())));
    }
    let remove = Path::new(PROFILES).with_file_name(".remove");
    for profile in profiles()? {
        guest::write(&remove, profile.as_bytes())?;
    }
    let after = state(guest)?;
    let status = guest.portcullis(&["status"])?;
    container.stop();
    if !after.stdout.contains("NOT in force") || status.success() || !status.stdout.contains("LOST") {
        return Ok(Err(format!("nobody says so: {} {}", after.stdout, status.stdout)));
    }
    Ok(Ok(()))
}

/// With fail policy `permit`, what cannot be confined starts, which is told and recorded; what is denied stays denied.
fn permit(guest: &Guest, root: &Path) -> Result<Checked> {
    guest.configure("permit", "audit")?;
    let aside = format!("{PARSER}.aside");
    let moved = |from: &str, to: &str| std::fs::rename(from, to).map_err(|source| Failure::io(from, source));
    let plain = Guest { carried: false, ..guest.clone() };
    let mut container = runtime(&plain).start(&plain, &bundle(root, "faults-permit", &["/probe", "--drive"]))?;
    container.dialogue.line(START_LIMIT)?;
    let status = guest.portcullis(&["status"])?;
    container.stop();
    if status.success() || !status.stdout.contains("UNPROTECTED faults-permit") {
        return Ok(Err(format!("it is not told: {}", status.stdout)));
    }
    // Who could not say what a label means gives none.
    guest::remove_tree(Path::new("/run/portcullis/apparmor"))?;
    moved(PARSER, &aside)?;
    let outcome = runtime(guest).run(guest, &bundle(root, "faults-permit", &["/bin/true"]));
    moved(&aside, PARSER)?;
    let outcome = outcome?;
    let warned = outcome.success() && outcome.stderr.contains("WITHOUT PROTECTION");
    Ok(if warned { Ok(()) } else { Err(format!("without a parser: {}", outcome.complaint())) })
}
