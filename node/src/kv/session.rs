//! Client sessions: how a write that arrives several times takes effect once.
//!
//! A client that gets no answer sends its write again, perhaps to another leader, although the
//! first one may be in the log already. So every write carries a session and a number, and the
//! state machine keeps, *as part of the replicated state*, the answers that a client may still
//! ask for: a write whose number has an answer is not carried out, but answered again.
//!
//! An answer is kept until the client acknowledges it, by the lowest number that it still waits
//! for ([RIFL §3.3], "garbage collection"). A session is kept until it is the least recently used
//! of too many; all replicas must decide alike, so "recently" is counted in log positions, never
//! in time. [Thesis §6.3] A client whose session is gone is told so: it cannot know whether its
//! write took effect, and must not find out by trying again.
//!
//! # Invariants
//! 1. The table is a function of the log, and of `sessions_max`, which is therefore the same on
//!    all nodes of a cluster.
//! 2. Each session has one entry in the order of use, at its `last_used`.
//! 3. Every kept answer has a number of `acked_below` or more.
//!
//! # Left out
//! An expiry by time: a client that is idle keeps its session until others need the room.
//!
//! # Sources
//! [Thesis §6.3], [RIFL §3]

use std::collections::{BTreeMap, VecDeque};

use super::command::CommandReply;
use crate::base::hash::mix64;
use crate::base::limits::{SESSION_BYTES_MAX, SESSION_INFLIGHT_MAX, SESSIONS_BYTES_MAX};
use crate::base::{Index, RequestSeq, SessionId};
use crate::codec::{self, DecodeError};
use crate::{planted, probe};

/// Bytes that an answer counts besides the value in it, about what it takes in memory.
const ANSWER_OVERHEAD_BYTES: usize = 64;

/// What to do with a write that has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// Carry it out, and [`record`](Sessions::record) the answer.
    Fresh,
    /// Answer so; it does not take effect now.
    Answered(CommandReply),
}

/// The sessions of all clients; see the [module](self).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sessions {
    by_id: BTreeMap<SessionId, Session>,
    /// Each session at the log position of its last use.
    by_use: BTreeMap<Index, SessionId>,
    count_max: usize,
    /// Bytes that the answers of all sessions count.
    bytes: usize,
}

/// One client's session.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Session {
    /// Log position of its registration or of the last write that named it.
    last_used: Index,
    /// The client has the answers of all writes below this one.
    acked_below: RequestSeq,
    /// The answers that it may still ask for, by number.
    answers: VecDeque<(RequestSeq, CommandReply)>,
    /// Bytes that they count.
    bytes: usize,
}

impl Sessions {
    /// Makes an empty table of at most `sessions_max` sessions, which must be at least 1.
    pub fn new(sessions_max: usize) -> Self {
        assert!(sessions_max > 0, "a table of no sessions");
        Self { by_id: BTreeMap::new(), by_use: BTreeMap::new(), count_max: sessions_max, bytes: 0 }
    }

    /// Registers a session by the log entry at `index` of a client that drew `nonce`.
    pub fn register(&mut self, index: Index, nonce: u64) -> SessionId {
        self.register_as(SessionId(mix64(index, nonce)), index)
    }

    /// Registers a session by the log entry at `index`, which becomes its id.
    pub fn register_by_index(&mut self, index: Index) -> SessionId {
        self.register_as(SessionId(index), index)
    }

    fn register_as(&mut self, mut id: SessionId, index: Index) -> SessionId {
        // By chance never, but who foresees the index can choose a number for it.
        while self.by_id.contains_key(&id) {
            id.0 = id.0.wrapping_add(1);
        }
        let (acked_below, answers) = (RequestSeq(0), VecDeque::new());
        self.insert(id, Session { last_used: index, acked_below, answers, bytes: 0 });
        self.evict(id);
        id
    }

    /// Decides what to do with write `seq` of session `id`, by the log entry at `index`.
    pub fn admit(
        &mut self,
        index: Index,
        id: SessionId,
        seq: RequestSeq,
        acked_below: RequestSeq,
    ) -> Admission {
        let Some(session) = self.by_id.get_mut(&id) else {
            probe!("session.is_expired");
            return Admission::Answered(CommandReply::SessionExpired);
        };
        assert!(index > session.last_used, "use of {id:?} at {index} after {}", session.last_used);
        self.by_use.remove(&session.last_used);
        self.by_use.insert(index, id);
        session.last_used = index;
        self.bytes -= session.forget_below(acked_below);
        if seq < session.acked_below {
            probe!("session.asks_for_a_forgotten_answer");
            return Admission::Answered(CommandReply::OutOfWindow);
        }
        match session.position(seq) {
            Ok(reply) => {
                probe!("session.answers_a_retry");
                Admission::Answered(reply.clone())
            }
            Err(_) if session.is_full() => {
                probe!("session.is_full");
                Admission::Answered(CommandReply::OutOfWindow)
            }
            Err(_) => Admission::Fresh,
        }
    }

