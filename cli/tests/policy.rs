//! `portcullis policy` as it is typed: what is on stdout, what is on stderr, and the exit code.

#![expect(clippy::unwrap_used, reason = "a test that can not go on has failed")]

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

const POLICY: &str = "\
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata:
  name: secrets
spec:
  selector:
    matchLabels:
      app: web
  file:
    matchPaths:
    - path: /etc/shadow
    - path: /run/token
      fromSource:
      - path: /usr/bin/app
      action: Audit
  action: Block
";

const EXPECTATIONS: &str = "\
policies: [secrets.yaml]
container: {name: web, labels: {app: web}}
cases:
- {name: shadow is secret, op: read, path: /etc/shadow, expect: block, rule: secrets}
- {name: the rest is not, op: read, path: /etc/passwd, expect: allow}
";

fn portcullis(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_portcullis")).current_dir(directory).args(arguments).output().unwrap()
}

fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn check_reports_each_rule_and_counts_them() {
    let directory = directory(&[("secrets.yaml", POLICY), ("secrets.test.yaml", EXPECTATIONS)]);
    let output = portcullis(directory.path(), &["policy", "check", "."]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("KubeArmorPolicy/secrets"), "{text}");
    assert!(text.contains("secrets.yaml:11: Block read and change /etc/shadow"), "{text}");
    assert!(text.contains("1 accepted, 0 refused"), "{text}");
}

#[test]
fn check_points_at_what_is_wrong_and_says_no() {
    let wrong = POLICY.replace("matchPaths", "matchPath");
    let directory = directory(&[("bad.yaml", &wrong), ("good.yaml", POLICY)]);
    let output = portcullis(directory.path(), &["policy", "check", "bad.yaml", "good.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("bad.yaml:10:5: spec.file.matchPath"), "{}", stderr(&output));
    assert!(stderr(&output).contains("did you mean `matchPaths`"), "{}", stderr(&output));
    assert!(stdout(&output).contains("1 accepted, 1 refused"), "one bad file hides no other: {}", stdout(&output));
}

#[test]
fn check_as_json_is_one_value_a_file() {
    let directory = directory(&[("secrets.yaml", POLICY)]);
    let output = portcullis(directory.path(), &["policy", "check", "secrets.yaml", "-o", "json"]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["policies"][0]["rules"].as_array().unwrap().len(), 2);
    assert_eq!(value["errors"].as_array().unwrap().len(), 0);
}

#[test]
fn check_tells_what_apparmor_makes_of_a_rule() {
    let directory = directory(&[("secrets.yaml", POLICY)]);
    let bpf = portcullis(directory.path(), &["policy", "check", "secrets.yaml"]);
    assert!(stdout(&bpf).contains("rules under bpf:") && !stdout(&bpf).contains("AppArmor"), "{}", stdout(&bpf));
    let apparmor = portcullis(directory.path(), &["policy", "check", "--backend", "apparmor", "secrets.yaml"]);
    assert_eq!(apparmor.status.code(), Some(0), "{}", stderr(&apparmor));
    let text = stdout(&apparmor);
    assert!(text.contains("rules under apparmor: 0 full, 2 partial, 0 not enforced"), "{text}");
    assert!(text.contains("no_new_privs"), "{text}");
    let json = portcullis(directory.path(), &["policy", "check", "--backend", "apparmor", "secrets.yaml", "-o", "json"]);
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&json.stdout).unwrap()["backend"], "apparmor");
}

#[test]
fn explain_names_the_line_that_decides() {
    let directory = directory(&[("secrets.yaml", POLICY)]);
    let ask = |rest: &[&str]| {
        let mut arguments = vec!["policy", "explain", "--policy", "secrets.yaml", "--label", "app=web"];
        arguments.extend(rest);
        stdout(&portcullis(directory.path(), &arguments))
    };
    let blocked = ask(&["read", "/etc/shadow"]);
    assert!(blocked.starts_with("block:") && blocked.contains("secrets.yaml:11  spec.file.matchPaths[0]"), "{blocked}");
    assert!(ask(&["read", "/run/token", "--from", "/usr/bin/app"]).starts_with("audit:"));
    assert!(ask(&["read", "/run/token", "--from", "/usr/bin/other"]).starts_with("allow:"));
    assert!(ask(&["socket", "tcp"]).starts_with("allow:"));
    let unselected = portcullis(directory.path(), &["policy", "explain", "--policy", "secrets.yaml", "read", "/etc/shadow"]);
    assert!(stdout(&unselected).starts_with("allow: no policy applies"), "{}", stdout(&unselected));
}

#[test]
fn explain_refuses_what_it_does_not_understand() {
    let directory = directory(&[("secrets.yaml", POLICY)]);
    for (operation, object) in [("read", "etc/shadow"), ("socket", "tpc"), ("capability", "net_rawer")] {
        let output = portcullis(directory.path(), &["policy", "explain", "--policy", "secrets.yaml", operation, object]);
        assert_eq!(output.status.code(), Some(1), "{object}");
        assert!(stderr(&output).contains(&format!("`{object}` is not")), "{}", stderr(&output));
    }
}

#[test]
fn test_runs_expectations_beside_their_policies() {
    let directory = directory(&[("secrets.yaml", POLICY), ("secrets.test.yaml", EXPECTATIONS)]);
    let output = portcullis(directory.path(), &["policy", "test", "."]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), "2 passed, 0 failed, 0 skipped\n");
}

#[test]
fn test_fails_when_a_policy_no_longer_does_what_was_expected() {
    let weaker = POLICY.replace("/etc/shadow", "/etc/gshadow");
    let directory = directory(&[("secrets.yaml", &weaker), ("secrets.test.yaml", EXPECTATIONS)]);
    let output = portcullis(directory.path(), &["policy", "test", "secrets.test.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("FAIL secrets.test.yaml:4: shadow is secret: expected block"), "{}", stdout(&output));
}

#[test]
fn nothing_to_test_is_no_success() {
    let directory = directory(&[("secrets.yaml", POLICY)]);
    let output = portcullis(directory.path(), &["policy", "test", "."]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("*.test.yaml"), "{}", stderr(&output));
}

#[test]
fn what_is_not_a_command_ends_with_2() {
    let directory = directory(&[]);
    assert_eq!(portcullis(directory.path(), &["polcy"]).status.code(), Some(2));
}

#[test]
fn completions_and_the_manual_are_generated() {
    let directory = directory(&[]);
    assert!(stdout(&portcullis(directory.path(), &["completions", "bash"])).contains("_portcullis"));
    assert!(stdout(&portcullis(directory.path(), &["man"])).contains(".TH portcullis"));
}
