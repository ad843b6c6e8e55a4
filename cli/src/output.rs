//! Printing. stdout is data: a table for people, JSON for programs.

use std::io::Write;

use serde::Serialize;

use crate::failure::Failure;

/// Prints one JSON value on a line of its own.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, value).map_err(std::io::Error::from).map_err(Failure::Output)?;
    out.write_all(b"\n").and_then(|()| out.flush()).map_err(Failure::Output)
}

/// Prints a line.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).map_err(Failure::Output)
}

/// Prints rows in columns as wide as they need to be. Control characters do not reach the terminal.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
    let clean: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let mut widths: Vec<usize> = header.iter().map(|name| name.chars().count()).collect();
    for row in &clean {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let print = |cells: Vec<&str>| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        line(padded.join("  ").trim_end())
    };
    print(header.to_vec())?;
    clean.iter().try_for_each(|row| print(row.iter().map(String::as_str).collect()))
}

/// The line about something wrong with a policy file, and what is in force in its stead.
pub(crate) fn refused(message: &str, kept: &[String]) -> String {
    let kept = if kept.is_empty() { String::new() } else { format!("; still in force: {}", kept.join(", ")) };
    format!("REFUSED {}{}", printable(message), printable(&kept))
}

/// `text` with control characters written out, and those that change the order in which a terminal shows others.
pub(crate) fn printable(text: &str) -> String {
    /// Unicode's explicit directional formatting characters (UAX #9, table 1): what stands after one is not where it seems.
    const DIRECTIONAL: [char; 12] = [
        '\u{61c}', '\u{200e}', '\u{200f}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}', '\u{2066}', '\u{2067}',
        '\u{2068}', '\u{2069}',
    ];
    let is_plain = |c: char| !c.is_control() && !DIRECTIONAL.contains(&c);
    text.chars().flat_map(|c| if is_plain(c) { vec![c] } else { c.escape_default().collect() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_the_cursor_or_turns_the_text_round_is_written_out() {
        assert_eq!(printable("a\u{1b}[2J\n\u{9b}\u{7f}"), r"a\u{1b}[2J\n\u{9b}\u{7f}");
        assert_eq!(printable("exe.\u{202e}gnp\u{2066}\u{200f}"), r"exe.\u{202e}gnp\u{2066}\u{200f}");
        assert_eq!(printable("é/日本 '\\"), "é/日本 '\\");
    }
}
