//! Killing a container's init before it has executed anything.
//!
//! CRI-O only logs an error at START and goes on (internal server/container_start.go). The init waits for that at its FIFO: when
//! it is killed there, `runc start` and `crun start` fail, and with them the container.

use std::io;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Most bytes of /proc/PID/cgroup.
const MAX_CGROUP_BYTES: u64 = 64 << 10;

/// Kills process `pid` if it is in a cgroup of container `id`; whether that was so.
///
/// The pidfd is opened first and means one process for ever; /proc is asked while that process lives, so it is not another one's
/// answer when the process turns out to live still.
pub(crate) fn kill(proc: &Path, id: &str, pid: u32) -> io::Result<bool> {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let number = number.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a pid"))?;
    let process = pidfd_open(number, PidfdFlags::empty())?;
    if !is_in_cgroup_of(proc, id, pid)? {
        return Ok(false);
    }
    pidfd_send_signal(&process, Signal::KILL)?;
    Ok(true)
}

fn is_in_cgroup_of(proc: &Path, id: &str, pid: u32) -> io::Result<bool> {
    use std::io::Read;
    let mut text = String::new();
    let file = std::fs::File::open(proc.join(pid.to_string()).join("cgroup"))?;
    file.take(MAX_CGROUP_BYTES).read_to_string(&mut text)?;
    Ok(!id.is_empty() && text.lines().any(|line| line.contains(id)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn only_a_process_of_the_container_is_killed() {
        let proc = tempfile::tempdir().unwrap();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let place = proc.path().join(child.id().to_string());
        std::fs::create_dir(&place).unwrap();
        std::fs::write(place.join("cgroup"), "0::/kubepods/pod1/crio-abc.scope\n").unwrap();
        assert!(!kill(proc.path(), "def", child.id()).unwrap());
        assert!(child.try_wait().unwrap().is_none());
        assert!(kill(proc.path(), "abc", child.id()).unwrap());
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        assert!(kill(proc.path(), "abc", child.id()).is_err(), "it is gone");
        assert!(kill(proc.path(), "abc", 0).is_err());
    }
}
