//! The file `MANIFEST`: which files make the state, and which position in the log it is at.
//!
//! It is the root of everything: a table that it does not name does not exist. So it is replaced
//! as a whole, written aside, synced, renamed over the old one; a crash leaves the old one or the
//! new one. The position and the tables stand in it together, so that no crash can part them.
//!
//! A state is only as safe from rot as its root, and the one before would be a step back in time
//! for who has cut the log meanwhile. So the file holds its content twice, each copy in sectors of
//! its own: one may rot, and the other still says it all. A start that finds one damaged writes
//! both anew, or leaves that to a later version if the disk is full.
//!
//! # Layout
//! ```text
//! file   copy │ zeros to a multiple of 4096 │ the same again
//! copy   magic "MGRVMNFT" │ format u32 LE │ crc u32 LE     crc of the 12 bytes before
//!        body_len u64 LE │ crc u32 LE                      crc of preamble, body_len and body
//!        body
//! body   generation u64 │ next_number u64 │ index u64 │ term u64
//!        extra: number u64 │ bytes u64 │ crc u32           number 0: there is none
//!        table_count u32 │ table*
//! table  level u8 │ number u64 │ bytes u64 │ cell_count u64 │ tombstone_count u64
//!        row_tombstone_count u64 │ version_min u64 │ version_max u64
//!        first_len u32 │ first │ last_len u32 │ last
//! ```
//! All numbers are little-endian. The layout of the preamble is the same in every format, so that
//! a newer file is told from a damaged one.

use super::LEVEL_COUNT;
use crate::base::checksum::{crc32, crc32_extend};
use crate::env::{Disk, DiskErrorKind, File};
use crate::storage::table::TableMeta;
use crate::storage::{SnapshotPoint, StorageError};
use crate::{planted, probe};

pub(super) const NAME: &str = "MANIFEST";
pub(super) const TMP_NAME: &str = "MANIFEST.tmp";

const MAGIC: [u8; 8] = *b"MGRVMNFT";
const FORMAT: u32 = 1;
const PREAMBLE_BYTES: usize = 16;
const HEADER_BYTES: usize = PREAMBLE_BYTES + 12;
/// What a copy is padded to: no sector of a disk is longer.
const SECTOR_BYTES: usize = 4096;
/// Longest manifest that is believed: a million tables of the longest places fit.
const FILE_BYTES_MAX: u64 = 32 << 30;

/// The file that holds what was captured with the cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ExtraFile {
    /// Its number, never 0.
    pub(super) number: u64,
    /// Its length.
    pub(super) bytes: u64,
    /// Its checksum.
    pub(super) crc: u32,
}

/// What the manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manifest {
    /// Counts the manifests ever written.
    pub(super) generation: u64,
    /// A number that no file bears, nor any greater one.
    pub(super) next_number: u64,
    /// The state that the tables make.
    pub(super) applied: SnapshotPoint,
    /// What was captured with it.
    pub(super) extra: Option<ExtraFile>,
    /// The tables by level; those of level 0 the newest first, those of others by place.
    pub(super) levels: Vec<Vec<TableMeta>>,
}

impl Default for Manifest {
    fn default() -> Self {
        Self {
            generation: 0,
            next_number: 1,
            applied: SnapshotPoint::default(),
            extra: None,
            levels: vec![Vec::new(); LEVEL_COUNT],
        }
    }
}

/// What a start finds.
#[derive(Debug)]
pub(super) enum Found {
    /// There is no manifest.
    Nothing,
    /// A whole one.
    Whole(Manifest),
    /// One of its two copies is damaged.
    HalfDamaged(Manifest),
}

