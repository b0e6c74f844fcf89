//! One connection to etcd: as much of gRPC over HTTP/2 as its key-value service needs.
//!
//! The fairest way to ask etcd is the one that its own clients use, many requests at a time on one
//! connection. Requests are all alike, so their headers are written without compression, and
//! nothing in the headers of an answer matters: a message, and then the end of the stream, is an
//! answer; an end without a message is a failure.
//!
//! # Left out
//! Requests of several frames, and windows of streams that are raised: values are at most
//! [`VALUE_BYTES_MAX`] long, so no request and no answer needs them.
//!
//! # Layout
//! ```text
//! frame    length u24 BE │ type u8 │ flags u8 │ stream u32 BE │ payload      (RFC 9113 §4.1)
//! message  compressed u8 = 0 │ length u32 BE │ protocol buffers              (in DATA frames)
//! ```

use std::collections::BTreeMap;
use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::connection::{Connection, Protocol};
use super::{VALUE_BYTES_MAX, other};
use crate::env::real::RealEnv;
use crate::trial::load::{Failure, Target};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// What we may send before the other side says more.
const WINDOW_BYTES: i64 = 65_535;

/// Longest request; there is room for one more while as much of the window is left. Each is one
/// frame, and all of it is sent at once: a server takes frames of 16 KiB without being asked, and
/// the window of a stream is as long as that of the connection at first.
const REQUEST_BYTES: i64 = 16 << 10;

const _: () = {
    assert!(REQUEST_BYTES <= WINDOW_BYTES, "a request fits the windows");
    assert!(VALUE_BYTES_MAX < 16 << 10, "a value fits a frame, with its key");
};

/// What we allow the other side to send in addition, at first and whenever half of it has come.
const OUR_WINDOW_BYTES: u32 = 1 << 30;

/// Bytes before a message.
const MESSAGE_HEADER_BYTES: usize = 5;

/// Wire types of protocol buffers.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH_DELIMITED: u64 = 2;
const FIXED_32: u64 = 5;

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";
const STATUS: &str = "/etcdserverpb.Maintenance/Status";

/// A connection to an etcd server; what it understands is in the essay of this file.
#[derive(Debug)]
pub struct GrpcConnection {
    connection: Connection<Grpc>,
}

impl GrpcConnection {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn connect(env: &RealEnv, address: &str) -> io::Result<Self> {
        let protocol = Grpc { authority: address.to_owned(), ..Grpc::default() };
        Ok(Self { connection: Connection::connect(env, address, protocol).await? })
    }

    /// Tells whether this member leads; `None` if it does not say.
    pub async fn leads(&self) -> Option<bool> {
        let status = self.call(STATUS, Bytes::new()).await.ok()?;
        // StatusResponse: header = 1 { member_id = 2 }, leader = 4.
        let member = number(&message(&status, 1)?, 2)?;
        Some(number(&status, 4)? == member)
    }

    async fn call(&self, method: &'static str, message: Bytes) -> Result<Bytes, Failure> {
        let bytes = i64::try_from(MESSAGE_HEADER_BYTES + message.len()).unwrap_or(i64::MAX);
        if bytes > REQUEST_BYTES {
            return Err(Failure("too large"));
        }
        self.connection.ask((method, message)).await?.ok_or(Failure("refused"))
    }
}

impl Target for GrpcConnection {
    async fn set(&self, key: Bytes, value: Bytes) -> Result<(), Failure> {
        let mut put = BytesMut::new();
        put_field(&mut put, 1, &key);
        put_field(&mut put, 2, &value);
        self.call(PUT, put.freeze()).await.map(|_header| ())
    }

    async fn get(&self, key: Bytes) -> Result<Option<Bytes>, Failure> {
        let mut range = BytesMut::new();
        put_field(&mut range, 1, &key);
        let found = self.call(RANGE, range.freeze()).await?;
        // RangeResponse: kvs = 2 { key = 1, value = 5 }.
        Ok(message(&found, 2).map(|cell| message(&cell, 5).unwrap_or_default()))
    }
}

/// The state of a connection.
#[derive(Debug)]
struct Grpc {
    authority: String,
    window: i64,
    received_bytes: u32,
    messages: BTreeMap<u32, BytesMut>,
}

impl Default for Grpc {
    fn default() -> Self {
        Self {
            authority: String::new(),
            window: WINDOW_BYTES,
            received_bytes: 0,
            messages: BTreeMap::new(),
        }
    }
}

/// Streams that a client opens have odd numbers.
fn stream_of(number: u64) -> u32 {
    u32::try_from(number.saturating_mul(2) - 1).unwrap_or(u32::MAX)
}

fn number_of(stream: u32) -> u64 {
    u64::from(stream).div_ceil(2)
}

