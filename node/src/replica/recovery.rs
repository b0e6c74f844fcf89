//! From the records of the log to the state the core starts with.
//!
//! Without damage this is a replay: the last hard state, and the entries in the order they were
//! written, each replacing what the log had from its index on. Entries that the checkpoint covers
//! are dropped at the end. A recorded installation of exactly the checkpoint that is there
//! replaces all entries before it (unless they reach through its last one); one whose checkpoint never got its name is ignored.
//!
//! With damage (records that were durable and cannot be read) the node must not forget what it
//! may have acknowledged. What was lost is unknown, but its number is not, so:
//! - an entry that follows `n` lost records has at most `n` lost entries before it, which may
//!   have replaced any of the `n` positions before it: those and everything after are dropped;
//! - the highest (term, index) that the log may have held is remembered as `damaged_last`. The
//!   core votes as if it still had that entry, and does not campaign until its log has caught up.
//!
//! A hard state is written twice, so that one damaged place never loses it. If both copies may be
//! lost, the node cannot know whom it voted for, and does not start.

use super::persist::{KIND_ENTRY, KIND_HARD_STATE, KIND_INSTALL};
use crate::base::Index;
use crate::codec::{self, DecodeError};
use crate::raft::{Entry, HardState, Recovered, SnapshotMeta};
use crate::storage::wal;

/// Rebuilds the core's state from the log and the checkpoint that the machine was restored from.
///
/// # Errors
/// [`ReplayError::Decode`]: a record with a good checksum does not decode, so a foreign program
/// wrote it. [`ReplayError::VoteLost`]: the node may have voted and cannot know for whom.
pub fn replay(log: &wal::Recovery, checkpoint: SnapshotMeta) -> Result<Recovered, ReplayError> {
    let mut replay = Replay { checkpoint, ..Replay::default() };
    let mut damage = log.damage.iter().peekable();
    for record in &log.records {
        while let Some(hole) = damage.next_if(|hole| hole.missing.start < record.sequence) {
            replay.hole(hole);
        }
        match record.kind {
            KIND_HARD_STATE => {
                replay.hard_state = codec::decode(&record.payload)?;
                // Whatever was lost before is superseded.
                replay.vote_lost = false;
            }
            KIND_ENTRY => replay.entry(codec::decode(&record.payload)?),
            KIND_INSTALL => replay.install(codec::decode(&record.payload)?),
            kind => {
                return Err(DecodeError::Malformed(format!("log record of kind {kind}")).into());
            }
        }
    }
    for hole in damage {
        replay.hole(hole);
    }
    if replay.vote_lost {
        return Err(ReplayError::VoteLost);
    }
    Ok(replay.finish())
}

/// Why the log cannot be replayed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// A record is none of ours.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Both copies of a vote may be lost: voting again could elect two leaders of one term.
    #[error("the record of the last vote is damaged in both of its copies")]
    VoteLost,
}

#[derive(Default)]
struct Replay {
    checkpoint: SnapshotMeta,
    hard_state: HardState,
    entries: Vec<Entry>,
    /// Both copies of a hard state may be lost.
    vote_lost: bool,
    /// Records lost since the last entry.
    lost: u64,
    /// Highest entry known or possible, once something was dropped.
    damaged_last: Option<SnapshotMeta>,
}

impl Replay {
    fn hole(&mut self, hole: &wal::Damage) {
        match hole.loss {
            // Unused bytes, or one copy of a hard state whose other copy is there.
            wal::Loss::Nothing => {}
            wal::Loss::Records => self.lost += hole.missing.end - hole.missing.start,
            wal::Loss::Critical => {
                self.lost += hole.missing.end - hole.missing.start;
                self.vote_lost = true;
            }
        }
    }

    fn entry(&mut self, entry: Entry) {
        let meta = SnapshotMeta { index: entry.index, term: entry.term };
        if self.lost > 0 {
            crate::probe!("recovery.entry_after_damage");
            let keep_through = entry.index.saturating_sub(1).saturating_sub(self.lost);
            self.note_damage(self.last());
            self.note_damage(meta);
            self.truncate_after(keep_through);
            self.lost = 0;
        }
        let follows = self.entries.is_empty() || entry.index <= self.last().index + 1;
        if self.damaged_last.is_some() {
            self.note_damage(meta);
            if !follows || (self.entries.is_empty() && entry.index > self.checkpoint.index + 1) {
                return;
            }
        }
        if !follows {
            self.note_damage(meta);
            return;
        }
        self.truncate_after(entry.index - 1);
        self.entries.push(entry);
    }

    fn install(&mut self, meta: SnapshotMeta) {
        let held = self.entries.iter().any(|e| (e.index, e.term) == (meta.index, meta.term));
        // A log that reaches through the snapshot's last entry goes on after it, as in the core.
        if meta == self.checkpoint && !held {
            self.entries.clear();
            self.lost = 0;
            self.damaged_last = None;
        }
    }

    fn finish(mut self) -> Recovered {
        if self.lost > 0 {
            crate::probe!("recovery.damage_at_the_end");
            let last = self.last();
            self.note_damage(SnapshotMeta {
                index: last.index + self.lost,
                term: self.hard_state.term.max(last.term),
            });
        }
        let checkpoint = self.checkpoint;
        let gap = self.entries.first().is_some_and(|first| first.index > checkpoint.index + 1);
        if gap {
            crate::probe!("recovery.log_starts_after_checkpoint");
            self.note_damage(self.last());
            self.entries.clear();
        }
        self.entries.retain(|entry| entry.index > checkpoint.index);
        let last = self.last().max_by_log(checkpoint);
        let damaged_last = self.damaged_last.filter(|damaged| damaged.is_newer_than(last));
        Recovered {
            hard_state: self.hard_state,
            snapshot: checkpoint,
            entries: self.entries,
            damaged_last,
        }
    }

    fn last(&self) -> SnapshotMeta {
        self.entries.last().map_or_else(SnapshotMeta::default, |entry| SnapshotMeta {
            index: entry.index,
            term: entry.term,
        })
    }

    fn truncate_after(&mut self, index: Index) {
        while self.entries.last().is_some_and(|last| last.index > index) {
            self.entries.pop();
        }
    }

    fn note_damage(&mut self, meta: SnapshotMeta) {
        self.damaged_last = Some(self.damaged_last.map_or(meta, |old| old.max_by_log(meta)));
    }
}

/// Comparison of log ends as in [Raft §5.4.1]: by term, then by index.
trait LogEnd {
    fn is_newer_than(self, other: Self) -> bool;
    fn max_by_log(self, other: Self) -> Self;
}

impl LogEnd for SnapshotMeta {
    fn is_newer_than(self, other: Self) -> bool {
        (self.term, self.index) > (other.term, other.index)
    }

    fn max_by_log(self, other: Self) -> Self {
        if other.is_newer_than(self) { other } else { self }
    }
}
