//! The monitor on the running kernel: small programs are really started, files opened and sockets used, and each event of that must
//! come exactly once. The host that runs this does other things meanwhile; those are passed over.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aya::programs::ProgramError;

use super::native::Room;
use crate::monitor::abi::EXIT;
use crate::monitor::load::Sizes;
use crate::monitor::{Classes, Monitor, ProcessEvent, ProcessEvents, Visibility, Watch};
use crate::{Error, MONITOR_PROGRAMS};

mod access;
mod file;
mod lifecycle;
mod network;
mod process;
mod repeats;
mod visibility;

const PROCESSES: Visibility = Visibility { host: Classes::PROCESS, containers: Classes::PROCESS };
/// An event that does not come within this time will not come.
const PATIENCE: Duration = Duration::from_secs(20);

/// The programs of processes alone, which every host takes.
fn load(room: &Room, sizes: Sizes) -> Monitor {
    Monitor::load_at(room.place(), MONITOR_PROGRAMS, sizes, Watch::Processes).expect("loading the monitor")
}

/// All programs; nothing, and why, on build machines whose kernel refuses those that run where a function returns.
fn load_all(room: &Room, sizes: Sizes) -> Option<Monitor> {
    match Monitor::load_at(room.place(), MONITOR_PROGRAMS, sizes, Watch::Accesses) {
        Ok(monitor) => Some(monitor),
        Err(Error::Program { source, .. }) if refused(&source) => {
            eprintln!("skipped: this kernel's policy refuses programs where a function returns");
            None
        }
        Err(error) => panic!("loading the monitor: {error}"),
    }
}

fn refused(error: &ProgramError) -> bool {
    matches!(error, ProgramError::LoadError { io_error, .. } if io_error.kind() == std::io::ErrorKind::PermissionDenied)
}

/// A monitor that tells of all processes, and its reader.
fn watch(room: &Room) -> (Monitor, ProcessEvents) {
    let monitor = load(room, Sizes::default());
    let events = monitor.process_events().expect("the one reader");
    monitor.set_visibility(PROCESSES).expect("config");
    (monitor, events)
}

fn inode(path: &str) -> u32 {
    u32::try_from(fs::metadata(path).expect("a namespace").ino()).expect("an inode number of a namespace")
}

/// Whether an event is of a process that has this number here.
fn is(event: &ProcessEvent, pid: u32, pid_ns: u32) -> bool {
    event.header.ns_pid == pid && event.header.pid_ns == pid_ns
}

/// The events of the given children, each up to its end.
fn lives(events: &mut ProcessEvents, pids: &[u32]) -> BTreeMap<u32, Vec<ProcessEvent>> {
    let here = inode("/proc/self/ns/pid");
    let mut found: BTreeMap<u32, Vec<ProcessEvent>> = BTreeMap::new();
    let (mut ended, deadline) = (0, Instant::now() + PATIENCE);
    while ended < pids.len() {
        let left = deadline.saturating_duration_since(Instant::now());
        let event = events.next(left).expect("waiting").unwrap_or_else(|| panic!("{ended} of {} have ended", pids.len()));
        if let Some(pid) = pids.iter().find(|pid| is(&event, **pid, here)) {
            ended += usize::from(event.header.kind == EXIT);
            found.entry(*pid).or_default().push(event);
        }
    }
    found
}

/// The events of one program that is run to its end.
fn life(events: &mut ProcessEvents, command: &mut Command) -> Vec<ProcessEvent> {
    let mut child = command.stdin(Stdio::null()).spawn().expect("a child");
    child.wait().expect("its end");
    lives(events, &[child.id()]).remove(&child.id()).expect("its events")
}

fn kinds(events: &[ProcessEvent]) -> Vec<u32> {
    events.iter().map(|event| event.header.kind).collect()
}

fn real(path: &str) -> Vec<u8> {
    fs::canonicalize(path).expect("a program").into_os_string().into_encoded_bytes()
}
