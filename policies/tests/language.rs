//! What documents mean, and what is said about those that mean nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use portcullis_policy::decide::{Cause, Operation, Subject, Verdict, decide};
use portcullis_policy::meaning::{Action, Class, Location, Object, Posture, Postures, Rule, RuleSet};
use portcullis_policy::policy::NOBODY;
use portcullis_policy::yaml::{MAX_ALIASED_NODES, MAX_DEPTH, MAX_DOCUMENTS, MAX_FILE_BYTES, MAX_NODES, MAX_STRING_BYTES};
use portcullis_policy::{Backend, Options, Parsed, Policy, Support, parse, report};

fn read(text: &str) -> Parsed {
    parse(Path::new("p.yaml"), text, Options::default())
}

fn policy(text: &str) -> Policy {
    let parsed = read(text);
    let errors: Vec<String> = parsed.errors().map(ToString::to_string).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    assert_eq!(parsed.documents.len(), 1);
    parsed.policies().next().unwrap().clone()
}

/// Every error, as it is printed, without the file.
fn errors(text: &str) -> Vec<String> {
    let parsed = read(text);
    parsed.errors().map(|error| error.to_string().trim_start_matches("p.yaml:").to_owned()).collect()
}

/// A KubeArmorPolicy whose spec is `spec`, starting in line 5 of the file.
fn ksp(spec: &str) -> String {
    let head = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {name: test}\nspec:\n";
    spec.lines().fold(head.to_owned(), |text, line| format!("{text}  {line}\n"))
}

fn rule(spec: &str) -> Rule {
    let policy = policy(&ksp(spec));
    assert_eq!(policy.rules.len(), 1, "{:#?}", policy.rules);
    Rule::clone(&policy.rules[0])
}

#[test]
fn a_rule_inherits_from_its_section_and_then_from_the_spec() {
    let policy = policy(&ksp(
        "severity: 1\ntags: [spec]\nmessage: spec\naction: audit\nprocess:\n  severity: 2\n  action: ALLOW\n  matchPaths:\n  - path: /a\n  - path: /b\n    severity: 3\n    tags: [rule]\n    message: rule\n    action: Block\nfile:\n  matchPaths:\n  - path: /c",
    ));
    let says = |index: usize| {
        let rule = &policy.rules[index];
        (rule.severity, rule.tags.join(","), rule.message.as_str(), rule.action)
    };
    assert_eq!(says(0), (2, "spec".to_owned(), "spec", Action::Allow));
    assert_eq!(says(1), (3, "rule".to_owned(), "rule", Action::Block));
    assert_eq!(says(2), (1, "spec".to_owned(), "spec", Action::Audit));
    assert_eq!(policy.rules[1].origin.field, "spec.process.matchPaths[1]");
    assert_eq!((policy.rules[1].origin.line, policy.rules[1].origin.column), (14, 7));
}

#[test]
fn a_missing_action_is_block_and_a_missing_severity_is_none() {
    let rule = rule("file:\n  matchPaths:\n  - path: /a");
    assert_eq!((rule.action, rule.severity, rule.class), (Action::Block, 0, Class::File));
}

#[test]
fn objects_are_normalised() {
    let directory = |dir: &str, recursive| Object::Directory { dir: dir.as_bytes().to_vec(), recursive };
    assert_eq!(rule("file:\n  matchDirectories:\n  - dir: /").objects, [directory("", false)]);
    assert_eq!(rule("file:\n  matchDirectories:\n  - {dir: //etc//ssl/, recursive: yes}").objects, [directory("/etc/ssl", true)]);
    assert_eq!(rule("process:\n  matchPaths:\n  - path: '/usr/bin/\\*'").objects, [Object::Path(b"/usr/bin/*".to_vec())]);
    assert_eq!(rule("process:\n  matchPaths:\n  - path: /usr/bin/[").objects, [Object::Path(b"/usr/bin/[".to_vec())]);
    assert_eq!(rule("process:\n  matchPaths:\n  - execname: nc").objects, [Object::ExecName(b"nc".to_vec())]);
    assert_eq!(
        rule("file:\n  matchPaths:\n  - {path: /a, ownerOnly: true, readOnly: true, fromSource: [{path: /b//c}, {path: /d}]}")
            .sources,
        [Location::Path(b"/b/c".to_vec()), Location::Path(b"/d".to_vec())]
    );
}

