//! One language without another: what a rule still covers where stronger rules say something else.
//!
//! AppArmor knows alternatives and two kinds of star, and no "but not". A rule's names without those of others are found by walking both
//! at once, byte by byte, as an automaton would, and writing down every way out: where the others are at their end,
//! all that is left of the rule follows. `/etc/**` without `/etc/ssl` is `/etc/[^s]**`, `/etc/s[^s]**`, `/etc/ss[^l]**` and `/etc/ssl?**`
//! (with what ends early). A state that all bytes of a name lead back to is a `*` of the result, and one that every byte
//! leads back to a `**`.
//!
//! What comes back to a state otherwise has no such form, as with `**/x`, where any `/` begins anew. Read from the end it has
//! one: not `x`, or `x` and no slash before it. So a state that comes back is tried once more backwards, and only what comes back
//! both ways is [`Inexpressible`]. Nothing is ever approximated here.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::aare::{ByteSet, Element, Sequence};

/// Most sequences that a difference may be made of: a set with a few of these has still room for its rules.
const MAX_SEQUENCES: usize = 1024;
/// Most states that are looked at for the differences of a set, and most pairs of sequences that are compared.
const MAX_STATES: usize = 100_000;
const MAX_PAIRS: usize = 2_000_000;
/// Longest common beginning. It bounds the recursion, which has a frame for each byte of it.
const MAX_DEPTH: usize = 512;

/// The difference cannot be written with AppArmor's stars, or takes too much to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Inexpressible;

/// What `from` matches and `without` does not.
pub(super) fn subtract(from: &[Sequence], without: &[Sequence], budget: &mut Budget) -> Result<Vec<Sequence>, Inexpressible> {
    let reversed = difference(Direction::Forward, from, without, budget)?;
    let written = reversed.into_iter().map(|elements| Sequence::from(&backwards(&elements)[..]));
    let unique: BTreeSet<Sequence> = written.filter(Sequence::is_possible).collect();
    Ok(unique.into_iter().collect())
}

/// Whether some name is matched by both. Where the budget is spent, it may be.
pub(super) fn meets(a: &Sequence, b: &Sequence, budget: &mut Budget) -> bool {
    if budget.pairs == 0 {
        return true;
    }
    budget.pairs -= 1;
    let mut seen = BTreeSet::new();
    let mut ahead = vec![(a.elements(), b.elements())];
    while let Some((a, b)) = ahead.pop() {
        if !seen.insert((a.len(), b.len())) {
            continue;
        }
        let skip = |elements: &[Element]| matches!(elements.first(), Some(Element::Star | Element::DoubleStar));
        if a.is_empty() && b.is_empty() {
            return true;
        }
        if skip(a) {
            ahead.push((&a[1..], b));
        }
        if skip(b) {
            ahead.push((a, &b[1..]));
        }
        let (Some(first), Some(second)) = (a.first(), b.first()) else { continue };
        if bytes(*first).meets(bytes(*second)) {
            ahead.push((after(a), after(b)));
        }
    }
    false
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

/// What the differences of a set may take.
pub(super) struct Budget {
    states: usize,
    pairs: usize,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { states: MAX_STATES, pairs: MAX_PAIRS }
    }
}

/// What remains to be matched: suffixes of sequences. Those that a star lets be skipped to are there too.
type Suffixes<'a> = BTreeSet<&'a [Element]>;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State<'a> {
    from: Suffixes<'a>,
    without: Suffixes<'a>,
}

/// Sequences whose last element stands first: they grow at their beginning.
type Reversed = Vec<Vec<Element>>;

enum Stop {
    /// The state at this depth comes back.
    ComesBack(usize),
    Inexpressible,
}

impl From<Inexpressible> for Stop {
    fn from(Inexpressible: Inexpressible) -> Stop {
        Stop::Inexpressible
    }
}

fn difference(
    direction: Direction,
    from: &[Sequence],
    without: &[Sequence],
    budget: &mut Budget,
) -> Result<Reversed, Inexpressible> {
    let start = State::new(from.iter().map(Sequence::elements), without.iter().map(Sequence::elements));
    let mut walk = Walk { direction, entered: HashMap::new(), budget };
    walk.rest(&start).map_err(|stop| match stop {
        // Nothing is entered before the first state.
        Stop::ComesBack(_) | Stop::Inexpressible => Inexpressible,
    })
}

struct Walk<'a, 'b> {
    direction: Direction,
    /// The states on the way here, and how deep each is.
    entered: HashMap<State<'a>, usize>,
    budget: &'b mut Budget,
}

