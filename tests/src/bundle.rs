//! OCI bundles: a root file system and a `config.json`, laid out as CRI-O does it, so that the hook learns a container's
//! name, labels, image and namespace from where it would in Kubernetes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::guest::{self, Guest};
use crate::{Failure, Result};

/// What the engine says a container is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// The container's name in its pod.
    pub name: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The image.
    pub image: String,
    /// The pod's labels.
    pub labels: BTreeMap<String, String>,
    /// Further annotations.
    pub annotations: BTreeMap<String, String>,
}

/// The capabilities that Docker gives, without CAP_SYS_CHROOT.
pub(crate) const PLAIN: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "KILL",
    "AUDIT_WRITE",
];

/// All capabilities up to CAP_CHECKPOINT_RESTORE, each at the place of its number.
pub(crate) const ALL: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A container to be.
#[derive(Debug, Clone)]
pub(crate) struct Bundle {
    /// The container's id.
    pub id: String,
    /// Its root file system.
    pub root: PathBuf,
    /// What it runs.
    pub arguments: Vec<String>,
    /// Its environment.
    pub environment: Vec<String>,
    /// Without `CAP_`.
    pub capabilities: Vec<&'static str>,
    /// It sees the host's processes.
    pub host_pid: bool,
    /// Bind mounts, outside to inside.
    pub binds: Vec<(PathBuf, String)>,
    /// Whether Portcullis' hooks are in its configuration.
    pub hooked: bool,
    /// Who it is.
    pub facts: Facts,
}

impl Bundle {
    /// A container with Docker's capabilities and nothing else.
    pub(crate) fn new(id: &str, root: &Path, arguments: &[&str]) -> Self {
        let mut capabilities = PLAIN.to_vec();
        capabilities.push("SYS_CHROOT");
        Self {
            id: id.to_owned(),
            root: root.to_owned(),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            environment: vec!["PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned()],
            capabilities,
            host_pid: false,
            binds: Vec::new(),
            hooked: true,
            facts: Facts { name: id.to_owned(), namespace: "default".to_owned(), ..Facts::default() },
        }
    }

    /// Writes the bundle, and tells its directory.
    pub(crate) fn write(&self, guest: &Guest) -> Result<PathBuf> {
        let containers = guest.work.join("overlay-containers");
        let directory = containers.join(&self.id).join("userdata");
        // CRI-O's sandbox, which has the pod's labels; its id is a hexadecimal number.
        let sandbox_id = self.sandbox();
        let sandbox = containers.join(&sandbox_id).join("userdata");
        guest::make_directory(&directory)?;
        guest::make_directory(&sandbox)?;
        let labels = Value::from(serde_json::Map::from_iter(
            self.facts.labels.iter().map(|(key, value)| (key.clone(), Value::from(value.clone()))),
        ));
        let pod = json!({ "annotations": { "io.kubernetes.cri-o.Labels": labels.to_string() } });
        write_json(&sandbox.join("config.json"), &pod)?;
        write_json(&directory.join("config.json"), &self.config(guest, &sandbox_id))?;
        Ok(directory)
    }

    fn sandbox(&self) -> String {
        self.id.bytes().map(|byte| format!("{byte:02x}")).collect()
    }

    fn config(&self, guest: &Guest, sandbox: &str) -> Value {
        let held = held();
        let capabilities: Vec<String> = ALL
            .iter()
            .enumerate()
            .filter(|(number, name)| held >> number & 1 == 1 && self.capabilities.contains(*name))
            .map(|(_, name)| format!("CAP_{name}"))
            .collect();
        let mut namespaces = vec![
            json!({"type": "mount"}),
            json!({"type": "ipc"}),
            json!({"type": "uts"}),
            json!({"type": "network"}),
            json!({"type": "cgroup"}),
        ];
        if !self.host_pid {
            namespaces.push(json!({"type": "pid"}));
        }
        let mut config = json!({
            "ociVersion": "1.0.2",
            "hostname": "portcullis-test",
            "root": { "path": self.root, "readonly": false },
            "process": {
                "terminal": false,
                "user": { "uid": 0, "gid": 0 },
                "args": self.arguments,
                "env": self.environment,
                "cwd": "/",
                "noNewPrivileges": false,
                "capabilities": {
                    "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
                },
            },
            "mounts": self.mounts(),
            "annotations": self.annotations(sandbox),
            "linux": {
                "cgroupsPath": format!("/portcullis-e2e/{}", self.id),
                "namespaces": namespaces,
                "resources": { "devices": [{ "allow": true, "access": "rwm" }] },
            },
        });
        if self.hooked && !guest.without {
            config["hooks"] = hooks(guest);
        }
        config
    }

    fn mounts(&self) -> Vec<Value> {
        let mut mounts = vec![
            json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
            json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] }),
            json!({ "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "mode=1777"] }),
            json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec"] }),
        ];
        for (outside, inside) in &self.binds {
            mounts.push(json!({ "destination": inside, "type": "bind", "source": outside, "options": ["bind", "rw"] }));
        }
        mounts
    }

    fn annotations(&self, sandbox: &str) -> BTreeMap<String, String> {
        let facts = &self.facts;
        let mut annotations = facts.annotations.clone();
        for (key, value) in [
            ("io.container.manager", "cri-o"),
            ("io.kubernetes.container.name", &facts.name),
            ("io.kubernetes.pod.namespace", &facts.namespace),
            ("io.kubernetes.pod.name", "portcullis-test"),
            ("io.kubernetes.cri-o.SandboxID", sandbox),
            ("io.kubernetes.cri-o.ImageName", if facts.image.is_empty() { "localhost/test:1" } else { &facts.image }),
        ] {
            annotations.insert(key.to_owned(), value.to_owned());
        }
        annotations
    }
}

/// The capabilities that there are to give: a runtime refuses to give others.
fn held() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(u64::MAX)
}

/// The hooks of a bundle, as an engine writes them into it.
fn hooks(guest: &Guest) -> Value {
    let hook = |stage: &str| {
        json!([{
            "path": guest.binaries.join("portcullis-hook"),
            "args": ["portcullis-hook", "--config", guest.config, "--deadline", "50", stage],
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
            "timeout": 60,
        }])
    };
    json!({ "createRuntime": hook("createRuntime"), "poststop": hook("poststop") })
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    let text = serde_json::to_vec_pretty(value).map_err(|error| Failure::io(path.display(), error.into()))?;
    guest::write(path, &text)
}
