//! One connection to one node: many requests in flight, few wake-ups.
//!
//! A connection is one stream behind one lock and one task, the *driver*. The driver reads,
//! cuts the bytes into answers and completes the request that each answer names. Writing has
//! two ways. When nothing is in flight, the caller writes its request itself, so that a lone
//! request wakes nobody before its bytes are on the way. When requests are in flight, the
//! caller only appends its frame and wakes the driver, which then writes everything that
//! gathered in one go: sixty-four tasks that were completed by one read cost two writes, not
//! sixty-four. Whoever writes does it in the name of the driver (with its waker), so a stream
//! that takes no more is taken up again by the driver, even if the caller gave up meanwhile.
//!
//! # Invariants
//! 1. A request is completed at most once: its entry leaves `waiting` before it is completed.
//! 2. After the stream is gone, `waiting` is empty and stays so: nobody waits for nothing.
//! 3. Bytes of a request that was handed over count as delivered, written or not.
//!
//! # Left out
//! Reconnecting and repeating: [`super::retry`] decides that, because only it knows whether a
//! request may be repeated. A bound on the bytes that wait to be written: the callers bound it,
//! each waits for the answer to what it handed over.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;

use super::error::{TryFailure, in_ms};
use super::lock;
use crate::base::limits::FRAME_BYTES_MAX;
use crate::base::{ClusterId, Instant, Stamp};
use crate::codec::{self, FrameDecoder, encode_frame};
use crate::env::{Env, Net, timeout};
use crate::wire::handshake::MAGIC;
use crate::wire::{
    Consistency, Hello, Identity, Mode, PROTOCOL_VERSION, Request, RequestBody, Response,
    ResponseBody, Welcome,
};

/// Room that is made for each read: a page of small answers in one call.
const READ_BYTES: usize = 16 << 10;

/// Buffers that grew beyond this are given back after use.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// An open connection; closes when the last clone of its `Arc` is dropped.
#[derive(Debug)]
pub(super) struct Connection<S: AsyncRead + AsyncWrite + Unpin> {
    shared: Arc<Shared<S>>,
    cluster: ClusterId,
    mode: Mode,
}

#[derive(Debug)]
struct Shared<S> {
    state: Mutex<State<S>>,
}

#[derive(Debug)]
struct State<S> {
    /// `None` once the connection is closed.
    stream: Option<S>,
    /// Why it was closed.
    closed_why: String,
    /// Wakes the driver; `None` before it ran for the first time.
    driver: Option<Waker>,
    /// Who waits for which answer.
    waiting: BTreeMap<u64, oneshot::Sender<Answer>>,
    next_id: u64,
    /// Frames to be written; the first `written` bytes are.
    outgoing: Vec<u8>,
    written: usize,
    /// How often bytes arrived: tells a slow answer from a dead connection.
    read_count: u64,
}

/// What a node answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) body: ResponseBody,
    /// The largest stamp that was met on the way to it.
    pub(super) seen: Stamp,
}

