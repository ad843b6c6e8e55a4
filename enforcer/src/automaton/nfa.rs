//! All objects of a set in one trie, and the byte classes.
//!
//! The edges of the trie are the elements of a pattern with its groups expanded: a literal byte, `?`, a class, `*` or `**`.
//! Patterns with a common prefix share its nodes, wildcards included, so forty rules that begin with `/**/` keep one node
//! alive instead of forty. A node that is entered by `*` or `**` loops to itself; that is the only cycle there is.

use std::collections::HashMap;

use portcullis_ebpf::abi;
use portcullis_policy::meaning::{Location, Object, RuleSet};

use super::candidates::{Candidates, NO_RANK, NO_RANKS, Ranks};
use super::pattern::{ByteSets, Item};
use super::{Budget, CompileError};

/// What a node does with a byte that none of its own edges names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loop {
    No,
    /// Stays, except on `/`.
    Component,
    /// Stays on every byte.
    All,
}

/// A state of the NFA.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) looping: Loop,
    /// The strongest candidates that end here, by group.
    pub(super) accepts: Ranks,
    /// The strongest that end here or further on.
    pub(super) reaches: Ranks,
    /// Source class of an executable's path that ends here, behind the depth by which it counts before others; 0 for none.
    pub(super) source: (u32, u32),
    /// Index in [`Candidates::paths`] of the candidate that made this node, or `u32::MAX`.
    pub(super) owner: u32,
    /// Range in [`Nfa::closures`]: this node and those that it reaches without a byte.
    closure: (u32, u32),
    /// Range in [`Nfa::edges`].
    edges: (u32, u32),
    /// Range in [`Nfa::wide`].
    wide: (u32, u32),
}

/// The NFA of a set.
#[derive(Debug)]
pub(super) struct Nfa {
    pub(super) nodes: Vec<Node>,
    closures: Vec<u32>,
    edges: Vec<(u8, u32)>,
    wide: Vec<(Loop, u32)>,
    /// Class of each byte, from [`abi::ROW_FIRST_CLASS`].
    pub(super) class_of: [u8; 256],
    /// Number of classes.
    pub(super) classes: usize,
    /// Class of `/`.
    pub(super) slash: u8,
    /// For each source class, the roots of the tries that apply to it: paths, then execnames.
    pub(super) path_roots: Vec<Vec<u32>>,
    pub(super) name_roots: Vec<Vec<u32>>,
    /// For each class of calls, the same.
    pub(super) call_roots: Vec<Vec<Vec<u32>>>,
    /// Root of the trie of source paths.
    pub(super) source_root: Option<u32>,
    /// Whether there are execname candidates.
    pub(super) has_names: bool,
}

impl Nfa {
    /// Builds the NFA of all path and execname candidates.
    pub(super) fn build(set: &RuleSet, candidates: &Candidates, budget: Budget) -> Result<Nfa, CompileError> {
        let mut builder = Builder::new(candidates, budget);
        for (index, candidate) in candidates.paths.iter().enumerate() {
            let key: &[u32] = &candidates.classes_of[candidate.rule];
            let object = &set.rules[candidate.rule].objects[candidate.object];
            let trie = match (candidate.is_name, candidate.calls) {
                (true, _) => Trie::Names,
                (false, Some(class)) => Trie::Calls(class),
                (false, None) => Trie::Paths,
            };
            let root = builder.root(trie, key);
            builder.owner = index as u32;
            builder.object(root, object)?;
        }
        builder.owner = u32::MAX;
        let source_root = (!candidates.sources.is_empty()).then(|| builder.node(Loop::No));
        if let Some(root) = source_root {
            for source in &candidates.sources {
                let end = match &source.at {
                    Location::Path(path) => builder.literal(root, path)?,
                    Location::Directory { dir, recursive } => builder.below(root, dir, *recursive)?.1,
                };
                builder.nodes[end as usize].source = (source.depth, source.class);
            }
        }
        builder.finish(source_root)
    }

    /// The node and what it reaches without a byte.
    pub(super) fn closure(&self, node: u32) -> &[u32] {
        let (from, to) = self.nodes[node as usize].closure;
        &self.closures[from as usize..to as usize]
    }

    /// Edges by byte class, sorted by class.
    pub(super) fn edges(&self, node: u32) -> &[(u8, u32)] {
        let (from, to) = self.nodes[node as usize].edges;
        &self.edges[from as usize..to as usize]
    }

