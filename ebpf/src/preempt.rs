//! Whether tasks preempt each other inside of the kernel, where that would make enforcement leak.
//!
//! Before Linux 6.2 a look at a task's storage gives nothing while another task was preempted in the middle of one on the same CPU
//! (kernel/bpf/bpf_task_storage.c, `bpf_task_storage_trylock`). To a program that is a task without a label: a process outside of
//! containers. On 6.1 with full preemption one in a hundred denied opens passed while eight processes tried. Newer kernels find
//! what is there whoever was preempted, and kernels that only preempt at chosen points never do it there.

use std::fs;
use std::io::Read as _;

use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::Error;
use crate::probe::Finding;

/// What is read of one of the files here, at most.
const MAX_BYTES: u64 = 64 << 10;

const VERSION: &str = "/proc/sys/kernel/version";
const COMMAND_LINE: &str = "/proc/cmdline";
const FIX: &str = "add preempt=voluntary to the kernel command line and restart, or boot Linux 6.2 or newer";
const WHY: &str =
    "before Linux 6.2 a task's label can't be looked up while another was preempted doing so, and denied operations pass";

/// Where the kernel lets a task be preempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preemption {
    /// At chosen points.
    Voluntary,
    /// Almost everywhere.
    Full,
    /// It could be either, and which it is can't be read.
    Unknown,
}

impl Preemption {
    /// Of the running kernel.
    pub(crate) fn now() -> Preemption {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        Preemption::of(&text(VERSION), model, &text(COMMAND_LINE))
    }

    /// By `uname -v`, what debugfs says (`none voluntary (full)`), and the command line. The second is true of this moment, the third
    /// of the boot.
    fn of(version: &str, model: impl FnOnce() -> Option<String>, command_line: &str) -> Preemption {
        let built = version.split_ascii_whitespace().find(|word| word.starts_with("PREEMPT"));
        match built {
            None => return Preemption::Voluntary,
            Some("PREEMPT_DYNAMIC") => {}
            Some(_) => return Preemption::Full,
        }
        let named = |name: &str| match name {
            "none" | "voluntary" => Preemption::Voluntary,
            _ => Preemption::Full,
        };
        if let Some(now) =
            model().as_deref().and_then(|model| model.split_once('(')?.1.split_once(')').map(|(now, _)| named(now)))
        {
            return now;
        }
        let asked = command_line.split_ascii_whitespace().rev().find_map(|word| word.strip_prefix("preempt="));
        asked.map_or(Preemption::Unknown, named)
    }

    /// What it means for a kernel that loses labels so.
    pub(crate) fn finding(self) -> Option<Finding> {
        let (what, fatal) = match self {
            Preemption::Voluntary => return None,
            Preemption::Full => (format!("this kernel preempts everywhere: {WHY}"), true),
            Preemption::Unknown => (
                format!("whether this kernel preempts everywhere (debugfs, sched/preempt) can't be read; if it does: {WHY}"),
                false,
            ),
        };
        Some(Finding { what, fix: Some(FIX.to_owned()), fatal })
    }

    /// Refuses such a kernel if it preempts everywhere; the doubt, in a sentence, if that can't be told.
    pub(crate) fn require_sound(self) -> Result<Option<String>, Error> {
        match self.finding() {
            Some(Finding { what, fix: Some(fix), fatal: true }) => Err(Error::Unsupported { reason: what, fix }),
            finding => Ok(finding.map(|finding| finding.what)),
        }
    }
}

/// `sched/preempt` of debugfs, by a mount that nobody else sees.
fn model() -> Option<String> {
    let context = fsopen("debugfs", FsOpenFlags::FSOPEN_CLOEXEC).ok()?;
    fsconfig_create(&context).ok()?;
    let root = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).ok()?;
    let file = openat(&root, "sched/preempt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut text = String::new();
    fs::File::from(file).take(MAX_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DYNAMIC: &str = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.176-1 (2026-07-02)\n";

    fn of(version: &str, model: Option<&str>, command_line: &str) -> Preemption {
        Preemption::of(version, || model.map(str::to_owned), command_line)
    }

    #[test]
    fn a_kernel_says_how_it_was_built() {
        assert_eq!(of("#1 SMP Debian", None, "preempt=full"), Preemption::Voluntary);
        assert_eq!(of("#1 SMP PREEMPT Debian", None, "preempt=none"), Preemption::Full);
        assert_eq!(of("#1 SMP PREEMPT_RT Debian", None, ""), Preemption::Full);
    }

    #[test]
    fn what_is_so_now_counts_before_what_was_asked_at_boot() {
        assert_eq!(of(DYNAMIC, Some("none (voluntary) full \n"), "preempt=full"), Preemption::Voluntary);
        assert_eq!(of(DYNAMIC, Some("none voluntary (full) \n"), ""), Preemption::Full);
        assert_eq!(of(DYNAMIC, Some("full (lazy)\n"), ""), Preemption::Full);
        assert_eq!(of(DYNAMIC, Some("nonsense"), "quiet preempt=full preempt=none"), Preemption::Voluntary);
        assert_eq!(of(DYNAMIC, None, "preempt=full"), Preemption::Full);
        assert_eq!(of(DYNAMIC, None, "quiet"), Preemption::Unknown);
    }

    #[test]
    fn only_what_is_known_to_leak_is_refused() {
        assert_eq!(Preemption::Voluntary.require_sound().unwrap(), None);
        let doubt = Preemption::Unknown.require_sound().unwrap().expect("it is said");
        assert!(doubt.contains("can't be read"), "{doubt}");
        let refused = Preemption::Full.require_sound().unwrap_err().to_string();
        assert!(refused.contains("preempt=voluntary"), "{refused}");
    }
}
