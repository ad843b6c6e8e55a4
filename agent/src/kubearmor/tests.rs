use std::sync::Arc;
use std::time::{Duration, SystemTime};

use portcullis_ebpf::abi::{self, op};
use portcullis_policy::Backend;
use portcullis_policy::meaning::{Action, Class, Object, Origin, Posture, Postures, Rule, RuleSet};
use portcullis_policy::select::Owner;
use prost::Message as _;

use super::*;
use crate::alerts;
use crate::alerts::clock::Moment;
use crate::alerts::fanout::Item;
use crate::alerts::line::Container;
use crate::alerts::{Format, ParentFacts, ProcessFacts, Program};
use crate::fake;
use crate::json::line;

mod schema;

/// The alert of KubeArmor's documentation (getting-started/process_arguments.md), but for what is not known of an execution that
/// does not take place, its arguments, and the version.
const DOCUMENTED: &str = r#"{"Timestamp":1765863439,"UpdatedTime":"2025-12-16T05:37:19.127331Z","ClusterName":"default","HostName":"aryan","NamespaceName":"multiubuntu","Owner":{"Ref":"Deployment","Name":"ubuntu-1-deployment","Namespace":"multiubuntu"},"PodName":"ubuntu-1-deployment-8dc5d8d48-5s8pf","Labels":"container=ubuntu-1,group=group-1","ContainerID":"4771ac3e9074","ContainerName":"ubuntu-1-container","ContainerImage":"docker.io/kubearmor/ubuntu-w-utils:latest@sha256:8c94","HostPPID":190507,"HostPID":191949,"PPID":190507,"PID":113,"UID":0,"ParentProcessName":"/bin/bash","ProcessName":"/usr/bin/python3.6","PolicyName":"ksp-ubuntu-1-allow-proc-args","Severity":"5","Tags":"MITRE,T1059","ATags":["MITRE","T1059"],"Message":"block all arguments except allowedArgs","Type":"MatchedPolicy","Source":"/bin/bash","Operation":"Process","Resource":"/usr/bin/python3.6","Data":"lsm=SECURITY_BPRM_CHECK","EventData":{"Lsm":"SECURITY_BPRM_CHECK"},"Enforcer":"BPFLSM","Action":"Block","Result":"Permission denied","Cwd":"/","TTY":"pts0","ExecEvent":{"ExecID":"824416229130095","ExecutableName":"bash"},"KubeArmorVersion":"portcullis-VERSION","NodeID":"d1e2"}"#;

pub(crate) fn host() -> Arc<Host> {
    Arc::new(Host {
        cluster: "default".to_owned(),
        name: "aryan".to_owned(),
        id: "d1e2".to_owned(),
        boot: 0xb007,
        ..Host::default()
    })
}

pub(crate) fn container() -> Arc<Container> {
    Arc::new(Container {
        id: "4771ac3e9074".to_owned(),
        name: "ubuntu-1-container".to_owned(),
        image: "docker.io/kubearmor/ubuntu-w-utils:latest@sha256:8c94".to_owned(),
        namespace: "multiubuntu".to_owned(),
        pod: "ubuntu-1-deployment-8dc5d8d48-5s8pf".to_owned(),
        labels: "container=ubuntu-1,group=group-1".to_owned(),
        owner: Some(Owner { kind: "Deployment".to_owned(), name: "ubuntu-1-deployment".to_owned() }),
        visibility: None,
    })
}

pub(crate) fn rules(kind: &str, action: Action) -> RuleSet {
    let rule = Rule {
        origin: Origin {
            kind: kind.into(),
            namespace: "multiubuntu".into(),
            policy: "ksp-ubuntu-1-allow-proc-args".into(),
            file: Arc::new("/etc/portcullis/policies/a.yaml".into()),
            line: 12,
            column: 9,
            field: "spec.process.matchPaths[0]".to_owned(),
        },
        class: Class::Process,
        objects: vec![Object::Path(b"/usr/bin/python3.6".to_vec())],
        sources: Vec::new(),
        read_only: false,
        owner_only: false,
        action,
        severity: 5,
        tags: vec!["MITRE".to_owned(), "T1059".to_owned()],
        message: "block all arguments except allowedArgs".to_owned(),
    };
    RuleSet { rules: vec![Arc::new(rule)], postures: Postures::default() }
}

