//! What a masterless node keeps for itself, and what it starts with.

use std::collections::BTreeMap;

use mangrove::base::{Instant, NodeId, Payload, Rng, Stamp};
use mangrove::codec;
use mangrove::dynamo::{Config, Dynamo, Placement, Recovered, notes};

use super::wire::entries;

/// Most notes of one start.
const NOTES_MAX: usize = 8;

/// Notes one after the other:
///
/// ```text
/// (place_len u8 │ content_len u8 │ place │ content)*
/// ```
pub(super) fn note(mut input: &[u8]) {
    for _ in 0..NOTES_MAX {
        let Some((place, content)) = next(&mut input) else { break };
        judge(place, content);
    }
}

/// The same, and a node that finds them. They are cells of a store, so there is one at each place.
pub(super) fn start(mut input: &[u8]) {
    let mut notes = BTreeMap::new();
    while notes.len() < NOTES_MAX
        && let Some((place, content)) = next(&mut input)
    {
        let payload = |bytes: &[u8]| Payload::new(bytes.to_vec()).unwrap_or_default();
        let kept = notes::recovered_content(place, content);
        notes.insert(place, (payload(place), payload(kept)));
    }
    let ids = [NodeId(1), NodeId(2), NodeId(3)];
    let config = Config::new(NodeId(2), ids.to_vec(), Placement::new(&ids, 3, 2));
    let notes = notes.into_values().collect();
    let recovered = Recovered { generation_step: 1, persisted: 0, notes, is_damaged: false };
    drop(Dynamo::new(config, recovered, Rng::new(1), Instant::from_nanos(0)));
}

/// Takes a note's place and content from the input.
fn next<'a>(input: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (&[place_len, content_len], rest) = input.split_first_chunk::<2>()?;
    let (place, rest) = rest.split_at(usize::from(place_len).min(rest.len()));
    let (content, rest) = rest.split_at(usize::from(content_len).min(rest.len()));
    *input = rest;
    Some((place, content))
}

fn judge(place: &[u8], content: &[u8]) {
    let rewritten = notes::rewritten(place, content);
    if let Some((place_again, content_again, _)) = rewritten {
        assert_eq!(place_again.as_bytes(), place, "a note has one place");
        let bytes = content_again.len().saturating_sub(12);
        match notes::rewritten(place, content_again.as_bytes()) {
            Some((_, twice, told)) => {
                assert_eq!(twice, content_again, "what is read survives writing it");
                assert!(told == 0 || told == bytes, "{told} bytes of entries are {bytes}");
            }
            None => panic!("{place:?} was written, and cannot be read"),
        }
    }
    if let Some((target, entries)) = notes::hint(place, content) {
        assert!(!notes::is_batch(place), "a hint for {target} of {entries:?} is no batch");
    }
    let kept = notes::recovered_content(place, content);
    assert!(content.starts_with(kept), "{kept:?} is not the head of {content:?}");
    let is_floor = notes::floor(place, content).is_some();
    assert!(!(is_floor && notes::is_damaged(place)), "{place:?} is of two kinds");
}

pub(super) fn note_seeds() -> Vec<Vec<u8>> {
    let kept = |entries: &[u8]| {
        let length = u32::try_from(entries.len()).unwrap_or(0).to_be_bytes();
        [&Stamp::from_version(8).version().to_be_bytes()[..], &length, entries].concat()
    };
    let kept = kept(&codec::encode(&entries()));
    let number = 300_u64.to_be_bytes();
    let notes: [(u8, &[u8], &[u8]); 7] = [
        (1, &[], &number),
        (2, &[], &number),
        (3, &[0, 1], &number),
        (4, &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9], &kept),
        (5, &[0, 0, 0, 0, 0, 0, 0, 8], &kept),
        (6, &[], &[]),
        (7, &[], &number),
    ];
    let note = |(kind, arguments, content): (u8, &[u8], &[u8])| {
        let place = [&[0xFF, 0xFF, kind, 0, 0], arguments].concat();
        let len = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap_or(u8::MAX);
        [&[len(&place), len(content)][..], &place, content].concat()
    };
    let mut seeds: Vec<Vec<u8>> = notes.into_iter().map(note).collect();
    seeds.push(seeds.concat());
    seeds
}
