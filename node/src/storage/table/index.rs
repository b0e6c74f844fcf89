//! The index: which frame of cells may hold a place.
//!
//! For each frame it has the frame's length and a *separator*, the shortest convenient place
//! between the frame's last place and the next frame's first. Offsets are not stored but added
//! up, so that the frames of an index that is believed cover the file without a gap.
//!
//! In memory the index also has the *head* of each separator, the first sixteen bytes after those
//! that all of them share. Heads lie close together and compare as integers, so a search goes
//! through them and looks at whole separators only where heads are equal. Sixteen, because a
//! table may begin in one partition and end in another: then places share no more than a byte,
//! and what their keys have in common must fit into the head, too.

use bytes::Bytes;

use super::frame;
use crate::storage::cell::head_of;

/// Puts an index together.
#[derive(Debug, Default)]
pub(super) struct IndexBuilder {
    body: Vec<u8>,
}

impl IndexBuilder {
    /// Adds a frame whose last place is `last`, before one whose first place is `next`.
    pub(super) fn push(&mut self, frame_bytes: u32, last: &[u8], next: Option<&[u8]>) {
        let separator = next.map_or(last, |next| separator(last, next));
        let separator_bytes = u32::try_from(separator.len()).unwrap_or(u32::MAX);
        self.body.extend_from_slice(&frame_bytes.to_le_bytes());
        self.body.extend_from_slice(&separator_bytes.to_le_bytes());
        self.body.extend_from_slice(separator);
    }

    /// Returns the body so far.
    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }
}

/// Returns a short place that is not before `last` and is before `next`.
fn separator<'a>(last: &'a [u8], next: &'a [u8]) -> &'a [u8] {
    assert!(last < next, "the cells {last:?} and {next:?} are not in two frames");
    let shared = last.iter().zip(next).take_while(|(a, b)| a == b).count();
    match next.get(..=shared) {
        // A part of `next` that differs from `last` is after it, and before all of `next`.
        Some(start) if start.len() < next.len() && start.len() < last.len() => start,
        _ => last,
    }
}

/// A frame of cells as the index knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Located {
    /// Offset in the file.
    pub(super) offset: u64,
    /// Length of the frame.
    pub(super) bytes: u32,
    separator_start: u32,
    separator_bytes: u32,
}

/// An index in memory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Index {
    body: Bytes,
    frames: Vec<Located>,
    /// How many bytes all separators share.
    shared: usize,
    heads: Vec<u128>,
}

