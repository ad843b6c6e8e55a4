//! What a rule's object names, as AppArmor sees names.
//!
//! The kernel shows AppArmor a directory with a `/` behind its name (`aa_path_name` in `security/apparmor/path.c`), and
//! policies know none. So `/a` becomes `/a` and `/a/`, and `/a/*` must not match `/a/`. The root directory is `/` for both.

use portcullis_policy::glob::{Node, class_contains};
use portcullis_policy::meaning::Object;

use super::aare::{ByteSet, Element, Sequence};

/// All that has a name.
pub(super) fn everything() -> Sequence {
    Sequence::from(&[Element::One(ByteSet::SLASH), Element::DoubleStar][..])
}

/// The names of the files and directories that `object` covers.
pub(super) fn files(object: &Object) -> Vec<Sequence> {
    let mut names = Vec::new();
    for path in paths(object) {
        let ends_open = path.elements().last() == Some(&Element::DoubleStar);
        let is_root = path.elements() == [Element::One(ByteSet::SLASH)];
        let mut directory = path.clone();
        directory.push(Element::One(ByteSet::SLASH));
        names.push(path);
        if !ends_open && !is_root {
            names.push(directory);
        }
    }
    names
}

/// The names of the executables that `object` covers. The root directory is none: `/` is what the kernel calls an executable that has
/// no name (a memfd is a root of its own, see `dentry_path`), and no rule speaks of those.
pub(super) fn executables(object: &Object) -> Vec<Sequence> {
    let mut names = paths(object);
    names.retain(|name| name.elements() != [Element::One(ByteSet::SLASH)]);
    names
}

/// What `object` covers, in the names that policies have. What ends in `/` is no path, apart from the root directory.
fn paths(object: &Object) -> Vec<Sequence> {
    let slash = Element::One(ByteSet::SLASH);
    let name = Element::One(ByteSet::NAME);
    let literal = |bytes: &[u8], rest: &[Element]| {
        let mut sequence = Sequence::literal(bytes);
        sequence.extend(rest);
        sequence
    };
    let mut paths = match object {
        Object::Path(path) => vec![Sequence::literal(path)],
        Object::ExecName(last) => {
            let deep = literal(b"/", &[Element::DoubleStar, slash]);
            [Sequence::literal(b"/"), deep].iter().map(|head| Sequence::literal(last).after(head)).collect()
        }
        Object::Directory { dir, recursive } => {
            let entries = if *recursive { Element::DoubleStar } else { Element::Star };
            let itself = if dir.is_empty() { Sequence::literal(b"/") } else { Sequence::literal(dir) };
            vec![itself, literal(dir, &[slash, name, entries])]
        }
        Object::Pattern(glob) => expand(glob.ast()),
        Object::Protocol(_) | Object::Capability(_) | Object::Syscall { .. } => Vec::new(),
    };
    let ends_in_slash = |path: &Sequence| path.elements().last() == Some(&slash) && path.elements().len() > 1;
    paths.retain(|path| !ends_in_slash(path) && path.is_possible());
    paths
}

/// A pattern without its groups. `MAX_GLOB_ALTERNATIVES` bounds what they are.
fn expand(nodes: &[Node]) -> Vec<Sequence> {
    let name = Element::One(ByteSet::NAME);
    // Only after a slash is there a minimum, and no path has two slashes on end.
    let at_least = |min: u8, run: Element| Sequence::from(&[name, run][usize::from(min == 0)..]);
    let mut heads = vec![Sequence::default()];
    for node in nodes {
        let tails = match node {
            Node::Alternatives(alternatives) => alternatives.iter().flat_map(|nodes| expand(nodes)).collect(),
            Node::Literal(bytes) => vec![Sequence::literal(bytes)],
            Node::AnyChar => vec![Sequence::from(&[name][..])],
            Node::Class { ranges, negated } => {
                let mut set = ByteSet::EMPTY;
                (1..=255).filter(|&byte| class_contains(ranges, *negated, byte)).for_each(|byte| set.insert(byte));
                vec![Sequence::from(&[Element::One(set)][..])]
            }
            Node::Star { min } => vec![at_least(*min, Element::Star)],
            Node::DoubleStar { min } => vec![at_least(*min, Element::DoubleStar)],
        };
        heads = heads.iter().flat_map(|head| tails.iter().map(move |tail| tail.after(head))).collect();
    }
    heads
}

#[cfg(test)]
mod tests {
    use portcullis_policy::glob::Glob;

    use super::*;

    fn written(sequences: &[Sequence]) -> Vec<String> {
        sequences.iter().map(ToString::to_string).collect()
    }

    fn pattern(text: &str) -> Object {
        Object::Pattern(Glob::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn a_file_has_the_name_of_a_directory_too() {
        assert_eq!(written(&files(&Object::Path(b"/a".to_vec()))), ["/a", "/a/"]);
        assert_eq!(written(&files(&pattern("/a/*"))), ["/a/?*", "/a/?*/"]);
        assert_eq!(written(&files(&pattern("/a/**"))), ["/a/?**"]);
        assert_eq!(written(&files(&pattern("/"))), ["/"]);
    }

    #[test]
    fn directories_are_themselves_and_what_is_in_them() {
        let directory = |dir: &[u8], recursive| files(&Object::Directory { dir: dir.to_vec(), recursive });
        assert_eq!(written(&directory(b"/a", false)), ["/a", "/a/", "/a/?*", "/a/?*/"]);
        assert_eq!(written(&directory(b"/a", true)), ["/a", "/a/", "/a/?**"]);
        assert_eq!(written(&directory(b"", true)), ["/", "/?**"]);
    }

    #[test]
    fn what_matches_no_path_is_nothing() {
        assert!(files(&pattern("/a/")).is_empty());
        assert!(files(&pattern("/*/")).is_empty());
        assert!(files(&pattern("/a[/]b")).is_empty());
        assert!(files(&pattern("/a//b")).is_empty());
        assert_eq!(written(&executables(&pattern("/a{/,b}"))), ["/ab"]);
    }

    #[test]
    fn a_name_is_at_the_top_or_below() {
        assert_eq!(written(&executables(&Object::ExecName(b"nc".to_vec()))), ["/nc", "/{,**}/nc"]);
    }

    #[test]
    fn no_rule_speaks_of_an_executable_without_a_name() {
        assert_eq!(written(&executables(&Object::Directory { dir: Vec::new(), recursive: true })), ["/?**"]);
        assert_eq!(written(&executables(&pattern("/{,a}"))), ["/a"]);
    }
}
