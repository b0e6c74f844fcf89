//! Every decoder that a stranger's bytes can reach, as one `fn(&[u8])` each.
//!
//! A target must not panic, whatever it is fed. What decodes must also encode again, and decode to
//! the same value: a format that forgets something is a bug, too. The functions run on the stable
//! toolchain; `tests/corpus.rs` feeds them the inputs kept in `corpus/` and a few thousand made-up
//! ones, and a coverage-guided fuzzer can call the same functions.

use std::fmt::Debug;

use bytes::BytesMut;
use mangrove::base::limits::FRAME_BYTES_MAX;
use mangrove::codec::{self, Decode, Encode, FrameDecoder, keycode};

/// A target: its name, which is also its folder in `corpus/`, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("frame", frame),
    ("request", stable::<mangrove::wire::Request>),
    ("response", stable::<mangrove::wire::Response>),
    ("message", stable::<mangrove::wire::PeerMessage>),
    ("records", stable::<Vec<mangrove::dynamo::Record>>),
    ("hello", stable::<mangrove::wire::Hello>),
    ("command", stable::<mangrove::kv::Command>),
    ("place", place),
];

/// Decodes, encodes and decodes again.
fn stable<T: Decode<()> + Encode + Debug + PartialEq>(bytes: &[u8]) {
    if let Ok(value) = codec::decode::<T>(bytes) {
        let again = codec::decode::<T>(&codec::encode(&value));
        assert_eq!(again.as_ref(), Ok(&value), "what decodes must survive encoding");
    }
}

/// Feeds the frame decoder in pieces whose lengths the input itself chooses.
fn frame(bytes: &[u8]) {
    let decoder = FrameDecoder::new(FRAME_BYTES_MAX);
    let Some((&step, mut rest)) = bytes.split_first() else { return };
    let mut buffer = BytesMut::new();
    let mut frame_bytes = 0;
    while !rest.is_empty() {
        let (piece, tail) = rest.split_at(rest.len().min(usize::from(step).max(1)));
        buffer.extend_from_slice(piece);
        rest = tail;
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(body)) => frame_bytes += body.len(),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    assert!(frame_bytes <= bytes.len(), "{frame_bytes} bytes of {}", bytes.len());
}

/// Takes a cell's place apart and puts it together again.
fn place(bytes: &[u8]) {
    if let Ok((key, column)) = keycode::decode_cell(bytes) {
        assert_eq!(keycode::encode_cell(&key, column), bytes, "a place has one encoding");
    }
}
