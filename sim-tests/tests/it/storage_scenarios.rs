//! Directed scenarios of the table store: the disk fails at the very step where it hurts.

use std::time::Duration;

use mangrove::replica::WAL_DIR;
use sim_tests::nemesis::Action;
use sim_tests::options::Options;
use sim_tests::run::Scene;
use sim_tests::world::FileState;

use crate::scenarios::{MS, busy, follower_of, hits, holds, observable, shrink_tables};

/// Where the two copies begin in the name plate of a data directory.
const PLATE_COPIES: [u64; 2] = [0, 4096];

/// Pause between two looks at a disk: a sync takes longer.
const LOOK: Duration = Duration::from_micros(100);

/// Bytes of a table's tail, and where in it the offset of the meta-frame is.
const TAIL: (u64, u64) = (44, 16);
/// Where in the meta-frame the offsets of filter and index are.
const SECTIONS: (u64, u64) = (32 + 7 * 8, 32 + 8 * 8);

/// Options of a busy cluster that flushes and compacts all the time.
fn stored(seed: u64) -> Options {
    let mut options = busy(seed);
    let tuning = &mut options.tuning;
    shrink_tables(tuning);
    tuning.log_entries_kept = 0;
    tuning.value_bytes_max = 200;
    tuning.scrub_bytes_per_second = 0;
    tuning.snapshot_chunk_bytes = 512;
    options
}

/// The same with pauses between the flushes, in which the scrubber gets its turn.
fn scrubbed(seed: u64) -> Options {
    let mut options = stored(seed);
    options.think_time = 400 * MS;
    options.tuning.flush_log_bytes = 1 << 14;
    options.tuning.tree.memtable_bytes = 1 << 10;
    options.tuning.scrub_bytes_per_second = 1 << 20;
    options
}

/// A step of the table store, as it shows on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// One table is being written.
    Flush,
    /// Several are.
    Compaction,
    /// All tables are durable, and the manifest that names them is not.
    Manifest,
    /// A snapshot is there, and tables are made of it.
    Install,
}

impl Moment {
    fn is_now(self, files: &[FileState]) -> bool {
        let named = |prefix: &str| files.iter().any(|file| file.path.starts_with(prefix));
        let is_begun = |file: &&FileState| {
            file.path.starts_with("tables/table-") && !(file.is_synced && file.is_name_durable)
        };
        let begun = files.iter().filter(is_begun).count();
        match self {
            Self::Flush => begun == 1,
            Self::Compaction => begun >= 2,
            Self::Manifest => named("tables/MANIFEST.tmp"),
            Self::Install => begun >= 1 && named("snapshot/incoming"),
        }
    }
}

/// Waits until something can be seen on the disk of a node; tells whether it was.
async fn sees(scene: &mut Scene, node: u64, what: impl Fn(&[FileState]) -> bool) -> bool {
    let end = scene.world.now() + 5000 * MS;
    while scene.world.now() < end {
        if what(&scene.world.files(scene.cluster.server(node))) {
            return true;
        }
        scene.pass(LOOK).await;
    }
    false
}

fn file_of(scene: &Scene, node: u64, prefix: &str) -> FileState {
    let files = scene.world.files(scene.cluster.server(node));
    let file = files.iter().find(|file| file.path.starts_with(prefix) && file.is_synced);
    file.unwrap_or_else(|| panic!("node {node} has no {prefix} among {files:?}")).clone()
}

