use super::*;
use proptest::prelude::*;

fn glob(pattern: &str) -> Glob {
    Glob::parse(pattern.as_bytes()).unwrap_or_else(|error| panic!("{pattern}: {error}"))
}

#[track_caller]
fn check(pattern: &str, matching: &[&str], other: &[&str]) {
    let glob = glob(pattern);
    for path in matching {
        assert!(glob.matches(path.as_bytes()), "{pattern} should match {path}");
    }
    for path in other {
        assert!(!glob.matches(path.as_bytes()), "{pattern} should not match {path}");
    }
}

#[test]
fn a_star_stays_within_a_component() {
    check("/etc/*.conf", &["/etc/a.conf", "/etc/.conf"], &["/etc/a/b.conf", "/etc/a.conf2", "/etc/aconf"]);
    check("/a/*/c", &["/a/b/c", "/a/bb/c"], &["/a/c", "/a/b/b/c"]);
}

#[test]
fn two_stars_cross_components() {
    check("/a/**/c", &["/a/b/c", "/a/b/b/c"], &["/a/c", "/a/b/d"]);
    check("/a**c", &["/ac", "/abc", "/a/b/c"], &["/ab"]);
    check("/a/***", &["/a/b/c"], &["/a/"]);
}

#[test]
fn a_final_star_after_a_slash_needs_something() {
    check("/dir/*", &["/dir/a"], &["/dir/", "/dir", "/dir/a/b"]);
    check("/dir/**", &["/dir/a", "/dir/a/b"], &["/dir/", "/dir"]);
    check("/**", &["/a", "/a/b"], &["/"]);
    check("/dir*", &["/dir", "/dira"], &["/dir/"]);
    check("/{a/**,b/*,c*}", &["/a/x/y", "/b/x", "/c"], &["/a/", "/b/", "/"]);
}

#[test]
fn what_a_final_star_needs_is_decided_for_each_expansion() {
    check("/{,a}*", &["/a", "/ab", "/b"], &["/"]);
    check("/{,a}{,b}**", &["/a", "/b", "/ab/c"], &["/"]);
    check("/x{/,}*", &["/x", "/xy", "/x/y"], &["/x/"]);
    check("/{*,a}", &["/b", "/a"], &["/"]);
    check("/{*}*", &["/b"], &["/"]);
}

#[test]
fn one_character_is_never_a_slash() {
    check("/a?c", &["/abc", "/a?c"], &["/a/c", "/ac", "/abbc"]);
    check("/a[^b]c", &["/acc", "/a\nc"], &["/abc", "/a/c"]);
    check("/a[+-9]c", &["/a5c", "/a.c"], &["/a/c"]);
}

#[test]
fn classes_hold_ranges_escapes_and_dashes() {
    check("/[a-cx]", &["/a", "/c", "/x"], &["/d", "/-", "/"]);
    check("/[a-]", &["/a", "/-"], &["/b"]);
    check("/[\\]\\\\]", &["/]", "/\\"], &["/a"]);
    check("/[!a]", &["/!", "/a"], &["/b"]);
    check("/[,}]{[,}],b}", &["/,,", "/}b"], &["/a,"]);
}

#[test]
fn groups_nest_and_may_be_partly_empty() {
    check("/{a,b{c,d}}/e", &["/a/e", "/bc/e", "/bd/e"], &["/b/e", "/ac/e"]);
    check("/lib{,64}/x", &["/lib/x", "/lib64/x"], &["/lib6/x"]);
    check("{/a,/b}/c", &["/a/c", "/b/c"], &["/c"]);
    check("/a,b", &["/a,b"], &["/a", "/b"]);
}

#[test]
fn an_escape_takes_the_meaning_away() {
    check("/\\*\\?\\[\\]\\{\\}\\,\\\\\\n", &["/*?[]{},\\n"], &["/a?[]{},\\n"]);
}

