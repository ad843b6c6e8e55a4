//! containers/storage's list of containers: JSON files beside the containers' directories.
//!
//! `containers.json` under the graph root, `volatile-containers.json` under the run root for containers that do not outlive a
//! boot (`podman run --rm`), or both under the run root with a transient store (containers/storage, containers.go). They are
//! written to a temporary file and renamed, so a reader without the lock sees a whole file.

use std::path::PathBuf;

use serde::Deserialize;

use portcullis_enforcer::place::{ReadError, host};

/// A container takes about 600 bytes: room for 50,000.
const MAX_STORAGE_BYTES: u64 = 32 << 20;

/// A container's entry.
#[derive(Debug, PartialEq, Eq)]
pub struct Stored {
    /// Names it was given; podman gives one.
    pub names: Vec<String>,
    /// The image's name.
    pub image: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    /// JSON in a string.
    #[serde(default)]
    metadata: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default, rename = "image-name")]
    image: Option<String>,
}

/// Looks for a container below several roots. `None` when no list has it; an error when a list can't be read and no other
/// has it.
pub fn find(roots: &[PathBuf], containers: &str, id: &str) -> Result<Option<Stored>, String> {
    let mut error = None;
    for root in roots {
        for name in ["containers.json", "volatile-containers.json"] {
            let path = root.join(containers).join(name);
            match host::read(&path, MAX_STORAGE_BYTES) {
                Ok(bytes) => match search(&bytes, id) {
                    Ok(Some(stored)) => return Ok(Some(stored)),
                    Ok(None) => {}
                    Err(reason) => error = Some(format!("{}: {reason}", path.display())),
                },
                Err(absent) if absent.is_absent() => {}
                Err(reason @ ReadError::System { .. } | reason) => error = Some(reason.to_string()),
            }
        }
    }
    error.map_or(Ok(None), Err)
}

fn search(bytes: &[u8], id: &str) -> Result<Option<Stored>, serde_json::Error> {
    let entries: Vec<Entry> = serde_json::from_slice(bytes)?;
    let Some(entry) = entries.into_iter().find(|entry| entry.id == id) else {
        return Ok(None);
    };
    let metadata: Option<Metadata> = entry.metadata.as_deref().and_then(|text| serde_json::from_str(text).ok());
    Ok(Some(Stored {
        names: entry.names.unwrap_or_default(),
        image: metadata.and_then(|metadata| metadata.image).filter(|image| !image.is_empty()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"[{"id":"c0"},{"id":"c1","names":["web1"],"image":"a1","metadata":"{\"image-name\":\"localhost/test:latest\",\"name\":\"web1\"}","flags":{}}]"#;

    #[test]
    fn both_lists_below_both_roots_are_searched() {
        for (root, name) in [("graph", "containers.json"), ("run", "volatile-containers.json"), ("run", "containers.json")] {
            let dir = tempfile::tempdir().unwrap();
            let roots = [dir.path().join("graph"), dir.path().join("run")];
            let list = dir.path().join(root).join("overlay-containers");
            std::fs::create_dir_all(&list).unwrap();
            std::fs::write(list.join(name), LIST).unwrap();
            let stored = find(&roots, "overlay-containers", "c1").unwrap().unwrap();
            assert_eq!(stored.names, ["web1"]);
            assert_eq!(stored.image.as_deref(), Some("localhost/test:latest"));
            assert_eq!(find(&roots, "overlay-containers", "c2"), Ok(None));
            assert_eq!(find(&roots, "overlay-containers", "c0").unwrap().unwrap().names, [""; 0]);
        }
    }

    #[test]
    fn a_damaged_list_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let roots = [dir.path().to_owned()];
        std::fs::create_dir(dir.path().join("x-containers")).unwrap();
        std::fs::write(dir.path().join("x-containers/containers.json"), "[{").unwrap();
        assert!(find(&roots, "x-containers", "c1").unwrap_err().contains("x-containers/containers.json: EOF"));
    }
}
