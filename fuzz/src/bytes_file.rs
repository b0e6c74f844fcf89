//! Bytes as a file that is only read.

use bytes::Bytes;
use mangrove::env::{DiskError, DiskErrorKind, File};

/// See the [module](self).
#[derive(Debug, Clone)]
pub(crate) struct BytesFile(pub(crate) Bytes);

impl BytesFile {
    /// Makes a file of a copy of `bytes`.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }
}

impl File for BytesFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = self.0.get(offset..).unwrap_or_default();
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn len(&self) -> Result<u64, DiskError> {
        Ok(self.0.len() as u64)
    }

    async fn write_at(&self, _offset: u64, _bytes: &[u8]) -> Result<(), DiskError> {
        Err(read_only("write"))
    }

    async fn truncate(&self, _len: u64) -> Result<(), DiskError> {
        Err(read_only("truncate"))
    }

    async fn sync(&self) -> Result<(), DiskError> {
        Err(read_only("sync"))
    }
}

fn read_only(operation: &'static str) -> DiskError {
    let (path, message) = (String::new(), "this file is only read".to_owned());
    DiskError { kind: DiskErrorKind::Io, operation, path, message }
}
