//! The threads that wait: one for samples, one for each stream of events. What they have to tell goes through one bounded channel;
//! when that is full they wait, and the agent tells them later what they missed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use portcullis_agent::alerts::Verdict;
use portcullis_agent::control::{Client, EventClass, LOST_SCHEMA, Line, Lost, Wanted};
use portcullis_enforcer::Enforcer;
use serde_json::Value;

use super::model::{Event, Sample};
use super::sampler::Sampler;
use crate::events::compact;
use crate::failure::Failure;

/// How often a sample is taken.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// How long a stream waits for an event before it looks whether it is still wanted, and before it connects again.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What waits to be shown.
const MAX_WAITING: usize = 1024;

/// What a thread has to tell.
pub(super) enum Update {
    Sample(Box<Sample>),
    /// Why there is no sample.
    Trouble(String),
    /// Of the stream with this number.
    Event(u64, Event),
    Lost(u64, EventClass, u64),
}

/// All threads, and where they tell what they have.
pub(super) struct Sources {
    socket: PathBuf,
    send: SyncSender<Update>,
    pub(super) updates: Receiver<Update>,
    streams: u64,
}

/// A stream, for as long as this is kept.
pub(super) struct Stream {
    pub(super) number: u64,
    is_wanted: Arc<AtomicBool>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.is_wanted.store(false, Ordering::Relaxed);
    }
}

impl Sources {
    pub(super) fn start(enforcer: Enforcer) -> Result<Sources, Failure> {
        let (send, updates) = sync_channel(MAX_WAITING);
        let socket = enforcer.config().control_socket();
        let (mut sampler, samples) = (Sampler::new(enforcer), send.clone());
        spawn("samples", move || {
            loop {
                let update = match sampler.take() {
                    Ok(sample) => Update::Sample(Box::new(sample)),
                    Err(failure) => Update::Trouble(failure.to_string()),
                };
                if samples.send(update).is_err() {
                    return;
                }
                std::thread::sleep(SAMPLE_EVERY);
            }
        })?;
        Ok(Sources { socket, send, updates, streams: 0 })
    }

    /// Follows events.
    pub(super) fn follow(&mut self, wanted: Wanted) -> Result<Stream, Failure> {
        self.streams += 1;
        let stream = Stream { number: self.streams, is_wanted: Arc::new(AtomicBool::new(true)) };
        let (number, is_wanted) = (stream.number, Arc::clone(&stream.is_wanted));
        let (socket, send) = (self.socket.clone(), self.send.clone());
        spawn("events", move || {
            while is_wanted.load(Ordering::Relaxed) {
                // The samples say why, when the agent can't be asked.
                if follow(&socket, wanted.clone(), number, &is_wanted, &send).is_ok() {
                    return;
                }
                std::thread::sleep(LOOK_EVERY);
            }
        })?;
        Ok(stream)
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map(drop).map_err(Failure::Thread)
}

/// Passes events on until nobody wants them any more.
fn follow(socket: &Path, wanted: Wanted, number: u64, is_wanted: &AtomicBool, send: &SyncSender<Update>) -> Result<(), Failure> {
    let mut client = Client::connect(socket)?.ok_or(Failure::NoAgent)?;
    client.follow(wanted)?;
    while is_wanted.load(Ordering::Relaxed) {
        let update = match client.next_line(Some(LOOK_EVERY))? {
            Line::Quiet => continue,
            Line::End => return Err(Failure::NoAgent),
            Line::Text(line) => update(number, &line)?,
        };
        if send.send(update).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn update(number: u64, line: &[u8]) -> Result<Update, Failure> {
    // Only another version of the agent could say what is no JSON.
    let value: Value = serde_json::from_slice(line).map_err(|error| Failure::Output(error.into()))?;
    if value["schema"] == LOST_SCHEMA {
        let Lost { class, lost, .. } = serde_json::from_value(value).map_err(|error| Failure::Output(error.into()))?;
        return Ok(Update::Lost(number, class, lost));
    }
    Ok(Update::Event(number, event(&value)))
}

pub(super) fn event(value: &Value) -> Event {
    Event {
        verdict: match value["verdict"].as_str() {
            Some("block") => Some(Verdict::Block),
            Some("audit") => Some(Verdict::Audit),
            _ => None,
        },
        pid: value["process"]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default(),
        container: value["container"]["id"].as_str().unwrap_or_default().to_owned(),
        text: compact(value),
    }
}
