//! What events say of the node they are from.

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::system::uname;

/// Where the machine id may be, by machine-id(5) and by older dbus.
const MACHINE_ID_FILES: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];
/// Another one at each boot (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// An id has 32 or 36 characters.
const MAX_ID_BYTES: u64 = 128;
/// Where users have names, by passwd(5). Those of a directory service nobody here knows: to ask it may take seconds.
const PASSWD: &str = "/etc/passwd";
/// What is read of it: some 10,000 users.
const MAX_PASSWD_BYTES: u64 = 1 << 20;
/// How long that is believed.
const USERS_FOR: Duration = Duration::from_secs(60);

/// A node.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// The cluster it is in.
    pub cluster: String,
    /// Its name.
    pub name: String,
    /// Its machine id; its name where it has none.
    pub id: String,
    /// What tells its time since it was booted from all others: the first 32 bits of `/proc/sys/kernel/random/boot_id`.
    pub boot: u32,
    pub(crate) users: Arc<Users>,
}

/// The names of its users, as they were read the last time.
#[derive(Debug, Default)]
pub(crate) struct Users(Mutex<Option<(Instant, HashMap<u32, String>)>>);

impl Host {
    /// This one, in a cluster.
    #[must_use]
    pub fn this(cluster: &str) -> Host {
        let name = uname().nodename().to_string_lossy().into_owned();
        let id = MACHINE_ID_FILES.iter().find_map(|path| short_text(path)).unwrap_or_else(|| name.clone());
        let boot = short_text(BOOT_ID).and_then(|id| u32::from_str_radix(id.get(..8)?, 16).ok()).unwrap_or_default();
        Host { cluster: cluster.to_owned(), name, id, boot, users: Arc::default() }
    }

    /// The name of a user; empty where it has none.
    pub(crate) fn user(&self, uid: u32) -> String {
        let mut users = self.users.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = users.take().filter(|(read, _)| read.elapsed() < USERS_FOR);
        let (_, names) = users.insert(known.unwrap_or_else(|| (Instant::now(), named_users(PASSWD))));
        names.get(&uid).cloned().unwrap_or_default()
    }
}

/// A file that cannot be read names nobody.
fn named_users(path: &str) -> HashMap<u32, String> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_PASSWD_BYTES).read_to_end(&mut bytes));
    if let Err(error) = read {
        tracing::debug!("users have no names: {path}: {error}");
    }
    let mut names = HashMap::new();
    for line in String::from_utf8_lossy(&bytes).lines() {
        let mut fields = line.split(':');
        // The first of several is the name that the system gives.
        if let (Some(name), Some(uid)) = (fields.next(), fields.nth(1).and_then(|uid| uid.parse().ok())) {
            names.entry(uid).or_insert_with(|| name.to_owned());
        }
    }
    names
}

/// The text of a file, if there is one.
fn short_text(path: &str) -> Option<String> {
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(MAX_ID_BYTES).read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_the_first_of_their_names_and_odd_lines_name_nobody() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines = b"root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\n\n#\nbad\xff:x:7\nno:x\nnone:x:-1:\nweb:x:33:33";
        std::fs::write(file.path(), lines).unwrap();
        let names = named_users(file.path().to_str().unwrap());
        let expected = [(0, "root".to_owned()), (7, "bad\u{fffd}".to_owned()), (33, "web".to_owned())];
        assert_eq!(names, HashMap::from(expected));
        assert!(named_users("/nowhere/passwd").is_empty());
    }
}
