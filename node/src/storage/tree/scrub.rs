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
    /// Verifies about so many bytes more of the tables, as they are on disk, and a block at least;
    /// after the last table, the manifest and what was captured with the cells, and then it begins
    /// anew.
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
            let mut next = Some(block);
            while let Some(block) = next
                && blocks_left > 0
            {
                let verified = table.verify(block, 1)?;
                // A block with a large cell counts as the many that it is as long as: others wait
                // meanwhile. Little follows a table's blocks, and it counts as nothing.
                let weight = (verified.unpacked_bytes / block_bytes).max(1);
                blocks_left = blocks_left.saturating_sub(weight);
                next = verified.next_block;
            }
            if let Some(block) = next {
                self.scrubber = Scrubber { number, block };
            }
        }
        Ok(())
    }

    /// Verifies the files that are no tables. What the manifest should say is known, so a
    /// damaged one is replaced; on a full disk, by a later round.
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
                match self.publish(levels, version.applied, extra, self.extra).await {
                    // Nobody needs the file as long as this process lives.
                    Err(error) if error.is_no_space() => {
                        let dir = self.place.dir.as_str();
                        tracing::warn!(dir, %error, "a damaged manifest stays for want of space");
                        Ok(())
                    }
                    published => published.map(drop).map_err(|error| self.judge(error)),
                }
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::SnapshotPoint;
    use crate::storage::engine::{Change, Engine};
    use crate::storage::test_disk::{TestDisk, run};
    use crate::storage::tree::{self, TreeOptions};

    /// Returns a store of one table, with cells of the given size.
    fn store_of(cell_count: u8, value_bytes: usize) -> Keeper<TestDisk> {
        let opened = run(tree::open(TestDisk::default(), "tree", TreeOptions::default()));
        let (mut tree, mut keeper, _) = opened.unwrap();
        let value = vec![7; value_bytes];
        for number in 1..=cell_count {
            let (at, place) = (SnapshotPoint { index: number.into(), term: 1 }, [7, number]);
            tree.write(at, &[Change::Set { place: &place, value: &value }]);
        }
        let frozen = tree.freeze(Vec::new());
        run(keeper.flush(&frozen)).unwrap();
        keeper
    }

    #[test]
    fn large_cells_count_as_the_bytes_that_they_have() {
        let mut keeper = store_of(20, 100 << 10);
        let step = |keeper: &mut Keeper<TestDisk>| {
            assert_eq!(run(keeper.scrub_step(256 << 10)), Ok(()));
            keeper.scrubber
        };
        assert_eq!(step(&mut keeper).block, 3, "two are less than was asked for, three are more");
        let rest = (1..100).find(|_| step(&mut keeper) == Scrubber::default());
        assert_eq!(rest, Some(6), "twenty blocks are seven steps");
    }

    #[test]
    fn step_verifies_a_block_however_large_it_is() {
        let mut keeper = store_of(3, 100 << 10);
        for block in 1..3 {
            assert_eq!(run(keeper.scrub_step(1)), Ok(()));
            assert_eq!(keeper.scrubber.block, block);
        }
    }

    #[test]
    fn blocks_of_the_usual_length_count_as_one_each() {
        let mut keeper = store_of(250, 100);
        let block_bytes = u64::try_from(keeper.options.table.block_bytes).unwrap();
        for step in 1..3 {
            assert_eq!(run(keeper.scrub_step(2 * block_bytes)), Ok(()));
            assert_eq!(keeper.scrubber.block, 2 * step);
        }
    }
}
