//! Connections between nodes: one outgoing connection to each peer carries what this node says.
//!
//! Messages flow one way on a connection, from the node that opened it; the answers come on the
//! peer's own. The accepting side sends back nothing but *receipts*: one byte, at most every
//! [`RECEIPT_DELAY`], after something was received. A connection whose peer has lost power stays
//! open for ever and swallows what is written; without a receipt for [`RECEIPT_MAX`] after a
//! write, the sender gives it up and connects anew.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tracing::{debug, warn};

use super::frames::{self, FrameError};
use crate::base::limits::FRAME_BYTES_MAX;
use crate::base::{ClusterId, NodeId, Rng};
use crate::codec::{self, DecodeError, FrameDecoder};
use crate::env::{self, Env, First, Net};
use crate::replica::{Inbox, PeerOutbox};
use crate::wire::handshake::MAGIC;
use crate::wire::{Hello, Identity, Mode, PROTOCOL_VERSION, PeerMessage, Refusal, Welcome};

/// Longest wait for a connection to open, and for each step of the handshake.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Pauses between tries to connect: the first, and the longest.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Longest delay of a receipt after something was received.
const RECEIPT_DELAY: Duration = Duration::from_secs(1);
/// Longest time without a receipt after something was written.
const RECEIPT_MAX: Duration = Duration::from_secs(4);
/// Bytes asked from the stream at once.
const READ_BYTES: usize = 64 << 10;

type Stream<E> = <<E as Env>::Net as Net>::Stream;
type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The way to one peer.
pub(super) struct Outgoing<E: Env> {
    pub(super) env: E,
    pub(super) cluster: ClusterId,
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) mode: Mode,
    pub(super) address: String,
    pub(super) outbox: Arc<PeerOutbox>,
    pub(super) inbox: Arc<Inbox>,
}

/// Why an outgoing connection could not be made or ended.
#[derive(Debug, thiserror::Error)]
enum PeerError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("refused: {0}")]
    Refused(Refusal),
    #[error("the node there is {found} of cluster {cluster}, {mode}")]
    WrongNode { found: NodeId, cluster: ClusterId, mode: Mode },
    #[error("no receipt for {RECEIPT_MAX:?}")]
    NoReceipt,
}

impl From<io::Error> for PeerError {
    fn from(error: io::Error) -> Self {
        Self::Frame(FrameError::Io(error))
    }
}

impl<E: Env> Outgoing<E> {
    /// Keeps a connection to the peer until the replica stops.
    pub(super) async fn run(self) {
        let mut rng = self.env.rng(&format!("peer.backoff.{}", self.to));
        let mut backoff = BACKOFF_FIRST;
        while !self.outbox.is_closed() {
            match self.connect().await {
                Ok(stream) => {
                    debug!(peer = %self.to, address = self.address, "connected");
                    backoff = BACKOFF_FIRST;
                    self.outbox.set_connected(true);
                    let ended = Writer::new(&self, stream).run().await;
                    self.outbox.set_connected(false);
                    self.inbox.peer_lost(self.to);
                    if let Err(error) = ended {
                        debug!(peer = %self.to, %error, "connection lost");
                    }
                }
                Err(PeerError::Frame(error)) => {
                    debug!(peer = %self.to, address = self.address, %error, "cannot connect");
                }
                Err(error) => warn!(peer = %self.to, address = self.address, %error, "refused"),
            }
            backoff = self.pause(&mut rng, backoff).await;
        }
    }

    async fn pause(&self, rng: &mut Rng, backoff: Duration) -> Duration {
        let pause = rng.duration(backoff / 2, backoff);
        match env::race(self.inbox.closed(), self.env.sleep(pause)).await {
            First::A(()) | First::B(()) => (backoff * 2).min(BACKOFF_MAX),
        }
    }

    async fn connect(&self) -> Result<Stream<E>, PeerError> {
        let connect = self.env.net().connect(&self.address);
        let mut stream = env::timeout(&self.env, CONNECT_MAX, connect)
            .await
            .ok_or(FrameError::Late(CONNECT_MAX))??;
        let hello = Hello {
            magic: MAGIC,
            version: PROTOCOL_VERSION,
            identity: Identity::Peer {
                cluster: self.cluster,
                from: self.from,
                to: self.to,
                mode: self.mode,
            },
        };
        frames::write_frame(&self.env, CONNECT_MAX, &mut stream, &hello).await?;
        let mut buffer = BytesMut::new();
        let frame =
            frames::read_handshake(&self.env, CONNECT_MAX, &mut stream, &mut buffer).await?;
        match codec::decode(&frame).map_err(FrameError::from)? {
            Welcome::Accepted { cluster, node, mode }
                if (cluster, node, mode) == (self.cluster, self.to, self.mode) =>
            {
                Ok(stream)
            }
            Welcome::Accepted { cluster, node, mode } => {
                Err(PeerError::WrongNode { found: node, cluster, mode })
            }
            Welcome::Refused(refusal) => Err(PeerError::Refused(refusal)),
        }
    }
}

