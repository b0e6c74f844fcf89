//! fjall: another log-structured merge tree, with threads of its own.
//!
//! It cannot do without its journal, which is written and never synced here; tables are. So it
//! writes each byte once more than a tree whose log is kept by others.

use std::path::Path;
use std::time::Duration;

use fjall::{Database, Keyspace, KeyspaceCreateOptions};

use super::{Candidate, Key, MEMTABLE_BYTES, Put, VALUE_BYTES};

/// Time between two looks at whether the threads are done.
const LOOK: Duration = Duration::from_millis(2);

/// So many looks in a row that find nothing under way mean that nothing comes any more.
const QUIET_LOOKS: u32 = 50;

/// A database with one keyspace.
pub(crate) struct Fjall {
    database: Database,
    cells: Keyspace,
}

impl Candidate for Fjall {
    fn open(directory: &Path, cache_bytes: u64) -> Self {
        let builder = Database::builder(directory.join("fjall")).cache_size(cache_bytes);
        let database = builder.manual_journal_persist(true).open().expect("a database");
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let cells = database.keyspace("cells", options).expect("a keyspace");
        Self { database, cells }
    }

    fn write(&mut self, puts: &[Put<'_>]) {
        let mut batch = self.database.batch();
        for (key, value) in puts {
            batch.insert(&self.cells, key.as_slice(), *value);
        }
        batch.commit().expect("space");
    }

    fn settle(&mut self) {
        self.cells.rotate_memtable_and_wait().expect("space");
        let mut quiet = 0;
        let mut completed = self.database.compactions_completed();
        while quiet < QUIET_LOOKS {
            std::thread::sleep(LOOK);
            let is_quiet = self.database.outstanding_flushes() == 0
                && self.database.active_compactions() == 0
                && self.database.compactions_completed() == completed;
            completed = self.database.compactions_completed();
            quiet = if is_quiet { quiet + 1 } else { 0 };
        }
    }

    fn count_found(&self, keys: impl Iterator<Item = Key>) -> u64 {
        let mut found = 0;
        for key in keys {
            let value = self.cells.get(key).expect("files that are whole");
            found += u64::from(value.is_some_and(|value| value.len() == VALUE_BYTES));
        }
        found
    }

    fn scan(&self) -> (u64, u64) {
        let (mut cells, mut bytes) = (0, 0);
        for cell in self.cells.iter() {
            let (_, value) = cell.into_inner().expect("files that are whole");
            cells += 1;
            bytes += u64::try_from(value.len()).unwrap_or(u64::MAX);
        }
        (cells, bytes)
    }
}
