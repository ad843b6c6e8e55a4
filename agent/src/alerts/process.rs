//! What is known of a process besides what the kernel tells with an event.

use std::sync::Arc;

use portcullis_ebpf::monitor::abi::{ARGS_CUT, ARGS_UNREADABLE, PATH_CUT, PATH_INTERNAL, PATH_OUTSIDE, PATH_TORN, PATH_UNLINKED};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::format;
use super::text::Short;
use crate::json::known;

/// Most arguments that are told; the kernel tells the first 4096 bytes of them.
const MAX_ARGUMENTS: usize = 256;
/// What is wrong with a path, by its `PATH_*`, in words.
const PATH_WORDS: [(u32, &str); 5] =
    [(PATH_CUT, "cut"), (PATH_OUTSIDE, "outside"), (PATH_UNLINKED, "unlinked"), (PATH_INTERNAL, "nameless"), (PATH_TORN, "torn")];
/// Of a path that is not the one by which the file is known in its container.
const ELSEWHERE: u32 = PATH_CUT | PATH_OUTSIDE | PATH_TORN;

/// A process at the time of an event, as far as anybody knows it. What is not known is absent and never guessed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessFacts {
    /// Its process id in its own pid namespace.
    pub ns_pid: Option<u32>,
    /// What it runs. All events of one execution share it.
    pub program: Option<Arc<Program>>,
    /// Name of its terminal, e.g. `pts0`, padded with zeros; empty without one.
    pub tty: [u8; 16],
    /// What tells this execution from all others on this host since it was booted.
    pub exec_id: Option<u64>,
    /// Who gave birth to it.
    pub parent: Option<ParentFacts>,
}

/// A program that a process runs, as text: what was no UTF-8 is U+FFFD.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Program {
    exe: Box<str>,
    exe_flags: PathFlags,
    cwd: Box<str>,
    cwd_flags: PathFlags,
    /// Each ended by a zero byte, of the last perhaps only the beginning.
    args: Box<str>,
    args_readable: bool,
    /// There are more, or the last is longer.
    args_cut: bool,
}

/// What is wrong with a path: `cut`, `outside`, `unlinked`, `nameless`, `torn`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PathFlags(u32);

/// A parent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParentFacts {
    /// Its process id in the initial pid namespace.
    pub pid: u32,
    /// In the pid namespace of its child; 0 where it is outside of that.
    pub ns_pid: Option<u32>,
    /// What it runs.
    pub program: Option<Arc<Program>>,
}

impl Program {
    /// By the texts as the kernel tells them: `[exe, cwd, args]`, of the first two their `PATH_*`, of the last its `ARGS_*`.
    #[must_use]
    pub fn new(texts: [Vec<u8>; 3], [exe_flags, cwd_flags, args_flags]: [u32; 3]) -> Program {
        let [exe, cwd, args] = texts.map(into_text);
        let (exe_flags, cwd_flags) = (PathFlags::of(exe_flags), PathFlags::of(cwd_flags));
        let args_readable = args_flags & ARGS_UNREADABLE == 0;
        let mut program = Program { exe, exe_flags, cwd, cwd_flags, args, args_readable, args_cut: false };
        let are_many = program.all_arguments().nth(MAX_ARGUMENTS).is_some();
        program.args_cut = args_readable && (args_flags & ARGS_CUT != 0 || are_many);
        program
    }

    /// Path of the executable, from the process's root directory. Of a script, its interpreter's.
    #[must_use]
    pub fn exe(&self) -> Option<&str> {
        Some(&*self.exe).filter(|exe| !exe.is_empty())
    }

    /// What is wrong with that path.
    #[must_use]
    pub fn exe_flags(&self) -> PathFlags {
        self.exe_flags
    }

    /// The working directory when the program was started.
    #[must_use]
    pub fn cwd(&self) -> Option<&str> {
        Some(&*self.cwd).filter(|cwd| !cwd.is_empty())
    }

    /// What is wrong with that path.
    #[must_use]
    pub fn cwd_flags(&self) -> PathFlags {
        self.cwd_flags
    }

    /// The arguments, the name that it was called by first. Nothing where they could not be read.
    pub fn args(&self) -> Option<impl Iterator<Item = &str> + Clone> {
        self.args_readable.then(|| self.all_arguments().take(MAX_ARGUMENTS))
    }

    /// There are more, or the last is longer.
    #[must_use]
    pub fn args_cut(&self) -> bool {
        self.args_cut
    }

    /// The executable, where its path is one by which it can be found in its container. One without any, which is in memory alone, by
    /// what it was called when it was made, as `memfd:NAME`: that begins with no slash, and so is no path.
    pub(crate) fn named_exe(&self) -> Option<&str> {
        let exe = self.exe()?;
        if self.exe_flags.are_nameless() {
            return Some(exe.trim_start_matches('/'));
        }
        self.exe_flags.lead_there().then_some(exe)
    }

    /// The working directory, likewise.
    pub(crate) fn named_cwd(&self) -> Option<&str> {
        self.cwd().filter(|_| self.cwd_flags.lead_there())
    }

    /// Whether the path of its executable ends like another's.
    pub(crate) fn ends_with(&self, other: &Program) -> bool {
        self.exe.ends_with(&*other.exe)
    }