#[test]
fn comma_lists_are_one_rule_with_several_objects() {
    assert_eq!(rule("network:\n  matchProtocols:\n  - protocol: TCP, udp,tcp").objects.len(), 2);
    assert_eq!(rule("capabilities:\n  matchCapabilities:\n  - capability: net_raw,CAP_SYS_ADMIN").objects.len(), 2);
}

#[test]
fn every_error_of_a_document_is_reported_with_its_place_and_a_fix() {
    let found = errors(&ksp(
        "severity: 11\naction: Deny\nselector: {app: web}\nprocess:\n  matchPath:\n  - path: /a\n  matchPaths:\n  - path: ls\n  - {}\nfile:\n  matchDirectories:\n  - dir: /etc\n  - dir: /home/*/\n    recursive: \"true\"\nnetwork:\n  matchProtocols:\n  - protocol: tpc\ncapabilities:\n  matchCapabilities:\n  - capability: net_rw\nsyscalls:\n  matchSyscalls:\n  - syscall: [unlinkk]\npresets:\n- name: protectEnvs",
    ));
    let expected = [
        "5:13: spec.severity: 11 is out of range; write a whole number from 1 to 10, without quotes",
        "6:11: spec.action: `Deny` is no action; did you mean `Block`? The actions are `Allow`, `Audit` and `Block`",
        "7:14: spec.selector.app: `spec.selector` has no field `app`; indent it, so that it stands in `matchLabels`: `spec.selector.matchLabels.app`",
        "9:5: spec.process.matchPath: `spec.process` has no field `matchPath`; did you mean `matchPaths`?",
        "12:13: spec.process.matchPaths[0].path: the path does not begin with `/`; write the absolute path, or `execname: ls` for an executable of that name anywhere",
        "13:7: spec.process.matchPaths[1]: `path` is missing; write `path: /…`, or `execname: …`",
        "16:12: spec.file.matchDirectories[0].dir: the directory does not end with `/`; write `/etc/`; for a single file use `matchPaths` with `path: /etc`",
        "17:12: spec.file.matchDirectories[1].dir: the path has a glob, `*`, and would be taken literally; use `matchPatterns` with `pattern: /home/*/*`; if the characters are part of the name, write `/home/\\*/`",
        "18:18: spec.file.matchDirectories[1].recursive: `true` is not a boolean; write `true` or `false`, without quotes",
        "21:17: spec.network.matchProtocols[0].protocol: `tpc` is no protocol; ",
        "24:19: spec.capabilities.matchCapabilities[0].capability: `net_rw` is no capability; did you mean `net_raw`?",
        "27:16: spec.syscalls.matchSyscalls[0].syscall: `unlinkk` is no system call of x86-64; did you mean `unlink`?",
        "29:11: spec.presets[0].name: `protectEnvs` is no preset; did you mean `protectEnv`?",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "found    {found}\nexpected {expected}");
    }
}

#[test]
fn an_unknown_field_is_a_warning_when_lenient_or_empty() {
    let text = ksp("selector: {matchLabels: {a: b}}\nfile:\n  matchPath: []\n  matchPaths: [{path: /a}]");
    assert_eq!(errors(&text).len(), 1);
    let lenient = parse(Path::new("p.yaml"), &text, Options { lenient: true });
    assert_eq!((lenient.policies().count(), lenient.warnings.len()), (1, 1));
    let selector = parse(Path::new("p.yaml"), text.replace("matchLabels:", "labels:"), Options { lenient: true });
    assert_eq!(selector.policies().count(), 0, "it would select more than was meant");
    let empty = read(&text.replace("matchPath: []", "matchPath:"));
    assert_eq!((empty.policies().count(), empty.warnings.len()), (1, 1));
}

