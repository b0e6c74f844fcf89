//! What the page shows, as data: times in microseconds, lanes and texts by number.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use crate::branch::{Decisive, Odds};
use crate::case::Case;
use crate::history::{OpId, Outcome};
use crate::run::Report;
use crate::shrink::{of_action, turns};
use crate::watch::ROLES;
use crate::world::{Happening, LogEntry};

/// When, the length of a file, how many bytes of writes are not durable, and whether its name is;
/// -1: it is gone.
type FilePoint = (u64, i64, u64, bool);

/// Longest text of one message.
const TEXT_CHARS: usize = 200;

/// Most files of one node, those with the most changes.
const FILES_MAX: usize = 8;

/// Decisions up to which the operations are part of the story.
const SHORT_STORY: usize = 80;

/// A message from lane to lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arrow {
    pub(super) from: usize,
    pub(super) to: usize,
    /// When it was sent, in nanoseconds.
    pub(super) at: u64,
    /// When it was taken in, if it was.
    pub(super) till: Option<u64>,
    pub(super) text: String,
}

/// A time during which something was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Band {
    /// On which lane; on all of them, if on none.
    pub(super) lane: Option<usize>,
    pub(super) at: u64,
    pub(super) till: u64,
    pub(super) kind: &'static str,
    pub(super) text: String,
}

/// What was done by a client.
#[derive(Debug, Clone)]
pub(super) struct Bar {
    pub(super) lane: usize,
    pub(super) at: u64,
    pub(super) till: u64,
    pub(super) outcome: &'static str,
    pub(super) id: String,
    pub(super) text: String,
    pub(super) is_bad: bool,
}

/// Events with which something begins to be wrong: kind, and what is wrong.
const BEGINNINGS: [(&str, &str); 6] = [
    ("crash", "crash"),
    ("exit", "crash"),
    ("power_off", "power"),
    ("pause", "pause"),
    ("net.block", "block"),
    ("net.clog", "clog"),
];

/// Events with which that ends.
const ENDINGS: [(&str, &str); 5] = [
    ("start", "crash"),
    ("start", "power"),
    ("resume", "pause"),
    ("net.unblock", "block"),
    ("net.unclog", "clog"),
];

/// Makes a band on a lane of what is wrong there, with regard to another machine if there is one.
fn band(what: (usize, &'static str, &str), at: u64, till: u64) -> Band {
    let (lane, what, other) = what;
    let (kind, text) = match what {
        "crash" => ("crash", "down".to_owned()),
        "power" => ("power", "no power".to_owned()),
        "pause" => ("pause", "frozen".to_owned()),
        "stall" => ("disk", "the disk stalls".to_owned()),
        "block" => ("cut", format!("cut → {other}")),
        _ => ("cut", format!("held → {other}")),
    };
    Band { lane: Some(lane), at, till, kind, text }
}

/// The log, put in order for drawing.
pub(super) struct Drawing<'a> {
    report: &'a Report,
    pub(super) lanes: Vec<String>,
    /// How many lanes are nodes.
    pub(super) node_count: usize,
    pub(super) end: u64,
}

impl<'a> Drawing<'a> {
    pub(super) fn new(case: &Case, report: &'a Report) -> Self {
        let nodes = (1..=case.options.node_count).map(|node| format!("n{node}"));
        let mut lanes: Vec<String> = nodes.collect();
        let node_count = lanes.len();
        let mut clients: Vec<u32> = report.names.values().map(|name| name.client).collect();
        clients.sort_unstable();
        clients.dedup();
        lanes.extend(clients.into_iter().map(lane_of_client));
        let last = report.log.last().map_or(0, |entry| entry.at);
        let simulated = u64::try_from(report.simulated.as_nanos()).unwrap_or(u64::MAX);
        Self { report, lanes, node_count, end: last.max(simulated) }
    }

    pub(super) fn lane(&self, name: &str) -> Option<usize> {
        self.lanes.iter().position(|lane| lane == name)
    }

    fn lane_of(&self, entry: &LogEntry) -> Option<usize> {
        self.lane(entry.host.as_deref()?)
    }

    /// Returns when the promise was broken, if one was.
    pub(super) fn bad(&self) -> Option<u64> {
        self.report.violation.as_ref().map(|violation| violation.at.min(self.end))
    }

