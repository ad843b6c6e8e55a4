//! The asking end.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::{Body, Call, Following, Refusal, Reply, Request, VERSION, Wanted};

/// How long an answer is waited for. Reading all policies and switching all containers takes far less.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest answer: the status of a node on which every container is in trouble.
const MAX_ANSWER_BYTES: u64 = 32 << 20;

/// What is read at once.
const READ_BYTES: usize = 16 << 10;

/// A connection to the agent.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    stream: BufReader<UnixStream>,
    /// What has come of a line whose rest has not.
    partial: Vec<u8>,
}

/// Why the agent could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The socket.
    #[error("the agent's socket {} cannot be used: {source}; run this as root", path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// No answer.
    #[error("the agent at {} does not answer ({source}); see: systemctl status portcullis", path.display())]
    Silent {
        /// Its socket.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// Something else than an answer.
    #[error("the agent at {} answers what this program does not understand ({reason}); use the same version of both", path.display())]
    Foreign {
        /// Its socket.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The agent says no.
    #[error("{}", .0.message)]
    Refused(Refusal),
}

impl Client {
    /// Connects, if there is an agent.
    ///
    /// # Errors
    /// [`ClientError::Socket`] if there may be one and it can't be asked.
    pub fn connect(path: &Path) -> Result<Option<Client>, ClientError> {
        let failed = |source| ClientError::Socket { path: path.to_owned(), source };
        let stream = match UnixStream::connect(path) {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE))).map_err(failed)?;
        Ok(Some(Client { path: path.to_owned(), stream: BufReader::with_capacity(READ_BYTES, stream), partial: Vec::new() }))
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// If there is none.
    pub fn call<T: DeserializeOwned>(&mut self, call: Call) -> Result<T, ClientError> {
        let foreign =
            |path: &Path, error: serde_json::Error| ClientError::Foreign { path: path.to_owned(), reason: error.to_string() };
        let mut line = serde_json::to_vec(&Request { v: VERSION, call }).map_err(|error| foreign(&self.path, error))?;
        line.push(b'\n');
        // One that was turned away may have hung up already; what it said is still there to be read.
        let written = self.stream.get_mut().write_all(&line);
        let answer = match (self.line()?, written) {
            (Some(answer), _) => answer,
            (None, Err(error)) => return Err(self.silent(error)),
            (None, Ok(())) => return Err(self.silent(ErrorKind::UnexpectedEof.into())),
        };
        let reply: Reply<T> = serde_json::from_slice(&answer).map_err(|error| foreign(&self.path, error))?;
        match reply.body {
            Body::Ok(answer) => Ok(answer),
            Body::Error(refusal) => Err(ClientError::Refused(refusal)),
        }
    }

    /// Begins to follow events; they are the lines that [`Client::next_line`] gives.
    ///
    /// # Errors
    /// As [`Client::call`]; [`ClientError::Foreign`] if the agent is of a version that does not write them so.
    pub fn follow(&mut self, wanted: Wanted) -> Result<(), ClientError> {
        let expected = wanted.format.schema(wanted.class);
        let Following { schema } = self.call(Call::Events(wanted))?;
        if schema == expected {
            return Ok(());
        }
        Err(ClientError::Foreign { path: self.path.clone(), reason: format!("events as {schema} instead of {expected}") })
    }

    /// The next line, if one comes within `patience`; without one, for ever.
    ///
    /// # Errors
    /// If the connection breaks.
    pub fn next_line(&mut self, patience: Option<Duration>) -> Result<Line, ClientError> {
        if !self.has_line() {
            // No time at all would be for ever to the system.
            let patience = patience.map(|patience| patience.max(Duration::from_millis(1)));
            self.stream.get_ref().set_read_timeout(patience).map_err(|error| self.silent(error))?;
        }
        match self.read_line() {
            Ok(Some(line)) => Ok(Line::Text(line)),
            Ok(None) => Ok(Line::End),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(Line::Quiet),
            Err(error) => Err(self.silent(error)),
        }
    }

    /// Whether the next line is there already.
    #[must_use]
    pub fn has_line(&self) -> bool {
        self.stream.buffer().contains(&b'\n')
    }

    fn line(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        self.read_line().map_err(|error| self.silent(error))
    }

    /// A line without its end; nothing at the end of the stream.
    fn read_line(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let left = MAX_ANSWER_BYTES.saturating_sub(self.partial.len() as u64);
        (&mut self.stream).take(left).read_until(b'\n', &mut self.partial)?;
        match self.partial.pop() {
            Some(b'\n') => Ok(Some(std::mem::take(&mut self.partial))),
            Some(last) => {
                self.partial.push(last);
                let too_long = self.partial.len() as u64 >= MAX_ANSWER_BYTES;
                Err(if too_long { ErrorKind::InvalidData.into() } else { ErrorKind::UnexpectedEof.into() })
            }
            None => Ok(None),
        }
    }

    fn silent(&self, source: std::io::Error) -> ClientError {
        ClientError::Silent { path: self.path.clone(), source }
    }
}

/// What came while following.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// A line, without its end.
    Text(Vec<u8>),
    /// None came in time.
    Quiet,
    /// The agent has said all.
    End,
}
