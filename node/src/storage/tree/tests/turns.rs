//! Scans that may pass only so much, put together to the whole.

use proptest::prelude::*;

use super::*;
use crate::storage::Content;
use crate::storage::tree::merge::PASSED_OVERHEAD_BYTES;

/// What a row of tombstones counts as, each with a place of so many bytes.
fn bytes_of_tombstones(count: usize, place: &[u8]) -> usize {
    count * (PASSED_OVERHEAD_BYTES + place.len())
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        6 => (0_u8..6, 0_u8..12, 0_usize..40).prop_map(|(k, c, len)| Edit::Set(k, c, len)),
        6 => (0_u8..6, 0_u8..12).prop_map(|(k, c)| Edit::Delete(k, c)),
        1 => (0_u8..6).prop_map(Edit::DeleteRow),
    ]
}

/// All that a raw scan visits: place, version, value, and whether it is a row's tombstone.
type Visited = Vec<(Vec<u8>, u64, Option<Vec<u8>>, bool)>;

/// Scans in turns of `bytes_max`, each from where the last one stopped.
fn raw_in_turns(tree: &Tree<TestDisk>, start: &[u8], end: &[u8], bytes_max: usize) -> Visited {
    let (mut visited, mut start) = (Visited::new(), start.to_vec());
    loop {
        let passed = tree.scan_raw_some(&start, Some(end), bytes_max, &mut |cell| {
            let value =
                if let Content::Value(value) = cell.content { Some(value.to_vec()) } else { None };
            let is_row = cell.content == Content::RowDeleted;
            visited.push((cell.place.to_vec(), cell.version, value, is_row));
            ControlFlow::Continue(())
        });
        let passed = passed.unwrap_or_else(|error| panic!("{error}"));
        let Some(next) = passed.next else { return visited };
        assert!(next > start && *next < *end, "{next:?} after {start:?}, before {end:?}");
        start = next;
    }
}

proptest! {
    #[test]
    fn turns_of_any_length_make_the_whole_scan(
        edits in prop::collection::vec(edit(), 0..200),
        flush_each in 1_usize..60,
        unflushed in prop::collection::vec(edit(), 0..60),
        bounds in (0_u8..6, 0_u8..12, 0_u8..6, 0_u8..12),
        bytes_max in 1_usize..2_000,
    ) {
        let disk = TestDisk::default();
        let ((mut tree, _keeper, _), mut model) = filled(&disk, &edits, flush_each);
        for edit in &unflushed {
            write(&mut tree, &mut model, edit);
        }
        let (start, end) = (place(bounds.0, bounds.1), place(bounds.2, bounds.3));
        let (mut found, mut from) = (Cells::new(), start.clone());
        // A place has two entries for each source at most, which may jump once more.
        let source_count = edits.len() / flush_each + 3;
        let slack = source_count * (2 * (PASSED_OVERHEAD_BYTES + 100) + (4 << 10));
        loop {
            let passed = tree.scan_some(&from, Some(&end), bytes_max, &mut |place, value, version| {
                let before = found.insert(place.to_vec(), (value.to_vec(), version));
                assert_eq!(before, None, "{place:?} is visited twice");
                ControlFlow::Continue(())
            });
            let passed = passed.unwrap();
            prop_assert!(passed.bytes <= bytes_max + slack, "{:?}, not {}", passed, bytes_max);
            let Some(next) = passed.next else { break };
            prop_assert!(next > from && next < end, "{:?} after {:?}", next, from);
            from = next;
        }
        let expected: Cells = if start < end {
            model.range(start.clone()..end.clone()).map(|(p, c)| (p.clone(), c.clone())).collect()
        } else {
            Cells::new()
        };
        prop_assert_eq!(found, expected);
        let whole = raw_in_turns(&tree, &start, &end, usize::MAX);
        prop_assert_eq!(raw_in_turns(&tree, &start, &end, bytes_max), whole);
    }
}

#[test]
fn scan_stops_among_tombstones_and_says_how_much_it_passed() {
    let (mut tree, _keeper, _) = open(&TestDisk::default());
    let dead = |n: u32| crate::codec::keycode::encode_cell(b"queue", &n.to_be_bytes());
    for n in 0..1_000 {
        let at = point(tree.applied().index + 1);
        tree.write(at, &[Change::Delete { place: &dead(n) }]);
    }
    let bytes_max = bytes_of_tombstones(100, &dead(0));
    let passed = tree
        .scan_some(&dead(0), None, bytes_max, &mut |place, _, _| panic!("{place:?} is deleted"));
    let passed = passed.unwrap();
    assert_eq!(passed.bytes, bytes_max);
    assert_eq!(passed.next, Some(dead(100)));
    let rest = tree.scan_some(&dead(950), None, bytes_max, &mut |_, _, _| ControlFlow::Break(()));
    let rest = rest.unwrap();
    assert_eq!((rest.bytes, rest.next), (bytes_of_tombstones(50, &dead(0)), None));
}

#[test]
fn cells_that_their_rows_tombstone_hides_count_as_passed() {
    let (mut tree, _keeper, _) = open(&TestDisk::default());
    let row = crate::codec::keycode::encode_key(b"row");
    let hidden = |n: u32| crate::codec::keycode::encode_cell(b"row", &n.to_be_bytes());
    for n in 0..1_000 {
        let at = point(tree.applied().index + 1);
        tree.write(at, &[Change::Set { place: &hidden(n), value: b"gone" }]);
    }
    let at = point(tree.applied().index + 1);
    tree.write(at, &[Change::DeleteRow { row: &row }]);
    let (mut start, mut turn_count) = (row.clone(), 0);
    loop {
        let passed =
            tree.scan_some(&start, None, 20_000, &mut |place, _, _| panic!("{place:?} is deleted"));
        let passed = passed.unwrap();
        assert!(passed.bytes < 25_000, "{passed:?}");
        turn_count += 1;
        let Some(next) = passed.next else { break };
        start = next;
    }
    assert!(turn_count > 3, "{turn_count} turns for 1000 hidden cells");
}
