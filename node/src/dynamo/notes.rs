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
//!         01             –                        generation 8
//!         02             –                        ceiling 8, common time 8, milliseconds
//!         03             partition 2              floor: Stamp
//!         04             target 8, number 8       hint: stamp 8, length 4 │ Vec<Entry>
//!         05             stamp 8                  batch: stamp 8, length 4 │ Vec<Entry>
//!         06             –                        damaged: nothing
//!         07             –                        fence: Stamp
//! ```
//! The length is that of the entries. So a restart needs only the [head](recovered_content) of a
//! hint or a batch; the entries stay on the disk until they are sent.

use super::clock::Ceiling;
use super::placement::{NOTE_PREFIX, Partition};
use super::ready::Record;
use crate::base::{Entry, NodeId, Payload, Stamp};
use crate::codec;
use crate::planted;

/// What a note is about, and the argument of its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// How often the node was started.
    Generation,
    /// The millisecond before which stamps may be given, and the latest common time known.
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
    /// The stamp up to which only repairs and replayed batches are taken; see `floor`.
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
/// Greatest number of a hint that is believed: no node ever gets there, and the next one exists.
const NUMBER_MAX: u64 = 1 << 62;

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
                if number > NUMBER_MAX {
                    return None;
                }
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
    number(content).map(|floor| (partition, Stamp::from_version(floor)))
}

/// Returns the note that [`floor`] reads.
#[cfg(all(test, feature = "testing"))]
pub(crate) fn keep_floor(partition: Partition, floor: Stamp) -> Record {
    keep_number(Kind::Floor(partition), floor.version())
}

/// Returns what a restart needs of a note's content: see [`Recovered`](super::Recovered::notes).
pub fn recovered_content<'a>(place: &[u8], content: &'a [u8]) -> &'a [u8] {
    match Kind::of(place) {
        Some(Kind::Hint { .. } | Kind::Batch(_)) => content.get(..HEAD_BYTES).unwrap_or(content),
        _ => content,
    }
}

/// Returns for whom a hint is kept, and what; `None` if the note is no hint. For those who look at
/// a disk from outside.
pub fn hint(place: &[u8], content: &[u8]) -> Option<(NodeId, Vec<Entry>)> {
    match Kind::of(place) {
        Some(Kind::Hint { target, .. }) => Some((target, entries(content)?)),
        _ => None,
    }
}

/// Tells whether a note is a batch that is not over.
pub fn is_batch(place: &[u8]) -> bool {
    matches!(Kind::of(place), Some(Kind::Batch(_)))
}

/// Tells whether a note says that its disk is damaged.
pub fn is_damaged(place: &[u8]) -> bool {
    Kind::of(place) == Some(Kind::Damaged)
}

/// Returns a note as it would be written again, its place and its content, and how many bytes of
/// entries its head tells of; `None` if it is none that we know, or its content is damaged.
#[cfg(feature = "testing")]
pub fn rewritten(place: &[u8], content: &[u8]) -> Option<(Payload, Payload, usize)> {
    let kind = Kind::of(place)?;
    let (record, bytes) = match kind {
        Kind::Generation | Kind::Floor(_) | Kind::Fence => (keep_number(kind, number(content)?), 0),
        Kind::Ceiling => (keep_ceiling(ceiling(content)?), 0),
        Kind::Hint { .. } | Kind::Batch(_) => {
            let Head { stamp, bytes } = head(content)?;
            (keep_entries(kind, stamp, &entries(content)?).0, bytes)
        }
        Kind::Damaged => (keep(kind), 0),
    };
    let Record::Note { place, content } = record else { return None };
    Some((place, content?, bytes))
}

/// What a restart must know of the entries in a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Their stamp.
    pub(super) stamp: Stamp,
    /// Bytes of their encoding.
    pub(super) bytes: usize,
}

const HEAD_BYTES: usize = 12;

/// Returns the record that keeps entries under a note, with their head.
///
/// # Panics
/// If the entries do not fit a frame; limits see to it that they do.
pub(super) fn keep_entries(kind: Kind, stamp: Stamp, entries: &[Entry]) -> (Record, Head) {
    let mut content = stamp.version().to_be_bytes().to_vec();
    content.extend_from_slice(&[0; 4]);
    codec::encode_into(&entries, &mut content);
    let bytes = content.len() - HEAD_BYTES;
    let length = u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes();
    for (to, from) in content.iter_mut().skip(8).zip(length) {
        *to = from;
    }
    (note(kind, content), Head { stamp, bytes })
}

/// Returns the head of kept entries, from their whole content or what a restart gets of it.
pub(super) fn head(content: &[u8]) -> Option<Head> {
    let (stamp, rest) = content.split_first_chunk::<8>()?;
    let (length, _) = rest.split_first_chunk::<4>()?;
    let bytes = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let bytes = if planted!("F15") { bytes + 1 } else { bytes };
    Some(Head { stamp: Stamp::from_version(u64::from_be_bytes(*stamp)), bytes })
}

