//! What becomes of every published policy on each backend; SPECIFICATION.md has the sums.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use portcullis_enforcer::apparmor;
use portcullis_policy::{Backend, Options, Policy, RuleReport, Support, parse, report};

fn policies(directory: &Path, found: &mut Vec<Policy>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            policies(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.extend(parse(&path, std::fs::read(&path).unwrap(), Options::default()).policies().cloned());
        }
    }
}

#[derive(Default)]
struct Sums {
    /// Documents of which every rule is enforced in full, some in part, and some not at all.
    documents: [usize; 3],
    rules: [usize; 3],
}

impl Sums {
    fn add(&mut self, reports: &[RuleReport]) {
        let level = |report: &RuleReport| match report.support {
            Support::Full => 0,
            Support::Partial(_) => 1,
            Support::None(_) => 2,
        };
        self.documents[reports.iter().map(level).max().unwrap_or(0)] += 1;
        reports.iter().for_each(|report| self.rules[level(report)] += 1);
    }
}

#[test]
fn the_table_of_the_specification_is_true() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = Vec::new();
    policies(&root.join("policies/tests/corpus"), &mut found);
    let (mut bpf, mut apparmor) = (Sums::default(), Sums::default());
    for policy in &found {
        bpf.add(&report(policy, Backend::Bpf));
        apparmor.add(&apparmor::report(policy));
    }
    let specification = std::fs::read_to_string(root.join("SPECIFICATION.md")).unwrap();
    for (name, sums) in [("BPF LSM", bpf), ("AppArmor", apparmor)] {
        let [documents, rules] = [sums.documents, sums.rules].map(|sums| sums.map(|sum| sum.to_string()).join(" / "));
        let row = format!("| {name} | {documents} | {rules} |");
        assert!(specification.contains(&row), "SPECIFICATION.md lacks the row\n{row}");
    }
}
