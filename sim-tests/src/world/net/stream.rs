//! The network as a node sees it: [`Net`], [`Listener`] and byte streams over the world's state.

use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use mangrove::env::{Listener, Net as NetTrait};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::HELD;
use super::link::resend_at;
use super::{Attempt, ConnId, Net, Side};
use crate::world::clock::{Sleep, Until};
use crate::world::core::Core;
use crate::world::{Fence, Host, Shared};

/// The network for one process.
///
/// Once the process is dead, its operations have no effect and never return.
#[derive(Clone)]
pub struct SimNet {
    shared: Arc<Shared>,
    fence: Fence,
}

/// An open port of a process.
pub struct SimListener {
    net: SimNet,
    port: u16,
    address: String,
}

/// One end of a connection.
pub struct SimStream {
    net: SimNet,
    id: ConnId,
    side: Side,
}

impl SimNet {
    pub(in crate::world) fn new(shared: &Arc<Shared>, fence: Fence) -> Self {
        Self { shared: Arc::clone(shared), fence }
    }

    /// Runs `f` on the network; `None` if the process is dead.
    fn with<R>(&self, f: impl FnOnce(&mut Net, &mut Core) -> R) -> Option<R> {
        self.shared
            .with(|state| state.is_open(self.fence).then(|| f(&mut state.net, &mut state.core)))
    }

    /// Polls `f` on the network; a dead process waits for ever.
    fn poll<R>(&self, f: impl FnOnce(&mut Net, &mut Core) -> Poll<R>) -> Poll<R> {
        self.with(f).unwrap_or(Poll::Pending)
    }

    async fn run<R>(&self, f: impl FnOnce(&mut Net, &mut Core) -> R) -> R {
        match self.with(f) {
            Some(result) => result,
            None => pending().await,
        }
    }

    async fn sleep_until(&self, at: u64) {
        Sleep::new(&self.shared, Until::World(at)).await;
    }

    /// Waits until the network has changed, and then until TCP tries again.
    async fn wait_for_change(&self, to: Host) {
        Change { net: self, seen: None }.await;
        let from = self.fence.host;
        let again = self.run(|net, core| {
            let fate = net.link(from, to).segments.next(core.now());
            resend_at(0, core.now(), &net.options, fate)
        });
        self.sleep_until(again.await).await;
    }
}

impl NetTrait for SimNet {
    type Stream = SimStream;
    type Listener = SimListener;

    async fn listen(&self, address: &str) -> io::Result<SimListener> {
        let host = self.fence.host;
        let opened = self.run(|net, _| {
            let (named, port) = net.resolve(address)?;
            if named != host {
                let kind = io::ErrorKind::AddrNotAvailable;
                return Err(io::Error::new(kind, "the address of another machine"));
            }
            let port = net.listen(host, port)?;
            Ok((port, format!("{}:{port}", net.endpoint(host).name)))
        });
        let (port, address) = opened.await?;
        Ok(SimListener { net: self.clone(), port, address })
    }

    async fn connect(&self, address: &str) -> io::Result<SimStream> {
        let from = self.fence.host;
        let to = self.run(|net, _| net.resolve(address)).await?;
        loop {
            let there = self.run(|net, core| net.pass(core, from, to.0, 0).at).await;
            if there == HELD {
                self.wait_for_change(to.0).await;
                continue;
            }
            self.sleep_until(there).await;
            let attempt = self.run(|net, core| {
                let attempt = net.attempt(core, from, to);
                (attempt, net.pass(core, to.0, from, 0).at)
            });
            match attempt.await {
                (Attempt::Accepted(id), back) => {
                    // From here on the stream owns the connection, even if nobody waits for it.
                    let stream = SimStream { net: self.clone(), id, side: Side::Dialer };
                    self.sleep_until(back).await;
                    return Ok(stream);
                }
                (Attempt::Refused, back) => {
                    self.sleep_until(back).await;
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                (Attempt::Silence, _) => self.wait_for_change(to.0).await,
            }
        }
    }
}

/// Waits for the network to change in a way that may let an attempt to connect succeed.
struct Change<'a> {
    net: &'a SimNet,
    /// The change count when the wait began, and its ticket.
    seen: Option<(u64, u64)>,
}

impl Future for Change<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let seen = self.seen;
        let polled = self.net.with(|net, _| {
            let (count, ticket) = seen.unwrap_or((net.change_count, net.hanging_count));
            if count != net.change_count {
                return None;
            }
            if seen.is_none() {
                net.hanging_count += 1;
            }
            net.hanging.insert(ticket, cx.waker().clone());
            Some((count, ticket))
        });
        match polled {
            Some(None) => Poll::Ready(()),
            Some(seen) => {
                self.seen = seen;
                Poll::Pending
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        if let Some((_, ticket)) = self.seen {
            let waker = self.net.shared.with(|state| state.net.hanging.remove(&ticket));
            drop(waker);
        }
    }
}

impl Listener for SimListener {
    type Stream = SimStream;

    async fn accept(&mut self) -> io::Result<(SimStream, String)> {
        let (net, port) = (&self.net, self.port);
        let accepted =
            poll_fn(|cx| net.poll(|state, _| state.accept(net.fence.host, port, cx.waker())));
        let (id, peer) = accepted.await;
        Ok((SimStream { net: net.clone(), id, side: Side::Acceptor }, peer))
    }

    fn local_address(&self) -> String {
        self.address.clone()
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let (host, port) = (self.net.fence.host, self.port);
        // A dead process has closed its ports already.
        self.net.with(|net, core| net.close_port(core, host, port)).unwrap_or(());
    }
}

impl AsyncRead for SimStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.net.poll(|net, core| net.read(core, self.id, self.side, buffer, cx.waker()))
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.net.poll(|net, core| net.write(core, self.id, self.side, bytes, cx.waker()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.net.poll(|net, core| {
            net.finish(core, self.id, self.side);
            Poll::Ready(Ok(()))
        })
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        // A dead process has closed its connections already.
        self.net.with(|net, core| net.close(core, self.id, self.side, false)).unwrap_or(());
    }
}
