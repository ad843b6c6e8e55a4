//! How accesses are watched: by threads and cgroups that are told from all others.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::super::native::{Cgroup, Room};
use super::load_all;
use crate::monitor::load::Sizes;
use crate::monitor::{AccessEvent, AccessEvents, Classes, Monitor, Visibility};

/// A monitor that tells each access of these classes, and its reader. Nothing where the host takes no such programs.
pub(super) fn watch(room: &Room, classes: Classes) -> Option<(Monitor, AccessEvents)> {
    let monitor = load_all(room, Sizes::default())?;
    let events = monitor.access_events().expect("the one reader");
    monitor.set_window(Duration::ZERO).expect("config");
    monitor.set_visibility(Visibility { host: classes, containers: classes }).expect("config");
    Some((monitor, events))
}

/// What is there. An event is in the ring before the call that it tells of returns.
pub(super) fn drain(events: &mut AccessEvents) -> Vec<AccessEvent> {
    let mut all = Vec::new();
    while let Some(event) = events.next(Duration::ZERO).expect("waiting") {
        all.push(event);
    }
    all
}

pub(super) fn named(event: &AccessEvent, name: &str) -> bool {
    event.header.comm.split(|byte| *byte == 0).next() == Some(name.as_bytes())
}

/// What a thread of this name does.
pub(super) fn done_by(events: &mut AccessEvents, name: &str, work: impl FnOnce() + Send + 'static) -> Vec<AccessEvent> {
    drain(events);
    std::thread::Builder::new().name(name.to_owned()).spawn(work).expect("a thread").join().expect("its end");
    let mut all = drain(events);
    all.retain(|event| named(event, name));
    all
}

/// A shell in a cgroup of its own, which waits for a line before it runs its script. Nothing else is in that cgroup.
pub(super) struct Shell {
    pub(super) cgroup: Cgroup,
    child: Child,
}

impl Shell {
    /// Nothing, and why, where no cgroup can be made.
    pub(super) fn waiting(name: &str, script: &str, argument: &Path) -> Option<Shell> {
        let Some(cgroup) = Cgroup::make(name) else {
            eprintln!("skipped: no cgroup can be made");
            return None;
        };
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("echo ready; read go; {script}"), "sh"]).arg(argument);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a shell");
        // By then it has opened its libraries.
        let mut ready = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut ready).expect("a line");
        assert_eq!(ready, "ready\n");
        cgroup.hold(child.id());
        Some(Shell { cgroup, child })
    }

    pub(super) fn run(mut self) -> Cgroup {
        let mut stdin = self.child.stdin.take().expect("a pipe");
        stdin.write_all(b"go\n").expect("a line");
        drop(stdin);
        assert!(self.child.wait().expect("its end").success());
        self.cgroup
    }
}
