//! The program that a runtime is about to execute in a container, and what the container's rules say of that.
//!
//! AppArmor does not judge the execution that puts a profile in force, and the runtime's is the only one that it does not judge. So it
//! is judged here, by name, before the runtime is let go on. It is looked for as runtimes look (`exec.LookPath` in Go's `os/exec`,
//! crun's `find_executable`): what has a slash is a path, what has none is the first executable file of that name along `PATH`.

use std::io::Read;
use std::os::fd::BorrowedFd;

use portcullis_policy::decide::{Cause, Operation, Subject, Verdict, decide};
use portcullis_policy::meaning::RuleSet;

use crate::{ContainerRoot, Error};

/// Where runtimes look if the container has no `PATH`.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The first line of a script that the kernel reads (`BINPRM_BUF_SIZE`).
const MAX_LINE_BYTES: u64 = 256;
/// Interpreters of interpreters that the kernel follows (`exec_binprm` in `fs/exec.c`).
const MAX_INTERPRETERS: usize = 5;

/// A program by the words of a container's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The first of `process.args`.
    pub name: Vec<u8>,
    /// `PATH` of `process.env`.
    pub path: Option<Vec<u8>>,
    /// `process.cwd`.
    pub directory: Vec<u8>,
    /// `process.user.uid`.
    pub uid: u32,
}

impl Program {
    /// Refuses what a rule set denies in the root file system that `root` is open on. What is not there the runtime itself refuses.
    ///
    /// # Errors
    /// [`Error::Denied`]; [`Error::Unjudged`] if it cannot be told which file it is.
    pub fn judge(&self, set: &RuleSet, root: BorrowedFd<'_>) -> Result<(), Error> {
        let mut root = ContainerRoot::new(root);
        let mut find = |path: &[u8]| {
            let shown = || String::from_utf8_lossy(path).into_owned();
            root.executable(path).map_err(|source| Error::Unjudged { path: shown(), source })
        };
        let mut next = None;
        for path in self.candidates() {
            next = find(&path)?;
            if next.is_some() {
                break;
            }
        }
        for _ in 0..=MAX_INTERPRETERS {
            let Some(found) = next else { return Ok(()) };
            let subject = Subject { exe: None, owner: found.uid == Some(self.uid) };
            let decision = decide(set, &subject, &Operation::Exec { path: found.path.as_deref(), unlinked: false });
            if decision.verdict == Verdict::Block {
                return Err(denied(set, decision.cause, found.path.as_deref().unwrap_or(&self.name), found.uid));
            }
            next = match found.interpreter {
                Some(interpreter) => find(&self.absolute(&interpreter))?,
                None => None,
            };
        }
        Ok(())
    }

    /// The paths at which it is looked for.
    fn candidates(&self) -> Vec<Vec<u8>> {
        if self.name.contains(&b'/') {
            return vec![self.absolute(&self.name)];
        }
        let path = self.path.as_deref().unwrap_or(DEFAULT_PATH);
        // An empty directory is the working directory.
        let directories = path.split(|&byte| byte == b':').map(|directory| if directory.is_empty() { b"." } else { directory });
        let along = directories.map(|directory| self.absolute(&[directory, b"/", &self.name].concat()));
        if self.name.is_empty() { Vec::new() } else { along.collect() }
    }

    /// From the working directory, where a path is relative.
    fn absolute(&self, path: &[u8]) -> Vec<u8> {
        if path.starts_with(b"/") { path.to_vec() } else { [&self.directory, &b"/"[..], path].concat() }
    }
}

/// An executable file.
pub(crate) struct Executable {
    /// Its path without links; nothing where that cannot be told from here.
    pub(crate) path: Option<Vec<u8>>,
    /// Its owner.
    pub(crate) uid: Option<u32>,
    /// What executes it, if it is a script.
    pub(crate) interpreter: Option<Vec<u8>>,
}

/// The interpreter in the first line of a script, as the kernel finds it (`load_script` in `fs/binfmt_script.c`): a zero byte ends
/// it like a space.
///
/// # Errors
/// If the file cannot be read.
pub(crate) fn interpreter(file: impl Read) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    file.take(MAX_LINE_BYTES).read_to_end(&mut line)?;
    let line = line.strip_prefix(b"#!").and_then(|line| line.split(|&byte| byte == b'\n').next());
    let mut words = line.unwrap_or_default().split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    let word = words.next().and_then(|word| word.split(|&byte| byte == 0).next());
    Ok(word.map(<[u8]>::to_vec))
}