/// Returns a number that a table holds, little-endian.
fn number_at(scene: &Scene, node: u64, table: &FileState, offset: u64) -> u64 {
    let bytes = scene.world.peek(scene.cluster.server(node), table, offset, 8);
    bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

async fn crash(scene: &mut Scene, node: u64, down: Duration) {
    scene.perform(Action::Crash { node, while_busy: false, down }).await;
}

async fn fill_disk(scene: &mut Scene, node: u64) {
    scene.perform(Action::DiskFull { node, room_bytes: 0, length: 1500 * MS }).await;
}

/// Lets a follower be away for so long that it needs a snapshot; returns it and the leader.
async fn leave_behind(scene: &mut Scene) -> (u64, u64) {
    let leader = scene.leader().await;
    let node = follower_of(leader);
    scene.pass(500 * MS).await;
    crash(scene, node, 3000 * MS).await;
    scene.pass(2900 * MS).await;
    (scene.leader().await, node)
}

/// Takes the power or the process of a node at a moment, again and again.
fn strike_at(moment: Moment, seed: u64) {
    for kind in 0..3 {
        let report = holds(&stored(seed + kind), async move |scene| {
            let mut struck = 0;
            for round in 0..6 {
                let leader = scene.leader().await;
                let node = if round % 2 == 0 { leader } else { follower_of(leader) };
                if sees(scene, node, |files| moment.is_now(files)).await {
                    struck += 1;
                    let (nodes, strict, down) = (vec![node], kind == 0, 100 * MS);
                    if kind < 2 {
                        let (while_busy, nodes) = (false, nodes);
                        let loss = Action::PowerLoss { nodes, strict, while_busy, down };
                        scene.perform(loss).await;
                    } else {
                        crash(scene, node, down).await;
                    }
                }
                scene.pass(500 * MS).await;
            }
            assert!(struck >= 4, "{moment:?} was seen {struck} times");
        });
        assert!(report.acknowledged > 50, "{moment:?}: {} answers", report.acknowledged);
    }
}

#[test]
fn node_that_dies_while_a_memtable_is_flushed_loses_nothing() {
    strike_at(Moment::Flush, 100);
}

#[test]
fn node_that_dies_in_a_compaction_loses_nothing() {
    strike_at(Moment::Compaction, 110);
}

#[test]
fn node_that_dies_between_table_and_manifest_loses_nothing() {
    strike_at(Moment::Manifest, 120);
}

#[test]
fn node_that_dies_while_it_installs_a_snapshot_gets_it_again() {
    let mut struck = 0;
    for seed in 130..134 {
        let strict = seed % 2 == 0;
        let (sender, receiver) = std::sync::mpsc::channel();
        let report = holds(&stored(seed), async move |scene| {
            let (_, node) = leave_behind(scene).await;
            let is_seen = sees(scene, node, |files| Moment::Install.is_now(files)).await;
            if is_seen {
                let (nodes, while_busy, down) = (vec![node], false, 100 * MS);
                scene.perform(Action::PowerLoss { nodes, strict, while_busy, down }).await;
            }
            sender.send(is_seen).unwrap();
            scene.pass(3000 * MS).await;
        });
        assert!(hits(&report, "raft.follower_needs_snapshot") > 0, "{:?}", report.probes);
        struck += u32::from(receiver.recv().unwrap());
    }
    assert!(struck >= 2, "an installation was seen {struck} times");
}

fn has_table(files: &[FileState]) -> bool {
    files.iter().any(|file| file.path.starts_with("tables/table-") && file.is_synced)
}

/// What of the store rots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Cells,
    Index,
    Filter,
    Manifest,
    Log,
}

/// How it rots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decay {
    /// A bit flips.
    Bit,
    /// A sector cannot be read any more.
    Sector,
}

impl Decay {
    fn code(self) -> &'static str {
        match self {
            Self::Bit => "D10",
            Self::Sector => "D9",
        }
    }
}

fn rot(scene: &mut Scene, node: u64, part: Part, decay: Decay) {
    let host = scene.cluster.server(node);
    let table = || {
        let table = file_of(scene, node, "tables/table-");
        let (tail_bytes, at) = TAIL;
        let tail = table.bytes - tail_bytes;
        let meta = number_at(scene, node, &table, tail + at);
        (table, meta)
    };
    let (file, offset) = match part {
        Part::Cells => (table().0, 50),
        Part::Filter | Part::Index => {
            let (table, meta) = table();
            let field = if part == Part::Filter { SECTIONS.0 } else { SECTIONS.1 };
            let offset = number_at(scene, node, &table, meta + field);
            (table, offset + 40)
        }
        Part::Manifest => (file_of(scene, node, "tables/MANIFEST"), 60),
        Part::Log => (file_of(scene, node, "wal/0"), 512 + 40),
    };
    match decay {
        Decay::Bit => scene.world.rot_at(host, &file, offset),
        Decay::Sector => scene.world.lose_sector_at(host, &file, offset),
    }
    scene.cluster.note_rot(node, part == Part::Log);
}

