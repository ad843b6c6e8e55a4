//! What a connection has received and nobody has read yet.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::ReadBuf;
use tokio::sync::Notify;

use super::{ConnId, MAX_STALL, MAX_UNREAD_BYTES, MuxError};

/// A queue that was longer gives its memory back when it is empty.
const KEPT_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) id: ConnId,
    state: Mutex<State>,
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    bytes: VecDeque<u8>,
    end: Option<Result<(), MuxError>>,
    reader: Option<Waker>,
    reader_gone: bool,
}

/// Whether bytes were taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    Queued,
    /// The connection was closed at this end.
    Unwanted,
}

impl Inbox {
    pub(super) fn new(id: ConnId) -> Inbox {
        Inbox { id, state: Mutex::default(), room: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues bytes, waiting for room.
    pub(super) async fn push(&self, bytes: &[u8]) -> Result<Pushed, MuxError> {
        match tokio::time::timeout(MAX_STALL, self.wait_for_room()).await {
            Err(_) => return Err(MuxError::Stalled { conn: self.id.0 }),
            Ok(Pushed::Unwanted) => return Ok(Pushed::Unwanted),
            Ok(Pushed::Queued) => {}
        }
        let reader = {
            let mut state = self.lock();
            state.bytes.extend(bytes);
            state.reader.take()
        };
        if let Some(waker) = reader {
            waker.wake();
        }
        Ok(Pushed::Queued)
    }

    async fn wait_for_room(&self) -> Pushed {
        loop {
            let room = self.room.notified();
            {
                let state = self.lock();
                if state.reader_gone || state.end.is_some() {
                    return Pushed::Unwanted;
                }
                if state.bytes.len() < MAX_UNREAD_BYTES {
                    return Pushed::Queued;
                }
            }
            room.await;
        }
    }

    pub(super) fn poll_read(&self, cx: &Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let mut state = self.lock();
        if !state.bytes.is_empty() {
            let (front, _) = state.bytes.as_slices();
            let count = front.len().min(buffer.remaining());
            buffer.put_slice(&front[..count]);
            state.bytes.drain(..count);
            if state.bytes.is_empty() && state.bytes.capacity() > KEPT_BYTES {
                state.bytes = VecDeque::new();
            }
            // One permit is enough: only the trunk's reader waits for room.
            self.room.notify_one();
            return Poll::Ready(Ok(()));
        }
        match &state.end {
            Some(Ok(())) => Poll::Ready(Ok(())),
            Some(Err(error)) => Poll::Ready(Err(std::io::Error::other(error.clone()))),
            None => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// No more bytes will come; those that came can still be read.
    pub(super) fn end(&self, end: Result<(), MuxError>) {
        let reader = {
            let mut state = self.lock();
            state.end.get_or_insert(end);
            state.reader.take()
        };
        self.room.notify_one();
        if let Some(waker) = reader {
            waker.wake();
        }
    }

    /// Nobody will read any more.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.reader_gone = true;
        state.bytes = VecDeque::new();
        self.room.notify_one();
    }
}
