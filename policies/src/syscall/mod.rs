//! The system calls of Linux on x86-64, by name and number, and what a program of another ABI calls them.
//!
//! A rule names a call once, and means it whichever way it is entered: an x86-64 kernel also takes the numbers of i386
//! (`int 0x80`, also from a 64-bit program) and, where it was built so, of x32.

mod numbers;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use numbers::{I386, IPC, SHARED, SHARED_FROM, SOCKETCALL, X32, X32_FROM, X86_64};

/// A system call: its number on x86-64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Syscall(u16);

/// The text names no system call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no system call of x86-64; write one of syscalls(2), such as `unlink`")]
pub struct UnknownSyscall(pub String);

/// Where the kernel asks its security modules about the path that a call names: not before, so that it is the path that the kernel
/// itself has found, and none that another thread could exchange meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathSeen {
    /// Where a file is opened.
    Open,
    /// Where a file is executed, and its interpreter.
    Exec,
    /// Where names come and go.
    Name,
    /// Where modes, owners and sizes are changed.
    Attributes,
    /// Where times and extended attributes are changed: the kernel gives no mount there, so files of a volume have no path.
    InodeAttributes,
    /// Where file systems are mounted and roots changed.
    Mount,
    /// Nowhere that this version looks at.
    Unseen,
    /// It names no path.
    NoPath,
}

impl Syscall {
    /// All that there are, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Syscall> {
        let last = SHARED_FROM + SHARED.len() as u16;
        (0..last).filter_map(Syscall::from_number)
    }

    /// The one with this number of a 64-bit program.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Syscall> {
        shared(number).or_else(|| named(X86_64, number)).map(|_| Syscall(number))
    }

    /// What `int 0x80` with this number does. `socketcall` and `ipc` are none: their first argument says what they do.
    #[must_use]
    pub fn from_i386(number: u16) -> Option<Syscall> {
        shared(number).or_else(|| named(I386, number)).and_then(of)
    }

    /// What x32 calls by this number, without the bit that says that it is x32.
    #[must_use]
    pub fn from_x32(number: u16) -> Option<Syscall> {
        match number.checked_sub(X32_FROM) {
            Some(index) => named(X32, index).and_then(of),
            None => Syscall::from_number(number),
        }
    }

    /// What i386's `socketcall` does by this first argument.
    #[must_use]
    pub fn from_socketcall(call: u16) -> Option<Syscall> {
        named(SOCKETCALL, call).and_then(of)
    }

    /// What i386's `ipc` does by the low half of its first argument.
    #[must_use]
    pub fn from_ipc(call: u16) -> Option<Syscall> {
        named(IPC, call).and_then(of)
    }

    /// As the kernel numbers it for 64-bit programs.
    #[must_use]
    pub fn number(self) -> u16 {
        self.0
    }

    /// As syscalls(2) and policies write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        shared(self.0).or_else(|| named(X86_64, self.0)).unwrap_or_default()
    }

    /// Where its path is seen.
    #[must_use]
    pub fn path_seen(self) -> PathSeen {
        match self.name() {
            "open" | "openat" | "openat2" | "creat" | "open_by_handle_at" | "swapon" | "swapoff" | "acct" => PathSeen::Open,
            "execve" | "execveat" => PathSeen::Exec,
            "unlink" | "unlinkat" | "rmdir" | "mkdir" | "mkdirat" | "mknod" | "mknodat" | "symlink" | "symlinkat" | "link"
            | "linkat" | "rename" | "renameat" | "renameat2" | "bind" => PathSeen::Name,
            "chmod" | "fchmod" | "fchmodat" | "fchmodat2" | "chown" | "fchown" | "fchownat" | "lchown" | "truncate"
            | "ftruncate" => PathSeen::Attributes,
            "utime" | "utimes" | "futimesat" | "utimensat" | "setxattr" | "lsetxattr" | "fsetxattr" | "setxattrat"
            | "removexattr" | "lremovexattr" | "fremovexattr" | "removexattrat" => PathSeen::InodeAttributes,
            "mount" | "umount2" | "move_mount" | "pivot_root" | "chroot" => PathSeen::Mount,
            // Some have a hook that would have to look at each of them (`inode_getattr`, `inode_permission`), some one without a mount
            // (`inode_readlink`, `inode_getxattr`, `sb_statfs`), and some none (`chdir`, `name_to_handle_at`).
            "access" | "faccessat" | "faccessat2" | "stat" | "lstat" | "newfstatat" | "statx" | "statfs" | "readlink"
            | "readlinkat" | "chdir" | "getxattr" | "lgetxattr" | "getxattrat" | "listxattr" | "llistxattr" | "listxattrat"
            | "name_to_handle_at" | "inotify_add_watch" | "fanotify_mark" | "open_tree" | "open_tree_attr" | "mount_setattr"
            | "fspick" | "quotactl" | "uselib" | "connect" | "sendto" | "sendmsg" | "mq_open" | "mq_unlink" | "file_getattr"
            | "file_setattr" | "fsconfig" => PathSeen::Unseen,
            _ => PathSeen::NoPath,
        }
    }

    /// Whether the C library answers it without the kernel where it can (vdso(7)); `getrandom` since Linux 6.11.
    #[must_use]
    pub fn has_shortcut(self) -> bool {
        matches!(self.name(), "clock_gettime" | "clock_getres" | "gettimeofday" | "time" | "getcpu" | "getrandom")
    }
}

