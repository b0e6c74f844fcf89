//! The heart of a world: virtual time, the one timer queue, the fault ledger and the trace.
//!
//! Every deadline of the world lives in one queue here: however often a sleep is polled it is in
//! it once, and a sleep that is dropped costs nothing later. The loop of the world carries out
//! what is due after each turn of a task, and leaps to the next deadline when no task can go on.
//!
//! # Invariants
//! 1. Time never goes back, and passes a deadline only in the step that carries it out.
//! 2. Nothing here runs or drops a task in place: wakers only push to the executor's queue, so
//!    they may be called while the world is locked.

use std::collections::BTreeMap;
use std::task::Waker;
use std::time::Duration;

use madsim::time::TimeHandle;

use super::Host;
use super::disk::SyncJob;
use super::fault::FaultLedger;
use super::log::{Happening, Log};
use super::net::{ConnId, Side};
use super::options::Reseed;
use super::trace::{Record, Trace};

/// What happens at a deadline.
pub(super) enum Event {
    /// A sleep is over.
    Wake(Waker),
    /// Bytes arrive at an end whose reader waits.
    Arrive(ConnId, Side),
    /// An end learns that its connection was reset.
    Reset(ConnId, Side),
    /// A sync of a file or directory completes.
    Sync(SyncJob),
    /// Everything is drawn anew from now on.
    Reseed(Reseed),
}

/// An entry of the timer queue: deadline in nanoseconds, then the order of insertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TimerKey {
    at: u64,
    order: u64,
}

pub(super) struct Core {
    now: u64,
    /// The clock under the C library, and when it was last set.
    time: TimeHandle,
    time_set: u64,
    timers: BTreeMap<TimerKey, Event>,
    timer_count: u64,
    pub(super) faults: FaultLedger,
    pub(super) trace: Trace,
    /// Names of the machines, for the log.
    names: Vec<String>,
    log: Option<Log>,
}

impl Core {
    pub(super) fn new(time: TimeHandle, record: Record, log: Option<Log>) -> Self {
        Self {
            now: 0,
            time,
            time_set: 0,
            timers: BTreeMap::new(),
            timer_count: 0,
            faults: FaultLedger::default(),
            trace: Trace::new(record),
            names: Vec::new(),
            log,
        }
    }

    /// Tells the trace and the log how the next machine is called.
    pub(super) fn name_host(&mut self, name: &str) {
        self.trace.name_host(name);
        self.names.push(name.to_owned());
    }

    /// Tells whether a log is kept.
    pub(super) fn is_logged(&self) -> bool {
        self.log.is_some()
    }

    /// Notes something in the log, if there is one.
    pub(super) fn note(&self, host: Host, what: impl FnOnce() -> Happening) {
        if let Some(log) = &self.log {
            log.note(self.now(), self.names.get(host.0).cloned(), what());
        }
    }

    /// Notes something about the world in the log, if there is one.
    pub(super) fn note_world(&self, what: impl FnOnce() -> Happening) {
        if let Some(log) = &self.log {
            log.note(self.now(), None, what());
        }
    }

    /// Returns the nanoseconds since the world began.
    pub(super) fn now(&self) -> u64 {
        self.now
    }

    /// Adds an event; returns the key by which it can be cancelled.
    pub(super) fn insert(&mut self, at: u64, event: Event) -> TimerKey {
        let key = TimerKey { at, order: self.timer_count };
        self.timer_count += 1;
        self.timers.insert(key, event);
        key
    }

    /// Cancels an event; harmless if it has happened.
    pub(super) fn cancel(&mut self, key: TimerKey) {
        self.timers.remove(&key);
    }

    /// Makes a pending sleep wake `waker`; returns false if it is over.
    pub(super) fn rewake(&mut self, key: TimerKey, waker: &Waker) -> bool {
        match self.timers.get_mut(&key) {
            Some(Event::Wake(old)) => {
                old.clone_from(waker);
                true
            }
            Some(_) | None => false,
        }
    }

    /// Lets time pass; tells whether something is due now.
    pub(super) fn pass(&mut self, nanos: u64) -> bool {
        self.now += nanos;
        self.next_at().is_some_and(|at| at <= self.now)
    }

    /// Leaps to the next deadline; false if there is none.
    pub(super) fn leap(&mut self) -> bool {
        let Some(at) = self.next_at() else { return false };
        self.now = self.now.max(at);
        // Set now and then only: nothing of ours looks at it.
        self.time.advance(Duration::from_nanos(self.now - self.time_set));
        self.time_set = self.now;
        true
    }

    fn next_at(&self) -> Option<u64> {
        self.timers.first_key_value().map(|(key, _)| key.at)
    }

    /// Takes the next event that is due, if any.
    pub(super) fn take_due(&mut self) -> Option<Event> {
        let entry = self.timers.first_entry()?;
        (entry.key().at <= self.now).then(|| entry.remove())
    }

    /// Drops all that could keep tasks alive; the world is over.
    pub(super) fn stop(&mut self) {
        self.timers.clear();
    }

    /// Folds a frequent event into the hash.
    pub(super) fn fold(&mut self, host: Host, kind: &'static str, numbers: (u64, u64)) {
        let now = self.now();
        self.trace.fold(now, host, kind, numbers);
    }

    /// Traces an event.
    pub(super) fn event(
        &mut self,
        host: Host,
        kind: &'static str,
        numbers: (u64, u64),
        text: impl FnOnce() -> String,
    ) {
        let now = self.now();
        let Some(log) = &self.log else {
            return self.trace.event(now, host, kind, numbers, text);
        };
        let text = text();
        let what = Happening::Event { kind, numbers, text: text.clone() };
        log.note(now, self.names.get(host.0).cloned(), what);
        self.trace.event(now, host, kind, numbers, || text);
    }
}

/// Returns a duration in nanoseconds, at most 584 years.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns a length as the 64-bit number that offsets are made of.
pub(super) fn bytes_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
