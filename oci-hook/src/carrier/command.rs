//! The command line of an OCI runtime, as far as it says which container is made and what is executed in it.
//!
//! runc and crun agree on it but for options that only one has (`man runc`, `man crun`). What nobody knows is refused where a
//! container or a program is started: a value that was taken for something else would be a container that was taken for another.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// Options of all verbs that have a value, with their letters.
const WITH_VALUE: &[(&str, Option<u8>)] = &[
    ("additional-gids", Some(b'g')),
    ("apparmor", None),
    ("bundle", Some(b'b')),
    ("cap", Some(b'c')),
    ("cgroup", None),
    ("cgroup-manager", None),
    ("config", Some(b'f')),
    ("console-socket", None),
    ("criu", None),
    ("cwd", None),
    ("empty-ns", None),
    ("env", Some(b'e')),
    ("image-path", None),
    ("log", None),
    ("log-format", None),
    ("log-level", None),
    ("lsm-mount-context", None),
    ("lsm-profile", None),
    ("manage-cgroups-mode", None),
    ("pid-file", None),
    ("pidfd-socket", None),
    ("preserve-fds", None),
    ("process", Some(b'p')),
    ("process-label", None),
    ("root", None),
    ("rootless", None),
    ("user", Some(b'u')),
    ("work-path", None),
];
/// Options of all verbs that have none.
const WITHOUT: &[(&str, Option<u8>)] = &[
    ("auto-dedup", None),
    ("debug", None),
    ("detach", Some(b'd')),
    ("ext-unix-sk", None),
    ("file-locks", None),
    ("help", Some(b'h')),
    ("ignore-paused", None),
    ("keep", None),
    ("lazy-pages", None),
    ("link-remap", None),
    ("no-new-keyring", None),
    ("no-new-privs", None),
    ("no-pivot", None),
    ("no-subreaper", None),
    ("shell-job", None),
    ("systemd-cgroup", None),
    ("tcp-established", None),
    ("tty", Some(b't')),
    ("version", Some(b'v')),
];

/// What a runtime is asked to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// `create`, `run`, `restore`: a container comes.
    Create {
        /// The container.
        id: String,
        /// Its bundle's directory, relative to the working directory.
        bundle: PathBuf,
        /// The file in it that is its configuration, where it is not `config.json`.
        config: Option<PathBuf>,
        /// `--lsm-profile`.
        lsm_profile: bool,
    },
    /// `start`: its init may go on.
    Start {
        /// The container.
        id: String,
    },
    /// `exec`: a program is executed in it.
    Exec(Box<Exec>),
    /// Nothing that starts anything.
    Other,
}

/// An `exec`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Exec {
    /// The container.
    pub(super) id: String,
    /// `--process`.
    pub(super) process: Option<PathBuf>,
    /// `--apparmor`: the index of the word, and what stands in it before the value.
    pub(super) label: Option<(usize, Vec<u8>)>,
    /// The first word of the command.
    pub(super) program: Option<Vec<u8>>,
    /// `PATH` by `--env`.
    pub(super) path: Option<Vec<u8>>,
    /// `--cwd`.
    pub(super) directory: Option<Vec<u8>>,
    /// `--user`, the number before a colon.
    pub(super) uid: Option<u32>,
}

/// A command line that is not understood.
#[derive(Debug, thiserror::Error)]
#[error(
    "the runtime is told {0}, which portcullis-runtime does not understand; containers with a policy cannot be started like this"
)]
pub struct UnknownWord(String);

/// An option, with its value's place.
struct Given<'w> {
    name: &'static str,
    value: &'w [u8],
    /// The word with the value, and how many bytes of the option stand before it.
    at: (usize, usize),
}

/// The words after the program's name.
pub(super) fn parse(words: &[OsString]) -> Result<Request, UnknownWord> {
    let mut globals = Words { words, at: 0 };
    while let Some(word) = globals.peek().filter(|word| word.starts_with(b"-")) {
        if matches!(word, b"--help" | b"-h" | b"--version" | b"-v" | b"-V") {
            return Ok(Request::Other);
        }
        globals.option()?;
    }
    let Some(verb) = globals.peek() else { return Ok(Request::Other) };
    let verb = verb.to_vec();
    let rest = Words { words, at: globals.at + 1 };
    match verb.as_slice() {
        b"create" | b"run" | b"restore" => create(rest),
        b"start" => {
            let (_, positional) = rest.all(usize::MAX)?;
            Ok(positional.first().map_or(Request::Other, |&id| Request::Start { id: text(&words[id]) }))
        }
        b"exec" => exec(rest),
        _ => Ok(Request::Other),
    }
}