impl Index {
    /// Reads the body of an index of frames that fill a file up to `cells_bytes`.
    pub(super) fn decode(body: Bytes, cells_bytes: u64) -> Result<Self, &'static str> {
        let mut frames = Vec::new();
        let mut rest = body.as_ref();
        let mut offset: u64 = 0;
        while !rest.is_empty() {
            let (frame_bytes, after) = rest.split_first_chunk::<4>().ok_or("an index cut short")?;
            let (len, after) = after.split_first_chunk::<4>().ok_or("an index cut short")?;
            let (bytes, separator_bytes) =
                (u32::from_le_bytes(*frame_bytes), u32::from_le_bytes(*len));
            let separator_start = u32::try_from(body.len() - after.len());
            let separator_start = separator_start.ok().ok_or("an index too long")?;
            let len = usize::try_from(separator_bytes).unwrap_or(usize::MAX);
            let (_, after) = after.split_at_checked(len).ok_or("an index cut short")?;
            if to_u64(frame::HEADER_BYTES) >= u64::from(bytes) {
                return Err("an index of a frame without a body");
            }
            rest = after;
            frames.push(Located { offset, bytes, separator_start, separator_bytes });
            offset = offset.saturating_add(u64::from(bytes));
        }
        if offset != cells_bytes {
            return Err("an index of more or fewer frames than there are");
        }
        let mut index = Self { body, frames, shared: 0, heads: Vec::new() };
        let is_sorted = index.frames.is_sorted_by(|a, b| index.separator(a) < index.separator(b));
        if !is_sorted {
            return Err("an index out of order");
        }
        index.cut_heads();
        Ok(index)
    }

    /// Makes the heads of the separators, which are in order.
    fn cut_heads(&mut self) {
        let (Some(first), Some(last)) = (self.frames.first(), self.frames.last()) else { return };
        let (first, last) = (self.separator(first), self.separator(last));
        self.shared = first.iter().zip(last).take_while(|(a, b)| a == b).count();
        let cut = |frame| head_of(self.separator(frame).get(self.shared..).unwrap_or_default());
        self.heads = self.frames.iter().map(cut).collect();
    }

    /// Returns how many frames of cells there are.
    pub(super) fn frame_count(&self) -> usize {
        self.frames.len()
    }

    /// Returns a frame.
    pub(super) fn frame(&self, position: usize) -> Option<&Located> {
        self.frames.get(position)
    }

    /// Returns the position of the one frame that may hold `place`: the first that may hold it or
    /// something after it. At or past the count of frames there is none.
    pub(super) fn find(&self, place: &[u8]) -> usize {
        let first = self.frames.first().map(|frame| self.separator(frame)).unwrap_or_default();
        let shared = first.get(..self.shared).unwrap_or_default();
        let Some(rest) = place.strip_prefix(shared) else {
            // Before all separators or after all of them, as it is for what they share.
            return if place < shared { 0 } else { self.frames.len() };
        };
        let head = head_of(rest);
        let before = self.heads.partition_point(|other| *other < head);
        let alike = self.heads.get(before..).unwrap_or_default();
        let alike = alike.iter().take_while(|other| **other == head).count();
        let alike = self.frames.get(before..before + alike).unwrap_or_default();
        before + alike.partition_point(|frame| self.separator(frame) < place)
    }

    /// Returns the separator after a frame.
    pub(super) fn separator(&self, frame: &Located) -> &[u8] {
        let start = usize::try_from(frame.separator_start).unwrap_or(usize::MAX);
        let len = usize::try_from(frame.separator_bytes).unwrap_or(usize::MAX);
        self.body.get(start..start.saturating_add(len)).unwrap_or_default()
    }

    /// Returns how much memory the index takes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.body.len() + self.frames.len() * (size_of::<Located>() + size_of::<u128>())
    }
}

fn to_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(0_u8..3, 0..5)
    }

    proptest! {
        #[test]
        fn separator_lies_between(a in place(), b in place()) {
            prop_assume!(a != b);
            let (last, next) = if a < b { (a, b) } else { (b, a) };
            let between = separator(&last, &next);
            prop_assert!(last.as_slice() <= between && between < next.as_slice());
            prop_assert!(between.len() <= last.len());
        }

        #[test]
        fn frame_is_that_of_the_first_separator_not_before_the_place(
            start in prop::collection::vec(0_u8..2, 0..3),
            ends in prop::collection::btree_set(prop::collection::vec(0_u8..2, 0..20), 1..40),
            place in prop::collection::vec(0_u8..2, 0..20),
        ) {
            let separators: Vec<Vec<u8>> =
                ends.into_iter().map(|end| [start.clone(), end].concat()).collect();
            let mut builder = IndexBuilder::default();
            for separator in &separators {
                builder.push(100, separator, None);
            }
            let cells_bytes = to_u64(separators.len()) * 100;
            let index = Index::decode(builder.body().to_vec().into(), cells_bytes).unwrap();
            for place in [place.clone(), [start, place].concat()] {
                let expected = separators.iter().take_while(|end| **end < place).count();
                prop_assert_eq!(index.find(&place), expected, "{:?} in {:?}", place, separators);
            }
        }

        #[test]
        fn foreign_bytes_never_panic(
            bytes in prop::collection::vec(prop_oneof![Just(0_u8), 0_u8..50], 0..64),
            cells_bytes in 0_u64..200,
        ) {
            if let Ok(index) = Index::decode(bytes.into(), cells_bytes) {
                prop_assert!(index.find(b"\0\0") <= index.frame_count());
            }
        }
    }
}
