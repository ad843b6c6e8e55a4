//! What happens when something is wrong: the container does not start, or starts and that is said, as the operator chose;
//! and what is right goes on.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::Result;
use crate::bundle::Bundle;
use crate::guest::{self, COMMAND_LIMIT, Guest};
use crate::image;
use crate::process::{self, Outcome};
use crate::report::Report;
use crate::runtime::Runtime;

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
  process:
    matchPaths:
      - path: /attack
  action: Block
";

const NOT_YAML: &str = "{ this is: [not a document\n";
/// Well-formed, and wrong in a word.
const MISSPELT: &str = "\
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata:
  name: misspelt
  namespace: default
spec:
  selector:
    matchLabels:
      app: faults
  process:
    matchPath:
      - path: /bin/true
  action: Block
";

/// States that no runtime writes.
const BAD_STATES: &[(&str, &str)] = &[
    ("empty", ""),
    ("not-json", "hello"),
    ("cut", "{\"ociVersion\":\"1.0.2\",\"id\":\"x\",\"pi"),
    ("array", "[]"),
    ("no-pid", "{\"ociVersion\":\"1.0.2\",\"id\":\"x\",\"status\":\"creating\",\"bundle\":\"/tmp\"}"),
    ("pid-text", "{\"id\":\"x\",\"status\":\"creating\",\"pid\":\"1; id\",\"bundle\":\"/tmp\"}"),
    ("pid-negative", "{\"id\":\"x\",\"status\":\"creating\",\"pid\":-1,\"bundle\":\"/tmp\"}"),
    ("pid-vanished", "{\"id\":\"x\",\"status\":\"creating\",\"pid\":4194000,\"bundle\":\"/tmp\"}"),
    ("id-traversal", "{\"id\":\"../../etc/x\",\"status\":\"creating\",\"pid\":1,\"bundle\":\"/tmp\"}"),
    ("bundle-relative", "{\"id\":\"x\",\"status\":\"creating\",\"pid\":1,\"bundle\":\"tmp\"}"),
    ("bundle-missing", "{\"id\":\"x\",\"status\":\"creating\",\"pid\":1,\"bundle\":\"/nonexistent\"}"),
];

/// A hook that does not give up in this time hangs.
const HOOK_LIMIT: Duration = Duration::from_secs(60);

/// Runs the suite.
pub(crate) fn run(guest: &Guest, report: &mut Report) -> Result<()> {
    if guest.without {
        report.skip("faults", "there is nothing to be wrong without Portcullis");
        return Ok(());
    }
    guest.configure("enforce", "audit")?;
    guest.set_policies(&[("faults", POLICY)])?;
    for (name, state) in BAD_STATES {
        let test = format!("faults/state/{name}");
        if guest.wants(&test) {
            report.run(&test, || bad_state(guest, state));
        }
    }
    let huge = format!("{{\"id\":\"x\",\"annotations\":{{\"a\":\"{}\"}}}}", "a".repeat(8 << 20));
    report.run("faults/state/huge", || bad_state(guest, &huge));
    let root = guest.work.join("faults/root");
    image::make(&root)?;
    image::add_programs(guest, &root)?;
    guest::make_open_directory(&guest.work.join("faults/out"))?;
    for runtime in guest.runtimes.iter().copied().take(if guest.ci { 1 } else { 2 }) {
        policies(guest, report, runtime)?;
        kernel(guest, report, runtime)?;
    }
    guest.configure("enforce", "audit")?;
    guest.load()
}

/// The hook says no, says why, and does not take long.
fn bad_state(guest: &Guest, state: &str) -> Result<std::result::Result<(), String>> {
    let begin = Instant::now();
    let mut hook = Command::new(guest.binaries.join("portcullis-hook"));
    hook.arg("--config").arg(&guest.config).arg("createRuntime");
    let outcome = process::run(&mut hook, state.as_bytes(), HOOK_LIMIT)?;
    Ok(match outcome.code {
        Some(1) if !outcome.stderr.trim().is_empty() && !outcome.stderr.contains("panicked") => Ok(()),
        Some(1) => Err(format!("no reason was given: {:?}", outcome.stderr)),
        _ => Err(format!("{} after {} ms", outcome.complaint(), begin.elapsed().as_millis())),
    })
}

/// What became of a start: whether the entrypoint ran.
struct Start {
    ran: bool,
    outcome: Outcome,
}

