//! Snapshots on their way, in a backup, and the name plate that comes with a restored one.

use std::ops::ControlFlow;
use std::sync::OnceLock;

use bytes::BytesMut;
use mangrove::base::{ClusterId, NodeId};
use mangrove::cli::fuzzed;
use mangrove::codec::{self, FrameDecoder, encode_frame};
use mangrove::replica::{NodeConfig, offline, reread_name_plate};
use mangrove::storage::snapshot::format::{BlockKind, Encoder, Footer, push_cell};
use mangrove::storage::snapshot::{Contents, SnapshotReceiver, Transfers, verify};
use mangrove::storage::test_disk::{TestDisk, run};
use mangrove::storage::tree::{self, TreeOptions};
use mangrove::storage::{Cell, Content, Engine, SnapshotPoint, StorageError};

use crate::blind::blindly;
use crate::bytes_file::BytesFile;
use crate::edits::{self, Files};

const POINT: SnapshotPoint = SnapshotPoint { index: 70, term: 3 };

/// Cells with their version.
type Cells = Vec<(Vec<u8>, u64, Vec<u8>)>;

fn cells() -> Cells {
    let cell = |number: u8| {
        let place = mangrove::codec::keycode::encode_cell(&[b'k', number / 4], &[number]);
        (place, u64::from(number) + 1, vec![number; usize::from(number)])
    };
    (0..40).map(cell).collect()
}

/// Writes a snapshot by its format alone.
fn encoded(cells: &Cells, extra: &[u8]) -> Vec<u8> {
    let (mut bytes, mut encoder) = (Vec::new(), Encoder::default());
    encoder.push_preamble(&mut bytes);
    for some in cells.chunks(16) {
        let mut body = Vec::new();
        for (place, version, value) in some {
            push_cell(place, *version, value, &mut body);
        }
        encoder.push_block(BlockKind::Cells, &body, &mut bytes);
    }
    for part in extra.chunks(64) {
        encoder.push_block(BlockKind::Extra, part, &mut bytes);
    }
    let (cell_count, extra_bytes) = (cells.len() as u64, extra.len() as u64);
    let footer = Footer { point: POINT, cell_count, extra_bytes };
    encoder.push_block(BlockKind::Footer, &footer.encode(), &mut bytes);
    bytes
}

/// The extra of a state machine without sessions.
fn extra() -> Vec<u8> {
    mangrove::kv::Machine::<mangrove::storage::Tree<TestDisk>>::extra_without_sessions()
}

/// Reads all cells, block by block.
fn read(file: &BytesFile) -> Result<Cells, StorageError> {
    let mut contents = Contents::open(file, "snapshot")?;
    let mut cells = Cells::new();
    while contents.next_block()? {
        for Cell { place, version, content } in contents.cells() {
            let value = if let Content::Value(value) = content { value } else { &[] };
            cells.push((place.to_vec(), version, value.to_vec()));
        }
    }
    Ok(cells)
}

/// The whole file, blind.
pub(super) fn snapshot(input: &[u8]) {
    blindly(|| {
        let file = BytesFile::of(input);
        let (verified, read) = (run(verify(&file, "snapshot")), read(&file));
        assert_eq!(verified.is_ok(), read.is_ok(), "{verified:?}, {read:?}");
        let (Ok(summary), Ok(cells)) = (verified, read) else { return };
        assert_eq!(summary.cell_count, cells.len() as u64, "the footer tells how many there are");
        assert!(cells.is_sorted_by(|a, b| a.0 < b.0), "cells out of order");
        let newest = cells.iter().map(|(_, version, _)| *version).max().unwrap_or(0);
        assert!(newest <= summary.point.index, "{newest} in a state of {:?}", summary.point);
    });
}

pub(super) fn snapshot_seeds() -> Vec<Vec<u8>> {
    let some: Cells = cells().into_iter().take(3).collect();
    let sizes = [(Cells::new(), Vec::new()), (some, extra()), (cells(), vec![7; 100])];
    sizes.iter().map(|(cells, extra)| blindly(|| encoded(cells, extra))).collect()
}

