//! Paths as they are written in policies, and what they mean.
//!
//! A path in `matchPaths`, `matchDirectories` or `fromSource` is literal. What looks like a glob there is refused instead of
//! being taken at its word, since it would match nothing and nobody would notice. `\` before one of `* ? [ ] { } \` makes that
//! character literal; before anything else it is itself (`dev-disk-by\x2duuid.swap` is a file name).

/// Why a text is no path. Each says what is wrong; [`PathProblem::help`] says what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathProblem {
    #[error("the path is empty")]
    Empty,
    #[error("the path does not begin with `/`")]
    Relative,
    #[error("the path ends with `/`, which makes it a directory")]
    Directory,
    #[error("the directory does not end with `/`")]
    NotDirectory,
    #[error("the path is that of the root directory, which is no file")]
    Root,
    #[error("the path has a glob, `{0}`, and would be taken literally")]
    Glob(String),
    #[error("the path has a zero byte, which no path has")]
    Zero,
}

/// What a path is to be: what may stand at its end, and what a fix looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathKind {
    /// Of a file: no trailing slash.
    File,
    /// Of a directory: with a trailing slash.
    Directory,
    /// Of either (`syscalls.matchPaths`).
    Either,
}

impl PathProblem {
    pub(crate) fn help(&self, text: &str, kind: PathKind, recursive: bool) -> String {
        let bare = text.trim_end_matches('/');
        match self {
            Self::Empty => "write an absolute path, such as `/usr/bin/curl`".to_owned(),
            Self::Relative if kind == PathKind::File && !text.contains('/') => {
                format!("write the absolute path, or `execname: {text}` for an executable of that name anywhere")
            }
            Self::Relative => format!("write the absolute path, such as `/{text}`"),
            Self::Directory => format!("write `{bare}` for the file, or use `matchDirectories` with `dir: {bare}/`"),
            Self::NotDirectory => format!("write `{text}/`; for a single file use `matchPaths` with `path: {text}`"),
            Self::Root => "use `matchDirectories` with `dir: /`".to_owned(),
            Self::Glob(_) => {
                let pattern = match kind {
                    PathKind::Directory if recursive => format!("{bare}/**"),
                    PathKind::Directory => format!("{bare}/*"),
                    PathKind::File | PathKind::Either => text.to_owned(),
                };
                let escaped = escape(text);
                format!(
                    "use `matchPatterns` with `pattern: {pattern}`; if the characters are part of the name, write `{escaped}`"
                )
            }
            Self::Zero => "remove it".to_owned(),
        }
    }
}

/// The path that `text` means: un-escaped, without `.`, `..`, `//` and the trailing slash; the root directory is empty.
pub(crate) fn parse(text: &str, kind: PathKind) -> Result<Vec<u8>, PathProblem> {
    if text.is_empty() {
        return Err(PathProblem::Empty);
    }
    if let Some(glob) = find_glob(text) {
        return Err(PathProblem::Glob(glob));
    }
    if !text.starts_with('/') {
        return Err(PathProblem::Relative);
    }
    match kind {
        PathKind::File if text.bytes().all(|b| b == b'/') => return Err(PathProblem::Root),
        PathKind::File if text.ends_with('/') => return Err(PathProblem::Directory),
        PathKind::Directory if !text.ends_with('/') => return Err(PathProblem::NotDirectory),
        _ => {}
    }
    let literal = unescape(text);
    if literal.contains(&0) {
        return Err(PathProblem::Zero);
    }
    let path = normalise(&literal);
    if path.is_empty() && kind == PathKind::File { Err(PathProblem::Root) } else { Ok(path) }
}

/// Whether `text` has a `.` or `..` component: its meaning may differ from what the kernel would make of it.
pub(crate) fn has_dots(text: &str) -> bool {
    text.split('/').any(|component| component == "." || component == "..")
}

/// Whether `\` before `byte` stands for the byte itself.
fn is_special(byte: u8) -> bool {
    matches!(byte, b'*' | b'?' | b'[' | b']' | b'{' | b'}' | b'\\')
}

fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        if bytes[i] == b'\\' && bytes.get(i + 1).copied().is_some_and(is_special) {
            i += 1;
        }
        out.push(bytes[i]);
        i += 1;
    }
    out
}

