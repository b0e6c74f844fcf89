//! Each planted bug of the table store breaks what it is meant to break, and only while it is on.

use super::*;
use crate::base::planted::loses_only_with;
use crate::storage::test_disk::Survives;

/// Tells whether a disk, after a power loss and with the log from `log_from` on, has less than
/// what was written.
fn is_less(disk: &TestDisk, edits: &[Edit], log_from: u64, model: &Cells) -> bool {
    let Ok((mut tree, _, recovery)) = try_open(disk) else { return true };
    if recovery.damage.is_some() || recovery.applied.index < log_from {
        return true;
    }
    let applied = usize::try_from(recovery.applied.index).unwrap_or(usize::MAX);
    let mut again = Cells::new();
    for edit in edits.iter().skip(applied) {
        write(&mut tree, &mut again, edit);
    }
    cells(&tree, &[], None).as_ref() != Ok(model)
}

/// Cuts a life at every operation; tells whether any cut loses something.
fn loses_at_some_operation(log_from: impl Fn(&Tree<TestDisk>) -> u64, survives: Survives) -> bool {
    let edits = script(80);
    (0..200).any(|operation| {
        let disk = TestDisk::default();
        disk.lose_power_at(operation);
        let Ok((mut tree, mut keeper, _)) = try_open(&disk) else { return false };
        let (mut model, mut log_from_last) = (Cells::new(), 0);
        let mut written = 0;
        for chunk in edits.chunks(20) {
            for edit in chunk {
                write(&mut tree, &mut model, edit);
            }
            written += chunk.len();
            let frozen = tree.freeze(extra(tree.applied().index));
            log_from_last = log_from(&tree);
            let Ok(version) = run(keeper.flush(&frozen)) else { break };
            tree.adopt(version);
            log_from_last = log_from(&tree);
            if settle(&mut tree, &mut keeper).is_err() {
                break;
            }
            run(keeper.collect());
        }
        let after = disk.after_power_loss(survives);
        is_less(&after, &edits[..written], log_from_last, &model)
    })
}

fn whole_log(_: &Tree<TestDisk>) -> u64 {
    0
}

#[test]
fn w5_unsynced_manifest_is_torn_by_power_loss() {
    loses_only_with("W5", || loses_at_some_operation(whole_log, Survives::NOTHING));
}

#[test]
fn w6_early_removal_of_tables_loses_cells() {
    let survives = Survives { bytes: true, names: u32::MAX };
    loses_only_with("W6", || loses_at_some_operation(whole_log, survives));
}

#[test]
fn w16_position_apart_from_its_data_loses_cells() {
    loses_only_with("W16", || loses_at_some_operation(whole_log, Survives::NOTHING));
}

#[test]
fn w17_log_cut_before_the_flush_is_durable_loses_cells() {
    let cut = |tree: &Tree<TestDisk>| tree.durable().index;
    loses_only_with("W17", || loses_at_some_operation(cut, Survives::NOTHING));
}
