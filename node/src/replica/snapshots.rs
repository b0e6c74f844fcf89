//! The snapshot task: writes checkpoints, hands out their pieces, receives those of the leader.
//!
//! A checkpoint of the own state comes from the loop in pieces, one for each that has been
//! written, so that the loop never encodes more than a piece at a time and memory stays bounded.
//!
//! A snapshot from the leader is received into a file without a name. When it is complete and
//! verified, the loop has the log record that it is about to be installed; only then does it get
//! its name ([`crate::replica::recovery`] says why). Whatever happens in between leaves the old
//! state intact.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use futures_util::task::AtomicWaker;

use super::inbox::{Event, Inbox};
use crate::base::{NodeId, Payload};
use crate::env::Disk;
use crate::raft::{SnapshotMeta, SnapshotRead, SnapshotWrite};
use crate::storage::checkpoint::{
    CheckpointWriter, Checkpoints, ReceiveError, SnapshotReceiver, VerifiedSnapshot,
};
use crate::storage::{SnapshotPoint, StorageError, Store};

/// What the snapshot task is asked to do, in order.
pub(super) enum SnapshotJob {
    /// Begin a checkpoint of the own state.
    Begin(SnapshotMeta),
    /// Its next bytes; with the last ones comes what state they stand for: make it durable.
    Chunk { bytes: Vec<u8>, complete: Option<SnapshotPoint> },
    /// Give it up.
    Abort,
    /// Read a piece for a follower.
    Read(SnapshotRead),
    /// Store a piece from the leader.
    Write(SnapshotWrite),
    /// Install the verified snapshot.
    Install(SnapshotMeta),
    /// End.
    Stop,
}

/// What the snapshot task reports.
pub(super) enum SnapshotEvent {
    /// The next piece of the own checkpoint can be taken.
    WantChunk,
    /// The own checkpoint is durable.
    Taken { meta: SnapshotMeta, bytes: u64 },
    /// The own checkpoint was given up (the disk is full); a later one may work.
    NotTaken,
    /// A piece for a follower.
    Data { to: NodeId, meta: SnapshotMeta, offset: u64, data: Payload, done: bool },
    /// A piece from the leader is stored.
    Stored { meta: SnapshotMeta, offset: u64 },
    /// All pieces are there and undamaged.
    Verified(SnapshotMeta),
    /// The snapshot is durable and loaded.
    Installed { meta: SnapshotMeta, bytes: u64, store: Box<Store>, extra: Vec<u8> },
    /// The snapshot could not be used and is thrown away.
    Failed(SnapshotMeta),
    /// The disk failed; the node must stop.
    Fatal(StorageError),
}

/// The queue of the snapshot task. What is queued is bounded by what the core has in flight.
#[derive(Default)]
pub(super) struct SnapshotQueue {
    jobs: Mutex<Vec<SnapshotJob>>,
    waker: AtomicWaker,
}

impl SnapshotQueue {
    pub(super) fn push(&self, job: SnapshotJob) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).push(job);
        self.waker.wake();
    }

    async fn take(&self) -> Vec<SnapshotJob> {
        std::future::poll_fn(|context| {
            self.waker.register(context.waker());
            let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
            if jobs.is_empty() { Poll::Pending } else { Poll::Ready(std::mem::take(&mut *jobs)) }
        })
        .await
    }
}

/// See the [module](self).
pub(super) struct SnapshotTask<D: Disk> {
    checkpoints: Checkpoints<D>,
    queue: Arc<SnapshotQueue>,
    inbox: Arc<Inbox>,
    own: Option<(SnapshotMeta, CheckpointWriter<D>)>,
    receiver: Option<SnapshotReceiver<D>>,
    verified: Option<VerifiedSnapshot<D>>,
}

impl<D: Disk> SnapshotTask<D> {
    pub(super) fn new(
        checkpoints: Checkpoints<D>,
        queue: Arc<SnapshotQueue>,
        inbox: Arc<Inbox>,
    ) -> Self {
        Self { checkpoints, queue, inbox, own: None, receiver: None, verified: None }
    }

    /// Runs until it is told to stop or the disk fails.
    pub(super) async fn run(mut self) {
        loop {
            for job in self.queue.take().await {
                match self.carry_out(job).await {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => return self.report(SnapshotEvent::Fatal(error)),
                }
            }
        }
    }

