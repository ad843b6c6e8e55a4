//! What is known of a process besides what the kernel tells with an event.

use serde::{Serialize, Serializer};

use super::format;

/// A process at the time of an event, as far as anybody knows it. What is not known is absent and never guessed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessFacts {
    /// Its process id in its own pid namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ns_pid: Option<u32>,
    /// Path of its executable, from its own root directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// What is wrong with that path: `cut`, `outside`, `unlinked`, `nameless`, `torn`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exe_flags: Vec<&'static str>,
    /// Its arguments, the name it was called by first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    /// There are more, or the last is longer.
    #[serde(skip_serializing_if = "is_false")]
    pub args_cut: bool,
    /// Its working directory when it was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// What is wrong with that path.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cwd_flags: Vec<&'static str>,
    /// Name of its terminal, e.g. `pts0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tty: Option<String>,
    /// What tells this execution from all others on this host since it was booted.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_text")]
    pub exec_id: Option<u64>,
    /// Who gave birth to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<ParentFacts>,
}

/// A parent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentFacts {
    /// Its process id in the initial pid namespace.
    pub pid: u32,
    /// In the pid namespace of its child; 0 where it is outside of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ns_pid: Option<u32>,
    /// Path of its executable, from its own root directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
}

/// Flags of a path that is not the one by which the file is known in its container.
const ELSEWHERE: [&str; 3] = ["cut", "outside", "torn"];

impl ProcessFacts {
    /// The executable, where its path is one by which it can be found in its container.
    pub(crate) fn named_exe(&self) -> Option<&str> {
        self.exe.as_deref().filter(|_| is_path(&self.exe_flags))
    }

    /// The working directory, likewise.
    pub(crate) fn named_cwd(&self) -> Option<&str> {
        self.cwd.as_deref().filter(|_| is_path(&self.cwd_flags))
    }

    /// Bytes of it in any format at most.
    pub(crate) fn json_bytes(&self) -> usize {
        /// What surrounds a text, in JSON, and three times of which in memory.
        const EACH: usize = size_of::<String>() / 3;
        let parent = self.parent.as_ref().and_then(|parent| parent.exe.as_ref());
        let single = [self.exe.as_ref(), self.cwd.as_ref(), self.tty.as_ref(), parent].into_iter().flatten();
        // An executable may be a source, a process and a parent, and arguments part of a source and of a resource.
        3 * single.chain(self.args.iter().flatten()).map(|text| EACH + format::json_bytes(text)).sum::<usize>()
    }
}

/// Whether a path with these flags leads there.
pub(crate) fn is_path(flags: &[&str]) -> bool {
    !flags.iter().any(|flag| ELSEWHERE.contains(flag))
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Numbers beyond 2^53 are not numbers to all readers of JSON.
fn as_text<S: Serializer>(id: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    id.map(|id| id.to_string()).serialize(serializer)
}
