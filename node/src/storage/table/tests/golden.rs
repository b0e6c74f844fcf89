//! The bytes of a table, so that no change of the format goes unnoticed.

use std::fmt::Write;
use std::sync::Arc;

use super::{Entry, Kind, build, open};
use crate::storage::table::{Compression, TableMeta, TableOptions};

/// A table of four entries in two blocks, not packed, part by part.
const PLAIN: [(&str, &str); 16] = [
    ("cells-frame", "4d54 01 00 336b6268 0700000000000000 0000000000000000 22000000 22000000"),
    ("base version 300", "2c01000000000000"),
    ("row deleted at 300", "00 05 02 00 726f770000"),
    ("\"plain\" at 301", "05 00 14 02 706c61696e"),
    ("one restart at 8", "08000000 01000000"),
    ("cells-frame", "4d54 01 00 449d49a9 0700000000000000 4200000000000000 24000000 24000000"),
    ("base version 299", "2b01000000000000"),
    ("deleted at 299", "00 06 01 00 726f77000061"),
    ("\"\" at 2^40", "05 01 00 aafbffffff3f 62"),
    ("one restart at 8", "08000000 01000000"),
    ("bloom-frame", "4d54 02 00 767ba412 0700000000000000 8600000000000000 44000000 44000000"),
    (
        "a line, 7 probes",
        "0000000482000048 0010000080000001 0000001401000000 0200400000000000
         0000000010480008 8000400008000100 0000800000002000 0020000800200000 07000000",
    ),
    ("index-frame", "4d54 03 00 f142c3d5 0700000000000000 ea00000000000000 1b000000 1b000000"),
    ("two frames and separators", "42000000 05000000 726f770000 44000000 06000000 726f77000062"),
    (
        "meta-frame",
        "4d54 04 00 b0a155a1 0700000000000000 2501000000000000 57000000 57000000
         0700000000000000 c801000000000000 0400000000000000 0100000000000000
         0100000000000000 2b01000000000000 0000000000010000 8600000000000000
         ea00000000000000 05000000 726f770000 726f77000062",
    ),
    (
        "tail",
        "4d4752565441424c 01000000 77000000 2501000000000000 0700000000000000
         c801000000000000 c2410e8c",
    ),
];

/// A packed table, as the first release wrote it. A later LZ4 may pack better, but must read it.
const PACKED: &str = include_str!("packed.hex");

fn entry(place: &[u8], version: u64, kind: Kind) -> Entry {
    Entry { place: place.to_vec(), version, kind }
}

fn plain_entries() -> Vec<Entry> {
    vec![
        entry(b"row\0\0", 300, Kind::RowDeleted),
        entry(b"row\0\0", 301, Kind::Value(b"plain".to_vec())),
        entry(b"row\0\0a", 299, Kind::Deleted),
        entry(b"row\0\0b", 1 << 40, Kind::Value(vec![])),
    ]
}

fn packed_entries() -> Vec<Entry> {
    let text = b"and so on, and so on, and so on".to_vec();
    (0..20).map(|n| entry(&[n, 0, 0], u64::from(n), Kind::Value(text.clone()))).collect()
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(48) {
        for byte in line {
            write!(text, "{byte:02x}").unwrap();
        }
        text.push('\n');
    }
    text
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    let (pairs, _) = digits.as_bytes().as_chunks::<2>();
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    pairs.iter().map(|pair| byte(pair)).collect()
}

#[track_caller]
fn assert_holds(bytes: &[u8], meta: &TableMeta, entries: &[Entry]) {
    let (_, table) = open(bytes, meta).unwrap();
    let mut cursor = Arc::clone(&table).cursor();
    cursor.seek(b"").unwrap();
    for entry in entries {
        assert_eq!(cursor.current(), Some(entry.cell()));
        cursor.advance().unwrap();
    }
    assert_eq!(cursor.current(), None);
    assert_eq!(table.verify(0, u64::MAX).unwrap().bytes, meta.bytes);
}

#[test]
fn plain_table_has_the_bytes_of_its_format() {
    let options =
        TableOptions { block_bytes: 24, bloom_bits_per_cell: 10, compression: Compression::None };
    let (bytes, meta) = build(7, &options, &plain_entries());
    let mut rest = bytes.as_slice();
    for (part, expected) in PLAIN {
        let expected = unhex(expected);
        let (found, after) = rest.split_at(expected.len().min(rest.len()));
        assert_eq!(hex(found), hex(&expected), "{part}");
        rest = after;
    }
    assert_eq!(rest, b"");
    assert_holds(&bytes, &meta, &plain_entries());
}

#[test]
fn packed_table_of_the_first_release_is_read() {
    let options =
        TableOptions { block_bytes: 400, bloom_bits_per_cell: 10, compression: Compression::Lz4 };
    let (today, meta) = build(7, &options, &packed_entries());
    let bytes = unhex(PACKED);
    assert_eq!(bytes.get(3), Some(&1), "packed; today's bytes:\n{}", hex(&today));
    let meta = TableMeta { bytes: u64::try_from(bytes.len()).unwrap(), ..meta };
    assert_holds(&bytes, &meta, &packed_entries());
}
