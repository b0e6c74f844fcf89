//! The loop of a replica of the masterless mode.
//!
//! It is the loop of the primary-backup mode with another core: take what has arrived, step the
//! core, carry out what it wants. In place of the replicated state machine stands a
//! [`CellStore`], which the core reads through the loop, and the position of the log is the number
//! of a persist request of this node alone.
//!
//! Anti-entropy, hints and repairs are the core's; snapshots are not needed: a node that lost its
//! state gets it like any write that it missed, a piece at a time.
//!
//! # When the tables do not keep up
//! A node does not choose what others write to it. Where its disk is slower than theirs, level 0
//! would grow without end. So while the store [is behind](Tree::is_stalled), the node
//! 1. holds back the writes that it is to coordinate, and ignores what anti-entropy finds for it:
//!    the comparison is begun anew later;
//! 2. goes on with other nodes' writes, hints and repairs among them, and makes no tables of them:
//!    they fill the memtable, up to the room of [`MEMTABLES_OVER`];
//! 3. then ignores those, too, as if they were lost, until a compaction has made room. Whoever sent
//!    one counts no acknowledgement, and sends it again or keeps a hint.
//!
//! To ignore is better here than to refuse. The coordinator need not know why: a write that reached
//! too few replicas has an unknown outcome either way, and its hint keeps it for this node. And it
//! is better than to keep the acknowledgement waiting, which would take memory for every write that
//! somebody has given up.
//!
//! # Invariants
//! 1. What the core says is carried out in the order persist, apply, send, reply, read: what a
//!    message or an answer tells of is applied before.
//! 2. Level 0 has no more tables than
//!    [`level0_bound`](crate::storage::tree::TreeOptions::level0_bound) says, and the memtables
//!    take no more than there is room for, and what arrives in one turn or is in the log already.
//!
//! # Left out
//! What a node writes to itself while it is behind, such as a repair after a read of its own, is
//! not bounded by this: reads go on.

pub(super) mod recovery;
mod requests;
mod start;
mod status;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use tracing::{debug, error, info};

#[cfg(feature = "testing")]
pub use self::recovery::judge_masterless_log;
use self::requests::HeldWrite;
use super::alarm::Alarm;
use super::config::NodeConfig;
use super::disk_full::DiskFull;
use super::ending::{Ending, StopReason};
use super::gathering::Gathering;
use super::inbox::{Arrivals, Event, Inbox, Over};
use super::observer::Observer;
use super::outbox::PeerOutbox;
use super::pending::PendingRequests;
use super::persist::{LogJob, LogQueue, PersistEvent};
use super::stalls::Stalls;
use super::state::{StateEvent, StateJob, StateQueue};
use crate::base::{Core as _, Entry, Instant, NodeId, Payload};
use crate::dynamo::{Dynamo, Input, PersistId, Placement, Ready, Record, notes};
use crate::env::Env;
use crate::kv::CellStore;
use crate::storage::{Engine, StorageError, Tree, let_others_run};
use crate::wire::{PeerMessage, PeerMessageRef, RequestError};

/// Nanoseconds of a millisecond.
const NANOS_PER_MS: u64 = 1_000_000;
/// Memtables that other nodes' writes may fill beyond those that wait to be flushed: the one that
/// is being filled, and one more. Fewer: writes are dropped whenever a flush takes long. More:
/// memory.
const MEMTABLES_OVER: u64 = 2;
/// What a persist request costs in the log besides its records, for the trigger of a flush.
const PERSIST_OVERHEAD_BYTES: u64 = 48;

/// One member of a masterless cluster: the core, the cells, and what connects them to the world.
pub struct MasterlessReplica<E: Env, O: Observer> {
    env: E,
    config: NodeConfig,
    placement: Placement,
    core: Dynamo,
    store: CellStore<Tree<E::Disk>>,
    inbox: Arc<Inbox>,
    log: Arc<LogQueue>,
    state: Arc<StateQueue<E::Disk>>,
    peers: Vec<(NodeId, Arc<PeerOutbox>)>,
    pending: PendingRequests,
    /// Writes that wait for others, or for the tables.
    held: Gathering<HeldWrite>,
    observer: O,
    flush: FlushProgress,
    persists: PersistProgress,
    disk_full: DiskFull,
    stalls: Stalls,
    wal_bytes: u64,
    stop: Option<StopReason>,
    over: Over,
}

/// How far the cells are on disk.
#[derive(Debug, Default)]
struct FlushProgress {
    /// The last persist request whose effect is in tables.
    durable: PersistId,
    /// Bytes of log applied since a memtable was last frozen.
    log_bytes: u64,
}

/// How far the log is.
#[derive(Debug, Default)]
struct PersistProgress {
    /// The last persist request that was handed to the log.
    last: PersistId,
    /// The last one that is durable.
    durable: PersistId,
}

