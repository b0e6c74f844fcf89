//! What goes into the core and what comes out of it.

use bincode::{Decode, Encode};

use super::message::{Chunk, Message, Range};
use super::placement::Partition;
use crate::base::{Entry, NodeId, Payload, Stamp};

/// Names a client's request for its answer; chosen by the shell, unique while it is pending.
pub type Token = u64;

/// Counts the persist requests of a node, over all its starts: 1, 2, 3, ….
pub type PersistId = u64;

/// Names a read of the own store.
pub type ReadId = u64;

/// Of how many replicas an answer is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub enum Level {
    /// One.
    One,
    /// Two.
    Two,
    /// Three.
    Three,
    /// More than half of them.
    #[default]
    Quorum,
    /// All.
    All,
}

/// A change that a client wants, before it has a stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where, with the prefix of its partition; the row's prefix to delete a row.
    pub place: Payload,
    /// What.
    pub written: crate::base::Written,
}

impl Change {
    /// Returns about how many bytes it takes in memory.
    pub fn bytes(&self) -> usize {
        const OVERHEAD_BYTES: usize = 24;
        let value =
            if let crate::base::Written::Value(value) = &self.written { value.len() } else { 0 };
        OVERHEAD_BYTES + self.place.len() + value
    }
}

/// Everything that can happen to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// What the wall clock shows, in milliseconds since 1970. Given before other inputs whenever
    /// the shell's loop turns; it may jump.
    Wall {
        /// Milliseconds.
        ms: u64,
    },
    /// A message arrived.
    Peer {
        /// Its sender, as proven by the handshake.
        from: NodeId,
        /// The message.
        message: Message,
    },
    /// The connection to a peer broke: what was in flight to it may be lost.
    PeerLost {
        /// The peer.
        peer: NodeId,
    },
    /// A client wants to write. Answered by [`Reply`].
    Write {
        /// Names it for the answer.
        token: Token,
        /// How many replicas must have it.
        level: Level,
        /// The largest stamp that the client has seen: the write gets a larger one.
        seen: Stamp,
        /// All or nothing. No place twice, and a row's deletion before its cells.
        changes: Vec<Change>,
    },
    /// A client wants to read. Answered by [`Reply`].
    Read {
        /// Names it for the answer.
        token: Token,
        /// How many replicas are asked.
        level: Level,
        /// What is to be read.
        ranges: Vec<Range>,
    },
    /// The request of that token is not waited for any more.
    Forget {
        /// Which.
        token: Token,
    },
    /// Every persist request up to this one is durable.
    Persisted {
        /// The last of them.
        through: PersistId,
    },
    /// The disk is full. Persist requests under way wait for space, in their order, and are
    /// reported by [`Persisted`](Self::Persisted) once there is some; after a restart any of them
    /// may be durable. So what they are for is in doubt, and never reported as not done. Nothing
    /// new is to be begun until [`DiskHasSpace`](Self::DiskHasSpace).
    DiskFull,
    /// There is space again.
    DiskHasSpace,
    /// The answer to a [`StoreRead`].
    StoreRead {
        /// Which.
        id: ReadId,
        /// What is there.
        found: Found,
    },
    /// What applying changed in the trees' leaves; at once after every apply.
    Applied {
        /// What it changed.
        leaves: LeafChanges,
    },
}

/// What applying changed in the trees' leaves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeafChanges {
    /// Partition, leaf, and what is to be xored to the leaf's hash.
    pub deltas: Vec<(Partition, u16, u64)>,
    /// Partitions of which it is not known what changed: their leaves must be read anew.
    pub void: Vec<Partition>,
}

/// What is to be done. Applying comes before sending and replying; else there is no order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ready {
    /// To be made durable as one unit, then reported by [`Input::Persisted`].
    pub persist: Option<Persist>,
    /// Durable: to be applied to the store, in this order, then reported by [`Input::Applied`].
    pub apply: Vec<(PersistId, Vec<Record>)>,
    /// To be sent.
    pub send: Vec<(NodeId, Message)>,
    /// Answers to clients.
    pub replies: Vec<(Token, Reply)>,
    /// To be read from the own store, with all that was applied before; answered at once by
    /// [`Input::StoreRead`].
    pub reads: Vec<(ReadId, StoreRead)>,
}

