//! Who is asked for what by a read: its ranges, by the replicas that hold them.
//!
//! Called by [`super::read`], of each request once, and whenever somebody else is to be asked.

use std::collections::BTreeMap;

use super::context::Context;
use super::message::Range;
use super::placement::partition_of_place;
use super::ready::{Level, Reply};
use crate::base::NodeId;
use crate::probe;

/// Ranges of a request that the same replicas hold.
#[derive(Debug)]
pub(super) struct Planned {
    /// Where in the request they are.
    pub(super) positions: Vec<usize>,
    pub(super) ranges: Vec<Range>,
    /// How many replicas must agree.
    pub(super) needed: usize,
    pub(super) replicas: Vec<NodeId>,
}

/// Groups the ranges of a request by their replicas, if there are enough of those.
pub(super) fn plan(
    context: &Context,
    level: Level,
    ranges: Vec<Range>,
) -> Result<Vec<Planned>, Reply> {
    let mut groups: BTreeMap<Vec<NodeId>, (Vec<usize>, Vec<Range>)> = BTreeMap::new();
    for (position, range) in ranges.into_iter().enumerate() {
        let mut replicas = context.config.placement.replicas(range.partition).to_vec();
        if partition_of_place(range.start.as_bytes()) != Some(range.partition) {
            return Err(Reply::Invalid("a range does not begin in its partition"));
        }
        replicas.sort_unstable();
        let (positions, ranges) = groups.entry(replicas).or_default();
        positions.push(position);
        ranges.push(range);
    }
    let mut planned = Vec::with_capacity(groups.len());
    for (replicas, (positions, ranges)) in groups {
        let Some(needed) = level.needed(replicas.len()) else {
            return Err(Reply::Invalid("the level asks for more replicas than there are"));
        };
        let alive = replicas.iter().filter(|node| can_answer(context, **node)).count();
        if alive < needed {
            probe!("dynamo.read_unavailable");
            return Err(Reply::Unavailable { needed: count(needed), alive: count(alive) });
        }
        planned.push(Planned { positions, ranges, needed, replicas });
    }
    Ok(planned)
}

/// Tells whether as many replicas of each range as the level asks for are believed to be up and
/// whole, or there are not so many.
pub(super) fn is_enough_up(context: &Context, level: Level, ranges: &[Range]) -> bool {
    ranges.iter().all(|range| {
        let replicas = context.config.placement.replicas(range.partition);
        let up = replicas.iter().filter(|node| can_answer(context, **node));
        level.needed(replicas.len()).is_none_or(|needed| up.count() >= needed)
    })
}

/// Tells whether a replica is believed to be up and whole.
pub(super) fn can_answer(context: &Context, node: NodeId) -> bool {
    if node == context.id() {
        return context.is_whole;
    }
    let is_whole = context.detector.heartbeat(node).is_none_or(|heartbeat| heartbeat.is_whole);
    is_whole && context.detector.is_up(node, context.now)
}

/// Returns a count as a client is told.
pub(super) fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
