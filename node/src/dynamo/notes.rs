//! The node's own notes: what it must remember over a restart besides the replicated entries.
//!
//! A note is a cell of the table store under [`NOTE_PREFIX`], written through the same log as
//! everything else, so it is as durable and as crash-safe as data. Its place is made like any
//! other, of a key and a column: the key is the kind, the column what there may be several of.
//!
//! # Layout
//! ```text
//! FF FF │ kind │ 00 00 │ argument, big-endian │   content, by the codec
//! ─────────────────────────────────────────────────────────────────────
//!         01             –                        generation: u64
//!         02             –                        ceiling: u64, milliseconds
//!         03             partition 2              floor: Stamp
//!         04             target 8, number 8       hint: Vec<Entry>
//!         05             stamp 8                  batch: Vec<Entry>
//!         06             –                        damaged: ()
//!         07             –                        fence: Stamp
//! ```

use super::placement::{NOTE_PREFIX, Partition};
use crate::base::{NodeId, Payload, Stamp};

/// What a note is about, and the argument of its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// How often the node was started.
    Generation,
    /// The millisecond before which stamps may be given.
    Ceiling,
    /// A partition's floor.
    Floor(Partition),
    /// A write that `target` missed; numbered in the order they were made.
    Hint {
        /// Who missed it.
        target: NodeId,
        /// Its number.
        number: u64,
    },
    /// A batch that is kept for its coordinator, which may be this node.
    Batch(Stamp),
    /// The disk lost something that has not been got back from the others.
    Damaged,
    /// The stamp up to which only repairs are taken; see `floor`.
    Fence,
}

const GENERATION: u8 = 1;
const CEILING: u8 = 2;
const FLOOR: u8 = 3;
const HINT: u8 = 4;
const BATCH: u8 = 5;
const DAMAGED: u8 = 6;
const FENCE: u8 = 7;
/// What ends the key of a place; see [`crate::codec::keycode`].
const KEY_END: [u8; 2] = [0, 0];
const KIND_BYTES: usize = 5;

impl Kind {
    /// Returns the place of the note.
    pub(super) fn place(self) -> Payload {
        let (kind, arguments) = match self {
            Self::Generation => (GENERATION, Vec::new()),
            Self::Ceiling => (CEILING, Vec::new()),
            Self::Floor(partition) => (FLOOR, partition.to_be_bytes().to_vec()),
            Self::Hint { target, number } => {
                (HINT, [target.0.to_be_bytes(), number.to_be_bytes()].concat())
            }
            Self::Batch(stamp) => (BATCH, stamp.version().to_be_bytes().to_vec()),
            Self::Damaged => (DAMAGED, Vec::new()),
            Self::Fence => (FENCE, Vec::new()),
        };
        let mut place = prefix(kind);
        place.extend_from_slice(&arguments);
        Payload::new(place).unwrap_or_default()
    }

    /// Returns what the note at a place is about; `None` if it is none that we know.
    pub(super) fn of(place: &[u8]) -> Option<Self> {
        let (head, arguments) = place.split_first_chunk::<KIND_BYTES>()?;
        let &[first, second, kind, end_a, end_b] = head;
        if [first, second] != NOTE_PREFIX || [end_a, end_b] != KEY_END {
            return None;
        }
        match kind {
            GENERATION if arguments.is_empty() => Some(Self::Generation),
            CEILING if arguments.is_empty() => Some(Self::Ceiling),
            FLOOR => Some(Self::Floor(Partition::from_be_bytes(arguments.try_into().ok()?))),
            HINT => {
                let (target, number) = arguments.split_first_chunk::<8>()?;
                let number = u64::from_be_bytes(number.try_into().ok()?);
                Some(Self::Hint { target: NodeId(u64::from_be_bytes(*target)), number })
            }
            BATCH => {
                let stamp = u64::from_be_bytes(arguments.try_into().ok()?);
                Some(Self::Batch(Stamp::from_version(stamp)))
            }
            DAMAGED if arguments.is_empty() => Some(Self::Damaged),
            FENCE if arguments.is_empty() => Some(Self::Fence),
            _ => None,
        }
    }
}

/// Returns what the places of one target's hints begin with.
pub(super) fn hints_of(target: NodeId) -> Payload {
    let mut place = prefix(HINT);
    place.extend_from_slice(&target.0.to_be_bytes());
    Payload::new(place).unwrap_or_default()
}

/// Returns the partition and the floor that a note tells of; `None` if it is about something else.
pub fn floor(place: &[u8], content: &[u8]) -> Option<(Partition, Stamp)> {
    let Some(Kind::Floor(partition)) = Kind::of(place) else { return None };
    let floor = content.try_into().ok().map(u64::from_be_bytes)?;
    Some((partition, Stamp::from_version(floor)))
}

/// Returns what a restart needs of a note's content: see [`Recovered`](super::Recovered::notes).
pub fn recovered_content<'a>(_place: &[u8], content: &'a [u8]) -> &'a [u8] {
    content
}

fn prefix(kind: u8) -> Vec<u8> {
    [&NOTE_PREFIX[..], &[kind], &KEY_END].concat()
}
