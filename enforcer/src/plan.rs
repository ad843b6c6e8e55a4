//! What is to be armed for a container.

use std::os::fd::BorrowedFd;

use portcullis_policy::links::through_links;
use portcullis_policy::meaning::RuleSet;
use portcullis_policy::{ContainerFacts, Mode, Policy, Unenforced, select};

use crate::automaton::{Budget, Compiled, compile, content_hash};
use crate::place::Place;
use crate::root::ContainerRoot;
use crate::state::StateDir;
use crate::{Config, Error};

/// A container that is about to start.
#[derive(Debug, Clone, Copy)]
pub struct Container<'a> {
    /// Who it is.
    pub facts: &'a ContainerFacts,
    /// Its root file system with all mounts made. Without it, rules hold for the paths as written.
    pub root: Option<BorrowedFd<'a>>,
}

/// Where to arm it.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Who it is.
    pub facts: &'a ContainerFacts,
    /// Where it is.
    pub place: &'a Place,
    /// It runs already: there are tasks that must be put under its policy besides those that it will execute.
    pub running: bool,
}

/// What is to be done for a container.
#[derive(Debug)]
pub enum Plan {
    /// Nothing: no rule speaks of it.
    Untouched {
        /// The policies that select it and nevertheless have nothing to enforce, or are turned off by annotation.
        policies: Vec<String>,
        /// What those policies say that is not enforced.
        unenforced: Vec<Unenforced>,
    },
    /// These rules.
    Enforce(Box<Enforce>),
}

/// Rules to arm.
#[derive(Debug)]
pub struct Enforce {
    /// The rules, with where their paths lead in the container's root.
    pub set: RuleSet,
    /// Their content hash.
    pub hash: [u64; 2],
    /// Nothing is to be denied, only alerted.
    pub audited: bool,
    /// The policies that select the container.
    pub policies: Vec<String>,
    /// What those policies say that is not enforced.
    pub unenforced: Vec<Unenforced>,
    /// The tables; absent if the kernel already had them when this was planned.
    pub(crate) compiled: Option<Compiled>,
}

/// Plans. `in_kernel` says whether the kernel has a set already.
pub(crate) fn plan(
    config: &Config,
    state: &StateDir,
    policies: &[Policy],
    container: &Container<'_>,
    in_kernel: impl FnOnce([u64; 2]) -> bool,
) -> Result<Plan, Error> {
    let selection = select(policies, container.facts, config.postures);
    if selection.mode == Mode::Disabled || selection.set.rules.is_empty() {
        return Ok(Plan::Untouched { policies: selection.policies, unenforced: selection.unenforced });
    }
    let set = match container.root {
        Some(fd) => {
            let mut root = ContainerRoot::new(fd);
            through_links(&selection.set, |path| root.leads(path))
        }
        None => selection.set,
    };
    let hash = content_hash(&set);
    let compiled = if in_kernel(hash) { None } else { Some(tables(state, &set, hash, container.facts)?) };
    let audited = selection.mode == Mode::Audited;
    let (policies, unenforced) = (selection.policies, selection.unenforced);
    Ok(Plan::Enforce(Box::new(Enforce { set, hash, audited, policies, unenforced, compiled })))
}

/// The tables of a set, from the cache or made now.
pub(crate) fn tables(state: &StateDir, set: &RuleSet, hash: [u64; 2], facts: &ContainerFacts) -> Result<Compiled, Error> {
    if let Some(cached) = state.cached(hash) {
        return Ok(cached);
    }
    let failed = |source| {
        let container = if facts.name.is_empty() { &facts.id } else { &facts.name };
        Error::Compile { container: container.clone(), source }
    };
    let compiled = compile(set, Budget::default()).map_err(failed)?;
    state.cache(&compiled);
    Ok(compiled)
}
