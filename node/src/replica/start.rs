//! From a data directory to a replica that is ready to run.

use std::io::ErrorKind;
use std::sync::Arc;

use tracing::{info, warn};

use super::config::NodeConfig;
use super::disk_full::DiskFull;
use super::gathering::Gathering;
use super::identity::{self, Identity};
use super::inbox::{Inbox, Over};
use super::observer::Observer;
use super::outbox::PeerOutbox;
use super::pending::PendingRequests;
use super::persist::{KIND_RECOVERED, LogQueue, LogTask, vote_record};
use super::reading::Reading;
use super::recovery;
use super::saving::Saving;
use super::shell::{FlushProgress, Replica};
use super::stalls::Stalls;
use super::state::{StateOptions, StateQueue, StateTask, meta};
use crate::base::NodeId;
use crate::codec::{self, DecodeError};
use crate::env::{Disk, DiskErrorKind, Env};
use crate::kv::Machine;
use crate::raft::{self, Raft, Recovered, SnapshotMeta, Standing};
use crate::storage::snapshot::Transfers;
use crate::storage::tree::{self, Damage};
use crate::storage::{StorageError, wal};

/// Directory of the write-ahead log.
pub const WAL_DIR: &str = "wal";

/// Directory of the table store.
pub const STATE_DIR: &str = "tables";

/// Describes the write-ahead log of a node that does not run, line by line. Changes nothing.
///
/// # Errors
/// There is none, or it cannot be read.
pub async fn dump_log<E: Env>(env: &E, line: impl FnMut(&str)) -> Result<(), StorageError> {
    wal::dump(env.disk(), WAL_DIR, line).await
}

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port cannot be opened.
    #[error("cannot listen on {address}: {source}{}", listen_advice(.source))]
    Listen {
        /// The address.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process works on the data directory.
    #[error("{0}; stop the other node, or give this one a directory of its own")]
    InUse(StorageError),
    /// The data directory is not this node's.
    #[error(
        "this is not the data directory of this node: {0}; check --data, --node, --cluster-id and \
         --mode"
    )]
    Foreign(StorageError),
    /// Both copies of the name plate are damaged, or they differ.
    #[error(
        "cannot tell whose data directory this is: {0}; nothing was changed. Put back the file \
         NODE from any copy of this directory, however old. Without one: if the node has others, \
         and all of them run, move the directory away and start on an empty one, which they fill; \
         else restore a backup (`mangrove snapshot restore`), or bring out what can be read \
         (`mangrove store salvage`)"
    )]
    NamePlate(StorageError),
    /// The files cannot be read.
    #[error("cannot read the data directory: {0}")]
    Storage(#[from] StorageError),
    /// Data that may have been acknowledged is damaged, and there is no other node to get it from.
    #[error(
        "acknowledged data is damaged and this node is alone: {what}; no data was removed. \
         Look at it with `mangrove store verify` and `mangrove wal dump`; then restore a backup \
         (`mangrove snapshot restore`), or bring out what can be read (`mangrove store salvage`)"
    )]
    Damaged {
        /// What is damaged.
        what: String,
    },
    /// The configuration contradicts itself.
    #[error("{0}")]
    Config(String),
}

/// Returns what to look at when a port cannot be opened.
fn listen_advice(error: &std::io::Error) -> &'static str {
    let kind = error.kind();
    if kind == ErrorKind::AddrInUse {
        "; is another process using it?"
    } else if kind == ErrorKind::AddrNotAvailable {
        "; no network of this machine has that address: give one that has with --listen, or \
         0.0.0.0 for all of them"
    } else {
        "; check --listen, or the address of this node in --members"
    }
}

