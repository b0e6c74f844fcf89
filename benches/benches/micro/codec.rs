//! The codec: a client's write, and an append of 64 of them, from values to frames and back.
//!
//! Measured is what is done to one message on its way, checksums included: the client encodes its
//! command, the request around it, and the frame; a connection task takes the frame and the
//! request apart, and the state machine the command. An append goes from an outbox to a peer, its
//! commands untouched.
//!
//! # Left out
//! Sockets, and how frames gather in buffers.

use std::hint::black_box;

use bytes::BytesMut;
use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput};
use mangrove::base::limits::FRAME_BYTES_MAX;
use mangrove::base::{Column, Payload, RequestSeq, SessionId, Value};
use mangrove::codec::{self, Decode, FrameDecoder, encode_frame};
use mangrove::kv::{Batch, Command};
use mangrove::raft::{Entry, EntryKind, Message};
use mangrove::wire::{Consistency, PeerMessage, PeerMessageRef, Request, RequestBody};

use super::{BATCH, VALUE, count, key};

/// Measures it.
pub(crate) fn measure(criterion: &mut Criterion) {
    let command = write(1);
    let group = criterion.benchmark_group("codec/write");
    let decoded = measure_both(group, |frames| encode_write(&command, frames), decode_write);
    assert_eq!(decoded, command, "the command comes back");

    let message = append();
    let group = criterion.benchmark_group("codec/append_64");
    let decode = decode_frame::<PeerMessage>;
    let decoded = measure_both(group, |frames| encode_append(&message, frames), decode);
    assert_eq!(decoded, PeerMessage::Raft(message), "the append comes back");
}

/// Measures both ways of one message; returns what comes out in the end.
fn measure_both<T>(
    mut group: BenchmarkGroup<'_, WallTime>,
    encode: impl Fn(&mut Vec<u8>),
    decode: impl Fn(&mut BytesMut) -> T,
) -> T {
    let mut frame = Vec::new();
    encode(&mut frame);
    group.throughput(Throughput::Bytes(count(frame.len())));
    group.bench_function("encode", |bencher| {
        let mut buffer = Vec::with_capacity(frame.len());
        bencher.iter(|| {
            buffer.clear();
            encode(black_box(&mut buffer));
            buffer.len()
        });
    });
    let arrived = || BytesMut::from(frame.as_slice());
    group.bench_function("decode", |bencher| {
        bencher.iter_batched_ref(arrived, &decode, BatchSize::SmallInput);
    });
    group.finish();
    decode(&mut arrived())
}

/// Returns the write of one cell.
fn write(number: u64) -> Command {
    let value = Value::new(VALUE.to_vec()).expect("a short value");
    Command::Write {
        session: SessionId(7),
        seq: RequestSeq(number),
        acked_below: RequestSeq(number),
        batch: Batch::new().set(key(number), Column::default(), value),
    }
}

fn encode_command(command: &Command) -> Payload {
    Payload::new(codec::encode(command)).expect("a command fits a frame")
}

/// Encodes a write as the client does.
fn encode_write(command: &Command, frames: &mut Vec<u8>) {
    let body = RequestBody::Command(encode_command(command));
    encode_frame(frames, |buffer| Request::encode_parts(1, Consistency::default(), &body, buffer));
}

/// Decodes a write as the node does.
fn decode_write(frames: &mut BytesMut) -> Command {
    let request: Request = decode_frame(frames);
    let RequestBody::Command(command) = &request.body else {
        unreachable!("a command was encoded, not {request:?}")
    };
    codec::decode(command.as_bytes()).expect("a whole command")
}

/// Returns a leader's append.
fn append() -> Message {
    let entry = |number| {
        let kind = EntryKind::Command(encode_command(&write(number)));
        Entry { term: 3, index: 1000 + number, kind }
    };
    Message::Append {
        term: 3,
        prev_index: 1000,
        prev_term: 3,
        entries: (1..=BATCH).map(entry).collect(),
        commit: 990,
        round: 17,
    }
}

/// Encodes an append as an outbox does.
fn encode_append(message: &Message, frames: &mut Vec<u8>) {
    let message = PeerMessageRef::Raft(message);
    encode_frame(frames, |buffer| codec::encode_into(&message, buffer));
}

/// Takes the only frame apart, and decodes what is in it.
fn decode_frame<T: Decode<()>>(frames: &mut BytesMut) -> T {
    let body = FrameDecoder::new(FRAME_BYTES_MAX).decode(frames).expect("a good frame");
    codec::decode(&body.expect("a whole frame")).expect("a good message")
}
