//! The process tree of a container.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::alerts::Program;
use crate::alerts::clock::Clock;
use crate::alerts::format::json_bytes;
use crate::processes::{Members, Processes, View};

/// Most bytes of an answer's texts in JSON. What is over it is left out, and counted.
const MAX_TREE_BYTES: usize = 4 << 20;
/// Most bytes of one process's arguments that are told.
const MAX_ARGUMENT_BYTES: usize = 1024;
/// What one process takes besides its texts.
const PROCESS_BYTES: usize = 256;

/// The processes of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tree {
    /// The engine's id of the container.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Those that live, the oldest first.
    pub processes: Vec<TreeProcess>,
    /// Those that were too many.
    pub left_out: usize,
}

/// A process of a container. What is not known is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TreeProcess {
    /// In the initial pid namespace.
    pub pid: u32,
    /// In its own.
    pub ns_pid: Option<u32>,
    /// Who gave birth to it, in the initial pid namespace; 0 if nobody knows.
    pub parent: u32,
    /// When it was born, in UTC.
    pub started: String,
    /// Path of its executable.
    pub exe: Option<String>,
    /// Its arguments, the name it was called by first.
    pub args: Option<Vec<String>>,
    /// There are more.
    pub args_cut: bool,
}

impl Tree {
    /// The tree of a container by that id and name, from the table.
    pub(crate) fn of(id: String, name: String, table: &Processes, members: &Members) -> Tree {
        let clock = Clock::now();
        let mut tree = Tree { id, name, ..Tree::default() };
        let mut bytes = 0;
        let found = table.of(members);
        tree.left_out = found.len();
        for view in found {
            let process = TreeProcess::of(table, view, |ns| clock.at(ns));
            bytes += process.bytes();
            if bytes > MAX_TREE_BYTES {
                break;
            }
            tree.processes.push(process);
            tree.left_out -= 1;
        }
        tree
    }
}

impl TreeProcess {
    fn of(table: &Processes, view: View<'_>, time: impl Fn(u64) -> SystemTime) -> TreeProcess {
        let facts = table.facts(view, u64::MAX);
        let key = view.process.key;
        let mut left = MAX_ARGUMENT_BYTES;
        let fits = |arg: &&str| {
            let fits = arg.len() <= left;
            left = left.saturating_sub(arg.len());
            fits
        };
        let program = facts.program.as_deref();
        let all = program.and_then(Program::args);
        let told = all.clone().map_or(0, Iterator::count);
        let args: Option<Vec<String>> = all.map(|args| args.take_while(fits).map(str::to_owned).collect());
        TreeProcess {
            pid: key.tgid,
            ns_pid: facts.ns_pid,
            parent: view.process.parent.tgid,
            started: humantime::format_rfc3339_seconds(time(key.started_ns)).to_string(),
            exe: program.and_then(Program::exe).map(str::to_owned),
            args_cut: program.is_some_and(Program::args_cut) || args.as_ref().is_some_and(|args| args.len() < told),
            args,
        }
    }

    fn bytes(&self) -> usize {
        let texts = self.exe.iter().chain(self.args.iter().flatten());
        PROCESS_BYTES + texts.map(|text| 3 + json_bytes(text)).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;
    use crate::processes::Limits;

    fn tree(count: u32, change: impl Fn(&mut portcullis_ebpf::monitor::ProcessEvent)) -> Tree {
        let mut table = Processes::new(Limits::default());
        for number in 0..count {
            let mut event = fake::exec();
            (event.header.tgid, event.header.started_ns) = (100 + number, 1_001 + u64::from(number));
            change(&mut event);
            table.apply(event);
        }
        let members = Members { cgroup: Some(99), ..Members::default() };
        Tree::of("aaaa".to_owned(), "web".to_owned(), &table, &members)
    }

    #[test]
    fn a_process_is_told_with_what_it_runs() {
        let tree = tree(2, |_| {});
        assert_eq!((tree.id.as_str(), tree.name.as_str(), tree.processes.len(), tree.left_out), ("aaaa", "web", 2, 0));
        let first = &tree.processes[0];
        assert_eq!((first.pid, first.ns_pid, first.parent), (100, Some(2), 6));
        assert_eq!((first.exe.as_deref(), first.args_cut), (Some("/bin/cat"), false));
        assert_eq!(first.args.as_ref().unwrap(), &["cat", "/etc/shadow"]);
        assert!(first.started.ends_with('Z') && first.started.len() == 20, "{}", first.started);
    }

    #[test]
    fn a_container_that_makes_itself_long_is_cut() {
        let long = tree(1, |event| event.args = [&b"a\0"[..], &[b'x'; 2000], b"\0b\0"].concat());
        assert_eq!((long.processes[0].args.as_ref().unwrap().len(), long.processes[0].args_cut), (1, true));
        let many = tree(400, |event| event.exe = vec![1; 4095]);
        assert!(many.left_out > 0, "control characters take six bytes each");
        assert_eq!(many.processes.len() + many.left_out, 400);
        assert!(serde_json::to_vec(&many).unwrap().len() <= MAX_TREE_BYTES);
    }
}
