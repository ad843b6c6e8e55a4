use std::path::Path;

use portcullis_policy::meaning::{Posture, Postures};
use portcullis_policy::{Options, parse};

use super::*;

fn set(spec: &str, postures: Postures) -> RuleSet {
    let text = format!(
        "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {{name: p}}\nspec:\n  selector: {{matchLabels: {{app: web}}}}\n{spec}"
    );
    let parsed = parse(Path::new("p.yaml"), text.as_bytes(), Options::default());
    let policy = parsed.documents.into_iter().next().unwrap().unwrap();
    RuleSet { rules: policy.rules, postures }
}

/// The text, with a short name.
fn text(generated: &Generated) -> String {
    generated.text.replace(&generated.name, "P")
}

#[test]
fn an_exception_is_taken_out_of_what_is_denied() {
    let spec = "  file:
    matchDirectories:
    - {dir: /s/, recursive: true, action: Block}
    matchPaths:
    - {path: /s/a, readOnly: true, action: Block}
    - {path: /s/a, action: Audit, ownerOnly: true}
  capabilities:
    matchCapabilities: [{capability: net_raw}]
  network:
    matchProtocols: [{protocol: tcp}]
  action: Block
";
    let generated = generate(&set(spec, Postures::default()), Variant::default()).unwrap();
    let expected = r#"profile "P" flags=(attach_disconnected,mediate_deleted) {
  signal,
  ptrace,
  network,
  audit deny network inet stream,
  audit deny network inet6 stream,
  audit deny network smc stream,
  capability,
  audit deny capability net_raw,
  "/{,**}" km,
  "/{,**}" rwlix,
  audit other "/s/a{,/}" rwl,
  audit deny "/s{,/}" rwl,
  audit deny "/s/a{,/}" wl,
  audit deny "/s/a/?**" rwl,
  audit deny "/s/a?**" rwl,
  audit deny "/s/[\001-.0-\140b-\377]**" rwl,
}
"#;
    assert_eq!(text(&generated), expected);
}

#[test]
fn a_source_is_a_profile_that_is_entered_and_left() {
    let spec = "  file:
    matchPaths: [{path: /k, fromSource: [{path: /bin/app}]}]
  action: Block
";
    let generated = generate(&set(spec, Postures::default()), Variant::default()).unwrap();
    let expected = r#"profile "P" flags=(attach_disconnected,mediate_deleted) {
  signal,
  ptrace,
  network,
  capability,
  "/{,**}" km,
  "/bin/app" px -> "P.1",
  "/{,**}" rwlix,
}
profile "P.1" flags=(attach_disconnected,mediate_deleted) {
  signal,
  ptrace,
  network,
  capability,
  "/{,**}" km,
  "/bin/app" ix,
  "/{,**}" rwlpx -> "P",
  audit deny "/k{,/}" rwl,
}
"#;
    assert_eq!(text(&generated), expected);
    assert_eq!(generated.source(b"/bin/app"), generated.profiles[1]);
    assert_eq!(generated.source(b"/bin/sh"), generated.name);
    let rules = set(spec, Postures::default());
    let said = |profile: &str| explain(&rules, profile, &Operation::Read { path: b"/k" }, false).verdict;
    assert_eq!((said(&generated.name), said(&generated.profiles[1])), (Verdict::Allow, Verdict::Block));
}

#[test]
fn without_new_privileges_there_are_no_sources_and_it_is_told() {
    let spec = "  file:
    matchPaths: [{path: /k, fromSource: [{path: /bin/app}]}]
  action: Block
";
    let variant = Variant { audited: false, no_new_privileges: true };
    let generated = generate(&set(spec, Postures::default()), variant).unwrap();
    assert_eq!(generated.profiles, std::slice::from_ref(&generated.name));
    assert!(!generated.text.contains("px"));
    assert_eq!(generated.shortfalls.len(), 1);
}

#[test]
fn an_allow_list_that_blocks_names_what_is_allowed_and_nothing_else() {
    let spec = "  process:
    matchPaths: [{path: /bin/app}]
  action: Allow
";
    let postures = Postures { file: Posture::Block, ..Postures::default() };
    let generated = generate(&set(spec, postures), Variant::default()).unwrap();
    let rules: Vec<&str> = generated.text.lines().filter(|line| line.contains("ix")).collect();
    assert_eq!(rules, ["  \"/bin/app\" ix,"]);
    assert!(!generated.text.contains("deny"));
    let audited = generate(&set(spec, postures), Variant { audited: true, ..Variant::default() }).unwrap();
    assert!(audited.text.contains("audit \"/bin/app?**\" ix,") && !audited.text.contains("deny"), "{}", audited.text);
}

#[test]
fn an_exception_that_has_no_words_is_not_made_and_told() {
    let spec = "  file:
    matchDirectories: [{dir: /, recursive: true}]
    matchPatterns: [{pattern: /**/x/**, action: Audit}]
  action: Block
";
    let set = set(spec, Postures::default());
    let generated = generate(&set, Variant::default()).unwrap();
    assert!(generated.text.contains("audit deny \"/?**\" rwl,"), "{}", generated.text);
    let told: Vec<usize> = generated.shortfalls.iter().map(|shortfall| shortfall.rule).collect();
    assert_eq!(told, [set.rules.iter().position(|rule| rule.action == portcullis_policy::meaning::Action::Audit).unwrap()]);
}

#[test]
fn more_sources_than_a_profile_has_room_for_are_refused() {
    let rules = |count: usize| {
        let rule = |number| format!("    - {{path: /k{number}, fromSource: [{{path: /bin/app{number}}}]}}\n");
        format!("  file:\n    matchPaths:\n{}  action: Block\n", (0..count).map(rule).collect::<String>())
    };
    let most = generate(&set(&rules(MAX_SOURCE_CLASSES), Postures::default()), Variant::default()).unwrap();
    assert_eq!(compiled::compile(&most.text).unwrap().len(), MAX_SOURCE_CLASSES + 1);
    let more = generate(&set(&rules(MAX_SOURCE_CLASSES + 1), Postures::default()), Variant::default());
    assert_eq!(more, Err(GenerateError::TooManySources { classes: MAX_SOURCE_CLASSES + 1 }));
}
