//! Addresses of the two sequence locks that tell whether a path changed while it was walked.

use std::fs::File;
use std::io::{BufRead, BufReader};

/// Addresses of the kernel's locks; 0 where they are hidden (`kernel.kptr_restrict`) or not listed (`CONFIG_KALLSYMS_ALL`).
/// A walk is then repeated by other means, see `bpf/walk.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Locks {
    /// fs/dcache.c `rename_lock`.
    pub(crate) rename: u64,
    /// fs/namespace.c `mount_lock`.
    pub(crate) mount: u64,
}

impl Locks {
    /// Of the running kernel.
    pub(crate) fn find() -> Locks {
        File::open("/proc/kallsyms").map(|file| Self::parse(BufReader::new(file))).unwrap_or_default()
    }

    /// Lines are `address type name`, with `[module]` after the symbols of modules: those are somebody else's.
    fn parse(mut lines: impl BufRead) -> Locks {
        let mut locks = Locks::default();
        let mut line = Vec::new();
        while (locks.rename == 0 || locks.mount == 0) && lines.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            if line.ends_with(b"_lock\n") {
                let text = String::from_utf8_lossy(&line);
                let mut parts = text.split_ascii_whitespace();
                let address = parts.next().and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0);
                match (parts.next(), parts.next(), parts.next()) {
                    (Some(_), Some("rename_lock"), None) => locks.rename = address,
                    (Some(_), Some("mount_lock"), None) => locks.mount = address,
                    _ => {}
                }
            }
            line.clear();
        }
        locks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_locks_are_found() {
        let text = "ffffffff81000000 T _text\n\
                    ffffffffc0001000 d rename_lock\t[evil]\n\
                    ffffffff82a3b5c0 D rename_lock\n\
                    ffffffff82a3b600 b my_mount_lock\n\
                    ffffffff82a3b640 D mount_lock\n";
        let found = Locks::parse(text.as_bytes());
        assert_eq!(found, Locks { rename: 0xffff_ffff_82a3_b5c0, mount: 0xffff_ffff_82a3_b640 });
    }

    #[test]
    fn hidden_and_damaged_lists_give_nothing() {
        let hidden = "0000000000000000 D rename_lock\n0000000000000000 D mount_lock\n";
        assert_eq!(Locks::parse(hidden.as_bytes()), Locks::default());
        assert_eq!(Locks::parse(&b"zz D rename_lock\n\xff\xfe_lock\nrename_lock\n_lock\n"[..]), Locks::default());
        assert_eq!(Locks::parse(&b""[..]), Locks::default());
    }
}
