//! The finished words against the reference model, on random rule sets and on paths that nearly match.

use std::path::PathBuf;
use std::sync::Arc;

use portcullis_ebpf::abi;
use portcullis_policy::capability::Capability;
use portcullis_policy::decide::{Operation, Subject, decide};
use portcullis_policy::glob::Glob;
use portcullis_policy::meaning::{Action, Class, Location, Object, Origin, Posture, Postures, Rule, RuleSet};
use portcullis_policy::network::{Protocol, SocketKind};
use portcullis_policy::syscall::Syscall;
use proptest::prelude::*;
use proptest::sample::select;

use super::{Budget, Compiled, View, candidates, compile, minimise, nfa, subset};

const DIRS: &[&str] = &["", "/a", "/a/b", "/a/b/c", "/ab", "/usr", "/usr/bin", "/proc", "/proc/sys", "/sys", "/\u{fc}", "/a\n"];
const NAMES: &[&str] = &["a", "b", "ab", "abc", "bin", "x.so", "x", "*", "a*", "?", "[a]", "\n", "{a,b}", "\\", "proc", "1"];
const SOURCES: &[&str] = &["/usr/bin/a", "/usr/bin/ab", "/usr/b", "/a", "/bin/x"];
const PATTERNS: &[&str] = &[
    "/**",
    "/*",
    "/a/*",
    "/a/**",
    "/**/b",
    "/**/b/**",
    "/a*",
    "/a*/b",
    "/a**b",
    "/?",
    "/a/?",
    "/[ab]",
    "/[^ab]/**",
    "/a/[a-c]*",
    "/{a,b}/x",
    "/{a,ab}/{b,}",
    "/{,a}*",
    "/**/x.so",
    "/**/*.so",
    "/a/**/b/**/c",
    "/usr/*/a",
    "/**a**",
    "/a/{**/,}b",
    "/proc/*/a",
    "/**/\\*",
    "/a/\\[a\\]",
    "/*/*/",
    "/**/",
    "/a/[^\\n]",
    "/{a/**,b/*}",
    "/**/{a,b}*{a,b}",
    "/a//b",
    "/usr/**/{bin,x}/?*",
];

pub(crate) fn path() -> impl Strategy<Value = Vec<u8>> {
    let component = prop_oneof![
        8 => select(NAMES).prop_map(|name| name.as_bytes().to_vec()),
        1 => prop::collection::vec((1u8..=255).prop_filter("a name", |byte| *byte != b'/'), 1..6),
    ];
    (select(DIRS), prop::collection::vec(component, 0..4)).prop_map(|(dir, components)| {
        let mut path = dir.as_bytes().to_vec();
        for component in components {
            path.push(b'/');
            path.extend(component);
        }
        if path.is_empty() { b"/".to_vec() } else { path }
    })
}

fn long_path() -> impl Strategy<Value = Vec<u8>> {
    let deep = (select(NAMES), 1usize..300).prop_map(|(name, depth)| format!("/{name}").repeat(depth).into_bytes());
    let long = (path(), 1usize..4000).prop_map(|(path, length)| {
        let mut path = if path == b"/" { Vec::new() } else { path };
        path.extend(b"/".iter().chain(std::iter::repeat_n(&b'a', length)));
        path
    });
    prop_oneof![deep, long]
}

fn object() -> impl Strategy<Value = Object> {
    prop_oneof![
        path().prop_map(Object::Path),
        (select(DIRS), any::<bool>()).prop_map(|(dir, recursive)| Object::Directory { dir: dir.as_bytes().to_vec(), recursive }),
        select(PATTERNS).prop_map(|text| Object::Pattern(Glob::parse(text.as_bytes()).unwrap())),
    ]
}

