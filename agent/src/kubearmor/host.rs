//! What events say of the node they are from.

use std::io::Read;

use rustix::system::uname;

/// Where the machine id may be, by machine-id(5) and by older dbus.
const MACHINE_ID_FILES: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];
/// A machine id has 32 characters.
const MAX_MACHINE_ID_BYTES: u64 = 128;

/// A node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// The cluster it is in.
    pub cluster: String,
    /// Its name.
    pub name: String,
    /// Its machine id; its name where it has none.
    pub id: String,
}

impl Host {
    /// This one, in a cluster.
    #[must_use]
    pub fn this(cluster: &str) -> Host {
        let name = uname().nodename().to_string_lossy().into_owned();
        let id = MACHINE_ID_FILES.iter().find_map(|path| machine_id(path)).unwrap_or_else(|| name.clone());
        Host { cluster: cluster.to_owned(), name, id }
    }
}

fn machine_id(path: &str) -> Option<String> {
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(MAX_MACHINE_ID_BYTES).read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty())
}
