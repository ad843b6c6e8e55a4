//! Runs the decision functions on this host and times them: `bpf/bench.bpf.c`, feature `bench`.
//!
//! Nothing is attached or pinned, but by [`stand_in`]. The maps are this object's own, so a host that enforces is not disturbed.

use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::{Duration, Instant};

use aya::maps::{Map, MapData};
use aya::programs::{Iter, RawTracePoint, RawTracePointRunOptions, TestRun as _};
use aya::{Btf, Ebpf, EbpfLoader};
use bytemuck::{Pod, Zeroable};

use crate::elf::{Elf, resolve_casts};
use crate::mmap::Mapping;
use crate::pins::Place;
use crate::programs::{Attach, Host, Ladder, programs};
use crate::{Error, Kernel, Options, PROGRAMS, abi, sys};

/// The compiled object.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench.bpf.o"));

/// `PC_SCRATCH_PER_CPU`.
const SCRATCH_PER_CPU: u32 = 4;

/// Bytes of a key of the comparison's hash, the terminating zero included.
const WAY_KEY: usize = 256;

/// What is run; the order is that of `enum bench_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Labels the calling thread and takes its root directory for the container's.
    Setup,
    /// The harness alone.
    Empty,
    /// A whole decision: identity, path, automaton, verdict.
    Decide,
    /// Identity and preparation only.
    Identity,
    /// The path's components only.
    Climb,
    /// The automaton only.
    Match,
    /// For comparison: a copy of the path.
    WayPath,
    /// For comparison: hash look-ups by that copy.
    WayMatch,
    /// For comparison: both.
    Way,
}

/// What a run gave.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Run {
    /// All repetitions together.
    pub ns: u64,
    /// Repetitions that were made.
    pub runs: u64,
    /// How many of them denied, or for the comparison matched.
    pub denied: u64,
    /// 1 when the label or the working memory was missing.
    pub failed: u64,
    /// Components of the path.
    pub depth: u64,
    /// `PC_PATH_*` of the last decision.
    pub outcome: u64,
    address: u64,
    still: u64,
}

impl Run {
    /// Nanoseconds of one repetition.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "both are far below 2^52")]
    pub fn each(&self) -> f64 {
        self.ns as f64 / self.runs.max(1) as f64
    }
}

/// What loading cost.
#[derive(Clone, Copy, Debug)]
pub struct Loaded {
    /// Instructions that the verifier looked at.
    pub verified_insns: u32,
    /// Instructions of the program after it.
    pub xlated_insns: u32,
    /// From the request to the answer of the kernel.
    pub time: Duration,
}

/// The loaded benchmark.
pub struct Bench {
    ebpf: Ebpf,
    sets: Mapping,
    slots: Mapping,
    segment: Mapping,
    /// Keeps the memory that stands in for the sequence locks.
    _still: Ebpf,
}

impl Bench {
    /// The ladders that this kernel can climb, the better first.
    ///
    /// # Errors
    /// When the kernel's type information can't be read.
    pub fn ladders() -> Result<Vec<Ladder>, Error> {
        let host = Host::read(&[])?;
        Ok(if host.cast().is_some() { vec![Ladder::Cast, Ladder::Read] } else { vec![Ladder::Read] })
    }

    /// Loads the object. The sequence locks are validated against memory of the benchmark's own, so that their cost is in the
    /// numbers also on a kernel that hides their addresses.
    ///
    /// # Errors
    /// When the kernel refuses a map or a program.
    pub fn load(ladder: Ladder) -> Result<(Bench, Loaded), Error> {
        let mut first = open(ladder, 0)?;
        load(&mut first)?;
        run(&mut first, Mode::Setup, 0)?;
        let still = result(&first)?.address;
        let mut ebpf = open(ladder, still)?;
        let loaded = load(&mut ebpf)?;
        let btf = Btf::from_sys_fs().map_err(|e| Error::Btf(e.to_string()))?;
        iterator(&mut ebpf)?.load("task", &btf).map_err(refused)?;
        let segment = attach_segment(&ebpf)?;
        let map = |name: &str, bytes: usize| {
            let data = plain(&ebpf, name)?;
            Mapping::new(data.fd().as_fd(), bytes).map_err(|e| Error::system(format!("mapping {name}"), e))
        };
        let sets = map("pc_sets", abi::MAX_SETS as usize * size_of::<abi::Set>())?;
        let slots = map("pc_slots", abi::MAX_SLOTS as usize * size_of::<abi::Slot>())?;
        Ok((Bench { ebpf, sets, slots, segment, _still: first }, loaded))
    }

