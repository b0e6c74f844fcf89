//! A connection that speaks the protocol as well, or as badly, as a test wants.
//!
//! It knows frames and the handshake from the wire's own types but nothing of the client library,
//! so that it also is a second opinion on what the bytes are.

use std::time::Duration;

use bytes::BytesMut;
use mangrove::base::ClusterId;
use mangrove::base::limits::FRAME_BYTES_MAX;
use mangrove::codec::{self, Decode, Encode, FrameDecoder, encode_frame};
use mangrove::wire::{
    Consistency, Hello, Identity, PROTOCOL_VERSION, Request, RequestBody, Response, ResponseBody,
    Status, Welcome, handshake,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for anything that a healthy node does at once.
const LIMIT: Duration = Duration::from_secs(10);

/// A connection to one node.
#[derive(Debug)]
pub struct Stranger {
    stream: TcpStream,
    received: BytesMut,
}

/// What a node sent next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received<T> {
    /// A message.
    Message(T),
    /// Nothing more: it closed the connection.
    Closed,
    /// Nothing for as long as was waited.
    Silence,
}

impl Stranger {
    /// Connects and says nothing; `None` if nobody listens.
    pub async fn connect(address: &str) -> Option<Self> {
        let connecting = timeout(LIMIT, TcpStream::connect(address)).await;
        let stream = connecting.ok()?.ok()?;
        Some(Self { stream, received: BytesMut::new() })
    }

    /// Returns the first words of a well-behaved client.
    pub fn hello() -> Hello {
        Self::hello_as(Identity::Client { cluster: None })
    }

    /// Returns well-formed first words of anybody.
    pub fn hello_as(identity: Identity) -> Hello {
        Hello { magic: handshake::MAGIC, version: PROTOCOL_VERSION, identity }
    }

    /// Returns the first words of a client that wants that cluster.
    pub fn hello_for(cluster: ClusterId) -> Hello {
        Self::hello_as(Identity::Client { cluster: Some(cluster) })
    }

    /// Returns the first request of a connection.
    pub fn request(body: RequestBody) -> Request {
        Request { id: 1, consistency: Consistency::default(), body }
    }

    /// Sends a message in a frame.
    pub async fn send<T: Encode>(&mut self, message: &T) {
        let mut frame = Vec::new();
        encode_frame(&mut frame, |buffer| codec::encode_into(message, buffer));
        self.send_bytes(&frame).await;
    }

    /// Sends bytes as they are; whether the other side still takes them is not our business.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        let written = timeout(LIMIT, self.stream.write_all(bytes)).await;
        written.expect("the node reads, or closes").ok();
    }

    /// Receives the next message.
    pub async fn receive<T: Decode<()>>(&mut self) -> Received<T> {
        self.receive_within(LIMIT).await
    }

    /// Receives the next message if it comes within `limit`.
    pub async fn receive_within<T: Decode<()>>(&mut self, limit: Duration) -> Received<T> {
        let frames = FrameDecoder::new(FRAME_BYTES_MAX);
        loop {
            let frame = frames.decode(&mut self.received).expect("the node sends whole frames");
            if let Some(body) = frame {
                return Received::Message(codec::decode(&body).expect("the node makes sense"));
            }
            match timeout(limit, self.stream.read_buf(&mut self.received)).await {
                Err(_) => return Received::Silence,
                // A reset is a close by a node that had not read everything.
                Ok(Ok(0) | Err(_)) => return Received::Closed,
                Ok(Ok(_)) => {}
            }
        }
    }

    /// Introduces itself and returns the node's answer.
    pub async fn shake(&mut self, hello: &Hello) -> Received<Welcome> {
        self.send(hello).await;
        self.receive().await
    }

    /// Asks a node something, as a client of no manners would: one connection, one request, no
    /// second try, nobody else asked. `None` if there is no answer.
    pub async fn ask(address: &str, body: RequestBody) -> Option<ResponseBody> {
        let mut stranger = Self::connect(address).await?;
        let Received::Message(Welcome::Accepted { .. }) = stranger.shake(&Self::hello()).await
        else {
            return None;
        };
        stranger.send(&Self::request(body)).await;
        match stranger.receive::<Response>().await {
            Received::Message(Response { id: 1, body, .. }) => Some(body),
            Received::Message(_) | Received::Closed | Received::Silence => None,
        }
    }

    /// Asks a node how it is; `None` if it does not say.
    pub async fn status_of(address: &str) -> Option<Status> {
        match Self::ask(address, RequestBody::Status).await? {
            ResponseBody::Status(status) => Some(*status),
            ResponseBody::Command(_)
            | ResponseBody::Query(_)
            | ResponseBody::Snapshot(_)
            | ResponseBody::Error(_) => None,
        }
    }
}
