//! What each object of each rule says, strongest first, and to whom.

use std::collections::BTreeMap;

use portcullis_ebpf::abi;
use portcullis_policy::decide::precedence;
use portcullis_policy::meaning::{Action, Class, Object, Posture, Rule, RuleSet};

use super::calls::CallClasses;
use super::sources::{Source, source_classes};

/// What a rule says for one operation group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdicts {
    /// To the owner of the object.
    pub(crate) owner: u32,
    /// To everybody else.
    pub(crate) other: u32,
}

/// One object of one rule.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    pub(crate) rule: usize,
    pub(crate) object: usize,
    /// Place in the order of precedence.
    pub(crate) rank: u32,
    /// The rank that decisions tell. It is compared with the other automaton's only, so objects of a rule share one where
    /// no execname comes between them: states that differ in nothing but the object become one.
    pub(crate) told: u32,
    /// Whether its object is an execname.
    pub(crate) is_name: bool,
    /// The class of calls that its object is one of, counted from 0; `None` where it is about no call.
    pub(super) calls: Option<u32>,
    /// What it says, by group; `None` where it does not cover the group.
    pub(crate) groups: [Option<Verdicts>; abi::GROUPS as usize],
}

/// Everything that the rules of a set say.
#[derive(Debug)]
pub(crate) struct Candidates {
    /// Path and execname candidates, strongest first.
    pub(crate) paths: Vec<Candidate>,
    /// Candidates without a path: rule and object, strongest first.
    pub(crate) others: Vec<(usize, usize)>,
    /// What system calls do to paths: which calls the same rules are about.
    pub(super) call_classes: CallClasses,
    /// Sources with their class. Classes count from 1; 0 is everybody else.
    pub(crate) sources: Vec<Source>,
    /// How many source classes there are, 0 included.
    pub(crate) classes: usize,
    /// For each rule with sources, the classes it applies to. Empty for a rule without.
    pub(crate) classes_of: Vec<Vec<u32>>,
    /// Verdict of each group for what no rule covers.
    pub(crate) unmatched: [u32; abi::GROUPS as usize],
    /// The same for sockets.
    pub(crate) unmatched_network: u32,
    /// The same for capabilities.
    pub(crate) unmatched_capability: u32,
    by_rank: Vec<Option<Candidate>>,
}

impl Candidates {
    pub(crate) fn of(set: &RuleSet) -> Candidates {
        let order = precedence(set);
        let mut paths = Vec::with_capacity(order.len());
        let mut others = Vec::new();
        let mut by_rank = vec![None; order.len()];
        let call_classes = CallClasses::of_paths(set);
        // The first rank of each rule since the last execname.
        let mut first: BTreeMap<usize, u32> = BTreeMap::new();
        for (place, candidate) in order.iter().enumerate() {
            let rule = &set.rules[candidate.rule];
            let object = &rule.objects[candidate.object];
            let calls = match object {
                Object::Syscall { call, at: Some(_) } => match call_classes.spoken_for_by(*call) {
                    Some(class) => Some(class),
                    None => continue,
                },
                Object::Protocol(_) | Object::Capability(_) | Object::Syscall { at: None, .. } => {
                    others.push((candidate.rule, candidate.object));
                    continue;
                }
                _ => None,
            };
            let rank = place as u32;
            let is_name = matches!(object, Object::ExecName(_));
            let told = if is_name {
                first.clear();
                rank
            } else {
                *first.entry(candidate.rule).or_insert(rank)
            };
            let groups = [abi::READ, abi::CHANGE, abi::EXEC].map(|group| verdicts(rule, group));
            let candidate = Candidate { rule: candidate.rule, object: candidate.object, rank, told, is_name, calls, groups };
            by_rank[place] = Some(candidate);
            paths.push(candidate);
        }
        let (sources, classes, classes_of) = source_classes(set);
        let listed = |class: Class| set.rules.iter().any(|rule| rule.class == class && rule.action == Action::Allow);
        let posture = |class, posture| match (listed(class), posture) {
            (false, _) => abi::NONE,
            (true, Posture::Audit) => abi::AUDIT,
            (true, Posture::Block) => abi::BLOCK,
        };
        let file = posture(Class::File, set.postures.file);
        Candidates {
            paths,
            others,
            call_classes,
            sources,
            classes,
            classes_of,
            unmatched: [file, file, posture(Class::Process, set.postures.file)],
            unmatched_network: posture(Class::Network, set.postures.network),
            unmatched_capability: posture(Class::Capability, set.postures.capabilities),
            by_rank,
        }
    }

