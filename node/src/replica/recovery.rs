//! From the records of the log to the state the core starts with.
//!
//! Without damage this is a replay: the last hard state, and the entries in the order they were
//! written, each replacing what the log had from its index on. Entries that the tables cover are
//! dropped at the end. A recorded installation of exactly the state that the tables are in
//! replaces all entries before it (unless they reach through its last one), and so does one after
//! which the log goes on with the next entry, for then it was the tables' once. One that never
//! became the tables' is ignored.
//!
//! With damage (records that were durable and cannot be read) the node must not forget what it
//! may have acknowledged. What was lost is unknown, but its number is not, so:
//! - an entry that follows `n` lost records has at most `n` lost entries before it, which may
//!   have replaced any of the `n` positions before it: those and everything after are dropped;
//! - the highest (term, index) that the log may have held is remembered as `damaged_last`. The
//!   core votes as if it still had that entry, and does not campaign until its log has caught up.
//!   The start says so to the log, as *filling*, for what tells of it now need not be there later.
//!
//! A hard state is written twice, so that one damaged place never loses it. If both copies may be
//! lost, the node cannot know whom it voted for, and must ask the others before it votes again. So
//! it is if the log has no hard state at all: a term comes before the first entry, and each segment
//! that stays says it again. Then the files of the log are gone, or the first of them. A restored
//! snapshot is the one state without a vote before it: its log begins with its installation.

use super::persist::{KIND_ENTRY, KIND_HARD_STATE, KIND_INSTALL, KIND_RECOVERED, KIND_STANDING};
use crate::base::limits::POSITION_MAX;
use crate::base::{Index, Term};
use crate::codec::{self, DecodeError};
use crate::raft::{Entry, HardState, Recovered, SnapshotMeta, Standing};
use crate::storage::wal;

/// Rebuilds the core's state from the log and the position of the tables.
///
/// # Errors
/// A record with a good checksum does not decode, so a foreign program wrote it.
pub fn replay(log: &wal::Recovery, durable: SnapshotMeta) -> Result<Recovered, DecodeError> {
    let mut replay = read(log, durable)?;
    if lacks_votes(log, durable) {
        crate::probe!("recovery.log_is_without_votes");
        replay.vote_lost = true;
    }
    Ok(replay.finish())
}

/// Tells whether the log must have told of votes, and tells of none.
pub(super) fn lacks_votes(log: &wal::Recovery, durable: SnapshotMeta) -> bool {
    let tells = |record: &wal::Recovered| match record.kind {
        KIND_HARD_STATE | KIND_STANDING => true,
        // A restoration, in two copies: nobody has voted yet.
        KIND_INSTALL => record.sequence <= 2,
        _ => false,
    };
    (durable.index > 0 || log.next > 1) && !log.records.iter().any(tells)
}

/// Returns the entries after the tables, and how far the log may have gone if some are lost;
/// for one who will never vote.
///
/// # Errors
/// A foreign program wrote a record.
pub(super) fn entries(
    log: &wal::Recovery,
    durable: SnapshotMeta,
) -> Result<(Vec<Entry>, Option<SnapshotMeta>), DecodeError> {
    let recovered = read(log, durable)?.finish();
    Ok((recovered.entries, recovered.damaged_last))
}

/// Replays all records.
fn read(log: &wal::Recovery, durable: SnapshotMeta) -> Result<Replay, DecodeError> {
    let mut replay = Replay { durable, ..Replay::default() };
    let mut damage = log.damage.iter().peekable();
    for record in &log.records {
        while let Some(hole) = damage.next_if(|hole| hole.missing.start < record.sequence) {
            replay.hole(hole);
        }
        match record.kind {
            KIND_HARD_STATE | KIND_STANDING => {
                (replay.standing, replay.hard_state) = if record.kind == KIND_STANDING {
                    codec::decode(&record.payload)?
                } else {
                    (Standing::Whole, codec::decode(&record.payload)?)
                };
                // Whatever was lost before is superseded.
                replay.vote_lost = false;
            }
            KIND_ENTRY => {
                replay.entry(decode_entry(&record.payload)?);
                replay.check_terms()?;
            }
            KIND_INSTALL => replay.install(codec::decode(&record.payload)?),
            KIND_RECOVERED => replay.recovered(codec::decode(&record.payload)?),
            kind => {
                return Err(DecodeError::Malformed(format!("log record of kind {kind}")));
            }
        }
    }
    for hole in damage {
        replay.hole(hole);
    }
    Ok(replay)
}