pub(crate) fn facts() -> ProcessFacts {
    facts_of(program("/", [0; 3]))
}

/// A shell, started there, with flags of its texts.
pub(crate) fn program(cwd: &str, flags: [u32; 3]) -> Program {
    let texts = [b"/bin/bash".to_vec(), cwd.as_bytes().to_vec(), b"bash\0-c\0python3 -m pydoc\0".to_vec()];
    Program::new(texts, flags)
}

/// The same process with another program.
pub(crate) fn facts_of(program: Program) -> ProcessFacts {
    let shim = Program::new([b"/usr/bin/containerd-shim-runc-v2".to_vec(), Vec::new(), Vec::new()], [0; 3]);
    ProcessFacts {
        program: Some(Arc::new(program)),
        tty: *b"pts0\0\0\0\0\0\0\0\0\0\0\0\0",
        ns_pid: Some(113),
        parent: Some(ParentFacts { pid: 190_507, ns_pid: Some(190_507), program: Some(Arc::new(shim)) }),
        exec_id: Some(824_416_229_130_095),
    }
}

/// An operation in that container, decided by the first rule.
pub(crate) fn alert(
    rules: &RuleSet,
    process: Option<ProcessFacts>,
    change: impl FnOnce(&mut portcullis_ebpf::Event),
) -> alerts::Alert {
    let mut event = fake::event(7, b"/usr/bin/python3.6");
    event.header.op = op::EXEC;
    event.header.tgid = 191_949;
    event.header.comm = *b"bash\0garbage\0\0\0\0";
    change(&mut event);
    let time = SystemTime::UNIX_EPOCH + Duration::from_micros(1_765_863_439_127_331);
    let moment = Moment { time, raised_ns: 0x1a2b, latency: Duration::from_micros(210) };
    alerts::Alert::new(event, (moment, Backend::Bpf), Some((container(), rules)), process, host())
}

#[test]
fn an_alert_is_told_as_kubearmor_documents_it() {
    let alert = alert(&rules("KubeArmorPolicy", Action::Block), Some(facts()), |_| {});
    let expected = DOCUMENTED.replace("VERSION", env!("CARGO_PKG_VERSION"));
    assert_eq!(std::str::from_utf8(&alert.rendered(Format::KubeArmor)).unwrap(), expected);
    let decoded = Alert::decode(alert.rendered(Format::Feeder)).unwrap();
    assert_eq!(String::from_utf8(line(&decoded)).unwrap(), expected);
}

