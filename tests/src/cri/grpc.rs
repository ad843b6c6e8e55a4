//! gRPC as far as the CRI needs it: one request, one answer, over a unix socket, blocking.
//!
//! Each call has a connection of its own. The runtime on the other side is killed and restarted by these tests, and several
//! threads ask it at once: a call that shares nothing has nothing to repair. A connection costs less than a thousandth of
//! what it asks for.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use prost::Message;
use tokio::net::UnixStream;

use crate::{Failure, Result};

/// Compression flag and length, before each message.
const PREFIX: usize = 5;
/// Answers of this suite are a few KiB; an ExecSync may print more.
const MAX_ANSWER: usize = 16 << 20;

/// Calls `/SERVICE/METHOD` and waits for its answer.
pub(super) fn call<Q: Message, A: Message + Default>(socket: &Path, method: &str, request: &Q, limit: Duration) -> Result<A> {
    let mut body = BytesMut::with_capacity(PREFIX + request.encoded_len());
    body.put_u8(0);
    body.put_u32(u32::try_from(request.encoded_len()).unwrap_or(u32::MAX));
    body.put_slice(&request.encode_to_vec());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Failure::io("an asynchronous runtime", source))?;
    let answer = runtime.block_on(async {
        tokio::time::timeout(limit, exchange(socket, method, body.freeze())).await.unwrap_or(Err(Trouble::Late))
    });
    let bytes = answer.map_err(|trouble| trouble.of(method, limit))?;
    A::decode(bytes).map_err(|error| Trouble::Transport(error.to_string()).of(method, limit))
}

/// Why there was no answer.
enum Trouble {
    Late,
    Transport(String),
    Status(i32, String),
}

impl Trouble {
    fn of(self, method: &str, limit: Duration) -> Failure {
        let what = method.rsplit('/').next().unwrap_or(method).to_owned();
        match self {
            Trouble::Late => Failure::Timeout { what, limit },
            Trouble::Transport(why) => Failure::io(what, io::Error::other(why)),
            Trouble::Status(code, message) => Failure::Refused { what, code, message },
        }
    }
}

impl From<h2::Error> for Trouble {
    fn from(error: h2::Error) -> Self {
        Trouble::Transport(error.to_string())
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Trouble::Transport(error.to_string())
    }
}

async fn exchange(socket: &Path, method: &str, body: Bytes) -> std::result::Result<Bytes, Trouble> {
    let (mut sender, connection) = h2::client::handshake(UnixStream::connect(socket).await?).await?;
    // It ends with the runtime of this one call.
    tokio::spawn(connection);
    let request = http::Request::post(format!("http://localhost{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .map_err(|error| Trouble::Transport(error.to_string()))?;
    let (response, mut stream) = sender.send_request(request, false)?;
    stream.send_data(body, true)?;
    let (head, mut body) = response.await?.into_parts();
    let mut answer = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        if answer.len() + data.len() > MAX_ANSWER {
            return Err(Trouble::Transport(format!("an answer of more than {MAX_ANSWER} bytes")));
        }
        answer.extend_from_slice(&data);
    }
    // A refusal without an answer comes in the head alone.
    check(body.trailers().await?.as_ref().unwrap_or(&head.headers))?;
    if answer.len() < PREFIX {
        return Err(Trouble::Transport("an answer without a message".to_owned()));
    }
    Ok(answer.split_off(PREFIX).freeze())
}

fn check(headers: &HeaderMap) -> std::result::Result<(), Trouble> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match text("grpc-status").parse() {
        Ok(0) => Ok(()),
        Ok(code) => Err(Trouble::Status(code, unescape(text("grpc-message")))),
        Err(_) => Err(Trouble::Transport("an answer without a status".to_owned())),
    }
}

/// Undoes the percent-encoding of a status message.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match code {
            Some(byte) if first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
