//! The multiplexer as two streams of bytes over one socket.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use nri::mux::{
    Conn, ConnId, FIRST_FRAME_BYTES, FrameDecoder, MAX_FRAME_BYTES, MAX_MESSAGE_BYTES, MAX_UNREAD_BYTES, Mux, MuxError,
};
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);
const IDS: [ConnId; 2] = [ConnId::PLUGIN, ConnId::RUNTIME];

/// A ttrpc message with a payload of this length, and bytes that tell messages apart.
fn message(payload: usize, seed: u8) -> Vec<u8> {
    let mut bytes = u32::try_from(payload).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(&[0, 0, 0, 1, 2, 0]);
    bytes.extend((0..payload).map(|at| (at % 251) as u8 ^ seed));
    bytes
}

/// Reads and writes at most so many bytes at a time.
struct Choppy {
    inner: DuplexStream,
    most: usize,
}

impl AsyncRead for Choppy {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let most = self.most.min(buffer.remaining());
        let mut space = vec![0; most];
        let mut part = ReadBuf::new(&mut space);
        std::task::ready!(Pin::new(&mut self.inner).poll_read(cx, &mut part))?;
        buffer.put_slice(part.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Choppy {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let most = self.most.min(bytes.len());
        Pin::new(&mut self.inner).poll_write(cx, &bytes[..most])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

type End = (Mux, [Conn; 2]);

/// Two ends, with pipes of `pipe` bytes between them and single reads and writes of `most`.
fn pair(pipe: usize, most: usize) -> (End, End) {
    let (a, b) = duplex(pipe);
    let end = |inner| Mux::new(Choppy { inner, most }, IDS).unwrap();
    (end(a), end(b))
}

/// Writes a stream in pieces of these sizes, again and again.
async fn write_cut(conn: &mut Conn, mut bytes: &[u8], sizes: &[usize]) {
    for size in sizes.iter().cycle() {
        if bytes.is_empty() {
            break;
        }
        let (now, later) = bytes.split_at((*size).min(bytes.len()));
        conn.write_all(now).await.unwrap();
        bytes = later;
    }
    conn.flush().await.unwrap();
}

async fn read_all(conn: &mut Conn, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    timeout(PATIENCE, conn.read_exact(&mut bytes)).await.expect("bytes in time").unwrap();
    bytes
}

/// Sends a stream on each of the four ways at once, and compares.
async fn exchange(streams: [Vec<u8>; 4], sizes: &[usize], pipe: usize, most: usize) {
    let ((_mux_a, [a1, a2]), (_mux_b, [b1, b2])) = pair(pipe, most);
    let [ab1, ab2, ba1, ba2] = streams;
    let both = |conn: Conn, out: Vec<u8>, expected: Vec<u8>, sizes: Vec<usize>| async move {
        let (mut from, mut to) = tokio::io::split(conn);
        let count = expected.len();
        let writing = tokio::spawn(async move {
            let mut rest = &out[..];
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at((*size).min(rest.len()));
                to.write_all(now).await.unwrap();
                rest = later;
            }
            to.flush().await.unwrap();
        });
        let mut got = vec![0; count];
        timeout(PATIENCE, from.read_exact(&mut got)).await.expect("bytes in time").unwrap();
        timeout(PATIENCE, writing).await.unwrap().unwrap();
        assert!(got == expected, "{count} bytes differ");
    };
    let sizes = sizes.to_vec();
    tokio::join!(
        both(a1, ab1.clone(), ba1.clone(), sizes.clone()),
        both(a2, ab2.clone(), ba2.clone(), sizes.clone()),
        both(b1, ba1, ab1, sizes.clone()),
        both(b2, ba2, ab2, sizes),
    );
}

#[tokio::test]
async fn every_length_in_both_directions() {
    for payload in [0, 1, 4085, 4086, 4087, 4096, 8192, 65_535, 70_000, 1 << 20, 4 << 20] {
        let streams = [1, 2, 3, 4].map(|seed| message(payload, seed));
        exchange(streams, &[4096, usize::MAX], 64 << 10, 64 << 10).await;
    }
}

/// More frames than a Go peer would queue, coalesced by the socket as it likes.
#[tokio::test]
async fn many_small_messages() {
    let stream = |seed| (0..2000).flat_map(|_| message(3, seed)).collect::<Vec<u8>>();
    exchange([1, 2, 3, 4].map(stream), &[7, 13, 4096], 1000, 999).await;
}

#[tokio::test]
async fn one_byte_at_a_time() {
    let stream = |seed| [message(5000, seed), message(0, seed), message(1, seed)].concat();
    exchange([1, 2, 3, 4].map(stream), &[1], 1, 1).await;
}

fn properties() -> ProptestConfig {
    ProptestConfig { cases: 48, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(properties())]

    /// Both connections are streams of bytes, whatever is cut how.
    #[test]
    fn connections_are_streams_of_bytes(
        payloads in prop::array::uniform4(prop::collection::vec(0usize..20_000, 0..8)),
        sizes in prop::collection::vec(1usize..9000, 1..10),
        pipe in 1usize..70_000,
        most in 1usize..70_000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut seed = 0;
        let streams = payloads.map(|payloads| {
            seed += 1;
            payloads.into_iter().flat_map(|payload| message(payload, seed)).collect::<Vec<u8>>()
        });
        // Single bytes through a long stream take minutes and show nothing new.
        runtime.block_on(exchange(streams, &sizes, pipe.max(16), most.max(16)));
    }

    /// What goes over the wire obeys the rule of the runtimes' reader: a frame within one message, the first of a message
    /// up to 4096 bytes, the second the rest; whatever the sizes of the writes.
    #[test]
    fn frames_are_what_runtimes_can_read(
        payloads in prop::collection::vec(0usize..30_000, 1..10),
        sizes in prop::collection::vec(1usize..9000, 1..10),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let messages: Vec<Vec<u8>> = payloads.iter().map(|payload| message(*payload, 9)).collect();
        let wire = runtime.block_on(async {
            let (trunk, mut raw) = duplex(1 << 20);
            let (mux, [mut conn, _other]) = Mux::new(trunk, IDS).unwrap();
            write_cut(&mut conn, &messages.concat(), &sizes).await;
            mux.close().await;
            let mut wire = Vec::new();
            raw.read_to_end(&mut wire).await.unwrap();
            wire
        });
        let mut frames = Vec::new();
        let (mut decoder, mut input) = (FrameDecoder::default(), &wire[..]);
        while let Some(piece) = decoder.next(&mut input).unwrap() {
            prop_assert!(piece.first && piece.conn == ConnId::PLUGIN);
            frames.push(piece.bytes.to_vec());
        }
        let mut frames = frames.into_iter();
        for message in messages {
            let mut got = frames.next().unwrap();
            prop_assert!(got.len() <= FIRST_FRAME_BYTES);
            if got.len() < message.len() {
                got.extend(frames.next().unwrap());
            }
            prop_assert!(got == message);
        }
        prop_assert_eq!(frames.next(), None);
    }
}

#[tokio::test]
async fn frames_for_nobody_are_counted() {
    let (trunk, mut raw) = duplex(1 << 10);
    let (mux, [mut one, two]) = Mux::new(trunk, IDS).unwrap();
    drop(two);
    // 7 does not exist, 2 was closed; an empty frame is nothing at all.
    raw.write_all(&[0, 0, 0, 7, 0, 0, 0, 3, 1, 2, 3]).await.unwrap();
    raw.write_all(&[0, 0, 0, 2, 0, 0, 0, 1, 1]).await.unwrap();
    raw.write_all(&[0, 0, 0, 1, 0, 0, 0, 0]).await.unwrap();
    raw.write_all(&[0, 0, 0, 1, 0, 0, 0, 1, 42]).await.unwrap();
    assert_eq!(read_all(&mut one, 1).await, [42]);
    assert_eq!(mux.dropped_frames(), 2);
    drop(raw);
    assert_eq!(one.read(&mut [0]).await.unwrap(), 0);
    assert!(mux.closed().await.is_ok());
}

#[tokio::test]
async fn a_frame_beyond_the_limit_ends_all_connections() {
    let (trunk, mut raw) = duplex(1 << 10);
    let (mux, [mut one, mut two]) = Mux::new(trunk, IDS).unwrap();
    raw.write_all(&[0, 0, 0, 2, 0, 0, 0, 1, 7]).await.unwrap();
    let too_long = u32::try_from(MAX_FRAME_BYTES + 1).unwrap();
    raw.write_all(&[&[0, 0, 0, 1][..], &too_long.to_be_bytes()].concat()).await.unwrap();
    assert!(matches!(mux.closed().await, Err(MuxError::FrameTooLong { conn: 1, length }) if length == too_long));
    // What had arrived can be read, and then the reason.
    assert_eq!(read_all(&mut two, 1).await, [7]);
    assert!(two.read(&mut [0]).await.unwrap_err().to_string().contains("does not speak NRI"));
    assert!(one.read(&mut [0]).await.is_err());
    assert!(one.write_all(&message(1, 1)).await.is_err());
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_not_written() {
    let (_peer, (_mux, [mut one, _])) = pair(1 << 10, 1 << 10);
    let header = u32::try_from(MAX_MESSAGE_BYTES).unwrap().to_be_bytes();
    let error = one.write_all(&[&header[..], &[0; 6]].concat()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

/// A connection that nobody reads holds up the other only so long, and never more than the limit is kept.
#[tokio::test(start_paused = true)]
async fn a_connection_that_is_not_read() {
    let (trunk, mut raw) = duplex(1 << 20);
    let (mux, [_unread, mut other]) = Mux::new(trunk, IDS).unwrap();
    raw.write_all(&[0, 0, 0, 2, 0, 0, 0, 1, 5]).await.unwrap();
    assert_eq!(read_all(&mut other, 1).await, [5]);
    let mut sent = 0;
    let flooded = async {
        let frame = [&[0, 0, 0, 1, 0, 1, 0, 0][..], &[0; 1 << 16]].concat();
        while raw.write_all(&frame).await.is_ok() {
            sent += 1 << 16;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = flooded => unreachable!(),
        end = mux.closed() => assert!(matches!(end, Err(MuxError::Stalled { conn: 1 })), "{end:?}"),
    }
    // In the pipe and in one read there may be more.
    assert!(sent <= MAX_UNREAD_BYTES + (2 << 20), "{sent}");
}

/// Reading late is no stall: backpressure reaches the writer and lets go of it again.
#[tokio::test]
async fn a_connection_that_is_read_late() {
    let ((_mux_a, [mut a1, mut a2]), (_mux_b, [mut b1, mut b2])) = pair(64 << 10, 64 << 10);
    let stream: Vec<u8> = (0..8).flat_map(|seed| message(4 << 20, seed)).collect();
    let expected = stream.clone();
    let writing = tokio::spawn(async move {
        a1.write_all(&stream).await.unwrap();
        a1.flush().await.unwrap();
        a1
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!writing.is_finished());
    // The way back is free all the time.
    b2.write_all(&message(10, 1)).await.unwrap();
    assert_eq!(read_all(&mut a2, 20).await, message(10, 1));
    assert!(read_all(&mut b1, expected.len()).await == expected);
    writing.await.unwrap();
}

#[tokio::test]
async fn connections_that_cannot_be_opened() {
    let (trunk, _raw) = duplex(16);
    assert!(matches!(Mux::new(trunk, [ConnId(0)]), Err(MuxError::BadConn(0))));
    let (trunk, _raw) = duplex(16);
    assert!(matches!(Mux::new(trunk, [ConnId(3), ConnId(3)]), Err(MuxError::BadConn(3))));
}
