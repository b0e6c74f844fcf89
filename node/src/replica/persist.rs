//! The log task: makes the core's state durable, many requests with one write and one fsync.
//!
//! The loop queues jobs and goes on. This task takes all that have gathered, appends them to the
//! write-ahead log, writes, syncs, and reports the last of them; meanwhile the next batch gathers.
//! That is the whole of group commit: under load, the slower the disk the larger the batches.
//!
//! A follower's records come from its leader, all at once. A node of the masterless mode has them
//! from all others and from itself, at any time, and a batch that begins with the first of them
//! has few. So there it also waits while each turn of the loop brings more (`TURNS_MAX`), and
//! syncs in place, because what it would do meanwhile is then done before. Measured with 64
//! connections: a quarter more writes, with a quarter less processor time for each; waiting alone
//! gave a fifth, syncs in place alone nothing (`docs/performance.md`).
//!
//! What a leader's batch writes is written and synced aside, with one way to another thread and
//! back. So is each step towards the next segment of the log (`LogTask::clean_up`), by a task of
//! its own, which no batch waits for unless the active segment ends before it is done.
//!
//! A full disk is the one failure that passes by itself: the batch stays in the writer and is
//! tried again, while the loop refuses new writes, and segments that nobody needs go meanwhile.
//! Every other failure ends the node: after a failed fsync nobody knows what the disk holds
//! [Fsync '20], so it is never tried again.
//!
//! # Layout
//! ```text
//! kind 1  hard state   tag 0              bincode(HardState), written twice
//! kind 2  log entry    tag = its index    bincode(Entry)
//! kind 3  install      tag 0              bincode(SnapshotMeta): that state was received from a
//!                                         leader and replaces all entries before
//! kind 4  recovered    tag 0              bincode(SnapshotMeta): the last entry that a recovery
//!                                         from damage kept; what follows goes on behind it
//! kind 7  standing     tag 0              bincode((Standing, HardState)), written twice: a hard
//!                                         state of a replica that is not, or only now is, whole
//! ```
//! and of the masterless mode
//! ```text
//! kind 5  records      tag = persist id   bincode(Vec<dynamo::Record>)
//! kind 6  damaged      tag = a persist id nothing: a start found that something is lost, and wrote
//!                                         so with the persist request of that number
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::sync::oneshot;

use super::config::SyncPolicy;
use super::inbox::{Event, Inbox};
use crate::base::Index;
use crate::codec;
use crate::dynamo;
use crate::env::{self, Env};
use crate::planted;
use crate::raft::{HardState, Persist, PersistId, SnapshotMeta, Standing};
use crate::storage::wal::{Filled, Record, Writer};
use crate::storage::{StorageError, let_others_run};

/// Record kind of a hard state.
pub const KIND_HARD_STATE: u8 = 1;
/// Record kind of a log entry.
pub const KIND_ENTRY: u8 = 2;
/// Record kind of a snapshot's installation.
pub const KIND_INSTALL: u8 = 3;
/// Record kind of a recovery from damage.
pub const KIND_RECOVERED: u8 = 4;
/// Record kind of a persist request of the masterless mode.
pub const KIND_RECORDS: u8 = 5;
/// Record kind of what a start of the masterless mode found lost.
pub const KIND_DAMAGED: u8 = 6;
/// Record kind of a hard state with a standing.
pub const KIND_STANDING: u8 = 7;

/// Pause between two tries to write to a full disk.
const FULL_DISK_RETRY: Duration = Duration::from_millis(100);

/// Idle time after which the log is told what is durable. A mark costs a write and a sector, so
/// under load, when the next batch says the same, there is none. Too small: many marks. Too
/// large: the last batch before a crash is longer without a witness. A stop does not wait for it.
const MARK_DELAY: Duration = Duration::from_millis(10);

/// Entries of a batch from which on its sync is made aside if the loop serves clients. The way to
/// another thread and back costs a quarter of a quick sync; a batch of some requests has others on
/// their way, which are read meanwhile. Too small: a lone client waits for that way. Too large: the
/// loop stands still while there is work.
const ASIDE_ENTRIES_MIN: usize = 4;

/// Most turns of the loop that a batch waits for more records. Too small: small batches. Too
/// large: a trickle of records delays the first of them.
const TURNS_MAX: usize = 10;

/// What the log task is asked to do, in order.
pub(super) enum LogJob {
    /// Make it durable and report it.
    Persist(Persist),
    /// The same of the masterless mode.
    Records(dynamo::Persist),
    /// Record that a received snapshot is about to replace the log, and report it.
    Install(SnapshotMeta),
    /// Remove the segments that hold nothing after this entry.
    RemoveThrough(Index),
    /// A step towards the next segment has been taken, or has failed: look after it.
    Filled,
    /// Write everything out, with a witness of it, and end.
    Stop,
}

