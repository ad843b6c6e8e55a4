//! Many containers with a policy of their own each, armed at once: the hook is run for a thousand processes in a thousand
//! cgroups, which costs less than a thousand containers and is the same to the kernel.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::bundle::{Bundle, Facts};
use crate::guest::{self, Guest};
use crate::process::{self, Dialogue, Talk};
use crate::report::Report;
use crate::{Failure, Result, image};

const CGROUPS: &str = "/sys/fs/cgroup/portcullis-scale";
const HOOK_LIMIT: Duration = Duration::from_secs(120);

/// Runs the suite.
pub(crate) fn run(guest: &Guest, report: &mut Report) -> Result<()> {
    if guest.without {
        report.skip("scale", "there is nothing to count without Portcullis");
        return Ok(());
    }
    let count = guest.repetitions(100, 1000);
    guest.configure("enforce", "audit")?;
    let root = guest.work.join("scale/root");
    image::make(&root)?;
    let before = slab()?;
    let mut members = Vec::new();
    let begin = Instant::now();
    let mut result = Ok(());
    for number in 0..count {
        match arm(guest, &root, number) {
            Ok(member) => members.push(member),
            Err(error) => {
                result = Err(format!("container {number}: {error}"));
                break;
            }
        }
    }
    let each = begin.elapsed().as_millis() / u128::from(count.max(1));
    report.check(&format!("scale/arm-{count}"), result);
    report.run("scale/list", || {
        let status = guest.portcullis(&["status", "-o", "json"])?;
        let listed = (0..count).filter(|number| status.stdout.contains(&format!("\"scale-{number}\""))).count();
        Ok(if listed == members.len() { Ok(()) } else { Err(format!("{listed} of {} are listed", members.len())) })
    });
    report.run("scale/denied", || denied(&mut members));
    println!("# {count} sets: {each} ms each, kernel memory {} KiB more", slab()?.saturating_sub(before));
    let status = guest.portcullis(&["status"])?;
    for line in status.stdout.lines().take(12) {
        println!("# {line}");
    }
    let mut left = 0;
    for member in &mut members {
        left += u32::from(member.disarm(guest).is_err());
    }
    report.check("scale/disarm", if left == 0 { Ok(()) } else { Err(format!("{left} could not be disarmed")) });
    drop(members);
    let _ = std::fs::remove_dir(CGROUPS);
    Ok(())
}

/// One armed process.
struct Member {
    number: u32,
    cgroup: PathBuf,
    process: Dialogue,
    state: String,
}

impl Member {
    fn disarm(&mut self, guest: &Guest) -> Result<()> {
        let mut hook = Command::new(guest.binaries.join("portcullis-hook"));
        hook.arg("--config").arg(&guest.config).arg("poststop");
        process::must(&mut hook, self.state.as_bytes(), HOOK_LIMIT).map(|_| ())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.process.close(Duration::from_secs(5));
        let _ = std::fs::remove_dir(&self.cgroup);
    }
}

/// A shell in its own cgroup and mount namespace, which waits for a line and then, in another root as a container's init
/// would, tries to read the file that its policy denies; armed as the container `scale-NUMBER`.
fn arm(guest: &Guest, root: &Path, number: u32) -> Result<Member> {
    let cgroup = Path::new(CGROUPS).join(format!("scale-{number}"));
    guest::make_directory(&cgroup)?;
    let file = format!("/data/{number}");
    guest::write(&root.join(file.trim_start_matches('/')), b"readable\n")?;
    let script = format!("echo ready; read line; exec chroot {} /bin/cat {file}", root.display());
    let enter = format!("echo $$ >{}/cgroup.procs; exec unshare --mount sh -c '{script}'", cgroup.display());
    let mut process = Dialogue::start(Command::new("sh").args(["-c", &enter]))?;
    process.line(Duration::from_secs(60))?;
    let text = format!(
        "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata:\n  name: scale-{number}\n  namespace: default\n\
         spec:\n  selector:\n    matchLabels:\n      app: scale-{number}\n  file:\n    matchPaths:\n      - path: {file}\n  action: Block\n"
    );
    guest.put_policies(&[("scale", &text)])?;
    let id = format!("scale-{number}");
    let mut bundle = Bundle::new(&id, root, &["/bin/sh"]);
    bundle.facts = Facts { name: id.clone(), namespace: "default".to_owned(), ..Facts::default() };
    bundle.facts.labels.insert("app".to_owned(), id.clone());
    let directory = bundle.write(guest)?;
    let config: serde_json::Value = std::fs::read(directory.join("config.json"))
        .map_err(|source| Failure::io(directory.display(), source))
        .map(|bytes| serde_json::from_slice(&bytes).unwrap_or_default())?;
    let state = json!({
        "ociVersion": "1.0.2", "id": id, "status": "creating", "pid": process.pid(), "bundle": directory,
        "annotations": config["annotations"],
    })
    .to_string();
    let mut hook = Command::new(guest.binaries.join("portcullis-hook"));
    hook.arg("--config").arg(&guest.config).args(["--deadline", "60", "createRuntime"]);
    process::must(&mut hook, state.as_bytes(), HOOK_LIMIT)?;
    Ok(Member { number, cgroup, process, state })
}

/// The first, a middle one and the last meet their own policy.
fn denied(members: &mut [Member]) -> Result<std::result::Result<(), String>> {
    let (Some(last), middle) = (members.len().checked_sub(1), members.len() / 2) else {
        return Ok(Err("nothing is armed".to_owned()));
    };
    for index in std::collections::BTreeSet::from([0, middle, last]) {
        let Some(member) = members.get_mut(index) else { continue };
        member.process.tell("go")?;
        if let Ok(line) = member.process.line(Duration::from_secs(30)) {
            return Ok(Err(format!("scale-{} could read its file: {line}", member.number)));
        }
    }
    Ok(Ok(()))
}

/// What the kernel uses for itself, in KiB.
fn slab() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").map_err(|source| Failure::io("/proc/meminfo", source))?;
    let of = |name: &str| -> u64 {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|number| number.parse().ok())
            .unwrap_or(0)
    };
    Ok(of("Slab:") + of("VmallocUsed:") + of("Percpu:"))
}
