//! Who looks at everything that happens, and panics when a promise is broken.
//!
//! It knows what clients asked, with values that are never used twice, what every node sent, and
//! what is on every disk. It looks at disks and not at memory: what counts is what a crash leaves.

use std::collections::{BTreeMap, BTreeSet};

use super::super::notes::{self, Kind};
use super::super::placement::partition_of_place;
use super::super::{Level, Message, Placement, Record, Reply, Token};
use super::{Disk, Node};
use crate::base::{Entry, NodeId, Payload, Stamp, Written};
use crate::codec::keycode;

/// A client's write.
#[derive(Debug, Clone)]
pub(in super::super) struct Asked {
    pub(in super::super) at: NodeId,
    pub(in super::super) level: Level,
    pub(in super::super) seen: Stamp,
    pub(in super::super) changes: Vec<(Payload, Written)>,
    pub(in super::super) reply: Option<Reply>,
    /// The coordinator crashed before it answered.
    is_lost: bool,
}

/// What the oracle knows.
#[derive(Debug, Default)]
pub(in super::super) struct Oracle {
    pub(in super::super) asked: BTreeMap<Token, Asked>,
    /// Of each stamp that was met: what was written.
    written: BTreeMap<(Payload, bool, Stamp), Written>,
    /// Of each value: its stamp.
    stamps: BTreeMap<Payload, Stamp>,
    /// Every stamp that was met.
    known: BTreeSet<Stamp>,
    /// The latest stamp of each node when it started.
    before_start: BTreeMap<NodeId, Stamp>,
    /// Writes that were answered and whose coordinator does nothing more about them: every
    /// replica must have them, or a hint.
    settled: BTreeSet<Stamp>,
    /// Answered, and not settled yet.
    unsettled: BTreeMap<Stamp, Token>,
    /// Values of which a client was told that nothing was done.
    refused: BTreeSet<Payload>,
    /// Nodes that dropped a hint, which is the end of what they promised.
    dropped: BTreeSet<NodeId>,
    /// Disks that a test has emptied: nothing is promised of what they held.
    is_wiped: bool,
}

impl Oracle {
    pub(super) fn asked(
        &mut self,
        token: Token,
        at: NodeId,
        level: Level,
        seen: Stamp,
        changes: Vec<(Payload, Written)>,
    ) {
        let asked = Asked { at, level, seen, changes, reply: None, is_lost: false };
        self.asked.insert(token, asked);
    }

    /// A node stopped: its clients get no answer.
    pub(super) fn crashed(&mut self, id: NodeId) {
        for asked in self.asked.values_mut().filter(|asked| asked.at == id) {
            asked.is_lost |= asked.reply.is_none();
        }
        self.unsettled.retain(|stamp, _| stamp.node() != id);
    }

    /// A client waits no more.
    pub(super) fn forgotten(&mut self, token: Token) {
        if let Some(asked) = self.asked.get_mut(&token) {
            asked.is_lost = true;
        }
    }

    /// Returns what was written at a place with that stamp.
    pub(super) fn written(&self, place: &Payload, is_cell: bool, stamp: Stamp) -> Option<&Written> {
        self.written.get(&(place.clone(), is_cell, stamp))
    }

    /// Returns the smallest stamp, from `least` on, with which a cell was deleted.
    pub(super) fn deleted(&self, place: &Payload, least: Stamp) -> Option<Stamp> {
        let row = Payload::new(keycode::row_prefix(place.as_bytes()).to_vec()).unwrap_or_default();
        let deletes = self.written.iter().filter(|((at, is_cell, stamp), written)| {
            let is_here = (*is_cell && at == place) || (!*is_cell && *at == row);
            is_here && *stamp >= least && !matches!(written, Written::Value(_))
        });
        deletes.map(|((_, _, stamp), _)| *stamp).min()
    }

    /// Returns how many clients wait.
    pub(in super::super) fn waiting(&self) -> usize {
        self.asked.values().filter(|asked| asked.reply.is_none() && !asked.is_lost).count()
    }

    /// Returns the answer to a request, if it has one.
    pub(in super::super) fn reply(&self, token: Token) -> Option<&Reply> {
        self.asked.get(&token).and_then(|asked| asked.reply.as_ref())
    }

    /// Looks at a message that leaves a node.
    pub(super) fn sent(&mut self, from: NodeId, message: &Message) {
        if let Message::Write { entries, .. }
        | Message::Repair { entries, .. }
        | Message::BatchStore { entries, .. } = message
        {
            for entry in entries {
                self.met(from, entry);
            }
        }
    }

