//! Containers that run: brought to the policies as they are now, adopted when they ran before us, and left when they end.
//!
//! A switch is one store in the container's slot. Every decision reads set and generation in one load, so it is by the old policy
//! or by the new one and never by neither. What the kernel has in force is asked of the kernel, not of a record: a process that
//! died between the two must not make a container look up to date.

use std::os::fd::{AsFd, OwnedFd};

use portcullis_ebpf::abi;
use portcullis_policy::meaning::RuleSet;
use portcullis_policy::{Backend, ContainerFacts, Mode, select};

use crate::arming::{arm_in, set_of};
use crate::automaton::content_hash;
use crate::clock::boottime_seconds;
use crate::known::{Door, Known};
use crate::place::{Cgroup, Host, Place, PlaceError, ProcessError};
use crate::plan::{Container, Enforce, Form, Plan, Target};
use crate::state::{StateDir, hex};
use crate::tables::Tables;
use crate::visibility::Asks;
use crate::{Enforcer, Error, confine, sets, slots, unknown};

/// How often all tasks are visited until none without a label is met. Two passes are enough for all but a fork bomb.
const MAX_PASSES: u32 = 64;

/// What is to be done for a container that is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// No rule speaks of it.
    Nothing,
    /// It must be armed before its first instruction.
    Enforce,
}

/// What was found when a container was about to execute its first instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// No rule speaks of it.
    Untouched,
    /// It had been armed, for this very process.
    Armed,
    /// It had not, and has been now.
    ArmedNow,
}

/// What bringing a container to the present policies came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refreshed {
    /// No rule speaks of it, and none did.
    Untouched,
    /// It has no process yet.
    Expected,
    /// The same rules as before.
    Unchanged,
    /// Other rules, from one instant to the next.
    Switched,
    /// It ran without, and is armed now.
    Adopted,
    /// No rule speaks of it any more: it has an empty set.
    Withdrawn,
    /// It has ended.
    Gone,
}

impl Enforcer {
    /// A container is announced: who it is is recorded, so that the gate hook has facts that no engine tells to hooks.
    ///
    /// # Errors
    /// If the policies cannot be read or the record cannot be written.
    pub fn expect(&self, facts: &ContainerFacts) -> Result<Expected, Error> {
        let selection = select(&self.policies()?.policies, facts, self.config().postures);
        let known = Known { facts: facts.clone(), missing: unknown::Missing::default(), door: Door::Nri, place: None };
        self.state().write_known(&known)?;
        let nothing = selection.mode == Mode::Disabled || selection.set.rules.is_empty();
        Ok(if nothing { Expected::Nothing } else { Expected::Enforce })
    }

    /// What is recorded of a container.
    ///
    /// # Errors
    /// If the record is damaged.
    pub fn known(&self, id: &str) -> Result<Option<Known>, Error> {
        self.state().known(id)
    }

    /// Records who and where a container is, and has told of it what it asks for.
    ///
    /// # Errors
    /// If the record cannot be written.
    pub fn remember(&self, known: &Known) -> Result<(), Error> {
        self.state().write_known(known)?;
        self.show(known);
        Ok(())
    }

    /// The container's process waits to execute its entrypoint: whatever its policies say is in force when this returns.
    ///
    /// # Errors
    /// If that can't be said. Then it must not start.
    pub fn verify_start(&self, facts: &ContainerFacts, pid: u32) -> Result<Started, Error> {
        let known = self.state().known(&facts.id)?.and_then(|known| known.place);
        let (place, root) = Place::of_running(&Host::default(), &facts.id, pid)?;
        let prepared = known.as_ref() == Some(&place);
        let known = Known { facts: facts.clone(), missing: unknown::Missing::default(), door: Door::Nri, place: Some(place) };
        if !prepared {
            self.remember(&known)?;
        }
        Ok(match self.bring(&known, &root, false)? {
            Refreshed::Untouched | Refreshed::Withdrawn | Refreshed::Expected | Refreshed::Gone => Started::Untouched,
            Refreshed::Unchanged | Refreshed::Switched => Started::Armed,
            Refreshed::Adopted => Started::ArmedNow,
        })
    }

    /// A container that runs, and of which nobody may have told: armed, with all tasks that it has.
    ///
    /// # Errors
    /// If it can't be armed. It runs on as it did.
    pub fn adopt(&self, facts: &ContainerFacts, pid: u32) -> Result<Refreshed, Error> {
        let host = Host::default();
        let before = self.state().known(&facts.id)?;
        let (place, root) = match before.as_ref().and_then(|known| known.place.as_ref()) {
            // Its root is the one it was started with, whatever its init has done since.
            Some(place) if place.pid == pid && place.is_alive(&host) => (place.clone(), place.open_root(&host)?),
            _ => Place::of_running(&host, &facts.id, pid)?,
        };
        let known = Known { facts: facts.clone(), missing: unknown::Missing::default(), door: Door::Nri, place: Some(place) };
        if before.as_ref() != Some(&known) {
            self.remember(&known)?;
        }
        self.bring(&known, &root, true)
    }

