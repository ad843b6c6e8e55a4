//! The gate hook: `portcullis-hook createRuntime`, run by the OCI runtime itself before the container's first instruction.
//!
//! It fails closed, whatever has become of the plugin meanwhile. A container gets it here, unless the runtime gives it to all
//! containers already (containerd's `base_runtime_spec`, CRI-O's `hooks_dir`).

use std::path::{Path, PathBuf};

use nri::proto::{Container, ContainerAdjustment, Hook, Hooks, OptionalInt};

/// Marks a container that got the gate hook here; the hook itself and people can tell.
pub const GATE_ANNOTATION: &str = "portcullis.io/gate";
/// The value of [`GATE_ANNOTATION`].
const GATE_VALUE: &str = "nri";
/// The stage, as the hook's own argument: a hook is not told.
const STAGE: &str = "createRuntime";
/// After this many seconds the runtime kills the hook and fails the container. The hook gives up two seconds earlier, and says
/// why.
pub const HOOK_TIMEOUT_SECONDS: i64 = 10;

/// The gate hook of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    path: PathBuf,
}

impl Gate {
    /// With the program at `path`, which is absolute.
    #[must_use]
    pub fn new(path: &Path) -> Gate {
        Gate { path: path.to_owned() }
    }

    /// The program.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn hook(&self) -> Hook {
        Hook {
            path: self.path.display().to_string(),
            args: vec!["portcullis-hook".to_owned(), STAGE.to_owned()],
            env: Vec::new(),
            timeout: Some(OptionalInt { value: HOOK_TIMEOUT_SECONDS }),
        }
    }

    /// What a container that is to be armed lacks.
    #[must_use]
    pub fn adjustment(&self, container: &Container) -> ContainerAdjustment {
        if self.is_among(container.hooks.as_ref()) {
            return ContainerAdjustment::default();
        }
        ContainerAdjustment {
            annotations: [(GATE_ANNOTATION.to_owned(), GATE_VALUE.to_owned())].into(),
            hooks: Some(Hooks { create_runtime: vec![self.hook()], ..Hooks::default() }),
            ..ContainerAdjustment::default()
        }
    }

    /// Whether the gate hook is among hooks, in a form that does what ours does: its options may differ, its stage may not.
    #[must_use]
    pub fn is_among(&self, hooks: Option<&Hooks>) -> bool {
        let ours = |hook: &Hook| Path::new(&hook.path) == self.path && hook.args.iter().skip(1).any(|arg| arg == STAGE);
        hooks.is_some_and(|hooks| hooks.create_runtime.iter().any(ours))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Gate {
        Gate::new(Path::new("/usr/libexec/portcullis/portcullis-hook"))
    }

    #[test]
    fn a_container_gets_the_hook_once() {
        let adjustment = gate().adjustment(&Container::default());
        assert_eq!(adjustment.annotations[GATE_ANNOTATION], "nri");
        let hooks = adjustment.hooks.unwrap();
        assert_eq!(hooks.create_runtime[0].args, ["portcullis-hook", "createRuntime"]);
        assert_eq!(hooks.create_runtime[0].timeout, Some(OptionalInt { value: 10 }));
        let has = Container { hooks: Some(hooks), ..Container::default() };
        assert_eq!(gate().adjustment(&has), ContainerAdjustment::default());
    }

    #[test]
    fn the_wrong_stage_program_or_list_is_no_gate() {
        let hook = |path: &str, args: &[&str]| Hook {
            path: path.to_owned(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            ..Hook::default()
        };
        let ours = "/usr/libexec/portcullis/portcullis-hook";
        for (good, hook) in [
            (true, hook(ours, &["portcullis-hook", "--deadline", "4", "createRuntime"])),
            (false, hook(ours, &["portcullis-hook", "poststop"])),
            (false, hook(ours, &["createRuntime"])),
            (false, hook("/tmp/portcullis-hook", &["portcullis-hook", "createRuntime"])),
        ] {
            let hooks = Hooks { create_runtime: vec![Hook::default(), hook.clone()], ..Hooks::default() };
            assert_eq!(gate().is_among(Some(&hooks)), good, "{hook:?}");
            let elsewhere = Hooks { prestart: vec![hook], ..Hooks::default() };
            assert!(!gate().is_among(Some(&elsewhere)));
        }
        assert!(!gate().is_among(None));
    }
}
