use std::sync::Arc;

use super::*;
use crate::meaning::{Origin, Postures};
use crate::network::{AF_INET, AF_NETLINK, AF_UNIX, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM};
use proptest::prelude::*;
use proptest::sample::select;

fn rule(class: Class, action: Action, object: Object) -> Rule {
    Rule {
        origin: Origin {
            kind: "KubeArmorPolicy".into(),
            namespace: "default".into(),
            policy: "p".into(),
            file: Arc::new("p.yaml".into()),
            line: 1,
            column: 1,
            field: "spec".into(),
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

fn file(action: Action, object: Object) -> Rule {
    rule(Class::File, action, object)
}

fn path(path: &str) -> Object {
    Object::Path(path.into())
}

fn dir(dir: &str, recursive: bool) -> Object {
    Object::Directory { dir: dir.into(), recursive }
}

fn pattern(text: &str) -> Object {
    Object::Pattern(Glob::parse(text.as_bytes()).unwrap())
}

fn syscall(number: u16, at: Option<Location>) -> Object {
    Object::Syscall { call: Syscall::from_number(number).unwrap(), at }
}

fn set(rules: Vec<Rule>) -> RuleSet {
    RuleSet { rules: rules.into_iter().map(Arc::new).collect(), postures: Postures::default() }
}

fn blocking(mut set: RuleSet) -> RuleSet {
    set.postures = Postures { file: Posture::Block, network: Posture::Block, capabilities: Posture::Block };
    set
}

const READ: Operation<'_> = Operation::Read { path: b"/a/b" };
const CHANGE: Operation<'_> = Operation::Change { path: b"/a/b" };
const ANYBODY: Subject<'_> = Subject { exe: Some(b"/bin/x"), owner: false };
const OWNER: Subject<'_> = Subject { exe: Some(b"/bin/x"), owner: true };

fn verdict_of(set: &RuleSet, subject: &Subject<'_>, op: &Operation<'_>) -> Verdict {
    decide(set, subject, op).verdict
}

#[test]
fn nothing_is_decided_without_rules() {
    let empty = blocking(set(vec![]));
    assert_eq!(decide(&empty, &ANYBODY, &READ), Decision { verdict: Verdict::Allow, cause: Cause::Unmatched });
}

#[test]
fn a_directory_covers_itself_and_what_is_in_it() {
    let covers = |object: &Object, path: &str| path_matches(object, path.as_bytes());
    assert!(covers(&dir("/a", false), "/a") && covers(&dir("/a", false), "/a/b") && !covers(&dir("/a", false), "/a/b/c"));
    assert!(covers(&dir("/a", true), "/a") && covers(&dir("/a", true), "/a/b/c") && !covers(&dir("/a", true), "/ab"));
    assert!(covers(&dir("", false), "/") && covers(&dir("", false), "/a") && !covers(&dir("", false), "/a/b"));
    assert!(covers(&dir("", true), "/") && covers(&dir("", true), "/a/b"));
}

#[test]
fn the_more_specific_object_wins_whatever_its_action() {
    let by_strength = [path("/a/b"), pattern("/a/[b]"), pattern("/*/b"), dir("/a", false), dir("/a", true), dir("", true)];
    for (at, strong) in by_strength.iter().enumerate() {
        for weak in &by_strength[at + 1..] {
            let allows = set(vec![file(Action::Block, weak.clone()), file(Action::Allow, strong.clone())]);
            assert_eq!(verdict_of(&allows, &ANYBODY, &READ), Verdict::Allow, "{strong:?} over {weak:?}");
            let blocks = set(vec![file(Action::Allow, weak.clone()), file(Action::Block, strong.clone())]);
            assert_eq!(verdict_of(&blocks, &ANYBODY, &READ), Verdict::Block, "{strong:?} over {weak:?}");
        }
    }
}

#[test]
fn an_execname_stands_between_path_and_pattern() {
    let exec = Operation::Exec { path: Some(b"/a/b"), unlinked: false };
    let name = || Object::ExecName(b"b".to_vec());
    let of = |action, object| rule(Class::Process, action, object);
    let by_path = set(vec![of(Action::Block, name()), of(Action::Allow, path("/a/b"))]);
    assert_eq!(decide(&by_path, &ANYBODY, &exec).cause, Cause::Rule(1));
    let by_name = set(vec![of(Action::Block, pattern("/a/[b]")), of(Action::Block, pattern("/a/b*")), of(Action::Allow, name())]);
    assert_eq!(decide(&by_name, &ANYBODY, &exec).cause, Cause::Rule(2));
}

#[test]
fn a_source_is_stronger_than_any_object() {
    let mut sourced = file(Action::Allow, dir("", true));
    sourced.sources = vec![Location::Path(b"/bin/x".into()), Location::Path(b"/bin/y".into())];
    let set = set(vec![file(Action::Block, path("/a/b")), sourced]);
    assert_eq!(verdict_of(&set, &ANYBODY, &READ), Verdict::Allow);
    for exe in [Some(&b"/bin/z"[..]), None] {
        assert_eq!(verdict_of(&set, &Subject { exe, owner: false }, &READ), Verdict::Block);
    }
}

#[test]
fn between_equals_block_beats_audit_beats_allow() {
    let of = |action| file(action, path("/a/b"));
    for actions in [vec![Action::Allow, Action::Audit], vec![Action::Audit, Action::Block], vec![Action::Allow, Action::Block]] {
        let set = set(actions.iter().copied().map(of).collect());
        assert_eq!(decide(&set, &ANYBODY, &READ).cause, Cause::Rule(1), "{actions:?}");
    }
}

#[test]
fn access_is_as_the_table_says() {
    use Verdict::{Allow, Audit, Block};
    // action, readOnly, ownerOnly: read by owner, read by others, change by owner, change by others
    for (action, read_only, owner_only, verdicts) in [
        (Action::Allow, false, false, [Allow, Allow, Allow, Allow]),
        (Action::Allow, true, false, [Allow, Allow, Block, Block]),
        (Action::Allow, false, true, [Allow, Block, Allow, Block]),
        (Action::Allow, true, true, [Allow, Block, Block, Block]),
        (Action::Audit, false, false, [Audit, Audit, Audit, Audit]),
        (Action::Audit, true, false, [Allow, Allow, Audit, Audit]),
        (Action::Audit, false, true, [Allow, Audit, Allow, Audit]),
        (Action::Audit, true, true, [Allow, Allow, Allow, Audit]),
        (Action::Block, false, false, [Block, Block, Block, Block]),
        (Action::Block, true, false, [Allow, Allow, Block, Block]),
        (Action::Block, false, true, [Allow, Block, Allow, Block]),
        (Action::Block, true, true, [Allow, Allow, Allow, Block]),
    ] {
        let set = set(vec![Rule { read_only, owner_only, ..file(action, path("/a/b")) }]);
        let found = [(OWNER, READ), (ANYBODY, READ), (OWNER, CHANGE), (ANYBODY, CHANGE)]
            .map(|(subject, op)| verdict_of(&set, &subject, &op));
        assert_eq!(found, verdicts, "{action:?} readOnly {read_only} ownerOnly {owner_only}");
    }
}

#[test]
fn of_equal_rules_the_stricter_decides() {
    let lenient_first = |action, strict: (bool, bool), lenient: (bool, bool)| {
        let of = |(read_only, owner_only)| Rule { read_only, owner_only, ..file(action, path("/a/b")) };
        set(vec![of(lenient), of(strict)])
    };
    let allows = lenient_first(Action::Allow, (true, false), (false, false));
    assert_eq!(verdict_of(&allows, &ANYBODY, &CHANGE), Verdict::Block);
    let allows = lenient_first(Action::Allow, (false, true), (false, false));
    assert_eq!(verdict_of(&allows, &ANYBODY, &READ), Verdict::Block);
    for action in [Action::Audit, Action::Block] {
        let silent_for_owner = lenient_first(action, (false, false), (false, true));
        assert_ne!(verdict_of(&silent_for_owner, &OWNER, &READ), Verdict::Allow);
    }
}

#[test]
fn a_class_is_an_allow_list_by_its_own_allow_rules_alone() {
    let mut sourced = rule(Class::Process, Action::Allow, path("/bin/y"));
    sourced.sources = vec![Location::Path(b"/bin/z".into())];
    let set = blocking(set(vec![sourced, file(Action::Block, path("/c"))]));
    let exec = Operation::Exec { path: Some(b"/bin/w"), unlinked: false };
    assert_eq!(decide(&set, &ANYBODY, &exec), Decision { verdict: Verdict::Block, cause: Cause::Posture });
    assert_eq!(decide(&set, &ANYBODY, &READ), Decision { verdict: Verdict::Allow, cause: Cause::Unmatched });
}

#[test]
fn an_executable_without_a_name_follows_the_posture() {
    let memfd = Operation::Exec { path: None, unlinked: false };
    let denies = set(vec![rule(Class::Process, Action::Block, dir("", true))]);
    assert_eq!(verdict_of(&denies, &ANYBODY, &memfd), Verdict::Allow);
    let allows = set(vec![rule(Class::Process, Action::Allow, dir("", true))]);
    assert_eq!(verdict_of(&allows, &ANYBODY, &memfd), Verdict::Audit);
    assert_eq!(verdict_of(&blocking(allows), &ANYBODY, &memfd), Verdict::Block);
}

#[test]
fn an_unlinked_executable_is_blocked_by_its_last_name_and_never_allowed_by_it() {
    let unlinked = Operation::Exec { path: Some(b"/a/b"), unlinked: true };
    let of = |action, object| rule(Class::Process, action, object);
    let blocks = set(vec![of(Action::Block, path("/a/b"))]);
    assert_eq!(verdict_of(&blocks, &ANYBODY, &unlinked), Verdict::Block);
    let audits = set(vec![of(Action::Audit, path("/a/b"))]);
    assert_eq!(verdict_of(&audits, &ANYBODY, &unlinked), Verdict::Audit);
    let allows = blocking(set(vec![of(Action::Allow, path("/a/b"))]));
    assert_eq!(decide(&allows, &ANYBODY, &unlinked), Decision { verdict: Verdict::Block, cause: Cause::Posture });
    let owners = blocking(set(vec![Rule { owner_only: true, ..of(Action::Allow, path("/a/b")) }]));
    assert_eq!(decide(&owners, &OWNER, &unlinked).cause, Cause::Posture);
    assert_eq!(decide(&owners, &ANYBODY, &unlinked).cause, Cause::Rule(0));
}

#[test]
fn postures_judge_neither_unix_nor_netlink() {
    let socket = |family, kind| Operation::Socket(Socket { family, kind, protocol: 0 });
    let tcp_only = blocking(set(vec![rule(Class::Network, Action::Allow, Object::Protocol(Protocol::Tcp))]));
    assert_eq!(verdict_of(&tcp_only, &ANYBODY, &socket(AF_INET, SOCK_STREAM)), Verdict::Allow);
    assert_eq!(verdict_of(&tcp_only, &ANYBODY, &socket(AF_INET, SOCK_DGRAM)), Verdict::Block);
    for quiet in [socket(AF_UNIX, SOCK_STREAM), socket(AF_NETLINK, SOCK_RAW)] {
        assert_eq!(decide(&tcp_only, &ANYBODY, &quiet), Decision { verdict: Verdict::Allow, cause: Cause::Unmatched });
    }
    let no_streams = set(vec![rule(Class::Network, Action::Block, Object::Protocol(Protocol::Stream))]);
    assert_eq!(verdict_of(&no_streams, &ANYBODY, &socket(AF_UNIX, SOCK_STREAM)), Verdict::Block);
}

#[test]
fn capabilities_are_decided_by_number() {
    let raw = Capability::from_number(13).unwrap();
    let set = set(vec![rule(Class::Capability, Action::Block, Object::Capability(raw))]);
    assert_eq!(verdict_of(&set, &ANYBODY, &Operation::Capability(raw)), Verdict::Block);
    for other in Capability::all().filter(|&other| other != raw) {
        assert_eq!(verdict_of(&set, &ANYBODY, &Operation::Capability(other)), Verdict::Allow);
    }
}

const PATHS: [&str; 6] = ["/a", "/a/b", "/a/b/c", "/d", "/d/b", "/"];
const EXES: [&str; 2] = ["/bin/x", "/bin/y"];

fn any_object(class: Class) -> BoxedStrategy<Object> {
    let dirs = select(&["", "/a", "/a/b", "/d"][..]);
    let patterns = select(&["/**", "/*", "/a/*", "/{a,d}/b", "/a/**", "/?"][..]);
    let protocols = select(&Protocol::ALL[..]);
    let files = prop_oneof![
        select(&PATHS[..]).prop_map(path),
        (dirs, any::<bool>()).prop_map(|(at, recursive)| dir(at, recursive)),
        patterns.prop_map(pattern),
    ];
    match class {
        Class::File => files.boxed(),
        Class::Process => prop_oneof![files, select(&["a", "b"][..]).prop_map(|name| Object::ExecName(name.into()))].boxed(),
        Class::Network => protocols.prop_map(Object::Protocol).boxed(),
        Class::Capability => (0u8..3).prop_map(|number| Object::Capability(Capability::from_number(number).unwrap())).boxed(),
        Class::Syscall => {
            let at = prop_oneof![
                select(&PATHS[..]).prop_map(|path| Location::Path(path.into())),
                (select(&["", "/a", "/a/b"][..]), any::<bool>())
                    .prop_map(|(dir, recursive)| Location::Directory { dir: dir.into(), recursive }),
            ];
            (0u16..2, prop::option::of(at)).prop_map(|(number, at)| syscall(number, at)).boxed()
        }
    }
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let class = select(&[Class::File, Class::Process, Class::Network, Class::Capability, Class::Syscall][..]);
    let action = select(&[Action::Allow, Action::Audit, Action::Block][..]);
    class.prop_flat_map(move |class| {
        let objects = prop::collection::vec(any_object(class), 1..3);
        let sources = prop::sample::subsequence(&EXES[..], 0..=1);
        (objects, sources, any::<bool>(), any::<bool>(), action.clone(), 0u8..2).prop_map(
            move |(objects, sources, read_only, owner_only, action, policy)| {
                let mut made = rule(class, action, objects[0].clone());
                made.origin.policy = format!("p{policy}").into();
                let sources = sources.into_iter().map(|source| Location::Path(source.into())).collect();
                Rule { objects, sources, read_only, owner_only, ..made }
            },
        )
    })
}

fn any_set() -> impl Strategy<Value = RuleSet> {
    let posture = select(&[Posture::Audit, Posture::Block][..]);
    (prop::collection::vec(any_rule(), 0..7), posture).prop_map(|(rules, posture)| {
        let postures = Postures { file: posture, network: posture, capabilities: posture };
        RuleSet { postures, ..set(rules) }
    })
}

fn any_operation() -> impl Strategy<Value = Operation<'static>> {
    let paths = || select(&PATHS[..]).prop_map(str::as_bytes);
    prop_oneof![
        paths().prop_map(|path| Operation::Read { path }),
        paths().prop_map(|path| Operation::Change { path }),
        (prop::option::of(paths()), any::<bool>()).prop_map(|(path, unlinked)| Operation::Exec { path, unlinked }),
        select(&SocketKind::ALL[..]).prop_map(|kind| Operation::Socket(kind.example())),
        (0u8..3).prop_map(|number| Operation::Capability(Capability::from_number(number).unwrap())),
        (0u16..2, prop::option::of(paths()))
            .prop_map(|(number, path)| Operation::Syscall { call: Syscall::from_number(number).unwrap(), path }),
    ]
}

fn any_subject() -> impl Strategy<Value = Subject<'static>> {
    let exe = prop::option::of(select(&EXES[..]).prop_map(str::as_bytes));
    (exe, any::<bool>()).prop_map(|(exe, owner)| Subject { exe, owner })
}

proptest! {
    #[test]
    fn the_order_of_rules_never_matters(
        (set, shuffled) in any_set().prop_flat_map(|set| {
            let rules = Just(set.rules.clone()).prop_shuffle();
            (Just(set), rules)
        }),
        subject in any_subject(),
        op in any_operation(),
    ) {
        let other = RuleSet { rules: shuffled, postures: set.postures };
        let (a, b) = (decide(&set, &subject, &op), decide(&other, &subject, &op));
        prop_assert_eq!(a.verdict, b.verdict);
        match (a.cause, b.cause) {
            (Cause::Rule(a), Cause::Rule(b)) => prop_assert_eq!(&set.rules[a], &other.rules[b]),
            (a, b) => prop_assert_eq!(a, b),
        }
    }

    #[test]
    fn no_rule_on_system_calls_denies_or_makes_an_allow_list(set in any_set(), subject in any_subject(), op in any_operation()) {
        let rules = set.rules.iter().filter(|rule| rule.class == Class::Syscall).cloned().collect();
        let decision = decide(&blocking(RuleSet { rules, ..RuleSet::default() }), &subject, &op);
        prop_assert!(matches!((decision.verdict, decision.cause), (Verdict::Audit, Cause::Rule(_)) | (Verdict::Allow, Cause::Unmatched)));
    }

    #[test]
    fn a_rule_that_audits_never_denies(set in any_set(), subject in any_subject(), op in any_operation()) {
        if let Decision { verdict: Verdict::Block, cause: Cause::Rule(rule) } = decide(&set, &subject, &op) {
            prop_assert_ne!(set.rules[rule].action, Action::Audit);
        }
    }

    #[test]
    fn without_allow_and_block_rules_nothing_is_denied(set in any_set(), subject in any_subject(), op in any_operation()) {
        let rules = set.rules.iter().filter(|rule| rule.action == Action::Audit).cloned().collect();
        let audits = RuleSet { rules, ..blocking(RuleSet::default()) };
        prop_assert_ne!(verdict_of(&audits, &subject, &op), Verdict::Block);
    }

    #[test]
    fn a_block_of_exactly_this_path_never_loosens(mut set in any_set(), subject in any_subject(), op in any_operation()) {
        let exactly = match op {
            Operation::Read { path } | Operation::Change { path } | Operation::Exec { path: Some(path), .. } => Object::Path(path.into()),
            _ => return Ok(()),
        };
        let before = verdict_of(&set, &subject, &op);
        set.rules.push(Arc::new(rule(op.class(), Action::Block, exactly)));
        prop_assert!(verdict_of(&set, &subject, &op) >= before);
    }

    #[test]
    fn a_rule_of_one_class_never_touches_another(mut set in any_set(), extra in any_rule(), subject in any_subject(), op in any_operation()) {
        if extra.class == op.class() {
            return Ok(());
        }
        let before = decide(&set, &subject, &op);
        set.rules.push(Arc::new(extra));
        prop_assert_eq!(decide(&set, &subject, &op), before);
    }

    #[test]
    fn a_stricter_posture_never_loosens(mut set in any_set(), subject in any_subject(), op in any_operation()) {
        set.postures = Postures::default();
        let audited = verdict_of(&set, &subject, &op);
        prop_assert!(verdict_of(&blocking(set), &subject, &op) >= audited);
    }

    #[test]
    fn without_an_allow_rule_the_posture_says_nothing(set in any_set(), subject in any_subject(), op in any_operation()) {
        let rules = set.rules.iter().filter(|rule| rule.action != Action::Allow).cloned().collect();
        let denies = blocking(RuleSet { rules, postures: set.postures });
        prop_assert_ne!(decide(&denies, &subject, &op).cause, Cause::Posture);
    }
}