/// What the log task reports.
pub(super) enum PersistEvent {
    /// Every persist request up to this one is durable.
    Persisted(PersistId),
    /// The installation is recorded durably.
    InstallLogged(SnapshotMeta),
    /// The disk has become full, or has space again.
    DiskFull(bool),
    /// The log has this many bytes on disk.
    Size(u64),
    /// The log is lost; the node must stop.
    Failed(StorageError),
    /// All jobs before `Stop` are done.
    Stopped,
}

/// The queue of the log task.
#[derive(Default)]
pub(super) struct LogQueue {
    jobs: Mutex<Vec<LogJob>>,
    waker: AtomicWaker,
    serves: AtomicBool,
    gathers: AtomicBool,
}

impl LogQueue {
    /// Says whether the loop has requests to read and to answer while the log syncs, as a leader
    /// has.
    pub(super) fn set_serves(&self, serves: bool) {
        self.serves.store(serves, Ordering::Relaxed);
    }

    /// Says that several nodes send records, none of which knows when the others do.
    pub(super) fn set_gathers(&self) {
        self.gathers.store(true, Ordering::Relaxed);
    }

    pub(super) fn push(&self, job: LogJob) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).push(job);
        self.waker.wake();
    }

    fn len(&self) -> usize {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn take(&self, into: &mut Vec<LogJob>) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut *jobs, into);
    }

    /// Returns the last persist request that is still queued.
    fn last_queued(&self) -> Option<PersistId> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.iter().rev().find_map(|job| match job {
            LogJob::Persist(persist) => Some(persist.id),
            LogJob::Records(persist) => Some(persist.id),
            LogJob::Install(_) | LogJob::RemoveThrough(_) | LogJob::Filled | LogJob::Stop => None,
        })
    }

    /// Returns the last entry that the log need not keep, as far as jobs that are still queued say.
    fn removable(&self) -> Index {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let removable = |job: &LogJob| match job {
            LogJob::RemoveThrough(index) => Some(*index),
            LogJob::Persist(_)
            | LogJob::Records(_)
            | LogJob::Install(_)
            | LogJob::Filled
            | LogJob::Stop => None,
        };
        jobs.iter().filter_map(removable).max().unwrap_or_default()
    }

    /// Tells whether the task is asked to stop by a job that is still queued.
    fn has_stop(&self) -> bool {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.iter().any(|job| matches!(job, LogJob::Stop))
    }

    async fn wait(&self) {
        std::future::poll_fn(|context| {
            self.waker.register(context.waker());
            let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
            if jobs.is_empty() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }
}

/// See the [module](self).
pub(super) struct LogTask<E: Env> {
    env: E,
    writer: Writer<E::Disk>,
    queue: Arc<LogQueue>,
    inbox: Arc<Inbox>,
    sync_policy: SyncPolicy,
    disk_full: bool,
    bytes_reported: u64,
    /// Nothing up to this entry, or request, is needed of the log.
    removable: Index,
    /// A step towards the next segment that is taken meanwhile.
    filling: Option<oneshot::Receiver<Filled<E::Disk>>>,
}

/// How a batch comes to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Written while the loop waits; to be synced.
    InPlace,
    /// Written and synced while the loop goes on.
    AsideWithSync,
}

/// What one batch of jobs amounts to once it is durable.
#[derive(Default)]
struct Batch {
    /// Log entries, or records.
    entries: usize,
    /// Whether there is a vote or a new term among them.
    votes: bool,
    persisted: Option<PersistId>,
    installed: Option<SnapshotMeta>,
    /// Whether segments may have become superfluous.
    removes: bool,
    stop: bool,
}

impl Batch {
    fn add(&mut self, id: PersistId) {
        assert!(self.persisted < Some(id), "persist {id} after {:?}", self.persisted);
        self.persisted = Some(id);
    }
}

impl<E: Env> LogTask<E> {
    pub(super) fn new(
        env: E,
        writer: Writer<E::Disk>,
        queue: Arc<LogQueue>,
        inbox: Arc<Inbox>,
        (sync_policy, removable): (SyncPolicy, Index),
    ) -> Self {
        Self {
            env,
            writer,
            queue,
            inbox,
            sync_policy,
            disk_full: false,
            bytes_reported: 0,
            removable,
            filling: None,
        }
    }

    /// Runs until it is told to stop or the log fails.
    pub(super) async fn run(mut self) {
        let result = match self.sync_policy {
            SyncPolicy::Always => self.run_always().await,
            SyncPolicy::Interval(interval) => self.run_interval(interval).await,
        };
        // Nobody works on the files any more when the end is reported.
        let filled = self.wait_for_fill().await;
        let result = result.and(filled);
        let event = match result {
            Ok(()) => PersistEvent::Stopped,
            Err(error) => PersistEvent::Failed(error),
        };
        self.inbox.push(Event::Persist(event));
    }

