//! What this host can do, found out without changing anything.

use std::fmt;
use std::fs;

use crate::elf::Elf;
use crate::pins::Place;
use crate::preempt::Preemption;
use crate::programs::{Attach, Host, Ladder, programs};
use crate::{Error, OBJECT};

const LSM_LIST: &str = "/sys/kernel/security/lsm";

/// Whether the BPF security module is active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lsm {
    /// It is.
    Active,
    /// It is not; these modules are.
    Inactive(Vec<String>),
    /// The list can't be read; loading finds out.
    Unknown,
}

/// Something about this host that is in the way, or that narrows what is enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was found.
    pub what: String,
    /// The line to type or the step to take, where there is one.
    pub fix: Option<String>,
    /// Nothing can be enforced because of it.
    pub fatal: bool,
}

/// What this host can do.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The BPF security module.
    pub lsm: Lsm,
    /// Whether the kernel carries its type information.
    pub btf: bool,
    /// Whether the BPF file system is mounted at `/sys/fs/bpf`; loading mounts it.
    pub bpffs: bool,
    /// How paths would be read; nothing without type information.
    pub ladder: Option<Ladder>,
    /// Everything that is not as it should be, the fatal first.
    pub findings: Vec<Finding>,
}

impl Probe {
    /// Whether enforcement can be loaded, as far as can be told without trying.
    #[must_use]
    pub fn can_enforce(&self) -> bool {
        !self.findings.iter().any(|finding| finding.fatal)
    }

    /// Looks at the running kernel.
    #[must_use]
    pub(crate) fn host(place: &Place) -> Probe {
        let mut findings = Vec::new();
        if !rustix::process::geteuid().is_root() {
            let fix = Some("run as root".to_owned());
            findings.push(Finding { what: "loading programs needs root".to_owned(), fix, fatal: true });
        }
        let lsm = lsm();
        findings.extend(lsm_finding(&lsm));
        let host = Elf::parse(OBJECT).and_then(|elf| programs(&elf)).and_then(|p| Ok((Host::read(&p)?, p)));
        let bpffs = place.mounted();
        if !bpffs {
            let fix = Some("mount -t bpf bpf /sys/fs/bpf".to_owned());
            let what = "the BPF file system is not mounted at /sys/fs/bpf; loading mounts it".to_owned();
            findings.push(Finding { what, fix, fatal: false });
        }
        let ladder = match &host {
            Ok((host, programs)) => {
                for program in programs.iter().filter(|program| !host.has(program)) {
                    let what = match program.optional() {
                        Some(reason) => format!("no hook {}: {reason}", program.hook()),
                        None => format!("no hook {}, which {} needs", program.hook(), program.name),
                    };
                    let fatal = program.optional().is_none();
                    let fix = fatal.then(|| kernel_fix(&program.attach).to_owned());
                    findings.push(Finding { what, fix, fatal });
                }
                findings.extend(host.loses_labels().then(Preemption::now).and_then(Preemption::finding));
                Some(host.ladder())
            }
            Err(error) => {
                let fix = Some("boot a kernel with CONFIG_DEBUG_INFO_BTF=y".to_owned());
                findings.push(Finding { what: error.to_string(), fix, fatal: true });
                None
            }
        };
        findings.sort_by_key(|finding| !finding.fatal);
        Probe { lsm, btf: ladder.is_some(), bpffs, ladder, findings }
    }
}

fn kernel_fix(attach: &Attach) -> &'static str {
    match attach {
        Attach::Lsm(_) => "boot Linux 5.17 or newer with CONFIG_BPF_LSM=y, CONFIG_SECURITY_PATH=y, CONFIG_SECURITY_NETWORK=y",
        Attach::Tracepoint(_) | Attach::WhileNeeded(_) | Attach::Exit(_) | Attach::Iterator(_) | Attach::OnDemand => {
            "boot Linux 5.17 or newer with CONFIG_BPF_EVENTS=y"
        }
    }
}

/// Whether the BPF security module is active, by the kernel's own list.
#[must_use]
pub fn lsm() -> Lsm {
    fs::read_to_string(LSM_LIST).map_or(Lsm::Unknown, |list| parse_lsm(&list))
}

fn parse_lsm(list: &str) -> Lsm {
    let modules: Vec<String> = list.trim().split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if modules.iter().any(|name| name == "bpf") { Lsm::Active } else { Lsm::Inactive(modules) }
}

fn lsm_finding(lsm: &Lsm) -> Option<Finding> {
    match lsm {
        Lsm::Active => None,
        Lsm::Inactive(modules) => {
            Some(Finding { what: "the BPF security module is not active".to_owned(), fix: Some(boot_line(modules)), fatal: true })
        }
        Lsm::Unknown => Some(Finding {
            what: format!("{LSM_LIST} can't be read, so whether BPF is an active security module shows only on loading"),
            fix: Some("mount -t securityfs securityfs /sys/kernel/security".to_owned()),
            fatal: false,
        }),
    }
}

fn boot_line(modules: &[String]) -> String {
    // "capability" is always first and is not named on the command line (security/security.c).
    let mut names: Vec<&str> = modules.iter().map(String::as_str).filter(|name| *name != "capability").collect();
    names.push("bpf");
    format!("add lsm={} to the kernel command line and restart", names.join(","))
}

/// Refuses a host whose kernel would attach the programs and never run them.
pub(crate) fn require_active_lsm() -> Result<(), Error> {
    match lsm_finding(&lsm()) {
        Some(Finding { what, fix: Some(fix), fatal: true }) => Err(Error::Unsupported { reason: what, fix }),
        _ => Ok(()),
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lsm = match &self.lsm {
            Lsm::Active => "active".to_owned(),
            Lsm::Inactive(modules) => format!("not active (active are: {})", modules.join(", ")),
            Lsm::Unknown => "unknown".to_owned(),
        };
        writeln!(f, "BPF security module: {lsm}")?;
        writeln!(f, "kernel type information: {}", if self.btf { "present" } else { "absent" })?;
        writeln!(f, "BPF file system: {}", if self.bpffs { "mounted" } else { "not mounted" })?;
        let ladder = match self.ladder {
            Some(Ladder::Cast) => "by plain loads",
            Some(Ladder::Read) => "by one copy per component",
            None => "not at all",
        };
        write!(f, "paths are read: {ladder}")?;
        for Finding { what, fix, fatal } in &self.findings {
            write!(f, "\n{}: {what}", if *fatal { "error" } else { "note" })?;
            if let Some(fix) = fix {
                write!(f, "\n  fix: {fix}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fix_keeps_the_modules_that_are_active() {
        let lsm = parse_lsm("capability,landlock,lockdown,yama,apparmor\n");
        let finding = lsm_finding(&lsm).expect("it is not active");
        assert!(finding.fatal);
        let fix = "add lsm=landlock,lockdown,yama,apparmor,bpf to the kernel command line and restart";
        assert_eq!(finding.fix.as_deref(), Some(fix));
    }

    #[test]
    fn bpf_is_a_name_and_not_a_part_of_one() {
        assert_eq!(parse_lsm("lockdown,bpf"), Lsm::Active);
        assert!(matches!(parse_lsm("lockdown,notbpf"), Lsm::Inactive(_)));
        assert_eq!(parse_lsm(""), Lsm::Inactive(Vec::new()));
    }
}
