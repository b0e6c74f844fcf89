//! Reads everything again from time to time, to find rot while other nodes still have the data.

use std::sync::Arc;

use super::keeper::Keeper;
use super::manifest::{Found, Manifest};
use super::recovery::read_extra;
use crate::env::Disk;
use crate::probe;
use crate::storage::StorageError;

/// Where the scrubber is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Scrubber {
    /// The table at hand; tables are read in the order of their numbers.
    number: u64,
    /// The block of it that comes next.
    block: u64,
}

impl<D: Disk> Keeper<D> {
    /// Verifies about so many bytes more of the tables, as they are on disk; after the last one,
    /// the manifest and what was captured with the cells, and then it begins anew.
    ///
    /// # Errors
    /// Something is damaged or cannot be read. The next call goes on behind it.
    pub async fn scrub_step(&mut self, bytes: u64) -> Result<(), StorageError> {
        self.check_usable()?;
        let block_bytes = u64::try_from(self.options.table.block_bytes.max(1)).unwrap_or(u64::MAX);
        let mut blocks_left = (bytes / block_bytes).max(1);
        let version = Arc::clone(&self.version);
        while blocks_left > 0 {
            let tables = version.levels.iter().flatten();
            let ahead = tables.filter(|table| table.meta().number >= self.scrubber.number);
            let Some(table) = ahead.min_by_key(|table| table.meta().number) else {
                self.scrubber = Scrubber::default();
                return self.scrub_root().await;
            };
            let number = table.meta().number;
            let block = if number == self.scrubber.number { self.scrubber.block } else { 0 };
            self.scrubber = Scrubber { number: number + 1, block: 0 };
            let verified = table.verify(block, blocks_left)?;
            if let Some(next) = verified.next_block {
                self.scrubber = Scrubber { number, block: next };
                return Ok(());
            }
            let read = table.block_count().saturating_sub(block);
            blocks_left = blocks_left.saturating_sub(read.max(1));
        }
        Ok(())
    }

    /// Verifies the files that are no tables. What the manifest should say is known, so a
    /// damaged one is replaced.
    async fn scrub_root(&mut self) -> Result<(), StorageError> {
        if let Some(extra) = &self.extra {
            read_extra(&self.place, extra).await?;
        }
        match Manifest::load(&self.place.disk, &self.place.dir).await {
            Ok(Found::Whole(found)) if found.generation == self.version.generation => Ok(()),
            Ok(_) | Err(StorageError::Corrupt { .. }) => {
                probe!("tree.scrub_renews_the_manifest");
                let version = Arc::clone(&self.version);
                let (levels, extra) = (version.levels.clone(), version.extra.clone());
                let published = self.publish(levels, version.applied, extra, self.extra).await;
                published.map(drop).map_err(|error| self.judge(error))
            }
            Err(error) => Err(error),
        }
    }
}
