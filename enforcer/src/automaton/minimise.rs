//! Minimisation: states that decide alike, whatever follows, become one.
//!
//! Partition refinement. A state is looked at again only when one of its successors has moved to another block, and when a
//! block splits, its largest part stays where it is (Hopcroft's trick): a state moves at most log n times.

use std::collections::HashMap;

use super::subset::{Dfa, Label};

/// The minimal automaton. Sinks have the last numbers; [`number`] has the order of the others.
#[derive(Debug)]
pub(super) struct Minimal {
    pub(super) classes: usize,
    pub(super) slash: usize,
    pub(super) labels: Vec<Label>,
    /// `labels.len()` rows of next states.
    pub(super) rows: Vec<u32>,
    /// The first state that loops to itself on every byte; all after it do too.
    pub(super) first_sink: u32,
    pub(super) path_starts: Vec<u32>,
    pub(super) call_starts: Vec<u32>,
    pub(super) name_starts: Vec<u32>,
    pub(super) source_start: Option<u32>,
}

impl Minimal {
    /// The row of a state.
    pub(super) fn row(&self, state: u32) -> &[u32] {
        &self.rows[state as usize * self.classes..][..self.classes]
    }
}

/// Minimises.
pub(super) fn minimise(dfa: &Dfa) -> Minimal {
    let block_of = Partition::refined(dfa);
    number(dfa, &block_of)
}

/// The states as a permutation in which every block is a range, its dirty members first.
struct Partition<'a> {
    dfa: &'a Dfa,
    elements: Vec<u32>,
    position: Vec<u32>,
    block_of: Vec<u32>,
    blocks: Vec<Block>,
    /// Blocks with dirty members.
    queue: Vec<u32>,
    predecessors: Vec<u32>,
    predecessor_ranges: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Block {
    start: u32,
    end: u32,
    /// Dirty members are those before this.
    dirty: u32,
}

impl Partition<'_> {
    fn refined(dfa: &Dfa) -> Vec<u32> {
        let mut partition = Partition::by_label(dfa);
        while let Some(block) = partition.queue.pop() {
            partition.split(block);
        }
        partition.block_of
    }

    fn by_label(dfa: &Dfa) -> Partition<'_> {
        let states = dfa.labels.len() as u32;
        let mut elements: Vec<u32> = (0..states).collect();
        elements.sort_by_key(|&state| dfa.labels[state as usize]);
        let mut position = vec![0; elements.len()];
        let mut block_of = vec![0; elements.len()];
        let mut blocks: Vec<Block> = Vec::new();
        for (at, &state) in elements.iter().enumerate() {
            let at = at as u32;
            position[state as usize] = at;
            let same = at > 0 && dfa.labels[elements[at as usize - 1] as usize] == dfa.labels[state as usize];
            match blocks.last_mut() {
                Some(block) if same => (block.end, block.dirty) = (at + 1, at + 1),
                _ => blocks.push(Block { start: at, end: at + 1, dirty: at + 1 }),
            }
            block_of[state as usize] = blocks.len() as u32 - 1;
        }
        let queue = (0..blocks.len() as u32).collect();
        let (predecessors, predecessor_ranges) = predecessors(dfa);
        Partition { dfa, elements, position, block_of, blocks, queue, predecessors, predecessor_ranges }
    }

    /// The blocks that a state's bytes lead to.
    fn signature(&self, state: u32) -> impl Iterator<Item = u32> + '_ {
        let row = &self.dfa.rows[state as usize * self.dfa.classes..][..self.dfa.classes];
        row.iter().map(|&target| self.block_of[target as usize])
    }

    /// Splits a block by where its members lead. Clean members all lead to the same blocks, so one speaks for them.
    fn split(&mut self, index: u32) {
        let Block { start, end, dirty } = self.blocks[index as usize];
        self.blocks[index as usize].dirty = start;
        if end - start == 1 {
            return;
        }
        // Members by part. A hash finds the part; the comparison makes sure.
        let mut parts: Vec<Vec<u32>> = Vec::new();
        let mut by_hash: HashMap<u64, Vec<u32>> = HashMap::new();
        let clean = end - dirty;
        let speaker = (clean > 0).then(|| self.elements[dirty as usize]);
        let dirty_members: Vec<u32> = self.elements[start as usize..dirty as usize].to_vec();
        for &state in speaker.iter().chain(&dirty_members) {
            let hash = self
                .signature(state)
                .fold(0u64, |hash, block| (hash.rotate_left(5) ^ u64::from(block)).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let same_hash = by_hash.entry(hash).or_default();
            let found = same_hash.iter().copied().find(|&part| {
                let first = parts[part as usize][0];
                self.signature(first).eq(self.signature(state))
            });
            match found {
                Some(part) => parts[part as usize].push(state),
                None => {
                    same_hash.push(parts.len() as u32);
                    parts.push(vec![state]);
                }
            }
        }
        if parts.len() == 1 {
            return;
        }
        // Where there are clean members, part 0 is theirs: it has the speaker, and they all stand behind the dirty ones.
        let size = |number: usize| parts[number].len() as u32 + if number == 0 { clean.saturating_sub(1) } else { 0 };
        let largest = (0..parts.len()).max_by_key(|&number| (size(number), std::cmp::Reverse(number))).unwrap_or(0);
        let mut at = start;
        let mut moved = Vec::new();
        for number in (0..parts.len()).rev() {
            let from = at;
            let in_place = if number == 0 && speaker.is_some() { 1 } else { 0 };
            for &state in &parts[number][in_place..] {
                self.elements[at as usize] = state;
                self.position[state as usize] = at;
                at += 1;
            }
            let to = if number == 0 { end } else { at };
            if number == largest {
                self.blocks[index as usize] = Block { start: from, end: to, dirty: from };
            } else {
                moved.push(self.blocks.len() as u32);
                self.blocks.push(Block { start: from, end: to, dirty: from });
            }
        }
        for &block in &moved {
            let Block { start, end, .. } = self.blocks[block as usize];
            for at in start..end {
                self.block_of[self.elements[at as usize] as usize] = block;
            }
        }
        for &block in &moved {
            let Block { start, end, .. } = self.blocks[block as usize];
            // Marking permutes members within their blocks, so the list is taken first.
            let members: Vec<u32> = self.elements[start as usize..end as usize].to_vec();
            for state in members {
                let from = self.predecessor_ranges[state as usize] as usize;
                let to = self.predecessor_ranges[state as usize + 1] as usize;
                for at in from..to {
                    self.mark(self.predecessors[at]);
                }
            }
        }
    }

    fn mark(&mut self, state: u32) {
        let index = self.block_of[state as usize];
        let block = &mut self.blocks[index as usize];
        let at = self.position[state as usize];
        if at < block.dirty {
            return;
        }
        if block.dirty == block.start {
            self.queue.push(index);
        }
        let other = self.elements[block.dirty as usize];
        self.elements.swap(at as usize, block.dirty as usize);
        self.position[other as usize] = at;
        self.position[state as usize] = block.dirty;
        block.dirty += 1;
    }
}

