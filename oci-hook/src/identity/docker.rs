//! Who a container of Docker is, by the record that its daemon keeps: `containers/ID/config.v2.json` in the daemon's data directory,
//! which is written before the runtime is called (`containerCreate` in moby's `daemon/create.go`).
//!
//! Docker tells a runtime neither names nor labels. Its bundles are in a directory `moby` (the daemon's namespace in containerd), and
//! the data directory, which may be anywhere, is where it mounts the container's `/etc/hostname`, `/etc/hosts` or
//! `/etc/resolv.conf` from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use portcullis_enforcer::place::host;
use serde::Deserialize;

use super::{Engine, Fact, Identity};
use crate::bundle::{Bundle, MAX_CONFIG_BYTES};

/// The daemon's namespace in containerd (`containerd-namespace` of dockerd).
const NAMESPACE: &str = "moby";
/// What the daemon makes for a container, and mounts where the user mounts nothing else.
const FILES: [(&str, &str); 3] = [("/etc/hostname", "hostname"), ("/etc/hosts", "hosts"), ("/etc/resolv.conf", "resolv.conf")];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Record {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    config: Config,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Config {
    image: String,
    labels: Option<BTreeMap<String, String>>,
}

/// Whether a bundle is where Docker has its bundles made.
pub fn is_docker(id: &str, bundle: &Path) -> bool {
    bundle.file_name().is_some_and(|name| name == id)
        && bundle.parent().and_then(Path::file_name).is_some_and(|namespace| namespace == NAMESPACE)
}

/// A container of Docker.
pub fn identify(id: &str, bundle: &Bundle) -> Identity {
    let (name, image, labels) = match record(id, bundle) {
        // Docker's own names begin with a slash, those of links to others have two.
        Ok(Record { name, config, .. }) => (
            Fact::Known(name.strip_prefix('/').unwrap_or(&name).to_owned()),
            Fact::Known(config.image),
            Fact::Known(config.labels.unwrap_or_default()),
        ),
        Err(reason) => (Fact::Unknown(reason.clone()), Fact::Unknown(reason.clone()), Fact::Unknown(reason)),
    };
    Identity { engine: Engine::Docker, name, image, labels, namespace: None, pod: None, sandbox: false }
}

fn record(id: &str, bundle: &Bundle) -> Result<Record, String> {
    let directory = directory(id, bundle)
        .ok_or_else(|| format!("nothing in {} is mounted from Docker's directory of the container", bundle.path.display()))?;
    let path = directory.join("config.v2.json");
    let bytes = host::read(&path, MAX_CONFIG_BYTES).map_err(|error| error.to_string())?;
    let record: Record = serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
    if record.id == id { Ok(record) } else { Err(format!("{} is another container's", path.display())) }
}

/// `DATA/containers/ID`.
fn directory(id: &str, bundle: &Bundle) -> Option<PathBuf> {
    bundle.mounts.iter().find_map(|(destination, source)| {
        let (_, name) = FILES.iter().find(|(known, _)| Path::new(known) == destination)?;
        let directory = source.parent()?;
        let is_ours = source.file_name()? == *name
            && directory.file_name()? == id
            && directory.parent()?.file_name()? == "containers"
            && directory.is_absolute();
        is_ours.then(|| directory.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bundle as dockerd 26.1 has it made, and its record in `data`.
    fn bundle(data: &Path, id: &str, record: &str, destination: &str) -> Bundle {
        let directory = data.join("containers").join(id);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("config.v2.json"), record).unwrap();
        let config = serde_json::json!({
            "root": { "path": "/m" },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": destination, "type": "bind", "source": directory.join("hosts") },
            ],
        });
        Bundle::parse(
            format!("/run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby/{id}").into(),
            config.to_string().as_bytes(),
        )
        .unwrap()
    }

    #[test]
    fn the_daemon_s_record_says_who_it_is() {
        let data = tempfile::tempdir().unwrap();
        let record = r#"{"ID":"c1","Name":"/web","Config":{"Image":"nginx:1","Labels":{"app":"web"},"Cmd":null},"State":{}}"#;
        let found = bundle(data.path(), "c1", record, "/etc/hosts");
        assert!(is_docker("c1", &found.path) && !is_docker("c2", &found.path));
        let who = identify("c1", &found);
        assert_eq!((who.name, who.image), (Fact::Known("web".to_owned()), Fact::Known("nginx:1".to_owned())));
        assert!(matches!(&who.labels, Fact::Known(labels) if labels["app"] == "web"));
        let bare =
            identify("c2", &bundle(data.path(), "c2", r#"{"ID":"c2","Name":"/x","Config":{"Labels":null}}"#, "/etc/hosts"));
        assert_eq!(bare.labels, Fact::Known(BTreeMap::new()));
    }

    #[test]
    fn what_is_not_certain_is_unknown() {
        let data = tempfile::tempdir().unwrap();
        let good = r#"{"ID":"c1","Name":"/web","Config":{}}"#;
        for (id, record, destination) in [
            ("c1", good, "/data/hosts"),
            ("c2", good, "/etc/hosts"),
            ("c1", "{", "/etc/hosts"),
            ("c1", r#"{"ID":"c1","Name":"/web"}"#, "/etc/hosts"),
        ] {
            let who = identify(id, &bundle(data.path(), id, record, destination));
            assert!(matches!((who.name, who.labels), (Fact::Unknown(_), Fact::Unknown(_))), "{record} at {destination}");
        }
    }
}
