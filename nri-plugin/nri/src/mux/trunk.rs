//! The two tasks that carry bytes between a trunk and its connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use super::frame::{FrameDecoder, Piece};
use super::inbox::{Inbox, Pushed};
use super::outbox::Outbox;
use super::{CLOSE_GRACE, MuxError};

/// What is read from the trunk at once.
const READ_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Shared {
    inboxes: Vec<Arc<Inbox>>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) dropped_frames: AtomicU64,
    end: watch::Sender<Option<Result<(), MuxError>>>,
}

impl Shared {
    pub(super) fn new(inboxes: Vec<Arc<Inbox>>, outbox: Arc<Outbox>) -> Shared {
        Shared { inboxes, outbox, dropped_frames: AtomicU64::new(0), end: watch::Sender::new(None) }
    }

    /// Ends the trunk and its connections; the first reason counts.
    pub(super) fn end(&self, reason: Result<(), MuxError>) {
        self.end.send_if_modified(|end| {
            let first = end.is_none();
            end.get_or_insert_with(|| reason.clone());
            first
        });
        for inbox in &self.inboxes {
            inbox.end(reason.clone());
        }
        self.outbox.end(reason);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.end.borrow().is_some()
    }

    pub(super) async fn ended(&self) -> Result<(), MuxError> {
        let mut end = self.end.subscribe();
        match end.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(Ok(())),
            // The sender is in self.
            Err(_) => Ok(()),
        }
    }
}

pub(super) fn start(trunk: impl AsyncRead + AsyncWrite + Send + 'static, shared: &Arc<Shared>) {
    let (from, to) = tokio::io::split(trunk);
    let reading = shared.clone();
    tokio::spawn(async move {
        let result = tokio::select! {
            result = read(from, &reading) => result,
            result = reading.ended() => result,
        };
        reading.end(result);
    });
    let writing = shared.clone();
    tokio::spawn(async move {
        let result = write(to, &writing).await;
        writing.end(result);
    });
}

async fn read(mut trunk: impl AsyncRead + Unpin, shared: &Shared) -> Result<(), MuxError> {
    let mut buffer = vec![0; READ_BYTES];
    let mut decoder = FrameDecoder::default();
    loop {
        let count = trunk.read(&mut buffer).await.map_err(io)?;
        if count == 0 {
            return decoder.finish();
        }
        let mut input = &buffer[..count];
        while let Some(piece) = decoder.next(&mut input)? {
            deliver(&piece, shared).await?;
        }
    }
}

async fn deliver(piece: &Piece<'_>, shared: &Shared) -> Result<(), MuxError> {
    let pushed = match shared.inboxes.iter().find(|inbox| inbox.id == piece.conn) {
        Some(inbox) => inbox.push(piece.bytes).await?,
        None => Pushed::Unwanted,
    };
    if pushed == Pushed::Unwanted && piece.first {
        shared.dropped_frames.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

async fn write(mut trunk: impl AsyncWrite + Unpin, shared: &Shared) -> Result<(), MuxError> {
    let mut result = Ok(());
    while let Some(frames) = shared.outbox.next().await {
        tokio::select! {
            written = trunk.write_all(&frames) => result = written.map_err(io),
            // A peer that does not read must not keep this task after the end.
            _ = shared.ended() => break,
        }
        if result.is_err() {
            break;
        }
        shared.outbox.sent(frames.len());
    }
    // Dropping the socket is not enough where the file descriptor was inherited: another one may still be open.
    let _ = tokio::time::timeout(CLOSE_GRACE, trunk.shutdown()).await;
    result
}

fn io(error: std::io::Error) -> MuxError {
    MuxError::Io(Arc::new(error))
}
