//! `portcullis events`: denials and audited operations, one JSON line each, named by what is in the state directory.
//!
//! The kernel tells the index of the rule that decided, so nothing is matched again here and nothing is guessed. Its ring has one
//! reader: the agent, if one runs, which then passes the same lines on.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use portcullis_agent::alerts::clock::Clock;
use portcullis_agent::alerts::line::{Names, means};
use portcullis_agent::control::{Client, LOST_SCHEMA, Line, Lost};
use portcullis_ebpf::{Kernel, abi};
use portcullis_enforcer::{Config, Enforcer};

use crate::args;
use crate::failure::Failure;
use crate::{Answer, output};

/// How long one wait for the ring lasts at most, so that a timeout is noticed.
const TICK: Duration = Duration::from_secs(60);

pub(crate) fn follow(config: Option<&Path>, asked: &args::Events) -> Result<Answer, Failure> {
    let config = Config::read(config)?;
    match Client::connect(&config.control_socket())? {
        Some(client) => from_agent(client, asked),
        None => from_ring(config, asked),
    }
}

/// How long nothing may come, counted from the last that came.
struct Patience {
    quiet: Option<Duration>,
    last: Instant,
}

impl Patience {
    fn new(asked: &args::Events) -> Patience {
        Patience { quiet: asked.timeout.map(Duration::from_secs), last: Instant::now() }
    }

    /// What is left of it; for ever if none was set.
    fn left(&self) -> Option<Duration> {
        self.quiet.map(|quiet| quiet.saturating_sub(self.last.elapsed()))
    }

    fn is_over(&self) -> bool {
        self.left() == Some(Duration::ZERO)
    }
}

fn from_agent(mut client: Client, asked: &args::Events) -> Result<Answer, Failure> {
    client.follow(asked.container.clone(), asked.count)?;
    let mut patience = Patience::new(asked);
    let mut left = asked.count;
    while !patience.is_over() {
        match client.next_line(patience.left())? {
            Line::Quiet => continue,
            Line::End => break,
            Line::Text(text) => {
                let mut out = std::io::stdout().lock();
                out.write_all(&text).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()).map_err(Failure::Output)?;
                match serde_json::from_slice::<Lost>(&text) {
                    Ok(lost) if lost.schema == LOST_SCHEMA => {
                        eprintln!("portcullis: {} alerts before this were lost: they came faster than they were read", lost.lost);
                    }
                    _ => left = left.map(|left| left.saturating_sub(1)),
                }
            }
        }
        patience.last = Instant::now();
    }
    Ok(answer(left))
}

fn from_ring(config: Config, asked: &args::Events) -> Result<Answer, Failure> {
    let enforcer = Enforcer::open(config)?;
    let kernel = Kernel::open()?;
    let mut events = kernel.events()?;
    let mut names = Names::new(enforcer.state().clone());
    let clock = Clock::now();
    let mut patience = Patience::new(asked);
    let mut left = asked.count;
    while left != Some(0) && !patience.is_over() {
        let Some(event) = events.next(patience.left().unwrap_or(TICK))? else { continue };
        patience.last = Instant::now();
        if event.header.kind != abi::EVENT_ALERT {
            continue;
        }
        let line = names.line(&event, clock.at(event.header.time_ns))?;
        let wanted = asked
            .container
            .as_ref()
            .is_none_or(|name| line.container.as_ref().is_some_and(|container| means(name, &container.id, &container.name)));
        if wanted {
            output::json(&line)?;
            left = left.map(|left| left - 1);
        }
    }
    if events.malformed() > 0 {
        eprintln!("portcullis: {} events could not be understood; the programs and this binary differ", events.malformed());
    }
    Ok(answer(left))
}

/// Whether as many came as were wanted.
fn answer(left: Option<u64>) -> Answer {
    if left.is_some_and(|left| left > 0) { Answer::No } else { Answer::Yes }
}