fn objects(class: Class) -> BoxedStrategy<Vec<Object>> {
    let name = || select(NAMES).prop_map(|name| Object::ExecName(name.as_bytes().to_vec()));
    match class {
        Class::File => prop::collection::vec(object(), 1..3).boxed(),
        Class::Process => prop::collection::vec(prop_oneof![3 => object(), 1 => name()], 1..3).boxed(),
        Class::Network => prop::collection::vec(select(&Protocol::ALL[..]).prop_map(Object::Protocol), 1..3).boxed(),
        Class::Syscall => prop::collection::vec(call(), 1..4).boxed(),
        Class::Capability => {
            let all: Vec<Capability> = Capability::all().collect();
            prop::collection::vec(select(all).prop_map(Object::Capability), 1..3).boxed()
        }
    }
}

const CALLS: &[&str] = &["unlink", "rmdir", "openat", "execve"];

fn named(name: &str) -> Syscall {
    name.parse().unwrap()
}

fn location() -> impl Strategy<Value = Location> {
    let dir = |dirs: &'static [&'static str]| {
        (select(dirs), any::<bool>()).prop_map(|(dir, recursive)| Location::Directory { dir: dir.as_bytes().to_vec(), recursive })
    };
    prop_oneof![path().prop_map(Location::Path), dir(DIRS)]
}

fn call() -> impl Strategy<Value = Object> {
    (select(CALLS), prop::option::weighted(0.7, location())).prop_map(|(name, at)| Object::Syscall { call: named(name), at })
}

fn sources(class: Class) -> BoxedStrategy<Vec<Location>> {
    let path = || select(SOURCES).prop_map(|source| Location::Path(source.as_bytes().to_vec()));
    let source = if class == Class::Syscall { prop_oneof![path(), location()].boxed() } else { path().boxed() };
    prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(source, 1..3)].boxed()
}

fn rule() -> impl Strategy<Value = Rule> {
    let class = prop_oneof![
        4 => Just(Class::File),
        4 => Just(Class::Process),
        1 => Just(Class::Network),
        1 => Just(Class::Capability),
        3 => Just(Class::Syscall),
    ];
    let action = select(vec![Action::Allow, Action::Audit, Action::Block]);
    let body = class.prop_flat_map(|class| (Just(class), objects(class), sources(class)));
    (body, action, prop::bool::weighted(0.2), prop::bool::weighted(0.2), 0u32..1000).prop_map(
        |((class, objects, sources), action, read_only, owner_only, line)| Rule {
            origin: Origin {
                kind: "KubeArmorPolicy".into(),
                namespace: "".into(),
                policy: "p".into(),
                file: Arc::new(PathBuf::from("p.yaml")),
                line,
                column: 1,
                field: format!("spec[{line}]"),
            },
            class,
            objects,
            sources,
            read_only,
            owner_only,
            action,
            severity: 0,
            tags: Vec::new(),
            message: String::new(),
        },
    )
}

pub(crate) fn rule_set() -> impl Strategy<Value = RuleSet> {
    let posture = || select(vec![Posture::Audit, Posture::Block]);
    (prop::collection::vec(rule().prop_map(Arc::new), 0..8), posture(), posture(), posture())
        .prop_map(|(rules, file, network, capabilities)| RuleSet { rules, postures: Postures { file, network, capabilities } })
}

fn exe() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop_oneof![
        1 => Just(None),
        4 => select(SOURCES).prop_map(|source| Some(source.as_bytes().to_vec())),
        1 => path().prop_filter("no task runs a directory", |path| path != b"/").prop_map(Some),
    ]
}

