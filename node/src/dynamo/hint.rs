//! Hints: what another replica missed, kept here until it has it.
//!
//! A hint is a note on the own disk with the entries of one share, under their original stamps.
//! Of each, only number, stamp and length stay in memory; the entries are read back in pages
//! when the target is up, and sent in the order they were made, so many bytes in flight at most.
//! A hint is erased when the target has it, and not before: a lost answer costs a second delivery,
//! which changes nothing.
//!
//! Hints are an optimisation of anti-entropy, so they have limits: bytes, number and age. What is
//! over one is dropped, oldest first, and counted for people to see.
//!
//! # Sources
//! \[Dynamo §4.6\]. Unlike there, a hint counts for no quorum.

use std::collections::{BTreeMap, BTreeSet};

use super::config::Config;
use super::context::{Context, Owner, Then};
use super::message::{RequestId, WriteOutcome};
use super::notes::{self, Kind};
use super::ready::{Found, ReadId, StoreRead};
use crate::base::{Entry, Instant, NodeId, Payload, Stamp};
use crate::{planted, probe};

/// The hints kept here.
#[derive(Debug, Default)]
pub(super) struct Hints {
    targets: BTreeMap<NodeId, Target>,
    /// Hints dropped since the start: over a limit, or damaged on the disk.
    dropped: u64,
    /// Pages that are being read.
    reading: BTreeMap<ReadId, Page>,
    /// Of the hints in flight.
    sent: BTreeMap<u64, (NodeId, u64)>,
}

/// A page of hints that is being read.
#[derive(Debug, Clone, Copy)]
struct Page {
    node: NodeId,
    /// First number.
    first: u64,
    /// Last number that was durable then, and so is on this page or a later one.
    last: u64,
}

/// The hints for one node.
#[derive(Debug, Default)]
struct Target {
    /// By number.
    hints: BTreeMap<u64, Hint>,
    /// The same, oldest first.
    by_stamp: BTreeSet<(Stamp, u64)>,
    bytes: usize,
    /// Number of the next hint.
    next: u64,
    /// From here on nothing has been sent.
    cursor: u64,
    in_flight: BTreeMap<u64, RequestId>,
    in_flight_bytes: usize,
    reading: Option<ReadId>,
    /// When what is in flight is given up and sent again, or sending may begin.
    retry_at: Option<Instant>,
}

#[derive(Debug)]
struct Hint {
    stamp: Stamp,
    bytes: usize,
    is_durable: bool,
    /// Its entries, until they are durable.
    fresh: Vec<Entry>,
}

impl Hints {
    /// Learns of a hint that is on the disk.
    pub(super) fn recover(&mut self, target: NodeId, number: u64, content: &[u8]) {
        let Some(head) = notes::head(content) else {
            self.dropped += 1;
            return;
        };
        let hint =
            Hint { stamp: head.stamp, bytes: head.bytes, is_durable: true, fresh: Vec::new() };
        self.targets.entry(target).or_default().insert(number, hint);
    }

    /// Makes a hint. Returns its number, under which it is reported durable; `None` if it is
    /// larger than all hints may be, and was dropped.
    pub(super) fn add(
        &mut self,
        context: &mut Context,
        target: NodeId,
        stamp: Stamp,
        entries: &[Entry],
    ) -> Option<u64> {
        let number = self.targets.entry(target).or_default().next;
        let kind = Kind::Hint { target, number };
        let (record, head) = notes::keep_entries(kind, stamp, entries);
        if head.bytes > context.config.hint_bytes_max || context.config.hint_count_max == 0 {
            probe!("dynamo.hint_too_large");
            self.dropped += 1;
            return None;
        }
        self.make_room(context, target, head.bytes);
        let then = Then::HintStored(target, number);
        if planted!("D7") {
            context.done(then);
        } else {
            context.persist(record, then);
        }
        let fresh = if planted!("D7") { entries.to_vec() } else { Vec::new() };
        let hint = Hint { stamp, bytes: head.bytes, is_durable: false, fresh };
        self.targets.entry(target).or_default().insert(number, hint);
        Some(number)
    }

