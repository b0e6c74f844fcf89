//! How a masterless node behaves: every time-out and every limit, by name.

use std::time::Duration;

use super::placement::Placement;
use super::ready::Level;
use crate::base::{NodeId, Stamp};
use crate::planted;

/// How far a wall clock may be ahead of the others', unless it is configured otherwise: far
/// more than clocks that somebody looks after are apart, and as long as a wrong order may last.
pub const CLOCK_AHEAD_MAX: Duration = Duration::from_hours(2);

/// Ranges of one read, at most.
pub const READ_RANGES_MAX: usize = 10_000;

/// How one node behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node itself.
    pub id: NodeId,
    /// Every node of the cluster, itself included.
    pub nodes: Vec<NodeId>,
    /// Which node holds what; the same on all of them.
    pub placement: Placement,
    /// How replicas that missed a write are brought up to date besides anti-entropy.
    pub repair: Repair,

    /// How far the own wall clock may be ahead of what a majority of the nodes' clocks have reached
    /// for the node to take writes; see `clock`. Too small: nodes with good clocks refuse writes,
    /// and one that restarts alone after that time waits for the others. Too large: what a broken
    /// clock has stamped wins for so long.
    pub clock_ahead_max: Duration,
    /// By how much the durable ceiling of stamps is raised at a time. Too small: a note on disk
    /// every moment. Too large: a restart jumps that far ahead of the wall clock, and a node whose
    /// disk was lost gives no stamps for so long.
    pub ceiling_step: Duration,
    /// Client requests that may wait for the node to start or for the ceiling; above it they are
    /// answered [`Reply::Overloaded`](super::Reply::Overloaded).
    pub waiting_count_max: usize,
    /// Bytes of changes in these requests.
    pub waiting_bytes_max: usize,
    /// Bytes of records of one persist request; a single larger record is one of its own.
    pub persist_bytes_max: usize,
    /// Persist requests that the disk is given at a time; what comes meanwhile gathers.
    pub persists_max: usize,

    /// Time after which a write without enough acknowledgements is answered
    /// [`Reply::Timeout`](super::Reply::Timeout).
    pub write_timeout: Duration,
    /// Time after which a replica that has not acknowledged gets a hint.
    pub hint_after: Duration,
    /// Writes under way; above it [`Reply::Overloaded`](super::Reply::Overloaded).
    pub pending_writes_max: usize,
    /// Bytes of entries of the writes under way.
    pub pending_write_bytes_max: usize,
    /// Bytes of records of other nodes' writes that wait for the own disk; above it a write is
    /// ignored, as if the message were lost.
    pub replica_bytes_max: usize,

    /// Bytes of hints kept for one target; over it the oldest are dropped.
    pub hint_bytes_max: usize,
    /// Hints kept for one target; over it the oldest are dropped.
    pub hint_count_max: usize,
    /// Age at which a hint is dropped: the target gets it by anti-entropy.
    pub hint_age_max: Duration,
    /// Bytes of hints in flight to one target.
    pub hint_window_bytes: usize,
    /// Time until an unanswered hint, or one that the target has no space for, is sent again.
    pub hint_retry: Duration,

    /// Time that a batch's holder waits for its end before it writes the batch itself.
    pub batch_takeover: Duration,
    /// Time until another holder is asked when one does not answer.
    pub batch_store_timeout: Duration,
    /// Time until a batch that was taken over is sent again to replicas that lack it.
    pub batch_retry: Duration,
    /// Batches that are sent again at a time; the others wait until these are answered, or have
    /// waited for `batch_retry`.
    pub batch_replays_max: usize,
    /// Bytes of batches kept here, own and others'; above it
    /// [`Reply::Overloaded`](super::Reply::Overloaded).
    pub batch_bytes_max: usize,
    /// Batches kept here.
    pub batch_count_max: usize,

    /// Time between two heartbeats.
    pub heartbeat_interval: Duration,
    /// Inter-arrival times that the failure detector remembers per peer.
    pub detector_window: usize,
    /// Least deviation that the failure detector assumes.
    pub detector_deviation_min: Duration,
    /// Standard deviations beyond the mean after which a silent peer is believed down.
    pub detector_deviations: u32,
    /// Time after a lost connection within which a peer must be heard of.
    pub detector_doubt: Duration,

    /// Time after which a read without enough answers is answered
    /// [`Reply::Timeout`](super::Reply::Timeout).
    pub read_timeout: Duration,
    /// The longest of all nodes' time-outs of reads and writes, this one's included: so long may
    /// others count what a node acknowledged whose disk was lost then. Too small: a write is
    /// answered on the strength of a lost copy. Too large: while a node is away, another one whose
    /// disk was lost waits longer before it is filled.
    pub request_timeout_max: Duration,
    /// Reads under way; above it [`Reply::Overloaded`](super::Reply::Overloaded).
    pub pending_reads_max: usize,
    /// Bytes of answers kept of the reads under way; above it, and for those whose answers exceed
    /// it, [`Reply::Overloaded`](super::Reply::Overloaded). One read alone may exceed it.
    pub pending_read_bytes_max: usize,
    /// How often a read asks again because a replica refused a repair as deleted meanwhile.
    pub rereads_max: u32,
    /// Ranges of one read; [`READ_RANGES_MAX`] is what queries count on.
    pub read_ranges_max: usize,
    /// Least time before another replica is asked because one is slow.
    pub speculate_after_min: Duration,
    /// Background comparisons begun per second.
    pub background_reads_per_second: u32,
    /// Background comparisons under way.
    pub background_reads_max: usize,
    /// Bytes of entries of one answer to a read.
    pub read_bytes_max: usize,

    /// Time between two sessions of anti-entropy that this node begins.
    pub sync_interval: Duration,
    /// The same, if shorter, while the node is not whole and has to wait for the first of them.
    pub refill_interval: Duration,
    /// Time after which a session asks again about what differs, so that writes under way are not
    /// taken for differences; longer than most writes take.
    pub sync_second_look: Duration,
    /// Time without an answer after which a session is given up.
    pub sync_timeout: Duration,
    /// Bytes of entries of one message of a session.
    pub sync_bytes_max: usize,
    /// Places of one outline.
    pub sync_outline_count_max: usize,

    /// Bytes per second that sessions may read and exchange, on average; it may be exceeded by
    /// one page. What is read to find the entries of a few leaves counts, about.
    pub sync_bytes_per_second: u64,
    /// Partitions that one session looks at; the next one goes on from there.
    pub sync_partitions_max: usize,
    /// Time between two pages of the store that are read for a tree.
    pub tree_interval: Duration,
    /// Bytes of entries of such a page. The node does nothing else while it reads one.
    pub tree_bytes_max: usize,

    /// How long every write is left alone before it can come under a floor; more than twice the
    /// write time-out and the delay of hints.
    pub floor_age: Duration,
    /// Time between two attempts of a steward to raise a partition's floor.
    pub floor_interval: Duration,

    /// Check the invariants after every step even without debug assertions.
    pub check_invariants: bool,
}

