use serde_json::{Value, json};

use super::*;
use crate::run::fixture::{ID, Machine, machine, recorder};

fn words(line: &str) -> Vec<OsString> {
    line.split_ascii_whitespace().map(OsString::from).collect()
}

fn bundle(machine: &Machine) -> PathBuf {
    machine.path(&format!("graph/overlay-containers/{ID}/userdata"))
}

fn create(machine: &Machine) -> Carried {
    carry(&machine.host, &*machine.enforcer, words(&format!("create --bundle {} --pid-file /p {ID}", bundle(machine).display())))
}

fn written(machine: &Machine) -> Value {
    serde_json::from_slice(&std::fs::read(bundle(machine).join(CONFIG)).unwrap()).unwrap()
}

const CONFIGURED: &str = r#"{"root":{"path":"/merged"},"annotations":{"io.container.manager":"libpod"},"process":{"args":["sh"],"cwd":"/w","env":["PATH=/a","PATH=/b"],"user":{"uid":3},"apparmorProfile":"containers-default"}}"#;

/// A container that a policy is for, under AppArmor.
fn selected() -> Machine {
    let machine = machine("{app: web}");
    machine.config(CONFIGURED);
    machine
}

#[test]
fn a_container_with_a_policy_gets_label_and_gate_and_others_nothing() {
    let machine = selected();
    let carried = create(&machine);
    let same = words(&format!("create --bundle {} --pid-file /p {ID}", bundle(&machine).display()));
    assert_eq!(carried, Carried { words: Some(same), lines: Vec::new() });
    let config = written(&machine);
    assert_eq!(config["process"]["apparmorProfile"], format!("containers-default//&{}", ProfileName::of(ID)));
    assert_eq!(config["hooks"]["createRuntime"][0]["path"], "/opt/portcullis-hook");
    assert_eq!(config["hooks"]["poststop"][0]["args"], json!(["portcullis-hook", "poststop"]));

    let other = machine_of_others();
    assert!(create(&other).words.is_some());
    assert_eq!(std::fs::read_to_string(bundle(&other).join(CONFIG)).unwrap(), CONFIGURED);
}

type Fault = fn(&mut Machine);

fn machine_of_others() -> Machine {
    let other = machine("{app: db}");
    other.config(CONFIGURED);
    other
}

#[test]
fn a_bundle_that_was_run_with_a_policy_loses_the_label_with_it() {
    let other = machine_of_others();
    other.config(&CONFIGURED.replace("containers-default", &format!("containers-default//&{}", ProfileName::of("before"))));
    assert!(create(&other).words.is_some());
    assert_eq!(written(&other)["process"]["apparmorProfile"], "containers-default");
}

#[test]
fn where_the_kernel_programs_enforce_nothing_is_touched() {
    let mut machine = selected();
    recorder(&mut machine).by_kernel_programs = true;
    recorder(&mut machine).policy_error = Some("nobody is to read them");
    for line in ["create --new-option c1", "start c1", "exec --new-option c1 sh"] {
        let carried = carry(&machine.host, &*machine.enforcer, words(line));
        assert_eq!(carried, Carried { words: Some(words(line)), lines: Vec::new() });
    }
    assert!(create(&machine).words.is_some());
    assert_eq!(std::fs::read_to_string(bundle(&machine).join(CONFIG)).unwrap(), CONFIGURED);
}

