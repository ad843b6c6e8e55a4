//! The answering end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt::set_socket_send_buffer_size;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::debug;

use super::{Body, Call, Fed, Feed, Following, LOST_SCHEMA, Lost, MAX_REQUEST_BYTES};
use super::{Refusal, RefusalKind, Reply, Request, VERSION, Wanted};
use crate::json;
use crate::socket::Socket;
use crate::telemetry::Telemetry;

/// Most connections at once.
const MAX_CONNECTIONS: usize = 32;
/// How long a whole request may take to come, and how long a connection may be idle.
const REQUEST_PATIENCE: Duration = Duration::from_secs(10);
/// How long an answer may take to be taken.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// How many events a follower is asked about before others of the same thread have their turn.
const BATCH: usize = 1024;
/// Bytes of lines that are written to it at once; one event more may make it longer.
const BATCH_BYTES: usize = 16 << 10;
/// Bytes of lines that the system may hold for it (socket(7): `SO_SNDBUF`, which is doubled). What was written takes no turns any more: the
/// alert of one container waits there behind all that another has flooded it with.
const HELD_BYTES: usize = 16 << 10;

/// What answers, but for events.
pub(crate) trait Answers: Send + Sync + 'static {
    /// The answer as JSON. May block.
    fn answer(&self, call: Call) -> Result<serde_json::Value, Refusal>;
    /// What can be followed.
    fn telemetry(&self) -> &Telemetry;
}

/// Answers for ever.
pub(crate) async fn serve(socket: Socket, answers: Arc<impl Answers>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let (stream, is_users) = socket.accept().await;
        if !is_users {
            turn_away(&stream, RefusalKind::Forbidden, "only root may ask the agent");
            continue;
        }
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            turn_away(&stream, RefusalKind::Busy, "too many programs ask the agent at once; try again");
            continue;
        };
        let answers = Arc::clone(&answers);
        tokio::spawn(async move {
            if let Err(error) = Conversation::new(stream).run(&answers).await {
                debug!("a conversation ended: {error}");
            }
            drop(place);
        });
    }
}

/// Says why before hanging up. The socket's buffer is empty, so this neither blocks nor fails for want of room.
fn turn_away(stream: &UnixStream, kind: RefusalKind, message: &str) {
    if let Ok(line) = line_of(&Reply::<()> { v: VERSION, body: Body::Error(Refusal::new(kind, message)) }) {
        drop(stream.try_write(&line));
    }
}

fn line_of(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

/// One connection.
struct Conversation {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
}

impl Conversation {
    fn new(stream: UnixStream) -> Conversation {
        let (read, write) = stream.into_split();
        Conversation { read: BufReader::with_capacity(MAX_REQUEST_BYTES, read), write }
    }

    async fn run(mut self, answers: &Arc<impl Answers>) -> io::Result<()> {
        loop {
            let line = match timeout(REQUEST_PATIENCE, self.request_line()).await {
                Ok(line) => line?,
                Err(_) => return Ok(()),
            };
            let Some(line) = line else { return Ok(()) };
            match request(&line) {
                Ok(Call::Events(wanted)) => return self.follow(Feed::of(answers.telemetry(), wanted.class), wanted).await,
                Ok(call) => {
                    let answers = Arc::clone(answers);
                    let answer = tokio::task::spawn_blocking(move || answers.answer(call)).await;
                    let answer = answer
                        .unwrap_or_else(|_| Err(Refusal::new(RefusalKind::Failed, "the agent could not answer; see its log")));
                    self.say(answer.map_or_else(Body::Error, Body::Ok)).await?;
                }
                Err(refusal) => {
                    // What follows a request that is none is none either.
                    return self.say::<()>(Body::Error(refusal)).await;
                }
            }
        }
    }

    /// One line, without its end; nothing at the end. One that is too long comes as far as the limit.
    async fn request_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let limit = MAX_REQUEST_BYTES as u64 + 1;
        (&mut self.read).take(limit).read_until(b'\n', &mut line).await?;
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() <= MAX_REQUEST_BYTES {
            // The end came before the end of the line: nobody waits for an answer to half a request.
            return Ok(None);
        }
        Ok(Some(line))
    }

    async fn say<T: Serialize>(&mut self, body: Body<T>) -> io::Result<()> {
        let line = line_of(&Reply { v: VERSION, body })?;
        timeout(ANSWER_PATIENCE, self.write.write_all(&line)).await?
    }

    /// Passes events on until the other end hangs up. It may take as long as it likes to take them: then it loses some, and is
    /// told how many.
    async fn follow(mut self, mut feed: Feed, wanted: Wanted) -> io::Result<()> {
        set_socket_send_buffer_size(self.write.as_ref(), HELD_BYTES)?;
        self.say(Body::Ok(Following { schema: wanted.format.schema(wanted.class) })).await?;
        let mut left = wanted.count.unwrap_or(u64::MAX);
        let mut lines = Vec::new();
        while left > 0 {
            let first = tokio::select! {
                next = feed.next() => next,
                _ = self.read.fill_buf() => return Ok(()),
            };
            left -= write(&wanted, first, &mut lines);
            // What has come together is written together.
            for _ in 1..BATCH {
                if left == 0 || lines.len() >= BATCH_BYTES {
                    break;
                }
                let Some(next) = feed.try_next() else { break };
                left -= write(&wanted, next, &mut lines);
            }
            tokio::select! {
                written = self.write.write_all(&lines) => written?,
                _ = self.read.fill_buf() => return Ok(()),
            }
            lines.clear();
        }
        self.write.shutdown().await
    }
}

/// Writes what is wanted of it as a line; how many events that is.
fn write(wanted: &Wanted, fed: Fed, lines: &mut Vec<u8>) -> u64 {
    let Wanted { class, filter, format, .. } = wanted;
    let events = match fed {
        Fed::Lost(class, lost) => {
            json::write(lines, &Lost { schema: LOST_SCHEMA.to_owned(), class, lost });
            0
        }
        Fed::Alert(alert) if filter.takes(&alert) => {
            lines.extend_from_slice(&alert.written(*format));
            1
        }
        Fed::Log(log) if class.takes(&log) && filter.takes_log(&log) => {
            lines.extend_from_slice(&log.written(*format));
            1
        }
        Fed::Alert(_) | Fed::Log(_) => return 0,
    };
    lines.push(b'\n');
    events
}

/// What a line asks.
fn request(line: &[u8]) -> Result<Call, Refusal> {
    #[derive(Deserialize)]
    struct Versioned {
        v: u32,
    }
    let bad = |message: String| Refusal::new(RefusalKind::BadRequest, message);
    if line.len() > MAX_REQUEST_BYTES {
        return Err(bad(format!("the request is longer than {MAX_REQUEST_BYTES} bytes; a request is one line of JSON")));
    }
    let not_json =
        |error| bad(format!("the request is not understood ({error}); it is one line like {{\"v\":1,\"method\":\"status\"}}"));
    // Whatever else another version may ask, it says that it is one.
    let Versioned { v } = serde_json::from_slice(line).map_err(not_json)?;
    if v != VERSION {
        let message = format!("this agent speaks version {VERSION} of the protocol and not {v}; use its own `portcullis`");
        return Err(Refusal::new(RefusalKind::Version, message));
    }
    serde_json::from_slice(line).map(|request: Request| request.call).map_err(not_json)
}

#[cfg(test)]
mod tests;
