//! The checkpoint directory against power loss, rot, a full disk, and a clumsy sender.

use std::ops::ControlFlow;

use super::*;
use crate::storage::test_disk::{Survives, TestDisk, run};
use crate::storage::{Change, CheckpointEngine, Engine};

const EXTRA: &[u8] = b"what was captured with the cells";

fn point(index: u64) -> SnapshotPoint {
    SnapshotPoint { index, term: 2 }
}

/// Returns a store whose state at `index` differs from that at any other.
fn store_at(index: u64) -> Store {
    let mut store = Store::default();
    for index in 1..=index {
        let (place, value) = ([7, u8::try_from(index % 5).unwrap_or(0)], index.to_le_bytes());
        store.write(point(index), &[Change::Set { place: &place, value: &value }]);
    }
    store
}

fn cells(store: &Store) -> Vec<(Vec<u8>, Vec<u8>, u64)> {
    let mut cells = Vec::new();
    let scanned = store.scan(&[], None, &mut |place, value, version| {
        cells.push((place.to_vec(), value.to_vec(), version));
        ControlFlow::Continue(())
    });
    assert_eq!(scanned, Ok(()), "memory can be read");
    cells
}

/// Returns the bytes of a checkpoint of `store`, cut as `bytes_max` has it.
fn chunks(store: &mut Store, bytes_max: usize) -> Vec<Vec<u8>> {
    store.begin_checkpoint(EXTRA.to_vec());
    let chunks = std::iter::from_fn(|| store.checkpoint_chunk(bytes_max));
    chunks.map(|chunk| chunk.bytes).collect()
}

/// Writes a checkpoint of the state at `index` as the shell does.
async fn write(checkpoints: &mut Checkpoints<TestDisk>, index: u64) -> Result<(), StorageError> {
    let mut store = store_at(index);
    store.begin_checkpoint(EXTRA.to_vec());
    let mut writer = checkpoints.writer();
    let mut complete = None;
    while let Some(chunk) = store.checkpoint_chunk(100) {
        if let Err(error) = writer.append(&chunk.bytes).await {
            writer.discard().await;
            return Err(error);
        }
        complete = chunk.complete;
    }
    checkpoints.adopt(writer.finish(complete.unwrap_or_default()).await?);
    Ok(())
}

/// Receives a snapshot of the state at `index` as the shell does.
async fn receive(
    checkpoints: &mut Checkpoints<TestDisk>,
    index: u64,
) -> Result<Store, ReceiveError> {
    let mut receiver = checkpoints.receiver(point(index));
    for chunk in chunks(&mut store_at(index), 100) {
        receiver.append(receiver.stored(), &chunk).await?;
    }
    let received = finish(receiver).await?;
    checkpoints.adopt(received.checkpoint);
    Ok(received.store)
}

fn open(disk: &TestDisk) -> (Checkpoints<TestDisk>, StoreRecovery) {
    run(Checkpoints::open(disk.clone())).unwrap_or_else(|error| panic!("{error}"))
}

/// Verifies and installs in one go.
async fn finish<D: Disk>(receiver: SnapshotReceiver<D>) -> Result<Received<D::File>, ReceiveError> {
    Ok(receiver.verify().await?.install().await?)
}

#[test]
fn directory_empty_gives_an_empty_store() {
    let (checkpoints, recovery) = open(&TestDisk::default());
    assert!(checkpoints.newest().is_none());
    assert_eq!((recovery.store.applied(), recovery.damaged), (SnapshotPoint::default(), None));
    assert!(recovery.extra.is_empty());
}

#[test]
fn checkpoint_written_is_loaded_again() {
    let disk = TestDisk::default();
    let (mut checkpoints, _) = open(&disk);
    run(write(&mut checkpoints, 5)).unwrap();
    run(write(&mut checkpoints, 9)).unwrap();
    assert_eq!(disk.names(DIRECTORY), ["checkpoint-9-2"]);
    let (checkpoints, recovery) = open(&disk.after_power_loss(Survives::NOTHING));
    assert_eq!(checkpoints.newest().unwrap().point, point(9));
    assert_eq!(recovery.store.applied(), point(9));
    assert_eq!(cells(&recovery.store), cells(&store_at(9)));
    assert_eq!((recovery.extra.as_slice(), recovery.damaged), (EXTRA, None));
}

#[test]
fn state_empty_round_trips() {
    let disk = TestDisk::default();
    let (mut checkpoints, _) = open(&disk);
    run(write(&mut checkpoints, 0)).unwrap();
    let (_, recovery) = open(&disk);
    assert_eq!((recovery.store.cell_count(), recovery.extra.as_slice()), (0, EXTRA));
}