impl<'a> Walk<'a, '_> {
    /// What `state` matches.
    fn rest(&mut self, state: &State<'a>) -> Result<Reversed, Stop> {
        if state.from.is_empty() || state.without.contains(&[Element::DoubleStar][..]) {
            return Ok(Vec::new());
        }
        if state.without.is_empty() {
            return self.told(state.shortest().map(backwards).collect());
        }
        let depth = self.entered.len();
        if let Some(&depth) = self.entered.get(state) {
            return Err(Stop::ComesBack(depth));
        }
        if depth == MAX_DEPTH || self.budget.states == 0 {
            return Err(Stop::Inexpressible);
        }
        self.budget.states -= 1;
        self.entered.insert(state.clone(), depth);
        let found = self.steps(state, depth);
        self.entered.remove(state);
        match found {
            Err(Stop::ComesBack(at)) if at == depth => self.other_way(state),
            found => found,
        }
    }

    fn steps(&mut self, state: &State<'a>, depth: usize) -> Result<Reversed, Stop> {
        let mut rest = Vec::new();
        if state.from.contains(&[][..]) && !state.without.contains(&[][..]) {
            rest.push(Vec::new());
        }
        let mut looping = ByteSet::EMPTY;
        for (bytes, next) in state.next() {
            if next == *state {
                looping = looping.or(bytes);
                continue;
            }
            let mut tails = self.rest(&next)?;
            tails.iter_mut().for_each(|tail| tail.push(Element::One(bytes)));
            rest.append(&mut tails);
        }
        let run = match looping {
            ByteSet::EMPTY => return self.told(rest),
            ByteSet::NAME => Element::Star,
            all if all == ByteSet::NAME.or(ByteSet::SLASH) => Element::DoubleStar,
            _ if rest.is_empty() => return Ok(rest),
            _ => return Err(Stop::ComesBack(depth)),
        };
        rest.iter_mut().for_each(|tail| tail.push(run));
        self.told(rest)
    }

    fn other_way(&mut self, state: &State<'a>) -> Result<Reversed, Stop> {
        if self.direction == Direction::Backward {
            return Err(Stop::Inexpressible);
        }
        let reversed = |suffix: &'a [Element]| Sequence::from(&backwards(suffix)[..]);
        let from: Vec<Sequence> = state.shortest().map(reversed).collect();
        let without: Vec<Sequence> = state.without.iter().map(|suffix| reversed(suffix)).collect();
        let found = difference(Direction::Backward, &from, &without, self.budget)?;
        // Grown at its beginning, and read from its end: that is as it is written.
        Ok(found.iter().map(|written| backwards(written)).collect())
    }

    fn told(&self, sequences: Reversed) -> Result<Reversed, Stop> {
        if sequences.len() > MAX_SEQUENCES { Err(Stop::Inexpressible) } else { Ok(sequences) }
    }
}

impl<'a> State<'a> {
    fn new(from: impl Iterator<Item = &'a [Element]>, without: impl Iterator<Item = &'a [Element]>) -> State<'a> {
        let (mut from, without) = (closed(from), closed(without));
        // What is left of both alike is left of neither.
        from.retain(|suffix| !without.contains(suffix));
        // Nothing can be taken from it any more.
        let without = if from.is_empty() { Suffixes::new() } else { without };
        State { from, without }
    }

    /// The suffixes of `from` that no other says too.
    fn shortest(&self) -> impl Iterator<Item = &'a [Element]> {
        self.from.iter().copied().filter(|suffix| {
            let skipped_to = |other: &[Element]| other.len() == suffix.len() + 1 && is_run(other[0]) && other[1..] == **suffix;
            !self.from.iter().any(|other| skipped_to(other))
        })
    }

    /// The states that follow, each with the bytes that lead to it. `/` is always by itself.
    fn next(&self) -> Vec<(ByteSet, State<'a>)> {
        let mut classes = vec![ByteSet::SLASH, ByteSet::NAME];
        for suffix in self.from.iter().chain(&self.without) {
            let Some(Element::One(set)) = suffix.first() else { continue };
            classes = classes.iter().flat_map(|class| [class.and(*set), class.without(*set)]).collect();
            classes.retain(|class| *class != ByteSet::EMPTY);
        }
        let mut next: Vec<(ByteSet, State<'a>)> = Vec::new();
        let mut places: BTreeMap<(bool, Suffixes<'a>, Suffixes<'a>), usize> = BTreeMap::new();
        for class in classes {
            let step = |suffixes: &Suffixes<'a>| -> Vec<&'a [Element]> {
                suffixes
                    .iter()
                    .filter(|suffix| suffix.first().is_some_and(|first| bytes(*first).meets(class)))
                    .map(|s| after(s))
                    .collect()
            };
            let state = State::new(step(&self.from).into_iter(), step(&self.without).into_iter());
            let key = (class == ByteSet::SLASH, state.from.clone(), state.without.clone());
            let place = *places.entry(key).or_insert_with(|| {
                next.push((ByteSet::EMPTY, state));
                next.len() - 1
            });
            next[place].0 = next[place].0.or(class);
        }
        next
    }
}

fn closed<'a>(suffixes: impl Iterator<Item = &'a [Element]>) -> Suffixes<'a> {
    let mut closed = Suffixes::new();
    for mut suffix in suffixes {
        while closed.insert(suffix) && suffix.first().is_some_and(|first| is_run(*first)) {
            suffix = &suffix[1..];
        }
    }
    closed
}

fn is_run(element: Element) -> bool {
    matches!(element, Element::Star | Element::DoubleStar)
}

/// The bytes that an element takes next.
fn bytes(element: Element) -> ByteSet {
    match element {
        Element::One(set) => set,
        Element::Star => ByteSet::NAME,
        Element::DoubleStar => ByteSet::NAME.or(ByteSet::SLASH),
    }
}

/// What remains when the first element has taken a byte.
fn after(elements: &[Element]) -> &[Element] {
    if is_run(elements[0]) { elements } else { &elements[1..] }
}

fn backwards(elements: &[Element]) -> Vec<Element> {
    elements.iter().rev().copied().collect()
}

#[cfg(test)]
#[path = "subtract_tests.rs"]
mod tests;
