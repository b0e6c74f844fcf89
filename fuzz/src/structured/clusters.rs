//! Clusters of cores in a map: the schedules of the node's own properties, drawn from the input.
//!
//! Where proptest draws a schedule anew, libFuzzer changes one that reached something new. The
//! oracles that look after every step, and the healing at the end, are the same.

use arbitrary::{Result, Unstructured};
use mangrove::dynamo::healing_tests::properties as reads;
use mangrove::dynamo::{Level, properties as writes};
use mangrove::raft::properties as raft_events;

/// Most events of one script: more take more than the time that an input has.
const EVENTS_MAX: usize = 300;

/// Reads events until the input ends.
fn events<E>(
    input: &mut Unstructured<'_>,
    event: fn(&mut Unstructured<'_>) -> Result<E>,
) -> Vec<E> {
    let mut events = Vec::new();
    while !input.is_empty() && events.len() < EVENTS_MAX {
        match event(input) {
            Ok(event) => events.push(event),
            Err(_) => break,
        }
    }
    events
}

/// Picks one of several, by their weights.
fn weighted(input: &mut Unstructured<'_>, weights: &[u8]) -> Result<usize> {
    let sum: u32 = weights.iter().map(|&weight| u32::from(weight)).sum();
    let mut left = u32::from(input.arbitrary::<u8>()?) % sum;
    for (position, &weight) in weights.iter().enumerate() {
        match left.checked_sub(u32::from(weight)) {
            Some(rest) => left = rest,
            None => return Ok(position),
        }
    }
    Ok(0)
}

/// Which connections are cut: none, those of one node, or any. Bit `5 * from + to`.
fn cuts(input: &mut Unstructured<'_>) -> Result<u32> {
    let bit = |from: u32, to: u32| 1 << (5 * from + to);
    Ok(match weighted(input, &[2, 3, 2])? {
        0 => 0,
        1 => {
            let node = input.int_in_range(0..=4)?;
            (0..5).fold(0, |bits, other| bits | bit(node, other) | bit(other, node))
        }
        _ => input.arbitrary::<u32>()?,
    })
}

/// ```text
/// nodes u8 │ seed u16 LE │ events
/// ```
pub(super) fn raft(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let mut begin = || Ok((*input.choose(&[3, 3, 1, 5])?, u64::from(input.arbitrary::<u16>()?)));
    let Ok::<_, arbitrary::Error>((nodes, seed)) = begin() else { return };
    raft_events::play_and_heal(nodes, seed, &events(&mut input, raft_event));
}

fn raft_event(input: &mut Unstructured<'_>) -> Result<raft_events::Event> {
    use raft_events::Event;
    const WEIGHTS: &[u8] = &[20, 3, 3, 3, 3, 3, 6, 3, 1, 1, 3, 4, 3, 3, 3, 1, 6, 3, 1, 1];
    let message = |input: &mut Unstructured<'_>| input.int_in_range(0..=63_usize);
    let node = |input: &mut Unstructured<'_>| input.int_in_range(0..=5_u64);
    Ok(match weighted(input, WEIGHTS)? {
        0 => Event::Deliver(message(input)?),
        1 => Event::Copy(message(input)?),
        2 => Event::DeliverCopy(message(input)?),
        3 => Event::Lose(message(input)?),
        4 => Event::Pass(input.int_in_range(1..=99)?),
        5 => Event::Expire(node(input)?),
        6 => Event::Persist(node(input)?, input.int_in_range(1..=3)?),
        7 => Event::Apply(node(input)?, input.int_in_range(1..=5)?),
        8 => Event::Crash(node(input)?, input.int_in_range(0..=2)?),
        9 => Event::Damage(input.int_in_range(1..=5)?),
        10 => Event::Start(node(input)?),
        11 => Event::Propose(node(input)?, input.int_in_range(1..=4)?),
        12 => Event::Read(node(input)?),
        13 => Event::Snapshot(node(input)?),
        14 => Event::Transfer(node(input)?, input.ratio(1, 5)?),
        15 => Event::PeerLost(node(input)?, node(input)?),
        16 => Event::Flow(input.int_in_range(1..=39)?),
        17 => Event::Run(input.int_in_range(10..=899)?, cuts(input)?),
        18 => Event::Exchange,
        _ => Event::LoseVote,
    })
}

/// ```text
/// shape u8 │ seed u16 LE │ events
/// ```
pub(super) fn dynamo_writes(input: &[u8]) {
    const SHAPES: &[(u64, usize)] = &[(3, 3), (3, 2), (4, 2), (5, 3), (4, 3), (1, 1)];
    let mut input = Unstructured::new(input);
    let mut begin = || Ok((*input.choose(SHAPES)?, u64::from(input.arbitrary::<u16>()?)));
    let Ok::<_, arbitrary::Error>(((nodes, factor), seed)) = begin() else { return };
    writes::play_and_heal(nodes, factor, seed, &events(&mut input, write_event));
}

fn write_event(input: &mut Unstructured<'_>) -> Result<writes::Event> {
    use writes::Event;
    const WEIGHTS: &[u8] = &[20, 3, 3, 4, 3, 6, 2, 3, 1, 1, 2, 8, 1, 6, 4];
    let message = |input: &mut Unstructured<'_>| input.int_in_range(0..=63_usize);
    let node = |input: &mut Unstructured<'_>| input.int_in_range(0..=4_u64);
    Ok(match weighted(input, WEIGHTS)? {
        0 => Event::Deliver(message(input)?),
        1 => Event::Copy(message(input)?),
        2 => Event::DeliverCopy(message(input)?),
        3 => Event::Lose(message(input)?),
        4 => Event::Pass(input.int_in_range(1..=99)?),
        5 => Event::Persist(node(input)?, input.int_in_range(1..=3)?),
        6 => Event::Crash(node(input)?, input.int_in_range(0..=2)?),
        7 => Event::Start(node(input)?),
        8 => Event::Skew(node(input)?, input.int_in_range(-3000..=2999)?),
        9 => Event::Fill(node(input)?),
        10 => Event::Free(node(input)?),
        11 => Event::Write(node(input)?, level(input)?, write(input)?),
        12 => Event::PeerLost(node(input)?, node(input)?),
        13 => Event::Flow(input.int_in_range(1..=39)?),
        _ => Event::Run(input.int_in_range(10..=599)?, cuts(input)?),
    })
}

fn level(input: &mut Unstructured<'_>) -> Result<Level> {
    Ok(*input.choose(&[Level::One, Level::Two, Level::Quorum, Level::Quorum, Level::All])?)
}

fn write(input: &mut Unstructured<'_>) -> Result<writes::Write> {
    use writes::Kind;
    let kind = *input.choose(&[Kind::Put, Kind::Put, Kind::Delete, Kind::DeleteRow])?;
    let count = *input.choose(&[1, 1, 2, 4])?;
    let keys = (0..count).map(|_| input.int_in_range(0..=11)).collect::<Result<_>>()?;
    let session = input.int_in_range(0..=2)?;
    Ok(writes::Write { session, kind, keys, column: input.int_in_range(0..=1)? })
}

/// ```text
/// seed u8: 0 to 7, or with lost disks │ events
/// ```
pub(super) fn dynamo_reads(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let Ok(kind) = input.int_in_range(0..=9_u64) else { return };
    // Only with this seed a lost disk is no lost promise: there are hints, and no more than one
    // disk is lost until all nodes are whole again.
    let (seed, event): (u64, fn(&mut Unstructured<'_>) -> Result<reads::Event>) =
        if kind < 8 { (kind, read_event) } else { (2, read_event_or_wipe) };
    reads::play_and_heal(seed, &events(&mut input, event));
}

fn read_event_or_wipe(input: &mut Unstructured<'_>) -> Result<reads::Event> {
    if weighted(input, &[8, 1])? == 1 { Ok(reads::Event::Wipe) } else { read_event(input) }
}

fn read_event(input: &mut Unstructured<'_>) -> Result<reads::Event> {
    use reads::Event;
    const WEIGHTS: &[u8] = &[6, 4, 6, 2, 20, 4, 2, 3, 3, 6, 1, 2, 2, 6];
    let message = |input: &mut Unstructured<'_>| input.int_in_range(0..=63_usize);
    let node = |input: &mut Unstructured<'_>| input.int_in_range(1..=3_u64);
    let key = |input: &mut Unstructured<'_>| input.int_in_range(0..=5_usize);
    Ok(match weighted(input, WEIGHTS)? {
        0 => Event::Put(node(input)?, key(input)?, input.arbitrary()?),
        1 => Event::Delete(node(input)?, key(input)?, input.arbitrary()?),
        2 => Event::Read(node(input)?, key(input)?),
        3 => Event::Scan(node(input)?),
        4 => Event::Deliver(message(input)?),
        5 => Event::Lose(message(input)?),
        6 => Event::Repeat(message(input)?),
        7 => Event::Copy(message(input)?),
        8 => Event::DeliverCopy(message(input)?),
        9 => Event::Persist(node(input)?),
        10 => Event::Crash(node(input)?),
        11 => Event::Start(node(input)?),
        12 => Event::Purge,
        _ => Event::Run(input.int_in_range(10..=2_999)?, input.int_in_range(0..=3)?),
    })
}
