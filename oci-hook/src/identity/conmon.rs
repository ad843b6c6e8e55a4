//! conmon, podman's and CRI-O's monitor: the process that runs the runtime that runs this hook. Its arguments tell the
//! container's name (`-n`) and, by the pid file (`-p RUNROOT/overlay-containers/ID/userdata/pidfile`), the run root.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::podman::Layout;
use portcullis_enforcer::place::Host;
use portcullis_enforcer::place::Process;

/// Generations to go up: hook, runtime, conmon; a wrapper or two may be between.
const MAX_GENERATIONS: usize = 6;

/// What conmon was told.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Conmon {
    /// `-n`.
    pub name: Option<String>,
    /// `-p`.
    pub pid_file: Option<PathBuf>,
}

impl Conmon {
    /// The run root, if the pid file is where podman puts it.
    pub fn run_root(&self, containers: &str, id: &str) -> Option<PathBuf> {
        let layout = Layout::of_bundle(self.pid_file.as_deref()?.parent()?, id)?;
        (layout.containers == containers).then_some(layout.root)
    }
}

/// Looks for the container's conmon among the hook's ancestors.
pub fn find(host: &Host, id: &str) -> Option<Conmon> {
    let (_, mut pid) = Process::own(host).ok()?.arguments().ok()?;
    for _ in 0..MAX_GENERATIONS {
        if pid <= 1 {
            return None;
        }
        let (arguments, parent) = Process::open(host, pid).ok()?.arguments().ok()?;
        if let Some(conmon) = parse(&arguments, id) {
            return Some(conmon);
        }
        pid = parent;
    }
    None
}

/// Reads `conmon --api-version 1 -c ID -u ID -r RUNTIME -b BUNDLE -p PIDFILE -n NAME …` (libpod/oci_conmon_common.go).
fn parse(arguments: &[Vec<u8>], id: &str) -> Option<Conmon> {
    let (program, arguments) = arguments.split_first()?;
    if Path::new(OsStr::from_bytes(program)).file_name() != Some(OsStr::new("conmon")) {
        return None;
    }
    let mut cid = None;
    let mut found = Conmon::default();
    let mut arguments = arguments.iter();
    while let Some(option) = arguments.next() {
        let slot: &[u8] = option;
        let value = match slot {
            b"--full-attach" | b"--syslog" | b"-s" | b"--systemd-cgroup" | b"-t" | b"--terminal" | b"-i" | b"--stdin" => continue,
            _ => arguments.next()?,
        };
        match slot {
            b"-c" | b"--cid" => cid = cid.or(Some(value)),
            b"-n" | b"--name" => found.name = found.name.or_else(|| String::from_utf8(value.clone()).ok()),
            b"-p" | b"--container-pidfile" => {
                found.pid_file = found.pid_file.or_else(|| Some(PathBuf::from(OsStr::from_bytes(value))));
            }
            _ => {}
        }
        if cid.is_some() && found.name.is_some() && found.pid_file.is_some() {
            break;
        }
    }
    (cid?.as_slice() == id.as_bytes()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Vec<Vec<u8>> {
        line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
    }

    #[test]
    fn the_arguments_of_podman_are_understood() {
        let line = "/usr/bin/conmon --api-version 1 -c c1 -u c1 -r /usr/bin/runc -b /g/overlay-containers/c1/userdata \
            -p /run/s/overlay-containers/c1/userdata/pidfile -n web --exit-dir /run/libpod/exits --full-attach -s -l k8s-file:/x \
            --exit-command-arg -n --exit-command-arg evil";
        let conmon = parse(&arguments(line), "c1").unwrap();
        assert_eq!(conmon.name.as_deref(), Some("web"));
        assert_eq!(conmon.run_root("overlay-containers", "c1").unwrap(), Path::new("/run/s"));
        assert_eq!(conmon.run_root("vfs-containers", "c1"), None);
        assert_eq!(parse(&arguments(line), "c2"), None);
        assert_eq!(parse(&arguments(&line.replace("/conmon", "/monitor")), "c1"), None);
        let late = "conmon -s --full-attach --exit-command-arg -n --exit-command-arg evil -c c1 -n web";
        assert_eq!(parse(&arguments(late), "c1").unwrap().name.as_deref(), Some("web"));
    }
}
