//! Whatever the bytes, reading them ends soon and without a panic, and what is refused says where.
//!
//! The inputs are published policies that were damaged: flipped bytes, cut ends, repeated parts, deep nesting. Run longer with
//! `PROPTEST_CASES=100000 cargo test --release -p portcullis-policy --test hostile`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use portcullis_policy::{Backend, ContainerFacts, Options, Parsed, parse, report, select};
use proptest::prelude::*;

/// Longest time for one damaged policy of a few KiB, in a build without optimisation on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest time for a whole file of the largest size that is read, likewise.
const PATIENCE_LARGEST: Duration = Duration::from_secs(20);

static SEEDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")];
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { files.push(path) }
        }
    }
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
});

/// One way of damaging a text.
#[derive(Debug, Clone)]
enum Damage {
    Flip { at: prop::sample::Index, mask: u8 },
    Cut { at: prop::sample::Index },
    Remove { at: prop::sample::Index, length: usize },
    Repeat { at: prop::sample::Index, length: usize, times: usize },
    Insert { at: prop::sample::Index, text: &'static str, times: usize },
    SwapLines { a: prop::sample::Index, b: prop::sample::Index },
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<prop::sample::Index>;
    let words = [
        "[",
        "{",
        "- ",
        "? ",
        "&a ",
        "*a ",
        "!!x ",
        "|\n",
        ">\n",
        "\t",
        "---\n",
        "\n...\n",
        "\"",
        "'",
        "#",
        ": ",
        "\0",
        "\u{feff}",
        "%YAML 9.9\n",
        "<<: ",
        "\\",
        "**",
        "{a,b}",
        "[!",
        "\r",
        "\u{2028}",
        "999999999999999999999",
        "null",
        "~",
    ];
    prop_oneof![
        (at(), 1u8..).prop_map(|(at, mask)| Damage::Flip { at, mask }),
        at().prop_map(|at| Damage::Cut { at }),
        (at(), 1usize..64).prop_map(|(at, length)| Damage::Remove { at, length }),
        (at(), 1usize..200, 1usize..40).prop_map(|(at, length, times)| Damage::Repeat { at, length, times }),
        (at(), prop::sample::select(words.to_vec()), prop_oneof![Just(1usize), 2usize..400])
            .prop_map(|(at, text, times)| Damage::Insert { at, text, times }),
        (at(), at()).prop_map(|(a, b)| Damage::SwapLines { a, b }),
    ]
}

fn apply(mut text: Vec<u8>, damage: &Damage) -> Vec<u8> {
    if text.is_empty() {
        return text;
    }
    match damage {
        Damage::Flip { at, mask } => {
            let at = at.index(text.len());
            text[at] ^= mask;
        }
        Damage::Cut { at } => text.truncate(at.index(text.len())),
        Damage::Remove { at, length } => {
            let at = at.index(text.len());
            text.drain(at..(at + length).min(text.len()));
        }
        Damage::Repeat { at, length, times } => {
            let at = at.index(text.len());
            let part = text[at..(at + length).min(text.len())].repeat(*times);
            text.splice(at..at, part);
        }
        Damage::Insert { at, text: word, times } => {
            let at = at.index(text.len());
            text.splice(at..at, word.repeat(*times).into_bytes());
        }
        Damage::SwapLines { a, b } => {
            let mut lines: Vec<&[u8]> = text.split_inclusive(|&byte| byte == b'\n').collect();
            let (a, b) = (a.index(lines.len()), b.index(lines.len()));
            lines.swap(a, b);
            text = lines.concat();
        }
    }
    text
}

/// Reads `text` as every caller does, to the end, and checks what holds of every outcome.
fn read_all(text: &[u8], patience: Duration) -> Parsed {
    let start = Instant::now();
    let parsed = parse(Path::new("p.yaml"), text, Options::default());
    assert_eq!(parsed.documents.len(), parsed.identities.len());
    let lines = text.split(|&byte| byte == b'\n' || byte == b'\r').count() + 1;
    for document in &parsed.documents {
        match document {
            Ok(policy) => assert!(policy.rules.iter().all(|rule| !rule.objects.is_empty()), "{policy:?}"),
            Err(diagnostics) => assert!(!diagnostics.is_empty(), "a refusal without a reason"),
        }
    }
    for diagnostic in parsed.errors().chain(&parsed.warnings) {
        assert!(diagnostic.line >= 1 && diagnostic.column >= 1 && !diagnostic.help.is_empty(), "{diagnostic}");
        assert!(diagnostic.line as usize <= lines, "{diagnostic}");
        assert!(!diagnostic.to_string().chars().any(char::is_control));
    }
    if let Some(diagnostic) = parsed.errors().next() {
        let _ = diagnostic.render(text);
    }
    let policies: Vec<_> = parsed.policies().cloned().collect();
    policies.iter().for_each(|policy| drop(report(policy, Backend::Bpf)));
    let _ = select(&policies, &ContainerFacts::default(), Default::default());
    assert!(start.elapsed() < patience, "{:?} for {} bytes", start.elapsed(), text.len());
    parsed
}

/// Cases are cheap here: 2,000 unless the environment asks for more.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig { cases: default.cases.max(2_000), max_shrink_iters: 2_000, failure_persistence: None, ..default }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn damaged_policies_are_read_or_refused(seed in any::<prop::sample::Index>(), damages in prop::collection::vec(damage(), 1..8)) {
        let seed = seed.get(&SEEDS).clone();
        let text = damages.iter().fold(seed, apply);
        read_all(&text, PATIENCE);
    }

    #[test]
    fn a_damaged_document_hides_no_other(seed in any::<prop::sample::Index>(), damages in prop::collection::vec(damage(), 1..4)) {
        let good = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {name: good}\nspec: {file: {matchPaths: [{path: /a}]}}\n";
        let damaged = damages.iter().fold(seed.get(&SEEDS).clone(), apply);
        // What is not UTF-8 is not text, and the whole file is refused; that is not the question here.
        let damaged = String::from_utf8_lossy(&damaged);
        let text = format!("{good}---\n{damaged}\n---\n{good}");
        let parsed = read_all(text.as_bytes(), PATIENCE);
        let found = parsed.policies().filter(|policy| &*policy.name == "good").count();
        prop_assert!(found >= 2, "{} documents, {found} of the good ones", parsed.documents.len());
    }

    #[test]
    fn any_bytes_are_read_or_refused(text in prop::collection::vec(any::<u8>(), 0..600)) {
        read_all(&text, PATIENCE);
    }
}

