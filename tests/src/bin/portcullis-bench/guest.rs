//! What system calls cost, in a virtual machine whose clock counts instructions: without enforcement, outside of containers,
//! in containers of 1, 100 and 1,000 rules, under the monitor of each class (`monitor.rs`), and under `AppArmor` (`apparmor.rs`).
//! `hack/bench vm` calls it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use portcullis_ebpf::{Kernel, Options, abi};
use portcullis_enforcer::automaton::{Budget, compile};

use crate::apparmor::{self, Profiles};
use crate::report::{Gate, Guest};
use crate::rules::{self, Mix};
use crate::{Failure, monitor, paths};

/// Rules of the containers.
const RULES: [usize; 3] = [1, 100, 1_000];
/// Rules of the profiles that are compared.
pub(crate) const PROFILE_RULES: usize = 100;
const CGROUP: &str = "/sys/fs/cgroup/portcullis-bench";

/// Instructions that an open and close of 64 bytes may cost more in a container.
const GATE_OPEN: f64 = 2_600.0;
/// And outside of one.
const GATE_OUTSIDE: f64 = 220.0;
/// A write is not looked at.
const GATE_WRITE: f64 = 0.0;
/// What fork and exec may take, against nothing loaded.
const GATE_FORK: f64 = 1.01;

/// Nanoseconds, which are instructions, by operation.
pub(crate) type Costs = BTreeMap<String, f64>;

/// The container: a root directory of its own in a mount namespace of its own, in a cgroup of its own.
pub(crate) struct Container {
    root: PathBuf,
    long: Vec<u8>,
    short: Vec<u8>,
}

impl Container {
    /// `ops` is the measuring program; what else is needed lies beside it.
    fn make(ops: &Path) -> Result<Container, Failure> {
        let root = std::env::temp_dir().join("portcullis-bench-root");
        let [long, short] = [paths::path(64, 7), paths::path(12, 3)];
        for path in [&long, &short] {
            let file = root.join(OsStr::from_bytes(&path[1..]));
            fs::create_dir_all(file.parent().ok_or("a path has a parent")?)?;
            fs::write(file, b"x")?;
        }
        fs::copy(ops, root.join("ops"))?;
        // Under this name it ends at once.
        fs::copy(ops, root.join("true"))?;
        // AppArmor is spoken to through it.
        fs::create_dir_all(root.join("proc"))?;
        let mounted = Command::new("mount").args(["--bind", "/proc"]).arg(root.join("proc")).status()?;
        if !mounted.success() {
            return Err(format!("mount --bind /proc: {mounted}").into());
        }
        fs::create_dir_all(CGROUP)?;
        Ok(Container { root, long, short })
    }

    /// Runs the measuring program inside, in `cgroup`, after `prologue`.
    pub(crate) fn run(&self, cgroup: &str, prologue: &str) -> Result<Costs, Failure> {
        let script = format!(
            "set -e; echo $$ > {cgroup}/cgroup.procs; {prologue} exec {root}/ops enter {root} \"$@\"",
            root = self.root.display()
        );
        let output = Command::new("sh")
            .args(["-c", &script, "sh"])
            .args([OsStr::from_bytes(&self.long), OsStr::from_bytes(&self.short)])
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            return Err(format!("ops: {}: {}{text}", output.status, String::from_utf8_lossy(&output.stderr)).into());
        }
        let line = |line: &str| Some((line.split_once(' ')?.0.to_owned(), line.split_once(' ')?.1.parse().ok()?));
        Ok(text.lines().filter_map(line).collect())
    }

    pub(crate) fn mix(&self, count: usize) -> Mix {
        rules::mixed(count, &[self.long.clone(), self.short.clone()])
    }
}

