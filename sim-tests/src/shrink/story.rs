//! A case in words: what is done, in the order of time, and what became of it.

use std::fmt::Write as _;
use std::time::Duration;

use super::is_turn;
use crate::case::{Case, settings};
use crate::healing::Healing;
use crate::history::{OpId, Outcome};
use crate::nemesis::{Action, Fault, Weather};
use crate::operation::OperationId;
use crate::run::Report;
use crate::world::{Decided, Happening, SyncEnd};

/// One line of a story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// When.
    pub at: Duration,
    /// What was done, or what came of it.
    pub what: String,
    /// Whether it was decided, and did not come by itself.
    pub is_decision: bool,
}

/// Tells a case and the run of it as a short story.
pub fn in_words(case: &Case, report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    writeln!(text, "{}", beginning(case)).ok();
    for turn in turns(case, report, true) {
        let arrow = if turn.is_decision { "" } else { "   → " };
        writeln!(text, "{:>9.3} s  {arrow}{}", turn.at.as_secs_f64(), turn.what).ok();
    }
    match &report.violation {
        Some(violation) => writeln!(text, "Then {}: {}", violation.checker, violation.what).ok(),
        None => writeln!(text, "And no promise is broken.").ok(),
    };
    text
}

/// Returns what was decided and what turned out, in the order of time.
pub fn turns(case: &Case, report: &Report, with_operations: bool) -> Vec<Turn> {
    let decided = |at, what| Turn { at, what, is_decision: true };
    // As they were done, if they were: at whom a fault was aimed is known only then.
    let faults = report.faults_done();
    let mut turns: Vec<Turn> = faults.map(|(at, fault, _)| decided(at, of_fault(&fault))).collect();
    if with_operations {
        let operations = case.operations.iter().flatten();
        turns.extend(operations.map(|operation| {
            let id = operation.id;
            let end = became(report, id);
            let what = format!("client {} {} ({id}){end}", id.client, operation.request);
            decided(asked_at(report, id).unwrap_or(operation.at), what)
        }));
    }
    turns.extend(case.decided.iter().map(|fate| decided(when(fate), of_fate(fate))));
    turns.extend(case.reseed.map(|reseed| {
        let what = format!("what is drawn is drawn anew from here on ({})", reseed.number);
        decided(reseed.at, what)
    }));
    let events = report.log.iter().filter(|entry| is_turn(entry));
    turns.extend(events.filter_map(|entry| {
        let Happening::Event { text, .. } = &entry.what else { return None };
        let host = entry.host.clone().unwrap_or_default();
        let at = Duration::from_nanos(entry.at);
        Some(Turn { at, what: format!("{host}: {text}"), is_decision: false })
    }));
    turns.sort_by_key(|turn| turn.at);
    turns
}

/// Returns when a client asked for something first, if it did: its own clock, by which it waits for
/// that time, may run faster or slower than the world's, by which all else is told.
fn asked_at(report: &Report, id: OperationId) -> Option<Duration> {
    let (op, _) = report.names.iter().find(|(_, name)| **name == id)?;
    let invoked = usize::try_from(report.history.op(*op).invoked).ok()?;
    let event = report.history.events().get(invoked)?;
    Some(Duration::from_nanos(event.time_ns))
}

fn beginning(case: &Case) -> String {
    let options = &case.options;
    let mode = options.mode().name();
    let mut text = format!("A {mode} cluster of {}", options.node_count);
    if let Some(code) = options.planted {
        write!(text, " with the planted bug {code}").ok();
    }
    let mut odd = settings::unlike_plain(options);
    for name in ["nodes", "clients", "fault_phase_ms", "healing"] {
        odd.remove(name);
    }
    if !odd.is_empty() {
        let odd: Vec<String> = odd.iter().map(|(name, value)| format!("{name} {value}")).collect();
        write!(text, " ({})", odd.join(", ")).ok();
    }
    let seconds = options.fault_phase.as_secs_f64();
    // What is timed is how a whole cluster comes back.
    let healing = if case.is_timed { Healing::AtOnce } else { options.healing };
    write!(text, ". After {seconds:.3} s {}", healing.what()).ok();
    text.push_str(or(case.is_timed, ", and a client writes from then on.", "."));
    text
}