fn start(guest: &Guest, runtime: Runtime, id: &str, program: &str, prefix: &[&str]) -> Result<Start> {
    let out = guest.work.join("faults/out");
    guest::remove_tree(&out.join("mark"))?;
    let mut bundle = Bundle::new(&format!("faults-{id}"), &guest.work.join("faults/root"), &[program, "--mark"]);
    if program != "/attack" {
        bundle.arguments = vec!["/bin/sh".to_owned(), "-c".to_owned(), "echo mark >/out/mark".to_owned()];
    }
    bundle.facts.labels.insert("app".to_owned(), "faults".to_owned());
    bundle.binds.push((out.clone(), "/out".to_owned()));
    let outcome = runtime.run_under(guest, &bundle, prefix)?;
    Ok(Start { ran: out.join("mark").exists(), outcome })
}

/// Checks a start: did the entrypoint run, and does standard error say something of ours.
fn expect(start: &Start, ran: bool, says: &str) -> std::result::Result<(), String> {
    if start.ran != ran {
        let what = if start.ran { "the container started" } else { "the container did not start" };
        return Err(format!("{what}: {}", start.outcome.complaint()));
    }
    if !start.outcome.stderr.contains(says) {
        return Err(format!("nothing about {says:?} was said: {:?}", start.outcome.stderr));
    }
    Ok(())
}

fn policies(guest: &Guest, report: &mut Report, runtime: Runtime) -> Result<()> {
    let name = |test: &str| format!("faults/{}/{test}", runtime.name());
    report.run(&name("broken-policy-beside-a-good-one"), || {
        guest.put_policies(&[("a", NOT_YAML), ("b", MISSPELT), ("faults", POLICY)])?;
        let denied = start(guest, runtime, "beside", "/attack", &[])?;
        let free = start(guest, runtime, "beside-free", "/bin/sh", &[])?;
        Ok(expect(&denied, false, "").and_then(|()| expect(&free, true, "")))
    });
    report.run(&name("broken-policy-keeps-the-previous-version"), || {
        guest.set_policies(&[("faults", POLICY)])?;
        let before = start(guest, runtime, "previous", "/attack", &[])?;
        guest.put_policies(&[("faults", NOT_YAML)])?;
        let after = start(guest, runtime, "previous-broken", "/attack", &[])?;
        Ok(expect(&before, false, "").and_then(|()| expect(&after, false, "")))
    });
    for (fail, ran) in [("enforce", false), ("permit", true)] {
        report.run(&name(&format!("no-policy-directory-{fail}")), || {
            guest.configure(fail, "audit")?;
            guest::remove_tree(&guest.policies)?;
            // Neither a directory nor absent: nothing can be read from it.
            guest::write(&guest.policies, b"")?;
            let start = start(guest, runtime, "no-directory", "/bin/sh", &[]);
            guest::remove_tree(&guest.policies)?;
            start.map(|start| expect(&start, ran, ""))
        });
    }
    guest.configure("enforce", "audit")?;
    guest.set_policies(&[("faults", POLICY)])
}

/// The runtime, and so the hook, in a mount namespace without bpffs. The pins of everybody else stay.
fn kernel(guest: &Guest, report: &mut Report, runtime: Runtime) -> Result<()> {
    const NO_BPFFS: &[&str] = &["unshare", "--mount", "sh", "-c", "umount -l /sys/fs/bpf && exec \"$@\"", "sh"];
    report.run(&format!("faults/{}/no-bpffs-denied", runtime.name()), || {
        // The hook may help itself or refuse. It may not let it pass.
        let start = start(guest, runtime, "no-bpffs", "/attack", NO_BPFFS)?;
        Ok(expect(&start, false, ""))
    });
    report.run(&format!("faults/{}/no-bpffs-permit", runtime.name()), || {
        guest.configure("permit", "audit")?;
        let start = start(guest, runtime, "no-bpffs-permit", "/bin/sh", NO_BPFFS)?;
        Ok(expect(&start, true, ""))
    });
    guest.configure("enforce", "audit")?;
    report.run(&format!("faults/{}/unload-and-start", runtime.name()), || {
        process::must(guest.command().args(["unload", "--force"]), b"", COMMAND_LIMIT)?;
        // The hook loads what is not there.
        let denied = start(guest, runtime, "unloaded", "/attack", &[])?;
        Ok(expect(&denied, false, ""))
    });
    Ok(())
}
