//! Each way in which a start can go wrong, with the exact words.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use portcullis_enforcer::{Door, Known, Missing};
use portcullis_policy::ContainerFacts;

use super::fixture::{HOOK_START, ID, Machine, PID, machine, recorder};
use super::*;

const BY_LABEL: &str = "{app: web}";
const STARTS: Finish = Finish { code: 0, lines: Vec::new() };

#[test]
fn a_selected_container_is_armed() {
    let machine = machine(BY_LABEL);
    assert_eq!(machine.start(), STARTS);
    assert_eq!(machine.enforcer.calls(), ["plan web {\"app\": \"web\"}", "load", "arm 4242 in 1", "remember web"]);
}

#[test]
fn the_cgroup_is_the_scope_and_the_root_is_the_containers() {
    let mut machine = machine(BY_LABEL);
    let scope = std::fs::metadata(machine.path(&format!("cgroup/machine.slice/libpod-{ID}.scope"))).unwrap().ino();
    recorder(&mut machine).on_arm = Some(Box::new(move |container| {
        assert_eq!(container.place.cgroup_id, scope);
        rustix::fs::statat(&container.root, "etc/passwd", rustix::fs::AtFlags::empty())?;
        Ok(())
    }));
    assert_eq!(machine.start(), STARTS);
}