/// A request to make records durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Persist {
    /// Its number, and the position of all of it in the log.
    pub id: PersistId,
    /// What.
    pub records: Vec<Record>,
}

/// One thing that must survive a crash; a record is applied as a whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Record {
    /// Replicated entries.
    Entries(Vec<Entry>),
    /// The node's own notes (hints, batches, floors, clock): see `notes`. `None` erases.
    Note {
        /// Which, beginning with [`NOTE_PREFIX`](super::placement::NOTE_PREFIX).
        place: Payload,
        /// Its content.
        content: Option<Payload>,
    },
}

/// A read of the own store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreRead {
    /// Replicated entries. Answered by [`Found::Chunks`].
    Ranges(Vec<Range>),
    /// The own notes from `start` on with that prefix, so many bytes at most (but at least one).
    /// Answered by [`Found::Notes`].
    Notes {
        /// Prefix of their places.
        prefix: Payload,
        /// First place.
        start: Payload,
        /// Bytes.
        bytes_max: usize,
    },
    /// The leaves of a partition's tree from scratch, without tombstones up to the floor, a page
    /// at a time. Answered by [`Found::Leaves`]. Until the last page is read, what applying reports
    /// of this partition concerns the places before the next page only: the rest is found there.
    Leaves {
        /// Which; one at a time.
        partition: Partition,
        /// The floor.
        floor: Stamp,
        /// First place of the page; the partition's prefix begins anew.
        start: Payload,
        /// Bytes of entries, about.
        bytes_max: usize,
    },
    /// Entries of some leaves of a partition from a place on. Answered by [`Found::Chunks`] with
    /// one chunk.
    LeafEntries {
        /// Which.
        partition: Partition,
        /// Which leaves.
        leaves: Vec<u16>,
        /// First place.
        start: Payload,
        /// Bytes of entries, about.
        bytes_max: usize,
    },
}

/// What a [`StoreRead`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Entries, per range.
    Chunks(Vec<Chunk>),
    /// Notes, sorted; and whether there are more.
    Notes {
        /// Place and content.
        notes: Vec<(Payload, Payload)>,
        /// Whether more follow.
        is_more: bool,
    },
    /// What a page contributes to each leaf.
    Leaves {
        /// Hashes, to be xored to those of the pages before.
        leaves: Vec<u64>,
        /// Where the next page begins; `None` after the last one.
        next: Option<Payload>,
        /// The latest tombstone of the page.
        tombstone: Stamp,
    },
}

/// An answer to a client's request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The write is on as many replicas as the level asks for.
    Written {
        /// Its stamp.
        stamp: Stamp,
    },
    /// What the replicas have, merged, tombstones removed; per range.
    Read {
        /// The merged chunks; their entries are values.
        chunks: Vec<Chunk>,
        /// The largest stamp that was met, of a value or of a tombstone.
        seen: Stamp,
    },
    /// Not enough replicas are known to be up; nothing was done.
    Unavailable {
        /// How many the level needs.
        needed: u32,
        /// How many are believed to be up.
        alive: u32,
    },
    /// Not enough replicas answered in time. A write may have happened, and may still do so.
    Timeout,
    /// Too much is under way already; nothing was done.
    Overloaded,
    /// The own disk is full; nothing was done.
    DiskFull,
    /// The request makes no sense here; nothing was done.
    Invalid(&'static str),
    /// The own clock, or what the client says it has seen, is too far ahead of what is known of the
    /// other nodes' clocks; nothing was done.
    ClockSkew {
        /// Milliseconds.
        ahead_ms: u64,
    },
    /// The node has not started yet, or its disk may have lost which stamps it gave, and it gives
    /// none for some time; nothing was done, and other nodes are not concerned.
    NotReady,
}

/// What a node finds on its disk when it starts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// How far this start's generation goes beyond the last one that the disk knows: 1 or more,
    /// drawn anew at each start. A disk that came back older has forgotten starts, and whoever
    /// counts on from what it remembers takes the name of one of them: late answers to that one
    /// would be taken for its own, and nobody would notice that it was started again.
    pub generation_step: u64,
    /// The last persist request that is durable.
    pub persisted: PersistId,
    /// All its own notes (of hints only their number and bytes matter: see `notes`).
    pub notes: Vec<(Payload, Payload)>,
    /// The disk lost records that were acknowledged, or the whole state: the node must get its
    /// share from the others before it answers reads.
    pub is_damaged: bool,
}
