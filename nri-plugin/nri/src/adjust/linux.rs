//! What Linux adds to an adjustment.

use super::removed;
use crate::proto::{
    ContainerAdjustment, IoPrioClass, LinuxContainerAdjustment, LinuxDevice, LinuxIoPriority, LinuxMemoryPolicy, LinuxNamespace,
    LinuxNetDevice, LinuxRdt, LinuxScheduler, LinuxSeccomp,
};

impl ContainerAdjustment {
    pub(super) fn linux(&mut self) -> &mut LinuxContainerAdjustment {
        self.linux.get_or_insert_with(LinuxContainerAdjustment::default)
    }

    /// Adds a device node, in place of the one with the same path. The cgroup's device rule comes with it.
    pub fn add_device(&mut self, device: LinuxDevice) -> &mut Self {
        self.linux().devices.push(device);
        self
    }

    /// Removes a device node.
    pub fn remove_device(&mut self, path: impl AsRef<str>) -> &mut Self {
        self.linux().devices.push(LinuxDevice { path: removed(path), ..LinuxDevice::default() });
        self
    }

    /// Sets the cgroup. With the systemd driver this is `slice:prefix:name`.
    pub fn set_cgroups_path(&mut self, path: impl Into<String>) -> &mut Self {
        self.linux().cgroups_path = path.into();
        self
    }

    /// Sets the score of the OOM killer, -1000 to 1000; since NRI 0.7.
    pub fn set_oom_score_adj(&mut self, score: i32) -> &mut Self {
        self.linux().oom_score_adj = Some(i64::from(score).into());
        self
    }

    /// Sets the I/O priority; since NRI 0.10.
    pub fn set_io_priority(&mut self, class: IoPrioClass, priority: i32) -> &mut Self {
        self.linux().io_priority = Some(LinuxIoPriority { class: class.into(), priority });
        self
    }

    /// Replaces the seccomp policy as a whole; since NRI 0.10.
    pub fn set_seccomp_policy(&mut self, policy: LinuxSeccomp) -> &mut Self {
        self.linux().seccomp_policy = Some(policy);
        self
    }

    /// Adds a namespace of a type ("network", "pid" ...), or replaces it; an empty path makes a new one. Since NRI 0.10.
    pub fn set_namespace(&mut self, kind: impl Into<String>, path: impl Into<String>) -> &mut Self {
        self.linux().namespaces.push(LinuxNamespace { r#type: kind.into(), path: path.into() });
        self
    }

    /// Leaves the container in the host's namespace of a type; since NRI 0.10.
    pub fn remove_namespace(&mut self, kind: impl AsRef<str>) -> &mut Self {
        self.linux().namespaces.push(LinuxNamespace { r#type: removed(kind), path: String::new() });
        self
    }

    /// Sets a sysctl; since NRI 0.11.
    pub fn set_sysctl(&mut self, key: impl Into<String>, value: impl Into<String>) -> &mut Self {
        self.linux().sysctl.insert(key.into(), value.into());
        self
    }

    /// Removes a sysctl that was set; since NRI 0.11.
    pub fn remove_sysctl(&mut self, key: impl AsRef<str>) -> &mut Self {
        self.linux().sysctl.insert(removed(key), String::new());
        self
    }

    /// Moves a network device of the host into the container, there called `name`; since NRI 0.11.
    pub fn add_net_device(&mut self, host: impl Into<String>, name: impl Into<String>) -> &mut Self {
        self.linux().net_devices.insert(host.into(), LinuxNetDevice { name: name.into() });
        self
    }

    /// Leaves a network device on the host; since NRI 0.11.
    pub fn remove_net_device(&mut self, host: impl AsRef<str>) -> &mut Self {
        self.linux().net_devices.insert(removed(host), LinuxNetDevice::default());
        self
    }

    /// Sets the attributes of the scheduler; since NRI 0.11.
    pub fn set_scheduler(&mut self, scheduler: LinuxScheduler) -> &mut Self {
        self.linux().scheduler = Some(scheduler);
        self
    }

    /// Sets cache and memory bandwidth allocation; since NRI 0.11.
    pub fn set_rdt(&mut self, rdt: LinuxRdt) -> &mut Self {
        self.linux().rdt = Some(rdt);
        self
    }

    /// Sets the memory policy; since NRI 0.12.
    pub fn set_memory_policy(&mut self, policy: LinuxMemoryPolicy) -> &mut Self {
        self.linux().memory_policy = Some(policy);
        self
    }
}

impl LinuxDevice {
    /// A device node: "c" or "b" and its numbers, with the defaults of the OCI runtime for owner and mode.
    pub fn new(path: impl Into<String>, kind: impl Into<String>, major: i64, minor: i64) -> LinuxDevice {
        LinuxDevice { path: path.into(), r#type: kind.into(), major, minor, ..LinuxDevice::default() }
    }

    /// Sets owner, group and permissions.
    #[must_use]
    pub fn owned_by(mut self, uid: u32, gid: u32, mode: u32) -> LinuxDevice {
        self.uid = Some(uid.into());
        self.gid = Some(gid.into());
        self.file_mode = Some(crate::proto::OptionalFileMode { value: mode });
        self
    }
}
