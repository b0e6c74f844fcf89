//! The log task on a full disk.

use std::pin::Pin;

use futures_util::FutureExt;

use super::super::config::SyncPolicy;
use super::super::inbox::{Arrivals, Event, Inbox};
use super::super::persist::{
    KIND_ENTRY, KIND_HARD_STATE, KIND_RECORDS, LogJob, LogQueue, LogTask, PersistEvent,
};
use super::super::start::WAL_DIR;
use super::*;
use crate::base::{Index, Payload};
use crate::dynamo::{self, Record};
use crate::raft::{Entry, EntryKind, HardState, Persist, PersistId};
use crate::storage::test_disk::{Faults, Survives};
use crate::storage::wal;

/// Turns after which a task waits for ever: many tries to write to a full disk.
const TURNS_MAX: usize = 1_000;

/// A segment holds a vote and four records.
const OPTIONS: wal::Options = wal::Options { segment_bytes: 10 << 10 };
const RECORD_BYTES: usize = 1_500;

/// A log task, and what it has reported.
struct Scene {
    env: TestEnv,
    queue: Arc<LogQueue>,
    inbox: Arc<Inbox>,
    task: Pin<Box<dyn Future<Output = ()>>>,
    persisted: PersistId,
    is_disk_full: bool,
    has_stopped: bool,
}

impl Scene {
    /// Starts the task of a primary-backup node on an empty disk.
    fn new(policy: SyncPolicy) -> Self {
        let env = TestEnv::default();
        let (writer, _) = run(wal::open(&env.disk, WAL_DIR, OPTIONS)).unwrap();
        Self::start(env, writer, (policy, 0))
    }

    /// Starts the task of a masterless node, which needs nothing up to `removable`.
    fn masterless(env: TestEnv, removable: Index) -> Self {
        let (mut writer, _) = run(wal::open(&env.disk, WAL_DIR, OPTIONS)).unwrap();
        writer.expect_no_critical();
        Self::start(env, writer, (SyncPolicy::Always, removable))
    }

    fn start(env: TestEnv, writer: wal::Writer<TestDisk>, needs: (SyncPolicy, Index)) -> Self {
        let (queue, inbox) = (Arc::new(LogQueue::default()), Inbox::new(10));
        let (jobs, to_loop) = (Arc::clone(&queue), Arc::clone(&inbox));
        let task = LogTask::new(env.clone(), writer, jobs, to_loop, needs);
        Self {
            env,
            queue,
            inbox,
            task: Box::pin(task.run()),
            persisted: 0,
            is_disk_full: false,
            has_stopped: false,
        }
    }

    /// Has sixteen requests carried out, which are several segments.
    fn fill_segments(&mut self, request: fn(Index) -> LogJob) {
        for id in 1..=16 {
            self.queue.push(request(id));
            assert!(self.goes_on_until(|scene| scene.persisted == id), "request {id}");
        }
        assert!(self.segment_count() >= 4, "{:?}", self.env.disk.names(WAL_DIR));
    }

    /// Lets the task go on until something is so; tells whether it ever is.
    fn goes_on_until(&mut self, is_so: impl Fn(&Self) -> bool) -> bool {
        for _ in 0..TURNS_MAX {
            if is_so(self) {
                return true;
            }
            if self.has_stopped {
                return false;
            }
            self.task.as_mut().now_or_never();
            self.take_note();
        }
        is_so(self)
    }

    fn take_note(&mut self) {
        let mut arrivals = Arrivals::default();
        self.inbox.take(&mut arrivals);
        for event in arrivals.events {
            match event {
                Event::Persist(PersistEvent::Persisted(through)) => self.persisted = through,
                Event::Persist(PersistEvent::DiskFull(is_full)) => self.is_disk_full = is_full,
                Event::Persist(PersistEvent::Stopped) => self.has_stopped = true,
                Event::Persist(PersistEvent::Size(_)) => {}
                Event::Persist(PersistEvent::Failed(error)) => panic!("{error}"),
                Event::Persist(PersistEvent::InstallLogged(_))
                | Event::State(_)
                | Event::PeerLost(_)
                | Event::Shutdown => unreachable!("nobody asked for it"),
            }
        }
    }

    /// Leaves no more space on the disk than the files have now.
    fn fill_disk(&self) {
        self.env.disk.set_space(Some(self.env.disk.used_bytes()));
    }

