//! Two connections over one socket, as NRI has them.
//!
//! Runtime and plugin share one Unix stream. Each sends frames on it: connection id and length, both big-endian 32-bit
//! numbers, then as many bytes. Opening a connection is virtual: both ends just know that 1 carries the requests of the
//! runtime and 2 those of the plugin. To its user each connection is a stream of bytes, [`Conn`].
//!
//! # Why the writer knows about messages
//!
//! The runtime's end is not a stream of bytes. It is written in Go, hands each frame to one `Read`, and fails that read when
//! the reader's buffer is smaller than the frame. Its ttrpc reads headers through a buffer of 4096 bytes and then exactly
//! the rest of the message. So a frame that begins a message must not be longer than 4096 bytes, and a longer one has to be
//! exactly the rest of one message; else the runtime drops the plugin, and goes on without it. And it queues 256 frames, so
//! that small pieces are no way out. [`Conn`] therefore collects whole ttrpc messages, whatever the sizes of the writes that
//! bring them, and sends each as a frame of up to [`FIRST_FRAME_BYTES`] and one with the rest.
//!
//! # Limits
//!
//! A frame longer than [`MAX_FRAME_BYTES`] closes the trunk. What a connection has received and nobody has read is bounded
//! by [`MAX_UNREAD_BYTES`]: beyond it the trunk is not read on, which holds back both connections; if that lasts longer than
//! [`MAX_STALL`] the trunk is closed, so that a connection nobody reads cannot hold up the other for ever. Frames for
//! connections that are not open are dropped and counted.

mod conn;
mod frame;
mod inbox;
mod outbox;
mod trunk;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

pub use conn::Conn;
pub use frame::{FrameDecoder, Piece};
use inbox::Inbox;
use outbox::Outbox;
use trunk::Shared;

/// The header of a ttrpc message: length, stream id, type, flags.
pub const MESSAGE_HEADER_BYTES: usize = 10;
/// The longest message that ttrpc has.
pub const MAX_MESSAGE_BYTES: usize = MESSAGE_HEADER_BYTES + (4 << 20);
/// The longest frame that is accepted: one whole message. Runtimes with NRI up to 0.6.1 allow more, but never send it.
pub const MAX_FRAME_BYTES: usize = MAX_MESSAGE_BYTES;
/// The longest frame that may begin a message: the read buffer of the runtime's ttrpc.
pub const FIRST_FRAME_BYTES: usize = 4096;
/// What may have arrived on a connection without being read: one message being handled and one behind it.
pub const MAX_UNREAD_BYTES: usize = 2 * MAX_MESSAGE_BYTES;
/// What may wait to be sent before writes have to wait.
pub const MAX_UNSENT_BYTES: usize = MAX_MESSAGE_BYTES;
/// How long a full connection may hold up the trunk.
pub const MAX_STALL: Duration = Duration::from_secs(30);
/// How long [`Mux::close`] waits for the peer to take what is still to be sent.
pub const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// The number of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnId(pub u32);

impl ConnId {
    /// Carries the requests of the runtime.
    pub const PLUGIN: ConnId = ConnId(1);
    /// Carries the requests of the plugin.
    pub const RUNTIME: ConnId = ConnId(2);
}

/// Why a trunk ended.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum MuxError {
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Io(#[source] Arc<std::io::Error>),
    /// The peer left in the middle of a frame.
    #[error("the connection ended within a frame, {missing} bytes short; the peer has probably died")]
    Truncated {
        /// Bytes of the frame, or of its header, that did not come.
        missing: usize,
    },
    /// A frame is too long to be one of NRI's.
    #[error("a frame of {length} bytes for connection {conn} is longer than {MAX_FRAME_BYTES}; the peer does not speak NRI")]
    FrameTooLong {
        /// The connection it is for.
        conn: u32,
        /// The length it claims.
        length: u32,
    },
    /// Nobody reads what arrived.
    #[error("connection {conn} was not read for {} s with {MAX_UNREAD_BYTES} bytes waiting", MAX_STALL.as_secs())]
    Stalled {
        /// The connection that is full.
        conn: u32,
    },
    /// A connection number that cannot be opened.
    #[error("connection {0} cannot be opened: 0 is reserved, and each can be opened once")]
    BadConn(u32),
}

/// The trunk of some connections. Dropping it ends them.
#[derive(Debug)]
pub struct Mux {
    shared: Arc<Shared>,
}

impl Mux {
    /// Opens the given connections over `trunk` and starts to carry their bytes.
    ///
    /// They are opened before the first byte is read, so that no frame can come too early. Needs a tokio runtime.
    pub fn new<const N: usize>(
        trunk: impl AsyncRead + AsyncWrite + Send + 'static,
        ids: [ConnId; N],
    ) -> Result<(Mux, [Conn; N]), MuxError> {
        for (at, id) in ids.iter().enumerate() {
            if id.0 == 0 || ids[..at].contains(id) {
                return Err(MuxError::BadConn(id.0));
            }
        }
        let inboxes = ids.map(|id| Arc::new(Inbox::new(id)));
        let outbox = Arc::new(Outbox::default());
        let shared = Arc::new(Shared::new(inboxes.to_vec(), outbox.clone()));
        trunk::start(trunk, &shared);
        let conns = inboxes.map(|inbox| Conn::new(inbox, outbox.clone()));
        Ok((Mux { shared }, conns))
    }

    /// Waits until the trunk has ended: with `Ok` when either end closed it, else with the reason.
    pub async fn closed(&self) -> Result<(), MuxError> {
        self.shared.ended().await
    }

    /// Sends what is still to be sent, for at most [`CLOSE_GRACE`], and ends the trunk.
    pub async fn close(&self) {
        self.shared.outbox.close();
        let _ = tokio::time::timeout(CLOSE_GRACE, self.shared.ended()).await;
    }

    /// Ends the trunk at once.
    pub fn abort(&self) {
        self.shared.end(Ok(()));
    }

    /// Whether the trunk has ended.
    pub fn is_closed(&self) -> bool {
        self.shared.has_ended()
    }

    /// How many frames came for connections that are not open.
    pub fn dropped_frames(&self) -> u64 {
        self.shared.dropped_frames.load(Ordering::Relaxed)
    }
}

impl Drop for Mux {
    fn drop(&mut self) {
        self.abort();
    }
}