    /// A hint is durable and can be delivered.
    pub(super) fn on_stored(&mut self, context: &mut Context, target: NodeId, number: u64) {
        let hints = self.targets.get_mut(&target).map(|target| &mut target.hints);
        if let Some(hint) = hints.and_then(|hints| hints.get_mut(&number)) {
            hint.is_durable = true;
        }
        self.deliver(context, target);
    }

    /// A peer is there: its hints may go. If it has just started, what it was sent before is lost.
    pub(super) fn on_peer_heard(&mut self, context: &mut Context, peer: NodeId, is_new: bool) {
        if is_new {
            self.recall(context, peer);
            if let Some(target) = self.targets.get_mut(&peer) {
                target.retry_at = None;
            }
        }
        self.deliver(context, peer);
    }

    /// What was in flight to a peer may be lost: it is sent again soon.
    pub(super) fn on_peer_lost(&mut self, context: &mut Context, peer: NodeId) {
        self.recall(context, peer);
    }

    /// Reads the next page of hints for a target that is up, if there is room in its window.
    fn deliver(&mut self, context: &mut Context, node: NodeId) {
        let Some(target) = self.targets.get_mut(&node) else { return };
        let room = context.config.hint_window_bytes.saturating_sub(target.in_flight_bytes);
        let is_waiting = target.in_flight.is_empty()
            && target.retry_at.is_some_and(|retry_at| context.now < retry_at);
        if target.reading.is_some()
            || room == 0
            || is_waiting
            || !context.detector.is_up(node, context.now)
        {
            return;
        }
        let Some((&number, hint)) = target.hints.range(target.cursor..).next() else { return };
        if planted!("D7") && !hint.fresh.is_empty() {
            let entries = hint.fresh.clone();
            self.send(context, node, number, entries);
            return;
        }
        if !hint.is_durable {
            return;
        }
        let read = StoreRead::Notes {
            prefix: notes::hints_of(node),
            start: Kind::Hint { target: node, number }.place(),
            bytes_max: room,
        };
        let durable = target.hints.range(number..).rev().find(|(_, hint)| hint.is_durable);
        let last = durable.map_or(number, |(&last, _)| last);
        let id = context.read_store(Owner::Hints, read);
        target.reading = Some(id);
        self.reading.insert(id, Page { node, first: number, last });
    }

    /// A page of hints was read: sends them.
    pub(super) fn on_store_read(&mut self, context: &mut Context, id: ReadId, found: Found) {
        let Some(page) = self.reading.remove(&id) else { return };
        let node = page.node;
        let Some(target) = self.targets.get_mut(&node) else { return };
        target.reading = None;
        let Found::Notes { notes, is_more } = found else { return };
        let notes: BTreeMap<u64, Payload> = notes
            .into_iter()
            .filter_map(|(place, content)| match Kind::of(place.as_bytes()) {
                Some(Kind::Hint { target, number }) if target == node => Some((number, content)),
                _ => None,
            })
            .collect();
        if is_more && notes.is_empty() {
            return;
        }
        let last = notes.keys().next_back().copied().filter(|_| is_more);
        self.drop_missing(context, page, last.unwrap_or(page.last), &notes);
        for (number, content) in notes {
            self.on_read_back(context, node, number, &content);
        }
        if is_more {
            self.deliver(context, node);
        }
    }

    fn on_read_back(
        &mut self,
        context: &mut Context,
        node: NodeId,
        number: u64,
        content: &Payload,
    ) {
        let Some(target) = self.targets.get_mut(&node) else { return };
        let has_room = target.in_flight_bytes < context.config.hint_window_bytes;
        let is_next = target.hints.range(target.cursor..).next().is_some_and(|(&n, _)| n == number);
        if !has_room || !is_next {
            return;
        }
        if let Some(entries) = notes::entries(content.as_bytes()) {
            self.send(context, node, number, entries);
        } else {
            probe!("dynamo.hint_damaged");
            self.dropped += 1;
            self.erase(context, node, number);
        }
    }

