//! Subset construction: the NFA made deterministic.
//!
//! Most states have one trie node and one or two bytes that lead on; everything else goes where "any other byte" goes. So a
//! row is filled with that first, and only the bytes that the nodes name are worked out one by one.

use std::collections::HashMap;

use portcullis_ebpf::abi;
use portcullis_policy::meaning::{Location, Object, RuleSet};

use super::candidates::{Candidates, NO_RANK, NO_RANKS, Ranks};
use super::nfa::{Loop, Nfa};
use super::{Budget, CompileError, Contributor};

/// The rules named when a budget is exceeded.
const MAX_CONTRIBUTORS: usize = 3;

/// Most NFA nodes that all states may have together, a step each besides: it bounds memory to about 100 MiB.
const MAX_MEMBERS: usize = 8 << 20;

/// What the decision column of a state means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Label {
    /// Index into [`Dfa::decisions`].
    Decision(u32),
    /// The same, for the root directory: the one path that ends in its slash. What is below it follows at once.
    Root(u32),
    /// A source class.
    Source(u32),
}

/// A deterministic automaton with several start states.
#[derive(Debug)]
pub(super) struct Dfa {
    /// Columns of a row: one per byte class.
    pub(super) classes: usize,
    /// Column of `/`.
    pub(super) slash: usize,
    pub(super) labels: Vec<Label>,
    /// `labels.len()` rows of next states.
    pub(super) rows: Vec<u32>,
    pub(super) decisions: Vec<abi::Decision>,
    /// For each source class, where paths start.
    pub(super) path_starts: Vec<u32>,
    /// For each source class, and in it for each class of calls, where the paths of calls start.
    pub(super) call_starts: Vec<u32>,
    /// For each source class, where last components start. Empty without execnames.
    pub(super) name_starts: Vec<u32>,
    /// Where the path of an executable starts that is to be told its source class.
    pub(super) source_start: Option<u32>,
    /// The rules that have a part in most states.
    pub(super) contributors: Vec<Contributor>,
}

/// Determinises the NFA.
pub(super) fn determinise(set: &RuleSet, candidates: &Candidates, nfa: &Nfa, budget: Budget) -> Result<Dfa, CompileError> {
    let mut builder = Builder::new(candidates, nfa, budget);
    let starts = builder.starts(set);
    let starts = match starts {
        Ok(starts) => starts,
        Err(over) => return Err(builder.refuse(set, over)),
    };
    if let Err(over) = builder.explore() {
        return Err(builder.refuse(set, over));
    }
    let contributors = builder.contributors(set);
    let Builder { labels, rows, decisions, .. } = builder;
    let Starts { path_starts, call_starts, name_starts, source_start } = starts;
    Ok(Dfa {
        classes: nfa.classes,
        slash: usize::from(nfa.slash) - abi::ROW_FIRST_CLASS as usize,
        labels,
        rows,
        decisions,
        path_starts,
        call_starts,
        name_starts,
        source_start,
        contributors,
    })
}

/// The automata that share the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Domain {
    Paths,
    Names,
    Sources,
    /// What system calls do to paths. One automaton: its classes of calls are start states, and no path leads from one to another.
    Calls,
}

/// Which budget was exceeded.
enum Over {
    States,
    Steps,
}

struct Starts {
    path_starts: Vec<u32>,
    call_starts: Vec<u32>,
    name_starts: Vec<u32>,
    source_start: Option<u32>,
}

struct Builder<'a> {
    candidates: &'a Candidates,
    nfa: &'a Nfa,
    budget: Budget,
    steps: u64,
    /// The NFA nodes of each state, sorted; one after the other.
    members: Vec<u32>,
    ranges: Vec<(u32, u32)>,
    domains: Vec<Domain>,
    known: HashMap<(Domain, Box<[u32]>), u32>,
    labels: Vec<Label>,
    rows: Vec<u32>,
    decisions: Vec<abi::Decision>,
    decision_ids: HashMap<abi::Decision, u32>,
    by_ranks: HashMap<(Ranks, bool), u32>,
    /// By the number of the start state, of paths and of calls: the label of the root directory.
    roots: Vec<Label>,
}

