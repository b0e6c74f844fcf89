//! The network of the world: reliable ordered byte streams that stall, break or fall silent.
//!
//! A node sees it as [`SimNet`], [`SimListener`] and [`SimStream`]. The network is at the level of
//! TCP's promises, not of its packets: what is written in one call travels as one *segment*,
//! segments of one direction arrive in order, and every fault is something that a TCP user can
//! see: a stall where packets were lost or cut off, a reset, an early end of stream, silence.
//!
//! A machine has a kernel that outlives its processes. A crashed process's connections end as the
//! kernel ends them: with the end of the stream, or with a reset if it left bytes unread. A
//! machine without power says nothing: its peers write until their buffers are full and read for
//! ever, and once it is up again they get a reset for what they send. Connecting to a machine that
//! is off or cut off hangs; connecting to a port that nobody listens on is refused.
//!
//! A reader is woken only when its bytes are due, by one timer per wait, however many segments
//! arrive meanwhile; a segment that nobody waits for needs no timer at all.
//!
//! # Invariants
//! 1. Segments of one direction never overtake each other.
//! 2. The bytes on their way to an end never exceed the buffer size of the options.
//! 3. A fault whose rate is zero draws nothing.
//!
//! # Left out
//! Acknowledgements as a thing of their own: under a one-way partition the open direction goes on
//! delivering, where TCP would stop after a window of unacknowledged bytes. TCP's own time-outs
//! (many minutes). Packets, hence duplicates and reordering within a stream.

mod connection;
mod link;
mod partition;
mod stream;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::task::{Poll, Waker};

use mangrove::base::Rng;
use tokio::io::ReadBuf;

pub(super) use self::connection::{ConnId, Side};
use self::connection::{Connection, Connections, EndState, HELD, Half, ResetState};
use self::link::{Link, Passage, loopback, resend_at};
pub(super) use self::partition::Hold;
pub use self::partition::Reset;
pub use self::stream::{SimListener, SimNet, SimStream};
use super::Host;
use super::core::{Core, Event, bytes_u64, nanos};
use super::fate::{Decided, Fate, For};
use super::fault::{Fault, FaultSet};
use super::options::{LinkOptions, NetOptions, Reseed};
use super::trace::fold_bytes;

/// First port that is given to a listener that asked for any.
const EPHEMERAL_PORT: u16 = 49_152;

/// A machine as the network sees it.
#[derive(Debug, Default)]
struct Endpoint {
    name: String,
    is_client: bool,
    is_up: bool,
    listeners: BTreeMap<u16, Backlog>,
    port_count: u16,
}

/// The connections that wait at a port to be accepted.
#[derive(Debug, Default)]
struct Backlog {
    waiting: VecDeque<ConnId>,
    accepter: Option<Waker>,
}

/// What becomes of an attempt to connect, at the machine that it reached or did not.
pub(super) enum Attempt {
    Accepted(ConnId),
    Refused,
    /// Nothing comes back until the network changes.
    Silence,
}

/// What was sent over links of one kind, whether it arrived or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// Segments: what was written in one call.
    pub segments: u64,
    /// Bytes.
    pub bytes: u64,
}

pub(super) struct Net {
    pub(super) options: NetOptions,
    /// What servers have sent each other so far.
    pub(super) traffic: Sent,
    fate: Fate,
    decided: Vec<Decided>,
    /// For scenarios that swizzle.
    swizzle: Rng,
    endpoints: Vec<Endpoint>,
    /// By source, then by destination.
    links: Vec<Vec<Link>>,
    connections: Connections,
    /// Attempts to connect that wait for the network to change.
    hanging: BTreeMap<u64, Waker>,
    hanging_count: u64,
    /// How often the network has changed so that an attempt may succeed now.
    change_count: u64,
}

impl Net {
    pub(super) fn new(options: NetOptions, rng: &Rng, decided: Vec<Decided>) -> Self {
        Self {
            options,
            traffic: Sent::default(),
            fate: Fate::root(rng).named("net"),
            decided,
            swizzle: rng.split("net.swizzle"),
            endpoints: Vec::new(),
            links: Vec::new(),
            connections: Connections::default(),
            hanging: BTreeMap::new(),
            hanging_count: 0,
            change_count: 0,
        }
    }

