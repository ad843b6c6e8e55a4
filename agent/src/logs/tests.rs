use portcullis_ebpf::abi::op;
use portcullis_policy::select::Owner;

use super::*;
use crate::fake::{access, accessed, executed, executed_with, repeated};

fn container() -> Container {
    Container {
        id: "4771ac3e9074".to_owned(),
        name: "vault".to_owned(),
        image: "vault:1.13".to_owned(),
        namespace: "default".to_owned(),
        pod: "vault-0".to_owned(),
        labels: "app=vault".to_owned(),
        owner: Some(Owner { kind: "StatefulSet".to_owned(), name: "vault".to_owned() }),
        visibility: None,
    }
}

fn text(log: &Log, format: Format) -> String {
    String::from_utf8(log.rendered(format).to_vec()).unwrap()
}

#[test]
fn our_line_says_who_executes_what() {
    let expected = r#"{"schema":"portcullis.process/1","time":"1970-01-01T00:00:00.000000Z","id":"p-0-7d0-0-5","latencyUs":1000,"cpu":0,"sequence":5,"lostBefore":0,"operation":"exec","class":"process","container":{"id":"4771ac3e9074","name":"vault","image":"vault:1.13","namespace":"default"},"cgroup":99,"process":{"pid":7,"tid":7,"uid":33,"comm":"cat","nsPid":2,"exe":"/bin/cat","args":["cat","/etc/shadow"],"cwd":"/","execId":"30786325579728","parent":{"pid":6}}}"#;
    assert_eq!(text(&executed(Some(container())), Format::Line), expected);
    assert!(
        text(&executed(None), Format::Line).contains(r#""container":null,"cgroup":99,"#),
        "nobody's, as far as anybody knows"
    );
}

/// In the shape of the logs of KubeArmor's documentation (getting-started/kubearmor-events.md).
#[test]
fn kubearmors_log_says_the_same_in_its_words() {
    let expected = r#"{"UpdatedTime":"1970-01-01T00:00:00.000000Z","NamespaceName":"default","Owner":{"Ref":"StatefulSet","Name":"vault","Namespace":"default"},"PodName":"vault-0","Labels":"app=vault","ContainerID":"4771ac3e9074","ContainerName":"vault","ContainerImage":"vault:1.13","ProcessName":"/bin/cat","HostPPID":6,"HostPID":7,"PPID":0,"PID":2,"UID":33,"Type":"ContainerLog","Operation":"Process","Resource":"/bin/cat /etc/shadow","Data":"syscall=SYS_EXECVE","EventData":{"Syscall":"SYS_EXECVE"},"Result":"Passed","Cwd":"/","ExecEvent":{"ExecID":"30786325579728","ExecutableName":"cat"}}"#;
    let log = executed(Some(container()));
    assert_eq!(text(&log, Format::KubeArmor), expected);
    let decoded = kubearmor::Log::decode(log.rendered(Format::Feeder)).unwrap();
    assert_eq!(String::from_utf8(json::line(&decoded)).unwrap(), expected);
}

#[test]
fn a_process_of_the_host_and_what_was_lost_are_told_as_such() {
    let log = executed_with(None, |event| {
        (event.header.pid_ns, event.header.uid) = (FIRST_PID_NS, 0);
        event.lost_before = 3;
    });
    let told = kubearmor::Log::from(&log);
    assert_eq!((told.r#type.as_str(), told.namespace_name.as_str()), ("HostLog", ""));
    assert_eq!((told.event_data["LostBefore"].as_str(), told.user_name), ("3", "root".to_owned()));
    let of_nobody = kubearmor::Log::from(&executed_with(None, |_| {}));
    assert_eq!(of_nobody.r#type, "HostLog", "a pid namespace makes no container that anybody knows");
    let labelled = executed_with(None, |event| (event.header.pid_ns, event.header.slot) = (FIRST_PID_NS, 4));
    assert_eq!(kubearmor::Log::from(&labelled).r#type, "ContainerLog", "a container in the host's pid namespace");
}

#[test]
fn a_program_that_is_in_memory_alone_is_told_by_what_it_was_called() {
    let log = executed_with(None, |event| {
        event.exe = b"/memfd:payload".to_vec();
        event.header.exe_flags = abi::PATH_OUTSIDE | abi::PATH_INTERNAL;
    });
    let told = kubearmor::Log::from(&log);
    assert_eq!((told.process_name.as_str(), told.resource.as_str()), ("memfd:payload", "memfd:payload /etc/shadow"));
    assert!(text(&log, Format::Line).contains(r#""exe":"/memfd:payload","exeFlags":["outside","nameless"]"#));
    let elsewhere = executed_with(None, |event| event.header.exe_flags = abi::PATH_OUTSIDE);
    assert_eq!(kubearmor::Log::from(&elsewhere).process_name, "", "that is another path than the one that leads there");
}

#[test]
fn hostile_texts_stay_text_and_within_the_account() {
    for byte in [1, b'"', b'\\', 0xff, b'\n', b'a'] {
        let mut log = executed_with(Some(container()), |event| {
            event.args = [vec![byte; 2000], vec![0; 2000]].concat();
            event.exe = vec![byte; 4095];
            event.cwd = vec![byte; 4095];
            event.header.comm = [byte; 16];
        });
        log.share();
        let mut rendered = 0;
        for format in [Format::Line, Format::KubeArmor, Format::Feeder] {
            rendered += log.rendered(format).len();
            if format != Format::Feeder {
                assert!(log.rendered(format).iter().all(|&byte| byte >= b' '), "one line: {byte}");
                serde_json::from_slice::<serde_json::Value>(&log.rendered(format)).unwrap();
            }
        }
        assert!(rendered <= log.bytes(), "{byte}: {rendered} of {}", log.bytes());
    }
    let usual = executed(Some(container())).bytes();
    assert!(usual < 1024, "{usual}");
}

#[test]
fn our_line_says_who_opened_what_and_what_came_of_it() {
    let mut event = access(op::READ, b"/etc/shadow");
    event.header.arg = [0o2_000_000, 0, 0];
    let expected = r#"{"schema":"portcullis.access/1","time":"1970-01-01T00:00:00.000000Z","id":"x-0-834-0-9","latencyUs":1000,"cpu":0,"sequence":9,"lostBefore":0,"operation":"read","class":"file","verdict":"passed","object":"/etc/shadow","flags":"O_RDONLY|O_CLOEXEC","repeats":0,"container":{"id":"4771ac3e9074","name":"vault","image":"vault:1.13","namespace":"default"},"cgroup":99,"process":{"pid":7,"tid":7,"uid":33,"comm":"cat","nsPid":2,"exe":"/bin/cat","args":["cat","/etc/shadow"],"cwd":"/","execId":"30786325579728","parent":{"pid":6}}}"#;
    assert_eq!(text(&accessed(Some(container()), &event), Format::Line), expected);
    (event.header.result, event.header.repeats, event.lost_before) = (13, 41, 3);
    let denied = expected
        .replace(r#""verdict":"passed""#, r#""verdict":"denied","errno":"EACCES""#)
        .replace(r#""repeats":0"#, r#""repeats":41"#)
        .replace(r#""lostBefore":0"#, r#""lostBefore":3"#);
    assert_eq!(text(&accessed(Some(container()), &event), Format::Line), denied);
    let repeats = denied
        .replace(r#""id":"x-0-834-0-9","latencyUs":1000,"cpu":0,"sequence":9,"#, "")
        .replace(r#""repeats":41"#, r#""repeats":41,"repeatsOf":{"cpu":0,"sequence":9}"#);
    assert_eq!(text(&repeated(Some(container()), &event), Format::Line), repeats);
}

/// What an access tells besides who did it.
fn told(event: &AccessEvent) -> serde_json::Value {
    let mut line: serde_json::Value = serde_json::from_str(&text(&accessed(None, event), Format::Line)).unwrap();
    let fields = line.as_object_mut().unwrap();
    for who in ["schema", "time", "id", "latencyUs", "cpu", "sequence", "lostBefore", "container", "cgroup", "process", "repeats"]
    {
        assert!(fields.remove(who).is_some(), "{who}");
    }
    line
}

#[test]
fn each_operation_tells_what_it_has() {
    use serde_json::json;
    let file = |op, arg, more: serde_json::Value| {
        let mut event = access(op, b"/a");
        event.header.arg = arg;
        let mut expected = json!({"class": "file", "verdict": "passed", "object": "/a"});
        expected.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(told(&event), expected);
    };
    file(op::WRITE, [0o1101, 0, 0], json!({"operation": "write", "flags": "O_WRONLY|O_CREAT|O_TRUNC"}));
    file(op::CREATE, [0o100_644, 0, 0], json!({"operation": "create", "mode": "0100644"}));
    file(op::MKNOD, [0o020_600, 0x103, 0], json!({"operation": "mknod", "mode": "020600", "device": "1:3"}));
    file(op::MKNOD, [0o010_600, 0, 0], json!({"operation": "mknod", "mode": "010600"}));
    file(op::MKDIR, [0o755, 0, 0], json!({"operation": "mkdir", "mode": "0755"}));
    file(op::CHMOD, [0o4755, 0, 0], json!({"operation": "chmod", "mode": "04755"}));
    file(op::CHOWN, [1000, u32::MAX, 0], json!({"operation": "chown", "user": 1000}));
    file(op::UNLINK, [0; 3], json!({"operation": "unlink"}));
    file(op::TRUNCATE, [0; 3], json!({"operation": "truncate"}));
    let mut rename = access(op::RENAME, b"/a");
    rename.second = b"/b".to_vec();
    (rename.header.arg, rename.header.path_flags, rename.header.second_flags) = ([1, 0, 0], 0x2, 0x4);
    let expected = json!({"class": "file", "operation": "rename", "verdict": "passed", "object": "/a", "objectFlags": ["outside"],
        "secondObject": "/b", "secondObjectFlags": ["unlinked"], "flags": "RENAME_NOREPLACE"});
    assert_eq!(told(&rename), expected);
    let mut capable = access(op::CAPABLE, b"");
    (capable.header.arg, capable.header.result) = ([13, 0, 0], 1);
    let expected =
        json!({"class": "capability", "operation": "capable", "verdict": "denied", "errno": "EPERM", "object": "net_raw"});
    assert_eq!(told(&capable), expected);
}

#[test]
fn sockets_tell_their_kind_and_their_address() {
    use serde_json::json;
    let socket = |arg, address: &[u8]| {
        let mut event = access(op::CONNECT, b"");
        (event.header.arg, event.address) = (arg, address.to_vec());
        told(&event)
    };
    let (inet, unix) = (2u16.to_ne_bytes(), 1u16.to_ne_bytes());
    let expected = json!({"class": "network", "operation": "connect", "verdict": "passed", "object": "10.0.0.10:53",
        "address": "10.0.0.10", "port": 53, "family": "AF_INET", "type": "SOCK_DGRAM", "protocol": "UDP"});
    assert_eq!(socket([2, 2, 17], &[&inet[..], &[0, 53, 10, 0, 0, 10]].concat()), expected);
    let expected = json!({"class": "network", "operation": "connect", "verdict": "passed", "object": "@bus\0x",
        "family": "AF_UNIX", "type": "SOCK_STREAM", "protocol": "0"});
    assert_eq!(socket([1, 1, 0], &[&unix[..], b"\0bus\0x"].concat()), expected);
    assert_eq!(socket([1, 1, 0], &[&unix[..], b"/run/bus\0x"].concat())["object"], "/run/bus");
    assert!(socket([1, 1, 0], &unix).get("object").is_none(), "it has no name");
    assert!(socket([16, 3, 0], &[&16u16.to_ne_bytes()[..], &[0; 10]].concat()).get("object").is_none());
    assert!(socket([2, 1, 6], &[&inet[..], &[0]].concat()).get("object").is_none(), "cut short");
}

/// In the shape of the logs of KubeArmor's documentation (getting-started/kubearmor-events.md), but for what is known here besides.
#[test]
fn kubearmors_logs_of_accesses_are_those_of_its_documentation() {
    let words = |event: &AccessEvent| {
        let log = accessed(Some(container()), event);
        let told = kubearmor::Log::from(&log);
        assert_eq!(kubearmor::Log::decode(log.rendered(Format::Feeder)).unwrap(), told);
        assert_eq!((told.source.as_str(), told.process_name.as_str()), ("/bin/cat /etc/shadow", "/bin/cat"));
        (told.operation, told.resource, told.data, told.result)
    };
    let is = |operation: &str, resource: &str, data: &str, result: &str| {
        (operation.to_owned(), resource.to_owned(), data.to_owned(), result.to_owned())
    };
    let token = "/var/run/secrets/kubernetes.io/serviceaccount/token";
    let mut file = access(op::READ, token.as_bytes());
    file.header.arg[0] = 0o2_000_000;
    assert_eq!(words(&file), is("File", token, "syscall=SYS_OPENAT fd=-100 flags=O_RDONLY|O_CLOEXEC", "Passed"));
    file.header.op = op::UNLINK;
    file.header.result = 13;
    assert_eq!(words(&file), is("File", token, "syscall=SYS_UNLINKAT flags=", "Permission denied"));
    (file.header.op, file.header.arg) = (op::CHOWN, [0, u32::MAX, 0]);
    assert_eq!(words(&file).2, "syscall=SYS_CHOWN userid=0 group=-1");
    (file.header.op, file.header.arg, file.header.result) = (op::MKDIR, [0o755, 0, 0], 200);
    assert_eq!(words(&file), is("File", token, "lsm=FILE_MKDIR mode=0755", "Unknown (-200)"));
    let mut socket = access(op::CONNECT, b"");
    (socket.header.arg, socket.address) = ([2, 2, 17], [&2u16.to_ne_bytes()[..], &[0, 53, 10, 0, 0, 10]].concat());
    assert_eq!(
        words(&socket),
        is("Network", "sa_family=AF_INET sin_port=53 sin_addr=10.0.0.10", "syscall=SYS_CONNECT", "Passed")
    );
    (socket.header.op, socket.header.arg, socket.address) = (op::SOCKET, [1, 1, 0], Vec::new());
    assert_eq!(words(&socket), is("Network", "domain=AF_UNIX type=SOCK_STREAM protocol=0", "syscall=SYS_SOCKET", "Passed"));
    let mut capable = access(op::CAPABLE, b"");
    (capable.header.arg[0], capable.header.result) = (13, 1);
    assert_eq!(words(&capable), is("Capabilities", "CAP_NET_RAW", "lsm=CAPABLE CAP_NET_RAW", "Operation not permitted"));
    capable.header.arg[0] = 99;
    assert_eq!(words(&capable).1, "99");
}

#[test]
fn kubearmors_event_data_are_pairs_whatever_is_in_them() {
    let data = |log: &Log| {
        let pairs = kubearmor::Log::from(log).event_data.into_iter().map(|(name, value)| format!("{name}={value}"));
        pairs.collect::<Vec<_>>().join(";")
    };
    let mut file = access(op::READ, b"/etc/hosts");
    (file.header.repeats, file.lost_before) = (4, 3);
    assert_eq!(data(&accessed(None, &file)), "Fd=-100;Flags=O_RDONLY;LostBefore=3;Repeats=4;Syscall=SYS_OPENAT");
    file.lost_before = 0;
    assert_eq!(data(&repeated(None, &file)), "Fd=-100;Flags=O_RDONLY;Repeats=3;Syscall=SYS_OPENAT", "three besides this one");
    let mut socket = access(op::BIND, b"");
    (socket.header.arg, socket.address) = ([1, 1, 0], [&1u16.to_ne_bytes()[..], b"/run/a b=c"].concat());
    assert_eq!(data(&accessed(None, &socket)), "Sa_family=AF_UNIX;Sun_path=/run/a b=c;Syscall=SYS_BIND");
    let mut link = access(op::LINK, b"/a");
    link.second = b"/b".to_vec();
    assert_eq!(data(&accessed(None, &link)), "Lsm=FILE_LINK;SecondResource=/b");
}

#[test]
fn hostile_paths_of_accesses_stay_text_and_within_the_account() {
    for byte in [1, b'"', b'\\', 0xff, b'\n', b'a'] {
        for operation in [op::RENAME, op::READ] {
            let mut event = access(operation, &[byte; 4095]);
            event.second = if operation == op::RENAME { vec![byte; 4095] } else { Vec::new() };
            (event.header.arg, event.header.path_flags, event.header.comm) = ([u32::MAX; 3], 0x1f, [byte; 16]);
            let mut log = accessed(Some(container()), &event);
            let own = log.bytes();
            assert!(own >= event.path.len() + event.second.len(), "{own}");
            log.share();
            let mut rendered = 0;
            for format in [Format::Line, Format::KubeArmor, Format::Feeder] {
                rendered += log.rendered(format).len();
                if format != Format::Feeder {
                    assert!(log.rendered(format).iter().all(|&byte| byte >= b' '), "one line: {byte}");
                    serde_json::from_slice::<serde_json::Value>(&log.rendered(format)).unwrap();
                }
            }
            assert!(rendered <= log.bytes() - own, "{byte}: {rendered} of {}", log.bytes());
        }
    }
    let usual = accessed(Some(container()), &access(op::READ, b"/etc/hosts")).bytes();
    assert!(usual < 1024, "{usual}");
}
