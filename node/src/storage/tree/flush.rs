//! Writes frozen memtables as tables of level 0.

use std::sync::Arc;

use bytes::Bytes;

use super::engine::Frozen;
use super::keeper::Keeper;
use super::manifest::ExtraFile;
use super::merge::Source;
use super::output::{Output, Place, remove, write_in_steps};
use super::version::Version;
use super::{extra_path, sync, sync_dir};
use crate::base::checksum::crc32;
use crate::env::Disk;
use crate::planted;
use crate::storage::StorageError;
use crate::storage::let_others_run;
use crate::storage::table::{Compression, TableOptions};

/// Entries that are fetched into the processor's cache at a time.
const FETCHED_ENTRIES: usize = 16;

impl<D: Disk> Keeper<D> {
    /// Writes a frozen memtable to the disk; the version that this returns covers it. If the state
    /// is damaged, only one that is [all](Frozen::is_all) of it.
    ///
    /// # Errors
    /// The disk refuses; see [`Keeper`].
    pub async fn flush(&mut self, frozen: &Frozen) -> Result<Arc<Version<D>>, StorageError> {
        if !frozen.is_all {
            self.check_usable()?;
        }
        self.check_disk()?;
        if frozen.point <= self.version.applied {
            return Ok(Arc::clone(&self.version));
        }
        // One table, however long: level 0 is read table by table.
        // And not packed: it is merged again soon.
        let table = TableOptions { compression: Compression::None, ..self.place.table };
        let place = Place { table_bytes: u64::MAX, table, ..self.place.clone() };
        let mut output = Output::new(place);
        match self.try_flush(frozen, &mut output).await {
            Ok(version) => {
                self.forget_damage().await.map_err(|error| self.judge(error))?;
                Ok(version)
            }
            Err(error) => {
                let error = self.judge(error);
                self.discard(output).await;
                if error.is_no_space() {
                    // What a compaction has written so far may be what takes the space.
                    self.give_compaction_up().await;
                }
                Err(error)
            }
        }
    }

    async fn try_flush(
        &mut self,
        frozen: &Frozen,
        output: &mut Output<D>,
    ) -> Result<Arc<Version<D>>, StorageError> {
        if planted!("W16") {
            let levels = self.version.levels.clone();
            self.publish(levels, frozen.point, frozen.extra.clone(), None).await?;
        }
        let mut cursor = frozen.memtable.cursor();
        let mut bytes_left = self.options.step_bytes;
        for number in 0_usize.. {
            if number.is_multiple_of(FETCHED_ENTRIES) {
                cursor.fetch(FETCHED_ENTRIES);
            }
            let Some(cell) = cursor.current() else { break };
            output.push(cell, &mut self.next_number);
            bytes_left = bytes_left.saturating_sub(super::compaction::bytes_of(&cell));
            cursor.advance()?;
            if bytes_left == 0 {
                output.write().await?;
                let_others_run().await;
                bytes_left = self.options.step_bytes;
            }
        }
        let tables = output.finish_all().await?;
        let extra = self.write_extra(&frozen.extra).await?;
        sync_dir(&self.place.disk, &self.place.dir).await?;
        let mut levels = self.version.levels.clone();
        if let Some(flushed) = levels.first_mut() {
            flushed.splice(0..0, tables);
        }
        // What these floors rest on is in the tables now.
        let before = std::mem::replace(&mut self.floors, frozen.floors.clone());
        let published = self.publish(levels, frozen.point, frozen.extra.clone(), extra).await;
        if published.is_err() {
            self.floors = before;
        }
        published
    }

    /// Writes what was captured with a state to a file of its own, durable but for its name.
    pub(super) async fn write_extra(
        &mut self,
        extra: &Bytes,
    ) -> Result<Option<ExtraFile>, StorageError> {
        if extra.is_empty() {
            return Ok(None);
        }
        let number = self.next_number;
        self.next_number += 1;
        let path = extra_path(&self.place.dir, number);
        let written = async {
            let file = self.place.disk.create(&path).await?;
            write_in_steps(&file, 0, extra, self.options.step_bytes).await?;
            sync(&file).await
        };
        if let Err(error) = written.await {
            remove(&self.place.disk, &path).await;
            return Err(error);
        }
        let bytes = u64::try_from(extra.len()).unwrap_or(u64::MAX);
        Ok(Some(ExtraFile { number, bytes, crc: crc32(extra) }))
    }
}