    /// Brings a container to the policies as they were last read.
    ///
    /// # Errors
    /// If that can't be done. What was in force stays.
    pub fn refresh(&self, id: &str) -> Result<Refreshed, Error> {
        let Some(known) = self.state().known(id)? else { return Ok(Refreshed::Gone) };
        let Some(place) = &known.place else { return Ok(Refreshed::Expected) };
        let root = match place.open_root(&Host::default()) {
            Ok(root) => root,
            Err(PlaceError::Process(ProcessError::Gone { .. } | ProcessError::Reused { .. })) => return Ok(Refreshed::Gone),
            Err(error) => return Err(error.into()),
        };
        self.bring(&known, &root, true)
    }

    fn bring(&self, known: &Known, root: &OwnedFd, running: bool) -> Result<Refreshed, Error> {
        unknown::check(&self.policies()?.policies, &known.facts, &known.missing)?;
        let Some(place) = &known.place else { return Ok(Refreshed::Expected) };
        let target = Target { facts: &known.facts, place, running, starting: None };
        let confinement = self.state().container(&known.facts.id)?.and_then(|record| record.confinement);
        let no_new_privileges = confinement.as_ref().is_some_and(|confinement| confinement.no_new_privileges);
        let plan = self.plan(&Container { facts: &known.facts, root: Some(root.as_fd()), no_new_privileges })?;
        if confinement.is_some() || self.chosen().backend == Backend::AppArmor {
            return confine::bring(self.profiles(), self.state(), &plan, &target);
        }
        match plan {
            Plan::Untouched { .. } => match self.kernel() {
                Ok(kernel) => withdraw_in(&*kernel, self.state(), &target),
                Err(Error::Kernel(portcullis_ebpf::Error::NotLoaded)) => Ok(Refreshed::Untouched),
                Err(error) => Err(error),
            },
            Plan::Enforce(plan) => {
                if matches!(self.kernel(), Err(Error::Kernel(portcullis_ebpf::Error::NotLoaded))) {
                    self.load()?;
                }
                let refreshed = bring_in(&*self.kernel()?, self.state(), &plan, &target)?;
                if refreshed == Refreshed::Adopted
                    && running
                    && let Err(error) = place.open_root(&Host::default())
                {
                    // What the kernel has noted as its root may be another one: better no policy than a wrong one.
                    drop(self.disarm(&known.facts.id));
                    return Err(error.into());
                }
                Ok(refreshed)
            }
        }
    }

    /// A container has been stopped or removed: forgotten if nothing of it is left. Whether that is so.
    ///
    /// # Errors
    /// If something of it could not be undone; it may be tried again.
    pub fn gone(&self, id: &str) -> Result<bool, Error> {
        let record = self.state().container(id)?;
        let known = self.state().known(id)?.and_then(|known| known.place);
        let cgroup = match (&record, &known) {
            (Some(record), _) => Some((record.cgroup_path.as_path(), record.cgroup_id)),
            (None, Some(place)) => Some((place.cgroup_path.as_path(), place.cgroup_id)),
            (None, None) => None,
        };
        // An armed container that has not executed anything has no labelled task yet, but its init is in its cgroup.
        if let Some((path, id)) = cgroup
            && Cgroup::is_populated(&Host::default(), path, id).map_err(PlaceError::from)?
        {
            return Ok(false);
        }
        if let Some(confinement) = record.as_ref().and_then(|record| record.confinement.as_ref())
            && self.profiles().carriers()?.contains_key(confinement.profile.as_str())
        {
            return Ok(false);
        }
        if let Some(record) = &record
            && record.confinement.is_none()
            && let Ok(kernel) = self.kernel()
            && slots::armed(&*kernel, record.slot, record.epoch)?.is_some()
            && kernel.labels()?.contains_key(&abi::Label { slot: record.slot, epoch: record.epoch })
        {
            return Ok(false);
        }
        self.disarm(id)?;
        Ok(true)
    }

