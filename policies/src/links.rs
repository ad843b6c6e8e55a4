//! Symbolic links in a container's root: what a rule set names once they are followed.
//!
//! A rule on `/bin/ls`, where `/bin` is a link to `usr/bin`, must also hold for `/usr/bin/ls`: that is the path the kernel
//! tells. Reading links is I/O and so the caller's; what the answers mean for rules is here, so that the model and the
//! enforcer agree.

use std::sync::Arc;

use crate::meaning::{Object, Rule, RuleSet};

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
    sources.extend(rule.sources.iter().filter(|source| &source[..] != b"/").flat_map(|source| leads(source)));
    unique(&mut objects);
    unique(&mut sources);
    if objects == rule.objects && sources == rule.sources {
        return Arc::clone(rule);
    }
    Arc::new(Rule { objects, sources, ..Rule::clone(rule) })
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
