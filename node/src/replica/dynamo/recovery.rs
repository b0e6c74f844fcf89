//! From the records of the log to what a masterless node knows of itself.
//!
//! Without damage this is simple: persist requests are numbered without a gap, and those after the
//! tables' position are applied again, in their order. Applying is idempotent, so it does no harm
//! that what was read twice is applied twice.
//!
//! With damage (records that were durable and cannot be read) the node may lack writes that it
//! has acknowledged. Unlike a node of the primary-backup mode it need not know which: it takes part
//! as *damaged*, until it has compared all that it holds with all others who hold it. That it is
//! damaged must be as durable as what it lost. The core keeps a note, but not before its first
//! persist request is durable; so a start that finds damage first writes a record that says which
//! request that will be, and until that request is found, every start is damaged.
//!
//! A log that has no record, and never had one, has lost its files if the tables have anything: a
//! request is applied only when it is durable there.
//!
//! What was lost before a record is of no account if the tables cover all requests before that
//! record's.

use super::super::persist::{KIND_DAMAGED, KIND_RECORDS};
use crate::codec::DecodeError;
use crate::dynamo::PersistId;
use crate::storage::wal::{Loss, Recovery};

/// No node gets so far. Beyond it numbers would come to their end.
const REQUEST_MAX: PersistId = 1 << 62;

/// What the log tells, besides the records themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::replica) struct Judged {
    /// The last persist request that is durable, in the log or in tables.
    pub(in crate::replica) persisted: PersistId,
    /// Requests are missing that may have been acknowledged.
    pub(in crate::replica) is_damaged: bool,
}

/// Judges what is in the log, beside tables that go up to `applied`.
///
/// # Errors
/// A record is of the other mode, or of another program.
pub(in crate::replica) fn judge(log: &Recovery, applied: PersistId) -> Result<Judged, DecodeError> {
    let mut damage = log.damage.iter().filter(|hole| hole.loss != Loss::Nothing).peekable();
    let mut judge = Judge { applied, last: None, is_lost: false, noted_with: None };
    for record in &log.records {
        if record.tag > REQUEST_MAX {
            let what = format!("persist request {}, and no node gets so far", record.tag);
            return Err(DecodeError::Malformed(what));
        }
        if damage.next_if(|hole| hole.missing.start < record.sequence).is_some() {
            judge.is_lost = true;
            while damage.next_if(|hole| hole.missing.start < record.sequence).is_some() {}
        }
        match record.kind {
            KIND_RECORDS => judge.records(record.tag),
            KIND_DAMAGED => judge.damaged(record.tag),
            kind => {
                return Err(DecodeError::Malformed(format!(
                    "log record of kind {kind}, which the masterless mode does not write"
                )));
            }
        }
    }
    judge.is_lost |= damage.next().is_some();
    if log.is_blank() && applied > 0 {
        crate::probe!("recovery.log_of_requests_is_gone");
        judge.is_lost = true;
    }
    Ok(judge.finish())
}

/// Judges a log as a start does, beside tables that go up to `applied`; tells whether the node is
/// damaged, or `None` if a record is none of the masterless mode.
#[cfg(feature = "testing")]
pub fn judge_masterless_log(log: &Recovery, applied: PersistId) -> Option<bool> {
    judge(log, applied).ok().map(|judged| judged.is_damaged)
}

struct Judge {
    applied: PersistId,
    /// The last request that was read.
    last: Option<PersistId>,
    /// Something before here is missing that the tables do not cover.
    is_lost: bool,
    /// An earlier start found damage, and noted that with this request.
    noted_with: Option<PersistId>,
}

impl Judge {
    fn records(&mut self, id: PersistId) {
        let is_next = id <= self.last.unwrap_or(self.applied).saturating_add(1);
        if id <= self.applied.saturating_add(1) {
            // All that may be missing so far came before it.
            self.is_lost = false;
        } else if !is_next {
            crate::probe!("recovery.persist_requests_are_missing");
            self.is_lost = true;
        }
        if self.noted_with.is_some_and(|noted| noted <= id) {
            self.noted_with = None;
        }
        self.last = Some(id);
    }

    fn damaged(&mut self, noted_with: PersistId) {
        self.is_lost = false;
        self.noted_with = Some(noted_with);
    }

    fn finish(self) -> Judged {
        let is_noted = self.noted_with.is_none_or(|noted| noted <= self.applied);
        let persisted = self.last.unwrap_or_default().max(self.applied);
        Judged { persisted, is_damaged: self.is_lost || !is_noted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(applied: PersistId) -> Judge {
        Judge { applied, last: None, is_lost: false, noted_with: None }
    }

    fn judged(persisted: PersistId, is_damaged: bool) -> Judged {
        Judged { persisted, is_damaged }
    }

    #[test]
    fn log_without_a_gap_is_whole() {
        let mut log = judge(3);
        (2..=6).for_each(|id| log.records(id));
        assert_eq!(log.finish(), judged(6, false));
        assert_eq!(judge(3).finish(), judged(3, false));
    }

    /// The accident: tables, or a record, with the last of all numbers let the next one overflow.
    #[test]
    fn log_at_the_last_of_all_numbers_is_judged() {
        let mut log = judge(PersistId::MAX);
        log.records(PersistId::MAX);
        log.records(PersistId::MAX);
        assert_eq!(log.finish(), judged(PersistId::MAX, false));
    }

    #[test]
    fn missing_requests_are_damage_unless_the_tables_cover_them() {
        for (applied, is_damaged) in [(1, true), (3, true), (4, false), (9, false)] {
            let mut log = judge(applied);
            log.records(2);
            log.is_lost = true;
            log.records(5);
            assert_eq!(log.finish(), judged(applied.max(5), is_damaged), "tables at {applied}");
        }
    }

    #[test]
    fn log_that_begins_after_the_tables_is_damaged() {
        let mut log = judge(3);
        log.records(5);
        assert_eq!(log.finish(), judged(5, true));
    }

    #[test]
    fn end_of_the_log_that_is_lost_is_damage() {
        let mut log = judge(3);
        log.records(4);
        log.is_lost = true;
        assert_eq!(log.finish(), judged(4, true));
    }

    #[test]
    fn damage_is_remembered_until_its_note_is_durable() {
        let mut log = judge(3);
        log.records(4);
        log.is_lost = true;
        log.damaged(5);
        assert_eq!(log.finish(), judged(4, true), "the note was never written");

        let mut log = judge(3);
        log.is_lost = true;
        log.damaged(5);
        log.records(5);
        assert_eq!(log.finish(), judged(5, true), "4 is missing");

        let mut log = judge(3);
        log.records(4);
        log.is_lost = true;
        log.damaged(5);
        log.records(5);
        assert_eq!(log.finish(), judged(5, false), "the note tells");
        let mut log = judge(5);
        log.damaged(5);
        assert_eq!(log.finish(), judged(5, false), "the note is in the tables");
    }
}
