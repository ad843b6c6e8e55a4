//! The hook files that are shipped fit the program that they start.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use portcullis_hook::args::{DEFAULT_DEADLINE, Precreate, Request, Stage, parse};

#[test]
fn shipped_hook_files_start_the_program_as_it_wants_to_be_started() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/hooks.d");
    for (stage, expected) in [("createRuntime", Stage::CreateRuntime), ("poststop", Stage::Poststop)] {
        let text = std::fs::read_to_string(dir.join(format!("portcullis-{stage}.json"))).unwrap();
        let file: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(file["version"], "1.0.0");
        assert_eq!(file["when"], serde_json::json!({"always": true}));
        assert_eq!(file["stages"], serde_json::json!([stage]));
        let hook = &file["hook"];
        assert!(Path::new(hook["path"].as_str().unwrap()).is_absolute());
        let arguments: Vec<&str> = hook["args"].as_array().unwrap().iter().map(|argument| argument.as_str().unwrap()).collect();
        assert_eq!(arguments[0], "portcullis-hook");
        let Request::Run(options) = parse(arguments[1..].iter().map(OsString::from)).unwrap() else {
            panic!("{arguments:?} runs nothing");
        };
        assert_eq!(options.stage, expected);
        // The hook's own deadline, and the grace for arming that has begun, come before the runtime's.
        assert!(Duration::from_secs(hook["timeout"].as_u64().unwrap()) > DEFAULT_DEADLINE + Duration::from_secs(1));
    }
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 3, "a hook file that no test knows");
}

/// CRI-O does not start with a stage that it does not know.
#[test]
fn the_hook_of_precreate_is_in_a_directory_of_its_own() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/podman-precreate");
    let text = std::fs::read_to_string(dir.join("portcullis-precreate.json")).unwrap();
    let file: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&file["version"], &file["stages"]), (&"1.0.0".into(), &serde_json::json!(["precreate"])));
    assert_eq!(file["when"], serde_json::json!({"always": true}));
    assert_eq!(file["hook"]["args"], serde_json::json!(["portcullis-hook", "precreate"]));
    let none = Precreate { config: None, fail_policy: None };
    assert_eq!(parse(["precreate".into()]).unwrap(), Request::Precreate(none));
    let podman = std::fs::read_to_string(dir.join("containers.conf")).unwrap();
    let manual = std::fs::read_to_string(dir.join("README.md")).unwrap();
    assert!(podman.contains("\"/etc/portcullis/podman-hooks.d\"") && manual.contains("/etc/portcullis/podman-hooks.d/"));
}