impl Protocol for Grpc {
    type Ask = (&'static str, Bytes);
    type Answer = Option<Bytes>;

    fn begin(&mut self, output: &mut BytesMut) {
        output.put_slice(PREFACE);
        put_frame(output, SETTINGS, 0, 0, &[]);
        put_frame(output, WINDOW_UPDATE, 0, 0, &OUR_WINDOW_BYTES.to_be_bytes());
    }

    fn ask(&mut self, number: u64, (method, message): Self::Ask, output: &mut BytesMut) {
        let stream = stream_of(number);
        let headers = headers(method, &self.authority);
        put_frame(output, HEADERS, END_HEADERS, stream, &headers);
        let mut data = BytesMut::with_capacity(MESSAGE_HEADER_BYTES + message.len());
        data.put_u8(0);
        data.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
        data.put_slice(&message);
        self.window -= i64::try_from(data.len()).unwrap_or(i64::MAX);
        put_frame(output, DATA, END_STREAM, stream, &data);
    }

    fn has_room(&self) -> bool {
        self.window >= REQUEST_BYTES
    }

    fn receive(
        &mut self,
        input: &mut BytesMut,
        output: &mut BytesMut,
    ) -> io::Result<Vec<(u64, Option<Bytes>)>> {
        let mut answers = Vec::new();
        while let Some((kind, flags, stream, payload)) = take_frame(input) {
            match kind {
                DATA => self.on_data(stream, &payload, output),
                SETTINGS if flags & ACK == 0 => put_frame(output, SETTINGS, ACK, 0, &[]),
                PING if flags & ACK == 0 => put_frame(output, PING, ACK, 0, &payload),
                WINDOW_UPDATE if stream == 0 => {
                    let more = payload.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
                    self.window += i64::from(more);
                }
                GO_AWAY => return Err(other("the other side closes the connection")),
                RST_STREAM => {
                    self.messages.remove(&stream);
                    answers.push((number_of(stream), None));
                }
                // Headers, and what we need not know.
                _ => {}
            }
            if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                let message = self.messages.remove(&stream).map(BytesMut::freeze);
                let message = message.filter(|message| message.len() >= MESSAGE_HEADER_BYTES);
                let body = message.map(|message| message.slice(MESSAGE_HEADER_BYTES..));
                answers.push((number_of(stream), body));
            }
        }
        Ok(answers)
    }
}

impl Grpc {
    fn on_data(&mut self, stream: u32, payload: &[u8], output: &mut BytesMut) {
        self.messages.entry(stream).or_default().put_slice(payload);
        self.received_bytes += u32::try_from(payload.len()).unwrap_or(0);
        if self.received_bytes > OUR_WINDOW_BYTES / 2 {
            let window = std::mem::take(&mut self.received_bytes);
            put_frame(output, WINDOW_UPDATE, 0, 0, &window.to_be_bytes());
        }
    }
}

fn put_frame(output: &mut BytesMut, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    output.put_uint(u64::try_from(payload.len()).unwrap_or(0), 3);
    output.put_u8(kind);
    output.put_u8(flags);
    output.put_u32(stream);
    output.put_slice(payload);
}

/// Takes a whole frame off the front: type, flags, stream and payload.
fn take_frame(input: &mut BytesMut) -> Option<(u8, u8, u32, Bytes)> {
    let mut header: &[u8] = input.get(..FRAME_HEADER_BYTES)?;
    let len = usize::try_from(header.get_uint(3)).ok()?;
    let (kind, flags, stream) = (header.get_u8(), header.get_u8(), header.get_u32());
    if input.len() < FRAME_HEADER_BYTES + len {
        return None;
    }
    input.advance(FRAME_HEADER_BYTES);
    Some((kind, flags, stream, input.split_to(len).freeze()))
}

/// Returns the headers of a request, in HPACK without compression (RFC 7541).
fn headers(method: &str, authority: &str) -> BytesMut {
    let mut headers = BytesMut::new();
    // Names from the static table: 3 is ":method: POST", 6 ":scheme: http".
    headers.put_slice(&[0x80 | 3, 0x80 | 6]);
    // 4 is ":path", 1 ":authority", with values that follow.
    headers.put_u8(4);
    put_text(&mut headers, method);
    headers.put_u8(1);
    put_text(&mut headers, authority);
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
        headers.put_u8(0);
        put_text(&mut headers, name);
        put_text(&mut headers, value);
    }
    headers
}

/// Appends a text of less than 127 bytes, as it is.
fn put_text(headers: &mut BytesMut, text: &str) {
    headers.put_u8(u8::try_from(text.len()).unwrap_or(0) & 0x7f);
    headers.put_slice(text.as_bytes());
}

