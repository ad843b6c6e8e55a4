//! The command line. It is part of the contract with `hooks.d` files, so it is small and says no to what it does not know.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Time for everything. Below the 10 s after which the runtime kills the hook (`timeout` in contrib/hooks.d), so that it is
/// the hook that says why.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(8);
const MAX_DEADLINE: Duration = Duration::from_secs(300);

/// What `--help` prints.
pub const USAGE: &str = "\
Usage: portcullis-hook [OPTIONS] createRuntime|poststop|precreate

An OCI hook: reads the container's state (JSON) from standard input. createRuntime puts the policies that select the
container in force before its first instruction; poststop takes them out of force. precreate, which only Podman has, reads the
container's configuration and writes the one with its AppArmor label.

Options:
  --config FILE          configuration [default: /etc/portcullis/config.yaml]
  --deadline SECONDS     give up after so long, fractions allowed [default: 8]; not of precreate
  --fail-policy POLICY   enforce: what cannot be protected does not start; permit: it starts, with a warning and a record
                         [default: failPolicy of the configuration, else enforce]
  --timings              print the microseconds of each phase on standard error; not of precreate
  --help, --version

Exit status: 0 the container may start, 1 it may not, 2 wrong usage. poststop always exits with 0.
";

/// When the runtime runs the hook (OCI runtime specification, config.md, POSIX-platform hooks).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The container's init exists and waits.
    CreateRuntime,
    /// The container is deleted.
    Poststop,
}

/// What happens to a container that cannot be protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailPolicy {
    /// It does not start.
    Enforce,
    /// It starts, and that is said and recorded.
    Permit,
}

/// A command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `createRuntime` or `poststop`.
    pub stage: Stage,
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--deadline`.
    pub deadline: Duration,
    /// `--fail-policy`.
    pub fail_policy: Option<FailPolicy>,
    /// `--timings`.
    pub timings: bool,
}

/// The command line of the stage `precreate`, in which there is no container yet: it says what its configuration is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Precreate {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--fail-policy`.
    pub fail_policy: Option<FailPolicy>,
}

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Run a stage.
    Run(Options),
    /// Write a configuration.
    Precreate(Precreate),
    /// Print [`USAGE`].
    Help,
    /// Print the version.
    Version,
}

/// A command line that is none.
#[derive(Debug, thiserror::Error)]
#[error("{0}; see portcullis-hook --help")]
pub struct UsageError(String);

/// Reads the arguments after the program's name.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Request, UsageError> {
    let mut options =
        Options { stage: Stage::CreateRuntime, config: None, deadline: DEFAULT_DEADLINE, fail_policy: None, timings: false };
    let (mut stage, mut precreate, mut of_others) = (None, false, None);
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let Some(text) = argument.to_str() else {
            return Err(UsageError(format!("unknown argument {argument:?}")));
        };
        let (name, joined) = match text.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(OsString::from(value))),
            _ => (text, None),
        };
        let mut value = || joined.clone().or_else(|| arguments.next()).ok_or_else(|| UsageError(format!("{name} needs a value")));
        match name {
            "--config" => options.config = Some(PathBuf::from(value()?)),
            "--deadline" => (options.deadline, of_others) = (deadline(&value()?)?, Some("--deadline")),
            "--fail-policy" => options.fail_policy = Some(fail_policy(&value()?)?),
            "--timings" if joined.is_none() => (options.timings, of_others) = (true, Some("--timings")),
            "--help" | "-h" => return Ok(Request::Help),
            "--version" => return Ok(Request::Version),
            "createRuntime" if stage.is_none() && !precreate => stage = Some(Stage::CreateRuntime),
            "poststop" if stage.is_none() && !precreate => stage = Some(Stage::Poststop),
            "precreate" if stage.is_none() && !precreate => precreate = true,
            _ => return Err(UsageError(format!("unknown argument {text:?}"))),
        }
    }
    if precreate {
        return match of_others {
            Some(option) => Err(UsageError(format!("{option} is not of precreate"))),
            None => Ok(Request::Precreate(Precreate { config: options.config, fail_policy: options.fail_policy })),
        };
    }
    options.stage = stage.ok_or_else(|| UsageError("no stage given".to_owned()))?;
    Ok(Request::Run(options))
}

fn deadline(value: &OsString) -> Result<Duration, UsageError> {
    let seconds: Option<f64> = value.to_str().and_then(|text| text.parse().ok());
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|deadline| !deadline.is_zero() && *deadline <= MAX_DEADLINE)
        .ok_or_else(|| UsageError(format!("--deadline {value:?} is not a number of seconds above 0 and up to 300")))
}

fn fail_policy(value: &OsString) -> Result<FailPolicy, UsageError> {
    match value.to_str() {
        Some("enforce") => Ok(FailPolicy::Enforce),
        Some("permit") => Ok(FailPolicy::Permit),
        _ => Err(UsageError(format!("--fail-policy {value:?} is neither enforce nor permit"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<Request, UsageError> {
        parse(line.split_ascii_whitespace().map(OsString::from))
    }

    #[test]
    fn options_may_stand_on_either_side_of_the_stage() {
        let Request::Run(options) = of("--timings createRuntime --deadline=2.5 --fail-policy permit --config /c").unwrap() else {
            panic!("not a run");
        };
        assert_eq!(options.stage, Stage::CreateRuntime);
        assert_eq!(options.deadline, Duration::from_millis(2500));
        assert_eq!(options.fail_policy, Some(FailPolicy::Permit));
        assert!(options.timings && options.config == Some(PathBuf::from("/c")));
        assert!(matches!(of("poststop").unwrap(), Request::Run(Options { stage: Stage::Poststop, .. })));
        let precreate = Precreate { config: Some(PathBuf::from("/c")), fail_policy: Some(FailPolicy::Permit) };
        assert_eq!(of("precreate --config /c --fail-policy=permit").unwrap(), Request::Precreate(precreate));
        assert_eq!(of("--help").unwrap(), Request::Help);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (line, message) in [
            ("", "no stage given; see portcullis-hook --help"),
            ("prestart", "unknown argument \"prestart\"; see portcullis-hook --help"),
            ("precreate --timings", "--timings is not of precreate; see portcullis-hook --help"),
            ("--deadline=3 precreate", "--deadline is not of precreate; see portcullis-hook --help"),
            ("precreate poststop", "unknown argument \"poststop\"; see portcullis-hook --help"),
            ("poststop precreate", "unknown argument \"precreate\"; see portcullis-hook --help"),
            ("poststop poststop", "unknown argument \"poststop\"; see portcullis-hook --help"),
            ("--deadline", "--deadline needs a value; see portcullis-hook --help"),
            ("--timings=1 poststop", "unknown argument \"--timings=1\"; see portcullis-hook --help"),
            ("--fail-policy open poststop", "--fail-policy \"open\" is neither enforce nor permit; see portcullis-hook --help"),
        ] {
            assert_eq!(of(line).unwrap_err().to_string(), message);
        }
        for deadline in ["0", "-1", "301", "x", "nan", "inf", "1e400"] {
            assert!(of(&format!("--deadline {deadline} poststop")).is_err(), "{deadline}");
        }
    }
}
