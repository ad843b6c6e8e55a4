//! The program itself: what a runtime sees of it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs the hook with a configuration that names an own policy directory and state directory.
fn hook(dir: &Path, arguments: &[&str], state: &str) -> Output {
    let config = dir.join("config.yaml");
    if !config.exists() {
        let text = format!("policyDir: {}\nstateDir: {}\n", dir.join("policies").display(), dir.join("state").display());
        std::fs::write(&config, text).unwrap();
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis-hook"))
        .arg("--config")
        .arg(&config)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // A hook that ends before it has read everything closes the pipe; runtimes live with that.
        scope.spawn(move || drop(input.write_all(state.as_bytes())));
        child.wait_with_output().unwrap()
    })
}

fn with_policy() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("policies")).unwrap();
    std::fs::write(
        dir.path().join("policies/p.yaml"),
        "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata:\n  name: p\nspec:\n  selector:\n    matchLabels:\n      \
         app: web\n  process:\n    matchPaths:\n    - path: /bin/sh\n  action: Block\n",
    )
    .unwrap();
    dir
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn usage_errors_are_two() {
    let dir = tempfile::tempdir().unwrap();
    let output = hook(dir.path(), &[], "");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stderr), "portcullis-hook: no stage given; see portcullis-hook --help\n");
    let output = hook(dir.path(), &["--help"], "");
    assert!(output.status.success() && text(&output.stdout).starts_with("Usage: portcullis-hook"));
}

#[test]
fn without_a_policy_directory_every_container_starts_and_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let output = hook(dir.path(), &["createRuntime"], r#"{"id":"c1","pid":1,"bundle":"/x"}"#);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
    assert!(!dir.path().join("state").exists());
    let output = hook(dir.path(), &["poststop"], r#"{"id":"c1","pid":0}"#);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
}

#[test]
fn with_policies_a_broken_state_refuses_with_one_line() {
    let dir = with_policy();
    for state in ["", "{", "null", "{\"id\":\"/\"}", "{\"id\":\"c1\",\"pid\":\"x\"}", &"[".repeat(100_000)] {
        let output = hook(dir.path(), &["createRuntime"], state);
        assert_eq!(output.status.code(), Some(1), "{state:.20}");
        let stderr = text(&output.stderr);
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.starts_with("portcullis-hook: container of unknown id refused: ") && output.stdout.is_empty(), "{stderr}");
    }
}

/// Where there is nothing to do, the configuration stays what it is, however long; where a policy might be for it, what is none is refused.
#[test]
fn precreate_gives_back_what_it_does_not_change() {
    let dir = tempfile::tempdir().unwrap();
    let long = format!("{}{{\"root\":{{\"path\":\"/x\"}}}}\n", " ".repeat(9 << 20));
    let output = hook(dir.path(), &["precreate"], &long);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), long.len()), "{}", text(&output.stderr));
    assert!(output.stdout == long.as_bytes());
    let dir = with_policy();
    std::fs::write(
        dir.path().join("config.yaml"),
        format!(
            "policyDir: {}\nstateDir: {}\nbackend: apparmor\n",
            dir.path().join("policies").display(),
            dir.path().join("state").display()
        ),
    )
    .unwrap();
    for config in ["", "{", "{}", &long] {
        let output = hook(dir.path(), &["precreate"], config);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{config:.20}: {stderr}");
        assert!(output.stdout.is_empty() && stderr.lines().count() == 1, "{stderr}");
        assert!(stderr.starts_with("portcullis-hook: container of unknown id refused: "), "{stderr}");
    }
}

#[test]
fn a_process_of_the_host_is_not_a_container() {
    let dir = with_policy();
    let pid = std::process::id();
    let output = hook(dir.path(), &["createRuntime"], &format!(r#"{{"id":"c1","pid":{pid},"bundle":"/x"}}"#));
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    let rootless = stderr.contains("containers without root are not protected");
    assert!(rootless || stderr.contains(&format!("process {pid} is in the runtime's own mount namespace")), "{stderr}");
}

#[test]
fn permit_is_loud_and_leaves_a_record() {
    let dir = with_policy();
    let output = hook(dir.path(), &["--fail-policy", "permit", "createRuntime"], r#"{"id":"c1","pid":0,"bundle":"/x"}"#);
    assert_eq!(output.status.code(), Some(0));
    let stderr = text(&output.stderr);
    assert!(
        stderr.starts_with("portcullis-hook: WARNING: container c1 starts WITHOUT PROTECTION, by fail policy permit: "),
        "{stderr}"
    );
    assert_eq!(stderr.lines().count(), 1);
    if !stderr.contains("containers without root") {
        assert!(!stderr.contains("no record"), "{stderr}");
    }
}