    /// Syncs before every report.
    async fn run_always(&mut self) -> Result<(), StorageError> {
        self.writer.expect_syncs();
        let mut jobs = Vec::new();
        loop {
            if env::timeout(&self.env, MARK_DELAY, self.queue.wait()).await.is_none() {
                self.mark().await?;
                self.queue.wait().await;
            }
            // The sync may be made in place, and what is ready for peers and clients had better
            // leave before: they work meanwhile.
            let_others_run().await;
            if self.queue.gathers.load(Ordering::Relaxed) {
                self.gather().await;
            }
            self.queue.take(&mut jobs);
            let batch = self.append(&mut jobs);
            let serves = self.queue.serves.load(Ordering::Relaxed);
            let is_aside = serves && batch.entries >= ASIDE_ENTRIES_MIN && !planted!("W1");
            let way = if is_aside { Way::AsideWithSync } else { Way::InPlace };
            if !self.write(way, &batch).await? {
                // What is not written has not been acknowledged.
                return self.writer.sync().await;
            }
            if planted!("W1") {
                self.report(&batch);
            }
            self.writer.sync().await?;
            self.report(&batch);
            self.clean_up(&batch).await?;
            if batch.stop {
                return self.writer.close().await;
            }
        }
    }

    /// Waits while each turn of the loop brings more to be written.
    async fn gather(&self) {
        let mut before = self.queue.len();
        for _ in 0..TURNS_MAX {
            let_others_run().await;
            let count = self.queue.len();
            if count == before {
                return;
            }
            crate::probe!("replica.log_gathers_records");
            before = count;
        }
    }

    /// Reports what is written and syncs every so often: the weaker promise.
    async fn run_interval(&mut self, interval: Duration) -> Result<(), StorageError> {
        let mut jobs = Vec::new();
        let mut unsynced_since = None;
        loop {
            if let Some(since) = unsynced_since {
                let waited = self.env.now().since(since);
                let rest = interval.saturating_sub(waited);
                if env::timeout(&self.env, rest, self.queue.wait()).await.is_none() {
                    self.writer.sync().await?;
                    self.mark().await?;
                    unsynced_since = None;
                    continue;
                }
            } else {
                self.queue.wait().await;
            }
            self.queue.take(&mut jobs);
            let batch = self.append(&mut jobs);
            if !self.write(Way::InPlace, &batch).await? {
                return self.writer.sync().await;
            }
            unsynced_since = unsynced_since.or(Some(self.env.now()));
            let overdue = unsynced_since.is_some_and(|since| self.env.now() - since >= interval);
            // Never left to the interval: an installation, which replaces the log, and a vote, or
            // one node's power loss could give it twice; and the first record of all, or tables
            // could outlive it, and the log would look as if it had been removed.
            let is_first = self.writer.durable() == 0;
            if overdue || batch.installed.is_some() || batch.votes || is_first || batch.stop {
                self.writer.sync().await?;
                unsynced_since = None;
            }
            self.report(&batch);
            self.clean_up(&batch).await?;
            if batch.stop {
                return self.writer.close().await;
            }
        }
    }

    /// Appends all jobs to the writer's buffer.
    fn append(&mut self, jobs: &mut Vec<LogJob>) -> Batch {
        let mut batch = Batch::default();
        for job in jobs.drain(..) {
            match job {
                LogJob::Persist(persist) => {
                    batch.add(persist.id);
                    batch.entries += persist.entries.len();
                    batch.votes |= persist.hard_state.is_some();
                    self.append_persist(&persist);
                }
                LogJob::Records(persist) => {
                    batch.add(persist.id);
                    batch.entries += persist.records.len();
                    self.writer.append(KIND_RECORDS, persist.id, |buffer| {
                        codec::encode_into(&persist.records, buffer);
                    });
                }
                LogJob::Install(meta) => {
                    batch.installed = Some(meta);
                    self.writer.append(KIND_INSTALL, 0, |buffer| codec::encode_into(&meta, buffer));
                }
                LogJob::RemoveThrough(index) => {
                    batch.removes = true;
                    self.removable = self.removable.max(index);
                }
                LogJob::Filled => {}
                LogJob::Stop => batch.stop = true,
            }
        }
        batch
    }

    fn append_persist(&mut self, persist: &Persist) {
        if let Some(hard_state) = &persist.hard_state {
            let record = vote_record(hard_state, persist.standing);
            self.writer.append_critical(record.kind, record.tag, |buffer| {
                buffer.extend_from_slice(&record.payload);
            });
            self.writer.set_preamble(vec![record]);
        }
        for entry in &persist.entries {
            self.writer.append(KIND_ENTRY, entry.index, |buffer| codec::encode_into(entry, buffer));
        }
    }

