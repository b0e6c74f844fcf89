//! What the script has written: the oracle by which every recovered state is judged.

use std::collections::BTreeMap;
use std::sync::Arc;

use mangrove::base::{Index, Payload, Term};
use mangrove::codec::keycode;
use mangrove::raft::{Entry, EntryKind};
use mangrove::storage::Change;

/// Cells by place: the version and the value.
pub(super) type Cells = BTreeMap<Vec<u8>, (u64, Vec<u8>)>;

/// A change that owns its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Write {
    Set { place: Vec<u8>, value: Vec<u8> },
    Delete { place: Vec<u8> },
    DeleteRow { row: Vec<u8> },
}

impl Write {
    /// Returns it as the engine takes it.
    pub(super) fn as_change(&self) -> Change<'_> {
        match self {
            Self::Set { place, value } => Change::Set { place, value },
            Self::Delete { place } => Change::Delete { place },
            Self::DeleteRow { row } => Change::DeleteRow { row },
        }
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        let (kind, place, value): (u8, &[u8], &[u8]) = match self {
            Self::Set { place, value } => (0, place, value),
            Self::Delete { place } => (1, place, &[]),
            Self::DeleteRow { row } => (2, row, &[]),
        };
        bytes.push(kind);
        for part in [place, value] {
            bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
            bytes.extend_from_slice(part);
        }
    }
}

/// What one log entry is, and the whole state after it.
#[derive(Debug, Clone)]
pub(super) struct Position {
    pub(super) term: Term,
    /// `None` where another node's state has replaced everything.
    pub(super) writes: Option<Vec<Write>>,
    pub(super) cells: Arc<Cells>,
}

/// All positions that there ever were. Where the state was replaced, some indexes are none.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    positions: BTreeMap<Index, Position>,
}

impl History {
    /// Returns the last index, 0 at the start.
    pub(super) fn last(&self) -> Index {
        self.positions.last_key_value().map_or(0, |(index, _)| *index)
    }

    /// Returns what is at an index, if anything.
    pub(super) fn at(&self, index: Index) -> Option<&Position> {
        self.positions.get(&index)
    }

    /// Returns the cells after an index.
    pub(super) fn cells(&self, index: Index) -> Option<Arc<Cells>> {
        if index == 0 {
            return Some(Arc::default());
        }
        self.positions.get(&index).map(|position| Arc::clone(&position.cells))
    }

    /// Adds an entry; returns its index.
    pub(super) fn append(&mut self, term: Term, writes: Vec<Write>) -> Index {
        let index = self.last() + 1;
        let mut cells = self.cells(self.last()).unwrap_or_default();
        let changed = Arc::make_mut(&mut cells);
        for write in &writes {
            match write {
                Write::Set { place, value } => {
                    changed.insert(place.clone(), (index, value.clone()));
                }
                Write::Delete { place } => {
                    changed.remove(place);
                }
                Write::DeleteRow { row } => {
                    changed.retain(|place, _| keycode::row_prefix(place) != &row[..]);
                }
            }
        }
        self.positions.insert(index, Position { term, writes: Some(writes), cells });
        index
    }

    /// Replaces everything by another node's state.
    pub(super) fn replace(&mut self, index: Index, term: Term, cells: Cells) {
        let cells = Arc::new(cells);
        self.positions.insert(index, Position { term, writes: None, cells });
    }

    /// Returns the log entry of an index, as it is written to the log.
    pub(super) fn entry(&self, index: Index) -> Option<Entry> {
        let position = self.positions.get(&index)?;
        let mut bytes = Vec::new();
        for write in position.writes.as_ref()? {
            write.encode(&mut bytes);
        }
        let payload = Payload::new(bytes).ok()?;
        Some(Entry { term: position.term, index, kind: EntryKind::Command(payload) })
    }

    /// Returns what is captured with the state after an index.
    pub(super) fn extra(&self, index: Index) -> Vec<u8> {
        if index == 0 {
            return Vec::new();
        }
        let count = self.cells(index).map_or(0, |cells| cells.len());
        format!("captured at {index} with {count} cells").repeat(1 + count % 40).into_bytes()
    }
}
