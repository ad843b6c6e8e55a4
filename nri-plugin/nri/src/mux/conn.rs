//! One connection: a stream of bytes to read, and of ttrpc messages to write.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::MAX_MESSAGE_BYTES;
use super::frame::{Message, TooLong};
use super::inbox::Inbox;
use super::outbox::Outbox;

/// A connection of a [`Mux`](super::Mux).
///
/// What is written has to be ttrpc messages, in pieces of any size: a message is sent when its last byte is written. A
/// message that claims more than [`MAX_MESSAGE_BYTES`] is an error.
/// Flushing does nothing; shutting down waits until the trunk has taken all, and closes nothing.
#[derive(Debug)]
pub struct Conn {
    inbox: Arc<Inbox>,
    outbox: Arc<Outbox>,
    message: Message,
}

impl Conn {
    pub(super) fn new(inbox: Arc<Inbox>, outbox: Arc<Outbox>) -> Conn {
        Conn { inbox, outbox, message: Message::default() }
    }
}

impl AsyncRead for Conn {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        self.inbox.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Conn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let Conn { inbox, outbox, message } = &mut *self;
        ready!(outbox.poll_room(cx))?;
        let mut input = bytes;
        let complete = message.collect(&mut input).map_err(|TooLong| {
            let text = format!("a ttrpc message is longer than {MAX_MESSAGE_BYTES} bytes");
            std::io::Error::new(std::io::ErrorKind::InvalidInput, text)
        })?;
        if complete {
            outbox.push(message.take_frames(inbox.id));
        }
        // One message at most: the next one has to wait for room itself.
        Poll::Ready(Ok(bytes.len() - input.len()))
    }

    /// Ready at once: the trunk is already at it. To wait here would break connections: the ttrpc client takes an answer that
    /// comes while it is still flushing the request for a request that was cancelled half-written, and closes.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.outbox.poll_sent(cx)
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.inbox.close();
    }
}
