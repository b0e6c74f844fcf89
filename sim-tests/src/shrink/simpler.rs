//! What is simpler than a fault, and than the times and the nodes of a case.

use std::time::Duration;

use crate::case::{Case, settings};
use crate::nemesis::{Action, Weather};
use crate::options::Tuning;

/// Shortest length that a fault is given in place of a longer one.
const SHORT: Duration = Duration::from_millis(100);

/// Returns simpler actions, the simplest first; none if nothing is simpler.
pub(super) fn actions(action: &Action) -> Vec<Action> {
    let all = match action.clone() {
        Action::Crash { node, while_busy, down } => vec![
            Action::Crash { node, while_busy: false, down: down.min(SHORT) },
            Action::Crash { node, while_busy, down: down.min(SHORT) },
            Action::Crash { node, while_busy: false, down },
        ],
        Action::CrashLoop { node, lives } => {
            let fewer = lives.get(1..).unwrap_or_default().to_vec();
            let crash = Action::Crash { node, while_busy: false, down: SHORT };
            let shorter = Action::CrashLoop { node, lives: fewer };
            if lives.len() > 1 { vec![crash, shorter] } else { vec![crash] }
        }
        Action::Topple { lives, down, unheard, at_commit } => {
            topples(&lives, down, unheard, at_commit)
        }
        Action::PowerLoss { nodes, strict, while_busy, down } => {
            power_losses(&nodes, strict, while_busy, down)
        }
        Action::Pause { node, length } => vec![Action::Pause { node, length: length.min(SHORT) }],
        Action::Partition { links, length } => fewer_links(&links, length)
            .map(|(links, length)| Action::Partition { links, length })
            .collect(),
        Action::Clog { links, length } => fewer_links(&links, length)
            .map(|(links, length)| Action::Clog { links, length })
            .collect(),
        Action::Swizzle { clogs } => (0..clogs.len())
            .filter(|_| clogs.len() > 1)
            .map(|at| {
                let kept = clogs.iter().enumerate().filter(|(other, _)| *other != at);
                Action::Swizzle { clogs: kept.map(|(_, held)| *held).collect() }
            })
            .collect(),
        Action::Weather { weather, length } => milder(&weather)
            .into_iter()
            .map(|weather| Action::Weather { weather, length })
            .chain([Action::Weather { weather, length: length / 2 }])
            .collect(),
        Action::Stall { node, length } => vec![Action::Stall { node, length: length.min(SHORT) }],
        Action::Rot { node, tables, sector, down } => [
            Action::Rot { node, tables, sector: false, down },
            Action::Rot { node, tables, sector, down: down.min(SHORT) },
        ]
        .to_vec(),
        Action::OldDisk { node, age, down } => {
            vec![Action::OldDisk { node, age, down: down.min(SHORT) }]
        }
        Action::NewDisk { node, down } => vec![Action::NewDisk { node, down: down.min(SHORT) }],
        Action::Absence { node, is_cut_off, length } => {
            vec![Action::Absence { node, is_cut_off, length: length / 2 }]
        }
        Action::Reset { .. }
        | Action::ClientCut { .. }
        | Action::Slow { .. }
        | Action::DiskError { .. }
        | Action::DiskFull { .. }
        | Action::Lie { .. }
        | Action::ClockJump { .. }
        | Action::ClockFar { .. }
        | Action::ClockDrift { .. } => Vec::new(),
    };
    all.into_iter().filter(|simpler| simpler != action && length_of(simpler) >= SHORT / 2).collect()
}

/// Returns how long a fault lasts that can be shortened again and again.
fn length_of(action: &Action) -> Duration {
    if let Action::Partition { length, .. }
    | Action::Clog { length, .. }
    | Action::Weather { length, .. }
    | Action::Absence { length, .. } = action
    {
        *length
    } else {
        SHORT
    }
}

