//! The bytes of the manifest, which must not change by accident.

use proptest::prelude::*;

use super::*;
use crate::base::checksum::crc32;
use crate::env::Disk;
use crate::storage::table::TableMeta;
use crate::storage::tree::manifest::{ExtraFile, Found, Manifest};

fn table(number: u64, first: &[u8], last: &[u8]) -> TableMeta {
    TableMeta {
        number,
        bytes: 100 + number,
        cell_count: 5,
        tombstone_count: 2,
        row_tombstone_count: 1,
        first: first.to_vec(),
        last: last.to_vec(),
        version_min: 3,
        version_max: 9,
    }
}

fn read(bytes: &[u8]) -> Result<Found, StorageError> {
    let disk = TestDisk::default();
    disk.plant("tree/MANIFEST", bytes.to_vec());
    let file = run(disk.open("tree/MANIFEST"))?;
    Manifest::read(&file, "tree/MANIFEST")
}

#[test]
fn manifest_is_these_bytes() {
    let mut manifest = Manifest {
        generation: 7,
        next_number: 12,
        applied: SnapshotPoint { index: 9, term: 2 },
        extra: Some(ExtraFile { number: 11, bytes: 4, crc: 0xDEAD_BEEF }),
        ..Manifest::default()
    };
    manifest.levels[0].push(table(10, b"a", b"bc"));
    manifest.levels[6].push(table(3, b"", b"z"));
    let bytes = manifest.encode();
    assert_eq!(bytes.len(), 8192);
    assert_eq!(bytes[..16], *b"MGRVMNFT\x01\0\0\0\x93\x2c\x41\x9c");
    assert_eq!(crc32(&bytes), 0x735F_5770, "the whole file");
    assert!(matches!(read(&bytes), Ok(Found::Whole(found)) if found == manifest));
}

proptest! {
    #[test]
    fn manifest_round_trips_and_foreign_bytes_are_refused(
        tables in prop::collection::vec((0_usize..7, any::<u64>(), any::<Vec<u8>>()), 0..60),
        numbers in any::<[u64; 4]>(),
        foreign in any::<Vec<u8>>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let [generation, next_number, index, term] = numbers;
        let applied = SnapshotPoint { index, term };
        let mut manifest = Manifest { generation, next_number, applied, ..Manifest::default() };
        for (level, number, place) in tables {
            manifest.levels[level].push(table(number / 2, &place, &place));
        }
        let bytes = manifest.encode();
        prop_assert!(matches!(read(&bytes), Ok(Found::Whole(found)) if found == manifest));
        prop_assert!(read(&bytes[..cut.index(bytes.len())]).is_err());
        prop_assert!(read(&foreign).is_err());
        let mut padded = foreign;
        padded.resize(8192, 0);
        prop_assert!(read(&padded).is_err());
    }
}
