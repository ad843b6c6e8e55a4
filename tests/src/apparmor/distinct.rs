//! Many containers at once, each with a policy of its own: each has its own profile, which denies what its own rule names and
//! nothing else, and no profile is left when they are gone.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{profiles, read};
use crate::bundle::Bundle;
use crate::guest::{self, Guest};
use crate::process::Talk;
use crate::report::Report;
use crate::runtime::{Container, Runtime, START_LIMIT};
use crate::{Failure, Result, image};

/// Says which of all files cannot be read, for each line that it is told. A shell's own redirection: nothing is executed.
const READER: &str = "cd /data; echo ready; while read go; do denied=; for file in *; do \
    { read x <$file; } 2>/dev/null || denied=\"$denied $file\"; done; echo \"denied$denied\"; done";
/// One pass over all files, under emulation.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

type Checked = std::result::Result<(), String>;

pub(super) fn run(guest: &Guest, report: &mut Report) -> Result<()> {
    const NAME: &str = "apparmor/distinct";
    if !guest.wants(NAME) {
        return Ok(());
    }
    let count = guest.repetitions(20, 200);
    let root = guest.work.join("apparmor/distinct-root");
    image::make(&root)?;
    image::add_programs(guest, &root)?;
    let mut policies = Vec::new();
    for number in 0..count {
        guest::write(&root.join("data").join(file(number)), b"readable\n")?;
        policies.push((format!("distinct-{number}"), policy(number)));
    }
    let documents: Vec<(&str, &str)> = policies.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    guest.set_policies(&documents)?;
    // The faster one; each has a life of its own in the other tests.
    let Some(runtime) = guest.runtimes.first().copied() else { return Ok(()) };
    report.run(&format!("{NAME}-{count}"), || together(guest, &root, runtime, count));
    report.run(&format!("{NAME}-{count}/removed"), none_left);
    Ok(())
}

fn file(number: u32) -> String {
    format!("file-{number}")
}

fn policy(number: u32) -> String {
    format!(
        "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata:\n  name: distinct-{number}\n  namespace: default\n\
         spec:\n  selector:\n    matchLabels:\n      app: distinct-{number}\n  file:\n    matchPaths:\n      - path: /data/{}\n  \
         action: Block\n",
        file(number)
    )
}

/// All run at once before the first is asked.
fn together(guest: &Guest, root: &Path, runtime: Runtime, count: u32) -> Result<Checked> {
    let begin = Instant::now();
    let mut containers = Vec::new();
    for number in 0..count {
        let id = format!("distinct-{number}");
        let mut bundle = Bundle::new(&id, root, &["/bin/sh", "-c", READER]);
        bundle.facts.labels.insert("app".to_owned(), id.clone());
        let mut container = runtime.start(guest, &bundle)?;
        container.line(START_LIMIT)?;
        containers.push((id, container));
    }
    let each = begin.elapsed().as_millis() / u128::from(count.max(1));
    println!("# {count} containers with a policy of their own: {each} ms each");
    let loaded: BTreeSet<String> = profiles()?.into_iter().collect();
    let mut theirs = BTreeSet::new();
    for (number, (id, container)) in containers.iter_mut().enumerate() {
        match in_force(guest, id)? {
            Ok(profile) if !loaded.contains(&profile) => return Ok(Err(format!("{id}: the kernel does not list {profile}"))),
            Ok(profile) => drop(theirs.insert(profile)),
            Err(why) => return Ok(Err(format!("{id}: {why}"))),
        }
        let expected = format!("denied file-{number}");
        let said = asked(container)?;
        if said != expected {
            return Ok(Err(format!("{id}: {said:?} in place of {expected:?}")));
        }
    }
    if theirs.len() != containers.len() || theirs != loaded {
        return Ok(Err(format!("{} containers, {} profiles of theirs, {} loaded", containers.len(), theirs.len(), loaded.len())));
    }
    for (_, container) in containers {
        container.stop();
    }
    Ok(Ok(()))
}

fn asked(container: &mut Container) -> Result<String> {
    container.tell("go")?;
    container.line(ANSWER_LIMIT)
}

/// The profile of ours that the kernel says confines the container's first process, in enforce mode.
fn in_force(guest: &Guest, id: &str) -> Result<std::result::Result<String, String>> {
    let procs = Path::new("/sys/fs/cgroup/portcullis-e2e").join(id).join("cgroup.procs");
    let text = read(&procs)?;
    let Some(pid) = text.lines().next() else {
        return Err(Failure::Answer { what: procs.display().to_string(), text });
    };
    let label = read(&Path::new("/proc").join(pid).join("attr/apparmor/current"))?;
    // Engines' profiles beside it are apart by `//&`; here there is none.
    let Some(profile) = label.trim_end().strip_suffix(" (enforce)").filter(|name| name.starts_with("portcullis.")) else {
        return Ok(Err(format!("it is confined by {label:?}")));
    };
    let who = guest.portcullis(&["who", id])?;
    Ok(if who.stdout.contains(profile) {
        Ok(profile.to_owned())
    } else {
        Err(format!("who: {} {}", who.stdout, who.complaint()))
    })
}

fn none_left() -> Result<Checked> {
    let left = profiles()?;
    Ok(if left.is_empty() { Ok(()) } else { Err(format!("{} profiles stay: {left:?}", left.len())) })
}