    /// Looks at what a node wants on its disk.
    pub(super) fn persists(&mut self, at: NodeId, records: &[Record]) {
        for record in records {
            if let Record::Entries(entries) = record {
                for entry in entries {
                    self.met(at, entry);
                }
            }
        }
    }

    /// A stamp is of one write, a value has one stamp, and each node's stamps grow.
    fn met(&mut self, at: NodeId, entry: &Entry) {
        let (_, is_cell) = entry.order();
        let key = (entry.place.clone(), is_cell, entry.stamp);
        let known = self.written.entry(key).or_insert_with(|| entry.written.clone());
        if entry.written == Written::Deleted && *known != Written::Deleted {
            // A ghost is erased by a tombstone of its own stamp.
            return;
        }
        assert_eq!(*known, entry.written, "{} is of two writes at {:?}", entry.stamp, entry.place);
        if let Written::Value(value) = &entry.written {
            assert!(!self.refused.contains(value), "{value:?} was refused, and is written");
            let stamp = self.stamps.entry(value.clone()).or_insert(entry.stamp);
            assert_eq!(*stamp, entry.stamp, "{value:?} has two stamps");
        }
        if self.known.insert(entry.stamp) && entry.stamp.node() == at {
            let before = self.before_start.get(&at).copied().unwrap_or_default();
            assert!(entry.stamp > before, "{at} gave {} after {before}", entry.stamp);
        }
    }

    /// The disk of a node is lost.
    pub(super) fn wiped(&mut self) {
        self.is_wiped = true;
    }

    /// A node starts: all its stamps must be larger from now on.
    pub(super) fn started(&mut self, id: NodeId) {
        let last = self.known.iter().filter(|stamp| stamp.node() == id).max();
        self.before_start.insert(id, last.copied().unwrap_or_default());
    }

    /// Looks at an answer, with all disks as they are at that moment.
    pub(super) fn answered(
        &mut self,
        nodes: &BTreeMap<NodeId, Node>,
        placement: &Placement,
        token: Token,
        reply: &Reply,
    ) {
        let Some(asked) = self.asked.get_mut(&token) else { panic!("#{token} was never asked") };
        assert!(asked.reply.is_none(), "#{token} is answered {reply:?} after {:?}", asked.reply);
        asked.reply = Some(reply.clone());
        match reply {
            Reply::Written { stamp } => {
                let seen = asked.seen;
                assert!(*stamp > seen, "#{token} got {stamp} after its client saw {seen}");
                check_acknowledged(nodes, placement, asked, *stamp);
                self.unsettled.insert(*stamp, token);
            }
            Reply::Timeout | Reply::Read { .. } => {}
            Reply::Unavailable { .. }
            | Reply::Overloaded
            | Reply::DiskFull
            | Reply::Invalid(_)
            | Reply::ClockSkew { .. }
            | Reply::NotReady => {
                for (_, written) in &asked.changes {
                    if let Written::Value(value) = written {
                        let was_met = self.stamps.contains_key(value);
                        assert!(!was_met, "#{token} is answered {reply:?}, and was written");
                        self.refused.insert(value.clone());
                    }
                }
            }
        }
    }

    /// Looks at a node after a step: what it does nothing more about must be taken care of.
    pub(super) fn stepped(
        &mut self,
        nodes: &BTreeMap<NodeId, Node>,
        placement: &Placement,
        id: NodeId,
    ) {
        let Some(core) = nodes.get(&id).and_then(|node| node.core.as_ref()) else { return };
        let is_over = |stamp: &Stamp| stamp.node() == id && !core.writes.is_pending(*stamp);
        let over: Vec<Stamp> = self.unsettled.keys().copied().filter(is_over).collect();
        let has_dropped = core.status().hints_dropped > 0;
        self.dropped.extend(has_dropped.then_some(id));
        for stamp in over {
            let Some(asked) = self.unsettled.remove(&stamp).and_then(|t| self.asked.get(&t)) else {
                continue;
            };
            let is_lossy = self.dropped.contains(&id) || !core.config().repair.hints;
            if self.is_wiped || is_lossy || core.batches.is_kept(stamp) {
                continue;
            }
            self.settled.insert(stamp);
            for entry in entries(asked, stamp) {
                for replica in replicas(placement, &entry) {
                    let is_there = nodes.get(&replica).is_some_and(|n| n.disk.store.covers(&entry));
                    let own_disk = nodes.get(&id).map(|node| &node.disk);
                    assert!(
                        is_there || own_disk.is_some_and(|disk| has_hint(disk, replica, &entry)),
                        "{id} leaves {entry:?} alone, which {replica} has not, without a hint"
                    );
                }
            }
        }
    }

