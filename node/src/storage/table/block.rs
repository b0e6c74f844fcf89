//! The body of a cells-frame: some dozen entries in order, each place without what it shares with
//! the one before. See the [module](super) for its bytes.
//!
//! Every eighth entry is a *restart* and has its place in full, so that a search begins in the
//! middle. From there a search does not put places together: it remembers how many bytes of the
//! sought place the last entry agreed with. An entry that shares more than that with the last one
//! is still before the sought place; one that shares less is after it; only one that shares just
//! as much has to be compared, from there on. This holds because `shared` counts *all* bytes that
//! two neighbours agree in.

use std::cmp::Ordering;
use std::ops::Range;

use bytes::Bytes;

use super::reader::Found;
use super::varint;
use crate::planted;
use crate::storage::{Cell, Content};

/// Entries from one restart to the next. A search walks through half of them on average; a restart
/// costs four bytes and what its place shares, 0.4 % of the file for cells of 116 B.
const RESTART_INTERVAL: usize = 8;

/// Bytes of a body before its entries: the base of their versions.
const BASE_BYTES: usize = 8;

/// What is wrong with a body whose checksum is right.
pub(super) type Malformed = &'static str;

/// What an entry holds, without its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Value,
    Deleted,
    RowDeleted,
}

impl Kind {
    fn of(content: Content<'_>) -> Self {
        match content {
            Content::Value(_) => Self::Value,
            Content::Deleted => Self::Deleted,
            Content::RowDeleted => Self::RowDeleted,
        }
    }

    fn code(self) -> u64 {
        match self {
            Self::Value => 0,
            Self::Deleted => 1,
            Self::RowDeleted => 2,
        }
    }

    fn from_code(code: u64) -> Option<Self> {
        [Self::Value, Self::Deleted, Self::RowDeleted].into_iter().find(|kind| kind.code() == code)
    }

    fn content(self, value: &[u8]) -> Content<'_> {
        match self {
            Self::Value => Content::Value(value),
            Self::Deleted => Content::Deleted,
            Self::RowDeleted => Content::RowDeleted,
        }
    }
}

/// Puts a body together.
#[derive(Debug, Default)]
pub(super) struct BlockBuilder {
    body: Vec<u8>,
    base: u64,
    restarts: Vec<u32>,
    /// Place of the last entry; kept when the block is taken.
    last: Vec<u8>,
    /// Entries since the last restart.
    run_count: usize,
}

impl BlockBuilder {
    /// Returns how many bytes a place shares with that of the last entry pushed.
    pub(super) fn shared(&self, place: &[u8]) -> usize {
        common_prefix(&self.last, place)
    }

    /// Appends an entry, whose place [shares](Self::shared) so many bytes with the last one. Its
    /// order is the caller's promise.
    pub(super) fn push(&mut self, cell: &Cell<'_>, mut shared: usize) {
        if self.body.is_empty() {
            self.base = cell.version;
            self.body.extend_from_slice(&self.base.to_le_bytes());
        }
        let same_place = shared == cell.place.len() && shared == self.last.len();
        // The row's tombstone and the cell at the same place stay together.
        let restarts = self.run_count >= RESTART_INTERVAL && !same_place;
        if self.restarts.is_empty() || restarts {
            let offset = u32::try_from(self.body.len()).unwrap_or(u32::MAX);
            assert!(offset < u32::MAX, "a block of {} bytes", self.body.len());
            self.restarts.push(offset);
            self.run_count = 0;
            shared = 0;
        }
        self.run_count += 1;
        let suffix = cell.place.get(shared..).unwrap_or_default();
        let value = match cell.content {
            Content::Value(value) => value,
            Content::Deleted | Content::RowDeleted => &[],
        };
        varint::push(&mut self.body, to_u64(shared));
        varint::push(&mut self.body, to_u64(suffix.len()));
        varint::push(&mut self.body, to_u64(value.len()) << 2 | Kind::of(cell.content).code());
        let distance = cell.version.wrapping_sub(self.base);
        varint::push(&mut self.body, varint::zigzag(distance));
        self.body.extend_from_slice(suffix);
        self.body.extend_from_slice(value);
        self.last.truncate(shared);
        self.last.extend_from_slice(suffix);
    }

