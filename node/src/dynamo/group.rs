//! The answers of some replicas to one question, and what follows from them.
//!
//! A read asks about ranges of partitions that the same replicas hold. What they answer is kept
//! here, one answer per replica, whatever they send and however often; [`Group::verdict`] says
//! what is to be done next. It is a value without effects: `read` asks, repairs and replies.
//!
//! # When a read may be answered
//! Later reads must never show less than earlier ones: two reads at quorum share a replica, so it
//! is enough that what is answered is, durably, on as many replicas as the level asks for. Either
//! that many gave the same digest; then it is what they have. Or full answers are merged, and each
//! of that many replicas lacks nothing of the result, at first hand or because it acknowledged
//! what it lacked: **the repair comes before the answer**. Tombstones count like values, or a
//! value that one read found deleted would be back in the next one.
//!
//! A replica's floor that rose meanwhile makes it refuse a repair: what it lacks was deleted. Then
//! the answers are out of date, and the replicas are asked again.

use std::collections::{BTreeMap, BTreeSet};

use super::merge::{self, Merged};
use super::message::{Chunk, Range, ReadReply, RequestId};
use crate::base::limits::MULTI_GET_BYTES_MAX;
use crate::base::{Entry, Instant, NodeId, Stamp};
use crate::planted;

/// A question to some replicas, and their answers.
#[derive(Debug)]
pub(super) struct Group {
    /// What is asked; all of it held by the same replicas.
    pub(super) ranges: Vec<Range>,
    /// How many replicas must agree.
    pub(super) needed: usize,
    /// Who was asked, and what it said.
    pub(super) asked: BTreeMap<NodeId, Asked>,
}

/// One replica that was asked.
#[derive(Debug)]
pub(super) struct Asked {
    /// When; the latest time if several.
    pub(super) at: Instant,
    /// Whether it was asked for more than a digest.
    pub(super) is_full: bool,
    /// What it said, if it did.
    digest: Option<u64>,
    /// All it said, with what it acknowledged since.
    chunks: Option<Vec<Chunk>>,
    /// What it was given and has not acknowledged.
    pub(super) repair: Option<Repair>,
    /// It cannot help at the moment: not whole, or no space on its disk.
    pub(super) is_useless: bool,
}

/// What a replica lacks, on its way there.
#[derive(Debug)]
pub(super) struct Repair {
    /// Names the write.
    pub(super) id: RequestId,
    /// Per range.
    pub(super) entries: Vec<Vec<Entry>>,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing: answers or acknowledgements are missing.
    Wait,
    /// These have told a digest alone, and not the same.
    AskFully(Vec<NodeId>),
    /// These lack entries, told per range.
    Repair(Vec<(NodeId, Vec<Vec<Entry>>)>),
    /// The answer, per range: enough replicas have it.
    Agreed(Vec<Chunk>),
}

impl Asked {
    fn new(at: Instant, is_full: bool) -> Self {
        Self { at, is_full, digest: None, chunks: None, repair: None, is_useless: false }
    }

    /// Tells whether it said anything yet, were it only that it cannot.
    pub(super) fn has_answered(&self) -> bool {
        let has_told = if self.is_full { self.chunks.is_some() } else { self.digest.is_some() };
        has_told || self.is_useless
    }

    /// Tells whether it said what it has.
    fn is_told(&self) -> bool {
        self.digest.is_some() && !self.is_useless
    }

    /// What it said and acknowledged counts no more, nor does what it may still say; returns the
    /// repair that is under way.
    pub(super) fn forget(&mut self) -> Option<Repair> {
        (self.digest, self.chunks, self.is_useless) = (None, None, true);
        self.repair.take()
    }

    fn bytes(&self) -> usize {
        let chunks = self.chunks.iter().flatten();
        chunks.flat_map(|chunk| &chunk.entries).map(Entry::bytes).sum()
    }
}

impl Group {
    pub(super) fn new(ranges: Vec<Range>, needed: usize) -> Self {
        Self { ranges, needed, asked: BTreeMap::new() }
    }

    /// Notes that a replica is asked, for everything or a digest; what it said before stays.
    pub(super) fn ask(&mut self, node: NodeId, at: Instant, is_full: bool) {
        let asked = self.asked.entry(node).or_insert_with(|| Asked::new(at, is_full));
        asked.at = at;
        asked.is_full = is_full;
    }

    /// Returns the largest stamp that was met.
    pub(super) fn largest_stamp(&self) -> Stamp {
        let chunks = self.full().flat_map(|(_, chunks)| chunks);
        chunks.map(merge::largest_stamp).max().unwrap_or_default()
    }

    /// Returns about how many bytes the answers take.
    pub(super) fn bytes(&self) -> usize {
        self.asked.values().map(Asked::bytes).sum()
    }