/// Writes an outbox to a stream and watches for receipts.
struct Writer<'a, E: Env> {
    way: &'a Outgoing<E>,
    stream: Stream<E>,
    writing: Vec<u8>,
    written: usize,
    flushed: bool,
    receipt_deadline: Option<Sleep>,
}

impl<'a, E: Env> Writer<'a, E> {
    fn new(way: &'a Outgoing<E>, stream: Stream<E>) -> Self {
        let writing = Vec::new();
        Self { way, stream, writing, written: 0, flushed: true, receipt_deadline: None }
    }

    async fn run(mut self) -> Result<(), PeerError> {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), PeerError>> {
        self.poll_receipts(context)?;
        self.poll_write(context)?;
        if self.way.outbox.is_closed() {
            return Poll::Ready(Ok(()));
        }
        if let Some(deadline) = &mut self.receipt_deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            crate::probe!("server.peer_without_receipt");
            return Poll::Ready(Err(PeerError::NoReceipt));
        }
        Poll::Pending
    }

    fn poll_receipts(&mut self, context: &mut Context<'_>) -> Result<(), PeerError> {
        let mut receipts = [0; 16];
        while let Poll::Ready(bytes) = pin!(self.stream.read(&mut receipts)).poll(context)? {
            if bytes == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            self.receipt_deadline = None;
        }
        Ok(())
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Result<(), PeerError> {
        loop {
            let rest = self.writing.get(self.written..).unwrap_or_default();
            if rest.is_empty() {
                self.writing.clear();
                self.written = 0;
                if self.way.outbox.poll_take(context, &mut self.writing).is_pending()
                    || self.writing.is_empty()
                {
                    break;
                }
                continue;
            }
            match Pin::new(&mut self.stream).poll_write(context, rest)? {
                Poll::Ready(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Poll::Ready(bytes) => {
                    self.written += bytes;
                    self.flushed = false;
                    self.receipt_deadline.get_or_insert_with(|| {
                        let env = self.way.env.clone();
                        Box::pin(async move { env.sleep(RECEIPT_MAX).await })
                    });
                }
                Poll::Pending => break,
            }
        }
        if !self.flushed {
            self.flushed = Pin::new(&mut self.stream).poll_flush(context)?.is_ready();
        }
        Ok(())
    }
}

/// Reads what one peer says into the inbox, until the connection or the replica ends.
pub(super) async fn serve_peer<E: Env>(
    env: &E,
    mut stream: Stream<E>,
    (from, mode): (NodeId, Mode),
    inbox: &Inbox,
    mut buffer: BytesMut,
) -> Result<(), FrameError> {
    let decoder = FrameDecoder::new(FRAME_BYTES_MAX);
    let mut receipt_due: Option<Sleep> = None;
    loop {
        while let Some(frame) = decoder.decode(&mut buffer)? {
            let message: PeerMessage = codec::decode(&frame)?;
            if message.is_masterless() != mode.is_masterless() {
                let what = format!("a message that is not of the mode {mode}");
                return Err(DecodeError::Malformed(what).into());
            }
            if !inbox.deliver(from, message, frame.len()).await {
                return Ok(());
            }
        }
        buffer.reserve(READ_BYTES);
        let read = std::future::poll_fn(|context| {
            if let Some(due) = &mut receipt_due
                && due.as_mut().poll(context).is_ready()
            {
                return Poll::Ready(None);
            }
            pin!(stream.read_buf(&mut buffer)).poll(context).map(Some)
        });
        match read.await {
            None => {
                stream.write_all(&[1]).await?;
                stream.flush().await?;
                receipt_due = None;
            }
            Some(bytes) => {
                if bytes? == 0 {
                    return Ok(());
                }
                receipt_due.get_or_insert_with(|| {
                    let env = env.clone();
                    Box::pin(async move { env.sleep(RECEIPT_DELAY).await })
                });
            }
        }
    }
}
