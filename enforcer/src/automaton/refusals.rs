//! Sets that are refused, and what the refusal says; flags and edges that random sets seldom meet.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_ebpf::abi;
use portcullis_policy::decide::{Cause, Operation, Verdict};
use portcullis_policy::glob::Glob;
use portcullis_policy::meaning::{Action, Class, Object, Origin, Posture, Postures, Rule, RuleSet};

use super::{Budget, CompileError, compile, content_hash};

fn rule(line: u32, class: Class, object: Object, action: Action) -> Rule {
    Rule {
        origin: Origin {
            kind: "KubeArmorPolicy".into(),
            namespace: "".into(),
            policy: "p".into(),
            file: Arc::new(PathBuf::from("policy.yaml")),
            line,
            column: 1,
            field: format!("spec[{line}]"),
        },
        class,
        objects: vec![object],
        sources: Vec::new(),
        read_only: false,
        owner_only: false,
        action,
        severity: 0,
        tags: Vec::new(),
        message: String::new(),
    }
}

fn blocking(objects: impl IntoIterator<Item = Object>) -> RuleSet {
    let rules = objects.into_iter().zip(1..).map(|(object, line)| Arc::new(rule(line, Class::File, object, Action::Block)));
    RuleSet { rules: rules.collect(), postures: Postures::default() }
}

fn glob(text: &str) -> Object {
    Object::Pattern(Glob::parse(text.as_bytes()).unwrap())
}

fn dir(dir: &str, recursive: bool) -> Object {
    Object::Directory { dir: dir.as_bytes().to_vec(), recursive }
}

#[test]
fn a_hostile_set_is_refused_soon_and_names_its_patterns() {
    let letters = b"abcdefghijklmnop";
    let hostile = blocking(letters.iter().map(|&letter| {
        let letter = char::from(letter);
        glob(&format!("/**/{letter}{letter}/**/x{letter}*?????????{letter}"))
    }));
    let start = Instant::now();
    let error = compile(&hostile, Budget::default()).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(10), "took {:?}", start.elapsed());
    assert!(matches!(error, CompileError::TooManyStates { .. } | CompileError::TooComplex { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("policy.yaml:") && text.contains("/**/"), "{text}");
}

#[test]
fn steps_bound_sets_with_few_states_and_many_nodes() {
    let wide = blocking((0..2000).map(|index| glob(&format!("/**{index}**/{index}*"))));
    let start = Instant::now();
    let error = compile(&wide, Budget::default()).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(20), "took {:?}", start.elapsed());
    assert!(!error.to_string().is_empty());
}

#[test]
fn a_set_over_its_bytes_tells_the_numbers() {
    let set = blocking((0..200).map(|index| Object::Path(format!("/data/{index}/file").into_bytes())));
    let error = compile(&set, Budget { max_bytes: 1000, ..Budget::default() }).unwrap_err();
    let CompileError::TooLarge { bytes, max: 1000, contributors, .. } = &error else { panic!("{error}") };
    assert!(*bytes > 1000 && contributors.len() == 3, "{error}");
}

#[test]
fn rules_that_name_every_byte_are_refused() {
    let bytes = (1..=255u8).filter(|byte| *byte != b'/');
    let set = blocking(bytes.map(|byte| Object::Path(vec![b'/', byte])));
    assert!(matches!(compile(&set, Budget::default()), Err(CompileError::TooManyByteClasses { classes: 255, max: 254 })));
}

#[test]
fn an_empty_set_decides_nothing() {
    let compiled = compile(&RuleSet::default(), Budget::default()).unwrap();
    assert_eq!(compiled.flags(), abi::SET_USED);
    let decision = compiled.evaluate(None, false, &Operation::Read { path: b"/etc/shadow" });
    assert_eq!((decision.verdict, decision.cause), (Verdict::Allow, Cause::Unmatched));
    assert_eq!(compiled.stats().states, 3, "the start, the root and one sink");
}

#[test]
fn flags_say_what_rules_reach() {
    let flags = |object| compile(&blocking([object]), Budget::default()).unwrap().flags();
    let below = abi::SET_PROC_RULES | abi::SET_SYS_RULES;
    for (object, expected) in [
        (dir("/proc", true), abi::SET_PROC_RULES),
        (dir("/proc", false), abi::SET_PROC_RULES),
        (Object::Path(b"/proc".to_vec()), 0),
        (Object::Path(b"/sys/kernel/debug".to_vec()), abi::SET_SYS_RULES),
        (dir("", true), below),
        (dir("", false), 0),
        (glob("/**/mem"), below),
        (glob("/p*/self"), abi::SET_PROC_RULES),
        (glob("/etc/**"), 0),
    ] {
        assert_eq!(flags(object.clone()) & below, expected, "{object:?}");
        assert_ne!(flags(object) & abi::SET_BLOCKS_PATHS, 0);
    }
}

#[test]
fn an_audit_only_set_protects_no_names() {
    let object = dir("/etc", true);
    let mut set = RuleSet { rules: vec![Arc::new(rule(1, Class::File, object, Action::Audit))], ..RuleSet::default() };
    assert_eq!(compile(&set, Budget::default()).unwrap().flags() & abi::SET_BLOCKS_PATHS, 0);
    set.rules.push(Arc::new(rule(2, Class::Process, dir("/bin", true), Action::Allow)));
    set.postures.file = Posture::Block;
    let compiled = compile(&set, Budget::default()).unwrap();
    assert_ne!(compiled.flags() & abi::SET_BLOCKS_PATHS, 0);
    assert_eq!(compiled.set.unmatched, abi::BLOCK << 16);
}

#[test]
fn a_directory_is_settled_at_its_slash() {
    let compiled = compile(&blocking([glob("/usr/**"), dir("/opt", true)]), Budget::default()).unwrap();
    // The start, the root, the parts of "/usr" and "/opt", nothing, and one sink for each rule.
    assert_eq!(compiled.stats().states, 1 + 1 + 3 + 3 + 1 + 2);
    assert_eq!(abi::sub_all(compiled.view().subtree(0, b"/usr")), 0b1111);
    assert_eq!(abi::sub_any(compiled.view().subtree(0, b"/etc")), 0);
}

#[test]
fn a_misplaced_set_is_not_relocated() {
    let compiled = compile(&RuleSet::default(), Budget::default()).unwrap();
    assert!(compiled.relocate(0, 128).is_none(), "not aligned");
    assert!(compiled.relocate(0, abi::SEGMENT_BYTES).is_none(), "outside");
    assert!(compiled.relocate(abi::MAX_SEGMENTS, 0).is_none(), "no such segment");
}

#[test]
fn the_hash_depends_on_rules_origins_and_postures() {
    let set = blocking([dir("/etc", true)]);
    let mut moved = set.clone();
    Arc::make_mut(&mut moved.rules[0]).origin.line = 7;
    let mut strict = set.clone();
    strict.postures.network = Posture::Block;
    assert_eq!(content_hash(&set), content_hash(&set.clone()));
    assert_ne!(content_hash(&set), content_hash(&moved));
    assert_ne!(content_hash(&set), content_hash(&strict));
}
