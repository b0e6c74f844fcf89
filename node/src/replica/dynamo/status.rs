//! How a replica of the masterless mode is, for operators.

use super::super::config::{Masterless, Replication};
use super::super::observer::Observer;
use super::{MasterlessReplica, PersistId};
use crate::base::{Instant, NodeId};
use crate::dynamo::{self, DynamoStatus};
use crate::env::Env;
use crate::storage::Engine as _;
use crate::wire::{
    HintStatus, MasterlessStatus, MemoryStatus, Mode, PeerStatus, Status, SyncStatus,
};

impl<E: Env, O: Observer> MasterlessReplica<E, O> {
    pub(super) fn status(&self, now: Instant) -> Status {
        let core = self.core.status();
        let tree = self.store.engine();
        let last: PersistId = self.persists.last;
        let is_ready = core.is_whole && !core.refuses_writes;
        Status {
            node: self.config.node,
            cluster: self.config.cluster,
            mode: Mode::Masterless { placement: 0 }.name().to_owned(),
            role: if is_ready { "replica" } else { "recovering" }.to_owned(),
            awaited: None,
            term: 0,
            leader: None,
            last_index: last,
            commit_index: self.persists.durable,
            applied_index: self.store.applied(),
            snapshot_index: self.flush.durable,
            peers: self.peer_statuses(&core),
            cell_count: tree.cell_count(),
            session_count: 0,
            wal_bytes: self.wal_bytes,
            table_bytes: tree.pin().bytes(),
            sync_policy: self.config.sync_in_words(),
            disk_full: self.disk_full.any(),
            writes_wait: self.stalls.is_one(),
            writes_waited_ms: self.stalls.total_ms(self.env.now()),
            wall_ms: self.wall_ms(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            masterless: Some(self.masterless_status(now, &core)),
        }
    }

    fn peer_statuses(&self, core: &DynamoStatus) -> Vec<PeerStatus> {
        let peers = self.config.members.iter().filter(|(node, _)| *node != self.config.node);
        let status = |(node, address): &(NodeId, String)| PeerStatus {
            node: *node,
            address: address.clone(),
            match_index: 0,
            lag: 0,
            state: if core.up.contains(node) { "up" } else { "down" }.to_owned(),
        };
        peers.map(status).collect()
    }

    fn masterless_status(&self, now: Instant, core: &DynamoStatus) -> MasterlessStatus {
        let defaults = Masterless::default();
        let masterless = match &self.config.replication {
            Replication::Masterless(masterless) => masterless,
            Replication::PrimaryBackup => &defaults,
        };
        let mut up = core.up.clone();
        up.push(self.config.node);
        up.sort_unstable();
        up.dedup();
        let limits = self.core.config();
        let hint = |(&target, &(count, bytes)): (&NodeId, &(usize, usize))| HintStatus {
            target,
            count: wide(count),
            bytes: wide(bytes),
            count_max: wide(limits.hint_count_max),
            bytes_max: wide(limits.hint_bytes_max),
        };
        let hints = core.hints.iter().filter(|(_, (count, _))| *count > 0).map(hint).collect();
        let sync = |(&peer, compared): (&NodeId, &Option<Instant>)| SyncStatus {
            peer,
            last_ms_ago: compared.map(|at| ms(now.since(at))),
        };
        MasterlessStatus {
            replication_factor: count(masterless.replication_factor),
            partition_count: u32::from(masterless.partition_count),
            repair: masterless.repair.name().to_owned(),
            is_whole: core.is_whole,
            up,
            hints,
            hints_dropped: core.hints_dropped,
            batch_count: wide(core.batches),
            pending_write_count: wide(core.pending_writes),
            pending_read_count: wide(core.pending_reads),
            merkle_bytes: wide(core.merkle_bytes),
            unknown_tree_count: count(core.merkle_unknown),
            sync_count: core.sync_sessions,
            syncs: core.synced.iter().map(sync).collect(),
            floor_ms: core.floor_min.ms(),
            clock_ms: core.clock.ms(),
            clock_ahead_ms: core.too_far_ahead_ms,
            memory: memory(core, limits),
        }
    }
}

/// Lists everything that is held in memory and grows with use.
fn memory(core: &DynamoStatus, limits: &dynamo::Config) -> Vec<MemoryStatus> {
    let row = |what: &str, counts: (usize, Option<usize>), bytes: (usize, Option<usize>)| {
        let (count, count_max) = (wide(counts.0), counts.1.map(wide));
        let (bytes, bytes_max) = (wide(bytes.0), bytes.1.map(wide));
        MemoryStatus { what: what.to_owned(), count, count_max, bytes, bytes_max }
    };
    vec![
        row(
            "requests that wait for the start or the clock",
            (core.waiting, Some(limits.waiting_count_max)),
            (core.waiting_bytes, Some(limits.waiting_bytes_max)),
        ),
        row(
            "writes under way",
            (core.pending_writes, Some(limits.pending_writes_max)),
            (core.pending_write_bytes, Some(limits.pending_write_bytes_max)),
        ),
        row(
            "records that wait for the disk",
            (core.records_waiting + core.records_in_flight, None),
            (core.replica_bytes, Some(limits.replica_bytes_max)),
        ),
        row(
            "reads under way",
            (core.pending_reads, Some(limits.pending_reads_max)),
            (core.pending_read_bytes, Some(limits.pending_read_bytes_max)),
        ),
        row(
            "comparisons after reads",
            (core.background_reads, Some(limits.background_reads_max)),
            (0, None),
        ),
        row(
            "batches",
            (core.batches, Some(limits.batch_count_max)),
            (core.batch_bytes, Some(limits.batch_bytes_max)),
        ),
        row(
            "Merkle trees",
            (core.merkle_count, None),
            (core.merkle_bytes, Some(core.merkle_bytes_max)),
        ),
    ]
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn ms(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