/// `text` with each glob character escaped.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 4);
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '{' | '}') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn normalise(path: &[u8]) -> Vec<u8> {
    let mut components: Vec<&[u8]> = Vec::new();
    for component in path.split(|&b| b == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                components.pop();
            }
            name => components.push(name),
        }
    }
    let mut out = Vec::with_capacity(path.len());
    for component in components {
        out.push(b'/');
        out.extend_from_slice(component);
    }
    out
}

/// The first thing in `text` that is meant as a glob: `*`, `?`, a class `[x]` or alternatives `{x,y}`.
/// A lone bracket is a character of a name: `/usr/bin/[` is a file of every distribution.
fn find_glob(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' if bytes.get(i + 1).copied().is_some_and(is_special) => i += 1,
            b'*' if bytes.get(i + 1) == Some(&b'*') => return Some("**".to_owned()),
            b'*' => return Some("*".to_owned()),
            b'?' => return Some("?".to_owned()),
            // `[[` closed by `]]` or `[` alone have no member in between.
            b'[' | b'{' => {
                let close = if bytes[i] == b'[' { b']' } else { b'}' };
                let inside = bytes[i + 1..].iter().position(|&b| b == close || b == b'/');
                if let Some(length) = inside
                    && length > 0
                    && bytes[i + 1 + length] == close
                    && (close == b']' || bytes[i + 1..i + 1 + length].contains(&b','))
                {
                    return Some(text.get(i..i + length + 2).unwrap_or(text).to_owned());
                }
            }
            _ => {}
        }
        i += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised_and_unescaped() {
        let file = |text| parse(text, PathKind::File);
        assert_eq!(file("//usr//bin/./curl"), Ok(b"/usr/bin/curl".to_vec()));
        assert_eq!(file("/usr/lib/../bin/x"), Ok(b"/usr/bin/x".to_vec()));
        assert_eq!(file("/../etc"), Ok(b"/etc".to_vec()));
        assert_eq!(file(r"/a\*b"), Ok(b"/a*b".to_vec()));
        assert_eq!(file(r"/a\\b"), Ok(br"/a\b".to_vec()));
        assert_eq!(file(r"/dev-disk-by\x2duuid.swap"), Ok(br"/dev-disk-by\x2duuid.swap".to_vec()));
        assert_eq!(file("/usr/bin/["), Ok(b"/usr/bin/[".to_vec()));
        assert_eq!(file("/a{b}"), Ok(b"/a{b}".to_vec()));
        assert_eq!(parse("/", PathKind::Directory), Ok(Vec::new()));
        assert_eq!(parse("/etc/", PathKind::Directory), Ok(b"/etc".to_vec()));
        assert_eq!(parse("/etc/", PathKind::Either), parse("/etc", PathKind::Either));
    }

    #[test]
    fn what_is_no_path_says_why() {
        let file = |text| parse(text, PathKind::File).unwrap_err();
        assert_eq!(file(""), PathProblem::Empty);
        assert_eq!(file("bash"), PathProblem::Relative);
        assert_eq!(file("/etc/"), PathProblem::Directory);
        assert_eq!(file("/"), PathProblem::Root);
        assert_eq!(file("/x/.."), PathProblem::Root);
        assert_eq!(file("/home/*/x"), PathProblem::Glob("*".to_owned()));
        assert_eq!(file("/home/**"), PathProblem::Glob("**".to_owned()));
        assert_eq!(file("/x[0-9]"), PathProblem::Glob("[0-9]".to_owned()));
        assert_eq!(file("/{a,b}"), PathProblem::Glob("{a,b}".to_owned()));
        assert_eq!(file("/{ä,b}"), PathProblem::Glob("{ä,b}".to_owned()));
        assert_eq!(file("/a\0"), PathProblem::Zero);
        assert_eq!(parse("/etc", PathKind::Directory), Err(PathProblem::NotDirectory));
    }

    #[test]
    fn the_escaped_form_that_is_proposed_is_accepted_and_means_the_characters() {
        for text in ["/home/*/x", "/x[0-9]?", "/{a,b}"] {
            assert_eq!(parse(&escape(text), PathKind::File), Ok(text.as_bytes().to_vec()));
        }
    }
}
