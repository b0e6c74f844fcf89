//! Segment files: their names, their first sector, how they are made and read.
//!
//! # Layout
//! ```text
//!  0       8         12    16      24        512                                          capacity
//!  ┌───────┬─────────┬─────┬───────┬─ zeros ─┬─────────┬─────────┬─ ─ ─ ─┬─ zeros ──────────────┐
//!  │ magic │ version │ crc │ first │         │ record  │ record  │       │ (not written yet)    │
//!  └───────┴─────────┴─────┴───────┴─────────┴─────────┴─────────┴─ ─ ─ ─┴──────────────────────┘
//!  crc = CRC-32 of magic, version and first sequence
//! ```
//! A segment is called by the sequence of its first record, in sixteen hexadecimal digits:
//! `0000000000000001.wal`. So order and gaps show in a directory listing, and a segment whose
//! first sector is rotten is still understood.

use bytes::{Buf, BufMut};

use super::{SEQUENCE_MAX, Sequence, StorageError};
use crate::base::checksum;
use crate::env::{Disk, DiskError, DiskErrorKind, File};
use crate::probe;

/// What power loss keeps or loses as a whole. Devices with larger sectors keep that promise too.
pub(super) const SECTOR_BYTES: usize = 512;

/// What a disk loses at once when it goes bad: a physical sector of today's disks, or the page that
/// a file system reads.
const BLOCK_BYTES: u64 = 4096;

/// Smallest segment in which what must not go bad together is in different blocks. A smaller one
/// would be all padding, and has it in different sectors.
const BLOCKS_SEGMENT_BYTES_MIN: u64 = 64 << 10;

/// Returns how far apart in a segment of `capacity` bytes is what must not go bad together.
pub(super) fn apart_bytes(capacity: u64) -> u64 {
    if capacity < BLOCKS_SEGMENT_BYTES_MIN { to_u64(SECTOR_BYTES) } else { BLOCK_BYTES }
}

/// The first sector holds the segment's header and nothing else.
pub(super) const RECORDS_START: u64 = 512;

/// Smallest segment: header, a small preamble and some records.
pub(super) const SEGMENT_BYTES_MIN: u64 = 4096;

/// Size of the segment that a start of the node creates. Small, so that a start is quick and a
/// node that crashes at each start does not fill the disk.
pub(super) const FIRST_SEGMENT_BYTES_MAX: u64 = 1 << 20;

/// A segment is at most so many times as large as the one before: while that one fills up, this
/// one is made, and the bytes of zeros for each byte of log must stay few.
const GROWTH_MAX: u64 = 4;

/// Fewest bytes of zeros that one step of making a segment writes and syncs: a fraction of a
/// millisecond.
const FILL_STEP_BYTES_MIN: u64 = 64 << 10;

/// Most bytes of one step. So many are synced on another thread, and hold nobody up.
pub(super) const FILL_STEP_BYTES_MAX: u64 = 1 << 20;

/// The file that becomes the next segment.
pub(super) const SPARE_NAME: &str = "spare.tmp";

/// Bytes per read of a whole segment.
const READ_STEP_BYTES: usize = 1 << 20;

/// What stands for bytes that the medium does not give back. Not zeros: those mean "not written".
const UNREADABLE: u8 = 0xEE;

const MAGIC: [u8; 8] = *b"MANGRWAL";
/// Records of version 1 do not tell how many before them are written once.
const VERSION: u32 = 2;
const VERSION_MIN: u32 = 1;
const SUFFIX: &str = ".wal";

/// State of a segment's first sector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderState {
    /// As it was written.
    Valid,
    /// As an earlier version of the program wrote it: nothing is added to such a segment.
    Older,
    /// Never written.
    Blank,
    /// Anything else.
    Damaged,
}

/// Returns the path of the segment that begins with `first`.
pub(super) fn path(dir: &str, first: Sequence) -> String {
    format!("{dir}/{first:016x}{SUFFIX}")
}

/// Returns the first sequence of the segment of that file name; `None` if it is no segment's.
pub(super) fn parse_name(name: &str) -> Option<Sequence> {
    let digits = name.strip_suffix(SUFFIX)?;
    let first = Sequence::from_str_radix(digits, 16).ok()?;
    ((1..=SEQUENCE_MAX).contains(&first) && name == format!("{first:016x}{SUFFIX}"))
        .then_some(first)
}

/// Appends the first sector of the segment that begins with `first`.
pub(super) fn encode_header(first: Sequence, buffer: &mut Vec<u8>) {
    let start = buffer.len();
    buffer.put_slice(&MAGIC);
    buffer.put_u32_le(VERSION);
    buffer.put_u32_le(header_crc(MAGIC, VERSION, first));
    buffer.put_u64_le(first);
    buffer.resize(start + SECTOR_BYTES, 0);
}