/// Returns when the span of time begins in which something is decided.
fn when(fate: &Decided) -> Duration {
    match fate {
        Decided::Segment { moment, .. } | Decided::Sync { moment, .. } => moment.begin(),
    }
}

fn of_fate(fate: &Decided) -> String {
    match fate {
        Decided::Segment { from, to, moment, delay } => {
            format!("segment {} from {from} to {to} takes {delay:?}", moment.number)
        }
        Decided::Sync { host, path, moment, end } => {
            let end = match end {
                SyncEnd::Kept => "is kept",
                SyncEnd::Fails => "fails",
                SyncEnd::Lies => "lies",
            };
            format!("fsync {} of {path} on {host} {end}", moment.number)
        }
    }
}

/// Returns what became of an operation of a client.
fn became(report: &Report, id: OperationId) -> String {
    let own = |(_, name): &(&OpId, &OperationId)| **name == id;
    let Some((op, _)) = report.names.iter().rfind(own) else {
        return String::new();
    };
    match &report.history.op(*op).outcome {
        Outcome::Open => ": no answer".to_owned(),
        Outcome::Fail => ": refused".to_owned(),
        Outcome::Info => ": outcome unknown".to_owned(),
        Outcome::Ok(_) => {
            let described = report.history.describe(*op);
            let answer = described.split_once(" → ").map_or("ok", |(_, answer)| answer);
            let answer = answer.split(" (events").next().unwrap_or(answer);
            format!(": {answer}")
        }
    }
}

fn of_fault(fault: &Fault) -> String {
    format!("{} ({})", of_action(&fault.action), fault.id)
}

/// Tells an action in words.
pub fn of_action(action: &Action) -> String {
    match action {
        Action::Crash { node, while_busy, down } => {
            let busy = or(*while_busy, " while its disk is busy", "");
            format!("node {node} crashes{busy}, for {down:?}")
        }
        Action::CrashLoop { node, lives } => {
            format!("node {node} crashes, and again after {lives:?} of each recovery")
        }
        Action::Topple { lives, down, unheard, at_commit } => {
            let unheard = match unheard {
                0 => String::new(),
                some => format!(", the next {some} of them unheard"),
            };
            let rest = or(*at_commit, ", the others with everybody at their first commit", "");
            format!(
                "the next leaders die after {lives:?} (the last first), for {down:?} \
                 each{unheard}{rest}"
            )
        }
        Action::PowerLoss { nodes, strict, while_busy, down } => {
            let left = or(*strict, "nothing unsynced is left", "a part of the unsynced is left");
            let busy = or(*while_busy, " while a disk is busy", "");
            format!("{} power{busy}, {left}, for {down:?} each", named(nodes, "loses", "lose"))
        }
        Action::Pause { node, length } => format!("node {node} is frozen for {length:?}"),
        Action::Absence { node, is_cut_off, length } => {
            let how = or(*is_cut_off, "cut off", "away");
            format!("node {node} is {how} for {length:?}")
        }
        Action::ClockJump { node, by_ms } => {
            format!("the wall clock of node {node} jumps by {by_ms} ms")
        }
        Action::ClockFar { node, by_ms, length } => {
            format!("the wall clock of node {node} is {by_ms} ms off for {length:?}")
        }
        Action::ClockDrift { node, rate_ppb } => {
            format!("the clocks of node {node} run {rate_ppb} ppb too fast")
        }
        Action::Partition { .. }
        | Action::Clog { .. }
        | Action::Swizzle { .. }
        | Action::Weather { .. }
        | Action::Reset { .. }
        | Action::ClientCut { .. } => of_network(action),
        Action::Stall { .. }
        | Action::Slow { .. }
        | Action::DiskError { .. }
        | Action::DiskFull { .. }
        | Action::Rot { .. }
        | Action::Lie { .. }
        | Action::OldDisk { .. }
        | Action::NewDisk { .. } => of_disk(action),
    }
}

fn or(is: bool, yes: &'static str, no: &'static str) -> &'static str {
    if is { yes } else { no }
}

