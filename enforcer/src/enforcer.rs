//! Plan, arm, disarm, list: what every door calls.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use portcullis_ebpf::{Kernel, Options, abi};
use portcullis_policy::{Backend, ContainerFacts};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::apparmor::{Profiles, Variant};
use crate::backend::Chosen;
use crate::place::{PlaceError, ProcessError};
use crate::plan::{self, Confining, Container, Enforce, Form, Plan, Target};
use crate::policy_dir::{Policies, PolicyDir};
use crate::record::{ContainerRecord, Unprotected};
use crate::slots::{self, FIRST_GENERATION, Tenancy, Tenant};
use crate::state::{StateDir, hex};
use crate::tables::Tables;
use crate::{Config, Error, confine, sets};

/// The enforcer of this host.
///
/// Cheap to open: policies are read, and the kernel's state opened, when they are first asked for.
pub struct Enforcer {
    config: Config,
    state: StateDir,
    policies: RwLock<Option<Arc<Policies>>>,
    kernel: Mutex<Option<Arc<Kernel>>>,
    profiles: Profiles,
    chosen: OnceLock<Chosen>,
}

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

/// A record joined with what the kernel has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ArmedContainer {
    /// What was armed.
    #[serde(flatten)]
    pub record: ContainerRecord,
    /// What of it is in force.
    pub status: Status,
    /// Tasks under its policy.
    pub tasks: u32,
}

/// What of a record is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is armed.
    Armed,
    /// It was disarmed, and some of its tasks are still there, under its policy.
    Leaving,
    /// The kernel knows nothing of it: the programs were unloaded, or its slot is another's.
    Lost,
}

