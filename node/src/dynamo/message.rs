//! What masterless nodes say to each other.
//!
//! Every message may be lost, repeated and late. What asks carries an id that its sender chose,
//! unique over its life and its earlier ones, and the answer repeats it: an answer counts once per
//! replica and only while somebody waits for it.

use bincode::{Decode, Encode};

use super::placement::Partition;
use crate::base::{Entry, Payload, Stamp};

/// A question's name, for its answers: [generation](super::DynamoStatus::generation) and a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct RequestId {
    /// Start of the node that asked.
    pub generation: u64,
    /// Counted from 1 in that start.
    pub number: u64,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Message {
    /// "I live." Sent at an interval to every node.
    Heartbeat(Heartbeat),
    /// Make these entries durable and apply them; answered by [`WriteReply`](Self::WriteReply)
    /// once they are both. Client writes, hints and replayed batches alike.
    Write {
        /// Names it.
        id: RequestId,
        /// All of partitions that the receiver holds; one log record there, so all or nothing.
        entries: Vec<Entry>,
    },
    /// Like [`Write`](Self::Write), of entries that were read from a replica, as a repair or a part
    /// of anti-entropy; or of a batch that somebody keeps until all replicas have it. A fence does
    /// not bar it, only a floor does; see `floor`.
    Repair {
        /// Names it.
        id: RequestId,
        /// All of partitions that the receiver holds.
        entries: Vec<Entry>,
    },
    /// Answer to [`Write`](Self::Write) and [`Repair`](Self::Repair).
    WriteReply {
        /// Of which.
        id: RequestId,
        /// How it went.
        outcome: WriteOutcome,
    },
    /// What is in these ranges?
    Read {
        /// Names it.
        id: RequestId,
        /// The ranges, in order; each within a partition that the receiver holds.
        ranges: Vec<Range>,
        /// Only a digest of the answer is wanted.
        digest_only: bool,
    },
    /// Answer to [`Read`](Self::Read).
    ReadReply {
        /// Of which.
        id: RequestId,
        /// What is there.
        reply: ReadReply,
    },
    /// Keep this batch durably and finish it if you hear nothing of it: its coordinator, or a
    /// holder that takes over, is about to write it to replicas that do not all share one log
    /// record.
    BatchStore {
        /// The batch: the stamp of all its entries, hence unique.
        batch: Stamp,
        /// All of it.
        entries: Vec<Entry>,
    },
    /// The batch is durable here.
    BatchStored {
        /// Which.
        batch: Stamp,
    },
    /// Every replica has the batch, or a durable hint for it exists: it may be forgotten.
    BatchDone {
        /// Which.
        batch: Stamp,
    },
    /// Anti-entropy; see `sync`.
    Sync(SyncMessage),
    /// The batch is not held here for its coordinator, and never will be: a fence has passed it.
    /// See `floor`.
    BatchLate {
        /// Which.
        batch: Stamp,
    },
}

impl Message {
    /// Tells whether it asks the receiver to store something, which it may ignore: then the sender
    /// sends it again, or keeps it.
    pub fn is_write(&self) -> bool {
        match self {
            Self::Write { .. } | Self::Repair { .. } | Self::BatchStore { .. } => true,
            Self::Heartbeat(_)
            | Self::WriteReply { .. }
            | Self::Read { .. }
            | Self::ReadReply { .. }
            | Self::BatchStored { .. }
            | Self::BatchDone { .. }
            | Self::BatchLate { .. }
            | Self::Sync(_) => false,
        }
    }

    /// Tells whether it brings what anti-entropy has found for the receiver, which may ignore it:
    /// then the comparison is begun anew.
    pub fn is_difference(&self) -> bool {
        let Self::Sync(message) = self else { return false };
        match message {
            SyncMessage::Difference { entries, .. } => !entries.is_empty(),
            SyncMessage::Roots { .. }
            | SyncMessage::Leaves { .. }
            | SyncMessage::Outline { .. }
            | SyncMessage::Fence { .. }
            | SyncMessage::Fenced { .. }
            | SyncMessage::Floor { .. } => false,
        }
    }
}

/// "I live."
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Heartbeat {
    /// Start of the sender, growing.
    pub generation: u64,
    /// Latest stamp that the sender has given or seen.
    pub clock: Stamp,
    /// What the sender's wall clock shows, in milliseconds since 1970.
    pub wall_ms: u64,
    /// The latest start of the receiver that the sender has heard of; 0 if it has of none. While
    /// the receiver tells that it has heard nothing from the sender since it started, the one
    /// before. One that the receiver does not know of was forgotten by its disk.
    pub heard: u64,
    /// Hash of the sender's placement: another one means another configuration.
    pub placement: u64,
    /// No write that the sender coordinates, keeps a hint of or a batch of is older than this.
    pub low_water: Stamp,
    /// Whether the sender has all it ever acknowledged; a node that lost its disk has not, and
    /// does not answer reads, until it has synchronised.
    pub is_whole: bool,
}

