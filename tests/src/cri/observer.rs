//! What the observer in a container has seen: see observer/observer.c.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use rustix::time::{ClockId, clock_gettime};

use super::pods::{Container, ContainerSpec, Pod};
use super::until;
use crate::Result;

/// The files that it opens in turn; version 0 of the policy denies the first, version 1 the second.
pub(super) const FILES: [&str; 2] = ["/data/a", "/data/b"];
/// As a kubelet gives it to pods that ask for nothing, and as the runtime gives it to a sandbox. With its default share one
/// observer would leave a hundredth of the processor to a sandbox that starts.
const FEW_SHARES: i64 = 2;
/// From the start of a container to the first answer, and from SIGTERM to the last.
const WORD_LIMIT: Duration = Duration::from_secs(60);

/// An observer that runs; its container is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Observer {
    /// Where it runs.
    pub container: Container,
    told: PathBuf,
}

/// What it told so far.
#[derive(Debug, Default, Clone)]
pub(super) struct Seen {
    /// When it first saw another version, and which; the first entry is what it found.
    pub changes: Vec<(Duration, u8)>,
    /// How many files it opened, once it has ended.
    pub opens: Option<u64>,
    /// Answers that are neither a denial nor a success.
    pub troubles: Vec<String>,
}

impl Observer {
    /// Starts a container with nothing but an observer, and waits for its first answer. It writes below `out`, and rests for
    /// `pause` after each four files.
    pub(super) fn start(pod: &Pod, name: &str, out: &Path, pause: Duration) -> Result<Self> {
        let command = ["/observer", &format!("/out/{name}"), &pause.as_micros().to_string(), FILES[0], FILES[1]];
        let mut spec = ContainerSpec::new(name, &command).with(out, "/out");
        spec.cpu_shares = FEW_SHARES;
        let container = pod.start(&spec)?;
        let observer = Self { container, told: out.join(name) };
        until("the observer's first answer", WORD_LIMIT, || Ok((!observer.seen().changes.is_empty()).then_some(())))?;
        Ok(observer)
    }

    /// What it told up to now.
    pub(super) fn seen(&self) -> Seen {
        let mut seen = Seen::default();
        for line in std::fs::read_to_string(&self.told).unwrap_or_default().lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let time = words.first().and_then(|time| time.parse().ok()).map(Duration::from_nanos);
            match (time, words.get(1..)) {
                (Some(time), Some(["0"])) => seen.changes.push((time, 0)),
                (Some(time), Some(["1"])) => seen.changes.push((time, 1)),
                (Some(_), Some(["end", opens])) => seen.opens = opens.parse().ok(),
                _ => seen.troubles.push(line.to_owned()),
            }
        }
        seen
    }

    /// Ends it, and tells all that it saw.
    pub(super) fn end(&self) -> Result<Seen> {
        if let Some(pid) = Pid::from_raw(self.container.pid()?) {
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        until("the observer's last words", WORD_LIMIT, || {
            let seen = self.seen();
            Ok(seen.opens.is_some().then_some(seen))
        })
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        // Where its pod is gone already, so is this.
        let _ = self.container.kill();
    }
}

impl Seen {
    /// Whether it saw exactly these versions, one after the other, and never anything else.
    pub(super) fn expect(&self, versions: impl IntoIterator<Item = u8>) -> std::result::Result<(), String> {
        if let Some(trouble) = self.troubles.first() {
            return Err(format!("an answer that is none: {trouble}"));
        }
        let expected: Vec<u8> = versions.into_iter().collect();
        let seen: Vec<u8> = self.changes.iter().map(|(_, version)| *version).collect();
        if seen == expected {
            return Ok(());
        }
        let at =
            seen.iter().zip(&expected).position(|(seen, expected)| seen != expected).unwrap_or(expected.len().min(seen.len()));
        let around = &self.changes[at.saturating_sub(2)..self.changes.len().min(at + 4)];
        Err(format!("{} versions one after the other instead of {}, around {around:?}", seen.len(), expected.len()))
    }

    /// When it first saw `version` after `since`.
    pub(super) fn first(&self, version: u8, since: Duration) -> Option<Duration> {
        self.changes.iter().find(|(time, seen)| *time >= since && *seen == version).map(|(time, _)| *time)
    }
}

/// The clock that observers use.
pub(super) fn monotonic() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
}
