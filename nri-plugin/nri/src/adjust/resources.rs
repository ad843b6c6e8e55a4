//! Limits of a cgroup, in adjustments and in updates.
//!
//! Each single one is owned by the plugin that sets it: a second plugin that sets the same fails the request.

use crate::proto::{HugepageLimit, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

impl LinuxResources {
    fn memory(&mut self) -> &mut LinuxMemory {
        self.memory.get_or_insert_with(LinuxMemory::default)
    }

    fn cpu(&mut self) -> &mut LinuxCpu {
        self.cpu.get_or_insert_with(LinuxCpu::default)
    }

    /// Bytes of memory; -1 for no limit.
    pub fn set_memory_limit(&mut self, bytes: i64) -> &mut Self {
        self.memory().limit = Some(bytes.into());
        self
    }

    /// Bytes of memory that are kept under pressure.
    pub fn set_memory_reservation(&mut self, bytes: i64) -> &mut Self {
        self.memory().reservation = Some(bytes.into());
        self
    }

    /// Bytes of memory and swap together; -1 for no limit.
    pub fn set_memory_swap(&mut self, bytes: i64) -> &mut Self {
        self.memory().swap = Some(bytes.into());
        self
    }

    /// 0 to 100; cgroups of version 1 only.
    pub fn set_memory_swappiness(&mut self, swappiness: u64) -> &mut Self {
        self.memory().swappiness = Some(swappiness.into());
        self
    }

    /// Stops tasks that run out of memory instead of killing them; cgroups of version 1 only.
    pub fn disable_oom_killer(&mut self) -> &mut Self {
        self.memory().disable_oom_killer = Some(true.into());
        self
    }

    /// The share of processor time under contention.
    pub fn set_cpu_shares(&mut self, shares: u64) -> &mut Self {
        self.cpu().shares = Some(shares.into());
        self
    }

    /// Microseconds of processor time for each period; -1 for no limit.
    pub fn set_cpu_quota(&mut self, microseconds: i64) -> &mut Self {
        self.cpu().quota = Some(microseconds.into());
        self
    }

    /// The period, in microseconds.
    pub fn set_cpu_period(&mut self, microseconds: u64) -> &mut Self {
        self.cpu().period = Some(microseconds.into());
        self
    }

    /// Microseconds of real-time processor time for each real-time period.
    pub fn set_cpu_realtime(&mut self, runtime: i64, period: u64) -> &mut Self {
        self.cpu().realtime_runtime = Some(runtime.into());
        self.cpu().realtime_period = Some(period.into());
        self
    }

    /// The processors, for example `0-3,7`.
    pub fn set_cpuset_cpus(&mut self, cpus: impl Into<String>) -> &mut Self {
        self.cpu().cpus = cpus.into();
        self
    }

    /// The memory nodes, for example `0-1`.
    pub fn set_cpuset_mems(&mut self, mems: impl Into<String>) -> &mut Self {
        self.cpu().mems = mems.into();
        self
    }

    /// The number of tasks; since NRI 0.7.
    pub fn set_pids_limit(&mut self, limit: i64) -> &mut Self {
        self.pids = Some(LinuxPids { limit });
        self
    }

    /// Bytes in huge pages of a size such as `2MB`.
    pub fn set_hugepage_limit(&mut self, page_size: impl Into<String>, bytes: u64) -> &mut Self {
        self.hugepage_limits.push(HugepageLimit { page_size: page_size.into(), limit: bytes });
        self
    }

    /// A block I/O class of the runtime's configuration.
    pub fn set_blockio_class(&mut self, class: impl Into<String>) -> &mut Self {
        self.blockio_class = Some(class.into().into());
        self
    }

    /// An RDT class of the runtime's configuration.
    pub fn set_rdt_class(&mut self, class: impl Into<String>) -> &mut Self {
        self.rdt_class = Some(class.into().into());
        self
    }

    /// A file of a version 2 cgroup and what to write to it.
    pub fn set_unified(&mut self, file: impl Into<String>, value: impl Into<String>) -> &mut Self {
        self.unified.insert(file.into(), value.into());
        self
    }
}
