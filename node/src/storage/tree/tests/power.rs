//! Power loss at every single operation of a short life.

use super::*;
use crate::base::Rng;
use crate::storage::test_disk::Survives;

/// Lives a short life: writes, flushes, compacts, replaces. Ends at the first error. Returns the
/// last state that was promised to be durable, and that in the making.
fn live(disk: &TestDisk, states: &[Cells], edits: &[Edit]) -> (u64, u64) {
    let mut durable = 0;
    let Ok((mut tree, mut keeper, _)) = try_open(disk) else { return (0, 0) };
    let mut model = Cells::new();
    for chunk in edits.chunks(25) {
        for edit in chunk {
            write(&mut tree, &mut model, edit);
        }
        let making = tree.applied().index;
        if flush(&mut tree, &mut keeper).is_err() {
            return (durable, making);
        }
        durable = tree.durable().index;
        if settle(&mut tree, &mut keeper).is_err() {
            return (durable, making);
        }
        run(keeper.collect());
    }
    // Another node's state, which is the last one that there is.
    let last = states.last().cloned().unwrap_or_default();
    let at = u64::try_from(states.len() - 1).unwrap_or(0);
    let replaced = run(async {
        keeper.begin_replacement().await?;
        let cells = last.iter().map(|(place, (value, version))| crate::storage::Cell {
            place,
            version: *version,
            content: crate::storage::Content::Value(value),
        });
        keeper.push_replacement(cells).await?;
        keeper.finish_replacement(point(at), extra(at).into()).await
    });
    match replaced {
        Ok(version) => {
            tree.adopt(version);
            run(keeper.collect());
            (tree.durable().index, at)
        }
        Err(_) => (durable, at),
    }
}

/// Opens what is left, and compares it with what was promised.
fn check(disk: &TestDisk, states: &[Cells], durable: u64, making: u64, when: &str) {
    let (mut tree, mut keeper, recovery) = open(disk);
    assert_eq!(recovery.damage, None, "{when}");
    let found = recovery.applied.index;
    assert!(found == durable || found == making, "{found}, not {durable} or {making}, {when}");
    let state = &states[usize::try_from(found).expect("a small number")];
    assert_eq!(&cells(&tree, &[], None).expect("it can be read"), state, "{when}");
    assert_eq!(recovery.extra, if found == 0 { Vec::new() } else { extra(found) }, "{when}");
    assert_eq!(run(keeper.scrub_step(u64::MAX)), Ok(()), "{when}");
    // It goes on as if nothing had happened.
    let mut model = state.clone();
    write(&mut tree, &mut model, &Edit::Set(9, 9, 9));
    flush(&mut tree, &mut keeper).expect("the disk is well again");
    settle(&mut tree, &mut keeper).expect("the disk is well again");
    assert_eq!(cells(&tree, &[], None).expect("it can be read"), model, "{when}");
}

fn states_of(edits: &[Edit]) -> Vec<Cells> {
    let (mut tree, ..) = open(&TestDisk::default());
    let mut states = vec![Cells::new()];
    let mut model = Cells::new();
    for edit in edits {
        write(&mut tree, &mut model, edit);
        states.push(model.clone());
    }
    // The replacement comes later than everything.
    states.push(model);
    states
}

#[test]
fn power_loss_at_any_operation_leaves_a_promised_state() {
    let edits = script(200);
    let states = states_of(&edits);
    let whole = TestDisk::default();
    let (durable, _) = live(&whole, &states, &edits);
    assert_eq!(usize::try_from(durable), Ok(states.len() - 1), "an undisturbed life ends well");
    let operation_count = whole.operation_count();
    assert!(operation_count > 150, "only {operation_count} operations: the script is too short");
    for operation in 0..operation_count {
        let disk = TestDisk::default();
        disk.lose_power_at(operation);
        let (durable, making) = live(&disk, &states, &edits);
        for survives in [Survives::NOTHING, Survives { bytes: true, names: u32::MAX }] {
            let when = format!("power lost at operation {operation}, {survives:?}");
            check(&disk.after_power_loss(survives), &states, durable, making, &when);
        }
        for seed in 0..3 {
            let disk = disk.after_process_end();
            disk.power_loss(&mut Rng::new(seed), 0.5);
            let when = format!("power lost at operation {operation}, by lot {seed}");
            check(&disk, &states, durable, making, &when);
        }
    }
}

#[test]
fn power_loss_during_any_start_changes_nothing() {
    let disk = TestDisk::default();
    let (_, model) = filled(&disk, &script(60), 20);
    disk.plant("tree/table-99", vec![1; 100]);
    disk.plant("tree/MANIFEST.tmp", vec![1; 100]);
    disk.damage("tree/MANIFEST", |bytes| bytes[50] ^= 1);
    let start = disk.operation_count();
    for operations in 0..30 {
        let disk = disk.after_process_end();
        disk.lose_power_at(operations);
        let opened = try_open(&disk).is_ok();
        let operation_count = disk.operation_count();
        disk.power_loss(&mut Rng::new(1), 0.5);
        let (tree, _, recovery) = open(&disk);
        assert_eq!(recovery.damage, None, "power lost at {operations}");
        assert_eq!(cells(&tree, &[], None), Ok(model.clone()), "power lost at {operations}");
        if opened {
            assert!(operation_count > 5, "{operation_count} operations after {start}");
            return;
        }
    }
    panic!("a start takes more than 30 operations");
}