/// The power goes, or the process ends, at each operation in turn while `act` makes the checkpoint
/// at 9 and the disk holds that at 5; then again at each operation of the recovery. Returns the
/// states that were found in the end.
fn crash_everywhere(
    act: &impl AsyncFn(&mut Checkpoints<TestDisk>) -> Result<(), String>,
) -> Vec<u64> {
    let mut seen = Vec::new();
    for step in 0.. {
        let disk = TestDisk::default();
        let (mut checkpoints, _) = open(&disk);
        run(write(&mut checkpoints, 5)).unwrap_or_else(|error| panic!("{error}"));
        disk.lose_power_at(disk.operation_count() + step);
        let acted = run(act(&mut checkpoints));
        let mut found = Vec::new();
        for survives in Survives::choices() {
            found.push(recover_with_crashes(&disk.after_power_loss(survives)));
        }
        found.push(recover_with_crashes(&disk));
        seen.extend_from_slice(&found);
        if acted.is_ok() {
            assert!(found.iter().all(|index| *index == 9), "acknowledged, then lost: {found:?}");
            break;
        }
    }
    seen.sort_unstable();
    seen.dedup();
    seen
}

/// Recovers, ending the process at each operation of that before it gets through; and after each
/// of these, what a power loss leaves recovers too. Returns the index.
fn recover_with_crashes(disk: &TestDisk) -> u64 {
    for step in 0.. {
        disk.restart();
        disk.lose_power_at(disk.operation_count() + step);
        let recovered = run(Checkpoints::open(disk.clone()));
        for survives in Survives::choices() {
            let (checkpoints, recovery) = open(&disk.after_power_loss(survives));
            assert!(checkpoints.newest().is_some(), "lost at step {step} with {survives:?}");
            assert_eq!(recovery.damaged, None, "nothing is damaged by a crash");
        }
        if let Ok((_, recovery)) = recovered {
            let index = recovery.store.applied().index;
            assert_eq!(recovery.damaged, None, "nothing is damaged by a crash");
            assert_eq!(cells(&recovery.store), cells(&store_at(index)), "state at {index}");
            assert_eq!(disk.names(DIRECTORY), [format!("checkpoint-{index}-2")]);
            return index;
        }
    }
    unreachable!("the steps do not end")
}

#[test]
fn crash_at_any_step_of_writing_leaves_the_old_or_the_new() {
    let seen = crash_everywhere(&async |checkpoints| {
        write(checkpoints, 9).await.map_err(|error| error.to_string())
    });
    assert_eq!(seen, [5, 9]);
}

#[test]
fn crash_at_any_step_of_receiving_leaves_the_old_or_the_new() {
    let seen = crash_everywhere(&async |checkpoints| {
        receive(checkpoints, 9).await.map(drop).map_err(|error| error.to_string())
    });
    assert_eq!(seen, [5, 9]);
}

#[cfg(feature = "testing")]
#[test]
fn planted_rename_without_sync_loses_the_checkpoint() {
    crate::base::planted::turn_on(Some("W5"));
    let disk = TestDisk::default();
    let (mut checkpoints, _) = open(&disk);
    run(write(&mut checkpoints, 5)).unwrap();
    crate::base::planted::turn_on(None);
    let (_, recovery) = open(&disk.after_power_loss(Survives::NOTHING));
    assert_eq!(recovery.damaged.unwrap().point, point(5));
}

