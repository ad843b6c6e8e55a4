use portcullis_policy::glob::Glob;
use portcullis_policy::meaning::Object;
use proptest::prelude::*;

use super::super::language::{everything, executables, files};
use super::*;

fn pattern(text: &str) -> Object {
    Object::Pattern(Glob::parse(text.as_bytes()).unwrap())
}

fn without(from: &str, exceptions: &[&str]) -> Result<Vec<String>, Inexpressible> {
    let exceptions: Vec<Sequence> = exceptions.iter().flat_map(|text| executables(&pattern(text))).collect();
    let left = subtract(&executables(&pattern(from)), &exceptions, &mut Budget::default())?;
    Ok(left.iter().map(ToString::to_string).collect())
}

#[test]
fn a_name_is_taken_out_of_its_directory() {
    let left = without("/etc/*", &["/etc/ab"]).unwrap();
    assert_eq!(left, ["/etc/a", "/etc/ab?*", r"/etc/a[\001-.0-ac-\377]*", r"/etc/[\001-.0-\140b-\377]*"]);
}

#[test]
fn what_is_covered_altogether_leaves_nothing() {
    assert_eq!(without("/etc/*.conf", &["/etc/**"]), Ok(Vec::new()));
    assert_eq!(without("/a", &["/a"]), Ok(Vec::new()));
    assert_eq!(without("/a", &["/b"]), Ok(vec!["/a".to_owned()]));
}

#[test]
fn an_ending_is_told_from_the_end() {
    let named_x: Vec<Sequence> = ["/**/x", "/x"].iter().flat_map(|text| executables(&pattern(text))).collect();
    let left = subtract(&executables(&pattern("/**")), &named_x, &mut Budget::default()).unwrap();
    assert!(["/x", "/a/x", "/x/x"].iter().all(|name| !some_matches(&left, name.as_bytes())), "{left:?}");
    assert!(["/ax", "/xx", "/y", "/x/y", "/a/bx"].iter().all(|name| some_matches(&left, name.as_bytes())), "{left:?}");
}

#[test]
fn what_comes_back_both_ways_has_no_form() {
    assert_eq!(without("/**", &["/**/x/**"]), Err(Inexpressible));
}

#[test]
fn a_long_common_beginning_is_too_much() {
    let long = format!("/{}", "a".repeat(2000));
    assert_eq!(without("/**", &[&long]), Err(Inexpressible));
}

/// Whether a sequence matches, by its definition.
fn matches(elements: &[Element], name: &[u8]) -> bool {
    let Some((first, rest)) = elements.split_first() else { return name.is_empty() };
    match first {
        Element::One(set) => name.split_first().is_some_and(|(byte, name)| set.contains(*byte) && matches(rest, name)),
        run => (0..=name.len())
            .take_while(|&taken| taken == 0 || bytes(*run).contains(name[taken - 1]))
            .any(|taken| matches(rest, &name[taken..])),
    }
}

fn some_matches(sequences: &[Sequence], name: &[u8]) -> bool {
    sequences.iter().any(|sequence| matches(sequence.elements(), name))
}

const PATTERNS: &[&str] = &[
    "/**",
    "/*",
    "/a",
    "/a/*",
    "/a/**",
    "/a/b",
    "/*/b",
    "/a*",
    "/*b",
    "/**/b",
    "/**b",
    "/a/**/b",
    "/[ab]/**",
    "/?b",
    "/a/[^b]*",
    "/{a,b}/**",
    "/ab*a",
    "/*.a",
    "/a/*/b",
    "/*a*",
    "/**/a/**",
    "/**/*.a",
    "/a**b",
];

fn object() -> impl Strategy<Value = Object> {
    prop_oneof![
        3 => prop::sample::select(PATTERNS).prop_map(pattern),
        1 => "(/[ab.]{1,2}){1,3}".prop_map(|path| Object::Path(path.into_bytes())),
        1 => ("(/[ab.]{1,2}){0,2}", any::<bool>())
            .prop_map(|(dir, recursive)| Object::Directory { dir: dir.into_bytes(), recursive }),
    ]
}

proptest! {
    #[test]
    fn what_is_left_is_the_difference(
        from in object(),
        without in prop::collection::vec(object(), 0..4),
        names in prop::collection::vec("(/[abc.]{1,3}){1,4}/?", 40..41),
    ) {
        let (from, without) = (files(&from), without.iter().flat_map(files).collect::<Vec<_>>());
        if let Ok(left) = subtract(&from, &without, &mut Budget::default()) {
            for name in names.iter().map(String::as_bytes).chain([&b"/"[..]]) {
                let expected = some_matches(&from, name) && !some_matches(&without, name);
                prop_assert_eq!(some_matches(&left, name), expected, "{}", String::from_utf8_lossy(name));
            }
        }
    }

    #[test]
    fn two_meet_where_a_name_is_matched_by_both(a in object(), b in object(), names in prop::collection::vec("(/[ab.]{1,3}){1,3}/?", 20)) {
        for (a, b) in files(&a).iter().flat_map(|a| files(&b).into_iter().map(move |b| (a.clone(), b))) {
            let both = names.iter().any(|name| matches(a.elements(), name.as_bytes()) && matches(b.elements(), name.as_bytes()));
            prop_assert!(!both || meets(&a, &b, &mut Budget::default()));
        }
    }

    #[test]
    fn what_can_be_left_of_everything_is_found(paths in prop::collection::vec("(/[a-z]{1,8}){1,4}", 1..12)) {
        let without: Vec<Sequence> = paths.iter().flat_map(|path| files(&Object::Path(path.clone().into_bytes()))).collect();
        let left = subtract(&[everything()], &without, &mut Budget::default());
        prop_assert!(left.is_ok());
    }
}
