//! Appending, rotating, removing, a full disk and a failing one.

use super::super::unwitnessed;
use super::*;
use crate::base::Rng;
use crate::env::{Disk, DiskErrorKind, File};
use crate::storage::test_disk::{Faults, Survives, TestDisk};

#[test]
fn empty_log_opens_and_counts_from_one() {
    let disk = TestDisk::default();
    let (mut writer, recovery) = open(&disk);
    assert_eq!((recovery.records.len(), recovery.next), (0, 1));
    assert_eq!(append(&mut writer, 1, 10), 1);
    assert_eq!((writer.next(), writer.written(), writer.durable()), (2, 0, 0));
}

#[test]
fn synced_records_come_back_in_order() {
    let disk = TestDisk::default();
    let (mut writer, _) = open(&disk);
    for tag in 1..=100 {
        append(&mut writer, tag, 150);
        commit(&mut writer).unwrap();
    }
    assert_eq!(writer.durable(), 100);
    disk.power_loss(&mut Rng::new(1), 0.0);
    let (_, recovery) = open(&disk);
    assert_eq!(tags(&recovery), (1..=100).collect::<Vec<_>>());
    for record in &recovery.records {
        assert_eq!(record.payload, payload(record.tag, 150));
    }
    assert_eq!((recovery.damage, recovery.torn), (vec![], None));
}

#[test]
fn batch_is_one_write_and_one_sync() {
    let disk = TestDisk::default();
    let (mut writer, _) = open(&disk);
    // The first batches also prepare the next segment.
    commit_batch(&mut writer, 1);
    commit_batch(&mut writer, 2);
    let (writes, syncs) = (disk.write_count(), disk.sync_count());
    commit_batch(&mut writer, 3);
    assert_eq!((disk.write_count() - writes, disk.sync_count() - syncs), (1, 1));
}

fn commit_batch(writer: &mut Writer<TestDisk>, batch: u64) {
    for tag in 0..5 {
        append(writer, batch * 5 + tag, 100);
    }
    commit(writer).unwrap();
}

#[test]
fn record_larger_than_a_segment_has_one_to_itself() {
    let disk = TestDisk::default();
    let (mut writer, _) = open(&disk);
    for (tag, bytes) in [(1, 10), (2, 100_000), (3, 10), (4, 50_000)] {
        append(&mut writer, tag, bytes);
        commit(&mut writer).unwrap();
    }
    let (_, recovery) = open(&disk);
    assert_eq!(tags(&recovery), [1, 2, 3, 4]);
    assert_eq!(recovery.records[1].payload, payload(2, 100_000));
}

#[test]
fn rotation_is_prepared_before_it_is_due() {
    let disk = TestDisk::default();
    let (mut writer, _) = open(&disk);
    append(&mut writer, 1, 3000);
    commit(&mut writer).unwrap();
    let spare = disk.files(DIR)["wal/spare.tmp"].clone();
    assert_eq!(spare, vec![0; 8 << 10]);
    append(&mut writer, 2, 5000);
    commit(&mut writer).unwrap();
    assert_eq!(disk.files(DIR).keys().filter(|name| is_segment(name)).count(), 2);
    assert_eq!(writer.segment_count(), 2);
}

/// The accident: the first segment has 1 MiB and the next had 64, made in steps that did not depend
/// on the batch. So it was far from ready when it was needed: every new cluster stood still for
/// half a second in its first load, long enough for an election.
#[test]
fn large_batches_do_not_get_ahead_of_the_next_segment() {
    let disk = TestDisk::default();
    let options = Options { segment_bytes: 16 << 20 };
    let (mut writer, _) = now(super::super::open(&disk, DIR, options)).unwrap();
    let mut sizes = Vec::new();
    for tag in 1..=60 {
        let (segments, syncs) = (writer.segment_count(), disk.sync_count());
        append(&mut writer, tag, 150_000);
        now(writer.write()).unwrap();
        if segments < writer.segment_count() || tag == 1 {
            // A name is that of the first record, and here the tag is its sequence.
            sizes.push(now(disk.open(&segment::path(DIR, tag))).unwrap().len().unwrap());
        }
        assert!(disk.sync_count() - syncs <= 1, "the write of record {tag} waits for zeros");
        now(writer.sync()).unwrap();
        now(writer.prepare()).unwrap();
    }
    assert_eq!(sizes, [1 << 20, 4 << 20, 16 << 20]);
}

