//! The path rules of a profile: files and executions.
//!
//! AppArmor adds up what matches a name: it is allowed what some rule allows and none denies, and reported where some rule
//! says `audit`. There is no order. So each rule of a policy is written for the names that it decides, and not for all that it covers:
//!
//! | it says | is written for | since |
//! |---|---|---|
//! | allow | all its names | what a stronger rule denies or audits is denied or reported all the same |
//! | audit | its names without those of stronger allows | a denial is reported anyway |
//! | block | its names without those of stronger allows and audits | |
//!
//! What no rule speaks of is a rule of its own, the weakest: everything is allowed, or reported where no rule allows it, or nothing
//! is written and AppArmor denies.

use std::collections::BTreeMap;
use std::rc::Rc;

use portcullis_ebpf::abi;
use portcullis_policy::decide::{Operation, Subject, Verdict, decide};
use portcullis_policy::meaning::{Class, Location, Object, RuleSet};

use super::aare::Sequence;
use super::language::{everything, executables, files};
use super::subtract::{Budget, meets, subtract};
use super::{GenerateError, MAX_PATH_RULES, MAX_WRITTEN_BYTES, Shortfall, Sources};
use crate::automaton::Candidates;

/// What is done where a rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Effect {
    Allow,
    Audit,
    Deny,
}

/// Permissions, as bits.
pub(super) type Permissions = u8;
pub(super) const READ: Permissions = 1;
/// Every change, and the name as that of a new link.
pub(super) const CHANGE: Permissions = 2;
pub(super) const EXECUTE: Permissions = 4;
/// To be mapped as code.
pub(super) const MAP: Permissions = 8;

/// What a path rule gives or takes, to the owner of the file and to everybody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Access {
    pub(super) owner: Permissions,
    pub(super) other: Permissions,
}

/// The path rules of a profile. Each stands once.
pub(super) type PathRules = BTreeMap<(Effect, Sequence), Access>;

/// The path rules of a set, for all its source classes.
pub(super) struct Paths<'a> {
    set: &'a RuleSet,
    candidates: &'a Candidates,
    /// For each candidate.
    names: Vec<Rc<[Sequence]>>,
    audited: bool,
    budget: Budget,
    pub(super) shortfalls: Vec<Shortfall>,
}

/// What a candidate says to somebody.
#[derive(Clone)]
struct Said {
    rule: usize,
    names: Rc<[Sequence]>,
    verdict: Verdict,
    /// What it takes with an execution that it denies.
    denies: Permissions,
}