fn denied(set: &RuleSet, cause: Cause, path: &[u8], owner: Option<u32>) -> Error {
    let path = String::from_utf8_lossy(path).into_owned();
    let (policy, place) = match cause {
        Cause::Rule(rule) => {
            let origin = &set.rules[rule].origin;
            (format!("{}/{}", origin.kind, origin.policy), format!("{}:{}", origin.file.display(), origin.line))
        }
        Cause::Posture | Cause::Unmatched => ("the default posture".to_owned(), "defaultPosture.file".to_owned()),
    };
    Error::Denied { path, policy, place, owner, untold: String::new() }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::fd::AsFd;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use portcullis_policy::meaning::{Posture, Postures};
    use portcullis_policy::{Options, parse};
    use rustix::fs::{Mode, OFlags};

    use super::*;

    fn set(process: &str, file: Posture) -> RuleSet {
        let text = format!(
            "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {{name: p}}\nspec:\n  selector: {{matchLabels: {{app: web}}}}\n  process:\n{process}"
        );
        let parsed = parse(Path::new("p.yaml"), text.as_bytes(), Options::default());
        RuleSet { rules: parsed.policies().next().unwrap().rules.clone(), postures: Postures { file, ..Postures::default() } }
    }

    fn program(name: &str, path: &str, directory: &str) -> Program {
        Program { name: name.into(), path: Some(path.into()), directory: directory.into(), uid: 0 }
    }

    /// `/usr/bin/nc` under several names, scripts, and what is no program.
    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let file = |name: &str, text: &str, mode| {
            fs::write(at(name), text).unwrap();
            fs::set_permissions(at(name), Permissions::from_mode(mode)).unwrap();
        };
        for directory in ["usr/bin", "opt/nc", "data"] {
            fs::create_dir_all(at(directory)).unwrap();
        }
        file("usr/bin/nc", "\x7fELF", 0o755);
        file("usr/bin/true", "\x7fELF", 0o755);
        file("data/nc", "not executable", 0o644);
        file("data/script", "#! /bin/nc -l\n", 0o755);
        file("data/outer", "#!script", 0o755);
        file("data/zero", "#!/bin/nc\0x -l\n", 0o755);
        file("usr/bin/inner", "#!/inner", 0o755);
        symlink("usr/bin/nc", at("inner")).unwrap();
        symlink("usr/bin", at("bin")).unwrap();
        symlink("/bin/nc", at("data/link")).unwrap();
        symlink("../../../../usr/bin/nc", at("data/out")).unwrap();
        root
    }

    fn verdict(set: &RuleSet, program: &Program) -> Result<(), String> {
        let root = root();
        let directory = fs::File::open(root.path()).unwrap();
        program.judge(set, directory.as_fd()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_denied_program_is_found_by_every_name() {
        let set = set("    matchPaths: [{path: /usr/bin/nc}]\n  action: Block\n", Posture::Audit);
        let refused = Err("permission denied: KubeArmorPolicy/p (p.yaml:7) denies executing /usr/bin/nc".to_owned());
        for (name, path, directory) in [
            ("/usr/bin/nc", "", "/"),
            ("/bin/nc", "", "/"),
            ("//bin/./../bin/nc", "", "/"),
            ("bin/nc", "", "/"),
            ("./nc", "", "/bin"),
            ("../bin/nc", "", "/data"),
            ("nc", "/opt:/data:/bin", "/"),
            ("nc", "/opt::/data", "/usr/bin"),
            ("nc", "bin", "/"),
            ("/data/link", "", "/"),
            ("/data/out", "", "/"),
            ("/data/script", "", "/"),
            ("outer", ".", "/data"),
            ("/data/zero", "", "/"),
            ("inner", "/bin", "/data"),
        ] {
            assert_eq!(verdict(&set, &program(name, path, directory)), refused, "{name} {path} {directory}");
        }
        assert_eq!(verdict(&set, &Program { path: None, ..program("nc", "", "/") }), refused);
    }

    #[test]
    fn what_is_not_denied_or_not_there_is_the_runtime_s_affair() {
        let set = set("    matchPaths: [{path: /usr/bin/nc}]\n  action: Block\n", Posture::Audit);
        for (name, path) in [("/bin/true", ""), ("nc", "/data:/opt"), ("nc", ""), ("", "/bin"), ("/gone", ""), ("true", "/bin")] {
            assert_eq!(verdict(&set, &program(name, path, "/")), Ok(()), "{name} {path}");
        }
    }

    #[test]
    fn what_cannot_be_looked_at_is_not_let_through() {
        let set = set("    matchPaths: [{path: /usr/bin/nc}]\n  action: Block\n", Posture::Audit);
        let root = root();
        // Deeper than a path may be long, which a link makes reachable.
        let name = "d".repeat(250);
        let half = [name.as_str(); 10].join("/");
        let mut at = rustix::fs::open(root.path(), OFlags::PATH, Mode::empty()).unwrap();
        for _ in 0..20 {
            rustix::fs::mkdirat(&at, name.as_str(), Mode::from_raw_mode(0o755)).unwrap();
            at = rustix::fs::openat(&at, name.as_str(), OFlags::PATH, Mode::empty()).unwrap();
        }
        symlink(&half, root.path().join("half")).unwrap();
        let directory = fs::File::open(root.path()).unwrap();
        let error = program(&format!("/half/{half}/nc"), "", "/").judge(&set, directory.as_fd()).unwrap_err();
        assert!(matches!(error, Error::Unjudged { .. }), "{error}");
        let zero = program("/usr/bin/nc\0", "", "/").judge(&set, directory.as_fd()).unwrap_err();
        assert!(matches!(zero, Error::Unjudged { .. }), "{zero}");
    }

    #[test]
    fn an_allow_list_refuses_what_it_does_not_list_and_what_has_no_name() {
        let set = set("    matchPaths: [{path: /usr/bin/true}]\n  action: Allow\n", Posture::Block);
        assert_eq!(verdict(&set, &program("true", "/bin", "/")), Ok(()));
        for name in ["/bin/nc", "/proc/self/exe"] {
            let root = root();
            let mut program = program(name, "", "/");
            let directory =
                if name.starts_with("/proc") { fs::File::open("/").unwrap() } else { fs::File::open(root.path()).unwrap() };
            let error = program.judge(&set, directory.as_fd()).unwrap_err().to_string();
            assert!(error.starts_with("permission denied: the default posture"), "{error}");
            program.uid = 1;
            program.judge(&set, directory.as_fd()).unwrap_err();
        }
    }
}
