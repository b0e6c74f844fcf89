//! One connection to Redis: requests in a row, answers in the same order.

use std::collections::VecDeque;
use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::connection::{Connection, Protocol};
use super::other;
use crate::env::real::RealEnv;
use crate::trial::load::{Failure, Target};

/// Longest line and longest value that are believed.
const BYTES_MAX: usize = 16 << 20;

/// How long `WAIT` waits for a replica, in milliseconds.
const WAIT_MS: &[u8] = b"1000";

/// A connection to a Redis server; what it understands is in the essay of this file.
#[derive(Debug)]
pub struct RespConnection {
    connection: Connection<Resp>,
    /// Whether a write counts only when a replica has it, too.
    waits: bool,
}

impl RespConnection {
    /// Connects; with `waits`, each write is followed by `WAIT 1`.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn connect(env: &RealEnv, address: &str, waits: bool) -> io::Result<Self> {
        let connection = Connection::connect(env, address, Resp::default()).await?;
        Ok(Self { connection, waits })
    }

    /// Sends a command and returns the answer.
    ///
    /// # Errors
    /// There is none.
    pub async fn command(&self, parts: &[&[u8]]) -> Result<Reply, Failure> {
        self.connection.ask(encode(parts)).await
    }
}

impl Target for RespConnection {
    async fn set(&self, key: Bytes, value: Bytes) -> Result<(), Failure> {
        let set = self.connection.ask(encode(&[b"SET", &key, &value]));
        if !self.waits {
            return done(&set.await?);
        }
        // WAIT covers what this connection has written before it.
        let wait = self.connection.ask(encode(&[b"WAIT", b"1", WAIT_MS]));
        let (set, waited) = futures_util::future::join(set, wait).await;
        done(&set?)?;
        match waited? {
            Reply::Number(1..) => Ok(()),
            Reply::Number(_) => Err(Failure("no replica has it")),
            Reply::Text(_) | Reply::Value(_) | Reply::Error(_) => Err(Failure("refused")),
        }
    }

    async fn get(&self, key: Bytes) -> Result<Option<Bytes>, Failure> {
        match self.command(&[b"GET", &key]).await? {
            Reply::Value(value) => Ok(value),
            Reply::Text(_) | Reply::Number(_) | Reply::Error(_) => Err(Failure("refused")),
        }
    }
}

fn done(reply: &Reply) -> Result<(), Failure> {
    if matches!(reply, Reply::Text(_)) { Ok(()) } else { Err(Failure("refused")) }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Such as `OK`.
    Text(Bytes),
    /// A count.
    Number(i64),
    /// A value, if there is one.
    Value(Option<Bytes>),
    /// What was wrong.
    Error(Bytes),
}

#[derive(Debug, Default)]
struct Resp {
    waiting: VecDeque<u64>,
}

impl Protocol for Resp {
    type Ask = Bytes;
    type Answer = Reply;

    fn begin(&mut self, _output: &mut BytesMut) {}

    fn ask(&mut self, number: u64, ask: Bytes, output: &mut BytesMut) {
        output.put_slice(&ask);
        self.waiting.push_back(number);
    }

    fn receive(
        &mut self,
        input: &mut BytesMut,
        _output: &mut BytesMut,
    ) -> io::Result<Vec<(u64, Reply)>> {
        let mut answers = Vec::new();
        while let Some(reply) = take_reply(input)? {
            let number = self.waiting.pop_front();
            answers.push((number.ok_or_else(|| other("an answer to nothing"))?, reply));
        }
        Ok(answers)
    }
}

fn encode(parts: &[&[u8]]) -> Bytes {
    let mut command = format!("*{}\r\n", parts.len()).into_bytes();
    for part in parts {
        command.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        command.extend_from_slice(part);
        command.extend_from_slice(b"\r\n");
    }
    command.into()
}

/// Takes a whole answer off the front.
fn take_reply(input: &mut BytesMut) -> io::Result<Option<Reply>> {
    let Some(end) = input.windows(2).position(|pair| pair == b"\r\n") else {
        return if input.len() > BYTES_MAX { Err(other("an endless line")) } else { Ok(None) };
    };
    let line = Bytes::copy_from_slice(input.get(1..end).unwrap_or_default());
    let number = || -> io::Result<i64> {
        let text = std::str::from_utf8(&line).map_err(io::Error::other)?;
        text.parse().map_err(io::Error::other)
    };
    let reply = match input.first() {
        Some(b'+') => Reply::Text(line),
        Some(b'-') => Reply::Error(line),
        Some(b':') => Reply::Number(number()?),
        Some(b'$') => match usize::try_from(number()?) {
            Err(_) => Reply::Value(None),
            Ok(len) if len > BYTES_MAX => return Err(other("an endless value")),
            Ok(len) => {
                let begin = end + 2;
                let Some(value) = input.get(begin..begin + len) else { return Ok(None) };
                if input.len() < begin + len + 2 {
                    return Ok(None);
                }
                let value = Bytes::copy_from_slice(value);
                input.advance(begin + len + 2);
                return Ok(Some(Reply::Value(Some(value))));
            }
        },
        Some(_) | None => return Err(other("this is no answer of Redis")),
    };
    input.advance(end + 2);
    Ok(Some(reply))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_when_they_are_whole() {
        let all = b"+OK\r\n:17\r\n$-1\r\n$3\r\na\r\n\r\n-ERR no\r\n";
        let wanted = [
            Reply::Text("OK".into()),
            Reply::Number(17),
            Reply::Value(None),
            Reply::Value(Some("a\r\n".into())),
            Reply::Error("ERR no".into()),
        ];
        for step in 1..all.len() {
            let (mut input, mut found) = (BytesMut::new(), Vec::new());
            for piece in all.chunks(step) {
                input.put_slice(piece);
                while let Some(reply) = take_reply(&mut input).unwrap() {
                    found.push(reply);
                }
            }
            assert_eq!(found, wanted, "in steps of {step}");
        }
        assert!(take_reply(&mut BytesMut::from(&b"?\r\n"[..])).is_err());
    }

    #[test]
    fn command_is_an_array_of_its_parts() {
        assert_eq!(encode(&[b"GET", b"k"]).as_ref(), b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
    }
}