/// How replicas that missed a write are brought up to date besides anti-entropy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repair {
    /// By hints of the coordinator.
    pub hints: bool,
    /// By comparing the remaining replicas after a read.
    pub reads: bool,
}

impl Repair {
    /// Returns what it is called on the command line.
    pub fn name(self) -> &'static str {
        match (self.reads, self.hints) {
            (true, true) => "both",
            (true, false) => "read-repair",
            (false, true) => "hinted-handoff",
            (false, false) => "none",
        }
    }
}

impl Config {
    /// Returns the defaults for one of `nodes`.
    pub fn new(id: NodeId, nodes: Vec<NodeId>, placement: Placement) -> Self {
        Self {
            id,
            nodes,
            placement,
            repair: Repair { hints: true, reads: true },
            clock_ahead_max: CLOCK_AHEAD_MAX,
            ceiling_step: Duration::from_secs(4),
            waiting_count_max: 1024,
            waiting_bytes_max: 16 << 20,
            persist_bytes_max: 2 << 20,
            persists_max: 2,
            write_timeout: Duration::from_secs(2),
            hint_after: Duration::from_millis(500),
            pending_writes_max: 16 << 10,
            pending_write_bytes_max: 64 << 20,
            replica_bytes_max: 64 << 20,
            hint_bytes_max: 256 << 20,
            hint_count_max: 1 << 20,
            hint_age_max: Duration::from_hours(3),
            hint_window_bytes: 1 << 20,
            hint_retry: Duration::from_secs(1),
            batch_takeover: Duration::from_secs(10),
            batch_store_timeout: Duration::from_millis(500),
            batch_retry: Duration::from_secs(2),
            batch_replays_max: 4,
            batch_bytes_max: 64 << 20,
            batch_count_max: 4096,
            heartbeat_interval: Duration::from_millis(200),
            detector_window: 100,
            detector_deviation_min: Duration::from_millis(100),
            // six deviations of a normal distribution: silence so long is one in 10^9
            detector_deviations: 6,
            detector_doubt: Duration::from_millis(300),
            read_timeout: Duration::from_secs(2),
            request_timeout_max: Duration::from_secs(2),
            pending_reads_max: 4096,
            pending_read_bytes_max: 64 << 20,
            rereads_max: 3,
            read_ranges_max: READ_RANGES_MAX,
            speculate_after_min: Duration::from_millis(5),
            background_reads_per_second: 100,
            background_reads_max: 64,
            read_bytes_max: 2 << 20,
            sync_interval: Duration::from_secs(1),
            refill_interval: Duration::from_secs(1),
            sync_second_look: Duration::from_millis(50),
            sync_timeout: Duration::from_secs(5),
            sync_bytes_max: 1 << 20,
            sync_outline_count_max: 4096,
            sync_bytes_per_second: 16 << 20,
            sync_partitions_max: 1024,
            tree_interval: Duration::from_millis(5),
            tree_bytes_max: 256 << 10,
            floor_age: Duration::from_secs(10),
            floor_interval: Duration::from_secs(5),
            check_invariants: false,
        }
    }

