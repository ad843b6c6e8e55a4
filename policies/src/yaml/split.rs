//! Cutting a file into documents, by lines.

/// The text of one document and the number of lines before it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chunk<'a> {
    pub(crate) text: &'a str,
    pub(crate) lines_before: u32,
}

/// The documents of `text`, without those that hold nothing but comments. Their text starts after the `---`'s line break, or
/// at the `---` where something follows it on its line.
pub(crate) fn split(text: &str) -> Vec<Chunk<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut chunks = Vec::new();
    let mut start = 0;
    let mut start_line = 0;
    let mut offset = 0;
    for (number, line) in lines(text).enumerate() {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let next = offset + line.len();
        if let Some(rest) = marker(line) {
            chunks.push(Chunk { text: &text[start..offset], lines_before: start_line });
            let bare = rest.trim_start().is_empty() || rest.trim_start().starts_with('#');
            (start, start_line) = if bare { (next, number + 1) } else { (offset, number) };
        }
        offset = next;
    }
    chunks.push(Chunk { text: &text[start..], lines_before: start_line });
    chunks.retain(|chunk| lines(chunk.text).any(|line| !is_silent(line)));
    chunks
}

/// The lines of `text` with their breaks. As YAML has it, a carriage return by itself breaks a line too (rule `b-break`).
pub(crate) fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.find(['\n', '\r']).map_or(rest.len(), |at| at + if rest[at..].starts_with("\r\n") { 2 } else { 1 });
        let (line, after) = rest.split_at(end);
        rest = after;
        Some(line)
    })
}

/// What follows a `---` or `...` at the start of a line, when that is what the line starts with.
fn marker(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("---").or_else(|| line.strip_prefix("..."))?;
    (rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n'])).then_some(rest)
}

/// Whether a line says nothing: empty, a comment, or a directive such as `%YAML 1.2` (which stands alone before a `---`).
fn is_silent(line: &str) -> bool {
    let trimmed = line.trim();
    trimmed.is_empty() || trimmed.starts_with('#') || line.starts_with('%')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<(u32, &str)> {
        split(text).into_iter().map(|chunk| (chunk.lines_before, chunk.text)).collect()
    }

    #[test]
    fn documents_are_cut_at_marker_lines_and_keep_their_line_numbers() {
        assert_eq!(parts("a: 1\n---\nb: 2\n...\n# nothing\n---\n---  # c\nc: 3"), [(0, "a: 1\n"), (2, "b: 2\n"), (7, "c: 3")]);
        assert_eq!(parts("%YAML 1.2\n---\na: 1\n"), [(2, "a: 1\n")]);
        assert_eq!(parts("a: 1\r\n---\r\nb: 2\r\n"), [(0, "a: 1\r\n"), (2, "b: 2\r\n")]);
        assert_eq!(parts("a: 1\r---\rb: 2\r"), [(0, "a: 1\r"), (2, "b: 2\r")]);
        assert_eq!(parts("--- {a: 1}\n"), [(0, "--- {a: 1}\n")]);
        assert!(parts("\n# only a comment\n---\n").is_empty());
    }

    #[test]
    fn dashes_inside_a_line_or_a_word_are_no_marker() {
        assert_eq!(parts("a: |\n  ---\n----\n").len(), 1);
    }
}
