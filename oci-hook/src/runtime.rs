//! The runtime that engines run; see [`portcullis_hook::carrier`].

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use portcullis_enforcer::place::Host;
use portcullis_hook::carrier::{self, PROGRAM};
use portcullis_hook::enforcement::Real;

/// As of a runtime that fails.
const FAILED: u8 = 1;
/// As of a shell that does not find a program.
const NOT_FOUND: u8 = 127;

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let own = words.next().unwrap_or_default();
    let Some(runtime) = carrier::runtime(&own) else {
        eprintln!(
            "{PROGRAM}: the runtime to be run is not installed; install crun or runc, or call this program portcullis-NAME after the runtime"
        );
        return ExitCode::from(NOT_FOUND);
    };
    let carried = carrier::carry(&Host::default(), &Real::new(None), words.collect());
    for line in carried.lines {
        eprintln!("{line}");
    }
    let Some(words) = carried.words else { return ExitCode::from(FAILED) };
    let error = Command::new(&runtime).args(words).exec();
    eprintln!("{PROGRAM}: cannot execute {}: {error}", runtime.display());
    ExitCode::from(NOT_FOUND)
}