    /// Returns how many replicas said what they have.
    pub(super) fn told_count(&self) -> usize {
        self.asked.values().filter(|asked| asked.is_told()).count()
    }

    /// Tells whether the replicas that answered have told different things.
    pub(super) fn is_different(&self) -> bool {
        let digests: BTreeSet<_> = self.asked.values().filter_map(|asked| asked.digest).collect();
        digests.len() > 1
    }

    /// Takes the answer of a replica that was asked; false if it adds nothing.
    pub(super) fn on_reply(&mut self, from: NodeId, reply: ReadReply) -> bool {
        let Some(asked) = self.asked.get_mut(&from) else { return false };
        match reply {
            ReadReply::Digest(digest) if asked.digest.is_none() => asked.digest = Some(digest),
            ReadReply::Data(chunks) if asked.chunks.is_none() => {
                let mut pairs = self.ranges.iter().zip(&chunks);
                let is_answer = chunks.len() == self.ranges.len()
                    && pairs.all(|(range, chunk)| merge::is_answer(range, chunk));
                if is_answer {
                    asked.digest = Some(merge::digest(&chunks));
                    asked.chunks = Some(chunks);
                } else {
                    asked.is_useless = true;
                }
            }
            ReadReply::NotReady if asked.digest.is_none() => asked.is_useless = true,
            ReadReply::Digest(_) | ReadReply::Data(_) | ReadReply::NotReady => return false,
        }
        true
    }

    /// A replica has what it was given: from now on it counts as if it had said so.
    pub(super) fn on_repaired(&mut self, node: NodeId) {
        let Some(asked) = self.asked.get_mut(&node) else { return };
        let (Some(repair), Some(chunks)) = (asked.repair.take(), &mut asked.chunks) else { return };
        for (chunk, entries) in chunks.iter_mut().zip(repair.entries) {
            merge::add(chunk, entries);
        }
        asked.digest = Some(merge::digest(chunks));
    }

    /// Returns the entries of the first full answer.
    pub(super) fn first_answer(&self) -> Vec<Entry> {
        let first = self.full().next().map(|(_, chunks)| chunks.as_slice()).unwrap_or_default();
        first.iter().flat_map(|chunk| chunk.entries.clone()).collect()
    }

    /// Tells what is to be done next.
    pub(super) fn verdict(&self) -> Verdict {
        if self.told_count() < self.needed {
            return Verdict::Wait;
        }
        if let Some(chunks) = self.agreed() {
            return Verdict::Agreed(chunks.to_vec());
        }
        let full: Vec<(NodeId, &Vec<Chunk>)> = self.full().collect();
        if full.len() < self.needed {
            let unasked = self.asked.iter().filter(|(_, asked)| asked.is_told() && !asked.is_full);
            let unasked: Vec<NodeId> = unasked.map(|(node, _)| *node).collect();
            return if unasked.is_empty() { Verdict::Wait } else { Verdict::AskFully(unasked) };
        }
        self.merged(&full)
    }

    /// Returns what as many replicas as needed have told alike, one of them in full.
    fn agreed(&self) -> Option<&[Chunk]> {
        self.full().find_map(|(node, chunks)| {
            let digest = self.asked.get(&node)?.digest;
            let alike = self.asked.values().filter(|asked| {
                asked.is_told() && asked.digest == digest && asked.repair.is_none()
            });
            (alike.count() >= self.needed).then_some(chunks.as_slice())
        })
    }

    fn full(&self) -> impl Iterator<Item = (NodeId, &Vec<Chunk>)> {
        let told = self.asked.iter().filter(|(_, asked)| !asked.is_useless);
        told.filter_map(|(node, asked)| Some((*node, asked.chunks.as_ref()?)))
    }

