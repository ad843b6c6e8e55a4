//! What has to hold before the agent may run: it is the only one, and it stands where the runtimes stand.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::FlockOperation;

use crate::Error;

/// The lock of the one agent, below the state directory.
const LOCK_FILE: &str = "agent.lock";
/// A pid in digits, with room to spare.
const MAX_PID_BYTES: u64 = 32;

/// The right to be this host's agent; given back when dropped, and by the kernel when the process dies in any way.
#[derive(Debug)]
pub(crate) struct Instance {
    _lock: File,
}

impl Instance {
    /// Claims it.
    pub(crate) fn claim(state_dir: &Path) -> Result<Instance, Error> {
        let path = state_dir.join(LOCK_FILE);
        let failed = |source: std::io::Error| Error::File { what: "lock", path: path.clone(), source };
        let mut options = File::options();
        let mut file = options.create(true).truncate(false).read(true).write(true).mode(0o600).open(&path).map_err(failed)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                // Who it is only helps; that there is one is certain.
                drop((&file).take(MAX_PID_BYTES).read_to_string(&mut pid));
                let pid = pid.trim();
                let who = if pid.is_empty() { "another process".to_owned() } else { format!("process {pid}") };
                return Err(Error::AlreadyRunning { who, lock: path });
            }
            Err(errno) => return Err(failed(errno.into())),
        }
        let pid = format!("{}\n", std::process::id());
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(pid.as_bytes())).map_err(failed)?;
        Ok(Instance { _lock: file })
    }
}

/// Whether this process sees the file systems as the runtimes do. The kernel programs take executions in the arming process's
/// mount namespace for the runtime's own (`pc_stamp`): armed from another one, `exec` into a container would be policed
/// while it is still the runtime.
pub(crate) fn check_mount_namespace(proc: &Path) -> Result<(), Error> {
    let identity = |process: &str| {
        let path = proc.join(process).join("ns/mnt");
        let data = std::fs::metadata(&path).map_err(|source| Error::File { what: "look at", path, source })?;
        Ok::<_, Error>((data.dev(), data.ino()))
    };
    if identity("self")? == identity("1")? { Ok(()) } else { Err(Error::MountNamespace) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_the_first_is() {
        let temporary = tempfile::tempdir().unwrap();
        let first = Instance::claim(temporary.path()).unwrap();
        let error = Instance::claim(temporary.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        Instance::claim(temporary.path()).unwrap();
    }

    #[test]
    fn the_mount_namespace_is_compared_by_identity() {
        let temporary = tempfile::tempdir().unwrap();
        for process in ["self", "1"] {
            std::fs::create_dir_all(temporary.path().join(process).join("ns")).unwrap();
        }
        std::fs::write(temporary.path().join("1/ns/mnt"), "").unwrap();
        std::fs::hard_link(temporary.path().join("1/ns/mnt"), temporary.path().join("self/ns/mnt")).unwrap();
        check_mount_namespace(temporary.path()).unwrap();
        std::fs::remove_file(temporary.path().join("self/ns/mnt")).unwrap();
        std::fs::write(temporary.path().join("self/ns/mnt"), "").unwrap();
        assert!(matches!(check_mount_namespace(temporary.path()), Err(Error::MountNamespace)));
    }
}
