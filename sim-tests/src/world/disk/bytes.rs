//! The bytes of a file, sparse: a page of zeros that nobody wrote costs nothing.
//!
//! Pages are shared between copies until one of them writes, so that what a disk looks like after
//! a power loss can be had at any time for the price of a list of pages.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::world::core::bytes_u64;
use crate::world::trace::fold_bytes;

/// Bytes of a page.
pub(super) const PAGE_BYTES: u64 = 4096;
const PAGE_LEN: usize = 4096;

/// A page that nobody wrote.
static ZEROS: [u8; PAGE_LEN] = [0; PAGE_LEN];

/// A sparse string of bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct SparseBytes {
    pages: BTreeMap<u64, Arc<[u8]>>,
    len: u64,
}

/// Where a piece of a range lies: its page, its place in the page and in the range.
struct Piece {
    page: u64,
    in_page: std::ops::Range<usize>,
    in_range: std::ops::Range<usize>,
}

/// Cuts a range of a file into the pieces that lie on one page each.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = Piece> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + bytes_u64(done);
        let start = usize::try_from(at % PAGE_BYTES).unwrap_or(0);
        let count = (PAGE_LEN - start).min(len - done);
        let piece = Piece {
            page: at / PAGE_BYTES,
            in_page: start..start + count,
            in_range: done..done + count,
        };
        done += count;
        Some(piece)
    })
}

impl SparseBytes {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Reads from `offset`; returns how much there was.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let there = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = there.min(buffer.len());
        for piece in pieces(offset, len) {
            let Some(to) = buffer.get_mut(piece.in_range) else { continue };
            match self.pages.get(&piece.page).and_then(|page| page.get(piece.in_page)) {
                Some(from) => to.copy_from_slice(from),
                None => to.fill(0),
            }
        }
        len
    }

    /// Writes `bytes` at `offset`, growing as needed.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        for piece in pieces(offset, bytes.len()) {
            let Some(from) = bytes.get(piece.in_range) else { continue };
            if from.len() == PAGE_LEN {
                self.pages.insert(piece.page, Arc::from(from));
                continue;
            }
            let page = self.pages.entry(piece.page).or_insert_with(|| Arc::from(&ZEROS[..]));
            if let Some(to) = Arc::make_mut(page).get_mut(piece.in_page) {
                to.copy_from_slice(from);
            }
        }
        self.len = self.len.max(offset.saturating_add(bytes_u64(bytes.len())));
    }

    /// Writes `len` zeros at `offset`, growing as needed. Whole pages are given back.
    pub(super) fn write_zeros(&mut self, offset: u64, len: u64) {
        self.clear(offset, offset.saturating_add(len));
        self.len = self.len.max(offset.saturating_add(len));
    }

    /// Cuts, or grows with zeros.
    pub(super) fn truncate(&mut self, len: u64) {
        if len < self.len {
            self.clear(len, self.len);
        }
        self.len = len;
    }

    /// Copies a range from another file; what that does not have becomes zeros.
    pub(super) fn copy_from(&mut self, other: &Self, offset: u64, len: u64) {
        let mut buffer = vec![0; usize::try_from(len).unwrap_or(0)];
        other.read(offset, &mut buffer);
        self.write(offset, &buffer);
    }

    /// Flips one bit.
    pub(super) fn flip(&mut self, offset: u64, bit: u8) {
        let mut byte = [0];
        if self.read(offset, &mut byte) == 1 {
            self.write(offset, &[byte[0] ^ (1 << (bit % 8))]);
        }
    }

    /// Returns where the pages begin that hold something and lie within the length.
    pub(super) fn page_offsets(&self) -> Vec<u64> {
        let offsets = self.pages.keys().map(|page| page * PAGE_BYTES);
        offsets.filter(|offset| *offset < self.len).collect()
    }

    /// Hashes length and content; pages of zeros count the same whether stored or not.
    pub(super) fn hash(&self) -> u64 {
        let mut hash = self.len;
        for (number, page) in &self.pages {
            if page.iter().any(|byte| *byte != 0) {
                hash = (hash.rotate_left(23) ^ number ^ fold_bytes(page))
                    .wrapping_mul(0x9e37_79b9_7f4a_7c15);
            }
        }
        hash
    }

    fn clear(&mut self, start: u64, end: u64) {
        let first_whole = start.div_ceil(PAGE_BYTES);
        let last_whole = end / PAGE_BYTES;
        if first_whole < last_whole {
            let whole: Vec<u64> =
                self.pages.range(first_whole..last_whole).map(|(page, _)| *page).collect();
            for page in whole {
                self.pages.remove(&page);
            }
            self.clear_within_page(start, first_whole * PAGE_BYTES);
            self.clear_within_page(last_whole * PAGE_BYTES, end);
        } else {
            let middle = (first_whole * PAGE_BYTES).clamp(start, end);
            self.clear_within_page(start, middle);
            self.clear_within_page(middle, end);
        }
    }

    fn clear_within_page(&mut self, start: u64, end: u64) {
        let Some(page) = self.pages.get_mut(&(start / PAGE_BYTES)) else { return };
        let from = usize::try_from(start % PAGE_BYTES).unwrap_or(0);
        let count = usize::try_from(end - start).unwrap_or(0);
        if let Some(bytes) = Arc::make_mut(page).get_mut(from..from + count) {
            bytes.fill(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Change {
        Write(u64, Vec<u8>),
        Zeros(u64, u64),
        Truncate(u64),
    }

    fn change() -> impl Strategy<Value = Change> {
        let offset = 0_u64..20_000;
        prop_oneof![
            (offset.clone(), prop::collection::vec(any::<u8>(), 0..9_000))
                .prop_map(|(offset, bytes)| Change::Write(offset, bytes)),
            (offset.clone(), 0_u64..12_000).prop_map(|(offset, len)| Change::Zeros(offset, len)),
            offset.prop_map(Change::Truncate),
        ]
    }

    fn change_model(model: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
        let (start, end) = (usize::try_from(offset).unwrap(), bytes.len());
        if model.len() < start + end {
            model.resize(start + end, 0);
        }
        model[start..start + end].copy_from_slice(bytes);
    }

    proptest! {
        #[test]
        fn sparse_bytes_equal_a_plain_vector(
            changes in prop::collection::vec(change(), 0..20),
        ) {
            let (mut sparse, mut model) = (SparseBytes::default(), Vec::new());
            for change in changes {
                let copy = (sparse.clone(), model.clone());
                match change {
                    Change::Write(offset, bytes) => {
                        sparse.write(offset, &bytes);
                        change_model(&mut model, offset, &bytes);
                    }
                    Change::Zeros(offset, len) => {
                        sparse.write_zeros(offset, len);
                        let zeros = vec![0; usize::try_from(len).unwrap()];
                        change_model(&mut model, offset, &zeros);
                    }
                    Change::Truncate(len) => {
                        sparse.truncate(len);
                        model.resize(usize::try_from(len).unwrap(), 0);
                    }
                }
                for (sparse, model) in [(&sparse, &model), (&copy.0, &copy.1)] {
                    let mut read = vec![7; model.len() + 10];
                    let len = sparse.read(0, &mut read);
                    prop_assert_eq!(len, model.len());
                    prop_assert_eq!(&read[..len], &model[..]);
                }
            }
        }
    }
}
