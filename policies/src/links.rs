//! Symbolic links in a container's root: what a rule set names once they are followed.
//!
//! A rule on `/bin/ls`, where `/bin` is a link to `usr/bin`, must also hold for `/usr/bin/ls`: that is the path the kernel
//! tells. Reading links is I/O and so the caller's; what the answers mean for rules is here, so that the model and the
//! enforcer agree.

use std::sync::Arc;

use crate::meaning::{Location, Object, Rule, RuleSet};

/// `set`, with every object and source that `leads` knows other names of also under these.
///
/// `leads` takes an absolute, canonical path (never the root directory) and gives the others that it leads to: with the links
/// in its parent directories followed, and with its last component followed too. It may give the path itself, and the same twice.
///
/// A pattern is followed as far as the directories of its literal prefix go: `/bin/l*` where `/bin` leads to `/usr/bin` is
/// also `/usr/bin/l*`.
pub fn through_links(set: &RuleSet, mut leads: impl FnMut(&[u8]) -> Vec<Vec<u8>>) -> RuleSet {
    let rules = set.rules.iter().map(|rule| follow(rule, &mut leads)).collect();
    RuleSet { rules, postures: set.postures }
}

fn follow(rule: &Arc<Rule>, leads: &mut impl FnMut(&[u8]) -> Vec<Vec<u8>>) -> Arc<Rule> {
    let mut objects = rule.objects.clone();
    for object in &rule.objects {
        let others: Vec<Object> = match object {
            Object::Syscall { call, at: Some(at) } => {
                follow_location(at, leads).into_iter().map(|at| Object::Syscall { call: *call, at: Some(at) }).collect()
            }
            Object::Path(path) => leads(path).into_iter().map(Object::Path).collect(),
            Object::Directory { dir, recursive } if !dir.is_empty() => {
                let recursive = *recursive;
                leads(dir).into_iter().map(|dir| Object::Directory { dir: without_root(dir), recursive }).collect()
            }
            Object::Pattern(glob) => match glob.literal_prefix().iter().rposition(|&byte| byte == b'/') {
                Some(length) if length > 0 => {
                    let dirs = leads(&glob.literal_prefix()[..length]).into_iter().map(without_root);
                    dirs.filter_map(|dir| glob.rebase(length, &dir)).map(Object::Pattern).collect()
                }
                _ => Vec::new(),
            },
            _ => Vec::new(),
        };
        objects.extend(others);
    }
    let mut sources = rule.sources.clone();
    sources.extend(rule.sources.iter().flat_map(|source| follow_location(source, leads)));
    unique(&mut objects);
    unique(&mut sources);
    if objects == rule.objects && sources == rule.sources {
        return Arc::clone(rule);
    }
    Arc::new(Rule { objects, sources, ..Rule::clone(rule) })
}

fn follow_location(at: &Location, leads: &mut impl FnMut(&[u8]) -> Vec<Vec<u8>>) -> Vec<Location> {
    match at {
        // The root directory leads nowhere else.
        Location::Path(path) if path == b"/" => Vec::new(),
        Location::Directory { dir, .. } if dir.is_empty() => Vec::new(),
        Location::Path(path) => leads(path).into_iter().map(Location::Path).collect(),
        Location::Directory { dir, recursive } => {
            let found = leads(dir).into_iter().map(without_root);
            found.map(|dir| Location::Directory { dir, recursive: *recursive }).collect()
        }
    }
}

/// The root directory is empty where it stands for a directory.
fn without_root(dir: Vec<u8>) -> Vec<u8> {
    if dir == b"/" { Vec::new() } else { dir }
}

/// Drops what stands there already, and keeps the order.
fn unique<T: PartialEq>(list: &mut Vec<T>) {
    let mut kept: Vec<T> = Vec::with_capacity(list.len());
    for item in list.drain(..) {
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    *list = kept;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::glob::Glob;
    use crate::meaning::{Action, Class, Origin};

    fn set(objects: Vec<Object>, sources: &[&str]) -> RuleSet {
        let origin = Origin {
            kind: "KubeArmorPolicy".into(),
            namespace: "".into(),
            policy: "p".into(),
            file: Arc::new("p.yaml".into()),
            line: 1,
            column: 1,
            field: String::new(),
        };
        let rule = Rule {
            origin,
            class: Class::Process,
            objects,
            sources: sources.iter().map(|&source| Location::Path(source.into())).collect(),
            read_only: false,
            owner_only: false,
            action: Action::Block,
            severity: 0,
            tags: Vec::new(),
            message: String::new(),
        };
        RuleSet { rules: vec![Arc::new(rule)], ..RuleSet::default() }
    }

    /// `/bin` leads to `/usr/bin`, `/all` to the root directory.
    fn leads(path: &[u8]) -> Vec<Vec<u8>> {
        let led = match path {
            b"/all" => b"/".to_vec(),
            _ if path == b"/bin" || path.starts_with(b"/bin/") => [b"/usr", path].concat(),
            _ => path.to_vec(),
        };
        vec![led.clone(), led]
    }

    fn pattern(text: &[u8]) -> Object {
        Object::Pattern(Glob::parse(text).unwrap())
    }

    #[test]
    fn objects_and_sources_get_the_names_they_lead_to_beside_their_own() {
        let dir = |dir: &str| Object::Directory { dir: dir.into(), recursive: true };
        let written = vec![Object::Path(b"/bin/x".into()), dir("/bin"), pattern(b"/bin/*"), dir("/all"), pattern(b"/all/\\**")];
        let followed = through_links(&set(written.clone(), &["/bin/app", "/"]), leads);
        let more = [Object::Path(b"/usr/bin/x".into()), dir("/usr/bin"), pattern(b"/usr/bin/*"), dir(""), pattern(b"/\\**")];
        assert_eq!(followed.rules[0].objects, [&written[..], &more[..]].concat());
        let path = |path: &str| Location::Path(path.into());
        assert_eq!(followed.rules[0].sources, [path("/bin/app"), path("/"), path("/usr/bin/app")]);
    }

    #[test]
    fn what_system_calls_are_about_gets_them_too() {
        let dir = |dir: &str| Location::Directory { dir: dir.into(), recursive: true };
        let unlink = |at| Object::Syscall { call: "unlink".parse().unwrap(), at };
        let mut written = set(vec![unlink(Some(dir("/bin"))), unlink(None), unlink(Some(dir("")))], &[]);
        Arc::make_mut(&mut written.rules[0]).sources = vec![dir("/bin"), dir("")];
        let followed = through_links(&written, leads);
        assert_eq!(followed.rules[0].objects, [&written.rules[0].objects[..], &[unlink(Some(dir("/usr/bin")))]].concat());
        assert_eq!(followed.rules[0].sources, [dir("/bin"), dir(""), dir("/usr/bin")]);
    }

    #[test]
    fn a_rule_that_no_link_concerns_is_the_same_rule() {
        let plain = set(vec![Object::Path(b"/opt/x".into()), pattern(b"/**/x"), Object::ExecName(b"x".into())], &["/opt/y"]);
        assert!(Arc::ptr_eq(&through_links(&plain, leads).rules[0], &plain.rules[0]));
    }

    #[test]
    fn what_a_link_is_named_is_no_pattern() {
        let followed = through_links(&set(vec![pattern(b"/a\\*/x?")], &[]), |_| vec![b"/b[1]".to_vec()]);
        let Object::Pattern(glob) = &followed.rules[0].objects[1] else { panic!("a pattern stays one") };
        assert!(glob.matches(b"/b[1]/xy") && !glob.matches(b"/b1/xy"));
    }
}
