//! What systemd is told (sd_notify(3)): ready, reloading, stopping, alive. Nothing when it did not ask.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tracing::warn;

/// The service manager's end.
#[derive(Debug)]
pub(crate) struct Notifier {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// What the environment asks for.
    pub(crate) fn from_environment() -> Notifier {
        let read = |name| std::env::var_os(name);
        Notifier::new(read("NOTIFY_SOCKET"), read("WATCHDOG_USEC"), read("WATCHDOG_PID"))
    }

    fn new(socket: Option<OsString>, watchdog_usec: Option<OsString>, watchdog_pid: Option<OsString>) -> Notifier {
        let to = socket.and_then(|name| {
            let opened = address(&name).and_then(|address| Ok((UnixDatagram::unbound()?, address)));
            opened.inspect_err(|error| warn!("the service manager's socket {} is unusable: {error}", name.display())).ok()
        });
        let number = |text: OsString| text.to_str().and_then(|text| text.parse::<u64>().ok());
        let ours = watchdog_pid.is_none_or(|pid| number(pid) == Some(u64::from(std::process::id())));
        let period = watchdog_usec.and_then(number).filter(|&usec| ours && usec > 0);
        Notifier { to, watchdog: period.map(Duration::from_micros) }
    }

    /// How often [`Notifier::alive`] has to be said: twice in the time that is allowed, as sd_watchdog_enabled(3) advises.
    pub(crate) fn watchdog_period(&self) -> Option<Duration> {
        self.watchdog.map(|period| period / 2)
    }

    pub(crate) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    pub(crate) fn reloading(&self) {
        // The time orders this message and the READY that ends it (sd_notify(3)).
        let now = clock_gettime(ClockId::Monotonic);
        let usec = now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={usec}"));
    }

    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    pub(crate) fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, message: &str) {
        if let Some((socket, address)) = &self.to
            && let Err(error) = socket.send_to_addr(message.as_bytes(), address)
        {
            warn!("the service manager cannot be told: {error}");
        }
    }
}

/// A path, or the name of an abstract socket after an `@`.
fn address(name: &OsString) -> std::io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => Err(std::io::Error::other("neither a path nor an abstract socket")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn both_kinds_of_sockets_are_told() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("portcullis-test-{}", std::process::id());
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, at) in [(by_path, path.into_os_string()), (by_name, OsString::from(format!("@{name}")))] {
            let notifier = Notifier::new(Some(at), None, None);
            notifier.ready("3 policies");
            assert_eq!(said(&socket), "READY=1\nSTATUS=3 policies");
            notifier.reloading();
            assert!(said(&socket).starts_with("RELOADING=1\nMONOTONIC_USEC="));
            notifier.alive();
            assert_eq!(said(&socket), "WATCHDOG=1");
            notifier.stopping();
            assert_eq!(said(&socket), "STOPPING=1");
        }
    }

    #[test]
    fn nobody_asked_and_nobody_listens_are_no_errors() {
        Notifier::new(None, None, None).ready("");
        Notifier::new(Some("relative".into()), None, None).ready("");
        Notifier::new(Some("/nowhere/at/all".into()), None, None).ready("");
    }

    #[test]
    fn the_watchdog_is_ours_alone() {
        let period =
            |usec: &str, pid: Option<String>| Notifier::new(None, Some(usec.into()), pid.map(OsString::from)).watchdog_period();
        assert_eq!(period("30000000", None), Some(Duration::from_secs(15)));
        assert_eq!(period("30000000", Some(std::process::id().to_string())), Some(Duration::from_secs(15)));
        assert_eq!(period("30000000", Some("1".to_owned())), None);
        assert_eq!(period("0", None), None);
        assert_eq!(period("soon", None), None);
    }
}
