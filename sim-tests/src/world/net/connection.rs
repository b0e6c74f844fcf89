//! One connection: two halves, each with the bytes that are on their way to it.

use std::collections::VecDeque;
use std::task::{Poll, Waker};

use bytes::{Buf, BytesMut};
use mangrove::base::Rng;
use tokio::io::ReadBuf;

use crate::world::Host;
use crate::world::core::{Core, Event, TimerKey, bytes_u64};
use crate::world::fault::{Fault, FaultSet};

/// One connection of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::world) struct ConnId(pub(in crate::world) u64);

/// One of the two ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::world) enum Side {
    /// The end that connected.
    Dialer,
    /// The end that accepted.
    Acceptor,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Dialer => Self::Acceptor,
            Self::Acceptor => Self::Dialer,
        }
    }

    pub(super) fn number(self) -> u64 {
        match self {
            Self::Dialer => 0,
            Self::Acceptor => 1,
        }
    }
}

/// When a segment arrives that something holds up.
pub(super) const HELD: u64 = u64::MAX;

/// A run of bytes that arrives at one time; without bytes it is the end of the stream.
#[derive(Debug)]
struct Segment {
    at: u64,
    len: usize,
    faults: FaultSet,
}

/// How an end stands to its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndState {
    /// A process has it.
    Open,
    /// The process closed it; its kernel answers whatever still arrives with a reset.
    Closed,
    /// Nobody remembers it: the machine lost its power, or the connection was black-holed.
    Gone,
}

/// A reset on its way to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResetState {
    None,
    /// Held by a partition.
    Held,
    Coming(TimerKey),
    Arrived,
}

/// One end, and the bytes on their way to it.
#[derive(Debug)]
pub(super) struct Half {
    pub(super) host: Host,
    pub(super) state: EndState,
    pub(super) reset: ResetState,
    /// Whether this end has ended its own direction.
    pub(super) has_finished: bool,
    bytes: BytesMut,
    segments: VecDeque<Segment>,
    last_at: u64,
    arrival: Option<TimerKey>,
    reader: Option<Waker>,
    /// The writer at this end, when it waits for room in the other end's buffer.
    writer: Option<Waker>,
}

impl Half {
    pub(super) fn new(host: Host) -> Self {
        Self {
            host,
            state: EndState::Open,
            reset: ResetState::None,
            has_finished: false,
            bytes: BytesMut::new(),
            segments: VecDeque::new(),
            last_at: 0,
            arrival: None,
            reader: None,
            writer: None,
        }
    }

    /// Returns how many bytes are on their way or wait to be read.
    pub(super) fn buffered(&self) -> usize {
        self.bytes.len()
    }

    /// Returns when the last segment that is on its way arrives; 0 if none is, or nobody waits.
    pub(super) fn quiet_at(&self) -> u64 {
        let last = self.segments.back().filter(|_| self.is_live());
        last.map_or(0, |segment| segment.at)
    }

    /// Appends a segment that arrives at `at`, but never ahead of an earlier one.
    pub(super) fn push(&mut self, at: u64, bytes: &[u8], faults: FaultSet) {
        let at = at.max(self.last_at);
        self.last_at = at;
        self.bytes.extend_from_slice(bytes);
        self.segments.push_back(Segment { at, len: bytes.len(), faults });
    }

    /// Flips bits in the segment that was pushed last.
    pub(super) fn flip_bits(&mut self, rng: &mut Rng) {
        let Some(segment) = self.segments.back_mut() else { return };
        let start = self.bytes.len() - segment.len;
        segment.faults.add(Fault::N8);
        for _ in 0..rng.range(1, 4) {
            let (at, bit) = (rng.index(segment.len), rng.range(0, 8));
            if let Some(byte) = self.bytes.get_mut(start + at) {
                *byte ^= 1 << bit;
            }
        }
    }

    /// Sets a timer for the next arrival, if a reader waits for it.
    pub(super) fn await_arrival(&mut self, core: &mut Core, id: ConnId, side: Side) {
        if self.reader.is_none() || self.arrival.is_some() {
            return;
        }
        if let Some(segment) = self.segments.front().filter(|segment| segment.at != HELD) {
            self.arrival = Some(core.insert(segment.at, Event::Arrive(id, side)));
        }
    }

