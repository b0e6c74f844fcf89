//! The deterministic state machine: log entries in, answers out.
//!
//! Every replica carries out the same commands in the same order, so everything here is a
//! function of the state and the command alone. That goes for refusals too: bytes that are no
//! command get an answer like any other, on every replica the same. The one thing that may differ
//! between replicas is a failure of the own storage; it is no answer, it stops the node.
//!
//! The cells live in an [`Engine`], the sessions in memory; what is on disk holds both as of one
//! log position. Above the engine nothing knows how cells are kept, and below this module nothing
//! knows what they mean.
//!
//! # Invariants
//! 1. Log entries come one by one, without a gap, each once.
//! 2. A batch changes all of its cells, all with its log index as their version, or none.
//! 3. A write of a session takes effect at most once; every further time it gets the answer that
//!    it got then. [Thesis §6.3]
//! 4. An answer is of a single state, however many turns it takes: see [`super::read`].
//!
//! # Left out
//! Checking the size of commands: an entry that is in the log is carried out whatever its size;
//! [`super::validate()`] stands before the log.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::command::{Batch, Command, CommandReply, Mutation};
use super::conditions;
use super::query::{Query, Version};
use super::read::{self, LongRead, Progress, QueryError, Turn};
use super::session::{Admission, Sessions};
use crate::base::checksum::crc32;
use crate::base::{Index, Term};
use crate::codec::{self, DecodeError, keycode};
use crate::storage::{Change, Engine, SnapshotPoint, StorageError};
use crate::{planted, probe};

/// The state of the store and the commands that change it; see the [module](self).
#[derive(Debug)]
pub struct Machine<S: Engine> {
    engine: S,
    sessions: Sessions,
    trail: u64,
    /// The reads that go on in later turns, by who waits for each.
    reading: BTreeMap<u64, LongRead>,
}

/// What a batch makes of the rows and places that it touches, in their order.
#[derive(Debug, Default)]
pub(super) struct Overlay<'b> {
    /// The prefixes of the rows that lose all cells that they had before the batch.
    pub(super) deleted_rows: BTreeSet<Vec<u8>>,
    /// What becomes of single places after that; `None` to delete.
    pub(super) cells: BTreeMap<Vec<u8>, Option<&'b [u8]>>,
}

impl<S: Engine> Machine<S> {
    /// Makes the machine whose state is in `engine`, with what was captured with it.
    ///
    /// `extra` is empty exactly for an empty engine. `sessions_max` must be the same on all nodes
    /// of a cluster: it decides which sessions are pushed out.
    ///
    /// # Errors
    /// `extra` is not what [`extra`](Self::extra) returns.
    pub fn restore(engine: S, extra: &[u8], sessions_max: usize) -> Result<Self, StorageError> {
        let sessions = Sessions::new(sessions_max);
        let mut machine = Self { engine, sessions, trail: 0, reading: BTreeMap::new() };
        if machine.applied().index > 0 || !extra.is_empty() {
            machine.reload(extra, sessions_max)?;
        }
        Ok(machine)
    }

    /// Takes over what was captured with the state that the engine is in now: it has been replaced.
    ///
    /// # Errors
    /// As of [`restore`](Self::restore).
    pub fn reload(&mut self, extra: &[u8], sessions_max: usize) -> Result<(), StorageError> {
        self.reading.clear();
        let decoded = decode_extra(extra, sessions_max, self.applied().index);
        (self.trail, self.sessions) = decoded.map_err(|error| StorageError::Corrupt {
            path: format!("sessions of the state at {:?}", self.applied()),
            offset: 0,
            what: error.to_string(),
        })?;
        Ok(())
    }

    /// Carries out the command of the next log entry, and returns its answer.
    ///
    /// # Errors
    /// The own storage failed. The entry may be half done: the node must stop.
    ///
    /// # Panics
    /// If `index` is not the one after [`applied`](Self::applied).
    pub fn apply(
        &mut self,
        index: Index,
        term: Term,
        command: &[u8],
    ) -> Result<CommandReply, StorageError> {
        let at = self.next_point(index, term);
        let (reply, changed) = match codec::decode::<Command>(command) {
            Ok(Command::Register { nonce }) => {
                (CommandReply::Registered(self.sessions.register(index, nonce)), false)
            }
            Ok(Command::RegisterByIndex { .. }) => {
                (CommandReply::Registered(self.sessions.register_by_index(index)), false)
            }
            Ok(Command::Write { session, seq, acked_below, batch }) => {
                match self.sessions.admit(index, session, seq, acked_below) {
                    Admission::Answered(reply) => (reply, false),
                    Admission::Fresh => {
                        let reply = self.carry_out(at, &batch)?;
                        self.sessions.record(session, seq, &reply);
                        (reply, true)
                    }
                }
            }
            Err(_) => {
                probe!("machine.command_is_malformed");
                (CommandReply::Malformed, false)
            }
        };
        if !changed {
            self.engine.write(at, &[]);
        }
        let seen = u64::from(crc32(command)) << 32 | u64::from(crc32(&codec::encode(&reply)));
        self.trail = mix(mix(self.trail, index ^ term.rotate_left(32)), seen);
        Ok(reply)
    }