fn decode_entry(payload: &[u8]) -> Result<Entry, DecodeError> {
    let entry: Entry = codec::decode(payload)?;
    if (1..=POSITION_MAX).contains(&entry.index) {
        return Ok(entry);
    }
    Err(DecodeError::Malformed(format!("log entry of index {}", entry.index)))
}

#[derive(Default)]
struct Replay {
    durable: SnapshotMeta,
    hard_state: HardState,
    standing: Standing,
    entries: Vec<Entry>,
    /// Both copies of a hard state may be lost.
    vote_lost: bool,
    /// Records lost since the last entry.
    lost: u64,
    /// Highest entry known or possible, once something was dropped.
    damaged_last: Option<SnapshotMeta>,
    /// An installation, if no entry came after it yet, of a state that is not the tables'.
    installed: Option<SnapshotMeta>,
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
        let installed = self.installed.take().filter(|_| self.lost == 0);
        if let Some(installed) = installed.filter(|before| before.index + 1 == entry.index) {
            // What the log has at that index was never followed by this entry.
            crate::probe!("recovery.log_goes_on_after_lost_tables");
            self.begin_anew(installed);
        }
        if self.lost > 0 {
            crate::probe!("recovery.entry_after_damage");
            let keep_through = entry.index.saturating_sub(1).saturating_sub(self.lost);
            self.note_damage(self.last());
            self.note_damage(meta);
            self.truncate_after(keep_through);
            self.lost = 0;
        }
        let mut follows = self.entries.is_empty() || entry.index <= self.last().index + 1;
        if !follows && entry.index <= self.durable.index + 1 {
            // The tables cover the gap: the log began anew behind an installed snapshot.
            crate::probe!("recovery.log_begins_anew");
            self.entries.clear();
            follows = true;
        }
        if self.damaged_last.is_some() {
            self.note_damage(meta);
            if !follows || (self.entries.is_empty() && entry.index > self.durable.index + 1) {
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

    /// Refuses a log in which the last entry is of an earlier term than the one before it. Neither
    /// a node writes such a log nor a disk makes one, which loses and does not invent.
    fn check_terms(&self) -> Result<(), DecodeError> {
        let [.., before, last] = &self.entries[..] else { return Ok(()) };
        if before.term <= last.term {
            return Ok(());
        }
        let (of, after) = (last.term, before.term);
        Err(DecodeError::Malformed(format!(
            "log entry {} of term {of}, after one of term {after}",
            last.index
        )))
    }

    fn install(&mut self, meta: SnapshotMeta) {
        let held = self.entries.iter().any(|e| (e.index, e.term) == (meta.index, meta.term));
        // A log that reaches through the snapshot's last entry goes on after it, as in the core.
        self.installed = None;
        if held {
            return;
        }
        if meta == self.durable {
            self.begin_anew(meta);
        } else {
            self.installed = Some(meta);
        }
    }

    /// Drops everything that an installed snapshot has replaced.
    fn begin_anew(&mut self, meta: SnapshotMeta) {
        // What a damaged node had acknowledged beyond the snapshot it still lacks.
        self.settle_lost();
        let end = self.damaged_last.map_or(self.last(), |damaged| newer(damaged, self.last()));
        self.damaged_last = (log_end(&end) > log_end(&meta)).then_some(end);
        self.entries.clear();
    }

    /// Goes on where an earlier recovery went on: what it kept is kept, and what was lost before
    /// stays lost, but can have replaced nothing that was written since. What it did not keep, as
    /// entries after lost tables, it had to remember, and so has this one.
    fn recovered(&mut self, kept: SnapshotMeta) {
        self.settle_lost();
        if self.last().index > kept.index {
            crate::probe!("recovery.kept_less_before");
            self.note_damage(self.last());
        }
        self.truncate_after(kept.index);
    }

    /// Remembers how far a log may have reached whose last records are lost.
    fn settle_lost(&mut self) {
        if self.lost > 0 {
            crate::probe!("recovery.damage_at_the_end");
            // What the tables cover may be gone from the log, and then the lost come after that.
            let last = if self.entries.is_empty() { self.durable } else { self.last() };
            self.note_damage(SnapshotMeta {
                index: last.index + self.lost,
                term: self.hard_state.term.max(last.term),
            });
        }
        self.lost = 0;
    }

    fn finish(mut self) -> Recovered {
        self.settle_lost();
        let durable = self.durable;
        let gap = self.entries.first().is_some_and(|first| first.index > durable.index + 1);
        if gap {
            crate::probe!("recovery.log_starts_after_tables");
            self.note_damage(self.last());
            self.entries.clear();
        }
        self.entries.retain(|entry| entry.index > durable.index);
        if self.entries.first().is_some_and(|first| first.term < durable.term) {
            // The tables have another history than these, which what is lost of the log replaced.
            crate::probe!("recovery.log_is_older_than_tables");
            self.note_damage(self.last());
            self.entries.clear();
        }
        let last = newer(self.last(), durable);
        let damaged_last = self.damaged_last.filter(|damaged| log_end(damaged) > log_end(&last));
        let mut recovered = Recovered {
            hard_state: self.hard_state,
            snapshot: durable,
            entries: self.entries,
            damaged_last,
            standing: self.standing,
        };
        match self.standing {
            Standing::Filling(lost) => {
                crate::probe!("recovery.is_being_filled");
                recovered.lack(lost);
            }
            Standing::Founding => {
                crate::probe!("recovery.is_founding");
            }
            Standing::Whole | Standing::New | Standing::Unsure => {}
        }
        if self.vote_lost {
            crate::probe!("recovery.vote_is_lost");
            // A log of which nothing is left is no better than an empty disk.
            let has_past = recovered.last() != SnapshotMeta::default()
                || recovered.hard_state != HardState::default();
            recovered.standing = if has_past { Standing::Unsure } else { Standing::New };
        }
        recovered
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
        self.damaged_last = Some(self.damaged_last.map_or(meta, |old| newer(old, meta)));
    }
}

/// Returns what log ends are compared by: term, then index. [Raft §5.4.1]
fn log_end(meta: &SnapshotMeta) -> (Term, Index) {
    (meta.term, meta.index)
}

/// Returns the last snapshot of a leader's that was to replace the log, as far as the log tells.
pub(super) fn last_install(log: &wal::Recovery) -> Option<SnapshotMeta> {
    let mut installs = log.records.iter().rev().filter(|record| record.kind == KIND_INSTALL);
    installs.find_map(|record| codec::decode(&record.payload).ok())
}

/// Returns the newer one of two log ends.
pub(super) fn newer(a: SnapshotMeta, b: SnapshotMeta) -> SnapshotMeta {
    if log_end(&b) > log_end(&a) { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Payload;
    use crate::raft::EntryKind;

    fn entry(index: Index, term: Term) -> Entry {
        let command = Payload::new(index.to_le_bytes().to_vec()).unwrap_or_default();
        Entry { term, index, kind: EntryKind::Command(command) }
    }

    fn after(durable: SnapshotMeta) -> Replay {
        Replay { durable, ..Replay::default() }
    }

    fn meta(index: Index, term: Term) -> SnapshotMeta {
        SnapshotMeta { index, term }
    }

    fn indexes(recovered: &Recovered) -> Vec<(Index, Term)> {
        recovered.entries.iter().map(|entry| (entry.index, entry.term)).collect()
    }

    /// The accident: a log in which terms go back stopped the node by an assertion of its core.
    #[test]
    fn entry_of_an_earlier_term_than_the_one_before_is_malformed() {
        let replay_of = |terms: &[Term]| {
            let mut replay = after(SnapshotMeta::default());
            let mut entries = (1..).zip(terms).map(|(index, term)| entry(index, *term));
            entries.try_for_each(|entry| {
                replay.entry(entry);
                replay.check_terms()
            })
        };
        assert_eq!(replay_of(&[2, 2, 7]), Ok(()));
        assert!(matches!(replay_of(&[2, 35, 2]), Err(DecodeError::Malformed(_))));
    }

    #[test]
    fn entries_of_an_earlier_term_than_the_tables_are_not_gone_on_from() {
        let mut replay = after(meta(4, 7));
        for index in 4..7 {
            replay.entry(entry(index, 5));
        }
        let recovered = replay.finish();
        assert_eq!(indexes(&recovered), []);
        assert_eq!((recovered.snapshot, recovered.damaged_last), (meta(4, 7), None));
    }

    /// The accident: an entry of index 0 or of the last index let what is reckoned with overflow.
    #[test]
    fn entry_out_of_reach_is_malformed() {
        for index in [1, POSITION_MAX] {
            let entry = entry(index, 1);
            assert_eq!(decode_entry(&codec::encode(&entry)), Ok(entry));
        }
        for index in [0, POSITION_MAX + 1, Index::MAX] {
            let decoded = decode_entry(&codec::encode(&entry(index, 1)));
            assert!(matches!(decoded, Err(DecodeError::Malformed(_))), "{index}: {decoded:?}");
        }
    }

    #[test]
    fn later_entry_replaces_the_log_from_its_index_on() {
        let mut replay = after(SnapshotMeta::default());
        for (index, term) in [(1, 1), (2, 1), (3, 1), (2, 2)] {
            replay.entry(entry(index, term));
        }
        let recovered = replay.finish();
        assert_eq!(indexes(&recovered), [(1, 1), (2, 2)]);
        assert_eq!(recovered.damaged_last, None);
    }

    #[test]
    fn entries_covered_by_the_tables_are_dropped() {
        let mut replay = after(meta(2, 1));
        (1..=3).for_each(|index| replay.entry(entry(index, 1)));
        assert_eq!(indexes(&replay.finish()), [(3, 1)]);
    }

    #[test]
    fn lost_records_take_what_they_may_have_replaced_with_them() {
        let mut replay = after(SnapshotMeta::default());
        (1..=10).for_each(|index| replay.entry(entry(index, 1)));
        replay.lost = 2;
        (9..=12).for_each(|index| replay.entry(entry(index, 2)));
        let recovered = replay.finish();
        // One of the two may have been entry 7 or 8 of term 2.
        assert_eq!(recovered.entries.last().map(|last| last.index), Some(6));
        assert_eq!(recovered.damaged_last, Some(meta(12, 2)));
    }

    #[test]
    fn refilled_log_is_whole_again() {
        let mut replay = after(SnapshotMeta::default());
        (1..=5).for_each(|index| replay.entry(entry(index, 1)));
        replay.lost = 1;
        (7..=8).for_each(|index| replay.entry(entry(index, 1)));
        (6..=9).for_each(|index| replay.entry(entry(index, 1)));
        let recovered = replay.finish();
        assert_eq!(recovered.entries.len(), 9);
        assert_eq!(recovered.damaged_last, None);
    }

    #[test]
    fn lost_records_at_the_end_are_remembered_as_the_highest_possible() {
        let mut replay = after(SnapshotMeta::default());
        replay.hard_state = HardState { term: 4, vote: None };
        (1..=5).for_each(|index| replay.entry(entry(index, 1)));
        replay.lost = 2;
        assert_eq!(replay.finish().damaged_last, Some(meta(7, 4)));
    }

    /// Found by the swarm (storage seed 7105697): the tables covered all that was left of the log,
    /// and the only entry behind them was lost without a word.
    #[test]
    fn lost_record_of_a_log_that_the_tables_cover_is_remembered() {
        let mut replay = after(meta(277, 2));
        replay.hard_state = HardState { term: 2, vote: None };
        replay.lost = 1;
        let recovered = replay.finish();
        assert_eq!(indexes(&recovered), []);
        assert_eq!(recovered.damaged_last, Some(meta(278, 2)));
    }

    /// Found by the swarm (seed 704661): the second start took the last kept entry for lost, and
    /// all that the leader had refilled behind it for damage.
    #[test]
    fn log_that_was_refilled_behind_lost_records_at_the_end_is_whole_at_the_next_start() {
        let mut replay = after(SnapshotMeta::default());
        (1..=5).for_each(|index| replay.entry(entry(index, 1)));
        replay.lost = 1;
        replay.recovered(meta(5, 1));
        (6..=8).for_each(|index| replay.entry(entry(index, 1)));
        let recovered = replay.finish();
        assert_eq!(recovered.entries.len(), 8);
        assert_eq!(recovered.damaged_last, None);
    }

    /// Found by the swarm (storage seed 610006475): the tables were lost, so the entries after them
    /// were of no use, and a record in a hole of the log made the start say that it kept nothing.
    /// The next one took those entries for replaced, and voted for a leader that lacked them.
    #[test]
    fn entries_after_lost_tables_are_remembered_at_every_start() {
        let lost = |rest: std::ops::Range<Index>| {
            let mut replay = after(SnapshotMeta::default());
            (40..=41).for_each(|index| replay.entry(entry(index, 2)));
            replay.recovered(meta(0, 0));
            replay.recovered(meta(0, 0));
            rest.for_each(|index| replay.entry(entry(index, 2)));
            replay.finish()
        };
        assert_eq!(lost(0..0).damaged_last, Some(meta(41, 2)));
        assert_eq!(lost(1..41).damaged_last, Some(meta(41, 2)));
        assert_eq!(lost(1..42).damaged_last, None, "they are there again");
        assert_eq!(indexes(&lost(1..42)).len(), 41);
    }

    #[test]
    fn log_that_is_being_filled_lacks_what_the_lost_disk_may_have_had() {
        let lost = meta(9, 4);
        for (last, term, lacking) in [(5, 4, Some(lost)), (9, 3, Some(lost)), (9, 4, None)] {
            let mut replay = after(SnapshotMeta::default());
            replay.standing = Standing::Filling(lost);
            (1..=last).for_each(|index| replay.entry(entry(index, term)));
            assert_eq!(replay.finish().damaged_last, lacking, "a log to {last}@{term}");
        }
    }

    #[test]
    fn log_that_starts_after_the_tables_is_damaged() {
        let mut replay = after(meta(3, 1));
        (6..=8).for_each(|index| replay.entry(entry(index, 2)));
        let recovered = replay.finish();
        assert_eq!(indexes(&recovered), []);
        assert_eq!(recovered.damaged_last, Some(meta(8, 2)));
    }

    #[test]
    fn log_that_went_on_after_a_snapshot_older_than_the_tables_is_whole() {
        let mut replay = after(meta(9, 2));
        (1..=3).for_each(|index| replay.entry(entry(index, 1)));
        replay.install(meta(7, 2));
        (8..=11).for_each(|index| replay.entry(entry(index, 2)));
        let recovered = replay.finish();
        assert_eq!(indexes(&recovered), [(10, 2), (11, 2)]);
        assert_eq!(recovered.damaged_last, None);
    }

    #[test]
    fn installed_snapshot_replaces_a_log_that_does_not_reach_it() {
        let mut replay = after(meta(5, 2));
        (1..=7).for_each(|index| replay.entry(entry(index, 1)));
        replay.install(meta(5, 2));
        replay.entry(entry(6, 3));
        assert_eq!(indexes(&replay.finish()), [(6, 3)]);
    }

    /// Found by the swarm (storage seed 7118261): the tables were rotten, the leader's snapshot
    /// ended before the last acknowledged entry, and a crash came before that was sent again.
    #[test]
    fn installed_snapshot_does_not_make_up_for_what_was_acknowledged_beyond_it() {
        let mut replay = after(meta(26, 4));
        replay.entry(entry(27, 4));
        replay.install(meta(26, 4));
        let recovered = replay.finish();
        assert_eq!(recovered.damaged_last, Some(meta(27, 4)));
        let mut replay = after(meta(26, 4));
        replay.entry(entry(27, 4));
        replay.install(meta(26, 4));
        replay.entry(entry(27, 4));
        assert_eq!(replay.finish().damaged_last, None, "sent again");
    }

    /// Found by the swarm (storage seed 60203276): a snapshot replaced the end of the log, which
    /// was never committed. Then the tables rotted, and the log was read as if what came after the
    /// snapshot had followed its old end.
    #[test]
    fn log_that_went_on_after_a_snapshot_whose_tables_are_lost_is_damaged() {
        for old_last in [2, 3, 5] {
            let mut replay = after(SnapshotMeta::default());
            (1..=old_last).for_each(|index| replay.entry(entry(index, 1)));
            replay.install(meta(3, 2));
            (4..=6).for_each(|index| replay.entry(entry(index, 2)));
            let recovered = replay.finish();
            assert_eq!(indexes(&recovered), [], "the log went to {old_last}");
            assert_eq!(recovered.damaged_last, Some(meta(6, 2)), "the log went to {old_last}");
        }
    }

    /// The node died before the tables were replaced, and got the entries one by one after that.
    #[test]
    fn log_that_went_on_without_the_snapshot_is_whole() {
        let mut replay = after(SnapshotMeta::default());
        (1..=5).for_each(|index| replay.entry(entry(index, 1)));
        replay.install(meta(4, 2));
        (3..=6).for_each(|index| replay.entry(entry(index, 2)));
        let expected = [(1, 1), (2, 1), (3, 2), (4, 2), (5, 2), (6, 2)];
        assert_eq!(indexes(&replay.finish()), expected);
    }

    #[test]
    fn installed_snapshot_leaves_a_log_that_reaches_through_it() {
        let mut replay = after(meta(5, 1));
        (1..=7).for_each(|index| replay.entry(entry(index, 1)));
        replay.install(meta(5, 1));
        assert_eq!(indexes(&replay.finish()), [(6, 1), (7, 1)]);
    }

    #[test]
    fn installation_without_its_tables_is_ignored() {
        let mut replay = after(SnapshotMeta::default());
        (1..=3).for_each(|index| replay.entry(entry(index, 1)));
        replay.install(meta(9, 2));
        assert_eq!(indexes(&replay.finish()), [(1, 1), (2, 1), (3, 1)]);
    }
}
