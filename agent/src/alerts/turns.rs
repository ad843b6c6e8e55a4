//! A queue in which the owners of what waits take turns: one who brings much waits behind itself, and not before the others.
//!
//! In a queue that goes by age alone, the alerts of a container that floods are all before the one alert of another: that one comes late,
//! or not at all where the queue is full and the oldest have to go. Here each owner has a line of its own, by age; the lines are served in
//! turn; and what has to go is the oldest of an owner who has more than an equal share. Where nothing waits, all come as they were put.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

/// Whose an item is: a container, by its slot and epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Owner(pub(crate) u32, pub(crate) u32);

/// Room that an empty line keeps, in items.
const KEPT: usize = 128;

/// The queue.
#[derive(Debug)]
pub(crate) struct Turns<T> {
    /// Those that are empty are nobody's, and kept for the next: most queues are empty most of the time.
    lines: Vec<Line<T>>,
    free: Vec<usize>,
    /// Whose line is which; who has nothing has none.
    places: FxHashMap<Owner, usize>,
    /// Each who has something, once; the next in front.
    order: VecDeque<usize>,
    items: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Line<T> {
    owner: Owner,
    items: VecDeque<(T, usize)>,
    bytes: usize,
}

impl<T> Default for Turns<T> {
    fn default() -> Turns<T> {
        let (lines, free, places, order) = (Vec::new(), Vec::new(), FxHashMap::default(), VecDeque::new());
        Turns { lines, free, places, order, items: 0, bytes: 0 }
    }
}

impl<T> Turns<T> {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.items
    }

    /// What they take, as they were put.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Puts an item behind all others of its owner.
    pub(crate) fn push(&mut self, owner: Owner, item: T, bytes: usize) {
        self.line(owner, bytes, VecDeque::push_back).push_back((item, bytes));
    }

    /// Puts an item before all others of its owner, where it was taken from; an owner that has nothing else comes next.
    pub(crate) fn put_back(&mut self, owner: Owner, item: T, bytes: usize) {
        self.line(owner, bytes, VecDeque::push_front).push_front((item, bytes));
    }

    /// The line of an owner, which gets one more item; a new owner joins the others as said.
    fn line(&mut self, owner: Owner, bytes: usize, join: fn(&mut VecDeque<usize>, usize)) -> &mut VecDeque<(T, usize)> {
        self.items += 1;
        self.bytes += bytes;
        let Turns { lines, free, places, order, .. } = self;
        let at = *places.entry(owner).or_insert_with(|| {
            let at = free.pop().unwrap_or_else(|| {
                lines.push(Line { owner, items: VecDeque::new(), bytes: 0 });
                lines.len() - 1
            });
            lines[at].owner = owner;
            join(order, at);
            at
        });
        lines[at].bytes += bytes;
        &mut lines[at].items
    }

    /// The next: the oldest of whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let at = self.order.pop_front()?;
        let item = self.take(at);
        if !self.lines[at].items.is_empty() {
            self.order.push_back(at);
        }
        item
    }

    /// What has to go when there is no room after `last` has put something: the oldest of one who has no less than an equal share,
    /// which most of the time is `last`.
    pub(crate) fn displace(&mut self, last: Owner) -> Option<T> {
        let share = self.bytes / self.order.len().max(1);
        let has_its_share = |at: &usize| self.lines[*at].bytes >= share;
        let last = self.places.get(&last).copied().filter(has_its_share);
        let at = last.or_else(|| self.order.iter().copied().find(has_its_share))?;
        let item = self.take(at);
        if self.lines[at].items.is_empty() {
            self.order.retain(|&other| other != at);
        }
        item
    }

    fn take(&mut self, at: usize) -> Option<T> {
        let line = &mut self.lines[at];
        let (item, bytes) = line.items.pop_front()?;
        line.bytes -= bytes;
        self.items -= 1;
        self.bytes -= bytes;
        if line.items.is_empty() {
            line.items.shrink_to(KEPT);
            self.places.remove(&line.owner);
            self.free.push(at);
        }
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOD: Owner = Owner(1, 1);

    fn all(turns: &mut Turns<u32>) -> Vec<u32> {
        std::iter::from_fn(|| turns.pop()).collect()
    }

    #[test]
    fn owners_take_turns_and_each_goes_by_age() {
        let mut turns = Turns::default();
        (0..5).for_each(|number| turns.push(FLOOD, number, 1));
        (10..12).for_each(|number| turns.push(Owner(2, 1), number, 1));
        turns.push(Owner(3, 1), 20, 1);
        assert_eq!((turns.len(), turns.bytes()), (8, 8));
        assert_eq!(all(&mut turns), [0, 10, 20, 1, 11, 2, 3, 4]);
        assert_eq!((turns.len(), turns.bytes(), turns.places.len(), turns.order.len()), (0, 0, 0, 0));
        assert_eq!(turns.free.len(), turns.lines.len());
    }

    #[test]
    fn what_is_put_back_comes_again_by_age() {
        let mut turns = Turns::default();
        (0..3).for_each(|number| turns.push(FLOOD, number, 1));
        turns.push(Owner(2, 1), 10, 1);
        let taken = [turns.pop(), turns.pop(), turns.pop()];
        assert_eq!(taken, [Some(0), Some(10), Some(1)]);
        for (owner, number) in [(FLOOD, 1), (Owner(2, 1), 10), (FLOOD, 0)] {
            turns.put_back(owner, number, 1);
        }
        assert_eq!((turns.len(), turns.bytes(), all(&mut turns)), (4, 4, vec![10, 0, 1, 2]));
    }

    #[test]
    fn who_has_the_most_makes_room_whoever_comes_last() {
        let mut turns = Turns::default();
        (0..100).for_each(|number| turns.push(FLOOD, number, 1));
        for number in 100..110 {
            turns.push(Owner(number, 1), number, 1);
            assert_eq!(turns.displace(Owner(number, 1)), Some(number - 100), "the oldest of the flood");
        }
        turns.push(FLOOD, 200, 1);
        assert_eq!(turns.displace(FLOOD), Some(10));
        assert_eq!(turns.len(), 100);
        let all = all(&mut turns);
        assert!((100..110).all(|number| all.contains(&number)), "none of the others: {all:?}");
    }

    #[test]
    fn one_who_has_all_is_displaced_to_the_last() {
        let mut turns = Turns::default();
        turns.push(FLOOD, 1, 7);
        assert_eq!((turns.displace(FLOOD), turns.displace(FLOOD), turns.pop()), (Some(1), None, None));
        turns.push(FLOOD, 2, 7);
        assert_eq!(all(&mut turns), [2], "it is there once");
    }
}
