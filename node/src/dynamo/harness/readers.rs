//! Clients that read, and what they must see.
//!
//! A read at quorum must show every write that was acknowledged at quorum before it began, unless
//! there is a newer one; and never less than an earlier read at quorum showed. Whatever is shown
//! was written once.

use std::collections::BTreeMap;

use super::super::placement::{partition_of_place, prefix};
use super::super::{Chunk, Input, Level, Range, Reply, Token};
use super::oracle::Oracle;
use super::{Cluster, Disk};
use crate::base::{NodeId, Payload, Stamp, Written};
use crate::codec::keycode;

/// What reads must show.
#[derive(Debug, Default)]
pub(in super::super) struct Readers {
    asked: BTreeMap<Token, Asked>,
    /// The answers so far.
    pub(in super::super) replies: BTreeMap<Token, Reply>,
    /// Of each cell, and of each row's tombstone: the least stamp that must be shown.
    least: Least,
}

/// By place, and whether it is a cell's.
type Least = BTreeMap<(Payload, bool), Stamp>;

#[derive(Debug)]
struct Asked {
    at: NodeId,
    level: Level,
    ranges: Vec<Range>,
    least: Least,
}

impl Readers {
    /// A write was acknowledged.
    pub(super) fn acknowledged(
        &mut self,
        level: Level,
        changes: &[(Payload, Written)],
        stamp: Stamp,
    ) {
        if !is_quorum(level) {
            return;
        }
        for (place, written) in changes {
            let key = (place.clone(), *written != Written::RowDeleted);
            let least = self.least.entry(key).or_default();
            *least = stamp.max(*least);
        }
    }

    /// Takes the answer to a read; false if it is none to a read.
    pub(super) fn answered(&mut self, oracle: &Oracle, token: Token, reply: &Reply) -> bool {
        let Some(asked) = self.asked.remove(&token) else { return false };
        if let Reply::Read { chunks, .. } = reply {
            assert_eq!(chunks.len(), asked.ranges.len(), "an answer for each range");
            for (range, chunk) in asked.ranges.iter().zip(chunks) {
                self.check(oracle, &asked, range, chunk);
            }
        }
        self.replies.insert(token, reply.clone());
        true
    }

    fn check(&mut self, oracle: &Oracle, asked: &Asked, range: &Range, chunk: &Chunk) {
        for entry in &chunk.entries {
            let written = oracle.written(&entry.place, true, entry.stamp);
            assert_eq!(written, Some(&entry.written), "{entry:?} was never written");
        }
        if !is_quorum(asked.level) {
            return;
        }
        let end = chunk.covered.as_ref().or(range.end.as_ref());
        for ((place, is_cell), least) in &asked.least {
            let is_told = partition_of_place(place.as_bytes()) == Some(range.partition)
                && *place >= range.start
                && end.is_none_or(|end| place < end);
            if !is_cell || !is_told {
                continue;
            }
            let row = keycode::row_prefix(place.as_bytes()).to_vec();
            let row = Payload::new(row).unwrap_or_default();
            let row = asked.least.get(&(row, false)).copied().unwrap_or_default();
            let least = (*least).max(row);
            let shown = chunk.entries.iter().find(|entry| entry.place == *place);
            let proven = match shown {
                Some(entry) => entry.stamp,
                None => oracle.deleted(place, least).unwrap_or_else(|| {
                    panic!("{place:?} is not shown, and was not deleted since {least}")
                }),
            };
            assert!(proven >= least, "{place:?} is shown as of {proven}, after {least}");
            let kept = self.least.entry((place.clone(), true)).or_default();
            *kept = proven.max(*kept);
        }
        for entry in &chunk.entries {
            let kept = self.least.entry((entry.place.clone(), true)).or_default();
            *kept = entry.stamp.max(*kept);
        }
    }

    /// A node stopped: its clients get no answer.
    pub(super) fn crashed(&mut self, id: NodeId) {
        self.asked.retain(|_, asked| asked.at != id);
    }

    /// Returns how many clients wait.
    pub(in super::super) fn waiting(&self) -> usize {
        self.asked.len()
    }
}

fn is_quorum(level: Level) -> bool {
    matches!(level, Level::Quorum | Level::All)
}

impl Cluster {
    /// Has a client read the cells of some keys; returns its token.
    pub(in super::super) fn read(&mut self, id: NodeId, level: Level, keys: &[&str]) -> Token {
        let range = |key: &&str| {
            let start = self.place(key);
            let mut end = start.as_bytes().to_vec();
            end.push(0);
            let partition = partition_of_place(start.as_bytes()).unwrap_or_default();
            Range { partition, start, end: Payload::new(end).ok(), limit: 1 }
        };
        let ranges = keys.iter().map(range).collect();
        self.read_ranges(id, level, ranges)
    }

    /// Has a client read a page of each partition.
    pub(in super::super) fn scan(&mut self, id: NodeId, level: Level, limit: u32) -> Token {
        let range = |partition| {
            let start = Payload::new(prefix(partition).to_vec()).unwrap_or_default();
            Range { partition, start, end: None, limit }
        };
        let ranges = (0..self.placement.partition_count()).map(range).collect();
        self.read_ranges(id, level, ranges)
    }

    pub(in super::super) fn read_ranges(
        &mut self,
        id: NodeId,
        level: Level,
        ranges: Vec<Range>,
    ) -> Token {
        self.tokens += 1;
        let token = self.tokens;
        if self.is_up(id) {
            let least = self.readers.least.clone();
            self.readers
                .asked
                .insert(token, Asked { at: id, level, ranges: ranges.clone(), least });
            self.step(id, Input::Read { token, level, ranges });
        }
        token
    }

    /// Has a client delete keys.
    pub(in super::super) fn delete(&mut self, id: NodeId, level: Level, keys: &[&str]) -> Token {
        let changes = keys.iter().map(|key| (self.place(key), Written::Deleted)).collect();
        self.write(id, 0, level, changes)
    }

    /// Returns what a read showed: the values, in order.
    pub(in super::super) fn values(&self, token: Token) -> Vec<String> {
        match self.readers.replies.get(&token) {
            Some(Reply::Read { chunks, .. }) => {
                let values = chunks.iter().flat_map(|chunk| &chunk.entries);
                let text = |bytes: bytes::Bytes| String::from_utf8_lossy(&bytes).into_owned();
                values.filter_map(|entry| Some(text(entry.value()?))).collect()
            }
            reply => panic!("#{token} is answered {reply:?}"),
        }
    }

    /// Starts a node with an old disk, as if an image had been restored. Its generation goes as
    /// far beyond what that disk knows as one that is drawn does.
    pub(in super::super) fn restore(&mut self, id: NodeId, old: Disk) {
        self.crash(id, 0);
        self.node_mut(id).disk = old;
        self.generation_step += 1_000;
        self.start(id);
    }

    /// Has every node forget the tombstones that it may forget; returns how many were.
    pub(in super::super) fn purge(&mut self) -> usize {
        let stores = self.nodes.values_mut().map(|node| (&mut node.disk.store, &mut node.live));
        stores
            .map(|(disk, live)| {
                disk.purge();
                live.purge()
            })
            .sum()
    }

    /// Puts an entry on a node's disk, as if it had been there for ever. The node must be down.
    pub(in super::super) fn plant(&mut self, id: NodeId, entry: crate::base::Entry) {
        assert!(!self.is_up(id), "{id} is up");
        let records = [super::super::Record::Entries(vec![entry])];
        self.oracle.persists(id, &records);
        self.node_mut(id).disk.store.apply(&records);
    }
}