/// Appends a field of bytes to a protocol buffer.
fn put_field(buffer: &mut BytesMut, field: u8, bytes: &[u8]) {
    const DELIMITED: u8 = 2;
    buffer.put_u8(field << 3 | DELIMITED);
    let mut len = bytes.len();
    while len >= 0x80 {
        buffer.put_u8(u8::try_from(len & 0x7f).unwrap_or(0) | 0x80);
        len >>= 7;
    }
    buffer.put_u8(u8::try_from(len).unwrap_or(0));
    buffer.put_slice(bytes);
}

/// A field of a protocol buffer.
#[derive(Debug, PartialEq, Eq)]
enum Field {
    Number(u64),
    Bytes(Bytes),
}

/// Returns the first field of that number; `None` if there is none, or the buffer makes no sense.
fn field(buffer: &Bytes, wanted: u64) -> Option<Field> {
    let mut rest = buffer.clone();
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let (number, wire_type) = (tag >> 3, tag & 7);
        let value = match wire_type {
            VARINT => Field::Number(varint(&mut rest)?),
            FIXED_64 => Field::Bytes(take(&mut rest, 8)?),
            LENGTH_DELIMITED => {
                let len = usize::try_from(varint(&mut rest)?).ok()?;
                Field::Bytes(take(&mut rest, len)?)
            }
            FIXED_32 => Field::Bytes(take(&mut rest, 4)?),
            _ => return None,
        };
        if number == wanted {
            return Some(value);
        }
    }
    None
}

fn number(buffer: &Bytes, wanted: u64) -> Option<u64> {
    match field(buffer, wanted)? {
        Field::Number(number) => Some(number),
        Field::Bytes(_) => None,
    }
}

fn message(buffer: &Bytes, wanted: u64) -> Option<Bytes> {
    match field(buffer, wanted)? {
        Field::Bytes(bytes) => Some(bytes),
        Field::Number(_) => None,
    }
}

fn take(rest: &mut Bytes, len: usize) -> Option<Bytes> {
    (rest.len() >= len).then(|| rest.split_to(len))
}

fn varint(rest: &mut Bytes) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?.first().copied()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_others_of_every_type() {
        let mut buffer = BytesMut::new();
        buffer.put_slice(&[1 << 3, 0xac, 0x02]);
        buffer.put_slice(&[2 << 3 | 1, 1, 2, 3, 4, 5, 6, 7, 8]);
        buffer.put_slice(&[3 << 3 | 5, 1, 2, 3, 4]);
        put_field(&mut buffer, 4, &[7; 200]);
        let buffer = buffer.freeze();
        assert_eq!(number(&buffer, 1), Some(300));
        assert_eq!(message(&buffer, 4), Some(Bytes::from(vec![7; 200])));
        assert_eq!(field(&buffer, 5), None);
        assert_eq!(message(&buffer.slice(..buffer.len() - 1), 4), None, "it is cut");
    }

    #[test]
    fn answer_is_the_message_before_the_end_of_its_stream() {
        let (mut grpc, mut input, mut output) = (Grpc::default(), BytesMut::new(), BytesMut::new());
        put_frame(&mut input, HEADERS, END_HEADERS, 3, b"whatever");
        put_frame(&mut input, DATA, 0, 3, &[0, 0, 0, 0, 4, 1]);
        put_frame(&mut input, DATA, 0, 3, &[2, 3, 4]);
        assert_eq!(grpc.receive(&mut input, &mut output).unwrap(), []);
        put_frame(&mut input, HEADERS, END_HEADERS | END_STREAM, 3, b"whatever");
        put_frame(&mut input, HEADERS, END_HEADERS | END_STREAM, 5, b"only an error");
        put_frame(&mut input, PING, 0, 0, b"12345678");
        let rest = input.split_off(input.len() - 2);
        let message = Some(Bytes::from_static(&[1, 2, 3, 4]));
        assert_eq!(grpc.receive(&mut input, &mut output).unwrap(), [(2, message), (3, None)]);
        assert!(output.is_empty());
        input.unsplit(rest);
        grpc.receive(&mut input, &mut output).unwrap();
        assert_eq!(&output[FRAME_HEADER_BYTES..], b"12345678", "a ping is answered");
    }

    #[test]
    fn window_is_used_up_by_requests_and_given_back() {
        let (mut grpc, mut output) = (Grpc::default(), BytesMut::new());
        let mut number = 0;
        while grpc.has_room() {
            number += 1;
            grpc.ask(number, (PUT, Bytes::from(vec![0; 1_000])), &mut output);
        }
        // Each may be as long as any: what is left is room for a longest one.
        assert!((40..60).contains(&number), "{number}");
        assert!(grpc.window >= 0, "{}", grpc.window);
        let mut input = BytesMut::new();
        put_frame(&mut input, WINDOW_UPDATE, 0, 0, &60_000_u32.to_be_bytes());
        grpc.receive(&mut input, &mut output).unwrap();
        assert!(grpc.has_room());
    }
}
