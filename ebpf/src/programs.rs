//! Which programs the object holds, where each attaches, and which of them a kernel may lack.

use std::collections::{HashMap, HashSet};

use crate::Error;
use crate::btf::{Btf, Found};
use crate::elf::Elf;

/// Hooks that some supported kernel does not have, and why nothing is lost there. Every hook that is not listed is required.
/// Whether a hook exists is looked up in the kernel's type information, never told from its version.
const OPTIONAL: [(&str, &str); 4] = [
    ("file_truncate", "Linux 6.2; before, every truncation goes through path_truncate"),
    ("inode_set_acl", "Linux 6.2; before, access control lists go through inode_setxattr"),
    ("inode_remove_acl", "Linux 6.2; before, access control lists go through inode_removexattr"),
    ("uring_override_creds", "Linux 5.16; before, it can't be seen that a ring uses registered credentials"),
];

/// Tracepoints that the whole host comes by too often to be watched for nothing.
const WHILE_NEEDED: [&str; 1] = ["sys_enter"];

/// Where a program attaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Attach {
    /// A hook of the security modules, without its `bpf_lsm_`.
    Lsm(String),
    /// A tracepoint with typed arguments.
    Tracepoint(String),
    /// The same, while somebody needs it: see [`crate::calls`].
    WhileNeeded(String),
    /// Where a function of the kernel returns.
    Exit(String),
    /// A list of the kernel's: reading the pin runs it once for each element.
    Iterator(String),
    /// Nowhere: user space runs it in its own context.
    OnDemand,
}

/// A program of the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) attach: Attach,
}

impl Program {
    /// What its section says.
    fn new(section: &str, name: &str) -> Result<Program, Error> {
        let attach = match section.split_once('/') {
            Some(("lsm" | "lsm.s", hook)) => Attach::Lsm(hook.to_owned()),
            Some(("tp_btf", point)) if WHILE_NEEDED.contains(&point) => Attach::WhileNeeded(point.to_owned()),
            Some(("tp_btf", point)) => Attach::Tracepoint(point.to_owned()),
            Some(("fexit", function)) => Attach::Exit(function.to_owned()),
            Some(("iter", list)) => Attach::Iterator(list.to_owned()),
            Some(("raw_tp" | "raw_tracepoint", _)) => Attach::OnDemand,
            _ => {
                return Err(Error::Object(format!("program {name} is in the unknown section {section}")));
            }
        };
        Ok(Program { name: name.to_owned(), attach })
    }

    /// Why a kernel may lack the hook; nothing for a required one.
    pub(crate) fn optional(&self) -> Option<&'static str> {
        let reason = |hook: &str| OPTIONAL.iter().find(|(name, _)| *name == hook).map(|(_, reason)| *reason);
        match &self.attach {
            Attach::Lsm(hook) => reason(hook),
            Attach::Exit(function) => {
                let hook = function.strip_prefix("security_").unwrap_or(function);
                Some(
                    reason(hook)
                        .unwrap_or("it was built without CONFIG_SECURITY, CONFIG_SECURITY_PATH or CONFIG_SECURITY_NETWORK"),
                )
            }
            _ => None,
        }
    }

    /// The hook, for messages.
    pub(crate) fn hook(&self) -> &str {
        match &self.attach {
            Attach::Lsm(hook) => hook,
            Attach::Tracepoint(point) | Attach::WhileNeeded(point) => point,
            Attach::Exit(function) => function,
            Attach::Iterator(list) => list,
            Attach::OnDemand => "none",
        }
    }

    /// The type whose presence says that this kernel has the hook.
    fn needs(&self) -> Option<String> {
        match &self.attach {
            Attach::Lsm(hook) => Some(format!("bpf_lsm_{hook}")),
            Attach::Tracepoint(point) | Attach::WhileNeeded(point) => Some(format!("btf_trace_{point}")),
            Attach::Exit(function) => Some(function.clone()),
            Attach::Iterator(list) => Some(format!("bpf_iter_{list}")),
            Attach::OnDemand => None,
        }
    }
}

/// The programs of an object, by name.
pub(crate) fn programs(elf: &Elf<'_>) -> Result<Vec<Program>, Error> {
    let mut programs =
        elf.programs().into_iter().map(|(section, name)| Program::new(section, name)).collect::<Result<Vec<_>, _>>()?;
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    if programs.is_empty() {
        return Err(Error::Object("it holds no program".to_owned()));
    }
    Ok(programs)
}

