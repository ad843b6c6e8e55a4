//! Containers that AppArmor confines: what `arm`, `bring`, `list` and `disarm` are where it is the backend.
//!
//! A runtime gives a container its label, once and for ever; nobody else can (`proc_pid_attr_write` in the kernel's
//! `fs/proc/base.c`: a task may write its own attributes alone). So the label has to be in the configuration that the runtime has
//! read, which a *carrier* has put there, and what is done here is to say what the profile in the label means: before the container's
//! first instruction, and again whenever its policies change. A profile that the runtime does not find makes it refuse the
//! container.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;

use portcullis_policy::ContainerFacts;
use portcullis_policy::meaning::RuleSet;

use crate::apparmor::{CompiledProfiles, Label, ProfileName, Profiles, Variant, generate};
use crate::arming::{keep_rule_sets, record};
use crate::automaton::content_hash;
use crate::clock::seconds_since_1970;
use crate::live::Refreshed;
use crate::place::Host;
use crate::plan::{Confining, Enforce, Plan, Target};
use crate::program::Program;
use crate::record::{Confinement, ContainerRecord};
use crate::refusals::Refusal;
use crate::slots::Tenancy;
use crate::state::{StateDir, hex};
use crate::visibility::Asks;
use crate::{ArmedContainer, Enforcer, Error, Status};

/// The set of a container that has none among the kernel's.
const NO_SET: u32 = u32::MAX;

impl Enforcer {
    /// Lets a container exist that could not be armed, and that its carrier has already given a label: under a profile that denies
    /// nothing.
    ///
    /// # Errors
    /// If there is no such profile to be had.
    pub fn confine_to_nothing(&self, id: &str) -> Result<(), Error> {
        let facts = ContainerFacts { id: id.to_owned(), ..ContainerFacts::default() };
        let nothing = RuleSet::default();
        let compiled = compile(self.profiles(), &nothing, content_hash(&nothing), Variant::default(), &facts)?;
        Ok(self.profiles().load(&compiled, &ProfileName::of(id))?)
    }

    /// A container's process waits for its first instruction, and AppArmor is to confine it: its label says so.
    ///
    /// # Errors
    /// [`Error::Unconfined`], or if the label cannot be read. Then it must not start.
    pub fn check_confined(&self, id: &str) -> Result<(), Error> {
        let Some(record) = self.state().container(id)? else { return Ok(()) };
        match &record.confinement {
            Some(confinement) => check(self.profiles(), &record, &confinement.profile, true),
            None => Ok(()),
        }
    }

    /// A runtime is about to execute a program in a container that runs, and that AppArmor may confine.
    ///
    /// # Errors
    /// [`Error::Denied`], or if what the container's rules say cannot be told. Then it must not be executed.
    pub fn judge_exec(&self, id: &str, program: &Program) -> Result<(), Error> {
        let Some(record) = self.state().container(id)? else { return Ok(()) };
        let Some(confinement) = &record.confinement else { return Ok(()) };
        let place = self.state().known(id)?.and_then(|known| known.place);
        let (Some(place), Some(rules)) = (place, self.state().rules_of(&record)?) else {
            return Err(Error::NoRecord { container: shown(&record.name, id) });
        };
        if !record.audited {
            let root = place.open_root(&Host::default())?;
            let judged = program.judge(&rules, root.as_fd());
            return judged.map_err(|error| told(self.state(), error, &confinement.profile, std::process::id(), program.uid));
        }
        Ok(())
    }

    /// What is recorded of a container that AppArmor confines: its bundle, for what an execution in it inherits.
    ///
    /// # Errors
    /// If the record is damaged.
    pub fn confinement(&self, id: &str) -> Result<Option<Confinement>, Error> {
        Ok(self.state().container(id)?.and_then(|record| record.confinement))
    }
}

/// The profiles of a set of this content hash, from the cache or made now.
pub(crate) fn compile(
    profiles: &Profiles,
    set: &RuleSet,
    hash: [u64; 2],
    variant: Variant,
    facts: &ContainerFacts,
) -> Result<CompiledProfiles, Error> {
    let failed = |source| Error::Generate { container: shown(&facts.name, &facts.id), source };
    profiles.of_set(hash, variant, || generate(set, variant).map_err(failed))
}

