//! What a fuzzer may call of this folder without a directory around it.

use std::ops::Range;

use super::record::{Header, Place, Role};
use super::scan::{Item, scan};
use super::segment::{self, to_u64};
use super::{SEQUENCE_MAX, Sequence};

/// Tells whether a log that has come so far can be opened.
pub fn is_within_reach(next: Sequence) -> bool {
    next < SEQUENCE_MAX
}

/// Reads the bytes of the segment that begins with `first`, its first sector included, as a start
/// does; returns where the payloads of its records are.
///
/// # Panics
/// If a record is not what it would be once written again, or is where another one is.
pub fn segment(first: Sequence, bytes: &[u8]) -> Vec<(Sequence, Range<usize>)> {
    // Another version's segment is an error, and what damage means is for recovery to say.
    drop(segment::check_header("segment", first, bytes));
    let mut payloads = Vec::new();
    let mut end = 0;
    for item in scan(first, None, bytes).items {
        let range = match item {
            Item::Broken(broken) => broken.range,
            Item::Record(found) => {
                let place = Place { segment: first, offset: to_u64(found.offset) };
                let written = found.header.encode(place);
                assert_eq!(Header::decode(&written, place), Some(found.header), "at {place:?}");
                let whole = found.offset..found.offset + found.header.record_bytes();
                assert!(
                    whole.start < found.payload.start && found.payload.end <= whole.end,
                    "payload at {:?} of a record at {whole:?}",
                    found.payload
                );
                if found.header.role != Role::Mark {
                    payloads.push((found.header.sequence, found.payload));
                }
                whole
            }
        };
        assert!(range.start >= end, "{range:?} begins before {end}");
        end = range.end;
    }
    payloads
}