fn topples(lives: &[Duration], down: Duration, unheard: u64, at_commit: bool) -> Vec<Action> {
    let fewer = lives.get(1..).filter(|fewer| !fewer.is_empty());
    let heard = unheard.checked_sub(1);
    let plain = at_commit.then_some(false);
    let with = |lives: &[Duration], unheard, at_commit| Action::Topple {
        lives: lives.to_vec(),
        down,
        unheard,
        at_commit,
    };
    let fewer = fewer.map(|fewer| with(fewer, unheard, at_commit));
    let heard = heard.map(|unheard| with(lives, unheard, at_commit));
    let plain = plain.map(|at_commit| with(lives, unheard, at_commit));
    [fewer, heard, plain].into_iter().flatten().collect()
}

fn power_losses(nodes: &[u64], strict: bool, while_busy: bool, down: Duration) -> Vec<Action> {
    let short = down.min(SHORT);
    let whole = nodes.to_vec();
    let of = |nodes: Vec<u64>, strict, while_busy, down| Action::PowerLoss {
        nodes,
        strict,
        while_busy,
        down,
    };
    let mut all = vec![
        of(whole.clone(), true, false, short),
        of(whole.clone(), strict, false, short),
        of(whole.clone(), strict, while_busy, short),
        of(whole, true, while_busy, down),
    ];
    if nodes.len() > 1 {
        all.extend(nodes.iter().map(|node| {
            let fewer = nodes.iter().copied().filter(|other| other != node).collect();
            of(fewer, strict, while_busy, down)
        }));
    }
    all
}

fn fewer_links(
    links: &[(u64, u64)],
    length: Duration,
) -> impl Iterator<Item = (Vec<(u64, u64)>, Duration)> + use<> {
    let count = if links.len() > 1 { links.len() } else { 0 };
    let links = links.to_vec();
    let all = links.clone();
    let without = move |at: usize| {
        let kept = links.iter().enumerate().filter(|(other, _)| *other != at);
        (kept.map(|(_, link)| *link).collect(), length)
    };
    (0..count).map(without).chain([(all, length / 2)])
}

/// Returns weather with one trouble less.
fn milder(weather: &Weather) -> Vec<Weather> {
    let calm = [
        Weather { loss: 0.0, burst: 0.0, ..*weather },
        Weather { bit_flip: 0.0, ..*weather },
        Weather { reset: 0.0, ..*weather },
        Weather { clients: false, ..*weather },
        Weather { latency: Duration::from_millis(1), ..*weather },
        Weather { bytes_per_second: None, ..*weather },
    ];
    calm.into_iter().filter(|milder| milder != weather).collect()
}

/// Smallest size that one is halved to.
const BYTES_MIN: u64 = 512;

/// Returns how the sizes may be that something waits for, if they are not the plain ones: each
/// halved, and with nothing kept behind a flush.
pub(super) fn sizes(case: &Case) -> Vec<Tuning> {
    let now = &case.options.tuning;
    let odd = settings::unlike_plain(&case.options);
    let is_odd = |name: &str| odd.contains_key(name);
    let mut all = Vec::new();
    if now.log_entries_kept > 0 && is_odd("log_entries_kept") {
        all.push(Tuning { log_entries_kept: 0, ..now.clone() });
    }
    let flush_log_bytes = now.flush_log_bytes / 2;
    if flush_log_bytes >= BYTES_MIN && is_odd("flush_log_bytes") {
        all.push(Tuning { flush_log_bytes, ..now.clone() });
    }
    let mut tree = now.tree;
    tree.memtable_bytes /= 2;
    if tree.memtable_bytes >= BYTES_MIN && is_odd("tree.memtable_bytes") {
        all.push(Tuning { tree, ..now.clone() });
    }
    all
}

/// Returns the case with these sizes.
pub(super) fn tuned(case: &Case, tuning: &Tuning) -> Case {
    let mut case = case.clone();
    case.options.tuning = tuning.clone();
    case
}

