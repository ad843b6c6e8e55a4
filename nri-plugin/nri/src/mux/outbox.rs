//! What waits to be sent.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;

use super::{MAX_UNSENT_BYTES, MuxError};

/// One for the trunk: what the peer does not read holds up all connections anyway.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    work: Notify,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Vec<u8>>,
    /// Queued, and in the hands of the trunk's writer.
    unsent: usize,
    waiting: Vec<Waker>,
    end: Option<Result<(), MuxError>>,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ready when a message may be queued.
    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Poll<std::io::Result<()>> {
        self.poll_until(cx, |unsent| unsent < MAX_UNSENT_BYTES)
    }

    /// Ready when everything has been sent.
    pub(super) fn poll_sent(&self, cx: &Context<'_>) -> Poll<std::io::Result<()>> {
        self.poll_until(cx, |unsent| unsent == 0)
    }

    fn poll_until(&self, cx: &Context<'_>, enough: impl Fn(usize) -> bool) -> Poll<std::io::Result<()>> {
        let mut state = self.lock();
        match &state.end {
            Some(Ok(())) => return Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into())),
            Some(Err(error)) => return Poll::Ready(Err(std::io::Error::other(error.clone()))),
            None if enough(state.unsent) => return Poll::Ready(Ok(())),
            None => {}
        }
        if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    pub(super) fn push(&self, frames: Vec<u8>) {
        let mut state = self.lock();
        state.unsent += frames.len();
        state.frames.push_back(frames);
        self.work.notify_one();
    }

    /// The next bytes to send; `None` when there will be none any more.
    pub(super) async fn next(&self) -> Option<Vec<u8>> {
        loop {
            let work = self.work.notified();
            {
                let mut state = self.lock();
                if let Some(frames) = state.frames.pop_front() {
                    return Some(frames);
                }
                if state.end.is_some() {
                    return None;
                }
            }
            work.await;
        }
    }

    /// So many bytes that [`Outbox::next`] gave out have been sent.
    pub(super) fn sent(&self, count: usize) {
        let waiting = {
            let mut state = self.lock();
            state.unsent = state.unsent.saturating_sub(count);
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Takes no more; what is queued is still sent.
    pub(super) fn close(&self) {
        self.finish(Ok(()), false);
    }

    /// Takes no more and gives up what is queued.
    pub(super) fn end(&self, end: Result<(), MuxError>) {
        self.finish(end, true);
    }

    fn finish(&self, end: Result<(), MuxError>, give_up: bool) {
        let waiting = {
            let mut state = self.lock();
            state.end.get_or_insert(end);
            if give_up {
                state.frames.clear();
            }
            std::mem::take(&mut state.waiting)
        };
        self.work.notify_one();
        waiting.into_iter().for_each(Waker::wake);
    }
}