    /// Returns the other nodes.
    pub fn peers(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.iter().copied().filter(|&node| node != self.id)
    }

    /// Returns how long any node may count what another one has acknowledged or answered before,
    /// the clock of one running a quarter faster than that of the other.
    pub(super) fn counting_max(&self) -> Duration {
        let longest = self.request_timeout_max.max(self.read_timeout).max(self.write_timeout);
        longest + longest / 4
    }

    /// Panics if nodes configured so cannot work: the caller has checked what a user wrote.
    pub(super) fn check(&self) {
        assert!(self.nodes.contains(&self.id), "{} is none of the nodes {:?}", self.id, self.nodes);
        assert!(
            self.nodes.iter().all(|node| node.0 <= Stamp::NODE_MAX),
            "a stamp has no room for the largest of {:?}",
            self.nodes
        );
        assert!(
            self.persists_max > 0 && self.detector_window > 0 && self.pending_writes_max > 0,
            "a configuration that cannot work: {self:?}"
        );
    }
}

impl Level {
    /// Returns how many of `replica_count` replicas it asks for; `None` if it asks for more than
    /// there are.
    pub fn needed(self, replica_count: usize) -> Option<usize> {
        let needed = match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Three => 3,
            Self::Quorum if planted!("D2") => (replica_count / 2).max(1),
            Self::Quorum if planted!("D66") => replica_count,
            Self::Quorum => replica_count / 2 + 1,
            Self::All => replica_count,
        };
        (1..=replica_count).contains(&needed).then_some(needed)
    }
}
