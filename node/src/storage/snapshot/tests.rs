//! Snapshots against rot, a full disk, and a clumsy sender.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::storage::test_disk::{TestDisk, run};
use crate::storage::tree::{self, Keeper, TreeOptions};
use crate::storage::{Change, Engine, Tree};

const EXTRA: &[u8] = b"what was captured with the cells";

fn point(index: u64) -> SnapshotPoint {
    SnapshotPoint { index, term: 2 }
}

/// Returns the store of a node that has nothing yet.
fn empty(disk: &TestDisk) -> (Tree<TestDisk>, Keeper<TestDisk>) {
    let opened = run(tree::open(disk.clone(), "tables", TreeOptions::default()));
    let (tree, keeper, _) = opened.unwrap_or_else(|error| panic!("{error}"));
    (tree, keeper)
}

/// Returns a store whose state at `index` differs from that at any other, all of it in tables.
fn store_at(disk: &TestDisk, index: u64) -> (Tree<TestDisk>, Keeper<TestDisk>) {
    let (mut tree, mut keeper) = empty(disk);
    for index in 1..=index {
        let (place, value) = ([7, u8::try_from(index % 5).unwrap_or(0)], index.to_le_bytes());
        tree.write(point(index), &[Change::Set { place: &place, value: &value }]);
    }
    flush(&mut tree, &mut keeper);
    (tree, keeper)
}

fn flush(tree: &mut Tree<TestDisk>, keeper: &mut Keeper<TestDisk>) {
    let frozen = tree.freeze(EXTRA.to_vec());
    let version = run(keeper.flush(&frozen)).unwrap_or_else(|error| panic!("{error}"));
    tree.adopt(version);
}

fn cells(tree: &Tree<TestDisk>) -> Vec<(Vec<u8>, Vec<u8>, u64)> {
    let mut cells = Vec::new();
    let scanned = tree.scan(&[], None, &mut |place, value, version| {
        cells.push((place.to_vec(), value.to_vec(), version));
        ControlFlow::Continue(())
    });
    assert_eq!(scanned, Ok(()), "memory can be read");
    cells
}

fn transfers(disk: &TestDisk) -> Transfers<TestDisk> {
    run(Transfers::open(disk.clone())).unwrap_or_else(|error| panic!("{error}"))
}

/// Returns the whole snapshot of a version, read in pieces.
fn bytes_of(
    transfers: &mut Transfers<TestDisk>,
    version: &Arc<Version<TestDisk>>,
    bytes_max: usize,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let offset = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let wanted = (offset > 0).then_some(version.applied);
        let piece = run(transfers.read_chunk(version, wanted, offset, bytes_max));
        let piece = piece.unwrap_or_else(|error| panic!("{error}")).expect("there is space");
        assert_eq!((piece.point, piece.offset), (version.applied, offset));
        bytes.extend_from_slice(&piece.bytes);
        if piece.done {
            return bytes;
        }
    }
}

/// Receives, verifies and installs.
fn install(disk: &TestDisk, at: SnapshotPoint, bytes: &[u8]) -> Result<Tree<TestDisk>, String> {
    let (mut tree, mut keeper) = empty(disk);
    let mut receiver = transfers(disk).receiver(at);
    let result = run(async {
        for piece in bytes.chunks(100) {
            receiver.append(receiver.stored(), piece).await?;
        }
        let mut verified = receiver.verify().await?;
        let extra: Bytes = verified.extra().clone();
        keeper.begin_replacement().await?;
        let mut contents = verified.contents().await?;
        while contents.next_block()? {
            keeper.push_replacement(contents.cells()).await?;
        }
        Ok::<_, ReceiveError>(keeper.finish_replacement(at, extra).await?)
    });
    tree.adopt(result.map_err(|error| error.to_string())?);
    Ok(tree)
}

#[test]
fn state_arrives_as_it_was() {
    for index in [1, 9] {
        let (sender, receiver) = (TestDisk::default(), TestDisk::default());
        let (tree, _) = store_at(&sender, index);
        let version = tree.pin();
        for bytes_max in [1, 7, 100, 1 << 20] {
            let bytes = bytes_of(&mut transfers(&sender), &version, bytes_max);
            let received = install(&receiver, version.applied, &bytes).unwrap();
            assert_eq!(cells(&received), cells(&tree), "state at {index}");
            assert_eq!(received.pin().extra, EXTRA);
        }
    }
}

#[test]
fn bytes_are_a_function_of_the_state() {
    let (a, b) = (TestDisk::default(), TestDisk::default());
    let (tree_a, _) = store_at(&a, 9);
    // The same state in other tables.
    let (mut tree_b, mut keeper_b) = store_at(&b, 4);
    for index in 5..=9_u64 {
        let (place, value) = ([7, u8::try_from(index % 5).unwrap_or(0)], index.to_le_bytes());
        tree_b.write(point(index), &[Change::Set { place: &place, value: &value }]);
    }
    flush(&mut tree_b, &mut keeper_b);
    let a = bytes_of(&mut transfers(&a), &tree_a.pin(), 50);
    assert_eq!(a, bytes_of(&mut transfers(&b), &tree_b.pin(), 70));
}