    /// Returns how long the body is so far; 0 without an entry.
    pub(super) fn len(&self) -> usize {
        self.body.len()
    }

    /// Returns the place of the last entry pushed, of this block or the one before.
    pub(super) fn last(&self) -> &[u8] {
        &self.last
    }

    /// Completes the body, lends it to `take`, and begins the next one.
    pub(super) fn finish<T>(&mut self, take: impl FnOnce(&[u8]) -> T) -> T {
        for restart in &self.restarts {
            self.body.extend_from_slice(&restart.to_le_bytes());
        }
        let count = u32::try_from(self.restarts.len()).unwrap_or(u32::MAX);
        self.body.extend_from_slice(&count.to_le_bytes());
        let taken = take(&self.body);
        self.body.clear();
        self.restarts.clear();
        self.run_count = 0;
        taken
    }
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    // Eight bytes at a time, then those in which the first difference is.
    let (a_words, _) = a.as_chunks::<8>();
    let (b_words, _) = b.as_chunks::<8>();
    let same = a_words.iter().zip(b_words).take_while(|(a, b)| a == b).count() * 8;
    let (a, b) = (a.get(same..).unwrap_or_default(), b.get(same..).unwrap_or_default());
    same + a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

fn to_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// A body in memory. Cheap to clone; the bytes are shared.
#[derive(Debug, Clone)]
pub(super) struct Block {
    body: Bytes,
    base: u64,
    /// Where the entries end and the restarts begin.
    entries_end: usize,
}

/// An entry as it lies in a body.
#[derive(Debug, Clone, Copy)]
struct Entry<'a> {
    shared: usize,
    suffix: &'a [u8],
    version: u64,
    kind: Kind,
    value: &'a [u8],
}

impl Block {
    /// Takes a body apart as far as is needed to search it.
    pub(super) fn new(body: Bytes) -> Result<Self, Malformed> {
        let (head, count) = body.split_last_chunk::<4>().ok_or("a block cut short")?;
        let count = usize::try_from(u32::from_le_bytes(*count)).unwrap_or(usize::MAX);
        let entries_end = count.checked_mul(4).and_then(|bytes| head.len().checked_sub(bytes));
        let base = head.first_chunk::<BASE_BYTES>().ok_or("a block cut short")?;
        let base = u64::from_le_bytes(*base);
        match entries_end {
            Some(entries_end) if count > 0 && entries_end > BASE_BYTES => {
                Ok(Self { body, base, entries_end })
            }
            _ => Err("a block with impossible restarts"),
        }
    }

    /// Returns how much memory the block keeps.
    pub(super) fn memory_bytes(&self) -> usize {
        self.body.len()
    }

    /// Finds the cell at `place`.
    pub(super) fn find_cell(&self, place: &[u8]) -> Result<Option<Found>, Malformed> {
        let Some((entry, mut rest)) = self.find(place)? else { return Ok(None) };
        let entry = match entry.kind {
            Kind::Value | Kind::Deleted => entry,
            // The row's tombstone comes first; the cell, if any, has the same place.
            Kind::RowDeleted if rest.is_empty() => return Ok(None),
            Kind::RowDeleted => {
                let next = self.take_entry(&mut rest)?;
                if next.shared != place.len() || !next.suffix.is_empty() {
                    return Ok(None);
                }
                next
            }
        };
        match entry.kind {
            Kind::Value => {
                let value = Some(self.body.slice_ref(entry.value));
                Ok(Some(Found { version: entry.version, value }))
            }
            Kind::Deleted => Ok(Some(Found { version: entry.version, value: None })),
            Kind::RowDeleted => Err("a row deleted twice"),
        }
    }

