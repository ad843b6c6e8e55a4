//! Expectation files: what is read, what is refused and how it is told.

use std::path::Path;

use portcullis_policy::Policy;
use portcullis_policy::decide::Verdict;
use portcullis_policy::expectation::{self, Expectation, FileKind, Op, Reason};

const POLICY: &str = "
policies:
  - apiVersion: security.kubearmor.com/v1
    kind: KubeArmorPolicy
    metadata: {name: p}
    spec:
      selector: {matchLabels: {app: test}}
      file: {matchPaths: [{path: /data/x}, {path: /bin/x}]}
      action: Block
";

fn parse(text: &str) -> Result<Vec<Expectation>, Vec<String>> {
    let read = expectation::parse(Path::new("e.yaml"), text.as_bytes());
    read.map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn errors(text: &str) -> String {
    parse(text).expect_err("it is refused").join("\n")
}

#[test]
fn every_field_is_read() {
    let text = "
name: all
policies: [a.yaml, sub/b.yaml]
container: {name: web, image: nginx, namespace: shop, labels: {app: web}, annotations: {a: b}}
postures: {file: Block, network: audit}
files:
  - {path: /bin, symlink: usr/bin}
  - {path: /x, kind: exe, owner: 1000, mode: \"0755\"}
cases:
  - {name: n, source: /opt/app, uid: 7, op: rename, path: /a, to: /b, expect: audit, rule: DefaultPosture, only: {model: why}}
  - {name: hex, op: read, pathHex: 2fff, expect: allow}
";
    let document = parse(text).expect("it is right").remove(0);
    assert_eq!((document.name.as_str(), document.line), ("all", 2));
    assert_eq!(document.policy_files, ["a.yaml", "sub/b.yaml"]);
    assert!(document.facts.orchestrated && document.facts.namespace == "shop" && document.facts.image == "nginx");
    assert_eq!(document.files[0].kind, FileKind::Symlink(b"usr/bin".to_vec()));
    assert_eq!((document.files[1].owner, document.files[1].mode), (1000, Some(0o755)));
    assert_eq!((document.cases[0].uid, document.cases[0].line), (7, 10));
    assert!(matches!(&document.cases[1].op, Op::File { path, .. } if path == b"/\xff"));
}

#[test]
fn every_mistake_is_told_at_its_place() {
    let text = "
polices: []
postures: {file: blok}
cases:
  - {name: a, op: raed, path: /x, expect: block}
  - {name: b, op: read, expect: block}
  - {name: c, op: read, path: x, expect: deny}
  - {name: d, op: socket, socket: {family: ipx4, type: stream}, expect: allow}
  - {name: e, op: capability, capability: sys_root, expect: allow}
  - {name: f, op: link, path: /a, expect: allow}
  - {name: f, op: memfd, expect: allow, only: kernel}
";
    let errors = errors(text);
    for told in [
        "e.yaml:2:1: there is no field `polices`; did you mean `policies`?",
        "e.yaml:3:18: postures.file: `blok` is not known here; did you mean `block`?",
        "e.yaml:5:19: cases[0].op: `raed` is not known here",
        "e.yaml:6:5: cases[1].path: it is missing",
        "e.yaml:7:31: cases[2].path: it is no absolute path",
        "cases[2].expect: `deny` is not known here",
        "cases[3].socket.family: `ipx4` is not known here",
        "cases[4].capability: `sys_root` is no capability",
        "cases[5].to: it is missing",
        "cases[6].only: this is a single value, and must be a mapping",
    ] {
        assert!(errors.contains(told), "{told}\nis not in\n{errors}");
    }
}

#[test]
fn a_mistake_in_an_inline_policy_is_told_at_its_line() {
    let text = POLICY.replace("matchPaths", "matchPath") + "cases: []\n";
    assert!(errors(&text).contains("e.yaml:8:"), "{}", errors(&text));
}

#[test]
fn a_file_that_expects_nothing_is_refused() {
    assert!(errors(POLICY).contains("cases: the document expects nothing"));
    assert!(errors("cases: [").contains("the YAML cannot be read"));
    assert!(expectation::parse(Path::new("e.yaml"), b"\xff").is_err());
}

#[test]
fn documents_of_a_file_stand_for_themselves() {
    let text = format!(
        "{POLICY}cases: [{{name: a, op: read, path: /data/x, expect: block}}]\n---\ncases: [{{name: a, op: read, path: /data/x, expect: allow}}]\n"
    );
    let documents = parse(&text).expect("it is right");
    assert_eq!(documents.len(), 2);
    assert_eq!(documents[1].name, "document 2");
    for mut document in documents {
        document.facts.labels.insert("app".into(), "test".into());
        let outcome = document.evaluate(&document.select(&[]), &document.cases[0]);
        assert_eq!(document.mismatch(&document.cases[0], &outcome), None);
    }
}

#[test]
fn loaded_policies_count_like_inline_ones_and_a_wrong_rule_is_a_mismatch() {
    let text = format!("{POLICY}cases: [{{name: a, op: read, path: /data/x, expect: block, rule: q}}]\n");
    let inline = parse(&text).expect("it is right").remove(0);
    let loaded: Vec<Policy> = inline.policies.clone();
    let mut document = Expectation { policies: Vec::new(), ..inline };
    document.facts.labels.insert("app".into(), "test".into());
    let outcome = document.evaluate(&document.select(&loaded), &document.cases[0]);
    assert_eq!(outcome.verdict, Verdict::Block);
    let mismatch = document.mismatch(&document.cases[0], &outcome).expect("another policy decides");
    assert!(mismatch.contains("expected `q` to decide, and `p` (e.yaml:8:"), "{mismatch}");
}

#[test]
fn a_new_name_that_denies_less_is_denied() {
    let text = "
container: {labels: {app: test}}
policies:
  - apiVersion: security.kubearmor.com/v1
    kind: KubeArmorPolicy
    metadata: {name: p}
    spec:
      selector: {matchLabels: {app: test}}
      process: {matchPaths: [{path: /opt/tool}]}
      action: Block
cases: [{name: a, op: link, path: /opt/tool, to: /opt/loot, expect: block}]
";
    let document = parse(text).expect("it is right").remove(0);
    let outcome = document.evaluate(&document.select(&[]), &document.cases[0]);
    assert_eq!((outcome.verdict, outcome.reason), (Verdict::Block, Reason::Alias));
}

#[test]
fn links_that_lead_in_a_circle_end() {
    let text = format!(
        "{POLICY}files: [{{path: /a, symlink: b}}, {{path: /b, symlink: a}}]\ncases: [{{name: a, op: read, path: /a/x, expect: allow}}]\n"
    );
    let document = parse(&text).expect("it is right").remove(0);
    assert_eq!(document.evaluate(&document.select(&[]), &document.cases[0]).verdict, Verdict::Allow);
}
