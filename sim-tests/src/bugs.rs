//! Planted bugs: proof that the simulation finds what it is for.
//!
//! Each bug is one that a real system shipped. It stands in the node as one line behind
//! `planted!("…")`, at the place where the right code stands, and is switched on for a run by its
//! code. A hunt runs ordinary swarm seeds until one fails, and says how many that took and who
//! spoke first: a checker that a client could be, or an assertion inside the node.

use std::fmt::Write as _;

use serde_json::json;

use crate::options::{Options, Profile};
use crate::swarm::{self, Swarm};

/// What a violation begins with if an assertion of the program spoke.
const ASSERTION: &str = "assertion";

/// A planted bug.
#[derive(Debug, Clone, Copy)]
pub struct Bug {
    /// Its code in `planted!`.
    pub code: &'static str,
    /// What it does, in words.
    pub what: &'static str,
}

/// Every planted bug of the primary-backup mode.
pub const BUGS: &[Bug] = &[
    Bug { code: "W1", what: "acknowledges before the fsync" },
    Bug { code: "W2", what: "ignores an fsync error and goes on" },
    Bug { code: "W4", what: "no directory fsync after a new segment" },
    Bug { code: "W5", what: "renames a manifest whose bytes are not synced" },
    Bug {
        code: "W6",
        what: "removes segments and tables before the manifest that replaces them is durable",
    },
    Bug { code: "W7", what: "truncates at the first bad checksum" },
    Bug { code: "W10", what: "writes term and vote after the answer has left" },
    Bug { code: "W14", what: "group commit wakes waiters of the next batch" },
    Bug { code: "W16", what: "saves the applied index apart from its data" },
    Bug { code: "W17", what: "cuts the log before the memtable's table is durable" },
    Bug { code: "R2", what: "forgets its vote over a restart" },
    Bug { code: "R3", what: "follower acknowledges before its fsync" },
    Bug { code: "R4", what: "leader counts its own entry before it is durable" },
    Bug { code: "R7", what: "commits an entry of an older term by counting" },
    Bug { code: "R8", what: "quorum off by one" },
    Bug { code: "R9", what: "n-th match taken from an unsorted array" },
    Bug { code: "R20", what: "truncates even when entries match" },
    Bug { code: "R22", what: "follower's commit index not limited to what is verified" },
    Bug { code: "R26", what: "installs a snapshot older than the commit index" },
    Bug { code: "R29", what: "cuts the log before the snapshot is durable" },
    Bug { code: "R32", what: "serves reads because it thinks that it leads" },
    Bug { code: "R33", what: "read index before the first commit of the term" },
    Bug { code: "R35", what: "serves a read before its index is applied" },
    Bug { code: "R44", what: "completes clients' answers by index, not by term" },
    Bug { code: "R45", what: "session table missing from the snapshot" },
    Bug { code: "R46", what: "reports an unknown outcome as a definite failure" },
    Bug { code: "R46b", what: "the client calls a write in doubt a definite failure" },
    Bug { code: "R49", what: "followers never truncate a conflicting suffix" },
    Bug { code: "R50", what: "election timer never randomised" },
];

/// What hunting one bug came to.
#[derive(Debug, Clone)]
pub struct Hunt {
    /// The bug.
    pub bug: Bug,
    /// Seeds until it was found, the failing one included, and what was said.
    pub found: Option<(u64, String)>,
    /// The failing seed.
    pub seed: Option<u64>,
    /// Processor seconds.
    pub cpu_seconds: f64,
}

/// Returns the static code of a bug that a user has named.
pub fn find(code: &str) -> Option<&'static str> {
    BUGS.iter().map(|bug| bug.code).find(|known| known.eq_ignore_ascii_case(code))
}

