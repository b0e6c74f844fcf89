//! Each planted bug of the log breaks what it is meant to break, and only while it is on.

use super::*;
use crate::base::Rng;
use crate::base::planted::loses_only_with;
use crate::storage::test_disk::{Faults, TestDisk};

/// Tells whether a record that the writer called durable is missing after a power loss.
fn is_lost_by_power(disk: &TestDisk, durable: Sequence) -> bool {
    disk.power_loss(&mut Rng::new(1), 0.0);
    !sequences(&open(disk).1).contains(&durable)
}

#[test]
fn w2_ignored_fsync_error_loses_records() {
    loses_only_with("W2", || {
        let disk = TestDisk::default();
        let (mut writer, _) = open(&disk);
        append(&mut writer, 1, 10);
        now(writer.write()).unwrap();
        disk.set_faults(Faults { fail_sync: true, ..Faults::default() });
        now(writer.sync()).is_ok() && is_lost_by_power(&disk, writer.durable())
    });
}

#[test]
fn w4_missing_directory_sync_loses_a_segment() {
    loses_only_with("W4", || {
        let disk = TestDisk::default();
        let (mut writer, _) = open(&disk);
        for tag in 1..=3 {
            append(&mut writer, tag, 4000);
            commit(&mut writer).unwrap();
        }
        is_lost_by_power(&disk, writer.durable())
    });
}

#[test]
fn w6_early_removal_loses_records() {
    loses_only_with("W6", || {
        let disk = TestDisk::default();
        let (mut writer, _) = open(&disk);
        for tag in 1..=9 {
            append(&mut writer, tag, 4000);
            commit(&mut writer).unwrap();
        }
        now(writer.remove_through(2)).unwrap();
        !tags(&open(&disk).1).contains(&3)
    });
}

#[test]
fn w7_truncation_at_the_first_bad_record_loses_those_after_it() {
    loses_only_with("W7", || {
        let disk = TestDisk::default();
        let (mut writer, _) = open(&disk);
        for tag in 1..=3 {
            append(&mut writer, tag, 600);
            commit(&mut writer).unwrap();
        }
        let path = segment::path(DIR, 1);
        disk.damage(&path, |content| content[1024 + 700] ^= 1);
        let (_, recovery) = open(&disk);
        recovery.damage.is_empty() || !sequences(&recovery).contains(&3)
    });
}