impl<E: Env, O: Observer> MasterlessReplica<E, O> {
    /// Returns the inbox.
    pub fn inbox(&self) -> Arc<Inbox> {
        Arc::clone(&self.inbox)
    }

    /// Returns the way to each peer.
    pub fn peer_outboxes(&self) -> Vec<(NodeId, Arc<PeerOutbox>)> {
        self.peers.clone()
    }

    /// Runs until the node is asked to stop or cannot go on.
    pub async fn run(mut self) -> StopReason {
        let mut arrivals = Arrivals::default();
        let mut alarm = Alarm::new(&self.env, self.core.deadline());
        loop {
            self.inbox.take(&mut arrivals);
            // Afterwards: what the core takes to be in time has arrived in time, however long the
            // process stands still in between.
            let now = self.env.now();
            let deadline = self.turn(now, &mut arrivals);
            if let Some(reason) = self.stop.take() {
                let ending = self.ending();
                let reason = ending.condemn_if_damaged(reason, self.over).await;
                return ending.finish(reason);
            }
            let Some(deadline) = deadline else {
                let_others_run().await;
                continue;
            };
            alarm.until(&self.env, now, deadline);
            if self.inbox.wait(alarm.future.as_mut()).await {
                alarm.over = true;
            }
        }
    }

    /// Does what can be done now. Returns when there is more to do if nothing happens before;
    /// `None`: as soon as others had their turn.
    fn turn(&mut self, now: Instant, arrivals: &mut Arrivals) -> Option<Instant> {
        self.step(now, Input::Wall { ms: self.wall_ms() });
        self.handle(now, arrivals);
        self.release_held(now);
        if now >= self.core.deadline() {
            self.core.tick(now);
        }
        self.expire(now);
        self.drive(now);
        self.maybe_flush();
        let is_held_back = self.is_held_back();
        if self.held.wants_turn() && !is_held_back {
            return None;
        }
        // Writes that wait for the tables wait for no time.
        let gathered = self.held.deadline().filter(|_| !is_held_back);
        let deadlines = [self.pending.next_deadline(), gathered];
        let core_deadline = self.core.deadline();
        Some(deadlines.into_iter().flatten().fold(core_deadline, Instant::min))
    }

    fn wall_ms(&self) -> u64 {
        self.env.wall().0 / NANOS_PER_MS
    }

    fn handle(&mut self, now: Instant, arrivals: &mut Arrivals) {
        for event in arrivals.events.drain(..) {
            self.on_event(now, event);
        }
        let (is_behind, is_overfull) = (self.store.engine().is_stalled(), self.is_overfull());
        for (from, message) in arrivals.messages.drain(..) {
            // The handshake lets in peers of the own mode only.
            let PeerMessage::Dynamo(message) = message else { continue };
            if is_overfull && message.is_write() {
                crate::probe!("replica.masterless_peer_write_waits_for_tables");
                continue;
            }
            if is_behind && message.is_difference() {
                crate::probe!("replica.masterless_sync_waits_for_tables");
                continue;
            }
            self.step(now, Input::Peer { from, message });
        }
        for request in arrivals.requests.drain(..) {
            self.on_request(now, request);
        }
    }

    /// Tells whether the tables are so far behind that not even other nodes' writes are taken in:
    /// see the [module](self). Clients' own writes wait much earlier, so that this is rare.
    fn is_overfull(&self) -> bool {
        let tree = self.store.engine();
        let options = &self.config.tree;
        let memtables = u64::try_from(options.frozen_max.max(1)).unwrap_or(u64::MAX);
        let bytes_max =
            memtables.saturating_add(MEMTABLES_OVER).saturating_mul(options.memtable_bytes);
        tree.is_stalled() && tree.memtable_bytes() > bytes_max
    }

    fn step(&mut self, now: Instant, input: Input) {
        self.observer.on_masterless_input(now, &self.core, &input);
        self.core.step(now, input);
    }