/// Lets one part of a follower rot while it is down, and returns how often each probe was hit.
fn probes_after_rot(part: Part, decay: Decay, seed: u64) -> impl Fn(&str) -> u64 {
    // What is not read at the start has to wait for the scrubber.
    let is_found_late = part == Part::Cells;
    let options = if is_found_late { scrubbed(seed) } else { stored(seed) };
    let time = if is_found_late { 10_000 * MS } else { 2500 * MS };
    let report = holds(&options, async move |scene| {
        let node = follower_of(scene.leader().await);
        scene.pass(time).await;
        assert!(sees(scene, node, has_table).await, "nothing was ever flushed");
        rot(scene, node, part, decay);
        crash(scene, node, 50 * MS).await;
        scene.pass(time).await;
    });
    let is_seen = observable(&report, decay.code()) > 0;
    assert!(is_found_late || is_seen, "{part:?}, {decay:?}: {:?}", report.faults);
    move |probe| hits(&report, probe)
}

#[test]
fn rot_in_the_cells_of_a_table_condemns_the_state_until_it_is_replaced() {
    let (mut condemned, mut replaced) = (0, 0);
    // Not every time: the table may be merged away, or the scrubber may not come to it.
    for seed in 160..165 {
        let hits = probes_after_rot(Part::Cells, Decay::Bit, seed);
        condemned += hits("replica.state_is_condemned");
        replaced += hits("tree.damage_is_replaced");
    }
    assert!(condemned > 0, "nobody noticed");
    assert!(replaced > 0, "nothing replaced it");
}

#[test]
fn rot_in_the_index_or_filter_of_a_table_is_found_at_the_start() {
    for (part, decay) in [
        (Part::Index, Decay::Bit),
        (Part::Filter, Decay::Bit),
        (Part::Index, Decay::Sector),
        (Part::Filter, Decay::Sector),
    ] {
        let hits = probes_after_rot(part, decay, 141);
        assert!(hits("tree.state_is_lost") > 0, "{part:?}, {decay:?}: nobody noticed");
        assert!(hits("tree.damage_is_replaced") > 0, "{part:?}, {decay:?}: nothing replaced it");
    }
}

#[test]
fn rot_in_one_copy_of_the_manifest_is_mended_from_the_other() {
    for decay in [Decay::Bit, Decay::Sector] {
        let hits = probes_after_rot(Part::Manifest, decay, 142);
        assert!(hits("tree.manifest_copy_is_damaged") > 0, "{decay:?}: nobody noticed");
        assert_eq!(hits("tree.state_is_lost"), 0, "{decay:?}: the other copy was whole");
    }
}

/// Lets one copy of a node's name plate rot while the node is down, then the other one.
pub(crate) fn outlives_the_rot_of_its_name_plate(options: &Options) {
    for decay in [Decay::Bit, Decay::Sector] {
        let report = holds(options, async move |scene| {
            let node = 2;
            scene.pass(1500 * MS).await;
            for copy in PLATE_COPIES {
                crash(scene, node, 200 * MS).await;
                let (host, plate) = (scene.cluster.server(node), file_of(scene, node, "NODE"));
                // No checker is told: the run is held to all that it owes with whole disks.
                match decay {
                    Decay::Bit => scene.world.rot_at(host, &plate, copy + 13),
                    Decay::Sector => scene.world.lose_sector_at(host, &plate, copy + 13),
                }
                scene.pass(2000 * MS).await;
                assert!(scene.world.is_running(host), "{decay:?}: node {node} does not run");
                let mended = file_of(scene, node, "NODE");
                assert!(mended.id != plate.id && mended.is_name_durable, "{decay:?}: {mended:?}");
                let [first, second] =
                    PLATE_COPIES.map(|copy| scene.world.peek(host, &mended, copy, 4096));
                assert!(first == second && first.len() == 4096, "{decay:?}: one copy is missing");
            }
            let before = scene.acknowledged();
            scene.pass(1000 * MS).await;
            assert!(scene.acknowledged() > before, "{decay:?}: nothing is answered");
        });
        assert_eq!(hits(&report, "replica.name_plate_copy_is_damaged"), 2, "{decay:?}");
        assert!(observable(&report, decay.code()) >= 2, "{decay:?}: {:?}", report.faults);
        assert_eq!(report.stop_count, 0, "{decay:?}: a node stopped by itself");
    }
}

