//! What a plugin can change: builder methods of [`ContainerAdjustment`], [`ContainerUpdate`] and their parts.
//!
//! ```
//! use nri::adjust::HookStage;
//! use nri::proto::{ContainerAdjustment, Hook, Mount};
//!
//! let mut adjust = ContainerAdjustment::default();
//! adjust
//!     .set_annotation("example.com/policy", "strict")
//!     .set_env("TZ", "UTC")
//!     .add_mount(Mount::bind("/usr/share/zoneinfo", "/usr/share/zoneinfo").option("ro"))
//!     .add_hook(HookStage::CreateRuntime, Hook::new("/usr/libexec/check").arg("--strict").timeout(5));
//! adjust.resources().set_pids_limit(512);
//! ```
//!
//! # Conflicts
//!
//! A container's creation **fails** when two plugins set the same annotation, mount (by destination), environment variable,
//! rlimit, device (by path), sysctl, namespace, single resource, or the arguments, the seccomp policy or the cgroups path.
//! To override what a plugin with a lower index did, remove and set the key in the same adjustment: the removal comes first,
//! in whatever order they are written. Hooks never conflict; they run in the order of the plugins.
//!
//! # Versions
//!
//! | what | since NRI |
//! |---|---|
//! | annotations, mounts, environment, hooks, rlimits, devices, memory, CPU, huge pages, block I/O and RDT class, unified, cgroups path | 0.2 |
//! | CDI devices, pids limit, OOM score | 0.7 |
//! | arguments, seccomp policy, namespaces, I/O priority | 0.10 |
//! | sysctl, network devices, scheduler, RDT | 0.11 |
//! | memory policy | 0.12 |
//!
//! A runtime ignores what it does not know, without a word: check [`RuntimeInfo::nri`](crate::RuntimeInfo) before relying on
//! it. Runtimes can also forbid some of it: containerd's default validator can reject hooks, seccomp, namespaces and sysctl.

mod linux;
mod resources;
mod values;

use crate::proto::{ContainerAdjustment, ContainerUpdate, Hook, Hooks, KeyValue, LinuxResources, Mount, PosixRlimit};

/// Before a key, it takes the key away.
const REMOVED: char = '-';

fn removed(key: impl AsRef<str>) -> String {
    format!("{REMOVED}{}", key.as_ref())
}

/// When an OCI hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookStage {
    /// In the runtime's namespaces, before the root is changed; deprecated by the OCI for [`HookStage::CreateRuntime`].
    Prestart,
    /// In the runtime's namespaces, when the container's are made, before the root is changed.
    CreateRuntime,
    /// In the container's namespaces, before the root is changed.
    CreateContainer,
    /// In the container, before its process.
    StartContainer,
    /// In the runtime's namespaces, after the container's process was started.
    Poststart,
    /// In the runtime's namespaces, after the container was deleted.
    Poststop,
}

impl ContainerAdjustment {
    /// Sets an annotation. A container's OCI hooks and runtime see it; Kubernetes does not.
    pub fn set_annotation(&mut self, key: impl Into<String>, value: impl Into<String>) -> &mut Self {
        self.annotations.insert(key.into(), value.into());
        self
    }

    /// Removes an annotation.
    pub fn remove_annotation(&mut self, key: impl AsRef<str>) -> &mut Self {
        self.annotations.insert(removed(key), String::new());
        self
    }

    /// Adds a mount, in place of the one with the same destination.
    pub fn add_mount(&mut self, mount: Mount) -> &mut Self {
        self.mounts.push(mount);
        self
    }

    /// Removes the mount with this destination.
    pub fn remove_mount(&mut self, destination: impl AsRef<str>) -> &mut Self {
        self.mounts.push(Mount { destination: removed(destination), ..Mount::default() });
        self
    }

    /// Sets an environment variable.
    pub fn set_env(&mut self, key: impl Into<String>, value: impl Into<String>) -> &mut Self {
        self.env.push(KeyValue { key: key.into(), value: value.into() });
        self
    }

    /// Removes an environment variable.
    pub fn remove_env(&mut self, key: impl AsRef<str>) -> &mut Self {
        self.env.push(KeyValue { key: removed(key), value: String::new() });
        self
    }