impl Manifest {
    /// Returns the bytes of the file.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let numbers = [self.generation, self.next_number, self.applied.index, self.applied.term];
        push_numbers(&mut body, &numbers);
        let extra = self.extra.unwrap_or(ExtraFile { number: 0, bytes: 0, crc: 0 });
        push_numbers(&mut body, &[extra.number, extra.bytes]);
        body.extend_from_slice(&extra.crc.to_le_bytes());
        let table_count = self.levels.iter().map(Vec::len).sum::<usize>();
        push_len(&mut body, table_count);
        for (level, tables) in (0..).zip(&self.levels) {
            for table in tables {
                body.push(level);
                push_table(&mut body, table);
            }
        }
        let mut copy = Vec::with_capacity(HEADER_BYTES + body.len() + SECTOR_BYTES);
        copy.extend_from_slice(&MAGIC);
        copy.extend_from_slice(&FORMAT.to_le_bytes());
        copy.extend_from_slice(&crc32(&copy).to_le_bytes());
        copy.extend_from_slice(&u64::try_from(body.len()).unwrap_or(u64::MAX).to_le_bytes());
        copy.extend_from_slice(&crc32_extend(crc32(&copy), &body).to_le_bytes());
        copy.extend_from_slice(&body);
        copy.resize(copy.len().next_multiple_of(SECTOR_BYTES), 0);
        copy.repeat(2)
    }

    /// Makes it the one that counts: when this returns, it is durable and the one before is gone.
    ///
    /// # Errors
    /// The disk refuses. Only after [`DiskErrorKind::NoSpace`] the one before counts for sure.
    pub(super) async fn publish<D: Disk>(&self, disk: &D, dir: &str) -> Result<(), StorageError> {
        let tmp = format!("{dir}/{TMP_NAME}");
        let file = disk.create(&tmp).await?;
        file.write_at(0, &self.encode()).await?;
        if !planted!("W5") {
            super::sync(&file).await?;
        }
        disk.rename(&tmp, &format!("{dir}/{NAME}")).await?;
        super::sync_dir(disk, dir).await
    }

    /// Reads the manifest of a directory.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] if both copies are damaged, [`StorageError::Format`] if another
    /// version of the program wrote it, [`StorageError::Disk`] if it cannot be read.
    pub(super) async fn load<D: Disk>(disk: &D, dir: &str) -> Result<Found, StorageError> {
        let path = format!("{dir}/{NAME}");
        let file = match disk.open(&path).await {
            Ok(file) => file,
            Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(error.into()),
        };
        Self::read(&file, &path)
    }

    /// Reads the manifest in `file`; `path` is for errors.
    pub(super) fn read<F: File>(file: &F, path: &str) -> Result<Found, StorageError> {
        let len = file.len()?;
        let half = len / 2;
        let sector = u64::try_from(SECTOR_BYTES).unwrap_or(u64::MAX);
        if !len.is_multiple_of(2 * sector) || len == 0 || len > FILE_BYTES_MAX {
            return Err(corrupt(path, 0, &format!("a manifest does not have {len} bytes")));
        }
        let first = read_copy(file, path, 0, half);
        let second = read_copy(file, path, half, half);
        match (first, second) {
            (Ok(first), Ok(second)) if first == second => Ok(Found::Whole(first)),
            (Ok(first), Ok(second)) => {
                let (first, second) = (first.generation, second.generation);
                let what = format!("copies of generations {first} and {second} differ");
                Err(corrupt(path, half, &what))
            }
            (Err(error @ StorageError::Format { .. }), _)
            | (_, Err(error @ StorageError::Format { .. }))
            | (Err(error), Err(_)) => Err(error),
            (Ok(whole), Err(_)) | (Err(_), Ok(whole)) => {
                probe!("tree.manifest_copy_is_damaged");
                Ok(Found::HalfDamaged(whole))
            }
        }
    }
}

/// Reads the manifest in `file`, and returns the file as it would be written again.
///
/// # Errors
/// As of a start.
#[cfg(feature = "testing")]
pub fn reread_manifest<F: File>(file: &F) -> Result<Vec<u8>, StorageError> {
    match Manifest::read(file, NAME)? {
        Found::Nothing => Ok(Vec::new()),
        Found::Whole(manifest) | Found::HalfDamaged(manifest) => Ok(manifest.encode()),
    }
}

