//! Any bytes as frames, in pieces of any size: no panic, nothing invented, and the same whatever the pieces are.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nri::mux::FrameDecoder;

fn decode(bytes: &[u8], piece: usize) -> (Vec<(u32, u8)>, bool) {
    let mut decoder = FrameDecoder::default();
    let mut got = Vec::new();
    for mut input in bytes.chunks(piece) {
        loop {
            match decoder.next(&mut input) {
                Ok(Some(piece)) => got.extend(piece.bytes.iter().map(|byte| (piece.conn.0, *byte))),
                Ok(None) => break,
                Err(_) => return (got, false),
            }
        }
    }
    (got, decoder.finish().is_ok())
}

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    let whole = decode(bytes, bytes.len().max(1));
    assert!(whole.0.len() <= bytes.len());
    assert_eq!(whole, decode(bytes, usize::from(piece).max(1)));
});