    /// Bytes of its texts.
    pub(crate) fn bytes(&self) -> usize {
        self.exe.len() + self.cwd.len() + self.args.len()
    }

    fn all_arguments(&self) -> impl Iterator<Item = &str> + Clone {
        self.args.split_inclusive('\0').map(|argument| argument.strip_suffix('\0').unwrap_or(argument))
    }

    /// Of its texts in JSON at most.
    fn json_bytes(&self) -> usize {
        [self.exe(), self.cwd()].into_iter().flatten().chain(self.args().into_iter().flatten()).map(text_bytes).sum()
    }

    fn fields<S: SerializeStruct>(&self, line: &mut S) -> Result<(), S::Error> {
        known(line, "exe", &self.exe())?;
        self.exe_flags.field(line, "exeFlags")?;
        known(line, "args", &self.args().map(Each))?;
        if self.args_cut() {
            line.serialize_field("argsCut", &true)?;
        }
        known(line, "cwd", &self.cwd())?;
        self.cwd_flags.field(line, "cwdFlags")
    }
}

impl PathFlags {
    /// By its `PATH_*`.
    pub(crate) fn of(flags: u32) -> PathFlags {
        PathFlags(PATH_WORDS.iter().fold(0, |known, (flag, _)| known | flags & flag))
    }

    /// In words.
    pub(crate) fn words(self) -> impl Iterator<Item = &'static str> + Clone {
        PATH_WORDS.into_iter().filter(move |(flag, _)| self.0 & flag != 0).map(|(_, word)| word)
    }

    pub(crate) fn are_none(self) -> bool {
        self.0 == 0
    }

    /// As a member of a line, if there are any.
    pub(crate) fn field<S: SerializeStruct>(self, line: &mut S, name: &'static str) -> Result<(), S::Error> {
        if self.are_none() { Ok(()) } else { line.serialize_field(name, &self) }
    }

    /// Whether it never was a path.
    fn are_nameless(self) -> bool {
        self.0 & PATH_INTERNAL != 0
    }

    /// Whether a path with these flags is the one by which it can be found in its container.
    fn lead_there(self) -> bool {
        self.0 & ELSEWHERE == 0
    }
}

impl Serialize for PathFlags {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.words())
    }
}

impl ProcessFacts {
    /// Name of its terminal.
    pub(crate) fn tty(&self) -> Option<Short> {
        (self.tty[0] != 0).then(|| Short::new(&self.tty))
    }

    /// The executable, where its path is one by which it can be found in its container.
    pub(crate) fn named_exe(&self) -> Option<&str> {
        self.program.as_ref()?.named_exe()
    }

    /// The working directory, likewise.
    pub(crate) fn named_cwd(&self) -> Option<&str> {
        self.program.as_ref()?.named_cwd()
    }

    /// Bytes of its texts.
    pub(crate) fn bytes(&self) -> usize {
        let parent = self.parent.as_ref().and_then(|parent| parent.program.as_deref());
        self.program.as_deref().into_iter().chain(parent).map(Program::bytes).sum()
    }

    /// Bytes of it in any format at most.
    pub(crate) fn json_bytes(&self) -> usize {
        let own = self.program.as_ref().map_or(0, |program| program.json_bytes());
        let parent = self.parent.as_ref().and_then(ParentFacts::exe).map_or(0, text_bytes);
        // An executable may be a source, a process and a parent, and arguments part of a source and of a resource.
        3 * (own + parent + self.tty().map_or(0, |tty| text_bytes(&tty)))
    }

    /// Its members in a line.
    pub(crate) fn fields<S: SerializeStruct>(&self, line: &mut S) -> Result<(), S::Error> {
        known(line, "nsPid", &self.ns_pid)?;
        if let Some(program) = &self.program {
            program.fields(line)?;
        }
        known(line, "tty", &self.tty())?;
        if let Some(exec_id) = self.exec_id {
            // Numbers beyond 2^53 are not numbers to all readers of JSON.
            line.serialize_field("execId", &format_args!("{exec_id}"))?;
        }
        known(line, "parent", &self.parent)
    }
}

impl ParentFacts {
    /// Path of its executable, where it leads there.
    pub(crate) fn exe(&self) -> Option<&str> {
        self.program.as_ref()?.named_exe()
    }
}

impl Serialize for ParentFacts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut line = serializer.serialize_struct("ParentFacts", 1)?;
        line.serialize_field("pid", &self.pid)?;
        known(&mut line, "nsPid", &self.ns_pid)?;
        known(&mut line, "exe", &self.exe())?;
        line.end()
    }
}

/// A list.
struct Each<I>(I);

impl<'a, I: Iterator<Item = &'a str> + Clone> Serialize for Each<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.clone())
    }
}

/// Bytes of a text in JSON at most, with what surrounds it.
fn text_bytes(text: &str) -> usize {
    const EACH: usize = size_of::<String>() / 3;
    EACH + format::json_bytes(text)
}

/// Bytes as text: what is no UTF-8 is written as U+FFFD.
fn into_text(bytes: Vec<u8>) -> Box<str> {
    let text = String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    text.into_boxed_str()
}