    /// Drops hints that should have been on the page and were not: the disk lost them.
    fn drop_missing(
        &mut self,
        context: &mut Context,
        page: Page,
        last: u64,
        notes: &BTreeMap<u64, Payload>,
    ) {
        let Some(target) = self.targets.get_mut(&page.node) else { return };
        let hints = target.hints.range(page.first..=last.max(page.first));
        let hints = hints.filter(|(number, hint)| {
            hint.is_durable && hint.fresh.is_empty() && **number <= page.last
        });
        let missing: Vec<u64> = hints.map(|(&n, _)| n).filter(|n| !notes.contains_key(n)).collect();
        for number in missing {
            probe!("dynamo.hint_missing");
            self.dropped += 1;
            self.erase(context, page.node, number);
        }
    }

    fn send(&mut self, context: &mut Context, node: NodeId, number: u64, mut entries: Vec<Entry>) {
        let Some(target) = self.targets.get_mut(&node) else { return };
        if planted!("D9")
            && let Some(stamp) = context.clock.give(false)
        {
            for entry in &mut entries {
                entry.stamp = stamp;
            }
        }
        let id = context.write(Owner::Hints, node, entries);
        self.sent.insert(id.number, (node, number));
        target.in_flight.insert(number, id);
        target.in_flight_bytes += target.hints.get(&number).map_or(0, |hint| hint.bytes);
        target.cursor = number + 1;
        target.retry_at = Some(context.now + context.config.hint_retry);
        if planted!("D8") {
            self.erase(context, node, number);
        }
    }

    /// The target answers a hint; returns which, if the target has it now.
    pub(super) fn on_write_reply(
        &mut self,
        context: &mut Context,
        id: RequestId,
        outcome: WriteOutcome,
    ) -> Option<(NodeId, u64)> {
        let (node, number) = self.sent.remove(&id.number)?;
        let target = self.targets.get_mut(&node)?;
        target.land(number);
        match outcome {
            WriteOutcome::Stored => self.erase(context, node, number),
            WriteOutcome::Refused => {
                probe!("dynamo.hint_refused");
                self.dropped += 1;
                self.erase(context, node, number);
            }
            WriteOutcome::DiskFull => {
                probe!("dynamo.hint_meets_full_disk");
                self.recall(context, node);
                return None;
            }
        }
        self.deliver(context, node);
        (outcome == WriteOutcome::Stored).then_some((node, number))
    }

    /// Gives up what is in flight to a node, to send it again after a while.
    fn recall(&mut self, context: &mut Context, node: NodeId) {
        let Some(target) = self.targets.get_mut(&node) else { return };
        for id in std::mem::take(&mut target.in_flight).into_values() {
            self.sent.remove(&id.number);
            context.forget(id);
        }
        target.in_flight_bytes = 0;
        target.cursor = target.hints.keys().next().copied().unwrap_or(target.next);
        target.retry_at = Some(context.now + context.config.hint_retry);
    }

    /// Drops the oldest hints until there is room for so many bytes.
    fn make_room(&mut self, context: &mut Context, node: NodeId, bytes: usize) {
        let (bytes_max, count_max) = (context.config.hint_bytes_max, context.config.hint_count_max);
        while let Some(target) = self.targets.get(&node) {
            let is_room = target.bytes + bytes <= bytes_max && target.hints.len() < count_max;
            let Some(&(_, oldest)) = target.by_stamp.first().filter(|_| !is_room) else { return };
            probe!("dynamo.hint_dropped_for_room");
            self.dropped += 1;
            self.erase(context, node, oldest);
        }
    }

    fn erase(&mut self, context: &mut Context, node: NodeId, number: u64) {
        let Some(target) = self.targets.get_mut(&node) else { return };
        if let Some(id) = target.land(number) {
            self.sent.remove(&id.number);
            context.forget(id);
        }
        if target.remove(number) {
            let erasure = notes::erase(Kind::Hint { target: node, number });
            context.persist(erasure, Then::Nothing);
        }
    }

    /// Lets time pass: drops what is too old, and sends again what got no answer.
    pub(super) fn tick(&mut self, context: &mut Context) {
        let nodes: Vec<NodeId> = self.targets.keys().copied().collect();
        for node in nodes {
            self.drop_old(context, node);
            let Some(target) = self.targets.get_mut(&node) else { continue };
            if target.retry_at.is_some_and(|at| at <= context.now) {
                if !target.in_flight.is_empty() {
                    probe!("dynamo.hint_sent_again");
                    self.recall(context, node);
                }
                if let Some(target) = self.targets.get_mut(&node) {
                    target.retry_at = None;
                }
            }
            self.deliver(context, node);
        }
    }