    /// The decision that the strongest candidates of each group make, given by rank. `posture` fills the groups without one.
    pub(crate) fn decision(&self, ranks: Ranks, posture: bool) -> abi::Decision {
        let mut decision = abi::Decision::default();
        for (group, op) in decision.op.iter_mut().enumerate() {
            let candidate = self.by_rank.get(ranks[group] as usize).copied().flatten();
            let said = candidate.and_then(|c| c.groups[group].map(|verdicts| (c, verdicts)));
            *op = match said {
                Some((c, v)) => abi::DecisionOp { verdicts: v.owner | (v.other << 8) | ((c.rule as u32) << 16), rank: c.told },
                None if posture && self.unmatched[group] != abi::NONE => {
                    let verdict = self.unmatched[group];
                    let verdicts = verdict | (verdict << 8) | (abi::RULE_POSTURE << 16);
                    abi::DecisionOp { verdicts, rank: abi::RANK_POSTURE }
                }
                None => abi::DecisionOp { verdicts: abi::RULE_NONE << 16, rank: abi::RANK_NONE },
            };
        }
        decision
    }

    /// Whether a rule applies to tasks of a source class.
    pub(crate) fn applies(&self, set: &RuleSet, rule: usize, class: u32) -> bool {
        set.rules[rule].sources.is_empty() || self.classes_of[rule].binary_search(&class).is_ok()
    }
}

/// By group, the rank of the strongest candidate, or [`NO_RANK`].
pub(crate) type Ranks = [u32; abi::GROUPS as usize];

/// No candidate.
pub(super) const NO_RANK: u32 = u32::MAX;

/// Ranks of nothing at all.
pub(super) const NO_RANKS: Ranks = [NO_RANK; abi::GROUPS as usize];

/// What a rule says for an operation group; `None` where it does not cover it.
fn verdicts(rule: &Rule, group: u32) -> Option<Verdicts> {
    // On executions `readOnly` says nothing, see `portcullis_policy::decide`.
    let covered = match rule.class {
        Class::File => group == abi::READ || group == abi::CHANGE,
        Class::Process => group == abi::EXEC,
        Class::Network | Class::Capability => false,
        // It audits whatever the rule says, see `portcullis_policy::decide`; its paths are an automaton of their own.
        Class::Syscall => {
            return (group == abi::call::CALLED).then_some(Verdicts { owner: abi::AUDIT, other: abi::AUDIT });
        }
    };
    if !covered {
        return None;
    }
    if rule.read_only && group == abi::CHANGE && rule.action == Action::Allow {
        return Some(Verdicts { owner: abi::BLOCK, other: abi::BLOCK });
    }
    if rule.read_only && group == abi::READ && rule.action != Action::Allow {
        return None;
    }
    let said = match rule.action {
        Action::Allow => abi::ALLOW,
        Action::Audit => abi::AUDIT,
        Action::Block => abi::BLOCK,
    };
    Some(match (rule.owner_only, rule.action) {
        (false, _) => Verdicts { owner: said, other: said },
        (true, Action::Audit) => Verdicts { owner: abi::ALLOW, other: abi::AUDIT },
        (true, _) => Verdicts { owner: abi::ALLOW, other: abi::BLOCK },
    })
}