/// ```text
/// count u8 of pieces (modulo eight) │ (length u16 LE │ offset u8: 0 for the right one)* │ edits
/// ```
pub(super) fn altered(input: &[u8]) {
    let Some((&count, mut rest)) = input.split_first() else { return };
    let whole = whole();
    let mut pieces = Vec::new();
    for _ in 0..count % 8 {
        let Some((piece, tail)) = rest.split_first_chunk::<3>() else { break };
        pieces.push(*piece);
        rest = tail;
    }
    let mut files: Files = vec![("snapshot".to_owned(), Some(whole.clone()))];
    let is_altered = edits::alter(&mut files, rest);
    let Some((_, Some(bytes))) = files.first() else { return };
    let verified = run(verify(&BytesFile::of(bytes), "snapshot"));
    assert_eq!(verified.is_ok(), !is_altered, "{verified:?}");
    let Ok(mut transfers) = run(Transfers::open(TestDisk::default())) else { return };
    receive(transfers.receiver(POINT), bytes, &pieces, is_altered);
}

/// Receives the bytes in pieces, some of them at a wrong place, and the rest at once.
fn receive(
    mut receiver: SnapshotReceiver<TestDisk>,
    bytes: &[u8],
    pieces: &[[u8; 3]],
    is_altered: bool,
) {
    run(async {
        for [low, high, shift] in pieces {
            let stored = receiver.stored();
            let rest = bytes.get(stored as usize..).unwrap_or_default();
            let len = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
            let offset = stored.wrapping_add(u64::from(*shift));
            let appended = receiver.append(offset, &rest[..len]).await;
            let is_there = offset == stored;
            assert_eq!(appended.is_ok(), is_there, "{appended:?} at {offset} after {stored}");
        }
        let rest = bytes.get(receiver.stored() as usize..).unwrap_or_default();
        let appended = receiver.append(receiver.stored(), rest).await;
        assert!(appended.is_ok(), "{appended:?}");
        let verified = receiver.verify().await.map(|verified| verified.point());
        assert_eq!(verified.is_ok(), !is_altered, "{verified:?}");
    });
}

fn whole() -> &'static Vec<u8> {
    static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();
    WHOLE.get_or_init(|| encoded(&cells(), &extra()))
}

pub(super) fn altered_seeds() -> Vec<Vec<u8>> {
    let edits = edits::seeds(&vec![(String::new(), Some(whole().clone()))]);
    let mut seeds: Vec<Vec<u8>> = edits.into_iter().map(|e| [vec![0], e].concat()).collect();
    seeds.push(vec![3, 100, 0, 0, 16, 0, 1, 200, 1, 0]);
    seeds
}

/// The configuration of the node that gets a backup.
fn config() -> &'static NodeConfig {
    static CONFIG: OnceLock<NodeConfig> = OnceLock::new();
    CONFIG.get_or_init(|| {
        let text = "cluster_id = \"7a11\"\nnode = 1\nmembers = [\"1=127.0.0.1:7101\"]\n";
        match fuzzed::configuration(text) {
            Ok(config) => config,
            Err(error) => panic!("{error}"),
        }
    })
}

/// The whole file, blind, restored to a new node.
pub(super) fn backup(input: &[u8]) {
    blindly(|| {
        let (disk, file) = (TestDisk::default(), BytesFile::of(input));
        let restored = run(offline::restore(&disk, config(), &file, "backup"));
        if restored.is_err() {
            // Not half a node: one that is started on the directory refuses it.
            assert!(!disk.names("").contains(&"NODE".to_owned()), "{restored:?}, and a name plate");
            return;
        }
        let Ok(expected) = read(&file) else { panic!("restored what cannot be read") };
        let opened = run(tree::open(disk, mangrove::replica::STATE_DIR, TreeOptions::default()));
        let Ok((tree, ..)) = opened else { panic!("what was restored opens") };
        let mut found = Cells::new();
        let scanned = tree.scan(&[], None, &mut |place, value, version| {
            found.push((place.to_vec(), version, value.to_vec()));
            ControlFlow::Continue(())
        });
        assert_eq!(scanned, Ok(()), "what was restored can be read");
        assert_eq!(found, expected, "what was restored is what the backup has");
    });
}

