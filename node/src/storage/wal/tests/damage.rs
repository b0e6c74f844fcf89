//! Rot: reported, never truncated, and everything else comes back.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::record::{Header, Place, Role};
use super::super::scan::{Item, scan};
use super::super::segment::to_u64;
use super::super::{Loss, SEQUENCE_MAX, inspect, segment, unwitnessed};
use super::*;
use crate::base::{Rng, checksum};
use crate::storage::test_disk::{Faults, TestDisk};

/// Where a record lies, headers and all.
#[derive(Debug, Clone)]
struct Site {
    path: String,
    start: usize,
    end: usize,
    sequence: Sequence,
    role: Role,
}

fn sites(disk: &TestDisk) -> Vec<Site> {
    let files: Vec<_> = disk.files(DIR).into_iter().collect();
    let first_of = |path: &String| segment::parse_name(&path[DIR.len() + 1..]);
    let mut sites = Vec::new();
    for (position, (path, bytes)) in files.iter().enumerate() {
        let Some(first) = first_of(path) else { continue };
        let limit = files.get(position + 1).and_then(|(path, _)| first_of(path));
        for item in scan(first, limit, bytes).items {
            let Item::Record(found) = item else { panic!("{item:?} in {path}") };
            sites.push(Site {
                path: path.clone(),
                start: found.offset,
                end: found.offset + found.header.record_bytes(),
                sequence: found.header.sequence,
                role: found.header.role,
            });
        }
    }
    sites
}

/// A log of several segments, all of it durable and, but for the last batch, known to be.
fn filled(batches: &[Vec<usize>]) -> TestDisk {
    let disk = TestDisk::default();
    let (mut writer, _) = open(&disk);
    let mut tag = 0;
    for (term, batch) in (1..).zip(batches) {
        for &bytes in batch {
            tag += 1;
            append(&mut writer, tag, bytes);
        }
        append_vote(&mut writer, term);
        commit(&mut writer).unwrap();
        if term % 3 == 0 {
            now(writer.mark()).unwrap();
        }
    }
    disk.power_loss(&mut Rng::new(1), 1.0);
    disk
}

fn batches() -> impl Strategy<Value = Vec<Vec<usize>>> {
    prop::collection::vec(prop::collection::vec(0_usize..900, 1..6), 3..12)
}

/// Holds the log to its promises after the bytes `hit` were changed in the file of that name.
fn check(disk: &TestDisk, before: &Recovery, hit: &[Site], is_exact: bool) {
    let lost: BTreeSet<Sequence> =
        hit.iter().filter(|site| site.role != Role::Mark).map(|site| site.sequence).collect();
    let (_, after) = open(disk);
    let expected: Vec<_> =
        before.records.iter().filter(|record| !lost.contains(&record.sequence)).collect();
    assert!(expected.iter().eq(&after.records.iter().collect::<Vec<_>>()), "{after:?}");
    let missing: BTreeSet<Sequence> =
        after.damage.iter().flat_map(|damage| damage.missing.clone()).collect();
    assert!(missing.is_superset(&lost), "missing {missing:?}, lost {lost:?}");
    if is_exact {
        assert_eq!(missing, lost);
    }
    for damage in &after.damage {
        let halves = damage.missing.clone().all(|sequence| {
            let twin = |other| before.records.iter().any(|r| r.sequence == other);
            let role = before.records.iter().find(|r| r.sequence == sequence).map(|r| r.role);
            match role {
                Some(Role::First) => twin(sequence + 1) && !missing.contains(&(sequence + 1)),
                Some(Role::Second) => !missing.contains(&(sequence - 1)),
                _ => false,
            }
        });
        assert_eq!(damage.loss == Loss::Nothing, halves, "{damage:?}");
    }
    check_again(disk, &after);
}

