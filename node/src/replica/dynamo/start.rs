//! From a data directory to a replica of the masterless mode that is ready to run.

use std::sync::Arc;

use bytes::Bytes;
use tracing::{info, warn};

use super::super::config::{NodeConfig, Replication};
use super::super::disk_full::DiskFull;
use super::super::gathering::Gathering;
use super::super::identity::{self, Identity};
use super::super::inbox::Inbox;
use super::super::observer::Observer;
use super::super::pending::PendingRequests;
use super::super::persist::{KIND_DAMAGED, KIND_RECORDS, LogQueue, LogTask};
use super::super::start::{
    STATE_DIR, StartError, WAL_DIR, check_members, explain_claim, foreign_record, peer_outboxes,
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
use crate::env::Env;
use crate::kv::CellStore;
use crate::kv::cell_store::purge_floors_of;
use crate::planted;
use crate::storage::snapshot::Transfers;
use crate::storage::tree::{self, Damage, Keeper};
use crate::storage::wal::Writer;
use crate::storage::{Engine, SnapshotPoint, StorageError, Tree, wal};

/// Bytes of notes that are read at once at the start.
const NOTES_BYTES: usize = 1 << 20;

/// What is on the disk, opened.
struct Opened<E: Env> {
    tree: Tree<E::Disk>,
    keeper: Keeper<E::Disk>,
    writer: Writer<E::Disk>,
    log: wal::Recovery,
    judged: Judged,
}

impl<E: Env, O: Observer> MasterlessReplica<E, O> {
    /// Recovers the node's cells from its directory and starts the helpers of the loop.
    ///
    /// # Errors
    /// The directory cannot be used; it is left as it was, so that it can be looked at.
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
        if judged.persisted == 0 && config.members.len() > 1 {
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
        let (queue, to_loop) = (Arc::clone(&log), Arc::clone(&inbox));
        let log_task = LogTask::new(env.clone(), writer, queue, to_loop, config.sync_policy);
        env.spawn("log", log_task.run());
        let options = StateOptions {
            has_peers: config.members.len() > 1,
            scrub_bytes_per_second: config.scrub_bytes_per_second,
        };
        let (queue, to_loop) = (Arc::clone(&state), Arc::clone(&inbox));
        let state_task = StateTask::new(env.clone(), keeper, transfers, queue, to_loop, options);
        env.spawn("state", state_task.run());
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
            flush: FlushProgress { durable, log_bytes, ..FlushProgress::default() },
            persists: PersistProgress { last: judged.persisted, durable: judged.persisted },
            disk_full: DiskFull::default(),
            wal_bytes,
            stop: None,
            env,
            config,
        })
    }
}

/// What the disk held, ready for use.
struct Restored<E: Env> {
    store: CellStore<Tree<E::Disk>>,
    keeper: Keeper<E::Disk>,
    writer: Writer<E::Disk>,
    recovered: Recovered,
    judged: Judged,
    /// The last persist request whose effect is in tables.
    durable: PersistId,
    /// Bytes of log that were applied after it.
    log_bytes: u64,
}

/// A start that failed, and who can condemn the tables.
struct Failed<E: Env> {
    error: StartError,
    keeper: Keeper<E::Disk>,
}

/// Opens what is on the disk and applies what the tables do not have.
///
/// That reads the tables, so it may be what finds them damaged. With others to get the cells from
/// they are condemned as at any other time, and the second try begins without them.
async fn restore<E: Env>(
    env: &E,
    config: &NodeConfig,
    observer: &mut impl Observer,
) -> Result<Restored<E>, StartError> {
    let has_peers = config.members.len() > 1;
    let Failed { error, mut keeper } = match reload(open(env, config).await?, env.now(), observer) {
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
    reload(open(env, config).await?, env.now(), observer).map_err(|failed| failed.error)
}

/// Applies what the tables do not have.
fn reload<E: Env>(
    opened: Opened<E>,
    now: Instant,
    observer: &mut impl Observer,
) -> Result<Restored<E>, Box<Failed<E>>> {
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
                let _deltas = store.apply(record.tag, &records)?;
                observer.on_masterless_applied(now, record.tag, &records);
                log_bytes += bytes_of(&records);
            }
        }
        let recovered = recovered(&mut store, judged)?;
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
async fn open<E: Env>(env: &E, config: &NodeConfig) -> Result<Opened<E>, StartError> {
    let disk = env.disk();
    let (mut tree, mut keeper, tables) = tree::open(disk.clone(), STATE_DIR, config.tree).await?;
    let options = wal::Options { segment_bytes: config.wal_segment_bytes };
    let (mut writer, log) = wal::open(disk, WAL_DIR, options).await?;
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

/// Puts together what the core starts with.
fn recovered<S: Engine>(
    store: &mut CellStore<S>,
    judged: Judged,
) -> Result<Recovered, StorageError> {
    let mut notes = Vec::new();
    for (place, content) in read_notes(store)? {
        let needed = notes::recovered_content(place.as_bytes(), content.as_bytes());
        // A part of a payload is one.
        let content = Payload::new(needed.to_vec()).unwrap_or_default();
        notes.push((place, content));
    }
    let Judged { persisted, is_damaged } = judged;
    // The core knows from its notes which start this is.
    Ok(Recovered { generation: 1, persisted, notes, is_damaged })
}

/// Returns the floors among notes.
fn floors_of(notes: &[(Payload, Payload)]) -> Vec<(Partition, Stamp)> {
    let floor =
        |(place, content): &(Payload, Payload)| notes::floor(place.as_bytes(), content.as_bytes());
    notes.iter().filter_map(floor).collect()
}

/// Reads all of the node's own notes.
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
        all.extend(notes);
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
        let count = log.damage.len();
        let what = format!("{count} damaged place(s) in the log, damaged tables: {tables}");
        return Err(StartError::Damaged { what });
    }
    crate::probe!("replica.masterless_starts_damaged");
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
        ..limits
    }
}
