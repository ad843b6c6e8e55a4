//! A host made of plain files with one podman container on it, and an enforcer that writes down what it is asked.

use std::io::Cursor;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis_enforcer::Known;
use portcullis_enforcer::apparmor::ProfileName;
use portcullis_enforcer::place::Host;
use portcullis_enforcer::program::Program;
use portcullis_policy::Policy;

use crate::args::{FailPolicy, Options, Stage};
use crate::enforcement::{Carrying, Container, Enforcement, Failure};
use crate::run::{Finish, run};

pub(crate) const ID: &str = "6a63c4a301f4710a6e201838bf6e1bbd5f5260f0196fecc48a5b5494a1516b30";
pub(crate) const PID: u32 = 4242;
pub(crate) const HOOK_START: u64 = 900;

pub(crate) struct Machine {
    dir: tempfile::TempDir,
    pub(crate) host: Host,
    pub(crate) options: Options,
    pub(crate) enforcer: Arc<Recorder>,
}

impl Machine {
    pub(crate) fn new() -> Machine {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine {
            host: Host { proc: dir.path().join("proc"), uid: 0 },
            dir,
            options: Options {
                stage: Stage::CreateRuntime,
                config: None,
                deadline: Duration::from_secs(8),
                fail_policy: None,
                timings: false,
            },
            enforcer: Arc::new(Recorder::default()),
        };
        machine.write("proc/self/uid_map", "         0          0 4294967295\n");
        machine.write("proc/self/cgroup", "0::/system.slice/podman.service\n");
        machine.write("proc/self/cmdline", "portcullis-hook\0createRuntime\0");
        let device = std::fs::metadata(machine.dir.path()).unwrap().dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let mount = machine.path("cgroup").display().to_string();
        machine.write("proc/self/mountinfo", &format!("41 31 {major}:{minor} / {mount} rw - cgroup2 cgroup2 rw\n"));
        machine.process("self", "portcullis-hook", 77, HOOK_START, 1);
        machine.process("77", "runc", 78, 890, 1);
        machine.write("proc/77/cmdline", "/usr/bin/runc\0create\0");
        machine.process("78", "conmon", 1, 880, 1);
        machine.write("proc/78/cmdline", &format!("/usr/bin/conmon\0-c\0{ID}\0-n\0web\0"));
        machine.process(&PID.to_string(), "runc:[2:INIT]", 77, 895, 2);
        machine.write(&format!("proc/{PID}/cgroup"), &format!("0::/machine.slice/libpod-{ID}.scope/container\n"));
        machine.write(&format!("cgroup/machine.slice/libpod-{ID}.scope/container/cgroup.procs"), "");
        machine.write("newroot/merged/etc/passwd", "");
        symlink(machine.path("newroot"), machine.path(&format!("proc/{PID}/root"))).unwrap();
        machine.write(
            &format!("graph/overlay-containers/{ID}/userdata/config.json"),
            r#"{"root":{"path":"/merged"},"annotations":{"io.container.manager":"libpod"}}"#,
        );
        machine.write(
            "graph/overlay-containers/containers.json",
            &format!(r#"[{{"id":"{ID}","names":["web"],"metadata":"{{\"image-name\":\"localhost/test\"}}"}}]"#),
        );
        let database = rusqlite::Connection::open(machine.path("graph/db.sql")).unwrap();
        database.execute_batch("CREATE TABLE ContainerConfig(ID TEXT PRIMARY KEY, Name TEXT, PodID TEXT, JSON TEXT)").unwrap();
        let config = format!(r#"{{"id":"{ID}","name":"web","labels":{{"app":"web"}},"rootfsImageName":"localhost/test"}}"#);
        database.execute("INSERT INTO ContainerConfig VALUES (?1, 'web', NULL, ?2)", (ID, config)).unwrap();
        machine
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub(crate) fn process(&self, name: &str, command: &str, parent: u32, start: u64, mntns: u32) {
        let zeros = "0 ".repeat(17);
        self.write(&format!("proc/{name}/stat"), &format!("1 ({command}) S {parent} {zeros}{start} 0 0\n"));
        std::fs::create_dir_all(self.path(&format!("proc/{name}/ns"))).unwrap();
        let link = self.path(&format!("proc/{name}/ns/mnt"));
        drop(std::fs::remove_file(&link));
        symlink(format!("mnt:[{mntns}]"), link).unwrap();
    }

    pub(crate) fn config(&self, text: &str) {
        self.write(&format!("graph/overlay-containers/{ID}/userdata/config.json"), text);
    }

    pub(crate) fn state(&self) -> String {
        let bundle = self.path(&format!("graph/overlay-containers/{ID}/userdata"));
        format!(r#"{{"ociVersion":"1.0.2","id":"{ID}","status":"creating","pid":{PID},"bundle":"{}"}}"#, bundle.display())
    }

    /// Runs with the container's own state.
    pub(crate) fn start(&self) -> Finish {
        self.start_with(self.state())
    }

    pub(crate) fn start_with(&self, state: impl Into<Vec<u8>>) -> Finish {
        run(&self.host, &self.options, &self.enforcer, Cursor::new(state.into()))
    }

    /// Runs and expects a refusal; its reason, without what stands in front of every one.
    pub(crate) fn refusal(&self) -> String {
        let finish = self.start();
        assert_eq!(finish.code, 1, "{finish:?}");
        let [line] = finish.lines.as_slice() else {
            panic!("not one line: {finish:?}");
        };
        let reason =
            ["portcullis-hook: container 6a63c4a301f4 refused: ", "portcullis-hook: container 6a63c4a301f4 (web) refused: "]
                .iter()
                .find_map(|front| line.strip_prefix(front));
        reason.unwrap_or_else(|| panic!("{line}")).replace(&self.dir.path().display().to_string(), "")
    }
}

type Hook = Box<dyn Fn(&Container) -> Result<(), Failure> + Send + Sync>;

/// Writes down its calls, and does what a test gives it to do.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) policies: Option<Vec<Policy>>,
    pub(crate) announced: Option<Known>,
    pub(crate) remember_error: Option<&'static str>,
    pub(crate) policy_error: Option<&'static str>,
    pub(crate) problems: Vec<&'static str>,
    pub(crate) permit: bool,
    pub(crate) on_plan: Option<Hook>,
    pub(crate) on_arm: Option<Hook>,
    pub(crate) disarm_error: Option<&'static str>,
    pub(crate) by_kernel_programs: bool,
    pub(crate) confined: Option<(PathBuf, ProfileName)>,
    pub(crate) is_unconfined: bool,
    pub(crate) denied: Option<&'static str>,
    pub(crate) calls: Mutex<Vec<String>>,
}

impl Recorder {
    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    fn call(&self, text: String) {
        self.calls.lock().unwrap().push(text);
    }
}

impl Enforcement for Recorder {
    type Plan = ();

    fn fail_policy(&self) -> Result<FailPolicy, Failure> {
        Ok(if self.permit { FailPolicy::Permit } else { FailPolicy::Enforce })
    }

    fn policies(&self) -> Result<Option<&[Policy]>, Failure> {
        self.policy_error.map_or(Ok(self.policies.as_deref()), |error| Err(error.into()))
    }

    fn known(&self, _id: &str) -> Result<Option<Known>, Failure> {
        Ok(self.announced.clone())
    }

    fn remember(&self, container: &Container) -> Result<(), Failure> {
        self.call(format!("remember {}", container.known.facts.name));
        self.remember_error.map_or(Ok(()), |error| Err(error.into()))
    }

    fn problems(&self) -> Vec<String> {
        self.problems.iter().map(ToString::to_string).collect()
    }

    fn plan(&self, container: &Container) -> Result<Option<()>, Failure> {
        self.call(format!("plan {} {:?}", container.known.facts.name, container.known.facts.labels));
        self.on_plan.as_ref().map_or(Ok(()), |hook| hook(container))?;
        Ok(Some(()))
    }

    fn load(&self) -> Result<(), Failure> {
        self.call("load".to_owned());
        Ok(())
    }

    fn arm(&self, (): &(), container: &Container) -> Result<(), Failure> {
        self.call(format!("arm {} in {}", container.place.pid, container.place.runtime_mntns));
        self.on_arm.as_ref().map_or(Ok(()), |hook| hook(container))
    }

    fn disarm(&self, id: &str) -> Result<(), Failure> {
        self.call(format!("disarm {}", &id[..4]));
        self.disarm_error.map_or(Ok(()), |error| Err(error.into()))
    }

    fn let_start(&self, id: &str, label: Option<&str>) -> Result<(), Failure> {
        if label.is_none_or(|label| !label.is_empty()) {
            self.call(format!("let {} start", &id[..4]));
        }
        Ok(())
    }

    fn record_unprotected(&self, id: &str, name: &str, reason: &str) -> Result<(), Failure> {
        self.call(format!("record {} {name}: {reason}", id.get(..4).unwrap_or(id)));
        Ok(())
    }
}

impl Carrying for Recorder {
    fn carries(&self) -> Result<bool, Failure> {
        Ok(!self.by_kernel_programs)
    }

    fn gate(&self) -> Result<PathBuf, Failure> {
        Ok("/opt/portcullis-hook".into())
    }

    fn confined(&self, _id: &str) -> Result<Option<(PathBuf, ProfileName)>, Failure> {
        Ok(self.confined.clone())
    }

    fn check_confined(&self, id: &str) -> Result<(), Failure> {
        if self.is_unconfined { Err(format!("{} is not confined", &id[..4]).into()) } else { Ok(()) }
    }

    fn judge(&self, _id: &str, program: &Program) -> Result<(), Failure> {
        self.call(format!("judge {program:?}"));
        let path = String::from_utf8_lossy(&program.name).into_owned();
        match self.denied {
            Some(denied) if denied == path => {
                let (policy, place, untold) = ("p".to_owned(), "p.yaml:9".to_owned(), String::new());
                Err(portcullis_enforcer::Error::Denied { path, policy, place, owner: None, untold }.into())
            }
            _ => Ok(()),
        }
    }
}

/// A machine with one policy, selecting by `selector` (flow YAML of matchLabels).
pub(crate) fn machine(selector: &str) -> Machine {
    let mut machine = Machine::new();
    let text = format!(
        "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata:\n  name: p\nspec:\n  selector:\n    \
         matchLabels: {selector}\n  process:\n    matchPaths:\n    - path: /bin/sh\n  action: Block\n"
    );
    let parsed = portcullis_policy::parse(Path::new("p.yaml"), text.as_bytes(), portcullis_policy::Options::default());
    let policies = parsed.documents.into_iter().map(|document| document.unwrap()).collect();
    recorder(&mut machine).policies = Some(policies);
    machine
}

pub(crate) fn recorder(machine: &mut Machine) -> &mut Recorder {
    Arc::get_mut(&mut machine.enforcer).unwrap()
}
