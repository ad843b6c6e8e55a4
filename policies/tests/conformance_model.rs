//! The conformance corpus, on the reference model. The same documents are run on the kernel by `portcullis-tests`.

use std::path::{Path, PathBuf};

use portcullis_policy::expectation::{self, Expectation, Only};
use portcullis_policy::{Options, Parsed};

/// Fewest cases that the corpus has: so that a reader of directories that finds nothing cannot pass.
const FEWEST_CASES: usize = 320;

#[test]
fn every_case_of_the_corpus_ends_as_expected() {
    let mut cases = 0;
    let mut wrong = Vec::new();
    for (file, document) in corpus() {
        let selection = document.select(&[]);
        assert!(document.policy_files.is_empty(), "{file}: the corpus holds its policies itself");
        for case in &document.cases {
            cases += 1;
            if matches!(case.only, Only::Kernel(_)) {
                continue;
            }
            let outcome = document.evaluate(&selection, case);
            if let Some(mismatch) = document.mismatch(case, &outcome) {
                wrong.push(format!("{file}:{}: {}:{}: {mismatch}", case.line, document.name, case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {cases} cases:\n{}", wrong.len(), wrong.join("\n"));
    assert!(cases >= FEWEST_CASES, "only {cases} cases");
}

#[test]
fn every_document_has_a_name_of_its_own() {
    let mut names: Vec<String> = corpus().into_iter().map(|(_, document)| document.name).collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn the_policies_of_a_document_mean_the_same_as_a_file_of_their_own() {
    for (file, document) in corpus() {
        let Parsed { documents, .. } =
            portcullis_policy::parse(Path::new("copy.yaml"), &document.policy_text, Options::default());
        let copies: Vec<_> =
            documents.into_iter().map(|copy| copy.unwrap_or_else(|errors| panic!("{file}: {errors:?}"))).collect();
        assert_eq!(copies.len(), document.policies.len(), "{file}: {}", document.name);
        let alone = Expectation { policies: Vec::new(), ..document.clone() };
        let (inline, from_file) = (document.select(&[]), alone.select(&copies));
        assert_eq!(inline.policies, from_file.policies);
        for case in document.cases.iter().filter(|case| !matches!(case.only, Only::Kernel(_))) {
            let (a, b) = (document.evaluate(&inline, case), alone.evaluate(&from_file, case));
            assert_eq!((a.verdict, a.reason.name()), (b.verdict, b.reason.name()), "{file}: {}:{}", document.name, case.name);
        }
    }
}

fn corpus() -> Vec<(String, Expectation)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/conformance");
    let entries = std::fs::read_dir(&directory).expect("the corpus is there");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("it is read").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    let mut all = Vec::new();
    for path in files {
        let file = path.file_name().expect("it has a name").to_string_lossy().into_owned();
        let text = std::fs::read(&path).expect("it is read");
        let documents = expectation::parse(Path::new(&file), &text).unwrap_or_else(|errors| {
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            panic!("{}", lines.join("\n"))
        });
        all.extend(documents.into_iter().map(|document| (file.clone(), document)));
    }
    all
}