#[test]
fn bytes_that_are_no_utf8_match_as_bytes() {
    assert!(glob("/?").matches(b"/\xff"));
    assert!(Glob::parse(b"/\xff*").unwrap().matches(b"/\xff\xfe"));
}

#[test]
fn mistakes_are_told_with_their_place() {
    for (pattern, error) in [
        ("", GlobError::Empty),
        ("/a\\", GlobError::LoneEscape),
        ("/[ab", GlobError::UnclosedClass(1)),
        ("/[ab\\", GlobError::UnclosedClass(1)),
        ("/a[]", GlobError::EmptyClass(2)),
        ("/a[^]", GlobError::EmptyClass(2)),
        ("/[b-a]", GlobError::BackwardRange { at: 1, first: b'b', last: b'a' }),
        ("/{a,b", GlobError::UnclosedGroup(1)),
        ("/{}", GlobError::EmptyGroup(1)),
        ("/{,}", GlobError::EmptyGroup(1)),
        ("/a}b", GlobError::UnopenedGroup(2)),
        ("/a\0b", GlobError::Zero(2)),
        ("a/b", GlobError::NotAbsolute { suggestion: "/**/a/b".into() }),
        ("**/b", GlobError::NotAbsolute { suggestion: "/**/b".into() }),
        ("*.conf", GlobError::NotAbsolute { suggestion: "/**/*.conf".into() }),
    ] {
        assert_eq!(Glob::parse(pattern.as_bytes()), Err(error), "{pattern}");
    }
    for relative in ["{/a,b}", "{,a}/b", "[/]a", "?a", "{,/a}"] {
        assert!(matches!(Glob::parse(relative.as_bytes()), Err(GlobError::NotAbsolute { .. })), "{relative}");
    }
}

#[test]
fn limits_hold() {
    assert!(Glob::parse("/".repeat(MAX_PATTERN_BYTES).as_bytes()).is_ok());
    assert_eq!(Glob::parse("/".repeat(MAX_PATTERN_BYTES + 1).as_bytes()), Err(GlobError::TooLong(MAX_PATTERN_BYTES + 1)));
    let nested = |depth: usize| format!("/{}a{}", "{".repeat(depth), "}".repeat(depth));
    assert!(Glob::parse(nested(MAX_GLOB_DEPTH).as_bytes()).is_ok());
    assert!(matches!(Glob::parse(nested(MAX_GLOB_DEPTH + 1).as_bytes()), Err(GlobError::TooDeep(_))));
    assert!(Glob::parse(format!("/{}", "{a,b}".repeat(8)).as_bytes()).is_ok());
    assert_eq!(Glob::parse(format!("/{}", "{a,b}".repeat(9)).as_bytes()), Err(GlobError::TooManyAlternatives));
    assert_eq!(Glob::parse(format!("/{}", "{a,b}".repeat(500)).as_bytes()), Err(GlobError::TooManyAlternatives));
}

#[test]
fn a_hostile_pattern_is_matched_in_reasonable_time() {
    let hostile = glob(&format!("/{}b", "*a".repeat(2000)));
    assert!(!hostile.matches(format!("/{}", "a".repeat(4000)).as_bytes()));
}

#[test]
fn the_literal_prefix_ends_at_the_first_wildcard() {
    for (pattern, prefix) in
        [("/a/b", "/a/b"), ("/a/\\*b*", "/a/*b"), ("/a{b,c}", "/a"), ("/a[b]", "/a"), ("{/a,/b}", ""), ("/ab{,c}*", "/ab")]
    {
        assert_eq!(glob(pattern).literal_prefix(), prefix.as_bytes(), "{pattern}");
    }
}