    /// Keeps the answer to a write that was [`Fresh`](Admission::Fresh) just now.
    pub fn record(&mut self, id: SessionId, seq: RequestSeq, reply: &CommandReply) {
        let Some(session) = self.by_id.get_mut(&id) else {
            unreachable!("write {seq:?} of {id:?} was admitted just now")
        };
        let Err(position) = session.position(seq) else {
            unreachable!("write {seq:?} of {id:?} has an answer already")
        };
        let bytes = answer_bytes(reply);
        let position = if planted!("R63") { session.answers.len() } else { position };
        session.answers.insert(position, (seq, reply.clone()));
        session.bytes += bytes;
        self.bytes += bytes;
        self.evict(id);
    }

    /// Returns how many sessions there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Tells whether there are no sessions.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Returns the log position at which a session was last used; 0 if there is none.
    pub fn last_used(&self) -> Index {
        self.by_use.last_key_value().map_or(0, |(index, _)| *index)
    }

    fn insert(&mut self, id: SessionId, session: Session) {
        self.bytes += session.bytes;
        let before = self.by_use.insert(session.last_used, id);
        assert!(before.is_none(), "{before:?} and {id:?} used at {}", session.last_used);
        let before = self.by_id.insert(id, session);
        assert!(before.is_none(), "{id:?} registered twice: {before:?}");
    }

    /// Pushes out the least recently used sessions while there are too many, but not `current`.
    fn evict(&mut self, current: SessionId) {
        while self.by_id.len() > self.count_max || self.bytes > SESSIONS_BYTES_MAX {
            let Some((_, id)) = self.by_use.pop_first() else { return };
            if id == current {
                // Only the answers of one session are left, and those have a limit of their own.
                if let Some(session) = self.by_id.get(&id) {
                    self.by_use.insert(session.last_used, id);
                }
                return;
            }
            probe!("session.is_pushed_out");
            if let Some(session) = self.by_id.remove(&id) {
                self.bytes -= session.bytes;
            }
        }
    }

    /// Appends the encoding of the table, the same on every node with the same table.
    ///
    /// ```text
    /// count u64 LE │ (id u64 LE │ len u32 LE │ session (len bytes))*     sorted by id
    /// session = last_used, acked_below, answers (codec)
    /// ```
    pub fn encode_into(&self, buffer: &mut Vec<u8>) {
        let count = u64::try_from(self.by_id.len()).unwrap_or(u64::MAX);
        buffer.extend_from_slice(&count.to_le_bytes());
        for (id, session) in &self.by_id {
            let encoded =
                codec::encode(&(session.last_used, session.acked_below, &session.answers));
            let len = u32::try_from(encoded.len()).unwrap_or(u32::MAX);
            buffer.extend_from_slice(&id.0.to_le_bytes());
            buffer.extend_from_slice(&len.to_le_bytes());
            buffer.extend_from_slice(&encoded);
        }
    }

    /// Reads a table back that fills `bytes` exactly.
    ///
    /// # Errors
    /// The bytes were not made by [`encode_into`](Self::encode_into).
    pub fn decode(bytes: &[u8], sessions_max: usize) -> Result<Self, DecodeError> {
        let mut table = Self::new(sessions_max);
        let (count, mut rest) = bytes.split_first_chunk::<8>().ok_or(DecodeError::Truncated)?;
        for _ in 0..u64::from_le_bytes(*count) {
            let (id, tail) = rest.split_first_chunk::<8>().ok_or(DecodeError::Truncated)?;
            let (len, tail) = tail.split_first_chunk::<4>().ok_or(DecodeError::Truncated)?;
            let len = usize::try_from(u32::from_le_bytes(*len)).unwrap_or(usize::MAX);
            let (encoded, tail) = match tail.split_at_checked(len) {
                None if planted!("F16") => tail.split_at(len),
                split => split.ok_or(DecodeError::Truncated)?,
            };
            let id = SessionId(u64::from_le_bytes(*id));
            let session = Session::decode(encoded)?;
            if !session.is_consistent()
                || table.by_id.contains_key(&id)
                || table.by_use.contains_key(&session.last_used)
            {
                return Err(DecodeError::Malformed(format!("session {id:?}")));
            }
            table.insert(id, session);
            rest = tail;
        }
        if !rest.is_empty() {
            let (len, used) = (bytes.len(), bytes.len() - rest.len());
            return Err(DecodeError::TrailingBytes { used, len });
        }
        Ok(table)
    }
}