    /// Carries out the write of the next log entry whether or not its session has done so before.
    /// For who has lost the sessions and wants what can be had of the cells.
    ///
    /// # Errors
    /// The own storage failed.
    ///
    /// # Panics
    /// As of [`apply`](Self::apply).
    pub fn apply_unnumbered(
        &mut self,
        index: Index,
        term: Term,
        command: &[u8],
    ) -> Result<(), StorageError> {
        let at = self.next_point(index, term);
        match codec::decode::<Command>(command) {
            Ok(Command::Write { batch, .. }) => self.carry_out(at, &batch).map(drop),
            Ok(Command::Register { .. } | Command::RegisterByIndex { .. }) | Err(_) => {
                self.engine.write(at, &[]);
                Ok(())
            }
        }
    }

    /// Returns what stands with cells whose sessions are lost.
    pub fn extra_without_sessions() -> Vec<u8> {
        let mut extra = 0_u64.to_le_bytes().to_vec();
        Sessions::new(1).encode_into(&mut extra);
        extra
    }

    /// Passes over a log entry that carries no command.
    ///
    /// # Panics
    /// If `index` is not the one after [`applied`](Self::applied).
    pub fn skip(&mut self, index: Index, term: Term) {
        let at = self.next_point(index, term);
        self.engine.write(at, &[]);
        self.trail = mix(self.trail, index ^ term.rotate_left(32));
    }

    /// Answers a query from the state as it is, unless it has to be read past more than
    /// `bytes_max` bytes: then it is one to [`read_on`](Self::read_on) with.
    ///
    /// # Errors
    /// The answer is too large, or the own storage failed.
    pub fn query(&self, query: &Query, bytes_max: usize) -> Result<Turn, QueryError> {
        if read::takes_more_turns(query, bytes_max) {
            return Ok(Turn { reply: None, passed_bytes: 0 });
        }
        let (progress, passed_bytes) = read::answer(&self.engine, query, bytes_max)?;
        Ok(match progress {
            Progress::Done(reply) => Turn { reply: Some(reply), passed_bytes },
            Progress::More(_) => Turn { reply: None, passed_bytes },
        })
    }

    /// Reads on for one turn, past `bytes_max` bytes at most. Entries may be applied between two
    /// turns; the answer is of the state at the last one. `reader` is who waits for it; with
    /// another query of the same one this begins anew. What was found so far is kept for each
    /// reader until it has its answer or [stops](Self::stop_reading), so whoever calls this limits
    /// their number.
    ///
    /// # Errors
    /// As of [`query`](Self::query).
    pub fn read_on(
        &mut self,
        reader: u64,
        query: &Query,
        bytes_max: usize,
    ) -> Result<Turn, QueryError> {
        let begun = self.reading.remove(&reader).filter(|begun| begun.query() == query);
        let (progress, passed_bytes) = match begun {
            Some(begun) => read::go_on(&self.engine, begun, bytes_max)?,
            None => read::answer(&self.engine, query, bytes_max)?,
        };
        Ok(match progress {
            Progress::Done(reply) => Turn { reply: Some(reply), passed_bytes },
            Progress::More(begun) => {
                self.reading.insert(reader, begun);
                Turn { reply: None, passed_bytes }
            }
        })
    }

    /// Forgets what was read so far for somebody who does not wait any more; tells whether there
    /// was anything.
    pub fn stop_reading(&mut self, reader: u64) -> bool {
        self.reading.remove(&reader).is_some()
    }

    /// Returns the last log entry that was carried out or passed over.
    pub fn applied(&self) -> SnapshotPoint {
        self.engine.applied()
    }

    /// Returns how many cells there are.
    pub fn cell_count(&self) -> u64 {
        self.engine.cell_count()
    }

    /// Returns how many sessions there are.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// Returns what is to be kept with the cells as they are now, for
    /// [`restore`](Self::restore).
    pub fn extra(&self) -> Vec<u8> {
        self.encode_extra()
    }

    /// Returns the store of the cells.
    pub fn engine(&self) -> &S {
        &self.engine
    }

    /// Returns the store of the cells for what concerns it alone, such as making it durable.
    ///
    /// Whoever writes to it breaks invariants 2 and 4.
    pub fn engine_mut(&mut self) -> &mut S {
        &mut self.engine
    }

    /// Returns a hash over all commands and answers so far, which replicas at the same position
    /// must share. It costs next to nothing, and tells that histories differ, not where.
    pub fn trail(&self) -> u64 {
        self.trail
    }