impl<'a> Builder<'a> {
    fn new(candidates: &'a Candidates, nfa: &'a Nfa, budget: Budget) -> Builder<'a> {
        let mut builder = Builder {
            candidates,
            nfa,
            budget,
            steps: 0,
            members: Vec::new(),
            ranges: Vec::new(),
            domains: Vec::new(),
            known: HashMap::new(),
            labels: Vec::new(),
            rows: Vec::new(),
            decisions: Vec::new(),
            decision_ids: HashMap::new(),
            by_ranks: HashMap::new(),
            roots: Vec::new(),
        };
        // Decision 0 is what a path gets that no rule covers.
        builder.decision(NO_RANKS, true);
        builder
    }

    fn starts(&mut self, set: &RuleSet) -> Result<Starts, Over> {
        let at_root = self.root_candidates(set);
        let nfa = self.nfa;
        let mut path_starts = Vec::with_capacity(self.candidates.classes);
        let mut call_starts = Vec::with_capacity(self.candidates.classes * nfa.call_roots.len());
        for (class, roots) in (0u32..).zip(&nfa.path_roots) {
            path_starts.push(self.start(set, Domain::Paths, roots, class, &at_root, None)?);
        }
        for class in 0..self.candidates.classes as u32 {
            for (calls, roots) in (0u32..).zip(&nfa.call_roots) {
                call_starts.push(self.start(set, Domain::Calls, &roots[class as usize], class, &at_root, Some(calls))?);
            }
        }
        let mut name_starts = Vec::new();
        if self.nfa.has_names {
            for class in 0..self.candidates.classes {
                let nodes = self.closed(&self.nfa.name_roots[class]);
                let label = Label::Decision(self.decision(NO_RANKS, false));
                name_starts.push(self.add(Domain::Names, &nodes, label)?);
            }
        }
        let source_start = match self.nfa.source_root {
            Some(root) => Some(self.add(Domain::Sources, &[root], Label::Source(0))?),
            None => None,
        };
        Ok(Starts { path_starts, call_starts, name_starts, source_start })
    }

    /// Where paths start for a source class. The root's slash leads to a state that nothing else leads to: there the root itself is
    /// decided.
    fn start(
        &mut self,
        set: &RuleSet,
        domain: Domain,
        roots: &[u32],
        class: u32,
        at_root: &[usize],
        calls: Option<u32>,
    ) -> Result<u32, Over> {
        let nodes = self.closed(roots);
        let mut ranks = NO_RANKS;
        for &index in at_root {
            let candidate = &self.candidates.paths[index];
            if candidate.calls == calls && self.candidates.applies(set, candidate.rule, class) {
                for (group, rank) in ranks.iter_mut().enumerate() {
                    if candidate.groups[group].is_some() {
                        *rank = candidate.rank.min(*rank);
                    }
                }
            }
        }
        let root = Label::Root(self.decision(ranks, domain == Domain::Paths));
        let here = self.decision(NO_RANKS, domain == Domain::Paths);
        let state = self.add(domain, &nodes, Label::Decision(here))?;
        self.roots.push(root);
        Ok(state)
    }

    /// The path candidates that cover `/` itself.
    fn root_candidates(&self, set: &RuleSet) -> Vec<usize> {
        let covers = |object: &Object| match object {
            Object::Path(path) => path == b"/",
            Object::Directory { dir, .. } => dir.is_empty(),
            Object::Pattern(glob) => glob.matches(b"/"),
            Object::Syscall { at: Some(at), .. } => at.covers(b"/"),
            Object::ExecName(_) | Object::Protocol(_) | Object::Capability(_) | Object::Syscall { at: None, .. } => false,
        };
        let all = self.candidates.paths.iter().enumerate();
        all.filter(|(_, c)| covers(&set.rules[c.rule].objects[c.object])).map(|(index, _)| index).collect()
    }

    fn closed(&self, nodes: &[u32]) -> Vec<u32> {
        let mut all: Vec<u32> = nodes.iter().flat_map(|&node| self.nfa.closure(node)).copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Works out the rows of all states; new ones join the end of the list.
    fn explore(&mut self) -> Result<(), Over> {
        let nfa = self.nfa;
        let slash = nfa.slash;
        let mut everywhere: Vec<u32> = Vec::new();
        let mut component: Vec<u32> = Vec::new();
        let mut named: Vec<(u8, u32)> = Vec::new();
        let mut next: Vec<u32> = Vec::new();
        let mut state = 0;
        while state < self.ranges.len() {
            let (from, to) = self.ranges[state];
            let domain = self.domains[state];
            everywhere.clear();
            component.clear();
            named.clear();
            for &node in &self.members[from as usize..to as usize] {
                named.extend_from_slice(nfa.edges(node));
                for &(bytes, target) in nfa.wide(node) {
                    if bytes == Loop::All {
                        everywhere.extend_from_slice(nfa.closure(target));
                    }
                    component.extend_from_slice(nfa.closure(target));
                }
            }
            named.sort_unstable();
            let row = self.rows.len();
            next.clone_from(&component);
            let default = self.go(domain, &mut next)?;
            self.rows.resize(row + nfa.classes, default);
            if !named.iter().any(|&(class, _)| class == slash) {
                next.clone_from(&everywhere);
                let target = match self.roots.get(state) {
                    Some(&label) => self.enter_root(domain, &mut next, label)?,
                    None => self.go(domain, &mut next)?,
                };
                self.rows[row + usize::from(slash) - abi::ROW_FIRST_CLASS as usize] = target;
            }
            for group in named.chunk_by(|a, b| a.0 == b.0) {
                let class = group[0].0;
                next.clone_from(if class == slash { &everywhere } else { &component });
                for &(_, target) in group {
                    next.extend_from_slice(nfa.closure(target));
                }
                let target = match self.roots.get(state) {
                    Some(&label) if class == slash => self.enter_root(domain, &mut next, label)?,
                    _ => self.go(domain, &mut next)?,
                };
                self.rows[row + usize::from(class) - abi::ROW_FIRST_CLASS as usize] = target;
            }
            self.steps += (nfa.classes / 8) as u64;
            state += 1;
        }
        Ok(())
    }

    /// The state after the root's slash, apart from all others.
    fn enter_root(&mut self, domain: Domain, nodes: &mut Vec<u32>, label: Label) -> Result<u32, Over> {
        nodes.sort_unstable();
        nodes.dedup();
        self.prune(nodes);
        self.add(domain, nodes, label)
    }

    /// The state of these nodes, after taking away what cannot matter any more.
    fn go(&mut self, domain: Domain, nodes: &mut Vec<u32>) -> Result<u32, Over> {
        self.steps += 4 + nodes.len() as u64;
        if self.steps > self.budget.max_steps {
            return Err(Over::Steps);
        }
        nodes.sort_unstable();
        nodes.dedup();
        if domain != Domain::Sources {
            self.prune(nodes);
        }
        // A lookup by slice would be enough, but the key has the domain in it.
        let key = (domain, nodes.as_slice().into());
        if let Some(&state) = self.known.get(&key) {
            return Ok(state);
        }
        let (mut ranks, mut source) = (NO_RANKS, (0, 0));
        for &node in nodes.iter() {
            let node = &self.nfa.nodes[node as usize];
            for (mine, theirs) in ranks.iter_mut().zip(node.accepts) {
                *mine = theirs.min(*mine);
            }
            source = node.source.max(source);
        }
        let label = match domain {
            Domain::Paths => Label::Decision(self.decision(ranks, true)),
            Domain::Names | Domain::Calls => Label::Decision(self.decision(ranks, false)),
            Domain::Sources => Label::Source(source.1),
        };
        let state = self.add(domain, nodes, label)?;
        self.known.insert(key, state);
        Ok(state)
    }

    /// A node that accepts now and after whatever follows settles its groups for all that is weaker. Nodes that can only
    /// ever be weaker are dropped: so `/usr/**` swallows what older and shorter rules still hoped for.
    fn prune(&self, nodes: &mut Vec<u32>) {
        let mut settled = NO_RANKS;
        for &node in nodes.iter() {
            let node = &self.nfa.nodes[node as usize];
            if node.looping == Loop::All {
                for (mine, theirs) in settled.iter_mut().zip(node.accepts) {
                    *mine = theirs.min(*mine);
                }
            }
        }
        nodes.retain(|&node| {
            let node = &self.nfa.nodes[node as usize];
            let wins = |group: usize| node.reaches[group] < settled[group];
            let settles =
                |group: usize| node.looping == Loop::All && settled[group] != NO_RANK && node.accepts[group] == settled[group];
            (0..settled.len()).any(|group| wins(group) || settles(group))
        });
    }

    fn add(&mut self, domain: Domain, nodes: &[u32], label: Label) -> Result<u32, Over> {
        if self.ranges.len() >= self.budget.max_states {
            return Err(Over::States);
        }
        if self.members.len() + nodes.len() > MAX_MEMBERS {
            return Err(Over::Steps);
        }
        let from = self.members.len() as u32;
        self.members.extend_from_slice(nodes);
        self.ranges.push((from, self.members.len() as u32));
        self.domains.push(domain);
        self.labels.push(label);
        Ok(self.ranges.len() as u32 - 1)
    }

    fn decision(&mut self, ranks: Ranks, posture: bool) -> u32 {
        if let Some(&id) = self.by_ranks.get(&(ranks, posture)) {
            return id;
        }
        let decision = self.candidates.decision(ranks, posture);
        let next = self.decisions.len() as u32;
        let id = *self.decision_ids.entry(decision).or_insert(next);
        if id == next {
            self.decisions.push(decision);
        }
        self.by_ranks.insert((ranks, posture), id);
        id
    }

    fn refuse(&self, set: &RuleSet, over: Over) -> CompileError {
        let contributors = self.contributors(set);
        match over {
            Over::States => CompileError::TooManyStates { max: self.budget.max_states, contributors },
            Over::Steps => CompileError::TooComplex { max: self.budget.max_steps, contributors },
        }
    }

    /// Counts for each candidate the states that hold a node which only it (or it first) needed.
    fn contributors(&self, set: &RuleSet) -> Vec<Contributor> {
        let mut states = vec![0usize; self.candidates.paths.len()];
        let mut last = vec![u32::MAX; self.candidates.paths.len()];
        for (state, &(from, to)) in self.ranges.iter().enumerate() {
            for &node in &self.members[from as usize..to as usize] {
                let owner = self.nfa.nodes[node as usize].owner as usize;
                if owner < states.len() && last[owner] != state as u32 {
                    last[owner] = state as u32;
                    states[owner] += 1;
                }
            }
        }
        let mut most: Vec<usize> = (0..states.len()).collect();
        most.sort_by_key(|&index| (std::cmp::Reverse(states[index]), index));
        let contributor = |&index: &usize| {
            let candidate = &self.candidates.paths[index];
            let rule = &set.rules[candidate.rule];
            Contributor {
                rule: candidate.rule,
                object: written(&rule.objects[candidate.object]),
                place: format!("{}:{}", rule.origin.file.display(), rule.origin.line),
                states: states[index],
            }
        };
        most.iter().take(MAX_CONTRIBUTORS).filter(|index| states[**index] > 0).map(contributor).collect()
    }
}

fn written(object: &Object) -> String {
    match object {
        Object::Path(path) => path.escape_ascii().to_string(),
        Object::ExecName(name) => name.escape_ascii().to_string(),
        Object::Directory { dir, recursive: true } => format!("{}/**", dir.escape_ascii()),
        Object::Directory { dir, recursive: false } => format!("{}/*", dir.escape_ascii()),
        Object::Pattern(glob) => glob.text().escape_ascii().to_string(),
        Object::Protocol(protocol) => protocol.name().to_owned(),
        Object::Capability(capability) => capability.name().to_owned(),
        Object::Syscall { call, at: None } => call.name().to_owned(),
        Object::Syscall { call, at: Some(Location::Path(path)) } => format!("{call} {}", path.escape_ascii()),
        Object::Syscall { call, at: Some(Location::Directory { dir, .. }) } => format!("{call} {}/", dir.escape_ascii()),
    }
}
