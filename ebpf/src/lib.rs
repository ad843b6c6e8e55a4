//! All that Portcullis runs in the kernel, and the only crate that speaks `bpf(2)`.
//!
//! The programs are C, in `bpf/`; [`abi`] is what they share with user space. [`Kernel`] puts them in force and pins them:
//! what is pinned goes on without any process of ours. This crate knows slots, sets and segments, and nothing of policies;
//! what is written into them is the enforcer's business.
//!
//! [`monitor`] is a second object that tells what processes do and use. It decides nothing, and works also where BPF is no active
//! security module.
//!
//! Unsafe code is confined to two private modules, one for `bpf(2)` and one for mappings.

pub mod abi;
#[cfg(feature = "bench")]
pub mod bench;
mod btf;
mod calls;
mod clock;
mod elf;
mod error;
mod events;
mod inventory;
mod kallsyms;
mod kernel;
mod labels;
mod load;
mod mmap;
pub mod monitor;
mod pins;
mod preempt;
mod probe;
mod programs;
mod ring;
mod ringbuf;
mod segment;
mod sys;
mod table;
#[cfg(test)]
mod tests;

pub use clock::boottime_ns;
pub use error::Error;
pub use events::{Event, Events};
pub use inventory::ProgramInfo;
pub use kernel::Kernel;
pub use labels::FIRST_PID_NS;
pub use load::Options;
pub use probe::{Finding, Lsm, Probe, lsm};
pub use programs::Ladder;
pub use segment::Segment;

/// The compiled programs. The ELF reader of the loader wants them aligned.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portcullis.bpf.o"));
/// The same, with the hash that build.rs made.
const PROGRAMS: load::Object<'static> = load::Object { bytes: OBJECT, hash: env!("PORTCULLIS_OBJECT_HASH") };
/// The compiled programs of the monitor.
static MONITOR_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/monitor.bpf.o"));
/// The same, with the hash that build.rs made.
const MONITOR_PROGRAMS: load::Object<'static> = load::Object { bytes: MONITOR_OBJECT, hash: env!("PORTCULLIS_MONITOR_HASH") };
