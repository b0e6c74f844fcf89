//! From a data directory to a replica of the masterless mode that is ready to run.

use std::sync::Arc;

use bytes::Bytes;
use tracing::{info, warn};

use super::super::config::{NodeConfig, Replication};
use super::super::disk_full::DiskFull;
use super::super::gathering::Gathering;
use super::super::identity::{self, Identity};
use super::super::inbox::{Inbox, Over};
use super::super::observer::Observer;
use super::super::pending::PendingRequests;
use super::super::persist::{KIND_DAMAGED, KIND_RECORDS, LogQueue, LogTask};
use super::super::stalls::Stalls;
use super::super::start::{
    STATE_DIR, StartError, WAL_DIR, check_members, describe_log, explain_claim, foreign_record,
    peer_outboxes,
};
use super::super::state::{StateOptions, StateQueue, StateTask};
use super::recovery::{self, Judged};
use super::{FlushProgress, MasterlessReplica, PersistProgress, bytes_of};
use crate::base::{Instant, NodeId, Payload, Stamp};
use crate::codec;
use crate::dynamo::placement::NOTE_PREFIX;
use crate::dynamo::{
    self, Dynamo, Found, Partition, PersistId, Placement, Record, Recovered, StoreRead, notes,
};
use crate::env::{Disk, Env};
use crate::kv::CellStore;
use crate::kv::cell_store::purge_floors_of;
use crate::planted;
use crate::storage::snapshot::Transfers;
use crate::storage::tree::{self, Damage, Keeper};
use crate::storage::wal::Writer;
use crate::storage::{Engine, SnapshotPoint, StorageError, Tree, wal};

/// Bytes of notes that are read at once at the start.
const NOTES_BYTES: usize = 1 << 20;

/// The generation of a start is less than this beyond the last: two starts of the same copy of a
/// disk hardly ever take the same, and there are numbers enough for all starts that anybody makes.
const GENERATION_STEP_MAX: u64 = 1 << 20;

/// What is on the disk, opened.
struct Opened<D: Disk> {
    tree: Tree<D>,
    keeper: Keeper<D>,
    writer: Writer<D>,
    log: wal::Recovery,
    judged: Judged,
}

impl<E: Env, O: Observer> MasterlessReplica<E, O> {
    /// Recovers the node's cells from its directory and starts the helpers of the loop.
    ///
    /// # Errors
    /// The directory cannot be used. No data was removed, so that it can be looked at; but what a
    /// crash had left unfinished may be gone, and the log may go on in a new segment.
    ///
    /// # Panics
    /// If the configuration is of the other mode.
    pub async fn recover(env: E, config: NodeConfig, mut observer: O) -> Result<Self, StartError> {
        check_members(&config)?;
        let Some(placement) = config.placement() else {
            unreachable!("node {} is not of the masterless mode", config.node)
        };
        identity::claim(env.disk(), &Identity::of(&config)).await.map_err(explain_claim)?;
        let transfers = Transfers::open(env.disk().clone()).await?;
        let now = env.now();
        let Restored { store, keeper, writer, mut recovered, judged, durable, log_bytes } =
            restore(&env, &config, &mut observer).await?;
        if judged.persisted == 0 && config.members.len() > 1 && !planted!("D65") {
            // Nothing tells a disk that is new from one that was exchanged, or wiped.
            info!(node = %config.node, "new: comparing with all other nodes before reads");
            recovered.is_damaged = true;
        }
        observer.on_masterless_start(now, &recovered);
        let core_config = core_config(&config, &placement);
        let core = Dynamo::new(core_config, recovered, env.rng("dynamo"), now);
        let inbox = Inbox::new(config.requests_max);
        let wal_bytes = writer.wal_bytes();
        let (log, state) = (Arc::new(LogQueue::default()), Arc::new(StateQueue::default()));
        log.set_gathers();
        let (queue, to_loop) = (Arc::clone(&log), Arc::clone(&inbox));
        let policy = (config.sync_policy, durable);
        let log_task = LogTask::new(env.clone(), writer, queue, to_loop, policy);
        env.spawn("log", log_task.run());
        let options = StateOptions {
            has_peers: config.members.len() > 1,
            scrub_bytes_per_second: config.scrub_bytes_per_second,
        };
        let (queue, to_loop) = (Arc::clone(&state), Arc::clone(&inbox));
        let state_task = StateTask::new(env.clone(), keeper, transfers, queue, to_loop, options);
        env.spawn_aside("state", state_task.run());
        Ok(Self {
            core,
            store,
            placement,
            inbox,
            log,
            state,
            peers: peer_outboxes(&config),
            pending: PendingRequests::new(config.request_timeout),
            held: Gathering::default(),
            observer,
            flush: FlushProgress { durable, log_bytes },
            persists: PersistProgress { last: judged.persisted, durable: judged.persisted },
            disk_full: DiskFull::default(),
            stalls: Stalls::default(),
            wal_bytes,
            stop: None,
            over: Over::default(),
            env,
            config,
        })
    }
}

