//! Who is who: the processes of this host as the monitor's events tell them.
//!
//! An alert names a process by its number and the time. This table answers what that process was *then*: its program, arguments,
//! working directory and ancestors. So it keeps lives and not numbers (a number is used again), remembers each life's last few
//! programs, and keeps those that have ended for a while, since an alert may be read after its process is gone.
//!
//! Events may come in any order: those of two CPUs can overtake each other, and some may have been lost. Whatever the order, the same
//! events give the same answers. Memory is bounded by [`Limits`], whatever the host does.
//!
//! Nothing here reads a clock or a file, but for [`seed`].

mod facts;
mod life;
pub mod seed;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use life::{Container, Exit, Image, Key, Process};
use portcullis_ebpf::monitor::ProcessEvent;
use portcullis_ebpf::monitor::abi::{EXEC, EXIT, FORK};
use rustc_hash::FxHashMap;
pub use tree::Members;

/// Most processes that are known, dead ones included. Each takes about 300 bytes besides its texts.
const MAX_PROCESSES: usize = 65_536;
/// Most of those that are dead.
const MAX_DEAD: usize = 16_384;
/// Most bytes of paths and arguments. A process that was forked shares those of its parent.
const MAX_TEXT_BYTES: usize = 32 << 20;
/// How long a dead process is remembered.
const DEAD_FOR_NS: u64 = 10_000_000_000;
/// The end of a process is told by its last thread, while others that end with it may still raise an alert.
const EXIT_SLACK_NS: u64 = 10_000_000;
/// Most ancestors that are looked at.
const MAX_ANCESTORS: usize = 64;

/// The bounds of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Processes, dead ones included.
    pub processes: usize,
    /// Dead ones among them.
    pub dead: usize,
    /// Bytes of paths and arguments.
    pub text_bytes: usize,
    /// How long a dead process is remembered, in nanoseconds.
    pub dead_for_ns: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { processes: MAX_PROCESSES, dead: MAX_DEAD, text_bytes: MAX_TEXT_BYTES, dead_for_ns: DEAD_FOR_NS }
    }
}

/// A process as it was at some time.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The process.
    pub process: &'a Process,
    /// The program that it ran; nothing where neither its start nor that of an ancestor was seen.
    pub image: Option<&'a Image>,
}

/// The table.
#[derive(Debug, Default)]
pub struct Processes {
    limits: Limits,
    /// By thread group: its lives, the oldest first.
    lives: FxHashMap<u32, Vec<Process>>,
    /// Those that live, roughly by their last event.
    living: BTreeSet<(u64, Key)>,
    /// Those that don't, by their end.
    dead: BTreeSet<(u64, Key)>,
    text_bytes: usize,
    /// Time of the newest event.
    now_ns: u64,
    evicted: u64,
}

impl Processes {
    /// An empty table.
    #[must_use]
    pub fn new(limits: Limits) -> Processes {
        Processes { limits, ..Processes::default() }
    }

    /// Takes in what happened.
    pub fn apply(&mut self, event: ProcessEvent) {
        let header = event.header;
        let key = Key { tgid: header.tgid, started_ns: header.started_ns };
        let parent = Key { tgid: header.parent, started_ns: header.parent_started_ns };
        let inherited = if header.kind == FORK { self.inheritance(parent, header.time_ns) } else { None };
        let image = (header.kind == EXEC).then(|| Arc::new(Image::of(event)));
        self.text_bytes += image.as_ref().map_or(0, |image| image.bytes());
        let dropped = self.change(key, |process| {
            process.update(&header);
            match header.kind {
                FORK => {
                    process.parent = parent;
                    process.forked_ns = Some(header.time_ns);
                    process.inherited.replace(inherited?)
                }
                EXEC => process.run(image?),
                EXIT => {
                    process.exit = Some(Exit { time_ns: header.time_ns, status: Some(header.status) });
                    None
                }
                _ => None,
            }
        });
        self.release(dropped);
        if header.kind == FORK {
            self.touch(parent, header.time_ns);
        }
        self.expire(header.time_ns);
    }

