//! The heart of a world: virtual time, the one timer queue, the fault ledger and the trace.
//!
//! madsim supplies the clock and wakes; its own timers cannot be cancelled and each poll of a
//! pending sleep adds one more, so every deadline of the world lives in one queue here. One task,
//! the *driver*, carries out what is due. A timer of madsim is only set for the earliest deadline,
//! and only if none that is as early is pending already; a sleep that is dropped costs nothing
//! later.
//!
//! # Invariants
//! 1. For the earliest entry of the queue a timer of madsim is pending that fires no later.
//! 2. Nothing here wakes or drops a task in place: wakers only push to madsim's ready queue, so
//!    they may be called while the world is locked.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use madsim::time::TimeHandle;

use super::Host;
use super::disk::SyncJob;
use super::fault::FaultLedger;
use super::log::{Happening, Log};
use super::net::{ConnId, Side};
use super::trace::Trace;

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
}

/// An entry of the timer queue: deadline in nanoseconds, then the order of insertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TimerKey {
    at: u64,
    order: u64,
}

pub(super) struct Core {
    time: TimeHandle,
    timers: BTreeMap<TimerKey, Event>,
    timer_count: u64,
    /// Deadlines for which a timer of madsim is pending.
    armed: BinaryHeap<Reverse<u64>>,
    driver: Option<Waker>,
    pub(super) faults: FaultLedger,
    pub(super) trace: Trace,
    /// Names of the machines, for the log.
    names: Vec<String>,
    log: Option<Log>,
}

impl Core {
    pub(super) fn new(time: TimeHandle, record_trace: bool, log: Option<Log>) -> Self {
        Self {
            time,
            timers: BTreeMap::new(),
            timer_count: 0,
            armed: BinaryHeap::new(),
            driver: None,
            faults: FaultLedger::default(),
            trace: Trace::new(record_trace),
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

    /// Returns the nanoseconds since the world began.
    pub(super) fn now(&self) -> u64 {
        nanos(self.time.elapsed())
    }

    /// Adds an event; returns the key by which it can be cancelled.
    pub(super) fn insert(&mut self, at: u64, event: Event) -> TimerKey {
        let key = TimerKey { at, order: self.timer_count };
        self.timer_count += 1;
        self.timers.insert(key, event);
        self.arm(at);
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

    /// Takes the next event that is due, if any.
    pub(super) fn take_due(&mut self, now: u64) -> Option<Event> {
        let entry = self.timers.first_entry()?;
        (entry.key().at <= now).then(|| entry.remove())
    }

    /// Gets ready for the next deadline; called by the driver when nothing is due.
    pub(super) fn rest(&mut self, now: u64, driver: &Waker) {
        match &mut self.driver {
            Some(waker) => waker.clone_from(driver),
            None => self.driver = Some(driver.clone()),
        }
        while self.armed.peek().is_some_and(|Reverse(at)| *at <= now) {
            self.armed.pop();
        }
        if let Some((key, _)) = self.timers.first_key_value() {
            self.arm(key.at);
        }
    }

    /// Drops all that could keep tasks alive; the world is over.
    pub(super) fn stop(&mut self) {
        self.timers.clear();
        self.driver = None;
    }

    /// Sets a timer of madsim for `at`, unless one that fires no later is pending.
    fn arm(&mut self, at: u64) {
        if self.armed.peek().is_some_and(|Reverse(armed)| *armed <= at) {
            return;
        }
        let Some(driver) = &self.driver else { return };
        let in_future = Duration::from_nanos(at.saturating_sub(self.now()));
        let deadline = self.time.now_instant() + in_future;
        // A new `Sleep` is never shorter than 1 ms; a reset one is taken at its word.
        let mut sleep = self.time.sleep_until(deadline);
        Pin::new(&mut sleep).reset(deadline);
        // Polled once, the sleep has left its timer with madsim and is not needed any more.
        if Pin::new(&mut sleep).poll(&mut Context::from_waker(driver)).is_ready() {
            driver.wake_by_ref();
        }
        self.armed.push(Reverse(at));
    }

    /// Folds a frequent event into the hash.
    pub(super) fn fold(&mut self, host: Host, a: u64, b: u64) {
        let now = self.now();
        self.trace.fold(now, host, a, b);
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