    /// Pairs messages that were sent with those that were taken in.
    pub(super) fn arrows(&self) -> Vec<Arrow> {
        let mut arrows: Vec<Arrow> = Vec::new();
        let mut under_way: BTreeMap<(usize, usize), VecDeque<usize>> = BTreeMap::new();
        for entry in &self.report.log {
            let Some(lane) = self.lane_of(entry) else { continue };
            match &entry.what {
                Happening::Sent { to, message } => {
                    let Some(to) = self.lane(&format!("n{to}")) else { continue };
                    under_way.entry((lane, to)).or_default().push_back(arrows.len());
                    let (at, text) = (entry.at, message.clone());
                    arrows.push(Arrow { from: lane, to, at, till: None, text });
                }
                Happening::Event { kind: "recv", text, .. } => {
                    let Some((from, message)) =
                        text.strip_prefix("from ").and_then(|rest| rest.split_once(' '))
                    else {
                        continue;
                    };
                    let Some(from) = self.lane(from) else { continue };
                    let waiting = under_way.entry((from, lane)).or_default();
                    let same =
                        |at: &usize| arrows.get(*at).is_some_and(|sent| sent.text == message);
                    if let Some(position) = waiting.iter().position(same) {
                        // A connection keeps the order: what was sent before is lost.
                        let taken = waiting.drain(..=position).next_back();
                        if let Some(arrow) = taken.and_then(|at| arrows.get_mut(at)) {
                            arrow.till = Some(entry.at);
                        }
                    }
                }
                Happening::Event { .. }
                | Happening::Status(_)
                | Happening::File { .. }
                | Happening::Directory { .. }
                | Happening::Probe(_)
                | Happening::Gone { .. } => {}
            }
        }
        arrows
    }

    /// Returns the times at which something was wrong.
    pub(super) fn bands(&self) -> Vec<Band> {
        let mut bands = self.bands_of_events();
        for (done_at, fault, deed) in self.report.faults_done() {
            let Some((node, _)) = fault.action.quiet_length() else { continue };
            let lane = node.and_then(|node| self.lane(&format!("n{node}")));
            let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            let at = nanos(done_at);
            let till = deed.ended_at.map_or(self.end, nanos);
            let kind = if lane.is_some() { "disk" } else { "cut" };
            let text = format!("{}: {}", fault.id, of_action(&fault.action));
            bands.push(Band { lane, at, till: till.min(self.end), kind, text });
        }
        merged(bands)
    }