    fn on_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Persist(event) => self.on_persist_event(now, event),
            Event::State(event) => self.on_state_event(now, event),
            Event::PeerLost(peer) => self.step(now, Input::PeerLost { peer }),
            Event::Shutdown => {
                info!(node = %self.config.node, "stopping");
                self.held.clear();
                while let Some(request) = self.pending.remove_first() {
                    self.fail(&request, RequestError::ShuttingDown);
                }
                self.log.push(LogJob::Stop);
            }
        }
    }

    fn on_persist_event(&mut self, now: Instant, event: PersistEvent) {
        match event {
            PersistEvent::Persisted(through) => {
                self.persists.durable = through;
                self.held.on_persisted(through);
                self.step(now, Input::Persisted { through });
            }
            PersistEvent::DiskFull(full) => {
                self.set_disk_full(now, DiskFull { log: full, ..self.disk_full });
            }
            PersistEvent::Size(bytes) => self.wal_bytes = bytes,
            PersistEvent::Failed(error) => {
                self.over.log = true;
                self.fail_storage(error);
            }
            PersistEvent::Stopped => {
                self.over.log = true;
                self.stop = Some(StopReason::Requested);
            }
            PersistEvent::InstallLogged(meta) => unreachable!("nobody installs {meta:?}"),
        }
    }

    fn set_disk_full(&mut self, now: Instant, full: DiskFull) {
        if full.any() != self.disk_full.any() {
            self.step(now, if full.any() { Input::DiskFull } else { Input::DiskHasSpace });
        }
        self.disk_full.set(full, self.config.node);
    }

    fn fail_storage(&mut self, error: StorageError) {
        error!(node = %self.config.node, %error, "storage failed: the node stops");
        self.stop = Some(StopReason::Storage(error));
    }

    /// Carries out what the core wants until it wants nothing more.
    fn drive(&mut self, now: Instant) {
        while self.stop.is_none() {
            let ready = self.core.take_ready();
            if ready == Ready::default() {
                break;
            }
            self.observer.on_masterless_ready(now, &self.core, &ready);
            if let Err(error) = self.execute(now, ready) {
                self.fail_storage(error);
            }
        }
    }

    fn execute(&mut self, now: Instant, ready: Ready) -> Result<(), StorageError> {
        if let Some(persist) = ready.persist {
            self.persists.last = persist.id;
            self.held.on_persist(persist.id);
            self.flush.log_bytes += bytes_of(&persist.records);
            self.log.push(LogJob::Records(persist));
        }
        for (id, records) in ready.apply {
            let leaves = self.store.apply(id, &records)?;
            note_floors(&mut self.store, &records);
            self.observer.on_masterless_applied(now, id, &records);
            self.step(now, Input::Applied { leaves });
        }
        for (to, message) in &ready.send {
            if let Some((_, outbox)) = self.peers.iter().find(|(peer, _)| peer == to) {
                outbox.send(PeerMessageRef::Dynamo(message));
            }
        }
        for (token, reply) in ready.replies {
            self.on_reply(now, token, reply);
        }
        for (id, read) in ready.reads {
            let found = self.store.read(&read)?;
            self.step(now, Input::StoreRead { id, found });
        }
        Ok(())
    }

    /// Has what is in memory written to a table when it is much, or when the log is long.
    fn maybe_flush(&mut self) {
        let tree = self.store.engine();
        let is_due = tree.is_flush_due() || self.flush.log_bytes >= self.config.flush_log_bytes;
        if is_due && tree.may_flush() && tree.applied() > tree.frozen_through() {
            let frozen = self.store.engine_mut().freeze(Vec::new());
            self.store.engine().check_level0();
            self.flush.log_bytes = 0;
            self.state.push(StateJob::Flush(frozen));
        }
    }

    fn on_state_event(&mut self, now: Instant, event: StateEvent) {
        match event {
            StateEvent::Version => {
                if let Some(version) = self.state.take_version() {
                    self.store.engine_mut().adopt(version);
                    self.on_durable();
                }
            }
            StateEvent::DiskFull(full) => {
                self.set_disk_full(now, DiskFull { tables: full, ..self.disk_full });
            }
            StateEvent::Fatal(error) => {
                self.over.state = true;
                self.fail_storage(error);
            }
            StateEvent::Data { .. }
            | StateEvent::Saved { .. }
            | StateEvent::Stored { .. }
            | StateEvent::Verified(_)
            | StateEvent::Installed(_)
            | StateEvent::Failed(_) => unreachable!("nobody sends or receives a snapshot"),
        }
    }

    /// Cuts the log where the tables have gone further.
    fn on_durable(&mut self) {
        let durable = self.store.engine().durable().index;
        if durable > self.flush.durable {
            self.flush.durable = durable;
            debug!(node = %self.config.node, durable, "flushed");
            self.log.push(LogJob::RemoveThrough(durable));
        }
    }

    fn ending(&self) -> Ending<'_, E> {
        Ending {
            env: &self.env,
            inbox: &self.inbox,
            log: &self.log,
            state: &self.state,
            peers: &self.peers,
        }
    }
}

/// Lets the store know the floors whose notes were just applied.
fn note_floors<S: Engine>(store: &mut CellStore<S>, records: &[Record]) {
    for record in records {
        if let Record::Note { place, content: Some(content) } = record
            && let Some((partition, floor)) = notes::floor(place.as_bytes(), content.as_bytes())
        {
            store.set_floor(partition, floor);
        }
    }
}

/// Returns about how many bytes records take in the log.
fn bytes_of(records: &[Record]) -> u64 {
    let bytes = |record: &Record| match record {
        Record::Entries(entries) => entries.iter().map(Entry::bytes).sum(),
        Record::Note { place, content } => place.len() + content.as_ref().map_or(0, Payload::len),
    };
    let bytes: usize = records.iter().map(bytes).sum();
    u64::try_from(bytes).unwrap_or(u64::MAX).saturating_add(PERSIST_OVERHEAD_BYTES)
}