    /// Draws everything anew from now on.
    pub(super) fn reseed(&mut self, reseed: Reseed) {
        self.fate = self.fate.reseeded(reseed.number);
        self.swizzle = reseed.split(&self.swizzle);
        for link in self.links.iter_mut().flatten() {
            link.segments.reseed(reseed.number);
            link.reads.reseed(reseed.number);
        }
    }

    pub(super) fn add_host(&mut self, name: &str, is_client: bool) {
        let name = name.to_owned();
        self.endpoints.push(Endpoint { name, is_client, is_up: true, ..Endpoint::default() });
        let count = self.endpoints.len();
        self.links.resize_with(count, Vec::new);
        for from in 0..count {
            for to in 0..count {
                let is_new = self.links.get(from).is_some_and(|row| row.len() == to);
                if is_new {
                    let link = self.make_link(Host(from), Host(to));
                    self.links.get_mut(from).into_iter().for_each(|row| row.push(link.clone()));
                }
            }
        }
    }

    /// Makes a link; its fates belong to the names of its ends, whatever their numbers.
    fn make_link(&mut self, from: Host, to: Host) -> Link {
        let (source, target) = (self.endpoint(from).name.clone(), self.endpoint(to).name.clone());
        let mut link = Link::new(self.fate.named(&source).named(&target));
        for decided in &self.decided {
            if let Decided::Segment { from, to, moment, delay } = decided
                && (from, to) == (&source, &target)
            {
                link.segments.decide(*moment, nanos(*delay));
            }
        }
        link
    }

    /// Returns the machines that are not clients.
    pub(super) fn servers(&self) -> Vec<Host> {
        let all = self.endpoints.iter().enumerate();
        all.filter(|(_, endpoint)| !endpoint.is_client).map(|(host, _)| Host(host)).collect()
    }

    fn endpoint(&mut self, host: Host) -> &mut Endpoint {
        match self.endpoints.get_mut(host.0) {
            Some(endpoint) => endpoint,
            None => panic!("the network has no host {host:?}"),
        }
    }

    fn link(&mut self, from: Host, to: Host) -> &mut Link {
        match self.links.get_mut(from.0).and_then(|row| row.get_mut(to.0)) {
            Some(link) => link,
            None => panic!("the network has no link {from:?} to {to:?}"),
        }
    }

    fn is_client_link(&mut self, from: Host, to: Host) -> bool {
        self.endpoint(from).is_client || self.endpoint(to).is_client
    }

