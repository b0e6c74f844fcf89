//! The writes of a history with what is known of their stamps, as all checkers of the mode need it.
//!
//! The stamp of an acknowledged write is in its answer. That of an unknown one is learned from
//! whoever read one of its values, which are unique; the stamp of an unknown deletion stays unknown
//! for ever, so it may explain any absence.

use std::collections::BTreeMap;

use mangrove::base::{NodeId, Stamp};
use mangrove::dynamo::Level;

use super::bounds::Bound;
use super::stores::Stores;
use crate::check::client::{reads, writes};
use crate::history::{
    Answer, Call, CellId, History, OpId, Operation, Outcome, RowId, Terms, ValueId,
};

/// What a replica's disk lost of what the replica had acknowledged. Only one replica's ever does;
/// it may do so several times, and in both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Loss {
    /// The node noticed and answered no reads until it had got everything from all others: only
    /// what it alone had is gone. What ended before this event may be concerned.
    pub noticed: Option<u32>,
    /// Nobody can notice.
    pub unnoticed: Option<Unnoticed>,
}

/// A loss that nobody can notice: an older disk, an fsync that lied.
///
/// The node goes on with what it has left. It keeps what it is given from then on, so that counts
/// in full. What began before the loss was over may be short of this replica: it may have had its
/// share and lost it, also if the client was told only later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unnoticed {
    /// Whose disk it was.
    pub node: NodeId,
    /// The first event after the last of these losses was over.
    pub lost_at: u32,
    /// The event at which the replicas were equal again. Before it the disk may have *ghosts*:
    /// what was deleted, and forgotten by all others, while it had the disk that is gone. Reads
    /// that ask another replica as well do not show them, and leave them where they are.
    pub equal_at: u32,
}

/// What the promises depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Replicas of every partition (N).
    pub replicas: u32,
    /// Whether a disk lost anything.
    pub loss: Loss,
    /// How far into the future stamps may lie.
    pub lead: Lead,
}

/// How far into the future stamps may lie: what most clocks are off, and what a node bears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lead {
    /// What a right clock shows at the beginning of the history, in milliseconds.
    pub begin_ms: u64,
    /// Most milliseconds that a stamp may be ahead of a right clock.
    pub lead_ms_max: u64,
}

impl Lead {
    /// No bound.
    pub const ANY: Self = Self { begin_ms: 0, lead_ms_max: u64::MAX };

    /// Returns how many milliseconds a stamp that exists at `time_ns` is ahead of a right clock, if
    /// that is too many.
    pub fn exceeded_ms(&self, stamp: Stamp, time_ns: u64) -> Option<u64> {
        let lead_ms = stamp.ms().saturating_sub(self.begin_ms + time_ns / 1_000_000);
        (lead_ms > self.lead_ms_max).then_some(lead_ms)
    }
}

impl Setting {
    /// Returns how many replicas a level asks (R or W).
    pub fn count(&self, level: Level) -> u32 {
        match level {
            Level::One => 1,
            Level::Two => 2,
            Level::Three => 3,
            Level::Quorum => self.replicas / 2 + 1,
            Level::All => self.replicas,
        }
    }

    /// Returns how many of `count` replicas that had something when an operation ended certainly
    /// still have it.
    pub fn holders(&self, count: u32, operation: &Operation) -> u32 {
        let Loss { noticed, unnoticed } = self.loss;
        let was_alone = count == 1 && noticed.is_some_and(|until| ended(operation) < until);
        let is_short = unnoticed.is_some_and(|loss| operation.invoked < loss.lost_at);
        if was_alone || is_short { count.saturating_sub(1) } else { count }
    }

    /// Returns how many of `count` replicas that a read asked certainly have what it has shown.
    pub fn showing(&self, count: u32, operation: &Operation, bound: Bound) -> u32 {
        let holders = self.holders(count, operation);
        let may_hide = self.loss.unnoticed.is_some_and(|loss| ended(operation) < loss.equal_at);
        // That nothing is there may be known of the others' floors alone. They all have those, or
        // the tombstones.
        let is_all_but_one = bound.is_deleted && may_hide;
        if is_all_but_one { holders.min(self.replicas.saturating_sub(1)) } else { holders }
    }

