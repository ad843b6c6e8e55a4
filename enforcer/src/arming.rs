//! What arming and disarming a container write, to the kernel's tables and on record, and in which order.

use std::collections::BTreeSet;

use portcullis_ebpf::abi;
use portcullis_policy::ContainerFacts;

use crate::Error;
use crate::clock::{boottime_seconds, seconds_since_1970};
use crate::place::{PlaceError, ProcessError};
use crate::plan::{self, Enforce, Form, Target};
use crate::record::ContainerRecord;
use crate::sets;
use crate::slots::{self, FIRST_GENERATION, Tenancy, Tenant};
use crate::state::{StateDir, hex};
use crate::tables::Tables;
use crate::visibility::Asks;

/// A container that is armed now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Armed {
    /// Its slot.
    pub(crate) slot: u32,
    /// Its policy set.
    pub(crate) set: u32,
    /// Whether the set was in the kernel already.
    pub(crate) reused: bool,
}

pub(crate) fn arm_in<T: Tables>(tables: &T, state: &StateDir, plan: &Enforce, target: &Target<'_>) -> Result<Armed, Error> {
    let _lock = state.lock()?;
    slots::free_left(tables)?;
    let before = state.container(&target.facts.id)?;
    let (set, reused) = set_of(tables, state, plan, target.facts)?;
    let tenant = Tenant {
        set,
        audited: plan.audited,
        runtime_mntns: target.place.runtime_mntns,
        cgroup: target.place.cgroup_id,
        now_ns: portcullis_ebpf::boottime_ns(),
    };
    let tenancy = slots::take(tables, &tenant)?;
    let record = record(plan, target, set, tenancy);
    // The record first: what is armed must be known, and what is known and not armed is told as lost.
    let rooted = || if target.running { note_root(tables, tenancy, target) } else { Ok(()) };
    let armed = state.write_container(&record).and_then(|()| rooted()).and_then(|()| slots::arm(tables, tenancy, &tenant));
    if let Err(error) = armed {
        // The error that is told is the first one; the rest is undone as far as it goes. Arming the cgroup was the last step,
        // so an older slot of the same container still has it.
        drop(slots::disarm(tables, tenancy));
        drop(match &before {
            Some(before) => state.write_container(before),
            None => state.remove_container(&record.id).map(drop),
        });
        return Err(error);
    }
    drop(state.remove_unprotected(&record.id));
    if let Some(before) = before {
        drop(state.retire_container(&before, seconds_since_1970()));
        // The new policy is in force; that the old slot is not given back now is found by the next sweep.
        drop(slots::disarm(tables, Tenancy { slot: before.slot, epoch: before.epoch }));
    }
    Ok(Armed { slot: tenancy.slot, set, reused })
}

/// Where a container that runs has its root, before its first exec under the policy could say so: it may come from a task that
/// has called chroot.
fn note_root<T: Tables>(tables: &T, tenancy: Tenancy, target: &Target<'_>) -> Result<(), Error> {
    let Tenancy { slot, epoch } = tenancy;
    let init = target.place.pid;
    let noted = tables.adopt(abi::Adoption { slot, epoch, init, ..abi::Adoption::default() })?;
    if noted.rooted == 0 { Err(PlaceError::from(ProcessError::Gone { pid: init }).into()) } else { Ok(()) }
}

/// The set of a plan in the kernel, put there if need be, and what its rule ids mean on record; whether it was there. The
/// caller holds the lock.
pub(crate) fn set_of<T: Tables>(
    tables: &T,
    state: &StateDir,
    plan: &Enforce,
    facts: &ContainerFacts,
) -> Result<(u32, bool), Error> {
    let (set, reused) = match sets::find(tables, plan.hash)? {
        Some(set) => (set, true),
        None => {
            // Planned when the kernel had the set, and freed since then: made again.
            let made;
            let compiled = match &plan.form {
                Form::Tables(Some(compiled)) => compiled,
                // Of profiles there are no tables, where another backend was chosen meanwhile.
                Form::Tables(None) | Form::Profiles(_) => {
                    made = plan::tables(state, &plan.set, plan.hash, facts)?;
                    &made
                }
            };
            (sets::place(tables, compiled, boottime_seconds())?, false)
        }
    };
    if tables.read_set(set)?.flags & abi::SET_CALLS != 0 {
        tables.set_calls_watched(true)?;
    }
    state.write_rule_set(plan.hash, &plan.set)?;
    Ok((set, reused))
}

/// The caller holds the lock.
pub(crate) fn disarm_in<T: Tables>(tables: &T, state: &StateDir, record: &ContainerRecord) -> Result<(), Error> {
    let disarmed = slots::disarm(tables, Tenancy { slot: record.slot, epoch: record.epoch });
    // Events of it may be read later; that they would then be nameless is no reason to leave it armed.
    let retired = state.retire_container(record, seconds_since_1970());
    // What could not be disarmed keeps its record: it is told as armed, and can be tried again.
    let removed = if disarmed.is_ok() { state.remove_container(&record.id).map(drop) } else { Ok(()) };
    let swept = slots::free_left(tables)
        .and_then(|()| sets::sweep(tables, boottime_seconds()))
        .and_then(|()| keep_rule_sets(state, || used_sets(tables)));
    disarmed.and(removed).and(retired).and(swept)
}

/// Rules of sets that the kernel no longer has explain nothing, but for events that are read late.
pub(crate) fn keep_rule_sets(state: &StateDir, in_use: impl FnOnce() -> Result<BTreeSet<String>, Error>) -> Result<(), Error> {
    /// To find out which are needed, every record is read: not at each container's end.
    const MAX_UNASKED: usize = 1024;
    if state.rule_sets()? <= MAX_UNASKED {
        return Ok(());
    }
    let mut hashes = state.explained_sets()?;
    hashes.append(&mut in_use()?);
    state.keep_rule_sets(|hash| hashes.contains(hash))
}

fn used_sets<T: Tables>(tables: &T) -> Result<BTreeSet<String>, Error> {
    let mut hashes = BTreeSet::new();
    for index in 0..abi::MAX_SETS {
        let set = tables.read_set(index)?;
        if set.flags != 0 {
            hashes.insert(hex(set.hash));
        }
    }
    Ok(hashes)
}

pub(crate) fn record(plan: &Enforce, target: &Target<'_>, set: u32, tenancy: Tenancy) -> ContainerRecord {
    let ContainerFacts { id, name, image, namespace, pod, labels, owner, .. } = target.facts;
    ContainerRecord {
        id: id.clone(),
        name: name.clone(),
        image: image.clone(),
        namespace: namespace.clone(),
        pod: pod.clone(),
        labels: labels.clone(),
        owner: owner.clone(),
        pid: target.place.pid,
        cgroup_id: target.place.cgroup_id,
        cgroup_path: target.place.cgroup_path.clone(),
        slot: tenancy.slot,
        epoch: tenancy.epoch,
        set,
        hash: hex(plan.hash),
        audited: plan.audited,
        policies: plan.policies.clone(),
        unenforced: plan.unenforced.len(),
        armed_at: seconds_since_1970(),
        generation: FIRST_GENERATION,
        adopting: target.running,
        earlier: Vec::new(),
        asks: Some(Asks::of(target.facts)),
        confinement: None,
    }
}
