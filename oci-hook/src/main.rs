//! The program that runtimes run; see the library for what it does.

use std::process::ExitCode;
use std::sync::Arc;

use portcullis_enforcer::place::Host;
use portcullis_hook::args::{self, Request};
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
