//! Writes a [`RuleSet`] as AppArmor profiles, for kernels that do not run BPF LSM.
//!
//! The text is made from the same meaning as the automaton, and never from YAML: [`Candidates`] says which rule decides, in which
//! order, and to whom. The steps, each a file of its own:
//!
//! 1. `language`: objects as sequences of bytes and stars, in the names that AppArmor sees.
//! 2. `subtract`: what a rule decides is what it covers without what stronger rules cover; AppArmor has no order of rules.
//! 3. `paths`, `sockets`: the rules of a profile.
//! 4. `aare`, `text`: how they are written. Nothing of a policy is written but as quoted bytes.
//!
//! Each source class is a profile of its own, which tasks enter when they execute one of its executables, and leave for the first
//! profile when they execute something else.
//!
//! A profile takes nothing from what the engine's own profile permits and gives nothing that it denies: it is stacked on it
//! (`engine//&ours`), allows all of a class that no rule speaks of, and denies where a rule or a posture does. It may be signalled
//! and traced by everybody, since an engine that cannot signal its container cannot stop it. Mounting is denied where rules
//! name paths: it would give files other names.
//!
//! What AppArmor has no words for is no secret: [`Generated::shortfalls`] says it for each rule of this set, and
//! [`portcullis_policy::report`] what holds for every rule of its kind.

mod aare;
#[cfg(test)]
mod compiled;
#[cfg(test)]
mod conformance;
mod features;
mod in_kernel;
mod label;
mod language;
mod paths;
mod report;
mod sockets;
mod store;
mod subtract;
mod text;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod properties;

use std::collections::BTreeMap;

use portcullis_policy::capability::Capability;
use portcullis_policy::decide::{Decision, Operation, Subject, Verdict, decide};
use portcullis_policy::meaning::{Class, Location, MAX_RULES, RuleSet};
use portcullis_policy::policy::NOBODY;

use crate::automaton::{Candidates, Source};
use aare::Sequence;
pub use label::{Label, ProfileName};
use paths::{Effect, Paths};
pub use report::report;
pub use sockets::{socket_family, socket_type};
pub use store::{CompiledProfiles, Profiles, StoreError};
use text::Profile;

/// What the names of all our profiles begin with.
const PREFIX: &str = "portcullis.";
/// The name that a text is written and compiled for: as long as every [`ProfileName`], which takes its place when it is loaded.
/// So containers with the same rules share what was compiled, and each has a profile that can be replaced.
const UNNAMED: &str = "portcullis.00000000000000000000000000000000";
/// Longest text that is given to the parser.
pub const MAX_PROFILE_BYTES: usize = 4 << 20;
/// Most path rules of the profiles of a set, a file's name and that of a directory counted apart. The parser takes 3 s for so many,
/// and 12 s for twice as many.
pub const MAX_PATH_RULES: usize = 4096;
/// Longest path or pattern, as it is written. The parser's lexer has a buffer of 16 KiB and no way to make it larger.
pub const MAX_WRITTEN_BYTES: usize = 16_000;
/// Most groups of executables that `fromSource` tells apart: a profile has room for twelve names of others (`AA_X_TABLE` has
/// four bits of which four values are taken, `dfa_map_xindex` in the kernel's `security/apparmor/policy_compat.c`).
pub const MAX_SOURCE_CLASSES: usize = 12;

/// What else than the rules decides how they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Variant {
    /// Nothing is to be denied, only reported.
    pub audited: bool,
    /// The container runs with `no_new_privs`, under which the kernel lets nobody into a profile that is not a narrower one.
    pub no_new_privileges: bool,
}

/// The profiles of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// The profile that a container is started with; see [`ProfileName`].
    pub name: String,
    /// All profiles, that one first.
    pub profiles: Vec<String>,
    /// What the parser reads.
    pub text: String,
    /// What is not done as the rules of the set say.
    pub shortfalls: Vec<Shortfall>,
    sources: Sources,
}

impl Generated {
    /// The profile of tasks that run an executable of this path.
    #[must_use]
    pub fn source(&self, exe: &[u8]) -> &str {
        let class = self.sources.class(exe);
        let place = self.sources.classes.keys().position(|known| *known == class);
        place.map_or(&self.name, |place| &self.profiles[place + 1])
    }
}