#[test]
fn what_cannot_be_carried_is_refused_and_under_permit_goes_on() {
    let break_it: [(&str, Fault); 5] = [
        ("is not an OCI configuration", |machine| machine.config("{")),
        ("has no process", |machine| machine.config(&CONFIGURED.replace("\"process\"", "\"x\""))),
        ("has hooks that are none", |machine| machine.config(&CONFIGURED.replace("\"process\"", "\"hooks\":7,\"process\""))),
        ("labels cannot be read", |machine| std::fs::remove_file(machine.path("graph/db.sql")).unwrap()),
        ("containers without root", |machine| machine.host.uid = 1000),
    ];
    for (message, break_it) in break_it {
        for permit in [false, true] {
            let mut machine = selected();
            recorder(&mut machine).permit = permit;
            break_it(&mut machine);
            let carried = create(&machine);
            assert_eq!(carried.words.is_some(), permit, "{message}");
            assert!(carried.lines[0].contains(message), "{message}: {carried:?}");
            assert_eq!(carried.lines[0].contains("WITHOUT PROTECTION"), permit);
            assert_eq!(machine.enforcer.calls().iter().any(|call| call.starts_with("record")), permit);
        }
    }
    let machine = selected();
    let restored = format!("restore --lsm-profile apparmor:x --bundle {} {ID}", bundle(&machine).display());
    assert!(carry(&machine.host, &*machine.enforcer, words(&restored)).words.is_none());
    assert!(carry(&machine.host, &*machine.enforcer, words("create --new-option c1")).words.is_none());
}

#[test]
fn an_init_without_its_label_does_not_go_on() {
    let mut machine = selected();
    assert!(carry(&machine.host, &*machine.enforcer, words(&format!("start {ID}"))).words.is_some());
    recorder(&mut machine).is_unconfined = true;
    let carried = carry(&machine.host, &*machine.enforcer, words(&format!("start {ID}")));
    assert!(carried.words.is_none() && carried.lines[0].ends_with("6a63 is not confined"), "{carried:?}");
}

/// A container that AppArmor confines, and the configuration of an execution in it.
fn running(process: &str) -> (Machine, PathBuf) {
    let mut machine = selected();
    create(&machine);
    let confined = (bundle(&machine), ProfileName::of(ID));
    recorder(&mut machine).confined = Some(confined);
    machine.write("process.json", process);
    let file = machine.path("process.json");
    (machine, file)
}

#[test]
fn an_execution_is_judged_and_gets_the_label() {
    let (mut machine, file) = running(r#"{"args":["ls"],"env":["PATH=/x"],"cwd":"/","apparmorProfile":"containers-default"}"#);
    let line = format!("exec --process {} {ID}", file.display());
    assert_eq!(carry(&machine.host, &*machine.enforcer, words(&line)).words, Some(words(&line)));
    let written: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(written["apparmorProfile"], format!("containers-default//&{}", ProfileName::of(ID)));
    assert!(machine.enforcer.calls().iter().any(|call| call.starts_with("judge")));

    // A denial is no failure that the operator chose to overlook.
    recorder(&mut machine).denied = Some("ls");
    recorder(&mut machine).permit = true;
    let carried = carry(&machine.host, &*machine.enforcer, words(&line));
    assert!(carried.words.is_none() && carried.lines[0].contains("permission denied: p (p.yaml:9)"), "{carried:?}");
}

#[test]
fn an_execution_by_hand_has_what_the_container_has() {
    let (machine, _) = running("{}");
    let line = format!("exec --apparmor=unconfined {ID} sh -c x");
    let carried = carry(&machine.host, &*machine.enforcer, words(&line));
    let expected = format!("exec --apparmor={} {ID} sh -c x", ProfileName::of(ID));
    assert_eq!(carried.words, Some(words(&expected)));
    let program = Program { name: b"sh".to_vec(), path: Some(b"/b".to_vec()), directory: b"/w".to_vec(), uid: 3 };
    assert!(machine.enforcer.calls().contains(&format!("judge {program:?}")), "{:?}", machine.enforcer.calls());
}

#[test]
fn the_runtime_is_the_one_that_the_name_says() {
    assert_eq!(runtime(OsStr::new("/opt/portcullis-sh")), installed("sh"));
    assert!(installed("sh").is_some());
    assert_eq!(runtime(OsStr::new("portcullis-no-such-runtime")), None);
    assert_eq!(runtime(OsStr::new("/x/portcullis-runtime")), installed("crun").or_else(|| installed("runc")));
}