    /// After everything was healed: what was settled is everywhere, and a write that touched
    /// several sets of replicas is everywhere or nowhere.
    pub(in super::super) fn check_healed(
        &self,
        nodes: &BTreeMap<NodeId, Node>,
        placement: &Placement,
    ) {
        for (token, asked) in &self.asked {
            let Some(stamp) = self.stamp_of(asked) else { continue };
            let entries = entries(asked, stamp);
            let everywhere: Vec<(&Entry, NodeId)> = entries
                .iter()
                .flat_map(|entry| replicas(placement, entry).into_iter().map(move |r| (entry, r)))
                .collect();
            let store = |id: &NodeId| nodes.get(id).map(|node| &node.disk.store);
            let missing = everywhere
                .iter()
                .find(|(entry, replica)| !store(replica).is_some_and(|store| store.covers(entry)));
            let is_anywhere = everywhere
                .iter()
                .any(|(entry, replica)| store(replica).is_some_and(|store| store.has(entry)));
            let must_be =
                self.settled.contains(&stamp) || is_batch(placement, asked) && is_anywhere;
            let must_be = must_be && !self.dropped.contains(&stamp.node());
            assert!(
                missing.is_none() || !must_be,
                "#{token} is answered {:?}: {missing:?} is missing after healing",
                asked.reply
            );
        }
    }

    /// Returns the stamp of a request, as far as it can be told.
    fn stamp_of(&self, asked: &Asked) -> Option<Stamp> {
        if let Some(Reply::Written { stamp }) = asked.reply {
            return Some(stamp);
        }
        asked.changes.iter().find_map(|(_, written)| match written {
            Written::Value(value) => self.stamps.get(value).copied(),
            Written::Deleted | Written::RowDeleted => None,
        })
    }
}

/// As many different disks as the level asks for must have it, for every set of replicas; or will
/// have it before their nodes, which are not whole, answer a read: an acknowledgement may have left
/// before its disk was lost.
fn check_acknowledged(
    nodes: &BTreeMap<NodeId, Node>,
    placement: &Placement,
    asked: &Asked,
    stamp: Stamp,
) {
    for entry in entries(asked, stamp) {
        let replicas = replicas(placement, &entry);
        let is_whole = |node: &Node| match &node.core {
            Some(core) => core.is_whole(),
            None => !node.disk.is_damaged(),
        };
        let has_it = |node: &Node| node.disk.store.covers(&entry) || !is_whole(node);
        let has = |id: &&NodeId| nodes.get(id).is_some_and(has_it);
        let count = replicas.iter().filter(has).count();
        let needed = match asked.level {
            Level::One => 1,
            Level::Two => 2,
            Level::Three => 3,
            Level::Quorum => (replicas.len() + 1).div_ceil(2),
            Level::All => replicas.len(),
        };
        assert!(count >= needed, "{entry:?} is acknowledged at {:?} by {count}", asked.level);
    }
}

fn entries(asked: &Asked, stamp: Stamp) -> Vec<Entry> {
    let changes = asked.changes.iter().cloned();
    changes.map(|(place, written)| Entry { place, stamp, written }).collect()
}

fn replicas(placement: &Placement, entry: &Entry) -> Vec<NodeId> {
    let partition = partition_of_place(entry.place.as_bytes());
    partition.map_or(Vec::new(), |partition| placement.replicas(partition).to_vec())
}

fn is_batch(placement: &Placement, asked: &Asked) -> bool {
    let sets = entries(asked, Stamp::ZERO).into_iter().map(|entry| {
        let mut nodes = replicas(placement, &entry);
        nodes.sort_unstable();
        nodes
    });
    sets.collect::<BTreeSet<_>>().len() > 1
}

fn has_hint(disk: &Disk, target: NodeId, entry: &Entry) -> bool {
    disk.store.notes.iter().any(|(place, content)| match Kind::of(place.as_bytes()) {
        Some(Kind::Hint { target: of, .. }) if of == target => {
            notes::entries(content.as_bytes()).is_some_and(|entries| entries.contains(entry))
        }
        _ => false,
    })
}
