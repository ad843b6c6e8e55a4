//! Every published policy ends in one of two ways: accepted, with a report of each rule, or refused, with a place and a fix.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use portcullis_policy::{Backend, Diagnostic, Options, Parsed, Support, parse, report};

/// Files below `directory`, sorted.
fn files(directory: &Path, out: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            out.push(path);
        }
    }
}

fn corpus() -> Vec<(PathBuf, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut paths = Vec::new();
    files(&root, &mut paths);
    let read = |path: PathBuf| (path.strip_prefix(&root).unwrap().to_path_buf(), std::fs::read(&path).unwrap());
    paths.into_iter().map(read).collect()
}

/// The message without what it quotes: what kind of mistake it is.
fn reason(diagnostic: &Diagnostic) -> String {
    diagnostic.message.split('`').enumerate().map(|(index, part)| if index % 2 == 1 { "…" } else { part }).collect()
}

fn outcomes(parsed: &[(PathBuf, Parsed)]) -> BTreeMap<String, usize> {
    let mut table = BTreeMap::new();
    let mut count = |what: String| *table.entry(what).or_insert(0) += 1;
    for (_, parsed) in parsed {
        for document in &parsed.documents {
            match document {
                Ok(policy) => {
                    let reports = report(policy, Backend::Bpf);
                    let left_out = reports.iter().any(|r| matches!(r.support, Support::None(_)));
                    count(if left_out { "accepted, something not enforced" } else { "accepted" }.to_owned());
                    for report in reports {
                        count(match report.support {
                            Support::Full => "rules: Full".to_owned(),
                            Support::Partial(_) => "rules: Partial".to_owned(),
                            Support::None(_) if policy.kind == portcullis_policy::Kind::KubeArmorHostPolicy => {
                                "rules: None, host".to_owned()
                            }
                            Support::None(_) => format!("rules: None, {}", report.summary),
                        });
                    }
                }
                Err(diagnostics) => {
                    count("refused".to_owned());
                    let mut reasons: Vec<String> = diagnostics.iter().map(reason).collect();
                    reasons.sort();
                    reasons.dedup();
                    reasons.into_iter().for_each(|reason| count(format!("refused: {reason}")));
                }
            }
        }
    }
    table
}

#[test]
fn every_published_policy_is_accepted_or_refused_as_recorded() {
    let parsed: Vec<_> =
        corpus().into_iter().map(|(path, text)| (path.clone(), parse(&path, text, Options::default()))).collect();
    assert_eq!(parsed.len(), 477);
    let found = outcomes(&parsed).into_iter().fold(String::new(), |mut out, (what, count)| {
        writeln!(out, "{count:5} {what}").unwrap();
        out
    });
    let expected = include_str!("corpus.expected");
    assert!(found == expected, "the outcomes are not those of tests/corpus.expected; found:\n{found}");
}

#[test]
fn every_refusal_says_where_and_what_to_do() {
    for (path, text) in corpus() {
        let parsed = parse(&path, &text, Options::default());
        assert_eq!(parsed.documents.len(), 1, "{}", path.display());
        assert_eq!(parsed.identities.len(), 1);
        let lines = text.split(|&b| b == b'\n').count();
        for diagnostics in parsed.documents.iter().filter_map(|document| document.as_ref().err()) {
            assert!(!diagnostics.is_empty(), "{}", path.display());
        }
        for diagnostic in parsed.errors().chain(&parsed.warnings) {
            assert_eq!(*diagnostic.file, path);
            assert!((1..=lines).contains(&(diagnostic.line as usize)) && diagnostic.column >= 1, "{diagnostic}");
            assert!(!diagnostic.message.is_empty() && !diagnostic.help.is_empty(), "{diagnostic}");
        }
        for policy in parsed.policies() {
            for rule in &policy.rules {
                let line = text.split(|&b| b == b'\n').nth(rule.origin.line as usize - 1).unwrap();
                assert!(!line.is_empty(), "{}:{} is where a rule stands", path.display(), rule.origin.line);
                assert!(!rule.objects.is_empty());
            }
        }
    }
}