    /// Tells whether the node that gave a stamp may have forgotten that it did.
    pub fn may_repeat(&self, stamp: Stamp) -> bool {
        self.loss.unnoticed.is_some_and(|loss| loss.node == stamp.node())
    }

    /// Returns the least number of holders of which every read of `count` replicas meets one.
    pub fn holders_needed(&self, count: u32) -> u32 {
        (self.replicas + 1).saturating_sub(count)
    }
}

/// Returns the event at which an operation ended, if it did.
fn ended(operation: &Operation) -> u32 {
    operation.ended.unwrap_or(u32::MAX)
}

/// What a read found in a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The cell.
    pub cell: CellId,
    /// The value; absent if there was none.
    pub value: ValueId,
    /// The value's stamp, if there was one and the store told it.
    pub stamp: Option<Stamp>,
}

/// An operation that may delete a cell.
#[derive(Debug, Clone, Copy)]
struct Deletion {
    invoked: u32,
    /// Its stamp may be unknown: then it is any.
    op: OpId,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Ledger<'a> {
    /// The history.
    pub history: &'a History,
    /// What the promises depend on.
    pub setting: Setting,
    stamps: BTreeMap<OpId, Stamp>,
    writers: BTreeMap<(CellId, ValueId), OpId>,
    deletions: Vec<Vec<Deletion>>,
}

impl<'a> Ledger<'a> {
    /// Reads a history.
    pub fn new(history: &'a History, setting: Setting) -> Self {
        let mut ledger = Self {
            history,
            setting,
            stamps: BTreeMap::new(),
            writers: BTreeMap::new(),
            deletions: vec![Vec::new(); history.cell_count()],
        };
        for (id, op) in ledger.ops() {
            let stamp = history.terms(id).and_then(|terms| terms.stamp);
            if let Some(stamp) = stamp {
                ledger.stamps.insert(id, stamp);
            }
            for (cell, value) in writes(history, &op.call) {
                // A replica may have a row's tombstone and not yet what its batch set after it.
                let is_deleted =
                    value == ValueId::ABSENT || empties(&op.call, history.row_of(cell));
                if is_deleted && op.outcome != Outcome::Fail {
                    let deletion = Deletion { invoked: op.invoked, op: id };
                    ledger.deletions[cell.0 as usize].push(deletion);
                }
                if value != ValueId::ABSENT {
                    ledger.writers.entry((cell, value)).or_insert(id);
                }
            }
        }
        for (id, _) in ledger.ops() {
            for seen in ledger.reads_of(id) {
                if let (Some(writer), Some(stamp)) =
                    (ledger.writer_of(seen.cell, seen.value), seen.stamp)
                {
                    ledger.stamps.entry(writer).or_insert(stamp);
                }
            }
        }
        ledger
    }

    /// Learns the stamps of writes whose values are on a disk.
    pub fn learn(&mut self, stores: &Stores) {
        for (cell, value, stamp) in stores.values(self.history) {
            if let Some(writer) = value.and_then(|value| self.writer_of(cell, value)) {
                self.stamps.entry(writer).or_insert(stamp);
            }
        }
    }

