//! System calls, as the probe is asked for them: by number, with arguments that do no harm.

use portcullis_policy::expectation::Abi;
use portcullis_policy::syscall::Syscall;

use super::driver::escape;
use crate::{Failure, Result};

/// `AT_FDCWD`
const HERE: &str = "-100";
/// What a call without a path gets for each argument: no descriptor, no address.
const NOTHING: &str = "-1";

/// What has to be at the path of a call before it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    Nothing,
    File,
    Directory,
    Executable,
}

/// See [`Needs`].
pub(super) fn needs(call: Syscall) -> Needs {
    match call.name() {
        "mkdir" | "mkdirat" | "mknod" | "mknodat" | "symlink" | "symlinkat" | "creat" => Needs::Nothing,
        "rmdir" | "chroot" => Needs::Directory,
        "execve" | "execveat" => Needs::Executable,
        _ => Needs::File,
    }
}

/// ABI, number and arguments.
pub(super) fn fields(call: Syscall, abi: Abi, path: Option<&[u8]>, to: Option<&[u8]>) -> Result<Vec<String>> {
    let (abi, number) = match abi {
        Abi::X86_64 => ("64", Some(call.number())),
        Abi::I386 => ("32", (0..512).find(|&number| Syscall::from_i386(number) == Some(call))),
    };
    let number = number.ok_or_else(|| unknown(call))?;
    let mut fields = vec![abi.to_owned(), number.to_string()];
    fields.extend(arguments(call, path, to)?);
    Ok(fields)
}

fn arguments(call: Syscall, path: Option<&[u8]>, to: Option<&[u8]>) -> Result<Vec<String>> {
    let text = |bytes: &[u8]| format!("s{}", escape(bytes));
    let Some(path) = path.map(text) else { return Ok(vec![NOTHING.to_owned(); 3]) };
    let to = to.map(text);
    let numbers = |numbers: &[&str]| numbers.iter().map(|&number| number.to_owned()).collect::<Vec<_>>();
    let alone = |behind: &[&str]| [vec![path.clone()], numbers(behind)].concat();
    let at = |behind: &[&str]| [vec![HERE.to_owned(), path.clone()], numbers(behind)].concat();
    Ok(match (call.name(), to) {
        ("link" | "rename", Some(to)) => vec![path, to],
        ("linkat" | "renameat2", Some(to)) => vec![HERE.to_owned(), path, HERE.to_owned(), to, "0".to_owned()],
        ("unlink" | "rmdir" | "chroot", None) => alone(&[]),
        ("open" | "access", None) => alone(&["0"]),
        ("creat" | "chmod", None) => alone(&["420"]),
        ("mkdir", None) => alone(&["493"]),
        // S_IFREG | 0644
        ("mknod", None) => alone(&["33188", "0"]),
        ("chown" | "lchown" | "execve", None) => alone(&["0", "0"]),
        ("truncate", None) => alone(&["0"]),
        ("openat" | "unlinkat", None) => at(&["0"]),
        ("mkdirat", None) => at(&["493"]),
        ("fchmodat", None) => at(&["420"]),
        ("utimensat", None) => at(&["0", "0"]),
        ("fchownat", None) => at(&["0", "0", "0"]),
        ("symlink", None) => vec!["snowhere".to_owned(), path],
        _ => return Err(unknown(call)),
    })
}

fn unknown(call: Syscall) -> Failure {
    Failure::Answer { what: "the driver".to_owned(), text: format!("{call} has no arguments here; add them to call.rs") }
}
