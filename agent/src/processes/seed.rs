//! Processes that ran before the events began, as `/proc` tells them.
//!
//! Read once, when the agent starts and the events have begun: what is born meanwhile is told by an event. `/proc` rounds the birth of a
//! process to 10 ms, see [`Key::is`].

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use portcullis_ebpf::monitor::abi::{ARGS_CUT, ARGS_MAX, PATH_UNLINKED};

use rustix::fs::statfs;

use super::life::TICK_NS;
use super::{Image, Key, Process};
use crate::alerts::Program;

/// include/uapi/linux/magic.h
const CGROUP2_SUPER_MAGIC: rustix::fs::FsWord = 0x6367_7270;
/// Most bytes of a file of `/proc` that are read; `status` has about 1.5 KiB, and grows with the groups of a process.
const MAX_BYTES: u64 = 64 << 10;

/// Where the unified hierarchy of cgroups is: by itself, or beside the others on a hybrid host.
const CGROUP_ROOTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// Every process below `proc`. One that ends meanwhile is left out, and so is the kernel's own thread.
#[must_use]
pub fn read(proc: &Path) -> Vec<Process> {
    let Ok(entries) = fs::read_dir(proc) else {
        return Vec::new();
    };
    let numbered = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let mut stats: Vec<(u32, Stat)> =
        numbered.filter_map(|pid| Some((pid, Stat::parse(&bytes(&proc.join(format!("{pid}/stat")))?)?))).collect();
    stats.sort_by_key(|(pid, _)| *pid);
    let key = |pid: u32| {
        let at = stats.binary_search_by_key(&pid, |(pid, _)| *pid).ok()?;
        Some(Key { tgid: pid, started_ns: stats[at].1.started_ns })
    };
    let mut cgroups = Cgroups::find();
    let processes = stats.iter().filter_map(|(pid, stat)| {
        let directory = proc.join(pid.to_string());
        let mut process = one(&directory, key(*pid)?, key(stat.parent), stat.tty)?;
        process.cgroup = cgroups.id(&bytes(&directory.join("cgroup")).unwrap_or_default());
        Some(process)
    });
    processes.collect()
}

/// Cgroups by the paths that `/proc` tells.
struct Cgroups {
    root: Option<&'static Path>,
    known: HashMap<Vec<u8>, u64>,
}

impl Cgroups {
    fn find() -> Cgroups {
        let is_unified = |root: &&Path| statfs(*root).is_ok_and(|found| found.f_type == CGROUP2_SUPER_MAGIC);
        Cgroups { root: CGROUP_ROOTS.iter().map(Path::new).find(is_unified), known: HashMap::new() }
    }

    /// The id of the cgroup that `/proc/<pid>/cgroup` tells, which is its directory's inode number (kernel: fs/kernfs/dir.c);
    /// 0 where it can't be told.
    fn id(&mut self, text: &[u8]) -> u64 {
        let path = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::/"));
        let (Some(root), Some(path)) = (self.root, path) else { return 0 };
        if let Some(id) = self.known.get(path) {
            return *id;
        }
        let id = fs::metadata(root.join(OsStr::from_bytes(path))).map_or(0, |directory| directory.ino());
        self.known.insert(path.to_vec(), id);
        id
    }
}

fn one(directory: &Path, key: Key, parent: Option<Key>, tty: u32) -> Option<Process> {
    // A thread of the kernel has no program.
    let exe = fs::read_link(directory.join("exe")).ok()?;
    let cwd = fs::read_link(directory.join("cwd")).unwrap_or_default();
    let status = bytes(&directory.join("status"))?;
    let mut args = bytes(&directory.join("cmdline")).unwrap_or_default();
    let args_flags = if args.len() > ARGS_MAX as usize { ARGS_CUT } else { 0 };
    args.truncate(ARGS_MAX as usize);
    let (exe, exe_flags) = linked(exe.as_os_str().as_bytes());
    let (cwd, cwd_flags) = linked(cwd.as_os_str().as_bytes());
    let program = Program::new([exe.to_vec(), cwd.to_vec(), args], [exe_flags, cwd_flags, args_flags]);
    let image = Image { since_ns: key.started_ns, program: Arc::new(program) };
    let mut process = Process::new(key);
    process.parent = parent.unwrap_or_default();
    process.ns_pid = field(&status, b"NSpid:", usize::MAX).unwrap_or(key.tgid);
    process.uid = field(&status, b"Uid:", 0).unwrap_or(0);
    process.pid_ns = namespace(&directory.join("ns/pid"));
    process.mnt_ns = namespace(&directory.join("ns/mnt"));
    process.tty = terminal(tty);
    process.images = vec![Arc::new(image)];
    Some(process)
}

fn bytes(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// A path, and whether the name is gone, which `/proc` says at its end (fs/d_path.c).
fn linked(path: &[u8]) -> (&[u8], u32) {
    match path.strip_suffix(b" (deleted)") {
        Some(path) => (path, PATH_UNLINKED),
        None => (path, 0),
    }
}

/// What is wanted of `/proc/<pid>/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    tty: u32,
    started_ns: u64,
}

