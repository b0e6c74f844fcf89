//! The replica's loop.

use std::sync::Arc;

use tracing::{debug, error, info, warn};

use super::alarm::Alarm;
use super::applying::Applying;
use super::config::NodeConfig;
use super::disk_full::DiskFull;
use super::ending::{Ending, StopReason};
use super::gathering::Gathering;
use super::inbox::{Arrivals, Event, Inbox, Over, Submitted};
use super::observer::Observer;
use super::outbox::PeerOutbox;
use super::pending::{Asks, PendingRequest, PendingRequests};
use super::persist::{LogJob, LogQueue, PersistEvent};
use super::reading::Reading;
use super::saving::Saving;
use super::stalls::Stalls;
use super::start::STATE_DIR;
use super::state::{StateEvent, StateJob, StateQueue, meta};
use crate::base::{Core as _, Index, Instant, NodeId, Payload};
use crate::env::Env;
use crate::kv::Machine;
use crate::planted;
use crate::raft::{
    Awaited, Committed, EntryKind, Input, Message, Raft, Ready, Reply, Role, SnapshotMeta,
    SnapshotOutcome, SnapshotWrite, Standing, Token,
};
use crate::storage::{StorageError, Tree, let_others_run};
use crate::wire::{
    PeerMessage, PeerMessageRef, PeerStatus, RequestBody, RequestError, ResponseBody, Status,
};

/// Nanoseconds of a millisecond.
const NANOS_PER_MS: u64 = 1_000_000;
/// What an entry costs in the log besides its command, for the trigger of a flush.
const ENTRY_OVERHEAD_BYTES: u64 = 48;
/// Most that is applied in one turn when nobody waits for an answer: some tens of milliseconds.
/// Too much: heartbeats are answered late. Too little: turns cost more than the work.
const PIECE_BYTES_MAX: usize = 4 << 20;

/// One member of the cluster: the core, the state machine, and what connects them to the world.
pub struct Replica<E: Env, O: Observer> {
    pub(super) env: E,
    pub(super) config: NodeConfig,
    pub(super) core: Raft,
    pub(super) machine: Machine<Tree<E::Disk>>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) log: Arc<LogQueue>,
    pub(super) state: Arc<StateQueue<E::Disk>>,
    pub(super) peers: Vec<(NodeId, Arc<PeerOutbox>)>,
    pub(super) pending: PendingRequests,
    pub(super) gathering: Gathering<(Token, Payload)>,
    pub(super) observer: O,
    pub(super) flush: FlushProgress,
    pub(super) saving: Saving,
    pub(super) reading: Reading,
    /// There is no space for the log, or for tables.
    pub(super) disk_full: DiskFull,
    pub(super) stalls: Stalls,
    pub(super) wal_bytes: u64,
    pub(super) stop: Option<StopReason>,
    pub(super) over: Over,
    pub(super) role: Role,
    /// What the core waits for before it takes part, as it was last told to the log.
    pub(super) awaited: Option<Awaited>,
    pub(super) applying: Applying,
}

/// How far the state is on disk.
#[derive(Debug, Default)]
pub(super) struct FlushProgress {
    /// The last entry whose effect is in tables.
    pub(super) durable: SnapshotMeta,
    /// Bytes of log applied since a memtable was last frozen.
    pub(super) log_bytes: u64,
    /// A received snapshot waits for its installation.
    pub(super) installing: Option<SnapshotMeta>,
    /// The tables are lost, and no others have taken their place.
    pub(super) is_lost: bool,
}

impl<E: Env, O: Observer> Replica<E, O> {
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
            let now = self.env.now();
            self.inbox.take(&mut arrivals);
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
    pub(super) fn turn(&mut self, now: Instant, arrivals: &mut Arrivals) -> Option<Instant> {
        self.handle(now, arrivals);
        self.propose(now);
        if now >= self.core.deadline() {
            self.core.tick(now);
        }
        self.drive(now);
        if self.puts_applying_off() {
            return None;
        }
        self.apply_committed(now);
        self.limit_acknowledgements(now);
        self.tell_whether_stuck(now);
        self.read_on();
        self.expire(now);
        self.maybe_flush(now);
        let applies_on = self.applying.first().is_some() && !self.applying_waits();
        let gathers_on = self.gathering.wants_turn() && !self.is_held_back();
        if applies_on || gathers_on || self.reading.wants_turn() {
            return None;
        }
        // Writes that are held back wait for the tables, not for a time.
        let gathered = self.gathering.deadline().filter(|_| !self.is_held_back());
        let deadlines = [self.pending.next_deadline(), gathered];
        let core_deadline = self.core.deadline();
        Some(deadlines.into_iter().flatten().fold(core_deadline, Instant::min))
    }

