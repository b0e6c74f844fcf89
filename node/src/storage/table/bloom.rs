//! The filter that tells of most absent places that a table does not have them.
//!
//! A Bloom filter in lines of 64 B: a place belongs to one line, which half of its hash chooses,
//! and sets up to seven of the line's 512 bits, which the other half chooses. So a question costs
//! one miss of the processor's cache instead of one for each bit, for a third more false answers:
//! about 1 % at ten bits for each cell.
//!
//! A row's tombstone stands at the place of the row's empty column, and is asked for by every read
//! of the row. It has a hash of its own, so that the question for the one is not answered by the
//! other.

use bytes::Bytes;
use twox_hash::XxHash3_64;

/// Bytes of a line: what a processor fetches at once.
const LINE_BYTES: usize = 64;

/// Most bits that a place sets: nine bits of the hash choose each, and it has 64.
const PROBES_MAX: u32 = 7;

/// Largest filter; more cells share its lines.
const LINES_MAX: u64 = (256 << 20) / 64;

/// The hash of a place, by which filters know it; made once and asked of many tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlaceHash(u64);

impl PlaceHash {
    /// Hashes a place.
    pub fn of(place: &[u8]) -> Self {
        Self(XxHash3_64::oneshot(place))
    }

    /// Returns a hash as good as any that no place has: how often filters answer to such ones that
    /// they may have it, is how often they are wrong.
    #[must_use]
    pub fn of_nothing(self) -> Self {
        Self(self.0.rotate_left(43) ^ 0xD1B5_4A32_D192_ED03)
    }

    /// Returns the hash of the row's tombstone at the same place.
    pub(super) fn of_row(self) -> Self {
        Self(self.0.rotate_left(21) ^ 0x9E37_79B9_7F4A_7C15)
    }
}

/// One line, where the processor wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(align(64))]
struct Line([u64; 8]);

/// A filter in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bloom {
    lines: Vec<Line>,
    probe_count: u32,
}

impl Bloom {
    /// Makes the filter of all `hashes`; without bits, one that lets everything pass.
    pub(super) fn new(hashes: &[PlaceHash], bits_per_cell: u32) -> Self {
        let bits = to_u64(hashes.len()).saturating_mul(u64::from(bits_per_cell));
        let line_count = bits.div_ceil(to_u64(LINE_BYTES) * 8).min(LINES_MAX);
        let mut lines = vec![Line::default(); usize::try_from(line_count).unwrap_or(0)];
        // The best count is ln 2 = 0.69 times the bits for each cell.
        let probe_count = bits_per_cell.saturating_mul(69).div_ceil(100).clamp(1, PROBES_MAX);
        for hash in hashes {
            let mask = mask(*hash, probe_count);
            if let Some(line) = lines.get_mut(line_index(*hash, line_count)) {
                for (word, mask) in line.0.iter_mut().zip(mask) {
                    *word |= mask;
                }
            }
        }
        Self { lines, probe_count }
    }

    /// Tells whether the place may be among those the filter was made of.
    pub(super) fn may_contain(&self, hash: PlaceHash) -> bool {
        let mask = mask(hash, self.probe_count);
        match self.lines.get(line_index(hash, to_u64(self.lines.len()))) {
            Some(line) => line.0.iter().zip(mask).all(|(word, mask)| word & mask == mask),
            None => true,
        }
    }

    /// Returns the bytes of the filter.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.memory_bytes() + size_of::<u32>());
        for line in &self.lines {
            body.extend_from_slice(line.0.map(u64::to_le_bytes).as_flattened());
        }
        body.extend_from_slice(&self.probe_count.to_le_bytes());
        body
    }

    /// Reads the bytes of a filter.
    pub(super) fn decode(body: &Bytes) -> Result<Self, &'static str> {
        let (lines, probe_count) = body.split_last_chunk::<4>().ok_or("a filter cut short")?;
        let probe_count = u32::from_le_bytes(*probe_count);
        if !(1..=PROBES_MAX).contains(&probe_count) {
            return Err("a filter of more bits than a hash has");
        }
        let (lines, rest) = lines.as_chunks::<LINE_BYTES>();
        if !rest.is_empty() {
            return Err("a filter with half a line");
        }
        let line = |bytes: &[u8; LINE_BYTES]| {
            let mut line = Line::default();
            let (words, _) = bytes.as_chunks::<8>();
            for (word, bytes) in line.0.iter_mut().zip(words) {
                *word = u64::from_le_bytes(*bytes);
            }
            line
        };
        Ok(Self { lines: lines.iter().map(line).collect(), probe_count })
    }

    /// Returns how much memory the filter takes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.lines.len() * LINE_BYTES
    }
}

/// Returns which of the lines is that of the place.
fn line_index(hash: PlaceHash, line_count: u64) -> usize {
    // Scales the upper half of the hash to the count, without a division.
    usize::try_from(((hash.0 >> 32) * line_count) >> 32).unwrap_or(usize::MAX)
}

/// Returns the bits of the place within its line.
fn mask(hash: PlaceHash, probe_count: u32) -> [u64; 8] {
    let mut mask = [0; 8];
    let mut mixed = (hash.0 ^ (hash.0 >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    for _ in 0..probe_count {
        let word = usize::try_from(mixed >> 61).unwrap_or(0);
        let bit = (mixed >> 55) & 63;
        mixed = mixed.rotate_left(9);
        if let Some(word) = mask.get_mut(word) {
            *word |= 1 << bit;
        }
    }
    mask
}

fn to_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(seed: u64, count: u64) -> Vec<PlaceHash> {
        (0..count).map(|n| PlaceHash::of(&(seed << 32 | n).to_le_bytes())).collect()
    }

    #[test]
    fn filter_passes_what_it_has_and_one_in_a_hundred_others() {
        let present = hashes(1, 20_000);
        let bloom = Bloom::new(&present, 10);
        assert!(present.iter().all(|hash| bloom.may_contain(*hash)));
        let passed = hashes(2, 100_000).iter().filter(|hash| bloom.may_contain(**hash)).count();
        assert!(passed < 1_500, "{passed} of 100,000 absent places pass");
        let rows = present.iter().filter(|hash| bloom.may_contain(hash.of_row())).count();
        assert!(rows < 300, "{rows} of 20,000 cells pass for a row's tombstone");
    }

    #[test]
    fn filter_round_trips() {
        let bloom = Bloom::new(&hashes(1, 1_000), 10);
        let bytes = Bytes::from(bloom.encode());
        assert_eq!(Bloom::decode(&bytes), Ok(bloom));
        assert!(Bloom::decode(&bytes.slice(1..)).is_err());
        assert!(Bloom::decode(&Bytes::from_static(&[1, 0, 0])).is_err());
        assert!(Bloom::decode(&Bytes::from_static(&[8, 0, 0, 0])).is_err());
    }

    #[test]
    fn filter_without_bits_passes_everything() {
        let bloom = Bloom::new(&hashes(1, 10), 0);
        assert_eq!(Bloom::decode(&Bytes::from(bloom.encode())).as_ref(), Ok(&bloom));
        assert!(hashes(2, 100).iter().all(|hash| bloom.may_contain(*hash)));
    }

    #[test]
    fn hash_of_a_place_is_that_of_the_files_on_disk() {
        assert_eq!(PlaceHash::of(b""), PlaceHash(0x2D06_8005_38D3_94C2));
        assert_eq!(PlaceHash::of(b"mangrove"), PlaceHash(0x39FE_EE0E_1195_4E1E));
        assert_eq!(PlaceHash::of(b"mangrove").of_row(), PlaceHash(0x5FF5_4B10_BC8D_43C8));
    }
}