    async fn carry_out(&mut self, job: SnapshotJob) -> Result<bool, StorageError> {
        match job {
            SnapshotJob::Begin(meta) => {
                self.own = Some((meta, self.checkpoints.writer()));
                self.report(SnapshotEvent::WantChunk);
            }
            SnapshotJob::Chunk { bytes, complete } => self.append_own(&bytes, complete).await?,
            SnapshotJob::Abort => {
                if let Some((_, writer)) = self.own.take() {
                    writer.discard().await;
                }
            }
            SnapshotJob::Read(read) => self.read(&read)?,
            SnapshotJob::Write(write) => self.receive(write).await?,
            SnapshotJob::Install(meta) => self.install(meta).await?,
            SnapshotJob::Stop => return Ok(false),
        }
        Ok(true)
    }

    fn report(&self, event: SnapshotEvent) {
        self.inbox.push(Event::Snapshot(event));
    }

    async fn append_own(
        &mut self,
        bytes: &[u8],
        complete: Option<SnapshotPoint>,
    ) -> Result<(), StorageError> {
        let Some((_, writer)) = &mut self.own else { return Ok(()) };
        match (writer.append(bytes).await, complete) {
            (Ok(()), Some(point)) => self.finish_own(point).await,
            (Ok(()), None) => {
                self.report(SnapshotEvent::WantChunk);
                Ok(())
            }
            (Err(error), _) => {
                if let Some((_, writer)) = self.own.take() {
                    writer.discard().await;
                }
                self.give_up_own(error)
            }
        }
    }

    async fn finish_own(&mut self, point: SnapshotPoint) -> Result<(), StorageError> {
        let Some((meta, writer)) = self.own.take() else { return Ok(()) };
        assert!(self::meta(point) == meta, "{point:?} is complete, {meta:?} was begun");
        match writer.finish(point).await {
            Ok(checkpoint) => {
                let bytes = checkpoint.bytes;
                self.checkpoints.adopt(checkpoint);
                self.report(SnapshotEvent::Taken { meta, bytes });
                Ok(())
            }
            Err(error) => self.give_up_own(error),
        }
    }

    fn give_up_own(&self, error: StorageError) -> Result<(), StorageError> {
        if !error.is_no_space() {
            return Err(error);
        }
        self.report(SnapshotEvent::NotTaken);
        Ok(())
    }

    fn read(&mut self, read: &SnapshotRead) -> Result<(), StorageError> {
        let wanted = read.meta.map(point);
        let piece = self.checkpoints.read_chunk(wanted, read.offset, read.bytes_max)?;
        let Some(piece) = piece else { return Ok(()) };
        // A piece is never longer than was asked for, which is below the limit of a payload.
        let Ok(data) = Payload::new(piece.bytes) else { return Ok(()) };
        let (offset, done) = (piece.offset, piece.done);
        let meta = meta(piece.point);
        self.report(SnapshotEvent::Data { to: read.to, meta, offset, data, done });
        Ok(())
    }

    async fn receive(&mut self, write: SnapshotWrite) -> Result<(), StorageError> {
        let other = self.receiver.as_ref().is_some_and(|old| old.point() != point(write.meta));
        if (write.offset == 0 || other)
            && let Some(old) = self.receiver.take()
        {
            old.discard().await;
        }
        if self.receiver.is_none() {
            self.receiver = Some(self.checkpoints.receiver(point(write.meta)));
        }
        let Some(receiver) = &mut self.receiver else { return Ok(()) };
        match receiver.append(write.offset, write.data.as_bytes()).await {
            Ok(offset) if !write.done => {
                self.report(SnapshotEvent::Stored { meta: write.meta, offset });
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
                self.report(SnapshotEvent::Verified(meta));
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
        self.report(SnapshotEvent::Failed(meta));
        Ok(())
    }

    async fn install(&mut self, meta: SnapshotMeta) -> Result<(), StorageError> {
        let Some(verified) = self.verified.take() else { return Ok(()) };
        assert!(verified.point() == point(meta), "{:?} instead of {meta:?}", verified.point());
        match verified.install().await {
            Ok(received) => {
                let bytes = received.checkpoint.bytes;
                self.checkpoints.adopt(received.checkpoint);
                let (store, extra) = (Box::new(received.store), received.extra);
                self.report(SnapshotEvent::Installed { meta, bytes, store, extra });
                Ok(())
            }
            Err(error) => self.give_up_received(meta, ReceiveError::Storage(error)).await,
        }
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