/// The file that the engine reads what goes wrong from, and whether as JSON.
pub(super) fn log(words: &[OsString]) -> Option<(PathBuf, bool)> {
    let mut globals = Words { words, at: 0 };
    let (mut file, mut json) = (None, false);
    while globals.peek().is_some_and(|word| word.starts_with(b"-")) {
        for given in globals.option().ok()? {
            match given.name {
                "log" => file = Some(PathBuf::from(OsStr::from_bytes(given.value))),
                "log-format" => json = given.value == b"json",
                _ => {}
            }
        }
    }
    Some((file?, json))
}

fn create(words: Words<'_>) -> Result<Request, UnknownWord> {
    let all = words.words;
    let (options, positional) = words.all(usize::MAX)?;
    // What lacks an id or asks for help makes no container.
    let Some(&id) = positional.first() else { return Ok(Request::Other) };
    let path = |bytes: &[u8]| PathBuf::from(OsString::from_vec(bytes.to_vec()));
    let last: BTreeMap<&str, &[u8]> = options.iter().map(|given| (given.name, given.value)).collect();
    Ok(Request::Create {
        id: text(&all[id]),
        bundle: last.get("bundle").map_or_else(|| PathBuf::from("."), |value| path(value)),
        config: last.get("config").map(|value| path(value)),
        lsm_profile: last.contains_key("lsm-profile"),
    })
}

fn exec(words: Words<'_>) -> Result<Request, UnknownWord> {
    let all = words.words;
    // Behind the container's id are the words of the program.
    let (options, positional) = words.all(1)?;
    let Some(&id) = positional.first() else { return Ok(Request::Other) };
    let command = all[id + 1..].iter().map(|word| word.as_bytes()).find(|word| *word != b"--");
    let mut exec = Exec { id: text(&all[id]), program: command.map(<[u8]>::to_vec), ..Exec::default() };
    for Given { name, value, at } in options {
        match name {
            "process" => exec.process = Some(PathBuf::from(OsStr::from_bytes(value))),
            "apparmor" => exec.label = Some((at.0, all[at.0].as_bytes()[..at.1].to_vec())),
            "cwd" => exec.directory = Some(value.to_vec()),
            "env" => exec.path = value.strip_prefix(b"PATH=").map(<[u8]>::to_vec).or(exec.path),
            "user" => {
                exec.uid = value.split(|&byte| byte == b':').next().and_then(|uid| std::str::from_utf8(uid).ok()?.parse().ok())
            }
            _ => {}
        }
    }
    Ok(Request::Exec(Box::new(exec)))
}

fn text(word: &OsStr) -> String {
    word.to_string_lossy().into_owned()
}

#[derive(Clone, Copy)]
struct Words<'w> {
    words: &'w [OsString],
    at: usize,
}

