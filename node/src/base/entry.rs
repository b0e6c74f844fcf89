//! What a write leaves at a place, in the masterless mode: on the wire, in a hint, in a batch, in
//! the log. The table store keeps the same thing as a cell of its own.

use std::cmp::Ordering;

use bincode::{Decode, Encode};
use bytes::Bytes;

use super::{Payload, Stamp};
use crate::planted;

/// One write at one place.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// Where, in the form of the table store; a whole row for [`Written::RowDeleted`].
    pub place: Payload,
    /// When, and who coordinated it. The same for all entries of one request.
    pub stamp: Stamp,
    /// What.
    pub written: Written,
}

/// What was written at a place.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Written {
    /// A value.
    Value(Payload),
    /// A tombstone: there is nothing.
    Deleted,
    /// A tombstone of the row that begins here: it hides all cells of the row with a *smaller*
    /// stamp.
    RowDeleted,
}

impl Entry {
    /// Returns what entries are sorted by: the place, and a row's tombstone before its cells.
    pub fn order(&self) -> (&[u8], bool) {
        (self.place.as_bytes(), self.written != Written::RowDeleted)
    }

    /// Tells whether this is a tombstone, of a cell or a row.
    pub fn is_tombstone(&self) -> bool {
        !matches!(self.written, Written::Value(_))
    }

    /// Returns about how many bytes it takes in memory and on the wire.
    pub fn bytes(&self) -> usize {
        const OVERHEAD_BYTES: usize = 24;
        let value = if let Written::Value(value) = &self.written { value.len() } else { 0 };
        OVERHEAD_BYTES + self.place.len() + value
    }

    /// Returns the value, if it is one.
    pub fn value(&self) -> Option<Bytes> {
        match &self.written {
            Written::Value(value) => Some(value.clone().into_bytes()),
            Written::Deleted | Written::RowDeleted => None,
        }
    }

    /// Last writer wins: tells whether this entry counts, and not `other` of the same place and
    /// kind. Equal stamps are of one write; should they ever not be, a tombstone counts, then the
    /// larger value, so that every node comes to the same result.
    pub fn beats(&self, other: &Self) -> bool {
        let rank = |entry: &Self| match &entry.written {
            Written::Value(value) => (0, value.clone()),
            Written::Deleted | Written::RowDeleted => (1, Payload::default()),
        };
        if planted!("D13") {
            let time = |stamp: Stamp| (stamp.ms(), stamp.logical());
            return time(self.stamp) >= time(other.stamp);
        }
        match self.stamp.cmp(&other.stamp) {
            Ordering::Greater => true,
            Ordering::Less => false,
            Ordering::Equal => rank(self) > rank(other),
        }
    }
}