/// What is not done as a rule says.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shortfall {
    /// Index of the rule in the set.
    pub rule: usize,
    /// What is done, as a sentence for the author.
    pub reason: String,
}

/// Why a set has no profile. Nothing is left out to make it fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// Too many rules.
    #[error(
        "the container has {rules} rules and a policy set holds {MAX_RULES}; narrow the selectors or merge rules into directories and patterns"
    )]
    TooManyRules {
        /// Rules of the set.
        rules: usize,
    },
    /// Too many different sources.
    #[error(
        "`fromSource` tells {classes} groups of executables apart, and {MAX_SOURCE_CLASSES} are the most that AppArmor is given; let rules share their sources"
    )]
    TooManySources {
        /// Groups of executables to which the same rules apply.
        classes: usize,
    },
    /// A path or pattern that the parser could not read.
    #[error(
        "{place}: a path or pattern that takes {bytes} bytes in an AppArmor profile; {MAX_WRITTEN_BYTES} are the most that its parser reads"
    )]
    LongPath {
        /// Where the rule is written.
        place: String,
        /// Its length as it would be written.
        bytes: usize,
    },
    /// The rules grew when they were taken apart.
    #[error(
        "the policy set takes {rules} AppArmor path rules, and {MAX_PATH_RULES} are the most that its parser is given; name directories in place of long lists of paths"
    )]
    TooManyPathRules {
        /// Rules of all profiles.
        rules: usize,
    },
    /// The text grew too long.
    #[error(
        "the AppArmor profiles of the policy set take {bytes} bytes, and {MAX_PROFILE_BYTES} are the most that its parser is given; name directories in place of long lists of paths"
    )]
    TooLong {
        /// Bytes of the text.
        bytes: usize,
    },
}

/// Writes the profiles of a set.
///
/// # Errors
/// When they would be larger than the parser should be given.
pub fn generate(set: &RuleSet, variant: Variant) -> Result<Generated, GenerateError> {
    if set.rules.len() > MAX_RULES {
        return Err(GenerateError::TooManyRules { rules: set.rules.len() });
    }
    let Only { set, rules: places } = &judged(set);
    let candidates = Candidates::of(set);
    let sources = if variant.no_new_privileges { Sources::default() } else { Sources::of_set(&candidates) };
    if sources.classes.len() > MAX_SOURCE_CLASSES {
        return Err(GenerateError::TooManySources { classes: sources.classes.len() });
    }
    let network = only(set, Class::Network);
    let capabilities = only(set, Class::Capability);
    let name = UNNAMED.to_owned();
    let mut paths = Paths::new(set, &candidates, variant.audited)?;
    let mut shortfalls = Vec::new();
    let mut profiles = Vec::new();
    let mut path_rules = 0;
    for class in std::iter::once(0).chain(sources.classes.keys().copied()) {
        let exe = sources.of(class);
        let rules = paths.of_class(class, &sources)?;
        path_rules += rules.len();
        if path_rules > MAX_PATH_RULES {
            return Err(GenerateError::TooManyPathRules { rules: path_rules });
        }
        let found = sockets::shortfalls(&network.set, exe);
        shortfalls.extend(found.into_iter().map(|found| Shortfall { rule: network.rules[found.rule], ..found }));
        profiles.push(Profile {
            class,
            paths: rules,
            network: sockets::rules(&network.set, exe, variant.audited),
            capabilities: capability_rules(&capabilities.set, exe, variant.audited),
        });
    }
    shortfalls.append(&mut paths.shortfalls);
    if variant.no_new_privileges {
        shortfalls.extend(without_sources(set));
    }
    for shortfall in &mut shortfalls {
        shortfall.rule = places[shortfall.rule];
    }
    shortfalls.sort();
    shortfalls.dedup();
    let text = text::write(&name, &profiles, &sources, names_paths(set));
    if text.len() > MAX_PROFILE_BYTES {
        return Err(GenerateError::TooLong { bytes: text.len() });
    }
    let profiles = profiles.iter().map(|profile| text::profile_name(&name, profile.class)).collect();
    Ok(Generated { name, profiles, text, shortfalls, sources })
}

