//! Frames as bytes: taking them apart and putting messages into them.

use super::{ConnId, FIRST_FRAME_BYTES, MAX_FRAME_BYTES, MAX_MESSAGE_BYTES, MESSAGE_HEADER_BYTES, MuxError};

/// The connection's id and the payload's length.
pub(super) const FRAME_HEADER_BYTES: usize = 8;

/// Takes a stream of frames apart, however it is cut.
///
/// Nothing is kept but a header that has come in part: a payload is handed on as it arrives.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    header: [u8; FRAME_HEADER_BYTES],
    header_len: usize,
    conn: u32,
    missing: usize,
    fresh: bool,
}

/// Some bytes of a frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The connection they are for.
    pub conn: ConnId,
    /// The bytes, at least one.
    pub bytes: &'a [u8],
    /// Whether they are the first of their frame.
    pub first: bool,
}

impl FrameDecoder {
    /// Takes the next piece from the front of `input`; `None` when it is used up.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Piece<'a>>, MuxError> {
        while !input.is_empty() {
            if self.missing > 0 {
                let bytes = take(input, self.missing);
                self.missing -= bytes.len();
                let first = std::mem::replace(&mut self.fresh, false);
                return Ok(Some(Piece { conn: ConnId(self.conn), bytes, first }));
            }
            let part = take(input, FRAME_HEADER_BYTES - self.header_len);
            self.header[self.header_len..self.header_len + part.len()].copy_from_slice(part);
            self.header_len += part.len();
            if self.header_len == FRAME_HEADER_BYTES {
                self.begin_frame()?;
            }
        }
        Ok(None)
    }

    fn begin_frame(&mut self) -> Result<(), MuxError> {
        let [a, b, c, d, e, f, g, h] = self.header;
        let (conn, length) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
        match usize::try_from(length) {
            Ok(missing) if missing <= MAX_FRAME_BYTES => self.missing = missing,
            _ => return Err(MuxError::FrameTooLong { conn, length }),
        }
        self.conn = conn;
        self.header_len = 0;
        self.fresh = true;
        Ok(())
    }

    /// Says whether the stream may end here.
    pub fn finish(&self) -> Result<(), MuxError> {
        match (self.missing, self.header_len) {
            (0, 0) => Ok(()),
            (0, header) => Err(MuxError::Truncated { missing: FRAME_HEADER_BYTES - header }),
            (missing, _) => Err(MuxError::Truncated { missing }),
        }
    }
}

fn take<'a>(input: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(most.min(input.len()));
    *input = rest;
    taken
}

/// Collects the bytes of one ttrpc message.
#[derive(Debug, Default)]
pub(super) struct Message {
    bytes: Vec<u8>,
}

/// A message whose header claims more than ttrpc allows.
#[derive(Debug)]
pub(super) struct TooLong;

impl Message {
    /// Takes bytes from the front of `input` up to the end of the message; true when it is complete.
    pub(super) fn collect(&mut self, input: &mut &[u8]) -> Result<bool, TooLong> {
        if self.bytes.len() < MESSAGE_HEADER_BYTES {
            self.bytes.extend_from_slice(take(input, MESSAGE_HEADER_BYTES - self.bytes.len()));
        }
        let Some(total) = self.total()? else { return Ok(false) };
        let rest = take(input, total - self.bytes.len());
        self.bytes.extend_from_slice(rest);
        Ok(self.bytes.len() == total)
    }

    /// The message's length, once its header is there.
    fn total(&self) -> Result<Option<usize>, TooLong> {
        let Some(&[a, b, c, d]) = self.bytes.first_chunk::<4>() else { return Ok(None) };
        if self.bytes.len() < MESSAGE_HEADER_BYTES {
            return Ok(None);
        }
        match usize::try_from(u32::from_be_bytes([a, b, c, d])) {
            Ok(payload) if payload <= MAX_MESSAGE_BYTES - MESSAGE_HEADER_BYTES => Ok(Some(MESSAGE_HEADER_BYTES + payload)),
            _ => Err(TooLong),
        }
    }

