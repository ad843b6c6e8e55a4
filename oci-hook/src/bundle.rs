//! The container's bundle: `config.json`, as far as the hook needs it.
//!
//! A bundle is reached through symbolic links where the engine's storage is (`/var/run`, a moved `/var/lib/containers`); the
//! file itself must be one. `linux.cgroupsPath` and `linux.namespaces` are deliberately not read: they say what was asked
//! for, and the kernel says what is.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::state::{object, strings};
use portcullis_enforcer::Carrier;
use portcullis_enforcer::place::{Host, ReadError, host};
use portcullis_enforcer::program::Program;

/// `config.json`. Real ones have 10 to 100 KiB, seccomp profiles most of it.
pub const MAX_CONFIG_BYTES: u64 = 8 << 20;
/// The configuration in a bundle.
pub(crate) const CONFIG: &str = "config.json";
/// The annotation by which a carrier says that it is another than `portcullis-runtime`.
pub(crate) const CARRIER_ANNOTATION: &str = "portcullis.io/carrier";
/// Its value of the hook of `precreate`.
pub(crate) const BY_PRECREATE: &str = "precreate";

/// What a bundle says about its container.
#[derive(Debug)]
pub struct Bundle {
    /// The directory, without symbolic links on the way.
    pub path: PathBuf,
    /// `root.path`, made absolute with the bundle's directory.
    pub root: PathBuf,
    /// `hostname`.
    pub hostname: Option<String>,
    /// Who has given it its label, if it has one of ours.
    pub carrier: Carrier,
    /// All annotations of the container.
    pub annotations: BTreeMap<String, String>,
    /// What is executed in it first.
    pub process: Process,
    /// `mounts`: what is mounted where, and from where.
    pub mounts: Vec<(PathBuf, PathBuf)>,
}

/// `process` of a configuration, or of an execution in a container that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its program.
    pub program: Program,
    /// `apparmorProfile`; empty where there is none.
    pub label: String,
    /// `noNewPrivileges`.
    pub no_new_privileges: bool,
}

/// Why a bundle is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// `config.json` could not be read.
    #[error("the container's configuration is unusable: {0}; the runtime has to leave config.json in its bundle while hooks run")]
    Read(#[from] ReadError),
    /// `config.json` is not one.
    #[error("{path} is not an OCI configuration: {source}; have the engine write it again")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where it goes wrong.
        source: serde_json::Error,
    },
    /// No root file system.
    #[error("{path} names no root file system (root.path); Portcullis protects containers that have one")]
    NoRoot {
        /// The file.
        path: PathBuf,
    },
}

#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    root: Option<Root>,
    #[serde(default)]
    hostname: Option<String>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    process: Option<WrittenProcess>,
    #[serde(default)]
    mounts: Option<Vec<Mount>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Mount {
    destination: PathBuf,
    source: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Root {
    path: String,
}

/// `process`, as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct WrittenProcess {
    pub(crate) args: Option<Vec<String>>,
    pub(crate) env: Option<Vec<String>>,
    pub(crate) cwd: String,
    user: Option<User>,
    apparmor_profile: Option<String>,
    no_new_privileges: bool,
}

#[derive(Debug, Deserialize)]
struct User {
    #[serde(default)]
    uid: u32,
}

impl WrittenProcess {
    pub(crate) fn meant(self) -> Process {
        let name = self.args.unwrap_or_default().into_iter().next().unwrap_or_default();
        // Of a variable that is there twice the last counts (`prepareEnv` in runc, `putenv` in crun).
        let path = self.env.unwrap_or_default().into_iter().rev().find_map(|text| Some(text.strip_prefix("PATH=")?.to_owned()));
        let directory = if self.cwd.is_empty() { "/".to_owned() } else { self.cwd };
        Process {
            program: Program {
                name: name.into_bytes(),
                path: path.map(String::into_bytes),
                directory: directory.into_bytes(),
                uid: self.user.map_or(0, |user| user.uid),
            },
            label: self.apparmor_profile.unwrap_or_default(),
            no_new_privileges: self.no_new_privileges,
        }
    }
}

