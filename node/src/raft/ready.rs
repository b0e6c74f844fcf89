//! What goes into the core and what comes out of it.

use bincode::{Decode, Encode};

use super::message::{Entry, Message, SnapshotMeta};
use super::standing::Standing;
use crate::base::{Index, NodeId, Payload, Term};

/// Names a proposal or a read for its answer; chosen by the shell, unique while it is pending.
pub type Token = u64;

/// Counts the persist requests of one run of a node: 1, 2, 3, ….
pub type PersistId = u64;

/// What must survive a crash besides the log. [Raft Figure 2, "Persistent state"]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct HardState {
    /// Latest term the node has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<NodeId>,
}

/// Everything that can happen to a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A message of another replica arrived.
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
    /// A client wants a command in the log. Answered by [`Reply`] or [`Committed::token`].
    Propose {
        /// Names it for the answer.
        token: Token,
        /// The command.
        command: Payload,
    },
    /// A client wants a linearizable read. Answered by [`Reply`].
    Read {
        /// Names it for the answer.
        token: Token,
    },
    /// Every persist request up to this one is durable.
    Persisted {
        /// The last of them.
        through: PersistId,
    },
    /// The state machine has applied every entry up to this one.
    Applied {
        /// The last of them.
        through: Index,
    },
    /// The state machine is too far behind: acknowledge nothing after this entry, so that the
    /// leader stops sending. `None`: it is not, any more.
    Behind {
        /// The last entry to be acknowledged.
        acknowledge_max: Option<Index>,
    },
    /// Whether the state machine waits, with entries to apply, for what may never come, such as
    /// space on a full disk. Others should lead then, if they can.
    Stuck {
        /// Whether it does.
        is_stuck: bool,
    },
    /// A snapshot of the own state is durable: the log may be cut up to it.
    SnapshotTaken {
        /// Which state.
        meta: SnapshotMeta,
    },
    /// A piece of the newest own snapshot, asked for by [`SnapshotRead`]. If the one asked for is
    /// gone, the first piece of the newest; if there is none to read, no answer at all.
    SnapshotData {
        /// For which follower.
        to: NodeId,
        /// Which snapshot the bytes are of.
        meta: SnapshotMeta,
        /// Position of the bytes.
        offset: u64,
        /// The bytes.
        data: Payload,
        /// Whether they are the last.
        done: bool,
    },
    /// A received piece is stored (not yet durable), asked for by [`SnapshotWrite`].
    SnapshotStored {
        /// Which snapshot.
        meta: SnapshotMeta,
        /// Bytes stored so far.
        offset: u64,
    },
    /// A received snapshot is complete, durable, and the state machine now is in its state.
    SnapshotInstalled {
        /// Which snapshot.
        meta: SnapshotMeta,
    },
    /// A received snapshot was damaged and has been thrown away.
    SnapshotFailed {
        /// Which snapshot.
        meta: SnapshotMeta,
    },
}

/// What is to be done. No order among the parts: each may be done at once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ready {
    /// To be made durable, then reported by [`Input::Persisted`].
    pub persist: Option<Persist>,
    /// To be sent.
    pub send: Vec<(NodeId, Message)>,
    /// To be applied to the state machine in this order, then reported by [`Input::Applied`].
    /// They are durable on a majority, though perhaps not on this node yet.
    pub apply: Vec<Committed>,
    /// Answers to proposals and reads.
    pub replies: Vec<(Token, Reply)>,
    /// Pieces of the own snapshot to read, each answered by [`Input::SnapshotData`].
    pub snapshot_reads: Vec<SnapshotRead>,
    /// Pieces of a received snapshot to store, in order. The last one replaces the state machine:
    /// only after what was to be applied before; nothing is to be applied until it is answered.
    pub snapshot_writes: Vec<SnapshotWrite>,
}

/// A request to make state durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Persist {
    /// Its number.
    pub id: PersistId,
    /// The new hard state, if it changed.
    pub hard_state: Option<HardState>,
    /// The new standing, if it changed or is not the usual one; only with the hard state, and on
    /// the disk both or neither.
    pub standing: Option<Standing>,
    /// Entries to append; the first replaces what the log had from its index on.
    pub entries: Vec<Entry>,
}

/// A committed entry, with the token of the proposal if it was made here in this term.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The entry.
    pub entry: Entry,
    /// Who waits for its result here.
    pub token: Option<Token>,
}

/// An answer to a proposal or a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// The read may be served now: the state machine is at least as new as when it was asked.
    ReadReady,
    /// Not done here; it was never in the log. Ask the leader, if known.
    NotLeader {
        /// The leader, as far as this node knows.
        leader: Option<NodeId>,
    },
    /// Too much is waiting to be committed already, or to be read; it was never in the log.
    Overloaded,
    /// The leadership was lost after the entry was in the log: it may or may not take effect.
    Unknown,
}

/// A request for a piece of the newest own snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotRead {
    /// The follower it is for.
    pub to: NodeId,
    /// Continue this snapshot, or the newest when it is gone (`None`: any, the newest).
    pub meta: Option<SnapshotMeta>,
    /// From where.
    pub offset: u64,
    /// At most this many bytes.
    pub bytes_max: usize,
}

/// A piece of a received snapshot to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotWrite {
    /// Which snapshot.
    pub meta: SnapshotMeta,
    /// Position of the bytes; 0 starts over.
    pub offset: u64,
    /// The bytes.
    pub data: Payload,
    /// Whether they are the last: then verify, make durable, install.
    pub done: bool,
}

/// What a node finds on its disk when it starts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Term and vote.
    pub hard_state: HardState,
    /// The durable snapshot that the state machine was restored from.
    pub snapshot: SnapshotMeta,
    /// Entries after the snapshot, without gap; none if the log ends before it. Entries that a
    /// received snapshot contradicts may follow it: the core drops them.
    pub entries: Vec<Entry>,
    /// Last entry known to have been in the log if the disk lost entries that may have been
    /// acknowledged. Until the log has caught up with it again, the node does not campaign, and
    /// votes as if it still had that entry.
    pub damaged_last: Option<SnapshotMeta>,
    /// What the replica knows of its own past.
    pub standing: Standing,
}

impl Recovered {
    /// Returns the last entry that is there, or the snapshot if there is none behind it.
    pub fn last(&self) -> SnapshotMeta {
        let last = self.entries.last();
        last.map_or(self.snapshot, |entry| SnapshotMeta { index: entry.index, term: entry.term })
    }

    /// Takes note that a durable state up to `meta` was lost, unless the log goes beyond it.
    pub fn lack(&mut self, meta: SnapshotMeta) {
        let known = self.damaged_last.unwrap_or(self.last());
        if (meta.term, meta.index) > (known.term, known.index) {
            self.damaged_last = Some(meta);
        }
    }
}