/// Says what the label of a container means that is about to start. If any step fails, what was before is again.
pub(crate) fn arm(
    profiles: &Profiles,
    state: &StateDir,
    plan: &Enforce,
    confining: &Confining,
    target: &Target<'_>,
) -> Result<(), Error> {
    let profile = ProfileName::of(&target.facts.id);
    let starting = target.starting.filter(|starting| Label::new(starting.label).has(&profile));
    let Some(starting) = starting else {
        return Err(Error::NoCarrier { container: name_of(target), profile });
    };
    let bundle = starting.bundle.to_owned();
    let Confining { no_new_privileges, .. } = *confining;
    let confinement = Confinement { profile: profile.clone(), no_new_privileges, bundle, carrier: starting.carrier };
    let (slot, epoch) = profile.tenancy();
    let record = ContainerRecord { confinement: Some(confinement), ..record(plan, target, NO_SET, Tenancy { slot, epoch }) };
    if !plan.audited
        && let Err(error) = starting.program.judge(&plan.set, starting.root)
    {
        let kept = keep_refused(state, plan, &record);
        // Not under the lock: who reads it may take its time.
        let error = told(state, error, &profile, record.pid, starting.program.uid);
        return Err(match kept {
            Ok(()) => error,
            Err(why) => untold(error, &why),
        });
    }
    let _lock = state.lock()?;
    let before = state.container(&target.facts.id)?;
    state.write_rule_set(plan.hash, &plan.set)?;
    // The record first: what is in force must be known, and what is known and not in force is told as lost.
    let armed = state.write_container(&record).and_then(|()| Ok(profiles.load(&confining.compiled, &profile)?));
    if let Err(error) = armed {
        // The error that is told is the first one.
        drop(match &before {
            Some(before) => state.write_container(before),
            None => state.remove_container(&record.id).map(drop),
        });
        return Err(error);
    }
    drop(state.remove_unprotected(&record.id));
    Ok(())
}

/// Keeps a container that is refused among the departed, so that who it was can be told. It stays refused if that fails.
fn keep_refused(state: &StateDir, plan: &Enforce, record: &ContainerRecord) -> Result<(), Error> {
    let _lock = state.lock()?;
    state.write_rule_set(plan.hash, &plan.set)?;
    state.retire_container(record, seconds_since_1970())
}

/// Has the agent tell of a program that is refused; nothing else is changed by that.
fn told(state: &StateDir, error: Error, profile: &ProfileName, pid: u32, uid: u32) -> Error {
    let Error::Denied { path, owner, .. } = &error else { return error };
    match (Refusal { profile, path, pid, uid, owner: *owner }).tell(state) {
        Ok(()) => error,
        Err(why) => untold(error, &why),
    }
}

fn untold(error: Error, why: &dyn std::fmt::Display) -> Error {
    match error {
        Error::Denied { path, policy, place, owner, .. } => {
            Error::Denied { path, policy, place, owner, untold: format!("; no alert tells it: {why}") }
        }
        error => error,
    }
}