/// What does not come from the disk.
#[derive(Debug, Clone, Copy)]
struct Start {
    now: Instant,
    generation_step: u64,
}

/// What the disk held, ready for use.
struct Restored<D: Disk> {
    store: CellStore<Tree<D>>,
    keeper: Keeper<D>,
    writer: Writer<D>,
    recovered: Recovered,
    judged: Judged,
    /// The last persist request whose effect is in tables.
    durable: PersistId,
    /// Bytes of log that were applied after it.
    log_bytes: u64,
}

/// A start that failed, and who can condemn the tables.
struct Failed<D: Disk> {
    error: StartError,
    keeper: Keeper<D>,
}

/// Opens what is on the disk and applies what the tables do not have.
///
/// That reads the tables, so it may be what finds them damaged. With others to get the cells from
/// they are condemned as at any other time, and the second try begins without them.
async fn restore<E: Env>(
    env: &E,
    config: &NodeConfig,
    observer: &mut impl Observer,
) -> Result<Restored<E::Disk>, StartError> {
    let has_peers = config.members.len() > 1;
    let generation_step = env.rng("generation").range(1, GENERATION_STEP_MAX);
    let start = Start { now: env.now(), generation_step };
    let Failed { error, mut keeper } =
        match reload(open(env.disk(), config).await?, start, observer) {
            Ok(restored) => return Ok(restored),
            Err(failed) => *failed,
        };
    let StartError::Storage(error @ StorageError::Corrupt { .. }) = error else {
        return Err(error);
    };
    if !has_peers {
        return Err(error.into());
    }
    crate::probe!("replica.state_is_condemned_at_start");
    keeper.condemn(&error).await?;
    drop(keeper);
    reload(open(env.disk(), config).await?, start, observer).map_err(|failed| failed.error)
}

/// Applies what the tables do not have.
fn reload<D: Disk>(
    opened: Opened<D>,
    start: Start,
    observer: &mut impl Observer,
) -> Result<Restored<D>, Box<Failed<D>>> {
    let Opened { tree, mut keeper, writer, log, judged } = opened;
    let mut store = CellStore::new(tree);
    let durable = store.applied();
    let mut apply = || -> Result<(u64, Recovered), StartError> {
        // Compactions may rely on what the tables have, not on what comes from the log now: after
        // the next start, an older cell would come from there without its tombstone.
        let in_tables = read_notes(&mut store)?;
        let mut log_bytes = 0;
        for record in log.records.iter().filter(|record| record.kind == KIND_RECORDS) {
            if record.tag > store.applied() {
                let records: Vec<Record> =
                    codec::decode(&record.payload).map_err(foreign_record)?;
                // Nobody asks for leaves before the core has read them.
                store.replay(record.tag, &records)?;
                observer.on_masterless_applied(start.now, record.tag, &records);
                log_bytes += bytes_of(&records);
            }
        }
        let recovered = Recovered {
            generation_step: start.generation_step,
            persisted: judged.persisted,
            notes: read_notes(&mut store)?,
            is_damaged: judged.is_damaged,
        };
        // The core forgets the floors of a damaged disk; they must not count here, either: what
        // they let go, and leave out of the leaves, nobody has proven.
        let is_damaged = |notes: &[(Payload, Payload)]| {
            recovered.is_damaged
                || notes.iter().any(|(place, _)| notes::is_damaged(place.as_bytes()))
        };
        if !is_damaged(&recovered.notes) {
            for (partition, floor) in floors_of(&recovered.notes) {
                store.set_floor(partition, floor);
            }
        }
        let is_proven = !is_damaged(&recovered.notes) && !is_damaged(&in_tables);
        let proven = is_proven.then(|| floors_of(&in_tables)).into_iter().flatten();
        keeper.set_purge_floors(if planted!("D61") {
            store.purge_floors().clone()
        } else {
            purge_floors_of(proven)
        });
        Ok((log_bytes, recovered))
    };
    match apply() {
        Ok((log_bytes, recovered)) => {
            Ok(Restored { store, keeper, writer, recovered, judged, durable, log_bytes })
        }
        Err(error) => Err(Box::new(Failed { error, keeper })),
    }
}