#[test]
fn the_largest_files_are_read_in_bounded_time() {
    const SIZE: usize = 1 << 20;
    let fill = |part: &str| part.repeat(SIZE / part.len());
    let aliases = format!("a: &a [{}]\nb: [{}]\n", "x, ".repeat(900), "*a, ".repeat(1_000));
    let documents = "---\n".to_owned() + &"a: &a [1]\nb: [*a, *a]\n---\n".repeat(900);
    let many = "- {path: /a}\n";
    let rules =
        "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {name: x}\nspec:\n  file:\n    matchPaths:\n    "
            .to_owned() + &format!("    {many}").repeat(50_000)[4..];
    for text in [
        fill("["),
        fill("{"),
        fill("- "),
        fill("a: "),
        fill("? "),
        fill("\""),
        fill("'"),
        fill("&a "),
        fill("*a "),
        fill("!x "),
        fill("# x\n"),
        fill("\n"),
        fill("\t"),
        fill("a"),
        fill("- a\n"),
        fill("[a,"),
        fill("{a: b},"),
        fill("%"),
        fill("|\n"),
        fill("a:\n "),
        fill("\\"),
        fill("\r"),
        fill("---"),
        fill("--- a\n"),
        fill("\"a\\\n"),
        fill("a: b\n"),
        aliases,
        documents,
        rules,
    ] {
        read_all(&text.as_bytes()[..text.len().min(SIZE)], PATIENCE_LARGEST);
    }
}
