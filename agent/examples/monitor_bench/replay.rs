//! Accesses that no kernel has seen.

use portcullis_ebpf::abi::op;
use portcullis_ebpf::monitor::replay::Replay;
use portcullis_ebpf::monitor::{AccessEvent, AccessEvents, ProcessEvent, ProcessEvents, abi};
use portcullis_ebpf::{FIRST_PID_NS, boottime_ns};

use crate::{Failed, Storm};

/// How many processes open the files of a storm.
const PROCESSES: usize = 40;
/// Their numbers: those of the storms of a round, and then again.
const FIRST_PID: u32 = 100_000;
const ROUND: usize = 100;
/// What a ring holds: more than a storm.
const RING_BYTES: usize = 8 << 20;

/// The rings, written as the kernel writes them.
pub(crate) struct Rings {
    processes: Replay<ProcessEvent>,
    accesses: Replay<AccessEvent>,
    storms: usize,
    /// Numbers that were given to events of processes, and to accesses.
    raised: (u64, u64),
    /// Who lives: its number, and when it was born.
    living: Vec<(u32, u64)>,
}

impl Rings {
    /// And their readers.
    pub(crate) fn new() -> Result<(Rings, ProcessEvents, AccessEvents), Failed> {
        let (processes, of_processes) = Replay::of_processes(RING_BYTES)?;
        let (accesses, of_accesses) = Replay::of_accesses(RING_BYTES)?;
        let rings = Rings { processes, accesses, storms: 0, raised: (0, 0), living: Vec::new() };
        Ok((rings, of_processes, of_accesses))
    }

    /// Those who live end; others are born, execute a program each, and open files in turn.
    pub(crate) fn rage(&mut self, mark: &str) -> Result<(), Failed> {
        let now_ns = boottime_ns();
        for who in std::mem::take(&mut self.living) {
            self.process(abi::EXIT, who, now_ns, mark)?;
        }
        let first = FIRST_PID + (self.storms % ROUND * PROCESSES) as u32;
        self.living = (0..PROCESSES as u32).map(|number| (first + number, now_ns + u64::from(number))).collect();
        self.storms += 1;
        for who in self.living.clone() {
            self.process(abi::FORK, who, who.1, mark)?;
            self.process(abi::EXEC, who, who.1 + 1, mark)?;
        }
        for number in 0..Storm::Replayed.events() {
            self.open(self.living[number % PROCESSES], now_ns + 1_000, format!("/srv/data/{mark}{number}"))?;
        }
        self.processes.wake()?;
        Ok(self.accesses.wake()?)
    }

    fn open(&mut self, (tgid, started_ns): (u32, u64), time_ns: u64, path: String) -> Result<(), Failed> {
        let seq = self.raised.1;
        self.raised.1 += 1;
        let (slot, pid_ns) = (abi::NO_SLOT, FIRST_PID_NS);
        let mut header = abi::Access { seq, time_ns, started_ns, slot, tgid, tid: tgid, pid_ns, ..abi::Access::default() };
        header.op = op::READ;
        header.comm[..6].copy_from_slice(b"worker");
        let event = AccessEvent { header, path: path.into_bytes(), second: Vec::new(), address: Vec::new(), lost_before: 0 };
        if self.accesses.raise(&event) { Ok(()) } else { Err("the ring of accesses is full".into()) }
    }

    fn process(&mut self, kind: u32, (tgid, started_ns): (u32, u64), time_ns: u64, mark: &str) -> Result<(), Failed> {
        let seq = self.raised.0;
        self.raised.0 += 1;
        let (slot, pid_ns) = (abi::NO_SLOT, FIRST_PID_NS);
        let mut header =
            abi::Process { kind, seq, time_ns, started_ns, slot, tgid, tid: tgid, pid_ns, ..abi::Process::default() };
        (header.parent, header.parent_started_ns) = (1, 1);
        header.comm[..6].copy_from_slice(b"worker");
        let text = |text: &str| if kind == abi::EXEC { text.as_bytes().to_vec() } else { Vec::new() };
        let arguments = format!("worker\0--directory\0/srv/data/{}\0", mark.trim_end_matches('/'));
        let (exe, cwd, args) = (text("/usr/local/bin/worker"), text("/srv/data"), text(&arguments));
        let event = ProcessEvent { header, exe, cwd, args, lost_before: 0 };
        if self.processes.raise(&event) { Ok(()) } else { Err("the ring of processes is full".into()) }
    }
}
