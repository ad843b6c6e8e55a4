//! The program that runtimes run; see the library for what it does.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use portcullis_enforcer::place::Host;
use portcullis_hook::args::{self, Precreate, Request};
use portcullis_hook::carrier::precreate::{Answer, filter};
use portcullis_hook::enforcement::Real;
use portcullis_hook::run::run;

fn main() -> ExitCode {
    match args::parse(std::env::args_os().skip(1)) {
        Ok(Request::Run(options)) => {
            let enforcement = Arc::new(Real::new(options.config.clone()));
            let finish = run(&Host::default(), &options, &enforcement, std::io::stdin());
            for line in finish.lines {
                eprintln!("{line}");
            }
            // Not a return: a thread that hangs must not keep the runtime waiting.
            std::process::exit(i32::from(finish.code))
        }
        Ok(Request::Precreate(asked)) => precreate(asked),
        Ok(Request::Help) => {
            print!("{}", args::USAGE);
            ExitCode::SUCCESS
        }
        Ok(Request::Version) => {
            println!("portcullis-hook {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("portcullis-hook: {error}");
            ExitCode::from(2)
        }
    }
}

/// A configuration for the one on standard input. Podman takes it from whoever ends with 0.
fn precreate(asked: Precreate) -> ExitCode {
    let directory = std::env::current_dir().unwrap_or_default();
    let (input, mut output) = (std::io::stdin(), std::io::stdout());
    let filtered = filter(&Host::default(), &Real::new(asked.config), asked.fail_policy, &directory, input.lock());
    for line in filtered.lines {
        eprintln!("{line}");
    }
    let written = match filtered.answer {
        Answer::Same => std::io::copy(&mut input.lock(), &mut output).map(drop),
        Answer::Config(bytes) => output.write_all(&bytes),
        Answer::Refused => return ExitCode::FAILURE,
    };
    match written.and_then(|()| output.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("portcullis-hook: the configuration could not be written: {error}");
            ExitCode::FAILURE
        }
    }
}
