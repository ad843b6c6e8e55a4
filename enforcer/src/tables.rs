//! The kernel's tables, as far as the enforcer writes them: [`Kernel`], or a model of it in tests.

use std::collections::BTreeMap;

use portcullis_ebpf::{Error, Kernel, abi};

/// See the methods of the same names of [`Kernel`].
pub(crate) trait Tables {
    fn read_set(&self, index: u32) -> Result<abi::Set, Error>;
    fn write_set(&self, index: u32, set: &abi::Set) -> Result<(), Error>;
    fn store_set_retired(&self, index: u32, seconds: u32) -> Result<(), Error>;
    fn read_slot(&self, index: u32) -> Result<abi::Slot, Error>;
    fn write_slot(&self, index: u32, slot: &abi::Slot) -> Result<(), Error>;
    fn store_slot_flags(&self, index: u32, flags: u32) -> Result<(), Error>;
    fn store_slot_set(&self, index: u32, set: u32, generation: u32) -> Result<(), Error>;
    fn adopt(&self, adoption: abi::Adoption) -> Result<abi::Adoption, Error>;
    fn labels(&self) -> Result<BTreeMap<abi::Label, u32>, Error>;
    fn sees_all_tasks(&self) -> bool;
    fn stamp(&self, slot: u32) -> Result<(), Error>;
    fn segments(&self) -> Result<Vec<u32>, Error>;
    fn write_segment(&self, index: u32, offset: u32, bytes: &[u8]) -> Result<(), Error>;
    fn cgroup_arm(&self, cgroup_id: u64, cgroup: abi::Cgroup) -> Result<(), Error>;
    fn cgroup_disarm(&self, cgroup_id: u64) -> Result<bool, Error>;
    fn cgroup_list(&self) -> Result<Vec<(u64, abi::Cgroup)>, Error>;
    fn set_armed(&self, slots: u32) -> Result<(), Error>;
    fn set_calls_watched(&self, watched: bool) -> Result<(), Error>;
    fn wait_readers(&self) -> Result<(), Error>;
}

impl Tables for Kernel {
    fn read_set(&self, index: u32) -> Result<abi::Set, Error> {
        Kernel::read_set(self, index)
    }
    fn write_set(&self, index: u32, set: &abi::Set) -> Result<(), Error> {
        Kernel::write_set(self, index, set)
    }
    fn store_set_retired(&self, index: u32, seconds: u32) -> Result<(), Error> {
        Kernel::store_set_retired(self, index, seconds)
    }
    fn read_slot(&self, index: u32) -> Result<abi::Slot, Error> {
        Kernel::read_slot(self, index)
    }
    fn write_slot(&self, index: u32, slot: &abi::Slot) -> Result<(), Error> {
        Kernel::write_slot(self, index, slot)
    }
    fn store_slot_flags(&self, index: u32, flags: u32) -> Result<(), Error> {
        Kernel::store_slot_flags(self, index, flags)
    }
    fn store_slot_set(&self, index: u32, set: u32, generation: u32) -> Result<(), Error> {
        Kernel::store_slot_set(self, index, set, generation)
    }
    fn adopt(&self, adoption: abi::Adoption) -> Result<abi::Adoption, Error> {
        Kernel::adopt(self, adoption)
    }
    fn labels(&self) -> Result<BTreeMap<abi::Label, u32>, Error> {
        Kernel::labels(self)
    }
    fn sees_all_tasks(&self) -> bool {
        Kernel::sees_all_tasks(self)
    }
    fn stamp(&self, slot: u32) -> Result<(), Error> {
        Kernel::stamp(self, slot)
    }
    fn segments(&self) -> Result<Vec<u32>, Error> {
        Kernel::segments(self)
    }
    fn write_segment(&self, index: u32, offset: u32, bytes: &[u8]) -> Result<(), Error> {
        self.segment(index)?.write(offset, bytes)
    }
    fn cgroup_arm(&self, cgroup_id: u64, cgroup: abi::Cgroup) -> Result<(), Error> {
        Kernel::cgroup_arm(self, cgroup_id, cgroup)
    }
    fn cgroup_disarm(&self, cgroup_id: u64) -> Result<bool, Error> {
        Kernel::cgroup_disarm(self, cgroup_id)
    }
    fn cgroup_list(&self) -> Result<Vec<(u64, abi::Cgroup)>, Error> {
        Kernel::cgroup_list(self)
    }
    fn set_armed(&self, slots: u32) -> Result<(), Error> {
        Kernel::set_armed(self, slots)
    }
    fn set_calls_watched(&self, watched: bool) -> Result<(), Error> {
        Kernel::set_calls_watched(self, watched)
    }
    fn wait_readers(&self) -> Result<(), Error> {
        Kernel::wait_readers(self)
    }
}