    /// Finds the tombstone of the row whose first place is `prefix`; returns its version.
    pub(super) fn find_row(&self, prefix: &[u8]) -> Result<Option<u64>, Malformed> {
        let found = self.find(prefix)?;
        Ok(found.filter(|(entry, _)| entry.kind == Kind::RowDeleted).map(|found| found.0.version))
    }

    /// Finds the first entry at `place`, and what entries follow it.
    fn find(&self, place: &[u8]) -> Result<Option<(Entry<'_>, &[u8])>, Malformed> {
        let mut rest = self.entries_from(self.restart_before(place)?)?;
        let mut agreed = 0;
        while !rest.is_empty() {
            let entry = self.take_entry(&mut rest)?;
            if entry.shared == 0 {
                // A restart, maybe: what its place agrees in is counted anew.
                agreed = 0;
            }
            match entry.shared.cmp(&agreed) {
                Ordering::Greater => {}
                Ordering::Less => return Ok(None),
                Ordering::Equal => {
                    let sought = place.get(agreed..).unwrap_or_default();
                    match entry.suffix.cmp(sought) {
                        Ordering::Less => agreed += common_prefix(entry.suffix, sought),
                        Ordering::Equal => return Ok(Some((entry, rest))),
                        Ordering::Greater => return Ok(None),
                    }
                }
            }
        }
        Ok(None)
    }

    /// Checks what a search relies on beyond the order of places: that every restart is an entry
    /// with its place in full, the first one the first entry, that an entry says of all bytes
    /// that it shares, and that no restart comes between a row's tombstone and the cell at the
    /// same place, since a search would begin at the cell.
    pub(super) fn check_searchable(&self) -> Result<(), Malformed> {
        let mut rest = self.entries_from(BASE_BYTES)?;
        let (mut place, mut full) = (Vec::new(), Vec::new());
        while !rest.is_empty() {
            let offset = self.entries_end - rest.len();
            let entry = self.take_entry(&mut rest)?;
            let next = place.get(entry.shared);
            let same_place = offset > BASE_BYTES && place.get(entry.shared..) == Some(entry.suffix);
            let shares_more = next.is_some() && next == entry.suffix.first();
            // An entry at the place of the one before is never one to begin a search at.
            if shares_more && (same_place || entry.shared > 0) {
                return Err("an entry that shares more than it says");
            }
            if entry.shared == 0 && !same_place {
                full.push(offset);
            }
            place.truncate(entry.shared);
            place.extend_from_slice(entry.suffix);
        }
        let restarts = self.body.get(self.entries_end..).unwrap_or_default();
        let (numbers, _) = restarts.as_chunks::<4>();
        let restarts = numbers.split_last().map(|(_, restarts)| restarts).unwrap_or_default();
        let mut restarts = restarts.iter().map(|restart| to_usize(*restart)).peekable();
        if restarts.peek() != Some(&BASE_BYTES) {
            return Err("a block whose first restart is not its first entry");
        }
        let mut last = 0;
        for restart in restarts {
            if restart <= last || full.binary_search(&restart).is_err() {
                return Err("a restart that is none");
            }
            last = restart;
        }
        Ok(())
    }

    /// Returns the offset of the last restart whose place is not after `place`, or of the first.
    fn restart_before(&self, place: &[u8]) -> Result<usize, Malformed> {
        let restarts = self.body.get(self.entries_end..).unwrap_or_default();
        let (numbers, _) = restarts.as_chunks::<4>();
        // The last number is how many restarts there are.
        let restarts = numbers.split_last().map(|(_, restarts)| restarts).unwrap_or_default();
        let mut malformed = None;
        let after = restarts.partition_point(|restart| {
            let first = self.entries_from(to_usize(*restart));
            match first.and_then(|mut rest| self.take_entry(&mut rest)) {
                Ok(entry) => entry.suffix <= place,
                Err(what) => {
                    malformed = Some(what);
                    false
                }
            }
        });
        let at = if planted!("F8") { after } else { after.saturating_sub(1) };
        match (malformed, restarts.get(at)) {
            (None, Some(restart)) => Ok(to_usize(*restart)),
            (Some(what), _) => Err(what),
            (None, None) => Err("a block without restarts"),
        }
    }