/// Returns kept entries from the content of their note; `None` if they are damaged.
pub(super) fn entries(content: &[u8]) -> Option<Vec<Entry>> {
    let (_, entries) = content.split_first_chunk::<HEAD_BYTES>()?;
    codec::decode(entries).ok()
}

/// Returns the record of a note that is a number.
pub(super) fn keep_number(kind: Kind, number: u64) -> Record {
    note(kind, number.to_be_bytes().to_vec())
}

/// Returns the record that keeps the clock's ceiling.
pub(super) fn keep_ceiling(ceiling: Ceiling) -> Record {
    note(Kind::Ceiling, [ceiling.ms.to_be_bytes(), ceiling.known_ms.to_be_bytes()].concat())
}

/// Returns the ceiling that is the content of a note.
pub(super) fn ceiling(content: &[u8]) -> Option<Ceiling> {
    let (ms, known_ms) = content.split_first_chunk::<8>()?;
    let known_ms = u64::from_be_bytes(known_ms.try_into().ok()?);
    Some(Ceiling { ms: u64::from_be_bytes(*ms), known_ms })
}

/// Returns the number that is the content of a note.
pub(super) fn number(content: &[u8]) -> Option<u64> {
    content.try_into().ok().map(u64::from_be_bytes)
}

/// Returns the record of a note that only has to be there.
pub(super) fn keep(kind: Kind) -> Record {
    note(kind, Vec::new())
}

/// Returns the record that erases a note.
pub(super) fn erase(kind: Kind) -> Record {
    Record::Note { place: kind.place(), content: None }
}

fn note(kind: Kind, content: Vec<u8>) -> Record {
    let bytes = content.len();
    let content = Payload::new(content);
    assert!(content.is_ok(), "the note {kind:?} has {bytes} bytes");
    Record::Note { place: kind.place(), content: content.ok() }
}

fn prefix(kind: u8) -> Vec<u8> {
    [&NOTE_PREFIX[..], &[kind], &KEY_END].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Written;
    use crate::codec::keycode;
    use proptest::prelude::*;

    fn kind() -> impl Strategy<Value = Kind> {
        let number = any::<u64>();
        prop_oneof![
            Just(Kind::Generation),
            Just(Kind::Ceiling),
            Just(Kind::Damaged),
            Just(Kind::Fence),
            any::<u16>().prop_map(Kind::Floor),
            number.prop_map(|stamp| Kind::Batch(Stamp::from_version(stamp))),
            (number, 0..=NUMBER_MAX)
                .prop_map(|(target, number)| Kind::Hint { target: NodeId(target), number }),
        ]
    }

    proptest! {
        #[test]
        fn place_of_a_note_tells_what_it_is(a in kind(), b in kind()) {
            let (place_a, place_b) = (a.place(), b.place());
            prop_assert_eq!(Kind::of(place_a.as_bytes()), Some(a));
            prop_assert_eq!(place_a.cmp(&place_b), a.cmp(&b));
            prop_assert!(keycode::decode_cell(place_a.as_bytes()).is_ok());
        }

        /// The accident: a hint with the last of all numbers let the number of the next overflow.
        #[test]
        fn hint_out_of_reach_is_none_of_ours(target in any::<u64>(), number in NUMBER_MAX + 1..) {
            let place = Kind::Hint { target: NodeId(target), number }.place();
            prop_assert_eq!(Kind::of(place.as_bytes()), None);
        }

        #[test]
        fn no_place_makes_it_panic(place in prop::collection::vec(any::<u8>(), 0..24)) {
            if let Some(kind) = Kind::of(&place) {
                let encoded = kind.place();
                prop_assert_eq!(encoded.as_bytes(), &place[..]);
            }
            prop_assert_eq!(recovered_content(&place, b"content of it").len() <= 13, true);
        }
    }

    #[test]
    fn head_of_kept_entries_outlives_their_loss() {
        let stamp = Stamp::new(7, 1, NodeId(3));
        let place = Payload::new(vec![1, 1, b'k', 0, 0]).unwrap();
        let entry = Entry { place, stamp, written: Written::Deleted };
        let kind = Kind::Hint { target: NodeId(2), number: 5 };
        let (record, kept) = keep_entries(kind, stamp, std::slice::from_ref(&entry));
        let Record::Note { place, content: Some(content) } = record else { panic!("{record:?}") };
        let content = content.as_bytes();
        let short = recovered_content(place.as_bytes(), content);
        assert_eq!((head(content), head(short)), (Some(kept), Some(kept)));
        assert_eq!((entries(content), entries(short)), (Some(vec![entry]), None));
        assert!(place.as_bytes().starts_with(hints_of(NodeId(2)).as_bytes()));
    }
}