#[test]
fn segments_go_once_their_tags_and_votes_are_not_needed() {
    let disk = TestDisk::default();
    let (mut writer, _) = open(&disk);
    append_vote(&mut writer, 1);
    for tag in 1..=100 {
        append(&mut writer, tag, 300);
        commit(&mut writer).unwrap();
    }
    let before = writer.wal_bytes();
    now(writer.remove_through(50)).unwrap();
    assert!(writer.wal_bytes() < before, "{} < {before}", writer.wal_bytes());
    let (mut writer, recovery) = open(&disk);
    let entries: Vec<u64> =
        recovery.records.iter().filter(|record| record.kind == ENTRY).map(|r| r.tag).collect();
    assert!(entries[0] > 1 && entries[0] <= 51, "begins with {}", entries[0]);
    assert_eq!(entries.last(), Some(&100));
    let votes: Vec<_> = recovery.records.iter().filter(|record| record.kind == VOTE).collect();
    assert_eq!(votes[0].payload, vote(1).payload);
    assert_eq!(recovery.damage, vec![]);
    // Everything may go but the active segment.
    now(writer.remove_through(100)).unwrap();
    assert!(writer.segment_count() >= 1);
}

#[test]
fn segment_with_a_vote_stays_until_a_later_preamble_is_durable() {
    let disk = TestDisk::default();
    let (mut writer, _) = open(&disk);
    append_vote(&mut writer, 1);
    append(&mut writer, 1, 4000);
    commit(&mut writer).unwrap();
    append(&mut writer, 2, 4000);
    now(writer.write()).unwrap();
    assert_eq!(writer.segment_count(), 2);
    now(writer.remove_through(9)).unwrap();
    assert_eq!(writer.segment_count(), 2, "the preamble is not durable yet");
    now(writer.sync()).unwrap();
    now(writer.remove_through(9)).unwrap();
    assert_eq!(writer.segment_count(), 1);
    disk.power_loss(&mut Rng::new(1), 0.0);
    assert_eq!(open(&disk).1.records[0].payload, vote(1).payload);
}

#[test]
fn critical_copies_lie_in_different_sectors() {
    let disk = TestDisk::default();
    let (mut writer, _) = open(&disk);
    append(&mut writer, 1, 100);
    assert_eq!(append_vote(&mut writer, 7), 3);
    commit(&mut writer).unwrap();
    let bytes = disk.files(DIR)["wal/0000000000000001.wal"].clone();
    let copies: Vec<usize> =
        bytes.windows(24).enumerate().filter(|(_, w)| *w == [7; 24]).map(|(at, _)| at).collect();
    assert_eq!(copies.len(), 2);
    assert_ne!((copies[0] + 23) / 512, copies[1] / 512);
}

#[test]
fn full_disk_keeps_the_buffer_and_goes_on_when_freed() {
    let disk = TestDisk::default();
    let (mut writer, _) = open(&disk);
    append(&mut writer, 1, 3000);
    commit(&mut writer).unwrap();
    disk.set_faults(Faults { no_space: true, ..Faults::default() });
    for tag in 2..=10 {
        append(&mut writer, tag, 3000);
        assert!(now(writer.write()).unwrap_err().is_no_space());
    }
    now(writer.sync()).unwrap();
    assert_eq!((writer.written(), writer.durable()), (1, 1));
    disk.set_faults(Faults::default());
    commit(&mut writer).unwrap();
    assert_eq!((writer.durable(), writer.buffered_bytes()), (10, 0));
    assert_eq!(tags(&open(&disk).1), (1..=10).collect::<Vec<_>>());
}

/// Found by reading: a mark that belonged behind the end of a full segment found no space, stayed
/// buffered, and kept all later records from the next segment, which was ready.
#[test]
fn mark_without_space_keeps_no_record_from_a_segment_that_is_ready() {
    let disk = TestDisk::default();
    let (mut writer, _) = open(&disk);
    let mut tag = 0;
    while writer.wal_bytes() < OPTIONS.segment_bytes {
        tag += 1;
        append(&mut writer, tag, 100);
        commit(&mut writer).unwrap();
    }
    assert_eq!(writer.segment_count(), 1, "it is full to its last sector");
    disk.set_faults(Faults { no_growth: true, ..Faults::default() });
    let writes = disk.write_count();
    now(writer.mark()).unwrap();
    assert_eq!(disk.write_count() - writes, 1, "nobody has tried");
    append(&mut writer, tag + 1, 100);
    now(writer.write()).unwrap();
    now(writer.sync()).unwrap();
    assert_eq!((writer.durable(), writer.segment_count()), (tag + 1, 2));
    let (_, recovery) = open(&disk.after_power_loss(Survives::NOTHING));
    assert_eq!(tags(&recovery), (1..=tag + 1).collect::<Vec<_>>());
    assert_eq!((recovery.damage, recovery.torn), (vec![], None));
}