    /// Sets the command line; since NRI 0.10. Conflicts with any other plugin that does.
    pub fn set_args(&mut self, args: impl IntoIterator<Item = impl Into<String>>) -> &mut Self {
        self.args = args.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the command line, over that of a plugin with a lower index; since NRI 0.10.
    pub fn override_args(&mut self, args: impl IntoIterator<Item = impl Into<String>>) -> &mut Self {
        self.args = std::iter::once(String::new()).chain(args.into_iter().map(Into::into)).collect();
        self
    }

    /// Adds an OCI hook after those that are there. Never conflicts.
    pub fn add_hook(&mut self, stage: HookStage, hook: Hook) -> &mut Self {
        let hooks = self.hooks.get_or_insert_with(Hooks::default);
        match stage {
            HookStage::Prestart => &mut hooks.prestart,
            HookStage::CreateRuntime => &mut hooks.create_runtime,
            HookStage::CreateContainer => &mut hooks.create_container,
            HookStage::StartContainer => &mut hooks.start_container,
            HookStage::Poststart => &mut hooks.poststart,
            HookStage::Poststop => &mut hooks.poststop,
        }
        .push(hook);
        self
    }

    /// Sets a limit of setrlimit(2), for example `RLIMIT_NOFILE`.
    pub fn set_rlimit(&mut self, kind: impl Into<String>, soft: u64, hard: u64) -> &mut Self {
        self.rlimits.push(PosixRlimit { r#type: kind.into(), hard, soft });
        self
    }

    /// Adds a device by its CDI name, `vendor.com/class=name`; since NRI 0.7.
    pub fn add_cdi_device(&mut self, name: impl Into<String>) -> &mut Self {
        self.cdi_devices.push(crate::proto::CdiDevice { name: name.into() });
        self
    }

    /// The resources to set, to be filled in.
    pub fn resources(&mut self) -> &mut LinuxResources {
        self.linux().resources.get_or_insert_with(LinuxResources::default)
    }
}

impl ContainerUpdate {
    /// An update of one container, with nothing in it yet.
    pub fn new(container_id: impl Into<String>) -> ContainerUpdate {
        ContainerUpdate { container_id: container_id.into(), ..ContainerUpdate::default() }
    }

    /// The resources to set, to be filled in.
    pub fn resources(&mut self) -> &mut LinuxResources {
        self.linux.get_or_insert_default().resources.get_or_insert_with(LinuxResources::default)
    }

    /// Lets the request go on when this update fails.
    #[must_use]
    pub fn ignore_failure(mut self) -> ContainerUpdate {
        self.ignore_failure = true;
        self
    }
}

impl Hook {
    /// A hook: an absolute path, which is its first argument too.
    pub fn new(path: impl Into<String>) -> Hook {
        let path = path.into();
        Hook { args: vec![path.clone()], path, ..Hook::default() }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Hook {
        self.args.push(arg.into());
        self
    }

    /// Adds a variable to the hook's environment, which is otherwise the OCI runtime's or empty: set what is needed.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<str>, value: impl AsRef<str>) -> Hook {
        self.env.push(format!("{}={}", key.as_ref(), value.as_ref()));
        self
    }

    /// Kills the hook and fails the container after so many seconds, which must not be 0. Without it a hook that hangs
    /// hangs the container.
    #[must_use]
    pub fn timeout(mut self, seconds: u32) -> Hook {
        self.timeout = Some(i64::from(seconds).into());
        self
    }
}

impl Mount {
    /// A bind mount of a file or directory of the host, with everything mounted below it.
    pub fn bind(source: impl Into<String>, destination: impl Into<String>) -> Mount {
        Mount {
            source: source.into(),
            destination: destination.into(),
            r#type: "bind".to_owned(),
            options: vec!["rbind".to_owned()],
        }
    }

    /// Adds a mount option.
    #[must_use]
    pub fn option(mut self, option: impl Into<String>) -> Mount {
        self.options.push(option.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removals_are_marked() {
        let mut adjust = ContainerAdjustment::default();
        adjust
            .remove_annotation("a")
            .set_annotation("a", "1")
            .remove_mount("/m")
            .remove_env("E")
            .override_args(["sh", "-c"])
            .remove_sysctl("net.core.somaxconn")
            .remove_device("/dev/fuse")
            .remove_namespace("network")
            .remove_net_device("eth9");
        assert_eq!(
            adjust.annotations.iter().collect::<Vec<_>>(),
            [(&"-a".to_owned(), &String::new()), (&"a".to_owned(), &"1".to_owned())]
        );
        assert_eq!(adjust.mounts[0].destination, "-/m");
        assert_eq!(adjust.env[0].key, "-E");
        assert_eq!(adjust.args, ["", "sh", "-c"]);
        let linux = adjust.linux.unwrap();
        assert!(linux.sysctl.contains_key("-net.core.somaxconn"));
        assert_eq!(linux.devices[0].path, "-/dev/fuse");
        assert_eq!(linux.namespaces[0].r#type, "-network");
        assert!(linux.net_devices.contains_key("-eth9"));
    }

    #[test]
    fn hooks_keep_their_order_and_stage() {
        let mut adjust = ContainerAdjustment::default();
        let stages = [
            HookStage::Prestart,
            HookStage::CreateRuntime,
            HookStage::CreateContainer,
            HookStage::StartContainer,
            HookStage::Poststart,
            HookStage::Poststop,
        ];
        for stage in stages {
            adjust.add_hook(stage, Hook::new(format!("/{stage:?}")).arg("x").env("A", "b").timeout(3));
        }
        adjust.add_hook(HookStage::Poststop, Hook::new("/second"));
        let hooks = adjust.hooks.unwrap();
        assert_eq!(hooks.create_runtime[0].args, ["/CreateRuntime", "x"]);
        assert_eq!(hooks.create_runtime[0].env, ["A=b"]);
        assert_eq!(hooks.create_runtime[0].timeout.unwrap().value, 3);
        assert_eq!(hooks.poststop.iter().map(|hook| hook.path.as_str()).collect::<Vec<_>>(), ["/Poststop", "/second"]);
        assert_eq!(hooks.prestart.len() + hooks.create_container.len() + hooks.start_container.len(), 3);
    }

    #[test]
    fn an_update_names_its_container() {
        let mut update = ContainerUpdate::new("c1").ignore_failure();
        update.resources().set_memory_limit(1 << 20).set_cpu_quota(-1);
        assert!(update.ignore_failure);
        let resources = update.linux.unwrap().resources.unwrap();
        assert_eq!(resources.memory.unwrap().limit.unwrap().value, 1 << 20);
        assert_eq!(resources.cpu.unwrap().quota.unwrap().value, -1);
    }
}
