//! TCP, set up for requests and answers.
//!
//! Every stream has Nagle's delay off, because a frame is written whole and someone waits for it,
//! and keep-alive on, so that the kernel in the end reports a peer that lost its power instead of
//! holding the connection for ever. That takes minutes; who cannot wait has a deadline anyway.
//!
//! A stream that is closed with bytes that have not left lives on in the kernel, which sends them
//! again and again for minutes until they arrive. A client does not want that
//! ([`Net::discard_on_drop`]): it has told its user meanwhile that the outcome is unknown, and its
//! user may have repeated the write and written other things since. Who accepts connections must
//! have it so: it closes them behind an answer, often an error, that is still to arrive.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};

use crate::env::{Listener, Net};

/// Connections that the kernel completes before we accept them: a whole cluster's clients may
/// reconnect at the moment a node starts.
const BACKLOG: u32 = 1024;

/// Silence on a connection after which the kernel asks whether the other side is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);

/// Time between two such questions; after some ten of them without answer the stream fails.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Pause before accepting again when the process has no file descriptor or memory to spare.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// The operating system's network.
#[derive(Clone, Copy, Debug)]
pub struct RealNet;

/// An open TCP port.
#[derive(Debug)]
pub struct RealListener {
    listener: TcpListener,
    address: String,
}

impl Net for RealNet {
    type Stream = TcpStream;
    type Listener = RealListener;

    async fn listen(&self, address: &str) -> io::Result<RealListener> {
        let mut last_error = None;
        for candidate in lookup_host(address).await? {
            match listen_on(candidate) {
                Ok(listener) => {
                    let address = listener.local_addr()?.to_string();
                    return Ok(RealListener { listener, address });
                }
                Err(error) => last_error = Some(error),
            }
        }
        Err(last_error.unwrap_or_else(|| io::Error::other("the name has no address")))
    }

    async fn connect(&self, address: &str) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(address).await?;
        set_up(&stream)?;
        Ok(stream)
    }

    fn discard_on_drop(&self, stream: &TcpStream) -> io::Result<()> {
        // A close that lingers for no time at all resets the connection, and waits for nothing.
        SockRef::from(stream).set_linger(Some(Duration::ZERO))
    }
}

impl Listener for RealListener {
    type Stream = TcpStream;

    /// Waits for the next connection. One that died before it was accepted is skipped, and
    /// running out of file descriptors is waited out: neither is a fault of the port.
    async fn accept(&mut self) -> io::Result<(TcpStream, String)> {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    if set_up(&stream).is_ok() {
                        return Ok((stream, peer.to_string()));
                    }
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) if is_exhaustion(&error) => {
                    tracing::warn!(%error, "cannot accept connections for the moment");
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn local_address(&self) -> String {
        self.address.clone()
    }
}

fn listen_on(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Without it a restarted node could not have its port back while old connections time out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn set_up(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Tells whether an accept failed because of the connection that it took off the queue.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Tells whether an accept failed for want of descriptors (`EMFILE`, `ENFILE`) or memory
/// (`ENOBUFS`, `ENOMEM`), which pass when connections close.
fn is_exhaustion(error: &io::Error) -> bool {
    const EXHAUSTION: [i32; 4] = [24, 23, 105, 12];
    error.raw_os_error().is_some_and(|code| EXHAUSTION.contains(&code))
}

// What any network must do is in `env::conformance`; here is what only this one promises.
#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::super::tests::block_on;
    use super::*;

    #[test]
    fn both_ends_send_at_once_and_notice_a_dead_peer() {
        block_on(async {
            let mut listener = RealNet.listen("127.0.0.1:0").await.unwrap();
            let near = RealNet.connect(&listener.local_address()).await.unwrap();
            let (far, peer) = listener.accept().await.unwrap();
            assert_eq!(peer, near.local_addr().unwrap().to_string());
            for stream in [&near, &far] {
                assert!(stream.nodelay().unwrap(), "a frame is not held back");
                assert!(SockRef::from(stream).keepalive().unwrap(), "a dead peer is noticed");
            }
        });
    }

    #[test]
    fn what_has_not_left_is_thrown_away_with_a_stream_if_that_is_wanted() {
        block_on(async {
            for is_wanted in [false, true] {
                let mut listener = RealNet.listen("127.0.0.1:0").await.unwrap();
                let near = RealNet.connect(&listener.local_address()).await.unwrap();
                let (mut far, _) = listener.accept().await.unwrap();
                if is_wanted {
                    RealNet.discard_on_drop(&near).unwrap();
                }
                near.writable().await.unwrap();
                // Nobody reads: when no more is taken, the last of it has not left.
                let (mut written, piece) = (0, vec![7; 64 << 10]);
                while let Ok(count) = near.try_write(&piece) {
                    written += count;
                }
                drop(near);
                let mut read = Vec::new();
                let ended = far.read_to_end(&mut read).await;
                assert_eq!(ended.is_err(), is_wanted, "{ended:?} after {} bytes", read.len());
                assert_eq!(read.len() < written, is_wanted, "{} of {written}", read.len());
            }
        });
    }

    #[test]
    fn port_is_free_again_at_once_after_a_restart() {
        block_on(async {
            let mut listener = RealNet.listen("127.0.0.1:0").await.unwrap();
            let address = listener.local_address();
            let client = RealNet.connect(&address).await.unwrap();
            // The side that closes first keeps the port in TIME_WAIT: the node does, here.
            drop(listener.accept().await.unwrap());
            drop(listener);
            drop(client);
            RealNet.listen(&address).await.unwrap();
        });
    }

    #[test]
    fn address_that_makes_no_sense_is_an_error() {
        block_on(async {
            RealNet.listen("no port").await.unwrap_err();
            RealNet.connect("127.0.0.1").await.unwrap_err();
        });
    }

    #[test]
    fn accept_errors_are_told_apart() {
        let of = io::Error::from_raw_os_error;
        assert!(is_of_one_connection(&of(103)), "ECONNABORTED");
        assert!(is_exhaustion(&of(24)), "EMFILE");
        assert!(!is_exhaustion(&of(9)) && !is_of_one_connection(&of(9)), "EBADF is the port's");
    }
}