/// Measures everything; whether the gates are kept.
pub(crate) fn measure(ops: &Path, report: &mut Guest) -> Result<bool, Failure> {
    let container = Container::make(ops)?;
    // A machine that has just booted has other things to do: the first measurement does not count.
    container.run("/sys/fs/cgroup", "")?;
    let none = container.run("/sys/fs/cgroup", "")?;
    report.add("nothing loaded", None, &none);

    let begun = Instant::now();
    let kernel = Kernel::load(Options::default())?;
    let load_ms = begun.elapsed().as_secs_f64() * 1e3;
    let programs = kernel.programs()?;
    report.kernel(&programs, kernel.memory()?, load_ms);
    let outside = container.run("/sys/fs/cgroup", "")?;
    report.add("loaded, outside", Some(&none), &outside);

    let mut inside = Costs::new();
    for (slot, &count) in RULES.iter().enumerate() {
        let slot = u32::try_from(slot)?;
        arm(&kernel, slot, &container.mix(count))?;
        let costs = container.run(CGROUP, "")?;
        report.add(&format!("in a container, {count} rules"), Some(&none), &costs);
        let denied: u64 = kernel.stats()?.iter().map(|s| s.blocked + s.audited + s.unresolved).sum();
        if denied != 0 || kernel.read_slot(slot)?.root == 0 {
            return Err(format!("the container was not judged as it should: {denied} denials").into());
        }
        if count == PROFILE_RULES {
            inside = costs;
        }
        if slot == 0 {
            let other = container.run("/sys/fs/cgroup", "")?;
            report.add("outside, another armed", Some(&none), &other);
        }
        kernel.cgroup_disarm(fs::metadata(CGROUP)?.ino())?;
    }
    watch_calls(&kernel, &container, &none, report)?;
    Kernel::unload()?;
    drop(kernel);
    monitor::measure(&container, &none, report)?;
    let profiles = apparmor::measure(&container, ops, &none, report);
    report.end();
    match &profiles {
        Ok(Profiles { by_hand, ours }) => report.ratios("AppArmor, ours / by hand", by_hand, ours),
        Err(error) => report.skip("AppArmor", &error.to_string()),
    }

    let added = |costs: &Costs, what: &str| Some(costs.get(what)? - none.get(what)?);
    let fork = inside.get("fork_exec").zip(none.get("fork_exec")).map(|(with, without)| with / without);
    Ok(crate::report::gates(&[
        Gate { what: "added to open+close of 64 bytes, instructions", value: added(&inside, "open64"), limit: GATE_OPEN },
        Gate { what: "added to it outside of containers", value: added(&outside, "open64"), limit: GATE_OUTSIDE },
        Gate { what: "added to a write", value: added(&inside, "write1"), limit: GATE_WRITE },
        Gate { what: "fork and exec, ratio", value: fork, limit: GATE_FORK },
    ]))
}

/// A container with a rule on a call that nobody makes, and what everybody else pays while there is one.
fn watch_calls(kernel: &Kernel, container: &Container, none: &Costs, report: &mut Guest) -> Result<(), Failure> {
    let mut mix = container.mix(PROFILE_RULES);
    mix.set.rules.push(Arc::new(rules::on_a_call(mix.count)?));
    arm(kernel, u32::try_from(RULES.len())?, &mix)?;
    kernel.set_calls_watched(true)?;
    report.add("in a container, a call too", Some(none), &container.run(CGROUP, "")?);
    report.add("outside, calls watched", Some(none), &container.run("/sys/fs/cgroup", "")?);
    kernel.set_calls_watched(false)?;
    kernel.cgroup_disarm(fs::metadata(CGROUP)?.ino())?;
    Ok(())
}

/// Puts a set in force for the cgroup.
fn arm(kernel: &Kernel, slot: u32, mix: &Mix) -> Result<(), Failure> {
    let compiled = compile(&mix.set, Budget::default())?;
    let (set, tables) = compiled.relocate(slot, 0).ok_or("the set does not fit a segment")?;
    kernel.segment(slot)?.write(0, &tables)?;
    kernel.write_set(slot, &set)?;
    let cgroup = fs::metadata(CGROUP)?.ino();
    kernel.stamp(slot)?;
    let stamped = kernel.read_slot(slot)?;
    let entry = abi::Slot { flags: abi::SLOT_ARMED, epoch: 1, set: slot, generation: 1, cgroup, ..stamped };
    kernel.write_slot(slot, &entry)?;
    kernel.set_armed(1)?;
    kernel.cgroup_arm(cgroup, abi::Cgroup { slot, epoch: 1 })?;
    Ok(())
}
