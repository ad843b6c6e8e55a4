//! A ring of the kernel as the pump has it: opened, read, and opened again after a while when that fails.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use portcullis_ebpf::monitor::{AccessEvent, AccessEvents, ProcessEvent, ProcessEvents};
use portcullis_ebpf::{Event, Events};
use tracing::{info, warn};

use crate::audit::Denials;

/// How soon a ring is tried again when another process reads it, or nothing is loaded.
const RETRY: Duration = Duration::from_secs(10);

/// Why a ring cannot be read.
pub(super) type Trouble = Box<dyn std::error::Error + Send + Sync>;

/// What can be read without waiting.
pub(super) trait Ring: AsFd {
    /// What is in it.
    type Event;

    /// The next event, if there is one.
    fn take(&mut self) -> Result<Option<Self::Event>, Trouble>;

    /// Records so far that could not be understood.
    fn malformed(&self) -> u64;
}

impl Ring for Events {
    type Event = Event;

    fn take(&mut self) -> Result<Option<Event>, Trouble> {
        Ok(self.try_next())
    }

    fn malformed(&self) -> u64 {
        Events::malformed(self)
    }
}

impl Ring for ProcessEvents {
    type Event = ProcessEvent;

    fn take(&mut self) -> Result<Option<ProcessEvent>, Trouble> {
        Ok(self.try_next())
    }

    fn malformed(&self) -> u64 {
        ProcessEvents::malformed(self)
    }
}

impl Ring for AccessEvents {
    type Event = AccessEvent;

    fn take(&mut self) -> Result<Option<AccessEvent>, Trouble> {
        Ok(self.try_next())
    }

    fn malformed(&self) -> u64 {
        AccessEvents::malformed(self)
    }
}

impl Ring for Denials {
    type Event = Event;

    fn take(&mut self) -> Result<Option<Event>, Trouble> {
        Ok(self.next()?)
    }

    /// Whatever is not understood is somebody else's.
    fn malformed(&self) -> u64 {
        0
    }
}

/// Why a ring is not read now; nothing when it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reading(Arc<Mutex<Option<String>>>);

impl Reading {
    /// The reason, as a sentence.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is(&self, what: &str, trouble: Option<String>) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &trouble {
            Some(trouble) if now.as_ref() != Some(trouble) => warn!("{what} are not read: {trouble}"),
            None => info!("{what} are read"),
            Some(_) => {}
        }
        *now = trouble;
    }
}

/// What has to be there before a ring is opened.
pub(super) struct Awaited {
    /// Can be read once it is there.
    pub(super) signal: Arc<OwnedFd>,
    pub(super) is_there: Box<dyn Fn() -> bool + Send>,
}

/// A ring, or the attempts at having it.
pub(super) struct Source<R> {
    what: &'static str,
    open: Box<dyn FnMut() -> Result<R, Trouble> + Send>,
    ring: Option<R>,
    awaited: Option<Awaited>,
    try_at: Instant,
    reading: Reading,
    malformed: u64,
}

impl<R: Ring> Source<R> {
    pub(super) fn new(
        what: &'static str,
        reading: Reading,
        open: impl FnMut() -> Result<R, Trouble> + Send + 'static,
    ) -> Source<R> {
        Source { what, open: Box::new(open), ring: None, awaited: None, try_at: Instant::now(), reading, malformed: 0 }
    }

    /// A ring that is open already, and is not opened again.
    pub(super) fn opened(what: &'static str, reading: Reading, ring: R) -> Source<R>
    where
        R: Send + 'static,
    {
        let mut ring = Some(ring);
        Source::new(what, reading, move || ring.take().ok_or_else(|| "it is closed".into()))
    }

    /// The same, not opened before there is something to read. A ring that is mapped is memory of this process, as a whole and twice.
    pub(super) fn after(self, awaited: Awaited) -> Source<R> {
        Source { awaited: Some(awaited), ..self }
    }

    fn is_awaiting(&mut self) -> bool {
        if self.awaited.as_ref().is_some_and(|awaited| (awaited.is_there)()) {
            self.awaited = None;
        }
        self.awaited.is_some()
    }

    /// Tries to open it, if that is due. Whether it was opened now.
    pub(super) fn open_in_time(&mut self, now: Instant) -> bool {
        if self.ring.is_some() || self.is_awaiting() || now < self.try_at {
            return false;
        }
        match (self.open)() {
            Ok(ring) => {
                self.ring = Some(ring);
                self.malformed = 0;
                self.reading.is(self.what, None);
                true
            }
            Err(error) => {
                self.close(&*error);
                false
            }
        }
    }

    /// The next event, if there is one.
    pub(super) fn take(&mut self) -> Option<R::Event> {
        let ring = self.ring.as_mut()?;
        let taken = ring.take();
        if ring.malformed() != self.malformed {
            self.malformed = ring.malformed();
            let (what, malformed) = (self.what, self.malformed);
            warn!("{malformed} records of {what} are not understood; the programs and this binary differ: restart the agent");
        }
        taken.unwrap_or_else(|error| {
            self.close(&*error);
            None
        })
    }

    /// What to wait on.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        let ring = self.ring.as_ref().map(AsFd::as_fd);
        ring.or_else(|| Some(self.awaited.as_ref()?.signal.as_fd()))
    }

    /// How long it has nothing to do but wait for events; for ever when it is open.
    pub(super) fn rest(&self, now: Instant) -> Duration {
        if self.ring.is_some() || self.awaited.is_some() { Duration::MAX } else { self.try_at.saturating_duration_since(now) }
    }

    fn close(&mut self, error: &(dyn std::error::Error + Send + Sync)) {
        self.ring = None;
        self.try_at = Instant::now() + RETRY;
        self.reading.is(self.what, Some(error.to_string()));
    }
}
