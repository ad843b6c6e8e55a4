//! What enforces on this host.

use std::fmt;

use portcullis_ebpf::{Kernel, Lsm};
use portcullis_policy::Backend;

/// What the configuration says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BackendChoice {
    /// BPF LSM where the kernel runs it, else AppArmor.
    #[default]
    Auto,
    /// BPF LSM, or nothing starts.
    Bpf,
    /// AppArmor, or nothing starts.
    AppArmor,
}

/// What enforces, and why it is that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen {
    /// What.
    pub backend: Backend,
    /// Why.
    pub reason: Reason,
}

/// Why a backend was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The configuration says so.
    Configured,
    /// The programs are in force.
    Loaded,
    /// The kernel runs BPF LSM.
    Active,
    /// The kernel runs AppArmor, and no BPF LSM.
    Inactive,
    /// The kernel runs neither, as far as can be told: loading the programs says what is missing.
    Nothing,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Configured => "the configuration says so",
            Reason::Loaded => "its programs are loaded",
            Reason::Active => "it is active in this kernel",
            Reason::Inactive => "it is active in this kernel, and BPF LSM is not",
            Reason::Nothing => "no security module is seen that could enforce",
        })
    }
}

impl Chosen {
    /// Looks at the running kernel. What is loaded holds what runs: it is not left for another backend because of what the boot
    /// line or the state of securityfs seems to say.
    #[must_use]
    pub fn of_host(choice: BackendChoice) -> Chosen {
        Chosen::by(choice, || Kernel::open().is_ok())
    }

    /// The same where the caller knows whether the programs are loaded.
    pub(crate) fn by(choice: BackendChoice, is_loaded: impl FnOnce() -> bool) -> Chosen {
        Chosen::of(choice, choice == BackendChoice::Auto && is_loaded(), portcullis_ebpf::lsm)
    }

    fn of(choice: BackendChoice, loaded: bool, lsm: impl FnOnce() -> Lsm) -> Chosen {
        let (backend, reason) = match choice {
            BackendChoice::Bpf => (Backend::Bpf, Reason::Configured),
            BackendChoice::AppArmor => (Backend::AppArmor, Reason::Configured),
            BackendChoice::Auto if loaded => (Backend::Bpf, Reason::Loaded),
            BackendChoice::Auto => match lsm() {
                Lsm::Active => (Backend::Bpf, Reason::Active),
                Lsm::Inactive(modules) if modules.iter().any(|module| module == "apparmor") => {
                    (Backend::AppArmor, Reason::Inactive)
                }
                Lsm::Inactive(_) | Lsm::Unknown => (Backend::Bpf, Reason::Nothing),
            },
        };
        Chosen { backend, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bpf_comes_first_and_a_choice_before_it() {
        let modules = |list: &[&str]| Lsm::Inactive(list.iter().map(|name| (*name).to_owned()).collect());
        let of = |choice, loaded, lsm| {
            let Chosen { backend, reason } = Chosen::of(choice, loaded, || lsm);
            (backend, reason)
        };
        use BackendChoice::{AppArmor, Auto, Bpf};
        assert_eq!(of(Auto, false, Lsm::Active), (Backend::Bpf, Reason::Active));
        assert_eq!(of(Auto, false, modules(&["yama", "apparmor"])), (Backend::AppArmor, Reason::Inactive));
        assert_eq!(of(Auto, true, modules(&["apparmor"])), (Backend::Bpf, Reason::Loaded));
        assert_eq!(of(Auto, false, modules(&["selinux"])), (Backend::Bpf, Reason::Nothing));
        assert_eq!(of(Auto, false, Lsm::Unknown), (Backend::Bpf, Reason::Nothing));
        assert_eq!(of(Bpf, false, modules(&["apparmor"])), (Backend::Bpf, Reason::Configured));
        assert_eq!(of(AppArmor, true, Lsm::Active), (Backend::AppArmor, Reason::Configured));
    }
}