/// The accident: one flipped bit in the file that says whose directory it is kept a node with a
/// sound log and sound tables away for ever.
#[test]
fn name_plate_that_rots_in_one_copy_is_mended_at_the_start() {
    outlives_the_rot_of_its_name_plate(&busy(180));
}

#[test]
fn rot_in_the_log_under_tables_is_refilled() {
    for decay in [Decay::Bit, Decay::Sector] {
        let hits = probes_after_rot(Part::Log, decay, 143);
        assert!(hits("wal.reports_damage") > 0, "{decay:?}: nobody noticed");
        assert_eq!(hits("wal.reads_unreadable_sector") > 0, decay == Decay::Sector, "{decay:?}");
    }
}

#[test]
fn table_that_cannot_be_read_costs_the_state_until_it_is_replaced() {
    let (mut noticed, mut replaced) = (0, 0);
    for seed in 160..165 {
        // The first cells share their sector with what a start reads.
        let hits = probes_after_rot(Part::Cells, Decay::Sector, seed);
        noticed += hits("tree.state_is_lost") + hits("replica.state_is_condemned");
        replaced += hits("tree.damage_is_replaced");
    }
    assert!(noticed > 0, "nobody noticed");
    assert!(replaced > 0, "nothing replaced it");
}

/// Fills a disk at a moment, three times, and tells how often a probe was hit.
fn hits_when_full_at(moment: Moment, seed: u64, probe: &str) -> u64 {
    let report = holds(&stored(seed), async move |scene| {
        for round in 0..4 {
            let leader = scene.leader().await;
            let node = if round % 2 == 0 { leader } else { follower_of(leader) };
            if sees(scene, node, |files| moment.is_now(files)).await {
                fill_disk(scene, node).await;
            }
            scene.pass(2500 * MS).await;
        }
        let before = scene.acknowledged();
        scene.pass(1000 * MS).await;
        assert!(scene.acknowledged() > before, "nothing is answered with space again");
    });
    hits(&report, probe)
}

#[test]
fn disk_that_is_full_in_a_flush_delays_it() {
    assert!(hits_when_full_at(Moment::Flush, 150, "replica.flush_waits_for_space") > 0);
}

#[test]
fn disk_that_is_full_in_a_compaction_delays_it() {
    assert!(hits_when_full_at(Moment::Compaction, 151, "replica.compaction_has_no_space") > 0);
}

#[test]
fn disk_that_is_full_when_a_snapshot_comes_gets_it_later() {
    let report = holds(&stored(152), async |scene| {
        let (_, node) = leave_behind(scene).await;
        let comes = |files: &[FileState]| {
            files.iter().any(|file| file.path.starts_with("snapshot/incoming"))
        };
        assert!(sees(scene, node, comes).await, "no snapshot came");
        fill_disk(scene, node).await;
        scene.pass(4000 * MS).await;
    });
    // The follower says that it could not use the snapshot, and is sent another one.
    assert!(hits(&report, "replica.snapshot_renewed_for_follower") > 0, "{:?}", report.probes);
    assert!(hits(&report, "raft.snapshot_replaces_log") > 0, "{:?}", report.probes);
}

