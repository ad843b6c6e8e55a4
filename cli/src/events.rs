//! `portcullis events`: denials and audited operations, one JSON line each, named by what is in the state directory.
//!
//! The kernel tells the index of the rule that decided, so nothing is matched again here and nothing is guessed.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use portcullis_ebpf::{Event, Kernel, abi};
use portcullis_enforcer::{Config, Enforcer};
use rustix::time::{ClockId, clock_gettime};

use crate::args;
use crate::event_line::{Line, Names};
use crate::failure::Failure;
use crate::{Answer, output, who};

/// How long one wait for the ring lasts at most, so that a timeout is noticed.
const TICK: Duration = Duration::from_secs(60);

pub(crate) fn follow(config: Option<&Path>, asked: &args::Events) -> Result<Answer, Failure> {
    let enforcer = Enforcer::open(Config::read(config)?)?;
    let kernel = Kernel::open()?;
    let mut events = kernel.events()?;
    let mut names = Names::new(enforcer.state().clone());
    let clock = Clock::now();
    let quiet = asked.timeout.map(Duration::from_secs);
    let mut last = Instant::now();
    let mut left = asked.count.unwrap_or(u64::MAX);
    while left > 0 {
        let wait = match quiet {
            Some(quiet) => match quiet.checked_sub(last.elapsed()) {
                Some(rest) => rest,
                None => break,
            },
            None => TICK,
        };
        let Some(event) = events.next(wait)? else { continue };
        last = Instant::now();
        if event.header.kind != abi::EVENT_ALERT {
            continue;
        }
        let line = line(&event, &mut names, clock)?;
        let wanted = asked
            .container
            .as_ref()
            .is_none_or(|name| line.container.as_ref().is_some_and(|container| who::means(name, &container.id, &container.name)));
        if wanted {
            output::json(&line)?;
            left -= 1;
        }
    }
    if events.malformed() > 0 {
        eprintln!("portcullis: {} events could not be understood; the programs and this binary differ", events.malformed());
    }
    Ok(if asked.count.is_some() && left > 0 { Answer::No } else { Answer::Yes })
}

fn line(event: &Event, names: &mut Names, clock: Clock) -> Result<Line, Failure> {
    let time = clock.at(event.header.time_ns);
    names.line(event, time)
}

/// The wall clock at a moment of the boot clock, which the kernel's events carry.
#[derive(Clone, Copy)]
struct Clock {
    boot: SystemTime,
}

impl Clock {
    fn now() -> Clock {
        let since_boot = clock_gettime(ClockId::Boottime);
        let since_boot = Duration::new(since_boot.tv_sec.unsigned_abs(), u32::try_from(since_boot.tv_nsec).unwrap_or(0));
        Clock { boot: SystemTime::now().checked_sub(since_boot).unwrap_or(SystemTime::UNIX_EPOCH) }
    }

    fn at(self, boot_ns: u64) -> SystemTime {
        self.boot.checked_add(Duration::from_nanos(boot_ns)).unwrap_or(self.boot)
    }
}
