//! `portcullis events`: denials and audited operations, one JSON line each, named by what is in the state directory. The lines are
//! our own or KubeArmor's.
//!
//! The kernel tells the index of the rule that decided, so nothing is matched again here and nothing is guessed. Its ring has one
//! reader: the agent, if one runs, which then passes the same lines on.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use portcullis_agent::alerts::Names;
use portcullis_agent::alerts::clock::Clock;
use portcullis_agent::control::{Client, EventFormat, LOST_SCHEMA, Line, Lost};
use portcullis_agent::kubearmor::Host;
use portcullis_ebpf::{Kernel, abi};
use portcullis_enforcer::{Config, Enforcer};

use crate::Answer;
use crate::args::{self, EventOutput};
use crate::failure::Failure;

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

fn format(asked: &args::Events) -> EventFormat {
    match asked.output {
        EventOutput::Json => EventFormat::Json,
        EventOutput::Kubearmor => EventFormat::Kubearmor,
    }
}

fn print(line: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(line).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()).map_err(Failure::Output)
}

fn from_agent(mut client: Client, asked: &args::Events) -> Result<Answer, Failure> {
    client.follow(asked.container.clone(), asked.count, format(asked))?;
    let mut patience = Patience::new(asked);
    let mut left = asked.count;
    while !patience.is_over() {
        match client.next_line(patience.left())? {
            Line::Quiet => continue,
            Line::End => break,
            Line::Text(text) => {
                let lost = serde_json::from_slice::<Lost>(&text).ok().filter(|lost| lost.schema == LOST_SCHEMA);
                // KubeArmor's format has no line for it.
                if lost.is_none() || asked.output == EventOutput::Json {
                    print(&text)?;
                }
                match lost {
                    Some(Lost { lost, .. }) => {
                        eprintln!("portcullis: {lost} alerts before this were lost: they came faster than they were read");
                    }
                    None => left = left.map(|left| left.saturating_sub(1)),
                }
            }
        }
        patience.last = Instant::now();
    }
    Ok(answer(left))
}

fn from_ring(config: Config, asked: &args::Events) -> Result<Answer, Failure> {
    let host = Host::this(&config.cluster_name);
    let enforcer = Enforcer::open(config)?;
    let kernel = Kernel::open()?;
    let mut events = kernel.events()?;
    let mut names = Names::new(enforcer.state().clone(), host);
    let clock = Clock::now();
    let mut patience = Patience::new(asked);
    let mut left = asked.count;
    while left != Some(0) && !patience.is_over() {
        let Some(event) = events.next(patience.left().unwrap_or(TICK))? else { continue };
        patience.last = Instant::now();
        if event.header.kind != abi::EVENT_ALERT {
            continue;
        }
        let alert = names.alert(&event, clock.at(event.header.time_ns), None)?;
        if asked.container.as_ref().is_none_or(|name| alert.is_of(name)) {
            print(alert.rendered(format(asked).into()))?;
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