#[test]
fn leader_with_rotten_tables_steps_aside_and_is_refilled() {
    // A compaction may take the rotten table away before anybody reads it; then nothing happens.
    let mut condemned = 0;
    for seed in 160..172 {
        let report = holds(&scrubbed(seed), async |scene| {
            scene.pass(10_000 * MS).await;
            let leader = scene.leader().await;
            assert!(sees(scene, leader, has_table).await, "nothing was ever flushed");
            rot(scene, leader, Part::Cells, Decay::Bit);
            let before = scene.acknowledged();
            scene.pass(15_000 * MS).await;
            assert!(scene.acknowledged() > before, "nobody serves after the leader");
        });
        if hits(&report, "replica.state_is_condemned") == 0 {
            continue;
        }
        condemned += 1;
        assert!(report.elections > 1, "seed {seed}: {} elections", report.elections);
        assert!(hits(&report, "tree.damage_is_replaced") > 0, "seed {seed}: {:?}", report.probes);
    }
    assert!(condemned > 0, "nobody has read the rot");
}

#[test]
fn snapshot_that_rots_while_it_is_sent_is_made_anew() {
    let mut options = stored(170);
    options.tuning.snapshot_chunk_bytes = 256;
    let report = holds(&options, async |scene| {
        let (leader, _) = leave_behind(scene).await;
        // The file that is sent has no name, and is never synced.
        let sent = |files: &[FileState]| {
            let file = files.iter().find(|file| file.path.is_empty() && !file.is_synced);
            file.filter(|file| file.bytes > 1024).cloned()
        };
        assert!(sees(scene, leader, |files| sent(files).is_some()).await, "nothing is sent");
        let host = scene.cluster.server(leader);
        let file = sent(&scene.world.files(host)).unwrap();
        scene.world.rot_at(host, &file, file.bytes - 20);
        scene.cluster.note_rot(leader, false);
        scene.pass(4000 * MS).await;
    });
    assert!(hits(&report, "snapshot.received_damaged") > 0, "{:?}", report.probes);
    assert!(hits(&report, "replica.snapshot_renewed_for_follower") > 0, "{:?}", report.probes);
}

/// Found by the swarm (masterless storage seed 220000170): steps towards the next segment of the
/// log are taken beside the batches, and a node whose disk refused one heard of it only when it had
/// to write again.
#[test]
fn node_whose_disk_refuses_the_next_segment_stops_without_another_write() {
    let mut options = busy(64);
    options.client_count = 1;
    options.think_time = 100 * MS;
    options.tuning.wal_segment_bytes = 1 << 12;
    let report = holds(&options, async |scene| {
        let node = follower_of(scene.leader().await);
        let is_filling = |files: &[FileState]| {
            let spare = format!("{WAL_DIR}/spare.tmp");
            files.iter().any(|file| file.path == spare && !file.is_synced)
        };
        assert!(sees(scene, node, is_filling).await, "no step is taken beside the batches");
        let (stopped, answered) = (scene.cluster.stop_count(), scene.acknowledged());
        let host = scene.cluster.server(node);
        scene.world.change_disk(host, |disk| disk.sync_error = 1.0);
        scene.pass(20 * MS).await;
        scene.world.change_disk(host, |disk| disk.sync_error = 0.0);
        assert_eq!(scene.cluster.stop_count(), stopped + 1, "the node goes on");
        // The step follows a write, which may be answered after it has begun.
        assert!(scene.acknowledged() <= answered + 1, "another write was made meanwhile");
        scene.pass(2000 * MS).await;
    });
    assert_eq!(observable(&report, "D5"), 1, "{:?}", report.faults.get("D5"));
}

/// Tables that do not keep up hold writes back; who has waited too long is told that its write was
/// not applied, and the checkers take that at its word.
#[test]
fn write_that_waits_for_tables_too_long_was_not_applied() {
    let mut options = stored(181);
    options.client_count = 5;
    options.tuning.tree.level0_tables_max = 3;
    let report = holds(&options, async |scene| {
        let node = scene.leader().await;
        scene.pass(1000 * MS).await;
        scene.perform(Action::Slow { node, factor: 100, length: 20_000 * MS }).await;
        scene.pass(25_000 * MS).await;
        let before = scene.acknowledged();
        scene.pass(1000 * MS).await;
        assert!(scene.acknowledged() > before, "nothing is answered on a quick disk again");
    });
    assert!(hits(&report, "replica.write_is_held_back_too_long") > 0, "{:?}", report.probes);
}
