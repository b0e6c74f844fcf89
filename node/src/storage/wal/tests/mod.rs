//! Tests of the log: what it promises, on a disk that does its worst.

mod damage;
#[cfg(feature = "testing")]
mod planted;
mod power;
mod writing;

use futures_util::FutureExt;

use super::segment;
use super::{Options, Record, Recovery, Sequence, StorageError, Writer};
use crate::storage::test_disk::TestDisk;

const DIR: &str = "wal";
const ENTRY: u8 = 1;
const VOTE: u8 = 2;
const OPTIONS: Options = Options { segment_bytes: 8 << 10 };

/// Turns that a future may take: it waits for nobody, and lets others run between its steps.
const TURNS_MAX: usize = 10_000;

/// Runs a future of the memory disk, which never waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let turns = (0..TURNS_MAX).find_map(|_| future.as_mut().now_or_never());
    turns.expect("the memory disk waits")
}

fn open(disk: &TestDisk) -> (Writer<TestDisk>, Recovery) {
    now(super::open(disk, DIR, OPTIONS)).expect("the log opens")
}

/// Appends an entry whose payload depends on its tag alone and has no zero byte.
fn append(writer: &mut Writer<TestDisk>, tag: u64, payload_bytes: usize) -> Sequence {
    writer.append(ENTRY, tag, |buffer| buffer.extend(payload(tag, payload_bytes)))
}

fn payload(tag: u64, bytes: usize) -> Vec<u8> {
    let cycle = (1..=u8::MAX).cycle();
    cycle.skip(usize::try_from(tag % 255).unwrap_or(0)).take(bytes).collect()
}

fn commit(writer: &mut Writer<TestDisk>) -> Result<(), StorageError> {
    now(writer.write())?;
    now(writer.sync())?;
    now(writer.prepare())
}

fn vote(term: u8) -> Record {
    Record { kind: VOTE, tag: 0, payload: vec![term; 24] }
}

/// Casts a vote as the shell does: the preamble and the record say the same.
fn append_vote(writer: &mut Writer<TestDisk>, term: u8) -> Sequence {
    let Record { kind, tag, payload } = vote(term);
    writer.set_preamble(vec![vote(term)]);
    writer.append_critical(kind, tag, |buffer| buffer.extend(payload))
}

fn sequences(recovery: &Recovery) -> Vec<Sequence> {
    recovery.records.iter().map(|record| record.sequence).collect()
}

fn tags(recovery: &Recovery) -> Vec<u64> {
    recovery.records.iter().map(|record| record.tag).collect()
}

fn is_segment(path: &str) -> bool {
    segment::parse_name(path.trim_start_matches("wal/")).is_some()
}
