use std::collections::BTreeSet;

use portcullis_ebpf::abi::{self, op};
use portcullis_ebpf::monitor::AccessEvent;
use portcullis_ebpf::monitor::abi::{ARGS_CUT, PATH_CUT, PATH_OUTSIDE};
use portcullis_policy::meaning::Action;
use serde_json::{Value, json};

use super::OCSF_SCHEMA;
use crate::alerts::Alert;
use crate::control::EventFormat;
use crate::fake;
use crate::kubearmor::tests::{alert, container, facts, facts_of, program, rules};

fn event(alert: &Alert) -> Value {
    serde_json::from_slice(&alert.written(EventFormat::Ocsf)).unwrap()
}

fn denied() -> Value {
    event(&alert(&rules("KubeArmorPolicy", Action::Block), Some(facts()), |_| {}))
}

fn of(operation: u32, object: &[u8], arg: [u32; 3]) -> Value {
    event(&alert(&rules("KubeArmorPolicy", Action::Block), Some(facts()), |event| {
        event.path = object.to_vec();
        (event.header.op, event.header.arg) = (operation, arg);
    }))
}

/// All operations that the kernel's programs tell.
const OPERATIONS: [u32; 31] = [
    op::READ,
    op::WRITE,
    op::CREATE,
    op::UNLINK,
    op::RENAME,
    op::LINK,
    op::SYMLINK,
    op::MKDIR,
    op::RMDIR,
    op::MKNOD,
    op::CHMOD,
    op::CHOWN,
    op::TRUNCATE,
    op::SETATTR,
    op::SETXATTR,
    op::RECEIVE,
    op::EXEC,
    op::MAP_EXEC,
    op::SOCKET,
    op::CONNECT,
    op::BIND,
    op::LISTEN,
    op::ACCEPT,
    op::SEND,
    op::CAPABLE,
    op::MOUNT,
    op::UMOUNT,
    op::MOVE_MOUNT,
    op::PIVOT_ROOT,
    op::BPF,
    op::URING_CREDS,
];

/// What OCSF 1.7.0 requires, of events and of the objects in them, by the name that they have here.
const REQUIRED: [(&str, &[&str]); 14] = [
    ("", &["activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid"]),
    ("1001", &["actor", "device", "file"]),
    ("1003", &["actor", "device", "kernel"]),
    ("1005", &["actor", "device", "module"]),
    ("1007", &["actor", "device", "process"]),
    // At least one of the endpoints.
    ("4001", &["src_endpoint"]),
    ("metadata", &["product", "version"]),
    ("file", &["name", "type_id"]),
    ("kernel", &["name", "type_id"]),
    // At least one of load_type_id and function_name.
    ("module", &["load_type_id"]),
    ("device", &["type_id"]),
    ("os", &["name", "type_id"]),
    ("image", &["uid"]),
    ("connection_info", &["direction_id"]),
];

/// Objects of which at least one of these has to be there.
const ONE_OF: [(&str, &[&str]); 8] = [
    ("actor", &["process", "user"]),
    ("process", &["pid", "uid"]),
    ("parent_process", &["pid", "uid"]),
    ("user", &["uid"]),
    ("container", &["uid", "name"]),
    ("product", &["name", "uid"]),
    ("policy", &["name", "uid"]),
    ("src_endpoint", &["hostname", "uid", "name"]),
];

fn holds(name: &str, value: &Value) {
    let Value::Object(attributes) = value else { return };
    for (_, required) in REQUIRED.iter().filter(|(of, _)| *of == name) {
        for attribute in *required {
            assert!(attributes.contains_key(*attribute), "{name} has no {attribute}: {value}");
        }
    }
    for (_, one_of) in ONE_OF.iter().filter(|(of, _)| *of == name) {
        assert!(one_of.iter().any(|attribute| attributes.contains_key(*attribute)), "{name}: {value}");
    }
    let inner = attributes.iter().filter(|(name, _)| *name != "unmapped");
    inner.for_each(|(name, value)| holds(name, value));
}