/// Returns the case with another action in place of one.
pub(super) fn with_action(case: &Case, at: usize, action: Action) -> Case {
    let mut case = case.clone();
    if let Some(fault) = case.faults.as_mut().and_then(|faults| faults.get_mut(at)) {
        fault.action = action;
    }
    case
}

/// Returns how many nodes may do instead, the fewest first.
///
/// A disk that damages data belongs to one node of several: alone, it proves nothing. A clock that
/// is far away is one against a majority.
pub(super) fn node_counts(case: &Case) -> Vec<u64> {
    let damages = |action: &Action| {
        matches!(
            action,
            Action::Rot { .. }
                | Action::Lie { .. }
                | Action::OldDisk { .. }
                | Action::NewDisk { .. }
        )
    };
    let is_damaged = case.faults.iter().flatten().any(|fault| damages(&fault.action));
    let is_far = |action: &Action| matches!(action, Action::ClockFar { .. });
    let has_far = case.faults.iter().flatten().any(|fault| is_far(&fault.action));
    let least = if has_far { 3 } else { 1 + u64::from(is_damaged) };
    let counts: &[u64] =
        if case.options.masterless.is_some() { &[1, 2, 3, 4, 5, 6] } else { &[1, 3] };
    let fewer = |count: &u64| (least..case.options.node_count).contains(count);
    counts.iter().copied().filter(fewer).collect()
}

/// Returns the case with fewer nodes; faults of the others are gone.
pub(super) fn with_nodes(case: &Case, count: u64) -> Case {
    let mut case = case.clone();
    case.options.node_count = count;
    if let Some(masterless) = &mut case.options.masterless {
        let nodes = usize::try_from(count).unwrap_or(usize::MAX);
        masterless.replication_factor = masterless.replication_factor.min(nodes);
    }
    for fault in case.faults.iter_mut().flatten() {
        if let Action::PowerLoss { nodes, .. } = &mut fault.action {
            nodes.retain(|node| *node <= count);
        }
        if let Action::Partition { links, .. } | Action::Clog { links, .. } = &mut fault.action {
            links.retain(|(from, to)| *from <= count && *to <= count);
        }
        if let Action::Swizzle { clogs } = &mut fault.action {
            clogs.retain(|held| held.node <= count);
        }
    }
    let fits = |action: &Action| action.nodes().iter().all(|node| *node <= count);
    case.faults.iter_mut().for_each(|all| all.retain(|fault| fits(&fault.action)));
    case
}

/// Returns the case with every time at a part of what it was.
pub(super) fn squeezed(case: &Case, part: u32, whole: u32) -> Case {
    let mut case = case.clone();
    // Leaders are elected before anything happens.
    let first = Duration::from_secs(1).min(case.options.fault_phase);
    let squeeze = |at: &mut Duration| {
        *at = if *at <= first { *at } else { first + at.saturating_sub(first) * part / whole };
    };
    squeeze(&mut case.options.fault_phase);
    case.faults.iter_mut().flatten().for_each(|fault| squeeze(&mut fault.at));
    case.operations.iter_mut().flatten().for_each(|operation| squeeze(&mut operation.at));
    case
}

/// Returns the case with all times in whole steps of a grid.
pub(super) fn rounded(case: &Case, step: Duration) -> Case {
    let mut case = case.clone();
    let step = step.as_nanos().max(1);
    let mut round = |time: &mut Duration| {
        let steps = (time.as_nanos() + step / 2) / step;
        *time = Duration::from_nanos(u64::try_from(steps.max(1) * step).unwrap_or(u64::MAX));
    };
    round(&mut case.options.fault_phase);
    for fault in case.faults.iter_mut().flatten() {
        round(&mut fault.at);
        fault.action.visit_lengths(&mut round);
    }
    case.operations.iter_mut().flatten().for_each(|operation| round(&mut operation.at));
    case
}

/// Returns the highest number of a client that has something to do.
pub(super) fn last_client(case: &Case) -> u64 {
    let clients = case.operations.iter().flatten().map(|operation| operation.id.client);
    u64::from(clients.max().unwrap_or(0))
}
