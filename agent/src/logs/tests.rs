use portcullis_policy::select::Owner;

use super::*;
use crate::fake::{executed, executed_with};

fn container() -> Container {
    Container {
        id: "4771ac3e9074".to_owned(),
        name: "vault".to_owned(),
        image: "vault:1.13".to_owned(),
        namespace: "default".to_owned(),
        pod: "vault-0".to_owned(),
        labels: "app=vault".to_owned(),
        owner: Some(Owner { kind: "StatefulSet".to_owned(), name: "vault".to_owned() }),
    }
}

fn text(log: &Log, format: Format) -> &str {
    std::str::from_utf8(log.rendered(format)).unwrap()
}

#[test]
fn our_line_says_who_executes_what() {
    let expected = r#"{"schema":"portcullis.process/1","time":"1970-01-01T00:00:00.000000Z","cpu":0,"sequence":5,"lostBefore":0,"operation":"exec","class":"process","container":{"id":"4771ac3e9074","name":"vault","image":"vault:1.13","namespace":"default"},"cgroup":99,"process":{"pid":7,"tid":7,"uid":33,"comm":"cat","nsPid":2,"exe":"/bin/cat","args":["cat","/etc/shadow"],"cwd":"/","execId":"30786325579728","parent":{"pid":6}}}"#;
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
    let decoded = kubearmor::Log::decode(log.rendered(Format::Feeder).clone()).unwrap();
    assert_eq!(String::from_utf8(kubearmor::json(&decoded)).unwrap(), expected);
}

#[test]
fn a_process_of_the_host_and_what_was_lost_are_told_as_such() {
    let log = executed_with(None, |event| {
        event.header.pid_ns = FIRST_PID_NS;
        event.lost_before = 3;
    });
    let told = kubearmor::Log::from(&log);
    assert_eq!((told.r#type.as_str(), told.namespace_name.as_str()), ("HostLog", ""));
    assert_eq!(told.event_data["LostBefore"], "3");
    let labelled = executed_with(None, |event| (event.header.pid_ns, event.header.slot) = (FIRST_PID_NS, 4));
    assert_eq!(kubearmor::Log::from(&labelled).r#type, "ContainerLog", "a container in the host's pid namespace");
}

#[test]
fn hostile_texts_stay_text_and_within_the_account() {
    for byte in [1, b'"', b'\\', 0xff, b'\n', b'a'] {
        let log = executed_with(Some(container()), |event| {
            event.args = [vec![byte; 2000], vec![0; 2000]].concat();
            event.exe = vec![byte; 4095];
            event.cwd = vec![byte; 4095];
            event.header.comm = [byte; 16];
        });
        let mut rendered = 0;
        for format in [Format::Line, Format::KubeArmor, Format::Feeder] {
            rendered += log.rendered(format).len();
            if format != Format::Feeder {
                assert!(log.rendered(format).iter().all(|&byte| byte >= b' '), "one line: {byte}");
                serde_json::from_slice::<serde_json::Value>(log.rendered(format)).unwrap();
            }
        }
        assert!(rendered <= log.bytes(), "{byte}: {rendered} of {}", log.bytes());
    }
    let usual = executed(Some(container())).bytes();
    assert!(usual < 8192, "{usual}");
}