    fn entries_from(&self, offset: usize) -> Result<&[u8], Malformed> {
        match self.body.get(offset..self.entries_end) {
            Some(entries) if offset >= BASE_BYTES => Ok(entries),
            _ => Err("an entry outside of its block"),
        }
    }

    fn take_entry<'a>(&self, rest: &mut &'a [u8]) -> Result<Entry<'a>, Malformed> {
        self.maybe_take_entry(rest).ok_or("an entry cut short")
    }

    #[inline]
    fn maybe_take_entry<'a>(&self, rest: &mut &'a [u8]) -> Option<Entry<'a>> {
        let shared = varint::take_len(rest)?;
        let suffix_bytes = varint::take_len(rest)?;
        let value = varint::take(rest)?;
        let version = self.base.wrapping_add(varint::unzigzag(varint::take(rest)?));
        let kind = Kind::from_code(value & 3)?;
        let (suffix, after) = rest.split_at_checked(suffix_bytes)?;
        let (value, after) = after.split_at_checked(usize::try_from(value >> 2).ok()?)?;
        *rest = after;
        Some(Entry { shared, suffix, version, kind, value })
    }
}

fn to_usize(number: [u8; 4]) -> usize {
    usize::try_from(u32::from_le_bytes(number)).unwrap_or(usize::MAX)
}

/// Walks through the entries of a block.
#[derive(Debug)]
pub(super) struct BlockCursor {
    block: Block,
    /// Offset of the entry after the current one.
    next: usize,
    place: Vec<u8>,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    version: u64,
    kind: Kind,
    value: Range<usize>,
}

impl BlockCursor {
    /// Begins at the first entry of a block. `place` is a buffer to use again.
    pub(super) fn new(block: Block, mut place: Vec<u8>) -> Result<Self, Malformed> {
        place.clear();
        let mut cursor = Self { block, next: BASE_BYTES, place, current: None };
        cursor.advance()?;
        Ok(cursor)
    }