#[test]
fn misplaced_heads_are_told_where_they_belong() {
    let found = errors(
        "Version: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\nmetadata: {name: Bad_Name}\nspec: {selector: {matchLabels: {a: b}}}\n",
    );
    assert_eq!(found.len(), 4, "{found:#?}");
    assert!(found[0].ends_with("did you mean `apiVersion`?"));
    assert!(found[1].ends_with("such as `bad-name`"));
    assert!(found.iter().any(|error| error.contains("use `nodeSelector.matchLabels`")));
    assert!(
        errors("kind: KubeArmorPolcy\napiVersion: security.kubearmor.com/v1\n")[0].contains("did you mean `KubeArmorPolicy`?")
    );
}

#[test]
fn what_is_not_enforced_is_reported_and_not_a_rule() {
    let policy = policy(&ksp(
        "apparmor: |\n  deny /x rw,\npresets: [{name: exec}]\nsyscalls: {matchPaths: [{syscall: [read], path: /a}]}\nnetwork: {matchDNSQueries: [{domain: example.com}]}\nprocess: {matchPaths: [{path: /a, allowedArgs: [-x]}, {path: /b, pts: false}, {path: /c, pts: true}]}",
    ));
    let features: Vec<&str> = policy.unenforced.iter().map(|left_out| left_out.feature).collect();
    assert_eq!(features, ["allowedArgs", "pts", "matchDNSQueries", "syscalls", "presets", "apparmor"]);
    assert_eq!(policy.rules.len(), 1, "only /c, which is not limited");
    let reports = report(&policy, Backend::Bpf);
    assert_eq!(reports.len(), 7);
    assert_eq!(reports.iter().filter(|r| r.support == Support::Full).count(), 1);
}

#[test]
fn rules_on_system_calls_are_one_object_for_each_call() {
    let call = |name: &str, at| Object::Syscall { call: name.parse().unwrap(), at };
    let named = rule(
        "syscalls:\n  matchSyscalls:\n  - {syscall: [unlink, rmdir, unlink], fromSource: [{path: /a}, {dir: /b/, recursive: true}]}",
    );
    assert_eq!((named.class, &named.objects[..]), (Class::Syscall, &[call("unlink", None), call("rmdir", None)][..]));
    let below = Location::Directory { dir: b"/b".to_vec(), recursive: true };
    assert_eq!(named.sources, [Location::Path(b"/a".to_vec()), below.clone()]);
    let at = |path: &str| rule(&format!("syscalls:\n  matchPaths:\n  - {{syscall: [open], {path}}}")).objects;
    assert_eq!(at("path: /b/c"), [call("open", Some(Location::Path(b"/b/c".to_vec())))]);
    assert_eq!(at("path: /b/, recursive: true"), [call("open", Some(below.clone()))]);
    let entries = Location::Directory { dir: b"/b".to_vec(), recursive: false };
    assert_eq!(at("path: /b/"), [call("open", Some(entries))]);
    let text = ksp("syscalls: {matchPaths: [{syscall: [open], path: /b, recursive: true}]}");
    let warnings = read(&text).warnings;
    assert!(warnings.iter().any(|warning| warning.help.contains("taken as the directory `/b/`")), "{warnings:#?}");
    assert_eq!(policy(&text).rules[0].objects, [call("open", Some(below))]);
    assert!(errors(&ksp("syscalls: {matchPaths: [{syscall: [open], path: b}]}"))[0].contains("does not begin with `/`"));
    assert!(errors(&ksp("syscalls: {matchSyscalls: [{syscall: [open], fromSource: [{path: /a, dir: /b/}]}]}")).len() == 1);
}

