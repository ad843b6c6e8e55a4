use super::*;

fn parse(text: &str) -> Result<Config, Error> {
    Config::parse(Path::new("config.yaml"), text.as_bytes())
}

#[test]
fn an_empty_file_is_the_default() {
    for text in ["", "---\n", "# nothing\n", "{}"] {
        assert_eq!(parse(text).unwrap(), Config::default(), "{text:?}");
    }
}

#[test]
fn every_field_is_read() {
    let text = "policyDir: /p\nstateDir: /s\nfailPolicy: permit\ndefaultPosture:\n  file: block\n  network: block\n  capabilities: audit\n";
    let config = parse(text).unwrap();
    assert_eq!(config.control_socket(), PathBuf::from("/s/agent.sock"));
    assert_eq!((config.policy_dir, config.state_dir), (PathBuf::from("/p"), PathBuf::from("/s")));
    assert_eq!(config.fail_policy, FailPolicy::Permit);
    assert_eq!(config.postures, Postures { file: Posture::Block, network: Posture::Block, capabilities: Posture::Audit });
}

#[test]
fn a_backend_is_chosen() {
    for (text, expected) in
        [("", BackendChoice::Auto), ("backend: bpf", BackendChoice::Bpf), ("backend: apparmor", BackendChoice::AppArmor)]
    {
        assert_eq!(parse(text).unwrap().backend, expected);
    }
}

#[test]
fn runtimes_are_named() {
    let text = "controlSocket: /c\nnri:\n  enabled: true\n  sockets:\n  - /run/a\n  - /run/b\n  hook: /h\n";
    let config = parse(text).unwrap();
    assert_eq!(config.control_socket(), PathBuf::from("/c"));
    assert_eq!((config.nri.enabled, config.nri.hook), (NriEnabled::Yes, PathBuf::from("/h")));
    assert_eq!(config.nri.sockets, [PathBuf::from("/run/a"), PathBuf::from("/run/b")]);
    assert_eq!(Config::default().nri.sockets, [PathBuf::from("/var/run/nri/nri.sock")]);
}

#[test]
fn errors_tell_the_place_and_the_fix() {
    for (text, expected) in [
        ("policyDir: here", "config.yaml:1:12: policyDir is `here`; write an absolute path"),
        ("backend: selinux", "config.yaml:1:10: backend is `selinux`; write auto, bpf or apparmor"),
        ("\nfailPolicy: maybe", "config.yaml:2:13: failPolicy is `maybe`; write enforce or permit"),
        ("defaultPosture:\n  files: audit", "config.yaml:2:10: there is no field `defaultPosture.files`"),
        (
            "failPolicy: [a]",
            "config.yaml:1:13: no field but nri.sockets, monitor.visibility, monitor.hostVisibility, monitor.namespaces.NAME is a list",
        ),
        ("nri:\n  sockets: [a]", "config.yaml:2:12: nri.sockets is `a`; write an absolute path"),
        ("nri:\n  sockets: /run/a", "config.yaml:2:12: nri.sockets is a list, like"),
        ("nri:\n  sockets: []", "config.yaml:2:12: nri.sockets is empty"),
        (
            "nri:\n  sockets: [[/a]]",
            "config.yaml:2:13: no field but nri.sockets, monitor.visibility, monitor.hostVisibility, monitor.namespaces.NAME is a list",
        ),
        ("nri:\n  sockets: [{a: b}]", "config.yaml:2:13: nri.sockets is a list of paths"),
        ("nri:\n  sockets: [/a]\n  sockets: [/b]", "config.yaml:3:12: nri.sockets is there twice"),
        ("nri:\n  enabled: perhaps", "config.yaml:2:12: nri.enabled is `perhaps`; write auto, true or false"),
        ("nri: on", "config.yaml:1:6: nri is a mapping"),
        ("failPolicy: permit\nfailPolicy: permit", "config.yaml:2:13: failPolicy is there twice"),
        ("hello", "config.yaml:1:1: the file is a mapping"),
        ("a: {b: [", "config.yaml:1:8"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{text:?}: {error}");
    }
}
