//! redb: a B-tree that is copied on write.
//!
//! A batch is a transaction that is not durable; as many of them as fill a memtable of the others
//! are followed by one that is. So it syncs as often as a tree that flushes does.

use std::path::Path;

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Candidate, KEY_BYTES, Key, MEMTABLE_BYTES, Put, VALUE_BYTES};

const CELLS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("cells");

/// A database with one table.
pub(crate) struct Redb {
    database: Database,
    unsynced_bytes: u64,
}

impl Redb {
    fn commit(&self, puts: &[Put<'_>], durability: Durability) {
        let mut transaction = self.database.begin_write().expect("a transaction");
        transaction.set_durability(durability).expect("no savepoints");
        let mut table = transaction.open_table(CELLS).expect("the table");
        for (key, value) in puts {
            table.insert(key.as_slice(), *value).expect("space");
        }
        drop(table);
        transaction.commit().expect("space");
    }
}

impl Candidate for Redb {
    fn open(directory: &Path, cache_bytes: u64) -> Self {
        let mut builder = Database::builder();
        // It has no memtables: their memory goes to the cache, which takes what is written, too.
        let bytes = usize::try_from(cache_bytes + MEMTABLE_BYTES).unwrap_or(usize::MAX);
        builder.set_cache_size(bytes);
        let database = builder.create(directory.join("redb")).expect("a database");
        let store = Self { database, unsynced_bytes: 0 };
        store.commit(&[], Durability::Immediate);
        store
    }

    fn write(&mut self, puts: &[Put<'_>]) {
        let bytes = puts.len() * (KEY_BYTES + VALUE_BYTES);
        self.unsynced_bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
        let is_due = self.unsynced_bytes >= MEMTABLE_BYTES;
        self.commit(puts, if is_due { Durability::Immediate } else { Durability::None });
        if is_due {
            self.unsynced_bytes = 0;
        }
    }

    fn settle(&mut self) {
        // What the first one frees can be used after the second one.
        self.commit(&[], Durability::Immediate);
        self.commit(&[], Durability::Immediate);
    }

    fn count_found(&self, keys: impl Iterator<Item = Key>) -> u64 {
        let transaction = self.database.begin_read().expect("a transaction");
        let table = transaction.open_table(CELLS).expect("the table");
        let mut found = 0;
        for key in keys {
            let value = table.get(key.as_slice()).expect("a file that is whole");
            found += u64::from(value.is_some_and(|value| value.value().len() == VALUE_BYTES));
        }
        found
    }

    fn scan(&self) -> (u64, u64) {
        let transaction = self.database.begin_read().expect("a transaction");
        let table = transaction.open_table(CELLS).expect("the table");
        let (mut cells, mut bytes) = (0, 0);
        for cell in table.iter().expect("a file that is whole") {
            let (_, value) = cell.expect("a file that is whole");
            cells += 1;
            bytes += u64::try_from(value.value().len()).unwrap_or(u64::MAX);
        }
        (cells, bytes)
    }
}