/// How paths are read, by what the kernel offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ladder {
    /// Through `bpf_rdonly_cast`: plain loads (Linux 6.2).
    Cast = 1,
    /// Through `bpf_probe_read_kernel`: one copy for each component.
    Read = 2,
}

/// What this kernel has of what the programs need.
pub(crate) struct Host {
    found: HashMap<String, Found>,
    setattr_args: u32,
}

const CAST: &str = "bpf_rdonly_cast";
/// Linux 6.2 has it for the programs that must not wait inside of each other, and since then no other program gives way to a look at a
/// task's storage that is under way. Linux 7 needs it no more; there `bpf_rdonly_cast`, which is also of 6.2, tells.
const STORAGE_RECUR: &str = "bpf_task_storage_get_recur";
const SETATTR: &str = "bpf_lsm_inode_setattr";

impl Host {
    /// Reads the kernel's type information.
    pub(crate) fn read(programs: &[Program]) -> Result<Host, Error> {
        let path = "/sys/kernel/btf/vmlinux";
        let bytes = std::fs::read(path).map_err(|error| Error::Btf(format!("{path}: {error}")))?;
        let btf = Btf::parse(&bytes)?;
        let names: Vec<String> = programs.iter().filter_map(Program::needs).collect();
        let mut wanted: HashSet<&str> = names.iter().map(String::as_str).collect();
        wanted.extend([CAST, SETATTR, STORAGE_RECUR]);
        let found = btf.find(&wanted);
        // Linux 5.12 put a user namespace, later an idmap, before the dentry (include/linux/lsm_hook_defs.h).
        let arguments = found.get(SETATTR).and_then(|function| btf.arguments(*function));
        let setattr_args = arguments.and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
        Ok(Host { found, setattr_args })
    }

    /// Whether the kernel has the program's hook.
    pub(crate) fn has(&self, program: &Program) -> bool {
        program.needs().is_none_or(|name| self.found.contains_key(&name))
    }

    /// BTF id of `bpf_rdonly_cast`.
    pub(crate) fn cast(&self) -> Option<u32> {
        self.found.get(CAST).map(|found| found.id)
    }

    /// Whether a look at a task's storage may find nothing though there is something: see [`crate::preempt`].
    pub(crate) fn loses_labels(&self) -> bool {
        self.cast().is_none() && !self.found.contains_key(STORAGE_RECUR)
    }

    pub(crate) fn ladder(&self) -> Ladder {
        if self.cast().is_some() { Ladder::Cast } else { Ladder::Read }
    }

    /// Arguments of the hook `inode_setattr`.
    pub(crate) fn setattr_args(&self) -> u32 {
        self.setattr_args
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_says_where_a_program_attaches() {
        let attach = |section| Program::new(section, "p").map(|program| program.attach).ok();
        assert_eq!(attach("lsm/file_open"), Some(Attach::Lsm("file_open".to_owned())));
        assert_eq!(attach("lsm.s/file_open"), Some(Attach::Lsm("file_open".to_owned())));
        assert_eq!(attach("tp_btf/task_newtask"), Some(Attach::Tracepoint("task_newtask".to_owned())));
        assert_eq!(attach("tp_btf/sys_enter"), Some(Attach::WhileNeeded("sys_enter".to_owned())));
        assert_eq!(attach("fexit/security_capable"), Some(Attach::Exit("security_capable".to_owned())));
        assert_eq!(attach("iter/task"), Some(Attach::Iterator("task".to_owned())));
        assert_eq!(attach("raw_tp/sys_enter"), Some(Attach::OnDemand));
        assert_eq!(attach("kprobe/do_exit"), None);
        assert_eq!(attach("license"), None);
    }

    #[test]
    fn only_what_some_kernel_lacks_is_optional() {
        let optional = |section: &str| Program::new(section, "p").expect("a hook").optional();
        assert!(optional("lsm/file_truncate").is_some());
        assert!(optional("lsm/file_open").is_none());
        assert!(optional("lsm/bprm_check_security").is_none());
        assert!(optional("tp_btf/task_newtask").is_none());
        assert_eq!(optional("fexit/security_file_truncate"), optional("lsm/file_truncate"));
        assert!(optional("fexit/security_file_open").expect("of a kernel without").contains("CONFIG_SECURITY"));
    }
}