/// Every operation on a path, by its owner and others, is decided as the model decides it.
fn agree(
    set: &RuleSet,
    exe: Option<&[u8]>,
    path: &[u8],
    evaluate: impl Fn(bool, &Operation<'_>) -> portcullis_policy::decide::Decision,
) {
    let operations = [
        Operation::Read { path },
        Operation::Change { path },
        Operation::Exec { path: Some(path), unlinked: false },
        Operation::Exec { path: Some(path), unlinked: true },
        Operation::Exec { path: None, unlinked: true },
    ];
    let calls = CALLS.iter().map(|name| Operation::Syscall { call: named(name), path: Some(path) });
    for operation in operations.into_iter().chain(calls) {
        for owner in [false, true] {
            let model = decide(set, &Subject { exe, owner }, &operation);
            assert_eq!(evaluate(owner, &operation), model, "{operation:?} by {exe:?}, owner: {owner}");
        }
    }
}

fn compiled(set: &RuleSet) -> Compiled {
    compile(set, Budget::default()).unwrap()
}

/// Words as they stand in a segment at `base`.
fn in_segment(compiled: &Compiled, base: u32) -> (abi::Set, Vec<u32>) {
    let (set, bytes) = compiled.relocate(3, base).unwrap();
    let mut words = vec![0xdead_beef; (base as usize + bytes.len()) / 4];
    bytemuck::cast_slice_mut(&mut words)[base as usize..].copy_from_slice(&bytes);
    (set, words)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn words_decide_as_the_model(set in rule_set(), exe in exe(), paths in prop::collection::vec(path(), 12)) {
        let compiled = compiled(&set);
        for path in &paths {
            agree(&set, exe.as_deref(), path, |owner, op| compiled.evaluate(exe.as_deref(), owner, op));
        }
    }

    #[test]
    fn tables_decide_as_the_model(set in rule_set(), exe in exe()) {
        let compiled = compiled(&set);
        let subject = Subject { exe: exe.as_deref(), owner: false };
        let sockets = SocketKind::ALL.map(|kind| Operation::Socket(kind.example()));
        let calls = CALLS.iter().map(|name| Operation::Syscall { call: named(name), path: None });
        for operation in sockets.into_iter().chain(Capability::all().map(Operation::Capability)).chain(calls) {
            prop_assert_eq!(compiled.evaluate(subject.exe, false, &operation), decide(&set, &subject, &operation));
        }
    }

    #[test]
    fn relocating_changes_nothing(set in rule_set(), exe in exe(), path in path(), place in 0u32..2048) {
        let compiled = compiled(&set);
        let (entry, words) = in_segment(&compiled, place * abi::SET_ALIGN);
        agree(&set, exe.as_deref(), &path, |owner, op| View::new(&words, &entry).evaluate(exe.as_deref(), owner, op));
    }

    #[test]
    fn the_order_of_rules_decides_nothing(set in rule_set(), exe in exe(), path in path()) {
        let mut reversed = set.clone();
        reversed.rules.reverse();
        let (forth, back) = (compiled(&set), compiled(&reversed));
        for owner in [false, true] {
            let op = Operation::Read { path: &path };
            let verdicts = [&forth, &back].map(|set| set.evaluate(exe.as_deref(), owner, &op).verdict);
            prop_assert_eq!(verdicts[0], verdicts[1]);
        }
    }

    #[test]
    fn the_same_rules_make_the_same_bytes(set in rule_set()) {
        prop_assert_eq!(compiled(&set), compiled(&set.clone()));
    }

    #[test]
    fn minimisation_changes_no_decision(set in rule_set(), class in 0usize..4, paths in prop::collection::vec(path(), 8)) {
        let candidates = candidates::Candidates::of(&set);
        let nfa = nfa::Nfa::build(&set, &candidates, Budget::default()).unwrap();
        let dfa = subset::determinise(&set, &candidates, &nfa, Budget::default()).unwrap();
        let minimal = minimise::minimise(&dfa);
        let class = class % candidates.classes;
        for path in &paths {
            let step = |rows: &[u32], state: u32, byte: u8| {
                let class = nfa.class_of[usize::from(byte)] - abi::ROW_FIRST_CLASS as u8;
                rows[state as usize * nfa.classes + usize::from(class)]
            };
            let before = path.iter().fold(dfa.path_starts[class], |state, &byte| step(&dfa.rows, state, byte));
            let after = path.iter().fold(minimal.path_starts[class], |state, &byte| step(&minimal.rows, state, byte));
            prop_assert_eq!(dfa.labels[before as usize], minimal.labels[after as usize]);
        }
        // No two states that are left decide alike for ever: refining the result again finds nothing.
        let again = subset::Dfa {
            classes: minimal.classes,
            slash: minimal.slash,
            labels: minimal.labels.clone(),
            rows: minimal.rows.clone(),
            decisions: dfa.decisions.clone(),
            path_starts: minimal.path_starts.clone(),
            call_starts: minimal.call_starts.clone(),
            name_starts: minimal.name_starts.clone(),
            source_start: minimal.source_start,
            contributors: Vec::new(),
        };
        prop_assert_eq!(minimise::minimise(&again).labels.len(), minimal.labels.len());
    }

    /// Suffixes that are tried are never more blocked than "any" nor less than "all" tell.
    #[test]
    fn summaries_hold_for_what_is_below(
        set in rule_set(), class in 0u32..4, dir in path(), below in prop::collection::vec(path(), 24)
    ) {
        let compiled = compiled(&set);
        let view = compiled.view();
        let class = class % compiled.set.sources;
        let summary = view.subtree(class, &dir);
        let dir = if dir == b"/" { Vec::new() } else { dir };
        for suffix in below.iter().filter(|suffix| *suffix != b"/") {
            let decision = view.path(class, &[&dir[..], suffix].concat());
            let blocks = super::summary::blocks(&decision);
            prop_assert_eq!(blocks & !abi::sub_any(summary), 0, "below {:?}: {:?}", dir, suffix);
            prop_assert_eq!(abi::sub_all(summary) & !blocks, 0, "below {:?}: {:?}", dir, suffix);
        }
    }

    /// And what they tell is not too careful: every path there can be, found by search, gives the same bits.
    #[test]
    fn summaries_are_exact(set in rule_set(), class in 0u32..4, dir in path()) {
        let compiled = compiled(&set);
        let view = compiled.view();
        let class = class % compiled.set.sources;
        let (any, all) = search(&compiled, class, &dir);
        let summary = view.subtree(class, &dir);
        prop_assert_eq!(abi::sub_any(summary), any);
        let execnames = set.rules.iter().any(|rule| rule.objects.iter().any(|object| matches!(object, Object::ExecName(_))));
        let compared = if execnames { 0xf } else { 0x3f };
        prop_assert_eq!(abi::sub_all(summary) & compared, all & compared);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn long_and_deep_paths_decide_as_the_model(set in rule_set(), exe in exe(), path in long_path()) {
        let compiled = compiled(&set);
        agree(&set, exe.as_deref(), &path, |owner, op| compiled.evaluate(exe.as_deref(), owner, op));
    }
}

/// Walks every (state, right after a slash?) that paths strictly below `dir` can come to.
fn search(compiled: &Compiled, class: u32, dir: &[u8]) -> (u32, u32) {
    let dir = if dir == b"/" { b"" } else { dir };
    let step = |state: u32, byte: u8| {
        let columns: &[u16] = bytemuck::cast_slice(&compiled.words);
        compiled.words[(state as usize + usize::from(columns[usize::from(byte)])) / 4]
    };
    let start = compiled.words[(compiled.set.starts + class) as usize];
    let dir = dir.iter().fold(start, |state, &byte| step(state, byte));
    let mut seen = std::collections::BTreeSet::from([(step(dir, b'/'), true)]);
    let mut waiting: Vec<(u32, bool)> = seen.iter().copied().collect();
    let (mut any, mut all) = (0, 0x3f);
    while let Some((state, after_slash)) = waiting.pop() {
        if !after_slash {
            let id = compiled.words[state as usize / 4];
            let at = (compiled.set.decisions + id * abi::DECISION_WORDS) as usize;
            let decision: abi::Decision = bytemuck::pod_read_unaligned(bytemuck::cast_slice(&compiled.words[at..at + 8]));
            any |= super::summary::blocks(&decision);
            all &= super::summary::blocks(&decision);
        }
        for byte in 1..=255u8 {
            if byte == b'/' && after_slash {
                continue;
            }
            let next = (step(state, byte), byte == b'/');
            if seen.insert(next) {
                waiting.push(next);
            }
        }
    }
    (any, all)
}