fn is_event(event: &Value) {
    holds("", event);
    holds(&event["class_uid"].to_string(), event);
    let [class, activity, kind] = ["class_uid", "activity_id", "type_uid"].map(|name| event[name].as_u64().unwrap());
    assert_eq!(kind, class * 100 + activity);
    assert_eq!(class / 1000, event["category_uid"].as_u64().unwrap());
    assert_eq!(event["metadata"]["version"], OCSF_SCHEMA.strip_prefix("ocsf/").unwrap());
}

/// The alert of `kubearmor`'s tests.
const DENIED: &str = r#"{
  "activity_id": 1,
  "activity_name": "Launch",
  "category_uid": 1,
  "category_name": "System Activity",
  "class_uid": 1007,
  "class_name": "Process Activity",
  "type_uid": 100701,
  "type_name": "Process Activity: Launch",
  "time": 1765863439127,
  "severity_id": 3,
  "severity": "Medium",
  "status_id": 2,
  "status": "Failure",
  "message": "exec denied: policy ksp-ubuntu-1-allow-proc-args",
  "metadata": {
    "version": "1.7.0",
    "product": {"name": "Portcullis", "vendor_name": "Portcullis", "version": "VERSION"},
    "profiles": ["container", "host", "security_control"],
    "log_name": "portcullis.alert/1",
    "original_time": "2025-12-16T05:37:19.127331Z",
    "uid": "a-b007-1a2b-0-7",
    "sequence": 7
  },
  "actor": {
    "process": {
      "pid": 191949,
      "tid": 0,
      "namespace_pid": 113,
      "name": "bash",
      "uid": "824416229130095",
      "cmd_line": "bash -c python3 -m pydoc",
      "working_directory": "/",
      "file": {"name": "bash", "path": "/bin/bash", "type_id": 8},
      "user": {"uid": "0"},
      "container": {
        "uid": "4771ac3e9074",
        "name": "ubuntu-1-container",
        "image": {"uid": "docker.io/kubearmor/ubuntu-w-utils:latest@sha256:8c94"}
      },
      "parent_process": {
        "pid": 190507,
        "namespace_pid": 190507,
        "file": {"name": "containerd-shim-runc-v2", "path": "/usr/bin/containerd-shim-runc-v2", "type_id": 8}
      }
    },
    "user": {"uid": "0"}
  },
  "device": {"hostname": "aryan", "uid": "d1e2", "type_id": 0, "os": {"name": "Linux", "type_id": 200}},
  "process": {"pid": 191949, "file": {"name": "python3.6", "path": "/usr/bin/python3.6", "type_id": 8}},
  "launch_type_id": 3,
  "launch_type": "Exec",
  "action_id": 2,
  "action": "Denied",
  "disposition_id": 2,
  "disposition": "Blocked",
  "is_alert": true,
  "policy": {"name": "ksp-ubuntu-1-allow-proc-args", "is_applied": true, "version": "0"},
  "unmapped": {
    "class": "process",
    "cluster": "default",
    "cpu": 0,
    "labels": "container=ubuntu-1,group=group-1",
    "lostBefore": 0,
    "namespace": "multiubuntu",
    "object": "/usr/bin/python3.6",
    "operation": "exec",
    "owner": {"kind": "Deployment", "name": "ubuntu-1-deployment"},
    "pod": "ubuntu-1-deployment-8dc5d8d48-5s8pf",
    "reason": "rule",
    "rule": {
      "kind": "KubeArmorPolicy",
      "namespace": "multiubuntu",
      "policy": "ksp-ubuntu-1-allow-proc-args",
      "file": "/etc/portcullis/policies/a.yaml",
      "line": 12,
      "column": 9,
      "field": "spec.process.matchPaths[0]",
      "action": "block",
      "severity": 5,
      "tags": ["MITRE", "T1059"],
      "message": "block all arguments except allowedArgs"
    },
    "backend": "bpf",
    "latencyUs": 210,
    "tty": "pts0"
  }
}"#;

