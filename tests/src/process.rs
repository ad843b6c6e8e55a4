//! Child processes with an end: every wait has a limit, and only what was started here is killed.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal};

use crate::{Failure, Result};

/// Longest output of a command that is read.
const MAX_OUTPUT: u64 = 4 << 20;
const POLL: Duration = Duration::from_millis(10);

static NEXT_OUTPUT: AtomicU32 = AtomicU32::new(0);

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Exit code 0.
    pub(crate) fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// The last lines of standard error, for a message.
    pub(crate) fn complaint(&self) -> String {
        let lines: Vec<&str> = self.stderr.lines().rev().take(3).collect();
        let text = lines.into_iter().rev().collect::<Vec<_>>().join(" | ");
        format!("exit {}: {text}", self.code.map_or_else(|| "by a signal".to_owned(), |code| code.to_string()))
    }
}

/// Runs a command to its end. Its output goes to files: a container that it leaves behind may hold them open for ever.
pub(crate) fn run(command: &mut Command, input: &[u8], limit: Duration) -> Result<Outcome> {
    let what = shown(command);
    let base = std::env::temp_dir().join(format!(
        "portcullis-e2e-{}-{}",
        std::process::id(),
        NEXT_OUTPUT.fetch_add(1, Ordering::Relaxed)
    ));
    let out = OutputFile::create(base.with_extension("out"))?;
    let err = OutputFile::create(base.with_extension("err"))?;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(out.handle()?)
        .stderr(err.handle()?)
        .process_group(0)
        .spawn()
        .map_err(|source| Failure::io(&what, source))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read its input closes it: that is its business.
        let _ = stdin.write_all(input);
    }
    let status = wait(&mut child, limit).ok_or_else(|| Failure::Timeout { what: what.clone(), limit })?;
    Ok(Outcome { code: status.code(), stdout: out.text()?, stderr: err.text()? })
}

/// The same, and anything but exit code 0 is a failure.
pub(crate) fn must(command: &mut Command, input: &[u8], limit: Duration) -> Result<Outcome> {
    let outcome = run(command, input, limit)?;
    if outcome.success() {
        return Ok(outcome);
    }
    Err(Failure::Command { what: shown(command), complaint: outcome.complaint() })
}

fn shown(command: &Command) -> String {
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    format!("{} {}", command.get_program().to_string_lossy(), arguments.join(" "))
}

/// Waits for a child, and kills its process group when the time is over.
fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < end => std::thread::sleep(POLL),
            _ => {
                kill(child);
                return None;
            }
        }
    }
}

fn kill(child: &mut Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

struct OutputFile(PathBuf);

impl OutputFile {
    fn create(path: PathBuf) -> Result<Self> {
        File::create(&path).map_err(|source| Failure::io(path.display(), source))?;
        Ok(Self(path))
    }

    fn handle(&self) -> Result<File> {
        File::options().append(true).open(&self.0).map_err(|source| Failure::io(self.0.display(), source))
    }

    fn text(&self) -> Result<String> {
        let mut bytes = Vec::new();
        File::open(&self.0)
            .and_then(|file| file.take(MAX_OUTPUT).read_to_end(&mut bytes))
            .map_err(|source| Failure::io(self.0.display(), source))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A program that is spoken to in lines, wherever it runs.
pub(crate) trait Talk {
    /// Sends one line.
    fn tell(&mut self, line: &str) -> Result<()>;

    /// The next line.
    fn line(&mut self, limit: Duration) -> Result<String>;
}

/// A child that is spoken to in lines.
#[derive(Debug)]
pub(crate) struct Dialogue {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Each with the time when it was read.
    lines: Receiver<(SystemTime, String)>,
    what: String,
    errors: PathBuf,
}

impl Dialogue {
    /// Starts the child.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let what = shown(command);
        let errors = std::env::temp_dir().join(format!(
            "portcullis-e2e-{}-{}.err",
            std::process::id(),
            NEXT_OUTPUT.fetch_add(1, Ordering::Relaxed)
        ));
        let stderr = File::create(&errors).map_err(|source| Failure::io(errors.display(), source))?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .process_group(0)
            .spawn()
            .map_err(|source| Failure::io(&what, source))?;
        let stdin = child.stdin.take();
        let (sender, lines) = channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(std::result::Result::ok) {
                    if sender.send((SystemTime::now(), line)).is_err() {
                        break;
                    }
                }
            });
        }
        Ok(Self { child, stdin, lines, what, errors })
    }

    /// The child's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Closes the child's input.
    pub(crate) fn end_of_input(&mut self) {
        self.stdin = None;
    }

    /// Every line that is there already.
    pub(crate) fn pending(&mut self) -> Vec<String> {
        self.lines.try_iter().map(|(_, line)| line).collect()
    }

    /// The next line, and when it was read.
    pub(crate) fn stamped_line(&mut self, limit: Duration) -> Result<(SystemTime, String)> {
        match self.lines.recv_timeout(limit) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => Err(Failure::Timeout { what: self.what.clone(), limit }),
            Err(RecvTimeoutError::Disconnected) => Err(self.ended()),
        }
    }

    /// Whether the child still runs.
    pub(crate) fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends the child a signal.
    pub(crate) fn signal(&mut self, signal: Signal) {
        // A child that has ended and was waited for may have given its number to another.
        if self.running()
            && let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// What the child wrote to standard error up to now.
    pub(crate) fn errors(&self) -> String {
        std::fs::read_to_string(&self.errors).unwrap_or_default()
    }

    /// Closes the child's input and waits for its end. `None`: it had to be killed.
    pub(crate) fn close(&mut self, limit: Duration) -> Option<i32> {
        self.stdin = None;
        wait(&mut self.child, limit).and_then(|status| status.code())
    }

    fn ended(&mut self) -> Failure {
        self.stdin = None;
        let status = wait(&mut self.child, Duration::from_secs(5));
        let code = status.and_then(|status| status.code());
        let outcome = Outcome { code, stdout: String::new(), stderr: self.errors() };
        Failure::Command { what: self.what.clone(), complaint: outcome.complaint() }
    }
}

impl Talk for Dialogue {
    fn tell(&mut self, line: &str) -> Result<()> {
        let Some(stdin) = &mut self.stdin else { return Ok(()) };
        stdin.write_all(format!("{line}\n").as_bytes()).and_then(|()| stdin.flush()).map_err(|_| self.ended())
    }

    fn line(&mut self, limit: Duration) -> Result<String> {
        self.stamped_line(limit).map(|(_, line)| line)
    }
}

impl Drop for Dialogue {
    fn drop(&mut self) {
        self.stdin = None;
        if self.running() {
            kill(&mut self.child);
        }
        let _ = std::fs::remove_file(&self.errors);
    }
}