    /// Puts compiled tables, laid out for byte 0 of a segment, in force as set 0 of slot 0.
    pub fn place(&self, set: &abi::Set, tables: &[u8]) {
        store(&self.segment, tables);
        store(&self.sets, bytemuck::bytes_of(set));
        let slot = abi::Slot { flags: abi::SLOT_ARMED, epoch: 1, generation: 1, ..abi::Slot::default() };
        store(&self.slots, bytemuck::bytes_of(&slot));
    }

    /// Fills the hash of the comparison with these paths; those that it can't hold are left out, and counted.
    ///
    /// # Errors
    /// When the kernel refuses an entry.
    pub fn way_rules(&mut self, paths: &[Vec<u8>]) -> Result<usize, Error> {
        let rules = by_hand(&self.ebpf, "pc_bench_rules")?;
        let refused = |e| Error::system("an entry of pc_bench_rules", e);
        while let Some(key) = rules.next_key(None).map_err(refused)? {
            rules.delete(&key).map_err(refused)?;
        }
        let mut omitted = 0;
        for path in paths {
            if path.len() >= WAY_KEY {
                omitted += 1;
                continue;
            }
            let mut key = [0u8; WAY_KEY];
            key[..path.len()].copy_from_slice(path);
            rules.update(&key, &1u64.to_ne_bytes()).map_err(refused)?;
        }
        Ok(omitted)
    }

    /// Runs a mode `runs` times on the working directory of the calling process.
    ///
    /// # Errors
    /// When the kernel refuses the run, or a repetition did not happen.
    pub fn run(&mut self, mode: Mode, runs: u32) -> Result<Run, Error> {
        run(&mut self.ebpf, mode, runs)?;
        let found = result(&self.ebpf)?;
        if found.failed != 0 || (mode != Mode::Setup && found.runs != u64::from(runs)) {
            return Err(Error::Object(format!("{mode:?} ran {} of {runs} times, {} failed", found.runs, found.failed)));
        }
        Ok(found)
    }

    /// Times `bpf_d_path()` on the working directory, in an iterator.
    ///
    /// # Errors
    /// When the kernel refuses the iterator.
    pub fn d_path(&mut self) -> Result<Run, Error> {
        let program = iterator(&mut self.ebpf)?;
        let id = program.attach().map_err(refused)?;
        let link = program.take_link(id).map_err(refused)?;
        let mut file = link.into_file().map_err(|e| Error::Object(format!("the iterator could not be opened: {e}")))?;
        file.read_to_end(&mut Vec::new()).map_err(|e| Error::system("reading the iterator", e))?;
        result(&self.ebpf)
    }
}

/// Puts in force what of this build a host takes that refuses security programs (kernel lockdown): all maps, and the programs
/// that trace. Pins stand in for the others, so that doors find a whole build: the time of a door can be taken where nothing
/// can be enforced. Returns how long the loading took, and how many programs have a stand-in.
///
/// # Errors
/// When something is in force already, which is left alone, or the kernel refuses even this.
pub fn stand_in() -> Result<(Duration, usize), Error> {
    let place = Place::system();
    if !place.builds()?.is_empty() {
        return Err(Error::Object("something is in force on this host".to_owned()));
    }
    let begun = Instant::now();
    let kernel = Kernel::load_at(place, PROGRAMS, Options::default(), |p| !matches!(p.attach, Attach::Lsm(_)))?;
    let time = begun.elapsed();
    let mut builds = kernel.place.builds()?;
    let directory = kernel.place.build(&builds.pop().ok_or(Error::NotLoaded)?);
    let program = sys::open_pin(&directory.join("pc_stamp")).map_err(|e| Error::file(&directory, e))?;
    let absent = programs(&Elf::parse(PROGRAMS.bytes)?)?.into_iter().map(|p| directory.join(p.name)).filter(|pin| !pin.exists());
    let mut count = 0;
    for pin in absent {
        sys::pin(program.as_fd(), &pin).map_err(|e| Error::file(&pin, e))?;
        count += 1;
    }
    Ok((time, count))
}

fn missing(what: &str) -> Error {
    Error::Object(format!("it has no {what}"))
}