    /// Returns the buffer of the place.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.place
    }

    /// Goes to the first entry at or after `place`.
    pub(super) fn seek(&mut self, place: &[u8]) -> Result<(), Malformed> {
        self.next = self.block.restart_before(place)?;
        self.place.clear();
        self.advance()?;
        while self.current.is_some() && self.place.as_slice() < place {
            self.advance()?;
        }
        Ok(())
    }

    /// Goes to the next entry, or past the last one.
    pub(super) fn advance(&mut self) -> Result<(), Malformed> {
        let mut rest = self.block.entries_from(self.next)?;
        if rest.is_empty() {
            self.current = None;
            return Ok(());
        }
        let entry = self.block.take_entry(&mut rest)?;
        if entry.shared > self.place.len() {
            return Err("an entry that shares more than there is");
        }
        self.place.truncate(entry.shared);
        self.place.extend_from_slice(entry.suffix);
        self.next = self.block.entries_end - rest.len();
        let value = self.next - entry.value.len()..self.next;
        self.current = Some(Current { version: entry.version, kind: entry.kind, value });
        Ok(())
    }

    /// Returns the current entry; `None` past the last one.
    pub(super) fn current(&self) -> Option<Cell<'_>> {
        let current = self.current.as_ref()?;
        let value = self.block.body.get(current.value.clone()).unwrap_or_default();
        let content = current.kind.content(value);
        Some(Cell { place: &self.place, version: current.version, content })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the second restart of [`body`] is said to be.
    const SECOND_RESTART: usize = 8;

    fn push(builder: &mut BlockBuilder, cell: &Cell<'_>) {
        builder.push(cell, builder.shared(cell.place));
    }

    /// Returns a body of twelve entries with two restarts.
    fn body() -> Vec<u8> {
        let mut builder = BlockBuilder::default();
        for number in 0..12_u8 {
            let place = [b"a place ", &[b'a' + number][..]].concat();
            push(&mut builder, &Cell { place: &place, version: 7, content: Content::Value(b"v") });
        }
        builder.finish(<[u8]>::to_vec)
    }

    fn checked(body: Vec<u8>) -> Result<(), Malformed> {
        Block::new(Bytes::from(body)).and_then(|block| block.check_searchable())
    }

    #[test]
    fn body_as_it_is_built_is_searchable() {
        assert_eq!(checked(body()), Ok(()));
    }

    /// The accident: a table that verified well, in which a search began at an entry without its
    /// whole place and did not find a cell that was there.
    #[test]
    fn restart_without_its_whole_place_is_found_by_verifying() {
        let mut body = body();
        let at = body.len() - SECOND_RESTART;
        let block = Block::new(Bytes::from(body.clone())).unwrap();
        let mut rest = block.entries_from(BASE_BYTES).unwrap();
        block.take_entry(&mut rest).unwrap();
        let second = u32::try_from(block.entries_end - rest.len()).unwrap();
        body[at..at + 4].copy_from_slice(&second.to_le_bytes());
        assert_eq!(checked(body), Err("a restart that is none"));
    }

    /// The accident: as above, with an entry that says of fewer bytes that it shares them.
    #[test]
    fn entry_that_shares_more_than_it_says_is_found_by_verifying() {
        let mut builder = BlockBuilder::default();
        for place in [b"aaa", b"aab"] {
            push(&mut builder, &Cell { place, version: 7, content: Content::Deleted });
        }
        let mut body = builder.finish(<[u8]>::to_vec);
        let entry = body.windows(5).rposition(|entry| entry == [2, 1, 1, 0, b'b']).unwrap();
        body.splice(entry..entry + 5, [1, 2, 1, 0, b'a', b'b']);
        assert_eq!(checked(body), Err("an entry that shares more than it says"));
    }

    /// As above, with a search that would begin at the cell and not see the row's tombstone.
    #[test]
    fn restart_between_a_tombstone_and_its_cell_is_found_by_verifying() {
        let mut builder = BlockBuilder::default();
        for content in [Content::RowDeleted, Content::Value(b"v")] {
            push(&mut builder, &Cell { place: b"aaa", version: 7, content });
        }
        let mut body = builder.finish(<[u8]>::to_vec);
        assert_eq!(checked(body.clone()), Ok(()));
        // The cell with its place in full, and a second restart at it.
        let cell = body.windows(5).rposition(|entry| entry == [3, 0, 4, 0, b'v']).unwrap();
        body.splice(cell..cell + 4, [0, 3, 4, 0, b'a', b'a', b'a']);
        let restarts = body.len() - 2 * size_of::<u32>();
        let second = u32::try_from(cell).unwrap().to_le_bytes();
        body.splice(restarts + 4.., [second, 2_u32.to_le_bytes()].concat());
        let block = Block::new(Bytes::from(body.clone())).unwrap();
        assert_eq!(block.find_row(b"aaa"), Ok(None));
        assert_eq!(checked(body), Err("an entry that shares more than it says"));
    }

    #[test]
    fn restart_between_a_tombstone_and_its_cell_at_the_empty_place_is_found_by_verifying() {
        let mut builder = BlockBuilder::default();
        for content in [Content::RowDeleted, Content::Value(b"v")] {
            push(&mut builder, &Cell { place: b"", version: 7, content });
        }
        let mut body = builder.finish(<[u8]>::to_vec);
        let cell = body.windows(5).rposition(|entry| entry == [0, 0, 4, 0, b'v']).unwrap();
        let restarts = body.len() - 2 * size_of::<u32>();
        let second = u32::try_from(cell).unwrap().to_le_bytes();
        body.splice(restarts + 4.., [second, 2_u32.to_le_bytes()].concat());
        assert_eq!(checked(body), Err("a restart that is none"));
    }
}