    /// Forgets every container that has left without anybody telling; their ids.
    ///
    /// # Errors
    /// If the records cannot be listed; what concerns one container alone is told by [`Enforcer::gone`].
    pub fn sweep(&self) -> Result<Vec<String>, Error> {
        let mut ids: Vec<String> = self.state().containers()?.into_iter().map(|record| record.id).collect();
        let placed = self.state().all_known()?.into_iter().filter(|known| known.place.is_some());
        ids.extend(placed.map(|known| known.facts.id));
        ids.sort();
        ids.dedup();
        ids.retain(|id| self.gone(id).unwrap_or(false));
        if self.chosen().backend == Backend::AppArmor {
            confine::sweep(self.profiles(), self.state())?;
        }
        match self.kernel() {
            // Also what containers that were switched have left behind.
            Ok(kernel) => {
                let _lock = self.state().lock()?;
                slots::free_left(&*kernel)?;
                sets::sweep(&*kernel, boottime_seconds())?;
            }
            Err(Error::Kernel(portcullis_ebpf::Error::NotLoaded)) => {}
            Err(error) => return Err(error),
        }
        Ok(ids)
    }
}

pub(crate) fn bring_in<T: Tables>(tables: &T, state: &StateDir, plan: &Enforce, target: &Target<'_>) -> Result<Refreshed, Error> {
    let refreshed = match switch_in(tables, state, plan, target)? {
        Some(switched) => switched,
        None => {
            arm_in(tables, state, plan, target)?;
            Refreshed::Adopted
        }
    };
    // Also what an earlier attempt left undone.
    label_in(tables, state, target)?;
    Ok(refreshed)
}

/// Switches an armed container to the set of a plan; nothing if it is not armed.
fn switch_in<T: Tables>(tables: &T, state: &StateDir, plan: &Enforce, target: &Target<'_>) -> Result<Option<Refreshed>, Error> {
    let _lock = state.lock()?;
    let Some(mut record) = state.container(&target.facts.id)? else { return Ok(None) };
    let Some(slot) = slots::armed(tables, record.slot, record.epoch)? else { return Ok(None) };
    if slot.cgroup != target.place.cgroup_id {
        return Ok(None); // another container by the same id
    }
    let audited = slot.flags & abi::SLOT_AUDITED != 0;
    let same = tables.read_set(slot.set)?.hash == plan.hash && audited == plan.audited;
    let before = record.clone();
    record.policies.clone_from(&plan.policies);
    record.unenforced = plan.unenforced.len();
    record.audited = plan.audited;
    // A record that an older version wrote has none of these.
    record.pod.clone_from(&target.facts.pod);
    record.labels.clone_from(&target.facts.labels);
    record.owner.clone_from(&target.facts.owner);
    record.asks = Some(Asks::of(target.facts));
    if same {
        record.generation = slot.generation;
        record.hash = hex(plan.hash);
    } else {
        let (set, _) = set_of(tables, state, plan, target.facts)?;
        let generation = slot.generation.wrapping_add(1);
        tables.store_slot_set(record.slot, set, generation)?;
        if audited != plan.audited {
            let flag = if plan.audited { abi::SLOT_AUDITED } else { 0 };
            tables.store_slot_flags(record.slot, abi::SLOT_ARMED | flag)?;
        }
        record.set = set;
        record.switched(generation, hex(plan.hash));
    }
    if record != before {
        state.write_container(&record)?;
    }
    Ok(Some(if same { Refreshed::Unchanged } else { Refreshed::Switched }))
}

/// Gives an armed container an empty set. Its slot and its labels stay: a policy may come again.
pub(crate) fn withdraw_in<T: Tables>(tables: &T, state: &StateDir, target: &Target<'_>) -> Result<Refreshed, Error> {
    let set = RuleSet::default();
    let hash = content_hash(&set);
    let plan = Enforce { set, hash, audited: false, policies: Vec::new(), unenforced: Vec::new(), form: Form::Tables(None) };
    Ok(match switch_in(tables, state, &plan, target)? {
        None => Refreshed::Untouched,
        Some(Refreshed::Unchanged) => Refreshed::Unchanged,
        Some(_) => Refreshed::Withdrawn,
    })
}

/// Labels the tasks of a container that ran before it was armed, if that has not been done. What it fails for stays recorded:
/// such a container is armed, and each task gets its label at its next exec.
fn label_in<T: Tables>(tables: &T, state: &StateDir, target: &Target<'_>) -> Result<(), Error> {
    let _lock = state.lock()?;
    let Some(mut record) = state.container(&target.facts.id)? else { return Ok(()) };
    if !record.adopting {
        return Ok(());
    }
    let asked = abi::Adoption {
        cgroup: record.cgroup_id,
        slot: record.slot,
        epoch: record.epoch,
        init: target.place.pid,
        ..abi::Adoption::default()
    };
    for _ in 0..MAX_PASSES {
        let pass = tables.adopt(asked)?;
        if pass.failed > 0 {
            return Err(Error::Unlabelled { failed: pass.failed });
        }
        if pass.labelled == 0 {
            record.adopting = false;
            return state.write_container(&record);
        }
    }
    Err(Error::Restless { passes: MAX_PASSES })
}
