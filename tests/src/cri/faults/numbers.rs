//! Numbers that come again: a process that dies before it was anything, and process ids in other hands.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::agent::forgotten;
use super::{Verdict, World};
use crate::cri::engine::{CGROUPS, handler};
use crate::cri::observer::FILES;
use crate::cri::pods::{ContainerSpec, Pod, PodSpec};
use crate::process::{Dialogue, Talk};
use crate::{Failure, Result, guest};

/// The last process id that was given; the next one is the next free number.
const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";
/// Other processes take numbers in between.
const ATTEMPTS: u32 = 50;
/// A container takes a second.
const CONTAINERS: u32 = 60;

/// The first process is killed as soon as it is in its cgroup, which is before the runtime starts it.
pub(super) fn init_dies(world: &mut World<'_>) -> Result<Verdict> {
    let container = world.starts.create(&world.attack("attack"))?;
    let procs = Path::new("/sys/fs/cgroup").join(CGROUPS.trim_start_matches('/')).join(&container.id).join("cgroup.procs");
    let done = AtomicBool::new(false);
    let (ended, killed) = std::thread::scope(|scope| {
        let killer = scope.spawn(|| kill_first(&procs, &done));
        let ended = container.complete();
        done.store(true, Ordering::Relaxed);
        (ended, killer.join().unwrap_or(0))
    });
    if killed == 0 {
        return Ok(Err("nothing appeared in the container's cgroup".to_owned()));
    }
    if let Err(why) = world.held(&ended?)? {
        return Ok(Err(why));
    }
    container.kill()?;
    forgotten(&container)?;
    world.recovered()
}

/// Kills whatever is in a cgroup until it is done; how many.
fn kill_first(procs: &Path, done: &AtomicBool) -> u32 {
    let mut killed = 0;
    while !done.load(Ordering::Relaxed) {
        for pid in std::fs::read_to_string(procs).unwrap_or_default().lines().filter_map(|line| line.parse().ok()) {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
                killed += 1;
            }
        }
        std::thread::yield_now();
    }
    killed
}

/// A container that ran ends while there is no agent, and a process of the machine gets its number: that one is free.
pub(super) fn pid_of_the_dead(world: &mut World<'_>) -> Result<Verdict> {
    let container = world.live.start(&ContainerSpec::new("first", &["/bin/sleep", "100000"]))?;
    let pid = container.pid()?;
    world.agent.kill();
    container.kill()?;
    let secret = world.out.join("host");
    guest::write(&secret, b"readable\n")?;
    // As the container had it: in a root of its own, with the same name.
    let Some(mut heir) = process_with(pid, world)? else {
        return Ok(Err(format!("no process got the number {pid}")));
    };
    world.agent.launch(world.guest)?;
    heir.tell("go")?;
    let word = heir.line(Duration::from_secs(30))?;
    if word != "free" {
        return Ok(Err(format!("a process of the machine with the number of a container's is {word}")));
    }
    world.recovered()
}

/// A process of the machine with this number, in a root that has the same files as a container's: on a line it reads the
/// denied file and says `free` or `denied`.
fn process_with(pid: i32, world: &World<'_>) -> Result<Option<Dialogue>> {
    let root = world.guest.work.join("cri/heir");
    crate::image::make(&root)?;
    guest::write(&root.join(FILES[0].trim_start_matches('/')), b"a\n")?;
    let script = format!("echo begun; read line; if read text <{}; then echo free; else echo denied; fi", FILES[0]);
    for _ in 0..ATTEMPTS {
        give_next(pid)?;
        let mut dialogue = Dialogue::start(Command::new("chroot").arg(&root).args(["/bin/sh", "-c", &script]))?;
        if i32::try_from(dialogue.pid()) == Ok(pid) {
            dialogue.line(Duration::from_secs(30))?;
            return Ok(Some(dialogue));
        }
    }
    Ok(None)
}

fn give_next(pid: i32) -> Result<()> {
    std::fs::write(PathBuf::from(LAST_PID), (pid - 1).to_string()).map_err(|source| Failure::io(LAST_PID, source))
}

/// A container that no policy selects gets a number that a protected one had, and the other way round.
pub(super) fn pid_in_another(world: &mut World<'_>) -> Result<Verdict> {
    let stranger = PodSpec::new("stranger", "stranger", &handler(world.runtime, true));
    let stranger = Pod::run(world.guest, world.engine, stranger)?;
    let first = world.live.start(&ContainerSpec::new("first", &["/bin/sleep", "100000"]))?;
    let pid = first.pid()?;
    first.kill()?;
    // How many numbers are taken before a container's first process gets one differs from start to start, so no number
    // can be aimed at. Counted from the same place, the containers' numbers lie close together, and some come again.
    let mut had: HashMap<i32, Turn> = HashMap::new();
    let mut met = HashSet::new();
    for round in 0..CONTAINERS {
        let turn = if round % 2 == 0 { Turn::Stranger } else { Turn::Protected };
        let pod = if turn == Turn::Stranger { &stranger } else { &world.live };
        give_next(pid)?;
        let container = pod.start(&ContainerSpec::new(&format!("c{round}"), &["/bin/sleep", "100000"]))?;
        let got = container.pid()?;
        let may_read = container.exec(&["/bin/cat", FILES[0]])?.success();
        container.kill()?;
        if may_read != (turn == Turn::Stranger) {
            return Ok(Err(format!("round {round}: process {got} of a {turn:?} container may read: {may_read}")));
        }
        if had.insert(got, turn).is_some_and(|before| before != turn) {
            met.insert(turn);
        }
        if met.len() == 2 {
            return world.recovered();
        }
    }
    let numbers: Vec<_> = had.keys().collect();
    Ok(Err(format!("of {CONTAINERS} containers no two got the same number each way: {numbers:?}")))
}

/// Whose container it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Turn {
    Stranger,
    Protected,
}
