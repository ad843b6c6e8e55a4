//! "Did you mean …?": the known word that is nearest to what was typed.

/// Most single-character edits between what was typed and what is suggested.
const MAX_EDITS: usize = 3;

/// The word of `known` that is nearest to `typed`, if one is near enough to be what was meant. Letter case counts for nothing.
pub(crate) fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A short word is within three edits of everything: allow one edit for each three characters.
    let allowed = MAX_EDITS.min(typed.chars().count() / 3);
    let typed = typed.to_lowercase();
    known
        .into_iter()
        .map(|word| (edits(&typed, &word.to_lowercase()), word))
        .filter(|&(distance, _)| distance <= allowed)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, word)| word)
}

/// Levenshtein's distance, in characters.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > MAX_EDITS {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, &ca) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_find_their_word_and_nonsense_does_not() {
        let known = ["matchPaths", "matchDirectories", "matchPatterns", "recursive", "dir"];
        assert_eq!(nearest("matchPath", known), Some("matchPaths"));
        assert_eq!(nearest("recurive", known), Some("recursive"));
        assert_eq!(nearest("MATCHPATHS", known), Some("matchPaths"));
        assert_eq!(nearest("dri", known), None);
        assert_eq!(nearest("path", known), None);
        assert_eq!(nearest(&"x".repeat(4096), known), None);
    }
}
