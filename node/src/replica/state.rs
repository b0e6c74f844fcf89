//! The state task: everything that is done with the table store's files.
//!
//! It flushes the memtables that the loop has frozen, compacts and scrubs when nothing else is to
//! be done, hands out pieces of the state to followers and to clients that save it, and receives
//! that of a leader. Each new version of the tables goes to the loop, which adopts it. It is
//! started [aside](Env::spawn_aside): on a real machine it has a thread of its own, so that the
//! loop does not wait while tables are merged, and merging does not wait for turns of the loop.
//!
//! A snapshot from the leader is received into a file of its own. When it is complete and
//! verified, the loop has the log record that it is about to be installed; only then do its cells
//! replace the tables ([`crate::replica::recovery`] says why). Whatever happens in between leaves
//! the old state intact.
//!
//! A damaged table is not worked around: in a cluster the state is *condemned*, durably, the node
//! stops, and at its next start it has none and gets the leader's, or makes it again if the logs
//! still have everything. Alone, it stops and says which file is damaged.
//!
//! # Invariants
//! 1. Memtables are flushed in the order in which they were frozen.
//! 2. A full disk ends nothing: what could not be written is tried again, however much else there
//!    is to do, and the loop refuses writes meanwhile.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::task::AtomicWaker;

use super::inbox::{Event, Inbox};
use crate::base::{Instant, NodeId, Payload};
use crate::env::{self, Disk, Env};
use crate::raft::{SnapshotMeta, SnapshotRead, SnapshotWrite, Token};
use crate::storage::snapshot::{
    ReceiveError, SnapshotPiece, SnapshotReceiver, Transfers, VerifiedSnapshot,
};
use crate::storage::tree::{Frozen, Keeper, Version};
use crate::storage::{SnapshotPoint, StorageError, let_others_run};

/// Pause between two tries to write to a full disk.
const FULL_DISK_RETRY: Duration = Duration::from_millis(100);

/// Pause between two steps of scrubbing.
const SCRUB_INTERVAL: Duration = Duration::from_secs(1);

/// So long after the last piece that was asked for, what is being sent is let go.
const TRANSFER_KEPT: Duration = Duration::from_mins(1);

/// After so long without a piece being asked for, the state that clients save is let go.
const SAVE_KEPT: Duration = Duration::from_mins(1);

/// So long after its last piece, what was received of a snapshot is let go. A piece that comes
/// nevertheless has the transfer begin anew.
const RECEIVED_KEPT: Duration = Duration::from_mins(1);

/// What the state task is asked to do, in order.
pub(super) enum StateJob {
    /// Write a memtable to the disk.
    Flush(Frozen),
    /// Read a piece for a follower.
    Read(SnapshotRead),
    /// Read a piece for a client that saves the state.
    Save(SaveRead),
    /// Store a piece from the leader.
    Write(SnapshotWrite),
    /// Install the verified snapshot.
    Install(SnapshotMeta),
    /// A follower could not use the snapshot that it was sent: make it anew.
    Renew(SnapshotMeta),
    /// The state is damaged: say so to the next start.
    Condemn(StorageError),
    /// End.
    Stop,
}

/// A piece that a client has asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct SaveRead {
    /// The request.
    pub(super) token: Token,
    /// Which state; a new one if `None`.
    pub(super) wanted: Option<SnapshotPoint>,
    /// What a new one must cover.
    pub(super) at_least: SnapshotPoint,
    /// Where in its bytes.
    pub(super) offset: u64,
    pub(super) bytes_max: usize,
}

/// What became of a [`SaveRead`].
pub(super) enum Saved {
    Piece(SnapshotPiece),
    /// That state is not kept any more, or was not made as far as that.
    Gone,
    /// There is no space to make it.
    DiskFull,
}