impl Stat {
    /// The second field is the process's own choice, parentheses and spaces included: fields are counted after its last `)`.
    fn parse(text: &[u8]) -> Option<Stat> {
        let end = text.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(&text[end + 1..]).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // Fields 4, 7 and 22 of proc(5); the first here is the third there. A terminal's number is printed with a sign.
        let tty: i32 = fields.get(4)?.parse().ok()?;
        let ticks: u64 = fields.get(19)?.parse().ok()?;
        Some(Stat { parent: fields.get(1)?.parse().ok()?, tty: tty.cast_unsigned(), started_ns: ticks.checked_mul(TICK_NS)? })
    }
}

/// A number of a line of `/proc/<pid>/status`: the `index`th, or the last there is.
fn field(status: &[u8], name: &[u8], index: usize) -> Option<u32> {
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name))?;
    let numbers: Vec<u32> = std::str::from_utf8(line).ok()?.split_ascii_whitespace().map_while(|n| n.parse().ok()).collect();
    numbers.get(index).or(numbers.last()).copied()
}

/// `pid:[4026531836]`; 0 where it can't be told.
fn namespace(link: &Path) -> u32 {
    let target = fs::read_link(link).unwrap_or_default();
    let inside = target.to_str().and_then(|text| text.split_once('[')?.1.strip_suffix(']'));
    inside.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// The name of a terminal by its device number, as the kernel's drivers name theirs (Documentation/admin-guide/devices.txt).
fn terminal(device: u32) -> [u8; 16] {
    // include/linux/kdev_t.h, new_encode_dev
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xf_ff00));
    let name = match (major, minor) {
        (136..=143, _) => format!("pts{}", minor + (major - 136) * 256),
        (4, 0..64) => format!("tty{minor}"),
        (4, _) => format!("ttyS{}", minor - 64),
        (5, 1) => "console".to_owned(),
        (0, 0) => String::new(),
        _ => format!("{major}:{minor}"),
    };
    let mut padded = [0; 16];
    padded.iter_mut().zip(name.bytes().take(15)).for_each(|(to, from)| *to = from);
    padded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_moves_no_field() {
        let stat = b"77 (a) R 1 (\xff) b) S 5 77 77 34816 77 4194304 1 2 3 4 5 6 7 8 20 0 1 0 123 456";
        assert_eq!(Stat::parse(stat), Some(Stat { parent: 5, tty: 34816, started_ns: 1_230_000_000 }));
        for broken in [&b""[..], b"77 (a", b"77 (a) S 5", b"77 (a) S x 77 77 0 77 1 1 2 3 4 5 6 7 8 20 0 1 0 123"] {
            assert_eq!(Stat::parse(broken), None);
        }
    }

    #[test]
    fn a_cgroup_is_the_inode_of_its_directory() {
        let temporary = tempfile::tempdir().unwrap();
        fs::create_dir_all(temporary.path().join("a.slice/b (x)")).unwrap();
        let root: &'static Path = Box::leak(temporary.path().to_owned().into_boxed_path());
        let mut cgroups = Cgroups { root: Some(root), known: HashMap::new() };
        let inode = fs::metadata(root.join("a.slice/b (x)")).unwrap().ino();
        assert_eq!(cgroups.id(b"1:name=systemd:/other\n0::/a.slice/b (x)\n"), inode);
        assert_eq!(cgroups.id(b"0::/\n"), fs::metadata(root).unwrap().ino());
        for unknown in [&b""[..], b"1:cpu:/a.slice\n", b"0::/gone\n"] {
            assert_eq!(cgroups.id(unknown), 0);
        }
        assert_eq!(Cgroups { root: None, known: HashMap::new() }.id(b"0::/\n"), 0);
    }

    #[test]
    fn terminals_have_the_names_of_their_drivers() {
        let name = |major: u32, minor: u32| {
            let name = terminal((major << 8) | (minor & 0xff) | ((minor & !0xff) << 12));
            String::from_utf8(name.to_vec()).unwrap().trim_end_matches('\0').to_owned()
        };
        assert_eq!(["pts3", "pts300", "pts259"], [name(136, 3), name(136, 300), name(137, 3)]);
        assert_eq!(["tty1", "ttyS0", "console", ""], [name(4, 1), name(4, 64), name(5, 1), name(0, 0)]);
    }

    #[test]
    fn this_test_is_a_process() {
        let own = std::process::id();
        let found = read(Path::new("/proc"));
        let me = found.iter().find(|process| process.key.tgid == own).expect("this process");
        let exe = std::env::current_exe().unwrap();
        assert_eq!(me.images[0].program.exe(), exe.to_str());
        let first = std::env::args_os().next().unwrap();
        assert_eq!(me.images[0].program.args().unwrap().next().unwrap(), first);
        assert_eq!(me.ns_pid, own);
        assert_eq!(me.uid, rustix::process::getuid().as_raw());
        let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get().cast_unsigned());
        assert_eq!(me.parent.tgid, parent);
        assert_ne!((me.pid_ns, me.mnt_ns), (0, 0));
        assert_eq!(me.cgroup, Cgroups::find().id(&bytes(Path::new("/proc/self/cgroup")).unwrap()));
        assert!(read(Path::new("/nonexistent")).is_empty());
    }
}