fn named(names: &[&'static str], number: u16) -> Option<&'static str> {
    names.get(usize::from(number)).copied().filter(|name| !name.is_empty())
}

/// The name of a number that all ABIs share.
fn shared(number: u16) -> Option<&'static str> {
    named(SHARED, number.checked_sub(SHARED_FROM)?)
}

fn of(name: &str) -> Option<Syscall> {
    Syscall::all().find(|call| call.name() == name)
}

impl fmt::Display for Syscall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Syscall {
    type Err = UnknownSyscall;

    fn from_str(text: &str) -> Result<Syscall, UnknownSyscall> {
        of(text).ok_or_else(|| UnknownSyscall(text.to_owned()))
    }
}

impl TryFrom<String> for Syscall {
    type Error = UnknownSyscall;

    fn try_from(text: String) -> Result<Syscall, UnknownSyscall> {
        text.parse()
    }
}

impl From<Syscall> for String {
    fn from(call: Syscall) -> String {
        call.name().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str) -> Syscall {
        name.parse().unwrap()
    }

    #[test]
    fn a_name_has_one_number_and_a_number_one_name() {
        let all: Vec<Syscall> = Syscall::all().collect();
        let mut names: Vec<&str> = all.iter().map(|call| call.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!((all.len(), names.len()), (381, 381));
        assert!(all.iter().all(|&it| call(it.name()) == it && Syscall::from_number(it.number()) == Some(it)));
        assert!("unlinkk".parse::<Syscall>().is_err() && "".parse::<Syscall>().is_err());
        assert_eq!(Syscall::from_number(400), None, "a gap");
    }

    #[test]
    fn numbers_are_those_of_the_kernel() {
        for (name, number) in [("read", 0), ("execve", 59), ("unlinkat", 263), ("statx", 332), ("openat2", 437), ("mseal", 462)] {
            assert_eq!(call(name).number(), number, "{name}");
        }
    }

    #[test]
    fn other_abis_mean_the_same_calls() {
        for (number, name) in
            [(1, "exit"), (5, "open"), (10, "unlink"), (22, "umount2"), (183, "getcwd"), (212, "chown"), (300, "newfstatat")]
        {
            assert_eq!(Syscall::from_i386(number), Some(call(name)), "{number}");
        }
        assert_eq!(Syscall::from_i386(437), Some(call("openat2")));
        assert_eq!([102, 117, 34, 390].map(Syscall::from_i386), [None; 4]);
        assert_eq!(Syscall::from_x32(520), Some(call("execve")));
        assert_eq!(Syscall::from_x32(87), Some(call("unlink")));
        assert_eq!([0, 2, 18].map(Syscall::from_socketcall), [None, Some(call("bind")), Some(call("accept4"))]);
        assert_eq!(Syscall::from_ipc(21), Some(call("shmat")));
    }

    /// Each name of the other tables is a call: a misspelt one would be missed in silence.
    #[test]
    fn every_name_of_another_abi_is_a_call() {
        for table in [I386, X32, SOCKETCALL, IPC] {
            for name in table.iter().filter(|name| !name.is_empty()) {
                assert!(name.parse::<Syscall>().is_ok(), "{name}");
            }
        }
    }

    #[test]
    fn every_name_of_a_path_is_a_call() {
        let seen = |wanted: PathSeen| Syscall::all().filter(|call| call.path_seen() == wanted).count();
        assert_eq!([PathSeen::Open, PathSeen::Exec, PathSeen::Name, PathSeen::Attributes].map(seen), [8, 2, 15, 10],);
        assert_eq!([PathSeen::InodeAttributes, PathSeen::Mount, PathSeen::Unseen].map(seen), [12, 5, 34]);
        assert_eq!(Syscall::all().filter(|call| call.has_shortcut()).count(), 6);
    }
}