#[test]
fn golden_bytes() {
    let disk = TestDisk::default();
    let (mut tree, mut keeper) = empty(&disk);
    tree.write(point(1), &[Change::Set { place: b"k", value: b"v" }]);
    flush(&mut tree, &mut keeper);
    let bytes = bytes_of(&mut transfers(&disk), &tree.pin(), 1000);
    assert_eq!(bytes, include_bytes!("golden.snapshot"));
}

#[test]
fn bit_flipped_anywhere_is_noticed() {
    let disk = TestDisk::default();
    let (tree, _) = store_at(&disk, 9);
    let bytes = bytes_of(&mut transfers(&disk), &tree.pin(), 1000);
    for position in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[position] ^= 1 << (position % 8);
        let result = install(&TestDisk::default(), point(9), &damaged);
        assert!(result.is_err(), "byte {position} of {}", bytes.len());
    }
}

#[test]
fn snapshot_cut_or_of_another_state_is_thrown_away() {
    let (sender, receiver) = (TestDisk::default(), TestDisk::default());
    let (tree, _) = store_at(&sender, 9);
    let bytes = bytes_of(&mut transfers(&sender), &tree.pin(), 1000);
    for len in 0..bytes.len() {
        assert!(install(&receiver, point(9), &bytes[..len]).is_err(), "cut at {len}");
    }
    let error = install(&receiver, point(8), &bytes).map(drop).unwrap_err();
    assert!(error.contains("instead of"), "{error}");
    assert_eq!(receiver.names(DIRECTORY), Vec::<String>::new());
}

#[test]
fn pieces_twice_or_too_early_change_nothing() {
    let (sender, receiver) = (TestDisk::default(), TestDisk::default());
    let (tree, _) = store_at(&sender, 9);
    let bytes = bytes_of(&mut transfers(&sender), &tree.pin(), 1000);
    let mut incoming = transfers(&receiver).receiver(point(9));
    let (head, tail) = bytes.split_at(20);
    assert_eq!(run(incoming.append(0, head)), Ok(20));
    let misplaced = Err(ReceiveError::Misplaced { stored: 20 });
    assert_eq!(run(incoming.append(0, head)), misplaced);
    assert_eq!(run(incoming.append(21, tail)), misplaced);
    run(incoming.append(20, tail)).unwrap();
    let verified = run(incoming.verify()).map_err(|error| error.to_string()).unwrap();
    assert_eq!((verified.point(), verified.extra().as_ref()), (point(9), EXTRA));
    run(verified.discard());
    assert_eq!(receiver.names(DIRECTORY), Vec::<String>::new());
}

#[test]
fn transfer_under_way_ends_though_the_state_goes_on() {
    let disk = TestDisk::default();
    let (mut tree, mut keeper) = store_at(&disk, 9);
    let old = tree.pin();
    let whole = bytes_of(&mut transfers(&disk), &old, 1000);
    let mut sending = transfers(&disk);
    let first = run(sending.read_chunk(&old, None, 0, 30)).unwrap().unwrap();
    tree.write(point(10), &[Change::Set { place: b"new", value: b"x" }]);
    flush(&mut tree, &mut keeper);
    let new = tree.pin();
    let other = run(sending.read_chunk(&new, None, 0, 30)).unwrap().unwrap();
    assert_eq!((first.point, other.point), (point(9), point(10)));
    let rest = run(sending.read_chunk(&new, Some(point(9)), 30, 1000)).unwrap().unwrap();
    assert!(rest.done);
    assert_eq!([first.bytes, rest.bytes].concat(), whole);
    sending.forget();
    let again = run(sending.read_chunk(&new, Some(point(9)), 30, 1000)).unwrap().unwrap();
    assert_eq!((again.point, again.offset), (point(10), 0), "what is forgotten starts over");
}

/// The accident: a follower without space had the file made anew for each of its tries, and the
/// others that were in the middle of it began again and again.
#[test]
fn snapshot_is_made_anew_for_who_has_read_all_of_it() {
    let disk = TestDisk::default();
    let (mut tree, mut keeper) = store_at(&disk, 9);
    let old = tree.pin();
    let mut sending = transfers(&disk);
    run(sending.read_chunk(&old, None, 0, 30)).unwrap();
    tree.write(point(10), &[Change::Set { place: b"new", value: b"x" }]);
    flush(&mut tree, &mut keeper);
    let new = tree.pin();
    sending.renew(point(9));
    let rest = run(sending.read_chunk(&new, Some(point(9)), 30, 1000)).unwrap().unwrap();
    assert_eq!((rest.point, rest.offset, rest.done), (point(9), 30, true));
    sending.renew(point(10));
    let again = run(sending.read_chunk(&new, Some(point(9)), 30, 1000)).unwrap().unwrap();
    assert_eq!(again, rest, "another one is meant");
    sending.renew(point(9));
    let other = run(sending.read_chunk(&new, Some(point(9)), 30, 1000)).unwrap().unwrap();
    assert_eq!((other.point, other.offset), (point(10), 0));
}