impl<E: Env, O: Observer> Replica<E, O> {
    /// Recovers the node's state from its directory and starts the helpers of the loop.
    ///
    /// # Errors
    /// The directory cannot be used. No data was removed, so that it can be looked at; but what a
    /// crash had left unfinished may be gone, and the log may go on in a new segment.
    pub async fn recover(env: E, config: NodeConfig, mut observer: O) -> Result<Self, StartError> {
        check_config(&config)?;
        let disk = env.disk();
        identity::claim(disk, &Identity::of(&config)).await.map_err(explain_claim)?;
        let transfers = Transfers::open(disk.clone()).await?;
        let (tree, keeper, tables) = tree::open(disk.clone(), STATE_DIR, config.tree).await?;
        let options = wal::Options { segment_bytes: config.wal_segment_bytes };
        let (mut writer, log_recovery) = wal::open(disk, WAL_DIR, options).await?;
        let durable = meta(tables.applied);
        let mut recovered = recovery::replay(&log_recovery, durable).map_err(foreign_record)?;
        if let Some(damage) = &tables.damage {
            lack_state(&mut recovered, damage, recovery::last_install(&log_recovery));
            if recovery::lacks_votes(&log_recovery, damage.point.map(meta).unwrap_or_default()) {
                recovered.standing = Standing::Unsure;
            }
        }
        be_new_without_a_past(&config, &log_recovery, &mut recovered);
        report_damage(&config, &log_recovery, tables.damage.as_ref(), &recovered)?;
        prepare_log(&mut writer, &log_recovery, &mut recovered).await?;
        let machine = Machine::restore(tree, &tables.extra, config.sessions_max)?;
        let now = env.now();
        observer.on_start(now, &recovered, machine.trail());
        let core = Raft::new(core_config(&config), recovered, env.rng("raft"), now);
        let inbox = Inbox::new(config.requests_max);
        let wal_bytes = writer.wal_bytes();
        let (log, state) = (Arc::new(LogQueue::default()), Arc::new(StateQueue::default()));
        let log_task = LogTask::new(
            env.clone(),
            writer,
            Arc::clone(&log),
            Arc::clone(&inbox),
            (config.sync_policy, durable.index),
        );
        env.spawn("log", log_task.run());
        let options = StateOptions {
            has_peers: config.members.len() > 1,
            scrub_bytes_per_second: config.scrub_bytes_per_second,
        };
        let (queue, to_loop) = (Arc::clone(&state), Arc::clone(&inbox));
        let state_task = StateTask::new(env.clone(), keeper, transfers, queue, to_loop, options);
        env.spawn_aside("state", state_task.run());
        Ok(Self {
            role: core.role(),
            awaited: None,
            applying: super::applying::Applying::default(),
            core,
            machine,
            inbox,
            log,
            state,
            peers: peer_outboxes(&config),
            pending: PendingRequests::new(config.request_timeout),
            gathering: Gathering::default(),
            observer,
            saving: Saving::default(),
            reading: Reading::default(),
            flush: FlushProgress {
                durable,
                is_lost: tables.damage.is_some(),
                ..FlushProgress::default()
            },
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

/// Has a node ask all others what it can have promised if it remembers nothing: nothing tells a
/// disk that is new from one that was exchanged, or wiped.
fn be_new_without_a_past(config: &NodeConfig, found: &wal::Recovery, recovered: &mut Recovered) {
    let has_past = !found.records.is_empty() || !found.damage.is_empty();
    if !has_past && *recovered == Recovered::default() {
        info!(node = %config.node, "new: asking all other nodes before taking part");
        recovered.standing = Standing::New;
    }
}

/// Checks who takes part.
pub(super) fn check_members(config: &NodeConfig) -> Result<(), StartError> {
    let wrong = |what: &str| Err(StartError::Config(what.to_owned()));
    let mut nodes: Vec<NodeId> = config.members.iter().map(|(node, _)| *node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    if nodes.len() != config.members.len() {
        return wrong("two members have the same node id: give each its own");
    }
    if !nodes.contains(&config.node) {
        return wrong("this node is not among the members: add it, with its own address");
    }
    Ok(())
}

fn check_config(config: &NodeConfig) -> Result<(), StartError> {
    check_members(config)?;
    if config.heartbeat_interval * 2 > config.election_timeout {
        let what = "the heartbeat interval must be at most half of the election time-out";
        return Err(StartError::Config(what.to_owned()));
    }
    Ok(())
}

/// Says what is wrong with a directory that cannot be claimed.
pub(super) fn explain_claim(error: StorageError) -> StartError {
    match &error {
        StorageError::Format { .. } => StartError::Foreign(error),
        StorageError::Disk(disk) if disk.kind == DiskErrorKind::Locked => StartError::InUse(error),
        StorageError::Corrupt { .. } => StartError::NamePlate(error),
        StorageError::Disk(_) => StartError::Storage(error),
    }
}

/// The error for a record that somebody else wrote.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn foreign_record(error: DecodeError) -> StartError {
    StartError::Foreign(StorageError::Format {
        path: WAL_DIR.to_owned(),
        found: format!("a record that does not decode ({error})"),
        expected: "records of this version of the program",
    })
}

/// Takes note of a state that is lost, and how far it may have reached. If the tables do not tell
/// that any more, the log does: it is cut only behind what is in tables, and says which snapshots
/// from a leader were to become tables, which may be far ahead of it. If that has nothing either,
/// the others must say.
fn lack_state(recovered: &mut Recovered, damage: &Damage, installed: Option<SnapshotMeta>) {
    let last = recovered.last();
    let last = installed.map_or(last, |installed| recovery::newer(last, installed));
    match damage.point {
        Some(point) => recovered.lack(meta(point)),
        None if last.index > 0 || recovered.damaged_last.is_some() => recovered.lack(last),
        None => {
            crate::probe!("recovery.extent_is_lost");
            recovered.standing = Standing::Unsure;
        }
    }
}

/// Logs what recovery found, and refuses to start a node that cannot be helped by others.
fn report_damage(
    config: &NodeConfig,
    log: &wal::Recovery,
    damaged_state: Option<&Damage>,
    recovered: &Recovered,
) -> Result<(), StartError> {
    if let Some(torn) = &log.torn {
        info!(node = %config.node, ?torn, "cut off a write that a crash had interrupted");
    }
    for damage in &log.damage {
        warn!(node = %config.node, ?damage, "damaged record in the write-ahead log");
    }
    if let Some(damage) = damaged_state {
        warn!(node = %config.node, ?damage, "the stored state is damaged, and left aside");
    }
    let is_unsure = recovered.standing == Standing::Unsure;
    if recovered.damaged_last.is_none() && !is_unsure {
        return Ok(());
    }
    if config.members.len() == 1 {
        let what = format!(
            "{}, damaged tables: {}",
            describe_log(log),
            damaged_state.map_or("none".to_owned(), |damage| {
                format!("{} at byte {}: {}", damage.path, damage.offset, damage.what)
            })
        );
        return Err(StartError::Damaged { what });
    }
    crate::probe!("replica.starts_damaged");
    if is_unsure && log.is_blank() {
        warn!(
            node = %config.node,
            "the files of the write-ahead log are gone: asking all other nodes what was in them \
             before this one takes part"
        );
    } else if is_unsure {
        warn!(
            node = %config.node,
            "what this node has promised is damaged, too: asking all other nodes before it takes \
             part"
        );
    }
    warn!(
        node = %config.node,
        until = ?recovered.damaged_last,
        "acknowledged entries are damaged: recovering them from the other nodes"
    );
    Ok(())
}

/// Says what is wrong with the log.
pub(super) fn describe_log(log: &wal::Recovery) -> String {
    if log.is_blank() {
        return "no record in the log".to_owned();
    }
    format!("{} damaged place(s) in the log", log.damage.len())
}

/// Takes a replica that lacks something for one that is being filled; tells whether its log does
/// not say so yet.
fn note_lack(recovered: &mut Recovered) -> bool {
    let Some(last) = recovered.damaged_last else { return false };
    match recovered.standing {
        Standing::Whole | Standing::Filling(_) => {
            let filling = Standing::Filling(last);
            std::mem::replace(&mut recovered.standing, filling) != filling
        }
        // It takes part only once it knows how much it may lack.
        Standing::New | Standing::Founding | Standing::Unsure => false,
    }
}

/// Has the log say what it must before anything new comes into it.
async fn prepare_log<D: Disk>(
    writer: &mut wal::Writer<D>,
    found: &wal::Recovery,
    recovered: &mut Recovered,
) -> Result<(), StorageError> {
    let standing_is_news = note_lack(recovered);
    let standing = Some(recovered.standing).filter(|standing| *standing != Standing::Whole);
    let vote = vote_record(&recovered.hard_state, standing);
    if recovered.hard_state != raft::HardState::default() {
        writer.set_preamble(vec![vote.clone()]);
    }
    let is_lost = found.damage.iter().any(|damage| damage.loss != wal::Loss::Nothing);
    if is_lost {
        // The next start must not judge the damage by what follows.
        let kept = recovered.last();
        writer.append(KIND_RECOVERED, 0, |buffer| codec::encode_into(&kept, buffer));
    }
    // The first record would else be the first that there ever was.
    let is_without = recovery::lacks_votes(found, recovered.snapshot);
    let is_unsure = recovered.standing == Standing::Unsure && is_without;
    // The next start may not be able to tell any more that there was no vote in what is lost.
    if standing_is_news || is_lost || is_unsure || !found.is_newest_critical_whole() {
        say_vote_again(writer, &vote).await?;
    }
    Ok(())
}

/// Writes the hard state once more: because it was not known before what the replica lacks, and
/// what tells of that may be gone at the next start; or because one of its copies is lost and the
/// next rotten sector could take the other, and with it what this node may have promised.
async fn say_vote_again<D: Disk>(
    writer: &mut wal::Writer<D>,
    vote: &wal::Record,
) -> Result<(), StorageError> {
    crate::probe!("replica.vote_is_said_again");
    writer.append_critical(vote.kind, vote.tag, |buffer| buffer.extend_from_slice(&vote.payload));
    match writer.write().await {
        Ok(()) => writer.sync().await,
        // It stays buffered, and is written with what comes next.
        Err(error) if error.is_no_space() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes the way to each peer.
pub(super) fn peer_outboxes(config: &NodeConfig) -> Vec<(NodeId, Arc<PeerOutbox>)> {
    let peers = config.members.iter().map(|(node, _)| *node).filter(|node| *node != config.node);
    peers.map(|node| (node, Arc::default())).collect()
}

fn core_config(config: &NodeConfig) -> raft::Config {
    let voters = config.members.iter().map(|(node, _)| *node).collect();
    raft::Config {
        election_timeout: config.election_timeout,
        heartbeat_interval: config.heartbeat_interval,
        log_entries_kept: config.log_entries_kept,
        append_entries_max: config.append_entries_max,
        // All that may be asked at a time, and as many again whose time-out is over.
        reads_max: config.requests_max.saturating_mul(2),
        snapshot_chunk_bytes: config.snapshot_chunk_bytes,
        held_bytes_max: config.behind_bytes_max,
        may_lose_committed: config.sync_policy.may_lose_committed(),
        ..raft::Config::new(config.node, voters)
    }
}

#[cfg(test)]
mod tests {
    use super::super::persist::{KIND_ENTRY, KIND_INSTALL};
    use super::*;
    use crate::base::Payload;
    use crate::raft::{Entry, EntryKind, HardState};
    use crate::storage::SnapshotPoint;
    use crate::storage::test_disk::{TestDisk, run};

    #[test]
    fn only_a_port_in_use_is_said_to_be_in_use() {
        for (kind, advice) in [
            (ErrorKind::AddrInUse, "another process"),
            (ErrorKind::AddrNotAvailable, "of this machine"),
            (ErrorKind::Other, "check --listen"),
        ] {
            let (address, source) = ("a:1".to_owned(), kind.into());
            let said = StartError::Listen { address, source }.to_string();
            assert!(said.starts_with("cannot listen on a:1: ") && said.contains(advice), "{said}");
        }
    }

    /// What a start knows that finds the state lost, which tells so much of how far it reached,
    /// and has this besides.
    fn without_state(
        point: Option<SnapshotPoint>,
        found: Recovered,
        installed: Option<SnapshotMeta>,
    ) -> Recovered {
        let mut recovered = found;
        let damage = Damage { point, path: String::new(), offset: 0, what: String::new() };
        lack_state(&mut recovered, &damage, installed);
        recovered
    }

    #[test]
    fn state_that_is_lost_is_lacked_as_far_as_anything_tells_and_asked_for_otherwise() {
        let meta = |index| SnapshotMeta { index, term: 2 };
        let found =
            Recovered { hard_state: HardState { term: 2, vote: None }, ..Recovered::default() };
        let point = Some(SnapshotPoint { index: 5, term: 2 });
        let told = without_state(point, found.clone(), None);
        assert_eq!((told.damaged_last, told.standing), (Some(meta(5)), Standing::Whole));
        let by_log = Recovered { damaged_last: Some(meta(7)), ..found.clone() };
        let told = without_state(None, by_log, None);
        assert_eq!((told.damaged_last, told.standing), (Some(meta(7)), Standing::Whole));
        // The accident: an old log before an installed snapshot, of which nothing was left, was
        // taken for all that the node ever had.
        let entry = Entry { term: 1, index: 3, kind: EntryKind::Noop };
        let old = Recovered { entries: vec![entry], ..found.clone() };
        let told = without_state(None, old, Some(meta(9)));
        assert_eq!((told.damaged_last, told.standing), (Some(meta(9)), Standing::Whole));
        let told = without_state(None, found, None);
        assert_eq!((told.damaged_last, told.standing), (None, Standing::Unsure));
    }

    #[test]
    fn lack_is_written_down_when_it_is_found_and_when_it_grows() {
        let meta = |index| SnapshotMeta { index, term: 2 };
        let mut recovered = Recovered::default();
        assert!(!note_lack(&mut recovered), "it lacks nothing");
        for index in [7, 9] {
            recovered.damaged_last = Some(meta(index));
            assert!(note_lack(&mut recovered), "{index}");
            assert_eq!(recovered.standing, Standing::Filling(meta(index)));
            assert!(!note_lack(&mut recovered), "{index} is known");
        }
        recovered.standing = Standing::Unsure;
        assert!(!note_lack(&mut recovered));
        assert_eq!(recovered.standing, Standing::Unsure, "it asks the others first");
    }

    /// Where the tables are that hold all entries of [`log_with_a_vote`].
    const TABLES: SnapshotMeta = SnapshotMeta { index: 4, term: 2 };

    const VOTE: HardState = HardState { term: 2, vote: Some(NodeId(2)) };

    /// Returns a disk with the log of a vote and four entries, each of which has its own sector.
    fn log_with_a_vote() -> TestDisk {
        let disk = TestDisk::default();
        let opened = run(wal::open(&disk, WAL_DIR, wal::Options::default()));
        let (mut writer, _) = opened.unwrap();
        let vote = vote_record(&VOTE, None);
        writer.append_critical(vote.kind, vote.tag, |buffer| buffer.extend(&vote.payload));
        for index in 1..=TABLES.index {
            let kind = EntryKind::Command(Payload::new(command(index)).unwrap());
            let entry = Entry { term: TABLES.term, index, kind };
            writer.append(KIND_ENTRY, index, |buffer| codec::encode_into(&entry, buffer));
            run(writer.write()).unwrap();
            run(writer.sync()).unwrap();
        }
        disk
    }

    fn command(index: u64) -> Vec<u8> {
        format!("command {index}").into_bytes()
    }

    /// Has the sector of an entry rot.
    fn lose_entry(disk: &TestDisk, index: u64) {
        let command = command(index);
        for (path, bytes) in disk.files(WAL_DIR) {
            let found = bytes.windows(command.len()).position(|window| window == command);
            let Some(at) = found else { continue };
            let sector = at / 512 * 512;
            disk.damage(&path, |content| content[sector..sector + 512].fill(0xFF));
        }
    }

    /// Starts a node whose tables hold everything, writes what its log must say, and returns what
    /// it knows.
    fn started(disk: &TestDisk) -> Recovered {
        let opened = run(wal::open(disk, WAL_DIR, wal::Options::default()));
        let (mut writer, found) = opened.unwrap();
        let mut recovered = recovery::replay(&found, TABLES).unwrap();
        run(prepare_log(&mut writer, &found, &mut recovered)).unwrap();
        run(writer.write()).unwrap();
        run(writer.sync()).unwrap();
        run(writer.mark()).unwrap();
        recovered
    }

    /// The accident: a start knew by the record after them that the lost ones were no votes. It
    /// copied that record elsewhere, where it tells nothing of what was before; and the next start
    /// took the vote for lost, and asked all other nodes what it had promised.
    #[test]
    fn vote_is_said_again_while_it_is_known_that_none_is_lost() {
        let disk = log_with_a_vote();
        lose_entry(&disk, 2);
        lose_entry(&disk, 3);
        // Nothing is lacked that the tables have, so nothing else has the vote said again.
        let whole = Recovered { hard_state: VOTE, snapshot: TABLES, ..Recovered::default() };
        assert_eq!(started(&disk), whole);
        assert_eq!(started(&disk), whole, "at the next start");
    }

    /// What a start knows that has found these tables, and no vote.
    fn unsure() -> Recovered {
        Recovered { snapshot: TABLES, standing: Standing::Unsure, ..Recovered::default() }
    }

    /// The accident: the files of a log were removed, and its tables not. The node took part as if
    /// it had never acknowledged anything after them, and what it alone had beside a node that was
    /// down was lost without a word.
    #[test]
    fn log_whose_files_are_gone_is_not_taken_for_one_that_ends_with_the_tables() {
        let disk = log_with_a_vote();
        disk.lose_all(WAL_DIR);
        let found = run(wal::inspect(&disk, WAL_DIR)).unwrap();
        assert!(found.is_blank());
        let config = |count: u64| {
            let members = (1..=count).map(|node| (NodeId(node), format!("n{node}"))).collect();
            NodeConfig::new(crate::base::ClusterId(1), NodeId(1), "n1", members)
        };
        let refused = report_damage(&config(1), &found, None, &unsure());
        assert!(matches!(refused, Err(StartError::Damaged { .. })), "alone: {refused:?}");
        assert!(report_damage(&config(3), &found, None, &unsure()).is_ok());
        assert_eq!(started(&disk), unsure());
        assert_eq!(started(&disk), unsure(), "at the next start");
    }

    #[test]
    fn log_that_has_lost_the_segments_with_its_vote_does_not_vote_as_if_there_had_been_none() {
        let disk = log_with_a_vote();
        // The first start begins a segment for what is not known to be durable.
        started(&disk);
        let oldest = disk.files(WAL_DIR).into_keys().next().unwrap();
        disk.lose(&oldest);
        assert!(!run(wal::inspect(&disk, WAL_DIR)).unwrap().is_blank());
        assert_eq!(started(&disk), unsure());
        assert_eq!(started(&disk), unsure(), "at the next start");
    }

    #[test]
    fn log_that_was_cut_behind_its_tables_still_has_its_vote() {
        let disk = log_with_a_vote();
        let whole = Recovered { hard_state: VOTE, snapshot: TABLES, ..Recovered::default() };
        for _ in 0..3 {
            let opened = run(wal::open(&disk, WAL_DIR, wal::Options { segment_bytes: 4096 }));
            let (mut writer, found) = opened.unwrap();
            let mut recovered = recovery::replay(&found, TABLES).unwrap();
            assert_eq!(recovered, whole);
            run(prepare_log(&mut writer, &found, &mut recovered)).unwrap();
            let oldest = disk.names(WAL_DIR).into_iter().next();
            run(async {
                while disk.names(WAL_DIR).into_iter().next() == oldest {
                    let installed = KIND_INSTALL;
                    writer.append(installed, 0, |buffer| codec::encode_into(&TABLES, buffer));
                    writer.write().await?;
                    writer.sync().await?;
                    writer.remove_through(TABLES.index).await?;
                }
                Ok::<_, StorageError>(())
            })
            .unwrap();
        }
    }
}