    fn segment_count(&self) -> usize {
        let names = self.env.disk.names(WAL_DIR);
        names.iter().filter(|name| *name != "spare.tmp").count()
    }

    /// Has the task stop, and returns the requests that a start finds after that.
    fn stop(mut self) -> Vec<Index> {
        self.env.disk.set_space(None);
        self.queue.push(LogJob::Stop);
        assert!(self.goes_on_until(|scene| scene.has_stopped), "it does not stop");
        kept(&self.env.disk)
    }
}

/// A request to make the entry of that index durable, and with the first one a vote.
fn entry(index: Index) -> LogJob {
    let command = Payload::new(vec![7; RECORD_BYTES]).unwrap_or_default();
    let entry = Entry { term: 1, index, kind: EntryKind::Command(command) };
    let hard_state = (index == 1).then_some(HardState { term: 1, vote: None });
    LogJob::Persist(Persist { id: index, hard_state, standing: None, entries: vec![entry] })
}

/// The same of a masterless node.
fn note(id: PersistId) -> LogJob {
    let content = Payload::new(vec![7; RECORD_BYTES]).ok();
    let records = vec![Record::Note { place: Payload::default(), content }];
    LogJob::Records(dynamo::Persist { id, records })
}

/// Returns the requests in a log that lacks nothing, and no vote.
fn kept(disk: &TestDisk) -> Vec<Index> {
    let (_, found) = run(wal::open(disk, WAL_DIR, OPTIONS)).unwrap();
    assert_eq!(found.damage, []);
    let has = |kind| found.records.iter().any(|record| record.kind == kind);
    assert_eq!(has(KIND_HARD_STATE), has(KIND_ENTRY), "the vote came with the first entry");
    let is_request = |kind| kind == KIND_ENTRY || kind == KIND_RECORDS;
    let requests = found.records.iter().filter(|record| is_request(record.kind));
    requests.map(|record| record.tag).collect()
}

/// The accident: what said which segments could go waited behind the write for which there was no
/// space, and the disk of a node that had enough to remove stayed full for ever.
#[test]
fn full_disk_has_space_again_once_segments_are_not_needed() {
    let mut scene = Scene::new(SyncPolicy::Always);
    scene.fill_segments(entry);
    scene.fill_disk();
    scene.queue.push(entry(17));
    assert!(scene.goes_on_until(|scene| scene.is_disk_full));
    assert!(!scene.goes_on_until(|scene| scene.persisted == 17), "nothing may go yet");
    let before = scene.segment_count();
    scene.queue.push(LogJob::RemoveThrough(12));
    assert!(scene.goes_on_until(|scene| scene.persisted == 17), "it waits for ever");
    assert!(!scene.is_disk_full && scene.segment_count() < before);
    let kept = scene.stop();
    assert!(kept[0] > 1 && kept.ends_with(&[13, 14, 15, 16, 17]), "{kept:?}");
}

/// The accident: a node that was started on a full disk did not remove what its tables had long
/// ago, because nothing was flushed any more that would have said so.
#[test]
fn start_on_a_full_disk_removes_what_the_tables_have() {
    let mut scene = Scene::masterless(TestEnv::default(), 0);
    scene.fill_segments(note);
    // An idle log says what is durable, and needs no new segment for it at the next start.
    assert!(!scene.goes_on_until(|_| false));
    let env = scene.env.clone();
    assert_eq!(scene.stop(), (1..=16).collect::<Vec<_>>());
    let mut scene = Scene::masterless(env, 12);
    scene.fill_disk();
    scene.queue.push(note(17));
    assert!(scene.goes_on_until(|scene| scene.is_disk_full));
    assert!(scene.goes_on_until(|scene| scene.persisted == 17), "it waits for ever");
    let kept = scene.stop();
    assert!(kept[0] > 1 && kept.ends_with(&[13, 14, 15, 16, 17]), "{kept:?}");
}

/// Found by reading: tables could outlive a power loss, and all of their log not.
#[test]
fn first_record_of_a_log_is_never_left_to_the_interval() {
    let env = TestEnv::default();
    let (writer, _) = run(wal::open(&env.disk, WAL_DIR, OPTIONS)).unwrap();
    let seldom = SyncPolicy::Interval(Duration::from_hours(1));
    let mut scene = Scene::start(env, writer, (seldom, 0));
    scene.queue.push(note(1));
    assert!(scene.goes_on_until(|scene| scene.persisted == 1));
    let disk = scene.env.disk.after_power_loss(Survives::NOTHING);
    assert_eq!(kept(&disk), [1]);
}