fn of_network(action: &Action) -> String {
    if let Action::Partition { links, length } = action {
        return format!("the network is cut {} for {length:?}", linked(links));
    }
    if let Action::Clog { links, length } = action {
        return format!("the network holds everything {} for {length:?}", linked(links));
    }
    if let Action::Swizzle { clogs } = action {
        let each = clogs.iter().map(|held| {
            format!("node {} from {:?} to {:?} after this", held.node, held.from, held.until)
        });
        let each: Vec<String> = each.collect();
        return format!("the network holds everything at {}", each.join(", "));
    }
    if let Action::Weather { weather, length } = action {
        return format!("the network is bad for {length:?}: {}", of_weather(weather));
    }
    if let Action::Reset { a, b, one_end } = action {
        let told = or(*one_end, ", and only the first learns of it", "");
        return format!("connections between node {a} and node {b} break{told}");
    }
    if let Action::ClientCut { node, answers_only, length } = action {
        let what = or(*answers_only, "answers of", "links of clients to");
        return format!("{what} node {node} are cut for {length:?}");
    }
    format!("{action:?}")
}

fn of_disk(action: &Action) -> String {
    if let Action::Stall { node, length } = action {
        return format!("the disk of node {node} stalls for {length:?}");
    }
    if let Action::Slow { node, factor, length } = action {
        return format!("the disk of node {node} is {factor} times slower for {length:?}");
    }
    if let Action::DiskError { node, write } = action {
        return format!("each {} of node {node} may fail", or(*write, "write", "fsync"));
    }
    if let Action::DiskFull { node, room_bytes, length } = action {
        return format!("the disk of node {node} has {room_bytes} bytes left for {length:?}");
    }
    if let Action::Rot { node, tables, sector, down } = action {
        let place = or(*tables, "tables", "log");
        let what = if *sector {
            format!("a sector of its {place} cannot be read any more")
        } else {
            format!("a bit of its {place} flips")
        };
        return format!("node {node} crashes for {down:?}, and {what}");
    }
    if let Action::Lie { node, length } = action {
        return format!(
            "the disk of node {node} lies about fsyncs for {length:?}, then loses power"
        );
    }
    if let Action::OldDisk { node, age, down } = action {
        return format!("{age:?} from now node {node} gets its disk of now back, after {down:?}");
    }
    if let Action::NewDisk { node, down } = action {
        return format!("node {node} gets a new, empty disk, and is back after {down:?}");
    }
    format!("{action:?}")
}

fn named(nodes: &[u64], one: &str, many: &str) -> String {
    match nodes {
        [node] => format!("node {node} {one}"),
        nodes => format!("nodes {nodes:?} {many}"),
    }
}

fn linked(links: &[(u64, u64)]) -> String {
    let each: Vec<String> = links.iter().map(|(from, to)| format!("{from}→{to}")).collect();
    each.join(" ")
}

fn of_weather(weather: &Weather) -> String {
    let Weather { loss, burst, latency, bit_flip, reset, clients, bytes_per_second } = weather;
    let mut all = vec![format!("latency {latency:?}")];
    let chances =
        [("loss", loss), ("bursts of loss", burst), ("flipped bits", bit_flip), ("resets", reset)];
    for (name, chance) in chances.into_iter().filter(|(_, chance)| **chance > 0.0) {
        all.push(format!("{name} {chance:.3}"));
    }
    if let Some(rate) = bytes_per_second {
        all.push(format!("{rate} bytes a second"));
    }
    if *clients {
        all.push("for clients too".to_owned());
    }
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::{Cell, Operation, Request};
    use crate::options::Plan;
    use crate::run::{Keep, run_case};

    #[test]
    fn operation_is_told_at_the_time_of_the_world() {
        let due = Duration::from_secs(30);
        let request = Request::Set { cell: Cell::new("k", ""), bytes: 8 };
        let id = OperationId { client: 1, number: 1 };
        let mut case = Case::plain(Plan::default(), 1);
        case.options.faults.clock = true;
        case.options.fault_phase = Duration::from_secs(31);
        case.operations = Some(vec![Operation { id, at: due, level: None, request }]);
        let report = run_case(&case, Keep::default());
        assert_eq!(report.violation, None);
        let told: Vec<Duration> = turns(&case, &report, true).iter().map(|turn| turn.at).collect();
        let first = Duration::from_nanos(report.history.events()[0].time_ns);
        assert_eq!(told, [first]);
        let (off, most) = (first.abs_diff(due), due / 100);
        assert!(off > Duration::from_millis(1) && off <= most, "{first:?} is {off:?} off");
    }
}