/// For each state, the states that have it in their row, each once.
fn predecessors(dfa: &Dfa) -> (Vec<u32>, Vec<u32>) {
    let states = dfa.labels.len();
    let mut edges: Vec<(u32, u32)> = Vec::new();
    let mut seen = vec![u32::MAX; states];
    for (state, row) in dfa.rows.chunks_exact(dfa.classes).enumerate() {
        for &target in row {
            if seen[target as usize] != state as u32 {
                seen[target as usize] = state as u32;
                edges.push((target, state as u32));
            }
        }
    }
    let mut ranges = vec![0u32; states + 1];
    for &(target, _) in &edges {
        ranges[target as usize + 1] += 1;
    }
    for state in 0..states {
        ranges[state + 1] += ranges[state];
    }
    let mut cursor = ranges.clone();
    let mut list = vec![0u32; edges.len()];
    for (target, source) in edges {
        list[cursor[target as usize] as usize] = source;
        cursor[target as usize] += 1;
    }
    (list, ranges)
}

/// Numbers the blocks, with the sinks behind all others.
///
/// In the order of a search that goes deep first, and first to where fewest bytes lead: the states of a rule's own text then follow
/// each other in memory, and the walk of a path touches few pages. In the order of a broad search each byte is on another page,
/// and a path of 64 bytes is more than a processor's first TLB holds.
fn number(dfa: &Dfa, block_of: &[u32]) -> Minimal {
    let classes = dfa.classes;
    let blocks = block_of.iter().max().map_or(0, |&block| block as usize + 1);
    let row = |state: u32| &dfa.rows[state as usize * classes..][..classes];
    let order = deep_first(dfa, block_of, blocks);
    let is_sink = |state: &u32| row(*state).iter().all(|&target| block_of[target as usize] == block_of[*state as usize]);
    let (sinks, others): (Vec<u32>, Vec<u32>) = order.into_iter().partition(is_sink);
    let first_sink = others.len() as u32;
    let order: Vec<u32> = others.into_iter().chain(sinks).collect();
    let mut number_of = vec![0u32; blocks];
    for (number, &state) in order.iter().enumerate() {
        number_of[block_of[state as usize] as usize] = number as u32;
    }
    let new = |state: &u32| number_of[block_of[*state as usize] as usize];
    Minimal {
        classes,
        slash: dfa.slash,
        labels: order.iter().map(|&state| dfa.labels[state as usize]).collect(),
        rows: order.iter().flat_map(|&state| row(state).iter().map(new)).collect(),
        first_sink,
        path_starts: dfa.path_starts.iter().map(new).collect(),
        call_starts: dfa.call_starts.iter().map(new).collect(),
        name_starts: dfa.name_starts.iter().map(new).collect(),
        source_start: dfa.source_start.as_ref().map(new),
    }
}

/// One state of each block, in the order that [`number`] wants.
fn deep_first(dfa: &Dfa, block_of: &[u32], blocks: usize) -> Vec<u32> {
    let mut order = Vec::with_capacity(blocks);
    let mut met = vec![false; blocks];
    // The starts, and last whatever no start leads to.
    let starts = dfa.path_starts.iter().chain(&dfa.call_starts).chain(&dfa.name_starts).chain(&dfa.source_start).copied();
    let mut next: Vec<(usize, u32)> = Vec::new();
    let mut stack = Vec::new();
    for start in starts.chain(0..dfa.labels.len() as u32) {
        stack.push(start);
        while let Some(state) = stack.pop() {
            if std::mem::replace(&mut met[block_of[state as usize] as usize], true) {
                continue;
            }
            order.push(state);
            let row = &dfa.rows[state as usize * dfa.classes..][..dfa.classes];
            let block = |state: u32| block_of[state as usize];
            let mut targets: Vec<u32> = row.to_vec();
            targets.sort_by_key(|&target| block(target));
            next.clear();
            next.extend(targets.chunk_by(|&a, &b| block(a) == block(b)).map(|same| (same.len(), same[0])));
            // The stack is emptied from its end, so the one that fewest bytes lead to goes on last.
            next.sort_by_key(|&(bytes, target)| (std::cmp::Reverse(bytes), std::cmp::Reverse(target)));
            stack.extend(next.iter().map(|&(_, target)| target).filter(|&target| !met[block(target) as usize]));
        }
    }
    order
}