/// Patterns made of pieces that are each right, so that most of them parse.
fn any_pattern() -> impl Strategy<Value = String> {
    let piece =
        prop_oneof!["[ab/.]", Just("*".into()), Just("**".into()), Just("?".into()), Just("[^a]".into()), Just("[a-b]".into())];
    let tree = piece.prop_recursive(3, 12, 3, |inner| {
        let sequence = prop::collection::vec(inner, 0..4).prop_map(|pieces| pieces.concat());
        prop::collection::vec(sequence, 1..4).prop_map(|alternatives| format!("{{{}}}", alternatives.join(",")))
    });
    prop::collection::vec(tree, 0..6).prop_map(|pieces| format!("/{}", pieces.concat()))
}

fn any_path() -> impl Strategy<Value = Vec<u8>> {
    "(/[ab.]{0,3}){1,4}".prop_map(String::into_bytes)
}

/// The definition by expansion and backtracking, for short inputs.
fn naive(nodes: &[Node], path: &[u8]) -> bool {
    let Some((first, rest)) = nodes.split_first() else { return path.is_empty() };
    let runs = |min: u8, passes: fn(u8) -> bool| {
        let most = path.iter().take_while(|&&byte| passes(byte)).count();
        (usize::from(min)..=most).any(|taken| naive(rest, &path[taken..]))
    };
    match first {
        Node::Literal(bytes) => path.strip_prefix(&bytes[..]).is_some_and(|left| naive(rest, left)),
        Node::AnyChar => path.first().is_some_and(|&byte| byte != b'/' && naive(rest, &path[1..])),
        Node::Class { ranges, negated } => {
            path.first().is_some_and(|&byte| class_contains(ranges, *negated, byte) && naive(rest, &path[1..]))
        }
        Node::Star { min } => runs(*min, |byte| byte != b'/'),
        Node::DoubleStar { min } => runs(*min, |_| true),
        Node::Alternatives(alternatives) => {
            alternatives.iter().any(|alternative| naive(&[&alternative[..], rest].concat(), path))
        }
    }
}

proptest! {
    #[test]
    fn parsing_never_panics(text in prop::collection::vec(any::<u8>(), 0..40)) {
        let _ = Glob::parse(&text);
    }

    #[test]
    fn literal_text_matches_itself_and_nothing_else(path in "/[a-z./ -]{0,30}", other in "/[a-z./ -]{0,30}") {
        prop_assert!(glob(&path).matches(path.as_bytes()));
        prop_assert_eq!(glob(&path).matches(other.as_bytes()), path == other);
    }

    #[test]
    fn an_escaped_path_matches_itself_alone(mut path in prop::collection::vec(1u8.., 0..30), at in 0usize..31, byte in 1u8..) {
        path.insert(0, b'/');
        let glob = Glob::parse(&escape(&path)).unwrap();
        prop_assert!(glob.matches(&path));
        prop_assert_eq!(glob.literal_prefix(), &path[..]);
        let mut other = path.clone();
        let at = at % other.len();
        other[at] = byte;
        prop_assert_eq!(glob.matches(&other), path == other);
    }

    #[test]
    fn the_matcher_agrees_with_backtracking(pattern in any_pattern(), path in any_path()) {
        if let Ok(glob) = Glob::parse(pattern.as_bytes()) {
            prop_assert_eq!(glob.matches(&path), naive(glob.ast(), &path));
        }
    }

    #[test]
    fn a_group_is_the_union_of_what_it_expands_to(pattern in any_pattern(), path in any_path()) {
        if let Ok(glob) = Glob::parse(pattern.as_bytes()) {
            let mut parser = Parser { text: pattern.as_bytes(), at: 0 };
            let mut flat = expand(&parser.sequence(0).unwrap());
            prop_assert_eq!(flat.len(), expansions(&parser_nodes(&pattern)));
            let any = flat.iter_mut().any(|sequence| {
                let _ = mark_tail(sequence, Some(false));
                naive(sequence, &path)
            });
            prop_assert_eq!(glob.matches(&path), any);
        }
    }
}

fn parser_nodes(pattern: &str) -> Vec<Node> {
    Parser { text: pattern.as_bytes(), at: 0 }.sequence(0).unwrap()
}
