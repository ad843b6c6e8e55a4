//! The links that a document declares, and where paths lead through them.

use std::collections::HashMap;

use super::{File, FileKind};

/// Most links on one way, as in the kernel (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// What of a container's root file system a document tells.
pub(super) struct Tree<'a> {
    links: HashMap<&'a [u8], &'a [u8]>,
    owners: HashMap<&'a [u8], u32>,
}

impl<'a> Tree<'a> {
    pub(super) fn new(files: &'a [File]) -> Self {
        let mut tree = Tree { links: HashMap::new(), owners: HashMap::new() };
        for file in files {
            tree.owners.insert(&file.path, file.owner);
            if let FileKind::Symlink(target) = &file.kind {
                tree.links.insert(&file.path, target);
            }
        }
        tree
    }

    /// Whose file it is; `path` must have been walked.
    pub(super) fn owner(&self, path: &[u8]) -> u32 {
        self.owners.get(path).copied().unwrap_or(0)
    }

    /// Where `path` leads, and whether it does without a loop. With `keep_last` a link in the last component is not followed.
    pub(super) fn walk(&self, path: &[u8], keep_last: bool) -> Vec<u8> {
        let components = |path: &[u8]| -> Vec<Vec<u8>> {
            path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()).map(<[u8]>::to_vec).rev().collect()
        };
        let mut ahead = components(path);
        let mut at: Vec<u8> = Vec::new();
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            match &name[..] {
                b"." => continue,
                b".." => {
                    let parent = at.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
                    at.truncate(parent);
                    continue;
                }
                _ => {}
            }
            let dir = at.len();
            at.push(b'/');
            at.extend_from_slice(&name);
            let Some(target) = self.links.get(&at[..]) else { continue };
            if (ahead.is_empty() && keep_last) || links == MAX_LINKS {
                continue;
            }
            links += 1;
            at.truncate(if target.starts_with(b"/") { 0 } else { dir });
            ahead.extend(components(target));
        }
        if at.is_empty() { b"/".to_vec() } else { at }
    }
}