#[test]
fn an_alert_is_the_activity_that_was_denied() {
    let expected = DENIED.replace("VERSION", env!("CARGO_PKG_VERSION"));
    assert_eq!(denied(), serde_json::from_str::<Value>(&expected).unwrap());
}

#[test]
fn what_is_executed_is_a_launch_by_the_parent() {
    let log = fake::executed(Some((*container()).clone()));
    let event: Value = serde_json::from_slice(&log.written(EventFormat::Ocsf)).unwrap();
    is_event(&event);
    assert_eq!(
        (&event["class_uid"], &event["status"], &event["severity"]),
        (&json!(1007), &json!("Success"), &json!("Informational"))
    );
    assert_eq!(event["actor"], json!({"process": {"pid": 6}, "user": {"uid": "33"}}));
    let process = &event["process"];
    assert_eq!(process["file"], json!({"name": "cat", "path": "/bin/cat", "type_id": 8}));
    assert_eq!((&process["cmd_line"], &process["namespace_pid"]), (&json!("cat /etc/shadow"), &json!(2)));
    assert_eq!(process["container"]["uid"], "4771ac3e9074");
    assert_eq!(event["unmapped"]["cgroup"], 99);
    assert!(
        event.get("action_id").is_none() && event["metadata"]["profiles"] == json!(["container", "host"]),
        "nothing was decided"
    );
}

#[test]
fn every_operation_is_an_activity_with_all_that_its_class_requires() {
    let mut classes = BTreeSet::new();
    for operation in OPERATIONS {
        let event = of(operation, b"/etc/shadow", [2, 1, 6]);
        is_event(&event);
        let class = event["class_uid"].as_u64().unwrap();
        assert_ne!(class, 0, "{event}");
        classes.insert(class);
        if event["activity_id"] == 99 {
            assert_eq!(event["activity_name"], event["unmapped"]["operation"], "OCSF has no number for it");
        }
    }
    assert_eq!(classes, BTreeSet::from([1001, 1003, 1005, 1007, 4001]));
    let unknown = of(u32::MAX, b"", [0; 3]);
    is_event(&unknown);
    assert_eq!((&unknown["type_uid"], &unknown["activity_name"]), (&json!(99), &json!("unknown")));
}

#[test]
fn what_was_audited_was_observed() {
    let audited = |generation: u32| {
        event(&alert(&rules("KubeArmorPolicy", Action::Audit), None, |event| {
            (event.header.verdict, event.header.generation) = (abi::AUDIT, generation);
            event.header.rule = abi::RULE_POSTURE;
        }))
    };
    let event = audited(4);
    is_event(&event);
    assert_eq!(
        (&event["action"], &event["disposition"], &event["status"]),
        (&json!("Observed"), &json!("Alert"), &json!("Unknown"))
    );
    assert_eq!(event["policy"], json!({"name": "DefaultPosture", "is_applied": true, "version": "4"}));
    assert_eq!((&event["message"], &event["severity_id"]), (&json!("exec audited: policy DefaultPosture"), &json!(0)));
    assert_eq!(
        event["actor"]["process"],
        json!({"pid": 191_949, "tid": 0, "name": "bash", "user": {"uid": "0"},
        "container": denied()["actor"]["process"]["container"]}),
        "nothing more is known"
    );
}

#[test]
fn objects_are_told_by_their_class() {
    let file = of(op::MKDIR, b"/var/lib/x", [0; 3]);
    assert_eq!(file["file"], json!({"name": "x", "path": "/var/lib/x", "type_id": 2}));
    assert_eq!(of(op::READ, b"/", [0; 3])["file"]["name"], "/");
    assert_eq!(of(op::MOUNT, b"/mnt", [0; 3])["type_name"], "File System Activity: Mount");
    let module = of(op::MAP_EXEC, b"/tmp/x.so", [0; 3]);
    assert_eq!(module["module"]["file"]["path"], "/tmp/x.so");
    let capability = of(op::CAPABLE, b"", [21, 0, 0]);
    assert_eq!(capability["kernel"], json!({"name": "sys_admin", "type_id": 99, "type": "Capability"}));
    let tcp = of(op::CONNECT, b"", [10, 1, 6]);
    assert_eq!(
        tcp["connection_info"],
        json!({"direction_id": 2, "direction": "Outbound", "protocol_num": 6, "protocol_ver_id": 6})
    );
    assert_eq!(tcp["src_endpoint"], json!({"hostname": "aryan", "uid": "4771ac3e9074", "name": "ubuntu-1-container"}));
    let unix = of(op::SOCKET, b"", [1, 1, 0]);
    assert_eq!(unix["connection_info"], json!({"direction_id": 0, "direction": "Unknown"}));
    assert_eq!(unix["unmapped"]["object"], "1,1,0");
}

