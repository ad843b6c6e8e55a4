//! A ring of events: its one reader, and the count of what is missing.

use std::fs::File;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use bytemuck::AnyBitPattern;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::ringbuf::Ring;
use crate::{Error, sys};

/// An event as a ring holds it.
pub(crate) trait Record: Sized {
    /// Nothing where the bytes are no such event. Nothing in them is taken for granted. The ring rounds records up to 8 bytes, so
    /// there may be more bytes than the event needs; never fewer.
    fn decode(record: &[u8]) -> Option<Self>;

    /// The CPU that raised it, and its number there.
    fn number(&self) -> (u32, u64);

    /// Notes how many events of the same CPU are missing just before it.
    fn set_lost_before(&mut self, lost: u64);
}

/// The header of a record, and what follows it. Nothing where the record is shorter than that.
pub(crate) fn header<H: AnyBitPattern>(record: &[u8]) -> Option<(H, &[u8])> {
    let (header, rest) = record.split_at_checked(size_of::<H>())?;
    Some((bytemuck::pod_read_unaligned(header), rest))
}

/// The three texts that follow a header, by the lengths that it says. Nothing where they are not all there.
pub(crate) fn texts(mut rest: &[u8], lengths: [u32; 3]) -> Option<[Vec<u8>; 3]> {
    let mut texts = <[Vec<u8>; 3]>::default();
    for (text, length) in texts.iter_mut().zip(lengths) {
        let (own, others) = rest.split_at_checked(length as usize)?;
        *text = own.to_vec();
        rest = others;
    }
    Some(texts)
}

/// The one reader of a ring.
pub struct Reader<R> {
    ring: Ring,
    ledger: Ledger,
    what: &'static str,
    _only_reader: Option<File>,
    _events: PhantomData<fn() -> R>,
}

#[expect(private_bounds, reason = "what a ring holds is this crate's business")]
impl<R: Record> Reader<R> {
    /// Opens the ring that is pinned there. `only_reader` is the lock that says that nobody else reads it.
    pub(crate) fn open(pin: &Path, what: &'static str, only_reader: File) -> Result<Reader<R>, Error> {
        let bad = |error| Error::system(format!("opening the ring {}", pin.display()), error);
        let ring = sys::open_pin(pin).and_then(Ring::open).map_err(bad)?;
        Reader::over(ring, what, Some(only_reader))
    }

    pub(crate) fn over(ring: Ring, what: &'static str, only_reader: Option<File>) -> Result<Reader<R>, Error> {
        let cpus = sys::possible_cpus().map_err(|error| Error::file("/sys/devices/system/cpu/possible", error))?;
        Ok(Reader { ring, ledger: Ledger::new(cpus), what, _only_reader: only_reader, _events: PhantomData })
    }

    /// The next event, if there is one. Events of one CPU come in their order; those of several are nearly in the order of their
    /// time. Records that can't be understood are counted and passed over.
    pub fn try_next(&mut self) -> Option<R> {
        while let Some(event) = self.ring.next(|record| self.ledger.take(record)) {
            if event.is_some() {
                return event;
            }
        }
        None
    }

    /// The same, or nothing if none came within the timeout.
    ///
    /// # Errors
    /// Only if waiting itself fails.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<R>, Error> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            if let Some(event) = self.try_next() {
                return Ok(Some(event));
            }
            let left = deadline.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Ok(None);
            }
            // A timeout that does not fit is no timeout.
            let timeout = Timespec::try_from(left).ok();
            let mut wait = [PollFd::from_borrowed_fd(self.ring.as_fd(), PollFlags::IN)];
            match poll(&mut wait, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Error::system(format!("waiting for {}", self.what), error)),
            }
        }
    }

    /// Events that were raised since the first one delivered here, and that did not arrive.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.ledger.lost
    }

    /// Records that could not be understood. Anything but 0 is a defect.
    #[must_use]
    pub fn malformed(&self) -> u64 {
        self.ledger.malformed
    }
}

/// For waiting until there is something to read, beside other descriptors.
impl<R> AsFd for Reader<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

/// Keeps count of the events that are missing.
pub(crate) struct Ledger {
    /// By CPU: the highest sequence number seen.
    last: Vec<Option<u64>>,
    /// Events that were raised since the first one delivered, and that did not arrive.
    pub(crate) lost: u64,
    /// Records that could not be understood.
    pub(crate) malformed: u64,
}

impl Ledger {
    pub(crate) fn new(cpus: usize) -> Ledger {
        Ledger { last: vec![None; cpus], lost: 0, malformed: 0 }
    }

    pub(crate) fn take<R: Record>(&mut self, record: &[u8]) -> Option<R> {
        match R::decode(record).filter(|event| (event.number().0 as usize) < self.last.len()) {
            Some(mut event) => {
                let (cpu, seq) = event.number();
                event.set_lost_before(self.count(cpu, seq));
                Some(event)
            }
            None => {
                self.malformed += 1;
                None
            }
        }
    }

    /// A program can be interrupted by another one on the same CPU between taking a number and delivering, so numbers may
    /// come in another order: a late one was counted as lost before and is not.
    fn count(&mut self, cpu: u32, seq: u64) -> u64 {
        let last = &mut self.last[cpu as usize];
        let Some(last) = last else {
            *last = Some(seq);
            return 0;
        };
        if seq > *last {
            let missing = seq - *last - 1;
            *last = seq;
            self.lost = self.lost.saturating_add(missing);
            missing
        } else {
            self.lost = self.lost.saturating_sub(1);
            0
        }
    }

    #[cfg(test)]
    pub(crate) fn is_untouched(&self) -> bool {
        self.last.iter().all(Option::is_none)
    }
}
