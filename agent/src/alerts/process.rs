//! What is known of a process besides what the kernel tells with an event.

/// A process at the time of an event, as far as anybody knows it. What is not known is absent and never guessed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessFacts {
    /// Path of its executable in its container.
    pub exe: Option<String>,
    /// Its arguments, the name it was called by first.
    pub args: Option<Vec<String>>,
    /// Its working directory.
    pub cwd: Option<String>,
    /// Name of its terminal, e.g. `pts0`.
    pub tty: Option<String>,
    /// Its process id in its own pid namespace.
    pub pid: Option<u32>,
    /// Its parent's process id in the initial pid namespace.
    pub host_parent_pid: Option<u32>,
    /// Its parent's process id in its own pid namespace.
    pub parent_pid: Option<u32>,
    /// Path of its parent's executable.
    pub parent_exe: Option<String>,
    /// What tells this execution from all others on this host since it was booted.
    pub exec_id: Option<u64>,
}

impl ProcessFacts {
    /// The text of it, for the account of queues.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        let single = [&self.exe, &self.cwd, &self.tty, &self.parent_exe].into_iter().flatten();
        single.chain(self.args.iter().flatten()).map(String::as_str)
    }
}
