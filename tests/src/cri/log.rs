//! What containerd or the agent wrote while a test ran, also those of their processes that did not live to its end.

use crate::process::Dialogue;

/// Lines that are shown of the end of a log, and complaints from before them: the tidying up after a failure would hide its cause.
const SHOWN: usize = 100;
/// Lines that are kept of processes that have ended.
const KEPT: usize = 10_000;

/// The standard error of one process after the other.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Of the processes that have ended.
    ended: Vec<String>,
    /// Bytes of the present one's that it wrote before.
    before: usize,
}

impl Log {
    /// A test begins: what was written before is not about it.
    pub(super) fn begin(&mut self, present: Option<&Dialogue>) {
        *self = Self { ended: Vec::new(), before: present.map_or(0, |process| process.errors().len()) };
    }

    /// The present process has ended, or is about to; with it goes the file that it wrote to.
    pub(super) fn keep(&mut self, present: &Dialogue) {
        let mut lines = self.lines(Some(present));
        *self = Self { ended: lines.split_off(lines.len().saturating_sub(KEPT)), before: 0 };
    }

    /// What says most about a failure, in order.
    pub(super) fn last(&self, present: Option<&Dialogue>) -> Vec<String> {
        shown(self.lines(present))
    }

    fn lines(&self, present: Option<&Dialogue>) -> Vec<String> {
        let errors = present.map(Dialogue::errors).unwrap_or_default();
        let new = errors.get(self.before..).unwrap_or_default().lines().map(str::to_owned);
        self.ended.iter().cloned().chain(new).collect()
    }
}

fn shown(mut lines: Vec<String>) -> Vec<String> {
    let last = lines.split_off(lines.len().saturating_sub(SHOWN));
    lines.retain(|line| is_complaint(line));
    let mut shown = lines.split_off(lines.len().saturating_sub(SHOWN));
    shown.extend(last);
    shown
}

/// As containerd writes them, and as the agent does.
fn is_complaint(line: &str) -> bool {
    ["level=warning", "level=error", "level=fatal", " WARN ", " ERROR "].iter().any(|level| line.contains(level))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_shown_and_what_was_complained_of_before_them() {
        let line = |number: usize| format!("level={} msg={number}", if number % 50 == 7 { "error" } else { "info" });
        let lines: Vec<String> = (0..300).map(line).collect();
        let expected: Vec<String> = [7, 57, 107, 157].into_iter().chain(200..300).map(line).collect();
        assert_eq!(shown(lines.clone()), expected);
        assert_eq!(shown(lines[..SHOWN].to_vec()), lines[..SHOWN]);
        let many: Vec<String> = (0..300).map(|number| format!("  WARN {number}")).collect();
        assert_eq!(shown(many.clone()), many[100..]);
    }
}