fn open(ladder: Ladder, still: u64) -> Result<Ebpf, Error> {
    Elf::parse(OBJECT)?;
    let cast = match ladder {
        Ladder::Cast => Host::read(&[])?.cast(),
        Ladder::Read => None,
    };
    let object = resolve_casts(OBJECT, cast)?;
    let cpus = sys::possible_cpus().map_err(|e| Error::system("counting the CPUs", e))?;
    let cpus = u32::try_from(cpus).map_err(|_| Error::Object("too many CPUs".to_owned()))?;
    EbpfLoader::new()
        .override_global("pc_ladder", &(ladder as u32), true)
        .override_global("pc_rename_lock", &still, true)
        .override_global("pc_mount_lock", &still, true)
        .allow_unsupported_maps()
        .map_max_entries("pc_scratch", cpus * SCRATCH_PER_CPU)
        .load(&object)
        .map_err(|e| Error::Maps(Box::new(e)))
}

fn program(ebpf: &mut Ebpf) -> Result<&mut RawTracePoint, Error> {
    let program = ebpf.program_mut("pc_bench").ok_or_else(|| missing("pc_bench"))?;
    program.try_into().map_err(refused)
}

fn refused(source: aya::programs::ProgramError) -> Error {
    Error::Program { program: "pc_bench".to_owned(), source: Box::new(source) }
}

fn iterator(ebpf: &mut Ebpf) -> Result<&mut Iter, Error> {
    let program = ebpf.program_mut("pc_bench_d_path").ok_or_else(|| missing("pc_bench_d_path"))?;
    program.try_into().map_err(refused)
}

fn load(ebpf: &mut Ebpf) -> Result<Loaded, Error> {
    let program = program(ebpf)?;
    let begun = Instant::now();
    program.load().map_err(refused)?;
    let time = begun.elapsed();
    let info = program.info().map_err(refused)?;
    Ok(Loaded {
        verified_insns: info.verified_instruction_count().unwrap_or(0),
        xlated_insns: info.size_translated().unwrap_or(0) / 8,
        time,
    })
}

fn run(ebpf: &mut Ebpf, mode: Mode, runs: u32) -> Result<(), Error> {
    let mut options = RawTracePointRunOptions::new();
    options.args[0] = mode as u64;
    options.args[1] = runs.into();
    program(ebpf)?.test_run(options).map_err(refused)?;
    Ok(())
}

fn result(ebpf: &Ebpf) -> Result<Run, Error> {
    let bytes = by_hand(ebpf, "pc_bench_result")?.lookup(&0u32.to_ne_bytes());
    let bytes = bytes.map_err(|e| Error::system("reading pc_bench_result", e))?.unwrap_or_default();
    bytemuck::try_pod_read_unaligned(&bytes).map_err(|_| missing("pc_bench_result"))
}

/// A map of the object for access to single elements.
fn by_hand(ebpf: &Ebpf, name: &str) -> Result<sys::Map, Error> {
    let fd = plain(ebpf, name)?.fd().as_fd().try_clone_to_owned();
    fd.and_then(sys::Map::new).map_err(|e| Error::system(format!("opening {name}"), e))
}

fn plain<'a>(ebpf: &'a Ebpf, name: &str) -> Result<&'a MapData, Error> {
    match ebpf.map(name) {
        Some(Map::Array(data) | Map::HashMap(data) | Map::ArrayOfMaps(data)) => Ok(data),
        _ => Err(missing(name)),
    }
}

/// Creates segment 0 and maps it.
fn attach_segment(ebpf: &Ebpf) -> Result<Mapping, Error> {
    let fd = sys::create_array("pc_segment", abi::SEGMENT_SIZE).map_err(|e| Error::system("a segment", e))?;
    let mapping = Mapping::new(fd.as_fd(), abi::SEGMENT_BYTES as usize).map_err(|e| Error::system("a segment", e))?;
    let number = fd.as_raw_fd().cast_unsigned().to_ne_bytes();
    let placed = by_hand(ebpf, "pc_segments")?.update(&0u32.to_ne_bytes(), &number);
    placed.map_err(|e| Error::system("placing a segment", e))?;
    Ok(mapping)
}

fn store(mapping: &Mapping, bytes: &[u8]) {
    for (word, bytes) in mapping.words().iter().zip(bytes.chunks(4)) {
        let mut value = [0u8; 4];
        value[..bytes.len()].copy_from_slice(bytes);
        word.store(u32::from_ne_bytes(value), std::sync::atomic::Ordering::Release);
    }
}