/// A request that was handed over; dropping it gives up waiting.
#[derive(Debug)]
pub(super) struct InFlight<S> {
    shared: Arc<Shared<S>>,
    id: u64,
    answer: oneshot::Receiver<Answer>,
    read_count: u64,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Connection<S> {
    /// Connects to `address` and shakes hands, within `limit`.
    ///
    /// With `cluster`, a node of another cluster is refused.
    pub(super) async fn open<E>(
        env: &E,
        address: &str,
        cluster: Option<ClusterId>,
        limit: Duration,
    ) -> Result<Self, TryFailure>
    where
        E: Env<Net: Net<Stream = S>>,
    {
        let failed = |what: String| TryFailure::Connect { address: address.to_owned(), what };
        let opened = timeout(env, limit, shake_hands(env, address, cluster)).await;
        let opened = opened.ok_or_else(|| failed(format!("no answer within {}", in_ms(limit))))?;
        let (stream, cluster, mode) = match opened {
            Ok(opened) => opened,
            Err(HandshakeError::Refused(refusal)) => return Err(TryFailure::Refused(refusal)),
            Err(HandshakeError::Failed(what)) => return Err(failed(what)),
        };
        let shared = Arc::new(Shared { state: Mutex::new(State::new(stream)) });
        env.spawn("client connection", Driver::new(Arc::clone(&shared)));
        Ok(Self { shared, cluster, mode })
    }

    /// Returns the cluster that the node said it belongs to.
    pub(super) fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Returns how the node said that its cluster replicates.
    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// Tells whether requests can be handed over.
    pub(super) fn is_open(&self) -> bool {
        lock(&self.shared.state).stream.is_some()
    }

    /// Hands a request over. From here on it counts as delivered.
    ///
    /// # Errors
    /// The connection is closed already; the request was not delivered.
    pub(super) fn send(
        &self,
        consistency: Consistency,
        body: &RequestBody,
    ) -> Result<InFlight<S>, TryFailure> {
        let (sender, answer) = oneshot::channel();
        let mut state = lock(&self.shared.state);
        if state.stream.is_none() {
            return Err(TryFailure::ConnectionLost { what: state.closed_why.clone() });
        }
        let id = state.next_id;
        state.next_id += 1;
        let lone = state.waiting.is_empty();
        encode_frame(&mut state.outgoing, |buffer| {
            Request::encode_parts(id, consistency, body, buffer);
        });
        state.waiting.insert(id, sender);
        let read_count = state.read_count;
        if let Some(driver) = state.driver.clone() {
            if lone {
                if let Err(error) = state.flush(&mut Context::from_waker(&driver)) {
                    state.close(&error.to_string());
                    driver.wake();
                }
            } else {
                driver.wake();
            }
        }
        drop(state);
        Ok(InFlight { shared: Arc::clone(&self.shared), id, answer, read_count })
    }

    /// Closes the connection; every request in flight learns it.
    pub(super) fn close(&self, why: &str) {
        self.shared.close(why);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Drop for Connection<S> {
    fn drop(&mut self) {
        self.shared.close("no longer used");
    }
}

impl<S> Shared<S> {
    fn close(&self, why: &str) {
        let mut state = lock(&self.state);
        state.close(why);
        if let Some(driver) = state.driver.take() {
            driver.wake();
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> InFlight<S> {
    /// Waits for the answer until `deadline`.
    ///
    /// A connection on which nothing at all arrived for `silence_max` or longer is closed: its
    /// other end is probably gone without a word, and the next request shall not wait for it too.
    ///
    /// # Errors
    /// No answer came; whether the request took effect is not known.
    pub(super) async fn answer<E: Env>(
        mut self,
        env: &E,
        deadline: Instant,
        silence_max: Duration,
    ) -> Result<Answer, TryFailure> {
        let limit = deadline.since(env.now());
        match timeout(env, limit, &mut self.answer).await {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(_closed)) => {
                let what = lock(&self.shared.state).closed_why.clone();
                Err(TryFailure::ConnectionLost { what })
            }
            None => {
                let read_count = lock(&self.shared.state).read_count;
                if read_count == self.read_count && limit >= silence_max {
                    crate::probe!("client.closes_a_silent_connection");
                    self.shared.close("silent for too long");
                }
                Err(TryFailure::NoAnswer { limit })
            }
        }
    }
}

impl<S> Drop for InFlight<S> {
    fn drop(&mut self) {
        lock(&self.shared.state).waiting.remove(&self.id);
    }
}

impl<S> State<S> {
    fn new(stream: S) -> Self {
        Self {
            stream: Some(stream),
            closed_why: String::new(),
            driver: None,
            waiting: BTreeMap::new(),
            next_id: 1,
            outgoing: Vec::new(),
            written: 0,
            read_count: 0,
        }
    }

    /// Gives the stream back to the system and lets every waiting request know.
    fn close(&mut self, why: &str) {
        if self.stream.take().is_some() {
            why.clone_into(&mut self.closed_why);
            tracing::debug!(why, in_flight = self.waiting.len(), "connection closed");
        }
        // Dropping the senders completes the receivers with an error.
        self.waiting.clear();
        self.outgoing = Vec::new();
        self.written = 0;
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> State<S> {
    /// Writes as much as the stream takes; `context` is woken when it takes more.
    fn flush(&mut self, context: &mut Context<'_>) -> std::io::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        while let Some(rest) = self.outgoing.get(self.written..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut *stream).poll_write(context, rest) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => return Err(std::io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => self.written += count,
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
        self.written = 0;
        self.outgoing.clear();
        if self.outgoing.capacity() > KEPT_BYTES_MAX {
            self.outgoing = Vec::new();
        }
        match Pin::new(stream).poll_flush(context) {
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }
}

/// The task of a connection: reads answers, and writes what callers left to it.
struct Driver<S> {
    shared: Arc<Shared<S>>,
    decoder: FrameDecoder,
    input: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Driver<S> {
    fn new(shared: Arc<Shared<S>>) -> Self {
        Self { shared, decoder: FrameDecoder::new(FRAME_BYTES_MAX), input: BytesMut::new() }
    }

    /// Writes what waits, then reads once. `Ready(Err)` says why the connection is over.
    fn poll_stream(&mut self, context: &mut Context<'_>) -> Poll<Result<(), String>> {
        let mut state = lock(&self.shared.state);
        if !state.driver.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            state.driver = Some(context.waker().clone());
        }
        if let Err(error) = state.flush(context) {
            return Poll::Ready(Err(error.to_string()));
        }
        let Some(stream) = &mut state.stream else {
            return Poll::Ready(Err(state.closed_why.clone()));
        };
        self.input.reserve(READ_BYTES);
        let read = std::pin::pin!(stream.read_buf(&mut self.input)).poll(context);
        match read {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0)) => Poll::Ready(Err("closed by the node".to_owned())),
            Poll::Ready(Ok(_count)) => {
                state.read_count += 1;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.to_string())),
        }
    }

    /// Completes the requests whose answers have arrived.
    fn deliver(&mut self) -> Result<(), String> {
        loop {
            let body = self.decoder.decode(&mut self.input).map_err(|error| error.to_string())?;
            let Some(body) = body else { return Ok(()) };
            let response: Response = codec::decode(&body).map_err(|error| error.to_string())?;
            let mut state = lock(&self.shared.state);
            if response.id >= state.next_id {
                return Err(format!("answer to request {}, never asked", response.id));
            }
            let sender = state.waiting.remove(&response.id);
            drop(state);
            // A caller that gave up meanwhile is no longer waiting: its answer has no reader.
            let answer = Answer { body: response.body, seen: response.seen };
            if let Some(sender) = sender
                && sender.send(answer).is_err()
            {
                crate::probe!("client.answer_comes_too_late");
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Future for Driver<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let over = match self.poll_stream(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => self.deliver(),
                Poll::Ready(Err(why)) => Err(why),
            };
            if let Err(why) = over {
                lock(&self.shared.state).close(&why);
                return Poll::Ready(());
            }
        }
    }
}

enum HandshakeError {
    Refused(crate::wire::Refusal),
    Failed(String),
}

impl<T: std::error::Error> From<T> for HandshakeError {
    fn from(error: T) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Opens the stream and exchanges the first frames. [`crate::wire::handshake`]
async fn shake_hands<E: Env>(
    env: &E,
    address: &str,
    cluster: Option<ClusterId>,
) -> Result<(<E::Net as Net>::Stream, ClusterId, Mode), HandshakeError> {
    let mut stream = env.net().connect(address).await?;
    // Who closes it has all answers, or has given up: what arrives after that can only do harm.
    env.net().discard_on_drop(&stream)?;
    let identity = Identity::Client { cluster };
    let hello = Hello { magic: MAGIC, version: PROTOCOL_VERSION, identity };
    let mut frame = Vec::with_capacity(64);
    encode_frame(&mut frame, |buffer| codec::encode_into(&hello, buffer));
    stream.write_all(&frame).await?;
    stream.flush().await?;
    let decoder = FrameDecoder::new(FRAME_BYTES_MAX);
    let mut input = BytesMut::new();
    let welcome = loop {
        if let Some(body) = decoder.decode(&mut input)? {
            break codec::decode::<Welcome>(&body)?;
        }
        if stream.read_buf(&mut input).await? == 0 {
            return Err(HandshakeError::Failed("closed during the handshake".to_owned()));
        }
    };
    match welcome {
        // The node sends nothing before it is asked.
        Welcome::Accepted { cluster, mode, .. } if input.is_empty() => Ok((stream, cluster, mode)),
        Welcome::Accepted { .. } => {
            Err(HandshakeError::Failed("bytes after the handshake that nobody asked for".into()))
        }
        Welcome::Refused(refusal) => Err(HandshakeError::Refused(refusal)),
    }
}