#[test]
fn bit_flipped_anywhere_is_noticed() {
    let disk = TestDisk::default();
    let (mut checkpoints, _) = open(&disk);
    run(write(&mut checkpoints, 5)).unwrap();
    let path = "checkpoint/checkpoint-5-2";
    let whole = disk.contents(path);
    for bit in 0..whole.len() * 8 {
        disk.damage(path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        let loaded = run(async { load(&disk.open(path).await?, path).await });
        let noticed = matches!(loaded, Err(StorageError::Corrupt { .. }));
        assert!(noticed, "bit {bit} is flipped: {loaded:?}");
        disk.damage(path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
    }
    for len in 0..whole.len() {
        disk.damage(path, |bytes| bytes.truncate(len));
        let loaded = run(async { load(&disk.open(path).await?, path).await });
        assert!(matches!(loaded, Err(StorageError::Corrupt { .. })), "cut to {len}: {loaded:?}");
        disk.damage(path, |bytes| bytes.clone_from(&whole));
    }
    disk.damage(path, |bytes| bytes.push(0));
    let loaded = run(async { load(&disk.open(path).await?, path).await });
    assert!(matches!(loaded, Err(StorageError::Corrupt { .. })), "one byte more: {loaded:?}");
}

#[test]
fn block_of_an_older_file_at_the_same_place_is_noticed() {
    let disk = TestDisk::default();
    let (mut checkpoints, _) = open(&disk);
    run(write(&mut checkpoints, 10)).unwrap();
    let older = chunks(&mut store_at(5), usize::MAX).concat();
    let cells_bytes = u32::from_le_bytes(older[17..21].try_into().unwrap());
    let cells_end = 16 + 9 + usize::try_from(cells_bytes).unwrap();
    // Of the same length, with a checksum of its own: only what follows tells that it is old.
    disk.damage("checkpoint/checkpoint-10-2", |bytes| {
        assert_eq!(bytes.len(), older.len());
        assert_ne!(bytes[..cells_end], older[..cells_end]);
        bytes[..cells_end].copy_from_slice(&older[..cells_end]);
    });
    let (_, recovery) = open(&disk);
    assert_eq!(recovery.damaged.unwrap().point, point(10));
}

#[test]
fn checkpoint_damaged_is_kept_and_reported_until_replaced() {
    let disk = TestDisk::default();
    let (mut checkpoints, _) = open(&disk);
    run(write(&mut checkpoints, 5)).unwrap();
    disk.damage("checkpoint/checkpoint-5-2", |bytes| bytes[40] ^= 1);
    for _start in 0..3 {
        let (_, recovery) = open(&disk);
        assert_eq!(recovery.store.cell_count(), 0);
        let damaged = recovery.damaged.unwrap();
        assert_eq!(damaged.point, point(5));
        assert_eq!(damaged.path, "checkpoint/checkpoint-5-2.damaged");
        assert_eq!(disk.names(DIRECTORY), ["checkpoint-5-2.damaged"]);
    }
    let (mut checkpoints, _) = open(&disk);
    run(receive(&mut checkpoints, 4)).unwrap();
    assert!(open(&disk).1.damaged.is_some(), "what was received is older than what is lost");
    let (mut checkpoints, _) = open(&disk);
    run(receive(&mut checkpoints, 5)).unwrap();
    assert_eq!(open(&disk).1.damaged, None);
    assert_eq!(disk.names(DIRECTORY), ["checkpoint-5-2"]);
}

#[test]
fn checkpoint_damaged_falls_back_to_an_older_one_and_says_so() {
    let disk = TestDisk::default();
    let (mut checkpoints, _) = open(&disk);
    run(write(&mut checkpoints, 5)).unwrap();
    let older = disk.contents("checkpoint/checkpoint-5-2");
    run(write(&mut checkpoints, 9)).unwrap();
    run(disk.create("checkpoint/checkpoint-5-2")).unwrap();
    disk.damage("checkpoint/checkpoint-5-2", |bytes| bytes.clone_from(&older));
    disk.damage("checkpoint/checkpoint-9-2", |bytes| bytes.truncate(50));
    let (_, recovery) = open(&disk);
    assert_eq!(recovery.store.applied(), point(5));
    assert_eq!(recovery.damaged.unwrap().point, point(9));
}

#[test]
fn checkpoint_under_another_name_is_damaged() {
    let disk = TestDisk::default();
    let (mut checkpoints, _) = open(&disk);
    run(write(&mut checkpoints, 5)).unwrap();
    run(disk.rename("checkpoint/checkpoint-5-2", "checkpoint/checkpoint-6-2")).unwrap();
    assert_eq!(open(&disk).1.damaged.unwrap().point, point(6));
}

#[test]
fn checkpoint_of_a_newer_format_stops_the_start() {
    let disk = TestDisk::default();
    let (mut checkpoints, _) = open(&disk);
    run(write(&mut checkpoints, 5)).unwrap();
    disk.damage("checkpoint/checkpoint-5-2", |bytes| {
        bytes[8] = 2;
        let crc = crate::base::checksum::crc32(&bytes[..12]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    });
    let refused = run(Checkpoints::open(disk.clone())).unwrap_err();
    assert!(matches!(refused, StorageError::Format { .. }), "{refused}");
    assert_eq!(disk.names(DIRECTORY), ["checkpoint-5-2"]);
}

#[test]
fn disk_full_while_writing_is_harmless() {
    let disk = TestDisk::default();
    let (mut checkpoints, _) = open(&disk);
    run(write(&mut checkpoints, 5)).unwrap();
    let needed = disk.contents("checkpoint/checkpoint-5-2").len();
    disk.set_space(Some(needed + needed / 2));
    let refused = run(write(&mut checkpoints, 9)).unwrap_err();
    assert!(refused.is_no_space(), "{refused}");
    assert_eq!(disk.names(DIRECTORY), ["checkpoint-5-2"]);
    assert_eq!(checkpoints.newest().unwrap().point, point(5));
    disk.set_space(None);
    run(write(&mut checkpoints, 9)).unwrap();
    assert_eq!(open(&disk).1.store.applied(), point(9));
}

#[test]
fn pieces_twice_or_too_early_change_nothing() {
    let disk = TestDisk::default();
    let (mut checkpoints, _) = open(&disk);
    let bytes = chunks(&mut store_at(9), usize::MAX).concat();
    let mut receiver = checkpoints.receiver(point(9));
    let mut stored = 0;
    for piece in bytes.chunks(33) {
        let end = stored + u64::try_from(piece.len()).unwrap();
        let early = run(receiver.append(end, piece));
        assert_eq!(early, Err(ReceiveError::Misplaced { stored }));
        assert_eq!(run(receiver.append(stored, piece)), Ok(end));
        let twice = run(receiver.append(stored, piece));
        assert_eq!(twice, Err(ReceiveError::Misplaced { stored: end }));
        stored = end;
    }
    let received = run(finish(receiver)).unwrap();
    assert_eq!(cells(&received.store), cells(&store_at(9)));
    assert_eq!(received.extra, EXTRA);
}

#[test]
fn snapshot_damaged_incomplete_or_of_another_state_is_thrown_away() {
    let disk = TestDisk::default();
    let (mut checkpoints, _) = open(&disk);
    run(write(&mut checkpoints, 5)).unwrap();
    let whole = chunks(&mut store_at(9), usize::MAX).concat();
    let mut flipped = whole.clone();
    flipped[60] ^= 8;
    let short = &whole[..whole.len() - 1];
    for (bytes, index) in [(&flipped[..], 9), (short, 9), (&whole, 10), (&[], 9)] {
        let mut receiver = checkpoints.receiver(point(index));
        run(receiver.append(0, bytes)).unwrap();
        let refused = run(finish(receiver)).unwrap_err();
        assert!(matches!(refused, ReceiveError::Damaged(_)), "{refused}");
        assert_eq!(disk.names(DIRECTORY), ["checkpoint-5-2"]);
    }
}

#[test]
fn piece_refused_by_a_full_disk_may_be_sent_again() {
    let disk = TestDisk::default();
    let (mut checkpoints, _) = open(&disk);
    let bytes = chunks(&mut store_at(9), usize::MAX).concat();
    let mut receiver = checkpoints.receiver(point(9));
    run(receiver.append(0, &bytes[..50])).unwrap();
    disk.set_space(Some(60));
    assert!(run(receiver.append(50, &bytes[50..])).is_err(), "60 bytes are not enough");
    assert_eq!(receiver.stored(), 50);
    disk.set_space(None);
    run(receiver.append(50, &bytes[50..])).unwrap();
    assert_eq!(run(finish(receiver)).unwrap().store.applied(), point(9));
}

#[test]
fn transfer_under_way_ends_though_the_file_is_replaced() {
    let disk = TestDisk::default();
    let (mut checkpoints, _) = open(&disk);
    assert_eq!(checkpoints.read_chunk(None, 0, 10), Ok(None));
    run(write(&mut checkpoints, 5)).unwrap();
    let first = checkpoints.read_chunk(None, 0, 30).unwrap().unwrap();
    assert_eq!((first.point, first.offset, first.done), (point(5), 0, false));
    let mut bytes = first.bytes;
    for index in 6.. {
        run(write(&mut checkpoints, index)).unwrap();
        let offset = u64::try_from(bytes.len()).unwrap();
        let piece = checkpoints.read_chunk(Some(point(5)), offset, 30).unwrap().unwrap();
        assert_eq!((piece.point, piece.offset), (point(5), offset));
        bytes.extend_from_slice(&piece.bytes);
        if piece.done {
            break;
        }
    }
    assert_eq!(bytes, chunks(&mut store_at(5), usize::MAX).concat());
}

#[test]
fn transfer_of_a_forgotten_file_starts_over_with_the_newest() {
    let disk = TestDisk::default();
    let (mut checkpoints, _) = open(&disk);
    run(write(&mut checkpoints, 5)).unwrap();
    checkpoints.read_chunk(None, 0, 30).unwrap();
    run(write(&mut checkpoints, 6)).unwrap();
    run(write(&mut checkpoints, 7)).unwrap();
    let piece = checkpoints.read_chunk(Some(point(5)), 30, 30).unwrap().unwrap();
    assert_eq!((piece.point, piece.offset, piece.done), (point(7), 0, false));
}

#[test]
fn checkpoint_finished_late_does_not_replace_a_newer_one() {
    let disk = TestDisk::default();
    let (mut checkpoints, _) = open(&disk);
    let mut late = checkpoints.writer();
    run(late.append(&chunks(&mut store_at(5), usize::MAX).concat())).unwrap();
    run(receive(&mut checkpoints, 9)).unwrap();
    checkpoints.adopt(run(late.finish(point(5))).unwrap());
    assert_eq!(checkpoints.newest().unwrap().point, point(9));
    let (_, recovery) = open(&disk);
    assert_eq!((recovery.store.applied(), recovery.damaged), (point(9), None));
    assert_eq!(disk.names(DIRECTORY), ["checkpoint-9-2"]);
}