    /// The complete message as its one or two frames, back to back; the next message can then be collected.
    pub(super) fn take_frames(&mut self, id: ConnId) -> Vec<u8> {
        let message = std::mem::take(&mut self.bytes);
        let (first, rest) = message.split_at(message.len().min(FIRST_FRAME_BYTES));
        let mut frames = Vec::with_capacity(message.len() + 2 * FRAME_HEADER_BYTES);
        for part in [first, rest] {
            // Bounded by MAX_MESSAGE_BYTES, so never the fallback.
            let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
            if length > 0 {
                frames.extend_from_slice(&id.0.to_be_bytes());
                frames.extend_from_slice(&length.to_be_bytes());
                frames.extend_from_slice(part);
            }
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(payload: usize) -> Vec<u8> {
        let mut bytes = u32::try_from(payload).unwrap().to_be_bytes().to_vec();
        bytes.extend_from_slice(&[0, 0, 0, 1, 2, 0]);
        bytes.extend((0..payload).map(|at| u8::try_from(at % 251).unwrap()));
        bytes
    }

    fn frames(bytes: &[u8]) -> Vec<(ConnId, Vec<u8>)> {
        let mut decoder = FrameDecoder::default();
        let mut input = bytes;
        let mut frames: Vec<(ConnId, Vec<u8>)> = Vec::new();
        while let Some(piece) = decoder.next(&mut input).unwrap() {
            if piece.first {
                frames.push((piece.conn, Vec::new()));
            }
            frames.last_mut().unwrap().1.extend_from_slice(piece.bytes);
        }
        decoder.finish().unwrap();
        frames
    }

    /// The rule of the runtime's reader, see the module's text.
    #[test]
    fn a_first_frame_is_short_and_a_second_is_the_rest() {
        for payload in [0, 1, 4085, 4086, 4087, 5000, 70_000, 4 << 20] {
            let sent = message(payload);
            let mut collected = Message::default();
            let mut input = &sent[..];
            assert!(collected.collect(&mut input).unwrap());
            let got = frames(&collected.take_frames(ConnId::PLUGIN));
            assert!(got[0].1.len() <= FIRST_FRAME_BYTES && got.len() <= 2);
            assert_eq!(got.concat_payloads(), sent);
        }
    }

    trait Concat {
        fn concat_payloads(&self) -> Vec<u8>;
    }

    impl Concat for Vec<(ConnId, Vec<u8>)> {
        fn concat_payloads(&self) -> Vec<u8> {
            self.iter().flat_map(|(_, payload)| payload.clone()).collect()
        }
    }

    #[test]
    fn a_message_that_claims_too_much_is_refused() {
        let mut header = u32::try_from(MAX_MESSAGE_BYTES).unwrap().to_be_bytes().to_vec();
        header.extend_from_slice(&[0; 6]);
        assert!(Message::default().collect(&mut &header[..]).is_err());
    }

    #[test]
    fn a_stream_that_ends_within_a_frame_is_an_error() {
        let mut decoder = FrameDecoder::default();
        decoder.next(&mut &[0, 0, 0, 1, 0, 0, 0, 9, 1, 2][..]).unwrap();
        assert!(matches!(decoder.finish(), Err(MuxError::Truncated { missing: 7 })));
        let mut decoder = FrameDecoder::default();
        decoder.next(&mut &[0, 0, 0][..]).unwrap();
        assert!(matches!(decoder.finish(), Err(MuxError::Truncated { missing: 5 })));
    }

    proptest! {
        /// Messages arrive as the same bytes, however they were cut before and after.
        #[test]
        fn cuts_do_not_matter(
            payloads in prop::collection::vec(0usize..9000, 1..12),
            cuts in prop::collection::vec(1usize..6000, 1..40),
        ) {
            let sent: Vec<u8> = payloads.iter().flat_map(|payload| message(*payload)).collect();
            let mut wire = Vec::new();
            let mut collected = Message::default();
            for part in cut(&sent, &cuts) {
                let mut input = part;
                while !input.is_empty() {
                    if collected.collect(&mut input).unwrap() {
                        wire.extend(collected.take_frames(ConnId::RUNTIME));
                    }
                }
            }
            let mut decoder = FrameDecoder::default();
            let mut got = Vec::new();
            for part in cut(&wire, &cuts) {
                let mut input = part;
                while let Some(piece) = decoder.next(&mut input).unwrap() {
                    got.extend_from_slice(piece.bytes);
                }
            }
            prop_assert!(decoder.finish().is_ok());
            prop_assert_eq!(got, sent);
        }

        /// Whatever comes, the decoder gives back no more than it was given, and does not panic.
        #[test]
        fn any_bytes_are_frames_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut decoder = FrameDecoder::default();
            let (mut input, mut given) = (&bytes[..], 0);
            while let Ok(Some(piece)) = decoder.next(&mut input) {
                given += piece.bytes.len();
            }
            prop_assert!(given <= bytes.len());
            let _ = decoder.finish();
        }
    }

    fn cut<'a>(mut bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
        let mut parts = Vec::new();
        for size in cuts.iter().cycle() {
            if bytes.is_empty() {
                return parts;
            }
            parts.push(take(&mut bytes, *size));
        }
        parts
    }
}