impl Bundle {
    /// Reads a bundle's `config.json`.
    pub fn read(host: &Host, dir: &Path) -> Result<Bundle, BundleError> {
        let fd = host::open_dir(dir)?;
        let path = real_path(host, &fd).unwrap_or_else(|| dir.to_owned());
        let file = path.join(CONFIG);
        let bytes = host::read_at(&fd, Path::new(CONFIG), &file, MAX_CONFIG_BYTES)?;
        Bundle::parse(path, &bytes)
    }

    /// A bundle with this configuration.
    pub(crate) fn parse(path: PathBuf, config: &[u8]) -> Result<Bundle, BundleError> {
        let file = path.join(CONFIG);
        let written: Written = object(config).map_err(|source| BundleError::Json { path: file.clone(), source })?;
        let root = match written.root {
            Some(root) if !root.path.is_empty() && !root.path.contains('\0') => path.join(root.path),
            _ => return Err(BundleError::NoRoot { path: file }),
        };
        let annotations = strings(written.annotations.unwrap_or_default());
        let by_hook = annotations.get(CARRIER_ANNOTATION).is_some_and(|carrier| carrier == BY_PRECREATE);
        Ok(Bundle {
            path,
            root,
            hostname: written.hostname.filter(|name| !name.is_empty()),
            carrier: if by_hook { Carrier::Precreate } else { Carrier::Runtime },
            annotations,
            process: written.process.unwrap_or_default().meant(),
            mounts: written
                .mounts
                .unwrap_or_default()
                .into_iter()
                .filter_map(|Mount { destination, source }| Some((destination, source?)))
                .collect(),
        })
    }
}

/// Where a directory is, symbolic links resolved: engines are told apart by the shape of this path.
fn real_path(host: &Host, dir: &OwnedFd) -> Option<PathBuf> {
    let link = host.proc.join("self/fd").join(dir.as_raw_fd().to_string());
    let target = rustix::fs::readlink(&link, Vec::new()).ok()?;
    let target = PathBuf::from(OsString::from(target.into_string().ok()?));
    target.is_absolute().then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(text: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), text).unwrap();
        dir
    }

    #[test]
    fn a_relative_root_is_the_bundles() {
        let dir = write(r#"{"root":{"path":"rootfs"},"hostname":"h","annotations":{"a":"b"},"linux":{"x":[1]}}"#);
        let bundle = Bundle::read(&Host::default(), dir.path()).unwrap();
        assert_eq!(bundle.root, bundle.path.join("rootfs"));
        assert_eq!(bundle.hostname.as_deref(), Some("h"));
        assert_eq!(bundle.annotations["a"], "b");
    }

    #[test]
    fn a_bundle_behind_a_symlink_is_told_by_its_real_path() {
        let dir = write(r#"{"root":{"path":"/m"}}"#);
        let links = tempfile::tempdir().unwrap();
        let link = links.path().join("bundle");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        let bundle = Bundle::read(&Host::default(), &link).unwrap();
        assert_eq!(bundle.path, dir.path().canonicalize().unwrap());
        assert_eq!(bundle.root, Path::new("/m"));
    }

    #[test]
    fn config_json_is_a_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.json");
        let refused = |dir: &Path| Bundle::read(&Host::default(), dir).unwrap_err().to_string();
        assert!(refused(dir.path()).contains("no such file"));
        std::os::unix::fs::symlink("/etc/passwd", &config).unwrap();
        assert!(refused(dir.path()).contains("is not a regular file"));
        std::fs::remove_file(&config).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &config, rustix::fs::Mode::RUSR).unwrap();
        assert!(refused(dir.path()).contains("is not a regular file"));
        std::fs::remove_file(&config).unwrap();
        let file = std::fs::File::create(&config).unwrap();
        file.set_len(MAX_CONFIG_BYTES + 1).unwrap();
        assert!(refused(dir.path()).contains("larger than 8388608 bytes"));
        for text in ["", "[]", "{", "{\"root\":7}", "{\"root\":{\"path\":7}}"] {
            std::fs::write(&config, text).unwrap();
            assert!(refused(dir.path()).contains("is not an OCI configuration"), "{text}");
        }
        for text in ["{}", "{\"root\":null}", "{\"root\":{\"path\":\"\"}}"] {
            std::fs::write(&config, text).unwrap();
            assert!(refused(dir.path()).contains("names no root file system"), "{text}");
        }
    }
}