/// What the state task reports.
pub(super) enum StateEvent {
    /// There is a new version of the tables.
    Version,
    /// The disk has become full, or has space again.
    DiskFull(bool),
    /// A piece for a follower.
    Data { to: NodeId, meta: SnapshotMeta, offset: u64, data: Payload, done: bool },
    /// A piece for a client that saves the state.
    Saved { token: Token, saved: Saved },
    /// A piece from the leader is stored.
    Stored { meta: SnapshotMeta, offset: u64 },
    /// All pieces are there and undamaged.
    Verified(SnapshotMeta),
    /// The snapshot is durable; there is a version with it.
    Installed(SnapshotMeta),
    /// The snapshot could not be used and is thrown away.
    Failed(SnapshotMeta),
    /// The disk failed, or the state is damaged; the node must stop.
    Fatal(StorageError),
}

/// Between the loop and the task. What is queued is bounded by what the core and the tree have in
/// flight.
pub(super) struct StateQueue<D: Disk> {
    shared: Mutex<Shared<D>>,
    waker: AtomicWaker,
}

struct Shared<D: Disk> {
    jobs: VecDeque<StateJob>,
    /// Versions that the loop has not adopted, one for each event that says so.
    versions: VecDeque<Arc<Version<D>>>,
}

impl<D: Disk> Default for StateQueue<D> {
    fn default() -> Self {
        let shared = Shared { jobs: VecDeque::new(), versions: VecDeque::new() };
        Self { shared: Mutex::new(shared), waker: AtomicWaker::new() }
    }
}

impl<D: Disk> StateQueue<D> {
    pub(super) fn push(&self, job: StateJob) {
        self.lock().jobs.push_back(job);
        self.waker.wake();
    }

    /// Returns the oldest version that was not taken yet.
    pub(super) fn take_version(&self) -> Option<Arc<Version<D>>> {
        self.lock().versions.pop_front()
    }

    fn take_job(&self) -> Option<StateJob> {
        self.lock().jobs.pop_front()
    }

