//! No policy writes profile text: whatever its rules name, each line of a profile is one that this module writes.

use std::sync::Arc;

use portcullis_policy::glob::Glob;
use portcullis_policy::meaning::{Action, Class, Location, Object, Origin, Posture, Postures, Rule, RuleSet};
use proptest::prelude::*;

use super::compiled::compile;
use super::{Variant, generate};

/// Text that has a meaning in a profile, and bytes that have none anywhere.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "\"",
            "\\",
            "\n",
            "}",
            "{",
            ",",
            " ",
            "//&",
            "@{",
            "@{PROC}",
            "#include <x>",
            "profile evil {",
            "capability,",
            "\\042",
            "->",
            "*",
            "**",
            "?",
            "[",
            "]",
            "^",
            "-",
            "[^",
            "/",
            "//",
            "\r",
            "$",
            "(",
            ")",
            "|",
            "+",
            ".",
            "\u{7f}",
            "deny",
            "allow",
            " rwx,\n",
            "<",
            "&",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        prop::collection::vec(1u8..=255, 1..4),
    ];
    prop::collection::vec(piece, 1..8).prop_map(|pieces| pieces.concat())
}

fn absolute(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.insert(0, b'/');
    bytes
}

fn object() -> impl Strategy<Value = Object> {
    prop_oneof![
        hostile().prop_map(|path| Object::Path(absolute(path))),
        hostile().prop_map(|mut name| {
            name.retain(|&byte| byte != b'/');
            Object::ExecName(if name.is_empty() { b"x".to_vec() } else { name })
        }),
        (hostile(), any::<bool>()).prop_map(|(dir, recursive)| Object::Directory { dir: absolute(dir), recursive }),
        hostile().prop_filter_map("a pattern", |text| Glob::parse(&absolute(text)).ok().map(Object::Pattern)),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    let action = prop::sample::select(vec![Action::Allow, Action::Audit, Action::Block]);
    let sources = prop::collection::vec(hostile().prop_map(|path| Location::Path(absolute(path))), 0..2);
    let text = || hostile().prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (prop::collection::vec(object(), 1..3), sources, action, any::<bool>(), text(), text()).prop_map(
        |(objects, sources, action, is_file, name, message)| Rule {
            origin: Origin {
                kind: "KubeArmorPolicy".into(),
                namespace: name.as_str().into(),
                policy: name.as_str().into(),
                file: Arc::new(name.as_str().into()),
                line: 1,
                column: 1,
                field: name,
            },
            class: if is_file && !objects.iter().any(|object| matches!(object, Object::ExecName(_))) {
                Class::File
            } else {
                Class::Process
            },
            objects,
            sources,
            read_only: false,
            owner_only: false,
            action,
            severity: 0,
            tags: vec![message.clone()],
            message,
        },
    )
}

fn rule_set() -> impl Strategy<Value = RuleSet> {
    (prop::collection::vec(rule().prop_map(Arc::new), 1..4), any::<bool>()).prop_map(|(rules, block)| {
        let file = if block { Posture::Block } else { Posture::Audit };
        RuleSet { rules, postures: Postures { file, ..Postures::default() } }
    })
}

/// Whether a line between the braces is one of ours. What stands between the quotes ends there, since nothing there is a quote.
fn is_ours(line: &str) -> bool {
    const FIXED: &[&str] = &["  signal,", "  ptrace,", "  mount,", "  umount,", "  pivot_root,", "  network,", "  capability,"];
    if FIXED.contains(&line) {
        return true;
    }
    let quoted = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-/\\{},[]*?".contains(&byte));
    let unprefixed = ["audit deny ", "audit "].iter().find_map(|prefix| line[2..].strip_prefix(prefix)).unwrap_or(&line[2..]);
    let rule = ["owner ", "other "].iter().find_map(|who| unprefixed.strip_prefix(who)).unwrap_or(unprefixed);
    let Some((path, permissions)) = rule.strip_prefix('"').and_then(|rule| rule.split_once("\" ")) else { return false };
    let permissions = permissions.strip_suffix(',').unwrap_or("-");
    let (permissions, target) = permissions.split_once(" -> ").unwrap_or((permissions, "\"\""));
    let name = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.');
    line.starts_with("  ")
        && quoted(path)
        && permissions.bytes().all(|byte| b"rwlkmixp".contains(&byte))
        && target.strip_prefix('"').and_then(|target| target.strip_suffix('"')).is_some_and(name)
}

fn check(text: &str, profiles: &[String]) -> Result<(), TestCaseError> {
    let mut heads = Vec::new();
    for line in text.lines() {
        if line.starts_with("profile ") {
            heads.push(line.to_owned());
        } else {
            prop_assert!(line == "}" || is_ours(line), "{line:?}\n{text}");
        }
    }
    let expected: Vec<String> =
        profiles.iter().map(|name| format!("profile \"{name}\" flags=(attach_disconnected,mediate_deleted) {{")).collect();
    prop_assert_eq!(heads, expected);
    Ok(())
}

proptest! {
    #[test]
    fn no_policy_writes_profile_text(set in rule_set()) {
        // What would be too long is refused.
        if let Ok(generated) = generate(&set, Variant::default()) {
            check(&generated.text, &generated.profiles)?;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_parser_reads_as_many_profiles_as_were_written(set in rule_set()) {
        let Ok(generated) = generate(&set, Variant::default()) else { return Ok(()) };
        let compiled = compile(&generated.text).unwrap_or_else(|error| panic!("{error}\n{}", generated.text));
        let names: Vec<&str> = compiled.iter().map(|profile| profile.name.as_str()).collect();
        prop_assert_eq!(names, generated.profiles.iter().map(String::as_str).collect::<Vec<_>>());
    }
}