impl Session {
    fn decode(encoded: &[u8]) -> Result<Self, DecodeError> {
        type Answers = VecDeque<(RequestSeq, CommandReply)>;
        let (last_used, acked_below, answers): (_, _, Answers) = codec::decode(encoded)?;
        let bytes = answers.iter().map(|(_, reply)| answer_bytes(reply)).sum();
        Ok(Self { last_used, acked_below, answers, bytes })
    }

    /// Forgets the answers that the client has; returns the bytes that they counted.
    fn forget_below(&mut self, acked_below: RequestSeq) -> usize {
        self.acked_below = self.acked_below.max(acked_below);
        let mut forgotten_bytes = 0;
        while let Some((_, reply)) = self.answers.pop_front_if(|(seq, _)| *seq < self.acked_below) {
            forgotten_bytes += answer_bytes(&reply);
        }
        self.bytes -= forgotten_bytes;
        forgotten_bytes
    }

    /// Returns the answer to `seq`, or the position where it belongs.
    fn position(&self, seq: RequestSeq) -> Result<&CommandReply, usize> {
        // The usual write is newer than all before it.
        if self.answers.back().is_none_or(|(last, _)| *last < seq) {
            return Err(self.answers.len());
        }
        let position = self.answers.partition_point(|(kept, _)| *kept < seq);
        match self.answers.get(position) {
            Some((kept, reply)) if *kept == seq => Ok(reply),
            _ => Err(position),
        }
    }

    fn is_full(&self) -> bool {
        self.answers.len() >= SESSION_INFLIGHT_MAX || self.bytes >= SESSION_BYTES_MAX
    }

    /// Tells whether the answers are sorted and none is forgotten already.
    fn is_consistent(&self) -> bool {
        self.answers.iter().map(|(seq, _)| seq).is_sorted_by(|a, b| a < b)
            && self.answers.front().is_none_or(|(first, _)| *first >= self.acked_below)
    }
}