/// Judges the first sector of the segment that is called `first`.
///
/// # Errors
/// It is intact, and says that another version of the program wrote the segment.
pub(super) fn check_header(
    path: &str,
    first: Sequence,
    bytes: &[u8],
) -> Result<HeaderState, StorageError> {
    let sector = bytes.get(..SECTOR_BYTES).unwrap_or(bytes);
    if sector.iter().all(|&byte| byte == 0) {
        return Ok(HeaderState::Blank);
    }
    let Some(fields) = sector.first_chunk::<24>() else { return Ok(HeaderState::Damaged) };
    let mut fields = &fields[..];
    let mut magic = MAGIC;
    fields.copy_to_slice(&mut magic);
    let (version, crc, stored) = (fields.get_u32_le(), fields.get_u32_le(), fields.get_u64_le());
    if magic != MAGIC || crc != header_crc(magic, version, stored) {
        return Ok(HeaderState::Damaged);
    }
    if !(VERSION_MIN..=VERSION).contains(&version) {
        let found = format!("version {version} of the log");
        let path = path.to_owned();
        return Err(StorageError::Format { path, found, expected: "version 1 or 2 of the log" });
    }
    Ok(match version {
        _ if stored != first => HeaderState::Damaged,
        VERSION => HeaderState::Valid,
        _ => HeaderState::Older,
    })
}

fn header_crc(magic: [u8; 8], version: u32, first: Sequence) -> u32 {
    let crc = checksum::crc32_extend(checksum::crc32(&magic), &version.to_le_bytes());
    checksum::crc32_extend(crc, &first.to_le_bytes())
}

/// Reads a whole segment. Pages that the medium refuses to give back read as [`UNREADABLE`].
///
/// # Errors
/// Its length cannot be had.
pub(super) fn read<F: File>(file: &F) -> Result<Vec<u8>, StorageError> {
    let mut bytes = vec![0; to_usize(file.len()?)];
    let mut offset = 0;
    for piece in bytes.chunks_mut(READ_STEP_BYTES) {
        if read_exact(file, offset, piece).is_err() {
            read_sectors(file, offset, piece);
        }
        offset += to_u64(piece.len());
    }
    Ok(bytes)
}

fn read_sectors<F: File>(file: &F, offset: u64, piece: &mut [u8]) {
    let mut offset = offset;
    for sector in piece.chunks_mut(SECTOR_BYTES) {
        if read_exact(file, offset, sector).is_err() {
            probe!("wal.reads_unreadable_sector");
            sector.fill(UNREADABLE);
        }
        offset += to_u64(sector.len());
    }
}

fn read_exact<F: File>(file: &F, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let count = file.read_at(offset + to_u64(done), rest)?;
        if count == 0 {
            break;
        }
        done += count;
    }
    Ok(())
}

/// The next segment while it is made: written full with zeros and synced in small steps, so that
/// an append into it later changes bytes only, and neither the file's size nor its blocks.
#[derive(Debug)]
pub(super) struct Spare<F> {
    file: F,
    filled_bytes: u64,
    target_bytes: u64,
    /// The zeros of the last step; fresh ones for each would cost more than writing them.
    zeros: Vec<u8>,
}

impl<F: File> Spare<F> {
    /// Starts a spare of `target_bytes`, in place of the one that may be left from before.
    pub(super) async fn create<D: Disk<File = F>>(
        disk: &D,
        dir: &str,
        target_bytes: u64,
        expects_syncs: bool,
    ) -> Result<Self, StorageError> {
        let mut file = disk.create(&spare_path(dir)).await?;
        if expects_syncs {
            file.expect_syncs();
        }
        Ok(Self { file, filled_bytes: 0, target_bytes, zeros: Vec::new() })
    }

    /// Tells whether it may become a segment.
    pub(super) fn is_ready(&self) -> bool {
        self.filled_bytes >= self.target_bytes
    }

    /// Returns how far it is, as bytes filled of bytes wanted.
    pub(super) fn progress(&self) -> (u64, u64) {
        (self.filled_bytes, self.target_bytes)
    }

    /// Writes the next zeros, about `bytes` of them, and syncs them. With a full disk it may be
    /// called again.
    pub(super) async fn fill_step(&mut self, bytes: u64) -> Result<(), StorageError> {
        let step = bytes.clamp(FILL_STEP_BYTES_MIN, FILL_STEP_BYTES_MAX);
        let step = step.min(self.target_bytes.saturating_sub(self.filled_bytes));
        let mut zeros = std::mem::take(&mut self.zeros);
        zeros.resize(to_usize(step), 0);
        let done = self.file.write_and_sync_aside(self.filled_bytes, zeros).await;
        self.zeros = done.bytes;
        done.written?;
        done.synced.map_err(never_retry)?;
        self.filled_bytes += step;
        Ok(())
    }

