//! Where errors and warnings of one document are gathered.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Position};
use crate::yaml::MAX_DIAGNOSTICS;

/// What every reader has at hand.
pub(crate) struct Context<'a> {
    pub(crate) file: &'a Arc<PathBuf>,
    /// Unknown fields are warnings.
    pub(crate) lenient: bool,
    errors: RefCell<Vec<Diagnostic>>,
    warnings: RefCell<Vec<Diagnostic>>,
}

impl<'a> Context<'a> {
    /// `errors` are those that are known already.
    pub(crate) fn new(file: &'a Arc<PathBuf>, lenient: bool, errors: Vec<Diagnostic>) -> Self {
        Self { file, lenient, errors: RefCell::new(errors), warnings: RefCell::default() }
    }

    /// The document is wrong, and is refused.
    pub(crate) fn error(&self, at: Position, field: &str, message: impl Into<String>, help: impl Into<String>) {
        push(&self.errors, Diagnostic::new(self.file, at, field, message, help));
    }

    /// The document is doubtful, and is accepted.
    pub(crate) fn warn(&self, at: Position, field: &str, message: impl Into<String>, help: impl Into<String>) {
        push(&self.warnings, Diagnostic::new(self.file, at, field, message, help));
    }

    /// The errors and the warnings, each in the order of the file.
    pub(crate) fn finish(self) -> (Vec<Diagnostic>, Vec<Diagnostic>) {
        let sorted = |cell: RefCell<Vec<Diagnostic>>| {
            let mut list = cell.into_inner();
            list.sort_by(|a, b| (a.line, a.column, &a.field).cmp(&(b.line, b.column, &b.field)));
            list
        };
        (sorted(self.errors), sorted(self.warnings))
    }
}

fn push(list: &RefCell<Vec<Diagnostic>>, diagnostic: Diagnostic) {
    let mut list = list.borrow_mut();
    if list.len() < MAX_DIAGNOSTICS {
        list.push(diagnostic);
    }
}
