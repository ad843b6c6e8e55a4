//! `portcullis tree`: the processes of a container, as the agent knows them.

use std::collections::HashMap;
use std::path::Path;

use portcullis_agent::control::{Call, Tree, TreeProcess};
use portcullis_enforcer::Config;

use crate::args::Output;
use crate::failure::Failure;
use crate::output::{self, printable};
use crate::{Answer, agent};

/// Levels that are drawn; deeper ones stand below the last.
const MAX_DEPTH: usize = 64;

pub(crate) fn tree(config: Option<&Path>, container: &str, format: Output) -> Result<Answer, Failure> {
    let config = Config::read(config)?;
    let asked = Call::Tree { container: container.to_owned() };
    let tree: Tree = agent::ask(&config, asked)?.ok_or(Failure::NoAgent)?;
    match format {
        Output::Json => output::json(&tree)?,
        Output::Table => render(&tree).iter().try_for_each(|line| output::line(line))?,
    }
    Ok(Answer::Yes)
}

/// A line of a tree, fit for a terminal.
pub(crate) struct Row {
    /// The process, if the line is about one.
    pub(crate) pid: Option<u32>,
    pub(crate) text: String,
}

fn render(tree: &Tree) -> Vec<String> {
    let head = format!("{}  {}", printable(&tree.name), printable(&tree.id));
    std::iter::once(head).chain(rows(tree).into_iter().map(|row| row.text)).collect()
}

/// The tree, drawn. Each process stands below the one that gave birth to it, if that one is of the container and still lives.
pub(crate) fn rows(tree: &Tree) -> Vec<Row> {
    let processes = &tree.processes;
    let mut rows = Vec::new();
    if processes.is_empty() {
        rows.push(Row { pid: None, text: "no process is known".to_owned() });
    }
    let at: HashMap<u32, usize> = processes.iter().enumerate().map(|(at, process)| (process.pid, at)).collect();
    let mut children: HashMap<Option<usize>, Vec<usize>> = HashMap::new();
    for (index, process) in processes.iter().enumerate() {
        // Parents are older and so before their children: nobody is below itself.
        let parent = at.get(&process.parent).copied().filter(|parent| *parent < index);
        children.entry(parent).or_default().push(index);
    }
    let roots = children.remove(&None).unwrap_or_default();
    let mut left: Vec<Branch> =
        roots.into_iter().rev().map(|process| Branch { process, level: 0, indent: String::new(), is_last: true }).collect();
    while let Some(Branch { process, level, indent, is_last }) = left.pop() {
        let (mark, rest) = match (level, is_last) {
            (0, _) => ("", ""),
            (_, true) => ("└─ ", "   "),
            (_, false) => ("├─ ", "│  "),
        };
        let text = format!("{indent}{mark}{}", describe(&processes[process]));
        rows.push(Row { pid: Some(processes[process].pid), text });
        let below = if level < MAX_DEPTH { format!("{indent}{rest}") } else { indent };
        let own = children.remove(&Some(process)).unwrap_or_default();
        let last = own.last().copied();
        let branch = |child| Branch { process: child, level: level + 1, indent: below.clone(), is_last: Some(child) == last };
        left.extend(own.into_iter().rev().map(branch));
    }
    if tree.left_out > 0 {
        rows.push(Row { pid: None, text: format!("and {} more", tree.left_out) });
    }
    rows
}

/// A process that is still to be drawn, with all that is below it.
struct Branch {
    process: usize,
    level: usize,
    indent: String,
    is_last: bool,
}

/// `4711 (1)  2026-01-01T00:00:00Z  /bin/sh -c 'sleep 1'`, with the number inside of the container in parentheses.
fn describe(process: &TreeProcess) -> String {
    let ns_pid = process.ns_pid.map_or_else(String::new, |pid| format!(" ({pid})"));
    let arguments = process.args.iter().flatten().skip(1).map(|argument| quoted(argument));
    let exe = process.exe.as_deref().map_or_else(|| "?".to_owned(), quoted);
    let command: Vec<String> = std::iter::once(exe).chain(arguments).collect();
    let cut = if process.args_cut { " …" } else { "" };
    printable(&format!("{}{ns_pid}  {}  {}{cut}", process.pid, process.started, command.join(" ")))
}

/// So that one can see where an argument ends.
fn quoted(text: &str) -> String {
    let is_plain = !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c == '\'');
    if is_plain { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, parent: u32, exe: &str, args: &[&str]) -> TreeProcess {
        TreeProcess {
            pid,
            ns_pid: Some(pid - 99),
            parent,
            started: "2026-01-01T00:00:00Z".to_owned(),
            exe: Some(exe.to_owned()),
            args: Some(args.iter().map(|arg| (*arg).to_owned()).collect()),
            args_cut: false,
        }
    }

    fn drawn(processes: Vec<TreeProcess>) -> String {
        render(&Tree { id: "4771ac".to_owned(), name: "web".to_owned(), processes, left_out: 0 }).join("\n")
    }

    #[test]
    fn children_stand_below_their_parents() {
        let drawn = drawn(vec![
            process(100, 7, "/sbin/init", &["init"]),
            process(101, 100, "/bin/sh", &["sh", "-c", "a 'b'", ""]),
            process(102, 101, "/bin/sleep", &["sleep", "1"]),
            process(103, 100, "/bin/sh", &["sh"]),
            process(104, 103, "/bin/true", &["true"]),
            process(105, 8, "/bin/executed", &["x"]),
        ]);
        let expected = r"web  4771ac
100 (1)  2026-01-01T00:00:00Z  /sbin/init
├─ 101 (2)  2026-01-01T00:00:00Z  /bin/sh -c 'a '\''b'\''' ''
│  └─ 102 (3)  2026-01-01T00:00:00Z  /bin/sleep 1
└─ 103 (4)  2026-01-01T00:00:00Z  /bin/sh
   └─ 104 (5)  2026-01-01T00:00:00Z  /bin/true
105 (6)  2026-01-01T00:00:00Z  /bin/executed";
        assert_eq!(drawn, expected);
    }

    #[test]
    fn nobody_is_drawn_twice_or_left_out() {
        let circle = vec![process(100, 101, "/a", &[]), process(101, 100, "/b", &[]), process(102, 102, "/c", &[])];
        let lines = drawn(circle);
        assert_eq!(lines.lines().count(), 4, "{lines}");
        let chain = (0..3000).map(|at| process(100 + at, 99 + at, "/a", &[])).collect();
        let lines = drawn(chain);
        assert_eq!(lines.lines().count(), 3001);
        assert!(lines.lines().all(|line| line.chars().count() < 3 * MAX_DEPTH + 60));
    }

    #[test]
    fn what_is_not_known_and_what_is_left_out_is_said() {
        assert_eq!(drawn(Vec::new()), "web  4771ac\nno process is known");
        let unknown = TreeProcess { pid: 5, args_cut: true, ..TreeProcess::default() };
        let tree = Tree { processes: vec![unknown], left_out: 9, ..Tree::default() };
        assert_eq!(render(&tree)[1..], ["5    ? …", "and 9 more"]);
    }

    #[test]
    fn hostile_names_move_no_cursor() {
        let hostile = drawn(vec![process(100, 7, "/a\u{1b}[2J", &["x", "\n\r\u{7}"])]);
        assert_eq!(hostile.chars().filter(|c| c.is_control()).count(), 1, "the end of the first line: {hostile:?}");
        assert!(hostile.contains(r"/a\u{1b}[2J '\n\r\u{7}'"), "{hostile}");
    }
}