#[test]
fn accesses_are_activities_with_their_answers() {
    let of = |event: &AccessEvent| -> Value {
        serde_json::from_slice(&fake::accessed(Some((*container()).clone()), event).written(EventFormat::Ocsf)).unwrap()
    };
    let passed = of(&fake::access(op::READ, b"/etc/hosts"));
    is_event(&passed);
    assert_eq!((&passed["type_name"], &passed["status"]), (&json!("File System Activity: Read"), &json!("Success")));
    assert_eq!((&passed["file"]["path"], &passed["metadata"]["sequence"]), (&json!("/etc/hosts"), &json!(9)));
    assert!(passed.get("disposition").is_none(), "no policy is named");
    let mut event = fake::access(op::CONNECT, b"");
    (event.header.arg, event.header.result) = ([2, 1, 6], 13);
    // sin_family, sin_port, sin_addr and what fills it up.
    event.address = [&2_u16.to_ne_bytes()[..], &80_u16.to_be_bytes(), &[192, 0, 2, 1], &[0; 8]].concat();
    let denied = of(&event);
    is_event(&denied);
    assert_eq!((&denied["status"], &denied["message"]), (&json!("Failure"), &json!("connect denied: EACCES")));
    assert_eq!(denied["dst_endpoint"], json!({"ip": "192.0.2.1", "port": 80}));
    assert_eq!(denied["unmapped"]["access"]["family"], "AF_INET");
    event.header.op = op::BIND;
    let bound = of(&event);
    assert_eq!((&bound["src_endpoint"]["port"], bound.get("dst_endpoint")), (&json!(80), None));
    event.header.repeats = 5;
    let log = fake::repeated(None, &event);
    let repeated: Value = serde_json::from_slice(&log.written(EventFormat::Ocsf)).unwrap();
    assert_eq!(repeated["unmapped"]["access"]["repeats"], 5);
    assert!(repeated["metadata"].get("sequence").is_none(), "it is no access of its own");
}

#[test]
fn a_path_that_does_not_lead_there_is_no_path() {
    let cut = facts_of(program("/", [PATH_CUT, PATH_OUTSIDE, ARGS_CUT]));
    let event = event(&alert(&rules("KubeArmorPolicy", Action::Block), Some(cut), |event| event.header.path_cut = 1));
    let process = &event["actor"]["process"];
    assert!(process.get("file").is_none() && process.get("working_directory").is_none(), "{process}");
    let aside = &event["unmapped"];
    assert_eq!((&aside["exe"], &aside["exeFlags"]), (&json!("/bin/bash"), &json!(["cut"])));
    assert_eq!((&aside["cwdFlags"], &aside["argsCut"], &aside["objectCut"]), (&json!(["outside"]), &json!(true), &json!(true)));
}

#[test]
fn hostile_names_stay_text() {
    for hostile in [&b"/\xff\xfe\xc3"[..], b"/a\nb\t\x1b[2J\x00\x7f", b"/\"},{\\\"", &[1; 4096]] {
        let alert = alert(&rules("KubeArmorPolicy", Action::Block), Some(facts()), |event| {
            event.path = hostile.to_vec();
            event.header.comm = [0x1b; 16];
        });
        let line = alert.written(EventFormat::Ocsf);
        assert!(line.iter().all(|&byte| byte >= b' '), "one line");
        assert_eq!(event(&alert)["process"]["file"]["path"], &*String::from_utf8_lossy(hostile));
    }
}