/// How a write went at a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum WriteOutcome {
    /// Durable and applied (or older than what is there).
    Stored,
    /// Not stored: no space on the disk.
    DiskFull,
    /// Not stored, and never will be: the place is not the receiver's, the stamp cannot be one, or
    /// a floor or a fence has passed it.
    Refused,
}

/// Part of a partition: places from `start` on, before `end`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Range {
    /// Which partition; all places of the range begin with its prefix.
    pub partition: Partition,
    /// First place.
    pub start: Payload,
    /// The first place behind the range; `None` for the end of the partition.
    pub end: Option<Payload>,
    /// At most about so many entries, tombstones included; at least one if there is any.
    pub limit: u32,
}

/// What a replica has in the ranges that it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ReadReply {
    /// All of it, per range as asked.
    Data(Vec<Chunk>),
    /// The digest of what [`Data`](Self::Data) would have held.
    Digest(u64),
    /// Nothing: this replica is not whole at the moment, or does not hold the partition.
    NotReady,
}

/// What a replica has in one range.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Chunk {
    /// What is there, sorted by [`Entry::order`], tombstones included, and what they hide not. If
    /// the row of the first place has a tombstone it comes first, though its place may lie before
    /// the range.
    pub entries: Vec<Entry>,
    /// The chunk ends before this place, though the range may go on; `None`: it is complete.
    pub covered: Option<Payload>,
    /// The replica's floor of the partition: every write up to it was on every replica once, and
    /// tombstones up to it may be gone.
    pub floor: Stamp,
}

/// One entry of a page, told without its value.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Outlined {
    /// Where.
    pub place: Payload,
    /// When.
    pub stamp: Stamp,
    /// Whether it is the tombstone of the row that begins there.
    pub is_row: bool,
    /// Whether it is a tombstone, of a cell or a row.
    pub is_tombstone: bool,
}

/// Anti-entropy between two replicas: the trees are compared from the root on, what differs is
/// exchanged in both directions. Driven by the one who began, answered without state.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum SyncMessage {
    /// The sender's roots, for partitions that both hold and whose trees it has.
    Roots {
        /// Names the question.
        id: RequestId,
        /// Root hash and floor of each partition.
        roots: Vec<(Partition, u64, Stamp)>,
    },
    /// Answer: those that differ in root or floor, with the answering node's leaves.
    Leaves {
        /// To which question.
        id: RequestId,
        /// Leaf hashes and floor of each partition that differs.
        differing: Vec<(Partition, Vec<u64>, Stamp)>,
        /// Partitions whose tree the answering node has not built yet: nothing is known of them.
        unknown: Vec<Partition>,
    },
    /// What the sender has in some leaves of a partition: places and stamps, without values.
    Outline {
        /// Names the question.
        id: RequestId,
        /// Of which partition.
        partition: Partition,
        /// Which leaves.
        leaves: Vec<u16>,
        /// Sorted like entries. If the row of the first place has a tombstone it comes first.
        outline: Vec<Outlined>,
        /// From where on.
        start: Payload,
        /// Only places before this one are told; `None`: to the end of the partition.
        covered: Option<Payload>,
        /// The sender's floor.
        floor: Stamp,
    },
    /// Answer: what the sender of the outline lacks or has older, and what it has newer.
    Difference {
        /// To which question.
        id: RequestId,
        /// Entries that the outline lacks.
        entries: Vec<Entry>,
        /// Places of the outline of which the answering node wants the entries, and whether it
        /// means the row's tombstone there.
        wanted: Vec<(Payload, bool)>,
        /// Where the answering node stopped, if before the outline did.
        covered: Option<Payload>,
        /// Its floor.
        floor: Stamp,
    },
    /// Promise to have no write up to this stamp to deliver, and to take none any more, but for
    /// repairs; asked by a steward before it raises a floor. See `floor`.
    Fence {
        /// Names the question.
        id: RequestId,
        /// Up to which stamp.
        stamp: Stamp,
    },
    /// Answer: the promise is durable if `low_water` is larger than the stamp; else it is none.
    Fenced {
        /// To which question.
        id: RequestId,
        /// No write that the sender still has to deliver is older than this.
        low_water: Stamp,
    },
    /// A new floor of partitions, from their steward.
    Floor {
        /// Of which question for fences it is the end.
        id: RequestId,
        /// Of which partitions.
        partitions: Vec<Partition>,
        /// The floor.
        floor: Stamp,
    },
}
