//! `portcullis events`: denials and audited operations, what containers execute and what they use, one line each: our own JSON,
//! KubeArmor's or OCSF's, or for people.
//!
//! The kernel tells the index of the rule that decided, so nothing is matched again here and nothing is guessed. Its rings have one
//! reader: the agent, if one runs, which then passes the same lines on. Without an agent alerts are read here, and named by what is
//! in the state directory; who was who nobody knows then.

mod shown;

pub(crate) use self::shown::compact;

use std::io::{BufWriter, StdoutLock, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use portcullis_agent::alerts::clock::Clock;
use portcullis_agent::alerts::{Filter, Names};
use portcullis_agent::control::{Client, EventClass, EventFormat, LOST_SCHEMA, Line, Lost, Wanted};
use portcullis_agent::kubearmor::Host;
use portcullis_ebpf::{Kernel, abi};
use portcullis_enforcer::{Config, Enforcer};
use portcullis_policy::Backend;

use crate::Answer;
use crate::args::{self, Class, EventOutput};
use crate::failure::Failure;
use crate::output;

/// How long one wait for the ring lasts at most, so that a timeout is noticed.
const TICK: Duration = Duration::from_secs(60);

pub(crate) fn follow(config: Option<&Path>, asked: &args::Events) -> Result<Answer, Failure> {
    let is_about_alerts = matches!(asked.class, Class::Alert | Class::All);
    if asked.class == Class::Process && asked.verdict.is_some() || asked.rule.is_some() && !is_about_alerts {
        return Err(Failure::NoVerdict);
    }
    let config = Config::read(config)?;
    if asked.output == EventOutput::Table {
        output::line(&shown::header())?;
    }
    match Client::connect(&config.control_socket())? {
        Some(client) => from_agent(client, asked),
        None if asked.class != Class::Alert => Err(Failure::NoAgent),
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

/// What is asked for, but for the class.
pub(crate) fn filter(asked: &args::Events) -> Filter {
    let args::Events { container, namespace, pod, image, verdict, rule, .. } = asked.clone();
    Filter { container, namespace, pod, image, verdict: verdict.map(Into::into), rule }
}

fn format(asked: &args::Events) -> EventFormat {
    match asked.output {
        EventOutput::Json | EventOutput::Compact | EventOutput::Table => EventFormat::Json,
        EventOutput::Kubearmor => EventFormat::Kubearmor,
        EventOutput::Ocsf => EventFormat::Ocsf,
    }
}

/// Where events are printed.
type Out<'a> = BufWriter<StdoutLock<'a>>;

fn raw(out: &mut Out<'_>, line: &[u8]) -> Result<(), Failure> {
    out.write_all(line).and_then(|()| out.write_all(b"\n")).map_err(Failure::Output)
}

/// Prints an event.
fn print(out: &mut Out<'_>, line: &[u8], asked: &args::Events) -> Result<(), Failure> {
    let show = match asked.output {
        EventOutput::Json | EventOutput::Kubearmor | EventOutput::Ocsf => return raw(out, line),
        EventOutput::Compact => compact,
        EventOutput::Table => shown::row,
    };
    // Only another version of the agent could say what is no JSON.
    let told = serde_json::from_slice(line).map_err(|error| Failure::Output(error.into()))?;
    raw(out, show(&told).as_bytes())
}

/// That events were lost, if the line says so.
fn lost(line: &[u8]) -> Option<Lost> {
    /// All other lines are not read: there may be many.
    const BEGIN: &[u8] = br#"{"schema":"portcullis.lost/"#;
    let lost: Lost = line.starts_with(BEGIN).then(|| serde_json::from_slice(line).ok())??;
    (lost.schema == LOST_SCHEMA).then_some(lost)
}

fn from_agent(mut client: Client, asked: &args::Events) -> Result<Answer, Failure> {
    client.follow(Wanted { class: asked.class.into(), filter: filter(asked), count: asked.count, format: format(asked) })?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut patience = Patience::new(asked);
    let mut left = asked.count;
    while !patience.is_over() {
        match client.next_line(patience.left())? {
            Line::Quiet => continue,
            Line::End => break,
            Line::Text(text) => match lost(&text) {
                Some(Lost { lost, class, .. }) => {
                    // The other formats have no line for it.
                    if asked.output == EventOutput::Json {
                        raw(&mut out, &text)?;
                    }
                    let what = match class {
                        EventClass::Alert => "alerts",
                        EventClass::Process => "events of processes",
                        _ => "accesses",
                    };
                    out.flush().map_err(Failure::Output)?;
                    eprintln!("portcullis: {lost} {what} before this were lost: they came faster than they were read");
                }
                None => {
                    print(&mut out, &text, asked)?;
                    left = left.map(|left| left.saturating_sub(1));
                }
            },
        }
        if !client.has_line() {
            out.flush().map_err(Failure::Output)?;
        }
        patience.last = Instant::now();
    }
    out.flush().map_err(Failure::Output)?;
    Ok(answer(left))
}

fn from_ring(config: Config, asked: &args::Events) -> Result<Answer, Failure> {
    let host = Host::this(&config.cluster_name);
    let enforcer = Enforcer::open(config)?;
    if enforcer.chosen().backend == Backend::AppArmor {
        return Err(Failure::NoDenials);
    }
    let kernel = Kernel::open()?;
    let mut events = kernel.events()?;
    let mut names = Names::new(enforcer.state().clone(), host);
    let clock = Clock::now();
    let filter = filter(asked);
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut patience = Patience::new(asked);
    let mut left = asked.count;
    while left != Some(0) && !patience.is_over() {
        let Some(event) = events.next(patience.left().unwrap_or(TICK))? else { continue };
        patience.last = Instant::now();
        if event.header.kind != abi::EVENT_ALERT {
            continue;
        }
        let moment = clock.moment(event.header.time_ns, portcullis_ebpf::boottime_ns());
        let alert = names.alert(event, moment, None)?;
        if filter.takes(&alert) {
            print(&mut out, &alert.written(format(asked)), asked)?;
            out.flush().map_err(Failure::Output)?;
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
