//! Source classes: the executables that `fromSource` names, grouped into those that the same rules apply to.
//!
//! A rule of system calls may name directories. What applies to an executable then depends on where it lies: in the innermost
//! directory that is named, directly or further below, or at a path that is named itself. Each of these places is a class, and the
//! innermost has the rules of all that it lies in.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_policy::meaning::{Location, RuleSet};

/// A place that gives its executables a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) at: Location,
    /// Counted from 1.
    pub(crate) class: u32,
    /// Of two places that an executable is in, the greater one counts. Never 0.
    pub(crate) depth: u32,
}

/// The places, how many classes there are, and the classes that each rule with sources applies to, sorted.
pub(super) fn source_classes(set: &RuleSet) -> (Vec<Source>, usize, Vec<Vec<u32>>) {
    let named = Named::of(set);
    let mut classes: BTreeMap<Vec<usize>, u32> = BTreeMap::new();
    let mut classes_of = vec![Vec::new(); set.rules.len()];
    let mut sources = Vec::new();
    for at in named.places() {
        let rules = named.rules(&at);
        let next = classes.len() as u32 + 1;
        let class = *classes.entry(rules).or_insert_with_key(|rules| {
            for &rule in rules {
                classes_of[rule].push(next);
            }
            next
        });
        let depth = match &at {
            Location::Path(_) => u32::MAX,
            Location::Directory { dir, recursive } => 2 * dir.len() as u32 + if *recursive { 1 } else { 2 },
        };
        sources.push(Source { at, class, depth });
    }
    (sources, classes.len() + 1, classes_of)
}

/// The rules that name something as a source.
struct Named(BTreeMap<Location, Vec<usize>>);

impl Named {
    fn of(set: &RuleSet) -> Named {
        let mut named: BTreeMap<Location, Vec<usize>> = BTreeMap::new();
        for (index, rule) in set.rules.iter().enumerate() {
            for source in &rule.sources {
                let rules = named.entry(source.clone()).or_default();
                if rules.last() != Some(&index) {
                    rules.push(index);
                }
            }
        }
        Named(named)
    }

    /// What is named, and each directory once more as a path, which it also is.
    fn places(&self) -> BTreeSet<Location> {
        let directories = self.0.keys().filter_map(|at| match at {
            Location::Directory { dir, .. } if !dir.is_empty() => Some(Location::Path(dir.clone())),
            _ => None,
        });
        self.0.keys().cloned().chain(directories).collect()
    }

    /// The rules that apply everywhere in a place. Only the directories above it are looked at, so a path costs its depth.
    fn rules(&self, at: &Location) -> Vec<usize> {
        let mut rules = BTreeSet::new();
        let mut add = |at: Location| rules.extend(self.0.get(&at).into_iter().flatten().copied());
        let dir = |dir: &[u8], recursive| Location::Directory { dir: dir.to_vec(), recursive };
        add(at.clone());
        let path = match at {
            Location::Path(path) => {
                // It may be a directory's own path, and is an entry of the one above.
                add(dir(path, false));
                let parent = path.iter().rposition(|&byte| byte == b'/').unwrap_or_default();
                add(dir(&path[..parent], false));
                path
            }
            Location::Directory { dir, .. } => dir,
        };
        add(dir(path, true));
        for (length, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            add(dir(&path[..length], true));
        }
        rules.into_iter().collect()
    }
}