#[test]
fn a_container_on_the_runtimes_own_root_is_refused() {
    let machine = machine(BY_LABEL);
    machine.config(r#"{"root":{"path":"/"},"annotations":{"io.container.manager":"libpod"}}"#);
    let Finish { code, lines } = machine.start();
    assert_eq!(code, 1);
    assert!(lines[0].contains("is to run on the runtime's own root directory"), "{}", lines[0]);
    assert!(machine.enforcer.calls().is_empty());
}

#[test]
fn without_policies_nothing_is_looked_at() {
    let machine = Machine::new();
    std::fs::remove_dir_all(machine.path("graph")).unwrap();
    assert_eq!(machine.start(), STARTS);
    assert_eq!(machine.start_with("not a state"), STARTS);
    assert!(machine.enforcer.calls().is_empty());
}

#[test]
fn with_an_empty_policy_directory_containers_are_only_remembered() {
    let mut empty = Machine::new();
    recorder(&mut empty).policies = Some(Vec::new());
    assert_eq!(empty.start(), STARTS);
    assert_eq!(empty.enforcer.calls(), ["remember web"]);
    std::fs::remove_dir_all(empty.path("graph")).unwrap();
    assert_eq!(empty.start(), STARTS, "who it is matters to nobody");
    assert_eq!(empty.start_with("not a state"), STARTS);
    assert_eq!(empty.enforcer.calls().len(), 1);
}

/// containerd tells a hook no labels. What the plugin has recorded of the container counts, and no annotation.
#[test]
fn an_announced_container_is_who_the_plugin_says() {
    let config = r#"{"root":{"path":"/merged"},"annotations":{"io.kubernetes.cri.sandbox-id":"5a","io.kubernetes.cri.sandbox-namespace":"default","kubearmor-policy":"disabled"}}"#;
    let announced = |namespace: &str, door| {
        let mut machine = machine(BY_LABEL);
        machine.config(config);
        let labels = [("app".to_owned(), "web".to_owned())].into();
        let (name, namespace) = ("nginx".into(), namespace.into());
        let facts = ContainerFacts { id: ID.into(), name, namespace, labels, orchestrated: true, ..Default::default() };
        recorder(&mut machine).announced = Some(Known { facts, missing: Missing::default(), door, place: None });
        machine
    };
    // The policy is one of Kubernetes' default namespace.
    let elsewhere = announced("shop", Door::Nri);
    assert_eq!(elsewhere.start(), STARTS);
    assert_eq!(elsewhere.enforcer.calls(), ["remember nginx"]);
    let selected = announced("default", Door::Nri);
    assert_eq!(selected.start(), STARTS);
    assert_eq!(selected.enforcer.calls(), ["plan nginx {\"app\": \"web\"}", "load", "arm 4242 in 1", "remember nginx"]);
    // What the hook itself recorded of an earlier run is no announcement: the labels are unknown, and the policy may select it.
    let by_itself = announced("default", Door::Hook);
    by_itself.config(&config.replace("disabled", "enabled"));
    assert!(by_itself.refusal().contains("containerd does not tell a pod's labels to hooks"));
}

#[test]
fn a_container_that_cannot_be_remembered_starts_with_a_warning() {
    let mut machine = machine(BY_LABEL);
    recorder(&mut machine).remember_error = Some("the disk is full");
    let finish = machine.start();
    let line =
        "portcullis-hook: WARNING: container 6a63c4a301f4 (web): policies that come later will not reach it: the disk is full";
    assert_eq!((finish.code, finish.lines), (0, vec![line.to_owned()]));
}

#[test]
fn what_no_policy_is_about_is_left_alone() {
    let other = machine("{app: db}");
    assert_eq!(other.start(), STARTS);
    assert_eq!(other.enforcer.calls(), ["remember web"], "a policy that comes later may be about it");

    let disabled = machine(BY_LABEL);
    disabled
        .config(r#"{"root":{"path":"/merged"},"annotations":{"io.container.manager":"libpod","kubearmor-policy":"disabled"}}"#);
    assert_eq!(disabled.start(), STARTS);
    assert!(disabled.enforcer.calls().is_empty());

    let sandbox = machine(BY_LABEL);
    sandbox.config(&format!(r#"{{"root":{{"path":"/merged"}},"annotations":{{"io.kubernetes.cri.sandbox-id":"{ID}"}}}}"#));
    assert_eq!(sandbox.start(), STARTS);
    assert!(sandbox.enforcer.calls().is_empty());
}

#[test]
fn a_state_that_is_none_is_refused() {
    let machine = machine(BY_LABEL);
    let front = "portcullis-hook: container of unknown id refused: ";
    let write = "the runtime has to write one JSON object to the hook's standard input";
    for (state, reason) in [
        ("", "no container state on the standard input; the hook is run by an OCI runtime, see oci-hooks(5)".to_owned()),
        ("[]", format!("the container state is not an OCI state: it is not a JSON object; {write}")),
        ("{\"id\":\"c1\"", format!("the container state is not an OCI state: EOF while parsing an object at line 1 column 10; {write}")),
        ("{\"id\":7}", format!("the container state is not an OCI state: invalid type: integer `7`, expected a string at line 1 column 7; {write}")),
        (
            "{\"id\":\"../../etc\"}",
            "the container id \"../../etc\" is unusable: it must be 1 to 200 letters, digits and _.+:- and begin with a letter or digit".to_owned(),
        ),
    ] {
        let finish = machine.start_with(state);
        assert_eq!((finish.code, finish.lines), (1, vec![format!("{front}{reason}")]));
    }
    let finish = machine.start_with(vec![b' '; (1 << 20) + 1]);
    let reason = "the container state is unusable: the container state is larger than 1048576 bytes; \
        the runtime has to write one OCI state to the hook's standard input";
    assert_eq!(finish.lines, [format!("{front}{reason}")]);
    let finish = machine.start_with(r#"{"id":"c1","pid":0,"bundle":"/x"}"#);
    let reason =
        "the container state has no usable pid (none); createRuntime hooks run after the runtime has made the container's init";
    assert_eq!(finish.lines, [format!("portcullis-hook: container c1 refused: {reason}")]);
    assert!(machine.enforcer.calls().is_empty());
}

#[test]
fn a_process_that_is_not_the_containers_is_refused() {
    let again = "start the container again";
    let vanished = machine(BY_LABEL);
    std::fs::remove_dir_all(vanished.path(&format!("proc/{PID}"))).unwrap();
    assert_eq!(vanished.refusal(), format!("process 4242 of the container is gone; {again}"));

    let zombie = machine(BY_LABEL);
    zombie.write(&format!("proc/{PID}/stat"), &format!("1 (x) Z 77 {}895 0\n", "0 ".repeat(17)));
    assert_eq!(zombie.refusal(), format!("process 4242 of the container is gone; {again}"));

    let younger = machine(BY_LABEL);
    younger.process(&PID.to_string(), "cat", 1, HOOK_START + 1, 2);
    assert_eq!(younger.refusal(), format!("process 4242 is not the container's any more, its pid was reused; {again}"));

    let host = machine(BY_LABEL);
    host.process(&PID.to_string(), "cat", 1, 895, 1);
    assert_eq!(
        host.refusal(),
        "process 4242 is in the runtime's own mount namespace; Portcullis protects containers that have a mount namespace of their own"
    );
    for machine in [vanished, zombie, younger, host] {
        assert!(machine.enforcer.calls().is_empty());
    }
}

#[test]
fn what_changes_while_arming_is_disarmed() {
    for (start, reason) in [
        (Some(899), "process 4242 is not the container's any more, its pid was reused; start the container again"),
        (None, "process 4242 of the container is gone; start the container again"),
    ] {
        let mut machine = machine(BY_LABEL);
        let dir = machine.path(&format!("proc/{PID}"));
        recorder(&mut machine).on_arm = Some(Box::new(move |_| {
            match start {
                Some(start) => std::fs::write(dir.join("stat"), format!("1 (x) S 1 {}{start} 0\n", "0 ".repeat(17)))?,
                None => std::fs::remove_dir_all(&dir)?,
            }
            Ok(())
        }));
        assert_eq!(machine.refusal(), reason);
        assert_eq!(machine.enforcer.calls()[2..], ["arm 4242 in 1", "disarm 6a63"]);
    }
}

#[test]
fn a_failure_to_arm_is_told_and_undone() {
    let mut machine = machine(BY_LABEL);
    recorder(&mut machine).on_arm = Some(Box::new(|_| Err("all slots are in use".into())));
    recorder(&mut machine).disarm_error = Some("and this too");
    assert_eq!(machine.refusal(), "all slots are in use");
    assert_eq!(machine.enforcer.calls().last().unwrap(), "disarm 6a63");
}

#[test]
fn a_cgroup_that_is_not_the_containers_own_is_refused() {
    let shared = machine(BY_LABEL);
    shared.write(&format!("proc/{PID}/cgroup"), "0::/system.slice/podman.service\n");
    assert_eq!(
        shared.refusal(),
        "the container has no cgroup of its own (it is in \"/system.slice/podman.service\" with its runtime); \
         don't start it with --cgroups=disabled, nor by a runtime without cgroup2 support"
    );
    for path in ["/", "/system.slice"] {
        shared.write(&format!("proc/{PID}/cgroup"), &format!("0::{path}\n"));
        assert!(shared.refusal().starts_with(&format!("the container has no cgroup of its own (it is in \"{path}\" ")));
    }
    for path in ["", "/../x", "/a (deleted)"] {
        shared.write(&format!("proc/{PID}/cgroup"), &format!("5:pids:/x\n0::{path}\n"));
        assert!(shared.refusal().starts_with("process 4242 has no cgroup in the cgroup2 hierarchy that the hook sees"), "{path}");
    }

    let v1 = machine(BY_LABEL);
    v1.write("proc/self/mountinfo", "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n");
    assert_eq!(
        v1.refusal(),
        "no cgroup2 file system is mounted; boot with systemd.unified_cgroup_hierarchy=1, \
         or mount one: mount -t cgroup2 none /sys/fs/cgroup/unified"
    );
    // Something else is mounted where the hierarchy was.
    v1.write("proc/self/mountinfo", &format!("41 31 0:1 / {} rw - cgroup2 cgroup2 rw\n", v1.path("cgroup").display()));
    assert!(v1.refusal().starts_with("no cgroup2 file system is mounted"));
}

#[test]
fn a_bundle_that_is_none_is_refused() {
    let machine = machine(BY_LABEL);
    let file = format!("/graph/overlay-containers/{ID}/userdata/config.json");
    machine.config("{");
    assert_eq!(
        machine.refusal(),
        format!(
            "{file} is not an OCI configuration: EOF while parsing an object at line 1 column 1; have the engine write it again"
        )
    );
    machine.config(r#"{"root":{"path":"/nowhere"},"annotations":{"io.container.manager":"libpod"}}"#);
    assert_eq!(
        machine.refusal(),
        "cannot open the container's root file system /nowhere in the mount namespace of process 4242: no such file or directory; \
         check root.path in config.json"
    );
    std::fs::remove_file(machine.path(file.strip_prefix('/').unwrap())).unwrap();
    assert_eq!(
        machine.refusal(),
        format!(
            "the container's configuration is unusable: cannot read {file}: no such file or directory; \
             the runtime has to leave config.json in its bundle while hooks run"
        )
    );
}

#[test]
fn labels_that_cannot_be_read_are_an_error_where_they_matter() {
    let by_label = machine(BY_LABEL);
    std::fs::remove_file(by_label.path("graph/db.sql")).unwrap();
    assert_eq!(
        by_label.refusal(),
        "policy KubeArmorPolicy/p selects containers by labels, and this container's labels cannot be read: \
         podman's database (db.sql, libpod/bolt_state.db) is not in /graph or /run/containers/storage; \
         select by something else, or repair what is named"
    );
    assert!(by_label.enforcer.calls().is_empty());

    let by_name = machine("{kubearmor.io/container.name: web}");
    by_name.write("graph/db.sql", "damaged");
    assert_eq!(by_name.start(), STARTS);
    assert_eq!(by_name.enforcer.calls()[0], "plan web {}");
}

#[test]
fn sources_that_contradict_each_other_are_refused() {
    let machine = machine(BY_LABEL);
    machine.write("proc/78/cmdline", &format!("/usr/bin/conmon\0-c\0{ID}\0-n\0db\0"));
    assert_eq!(
        machine.refusal(),
        "libpod's database calls the container \"web\" and conmon \"db\"; a rename may be under way, start the container again"
    );
}

#[test]
fn without_root_the_refusal_says_so() {
    let sentence = "containers without root are not protected: the hook runs in a user namespace or not as root and cannot reach \
        the kernel programs; run the container as root, or take this hook out of the hooks_dir of rootless containers";
    let mut user = machine(BY_LABEL);
    user.host.uid = 1000;
    assert_eq!(user.refusal(), sentence);
    let namespace = machine(BY_LABEL);
    namespace.write("proc/self/uid_map", "         0       1000          1\n");
    assert_eq!(namespace.refusal(), sentence);
}

#[test]
fn permit_lets_the_container_start_loudly_and_leaves_a_record() {
    let mut machine = machine(BY_LABEL);
    recorder(&mut machine).permit = true;
    recorder(&mut machine).on_plan = Some(Box::new(|_| Err("the automaton is too large\nsplit\x1b[31m the policy".into())));
    let line = "portcullis-hook: WARNING: container 6a63c4a301f4 (web) starts WITHOUT PROTECTION, by fail policy permit: \
        the automaton is too large split [31m the policy";
    assert_eq!(machine.start().lines, [line]);
    assert_eq!(machine.enforcer.calls()[1], "record 6a63 web: the automaton is too large split [31m the policy");
    // The command line decides before the configuration.
    machine.options.fail_policy = Some(FailPolicy::Enforce);
    assert_eq!(machine.refusal(), "the automaton is too large split [31m the policy");
    machine.options.fail_policy = Some(FailPolicy::Permit);
    assert_eq!(machine.start().code, 0);
}

#[test]
fn a_policy_directory_that_cannot_be_read_refuses() {
    let mut machine = machine(BY_LABEL);
    recorder(&mut machine).policy_error = Some("cannot read /etc/portcullis/policies: permission denied; run as root");
    assert_eq!(machine.refusal(), "cannot read /etc/portcullis/policies: permission denied; run as root");
}

#[test]
fn a_broken_policy_file_is_told_and_stops_nobody() {
    let mut machine = machine(BY_LABEL);
    recorder(&mut machine).problems = vec!["b.yaml:3:1: kind: `X` is no kind", "c.yaml:1:1: not YAML"];
    let finish = machine.start();
    let line = "portcullis-hook: WARNING: a policy is not in force: b.yaml:3:1: kind: `X` is no kind (and 1 more); see: portcullis status";
    assert_eq!((finish.code, finish.lines), (0, vec![line.to_owned()]));
    assert_eq!(machine.enforcer.calls()[2], "arm 4242 in 1");
}

/// A runtime that never closes the hook's standard input.
struct Silent;

impl Read for Silent {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        std::thread::sleep(Duration::from_secs(60));
        Ok(0)
    }
}

#[test]
fn the_deadline_holds_in_every_phase() {
    let late = |phase: &str| {
        format!("not done after 1.0 s, while: {phase}; start the container again, or raise --deadline and the timeout in hooks.d")
    };
    // So long that a busy machine gets each thread to its phase, which is what is tested.
    let deadline = Duration::from_secs(1);
    let mut reading = machine(BY_LABEL);
    reading.options.deadline = deadline;
    let begin = Instant::now();
    let finish = run(&reading.host, &reading.options, &reading.enforcer, Silent);
    assert_eq!(finish.lines, [format!("portcullis-hook: container of unknown id refused: {}", late("reading the state"))]);
    assert!(begin.elapsed() < deadline * 3);

    let mut planning = machine(BY_LABEL);
    planning.options.deadline = deadline;
    recorder(&mut planning).on_plan = Some(Box::new(move |_| {
        std::thread::sleep(deadline * 2);
        Ok(())
    }));
    assert_eq!(planning.refusal(), late("planning"));
    std::thread::sleep(deadline * 2);
    assert!(!planning.enforcer.calls().iter().any(|call| call.starts_with("arm")), "armed after the deadline");

    let mut hanging = machine(BY_LABEL);
    hanging.options.deadline = deadline;
    recorder(&mut hanging).on_arm = Some(Box::new(|_| {
        std::thread::sleep(Duration::from_secs(60));
        Ok(())
    }));
    assert_eq!(hanging.refusal(), late("arming"));
    assert_eq!(hanging.enforcer.calls().last().unwrap(), "disarm 6a63");

    // Arming that has begun and ends soon after is a success.
    let mut slow = machine(BY_LABEL);
    slow.options.deadline = deadline;
    recorder(&mut slow).on_arm = Some(Box::new(move |_| {
        std::thread::sleep(deadline + Duration::from_millis(100));
        Ok(())
    }));
    assert_eq!(slow.start(), STARTS);
}

#[test]
fn poststop_never_fails_the_runtime() {
    let mut machine = machine(BY_LABEL);
    machine.options.stage = Stage::Poststop;
    let state = format!(r#"{{"id":"{ID}","status":"stopped","pid":0}}"#);
    assert_eq!(machine.start_with(state.clone()), STARTS);
    assert_eq!(machine.start_with(state.clone()), STARTS);
    assert_eq!(machine.enforcer.calls(), ["disarm 6a63", "disarm 6a63"]);
    let finish = machine.start_with("{");
    assert_eq!(finish.code, 0);
    assert!(
        finish.lines[0]
            .starts_with("portcullis-hook: container of unknown id: cannot be taken out of force: the container state")
    );

    let mut failing = Machine::new();
    failing.options.stage = Stage::Poststop;
    recorder(&mut failing).disarm_error = Some("the state directory is read-only; mount /run");
    let finish = failing.start_with(state);
    let line =
        "portcullis-hook: container 6a63c4a301f4: cannot be taken out of force: the state directory is read-only; mount /run";
    assert_eq!((finish.code, finish.lines), (0, vec![line.to_owned()]));
}

#[test]
fn timings_name_the_phases() {
    let mut machine = machine(BY_LABEL);
    machine.options.timings = true;
    let finish = machine.start();
    assert_eq!(finish.code, 0);
    assert!(finish.lines[0].starts_with("portcullis-hook: timings start="), "{finish:?}");
    for phase in ["planning=", "arming=", "total="] {
        assert!(finish.lines[0].contains(phase), "{finish:?}");
    }
}