#[test]
fn the_report_says_what_is_told_of_each_system_call() {
    let of = |rule: &str| report(&policy(&ksp(&format!("action: Audit\nsyscalls: {rule}"))), Backend::Bpf);
    let support = |rule: &str| of(rule).swap_remove(0).support;
    assert_eq!(support("{matchSyscalls: [{syscall: [unlink, bpf]}]}"), Support::Full);
    let partial = |rule: &str, wanted: &str| {
        let found = support(rule);
        assert!(matches!(&found, Support::Partial(why) if why.iter().any(|why| why.contains(wanted))), "{rule}: {found:?}");
    };
    partial("{matchSyscalls: [{syscall: [time, read]}]}", "do time without the kernel");
    partial("{matchPaths: [{syscall: [unlink], path: /a}]}", "before the kernel has found the path");
    partial("{matchPaths: [{syscall: [utime, unlink], path: /a}]}", "utime does to files on a volume");
    partial("{action: Block, matchSyscalls: [{syscall: [unlink]}]}", "reported, and not refused");
    let found = of("{matchPaths: [{syscall: [unlink, access, read], path: /a}]}");
    let told: Vec<(&str, bool)> =
        found.iter().map(|report| (report.origin.field.as_str(), matches!(report.support, Support::None(_)))).collect();
    let field = "spec.syscalls.matchPaths[0]";
    assert_eq!(told, [(field, false), (&format!("{field}.syscall[1]"), true), (&format!("{field}.syscall[2]"), true)]);
    assert_eq!(found[0].summary, "Audit syscall unlink on /a");
    assert!(policy(&ksp("syscalls: {matchPaths: [{syscall: [access], path: /a}]}")).rules.is_empty());
}

#[test]
fn an_allow_rule_that_cannot_be_enforced_keeps_its_class_an_allow_list() {
    let policy = policy(&ksp("action: Allow\nprocess: {matchPaths: [{path: /a, allowedArgs: [-x]}]}"));
    assert_eq!(policy.rules.len(), 1);
    assert_eq!(
        (policy.rules[0].action, policy.rules[0].sources.as_slice()),
        (Action::Allow, [Location::Path(NOBODY.to_vec())].as_slice())
    );
    let reports = report(&policy, Backend::Bpf);
    assert_eq!(reports.len(), 1);
    assert!(matches!(&reports[0].support, Support::None(reason) if reason.contains("remains an allow-list")));
    let postures = Postures { file: Posture::Block, ..Postures::default() };
    let set = RuleSet { rules: policy.rules, postures };
    for path in [b"/a", b"/b"] {
        let decision =
            decide(&set, &Subject { exe: Some(b"/bin/sh"), owner: true }, &Operation::Exec { path: Some(path), unlinked: false });
        assert_eq!((decision.verdict, decision.cause), (Verdict::Block, Cause::Posture));
    }
}

#[test]
fn one_bad_document_hides_no_other() {
    let good = ksp("file: {matchPaths: [{path: /a}]}");
    for bad in ["a: [", "a: 'open", "\"", "- - -\n\t- x", "a: |\n  text\n b", "*x", "a: {b: c", "&a", "!!", "{", "? [", "%"] {
        let parsed = read(&format!("{good}---\n{bad}\n---\n{good}...\n{good}"));
        assert_eq!(parsed.policies().count(), 3, "{bad}: {parsed:#?}");
    }
}

#[test]
fn a_refused_document_says_which_policy_it_is() {
    let parsed = read(
        "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata:\n  name: web # x\n  namespace: \"prod\"\nspec: [\n",
    );
    assert!(parsed.documents[0].is_err());
    let identity = &parsed.identities[0];
    assert_eq!((&*identity.kind, &*identity.namespace, &*identity.name), ("KubeArmorPolicy", "prod", "web"));
}

#[test]
fn tabs_are_named() {
    let found = errors("apiVersion: security.kubearmor.com/v1\nmetadata:\n\tname: x\n");
    assert!(found[0].starts_with("3:1: the line is indented with a TAB character"), "{found:?}");
}

#[test]
fn duplicate_keys_are_errors_beside_the_others() {
    let found = errors(&ksp("severity: 0\nseverity: 2\nfile: {matchPaths: [{path: x}]}"));
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[1].starts_with("6:3: `severity` is given twice"), "{found:#?}");
}

#[test]
fn a_list_is_the_policies_it_holds_and_other_manifests_are_skipped() {
    let items = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: security.kubearmor.com/v1\n  kind: KubeArmorPolicy\n  metadata: {name: a, uid: x, annotations: {k: v}}\n  spec: {file: {matchPaths: [{path: /a}]}}\n  status: {}\n- apiVersion: security.kubearmor.com/v1\n  kind: KubeArmorPolicy\n  metadata: {}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n";
    let parsed = read(items);
    assert_eq!((parsed.documents.len(), parsed.policies().count()), (2, 1));
    assert!(parsed.warnings.iter().any(|warning| warning.message.contains("`Deployment`")));
}

