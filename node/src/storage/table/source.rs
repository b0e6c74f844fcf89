//! Reads the frames of one table from its file, and believes none that it has not verified.

use bytes::Bytes;

use super::frame::{self, Home, Kind};
use crate::env::File;
use crate::probe;
use crate::storage::StorageError;

/// The file of a table.
pub(super) struct Source<F> {
    file: F,
    path: String,
    number: u64,
    bytes: u64,
}

impl<F: File> Source<F> {
    /// Takes the file of the table `number`, which must be `bytes` long.
    pub(super) fn new(
        file: F,
        path: String,
        number: u64,
        bytes: u64,
    ) -> Result<Self, StorageError> {
        let len = file.len()?;
        if len != bytes {
            let what = format!("{len} bytes long instead of {bytes}");
            return Err(StorageError::Corrupt { path, offset: len.min(bytes), what });
        }
        Ok(Self { file, path, number, bytes })
    }

    /// Returns the path of the file.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Returns the number of the table.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Returns the length of the file.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes the error that something at `offset` is wrong.
    pub(super) fn corrupt(&self, offset: u64, what: impl Into<String>) -> StorageError {
        probe!("table.finds_damage");
        StorageError::Corrupt { path: self.path.clone(), offset, what: what.into() }
    }

    /// Reads a frame from the file and returns its body, verified.
    pub(super) fn read_frame(
        &self,
        kind: Kind,
        offset: u64,
        bytes: u64,
    ) -> Result<Bytes, StorageError> {
        Self::twice(|| {
            let frame = self.read(offset, bytes)?;
            self.open_frame(kind, offset, &frame)
        })
    }

    /// Verifies a frame that was read from `offset`, and returns its body.
    pub(super) fn open_frame(
        &self,
        kind: Kind,
        offset: u64,
        frame: &Bytes,
    ) -> Result<Bytes, StorageError> {
        let home = Home { number: self.number, offset };
        frame::open(kind, home, frame).map_err(|what| self.corrupt(offset, what))
    }

    /// Tries something again that has failed: a transfer may fail where the medium is well.
    pub(super) fn twice<T>(
        attempt: impl Fn() -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        attempt().or_else(|_| {
            probe!("table.reads_again");
            attempt()
        })
    }

    /// Reads bytes from the file, all of them.
    pub(super) fn read(&self, offset: u64, bytes: u64) -> Result<Bytes, StorageError> {
        if offset.checked_add(bytes).is_none_or(|end| end > self.bytes) {
            return Err(self.corrupt(offset, format!("{bytes} bytes reach past the end")));
        }
        let mut buffer = vec![0; usize::try_from(bytes).unwrap_or(0)];
        // A sector that cannot be read is as good as a damaged one: others have what it held.
        let read = self.file.read_at(offset, &mut buffer);
        let read = read.map_err(|error| self.corrupt(offset, error.to_string()))?;
        if read != buffer.len() {
            return Err(self.corrupt(offset, format!("{read} bytes where {bytes} should be")));
        }
        Ok(Bytes::from(buffer))
    }
}
