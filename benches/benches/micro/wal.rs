//! The write-ahead log: a batch of 64 records as the log task writes it, and a recovery.
//!
//! A batch is everything that the log does for it: the records are encoded, written with one
//! write, synced, and the next segment is made a little readier. Segments that are full go away
//! at once, as if all of them had been flushed, so the log stays small however long it runs. The
//! recovery reads 10,000 records of a log that ended cleanly.
//!
//! # Left out
//! The medium: this disk is memory, and its sync does nothing. Damage, which recovery looks for
//! and does not find here.

use criterion::{Criterion, Throughput};
use mangrove::storage::StorageError;
use mangrove::storage::wal::{self, Options, Recovery, Writer};

use super::BATCH;
use super::memory_disk::{MemoryDisk, run};

const DIR: &str = "wal";

/// The caller's kind of a log entry; it means nothing to the log.
const KIND: u8 = 2;

/// A command of the length that the codec makes of a key of 16 bytes and a value of 100.
const PAYLOAD: [u8; 120] = [7; 120];

/// Records that a recovery finds.
const RECOVERED: u64 = 10_000;

/// Measures it.
pub(crate) fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wal");
    let mut log = Log::open(&MemoryDisk::default());
    log.write(BATCH);
    assert_eq!(log.writer.durable(), BATCH, "the whole batch is durable");
    assert_eq!(log.writer.buffered_bytes(), 0, "nothing of it waits");
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("write_64", |bencher| {
        bencher.iter(|| {
            log.write(BATCH);
            log.remove_full_segments();
        });
    });

    let disk = filled();
    let (_, recovery) = open(&disk);
    let sequences = recovery.records.iter().map(|record| record.sequence);
    assert!(sequences.eq(1..=RECOVERED), "every record comes back, in order");
    assert!(recovery.damage.is_empty() && recovery.torn.is_none(), "the log ended cleanly");
    group.throughput(Throughput::Elements(RECOVERED));
    group.sample_size(20);
    group.bench_function("recover_10000", |bencher| {
        bencher.iter_with_large_drop(|| open(&disk));
    });
    group.finish();
}

/// A log, written as its task writes it.
struct Log {
    writer: Writer<MemoryDisk>,
    /// Of the last record.
    tag: u64,
}

impl Log {
    fn open(disk: &MemoryDisk) -> Self {
        Self { writer: open(disk).0, tag: 0 }
    }

    /// Makes so many records durable, as one batch.
    fn write(&mut self, count: u64) {
        for _ in 0..count {
            self.tag += 1;
            self.writer.append(KIND, self.tag, |buffer| buffer.extend_from_slice(&PAYLOAD));
        }
        run(self.commit()).expect("memory takes it");
    }

    async fn commit(&mut self) -> Result<(), StorageError> {
        self.writer.write().await?;
        self.writer.sync().await?;
        self.writer.prepare().await
    }

    /// Removes all segments but the one that is written.
    fn remove_full_segments(&mut self) {
        run(self.writer.remove_through(self.tag)).expect("memory lets go");
    }
}

fn open(disk: &MemoryDisk) -> (Writer<MemoryDisk>, Recovery) {
    run(wal::open(disk, DIR, Options::default())).expect("the log opens")
}

/// Returns a disk with a log that ended cleanly: all of it is known to be durable.
fn filled() -> MemoryDisk {
    let disk = MemoryDisk::default();
    let mut log = Log::open(&disk);
    while log.tag < RECOVERED {
        log.write(BATCH.min(RECOVERED - log.tag));
    }
    run(log.writer.mark()).expect("memory takes it");
    disk
}
