//! `portcullis policy test`: the expectations that authors write beside their policies, asked of the reference model.

use std::path::{Path, PathBuf};

use portcullis_policy::decide::Verdict;
use portcullis_policy::expectation::{self, Expectation, FILE_ENDING, Only};
use portcullis_policy::{Options, Policy};
use serde::Serialize;

use crate::args::Output;
use crate::failure::Failure;
use crate::{Answer, output, policy_files};

#[derive(Serialize)]
struct Tested<'a> {
    file: &'a Path,
    line: u32,
    document: &'a str,
    case: &'a str,
    passed: bool,
    expected: Verdict,
    verdict: Verdict,
    why: String,
}

#[derive(Default)]
struct Totals {
    passed: usize,
    failed: usize,
    skipped: usize,
}

pub(crate) fn test(paths: &[PathBuf], format: Output) -> Result<Answer, Failure> {
    let mut totals = Totals::default();
    for path in policy_files::find(paths)? {
        if !paths.contains(&path) && !path.to_string_lossy().ends_with(FILE_ENDING) {
            continue;
        }
        let text = policy_files::text(&path)?;
        match expectation::parse(&path, &text) {
            Ok(documents) => {
                documents.iter().try_for_each(|document| run(&path, document, format, &mut totals))?;
            }
            Err(errors) => {
                totals.failed += 1;
                errors.iter().for_each(|error| eprint!("error: {}", error.render(&text)));
            }
        }
    }
    if format == Output::Table {
        output::line(&format!("{} passed, {} failed, {} skipped", totals.passed, totals.failed, totals.skipped))?;
    }
    if totals.passed + totals.failed == 0 {
        return Err(Failure::NothingToTest { ending: FILE_ENDING });
    }
    Ok(if totals.failed == 0 { Answer::Yes } else { Answer::No })
}

fn run(path: &Path, document: &Expectation, format: Output, totals: &mut Totals) -> Result<(), Failure> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut loaded: Vec<Policy> = Vec::new();
    for name in &document.policy_files {
        let path = directory.join(name);
        let file = policy_files::read(&path, Options::default())?;
        let errors = file.parsed.errors().count();
        if errors > 0 {
            return Err(Failure::Refused { path, errors });
        }
        loaded.extend(file.parsed.policies().cloned());
    }
    let selection = document.select(&loaded);
    for case in &document.cases {
        if matches!(case.only, Only::Kernel(_)) {
            totals.skipped += 1;
            continue;
        }
        let outcome = document.evaluate(&selection, case);
        let mismatch = document.mismatch(case, &outcome);
        match mismatch {
            None => totals.passed += 1,
            Some(_) => totals.failed += 1,
        }
        match (format, &mismatch) {
            (Output::Json, _) => output::json(&Tested {
                file: path,
                line: case.line,
                document: &document.name,
                case: &case.name,
                passed: mismatch.is_none(),
                expected: case.expect,
                verdict: outcome.verdict,
                why: outcome.reason.to_string(),
            })?,
            (Output::Table, Some(why)) => {
                let place = format!("{}:{}", path.display(), case.line);
                output::line(&format!("FAIL {place}: {}: {}", output::printable(&case.name), output::printable(why)))?;
            }
            (Output::Table, None) => {}
        }
    }
    Ok(())
}