impl Enforcer {
    /// Opens the state directory, creating it if need be.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn open(config: Config) -> Result<Enforcer, Error> {
        let state = StateDir::at(&config.state_dir);
        state.create()?;
        let profiles = Profiles::of_host(&config.state_dir);
        let (policies, kernel, chosen) = (RwLock::new(None), Mutex::new(None), OnceLock::new());
        Ok(Enforcer { config, state, policies, kernel, profiles, chosen })
    }

    /// What enforces on this host.
    pub fn chosen(&self) -> Chosen {
        *self.chosen.get_or_init(|| Chosen::by(self.config.backend, || self.kernel().is_ok()))
    }

    pub(crate) fn profiles(&self) -> &Profiles {
        &self.profiles
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The state directory.
    #[must_use]
    pub fn state(&self) -> &StateDir {
        &self.state
    }

    /// The policies of this host, as they were when they were last read.
    ///
    /// # Errors
    /// As [`PolicyDir::read`].
    pub fn policies(&self) -> Result<Arc<Policies>, Error> {
        if let Some(policies) = &*self.policies.read().unwrap_or_else(PoisonError::into_inner) {
            return Ok(Arc::clone(policies));
        }
        self.reload()
    }

    /// Reads the policies anew. Who has the former ones keeps them.
    ///
    /// # Errors
    /// As [`PolicyDir::read`]; then the former ones stay.
    pub fn reload(&self) -> Result<Arc<Policies>, Error> {
        let policies = Arc::new(PolicyDir::new(&self.config.policy_dir, Some(&self.state.policies())).read()?);
        *self.policies.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&policies));
        Ok(policies)
    }

    /// Selects the rules of a container, resolves their paths in its root, and makes their tables, unless the kernel has
    /// them. Changes nothing in the kernel.
    ///
    /// # Errors
    /// [`Error::Compile`], or if the policies cannot be read.
    pub fn plan(&self, container: &Container<'_>) -> Result<Plan, Error> {
        let policies = self.policies()?;
        plan::plan(&self.config, &policies.policies, container, |set, hash, audited| match self.chosen().backend {
            Backend::Bpf if self.kernel().is_ok_and(|kernel| matches!(sets::find(&*kernel, hash), Ok(Some(_)))) => {
                Ok(Form::Tables(None))
            }
            Backend::Bpf => Ok(Form::Tables(Some(plan::tables(&self.state, set, hash, container.facts)?))),
            Backend::AppArmor => {
                let no_new_privileges = container.no_new_privileges;
                let variant = Variant { audited, no_new_privileges };
                let compiled = confine::compile(&self.profiles, set, hash, variant, container.facts)?;
                Ok(Form::Profiles(Confining { compiled, no_new_privileges }))
            }
        })
    }

    /// Makes sure that this host can enforce: that the kernel programs of this build are in force, whatever was opened before, or
    /// that AppArmor is there.
    ///
    /// # Errors
    /// If it cannot.
    pub fn load(&self) -> Result<(), Error> {
        if self.chosen().backend == Backend::AppArmor {
            return Ok(self.profiles.check()?);
        }
        let kernel = Kernel::load(Options::default())?;
        *self.kernel.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(kernel));
        Ok(())
    }

    /// Arms a container, in place of what was armed for the same id. If any step fails, nothing of it remains.
    ///
    /// To be called in the runtime's mount namespace, before the container's first instruction.
    ///
    /// # Errors
    /// If the kernel programs are not loaded, or have no room.
    pub fn arm(&self, plan: &Enforce, target: &Target<'_>) -> Result<(), Error> {
        match plan.form {
            Form::Tables(_) => arm_in(&*self.kernel()?, &self.state, plan, target).map(drop),
            Form::Profiles(ref profile) => confine::arm(&self.profiles, &self.state, plan, profile, target),
        }
    }

    /// Takes out of force whatever was armed or recorded for an id; whether there was anything.
    ///
    /// # Errors
    /// If something of it could not be undone; everything else was, and it may be tried again.
    pub fn disarm(&self, id: &str) -> Result<bool, Error> {
        self.hide(id);
        let known = self.state.remove_known(id)?;
        let unprotected = self.state.remove_unprotected(id)?;
        let _lock = self.state.lock()?;
        let Some(record) = self.state.container(id)? else { return Ok(known || unprotected) };
        if let Some(confinement) = &record.confinement {
            confine::disarm(&self.profiles, &self.state, &record, &confinement.profile)?;
            return Ok(true);
        }
        match self.kernel() {
            Ok(kernel) => disarm_in(&*kernel, &self.state, &record)?,
            Err(Error::Kernel(portcullis_ebpf::Error::NotLoaded)) => {
                self.state.remove_container(id)?;
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Every container that was armed and not disarmed.
    ///
    /// # Errors
    /// If the records or the kernel's tables cannot be read.
    pub fn list(&self) -> Result<Vec<ArmedContainer>, Error> {
        let kernel = match self.kernel() {
            Ok(kernel) => Some(kernel),
            Err(Error::Kernel(portcullis_ebpf::Error::NotLoaded)) => None,
            Err(error) => return Err(error),
        };
        let labels = kernel.as_ref().map(|kernel| kernel.labels()).transpose()?.unwrap_or_default();
        let records = self.state.containers()?;
        let confined = match records.iter().any(|record| record.confinement.is_some()) {
            true => confine::InForce::of(&self.profiles)?,
            false => confine::InForce::default(),
        };
        let joined = |record: ContainerRecord| match &record.confinement {
            Some(confinement) => Ok(confined.join(&confinement.profile.clone(), record)),
            None => join(kernel.as_deref(), &labels, record),
        };
        records.into_iter().map(joined).collect()
    }

    /// Leaves a record that a container runs without protection.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn record_unprotected(&self, id: &str, name: &str, reason: &str) -> Result<(), Error> {
        let at = seconds_since_1970();
        self.state.write_unprotected(&Unprotected { id: id.to_owned(), name: name.to_owned(), reason: reason.to_owned(), at })
    }

    /// Forgets what was armed, after the kernel programs have been unloaded. Profiles that tasks have deny nothing any more.
    ///
    /// # Errors
    /// If a record cannot be removed, or a profile not replaced.
    pub fn forget(&self) -> Result<(), Error> {
        let mut confined = self.state.containers()?.into_iter().filter(|record| record.confinement.is_some());
        confined.try_for_each(|record| self.confine_to_nothing(&record.id))?;
        let _lock = self.state.lock()?;
        self.state.forget()
    }

    pub(crate) fn kernel(&self) -> Result<Arc<Kernel>, Error> {
        let mut opened = self.kernel.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = &*opened {
            return Ok(Arc::clone(kernel));
        }
        let kernel = Arc::new(Kernel::open()?);
        *opened = Some(Arc::clone(&kernel));
        Ok(kernel)
    }
}

fn join<T: Tables>(
    tables: Option<&T>,
    labels: &BTreeMap<abi::Label, u32>,
    record: ContainerRecord,
) -> Result<ArmedContainer, Error> {
    let slot = tables.map(|tables| tables.read_slot(record.slot)).transpose()?;
    let slot = slot.filter(|slot| slot.epoch == record.epoch && slot.flags != 0);
    let status = match slot {
        Some(slot) if slot.flags & abi::SLOT_ARMED != 0 => Status::Armed,
        Some(_) => Status::Leaving,
        None => Status::Lost,
    };
    let label = slot.map(|slot| abi::Label { slot: record.slot, epoch: slot.epoch });
    let tasks = label.and_then(|label| labels.get(&label).copied()).unwrap_or(0);
    Ok(ArmedContainer { record, status, tasks })
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
        now_ns: boottime_ns(),
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
        confinement: None,
    }
}

pub(crate) fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn boottime_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

pub(crate) fn boottime_seconds() -> u32 {
    (boottime_ns() / 1_000_000_000).min(u64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hook's deadline disarms from another thread.
    #[test]
    fn threads_may_share_it() {
        fn shared<T: Send + Sync>() {}
        shared::<Enforcer>();
    }

    #[test]
    fn what_was_never_armed_is_not_disarmed_but_no_error() {
        let temporary = tempfile::tempdir().unwrap();
        let config = Config { state_dir: temporary.path().join("state"), ..Config::default() };
        let enforcer = Enforcer::open(config).unwrap();
        assert!(!enforcer.disarm("nobody").unwrap());
        enforcer.record_unprotected("c1", "web", "the kernel is too old").unwrap();
        assert_eq!(enforcer.state().unprotected().unwrap()[0].name, "web");
        assert!(enforcer.disarm("c1").unwrap());
        assert!(enforcer.state().unprotected().unwrap().is_empty());
    }
}