    /// Writes the buffer, which holds this batch, waiting for space as long as it takes; false if
    /// the node is to stop before there is any.
    async fn write(&mut self, way: Way, batch: &Batch) -> Result<bool, StorageError> {
        if self.writer.needs_next_segment() {
            self.wait_for_fill().await?;
        }
        loop {
            let written = match way {
                Way::InPlace => self.writer.write().await,
                Way::AsideWithSync => self.writer.write_and_sync_aside().await,
            };
            match written {
                Ok(()) => break,
                Err(error) if error.is_no_space() => {
                    crate::probe!("replica.log_waits_for_space");
                    self.set_disk_full(true);
                    // The queue waits, and so would what it has to say of that.
                    self.removable = self.removable.max(self.queue.removable());
                    self.remove_segments().await?;
                    if batch.stop || self.queue.has_stop() {
                        crate::probe!("replica.stops_with_a_full_disk");
                        return Ok(false);
                    }
                    self.env.sleep(FULL_DISK_RETRY).await;
                    if self.inbox.is_closed() {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        self.set_disk_full(false);
        Ok(true)
    }

    fn set_disk_full(&mut self, full: bool) {
        if self.disk_full != full {
            self.disk_full = full;
            self.inbox.push(Event::Persist(PersistEvent::DiskFull(full)));
        }
    }

    fn report(&mut self, batch: &Batch) {
        let mut persisted = batch.persisted;
        if planted!("W14") {
            persisted = self.queue.last_queued().or(persisted);
        }
        if let Some(through) = persisted {
            self.inbox.push(Event::Persist(PersistEvent::Persisted(through)));
        }
        if let Some(meta) = batch.installed {
            self.inbox.push(Event::Persist(PersistEvent::InstallLogged(meta)));
        }
        let bytes = self.writer.wal_bytes();
        if bytes != self.bytes_reported {
            self.bytes_reported = bytes;
            self.inbox.push(Event::Persist(PersistEvent::Size(bytes)));
        }
    }

    /// Does what nobody waits for.
    async fn clean_up(&mut self, batch: &Batch) -> Result<(), StorageError> {
        if batch.removes {
            self.remove_segments().await?;
        }
        // Without space there is no other step before the next batch.
        if self.take_fill_back()?
            && let Some(fill) = self.writer.take_fill()
        {
            // Beside the next batches, which must not wait for its sync.
            let (done, filling) = oneshot::channel();
            self.filling = Some(filling);
            let queue = Arc::clone(&self.queue);
            self.env.spawn("log filler", async move {
                // Nobody takes it back from a log that has failed.
                drop(done.send(fill.carry_out().await));
                // If the disk failed, the node stops now and not when it is next asked to write.
                queue.push(LogJob::Filled);
            });
        }
        Ok(())
    }

    /// Removes the segments that hold nothing of use.
    async fn remove_segments(&mut self) -> Result<(), StorageError> {
        match self.writer.remove_through(self.removable).await {
            // Some file systems want space even for that. There will be another time.
            Err(error) if error.is_no_space() => Ok(()),
            result => result,
        }
    }

    /// Takes the step towards the next segment back, if it has been taken; tells whether there was
    /// space for it.
    fn take_fill_back(&mut self) -> Result<bool, StorageError> {
        if let Some(filling) = &mut self.filling
            && let Ok(filled) = filling.try_recv()
        {
            self.filling = None;
            return self.writer.give_back(filled);
        }
        Ok(true)
    }

    /// Waits for the step towards the next segment, if one is being taken.
    async fn wait_for_fill(&mut self) -> Result<(), StorageError> {
        let Some(filling) = self.filling.take() else { return Ok(()) };
        match filling.await {
            Ok(filled) => self.writer.give_back(filled).map(drop),
            // The node is being torn down, with all of its tasks.
            Err(_) => std::future::pending().await,
        }
    }

    /// Tells the disk what is durable.
    async fn mark(&mut self) -> Result<(), StorageError> {
        match self.writer.mark().await {
            Ok(()) => Ok(()),
            // The mark is evidence, not data: the next write finds out about the full disk.
            Err(error) if error.is_no_space() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Returns the record that carries a hard state, with the standing if there is something to say.
pub(super) fn vote_record(hard_state: &HardState, standing: Option<Standing>) -> Record {
    let (kind, payload) = match standing {
        None => (KIND_HARD_STATE, codec::encode(hard_state)),
        Some(standing) => (KIND_STANDING, codec::encode(&(standing, *hard_state))),
    };
    Record { kind, tag: 0, payload }
}