    fn merged(&self, full: &[(NodeId, &Vec<Chunk>)]) -> Verdict {
        let mut merged: Vec<Merged> = Vec::with_capacity(self.ranges.len());
        let mut bytes_left = MULTI_GET_BYTES_MAX;
        for (at, range) in self.ranges.iter().enumerate() {
            let chunks: Vec<&Chunk> = full.iter().filter_map(|(_, all)| all.get(at)).collect();
            let mut of_range = merge::merge(&chunks);
            of_range.cut(&range.start, &mut bytes_left);
            merged.push(of_range);
        }
        let mut has_all = 0;
        let mut repairs = Vec::new();
        for (replica, (node, _)) in full.iter().enumerate() {
            let of_range = |range: &Merged| range.lacking.get(replica).cloned().unwrap_or_default();
            let lacking: Vec<Vec<Entry>> = merged.iter().map(of_range).collect();
            if lacking.iter().all(Vec::is_empty) {
                has_all += 1;
            } else if self.asked.get(node).is_some_and(|asked| asked.repair.is_none()) {
                repairs.push((*node, lacking));
            }
        }
        // Repairs go out even if they are not needed for this answer.
        if has_all >= self.needed || (planted!("D20") && repairs.is_empty()) {
            return Verdict::Agreed(merged.into_iter().map(|range| range.chunk).collect());
        }
        if repairs.is_empty() { Verdict::Wait } else { Verdict::Repair(repairs) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Payload, Stamp, Written};
    use crate::codec::keycode::encode_cell;

    const NOW: Instant = Instant::from_nanos(0);

    fn range() -> Range {
        let start = Payload::new(vec![1, 1]).unwrap();
        Range { partition: 0, start, end: None, limit: 10 }
    }

    fn entry(key: u8, number: u64) -> Entry {
        let place = Payload::new(encode_cell(&[1, 1, key], &[])).unwrap();
        let written = Written::Value(Payload::default());
        Entry { place, stamp: Stamp::from_version(number), written }
    }

    fn data(entries: &[Entry]) -> Vec<Chunk> {
        vec![Chunk { entries: entries.to_vec(), ..Chunk::default() }]
    }

    /// Nodes 1, 2, …, the first asked for everything.
    fn group(asked: u64, needed: usize) -> Group {
        let mut group = Group::new(vec![range()], needed);
        (1..=asked).for_each(|node| group.ask(NodeId(node), NOW, node == 1));
        group
    }

    fn digest(entries: &[Entry]) -> ReadReply {
        ReadReply::Digest(merge::digest(&data(entries)))
    }

    #[test]
    fn group_whose_digests_agree_has_its_answer() {
        let mut group = group(2, 2);
        assert!(group.on_reply(NodeId(2), digest(&[entry(1, 1)])));
        assert_eq!(group.verdict(), Verdict::Wait);
        assert!(group.on_reply(NodeId(1), ReadReply::Data(data(&[entry(1, 1)]))));
        assert_eq!(group.verdict(), Verdict::Agreed(data(&[entry(1, 1)])));
    }

    #[test]
    fn group_counts_one_answer_per_replica() {
        let mut group = group(2, 2);
        let reply = ReadReply::Data(data(&[entry(1, 1)]));
        assert!(group.on_reply(NodeId(1), reply.clone()));
        assert!(!group.on_reply(NodeId(1), reply.clone()));
        assert!(!group.on_reply(NodeId(9), reply), "it was never asked");
        assert_eq!(group.verdict(), Verdict::Wait);
    }

    #[test]
    fn group_that_differs_repairs_before_it_answers() {
        let mut group = group(2, 2);
        group.on_reply(NodeId(1), ReadReply::Data(data(&[entry(1, 1)])));
        group.on_reply(NodeId(2), digest(&[entry(1, 2)]));
        assert_eq!(group.verdict(), Verdict::AskFully(vec![NodeId(2)]));
        group.ask(NodeId(2), NOW, true);
        assert_eq!(group.verdict(), Verdict::Wait);
        group.on_reply(NodeId(2), ReadReply::Data(data(&[entry(1, 2)])));
        let lacking = vec![vec![entry(1, 2)]];
        assert_eq!(group.verdict(), Verdict::Repair(vec![(NodeId(1), lacking.clone())]));
        let id = RequestId { generation: 1, number: 1 };
        group.asked.get_mut(&NodeId(1)).unwrap().repair = Some(Repair { id, entries: lacking });
        assert_eq!(group.verdict(), Verdict::Wait, "until it is acknowledged");
        group.on_repaired(NodeId(1));
        assert_eq!(group.verdict(), Verdict::Agreed(data(&[entry(1, 2)])));
    }

    #[test]
    fn group_with_a_spare_answer_does_not_wait_for_the_stale_one() {
        let mut group = group(3, 2);
        group.on_reply(NodeId(1), ReadReply::Data(data(&[entry(1, 2)])));
        group.on_reply(NodeId(2), digest(&[]));
        group.on_reply(NodeId(3), digest(&[entry(1, 2)]));
        assert_eq!(group.verdict(), Verdict::Agreed(data(&[entry(1, 2)])));
    }

    #[test]
    fn group_does_not_count_a_replica_that_cannot_help() {
        let mut group = group(2, 2);
        group.on_reply(NodeId(1), ReadReply::Data(data(&[])));
        group.on_reply(NodeId(2), ReadReply::NotReady);
        assert_eq!(group.verdict(), Verdict::Wait);
        group.ask(NodeId(3), NOW, false);
        let behind = Chunk { covered: Some(Payload::default()), ..Chunk::default() };
        group.on_reply(NodeId(3), ReadReply::Data(vec![behind]));
        assert_eq!(group.verdict(), Verdict::Wait, "an answer that cannot be is none");
    }
}