/// Brings a container that runs to a plan: its profiles are replaced in one step, for all its tasks.
pub(crate) fn bring(profiles: &Profiles, state: &StateDir, plan: &Plan, target: &Target<'_>) -> Result<Refreshed, Error> {
    let _lock = state.lock()?;
    let record = state.container(&target.facts.id)?;
    let confinement = record.as_ref().and_then(|record| record.confinement.clone());
    let (Some(mut record), Some(confinement)) = (record, confinement) else {
        return match plan {
            Plan::Untouched { .. } => Ok(Refreshed::Untouched),
            Plan::Enforce(_) => Err(Error::NoCarrier { container: name_of(target), profile: ProfileName::of(&target.facts.id) }),
        };
    };
    check(profiles, &record, &confinement.profile, !target.running)?;
    let nothing;
    let (set, hash, audited, policies, unenforced) = match plan {
        Plan::Enforce(plan) => (&plan.set, plan.hash, plan.audited, &plan.policies, plan.unenforced.len()),
        Plan::Untouched { policies, unenforced } => {
            nothing = RuleSet::default();
            (&nothing, content_hash(&nothing), false, policies, unenforced.len())
        }
    };
    let same = record.hash == hex(hash) && record.audited == audited;
    let before = record.clone();
    record.policies.clone_from(policies);
    record.unenforced = unenforced;
    record.audited = audited;
    // A record that an older version wrote does not say it.
    record.asks = Some(Asks::of(target.facts));
    if !same {
        state.write_rule_set(hash, set)?;
        // Where it was planned for AppArmor it is in the cache.
        let variant = Variant { audited, no_new_privileges: confinement.no_new_privileges };
        profiles.load(&compile(profiles, set, hash, variant, target.facts)?, &confinement.profile)?;
        record.switched(record.generation.wrapping_add(1), hex(hash));
    }
    if record != before {
        state.write_container(&record)?;
    }
    Ok(match (same, plan) {
        (true, _) => Refreshed::Unchanged,
        (false, Plan::Enforce(_)) => Refreshed::Switched,
        (false, Plan::Untouched { .. }) => Refreshed::Withdrawn,
    })
}

/// A container has ended: nothing of it is kept, but for a profile that a task still has. The caller holds the lock.
pub(crate) fn disarm(
    profiles: &Profiles,
    state: &StateDir,
    record: &ContainerRecord,
    profile: &ProfileName,
) -> Result<(), Error> {
    let retired = state.retire_container(record, seconds_since_1970());
    state.remove_container(&record.id)?;
    profiles.remove_unused(|other| !profile.covers(other))?;
    retired.and_then(|()| keep_rule_sets(state, || Ok(BTreeSet::new())))
}

/// Removes the profiles of containers that nobody knows any more.
pub(crate) fn sweep(profiles: &Profiles, state: &StateDir) -> Result<(), Error> {
    let _lock = state.lock()?;
    let wanted: Vec<ProfileName> =
        state.containers()?.into_iter().filter_map(|record| Some(record.confinement?.profile)).collect();
    profiles.remove_unused(|profile| wanted.iter().any(|name| name.covers(profile)))?;
    Ok(())
}

/// What AppArmor has in force.
#[derive(Default)]
pub(crate) struct InForce {
    loaded: BTreeSet<String>,
    carriers: BTreeMap<String, u32>,
}

impl InForce {
    pub(crate) fn of(profiles: &Profiles) -> Result<InForce, Error> {
        Ok(InForce { loaded: profiles.loaded()?, carriers: profiles.carriers()? })
    }

    /// A profile that was removed and loaded again confines none of those that it confined before.
    pub(crate) fn join(&self, profile: &ProfileName, record: ContainerRecord) -> ArmedContainer {
        let tasks = self.carriers.get(profile.as_str()).copied().unwrap_or(0);
        let status = if tasks > 0 && self.loaded.contains(profile.as_str()) { Status::Armed } else { Status::Lost };
        ArmedContainer { record, status, tasks }
    }
}

/// Whether a container's profile is there, and its init has it, or will have it when it executes what it waits for.
fn check(profiles: &Profiles, record: &ContainerRecord, profile: &ProfileName, waits: bool) -> Result<(), Error> {
    let [label, at_exec] = profiles.labels_of(record.pid)?;
    let has = |label: &str| Label::new(label).has(profile);
    if profiles.is_loaded(profile)? {
        // Where the kernel does not say what it will have, there is the runtime's word: its configuration has the label, and it
        // refuses what it cannot give it.
        if has(&label) || (waits && (has(&at_exec) || !profiles.tells_at_exec(profile)?)) {
            return Ok(());
        }
    }
    let container = shown(&record.name, &record.id);
    Err(Error::Unconfined { container, pid: record.pid, profile: profile.clone(), label: label.trim_end().to_owned() })
}

fn name_of(target: &Target<'_>) -> String {
    shown(&target.facts.name, &target.facts.id)
}

fn shown(name: &str, id: &str) -> String {
    if name.is_empty() { id.to_owned() } else { name.to_owned() }
}