impl<'w> Words<'w> {
    fn peek(&self) -> Option<&'w [u8]> {
        self.words.get(self.at).map(|word| word.as_bytes())
    }

    /// The options, and where the first other words are; behind the last of `most` such words nothing is looked at.
    fn all(mut self, most: usize) -> Result<(Vec<Given<'w>>, Vec<usize>), UnknownWord> {
        let (mut options, mut positional) = (Vec::new(), Vec::new());
        let mut ended = false;
        while let Some(word) = self.peek()
            && positional.len() < most
        {
            if ended || !word.starts_with(b"-") || word == b"-" {
                positional.push(self.at);
                self.at += 1;
            } else if word == b"--" {
                ended = true;
                self.at += 1;
            } else {
                options.append(&mut self.option()?);
            }
        }
        Ok((options, positional))
    }

    /// Takes the option or the options of a word, with a value in it or in the next.
    fn option(&mut self) -> Result<Vec<Given<'w>>, UnknownWord> {
        let index = self.at;
        let word = self.words[index].as_bytes();
        let unknown = || UnknownWord(format!("`{}`", String::from_utf8_lossy(word).escape_debug()));
        self.at += 1;
        let value_in_next = |words: &mut Self| {
            let value = words.peek().ok_or_else(unknown)?;
            words.at += 1;
            Ok((value, (index + 1, 0)))
        };
        // Go's flags may begin with one dash or two.
        let long = word.strip_prefix(b"--").or_else(|| word.strip_prefix(b"-").filter(|rest| rest.len() > 1)).unwrap_or_default();
        let name = long.split(|&byte| byte == b'=').next().unwrap_or_default();
        if let Some((name, _)) = WITH_VALUE.iter().find(|(known, _)| known.as_bytes() == name) {
            let start = word.len() - long.len() + name.len() + 1;
            let (value, at) = match word.get(start..) {
                Some(value) => (value, (index, start)),
                None => value_in_next(self)?,
            };
            return Ok(vec![Given { name, value, at }]);
        }
        if let Some((name, _)) = WITHOUT.iter().find(|(known, _)| known.as_bytes() == name) {
            return Ok(vec![Given { name, value: b"", at: (index, 0) }]);
        }
        if word.starts_with(b"--") {
            return Err(unknown());
        }
        let mut given = Vec::new();
        for place in 1..word.len() {
            let is = |(_, letter): &&(&str, Option<u8>)| *letter == Some(word[place]);
            if let Some((name, _)) = WITHOUT.iter().find(is) {
                given.push(Given { name, value: b"", at: (index, 0) });
                continue;
            }
            let (name, _) = WITH_VALUE.iter().find(is).ok_or_else(unknown)?;
            let start = place + 1 + usize::from(word.get(place + 1) == Some(&b'='));
            let (value, at) = if start < word.len() { (&word[start..], (index, start)) } else { value_in_next(self)? };
            given.push(Given { name, value, at });
            break;
        }
        Ok(given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<Request, String> {
        let words: Vec<OsString> = line.split_ascii_whitespace().map(OsString::from).collect();
        parse(&words).map_err(|error| error.to_string())
    }

    fn create(id: &str, bundle: &str) -> Request {
        Request::Create { id: id.to_owned(), bundle: bundle.into(), config: None, lsm_profile: false }
    }

    /// Command lines of conmon (Podman, CRI-O), of containerd's shim (go-runc) and of Docker.
    #[test]
    fn what_engines_say_is_understood() {
        for (line, expected) in [
            ("create --bundle /b --pid-file /p c1", create("c1", "/b")),
            ("--systemd-cgroup --root=/run/crun create --bundle /b --pid-file /p --console-socket /s c1", create("c1", "/b")),
            (
                "--root /run/containerd/runc/k8s.io --log /b/log.json --log-format json --systemd-cgroup create --bundle /b --pid-file /b/init.pid c1",
                create("c1", "/b"),
            ),
            ("run -d -b /b c1", create("c1", "/b")),
            ("run -db/b c1", create("c1", "/b")),
            ("run c1", create("c1", ".")),
            ("restore --bundle=/b --image-path /i --detach --pid-file /p c1", create("c1", "/b")),
            ("--log /var/log create --bundle /b -- c1", create("c1", "/b")),
            ("start c1", Request::Start { id: "c1".to_owned() }),
            ("state create", Request::Other),
            ("kill --all c1 9", Request::Other),
            ("delete --force c1", Request::Other),
            ("--version", Request::Other),
            ("", Request::Other),
            ("create --help", Request::Other),
            ("new-verb --new c1", Request::Other),
        ] {
            assert_eq!(of(line).unwrap(), expected, "{line}");
        }
        let Request::Create { config, lsm_profile, .. } = of("restore -f /c.json --lsm-profile apparmor:x c1").unwrap() else {
            panic!("a container comes");
        };
        assert_eq!((config, lsm_profile), (Some("/c.json".into()), true));
    }

    #[test]
    fn what_is_executed_is_told_from_options() {
        let exec = |line| match of(line).unwrap() {
            Request::Exec(exec) => *exec,
            other => panic!("{other:?}"),
        };
        let podman = exec("--root /r exec --pid-file /e/exec_pid --process /e/exec-process-1 --detach c1");
        assert_eq!((podman.id.as_str(), podman.process, podman.program), ("c1", Some("/e/exec-process-1".into()), None));
        let by_hand = exec("exec -te A=b --env PATH=/x -e TERM=v --cwd /d -u 7:8 c1 sh --process /y -e PATH=/z");
        assert_eq!(by_hand.program.as_deref(), Some(&b"sh"[..]));
        assert_eq!((by_hand.path.as_deref(), by_hand.process), (Some(&b"/x"[..]), None));
        assert_eq!((by_hand.directory.as_deref(), by_hand.uid), (Some(&b"/d"[..]), Some(7)));
        assert_eq!(exec("exec c1 -- sh").program.as_deref(), Some(&b"sh"[..]));
        assert_eq!(exec("exec --apparmor=x c1 sh").label, Some((1, b"--apparmor=".to_vec())));
        assert_eq!(exec("exec --apparmor x c1 sh").label, Some((2, Vec::new())));
    }

    #[test]
    fn what_is_not_known_is_refused_where_it_matters() {
        for line in ["--new create c1", "--new value create c1", "create --new c1", "exec -z c1 sh", "create --bundle", "run -b"]
        {
            let error = of(line).unwrap_err();
            assert!(error.contains("does not understand"), "{line}: {error}");
        }
    }
}