/// The accident: a node with a full disk could only be killed.
#[test]
fn stop_does_not_wait_for_space_and_loses_nothing_that_was_acknowledged() {
    let seldom = SyncPolicy::Interval(Duration::from_hours(1));
    for policy in [SyncPolicy::Always, seldom] {
        for comes_late in [false, true] {
            let mut scene = Scene::new(policy);
            for index in [1, 2, 3] {
                scene.queue.push(entry(index));
                assert!(scene.goes_on_until(|scene| scene.persisted == index), "entry {index}");
            }
            scene.env.disk.set_faults(Faults { no_space: true, ..Faults::default() });
            scene.queue.push(entry(4));
            if comes_late {
                assert!(scene.goes_on_until(|scene| scene.is_disk_full));
            }
            scene.queue.push(LogJob::Stop);
            assert!(scene.goes_on_until(|scene| scene.has_stopped), "it waits: {comes_late}");
            assert_eq!(scene.persisted, 3, "what is not on the disk is not acknowledged");
            let disk = scene.env.disk.after_power_loss(Survives::NOTHING);
            assert_eq!(kept(&disk), [1, 2, 3], "{policy:?}, {comes_late}");
        }
    }
}

/// Found by reading: what was acknowledged right before a stop had no witness, so a block of it
/// that rotted while the machine was off was taken for an unfinished write.
#[test]
fn stop_leaves_a_witness_of_the_last_batch() {
    let seldom = SyncPolicy::Interval(Duration::from_hours(1));
    for policy in [SyncPolicy::Always, seldom] {
        for comes_late in [false, true] {
            let mut scene = Scene::new(policy);
            for index in [1, 2, 3] {
                scene.queue.push(entry(index));
                if comes_late || index < 3 {
                    assert!(scene.goes_on_until(|scene| scene.persisted == index), "{index}");
                }
            }
            scene.queue.push(LogJob::Stop);
            assert!(scene.goes_on_until(|scene| scene.has_stopped), "{policy:?}, {comes_late}");
            assert_eq!(scene.persisted, 3);
            let disk = scene.env.disk;
            for disk in [disk.clone(), disk.after_power_loss(Survives::NOTHING)] {
                let first = run(wal::unwitnessed(&disk, WAL_DIR)).unwrap();
                assert_eq!(first, None, "{policy:?}, {comes_late}");
                assert_eq!(kept(&disk), [1, 2, 3], "{policy:?}, {comes_late}");
            }
        }
    }
}

/// The mark of an idle log is written and not synced.
#[test]
fn stop_of_an_idle_log_makes_its_mark_durable_and_writes_no_other() {
    let mut scene = Scene::new(SyncPolicy::Always);
    scene.queue.push(entry(1));
    assert!(scene.goes_on_until(|scene| scene.persisted == 1));
    assert!(!scene.goes_on_until(|_| false));
    let (writes, syncs) = (scene.env.disk.write_count(), scene.env.disk.sync_count());
    scene.queue.push(LogJob::Stop);
    assert!(scene.goes_on_until(|scene| scene.has_stopped));
    let disk = scene.env.disk;
    assert_eq!((disk.write_count() - writes, disk.sync_count() - syncs), (0, 1));
    let disk = disk.after_power_loss(Survives::NOTHING);
    assert_eq!(run(wal::unwitnessed(&disk, WAL_DIR)).unwrap(), None);
}

#[test]
fn full_disk_keeps_no_node_from_stopping_for_want_of_a_witness() {
    let mut scene = Scene::new(SyncPolicy::Always);
    scene.queue.push(entry(1));
    assert!(scene.goes_on_until(|scene| scene.persisted == 1));
    scene.env.disk.set_faults(Faults { no_space: true, ..Faults::default() });
    scene.queue.push(LogJob::Stop);
    assert!(scene.goes_on_until(|scene| scene.has_stopped), "it waits");
    let disk = scene.env.disk.after_power_loss(Survives::NOTHING);
    assert_eq!(kept(&disk), [1]);
}