/// Opens the tables and the log. If something is lost, that is on its way to the disk.
async fn open<D: Disk>(disk: &D, config: &NodeConfig) -> Result<Opened<D>, StartError> {
    let (mut tree, mut keeper, tables) = tree::open(disk.clone(), STATE_DIR, config.tree).await?;
    let options = wal::Options { segment_bytes: config.wal_segment_bytes };
    let (mut writer, log) = wal::open(disk, WAL_DIR, options).await?;
    writer.expect_no_critical();
    let mut judged = recovery::judge(&log, tables.applied.index).map_err(foreign_record)?;
    if let Some(damage) = &tables.damage {
        judged.is_damaged = true;
        let known = damage.point.map_or(0, |point| point.index);
        judged.persisted = judged.persisted.max(known);
    }
    report_damage(config, &log, tables.damage.as_ref(), judged)?;
    if judged.is_damaged {
        writer.append(KIND_DAMAGED, judged.persisted + 1, |_nothing| {});
    }
    if tables.damage.is_some() {
        // First what says that they were lost, then the empty ones that take their place.
        writer.write().await?;
        writer.sync().await?;
        keeper.begin_replacement().await?;
        let empty = keeper.finish_replacement(SnapshotPoint::default(), Bytes::new()).await?;
        tree.adopt(empty);
    }
    Ok(Opened { tree, keeper, writer, log, judged })
}

/// Returns the floors among notes.
fn floors_of(notes: &[(Payload, Payload)]) -> Vec<(Partition, Stamp)> {
    let floor =
        |(place, content): &(Payload, Payload)| notes::floor(place.as_bytes(), content.as_bytes());
    notes.iter().filter_map(floor).collect()
}

/// Reads of all of the node's own notes what the core needs of each. What else stands in them may
/// be more than fits into memory.
fn read_notes<S: Engine>(
    store: &mut CellStore<S>,
) -> Result<Vec<(Payload, Payload)>, StorageError> {
    let prefix = Payload::new(NOTE_PREFIX.to_vec()).unwrap_or_default();
    let (mut all, mut start) = (Vec::new(), prefix.clone());
    loop {
        let read = StoreRead::Notes { prefix: prefix.clone(), start, bytes_max: NOTES_BYTES };
        let Found::Notes { notes, is_more } = store.read(&read)? else {
            unreachable!("the store answers {read:?} with something else")
        };
        all.extend(notes.into_iter().map(|(place, content)| {
            let needed = notes::recovered_content(place.as_bytes(), content.as_bytes());
            // A part of a payload is one.
            let content = Payload::new(needed.to_vec()).unwrap_or_default();
            (place, content)
        }));
        let Some((last, _)) = all.last().filter(|_| is_more) else { return Ok(all) };
        // The place after it.
        let next = [last.as_bytes(), &[0]].concat();
        start = Payload::new(next).unwrap_or_default();
    }
}

/// Logs what recovery found, and refuses to start a node that cannot be helped by others.
fn report_damage(
    config: &NodeConfig,
    log: &wal::Recovery,
    damaged_tables: Option<&Damage>,
    judged: Judged,
) -> Result<(), StartError> {
    if let Some(torn) = &log.torn {
        info!(node = %config.node, ?torn, "cut off a write that a crash had interrupted");
    }
    for damage in &log.damage {
        warn!(node = %config.node, ?damage, "damaged record in the write-ahead log");
    }
    if let Some(damage) = damaged_tables {
        warn!(node = %config.node, ?damage, "the stored state is damaged");
    }
    if !judged.is_damaged {
        return Ok(());
    }
    if config.members.len() == 1 {
        let tables = damaged_tables.map_or("none".to_owned(), |damage| {
            format!("{} at byte {}: {}", damage.path, damage.offset, damage.what)
        });
        let what = format!("{}, damaged tables: {tables}", describe_log(log));
        return Err(StartError::Damaged { what });
    }
    crate::probe!("replica.masterless_starts_damaged");
    if log.is_blank() && damaged_tables.is_none() {
        warn!(node = %config.node, "the files of the write-ahead log are gone");
    }
    warn!(
        node = %config.node,
        "acknowledged writes are lost here: getting them from the other nodes"
    );
    Ok(())
}

