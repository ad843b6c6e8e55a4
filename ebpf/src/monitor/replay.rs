//! Events that this process raises itself, in rings that are read like the kernel's: for who measures the reading of accesses on a host
//! whose kernel does not take their programs.

use std::marker::PhantomData;

use bytemuck::bytes_of;

use super::{AccessEvent, AccessEvents, ProcessEvent, ProcessEvents};
use crate::Error;
use crate::ring::{Reader, Record};
use crate::ringbuf::Writer;

/// The end of a ring where events of a kind are raised.
pub struct Replay<R> {
    writer: Writer,
    _events: PhantomData<fn(R)>,
}

fn with_reader<R: Record>(bytes: usize, what: &'static str) -> Result<(Replay<R>, Reader<R>), Error> {
    let bad = |error| Error::system(format!("making a ring of {bytes} bytes"), error);
    let (writer, ring) = Writer::with_ring(bytes).map_err(bad)?;
    Ok((Replay { writer, _events: PhantomData }, Reader::over(ring, what, None)?))
}

impl<R> Replay<R> {
    /// Wakes who waits for events.
    ///
    /// # Errors
    /// If the system does not do that.
    pub fn wake(&self) -> Result<(), Error> {
        self.writer.wake().map_err(|error| Error::system("waking the reader of a ring".to_owned(), error))
    }

    fn write(&mut self, parts: [&[u8]; 4]) -> bool {
        self.writer.write(&parts.concat())
    }
}

impl Replay<ProcessEvent> {
    /// A ring of so many bytes, a power of two.
    ///
    /// # Errors
    /// If the system gives no memory for it.
    pub fn of_processes(bytes: usize) -> Result<(Replay<ProcessEvent>, ProcessEvents), Error> {
        with_reader(bytes, "replayed events of processes")
    }

    /// Puts an event into the ring as the kernel would, with the lengths of its texts. Whether there was room for it.
    pub fn raise(&mut self, event: &ProcessEvent) -> bool {
        let mut header = event.header;
        let texts = [&event.exe, &event.cwd, &event.args];
        [header.exe_len, header.cwd_len, header.args_len] = texts.map(|text| text.len() as u32);
        self.write([bytes_of(&header), texts[0], texts[1], texts[2]])
    }
}

impl Replay<AccessEvent> {
    /// A ring of so many bytes, a power of two.
    ///
    /// # Errors
    /// If the system gives no memory for it.
    pub fn of_accesses(bytes: usize) -> Result<(Replay<AccessEvent>, AccessEvents), Error> {
        with_reader(bytes, "replayed accesses")
    }

    /// Puts an access into the ring as the kernel would, with the lengths of its texts. Whether there was room for it.
    pub fn raise(&mut self, event: &AccessEvent) -> bool {
        let mut header = event.header;
        let texts = [&event.path, &event.second, &event.address];
        [header.path_len, header.second_len, header.address_len] = texts.map(|text| text.len() as u32);
        self.write([bytes_of(&header), texts[0], texts[1], texts[2]])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::op;
    use crate::monitor::abi;

    const BYTES: usize = 4096;

    fn numbered(seq: u64, path: &[u8]) -> AccessEvent {
        let header = abi::Access { op: op::READ, seq, ..Default::default() };
        AccessEvent { header, path: path.to_vec(), second: Vec::new(), address: Vec::new(), lost_before: 0 }
    }

    #[test]
    fn what_is_raised_is_read_whole_round_the_end_of_the_ring() {
        let (mut replay, mut events) = Replay::of_accesses(BYTES).expect("a ring");
        let mut read = 0;
        for seq in 0..100 {
            let path = vec![b'p'; seq as usize * 7 % 150];
            assert!(replay.raise(&numbered(seq, &path)), "{seq}");
            if seq % 3 == 2 {
                for event in std::iter::from_fn(|| events.try_next()) {
                    assert_eq!((event.header.seq, event.path.len() as u64), (read, read * 7 % 150));
                    read += 1;
                }
            }
        }
        assert_eq!((read, events.lost(), events.malformed()), (99, 0, 0));
    }

    #[test]
    fn a_full_ring_takes_nothing_until_it_is_read() {
        let (mut replay, mut events) = Replay::of_accesses(BYTES).expect("a ring");
        let raised = (0..1000).take_while(|seq| replay.raise(&numbered(*seq, b"/etc/hosts"))).count();
        assert!((10..100).contains(&raised), "{raised}");
        assert!(events.try_next().is_some());
        assert!(events.next(std::time::Duration::ZERO).expect("no wait").is_some());
        // The reader shows what it has read when it looks for more.
        while events.try_next().is_some() {}
        assert!(replay.raise(&numbered(1000, b"/etc/hosts")));
        assert_eq!(events.try_next().map(|event| event.header.seq), Some(1000));
        assert_eq!(events.lost(), 1000 - raised as u64);
    }
}