    /// Edges that many classes take: every byte, or every byte but `/`.
    pub(super) fn wide(&self, node: u32) -> &[(Loop, u32)] {
        let (from, to) = self.nodes[node as usize].wide;
        &self.wide[from as usize..to as usize]
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Trie {
    Paths,
    Names,
    /// What calls of a class do to paths.
    Calls(u32),
}

struct Builder<'a> {
    candidates: &'a Candidates,
    budget: Budget,
    nodes: Vec<Node>,
    children: HashMap<(u32, Item), u32>,
    roots: HashMap<(Trie, Vec<u32>), u32>,
    sets: ByteSets,
    owner: u32,
}

impl<'a> Builder<'a> {
    fn new(candidates: &'a Candidates, budget: Budget) -> Builder<'a> {
        let mut builder = Builder {
            candidates,
            budget,
            nodes: Vec::new(),
            children: HashMap::new(),
            roots: HashMap::new(),
            sets: ByteSets::default(),
            owner: u32::MAX,
        };
        builder.root(Trie::Paths, &[]);
        builder.root(Trie::Names, &[]);
        for class in 0..candidates.call_classes.len() as u32 {
            builder.root(Trie::Calls(class), &[]);
        }
        builder
    }

    /// The root of the trie for the rules that apply to exactly these source classes; to all of them if there is none.
    fn root(&mut self, trie: Trie, classes: &[u32]) -> u32 {
        if let Some(&root) = self.roots.get(&(trie, classes.to_vec())) {
            return root;
        }
        let root = self.node(Loop::No);
        self.roots.insert((trie, classes.to_vec()), root);
        root
    }

    fn node(&mut self, looping: Loop) -> u32 {
        let node = Node {
            looping,
            accepts: NO_RANKS,
            reaches: NO_RANKS,
            source: (0, 0),
            owner: self.owner,
            closure: (0, 0),
            edges: (0, 0),
            wide: (0, 0),
        };
        self.nodes.push(node);
        self.nodes.len() as u32 - 1
    }

    fn child(&mut self, parent: u32, item: Item) -> Result<u32, CompileError> {
        if let Some(&child) = self.children.get(&(parent, item)) {
            return Ok(child);
        }
        // Each node costs the later steps several of their own; this keeps memory in proportion too.
        if self.nodes.len() as u64 * 16 > self.budget.max_steps {
            let contributors = Vec::new();
            return Err(CompileError::TooComplex { max: self.budget.max_steps, contributors });
        }
        let looping = match item {
            Item::Byte(_) | Item::AnyChar | Item::Set(_) => Loop::No,
            Item::Star { .. } => Loop::Component,
            Item::DoubleStar { .. } => Loop::All,
        };
        let child = self.node(looping);
        self.children.insert((parent, item), child);
        Ok(child)
    }

    fn literal(&mut self, mut at: u32, bytes: &[u8]) -> Result<u32, CompileError> {
        for &byte in bytes {
            at = self.child(at, Item::Byte(byte))?;
        }
        Ok(at)
    }

    /// A directory, and all that is in it.
    fn below(&mut self, root: u32, dir: &[u8], recursive: bool) -> Result<(u32, u32), CompileError> {
        let end = self.literal(root, dir)?;
        let inside = self.child(end, Item::Byte(b'/'))?;
        let below = if recursive { Item::DoubleStar { at_least_one: false } } else { Item::Star { at_least_one: false } };
        Ok((end, self.child(inside, below)?))
    }

    fn accept(&mut self, node: u32) {
        let candidate = self.candidates.paths[self.owner as usize];
        for (group, rank) in self.nodes[node as usize].accepts.iter_mut().enumerate() {
            if candidate.groups[group].is_some() {
                *rank = candidate.rank.min(*rank);
            }
        }
    }

    fn object(&mut self, root: u32, object: &Object) -> Result<(), CompileError> {
        match object {
            Object::Path(bytes) | Object::ExecName(bytes) | Object::Syscall { at: Some(Location::Path(bytes)), .. } => {
                let end = self.literal(root, bytes)?;
                self.accept(end);
            }
            Object::Directory { dir, recursive } | Object::Syscall { at: Some(Location::Directory { dir, recursive }), .. } => {
                let (end, below) = self.below(root, dir, *recursive)?;
                self.accept(end);
                self.accept(below);
            }
            Object::Pattern(glob) => {
                for items in self.sets.flatten(glob.ast()) {
                    let end = items.into_iter().try_fold(root, |at, item| self.child(at, item))?;
                    self.accept(end);
                }
            }
            Object::Protocol(_) | Object::Capability(_) | Object::Syscall { at: None, .. } => {}
        }
        Ok(())
    }

    fn finish(self, source_root: Option<u32>) -> Result<Nfa, CompileError> {
        let (class_of, classes) = self.byte_classes()?;
        let mut children: Vec<((u32, Item), u32)> = self.children.into_iter().collect();
        children.sort_unstable();
        let mut nodes = self.nodes;
        // Children come after their parents, so the last first.
        let mut upwards: Vec<(u32, u32)> = children.iter().map(|&((parent, _), child)| (child, parent)).collect();
        upwards.sort_unstable_by(|a, b| b.cmp(a));
        for node in &mut nodes {
            node.reaches = node.accepts;
        }
        for (child, parent) in upwards {
            let child = nodes[child as usize].reaches;
            let parent = &mut nodes[parent as usize].reaches;
            for (mine, theirs) in parent.iter_mut().zip(child) {
                *mine = theirs.min(*mine);
            }
        }
        let (mut edges, mut wide, mut without_byte) = (Vec::new(), Vec::new(), vec![Vec::new(); nodes.len()]);
        let mut children = children.into_iter().peekable();
        for (index, node) in nodes.iter_mut().enumerate() {
            let (first_edge, first_wide) = (edges.len(), wide.len());
            match node.looping {
                Loop::No => {}
                looping => wide.push((looping, index as u32)),
            }
            while let Some(((_, item), child)) = children.next_if(|((parent, _), _)| *parent as usize == index) {
                match item {
                    Item::Byte(byte) => edges.push((class_of[usize::from(byte)], child)),
                    Item::Set(id) => {
                        let mut has = [false; 256];
                        for byte in self.sets.members(id) {
                            has[usize::from(class_of[byte])] = true;
                        }
                        edges.extend((0..=255u8).filter(|&class| has[usize::from(class)]).map(|class| (class, child)));
                    }
                    Item::AnyChar | Item::Star { at_least_one: true } => wide.push((Loop::Component, child)),
                    Item::DoubleStar { at_least_one: true } => wide.push((Loop::All, child)),
                    Item::Star { .. } | Item::DoubleStar { .. } => without_byte[index].push(child),
                }
            }
            edges[first_edge..].sort_unstable();
            node.edges = (first_edge as u32, edges.len() as u32);
            node.wide = (first_wide as u32, wide.len() as u32);
        }
        let mut closures = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter_mut().enumerate() {
            let first = closures.len();
            closures.push(index as u32);
            let mut done = first;
            while let Some(&next) = closures.get(done) {
                closures.extend_from_slice(&without_byte[next as usize]);
                done += 1;
            }
            node.closure = (first as u32, closures.len() as u32);
        }
        let roots = |trie: Trie| -> Vec<Vec<u32>> {
            let mut by_class = vec![vec![self.roots[&(trie, Vec::new())]]; self.candidates.classes];
            for ((_, classes), &root) in self.roots.iter().filter(|((of, classes), _)| *of == trie && !classes.is_empty()) {
                for &class in classes {
                    by_class[class as usize].push(root);
                }
            }
            by_class.iter_mut().for_each(|roots| roots.sort_unstable());
            by_class
        };
        let (path_roots, name_roots) = (roots(Trie::Paths), roots(Trie::Names));
        let call_roots = (0..self.candidates.call_classes.len() as u32).map(|class| roots(Trie::Calls(class))).collect();
        let has_names = name_roots.iter().flatten().any(|&root| nodes[root as usize].reaches[abi::EXEC as usize] != NO_RANK);
        let slash = class_of[usize::from(b'/')];
        Ok(Nfa {
            nodes,
            closures,
            edges,
            wide,
            class_of,
            classes,
            slash,
            path_roots,
            name_roots,
            call_roots,
            source_root,
            has_names,
        })
    }

    /// Bytes that no rule tells apart are one class. A byte that some rule has literally is alone in its class.
    fn byte_classes(&self) -> Result<([u8; 256], usize), CompileError> {
        let mut literal = [false; 256];
        literal[usize::from(b'/')] = true;
        for (_, item) in self.children.keys() {
            if let Item::Byte(byte) = item {
                literal[usize::from(*byte)] = true;
            }
        }
        let mut ids: HashMap<(Option<u8>, Vec<bool>), usize> = HashMap::new();
        let mut classes = [0usize; 256];
        for byte in 1..=255u8 {
            let index = usize::from(byte);
            let member = |set: &[bool; 256]| set[index];
            let key = match literal[index] {
                true => (Some(byte), Vec::new()),
                false => (None, self.sets.all().map(member).collect()),
            };
            let next = ids.len();
            classes[index] = *ids.entry(key).or_insert(next);
        }
        // No path has a NUL, so it needs no class of its own.
        classes[0] = classes[1];
        let first = abi::ROW_FIRST_CLASS as usize;
        let max = 256 - first;
        if ids.len() > max {
            return Err(CompileError::TooManyByteClasses { classes: ids.len(), max });
        }
        Ok((classes.map(|class| (class + first) as u8), ids.len()))
    }
}
