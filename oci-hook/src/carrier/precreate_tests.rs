use std::io::Cursor;

use serde_json::{Value, json};

use super::*;
use crate::run::fixture::{ID, Machine, machine, recorder};
use portcullis_enforcer::apparmor::ProfileName;

fn bundle(machine: &Machine) -> PathBuf {
    machine.path(&format!("graph/overlay-containers/{ID}/userdata"))
}

/// As Podman writes it, with its cgroup by cgroupfs.
fn config(machine: &Machine) -> Value {
    json!({
        "root": { "path": machine.path("graph/overlay/layer/merged") },
        "annotations": { "io.container.manager": "libpod" },
        "process": { "args": ["sh"], "apparmorProfile": "containers-default" },
        "mounts": [{ "destination": CONTAINER_ENV, "source": format!("/run/s/overlay-containers/{ID}/userdata/.containerenv") }],
        "linux": { "cgroupsPath": format!("/libpod_parent/libpod-{ID}") },
    })
}

fn asked(machine: &Machine, directory: &Path, config: impl ToString) -> Filtered {
    filter(&machine.host, &*machine.enforcer, None, directory, Cursor::new(config.to_string().into_bytes()))
}

/// The configuration that comes of it.
fn labelled(machine: &Machine, directory: &Path, config: &Value) -> Value {
    match asked(machine, directory, config) {
        Filtered { answer: Answer::Config(bytes), lines } if lines.is_empty() => serde_json::from_slice(&bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn refusal(filtered: Filtered) -> String {
    assert_eq!(filtered.answer, Answer::Refused, "{:?}", filtered.lines);
    assert_eq!(filtered.lines.len(), 1);
    filtered.lines.concat()
}

#[test]
fn a_container_with_a_policy_gets_label_gate_and_note() {
    let machine = machine("{app: web}");
    let before = config(&machine);
    let after = labelled(&machine, Path::new("/home"), &before);
    assert_eq!(after["process"]["apparmorProfile"], format!("containers-default//&{}", ProfileName::of(ID)));
    assert_eq!(after["annotations"]["portcullis.io/carrier"], "precreate");
    assert_eq!(after["hooks"]["createRuntime"][0]["path"], "/opt/portcullis-hook");
    assert_eq!((&after["mounts"], &after["linux"], &after["root"]), (&before["mounts"], &before["linux"], &before["root"]));
    // The same once more is no other.
    assert_eq!(labelled(&machine, Path::new("/home"), &after), after);
}

#[test]
fn others_get_what_they_have_to_the_byte() {
    let machine = machine("{app: db}");
    let before = format!("  {}\n", config(&machine));
    let filtered = asked(&machine, Path::new("/home"), &before);
    assert_eq!(filtered, Filtered { answer: Answer::Config(before.into_bytes()), lines: Vec::new() });
}

#[test]
fn where_nothing_is_to_be_labelled_nothing_is_read() {
    let by_kernel_programs: fn(&mut Machine) = |machine| recorder(machine).by_kernel_programs = true;
    for change in [by_kernel_programs, |machine| recorder(machine).policies = None] {
        let mut machine = machine("{app: web}");
        change(&mut machine);
        let filtered = asked(&machine, Path::new("/"), "no configuration");
        assert_eq!(filtered, Filtered { answer: Answer::Same, lines: Vec::new() });
    }
}

#[test]
fn each_that_names_the_container_is_enough_and_all_have_to_agree() {
    let machine = machine("{app: web}");
    let mut by_systemd = config(&machine);
    by_systemd["linux"]["cgroupsPath"] = json!(format!("machine.slice:libpod:{ID}"));
    let mut split = config(&machine);
    split["linux"]["cgroupsPath"] = json!(format!("/system.slice/x.service/libpod-payload-{ID}"));
    let mut by_mount = config(&machine);
    by_mount["linux"] = json!({});
    for config in [by_systemd, split, by_mount] {
        assert_eq!(labelled(&machine, Path::new("/"), &config)["annotations"]["portcullis.io/carrier"], "precreate");
    }
    // Where the hook is run the root file system may be anywhere.
    let mut by_directory = config(&machine);
    (by_directory["linux"], by_directory["mounts"], by_directory["root"]) = (json!({}), json!([]), json!({ "path": "/srv" }));
    assert_eq!(labelled(&machine, &bundle(&machine), &by_directory)["annotations"]["portcullis.io/carrier"], "precreate");
    assert!(refusal(asked(&machine, Path::new("/"), &by_directory)).contains("but these say []"));

    let other = "0".repeat(ID.len());
    let told = refusal(asked(&machine, &PathBuf::from(format!("/s/overlay-containers/{other}/userdata")), config(&machine)));
    assert!(told.contains(&format!("but these say [\"{other}\", \"{ID}\"]")), "{told}");
    let mut elsewhere = config(&machine);
    elsewhere["root"]["path"] = json!("/srv/root");
    assert!(refusal(asked(&machine, Path::new("/"), elsewhere)).contains("is not beside its root file system"));
}

#[test]
fn what_is_no_configuration_is_refused_whatever_the_fail_policy_lets_through() {
    let mut machine = machine("{app: web}");
    let large = format!("{}{}", " ".repeat(usize::try_from(MAX_CONFIG_BYTES).unwrap()), config(&machine));
    for (text, message) in [
        (String::new(), "is not a configuration"),
        ("[]".to_owned(), "is not a configuration"),
        ("{".to_owned(), "is not a configuration"),
        ("{}".to_owned(), "but these say []"),
        ("[".repeat(100_000), "is not a configuration"),
        (large.clone(), "larger than 8388608 bytes"),
    ] {
        let told = refusal(asked(&machine, Path::new("/"), &text));
        assert!(told.starts_with("portcullis-hook: container of unknown id refused: ") && told.contains(message), "{told}");
    }
    recorder(&mut machine).permit = true;
    let mut odd = config(&machine);
    odd["hooks"] = json!(7);
    let filtered = asked(&machine, Path::new("/"), &odd);
    assert_eq!(filtered.answer, Answer::Config(odd.to_string().into_bytes()));
    assert!(filtered.lines[0].contains("WITHOUT PROTECTION"), "{:?}", filtered.lines);
    assert!(machine.enforcer.calls().iter().any(|call| call.starts_with("record 6a63")));
    // There is nothing to go on with.
    assert!(refusal(asked(&machine, Path::new("/"), large)).contains("larger than"));
}

#[test]
fn who_cannot_protect_refuses() {
    let mut rootless = machine("{app: web}");
    rootless.host.uid = 1000;
    assert!(refusal(asked(&rootless, Path::new("/"), config(&rootless))).contains("without root are not protected"));
    let mut damaged = machine("{app: web}");
    recorder(&mut damaged).policy_error = Some("no policies can be read");
    assert!(refusal(asked(&damaged, Path::new("/"), config(&damaged))).contains("no policies can be read"));
    let unnamed = machine("{app: web}");
    std::fs::remove_file(unnamed.path("graph/db.sql")).unwrap();
    assert!(refusal(asked(&unnamed, Path::new("/"), config(&unnamed))).contains("labels cannot be read"));
}
