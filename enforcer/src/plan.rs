//! What is to be armed for a container.

use std::os::fd::BorrowedFd;
use std::path::Path;

use portcullis_policy::links::through_links;
use portcullis_policy::meaning::RuleSet;
use portcullis_policy::{ContainerFacts, Mode, Policy, Unenforced, select};

use crate::apparmor::CompiledProfiles;
use crate::automaton::{Budget, Compiled, compile, content_hash};
use crate::place::Place;
use crate::program::Program;
use crate::record::Carrier;
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
    /// It runs with `no_new_privs`.
    pub no_new_privileges: bool,
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
    /// What the runtime is to execute in it; nothing where nobody said.
    pub starting: Option<Starting<'a>>,
}

/// A container that waits for its first instruction, by the configuration that the runtime has read.
#[derive(Debug, Clone, Copy)]
pub struct Starting<'a> {
    /// Its bundle's directory.
    pub bundle: &'a Path,
    /// The label that the runtime gives it, as the configuration has it; empty for none.
    pub label: &'a str,
    /// Who has put it there.
    pub carrier: Carrier,
    /// Its first program.
    pub program: &'a Program,
    /// Its root file system with all mounts made.
    pub root: BorrowedFd<'a>,
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
    pub(crate) form: Form,
}

/// What is put in force for the rules.
#[derive(Debug)]
pub(crate) enum Form {
    /// Tables of the kernel programs; absent if the kernel already had them when this was planned.
    Tables(Option<Compiled>),
    /// AppArmor profiles.
    Profiles(Confining),
}

/// Profiles, and what they were made for.
#[derive(Debug)]
pub(crate) struct Confining {
    pub(crate) compiled: CompiledProfiles,
    pub(crate) no_new_privileges: bool,
}

/// Plans. `form` compiles rules, by their content hash, of which nothing may be denied where the flag says so.
pub(crate) fn plan(
    config: &Config,
    policies: &[Policy],
    container: &Container<'_>,
    form: impl FnOnce(&RuleSet, [u64; 2], bool) -> Result<Form, Error>,
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
    let audited = selection.mode == Mode::Audited;
    let form = form(&set, hash, audited)?;
    let (policies, unenforced) = (selection.policies, selection.unenforced);
    Ok(Plan::Enforce(Box::new(Enforce { set, hash, audited, policies, unenforced, form })))
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