    /// The first segment has arrived: its reader goes on.
    pub(super) fn arrive(&mut self) {
        self.arrival = None;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Holds up every segment that has not arrived yet.
    pub(super) fn hold(&mut self, core: &mut Core, now: u64, fault: Fault) {
        for segment in self.segments.iter_mut().filter(|segment| segment.at > now) {
            segment.at = HELD;
            segment.faults.add(fault);
            self.last_at = HELD;
        }
        if let Some(key) = self.arrival.take() {
            core.cancel(key);
        }
        if let ResetState::Coming(key) = self.reset {
            core.cancel(key);
            self.reset = ResetState::Held;
        }
    }

    /// Tells whether that fault holds a segment up.
    pub(super) fn holds(&self, fault: Fault) -> bool {
        self.segments.iter().any(|segment| segment.at == HELD && segment.faults.contains(fault))
    }

    /// Lets held segments arrive from `at` on.
    pub(super) fn release(&mut self, at: u64) {
        for segment in self.segments.iter_mut().filter(|segment| segment.at == HELD) {
            segment.at = at;
            self.last_at = at;
        }
    }

    /// Forgets held segments: the machine that would have sent them again is off.
    pub(super) fn drop_held(&mut self) {
        while self.segments.back().is_some_and(|segment| segment.at == HELD) {
            let len = self.segments.pop_back().map_or(0, |segment| segment.len);
            self.bytes.truncate(self.bytes.len() - len);
        }
        self.last_at = self.segments.back().map_or(0, |segment| segment.at);
    }

    /// Breaks the connection for this end.
    pub(super) fn break_off(&mut self, core: &mut Core) {
        self.forget(core);
        self.reset = ResetState::Arrived;
        self.wake_all();
    }

    /// Forgets all that is on its way here.
    pub(super) fn forget(&mut self, core: &mut Core) {
        self.cancel_timers(core);
        self.bytes.clear();
        self.segments.clear();
    }

    /// Falls silent: what is on its way here stays with the other end's kernel.
    pub(super) fn fall_silent(&mut self, core: &mut Core) {
        self.cancel_timers(core);
        self.drop_wakers();
        for segment in &mut self.segments {
            segment.at = HELD;
        }
    }

    fn cancel_timers(&mut self, core: &mut Core) {
        if let Some(key) = self.arrival.take() {
            core.cancel(key);
        }
        if let ResetState::Coming(key) = self.reset {
            core.cancel(key);
            self.reset = ResetState::None;
        }
    }

    /// Drops the wakers of a dead end.
    pub(super) fn drop_wakers(&mut self) {
        self.reader = None;
        self.writer = None;
    }

    /// Tells whether this end still takes part in the connection.
    pub(super) fn is_live(&self) -> bool {
        self.state == EndState::Open && self.reset != ResetState::Arrived
    }

    pub(super) fn wake_all(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    pub(super) fn wait_for_room(&mut self, waker: &Waker) {
        match &mut self.writer {
            Some(writer) => writer.clone_from(waker),
            None => self.writer = Some(waker.clone()),
        }
    }

    pub(super) fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    pub(super) fn wait_for_bytes(&mut self, waker: &Waker) {
        match &mut self.reader {
            Some(reader) => reader.clone_from(waker),
            None => self.reader = Some(waker.clone()),
        }
    }

    /// Moves at most `room` bytes that have arrived into `buffer`; pending if there are none.
    pub(super) fn take(
        &mut self,
        core: &mut Core,
        now: u64,
        buffer: &mut ReadBuf<'_>,
        room: usize,
    ) -> Poll<usize> {
        let mut taken = 0;
        while let Some(segment) = self.segments.front_mut().filter(|segment| segment.at <= now) {
            if segment.len == 0 {
                // The end of the stream stays, for every later read.
                core.faults.observed_all(std::mem::take(&mut segment.faults));
                return Poll::Ready(taken);
            }
            let count = segment.len.min(room - taken);
            if count == 0 {
                break;
            }
            core.faults.observed_all(std::mem::take(&mut segment.faults));
            buffer.put_slice(self.bytes.get(..count).unwrap_or_default());
            self.bytes.advance(count);
            segment.len -= count;
            taken += count;
            if segment.len == 0 {
                self.segments.pop_front();
            }
        }
        if taken == 0 { Poll::Pending } else { Poll::Ready(taken) }
    }
}

/// Every connection of the world, by its number.
#[derive(Debug, Default)]
pub(super) struct Connections {
    all: Vec<Option<Box<Connection>>>,
}

impl Connections {
    /// Returns the number of the connection that will be added next.
    pub(super) fn next_id(&self) -> ConnId {
        ConnId(bytes_u64(self.all.len()))
    }

    pub(super) fn add(&mut self, connection: Connection) {
        self.all.push(Some(Box::new(connection)));
    }

    pub(super) fn get(&self, id: ConnId) -> Option<&Connection> {
        self.all.get(usize::try_from(id.0).ok()?)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.all.get_mut(usize::try_from(id.0).ok()?)?.as_deref_mut()
    }

    pub(super) fn remove(&mut self, id: ConnId) -> Option<Box<Connection>> {
        self.all.get_mut(usize::try_from(id.0).ok()?)?.take()
    }

    /// Returns those that are there, in the order in which they were made.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ConnId, &Connection)> {
        (0..).map(ConnId).zip(&self.all).filter_map(|(id, slot)| Some((id, slot.as_deref()?)))
    }

    pub(super) fn clear(&mut self) {
        self.all.clear();
    }
}

/// A connection between two processes.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) dialer: Half,
    pub(super) acceptor: Half,
}

impl Connection {
    /// Returns the half at `side` and the other one.
    pub(super) fn halves(&mut self, side: Side) -> (&mut Half, &mut Half) {
        match side {
            Side::Dialer => (&mut self.dialer, &mut self.acceptor),
            Side::Acceptor => (&mut self.acceptor, &mut self.dialer),
        }
    }

    /// Tells whether no process has an end of it any more.
    pub(super) fn is_over(&self) -> bool {
        self.dialer.state != EndState::Open && self.acceptor.state != EndState::Open
    }
}
