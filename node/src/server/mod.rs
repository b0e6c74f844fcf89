//! The network edge of a node: it listens, shakes hands, and hands connections to the replica.
//!
//! [`start`] builds a whole node in any [`Env`]: it claims the data directory, recovers the log
//! and the tables, starts the replica's loop and its helpers, and opens the port. Everything
//! that a stranger can send is bounded here: handshakes by size and time, frames by length,
//! connections by number, requests in flight by number per connection, and by number and bytes
//! over all of them (the inbox counts), requests of which half has arrived by bytes over all
//! connections ([`PARTIAL_REQUESTS_BYTES_MAX`]), and answers that nobody fetches by bytes, per
//! connection and over all of them (the outbox counts): [`ANSWERS_BYTES_MAX`] and, for each
//! connection, a page, a long answer, and short ones to what it has in flight. Buffers that grew
//! are given back.
//!
//! [`ANSWERS_BYTES_MAX`]: crate::base::limits::ANSWERS_BYTES_MAX
//! [`PARTIAL_REQUESTS_BYTES_MAX`]: crate::base::limits::PARTIAL_REQUESTS_BYTES_MAX
//!
//! # Left out
//! How replication works: connections only know the replica's inbox and their outboxes.

mod client;
pub(crate) mod frames;
mod peer;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tracing::{debug, info, warn};

use crate::base::NodeId;
use crate::codec::{self, DecodeError};
use crate::env::{self, Env, First, Listener, Net};
use crate::planted;
use crate::replica::{
    Inbox, MasterlessReplica, NodeConfig, Observer, PeerOutbox, Replica, StartError, StopReason,
};
use crate::wire::handshake::MAGIC;
use crate::wire::{Hello, Identity, Mode, PROTOCOL_VERSION, Refusal, Welcome};
use client::ClientConnection;
use frames::FrameError;

/// Longest time for a stranger to say who it is.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Pause after a failed accept (for example when the process has no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Stream<E> = <<E as Env>::Net as Net>::Stream;

/// A running node.
pub struct Node {
    inbox: Arc<Inbox>,
    local_address: String,
    stopped: tokio::sync::Mutex<Option<tokio::sync::oneshot::Receiver<StopReason>>>,
}

impl Node {
    /// Returns the address that it listens on, with the real port.
    pub fn local_address(&self) -> &str {
        &self.local_address
    }

    /// Asks the node to stop: what is logged is synced, connections are closed.
    pub fn shutdown(&self) {
        self.inbox.shut_down();
    }

    /// Waits until the node has stopped, and says why. Only the first caller gets the reason.
    pub async fn stopped(&self) -> StopReason {
        let receiver = self.stopped.lock().await.take();
        match receiver {
            Some(receiver) => receiver.await.unwrap_or(StopReason::Requested),
            None => StopReason::Requested,
        }
    }
}

/// Starts a node and returns when it listens.
///
/// # Errors
/// The directory belongs to somebody else or is damaged beyond repair, or the port is taken.
pub async fn start<E: Env>(env: E, config: NodeConfig) -> Result<Node, StartError> {
    start_observed(env, config, ()).await
}

/// Starts a node with an observer that sees its every step; for simulations.
///
/// # Errors
/// As for [`start`].
pub async fn start_observed<E: Env>(
    env: E,
    config: NodeConfig,
    observer: impl Observer,
) -> Result<Node, StartError> {
    let listener = env
        .net()
        .listen(&config.listen)
        .await
        .map_err(|source| StartError::Listen { address: config.listen.clone(), source })?;
    let (node_env, node_config) = (env.clone(), config.clone());
    if config.mode().is_masterless() {
        let replica = MasterlessReplica::recover(node_env, node_config, observer).await?;
        let (inbox, outboxes) = (replica.inbox(), replica.peer_outboxes());
        Ok(serve(&env, config, listener, (inbox, outboxes), replica.run()))
    } else {
        let replica = Replica::recover(node_env, node_config, observer).await?;
        let (inbox, outboxes) = (replica.inbox(), replica.peer_outboxes());
        Ok(serve(&env, config, listener, (inbox, outboxes), replica.run()))
    }
}

/// Connects a replica to the world and lets it run.
fn serve<E: Env>(
    env: &E,
    config: NodeConfig,
    listener: <E::Net as Net>::Listener,
    (inbox, outboxes): (Arc<Inbox>, Vec<(NodeId, Arc<PeerOutbox>)>),
    run: impl Future<Output = StopReason> + Send + 'static,
) -> Node {
    let local_address = listener.local_address();
    for (peer, outbox) in outboxes {
        spawn_outgoing(env, &config, peer, outbox, &inbox);
    }
    let (stopped_sender, stopped) = tokio::sync::oneshot::channel();
    env.spawn("replica", async move {
        let reason = run.await;
        // Nobody may be waiting for it.
        drop(stopped_sender.send(reason));
    });
    let acceptor = Acceptor {
        env: env.clone(),
        connection_count: Arc::new(AtomicUsize::new(0)),
        inbox: Arc::clone(&inbox),
        mode: config.mode(),
        config: Arc::new(config),
    };
    info!(node = %acceptor.config.node, address = local_address, "listening");
    env.spawn("accept", acceptor.run(listener));
    Node { inbox, local_address, stopped: tokio::sync::Mutex::new(Some(stopped)) }
}