/// Returns how the core is to behave.
fn core_config(config: &NodeConfig, placement: &Placement) -> dynamo::Config {
    let mut nodes: Vec<NodeId> = config.members.iter().map(|(node, _)| *node).collect();
    nodes.sort_unstable();
    let usual = dynamo::Config::new(config.node, nodes, placement.clone());
    let Replication::Masterless(masterless) = &config.replication else { return usual };
    let limits = masterless.limits.as_deref().unwrap_or(&usual).clone();
    let timeout = config.request_timeout;
    dynamo::Config {
        id: usual.id,
        nodes: usual.nodes,
        placement: usual.placement,
        repair: masterless.repair,
        read_timeout: limits.read_timeout.min(timeout),
        write_timeout: limits.write_timeout.min(timeout),
        // Another node's `request_timeout` may be longer than this one's.
        request_timeout_max: limits.read_timeout.max(limits.write_timeout),
        ..limits
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::base::planted::loses_only_with;
    use crate::base::{ClusterId, Entry, Written};
    use crate::dynamo::placement::place_in;
    use crate::storage::Content;
    use crate::storage::test_disk::{Faults, TestDisk, run};
    use crate::storage::tree::TreeOptions;

    fn config() -> NodeConfig {
        let members = (1..=3).map(|node| (NodeId(node), format!("n{node}"))).collect();
        let tree = TreeOptions { level0_tables: 2, ..TreeOptions::default() };
        NodeConfig { tree, ..NodeConfig::new(ClusterId(1), NodeId(1), "n1", members) }
    }

    fn opened(disk: &TestDisk) -> Opened<TestDisk> {
        run(open(disk, &config())).unwrap_or_else(|error| panic!("{error}"))
    }

    fn start(disk: &TestDisk) -> Restored<TestDisk> {
        let start = Start { now: Instant::default(), generation_step: 1 };
        let reloaded = reload(opened(disk), start, &mut ());
        reloaded.unwrap_or_else(|failed| panic!("{}", failed.error))
    }

    /// Logs a persist request, as the task of the log does.
    fn log(disk: &TestDisk, id: PersistId, record: Record) {
        let records = vec![record];
        let mut writer = opened(disk).writer;
        writer.append(KIND_RECORDS, id, |buffer| codec::encode_into(&records, buffer));
        run(writer.write()).unwrap_or_else(|error| panic!("{error}"));
        run(writer.sync()).unwrap_or_else(|error| panic!("{error}"));
    }

    fn entry(key: u8, ms: u64, written: Written) -> Record {
        let (place, stamp) = (place_in(0, &[key, 0, 0, 1]), Stamp::new(ms, 0, NodeId(1)));
        Record::Entries(vec![Entry { place, stamp, written }])
    }

    /// The accident: a node was run once as root, and left files in its directory that its own user
    /// could not open. The next start wrote down that its tables were lost, and put empty ones in
    /// their place.
    #[test]
    fn tables_that_may_not_be_opened_are_not_taken_for_lost() {
        let disk = TestDisk::default();
        log(&disk, 1, entry(1, 5, Written::Value(Payload::default())));
        let mut node = start(&disk);
        let frozen = node.store.engine_mut().freeze(b"captured".to_vec());
        run(node.keeper.flush(&frozen)).unwrap_or_else(|error| panic!("{error}"));
        drop(start(&disk));
        let files = || [disk.files(STATE_DIR), disk.files(WAL_DIR)];
        let before = files();
        for path in before[0].keys() {
            disk.set_faults(Faults { deny_open: Some(path.clone()), ..Faults::default() });
            let error = run(open(&disk, &config())).map(drop).unwrap_err();
            assert!(matches!(error, StartError::Storage(StorageError::Disk(_))), "{error}");
            assert!(error.to_string().contains(path), "{error}");
            assert!(files() == before, "something was changed, {path}");
        }
        disk.set_faults(Faults::default());
        let node = start(&disk);
        assert!(has_value(&node.store) && !node.judged.is_damaged, "all is as it was");
    }

    fn has_value(store: &CellStore<Tree<TestDisk>>) -> bool {
        let mut found = false;
        let scanned = store.engine().scan_raw(&[], Some(&NOTE_PREFIX), &mut |cell| {
            found |= matches!(cell.content, Content::Value(_));
            ControlFlow::Continue(())
        });
        scanned.unwrap_or_else(|error| panic!("{error}"));
        found
    }

    /// The accident (masterless seed 30002845): the tables had a tombstone, the log an older cell
    /// that the tombstone hides, and the floor by which the tombstone may go. After a start a
    /// compaction let it go; after the next one the cell came from the log and was there again.
    #[test]
    fn compaction_after_a_start_relies_on_the_floors_in_the_tables_alone() {
        loses_only_with("D61", || {
            let disk = TestDisk::default();
            for id in 1..=3_u8 {
                log(&disk, id.into(), entry(id, 5, Written::Deleted));
                let mut node = start(&disk);
                let frozen = node.store.engine_mut().freeze(Vec::new());
                run(node.keeper.flush(&frozen)).unwrap_or_else(|error| panic!("{error}"));
            }
            log(&disk, 4, entry(1, 4, Written::Value(Payload::default())));
            log(&disk, 5, notes::keep_floor(0, Stamp::new(9, 0, NodeId(1))));

            let mut node = start(&disk);
            assert_eq!(node.store.applied(), 5);
            assert!(!has_value(&node.store), "what is deleted is not there");
            while node.keeper.needs_compaction() {
                run(node.keeper.compact_step()).unwrap_or_else(|error| panic!("{error}"));
            }
            has_value(&start(&disk).store)
        });
    }

    /// Returns the disk of a node whose tables have both requests of its log.
    fn flushed_at_2() -> TestDisk {
        let disk = TestDisk::default();
        log(&disk, 1, entry(1, 5, Written::Deleted));
        log(&disk, 2, entry(2, 5, Written::Deleted));
        let mut node = start(&disk);
        let frozen = node.store.engine_mut().freeze(Vec::new());
        run(node.keeper.flush(&frozen)).unwrap_or_else(|error| panic!("{error}"));
        disk
    }

    /// The accident: a node whose log had been removed, and its tables not, answered reads at once,
    /// without what was in that log.
    #[test]
    fn log_whose_files_are_gone_is_damage() {
        let disk = flushed_at_2();
        let whole = Judged { persisted: 2, is_damaged: false };
        assert_eq!(opened(&disk).judged, whole);

        disk.lose_all(WAL_DIR);
        let alone = vec![(NodeId(1), "n1".to_owned())];
        let alone = NodeConfig { members: alone, ..config() };
        let refused = run(open(&disk, &alone)).err();
        assert!(matches!(refused, Some(StartError::Damaged { .. })), "{refused:?}");
        let damaged = Judged { persisted: 2, is_damaged: true };
        assert_eq!(opened(&disk).judged, damaged);
        let mut again = opened(&disk);
        assert_eq!(again.judged, damaged, "what it says is not on the disk yet");
        run(again.writer.write()).unwrap();
        run(again.writer.sync()).unwrap();
        assert_eq!(opened(&disk).judged, damaged, "the note of the core is not");
        log(&disk, 3, entry(3, 5, Written::Deleted));
        assert_eq!(opened(&disk).judged, Judged { persisted: 3, is_damaged: false });
    }

    /// The segment that a start begins may be all that is left, without a record.
    #[test]
    fn log_that_was_cut_behind_its_tables_is_whole() {
        let disk = flushed_at_2();
        for _ in 0..3 {
            let Opened { mut writer, judged, .. } = opened(&disk);
            assert_eq!(judged, Judged { persisted: 2, is_damaged: false });
            run(writer.remove_through(2)).unwrap();
            run(writer.close()).unwrap();
            assert_eq!(writer.segment_count(), 1);
        }
    }
}