#[test]
fn directory_is_cleared_at_a_start() {
    let disk = TestDisk::default();
    let mut receiver = transfers(&disk).receiver(point(3));
    run(receiver.append(0, b"half")).unwrap();
    assert_eq!(disk.names(DIRECTORY).len(), 1);
    drop(transfers(&disk));
    assert_eq!(disk.names(DIRECTORY), Vec::<String>::new());
}

#[test]
fn transfer_apart_goes_on_whatever_the_others_do() {
    let disk = TestDisk::default();
    let (mut tree, mut keeper) = store_at(&disk, 20);
    let mut followers = transfers(&disk);
    let mut saves = followers.apart();
    let whole = bytes_of(&mut followers, &tree.pin(), 50);
    let first = run(saves.read_chunk(&tree.pin(), None, 0, 50)).unwrap().unwrap();
    for index in 21..25 {
        tree.write(point(index), &[]);
        flush(&mut tree, &mut keeper);
        run(followers.read_chunk(&tree.pin(), None, 0, 50)).unwrap();
    }
    let mut read = first.bytes;
    while read.len() < whole.len() {
        let offset = u64::try_from(read.len()).unwrap();
        let piece = run(saves.read_on(point(20), offset, 50)).unwrap().unwrap();
        assert_eq!((piece.point, piece.offset), (point(20), offset));
        read.extend_from_slice(&piece.bytes);
        assert_eq!(piece.done, read.len() == whole.len());
    }
    assert_eq!(read, whole);
    let beyond = u64::try_from(whole.len()).unwrap() + 1;
    assert_eq!(run(saves.read_on(point(20), beyond, 50)), Ok(None));
    assert_eq!(run(saves.read_on(point(24), 0, 50)), Ok(None), "nobody has begun it here");
    saves.forget();
    assert_eq!(run(saves.read_on(point(20), 0, 50)), Ok(None));
}

#[test]
fn nothing_is_made_for_a_save_that_has_not_come_so_far() {
    let disk = TestDisk::default();
    let (tree, _) = store_at(&disk, 20);
    let whole = bytes_of(&mut transfers(&disk), &tree.pin(), 1000);
    let end = u64::try_from(whole.len()).unwrap();
    let mut saves = transfers(&disk);
    let first = run(saves.read_chunk(&tree.pin(), None, 0, 1)).unwrap().unwrap();
    let write_count = disk.write_count();
    for offset in [end - 1, end, 1 << 63, u64::MAX] {
        assert_eq!(run(saves.read_on(point(20), offset, 1000)), Ok(None), "at {offset}");
    }
    assert_eq!(disk.write_count(), write_count, "none of them has anything made");
    let again = run(saves.read_on(point(20), 0, 1)).unwrap().unwrap();
    assert_eq!(again, first, "a piece may be asked for twice");
    let rest = run(saves.read_on(point(20), 1, whole.len())).unwrap().unwrap();
    assert!(rest.done);
    assert_eq!([first.bytes, rest.bytes].concat(), whole);
}

#[test]
fn follower_that_has_more_than_was_made_here_is_reached_in_steps() {
    let disk = TestDisk::default();
    let (tree, _) = store_at(&disk, 20);
    let version = tree.pin();
    let whole = bytes_of(&mut transfers(&disk), &version, 1000);
    let end = u64::try_from(whole.len()).unwrap();
    let mut sending = transfers(&disk);
    run(sending.read_chunk(&version, None, 0, 1)).unwrap();
    let piece = run(sending.read_chunk(&version, Some(point(20)), end - 5, 100));
    let piece = piece.unwrap().unwrap();
    assert_eq!((piece.offset, piece.done), (end - 5, true));
    assert_eq!(piece.bytes, whole[whole.len() - 5..]);
    // A large state is not made at once for it.
    let mut outgoing = run(Outgoing::begin(&disk, "snapshot/ahead", &version)).unwrap();
    let mut ahead_count = 0;
    while run(outgoing.approach(end, 1)) == Ok(Position::Ahead) {
        ahead_count += 1;
    }
    assert!(ahead_count > 1, "{ahead_count} steps");
    assert_eq!(run(outgoing.approach(end, 1)), Ok(Position::Within));
    assert_eq!(run(outgoing.approach(end + 1, 1)), Ok(Position::Beyond));
    assert_eq!(run(outgoing.read(end - 5, 5)), Ok(piece));
}
