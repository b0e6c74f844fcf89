//! The write-ahead log: its segments, and what recovery makes of any directory.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use mangrove::base::{Instant, NodeId, Payload, Rng};
use mangrove::codec;
use mangrove::raft::{Config, Entry, EntryKind, HardState, Raft, SnapshotMeta, Standing};
use mangrove::replica::persist::{
    KIND_DAMAGED, KIND_ENTRY, KIND_HARD_STATE, KIND_INSTALL, KIND_RECORDS, KIND_RECOVERED,
    KIND_STANDING,
};
use mangrove::replica::recovery::replay;
use mangrove::storage::test_disk::{TestDisk, run};
use mangrove::storage::wal::{self, Loss, Options, Record, Recovery, Sequence, Writer};

use super::wire::entries;
use crate::blind::blindly;
use crate::edits::{self, Files};

const DIR: &str = "wal";
const OPTIONS: Options = Options { segment_bytes: 4 << 10 };

/// What a segment's first record begins behind.
const SECTOR_BYTES: usize = 512;

/// Most segments of a blind directory.
const SEGMENTS_MAX: usize = 3;

/// Kind, tag and payload of a record, by its sequence.
type Known = BTreeMap<Sequence, (u8, u64, Vec<u8>)>;

fn known(recovery: &Recovery) -> Known {
    let records = recovery.records.iter();
    records.map(|r| (r.sequence, (r.kind, r.tag, r.payload.to_vec()))).collect()
}

fn open(disk: &TestDisk) -> Option<(Writer<TestDisk>, Recovery)> {
    run(wal::open(disk, DIR, OPTIONS)).ok()
}

/// Opens a log, and again, and writes to it: what the first start found stays, and what is
/// written is found.
fn live_on(disk: &TestDisk) -> Option<Recovery> {
    let looked_at = run(wal::inspect(disk, DIR));
    let (_, first) = open(disk)?;
    if let Ok(looked_at) = looked_at {
        assert_eq!(known(&looked_at), known(&first), "looking tells what a start would find");
    }
    let Some((mut writer, again)) = open(disk) else { panic!("it opened once, and not again") };
    assert_eq!(known(&again), known(&first), "recovery gives the same however often it runs");
    assert_eq!(again.next, first.next, "the next sequence");
    let lost = |recovery: &Recovery| {
        recovery.damage.iter().filter(|damage| damage.loss != Loss::Nothing).count()
    };
    assert_eq!(lost(&again), lost(&first), "damage is reported at each start");
    let sequence = writer.append(KIND_ENTRY, 7, |buffer| buffer.extend_from_slice(b"the next"));
    assert_eq!(sequence, first.next, "the sequence of what is written next");
    let written = run(async {
        writer.write().await?;
        writer.sync().await?;
        writer.mark().await?;
        writer.prepare().await
    });
    assert_eq!(written, Ok(()), "the disk is well");
    let Some((_, last)) = open(disk) else {
        assert!(!wal::fuzzed::is_within_reach(sequence + 1), "it opened twice, not after a write");
        return Some(first);
    };
    let mut expected = known(&first);
    expected.insert(sequence, (KIND_ENTRY, 7, b"the next".to_vec()));
    assert_eq!(known(&last), expected, "what was written is found, and what was there");
    Some(first)
}

/// ```text
/// first u8: first sequence of the segment │ content behind its first sector
/// ```
pub(super) fn segment(input: &[u8]) {
    let Some((&first, content)) = input.split_first() else { return };
    let bytes = [&[0; SECTOR_BYTES], content].concat();
    let payloads = blindly(|| wal::fuzzed::segment(u64::from(first), &bytes));
    for (sequence, payload) in payloads {
        assert!(sequence >= u64::from(first), "#{sequence} in a segment that begins with #{first}");
        assert!(payload.end <= bytes.len(), "payload at {payload:?} of {} bytes", bytes.len());
    }
}

pub(super) fn segment_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for is_masterless in [false, true] {
        let files = blindly(|| segments(&log(is_masterless)));
        let Some((_, Some(whole))) = files.into_iter().next() else { panic!("a log of no file") };
        let used = whole.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        for end in [SECTOR_BYTES + 64, SECTOR_BYTES + 200, used] {
            seeds.push([&[1], whole.get(SECTOR_BYTES..end.min(used)).unwrap_or_default()].concat());
        }
    }
    seeds
}

