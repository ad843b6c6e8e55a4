//! Slots: one per armed container.
//!
//! A slot is free when its flags are 0. One whose container is gone ([`abi::SLOT_DYING`]) stays until no task carries its label any
//! more, and then is freed by [`free_left`]. A new tenant has a new epoch: a label or cgroup of the old one matches nothing.
//!
//! All of it under the lock of the state directory.

use std::collections::BTreeSet;

use portcullis_ebpf::abi;

use crate::Error;
use crate::tables::Tables;

/// [`abi::Slot::generation`] of a container that was armed just now.
pub(crate) const FIRST_GENERATION: u32 = 1;

/// A slot and the epoch that makes it one container's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tenancy {
    pub(crate) slot: u32,
    pub(crate) epoch: u32,
}

/// Frees the slots whose containers are gone, with all their tasks. Where not all tasks can be seen none is: rather a slot too few
/// than a process whose policy is another container's.
pub(crate) fn free_left<T: Tables>(tables: &T) -> Result<(), Error> {
    let mut left = Vec::new();
    for index in 0..abi::MAX_SLOTS {
        let slot = tables.read_slot(index)?;
        if slot.flags & abi::SLOT_DYING != 0 {
            left.push(abi::Label { slot: index, epoch: slot.epoch });
        }
    }
    if left.is_empty() || !tables.sees_all_tasks() {
        return Ok(());
    }
    // An exec that saw a slot armed may be about to label a task. When it has ended, the labels tell all.
    tables.wait_readers()?;
    // Twice: a task that is born during the first look is there at the second.
    for _ in 0..2 {
        let labels = tables.labels()?;
        left.retain(|label| !labels.contains_key(label));
    }
    left.iter().try_for_each(|label| tables.store_slot_flags(label.slot, 0)).map_err(Error::from)
}

/// The sets that some slot needs.
pub(crate) fn sets_in_use<T: Tables>(tables: &T) -> Result<BTreeSet<u32>, Error> {
    let mut used = BTreeSet::new();
    for index in 0..abi::MAX_SLOTS {
        let slot = tables.read_slot(index)?;
        if slot.flags != 0 {
            used.insert(slot.set);
        }
    }
    Ok(used)
}

/// What a new tenant brings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tenant {
    pub(crate) set: u32,
    pub(crate) audited: bool,
    pub(crate) runtime_mntns: u32,
    pub(crate) cgroup: u64,
    pub(crate) now_ns: u64,
}

/// Takes a free slot. It is not armed yet and looks free to others, who have to wait for the lock.
pub(crate) fn take<T: Tables>(tables: &T, tenant: &Tenant) -> Result<Tenancy, Error> {
    let mut free = None;
    for index in 0..abi::MAX_SLOTS {
        let slot = tables.read_slot(index)?;
        if slot.flags == 0 {
            free = Some((index, slot.epoch));
            break;
        }
    }
    let (index, epoch) = free.ok_or(Error::NoSlot { limit: abi::MAX_SLOTS })?;
    let epoch = epoch.wrapping_add(1).max(1);
    tables.store_slot_flags(index, 0)?;
    let slot = abi::Slot {
        epoch,
        set: tenant.set,
        generation: FIRST_GENERATION,
        runtime_mntns: tenant.runtime_mntns,
        cgroup: tenant.cgroup,
        armed_ns: tenant.now_ns,
        ..abi::Slot::default()
    };
    tables.write_slot(index, &slot)?;
    tables.stamp(index)?;
    Ok(Tenancy { slot: index, epoch })
}

/// Arms a slot that was taken, then its cgroup: from here on the container's executions are labelled.
pub(crate) fn arm<T: Tables>(tables: &T, tenancy: Tenancy, tenant: &Tenant) -> Result<(), Error> {
    let audited = if tenant.audited { abi::SLOT_AUDITED } else { 0 };
    tables.store_slot_flags(tenancy.slot, abi::SLOT_ARMED | audited)?;
    tell_armed(tables)?;
    tables.cgroup_arm(tenant.cgroup, abi::Cgroup { slot: tenancy.slot, epoch: tenancy.epoch })?;
    Ok(())
}

/// The slot, if that tenant has it and is armed.
pub(crate) fn armed<T: Tables>(tables: &T, slot: u32, epoch: u32) -> Result<Option<abi::Slot>, Error> {
    let slot = tables.read_slot(slot)?;
    Ok((slot.epoch == epoch && slot.flags & abi::SLOT_ARMED != 0).then_some(slot))
}

/// Disarms: no further task gets the label, and those that have it keep their policy to their end. Does as much of it as can
/// be done, and tells the first failure.
pub(crate) fn disarm<T: Tables>(tables: &T, tenancy: Tenancy) -> Result<(), Error> {
    let mut first = Ok(());
    let mut note = |result: Result<(), Error>| {
        if first.is_ok() {
            first = result;
        }
    };
    let cgroups = tables.cgroup_list().map_err(Error::from);
    match cgroups {
        Ok(cgroups) => {
            // Its own cgroup and those that the container made below it.
            for (id, _) in cgroups.iter().filter(|(_, of)| (of.slot, of.epoch) == (tenancy.slot, tenancy.epoch)) {
                note(tables.cgroup_disarm(*id).map(drop).map_err(Error::from));
            }
        }
        Err(error) => note(Err(error)),
    }
    let slot = tables.read_slot(tenancy.slot)?;
    if slot.epoch == tenancy.epoch && slot.flags != 0 {
        let flags = slot.flags & abi::SLOT_AUDITED | abi::SLOT_DYING;
        note(tables.store_slot_flags(tenancy.slot, flags).map_err(Error::from));
    }
    note(tell_armed(tables));
    first
}

/// Tells the programs how many slots are armed.
fn tell_armed<T: Tables>(tables: &T) -> Result<(), Error> {
    let mut armed = 0;
    for index in 0..abi::MAX_SLOTS {
        armed += u32::from(tables.read_slot(index)?.flags & abi::SLOT_ARMED != 0);
    }
    tables.set_armed(armed)?;
    Ok(())
}