    /// Returns all operations with their names.
    pub fn ops(&self) -> impl Iterator<Item = (OpId, &'a Operation)> + use<'a> {
        (0..).map(OpId).zip(self.history.ops())
    }

    /// Returns the stamp of a write, if it is known.
    pub fn stamp_of(&self, op: OpId) -> Option<Stamp> {
        self.stamps.get(&op).copied()
    }

    /// Returns the operation that writes that value to that cell; values are unique.
    pub fn writer_of(&self, cell: CellId, value: ValueId) -> Option<OpId> {
        self.writers.get(&(cell, value)).copied()
    }

    /// Returns what a write leaves in cells.
    pub fn effects_of(&self, op: OpId) -> Vec<(CellId, ValueId)> {
        writes(self.history, &self.history.op(op).call)
    }

    /// Returns the terms of a write that was acknowledged, its stamp, and how many replicas had
    /// it then.
    ///
    /// None, if it is one and that may be a node with an old disk that was cut off: such a node has
    /// forgotten up to which stamp the others take nothing more, and may have stamped below that
    /// what it wrote for itself, which they take for a ghost. Where two had to have it, one of them
    /// would have refused it.
    pub fn acknowledged(&self, op: OpId) -> Option<(&'a Terms, Stamp, u32)> {
        let operation = self.history.op(op);
        let is_ok = matches!(operation.outcome, Outcome::Ok(_));
        let terms = self.history.terms(op).filter(|_| is_ok)?;
        let (stamp, count) = (terms.stamp?, self.setting.count(terms.level));
        let unnoticed = self.setting.loss.unnoticed;
        let may_be_ghost = unnoticed
            .is_some_and(|loss| loss.node == stamp.node() && ended(operation) < loss.equal_at);
        Some((terms, stamp, if may_be_ghost && count == 1 { 0 } else { count }))
    }

    /// Returns what a read found, of every cell that it covers; nothing if `op` is none.
    pub fn reads_of(&self, op: OpId) -> Vec<Seen> {
        let operation = self.history.op(op);
        let Outcome::Ok(answer) = &operation.outcome else { return Vec::new() };
        let found = self.history.terms(op).map(|terms| &terms.found);
        let seen = |(cell, value)| {
            let stamp = found.and_then(|found| found.get(&cell)).copied();
            Seen { cell, value, stamp: stamp.filter(|_| value != ValueId::ABSENT) }
        };
        reads(self.history, &operation.call, answer).into_iter().map(seen).collect()
    }

    /// Returns the cells of each key that a listing showed; nothing if `op` is none.
    pub fn listed_by(&self, op: OpId) -> Vec<(RowId, &'a [CellId])> {
        let Outcome::Ok(Answer::Rows { rows, .. }) = &self.history.op(op).outcome else {
            return Vec::new();
        };
        rows.iter().map(|row| (*row, self.history.cells_of(*row))).collect()
    }

    /// Returns how many replicas an answered read asked.
    pub fn read_count(&self, op: OpId) -> u32 {
        self.history.terms(op).map_or(0, |terms| self.setting.count(terms.level))
    }

    /// Tells whether an operation reads and was answered.
    pub fn is_read(&self, op: OpId) -> bool {
        let operation = self.history.op(op);
        let reads = matches!(
            operation.call,
            Call::Get { .. } | Call::MultiGet(_) | Call::Slice(_) | Call::Scan(_) | Call::Keys(_)
        );
        reads && matches!(&operation.outcome, Outcome::Ok(answer) if *answer != Answer::Done)
    }

    /// Tells whether some operation that began before event `before` may have deleted the cell
    /// with a stamp above `floor`.
    pub fn may_be_deleted(&self, cell: CellId, floor: Stamp, before: u32) -> bool {
        self.deletions[cell.0 as usize].iter().any(|deletion| {
            let stamp = self.stamp_of(deletion.op);
            deletion.invoked < before && stamp.is_none_or(|stamp| stamp > floor)
        })
    }

    /// Tells whether some operation that began before event `before` and did not fail may have
    /// written a value to the cell that counts in spite of `bound`.
    pub fn may_be_there(&self, cell: CellId, bound: Option<Bound>, before: u32) -> bool {
        let values = (cell, ValueId(0))..=(cell, ValueId(u32::MAX));
        self.writers.range(values).any(|(_, writer)| {
            let operation = self.history.op(*writer);
            let stamp = self.stamp_of(*writer);
            operation.outcome != Outcome::Fail
                && operation.invoked < before
                && bound.is_none_or(|bound| stamp.is_none_or(|stamp| bound.admits(stamp)))
        })
    }

    /// Tells whether what was found in a cell is as new as `bound` demands, at event `at`.
    pub fn is_within(&self, seen: &Seen, bound: Bound, at: u32) -> bool {
        if seen.value == ValueId::ABSENT {
            return bound.is_deleted || self.may_be_deleted(seen.cell, bound.stamp, at);
        }
        // A value without stamp is the origin checker's.
        seen.stamp.is_none_or(|stamp| bound.admits(stamp))
    }
}

/// Tells whether a call is a batch that deletes a row before it sets cells.
fn empties(call: &Call, row: RowId) -> bool {
    matches!(call, Call::Bulk(bulk) if bulk.rows.contains(&row))
}