/// ```text
/// flags u8: where the tables are (bits 0 to 3), the mode to replay (bit 4)
/// (first u64 LE │ len u16 LE │ content)*       segments, named by their first sequence
/// ```
/// A segment is filled up with zeros to a whole sector; its header is made if `len` has bit 15.
pub(super) fn blind(input: &[u8]) {
    let Some((&flags, mut rest)) = input.split_first() else { return };
    let disk = TestDisk::default();
    for _ in 0..SEGMENTS_MAX {
        let Some((head, tail)) = rest.split_first_chunk::<10>() else { break };
        let (first, len) = head.split_at(8);
        let first = u64::from_le_bytes(first.try_into().unwrap_or_default());
        let len = u16::from_le_bytes(len.try_into().unwrap_or_default());
        let (content, tail) = tail.split_at(usize::from(len & 0x7FFF).min(tail.len()));
        rest = tail;
        let mut bytes = if len & 0x8000 == 0 { Vec::new() } else { header(first) };
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(SECTOR_BYTES), 0);
        disk.plant(&format!("{DIR}/{first:016x}.wal"), bytes);
    }
    blindly(|| {
        let Some(recovery) = live_on(&disk) else { return };
        let tables = u64::from(flags & 15);
        if flags & 16 == 0 {
            raft(&recovery, SnapshotMeta { index: tables, term: tables.min(2) });
        } else {
            mangrove::replica::judge_masterless_log(&recovery, tables);
        }
    });
}

/// Starts a node of the primary-backup mode with what the log tells.
fn raft(recovery: &Recovery, durable: SnapshotMeta) {
    let Ok(recovered) = replay(recovery, durable) else { return };
    let ids = vec![NodeId(1), NodeId(2), NodeId(3)];
    let mut config = Config::new(NodeId(2), ids);
    config.check_invariants = true;
    drop(Raft::new(config, recovered, Rng::new(1), Instant::from_nanos(0)));
}

/// Returns the first sector of a segment, as a new log has it.
fn header(first: u64) -> Vec<u8> {
    static HEADER: OnceLock<Vec<u8>> = OnceLock::new();
    let header = HEADER.get_or_init(|| {
        blindly(|| {
            let disk = TestDisk::default();
            drop(open(&disk));
            disk.contents(&format!("{DIR}/{:016x}.wal", 1))[..SECTOR_BYTES].to_vec()
        })
    });
    // Of its fields only the first sequence differs from segment to segment.
    let mut bytes = header.clone();
    let number = 1_u64.to_le_bytes();
    if let Some(at) = bytes.windows(8).rposition(|window| window == number) {
        bytes[at..at + 8].copy_from_slice(&first.to_le_bytes());
    }
    bytes
}

/// Writes the log of a node; `prefix` is what its records' payloads begin with.
fn log(is_masterless: bool) -> TestDisk {
    let disk = TestDisk::default();
    let Some((mut writer, _)) = open(&disk) else { panic!("a new log") };
    let append = |writer: &mut Writer<TestDisk>, number: u64| {
        if is_masterless {
            let records = vec![mangrove::dynamo::Record::Entries(entries())];
            writer.append(KIND_RECORDS, number, |buffer| codec::encode_into(&records, buffer));
            return;
        }
        if number.is_multiple_of(5) {
            let vote = HardState { term: number / 5, vote: Some(NodeId(2)) };
            let payload = codec::encode(&vote);
            let preamble = Record { kind: KIND_HARD_STATE, tag: 0, payload: payload.clone() };
            writer.set_preamble(vec![preamble]);
            writer.append_critical(KIND_HARD_STATE, 0, |buffer| buffer.extend(payload));
        }
        let command = Payload::new(vec![number as u8; 60]).unwrap_or_default();
        let kind = EntryKind::Command(command);
        let entry = Entry { index: number, term: number / 5, kind };
        writer.append(KIND_ENTRY, number, |buffer| codec::encode_into(&entry, buffer));
    };
    for number in 1..=24 {
        append(&mut writer, number);
        let written = run(async {
            writer.write().await?;
            // The last batch is under way when the power goes.
            if number < 24 {
                writer.sync().await?;
            }
            if number % 8 == 0 && number < 24 {
                writer.mark().await?;
            }
            writer.prepare().await
        });
        assert_eq!(written, Ok(()), "the disk is well");
    }
    if !is_masterless {
        for (kind, meta) in [(KIND_INSTALL, 12), (KIND_RECOVERED, 13)] {
            let meta = SnapshotMeta { index: meta, term: 2 };
            writer.append(kind, 0, |buffer| codec::encode_into(&meta, buffer));
        }
        let lost = SnapshotMeta { index: 14, term: 2 };
        let standing = (Standing::Filling(lost), HardState { term: 5, vote: None });
        writer.append_critical(KIND_STANDING, 0, |buffer| codec::encode_into(&standing, buffer));
    } else {
        writer.append(KIND_DAMAGED, 25, |_| {});
    }
    assert_eq!(run(writer.write()), Ok(()), "the disk is well");
    disk
}