/// What rules say of an operation by a task that has this profile of theirs.
#[must_use]
pub fn explain(rules: &RuleSet, profile: &str, operation: &Operation<'_>, owner: bool) -> Decision {
    let sources = Sources::of_set(&Candidates::of(&judged(rules).set));
    // The number behind the container's name.
    let class = profile.strip_prefix(PREFIX).and_then(|name| name.split_once('.')?.1.parse().ok()).unwrap_or(0);
    decide(rules, &Subject { exe: sources.of(class), owner }, operation)
}

/// The executables that `fromSource` names, and the class of each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Sources {
    by_path: BTreeMap<Vec<u8>, u32>,
    /// One executable of each class.
    classes: BTreeMap<u32, Vec<u8>>,
}

impl Sources {
    fn of_set(candidates: &Candidates) -> Sources {
        let mut sources = Sources::default();
        // What no executable is called would be written as if it were another's name.
        let is_executable = |path: &[u8]| !path.ends_with(b"/") && Sequence::literal(path).is_possible();
        for Source { at, class, .. } in &candidates.sources {
            // Only rules on system calls name directories.
            if let Some(path) = at.path().filter(|path| is_executable(path)) {
                sources.by_path.insert(path.to_vec(), *class);
                sources.classes.entry(*class).or_insert_with(|| path.to_vec());
            }
        }
        sources
    }

    /// An executable of a class. Everybody else, who is the class 0, has none that rules name.
    fn of(&self, class: u32) -> Option<&[u8]> {
        self.classes.get(&class).map(Vec::as_slice)
    }

    fn class(&self, path: &[u8]) -> u32 {
        self.by_path.get(path).copied().unwrap_or(0)
    }

    fn paths(&self) -> impl Iterator<Item = &[u8]> {
        self.by_path.keys().map(Vec::as_slice)
    }
}

/// Some rules of a set, with their places in it. A class decides nothing in another.
struct Only {
    set: RuleSet,
    rules: Vec<usize>,
}

fn only(set: &RuleSet, class: Class) -> Only {
    picked(set, |other| other == class)
}

/// The rules that AppArmor is asked about. Those on system calls decide nothing, and so make no source another either.
fn judged(set: &RuleSet) -> Only {
    picked(set, |class| class != Class::Syscall)
}

fn picked(set: &RuleSet, wanted: impl Fn(Class) -> bool) -> Only {
    let rules: Vec<usize> = (0..set.rules.len()).filter(|&rule| wanted(set.rules[rule].class)).collect();
    Only { set: RuleSet { rules: rules.iter().map(|&rule| set.rules[rule].clone()).collect(), postures: set.postures }, rules }
}

fn capability_rules(set: &RuleSet, exe: Option<&[u8]>, audited: bool) -> Vec<(Effect, Option<Capability>)> {
    let subject = Subject { exe, owner: false };
    let judged = |capability| match decide(set, &subject, &Operation::Capability(capability)).verdict {
        Verdict::Allow => Effect::Allow,
        Verdict::Block if !audited => Effect::Deny,
        Verdict::Audit | Verdict::Block => Effect::Audit,
    };
    // Those that are newer than this list are treated as what no rule names.
    let newer = portcullis_policy::decide::unmatched_verdict(set, Class::Capability);
    let mut rules = Vec::new();
    if newer != Verdict::Block || audited {
        rules.push((Effect::Allow, None));
    }
    let all = rules.len() == 1;
    let said = Capability::all().map(|capability| (judged(capability), Some(capability)));
    rules.extend(said.filter(|(effect, _)| if all { *effect != Effect::Allow } else { *effect != Effect::Deny }));
    rules
}

/// Whether a rule names a path: then mounting could give what it names another.
fn names_paths(set: &RuleSet) -> bool {
    set.rules.iter().any(|rule| matches!(rule.class, Class::File | Class::Process))
}

fn without_sources(set: &RuleSet) -> impl Iterator<Item = Shortfall> + '_ {
    let limited = |sources: &[Location]| sources.iter().any(|source| source.path() != Some(NOBODY));
    let reason = "under no_new_privs the kernel does not let a program change its profile, so AppArmor cannot tell by whom this is done: the rule is left out";
    let rules = set.rules.iter().enumerate().filter(move |(_, rule)| limited(&rule.sources));
    rules.map(move |(rule, _)| Shortfall { rule, reason: reason.to_owned() })
}

#[cfg(test)]
#[path = "generate_tests.rs"]
mod tests;