    /// Gives up the file, which is full of zeros and durable.
    pub(super) fn into_file(self) -> F {
        assert!(self.is_ready(), "{} of {} bytes", self.filled_bytes, self.target_bytes);
        self.file
    }
}

/// A step towards the next segment, apart from the writer, so that it can go on meanwhile.
#[derive(Debug)]
pub struct Fill<D: Disk> {
    disk: D,
    dir: String,
    expects_syncs: bool,
    /// Size of the segment.
    target_bytes: u64,
    /// Zeros to be written.
    step_bytes: u64,
    /// The file, unless it is still to be made.
    spare: Option<Spare<D::File>>,
}

/// A [`Fill`] that was carried out: what has become of the file, and whether that went well.
#[derive(Debug)]
pub struct Filled<D: Disk> {
    pub(super) spare: Option<Spare<D::File>>,
    pub(super) result: Result<(), StorageError>,
}

impl<D: Disk> Fill<D> {
    /// Prepares a step of about `step_bytes` for a log in `dir`.
    pub(super) fn new(
        (disk, dir, expects_syncs): (&D, &str, bool),
        (target_bytes, step_bytes): (u64, u64),
        spare: Option<Spare<D::File>>,
    ) -> Self {
        let (disk, dir) = (disk.clone(), dir.to_owned());
        Self { disk, dir, expects_syncs, target_bytes, step_bytes, spare }
    }

    /// Writes the zeros and makes them durable.
    pub async fn carry_out(mut self) -> Filled<D> {
        let result = self.fill().await;
        Filled { spare: self.spare, result }
    }

    async fn fill(&mut self) -> Result<(), StorageError> {
        let spare = match &mut self.spare {
            Some(spare) => spare,
            none => {
                let bytes = self.target_bytes;
                let made = Spare::create(&self.disk, &self.dir, bytes, self.expects_syncs).await?;
                none.insert(made)
            }
        };
        if spare.is_ready() { Ok(()) } else { spare.fill_step(self.step_bytes).await }
    }
}

/// Returns the size of the segment after one of `bytes`, if they are to have `wanted` in the end.
pub(super) fn next_size(bytes: u64, wanted: u64) -> u64 {
    bytes.saturating_mul(GROWTH_MAX).max(SEGMENT_BYTES_MIN).min(wanted)
}

/// Returns the path of the spare.
pub(super) fn spare_path(dir: &str) -> String {
    format!("{dir}/{SPARE_NAME}")
}

/// Makes the error of a sync one that nobody takes for a passing shortage of space.
pub(super) fn never_retry(error: DiskError) -> DiskError {
    let kind = if error.kind == DiskErrorKind::NoSpace { DiskErrorKind::Io } else { error.kind };
    DiskError { kind, ..error }
}

/// Widens a length in memory.
pub(super) fn to_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Narrows a position in a file that is read into memory whole.
pub(super) fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_their_sequences_and_round_trip() {
        let names: Vec<String> = [1, 9, 10, 255, 1 << 33].map(|first| path("wal", first)).into();
        assert!(names.is_sorted());
        assert_eq!(parse_name("00000000000000ff.wal"), Some(255));
        for foreign in ["ff.wal", "00000000000000FF.wal", "0000000000000000.wal", "spare.tmp"] {
            assert_eq!(parse_name(foreign), None, "{foreign}");
        }
    }

    /// The accident: a file with the last of all numbers for a name let the sequence of the next
    /// record overflow.
    #[test]
    fn name_out_of_reach_is_no_segment() {
        assert_eq!(parse_name("4000000000000000.wal"), Some(SEQUENCE_MAX));
        assert_eq!(parse_name("4000000000000001.wal"), None);
        assert_eq!(parse_name("ffffffffffffffff.wal"), None);
    }

    #[test]
    fn header_of_another_version_is_a_format_error() {
        let mut bytes = Vec::new();
        encode_header(3, &mut bytes);
        assert_eq!(check_header("a", 3, &bytes), Ok(HeaderState::Valid));
        assert_eq!(check_header("a", 4, &bytes), Ok(HeaderState::Damaged));
        bytes[8] = 3;
        assert_eq!(check_header("a", 3, &bytes), Ok(HeaderState::Damaged));
        let mut of_version = |version: u8| {
            bytes[8] = version;
            let crc = header_crc(MAGIC, u32::from(version), 3).to_le_bytes();
            bytes[12..16].copy_from_slice(&crc);
            check_header("a", 3, &bytes)
        };
        assert!(matches!(of_version(3), Err(StorageError::Format { .. })));
        assert_eq!(of_version(1), Ok(HeaderState::Older));
        assert_eq!(check_header("a", 3, &[0; 512]), Ok(HeaderState::Blank));
    }
}