/// The same at every start, also once the log has gone on.
fn check_again(disk: &TestDisk, after: &Recovery) {
    for round in 0..3 {
        disk.power_loss(&mut Rng::new(round), 0.0);
        let (mut writer, again) = open(disk);
        let count = after.records.len();
        assert_eq!(again.records[..count], after.records[..], "round {round}");
        assert_eq!(again.records.len(), count + usize::try_from(round).unwrap());
        let summary = |recovery: &Recovery| -> Vec<_> {
            let lossy = recovery.damage.iter().filter(|damage| !damage.missing.is_empty());
            lossy.map(|damage| (damage.missing.clone(), damage.loss)).collect()
        };
        assert_eq!(summary(&again), summary(after), "round {round}");
        append(&mut writer, 1000 + round, 100);
        commit(&mut writer).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn flipped_bit_costs_one_record_at_most(
        batches in batches(),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
        is_opened in any::<bool>(),
    ) {
        let disk = filled(&batches);
        // Opening copies what has no witness. Without it that part is out of reach of rot here.
        let before = if is_opened { open(&disk).1 } else { now(inspect(&disk, DIR)).unwrap() };
        let reach = now(unwitnessed(&disk, DIR)).unwrap();
        let mut sites = sites(&disk);
        if let Some((path, from)) = reach.filter(|_| !is_opened) {
            let end = sites.iter().position(|site| site.path == path && to_u64(site.start) == from);
            sites.truncate(end.unwrap());
        }
        // Any byte of any record.
        let total: usize = sites.iter().map(|site| site.end - site.start).sum();
        let mut at = at.index(total);
        let hit = sites.iter().find(|site| {
            let bytes = site.end - site.start;
            let is_here = at < bytes;
            if !is_here {
                at -= bytes;
            }
            is_here
        });
        let hit = hit.unwrap().clone();
        disk.damage(&hit.path, |content| content[hit.start + at] ^= 1_u8 << bit);
        let is_last = is_opened && before.records.last().unwrap().sequence == hit.sequence;
        check(&disk, &before, &[hit], !is_last);
    }

    #[test]
    fn rotten_sector_in_the_proven_part_costs_what_it_touches(
        batches in batches(), which in any::<prop::sample::Index>(), garbage in any::<bool>(),
    ) {
        let disk = filled(&batches);
        let before = open(&disk).1;
        // Opening copied the last batch into a segment that ends with a mark: all is proven.
        let sites = sites(&disk);
        let proven = sites.iter().filter(|site| site.sequence < before.next - 2).count();
        let victim = &sites[which.index(proven)];
        let sector = victim.start / 512 * 512;
        let hit: Vec<Site> = sites
            .iter()
            .filter(|site| {
                site.path == victim.path && site.start < sector + 512 && site.end > sector
            })
            .cloned()
            .collect();
        let fill = if garbage { 0xA5 } else { 0 };
        disk.damage(&victim.path, |content| content[sector..sector + 512].fill(fill));
        check(&disk, &before, &hit, true);
    }

    #[test]
    fn flipped_bit_of_unused_space_costs_nothing(
        batches in batches(), at in any::<prop::sample::Index>(), bit in 0..8_u8,
    ) {
        let disk = filled(&batches);
        let before = open(&disk).1;
        let sites = sites(&disk);
        let files = disk.files(DIR);
        let (path, content) = files.iter().next_back().unwrap();
        let used = |at: usize| {
            sites.iter().any(|site| site.path == *path && (site.start..site.end).contains(&at))
        };
        let unused: Vec<usize> = (512..content.len()).filter(|&at| !used(at)).collect();
        prop_assume!(!unused.is_empty());
        let at = unused[at.index(unused.len())];
        disk.damage(path, |content| content[at] ^= 1_u8 << bit);
        check(&disk, &before, &[], true);
    }
}

/// A log with three records of three batches, the last known to be durable, in one segment.
fn three() -> (TestDisk, String, Vec<Site>) {
    let disk = TestDisk::default();
    let (mut writer, _) = open(&disk);
    for tag in 1..=3 {
        append(&mut writer, tag, 600);
        commit(&mut writer).unwrap();
    }
    let sites = sites(&disk);
    let sites = sites.into_iter().filter(|site| site.role != Role::Mark).collect();
    (disk, segment::path(DIR, 1), sites)
}

#[test]
fn zeroed_record_before_a_later_one_is_rot_when_it_was_durable() {
    let (disk, path, sites) = three();
    disk.damage(&path, |content| content[sites[1].start..sites[1].end].fill(0));
    let (_, recovery) = open(&disk);
    assert_eq!(sequences(&recovery), [1, 3]);
    assert_eq!(recovery.torn, None);
    assert_eq!(recovery.damage.len(), 1);
    assert_eq!(recovery.damage[0].missing, 2..3);
    assert_eq!(recovery.damage[0].loss, Loss::Records);
    assert!(recovery.damage[0].is_certain);
}

#[test]
fn broken_payload_is_reported_with_its_tag() {
    let (disk, path, sites) = three();
    disk.damage(&path, |content| content[sites[1].start + 300] ^= 4);
    let damage = &open(&disk).1.damage[0];
    assert_eq!((damage.tag, damage.missing.clone()), (Some(2), 2..3));
}

#[test]
fn last_record_altered_without_a_mark_is_torn_and_with_one_is_rot() {
    for is_marked in [false, true] {
        let (disk, path, sites) = three();
        if is_marked {
            let (mut writer, _) = open(&disk);
            now(writer.mark()).unwrap();
        }
        disk.damage(&path, |content| content[sites[2].start + 300] ^= 4);
        if is_marked {
            // Opening copied the last record into a segment of its own.
            disk.damage(&segment::path(DIR, 3), |content| content[512 + 300] ^= 4);
        }
        let (_, recovery) = open(&disk);
        assert_eq!(sequences(&recovery), [1, 2]);
        if !is_marked {
            assert_eq!((recovery.damage.len(), recovery.next), (0, 3));
            assert_eq!(recovery.torn.map(|torn| torn.from), Some(3));
            continue;
        }
        assert_eq!((recovery.damage.len(), recovery.next), (1, 4));
        assert!(recovery.damage[0].is_certain);
        assert_eq!(recovery.damage[0].missing, 3..4);
    }
}

#[test]
fn last_batch_is_unwitnessed_until_a_mark_follows() {
    let (disk, path, sites) = three();
    let last = (path, to_u64(sites[2].start));
    assert_eq!(now(unwitnessed(&disk, DIR)).unwrap(), Some(last));
    let (mut writer, _) = open(&disk);
    now(writer.mark()).unwrap();
    assert_eq!(now(unwitnessed(&disk, DIR)).unwrap(), None);
}

/// Found by the swarm (seed 6002968): the mark was the only witness of the record before it, so the
/// broken bytes were taken for an unfinished write, and the batch behind them for a part of it.
#[test]
fn rot_in_a_mark_takes_no_batch_after_it() {
    let disk = TestDisk::default();
    let (mut writer, _) = open(&disk);
    append(&mut writer, 1, 10);
    commit(&mut writer).unwrap();
    now(writer.mark()).unwrap();
    append(&mut writer, 2, 10);
    commit(&mut writer).unwrap();
    let sites = sites(&disk);
    let mark = sites.iter().find(|site| site.role == Role::Mark && site.sequence == 1).unwrap();
    disk.damage(&mark.path, |content| content[mark.start + 3] ^= 1);
    let (_, recovery) = open(&disk);
    assert_eq!((sequences(&recovery), recovery.torn), (vec![1, 2], None));
}

#[test]
fn record_at_another_place_is_no_record() {
    let (disk, path, sites) = three();
    // A misdirected write: the third record also over the second.
    disk.damage(&path, |content| {
        content.copy_within(sites[2].start..sites[2].end, sites[1].start);
    });
    let (_, recovery) = open(&disk);
    assert_eq!(sequences(&recovery), [1, 3]);
    assert_eq!(recovery.damage[0].missing, 2..3);
}

#[test]
fn newest_critical_record_is_whole_while_both_copies_are_there() {
    // Two copies of one vote, then two of the next.
    for (copy, is_whole) in [(0, true), (1, true), (2, false), (3, false)] {
        let disk = TestDisk::default();
        let (mut writer, recovery) = open(&disk);
        assert!(recovery.is_newest_critical_whole(), "there is none");
        for term in 1..3 {
            append_vote(&mut writer, term);
            append(&mut writer, u64::from(term), 100);
            commit(&mut writer).unwrap();
        }
        // The last batch has a witness.
        append(&mut writer, 3, 100);
        commit(&mut writer).unwrap();
        assert!(open(&disk).1.is_newest_critical_whole());
        let is_copy = |site: &Site| matches!(site.role, Role::First | Role::Second);
        let copies: Vec<Site> = sites(&disk).into_iter().filter(is_copy).collect();
        let rot = |copy: usize| {
            let site = &copies[copy];
            disk.damage(&site.path, |content| content[site.end - 1] ^= 1);
        };
        rot(copy);
        let (mut writer, recovery) = open(&disk);
        assert_eq!(recovery.is_newest_critical_whole(), is_whole, "copy {copy}");
        // Said again, it outlasts the other copy.
        append_vote(&mut writer, 2);
        commit(&mut writer).unwrap();
        if !is_whole {
            rot(5 - copy);
        }
        let (_, recovery) = open(&disk);
        assert!(recovery.is_newest_critical_whole(), "copy {copy}");
        let last = recovery.records.iter().rev().find(|record| record.kind == VOTE);
        assert_eq!(last.map(|record| record.payload[0]), Some(2));
    }
}

/// A log of two votes with small entries around them, its last entry a witness of all others.
fn votes_among_small_entries() -> (TestDisk, Vec<Site>) {
    let disk = TestDisk::default();
    let (mut writer, _) = open(&disk);
    for term in 1..3 {
        append_vote(&mut writer, term);
        for tag in 1..31 {
            append(&mut writer, u64::from(term) * 30 + tag, 20);
        }
    }
    commit(&mut writer).unwrap();
    append(&mut writer, 100, 20);
    commit(&mut writer).unwrap();
    let sites = sites(&disk);
    (disk, sites)
}

#[test]
fn lost_sector_takes_many_records_and_no_vote() {
    let (disk, sites) = votes_among_small_entries();
    let witness = sites.last().unwrap();
    let sector_of = |site: &Site| (site.path.clone(), site.start / 512 * 512);
    let sectors: BTreeSet<_> = sites.iter().map(sector_of).collect();
    for (path, sector) in sectors.into_iter().filter(|sector| *sector != sector_of(witness)) {
        let disk = disk.after_process_end();
        disk.damage(&path, |content| content[sector..sector + 512].fill(0xEE));
        let (_, recovery) = open(&disk);
        let is_lost =
            |site: &Site| site.path == path && site.start < sector + 512 && site.end > sector;
        let kept = sites.iter().filter(|site| !is_lost(site) && site.role != Role::Mark);
        let kept: Vec<Sequence> = kept.map(|site| site.sequence).collect();
        assert_eq!(sequences(&recovery), kept, "{path}, sector at {sector}");
        let losses = recovery.damage.iter().map(|damage| damage.loss);
        assert!(losses.max() < Some(Loss::Critical), "{path} {sector}: {:?}", recovery.damage);
        let newest = recovery.records.iter().rev().find(|record| record.kind == VOTE);
        assert_eq!(newest.map(|record| record.payload[0]), Some(2), "{path}, sector at {sector}");
    }
}

#[test]
fn lost_sectors_of_both_copies_take_the_vote() {
    let (disk, sites) = votes_among_small_entries();
    let copies = |site: &&Site| matches!(site.role, Role::First | Role::Second);
    let newest: Vec<&Site> = sites.iter().filter(copies).skip(2).collect();
    let [first, second] = newest[..] else { panic!("{newest:?}") };
    let range = first.start / 512 * 512..second.end.next_multiple_of(512);
    disk.damage(&first.path, |content| content[range.clone()].fill(0xEE));
    let (_, recovery) = open(&disk);
    let losses = recovery.damage.iter().map(|damage| damage.loss);
    assert_eq!(losses.max(), Some(Loss::Critical), "{:?}", recovery.damage);
}

const BLOCKS: Options = Options { segment_bytes: 1 << 17 };

/// A log of two votes among entries in segments whose parts lie in different blocks, with a mark
/// that tells of the last batch; the first segments are gone if `removes`.
fn votes_in_blocks(removes: bool) -> TestDisk {
    let disk = TestDisk::default();
    let (mut writer, _) = now(super::super::open(&disk, DIR, BLOCKS)).unwrap();
    let entry = |writer: &mut Writer<TestDisk>, tag| {
        append(writer, tag, 20);
        commit(writer).unwrap();
    };
    append_vote(&mut writer, 1);
    (1..4).for_each(|tag| entry(&mut writer, tag));
    append_vote(&mut writer, 2);
    if removes {
        append(&mut writer, 4, 100 << 10);
        append(&mut writer, 5, 100 << 10);
        commit(&mut writer).unwrap();
        now(writer.remove_through(4)).unwrap();
        assert_eq!(writer.segment_count(), 1);
    }
    entry(&mut writer, 6);
    now(writer.mark()).unwrap();
    now(writer.sync()).unwrap();
    disk
}

/// The accident: both copies of a vote and the mark that tells of them lay in one block of 4 KiB,
/// which is what disks lose at once. Nothing told that there had been a vote.
#[test]
fn lost_block_takes_no_vote_and_nothing_in_silence() {
    for removes in [false, true] {
        let disk = votes_in_blocks(removes);
        let whole = open(&disk.after_process_end()).1;
        let segments = disk.files(DIR).into_iter().filter(|(path, _)| is_segment(path));
        for (path, content) in segments {
            for block in (0..content.len()).step_by(4096) {
                let disk = disk.after_process_end();
                disk.damage(&path, |content| content[block..block + 4096].fill(0xEE));
                let (_, recovery) = open(&disk);
                let place = format!("{path}, block at {block}: {recovery:?}");
                let newest = recovery.records.iter().rev().find(|record| record.kind == VOTE);
                assert_eq!(newest.map(|record| record.payload[0]), Some(2), "{place}");
                let is_kept = sequences(&recovery) == sequences(&whole);
                assert!(is_kept || !recovery.damage.is_empty(), "{place}");
                assert_eq!(recovery.next, whole.next, "{place}");
            }
        }
    }
}

/// Has the header of a segment say that another version of the program wrote it.
fn say_version(content: &mut [u8], version: u8) {
    content[8] = version;
    let crc = checksum::crc32(&[&content[..12], &content[16..24]].concat());
    content[12..16].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn segment_of_an_earlier_version_is_read_and_not_continued() {
    let disk = filled(&vec![vec![100; 3]; 3]);
    let before = open(&disk).1;
    let (name, _) = disk.files(DIR).pop_last().unwrap();
    disk.damage(&name, |content| say_version(content, 1));
    let segments = disk.files(DIR).len();
    let (mut writer, recovery) = open(&disk);
    assert_eq!((recovery.records, recovery.damage), (before.records, vec![]));
    append(&mut writer, 1000, 100);
    commit(&mut writer).unwrap();
    assert!(disk.files(DIR).len() > segments, "the old segment goes on");
    assert_eq!(open(&disk).1.records.last().map(|record| record.tag), Some(1000));
}

#[test]
fn lost_segment_is_damage() {
    let disk = filled(&vec![vec![800; 5]; 9]);
    let before = open(&disk).1;
    let names: Vec<String> = disk.files(DIR).into_keys().collect();
    disk.lose(&names[1]);
    let (_, recovery) = open(&disk);
    let (from, to) = (parse(&names[1]), parse(&names[2]));
    assert_eq!(recovery.damage[0].missing, from..to);
    assert_eq!(recovery.damage[0].loss, Loss::Critical);
    assert_eq!(recovery.next, before.next);
    assert!(recovery.records.iter().all(|record| !(from..to).contains(&record.sequence)));
}

fn parse(path: &str) -> Sequence {
    segment::parse_name(&path[DIR.len() + 1..]).unwrap()
}

#[test]
fn rotten_segment_header_costs_nothing() {
    let disk = filled(&vec![vec![800; 5]; 9]);
    let before = open(&disk).1;
    for name in disk.files(DIR).into_keys().filter(|name| is_segment(name)) {
        disk.damage(&name, |content| content[3] ^= 1);
    }
    let (_, recovery) = open(&disk);
    assert_eq!(recovery.records, before.records);
    assert!(recovery.damage.iter().all(|damage| damage.loss == Loss::Nothing));
    assert!(recovery.damage.len() > 2);
}

#[test]
fn unreadable_sector_costs_what_it_holds() {
    let (disk, path, sites) = three();
    let unreadable = Some((path, (sites[0].start + 100) as u64));
    disk.set_faults(Faults { unreadable, ..Faults::default() });
    let (_, recovery) = open(&disk);
    assert_eq!(sequences(&recovery), [2, 3]);
    assert_eq!(recovery.damage[0].missing, 1..2);
}

#[test]
fn newer_format_is_refused_and_left_alone() {
    let (disk, path, _) = three();
    disk.damage(&path, |content| {
        say_version(content, 3);
    });
    let files = disk.files(DIR);
    let result = now(super::super::open(&disk, DIR, OPTIONS)).map(drop);
    assert!(matches!(result, Err(StorageError::Format { .. })), "{result:?}");
    assert_eq!(disk.files(DIR), files);
}

#[test]
fn segment_with_damage_goes_only_when_what_it_lost_may() {
    let disk = TestDisk::default();
    let (mut writer, _) = open(&disk);
    for tag in 1..=40 {
        append(&mut writer, tag, 600);
        commit(&mut writer).unwrap();
    }
    let second = segment::parse_name(&disk.files(DIR).keys().nth(1).unwrap()[4..]).unwrap();
    let sites = sites(&disk);
    let hit = sites.iter().find(|site| site.sequence == second - 1).unwrap();
    disk.damage(&hit.path, |content| content[hit.start] ^= 1);
    let (mut writer, recovery) = open(&disk);
    assert_eq!(recovery.damage[0].missing, second - 1..second);
    let count = writer.segment_count();
    now(writer.remove_through(second - 2)).unwrap();
    assert_eq!(writer.segment_count(), count, "the lost record had the tag {}", second - 1);
    now(writer.remove_through(u64::MAX)).unwrap();
    assert_eq!(writer.segment_count(), count, "what is lost may be a vote");
    // The accident: nobody says a vote again where there is none, and so the log of a masterless
    // node grew for ever after damage.
    writer.expect_no_critical();
    now(writer.remove_through(second - 2)).unwrap();
    assert_eq!(writer.segment_count(), count);
    now(writer.remove_through(u64::MAX)).unwrap();
    assert_eq!(writer.segment_count(), 1);
}

#[test]
fn dump_tells_of_records_and_damage_and_changes_nothing() {
    let (disk, path, sites) = three();
    disk.damage(&path, |content| content[sites[1].start + 300] ^= 4);
    let files = disk.files(DIR);
    let mut lines = Vec::new();
    now(super::super::dump(&disk, DIR, |line| lines.push(line.to_owned()))).unwrap();
    let text = lines.join("\n");
    assert!(text.contains("#3"), "{text}");
    assert!(text.contains("payload of #2"), "{text}");
    assert!(text.contains("missing 2..3, lost Records"), "{text}");
    assert!(text.contains("torn: nothing"), "{text}");
    assert_eq!(disk.files(DIR), files);
}

#[test]
fn log_that_comes_to_the_last_sequence_is_refused() {
    let with_segment = |first| {
        let (disk, mut bytes) = (TestDisk::default(), Vec::new());
        segment::encode_header(first, &mut bytes);
        bytes.resize(4096, 0);
        disk.plant(&segment::path(DIR, first), bytes);
        disk
    };
    let disk = with_segment(SEQUENCE_MAX - 1);
    let (mut writer, recovery) = open(&disk);
    assert_eq!(recovery.next, SEQUENCE_MAX - 1);
    append(&mut writer, 1, 60);
    assert_eq!(commit(&mut writer), Ok(()));
    // The next record would not be believed, so nobody may write it.
    for disk in [disk, with_segment(SEQUENCE_MAX)] {
        let opened = now(super::super::open(&disk, DIR, OPTIONS)).map(|_| ());
        assert!(matches!(opened, Err(StorageError::Format { .. })), "{opened:?}");
    }
}

/// A header is valid, and claims that more records stand before it than have room there. It was
/// believed once the file had grown so far, and everything else was void then.
#[test]
fn header_that_claims_too_many_before_it_is_never_believed() {
    let disk = TestDisk::default();
    let (mut writer, _) = open(&disk);
    append(&mut writer, 1, 60);
    assert_eq!(commit(&mut writer), Ok(()));
    let path = segment::path(DIR, 1);
    let at = 3 * segment::SECTOR_BYTES;
    for claimed in [27, 4_000, 1 << 40] {
        let header = Header {
            payload_bytes: 0,
            payload_crc: checksum::crc32(&[]),
            kind: ENTRY,
            role: Role::Single,
            run: 0,
            sequence: claimed,
            tag: 7,
            durable: claimed,
        };
        let mut bytes = disk.contents(&path);
        let forged = header.encode(Place { segment: 1, offset: to_u64(at) });
        bytes[at..at + forged.len()].copy_from_slice(&forged);
        for grown in [0, 1 << 16] {
            bytes.resize(bytes.len() + grown, 0);
            disk.plant(&path, bytes.clone());
            let found = now(inspect(&disk, DIR)).unwrap();
            let sequences: Vec<_> = found.records.iter().map(|r| r.sequence).collect();
            assert_eq!(sequences, [1], "{claimed} is claimed, {grown} bytes more");
        }
    }
}

#[test]
fn last_segment_that_is_cut_off_before_its_first_record_is_damage() {
    for len in [0, 24, 511] {
        let disk = TestDisk::default();
        for tag in 1..=2 {
            // The second start begins a segment: nothing proves the first record.
            let (mut writer, recovery) = open(&disk);
            assert!(recovery.damage.is_empty() && recovery.is_blank() == (tag == 1));
            append(&mut writer, tag, 100);
            append(&mut writer, tag, 100);
            commit(&mut writer).unwrap();
            append(&mut writer, tag, 100);
            commit(&mut writer).unwrap();
        }
        let last = disk.files(DIR).into_keys().rfind(|path| is_segment(path)).unwrap();
        let first = segment::parse_name(&last[DIR.len() + 1..]).unwrap();
        assert!(first > 1, "{last}");
        disk.damage(&last, |content| content.truncate(len));
        let looked_at = now(inspect(&disk, DIR)).unwrap();
        for start in ["first", "next"] {
            let (_, found) = open(&disk);
            assert_eq!(sequences(&found), (1..first).collect::<Vec<_>>(), "{len}, {start}");
            let of_end = found.damage.iter().filter(|damage| !damage.missing.is_empty());
            let losses: Vec<_> = of_end.map(|damage| (damage.missing.start, damage.loss)).collect();
            assert_eq!(losses, [(first, Loss::Critical)], "{len}, {start} start");
            assert_eq!(found.next, looked_at.next, "{len}, {start} start");
        }
        let (mut writer, _) = open(&disk);
        let next = append(&mut writer, 3, 100);
        commit(&mut writer).unwrap();
        assert_eq!(sequences(&open(&disk).1).last(), Some(&next), "{len}");
    }
}