fn push_numbers(bytes: &mut Vec<u8>, numbers: &[u64]) {
    for number in numbers {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
}

fn push_len(bytes: &mut Vec<u8>, len: usize) {
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    assert!(len < u32::MAX, "a length of the manifest does not fit");
    bytes.extend_from_slice(&len.to_le_bytes());
}

fn push_table(bytes: &mut Vec<u8>, table: &TableMeta) {
    push_numbers(
        bytes,
        &[
            table.number,
            table.bytes,
            table.cell_count,
            table.tombstone_count,
            table.row_tombstone_count,
            table.version_min,
            table.version_max,
        ],
    );
    for place in [&table.first, &table.last] {
        push_len(bytes, place.len());
        bytes.extend_from_slice(place);
    }
}

fn corrupt(path: &str, offset: u64, what: &str) -> StorageError {
    StorageError::Corrupt { path: path.to_owned(), offset, what: what.to_owned() }
}

/// Reads the copy of `len` bytes at `offset`.
fn read_copy<F: File>(
    file: &F,
    path: &str,
    offset: u64,
    len: u64,
) -> Result<Manifest, StorageError> {
    let damaged = |what: &str| corrupt(path, offset, what);
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    // A sector that cannot be read is as good as a damaged one.
    let read = file.read_at(offset, &mut bytes).map_err(|error| damaged(&error.to_string()))?;
    if read != bytes.len() {
        return Err(damaged("it ends too early"));
    }
    check_preamble(&bytes, path)
        .ok_or_else(|| damaged("this is not the beginning of a manifest"))??;
    let body = verified_body(&bytes).ok_or_else(|| damaged("its checksum does not match"))?;
    let mut reader = Reader(body);
    let manifest = reader.manifest().filter(|_| reader.0.is_empty());
    manifest.ok_or_else(|| damaged("it does not say what a manifest says"))
}

/// Tells a copy of another format from a damaged one, which has no preamble.
fn check_preamble(bytes: &[u8], path: &str) -> Option<Result<(), StorageError>> {
    let preamble = bytes.first_chunk::<PREAMBLE_BYTES>()?;
    let (covered, crc) = preamble.split_last_chunk::<4>()?;
    let (magic, format) = covered.split_last_chunk::<4>()?;
    if crc32(covered) != u32::from_le_bytes(*crc) || *magic != MAGIC {
        return None;
    }
    let format = u32::from_le_bytes(*format);
    if format != FORMAT {
        let (path, found) = (path.to_owned(), format!("manifest format {format}"));
        return Some(Err(StorageError::Format { path, found, expected: "manifest format 1" }));
    }
    Some(Ok(()))
}

/// Returns the body of a copy if its checksum, and the zeros after it, are as written.
fn verified_body(bytes: &[u8]) -> Option<&[u8]> {
    let (header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
    let (covered, crc) = header.split_last_chunk::<4>()?;
    let (_, body_len) = covered.split_last_chunk::<8>()?;
    let body_len = usize::try_from(u64::from_le_bytes(*body_len)).ok()?;
    let (body, zeros) = rest.split_at_checked(body_len)?;
    let is_intact = crc32_extend(crc32(covered), body) == u32::from_le_bytes(*crc)
        && zeros.iter().all(|byte| *byte == 0);
    is_intact.then_some(body)
}

/// Takes values off the front of a body.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    fn small(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*number))
    }

    fn place(&mut self) -> Option<Vec<u8>> {
        let len = usize::try_from(self.small()?).ok()?;
        let (place, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(place.to_vec())
    }

    fn manifest(&mut self) -> Option<Manifest> {
        let mut manifest = Manifest {
            generation: self.number()?,
            next_number: self.number()?,
            applied: SnapshotPoint { index: self.number()?, term: self.number()? },
            ..Manifest::default()
        };
        let extra = ExtraFile { number: self.number()?, bytes: self.number()?, crc: self.small()? };
        manifest.extra = (extra.number != 0).then_some(extra);
        let table_count = self.small()?;
        if planted!("F10") {
            let table_count = usize::try_from(table_count).unwrap_or(usize::MAX);
            manifest.levels.iter_mut().for_each(|level| level.reserve(table_count));
        }
        for _ in 0..table_count {
            let (level, rest) = self.0.split_first()?;
            self.0 = rest;
            let table = self.table()?;
            manifest.levels.get_mut(usize::from(*level))?.push(table);
        }
        Some(manifest)
    }

    fn table(&mut self) -> Option<TableMeta> {
        let number = self.number()?;
        let bytes = self.number()?;
        let cell_count = self.number()?;
        let tombstone_count = self.number()?;
        let row_tombstone_count = self.number()?;
        let version_min = self.number()?;
        let version_max = self.number()?;
        let (first, last) = (self.place()?, self.place()?);
        Some(TableMeta {
            number,
            bytes,
            cell_count,
            tombstone_count,
            row_tombstone_count,
            first,
            last,
            version_min,
            version_max,
        })
    }
}