fn spawn_outgoing<E: Env>(
    env: &E,
    config: &NodeConfig,
    peer: NodeId,
    outbox: Arc<PeerOutbox>,
    inbox: &Arc<Inbox>,
) {
    let address = config.members.iter().find(|(node, _)| *node == peer);
    let outgoing = peer::Outgoing {
        env: env.clone(),
        cluster: config.cluster,
        from: config.node,
        to: peer,
        mode: config.mode(),
        address: address.map(|(_, address)| address.clone()).unwrap_or_default(),
        outbox,
        inbox: Arc::clone(inbox),
    };
    env.spawn("peer", outgoing.run());
}

/// Takes connections and finds out who they are.
#[derive(Clone)]
struct Acceptor<E: Env> {
    env: E,
    config: Arc<NodeConfig>,
    mode: Mode,
    inbox: Arc<Inbox>,
    connection_count: Arc<AtomicUsize>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("refused: {0}")]
    Refused(Refusal),
    #[error(transparent)]
    Client(#[from] client::ConnectionError),
}

/// Counts a connection for as long as it lives.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<E: Env> Acceptor<E> {
    async fn run(self, mut listener: <E::Net as Net>::Listener) {
        loop {
            match env::race(self.inbox.closed(), listener.accept()).await {
                First::A(()) => return,
                First::B(Ok((stream, address))) => self.take(stream, address),
                First::B(Err(error)) => {
                    warn!(%error, "cannot accept a connection");
                    self.env.sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn take(&self, stream: Stream<E>, address: String) {
        let count = self.connection_count.fetch_add(1, Ordering::Relaxed) + 1;
        let counted = Counted(Arc::clone(&self.connection_count));
        if count > self.config.connections_max * 2 {
            // Too many even to say so.
            crate::probe!("server.connection_dropped_at_twice_the_limit");
            drop(counted);
            return;
        }
        let acceptor = self.clone();
        self.env.spawn("connection", async move {
            let stopped = acceptor.inbox.closed();
            match env::race(stopped, acceptor.serve(stream, count)).await {
                First::A(()) | First::B(Ok(())) => {}
                First::B(Err(error)) => debug!(address, %error, "connection ended"),
            }
            drop(counted);
        });
    }

    async fn serve(&self, mut stream: Stream<E>, count: usize) -> Result<(), ServeError> {
        let mut buffer = BytesMut::new();
        let frame =
            frames::read_handshake(&self.env, HANDSHAKE_MAX, &mut stream, &mut buffer).await?;
        let hello: Hello = codec::decode(&frame)?;
        let welcome = match examine(&self.config, self.mode, &hello, count) {
            Ok(()) => Welcome::Accepted {
                cluster: self.config.cluster,
                node: self.config.node,
                mode: self.mode,
            },
            Err(refusal) => Welcome::Refused(refusal),
        };
        self.answer(&mut stream, &welcome).await?;
        if let Welcome::Refused(refusal) = welcome {
            crate::probe!("server.connection_refused");
            return Err(ServeError::Refused(refusal));
        }
        match hello.identity {
            Identity::Client { .. } => {
                let inbox = Arc::clone(&self.inbox);
                ClientConnection::new(self.env.clone(), stream, inbox, buffer).run().await?;
            }
            Identity::Peer { from, .. } => {
                let from = (from, self.mode);
                peer::serve_peer(&self.env, stream, from, &self.inbox, buffer).await?;
            }
        }
        Ok(())
    }

    async fn answer(&self, stream: &mut Stream<E>, welcome: &Welcome) -> Result<(), FrameError> {
        frames::write_frame(&self.env, HANDSHAKE_MAX, stream, welcome).await
    }
}

/// Says whether a connection to the node of this configuration, one of `count`, may go on.
fn examine(config: &NodeConfig, mode: Mode, hello: &Hello, count: usize) -> Result<(), Refusal> {
    let ours = config.cluster;
    let is_ours = hello.magic == MAGIC || planted!("F17");
    if !is_ours || hello.version != PROTOCOL_VERSION {
        return Err(Refusal::Version { ours: PROTOCOL_VERSION, theirs: hello.version });
    }
    match hello.identity {
        Identity::Peer { cluster: theirs, .. } | Identity::Client { cluster: Some(theirs) }
            if theirs != ours =>
        {
            Err(Refusal::Cluster { ours, theirs })
        }
        Identity::Peer { to, .. } if to != config.node => {
            Err(Refusal::Node { ours: config.node, wanted: to })
        }
        Identity::Peer { mode: theirs, .. } if theirs != mode => {
            Err(Refusal::Mode { ours: mode, theirs })
        }
        Identity::Peer { from, .. } => {
            let known = config.members.iter().any(|(node, _)| *node == from);
            if known && from != config.node { Ok(()) } else { Err(Refusal::NotAMember { from }) }
        }
        Identity::Client { .. } if count > config.connections_max => {
            let connections_max = u32::try_from(config.connections_max);
            Err(Refusal::TooManyConnections {
                connections_max: connections_max.unwrap_or(u32::MAX),
            })
        }
        Identity::Client { .. } => Ok(()),
    }
}

/// Answers the first frame of a connection as a node of this configuration does; `mode` is its.
///
/// # Errors
/// The bytes do not begin with a frame, or it is no `Hello`: the connection is closed.
#[cfg(feature = "testing")]
pub fn answer_to(
    config: &NodeConfig,
    mode: Mode,
    buffer: &mut BytesMut,
) -> Result<Option<Result<(), Refusal>>, DecodeError> {
    let decoder = codec::FrameDecoder::new(frames::HANDSHAKE_BYTES_MAX);
    let Some(frame) = decoder.decode(buffer)? else { return Ok(None) };
    Ok(Some(examine(config, mode, &codec::decode(&frame)?, 1)))
}
