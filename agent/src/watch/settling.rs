//! When a directory that is being changed is worth reading.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::time::{Duration, Instant};

/// How long it has to be quiet. Editors write, sync and rename within a few milliseconds.
const QUIET: Duration = Duration::from_millis(50);
/// How long a change waits at most: for a file that somebody keeps open, or a directory that is never quiet.
const PATIENCE: Duration = Duration::from_secs(1);
/// Most files that are remembered as being written to.
const MAX_WRITING: usize = 4096;

/// What happened to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happened {
    /// Bytes were written, and whoever does so has it still open: it may be half of what it is to be.
    Written,
    /// Anything else, after which it is whole or gone.
    Whole,
}

/// A directory between its first change and the moment it has settled.
#[derive(Debug, Default)]
pub(super) struct Settling {
    span: Option<(Instant, Instant)>,
    writing: HashSet<OsString>,
}

impl Settling {
    /// Something changed.
    pub(super) fn changed(&mut self, now: Instant) {
        let first = self.span.map_or(now, |(first, _)| first);
        self.span = Some((first, now));
    }

    /// Something happened to a file.
    pub(super) fn file(&mut self, name: &OsStr, happened: Happened, now: Instant) {
        match happened {
            Happened::Written if self.writing.len() < MAX_WRITING => {
                self.writing.insert(name.to_owned());
            }
            Happened::Written => {}
            Happened::Whole => {
                self.writing.remove(name);
            }
        }
        self.changed(now);
    }

    /// In what time it has settled if nothing more happens. None if nothing has happened at all.
    pub(super) fn settles_in(&self, now: Instant) -> Option<Duration> {
        let (first, last) = self.span?;
        let patience = PATIENCE.saturating_sub(now.duration_since(first));
        let quiet = QUIET.saturating_sub(now.duration_since(last));
        Some(if self.writing.is_empty() { quiet.min(patience) } else { patience })
    }

    pub(super) fn is_settled(&self, now: Instant) -> bool {
        self.settles_in(now) == Some(Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_for_quiet_and_for_writers_but_not_for_ever() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut settling = Settling::default();
        assert_eq!(settling.settles_in(at(0)), None);
        settling.changed(at(0));
        settling.changed(at(40));
        assert!(!settling.is_settled(at(60)) && settling.is_settled(at(90)));
        settling.file(OsStr::new("a"), Happened::Written, at(95));
        assert!(!settling.is_settled(at(900)), "`a` is still open");
        assert!(settling.is_settled(at(1000)), "for the whole of the patience");
        settling.file(OsStr::new("a"), Happened::Whole, at(300));
        assert!(settling.is_settled(at(350)));
    }

    #[test]
    fn a_directory_that_is_never_quiet_settles_all_the_same() {
        let start = Instant::now();
        let mut settling = Settling::default();
        for ms in (0..=1000).step_by(20) {
            settling.changed(start + Duration::from_millis(ms));
        }
        assert!(settling.is_settled(start + Duration::from_millis(1000)));
    }
}