/// Hunts one bug: seeds are handed out in order and all that were handed out are finished, so the
/// lowest failing seed is the same for any number of `jobs`.
pub fn hunt(bug: Bug, first_seed: u64, seeds_max: u64, jobs: usize) -> Hunt {
    let (end, profile) = (first_seed + seeds_max, Profile::Standard);
    let swarm = Swarm { first: first_seed, end, jobs, progress: false, profile };
    let draw = |seed| Options { planted: Some(bug.code), ..profile.draw(seed) };
    let summary = swarm::run_all(&swarm, draw, true);
    let first = summary.failed().iter().min_by_key(|(seed, _)| *seed);
    Hunt {
        bug,
        found: first.map(|(seed, what)| (seed - first_seed + 1, what.clone())),
        seed: first.map(|(seed, _)| *seed),
        cpu_seconds: summary.cpu_seconds(),
    }
}

/// Hunts all bugs, or those named in `only`.
///
/// `progress` is told of each as soon as it is over.
pub fn hunt_all(
    only: &[String],
    first_seed: u64,
    seeds_max: u64,
    jobs: usize,
    progress: impl Fn(&Hunt),
) -> Vec<Hunt> {
    let wanted =
        |bug: &&Bug| only.is_empty() || only.iter().any(|code| code.eq_ignore_ascii_case(bug.code));
    let mut hunts = Vec::new();
    for bug in BUGS.iter().filter(wanted) {
        let hunt = hunt(*bug, first_seed, seeds_max, jobs);
        progress(&hunt);
        hunts.push(hunt);
    }
    hunts
}

impl Hunt {
    /// Returns one line for people.
    pub fn to_line(&self) -> String {
        match &self.found {
            Some((seeds, what)) => {
                format!("{:<5} {seeds:>5} seeds  {}", self.bug.code, checker_of(what))
            }
            None => format!("{:<5} missed", self.bug.code),
        }
    }
}

/// Returns the matrix for people.
pub fn to_table(hunts: &[Hunt]) -> String {
    let mut table = comfy_table::Table::new();
    table.set_header(["bug", "what it does", "seeds", "CPU s", "who spoke first", "replay"]);
    for hunt in hunts {
        let (seeds, who) = match &hunt.found {
            Some((seeds, what)) => (seeds.to_string(), checker_of(what)),
            None => ("missed".to_owned(), String::new()),
        };
        let replay = hunt.seed.map_or(String::new(), |seed| {
            format!("{} --planted {}", Profile::Standard.replay_command(seed), hunt.bug.code)
        });
        let cpu = format!("{:.1}", hunt.cpu_seconds);
        table.add_row([
            hunt.bug.code.to_owned(),
            hunt.bug.what.to_owned(),
            seeds,
            cpu,
            who,
            replay,
        ]);
    }
    let found = hunts.iter().filter(|hunt| hunt.found.is_some()).count();
    let mut text = table.to_string();
    let by_assertion =
        |hunt: &&Hunt| hunt.found.as_ref().is_some_and(|(_, what)| what.starts_with(ASSERTION));
    let asserted = hunts.iter().filter(by_assertion).count();
    write!(
        text,
        "\n{found} of {} planted bugs found: {} by a checker, {asserted} by an assertion",
        hunts.len(),
        found - asserted,
    )
    .ok();
    text
}

/// Returns the matrix for programs.
pub fn to_json(hunts: &[Hunt]) -> String {
    let rows: Vec<_> = hunts
        .iter()
        .map(|hunt| {
            json!({
                "bug": hunt.bug.code, "what": hunt.bug.what, "seed": hunt.seed,
                "seeds": hunt.found.as_ref().map(|(seeds, _)| seeds),
                "first_spoke": hunt.found.as_ref().map(|(_, what)| checker_of(what)),
                "violation": hunt.found.as_ref().map(|(_, what)| what),
                "cpu_seconds": hunt.cpu_seconds,
            })
        })
        .collect();
    json!(rows).to_string()
}

/// Returns who spoke first: a checker by its name, or an assertion of the program by its place.
fn checker_of(what: &str) -> String {
    if what.starts_with(ASSERTION) {
        let place = what.rsplit_once('(').and_then(|(_, place)| place.strip_suffix(')'));
        return place.map_or(ASSERTION.to_owned(), |place| format!("{ASSERTION} {place}"));
    }
    what.split(" at ").next().unwrap_or(what).to_owned()
}