    /// Finds the machine of `host:port`.
    fn resolve(&self, address: &str) -> io::Result<(Host, u16)> {
        let parts = address.rsplit_once(':');
        let parsed = parts.and_then(|(name, port)| Some((name, port.parse().ok()?)));
        let Some((name, port)) = parsed else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a host:port address"));
        };
        let found = self.endpoints.iter().position(|endpoint| endpoint.name == name);
        let host = found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "unknown host"))?;
        Ok((Host(host), port))
    }

    /// Sends a segment from one machine to another: tells when it arrives.
    fn pass(&mut self, core: &mut Core, from: Host, to: Host, len: usize) -> Passage {
        let now = core.now();
        if from == to {
            return loopback(now);
        }
        let is_client = self.is_client_link(from, to);
        let Self { options, traffic, links, .. } = self;
        if !is_client {
            traffic.segments += 1;
            traffic.bytes += bytes_u64(len);
        }
        let options = if is_client { &options.clients } else { &options.servers };
        let Some(link) = links.get_mut(from.0).and_then(|row| row.get_mut(to.0)) else {
            return loopback(now);
        };
        let mut passage = if let Some(fault) = link.holder() {
            let mut faults = FaultSet::default();
            faults.add(fault);
            Passage { at: HELD, faults, fate: link.segments.next(now) }
        } else {
            let passage = link.pass(options, now, len);
            for fault in [Fault::N1, Fault::N2, Fault::N9] {
                if passage.faults.contains(fault) {
                    core.faults.injected(fault);
                }
            }
            passage
        };
        if is_client && !passage.faults.is_empty() {
            core.faults.injected(Fault::N10);
            passage.faults.add(Fault::N10);
        }
        passage
    }

    fn link_options(&mut self, from: Host, to: Host) -> &LinkOptions {
        if self.is_client_link(from, to) { &self.options.clients } else { &self.options.servers }
    }

    /// Opens a port for a process; port 0 picks a free one.
    fn listen(&mut self, host: Host, port: u16) -> io::Result<u16> {
        let endpoint = self.endpoint(host);
        let (mut port, any) = (port, port == 0);
        while any && (port == 0 || endpoint.listeners.contains_key(&port)) {
            port = EPHEMERAL_PORT + endpoint.port_count;
            endpoint.port_count = (endpoint.port_count + 1) % (u16::MAX - EPHEMERAL_PORT);
        }
        if endpoint.listeners.contains_key(&port) {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "address in use"));
        }
        endpoint.listeners.insert(port, Backlog::default());
        Ok(port)
    }

    /// Closes a port: whoever waits there is reset.
    fn close_port(&mut self, core: &mut Core, host: Host, port: u16) {
        if let Some(backlog) = self.endpoint(host).listeners.remove(&port) {
            for id in backlog.waiting {
                self.close(core, id, Side::Acceptor, true);
            }
        }
    }

    fn accept(&mut self, host: Host, port: u16, waker: &Waker) -> Poll<(ConnId, String)> {
        let Some(backlog) = self.endpoint(host).listeners.get_mut(&port) else {
            return Poll::Pending;
        };
        let Some(id) = backlog.waiting.pop_front() else {
            backlog.accepter = Some(waker.clone());
            return Poll::Pending;
        };
        let from = self.connections.get(id).map_or(host, |connection| connection.dialer.host);
        Poll::Ready((id, format!("{}:{}", self.endpoint(from).name, id.0)))
    }

    /// A first segment reaches the machine that it was sent to, unless something is in the way.
    fn attempt(&mut self, core: &mut Core, from: Host, to: (Host, u16)) -> Attempt {
        let backlog_max = self.options.backlog_max;
        let there = self.link(from, to.0).holder();
        let Some(fault) = there.or(self.link(to.0, from).holder()) else {
            return self.reach(core, from, to, backlog_max);
        };
        core.faults.observed(fault);
        Attempt::Silence
    }

    fn reach(
        &mut self,
        core: &mut Core,
        from: Host,
        to: (Host, u16),
        backlog_max: usize,
    ) -> Attempt {
        let id = self.connections.next_id();
        let endpoint = self.endpoint(to.0);
        if !endpoint.is_up {
            return Attempt::Silence;
        }
        let Some(backlog) = endpoint.listeners.get_mut(&to.1) else { return Attempt::Refused };
        if backlog.waiting.len() >= backlog_max {
            return Attempt::Silence;
        }
        backlog.waiting.push_back(id);
        if let Some(accepter) = backlog.accepter.take() {
            accepter.wake();
        }
        let (dialer, acceptor) = (Half::new(from), Half::new(to.0));
        self.connections.add(Connection { dialer, acceptor });
        let peer = &self.endpoint(to.0).name;
        let numbers = (id.0, bytes_u64(to.0.0));
        core.event(from, "net.connects", numbers, || format!("#{} to {peer}", id.0));
        Attempt::Accepted(id)
    }

    /// Writes to a connection: takes as many bytes as there is room for.
    fn write(
        &mut self,
        core: &mut Core,
        id: ConnId,
        side: Side,
        bytes: &[u8],
        waker: &Waker,
    ) -> Poll<io::Result<usize>> {
        let buffer_bytes = self.options.buffer_bytes;
        let Some(connection) = self.connections.get_mut(id) else { return reset_error() };
        let (own, peer) = connection.halves(side);
        if own.reset == ResetState::Arrived {
            return reset_error();
        }
        if own.has_finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = buffer_bytes.saturating_sub(peer.buffered());
        let bytes = bytes.get(..room).unwrap_or(bytes);
        if bytes.is_empty() {
            own.wait_for_room(waker);
            return Poll::Pending;
        }
        let (from, to, is_live) = (own.host, peer.host, peer.is_live());
        let len = bytes.len();
        if is_live {
            let passage = self.pass(core, from, to, len);
            let Some(connection) = self.connections.get_mut(id) else { return reset_error() };
            let (_, peer) = connection.halves(side);
            peer.push(passage.at, bytes, passage.faults);
            peer.await_arrival(core, id, side.other());
            if from != to {
                self.disturb(core, id, side, passage.fate);
            }
        } else if self.endpoint(to).is_up && !self.link(from, to).is_held() {
            // Nobody is there who knows the connection: the bytes are answered with a reset.
            self.send_reset(core, id, side, 0);
        } else {
            let Some(connection) = self.connections.get_mut(id) else { return reset_error() };
            connection.halves(side).1.push(HELD, bytes, FaultSet::default());
        }
        Poll::Ready(Ok(len))
    }

    /// Lets faults happen to the segment that was sent last.
    fn disturb(&mut self, core: &mut Core, id: ConnId, side: Side, fate: Fate) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let (own, peer) = connection.halves(side);
        let (from, to) = (own.host, peer.host);
        let options = self.link_options(from, to);
        let (bit_flip, reset) = (options.bit_flip, options.reset);
        if fate.chance(For::Flip, bit_flip) {
            core.faults.injected(Fault::N8);
            if let Some(connection) = self.connections.get_mut(id) {
                connection.halves(side).1.flip_bits(&mut fate.stream(For::Flips));
            }
        }
        if fate.chance(For::Reset, reset) {
            self.reset_some_ends(core, id, fate);
        }
    }

    /// Reads from a connection what has arrived; nothing at the end of the stream.
    fn read(
        &mut self,
        core: &mut Core,
        id: ConnId,
        side: Side,
        buffer: &mut ReadBuf<'_>,
        waker: &Waker,
    ) -> Poll<io::Result<()>> {
        let now = core.now();
        let short = {
            let Some(connection) = self.connections.get_mut(id) else { return reset_error() };
            let (own, peer) = connection.halves(side);
            let (from, to) = (peer.host, own.host);
            let chance = self.link_options(from, to).short_read;
            (chance > 0.0).then(|| (self.link(from, to).reads.next(now), chance))
        };
        let wake_below = self.options.buffer_bytes / 2;
        let Some(connection) = self.connections.get_mut(id) else { return reset_error() };
        let (own, peer) = connection.halves(side);
        if own.reset == ResetState::Arrived {
            return reset_error();
        }
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let start = buffer.filled().len();
        let mut room = buffer.remaining();
        if let Some((fate, chance)) = short
            && room > 1
            && fate.chance(For::Short, chance)
        {
            room = 1 + fate.index(For::ShortLength, room);
        }
        match own.take(core, now, buffer, room) {
            Poll::Ready(taken) => {
                if own.buffered() <= wake_below {
                    peer.wake_writer();
                }
                let read = buffer.filled().get(start..).unwrap_or_default();
                let (host, number) = (own.host, id.0 << 32 | side.number() << 31);
                core.fold(host, "net.read", (number | bytes_u64(taken), fold_bytes(read)));
                Poll::Ready(Ok(()))
            }
            Poll::Pending => {
                own.wait_for_bytes(waker);
                own.await_arrival(core, id, side);
                Poll::Pending
            }
        }
    }

    /// Ends one direction of a connection, after what was written before.
    fn finish(&mut self, core: &mut Core, id: ConnId, side: Side) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let (own, peer) = connection.halves(side);
        if own.has_finished || own.reset == ResetState::Arrived {
            return;
        }
        own.has_finished = true;
        let (from, to, is_live) = (own.host, peer.host, peer.is_live());
        if !is_live {
            return;
        }
        let passage = self.pass(core, from, to, 0);
        if let Some(connection) = self.connections.get_mut(id) {
            let (_, peer) = connection.halves(side);
            peer.push(passage.at, &[], passage.faults);
            peer.await_arrival(core, id, side.other());
        }
    }

    /// Closes an end as the kernel does: politely if all was read, else with a reset.
    fn close(&mut self, core: &mut Core, id: ConnId, side: Side, is_rude: bool) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let (own, peer) = connection.halves(side);
        if own.state != EndState::Open {
            return;
        }
        let is_broken = own.reset == ResetState::Arrived;
        let has_unread = own.buffered() > 0;
        let peer_is_open = peer.state == EndState::Open;
        own.state = EndState::Closed;
        let host = own.host;
        core.event(host, "net.closes", (id.0, side.number()), || format!("#{}", id.0));
        if peer_is_open && !is_broken {
            if is_rude || has_unread {
                self.send_reset(core, id, side.other(), 0);
            } else {
                self.finish(core, id, side);
            }
        }
        if let Some(connection) = self.connections.get_mut(id) {
            let (own, _) = connection.halves(side);
            own.forget(core);
            own.drop_wakers();
            if connection.is_over() {
                self.remove(core, id);
            }
        }
    }

    fn remove(&mut self, core: &mut Core, id: ConnId) {
        if let Some(mut connection) = self.connections.remove(id) {
            connection.dialer.forget(core);
            connection.acceptor.forget(core);
        }
    }

    /// Sends a reset to the end at `side`, from the other end's machine.
    fn send_reset(&mut self, core: &mut Core, id: ConnId, side: Side, delay: u64) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let (own, peer) = connection.halves(side);
        if own.reset != ResetState::None || own.state != EndState::Open {
            return;
        }
        let (from, to) = (peer.host, own.host);
        let at = self.pass(core, from, to, 0).at;
        let Some(connection) = self.connections.get_mut(id) else { return };
        let (own, _) = connection.halves(side);
        own.reset = if at == HELD {
            ResetState::Held
        } else {
            ResetState::Coming(core.insert(at.saturating_add(delay), Event::Reset(id, side)))
        };
    }

    /// Carries out an arrival or a reset that is due.
    pub(super) fn fire_arrival(&mut self, id: ConnId, side: Side) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.halves(side).0.arrive();
        }
    }

    /// An end learns that its connection is reset.
    pub(super) fn fire_reset(&mut self, core: &mut Core, id: ConnId, side: Side) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let (own, peer) = connection.halves(side);
        let host = own.host;
        own.break_off(core);
        // What this end had sent goes nowhere any more.
        if peer.state != EndState::Open {
            peer.forget(core);
        }
        core.event(host, "net.reset", (id.0, side.number()), || format!("#{}", id.0));
    }

    /// A process has ended: its kernel closes what it had open.
    pub(super) fn process_ended(&mut self, core: &mut Core, host: Host) {
        let ports: Vec<u16> = self.endpoint(host).listeners.keys().copied().collect();
        for port in ports {
            self.close_port(core, host, port);
        }
        for (id, side) in self.ends_at(host) {
            self.close(core, id, side, false);
        }
    }

    /// A machine has lost its power: its connections fall silent.
    pub(super) fn power_lost(&mut self, core: &mut Core, host: Host) {
        let endpoint = self.endpoint(host);
        endpoint.is_up = false;
        endpoint.listeners.clear();
        for (id, side) in self.ends_at(host) {
            let Some(connection) = self.connections.get_mut(id) else { continue };
            let (own, peer) = connection.halves(side);
            own.state = EndState::Gone;
            own.fall_silent(core);
            peer.drop_held();
            if peer.reset == ResetState::Held {
                peer.reset = ResetState::None;
            }
            if connection.is_over() {
                self.remove(core, id);
            }
        }
    }

    /// A machine has power again: what was sent to it meanwhile is answered with resets.
    pub(super) fn power_restored(&mut self, core: &mut Core, host: Host) {
        self.endpoint(host).is_up = true;
        for (id, side) in self.ends_at(host) {
            let Some(connection) = self.connections.get_mut(id) else { continue };
            let (own, peer) = connection.halves(side);
            if own.state == EndState::Gone && own.buffered() > 0 {
                let peer = peer.host;
                let fate = self.link(peer, host).segments.next(core.now());
                let delay = resend_at(0, core.now(), &self.options, fate) - core.now();
                self.send_reset(core, id, side.other(), delay);
            }
        }
        self.wake_hanging();
    }

    fn wake_hanging(&mut self) {
        self.change_count += 1;
        for (_, waker) in std::mem::take(&mut self.hanging) {
            waker.wake();
        }
    }

    fn ends_at(&self, host: Host) -> Vec<(ConnId, Side)> {
        let ends = self.connections.iter().flat_map(|(id, connection)| {
            let dialer = (connection.dialer.host == host).then_some((id, Side::Dialer));
            let acceptor = (connection.acceptor.host == host).then_some((id, Side::Acceptor));
            dialer.into_iter().chain(acceptor)
        });
        ends.collect()
    }

    /// Forgets every connection; the world is over.
    pub(super) fn stop(&mut self) {
        self.connections.clear();
        self.hanging.clear();
        for endpoint in &mut self.endpoints {
            endpoint.listeners.clear();
        }
    }
}

fn reset_error<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
}