    /// Returns a hash over all cells and sessions, which replicas at the same position must
    /// share. It reads the whole state.
    ///
    /// # Errors
    /// The own storage failed.
    pub fn state_hash(&self) -> Result<u64, StorageError> {
        let mut hash = mix(0, self.applied().index);
        self.engine.scan(&[], None, &mut |place, value, version| {
            let crc = u64::from(crc32(place)) << 32 | u64::from(crc32(value));
            hash = mix(mix(hash, crc), version);
            ControlFlow::Continue(())
        })?;
        let mut sessions = Vec::new();
        self.sessions.encode_into(&mut sessions);
        Ok(mix(hash, u64::from(crc32(&sessions))))
    }

    /// Checks that the entry is the next one.
    fn next_point(&self, index: Index, term: Term) -> SnapshotPoint {
        let applied = self.engine.applied();
        assert!(index == applied.index + 1, "entry {index} comes after {applied:?}");
        assert!(term >= applied.term, "term {term} of entry {index} comes after {applied:?}");
        SnapshotPoint { index, term }
    }

    /// Carries a batch out, if its conditions hold.
    fn carry_out(
        &mut self,
        at: SnapshotPoint,
        batch: &Batch,
    ) -> Result<CommandReply, StorageError> {
        if let Some(failed) = conditions::first_failed(&self.engine, &batch.conditions)? {
            self.engine.write(at, &[]);
            return Ok(failed);
        }
        if let [Mutation::Set { key, column, value }] = batch.mutations.as_slice() {
            let place = keycode::encode_cell(key.as_bytes(), column.as_bytes());
            self.write(at, &[Change::Set { place: &place, value: value.as_bytes() }]);
        } else {
            self.write(at, &Overlay::of(&batch.mutations).changes());
        }
        Ok(CommandReply::Applied(Version(at.index)))
    }

    /// Makes the changes of an entry, of which reads that go on must know.
    fn write(&mut self, at: SnapshotPoint, changes: &[Change<'_>]) {
        self.engine.write(at, changes);
        for begun in self.reading.values_mut().filter(|_| !planted!("R59")) {
            begun.on_write(at.index, changes);
        }
    }

    /// Returns what must be kept with the cells.
    ///
    /// ```text
    /// trail u64 LE │ sessions
    /// ```
    fn encode_extra(&self) -> Vec<u8> {
        let mut extra = self.trail.to_le_bytes().to_vec();
        if planted!("R45") {
            Sessions::new(1).encode_into(&mut extra);
            return extra;
        }
        self.sessions.encode_into(&mut extra);
        extra
    }
}

impl<'b> Overlay<'b> {
    /// Returns what the mutations, in their order, make of rows and places.
    pub(super) fn of(mutations: &'b [Mutation]) -> Self {
        let mut overlay = Self::default();
        for mutation in mutations {
            match mutation {
                Mutation::Set { key, column, value } => {
                    let place = keycode::encode_cell(key.as_bytes(), column.as_bytes());
                    overlay.cells.insert(place, Some(value.as_bytes()));
                }
                Mutation::Delete { key, column } => {
                    let place = keycode::encode_cell(key.as_bytes(), column.as_bytes());
                    overlay.cells.insert(place, None);
                }
                Mutation::DeleteRow { key } => {
                    let row = keycode::encode_key(key.as_bytes());
                    let end = keycode::encode_key_end(key.as_bytes());
                    let earlier =
                        overlay.cells.extract_if(row.clone()..end, |_, _| !planted!("R64"));
                    earlier.for_each(drop);
                    overlay.deleted_rows.insert(row);
                }
            }
        }
        overlay
    }

    /// Returns the changes for the engine: the rows first, so that no cell of the batch is hit.
    fn changes(&self) -> Vec<Change<'_>> {
        let rows = self.deleted_rows.iter().map(|row| Change::DeleteRow { row });
        let cells = self.cells.iter().map(|(place, value)| match *value {
            Some(value) => Change::Set { place, value },
            None => Change::Delete { place },
        });
        rows.chain(cells).collect()
    }
}

/// Reads what was captured with the state at `applied`.
fn decode_extra(
    extra: &[u8],
    sessions_max: usize,
    applied: Index,
) -> Result<(u64, Sessions), DecodeError> {
    let (trail, sessions) = extra.split_first_chunk::<8>().ok_or(DecodeError::Truncated)?;
    let sessions = Sessions::decode(sessions, sessions_max)?;
    let last_used = sessions.last_used();
    if last_used > applied {
        let what = format!("a session was used at {last_used}, in a state at {applied}");
        return Err(DecodeError::Malformed(what));
    }
    Ok((u64::from_le_bytes(*trail), sessions))
}

/// Stirs `value` into `hash`, so that neither order nor repetition goes unnoticed (the finishing
/// steps of splitmix64).
fn mix(hash: u64, value: u64) -> u64 {
    let mut mixed = (hash ^ value).wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}