/// Returns the bytes that an answer counts.
fn answer_bytes(reply: &CommandReply) -> usize {
    let value_bytes = match reply {
        CommandReply::ConditionFailed { current: Some(cell), .. } => cell.value.len(),
        CommandReply::Registered(_)
        | CommandReply::Applied(_)
        | CommandReply::ConditionFailed { current: None, .. }
        | CommandReply::SessionExpired
        | CommandReply::OutOfWindow
        | CommandReply::Malformed => 0,
    };
    ANSWER_OVERHEAD_BYTES + value_bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Value;
    use crate::kv::{Cell, Version};

    const FIRST: SessionId = SessionId(1);

    /// Admits write `seq` at `index`, and records `reply` if it is fresh.
    fn write(sessions: &mut Sessions, index: u64, seq: u64, reply: &CommandReply) -> Admission {
        let admission = sessions.admit(index, FIRST, RequestSeq(seq), RequestSeq(0));
        if admission == Admission::Fresh {
            sessions.record(FIRST, RequestSeq(seq), reply);
        }
        admission
    }

    /// The accident: a client of a cluster that was founded again under the same id went on with
    /// its session, which was another client's by now, and each got the other's answers.
    #[test]
    fn session_of_another_log_is_unknown_and_ids_that_meet_move_on() {
        let (mut here, mut there) = (Sessions::new(3), Sessions::new(3));
        let (ours, theirs) = (here.register(1, 10), there.register(1, 11));
        assert_ne!(ours, theirs);
        let answer = there.admit(2, ours, RequestSeq(1), RequestSeq(0));
        assert_eq!(answer, Admission::Answered(CommandReply::SessionExpired));
        let taken = SessionId(7);
        assert_eq!(here.register_as(taken, 7), taken);
        assert_eq!(here.register_as(taken, 8), SessionId(8));
        assert_eq!(here.len(), 3);
    }

    fn large_reply() -> CommandReply {
        let value = Value::new(vec![1; Value::BYTES_MAX]).unwrap_or_default();
        let current = Some(Cell { value, version: Version(1) });
        CommandReply::ConditionFailed { position: 0, current }
    }

    #[test]
    fn answers_out_of_order_are_kept_until_acknowledged() {
        let mut sessions = Sessions::new(1);
        sessions.register_by_index(1);
        let reply = |seq: u64| CommandReply::Applied(Version(100 + seq));
        for (index, seq) in (2..).zip([3, 1, 5, 2]) {
            assert_eq!(write(&mut sessions, index, seq, &reply(seq)), Admission::Fresh);
        }
        for (index, seq) in (6..).zip([1, 2, 3, 5]) {
            let again = write(&mut sessions, index, seq, &CommandReply::Malformed);
            assert_eq!(again, Admission::Answered(reply(seq)));
        }
        let acked = sessions.admit(10, FIRST, RequestSeq(4), RequestSeq(3));
        assert_eq!(acked, Admission::Fresh);
        let forgotten = sessions.admit(11, FIRST, RequestSeq(2), RequestSeq(0));
        assert_eq!(forgotten, Admission::Answered(CommandReply::OutOfWindow));
        let kept = sessions.admit(12, FIRST, RequestSeq(3), RequestSeq(0));
        assert_eq!(kept, Admission::Answered(reply(3)));
    }

    /// Tells whether one of several writes that came out of order is not answered as before.
    #[cfg(feature = "testing")]
    fn answer_out_of_order_is_lost() -> bool {
        let mut sessions = Sessions::new(1);
        sessions.register_by_index(1);
        let reply = |seq: u64| CommandReply::Applied(Version(100 + seq));
        for (index, seq) in (2..).zip([3, 1, 5, 2]) {
            write(&mut sessions, index, seq, &reply(seq));
        }
        let mut again = (6..).zip([1, 2, 3, 5]);
        again.any(|(index, seq)| {
            let again = write(&mut sessions, index, seq, &CommandReply::Malformed);
            again != Admission::Answered(reply(seq))
        })
    }

    #[cfg(feature = "testing")]
    #[test]
    fn answers_kept_in_the_order_of_their_arrival_are_caught() {
        crate::base::planted::loses_only_with("R63", answer_out_of_order_is_lost);
    }

    #[test]
    fn session_with_too_many_answers_takes_no_more_writes() {
        let mut sessions = Sessions::new(1);
        sessions.register_by_index(1);
        let limit = u64::try_from(SESSION_INFLIGHT_MAX).unwrap();
        for seq in 1..=limit {
            let admission = write(&mut sessions, 1 + seq, seq, &CommandReply::Malformed);
            assert_eq!(admission, Admission::Fresh);
        }
        let refused = write(&mut sessions, limit + 2, limit + 1, &CommandReply::Malformed);
        assert_eq!(refused, Admission::Answered(CommandReply::OutOfWindow));
        let acked = sessions.admit(limit + 3, FIRST, RequestSeq(limit + 1), RequestSeq(2));
        assert_eq!(acked, Admission::Fresh);
    }

    #[test]
    fn session_with_too_large_answers_takes_no_more_writes() {
        let mut sessions = Sessions::new(1);
        sessions.register_by_index(1);
        assert_eq!(write(&mut sessions, 2, 1, &large_reply()), Admission::Fresh);
        assert_eq!(write(&mut sessions, 3, 2, &large_reply()), Admission::Fresh);
        let refused = write(&mut sessions, 4, 3, &large_reply());
        assert_eq!(refused, Admission::Answered(CommandReply::OutOfWindow));
    }

    #[test]
    fn sessions_with_too_large_answers_push_out_the_least_recently_used() {
        let mut sessions = Sessions::new(1000);
        let mut index = 0;
        for _ in 0..40 {
            index += 1;
            let id = sessions.register_by_index(index);
            index += 1;
            assert_eq!(sessions.admit(index, id, RequestSeq(1), RequestSeq(0)), Admission::Fresh);
            sessions.record(id, RequestSeq(1), &large_reply());
        }
        assert_eq!(sessions.len(), SESSIONS_BYTES_MAX / (Value::BYTES_MAX + 64));
        let first = sessions.admit(index + 1, FIRST, RequestSeq(2), RequestSeq(0));
        assert_eq!(first, Admission::Answered(CommandReply::SessionExpired));
    }

    #[test]
    fn session_used_last_survives_the_others() {
        let mut sessions = Sessions::new(2);
        sessions.register_by_index(1);
        sessions.register_by_index(2);
        assert_eq!(write(&mut sessions, 3, 1, &CommandReply::Malformed), Admission::Fresh);
        sessions.register_by_index(4);
        let second = sessions.admit(5, SessionId(2), RequestSeq(1), RequestSeq(0));
        assert_eq!(second, Admission::Answered(CommandReply::SessionExpired));
        let first = write(&mut sessions, 6, 1, &CommandReply::Malformed);
        assert_eq!(first, Admission::Answered(CommandReply::Malformed));
    }

    #[test]
    fn table_damaged_is_refused_without_a_panic() {
        let mut sessions = Sessions::new(3);
        sessions.register_by_index(1);
        sessions.register_by_index(2);
        write(&mut sessions, 3, 1, &large_reply());
        let mut encoded = Vec::new();
        sessions.encode_into(&mut encoded);
        assert_eq!(Sessions::decode(&encoded, 3), Ok(sessions));
        for len in (0..40).chain(encoded.len() - 40..encoded.len()) {
            assert!(Sessions::decode(&encoded[..len], 3).is_err(), "cut to {len} bytes");
        }
        let mut twice = encoded.clone();
        twice[0] += 1;
        twice.extend_from_slice(&encoded[8..]);
        assert!(Sessions::decode(&twice, 9).is_err(), "a session that is there twice");
        encoded.push(0);
        assert!(Sessions::decode(&encoded, 3).is_err(), "one byte more");
    }
}