#[test]
fn mark_without_space_is_written_once_there_is_some() {
    let disk = TestDisk::default();
    let (mut writer, _) = open(&disk);
    append(&mut writer, 1, 10);
    commit(&mut writer).unwrap();
    disk.set_faults(Faults { no_space: true, ..Faults::default() });
    now(writer.mark()).unwrap();
    assert_eq!(writer.buffered_bytes(), 0, "there is no mark");
    assert!(now(unwitnessed(&disk, DIR)).unwrap().is_some());
    disk.set_faults(Faults::default());
    now(writer.mark()).unwrap();
    assert_eq!(now(unwitnessed(&disk, DIR)).unwrap(), None);
}

#[test]
fn failed_sync_poisons_for_ever() {
    let disk = TestDisk::default();
    let (mut writer, _) = open(&disk);
    append(&mut writer, 1, 10);
    now(writer.write()).unwrap();
    disk.set_faults(Faults { fail_sync: true, ..Faults::default() });
    let error = now(writer.sync()).unwrap_err();
    disk.set_faults(Faults::default());
    assert_eq!(writer.durable(), 0);
    assert_eq!(now(writer.sync()), Err(error.clone()));
    assert_eq!(now(writer.write()), Err(error.clone()));
    assert_eq!(now(writer.mark()), Err(error.clone()));
    assert_eq!(now(writer.remove_through(9)), Err(error));
}

#[test]
fn failed_write_poisons() {
    let disk = TestDisk::default();
    let (mut writer, _) = open(&disk);
    append(&mut writer, 1, 10);
    disk.set_faults(Faults { fail_after: Some(0), ..Faults::default() });
    let error = now(writer.write()).unwrap_err();
    assert!(matches!(&error, StorageError::Disk(disk) if disk.kind == DiskErrorKind::Io));
    disk.set_faults(Faults::default());
    assert_eq!(now(writer.write()), Err(error));
}

#[test]
fn record_whose_sync_failed_is_written_again_before_it_is_believed() {
    let disk = TestDisk::default();
    let (mut writer, _) = open(&disk);
    append(&mut writer, 1, 10);
    now(writer.write()).unwrap();
    disk.set_faults(Faults { fail_sync: true, ..Faults::default() });
    assert!(now(writer.sync()).is_err());
    disk.set_faults(Faults::default());
    // The process starts again; the page cache still has the record, the disk never will.
    assert_eq!(tags(&open(&disk).1), [1]);
    disk.power_loss(&mut Rng::new(1), 0.0);
    assert_eq!(tags(&open(&disk).1), [1], "what was recovered once is durable");
}

#[test]
fn marks_are_written_once_and_never_seen() {
    let disk = TestDisk::default();
    let (mut writer, _) = open(&disk);
    append(&mut writer, 1, 10);
    commit(&mut writer).unwrap();
    now(writer.mark()).unwrap();
    let writes = disk.write_count();
    now(writer.mark()).unwrap();
    assert_eq!(disk.write_count(), writes);
    append(&mut writer, 2, 10);
    commit(&mut writer).unwrap();
    now(writer.mark()).unwrap();
    assert_eq!(sequences(&open(&disk).1), [1, 2]);
}

#[test]
fn marked_log_is_continued_in_place() {
    let disk = TestDisk::default();
    for start in 0..5 {
        let (mut writer, _) = open(&disk);
        append(&mut writer, start + 1, 10);
        commit(&mut writer).unwrap();
        now(writer.mark()).unwrap();
        assert_eq!(writer.segment_count(), 1);
    }
    assert_eq!(tags(&open(&disk).1), [1, 2, 3, 4, 5]);
}

#[test]
fn foreign_files_are_left_alone_and_named() {
    let disk = TestDisk::default();
    drop(open(&disk));
    disk.plant("wal/notes.txt", b"hello".to_vec());
    let (_, recovery) = open(&disk);
    assert_eq!(recovery.unknown_files, ["notes.txt"]);
    assert!(disk.files(DIR).contains_key("wal/notes.txt"));
}

#[test]
fn unfinished_next_segment_is_cleared_away() {
    let disk = TestDisk::default();
    drop(open(&disk));
    disk.plant("wal/spare.tmp", vec![1; 700]);
    drop(open(&disk));
    assert_eq!(now(disk.list(DIR)).unwrap(), ["0000000000000001.wal"]);
}