    /// Adds a process that was found at a time, and whose events began later or were lost. What an event has told already stays,
    /// but for a program whose start was not told: that it runs says so.
    pub fn add(&mut self, process: Process, at_ns: u64) {
        let known =
            self.find(process.key).map(|known| (known.key, self.image(known, at_ns).is_some_and(|image| process.runs(image))));
        match known {
            None => {
                self.text_bytes += process.images.iter().map(|image| image.bytes()).sum::<usize>();
                self.change(process.key, |new| *new = process);
            }
            Some((key, false)) => {
                let Some(image) = process.images.last().map(|image| Arc::new(Image { since_ns: at_ns, ..Image::clone(image) }))
                else {
                    return;
                };
                self.text_bytes += image.bytes();
                let dropped = self.change(key, |known| known.run(image));
                self.release(dropped);
            }
            Some((_, true)) => {}
        }
        self.expire(0);
    }

    /// Notes that those have ended of whom nothing was told since a time, and who were not among the living then, which are
    /// sorted. Their ends were lost.
    pub fn end_others(&mut self, alive: &[Key], at_ns: u64) {
        // A key that is rounded is before those that it stands for.
        let is_alive = |key: Key| {
            let from = alive.partition_point(|other| other.tgid < key.tgid);
            alive[from..].iter().take_while(|other| other.tgid == key.tgid).any(|other| other.is(key))
        };
        let is_told = |key: Key| self.find(key).is_some_and(|process| process.touched_ns >= at_ns);
        let others: Vec<Key> = self.living.iter().map(|(_, key)| *key).filter(|key| !is_told(*key) && !is_alive(*key)).collect();
        for key in others {
            self.change(key, |process| process.exit = Some(Exit { time_ns: at_ns, status: None }));
        }
        self.expire(at_ns);
    }