    fn handle(&mut self, now: Instant, arrivals: &mut Arrivals) {
        for event in arrivals.events.drain(..) {
            self.on_event(now, event);
        }
        for (from, message) in arrivals.messages.drain(..) {
            // The handshake lets in peers of the own mode only.
            let PeerMessage::Raft(message) = message else { continue };
            if let Message::SnapshotReply { meta, outcome: SnapshotOutcome::Failed, .. } = message {
                // Perhaps the file it was sent from is rotten: nobody but its receiver reads it.
                crate::probe!("replica.snapshot_renewed_for_follower");
                self.state.push(StateJob::Renew(meta));
            }
            if !self.gives_state_up_for(from, &message) {
                self.step(now, Input::Peer { from, message });
            }
        }
        for request in arrivals.requests.drain(..) {
            self.on_request(now, request);
        }
    }

    /// Tells whether a leader has something else in the place of what is committed here: then the
    /// node stops, and gets that leader's state when it is started again. That can be only where
    /// entries are acknowledged before they are synced; elsewhere the core would panic.
    fn gives_state_up_for(&mut self, from: NodeId, message: &Message) -> bool {
        if !self.config.sync_policy.may_lose_committed() {
            return false;
        }
        let Some(named) = self.core.contradicted_by(from, message) else { return false };
        if self.stop.is_none() {
            let what = format!(
                "it has writes that the others have lost, as --sync interval may after a power \
                 loss: {from} leads with {named} in the place of one"
            );
            self.fail_storage(StorageError::Corrupt {
                path: STATE_DIR.to_owned(),
                offset: 0,
                what,
            });
        }
        true
    }

    /// Proposes the writes that have gathered, unless more are worth waiting for.
    fn propose(&mut self, now: Instant) {
        self.stalls.note(now, self.is_behind(), self.config.node);
        if self.is_held_back() {
            crate::probe!("replica.writes_wait_for_tables");
            return;
        }
        let leads = self.core.role() == Role::Leader;
        for (token, command) in self.gathering.take(now, leads) {
            // A request that has been answered meanwhile (the node stops) shall not take effect.
            if self.pending.contains(token) {
                self.step(now, Input::Propose { token, command });
            }
        }
    }

    /// Tells whether writes are not proposed, because the tables do not keep up.
    fn is_held_back(&self) -> bool {
        self.core.role() == Role::Leader && self.is_behind()
    }

    /// Tells whether the tables do not keep up with the writes, or have not until now.
    fn is_behind(&self) -> bool {
        self.machine.engine().is_stalled() || self.applying.lags()
    }

    fn step(&mut self, now: Instant, input: Input) {
        self.observer.on_input(now, &self.core, &input);
        self.core.step(now, input);
    }