    async fn wait(&self) {
        std::future::poll_fn(|context| {
            self.waker.register(context.waker());
            if self.lock().jobs.is_empty() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    fn lock(&self) -> MutexGuard<'_, Shared<D>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the [module](self).
pub(super) struct StateTask<E: Env> {
    env: E,
    keeper: Keeper<E::Disk>,
    transfers: Transfers<E::Disk>,
    /// Those of clients that save the state.
    saves: Transfers<E::Disk>,
    /// When a client last asked for a piece.
    saved_at: Option<Instant>,
    queue: Arc<StateQueue<E::Disk>>,
    inbox: Arc<Inbox>,
    options: StateOptions,
    /// Memtables that wait for the disk.
    unflushed: VecDeque<Frozen>,
    /// When to try again to write the first of them, for which there was no space.
    retry_at: Option<Instant>,
    receiver: Option<SnapshotReceiver<E::Disk>>,
    /// When a piece last came from a leader.
    received_at: Option<Instant>,
    verified: Option<VerifiedSnapshot<E::Disk>>,
    /// There was no space for a compaction.
    compaction_waits: bool,
    /// The loop was told that the disk is full.
    disk_full: bool,
    scrubbed_at: Instant,
    /// When a piece was last sent to a follower.
    sent_at: Option<Instant>,
}

/// What can be chosen about the state task.
#[derive(Debug, Clone, Copy)]
pub(super) struct StateOptions {
    /// Whether there are others to get the state from.
    pub(super) has_peers: bool,
    /// Bytes that are verified each second; 0 for none.
    pub(super) scrub_bytes_per_second: u64,
}

impl<E: Env> StateTask<E> {
    pub(super) fn new(
        env: E,
        keeper: Keeper<E::Disk>,
        transfers: Transfers<E::Disk>,
        queue: Arc<StateQueue<E::Disk>>,
        inbox: Arc<Inbox>,
        options: StateOptions,
    ) -> Self {
        let scrubbed_at = env.now();
        Self {
            env,
            keeper,
            saves: transfers.apart(),
            saved_at: None,
            transfers,
            queue,
            inbox,
            options,
            unflushed: VecDeque::new(),
            retry_at: None,
            receiver: None,
            received_at: None,
            verified: None,
            compaction_waits: false,
            disk_full: false,
            scrubbed_at,
            sent_at: None,
        }
    }

    /// Runs until it is told to stop or the disk fails.
    pub(super) async fn run(mut self) {
        if let Err(error) = self.work().await {
            if let Err(failure) = self.condemn(&error).await {
                tracing::error!(%failure, "the damage cannot be recorded");
            }
            self.report(StateEvent::Fatal(error));
        }
    }

    async fn work(&mut self) -> Result<(), StorageError> {
        loop {
            match self.queue.take_job() {
                Some(StateJob::Stop) => return Ok(()),
                Some(job) => self.carry_out(job).await?,
                None => self.be_idle().await?,
            }
            self.retry_if_due().await?;
            self.keeper.collect().await;
            self.scrub_if_due().await?;
        }
    }

    /// Tries again to flush every so often while the disk is full, however busy the task is.
    async fn retry_if_due(&mut self) -> Result<(), StorageError> {
        if self.retry_at.is_none_or(|at| self.env.now() < at) {
            return Ok(());
        }
        self.flush().await
    }

    /// Verifies a part of the tables every so often, however busy the task is.
    async fn scrub_if_due(&mut self) -> Result<(), StorageError> {
        let now = self.env.now();
        let bytes = self.options.scrub_bytes_per_second;
        if bytes == 0 || !self.keeper.is_whole() || now.since(self.scrubbed_at) < SCRUB_INTERVAL {
            return Ok(());
        }
        self.scrubbed_at = now;
        self.keeper.scrub_step(bytes).await
    }

    /// Lets go of what nobody has asked for in a long time, and with it of old tables; and of a
    /// snapshot of which nothing has come in a long time.
    async fn let_go(&mut self) {
        let now = self.env.now();
        if self.saved_at.is_some_and(|at| now.since(at) >= SAVE_KEPT) {
            crate::probe!("replica.save_is_given_up");
            self.saved_at = None;
            self.saves.forget();
        }
        if self.sent_at.is_some_and(|at| now.since(at) >= TRANSFER_KEPT) {
            self.sent_at = None;
            self.transfers.forget();
        }
        if self.received_at.is_some_and(|at| now.since(at) >= RECEIVED_KEPT) {
            self.received_at = None;
            if let Some(receiver) = self.receiver.take() {
                crate::probe!("replica.received_pieces_are_given_up");
                receiver.discard().await;
            }
        }
    }

    async fn carry_out(&mut self, job: StateJob) -> Result<(), StorageError> {
        match job {
            StateJob::Flush(frozen) => {
                self.unflushed.push_back(frozen);
                self.flush().await
            }
            StateJob::Read(read) => self.read(&read).await,
            StateJob::Save(save) => self.save(save).await,
            StateJob::Write(write) => self.receive(write).await,
            StateJob::Install(meta) => self.install(meta).await,
            StateJob::Renew(meta) => {
                self.transfers.renew(point(meta));
                Ok(())
            }
            StateJob::Condemn(error) => Err(error),
            StateJob::Stop => Ok(()),
        }
    }

    /// Does what can wait, a step of it, or waits itself.
    async fn be_idle(&mut self) -> Result<(), StorageError> {
        self.let_go().await;
        // Another state may have been installed, in which nothing waits for a compaction.
        self.report_disk_full();
        if let Some(at) = self.retry_at {
            self.wait(at.since(self.env.now())).await;
            return Ok(());
        }
        if self.keeper.needs_compaction() {
            for _ in 0..self.keeper.steps_due() {
                self.compact().await?;
                if self.compaction_waits || !self.keeper.needs_compaction() {
                    break;
                }
            }
            let_others_run().await;
            return Ok(());
        }
        self.wait(SCRUB_INTERVAL).await;
        Ok(())
    }

    /// Waits for a job, but no longer than so long.
    async fn wait(&self, longest: Duration) {
        env::timeout(&self.env, longest, self.queue.wait()).await;
    }

    fn report(&self, event: StateEvent) {
        self.inbox.push(Event::State(event));
    }

    /// Hands a version to the loop.
    fn publish(&self, version: Arc<Version<E::Disk>>, event: StateEvent) {
        self.queue.lock().versions.push_back(version);
        self.report(event);
    }

    /// Tells the loop if that is news: writes are refused while nothing can be flushed, or while
    /// they would wait for a compaction that cannot be made.
    fn report_disk_full(&mut self) {
        let full = self.retry_at.is_some() || self.compaction_waits && self.keeper.is_stalled();
        if self.disk_full != full {
            self.disk_full = full;
            self.report(StateEvent::DiskFull(full));
        }
    }

    /// Writes what waits to be written, as far as there is space.
    async fn flush(&mut self) -> Result<(), StorageError> {
        while let Some(frozen) = self.unflushed.front() {
            match self.keeper.flush(frozen).await {
                Ok(version) => {
                    self.unflushed.pop_front();
                    self.publish(version, StateEvent::Version);
                }
                Err(error) if error.is_no_space() => {
                    crate::probe!("replica.flush_waits_for_space");
                    // Not at each try: a follower would never get a whole state from a leader
                    // whose disk stays full.
                    if self.retry_at.is_none() {
                        self.make_room();
                    }
                    self.retry_at = Some(self.env.now() + FULL_DISK_RETRY);
                    self.report_disk_full();
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.retry_at = None;
        self.report_disk_full();
        Ok(())
    }

    /// Gives the space back of states that were saved or sent: each takes as much as the tables.
    /// Whoever still reads one is given another from its beginning.
    fn make_room(&mut self) {
        self.saves.forget();
        self.transfers.forget();
    }

    async fn compact(&mut self) -> Result<(), StorageError> {
        match self.keeper.compact_step().await {
            Ok(Some(version)) => {
                self.publish(version, StateEvent::Version);
                self.compaction_waits = false;
                self.report_disk_full();
            }
            Ok(None) => {}
            Err(error) if error.is_no_space() => {
                crate::probe!("replica.compaction_has_no_space");
                self.compaction_waits = true;
                self.report_disk_full();
                self.wait(FULL_DISK_RETRY).await;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Makes sure that the next start does not take a damaged state for a good one.
    async fn condemn(&mut self, error: &StorageError) -> Result<(), StorageError> {
        if self.options.has_peers && matches!(error, StorageError::Corrupt { .. }) {
            crate::probe!("replica.state_is_condemned");
            self.keeper.condemn(error).await?;
        }
        Ok(())
    }

    async fn read(&mut self, read: &SnapshotRead) -> Result<(), StorageError> {
        self.sent_at = Some(self.env.now());
        let current = Arc::clone(self.keeper.version());
        let wanted = read.meta.map(point);
        let piece =
            self.transfers.read_chunk(&current, wanted, read.offset, read.bytes_max).await?;
        // Without an answer it is asked for again: there may be space then, or as much of the state
        // as the follower has.
        let Some(piece) = piece else { return Ok(()) };
        // A piece is never longer than was asked for, which is below the limit of a payload.
        let Ok(data) = Payload::new(piece.bytes) else { return Ok(()) };
        let (offset, done) = (piece.offset, piece.done);
        let meta = meta(piece.point);
        self.report(StateEvent::Data { to: read.to, meta, offset, data, done });
        Ok(())
    }

    async fn save(&mut self, save: SaveRead) -> Result<(), StorageError> {
        let SaveRead { token, wanted, at_least, offset, bytes_max } = save;
        self.saved_at = Some(self.env.now());
        let current = Arc::clone(self.keeper.version());
        let saved = match wanted {
            Some(wanted) => {
                let piece = self.saves.read_on(wanted, offset, bytes_max).await?;
                piece.map_or(Saved::Gone, Saved::Piece)
            }
            // What is to be in it waits for space.
            None if current.applied < at_least => Saved::DiskFull,
            None => {
                let piece = self.saves.read_chunk(&current, None, 0, bytes_max).await?;
                piece.map_or(Saved::DiskFull, Saved::Piece)
            }
        };
        self.report(StateEvent::Saved { token, saved });
        Ok(())
    }

    async fn receive(&mut self, write: SnapshotWrite) -> Result<(), StorageError> {
        self.received_at = Some(self.env.now());
        let other = self.receiver.as_ref().is_some_and(|old| old.point() != point(write.meta));
        if (write.offset == 0 || other)
            && let Some(old) = self.receiver.take()
        {
            old.discard().await;
        }
        if self.receiver.is_none() {
            self.receiver = Some(self.transfers.receiver(point(write.meta)));
        }
        let Some(receiver) = &mut self.receiver else { return Ok(()) };
        match receiver.append(write.offset, write.data.as_bytes()).await {
            Ok(offset) if !write.done => {
                self.report(StateEvent::Stored { meta: write.meta, offset });
                Ok(())
            }
            Ok(_) => self.verify(write.meta).await,
            Err(error) => self.give_up_received(write.meta, error).await,
        }
    }

    async fn verify(&mut self, meta: SnapshotMeta) -> Result<(), StorageError> {
        let Some(receiver) = self.receiver.take() else { return Ok(()) };
        match receiver.verify().await {
            Ok(verified) => {
                if let Some(old) = self.verified.replace(verified) {
                    old.discard().await;
                }
                self.report(StateEvent::Verified(meta));
                Ok(())
            }
            Err(error) => self.give_up_received(meta, error).await,
        }
    }

    async fn give_up_received(
        &mut self,
        meta: SnapshotMeta,
        error: ReceiveError,
    ) -> Result<(), StorageError> {
        if let ReceiveError::Storage(error) = &error
            && !error.is_no_space()
        {
            return Err(error.clone());
        }
        tracing::warn!(index = meta.index, %error, "a snapshot is given up");
        if let Some(receiver) = self.receiver.take() {
            receiver.discard().await;
        }
        self.report(StateEvent::Failed(meta));
        Ok(())
    }

    async fn install(&mut self, meta: SnapshotMeta) -> Result<(), StorageError> {
        let Some(mut verified) = self.verified.take() else { return Ok(()) };
        assert!(verified.point() == point(meta), "{:?} instead of {meta:?}", verified.point());
        let replaced = if self.keeper.version().applied >= verified.point() {
            // Memtables were flushed in the meantime that go as far.
            crate::probe!("replica.snapshot_is_not_newer_than_tables");
            Ok(Arc::clone(self.keeper.version()))
        } else {
            self.replace(&mut verified).await
        };
        verified.discard().await;
        match replaced {
            Ok(version) => {
                self.publish(version, StateEvent::Installed(meta));
                Ok(())
            }
            Err(error) => self.give_up_received(meta, error).await,
        }
    }

    /// Makes tables of a snapshot, in place of those that there are.
    async fn replace(
        &mut self,
        verified: &mut VerifiedSnapshot<E::Disk>,
    ) -> Result<Arc<Version<E::Disk>>, ReceiveError> {
        let (point, extra) = (verified.point(), verified.extra().clone());
        self.keeper.begin_replacement().await?;
        let mut contents = verified.contents().await?;
        loop {
            match contents.next_block() {
                Ok(true) => self.keeper.push_replacement(contents.cells()).await?,
                Ok(false) => break,
                Err(error @ StorageError::Corrupt { .. }) => {
                    // It was whole a moment ago. What is damaged is not the own state.
                    crate::probe!("replica.verified_snapshot_is_damaged");
                    self.keeper.abort_replacement().await;
                    return Err(ReceiveError::Damaged(error.to_string()));
                }
                Err(error) => return Err(error.into()),
            }
            let_others_run().await;
        }
        Ok(self.keeper.finish_replacement(point, extra).await?)
    }
}

/// The same position in the words of the storage floor.
pub(super) fn point(meta: SnapshotMeta) -> SnapshotPoint {
    SnapshotPoint { index: meta.index, term: meta.term }
}

/// The same position in the words of the protocol.
pub(super) fn meta(point: SnapshotPoint) -> SnapshotMeta {
    SnapshotMeta { index: point.index, term: point.term }
}

#[cfg(test)]
mod tests {
    use super::super::inbox::Arrivals;
    use super::super::tests::TestEnv;
    use super::*;
    use crate::storage::snapshot::DIRECTORY;
    use crate::storage::test_disk::{Faults, TestDisk, run};
    use crate::storage::tree::{self, TreeOptions};
    use crate::storage::{Change, Engine, Tree};

    /// A state task that does one thing at a time, and what the loop has of the tables.
    struct Scene {
        env: TestEnv,
        tree: Tree<TestDisk>,
        task: StateTask<TestEnv>,
    }

    impl Scene {
        fn new() -> Self {
            let env = TestEnv::default();
            let opened = run(tree::open(env.disk.clone(), "tables", TreeOptions::default()));
            let (tree, keeper, _) = opened.unwrap();
            let transfers = run(Transfers::open(env.disk.clone())).unwrap();
            let (queue, inbox) = (Arc::new(StateQueue::default()), Inbox::new(10));
            let options = StateOptions { has_peers: true, scrub_bytes_per_second: 0 };
            let task = StateTask::new(env.clone(), keeper, transfers, queue, inbox, options);
            Self { env, tree, task }
        }

        /// Writes a cell with the entry `index`, and returns the job to flush it.
        fn flush(&mut self, index: u64) -> StateJob {
            let change = Change::Set { place: b"place", value: b"value" };
            self.tree.write(SnapshotPoint { index, term: 1 }, &[change]);
            StateJob::Flush(self.tree.freeze(Vec::new()))
        }

        /// Has one job carried out; returns what is reported.
        fn carry_out(&mut self, job: StateJob) -> Vec<StateEvent> {
            self.task.queue.push(job);
            self.task.queue.push(StateJob::Stop);
            assert_eq!(run(self.task.work()), Ok(()));
            let mut arrivals = Arrivals::default();
            self.task.inbox.take(&mut arrivals);
            let events = arrivals.events.into_iter().map(|event| match event {
                Event::State(event) => event,
                Event::Persist(_) | Event::PeerLost(_) | Event::Shutdown => {
                    unreachable!("the state task reports nothing else")
                }
            });
            events.collect()
        }

        fn be_idle(&mut self) {
            assert_eq!(run(self.task.be_idle()), Ok(()));
        }

        fn fill_disk(&self, no_space: bool) {
            self.env.disk.set_faults(Faults { no_space, ..Faults::default() });
        }

        fn transfer_files(&self) -> Vec<String> {
            self.env.disk.names(DIRECTORY)
        }
    }

    fn read_first() -> StateJob {
        StateJob::Read(SnapshotRead { to: NodeId(2), meta: None, offset: 0, bytes_max: 100 })
    }

    fn save(wanted: Option<SnapshotPoint>, offset: u64) -> StateJob {
        let at_least = SnapshotPoint::default();
        StateJob::Save(SaveRead { token: 1, wanted, at_least, offset, bytes_max: 1 })
    }

    fn is_piece(events: &[StateEvent]) -> bool {
        matches!(events, [StateEvent::Saved { saved: Saved::Piece(_), .. }])
    }

    fn is_gone(events: &[StateEvent]) -> bool {
        matches!(events, [StateEvent::Saved { saved: Saved::Gone, .. }])
    }

    fn write(offset: u64, bytes: &[u8]) -> StateJob {
        let meta = SnapshotMeta { index: 9, term: 1 };
        let data = Payload::new(bytes.to_vec()).unwrap();
        StateJob::Write(SnapshotWrite { meta, offset, data, done: false })
    }

    fn is_stored(events: &[StateEvent], bytes: u64) -> bool {
        matches!(events, [StateEvent::Stored { offset, .. }] if *offset == bytes)
    }

    #[test]
    fn flush_is_tried_again_in_time_however_many_pieces_are_read() {
        let mut scene = Scene::new();
        scene.fill_disk(true);
        let flush = scene.flush(1);
        assert!(matches!(scene.carry_out(flush)[..], [StateEvent::DiskFull(true)]));
        scene.fill_disk(false);
        for _ in 1..10 {
            scene.env.pass(FULL_DISK_RETRY / 10);
            assert!(matches!(scene.carry_out(read_first())[..], [StateEvent::Data { .. }]));
        }
        scene.env.pass(FULL_DISK_RETRY / 10);
        let events = scene.carry_out(read_first());
        assert!(matches!(
            events[..],
            [StateEvent::Data { .. }, StateEvent::Version, StateEvent::DiskFull(false)]
        ));
    }

    #[test]
    fn idle_task_waits_until_the_flush_is_tried_again() {
        let mut scene = Scene::new();
        scene.fill_disk(true);
        let flush = scene.flush(1);
        scene.carry_out(flush);
        scene.env.pass(FULL_DISK_RETRY / 2);
        scene.be_idle();
        assert_eq!(scene.env.now(), Instant::default() + FULL_DISK_RETRY);
    }

    #[test]
    fn full_disk_gets_the_space_of_saved_states_back() {
        let mut scene = Scene::new();
        let flush = scene.flush(1);
        assert!(matches!(scene.carry_out(flush)[..], [StateEvent::Version]));
        let at = Some(SnapshotPoint { index: 1, term: 1 });
        assert!(is_piece(&scene.carry_out(save(None, 0))));
        assert!(is_piece(&scene.carry_out(save(at, 1))));
        scene.fill_disk(true);
        let flush = scene.flush(2);
        assert!(matches!(scene.carry_out(flush)[..], [StateEvent::DiskFull(true)]));
        assert!(is_gone(&scene.carry_out(save(at, 2))));
        scene.fill_disk(false);
        assert!(is_piece(&scene.carry_out(save(None, 0))));
        assert!(is_piece(&scene.carry_out(save(at, 1))), "another one is kept");
    }

    #[test]
    fn save_far_behind_what_was_read_is_refused() {
        let mut scene = Scene::new();
        let flush = scene.flush(1);
        scene.carry_out(flush);
        let at = Some(SnapshotPoint { index: 1, term: 1 });
        assert!(is_piece(&scene.carry_out(save(None, 0))));
        assert!(is_gone(&scene.carry_out(save(at, 1 << 63))));
        assert!(is_piece(&scene.carry_out(save(at, 1))), "others are not disturbed");
    }

    #[test]
    fn snapshot_whose_rest_does_not_come_is_let_go() {
        let mut scene = Scene::new();
        assert!(is_stored(&scene.carry_out(write(0, b"half")), 4));
        scene.env.pass(RECEIVED_KEPT / 2);
        assert!(is_stored(&scene.carry_out(write(4, b"more")), 8));
        scene.env.pass(RECEIVED_KEPT / 2);
        scene.be_idle();
        assert_eq!(scene.transfer_files().len(), 1, "half the time is left");
        scene.env.pass(RECEIVED_KEPT / 2);
        scene.be_idle();
        assert!(scene.transfer_files().is_empty());
        // A piece that comes late has the leader told, and it begins anew.
        assert!(matches!(scene.carry_out(write(8, b"rest"))[..], [StateEvent::Failed(_)]));
        assert!(scene.transfer_files().is_empty());
        assert!(is_stored(&scene.carry_out(write(0, b"half")), 4));
    }
}