#[test]
fn aliases_are_expanded_within_bounds() {
    let rule = rule("file:\n  matchPaths:\n  - path: &p /a\n    fromSource: &s [{path: /x}, {path: *p}]");
    assert_eq!(rule.sources, [Location::Path(b"/x".to_vec()), Location::Path(b"/a".to_vec())]);
    let mut bomb = "a: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        bomb.push_str(&format!("b{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 10].join(", ")));
    }
    assert!(errors(&bomb)[0].contains(&format!("more than {MAX_ALIASED_NODES}")));
    assert!(errors("a: &a [*a]\n")[0].contains("not complete"));
    assert!(
        errors("<<: {a: b}\nkind: KubeArmorPolicy\napiVersion: security.kubearmor.com/v1\n")
            .iter()
            .any(|e| e.contains("merge keys"))
    );
}

#[test]
fn limits_are_errors_that_name_them() {
    let one = |text: &str, limit: usize| {
        let found = errors(text);
        assert!(found.len() == 1 && found[0].contains(&limit.to_string()), "{limit}: {:?}", found.first());
    };
    one(&"#".repeat(MAX_FILE_BYTES + 1), MAX_FILE_BYTES);
    one(&"---\na\n".repeat(MAX_DOCUMENTS + 1), MAX_DOCUMENTS);
    one(&format!("a: {}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH)), MAX_DEPTH);
    one(&"[".repeat(200_000), MAX_DEPTH);
    one(&"- ".repeat(100_000), MAX_DEPTH);
    one(&"- a\n".repeat(MAX_NODES + 1), MAX_NODES);
    one(&ksp(&format!("message: {}\nfile: {{matchPaths: [{{path: /a}}]}}", "x".repeat(MAX_STRING_BYTES + 1))), MAX_STRING_BYTES);
    assert!(errors(&"---\na\n".repeat(MAX_DOCUMENTS)).len() == MAX_DOCUMENTS);
}

#[test]
fn text_that_is_not_utf8_is_refused_where_it_stands() {
    let parsed = parse(Path::new("p.yaml"), b"a: b\nc: \xff", Options::default());
    let error = parsed.errors().next().unwrap();
    assert_eq!((error.line, error.column), (2, 4));
}

#[test]
fn host_and_network_policies_parse() {
    let host = policy(
        "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\nmetadata: {name: h}\nspec:\n  nodeSelector: {matchLabels: {kubernetes.io/hostname: '*'}}\n  device: {matchDevice: [{class: '0x03', subClass: 1, protocol: 2, level: 1}]}\n  process: {matchPaths: [{path: /a}]}\n",
    );
    assert!(report(&host, Backend::Bpf).iter().all(|r| matches!(r.support, Support::None(_))));
    let nsp = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorNetworkPolicy\nmetadata: {name: n}\nspec:\n  nodeSelector: {matchLabels: {a: b}}\n  level: Pod\n  ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}], iface: [eth0], ports: [{port: ssh, protocol: tcp}, {port: 80, endPort: 90}]}]\n  egress: [{limit: 20MB, duration: 20m}]\n";
    assert_eq!(policy(nsp).unenforced.len(), 2);
    let bad = nsp.replace("10.0.0.0/8", "10.0.0.0/33").replace("20MB", "20XB").replace("Pod", "pods").replace("80", "800000");
    assert_eq!(errors(&bad).len(), 4, "{:#?}", errors(&bad));
}

#[test]
fn a_host_rule_on_network_or_capabilities_must_name_a_source() {
    let text = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\nmetadata: {name: h}\nspec:\n  nodeSelector: {matchLabels: {a: b}}\n  network: {matchProtocols: [{protocol: tcp}]}\n  capabilities: {matchCapabilities: [{capability: net_raw, fromSource: [{path: /a}]}]}\n";
    assert_eq!(errors(text).len(), 1);
}