    fn bands_of_events(&self) -> Vec<Band> {
        let mut open: BTreeMap<(usize, &'static str, String), u64> = BTreeMap::new();
        let mut bands = Vec::new();
        for entry in &self.report.log {
            let Happening::Event { kind, numbers, text } = &entry.what else { continue };
            let Some(lane) = self.lane_of(entry) else { continue };
            if *kind == "disk.stall" {
                let till = numbers.0.min(self.end);
                bands.push(band((lane, "stall", ""), entry.at, till));
            }
            let other = text.strip_prefix("to ").unwrap_or_default();
            if let Some((_, what)) = BEGINNINGS.iter().find(|(begins, _)| begins == kind) {
                open.entry((lane, what, other.to_owned())).or_insert(entry.at);
            }
            for (_, what) in ENDINGS.iter().filter(|(ends, _)| ends == kind) {
                let other = if matches!(*what, "block" | "clog") { other } else { "" };
                let key = (lane, *what, other.to_owned());
                if let Some(at) = open.remove(&key) {
                    bands.push(band((lane, what, other), at, entry.at));
                }
            }
        }
        let rest = open.into_iter();
        bands
            .extend(rest.map(|((lane, what, other), at)| band((lane, what, &other), at, self.end)));
        bands
    }

    /// Returns what clients did.
    pub(super) fn bars(&self) -> Vec<Bar> {
        let history = &self.report.history;
        let said = self.report.violation.as_ref().map_or("", |found| found.what.as_str());
        let event = |position: u32| {
            let at = usize::try_from(position).ok();
            at.and_then(|at| history.events().get(at)).map_or(self.end, |event| event.time_ns)
        };
        let bar = |(op, name): (&OpId, _)| -> Option<Bar> {
            let name: &crate::operation::OperationId = name;
            let operation = history.op(*op);
            let described = history.describe(*op);
            let short = described.split(" (events").next().unwrap_or(&described);
            let short = short.splitn(3, ' ').nth(2).unwrap_or(short).to_owned();
            Some(Bar {
                lane: self.lane(&lane_of_client(name.client))?,
                at: event(operation.invoked),
                till: operation.ended.map_or(self.end, event),
                outcome: match operation.outcome {
                    Outcome::Ok(_) => "ok",
                    Outcome::Fail => "fail",
                    Outcome::Open | Outcome::Info => "unknown",
                },
                id: name.to_string(),
                text: short,
                is_bad: said.contains(&described),
            })
        };
        self.report.names.iter().filter_map(bar).collect()
    }

    fn status(&self, lane: usize) -> (Vec<&'static str>, Vec<Json>) {
        let mut fields = Vec::new();
        let mut points = Vec::new();
        for entry in self.report.log.iter().filter(|entry| self.lane_of(entry) == Some(lane)) {
            match &entry.what {
                Happening::Status(numbers) => {
                    fields = numbers.iter().map(|(name, _)| *name).collect();
                    let values: Vec<u64> = numbers.iter().map(|(_, value)| *value).collect();
                    points.push(json!([micros(entry.at), values]));
                }
                Happening::Event { kind: "crash" | "power_off" | "exit", .. } => {
                    let nothing = vec![Json::Null; fields.len()];
                    points.push(json!([micros(entry.at), nothing]));
                }
                Happening::Event { .. }
                | Happening::Sent { .. }
                | Happening::File { .. }
                | Happening::Directory { .. }
                | Happening::Probe(_)
                | Happening::Gone { .. } => {}
            }
        }
        (fields, points)
    }

    fn files(&self, lane: usize) -> Vec<Json> {
        let mut files: BTreeMap<&str, Vec<FilePoint>> = BTreeMap::new();
        for entry in self.report.log.iter().filter(|entry| self.lane_of(entry) == Some(lane)) {
            match &entry.what {
                Happening::File { path, cached, pending, is_name_durable } => {
                    let cached = i64::try_from(*cached).unwrap_or(i64::MAX);
                    let point = (micros(entry.at), cached, *pending, *is_name_durable);
                    files.entry(path).or_default().push(point);
                }
                Happening::Gone { path } => {
                    files.entry(path).or_default().push((micros(entry.at), -1, 0, true));
                }
                Happening::Event { .. }
                | Happening::Sent { .. }
                | Happening::Directory { .. }
                | Happening::Probe(_)
                | Happening::Status(_) => {}
            }
        }
        let mut busiest: Vec<(&str, Vec<FilePoint>)> = files.into_iter().collect();
        busiest.sort_by_key(|(_, points)| std::cmp::Reverse(points.len()));
        busiest.truncate(FILES_MAX);
        busiest.sort_by_key(|(path, _)| *path);
        let file = |(path, points): (&str, Vec<FilePoint>)| {
            let most = points.iter().map(|(_, _, pending, _)| *pending).max();
            json!({ "path": path, "points": points, "most": most })
        };
        busiest.into_iter().map(file).collect()
    }

    fn lanes_json(&self) -> Vec<Json> {
        let lane = |(at, name): (usize, &String)| {
            if at >= self.node_count {
                return json!({ "name": name, "kind": "client", "files": [], "status": [] });
            }
            let (fields, status) = self.status(at);
            json!({
                "name": name, "kind": "node", "fields": fields, "status": status,
                "files": self.files(at),
            })
        };
        self.lanes.iter().enumerate().map(lane).collect()
    }

    fn events_json(&self) -> Vec<Json> {
        let shown = |kind: &str| {
            matches!(
                kind,
                "start"
                    | "crash"
                    | "power_off"
                    | "ended"
                    | "pause"
                    | "resume"
                    | "role"
                    | "recovered"
                    | "installed"
                    | "clock.jump"
                    | "clock.drift"
                    | "disk.rot"
                    | "disk.refuses"
                    | "disk.lies"
                    | "disk.loses"
                    | "disk.restore"
                    | "disk.wipe"
                    | "disk.sector"
            )
        };
        let event = |entry: &LogEntry| {
            let Happening::Event { kind, text, .. } = &entry.what else { return None };
            let lane = self.lane_of(entry).filter(|_| shown(kind))?;
            Some(json!([lane, micros(entry.at), kind, cut(text)]))
        };
        self.report.log.iter().filter_map(event).collect()
    }
}

/// Returns everything that the page shows.
pub(super) fn of(case: &Case, report: &Report) -> Json {
    let drawing = Drawing::new(case, report);
    let mut texts: Vec<String> = Vec::new();
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    let arrows: Vec<Json> = drawing
        .arrows()
        .into_iter()
        .map(|arrow| {
            let text = cut(&arrow.text);
            let number = *known.entry(text.clone()).or_insert_with(|| {
                texts.push(text);
                texts.len() - 1
            });
            let till = arrow.till.map_or(json!(-1), |till| json!(micros(till)));
            json!([arrow.from, arrow.to, micros(arrow.at), till, number])
        })
        .collect();
    let lane = |lane: Option<usize>| lane.map_or(json!(-1), |lane| json!(lane));
    let bands = drawing.bands().into_iter().map(|band| {
        json!([lane(band.lane), micros(band.at), micros(band.till), band.kind, band.text])
    });
    let bars = drawing.bars().into_iter().map(|bar| {
        let (at, till) = (micros(bar.at), micros(bar.till));
        json!([bar.lane, at, till, bar.outcome, bar.id, cut(&bar.text), bar.is_bad])
    });
    let violation = report.violation.as_ref();
    let story = turns(case, report, case.decision_count() <= SHORT_STORY).into_iter().map(|turn| {
        let at = u64::try_from(turn.at.as_micros()).unwrap_or(u64::MAX);
        json!([at, turn.what, if turn.is_decision { "" } else { "turn" }])
    });
    json!({
        "title": format!("Mangrove, seed {}", case.options.seed),
        "about": case.options.to_string(),
        "end": micros(drawing.end),
        "bad": drawing.bad().map(micros),
        "checker": violation.map(|found| found.checker),
        "what": violation.map(|found| found.what.as_str()),
        "roles": ROLES,
        "lanes": drawing.lanes_json(),
        "texts": texts,
        "messages": arrows,
        "bands": bands.collect::<Vec<_>>(),
        "operations": bars.collect::<Vec<_>>(),
        "events": drawing.events_json(),
        "story": story.collect::<Vec<_>>(),
        "facts": facts(case, report),
    })
}

/// Returns how likely the failure was, moment by moment, and the stretch that decided it.
pub(super) fn of_odds(odds: &Odds) -> Map<String, Json> {
    let at = |at: Duration| u64::try_from(at.as_micros()).unwrap_or(u64::MAX);
    let points = odds.points.iter().map(|point| json!([at(point.at), point.percent()]));
    let Decisive { from, till, .. } = &odds.decisive;
    let decisive = json!([at(from.at), at(till.at), from.percent(), till.percent()]);
    let points = Json::Array(points.collect());
    Map::from_iter([("odds".to_owned(), points), ("decisive".to_owned(), decisive)])
}

fn facts(case: &Case, report: &Report) -> Vec<(&'static str, String)> {
    let options = &case.options;
    let mut facts = vec![
        ("mode", options.mode().name().to_owned()),
        ("nodes", options.node_count.to_string()),
        ("clients", options.client_count.to_string()),
        ("seed", options.seed.to_string()),
        ("events", report.event_count.to_string()),
        ("simulated", format!("{:.3} s", report.simulated.as_secs_f64())),
        ("answered", report.acknowledged.to_string()),
        ("elections", report.elections.to_string()),
        ("hash", format!("{:016x}", report.hash)),
    ];
    if let Some(code) = options.planted {
        facts.push(("planted bug", code.to_owned()));
    }
    facts
}

fn lane_of_client(client: u32) -> String {
    match client {
        901 => "reader".to_owned(),
        902 => "repairer".to_owned(),
        904 => "asker of a quorum".to_owned(),
        client => format!("c{client}"),
    }
}

/// Puts bands of the same time and lane together.
fn merged(bands: Vec<Band>) -> Vec<Band> {
    let mut merged: Vec<Band> = Vec::new();
    for band in bands {
        let same = |other: &&mut Band| {
            (other.lane, other.at, other.till, other.kind)
                == (band.lane, band.at, band.till, band.kind)
        };
        match merged.iter_mut().find(same) {
            Some(other) => {
                let more = band.text.rsplit_once("→").map_or(band.text.as_str(), |(_, to)| to);
                other.text = format!("{},{more}", other.text);
            }
            None => merged.push(band),
        }
    }
    merged
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(TEXT_CHARS) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn micros(nanos: u64) -> u64 {
    nanos / 1000
}
