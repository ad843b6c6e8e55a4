//! Programs that were refused before the kernel could judge them, told to the agent.
//!
//! Where AppArmor enforces, the first program of a container and what a runtime executes in it are judged by us (`program.rs`), and the
//! kernel has no record of what was refused. So it is told as the kernel would tell it, as the text of an audit record, in a datagram
//! to a socket in the state directory, which root alone gets to. Nothing is kept for an agent that does not run.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::StateDir;
use crate::apparmor::ProfileName;

/// Longest text: a path of 4,096 bytes in hexadecimal digits, and the rest.
pub const MAX_REFUSAL_BYTES: usize = 10 << 10;
/// How long a full socket holds up who was refused anyway: the agent reads hundreds in that time.
const PATIENCE: Duration = Duration::from_millis(500);

/// A program that was refused.
#[derive(Debug)]
pub(crate) struct Refusal<'a> {
    /// The container's.
    pub(crate) profile: &'a ProfileName,
    /// What was to be executed.
    pub(crate) path: &'a str,
    /// Who was to execute it, in the host's numbers.
    pub(crate) pid: u32,
    /// As whom.
    pub(crate) uid: u32,
    /// Whose file it is.
    pub(crate) owner: Option<u32>,
}

/// The end at which they are read.
#[derive(Debug)]
pub struct Refusals(UnixDatagram);

impl Refusals {
    /// Begins to read, in the place of whoever did before.
    ///
    /// # Errors
    /// If there can be no socket in the state directory.
    pub fn open(state: &StateDir) -> io::Result<Refusals> {
        let path = state.refusals();
        if let Some(directory) = path.parent() {
            crate::files::make_dir(directory).map_err(io::Error::other)?;
        }
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = UnixDatagram::bind(&path)?;
        socket.set_nonblocking(true)?;
        Ok(Refusals(socket))
    }

    /// The text of the next record, if there is one.
    ///
    /// # Errors
    /// As of any socket.
    pub fn read(&self) -> io::Result<Option<Vec<u8>>> {
        let mut text = vec![0; MAX_REFUSAL_BYTES];
        match self.0.recv(&mut text) {
            Ok(length) => {
                text.truncate(length);
                Ok(Some(text))
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Refusals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Refusal<'_> {
    /// Tells whoever reads. That nobody does is no error.
    pub(crate) fn tell(&self, state: &StateDir) -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        match socket.send_to(self.text().as_bytes(), state.refusals()) {
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => Err(error),
            _ => Ok(()),
        }
    }

    /// As the kernel writes it (`audit_pre` in `security/apparmor/audit.c`); names are digits, as those with a quote in them are there.
    fn text(&self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let comm = std::fs::read_to_string(format!("/proc/{}/comm", self.pid)).unwrap_or_default();
        let digits = |text: &str| text.bytes().map(|byte| format!("{byte:02X}")).collect::<String>();
        format!(
            "audit({}.{:03}:0): apparmor=\"DENIED\" operation=\"exec\" profile=\"{}\" name={} pid={} comm={} requested_mask=\"x\" denied_mask=\"x\" fsuid={} ouid={}",
            now.as_secs(),
            now.subsec_millis(),
            self.profile,
            digits(self.path),
            self.pid,
            digits(comm.trim_end_matches('\n')),
            self.uid,
            self.owner.unwrap_or(u32::MAX),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal<'a>(profile: &'a ProfileName, path: &'a str) -> Refusal<'a> {
        Refusal { profile, path, pid: std::process::id(), uid: 7, owner: Some(0) }
    }

    #[test]
    fn what_is_told_is_read_once_and_by_the_last_reader() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::at(directory.path());
        let profile = ProfileName::of("c1");
        refusal(&profile, "/bin/nobody-reads").tell(&state).unwrap();
        let first = Refusals::open(&state).unwrap();
        let second = Refusals::open(&state).unwrap();
        refusal(&profile, "/bin/\"nc\"").tell(&state).unwrap();
        assert_eq!(first.read().unwrap(), None);
        let text = String::from_utf8(second.read().unwrap().unwrap()).unwrap();
        let name = format!("profile=\"{profile}\" name=2F62696E2F226E6322 pid={} comm=", std::process::id());
        assert!(text.starts_with("audit(") && text.contains(&name) && text.ends_with("fsuid=7 ouid=0"), "{text}");
        assert_eq!(second.read().unwrap(), None);
        drop(second);
        refusal(&profile, "/bin/gone").tell(&state).unwrap();
    }

    #[test]
    fn the_longest_path_fits() {
        let profile = ProfileName::of("c1");
        let path = "/".repeat(4096);
        assert!(refusal(&profile, &path).text().len() < MAX_REFUSAL_BYTES);
    }

    #[test]
    fn who_is_not_read_is_not_held_up_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::at(directory.path());
        let profile = ProfileName::of("c1");
        let _silent = Refusals::open(&state).unwrap();
        let full = (0..10_000).find_map(|_| refusal(&profile, "/bin/nc").tell(&state).err()).unwrap();
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
    }
}
