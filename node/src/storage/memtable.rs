//! The newest value of every place, sorted, in memory.
//!
//! A B-tree of [`PackedCell`]s, each of which is one allocation for version, place and value, and
//! the first bytes of the place beside the pointer to it. With those, most comparisons on the way
//! down stay in the tree's own nodes; without them each one waited for memory, and in a cluster
//! under writes that was a tenth of all processor time. All bytes are copied in, so that no cell
//! keeps the large buffer alive that it came in.
//!
//! # Layout
//! Of a cell, in memory and in a checkpoint file alike:
//! ```text
//! ┌────────────────┬──────────────────┬───────┬───────┐
//! │ version u64 LE │ place_len u32 LE │ place │ value │
//! └────────────────┴──────────────────┴───────┴───────┘
//! ```

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Bound;

/// Bytes of a cell besides its place and its value.
pub const CELL_HEADER_BYTES: usize = 12;

/// A place with its value and version, in one allocation; compared by its place alone.
pub struct PackedCell {
    /// See [`head_of`].
    head: [u64; 2],
    bytes: Box<[u8]>,
}

impl PackedCell {
    /// Copies place and value into a cell.
    pub fn new(place: &[u8], value: &[u8], version: u64) -> Self {
        let place_len = u32::try_from(place.len()).unwrap_or(u32::MAX);
        assert!(place_len < u32::MAX, "place of {} bytes", place.len());
        let mut bytes = Vec::with_capacity(CELL_HEADER_BYTES + place.len() + value.len());
        bytes.extend_from_slice(&version.to_le_bytes());
        bytes.extend_from_slice(&place_len.to_le_bytes());
        bytes.extend_from_slice(place);
        bytes.extend_from_slice(value);
        Self { head: head_of(place), bytes: bytes.into_boxed_slice() }
    }

    /// Copies a cell out of its encoding; `None` if the bytes are not one.
    pub fn from_encoded(bytes: &[u8]) -> Option<Self> {
        let (_, place_len, rest) = split(bytes)?;
        let place = rest.get(..place_len)?;
        Some(Self { head: head_of(place), bytes: bytes.into() })
    }

    /// Returns the encoding of the cell.
    pub fn as_encoded(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns its place.
    pub fn place(&self) -> &[u8] {
        let (_, place_len, rest) = split(&self.bytes).unwrap_or_default();
        rest.get(..place_len).unwrap_or_default()
    }

    /// Returns its value.
    pub fn value(&self) -> &[u8] {
        let (_, place_len, rest) = split(&self.bytes).unwrap_or_default();
        rest.get(place_len..).unwrap_or_default()
    }

    /// Returns the log index of the write that made it.
    pub fn version(&self) -> u64 {
        let (version, ..) = split(&self.bytes).unwrap_or_default();
        version
    }
}

/// Takes the header off: version, length of the place, place and value. Both constructors see to
/// it that this works for every cell.
fn split(bytes: &[u8]) -> Option<(u64, usize, &[u8])> {
    let (version, rest) = bytes.split_first_chunk::<8>()?;
    let (place_len, rest) = rest.split_first_chunk::<4>()?;
    let place_len = usize::try_from(u32::from_le_bytes(*place_len)).ok()?;
    Some((u64::from_le_bytes(*version), place_len, rest))
}

/// Returns the first bytes of a place as two big-endian numbers, zeros behind its end: they order
/// places as far as they go, and where they are equal the whole places decide.
fn head_of(place: &[u8]) -> [u64; 2] {
    let mut head = [0; 2];
    for (number, bytes) in head.iter_mut().zip(place.chunks(8)) {
        let mut whole = [0; 8];
        for (to, from) in whole.iter_mut().zip(bytes) {
            *to = *from;
        }
        *number = u64::from_be_bytes(whole);
    }
    head
}

/// What a cell is compared by, so that one can be looked up without making another.
trait Placed {
    fn head(&self) -> [u64; 2];
    fn place(&self) -> &[u8];
}

impl Placed for PackedCell {
    fn head(&self) -> [u64; 2] {
        self.head
    }

    fn place(&self) -> &[u8] {
        Self::place(self)
    }
}

/// A place that is looked for.
struct Sought<'a> {
    head: [u64; 2],
    place: &'a [u8],
}

impl<'a> Sought<'a> {
    fn new(place: &'a [u8]) -> Self {
        Self { head: head_of(place), place }
    }
}

impl Placed for Sought<'_> {
    fn head(&self) -> [u64; 2] {
        self.head
    }

    fn place(&self) -> &[u8] {
        self.place
    }
}

impl<'a> Borrow<dyn Placed + 'a> for PackedCell {
    fn borrow(&self) -> &(dyn Placed + 'a) {
        self
    }
}

impl PartialEq for dyn Placed + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for dyn Placed + '_ {}

impl PartialOrd for dyn Placed + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn Placed + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.head().cmp(&other.head()).then_with(|| self.place().cmp(other.place()))
    }
}

impl PartialEq for PackedCell {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for PackedCell {}

impl PartialOrd for PackedCell {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PackedCell {
    fn cmp(&self, other: &Self) -> Ordering {
        self.head.cmp(&other.head).then_with(|| self.place().cmp(other.place()))
    }
}

impl fmt::Debug for PackedCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{}={}B", self.place(), self.version(), self.value().len())
    }
}

/// Cells sorted by place, at most one at each; see the [module](self).
#[derive(Debug, Default)]
pub struct Memtable {
    cells: BTreeSet<PackedCell>,
}

impl Memtable {
    /// Returns the cell at `place`.
    pub fn get(&self, place: &[u8]) -> Option<&PackedCell> {
        self.cells.get(&Sought::new(place) as &dyn Placed)
    }

    /// Puts a cell at its place; returns the one that was there.
    pub fn put(&mut self, cell: PackedCell) -> Option<PackedCell> {
        self.cells.replace(cell)
    }

    /// Removes and returns the cell at `place`.
    pub fn remove(&mut self, place: &[u8]) -> Option<PackedCell> {
        self.cells.take(&Sought::new(place) as &dyn Placed)
    }

    /// Returns the first cell.
    pub fn first(&self) -> Option<&PackedCell> {
        self.cells.first()
    }

    /// Removes and returns the first cell.
    pub fn take_first(&mut self) -> Option<PackedCell> {
        self.cells.pop_first()
    }

    /// Returns the cells between two bounds in order; none if the bounds are crossed.
    pub fn range<'a>(
        &'a self,
        start: Bound<&[u8]>,
        end: Option<&[u8]>,
    ) -> impl Iterator<Item = &'a PackedCell> + use<'a> {
        let crossed = match (start, end) {
            (Bound::Included(start) | Bound::Excluded(start), Some(end)) => start >= end,
            (Bound::Unbounded, _) | (_, None) => false,
        };
        let (start, end) = (start.map(Sought::new), end.map(Sought::new));
        let start = start.as_ref().map(|sought| sought as &dyn Placed);
        let end = end.as_ref().map_or(Bound::Unbounded, |sought| Bound::Excluded(sought as _));
        let cells = (!crossed).then(|| self.cells.range::<dyn Placed, _>((start, end)));
        cells.into_iter().flatten()
    }

    /// Returns how many cells there are.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Tells whether there are no cells.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }
}