fn segments(disk: &TestDisk) -> Files {
    let files = disk.files(DIR).into_iter();
    files.map(|(name, bytes)| (name, Some(bytes))).collect()
}

pub(super) fn blind_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for is_masterless in [false, true] {
        let files = blindly(|| segments(&log(is_masterless)));
        let mut whole = vec![if is_masterless { 16 } else { 0 }];
        for (name, content) in files.iter().take(SEGMENTS_MAX) {
            let digits = name.trim_start_matches("wal/").trim_end_matches(".wal");
            let Ok(first) = u64::from_str_radix(digits, 16) else { continue };
            let content = content.clone().unwrap_or_default();
            let used = content.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            let mut segment = first.to_le_bytes().to_vec();
            segment.extend(u16::try_from(used).unwrap_or(0x7FFF).to_le_bytes());
            segment.extend_from_slice(&content[..used]);
            seeds.push([&whole[..1], &segment].concat());
            whole.extend(segment);
        }
        seeds.push(whole);
    }
    let new = |first: u64| [&[0][..], &first.to_le_bytes(), &0x8000_u16.to_le_bytes()].concat();
    seeds.extend([1, 9, u64::MAX - 1, u64::MAX, 0].map(new));
    seeds
}

struct Whole {
    files: Files,
    known: Known,
}

fn whole() -> &'static [Whole; 2] {
    static WHOLE: OnceLock<[Whole; 2]> = OnceLock::new();
    WHOLE.get_or_init(|| {
        [false, true].map(|is_masterless| {
            let disk = log(is_masterless);
            let files = segments(&disk);
            let Ok(recovery) = run(wal::inspect(&disk, DIR)) else { panic!("a whole log") };
            Whole { files, known: known(&recovery) }
        })
    })
}

/// ```text
/// which u8: whose log (bit 0) │ edits of its segments
/// ```
pub(super) fn altered(input: &[u8]) {
    let Some((&which, edits)) = input.split_first() else { return };
    let whole = &whole()[usize::from(which & 1)];
    let mut files = whole.files.clone();
    let is_altered = edits::alter(&mut files, edits);
    let disk = TestDisk::default();
    for (name, content) in files {
        if let Some(bytes) = content {
            disk.plant(&name, bytes);
        }
    }
    let Some(recovery) = live_on(&disk) else {
        assert!(is_altered, "a whole log does not open");
        return;
    };
    for (sequence, record) in known(&recovery) {
        let written = whole.known.get(&sequence);
        assert_eq!(written, Some(&record), "#{sequence} was never written so");
    }
    if !is_altered {
        assert_eq!(recovery.damage, Vec::new(), "a whole log is not damaged");
        assert_eq!(known(&recovery), whole.known, "a whole log is found whole");
    }
    if which & 1 == 0 {
        raft(&recovery, SnapshotMeta::default());
    } else {
        mangrove::replica::judge_masterless_log(&recovery, 0);
    }
}

pub(super) fn altered_seeds() -> Vec<Vec<u8>> {
    let seeds_of = |which: u8| {
        let edits = edits::seeds(&whole()[usize::from(which)].files);
        edits.into_iter().map(move |edit| [vec![which], edit].concat())
    };
    seeds_of(0).chain(seeds_of(1)).collect()
}