    /// The process that had this number at that time, if it is still known.
    #[must_use]
    pub fn get(&self, tgid: u32, at_ns: u64) -> Option<View<'_>> {
        let process = self.lives.get(&tgid)?.iter().rev().find(|process| process.key.started_ns <= at_ns)?;
        let gone = process.exit.is_some_and(|exit| exit.time_ns.saturating_add(EXIT_SLACK_NS) < at_ns);
        (!gone).then(|| self.view(process, at_ns))
    }

    /// A process by its name, as it was at that time.
    #[must_use]
    pub fn by_key(&self, key: Key, at_ns: u64) -> Option<View<'_>> {
        self.find(key).map(|process| self.view(process, at_ns))
    }

    /// The parent of a process, as it was at that time: the one that it was born from, not who adopted it later.
    #[must_use]
    pub fn parent(&self, process: &Process, at_ns: u64) -> Option<View<'_>> {
        // The first process of all may be its own parent.
        self.by_key(process.parent, at_ns)
            .filter(|parent| parent.process.key != process.key && parent.process.key.started_ns <= process.key.started_ns)
    }

    /// The parent, its parent, and so on, as far as they are known.
    pub fn ancestors<'a>(&'a self, process: &'a Process, at_ns: u64) -> impl Iterator<Item = View<'a>> {
        std::iter::successors(self.parent(process, at_ns), move |view| self.parent(view.process, at_ns)).take(MAX_ANCESTORS)
    }

    /// A process and its ancestors, as far as they are known.
    #[must_use]
    pub fn line(&self, key: Key, at_ns: u64) -> Vec<Key> {
        let Some(process) = self.find(key) else { return vec![key] };
        std::iter::once(process.key).chain(self.ancestors(process, at_ns).map(|view| view.process.key)).collect()
    }

    /// Forgets those that have been dead for long enough at this time. Events do it, too; this is for times without any.
    pub fn expire(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        while let Some((ended, key)) = self.dead.first().copied() {
            let old = ended.saturating_add(self.limits.dead_for_ns) < self.now_ns;
            if !old && self.dead.len() <= self.limits.dead && !self.is_over() {
                break;
            }
            self.remove(key);
        }
        while self.is_over() && self.living.len() > 1 {
            let Some((_, key)) = self.living.first().copied() else { break };
            self.remove(key);
            self.evicted += 1;
        }
    }

    /// Processes that are known, dead ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.living.len() + self.dead.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of paths and arguments that are held.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.text_bytes
    }

    /// Living processes that were forgotten for want of room: those without an event for the longest time.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    fn is_over(&self) -> bool {
        self.len() > self.limits.processes || self.text_bytes > self.limits.text_bytes
    }

    fn find(&self, key: Key) -> Option<&Process> {
        self.lives.get(&key.tgid)?.iter().find(|process| process.key.is(key))
    }

    fn view<'a>(&'a self, process: &'a Process, at_ns: u64) -> View<'a> {
        View { process, image: self.image(process, at_ns).map(|image| &**image) }
    }

    /// What a process ran at that time: its own last program, or that of its parent when it was forked. The parent is asked again
    /// and not only what was copied then, because the event of the parent's program may have come later.
    fn image<'a>(&'a self, process: &'a Process, at_ns: u64) -> Option<&'a Arc<Image>> {
        let (mut process, mut at_ns, mut best) = (process, at_ns, None::<&Arc<Image>>);
        for _ in 0..MAX_ANCESTORS {
            let own = process.image_at(at_ns);
            let known = own.or(process.inherited.as_ref());
            // Both are of the same line of programs: the newer is right, the older only lacks what came late or was dropped.
            best = best.into_iter().chain(known).max_by_key(|image| image.since_ns);
            let (None, Some(forked_ns)) = (own, process.forked_ns) else { break };
            let Some(parent) = self.find(process.parent).filter(|parent| !parent.key.is(process.key)) else { break };
            (process, at_ns) = (parent, forked_ns);
        }
        best
    }

    fn inheritance(&self, parent: Key, at_ns: u64) -> Option<Arc<Image>> {
        self.image(self.find(parent)?, at_ns).cloned()
    }

    /// Changes a process, made where it is not known, and puts it where it now belongs in the order of leaving.
    fn change<T>(&mut self, key: Key, change: impl FnOnce(&mut Process) -> T) -> T {
        let lives = self.lives.entry(key.tgid).or_default();
        let at = match lives.iter().position(|process| process.key.is(key)) {
            Some(at) => at,
            None => {
                let at = lives.partition_point(|process| process.key.started_ns < key.started_ns);
                let process = Process::new(key);
                self.living.insert(process.place());
                // Most numbers have one life, and a list makes room for four.
                lives.reserve_exact(1);
                lives.insert(at, process);
                at
            }
        };
        let old = (lives[at].exit.is_some(), lives[at].place());
        let result = change(&mut lives[at]);
        let new = (lives[at].exit.is_some(), lives[at].place());
        if new != old {
            if old.0 { &mut self.dead } else { &mut self.living }.remove(&old.1);
            if new.0 { &mut self.dead } else { &mut self.living }.insert(new.1);
        }
        // A number that is used again says that its last owner is gone, though nobody has told so.
        for at in 1..lives.len() {
            let next_ns = lives[at].key.started_ns;
            if lives[at - 1].exit.is_none() {
                self.living.remove(&lives[at - 1].place());
                lives[at - 1].exit = Some(Exit { time_ns: next_ns, status: None });
                self.dead.insert(lives[at - 1].place());
            }
        }
        result
    }

    fn touch(&mut self, key: Key, time_ns: u64) {
        if self.find(key).is_some_and(|process| process.exit.is_none()) {
            self.change(key, |process| process.touched_ns = process.touched_ns.max(time_ns));
        }
    }

    fn remove(&mut self, key: Key) {
        let Some(lives) = self.lives.get_mut(&key.tgid) else { return };
        let Some(at) = lives.iter().position(|process| process.key == key) else { return };
        let process = lives.remove(at);
        if lives.is_empty() {
            self.lives.remove(&key.tgid);
        }
        self.living.remove(&process.place());
        self.dead.remove(&process.place());
        self.release(process.images.into_iter().chain(process.inherited));
    }

    /// Lets go of texts: those that nobody shares are gone.
    fn release(&mut self, images: impl IntoIterator<Item = Arc<Image>>) {
        for image in images.into_iter().filter_map(Arc::into_inner) {
            self.text_bytes -= image.bytes();
        }
    }
}