#[test]
fn our_own_line_is_what_it_was_and_says_who_did_it() {
    let alert = alert(&rules("KubeArmorPolicy", Action::Block), Some(facts()), |_| {});
    let expected = r#"{"schema":"portcullis.alert/1","time":"2025-12-16T05:37:19.127331Z","id":"a-b007-1a2b-0-7","latencyUs":210,"cpu":0,"sequence":7,"lostBefore":0,"verdict":"block","backend":"bpf","operation":"exec","class":"process","object":"/usr/bin/python3.6","objectCut":false,"reason":"rule","policy":"ksp-ubuntu-1-allow-proc-args","rule":{"kind":"KubeArmorPolicy","namespace":"multiubuntu","policy":"ksp-ubuntu-1-allow-proc-args","file":"/etc/portcullis/policies/a.yaml","line":12,"column":9,"field":"spec.process.matchPaths[0]","action":"block","severity":5,"tags":["MITRE","T1059"],"message":"block all arguments except allowedArgs"},"container":{"id":"4771ac3e9074","name":"ubuntu-1-container","image":"docker.io/kubearmor/ubuntu-w-utils:latest@sha256:8c94","namespace":"multiubuntu"},"generation":0,"process":{"pid":191949,"tid":0,"uid":0,"comm":"bash","nsPid":113,"exe":"/bin/bash","args":["bash","-c","python3 -m pydoc"],"cwd":"/","tty":"pts0","execId":"824416229130095","parent":{"pid":190507,"nsPid":190507,"exe":"/usr/bin/containerd-shim-runc-v2"}}}"#;
    assert_eq!(std::str::from_utf8(&alert.rendered(Format::Line)).unwrap(), expected);
    let unknown = self::alert(&rules("KubeArmorPolicy", Action::Block), None, |_| {});
    let (until, _) = expected.split_once(r#","nsPid""#).unwrap();
    assert_eq!(
        std::str::from_utf8(&unknown.rendered(Format::Line)).unwrap(),
        format!("{until}}}}}"),
        "nothing more where it is not known"
    );
    let mut alert = alert;
    alert.share();
    let first = alert.rendered(Format::Line).as_ptr();
    assert_eq!(alert.rendered(Format::Line).as_ptr(), first, "rendered once for all who get it");
}

#[test]
fn what_nobody_knows_is_left_out() {
    let told = Alert::from(&alert(&rules("KubeArmorPolicy", Action::Block), None, |event| event.header.op = op::WRITE));
    assert_eq!((told.source.as_str(), told.process_name.as_str(), told.cwd.as_str()), ("", "", ""));
    assert_eq!((told.pid, told.ppid, told.host_ppid, told.host_pid), (0, 0, 0, 191_949));
    let text = String::from_utf8(line(&told)).unwrap();
    for absent in
        ["Source", "ProcessName", "ParentProcessName", "Cwd", "TTY", "HostPPID", "PID", "ExecID", "UserName", "HashAlgo"]
    {
        assert!(!text.contains(&format!("\"{absent}\":")), "{absent}: {text}");
    }
    assert!(text.contains(r#""PPID":0"#) && text.contains(r#""ExecEvent":{"ExecutableName":"bash"}"#), "{text}");
}

#[test]
fn system_calls_are_told_as_kubearmor_does() {
    let mut rules = rules("KubeArmorPolicy", Action::Audit);
    Arc::make_mut(&mut rules.rules[0]).class = Class::Syscall;
    let told = |index, path: &str| {
        let alert = alert(&rules, Some(facts()), |event| {
            (event.header.op, event.header.verdict, event.header.arg) = (op::SYSCALL, abi::AUDIT, [index, 0, 0]);
            event.path = path.as_bytes().to_vec();
        });
        Alert::from(&alert)
    };
    // Of KubeArmor's documentation (getting-started/host_security_policy_examples.md).
    let rmdir = told(abi::call::X86_64 + 84, "/home/jane-doe");
    assert_eq!((rmdir.operation.as_str(), rmdir.resource.as_str()), ("Syscall", "/home/jane-doe"));
    assert_eq!((rmdir.data.as_str(), rmdir.action.as_str(), rmdir.result.as_str()), ("syscall=SYS_RMDIR", "Audit", "Passed"));
    assert_eq!(rmdir.event_data["Syscall"], "SYS_RMDIR");
    assert_eq!((rmdir.severity.as_str(), rmdir.process_name.as_str()), ("5", "/bin/bash"));
    let compat = told(abi::call::I386 + 11, "");
    assert_eq!((compat.data.as_str(), compat.resource.as_str()), ("syscall=SYS_EXECVE", ""));
    assert_eq!(compat.process_name, "/bin/bash", "who makes the call, and not what it would become");
}

#[test]
fn other_operations_name_their_command_and_their_parent() {
    let rules = rules("KubeArmorPolicy", Action::Block);
    let told = Alert::from(&alert(&rules, Some(facts_of(program("/root", [0; 3]))), |event| {
        event.header.op = op::READ;
        event.path = b"/etc/shadow".to_vec();
    }));
    assert_eq!((told.source.as_str(), told.process_name.as_str()), ("/bin/bash -c python3 -m pydoc", "/bin/bash"));
    assert_eq!(told.parent_process_name, "/usr/bin/containerd-shim-runc-v2");
    assert_eq!((told.operation.as_str(), told.resource.as_str(), told.cwd.as_str()), ("File", "/etc/shadow", "/root/"));
    assert_eq!(told.data, "lsm=FILE_OPEN");
}

#[test]
fn sockets_and_capabilities_are_in_kubearmors_words() {
    let rules = rules("KubeArmorPolicy", Action::Block);
    let told = |code, arg| {
        Alert::from(&alert(&rules, None, |event| {
            (event.header.op, event.header.arg) = (code, arg);
            event.path.clear();
        }))
    };
    let tcp = told(op::SOCKET, [2, 1, 6]);
    assert_eq!((tcp.operation.as_str(), tcp.resource.as_str()), ("Network", "protocol=TCP type=SOCK_STREAM"));
    assert_eq!(tcp.data, "lsm=SOCKET_CREATE protocol=TCP type=SOCK_STREAM");
    let pairs: Vec<_> = tcp.event_data.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(pairs, ["Lsm=SOCKET_CREATE", "Protocol=TCP", "Type=SOCK_STREAM"]);
    for (arg, resource) in [
        ([2, 2, 0], "type=SOCK_DGRAM"),
        ([10, 3, 58], "protocol=IPv6-ICMP type=SOCK_RAW"),
        ([17, 3, 6], "type=SOCK_RAW"),
        ([17, 10, 0], "type=SOCK_PACKET"),
        ([2, 77, 0], "type=77"),
    ] {
        assert_eq!(told(op::CONNECT, arg).resource, resource, "{arg:?}");
    }
    let raw = told(op::CAPABLE, [13, 0, 0]);
    assert_eq!((raw.operation.as_str(), raw.resource.as_str()), ("Capabilities", "CAP_NET_RAW"));
    assert_eq!((raw.data.as_str(), raw.event_data["Lsm"].as_str()), ("lsm=CAPABLE CAP_NET_RAW", "CAPABLE"));
    assert_eq!(told(op::CAPABLE, [99, 0, 0]).resource, "99");
}

#[test]
fn the_action_is_what_was_done_and_what_would_have_been() {
    let told = |rules: &RuleSet, rule, verdict| {
        let told = Alert::from(&alert(rules, None, |event| (event.header.rule, event.header.verdict) = (rule, verdict)));
        (told.action, told.result, told.policy_name)
    };
    let is = |action: &str, result: &str, policy: &str| (action.to_owned(), result.to_owned(), policy.to_owned());
    let named = "ksp-ubuntu-1-allow-proc-args";
    assert_eq!(told(&rules("KubeArmorPolicy", Action::Block), 0, abi::BLOCK), is("Block", "Permission denied", named));
    assert_eq!(told(&rules("KubeArmorPolicy", Action::Audit), 0, abi::AUDIT), is("Audit", "Passed", named));
    assert_eq!(told(&rules("KubeArmorPolicy", Action::Block), 0, abi::AUDIT), is("Audit (Block)", "Passed", named));
    let mut posture = rules("KubeArmorPolicy", Action::Allow);
    assert_eq!(told(&posture, abi::RULE_POSTURE, abi::AUDIT), is("Audit", "Passed", "DefaultPosture"));
    posture.postures.file = Posture::Block;
    assert_eq!(told(&posture, abi::RULE_POSTURE, abi::AUDIT), is("Audit (Block)", "Passed", "DefaultPosture"));
    assert_eq!(told(&posture, abi::RULE_POSTURE, abi::BLOCK), is("Block", "Permission denied", "DefaultPosture"));
    assert_eq!(told(&posture, abi::RULE_ALIAS, abi::AUDIT), is("Audit", "Passed", ""), "nobody knows");
}

#[test]
fn the_type_is_that_of_the_policy_and_what_the_kernel_lost_is_told() {
    let host = Alert::from(&alert(&rules("KubeArmorHostPolicy", Action::Block), None, |event| event.lost_before = 3));
    assert_eq!((host.r#type.as_str(), host.event_data["LostBefore"].as_str()), ("MatchedHostPolicy", "3"));
    assert_eq!((host.uid, host.user_name.as_str()), (0, "root"));
    let none = Alert::from(&alert(&RuleSet::default(), None, |event| event.header.rule = abi::RULE_ALIAS));
    assert_eq!((none.r#type.as_str(), none.severity.as_str(), none.policy_name.as_str()), ("MatchedPolicy", "", ""));
    assert_eq!(none.user_name, "", "of the host's users alone");
    assert_eq!(none.message, "another name for a file would escape the policy");
}

#[test]
fn outside_kubernetes_a_container_is_a_pod() {
    let told = Alert::from(&fake::alert(1, b"/a", "c1"));
    assert_eq!((told.namespace_name.as_str(), told.pod_name.as_str()), ("container_namespace", "name-of-c1"));
    assert_eq!(told.owner, None);
    let moment = Moment { time: SystemTime::UNIX_EPOCH, raised_ns: 0, latency: Duration::ZERO };
    let unknown = alerts::Alert::new(fake::event(1, b"/a"), (moment, Backend::AppArmor), None, None, host());
    let told = Alert::from(&unknown);
    assert_eq!((told.container_id.as_str(), told.namespace_name.as_str(), told.uid), ("", "", 0));
    assert_eq!(told.enforcer, "AppArmor");
    assert!(unknown.rendered(Format::Line).windows(20).any(|part| part == br#""backend":"apparmor""#));
}

#[test]
fn hostile_names_stay_text_and_within_the_account() {
    let hostile: [&[u8]; 5] =
        [b"/\xff\xfe\xc3", b"/a\nb\t\x1b[2J\x00\x7f", b"/\"},{\\\"", "/\u{202e}\u{feff}é".as_bytes(), &[1; 4096]];
    for path in hostile {
        let mut alert = alert(&rules("KubeArmorPolicy", Action::Block), Some(facts()), |event| {
            event.path = path.to_vec();
            event.header.comm = [0xff; 16];
            event.header.uid = u32::MAX;
        });
        alert.share();
        let expected = String::from_utf8_lossy(path);
        let mut rendered = 0;
        for format in [Format::Line, Format::KubeArmor] {
            let line = alert.rendered(format);
            rendered += line.len();
            assert!(line.iter().all(|&byte| byte >= b' '), "{:?} is one line", expected);
            let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
            let object = if format == Format::Line { &value["object"] } else { &value["Resource"] };
            assert_eq!(object, &*expected);
        }
        let told = Alert::decode(alert.rendered(Format::Feeder)).unwrap();
        rendered += alert.rendered(Format::Feeder).len();
        assert_eq!((told.resource.as_str(), told.uid), (&*expected, -1));
        assert_eq!(told.exec_event.unwrap().executable_name, "\u{fffd}".repeat(16));
        assert!(rendered <= alert.bytes(), "{rendered} of {}", alert.bytes());
    }
    let mut usual = alert(&rules("KubeArmorPolicy", Action::Block), Some(facts()), |_| {});
    assert!(usual.bytes() < 1024, "{}", usual.bytes());
    usual.share();
    let rendered: usize =
        [Format::Line, Format::KubeArmor, Format::Feeder].iter().map(|&format| usual.rendered(format).len()).sum();
    assert!(rendered <= usual.bytes() && usual.bytes() < 8192, "{rendered} of {}", usual.bytes());
}

/// The logs of KubeArmor's documentation (getting-started/kubearmor-events.md).
#[test]
fn logs_are_written_as_kubearmor_documents_them() {
    let vault = Log {
        timestamp: 1_686_475_183,
        updated_time: "2023-06-11T09:19:43.451704Z".to_owned(),
        cluster_name: "default".to_owned(),
        host_name: "aks-agentpool-16128849-vmss000000".to_owned(),
        namespace_name: "default".to_owned(),
        pod_name: "vault-0".to_owned(),
        container_name: "vault".to_owned(),
        parent_process_name: "/usr/bin/runc".to_owned(),
        process_name: "/bin/sh".to_owned(),
        host_ppid: 2_514_065,
        host_pid: 2_514_068,
        ppid: 2_514_065,
        pid: 3_552_620,
        uid: 100,
        r#type: "ContainerLog".to_owned(),
        source: "/usr/bin/runc".to_owned(),
        operation: "Process".to_owned(),
        resource: "/bin/sh -ec vault status -tls-skip-verify".to_owned(),
        data: "syscall=SYS_EXECVE".to_owned(),
        result: "Passed".to_owned(),
        ..Log::default()
    };
    let expected = r#"{"Timestamp":1686475183,"UpdatedTime":"2023-06-11T09:19:43.451704Z","ClusterName":"default","HostName":"aks-agentpool-16128849-vmss000000","NamespaceName":"default","PodName":"vault-0","ContainerName":"vault","ParentProcessName":"/usr/bin/runc","ProcessName":"/bin/sh","HostPPID":2514065,"HostPID":2514068,"PPID":2514065,"PID":3552620,"UID":100,"Type":"ContainerLog","Source":"/usr/bin/runc","Operation":"Process","Resource":"/bin/sh -ec vault status -tls-skip-verify","Data":"syscall=SYS_EXECVE","Result":"Passed"}"#;
    assert_eq!(String::from_utf8(line(&vault)).unwrap(), expected);
}
