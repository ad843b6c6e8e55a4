//! What is wrong with a document, where, and what to write instead.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A place in a file. Lines and columns count from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
}

/// One thing that is wrong (or, among the warnings, doubtful) in a file.
///
/// `{}` prints it on one line, for logs and for hooks, which have only one; [`Diagnostic::render`] shows the source.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Diagnostic {
    /// The file it is about.
    pub file: Arc<PathBuf>,
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// Path of the field in the document, e.g. `spec.file.matchPaths[2].path`; empty for the document itself.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it. Never empty.
    pub help: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.headline(f)?;
        write!(f, "; {}", self.help)
    }
}

/// Widest source line that is shown. A policy may come from anybody, and a terminal is narrow.
const MAX_SHOWN_COLUMNS: usize = 160;

impl Diagnostic {
    /// The diagnostic over several lines: the headline, the source line with a caret under the column, and the help.
    ///
    /// `source` is the text of the file; where it has no such line, the source line is left out.
    #[must_use]
    pub fn render(&self, source: &[u8]) -> String {
        struct Headline<'a>(&'a Diagnostic);
        impl fmt::Display for Headline<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.headline(f)
            }
        }
        let mut out = format!("{}\n", Headline(self));
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        let source = String::from_utf8_lossy(source);
        let line = crate::yaml::lines(&source).nth(self.line.saturating_sub(1) as usize);
        let column = self.column.max(1) as usize;
        if let Some(line) = line
            && column <= MAX_SHOWN_COLUMNS
        {
            // Control characters of a hostile file must not reach a terminal; a TAB must stay one column wide.
            let shown: String = line
                .trim_start_matches('\u{feff}')
                .trim_end()
                .chars()
                .take(MAX_SHOWN_COLUMNS)
                .map(|c| match c {
                    '\t' => '→',
                    c if c.is_control() => '\u{fffd}',
                    c => c,
                })
                .collect();
            out.push_str(&format!("{gutter} |\n{number} | {shown}\n{gutter} | {}^\n", " ".repeat(column - 1)));
        }
        out.push_str(&format!("{gutter} = help: {}\n", self.help));
        out
    }

    fn headline(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file.display(), self.line, self.column)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }

    pub(crate) fn new(
        file: &Arc<PathBuf>,
        at: Position,
        field: impl Into<String>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            file: Arc::clone(file),
            line: at.line,
            column: at.column,
            field: printable(&field.into()),
            message: printable(&message.into()),
            help: printable(&help.into()),
        }
    }
}

impl Position {
    /// The first character of a file.
    pub const START: Self = Self { line: 1, column: 1 };
}

/// Most characters of a message, a field path or a help text: they may quote a document that anybody wrote.
const MAX_TEXT_CHARS: usize = 600;

/// Escapes control characters (a diagnostic is one line, whatever the document holds) and bounds the length.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(MAX_TEXT_CHARS));
    for (count, c) in text.chars().enumerate() {
        if count == MAX_TEXT_CHARS {
            out.push('…');
            break;
        }
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// `text` in backquotes, shortened to what fits a message.
pub(crate) fn quote(text: &str) -> String {
    const MAX_QUOTED_CHARS: usize = 80;
    if text.chars().count() > MAX_QUOTED_CHARS {
        let head: String = text.chars().take(MAX_QUOTED_CHARS).collect();
        format!("`{head}…`")
    } else {
        format!("`{text}`")
    }
}

/// The shared form of a file name that every diagnostic and origin holds.
pub(crate) fn file_name(file: &Path) -> Arc<PathBuf> {
    Arc::new(file.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn render_points_at_the_column() {
        let file = file_name(Path::new("p.yaml"));
        let at = Position { line: 2, column: 3 };
        let diagnostic = Diagnostic::new(&file, at, "spec.x", "unknown field", "remove it");
        assert_eq!(diagnostic.to_string(), "p.yaml:2:3: spec.x: unknown field; remove it");
        assert_eq!(
            diagnostic.render(b"spec:\n  x: 1\n"),
            "p.yaml:2:3: spec.x: unknown field\n  |\n2 |   x: 1\n  |   ^\n  = help: remove it\n"
        );
    }

    #[test]
    fn control_characters_never_reach_the_terminal() {
        let file = file_name(Path::new("p.yaml"));
        let diagnostic = Diagnostic::new(&file, Position::START, "", "bad \x1b[2J value", "fix");
        assert!(!diagnostic.to_string().contains('\x1b'));
        assert!(!diagnostic.render(b"a: \x1b[2J").contains('\x1b'));
    }
}