    fn on_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Persist(event) => self.on_persist_event(now, event),
            Event::State(event) => self.on_state_event(now, event),
            Event::PeerLost(peer) => self.step(now, Input::PeerLost { peer }),
            Event::Shutdown => {
                info!(node = %self.config.node, "stopping");
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
                self.gathering.on_persisted(through);
                self.step(now, Input::Persisted { through });
            }
            PersistEvent::InstallLogged(meta) => self.state.push(StateJob::Install(meta)),
            PersistEvent::DiskFull(full) => {
                self.set_disk_full(DiskFull { log: full, ..self.disk_full });
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
        }
    }

    fn set_disk_full(&mut self, full: DiskFull) {
        self.disk_full.set(full, self.config.node);
    }

    pub(super) fn fail_storage(&mut self, error: StorageError) {
        error!(node = %self.config.node, %error, "storage failed: the node stops");
        self.stop = Some(StopReason::Storage(error));
    }

    fn on_request(&mut self, now: Instant, request: Submitted) {
        let Submitted { outbox, id, body, .. } = request;
        match body {
            // The fault has been seen to where the request came in.
            RequestBody::Command(command) | RequestBody::FaultyCommand { command, .. } => {
                // A follower sends its clients to the leader, whose disk may have space.
                if self.disk_full.any() && self.core.role() == Role::Leader {
                    crate::probe!("replica.write_refused_disk_full");
                    let error = RequestError::DiskFull;
                    self.inbox.answered();
                    outbox.reply(id, ResponseBody::Error(error));
                    return;
                }
                let token = self.pending.insert(now, outbox, id, Asks::Outcome);
                self.gathering.add(now, (token, command));
            }
            RequestBody::Query(query) => {
                let token = self.pending.insert(now, outbox, id, Asks::Answer(query));
                self.step(now, Input::Read { token });
            }
            RequestBody::Status => {
                let status = Box::new(self.status());
                self.inbox.answered();
                outbox.reply(id, ResponseBody::Status(status));
            }
            RequestBody::Snapshot { wanted: None, bytes_max, .. } => {
                let token = self.pending.insert(now, outbox, id, Asks::Snapshot(bytes_max));
                self.step(now, Input::Read { token });
            }
            RequestBody::Snapshot { wanted: Some(wanted), offset, bytes_max } => {
                let token = self.pending.insert(now, outbox, id, Asks::Piece);
                self.read_saved(token, wanted, offset, bytes_max);
            }
        }
    }

    /// Carries out what the core wants until it wants nothing more.
    fn drive(&mut self, now: Instant) {
        while self.stop.is_none() {
            let ready = self.core.take_ready();
            if ready == Ready::default() {
                break;
            }
            self.observer.on_ready(now, &self.core, &ready);
            self.execute(now, ready);
        }
        let role = self.core.role();
        if role != self.role {
            self.role = role;
            // A follower has nothing to do until it can acknowledge.
            self.log.set_serves(role == Role::Leader);
            info!(node = %self.config.node, %role, term = self.core.term(), "role changed");
        }
        let awaited = self.core.awaited();
        if awaited != self.awaited {
            self.say_awaited(awaited.as_ref());
            self.awaited = awaited;
        }
    }

    /// Logs what the replica waits for before it takes part.
    fn say_awaited(&self, awaited: Option<&Awaited>) {
        let (node, standing) = (self.config.node, self.core.standing());
        match awaited {
            None => info!(%node, "takes part"),
            // As at the first start of any cluster.
            Some(awaited @ (Awaited::Answers(_) | Awaited::Founding(_))) => {
                info!(%node, %standing, "waits for {awaited}");
            }
            Some(awaited @ Awaited::WholeDisk(_)) => {
                warn!(%node, %standing, "waits for {awaited}");
            }
        }
    }

    /// Tells whether what is committed is left to a later turn, which is to come at once.
    fn puts_applying_off(&mut self) -> bool {
        let leads = self.core.role() == Role::Leader;
        !self.applying_waits()
            && self.applying.puts_off(leads, self.gathering.is_syncing())
            && self.stop.is_none()
    }

    /// Tells whether what comes next waits for the tables to keep up, or for another state.
    fn applying_waits(&self) -> bool {
        let Some(first) = self.applying.first() else { return false };
        let leads = self.core.role() == Role::Leader;
        // What it has proposed before the tables fell behind.
        let is_own = leads && first.term == self.core.term();
        // Reads would wait for space with it, and nobody may make any for days.
        let must_serve = leads && self.disk_full.tables;
        let is_stalled = self.machine.engine().is_stalled() && !must_serve;
        let is_replaced = self.applying.lags() && self.flush.installing.is_some();
        !is_own && (is_stalled || is_replaced)
    }

    /// Applies what is committed, and does what follows from it, as far as the tables keep up.
    fn apply_committed(&mut self, now: Instant) {
        while self.stop.is_none() && self.apply_piece(now) {
            self.drive(now);
            if self.applying.lags() {
                // Before the next piece there is time for everything else, and for a flush.
                break;
            }
        }
    }

    /// Applies what is committed so far, or a piece of it; tells whether that was anything.
    fn apply_piece(&mut self, now: Instant) -> bool {
        if self.applying_waits() {
            crate::probe!("replica.applying_waits_for_tables");
            self.applying.hold();
            return false;
        }
        let entries = self.applying.take(self.piece_bytes_max());
        let Some(through) = entries.last().map(|last| last.entry.index) else { return false };
        for committed in entries {
            self.apply(now, committed);
            if self.stop.is_some() {
                // What comes next would be applied to half a state.
                return false;
            }
        }
        self.step(now, Input::Applied { through });
        true
    }

    /// Returns how much is applied in one turn.
    fn piece_bytes_max(&self) -> usize {
        if self.applying.lags() {
            // So that each is followed by the flush that it makes due.
            let memtable = usize::try_from(self.config.tree.memtable_bytes).unwrap_or(usize::MAX);
            return memtable.min(PIECE_BYTES_MAX);
        }
        if self.core.role() == Role::Leader { usize::MAX } else { PIECE_BYTES_MAX }
    }

    /// Has the core acknowledge no more than there is room for, or again all that is durable.
    fn limit_acknowledgements(&mut self, now: Instant) {
        if self.applying.limit(self.config.behind_bytes_max) {
            let acknowledge_max = self.applying.acknowledge_max();
            self.step(now, Input::Behind { acknowledge_max });
            self.drive(now);
        }
    }

    /// Tells the core when what is to be applied waits for tables that have no space, and when it
    /// does not any more.
    fn tell_whether_stuck(&mut self, now: Instant) {
        let is_stuck = self.disk_full.tables && self.applying.lags();
        if is_stuck != self.core.is_stuck() {
            self.step(now, Input::Stuck { is_stuck });
        }
    }

    fn execute(&mut self, now: Instant, ready: Ready) {
        if ready.persist.is_some() || !ready.send.is_empty() {
            self.applying.press();
        }
        // First what has the longer way: the followers' disks and this one's work side by side.
        for (to, message) in &ready.send {
            if let Some((_, outbox)) = self.peers.iter().find(|(peer, _)| peer == to) {
                outbox.send(PeerMessageRef::Raft(message));
            }
        }
        if let Some(persist) = ready.persist {
            self.gathering.on_persist(persist.id);
            self.log.push(LogJob::Persist(persist));
        }
        self.applying.add(ready.apply);
        if !ready.snapshot_writes.is_empty() && !self.applying.lags() {
            // The last of them replaces the state that these belong to. What waits for the tables
            // goes on waiting, and is forgotten with that state.
            self.apply_piece(now);
            if self.stop.is_some() {
                return;
            }
        }
        for (token, reply) in ready.replies {
            self.on_reply(token, reply);
        }
        for read in ready.snapshot_reads {
            self.state.push(StateJob::Read(read));
        }
        for write in ready.snapshot_writes {
            self.on_snapshot_write(write);
        }
    }

    fn apply(&mut self, now: Instant, committed: Committed) {
        let Committed { entry, token } = committed;
        let reply = match &entry.kind {
            EntryKind::Noop => {
                self.machine.skip(entry.index, entry.term);
                assert!(token.is_none(), "a no-op has no proposer");
                None
            }
            EntryKind::Command(command) => {
                let bytes = u64::try_from(command.len()).unwrap_or(u64::MAX);
                self.flush.log_bytes += bytes + ENTRY_OVERHEAD_BYTES;
                match self.machine.apply(entry.index, entry.term, command.as_bytes()) {
                    Ok(reply) => Some(reply),
                    Err(error) => return self.fail_storage(error),
                }
            }
        };
        self.observer.on_applied(now, &entry, reply.as_ref(), self.machine.trail());
        if let (Some(reply), Some(token)) = (reply, token)
            && let Some(request) = self.pending.remove(token)
        {
            let body = if request.outbox.has_room_for(&reply) {
                ResponseBody::Command(reply)
            } else {
                // It has been carried out, so its client must not hear "not applied". It may ask
                // again: the session keeps the answer.
                ResponseBody::Error(RequestError::Timeout)
            };
            self.answer(&request, body);
        }
    }

    fn on_reply(&mut self, token: Token, reply: Reply) {
        // Without an entry the request has run out of time already.
        let Some(request) = self.pending.remove(token) else { return };
        match reply {
            Reply::ReadReady => self.on_read_ready(token, request),
            Reply::NotLeader { leader } => {
                let leader = leader.and_then(|leader| {
                    let member = self.config.members.iter().find(|(node, _)| *node == leader);
                    member.map(|(node, address)| (*node, address.clone()))
                });
                self.fail(&request, RequestError::NotLeader { leader });
            }
            Reply::Overloaded => self.fail(&request, RequestError::Overloaded),
            Reply::Unknown => self.fail(&request, RequestError::LeadershipLost),
        }
    }

    /// Answers a read: everything that it must see is applied.
    fn on_read_ready(&mut self, token: Token, request: PendingRequest) {
        match &request.asks {
            Asks::Outcome | Asks::Piece | Asks::Reads(_) => {}
            Asks::Snapshot(bytes_max) => {
                let bytes_max = *bytes_max;
                self.begin_save(request, bytes_max);
            }
            Asks::Answer(_) => self.begin_read(token, request),
        }
    }

    pub(super) fn answer(&self, request: &PendingRequest, body: ResponseBody) {
        self.inbox.answered();
        request.outbox.reply(request.id, body);
    }

    pub(super) fn fail(&self, request: &PendingRequest, error: RequestError) {
        self.answer(request, ResponseBody::Error(error));
    }

    /// Answers requests that have waited too long.
    fn expire(&mut self, now: Instant) {
        let overdue = self.pending.take_overdue(now);
        let tokens: Vec<Token> = overdue.iter().map(|(token, _)| *token).collect();
        let held = self.gathering.forget(&tokens, |(token, _)| *token);
        for (token, request) in overdue {
            if held.contains(&token) {
                // The tables did not keep up, and nobody was told of it: it did not take effect.
                crate::probe!("replica.write_is_held_back_too_long");
                self.fail(&request, RequestError::Overloaded);
                continue;
            }
            crate::probe!("replica.request_times_out");
            self.fail(&request, RequestError::Timeout);
        }
    }

    /// Has what is in memory written to a table when it is much, or when the log is long.
    fn maybe_flush(&mut self, now: Instant) {
        let tree = self.machine.engine();
        let is_due = tree.is_flush_due() || self.flush.log_bytes >= self.config.flush_log_bytes;
        if self.flush.is_lost && self.core.is_recovering() {
            // The lost tables are what says how far the node had come.
            crate::probe!("replica.flush_waits_for_recovery");
            return;
        }
        if is_due && tree.may_flush() && self.flush.installing.is_none() {
            self.begin_flush(now);
        }
    }

    /// Has what is in memory written to a table.
    pub(super) fn begin_flush(&mut self, now: Instant) {
        let extra = self.machine.extra();
        let mut frozen = self.machine.engine_mut().freeze(extra);
        // Without tables it began with nothing, and has applied everything since the first entry.
        frozen.is_all = self.flush.is_lost;
        self.machine.engine().check_level0();
        self.flush.log_bytes = 0;
        let meta = meta(frozen.point);
        self.state.push(StateJob::Flush(frozen));
        if planted!("R29") {
            self.step(now, Input::SnapshotTaken { meta });
            self.log.push(LogJob::RemoveThrough(meta.index));
        }
        if planted!("W6") {
            self.log.push(LogJob::RemoveThrough(meta.index));
        }
    }

    fn on_state_event(&mut self, now: Instant, event: StateEvent) {
        match event {
            StateEvent::Version => {
                if let Some(version) = self.state.take_version() {
                    self.flush.is_lost = false;
                    self.machine.engine_mut().adopt(version);
                    self.on_durable(now);
                }
            }
            StateEvent::DiskFull(full) => {
                self.set_disk_full(DiskFull { tables: full, ..self.disk_full });
            }
            StateEvent::Data { to, meta, offset, data, done } => {
                self.step(now, Input::SnapshotData { to, meta, offset, data, done });
            }
            StateEvent::Saved { token, saved } => self.on_saved(token, saved),
            StateEvent::Stored { meta, offset } => {
                self.step(now, Input::SnapshotStored { meta, offset });
            }
            StateEvent::Verified(meta) => self.log.push(LogJob::Install(meta)),
            StateEvent::Installed(meta) => self.on_installed(now, meta),
            StateEvent::Failed(meta) => {
                // Another one may be complete and be installed already, which no flush may disturb.
                self.flush.installing = self.flush.installing.filter(|waiting| *waiting != meta);
                self.step(now, Input::SnapshotFailed { meta });
            }
            StateEvent::Fatal(error) => {
                self.over.state = true;
                self.fail_storage(error);
            }
        }
    }

    /// Cuts the log where the tables have gone further.
    fn on_durable(&mut self, now: Instant) {
        let durable = meta(self.machine.engine().durable());
        if durable.index <= self.flush.durable.index {
            return;
        }
        self.flush.durable = durable;
        debug!(node = %self.config.node, index = durable.index, "flushed");
        self.step(now, Input::SnapshotTaken { meta: durable });
        self.log.push(LogJob::RemoveThrough(durable.index));
    }

    fn on_snapshot_write(&mut self, write: SnapshotWrite) {
        if write.done {
            self.flush.installing = Some(write.meta);
        }
        self.state.push(StateJob::Write(write));
    }

    fn on_installed(&mut self, now: Instant, installed: SnapshotMeta) {
        let Some(version) = self.state.take_version() else { return };
        (self.flush.installing, self.flush.is_lost) = (None, false);
        if version.applied.index <= self.machine.applied().index {
            // Entries up to there were applied in the meantime; the tables are as good.
            crate::probe!("replica.snapshot_overtaken");
            self.machine.engine_mut().adopt(version);
        } else {
            let extra = version.extra.clone();
            self.machine.engine_mut().adopt(version);
            if let Err(error) = self.machine.reload(&extra, self.config.sessions_max) {
                return self.fail_storage(error);
            }
            let now_at = meta(self.machine.applied());
            self.observer.on_installed(now, now_at, self.machine.trail());
            self.flush.log_bytes = 0;
        }
        self.applying.forget_through(installed.index);
        self.flush.durable = meta(self.machine.engine().durable());
        info!(node = %self.config.node, index = installed.index, "snapshot installed");
        self.step(now, Input::SnapshotInstalled { meta: installed });
        self.log.push(LogJob::RemoveThrough(installed.index));
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

    pub(super) fn status(&self) -> Status {
        let role = match self.core.standing() {
            Standing::New | Standing::Founding => "new".to_owned(),
            Standing::Unsure => "recovering".to_owned(),
            Standing::Whole | Standing::Filling(_) if self.core.is_recovering() => {
                "recovering".to_owned()
            }
            Standing::Whole | Standing::Filling(_) => self.core.role().to_string(),
        };
        let last_index = self.core.last_index();
        Status {
            node: self.config.node,
            cluster: self.config.cluster,
            mode: self.config.mode().name().to_owned(),
            role,
            awaited: self.core.awaited(),
            term: self.core.term(),
            leader: self.core.leader(),
            last_index,
            commit_index: self.core.commit_index(),
            applied_index: self.machine.applied().index,
            snapshot_index: self.flush.durable.index,
            peers: self.peer_statuses(last_index),
            cell_count: self.machine.cell_count(),
            session_count: u64::try_from(self.machine.session_count()).unwrap_or(u64::MAX),
            wal_bytes: self.wal_bytes,
            table_bytes: self.machine.engine().pin().bytes(),
            sync_policy: self.config.sync_in_words(),
            disk_full: self.disk_full.any(),
            writes_wait: self.stalls.is_one(),
            writes_waited_ms: self.stalls.total_ms(self.env.now()),
            wall_ms: self.env.wall().0 / NANOS_PER_MS,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            masterless: None,
        }
    }

    fn peer_statuses(&self, last_index: Index) -> Vec<PeerStatus> {
        let address = |node: NodeId| {
            let member = self.config.members.iter().find(|(member, _)| *member == node);
            member.map(|(_, address)| address.clone()).unwrap_or_default()
        };
        let status = |(node, progress): (NodeId, &crate::raft::Progress)| PeerStatus {
            node,
            address: address(node),
            match_index: progress.match_index,
            lag: last_index.saturating_sub(progress.match_index),
            state: progress.state.to_string(),
        };
        self.core.progress().map(status).collect()
    }
}
