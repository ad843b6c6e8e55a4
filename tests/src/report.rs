//! What the suites say: one line per test on standard output, and what it comes to.

use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long each of the slow tests took is printed.
const SLOW: Duration = Duration::from_secs(5);

/// Counts and prints results.
#[derive(Debug, Default)]
pub(crate) struct Report {
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Report {
    /// A test that proved what its name says.
    pub(crate) fn ok(&mut self, name: &str) {
        self.passed += 1;
        println!("ok {name}");
    }

    /// A test that did not.
    pub(crate) fn fail(&mut self, name: &str, why: impl std::fmt::Display) {
        self.failed += 1;
        println!("FAIL {name}: {why}");
    }

    /// A test that could prove nothing here.
    pub(crate) fn skip(&mut self, name: &str, why: impl std::fmt::Display) {
        self.skipped += 1;
        println!("skip {name}: {why}");
    }

    /// `ok`, or `FAIL` with the reason.
    pub(crate) fn check(&mut self, name: &str, result: Result<(), String>) {
        match result {
            Ok(()) => self.ok(name),
            Err(why) => self.fail(name, why),
        }
    }

    /// A test whose setting-up may go wrong as well.
    pub(crate) fn run(&mut self, name: &str, test: impl FnOnce() -> crate::Result<Result<(), String>>) {
        let begun = Instant::now();
        let result = test();
        if begun.elapsed() > SLOW {
            println!("# {name}: {} s", begun.elapsed().as_secs());
        }
        match result {
            Ok(result) => self.check(name, result),
            Err(error) => self.fail(name, error),
        }
    }

    /// Prints the closing line. A run that tested nothing has failed.
    pub(crate) fn finish(&self) -> ExitCode {
        println!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped);
        if self.failed == 0 && self.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