impl<'a> Paths<'a> {
    pub(super) fn new(set: &'a RuleSet, candidates: &'a Candidates, audited: bool) -> Result<Paths<'a>, GenerateError> {
        let mut names = Vec::with_capacity(candidates.paths.len());
        for candidate in &candidates.paths {
            let rule = &set.rules[candidate.rule];
            let object = &rule.objects[candidate.object];
            let covered = if rule.class == Class::Process { executables(object) } else { files(object) };
            let sources = rule.sources.iter().filter_map(Location::path).map(Sequence::literal);
            let bytes = covered.iter().cloned().chain(sources).map(|name| name.to_string().len()).max().unwrap_or(0);
            if bytes > MAX_WRITTEN_BYTES {
                let place = format!("{}:{}", rule.origin.file.display(), rule.origin.line);
                return Err(GenerateError::LongPath { place, bytes });
            }
            names.push(covered.into());
        }
        Ok(Paths { set, candidates, names, audited, budget: Budget::default(), shortfalls: Vec::new() })
    }

    /// The rules for tasks of a source class.
    pub(super) fn of_class(&mut self, class: u32, sources: &Sources) -> Result<PathRules, GenerateError> {
        let mut rules = PathRules::new();
        for (group, permission) in [(abi::READ, READ), (abi::CHANGE, CHANGE), (abi::EXEC, EXECUTE)] {
            for owner in [true, false] {
                self.group(&mut rules, class, group as usize, permission, owner)?;
            }
        }
        self.sources(&mut rules, class, sources);
        Ok(rules)
    }

    fn group(
        &mut self,
        rules: &mut PathRules,
        class: u32,
        group: usize,
        permission: Permissions,
        owner: bool,
    ) -> Result<(), GenerateError> {
        let said = self.said(class, group, permission, owner);
        let unmatched = self.verdict(self.candidates.unmatched[group]);
        match unmatched {
            None | Some(Verdict::Allow) => add(rules, owner, Effect::Allow, &[everything()], permission),
            Some(Verdict::Audit) => {
                let allowed: Vec<&Said> = said.iter().filter(|said| said.verdict == Verdict::Allow).collect();
                let names = self.without(&[everything()], &allowed, "what no rule speaks of is reported", None);
                add(rules, owner, Effect::Audit, &names, permission);
            }
            Some(Verdict::Block) => {}
        }
        for (place, this) in said.iter().enumerate() {
            // Each adds its own, and they may be many: it is not waited for all of them.
            if rules.len() > MAX_PATH_RULES {
                return Err(GenerateError::TooManyPathRules { rules: rules.len() });
            }
            let stronger = &said[..place];
            match this.verdict {
                Verdict::Allow if matches!(unmatched, None | Some(Verdict::Allow)) => {}
                Verdict::Allow => add(rules, owner, Effect::Allow, &this.names, permission),
                Verdict::Audit => {
                    let allowed: Vec<&Said> = stronger.iter().filter(|said| said.verdict == Verdict::Allow).collect();
                    let names = self.without(&this.names, &allowed, "what it covers is reported", Some(this.rule));
                    add(rules, owner, Effect::Audit, &names, permission);
                }
                Verdict::Block => {
                    let denied_anyway = unmatched == Some(Verdict::Block)
                        && !said[place + 1..].iter().any(|weaker| weaker.verdict != Verdict::Block && self.meet(this, weaker));
                    if denied_anyway {
                        continue;
                    }
                    let let_through: Vec<&Said> = stronger.iter().filter(|said| said.verdict != Verdict::Block).collect();
                    let names = self.without(&this.names, &let_through, "what it covers is denied", Some(this.rule));
                    add(rules, owner, Effect::Deny, &names, this.denies);
                }
            }
        }
        Ok(())
    }

    /// What the rules say to tasks of a class, the strongest first.
    fn said(&self, class: u32, group: usize, permission: Permissions, owner: bool) -> Vec<Said> {
        let applies = |rule: usize| self.candidates.applies(self.set, rule, class);
        let candidates = self.candidates.paths.iter().zip(&self.names).filter(|(candidate, _)| applies(candidate.rule));
        candidates
            .filter_map(|(candidate, names)| {
                let verdicts = candidate.groups[group]?;
                let verdict = self.verdict(if owner { verdicts.owner } else { verdicts.other })?;
                let object = &self.set.rules[candidate.rule].objects[candidate.object];
                let denies = if permission == EXECUTE && is_one_program(object) { EXECUTE | MAP } else { permission };
                Some(Said { rule: candidate.rule, names: Rc::clone(names), verdict, denies })
            })
            .collect()
    }

    /// The verdict that the kernel tables have a number for.
    fn verdict(&self, number: u32) -> Option<Verdict> {
        match number {
            abi::ALLOW => Some(Verdict::Allow),
            abi::AUDIT => Some(Verdict::Audit),
            abi::BLOCK if self.audited => Some(Verdict::Audit),
            abi::BLOCK => Some(Verdict::Block),
            _ => None,
        }
    }

    fn meet(&mut self, a: &Said, b: &Said) -> bool {
        let budget = &mut self.budget;
        a.names.iter().any(|a| b.names.iter().any(|b| meets(a, b, budget)))
    }

    /// Names without those of exceptions. Where AppArmor has no words for it, the exceptions are not made, and it is told.
    fn without(&mut self, names: &[Sequence], exceptions: &[&Said], then: &str, rule: Option<usize>) -> Vec<Sequence> {
        let budget = &mut self.budget;
        let mut met = |exception: &Said| names.iter().any(|a| exception.names.iter().any(|b| meets(a, b, budget)));
        let exceptions: Vec<&Said> = exceptions.iter().copied().filter(|exception| met(exception)).collect();
        let taken: Vec<Sequence> = exceptions.iter().flat_map(|exception| exception.names.iter().cloned()).collect();
        if taken.is_empty() {
            return names.to_vec();
        }
        subtract(names, &taken, &mut self.budget).unwrap_or_else(|_| {
            let weaker = rule.map_or_else(String::new, |rule| {
                let origin = &self.set.rules[rule].origin;
                format!(" from {}:{}", origin.file.display(), origin.line)
            });
            for exception in exceptions {
                let reason = format!(
                    "AppArmor has no words for this exception{weaker}: {then}, and what this rule says of it is not done"
                );
                let shortfall = Shortfall { rule: exception.rule, reason };
                if !self.shortfalls.contains(&shortfall) {
                    self.shortfalls.push(shortfall);
                }
            }
            names.to_vec()
        })
    }

    /// A rule for each executable that leads to another profile. Its exact name outweighs every wildcard there is for
    /// its execution, so it is written only where it may be executed.
    fn sources(&self, rules: &mut PathRules, class: u32, sources: &Sources) {
        let exe = sources.of(class);
        for path in sources.paths() {
            for owner in [true, false] {
                let subject = Subject { exe, owner };
                let verdict = decide(self.set, &subject, &Operation::Exec { path: Some(path), unlinked: false }).verdict;
                let effect = match verdict {
                    Verdict::Allow => Effect::Allow,
                    Verdict::Block if !self.audited => continue,
                    Verdict::Audit | Verdict::Block => Effect::Audit,
                };
                add(rules, owner, effect, &[Sequence::literal(path)], EXECUTE);
            }
        }
    }
}

fn add(rules: &mut PathRules, owner: bool, effect: Effect, names: &[Sequence], permissions: Permissions) {
    for name in names {
        let access = rules.entry((effect, name.clone())).or_default();
        *(if owner { &mut access.owner } else { &mut access.other }) |= permissions;
    }
}

/// Whether an object names a program, that nobody maps as code but to run it: who denies its execution may deny a program
/// loader to map it. A library, or the loader itself, every program maps.
fn is_one_program(object: &Object) -> bool {
    let is_library = |path: &[u8]| {
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
        name.windows(3).any(|part| part == b".so")
    };
    match object {
        Object::Path(name) | Object::ExecName(name) => !is_library(name),
        Object::Directory { .. } | Object::Pattern(_) | Object::Protocol(_) | Object::Capability(_) | Object::Syscall { .. } => {
            false
        }
    }
}