pub(super) fn backup_seeds() -> Vec<Vec<u8>> {
    vec![blindly(|| encoded(&Cells::new(), &extra())), blindly(|| encoded(&cells(), &extra()))]
}

/// Bytes of one of the two copies in a name plate.
const PLATE_COPY: usize = 4096;

/// ```text
/// blind u8 (bit 0; all of it: what a lost copy is filled with) │ the file
/// ```
pub(super) fn name_plate(input: &[u8]) {
    let Some((&blind, bytes)) = input.split_first() else { return };
    let is_blind = blind & 1 == 1;
    let read = || {
        let Ok(again) = reread_name_plate(&BytesFile::of(bytes)) else {
            assert!(!is_plate(bytes), "a whole name plate is not read");
            return;
        };
        let twice = reread_name_plate(&BytesFile::of(&again));
        assert_eq!(twice.as_ref(), Ok(&again), "what is read survives writing it");
        let is_sealed = bytes.chunks(PLATE_COPY).take(2).any(has_its_checksum);
        assert!(is_sealed, "nothing is believed without its checksum");
        // What has no checksum cannot be told from what is damaged.
        for lost in [0, PLATE_COPY].into_iter().filter(|_| !is_blind) {
            let mut half = again.clone();
            half.iter_mut().skip(lost).take(PLATE_COPY).for_each(|byte| *byte = blind);
            let mended = reread_name_plate(&BytesFile::of(&half));
            assert_eq!(mended.as_ref(), Ok(&again), "either copy says it all");
        }
    };
    if is_blind { blindly(read) } else { read() }
}

/// Tells whether bytes begin with a frame that has the checksum of its body.
fn has_its_checksum(copy: &[u8]) -> bool {
    let number = |at: usize| {
        let bytes = copy.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_le_bytes)
    };
    let len = number(0).and_then(|len| usize::try_from(len).ok());
    let body = len.and_then(|len| copy.get(12..12_usize.checked_add(len)?));
    body.is_some_and(|body| number(8) == Some(mangrove::base::checksum::crc32(body)))
}

/// Tells whether a file is a name plate and nothing else.
fn is_plate(bytes: &[u8]) -> bool {
    type PrimaryBackup = (u32, ClusterId, NodeId);
    let mut buffer = BytesMut::from(bytes);
    let Ok(Some(body)) = FrameDecoder::new(4096).decode(&mut buffer) else { return false };
    buffer.is_empty() && codec::decode::<PrimaryBackup>(&body).is_ok_and(|plate| plate.0 == 1)
}

pub(super) fn name_plate_seeds() -> Vec<Vec<u8>> {
    let plates = [
        codec::encode(&(1_u32, ClusterId(0x7A11), NodeId(3))),
        codec::encode(&(2_u32, ClusterId(0x7A11), NodeId(300), u64::MAX)),
        codec::encode(&(3_u32, ClusterId(0x7A11), NodeId(300), u64::MAX)),
    ];
    let mut seeds = Vec::new();
    for plate in plates {
        let frame = || {
            let mut bytes = Vec::new();
            encode_frame(&mut bytes, |buffer| buffer.extend_from_slice(&plate));
            bytes
        };
        seeds.push([vec![0], frame()].concat());
        seeds.push([vec![1], blindly(frame)].concat());
        // As it is written today: twice.
        let mut copy = frame();
        copy.resize(PLATE_COPY, 0);
        seeds.push([vec![2], copy.repeat(2)].concat());
    }
    seeds
}