    fn drop_old(&mut self, context: &mut Context, node: NodeId) {
        let age_ms = u64::try_from(context.config.hint_age_max.as_millis()).unwrap_or(u64::MAX);
        // By the own clock alone, one that jumps ahead would make all of them old.
        let now_ms = context.clock.common_ms().unwrap_or_default();
        let oldest_ms = now_ms.saturating_sub(age_ms);
        while let Some(target) = self.targets.get(&node) {
            let oldest = target.by_stamp.first().filter(|(stamp, _)| stamp.ms() < oldest_ms);
            let Some(&(_, number)) = oldest else { return };
            probe!("dynamo.hint_too_old");
            self.dropped += 1;
            self.erase(context, node, number);
        }
    }

    /// Returns when it must be ticked, if ever.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.targets.values().filter_map(|target| target.retry_at).min()
    }

    /// Returns the smallest stamp of a hint.
    pub(super) fn low_water(&self) -> Option<Stamp> {
        self.targets.values().filter_map(|target| target.by_stamp.first()).map(|(s, _)| *s).min()
    }

    /// Returns number and bytes of the hints for each node.
    pub(super) fn kept(&self) -> BTreeMap<NodeId, (usize, usize)> {
        let count = |target: &Target| (target.hints.len(), target.bytes);
        let kept = self.targets.iter().filter(|(_, target)| !target.hints.is_empty());
        kept.map(|(&node, target)| (node, count(target))).collect()
    }

    /// Returns how many hints were dropped since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Checks its invariants.
    pub(super) fn check(&self, config: &Config) {
        for (node, target) in &self.targets {
            let bytes: usize = target.hints.values().map(|hint| hint.bytes).sum();
            let in_flight = target.in_flight.keys().filter_map(|n| target.hints.get(n));
            let in_flight_bytes: usize = in_flight.map(|hint| hint.bytes).sum();
            assert!(
                bytes == target.bytes && target.hints.len() == target.by_stamp.len(),
                "D5: {bytes} bytes of hints for {node}, counted {}",
                target.bytes
            );
            assert!(
                in_flight_bytes == target.in_flight_bytes,
                "D7: {in_flight_bytes} bytes in flight to {node}, counted {}",
                target.in_flight_bytes
            );
            // What a restart finds may be over a limit that was made smaller.
            let is_alone = target.in_flight.len() <= 1;
            assert!(
                is_alone || in_flight_bytes < config.hint_window_bytes + bytes_max(target),
                "D5: {in_flight_bytes} bytes in flight to {node}"
            );
            for number in target.in_flight.keys() {
                assert!(target.hints.contains_key(number), "D7: hint {number} is gone in flight");
                assert!(*number < target.cursor, "D7: {number} in flight after the cursor");
            }
        }
    }
}

impl Target {
    fn insert(&mut self, number: u64, hint: Hint) {
        self.next = self.next.max(number + 1);
        self.bytes += hint.bytes;
        self.by_stamp.insert((hint.stamp, number));
        self.hints.insert(number, hint);
    }

    fn remove(&mut self, number: u64) -> bool {
        let Some(hint) = self.hints.remove(&number) else { return false };
        self.bytes -= hint.bytes;
        self.by_stamp.remove(&(hint.stamp, number));
        true
    }

    /// It is not in flight any more.
    fn land(&mut self, number: u64) -> Option<RequestId> {
        let id = self.in_flight.remove(&number)?;
        self.in_flight_bytes -= self.hints.get(&number).map_or(0, |hint| hint.bytes);
        if self.in_flight.is_empty() {
            self.retry_at = None;
        }
        Some(id)
    }
}

fn bytes_max(target: &Target) -> usize {
    let in_flight = target.in_flight.keys().filter_map(|number| target.hints.get(number));
    in_flight.map(|hint| hint.bytes).max().unwrap_or(0)
}
