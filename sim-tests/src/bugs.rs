//! Planted bugs: proof that the simulation finds what it is for.
//!
//! Each bug is one that a real system shipped, or that we had. It stands in the node as one line
//! behind `planted!("…")`, at the place where the right code stands, and is switched on for a run
//! by its code. A hunt runs seeds of the standard, the storage and the forgetful profile, or of the
//! requests profile for what only that one asks, until one fails, and says how many that took and
//! who spoke first: a checker that a client could be, or an
//! assertion inside the node. An *ablation* hunts again with one class of faults switched off after
//! the other, and with the checker [mute](crate::check::mute) that spoke first, and so says what
//! each is good for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::json;

use crate::case::settings;
use crate::check::Violation;
use crate::options::{Mode, Options, Plan, Profile};
use crate::swarm::{self, Swarm, percentile};

/// Seeds beyond four times those that a bug took, after which an ablation gives up.
const ABLATION_SEEDS: u64 = 50;

/// Seeds that a bug may take to be ablated.
const ABLATED_SEEDS_MAX: u64 = 60;

/// Who spoke, if an assertion of the program did.
const ASSERTION: &str = "assertion";

/// Most words of an assertion's message by which it is told from others of its module.
const WORDS_MAX: usize = 5;

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
    Bug { code: "R51", what: "a candidate may ask for its own last term again" },
    Bug { code: "R52", what: "a new disk takes part at once" },
    Bug { code: "R53", what: "a new disk may vote in the term it finds the others in" },
    Bug { code: "R54", what: "a leader tells no follower what its disk has forgotten" },
    Bug { code: "R55", what: "a node that has lost its last vote asks nobody for it" },
    Bug { code: "R56", what: "a batch judges the first of its conditions alone" },
    Bug { code: "R57", what: "a page of keys that is full says that it is the last" },
    Bug { code: "R58", what: "commits only what every node has" },
    Bug { code: "R59", what: "a read of several turns misses what is written in between" },
    Bug { code: "R61", what: "a scan tells no versions" },
    Bug { code: "R63", what: "a session keeps its answers in the order of their arrival" },
    Bug { code: "R64", what: "a row's deletion spares what its own batch wrote before it" },
    Bug { code: "R65", what: "a slice leaves out the column that it goes up to" },
];

/// Those of which only the requests profile has what they spoil.
const OF_REQUESTS: &[&str] = &["R56", "R57", "R61", "R63", "R64", "R65", "D80"];

/// Every planted bug of the masterless mode.
pub const MASTERLESS_BUGS: &[Bug] = &[
    Bug { code: "D1", what: "a hint counts as a replica's acknowledgement" },
    Bug { code: "D2", what: "one replica's two answers count twice" },
    Bug { code: "D3", what: "\"not found\" beats a value" },
    Bug { code: "D7", what: "keeps hints only in memory" },
    Bug { code: "D8", what: "removes a hint before its delivery is acknowledged" },
    Bug { code: "D9", what: "delivers a hint with a new stamp" },
    Bug { code: "D13", what: "equal stamps are decided by arrival" },
    Bug { code: "D16", what: "a stamp is the wall clock" },
    Bug { code: "D17", what: "a delete is stamped at or below what it saw" },
    Bug { code: "D19", what: "read repair writes the first answer, not the newest" },
    Bug { code: "D20", what: "answers before the repair is acknowledged" },
    Bug { code: "D21", what: "repair and anti-entropy skip tombstones" },
    Bug { code: "D26", what: "drops tombstones by age alone" },
    Bug { code: "D30", what: "a batch stays half applied after its coordinator's crash" },
    Bug { code: "D32", what: "repeats a timed-out write with a new stamp" },
    Bug { code: "D34", what: "acknowledges before the log is synced" },
    Bug { code: "D36", what: "reports a failed quorum write as not applied" },
    Bug { code: "D50", what: "raises a floor over writes that are still to be delivered" },
    Bug { code: "D51", what: "a floor keeps nothing from coming back" },
    Bug { code: "D52", what: "gives stamps however far its clock is ahead of the others'" },
    Bug { code: "D53", what: "takes its own ceiling for a time that others have reached" },
    Bug { code: "D54", what: "leaves a share of a batch, or all of it, on one disk alone" },
    Bug { code: "D55", what: "a session remembers the first change of a cell in a batch" },
    Bug { code: "D56", what: "replays batches below its own floor to itself" },
    Bug { code: "D57", what: "takes over a floor while what it forbids arrives" },
    Bug { code: "D58", what: "believes a floor that was raised on what its last life had" },
    Bug { code: "D59", what: "a holder that takes over a batch replays it without another holder" },
    Bug { code: "D60", what: "tells a session the stamp of an answer that was outvoted" },
    Bug { code: "D61", what: "lets compactions rely on floors that are in the log alone" },
    Bug { code: "D62", what: "a start from an older disk takes the name of one it has forgotten" },
    Bug { code: "D63", what: "gives stamps again that it gave before its disk was lost" },
    Bug { code: "D64", what: "gives nobody what all but an older disk have lost" },
    Bug { code: "D65", what: "a node with a new disk answers as if it had everything" },
    Bug { code: "D66", what: "QUORUM waits for every replica" },
    Bug { code: "D67", what: "a fence at some replicas bars what is replayed of a batch" },
    Bug { code: "D68", what: "a holder that takes over a batch behind all fences stays alone" },
    Bug { code: "D69", what: "a tree keeps tombstones that were ahead of the clock at the start" },
    Bug { code: "D70", what: "gives stamps again that were ahead of all clocks" },
    Bug { code: "D71", what: "counts what a replica said before its disk was lost" },
    Bug { code: "D72", what: "fills a new disk while others count what was on the lost one" },
    Bug { code: "D73", what: "counts what it hears after the time-out" },
    Bug { code: "D74", what: "a batch whose holder lost its disk is not held again" },
    Bug { code: "D75", what: "a start gives stamps before others can tell what its disk forgot" },
    Bug { code: "D80", what: "a row's deletion hides what its own batch writes after it" },
];

/// Bugs that we had, of the kind that ten thousand runs show once; and the test that each keeps
/// failing.
const DIRECTED: &[(&str, &str)] = &[
    (
        "R51",
        "raft::tests::beyond::candidate_that_forgot_its_own_vote_does_not_lead_the_same_term_again",
    ),
    ("R26", "raft::tests::snapshot::snapshot_older_than_the_commit_index_is_not_installed"),
    ("R52", "raft::tests::standing::new_disk_elects_nobody_who_lacks_what_the_lost_one_had"),
    ("R53", "raft::tests::standing::vote_given_before_the_disk_was_lost_is_not_given_again"),
    ("R54", "raft::tests::standing::leader_tells_a_follower_what_its_disk_has_forgotten"),
    ("R55", "raft::tests::standing::vote_whose_record_was_lost_is_not_given_again"),
    ("R58", "sim-tests quorum_alone::cluster_that_needs_all_its_nodes_is_found_by_a_quorum_alone"),
    ("R59", "kv::tests::turns::read_that_misses_what_is_written_between_its_turns_is_caught"),
    ("R63", "kv::session::answers_kept_in_the_order_of_their_arrival_are_caught"),
    ("D53", "dynamo::clock::restart_alone_does_not_lead_twice_as_far"),
    ("D54", "sim-tests regress::batch_on_one_disk"),
    ("D55", "client::token::first_mutation_that_counts_is_caught"),
    ("D56", "dynamo::healing_tests::floors::batch_below_the_own_floor_is_caught"),
    ("D57", "dynamo::healing_tests::floors::floor_that_is_taken_over_too_early_is_caught"),
    ("D58", "dynamo::healing_tests::floors::floor_of_the_last_life_is_caught"),
    ("D59", "dynamo::tests::batches::batch_of_a_lone_holder_is_caught"),
    ("D60", "dynamo::healing_tests::reads::stamp_of_an_outvoted_answer_is_caught"),
    (
        "D61",
        "replica::dynamo::start::compaction_after_a_start_relies_on_the_floors_in_the_tables_alone",
    ),
    ("D62", "dynamo::tests::start::acknowledgement_to_a_forgotten_start_is_caught"),
    ("D63", "dynamo::tests::start::stamp_given_again_is_caught"),
    ("D64", "dynamo::healing_tests::floors::stray_that_nobody_takes_is_caught"),
    ("D65", "sim-tests masterless_scenarios::new_disk_that_answers_at_once_is_noticed"),
    ("D66", "sim-tests quorum_alone::cluster_that_needs_all_its_nodes_is_found_by_a_quorum_alone"),
    ("D67", "dynamo::healing_tests::floors::fence_that_bars_a_replayed_batch_is_caught"),
    ("D68", "dynamo::tests::batches::fence_that_leaves_a_holder_alone_is_caught"),
    ("D69", "dynamo::healing_tests::sync::tree_that_trusts_the_clock_of_a_start_is_caught"),
    ("D70", "dynamo::tests::clocks::stamps_that_go_on_from_what_others_know_are_caught"),
    ("D71", "dynamo::healing_tests::losses::lost_disk_that_is_counted_is_caught"),
    ("D72", "dynamo::healing_tests::losses::new_disk_that_compares_at_once_is_caught"),
    ("D73", "dynamo::healing_tests::losses::count_after_the_time_out_is_caught"),
    ("D74", "dynamo::tests::batches::batch_that_is_not_held_again_is_caught"),
    ("D75", "dynamo::tests::start::start_that_waits_for_nobody_is_caught"),
];

/// What a page says besides of bugs that are found in some ranges only, or in none.
const NOTES: &[(&[&str], &str)] = &[
    (
        &["R26"],
        "R26 is rare: in four ranges of 1,000 (`cargo sim bugs --only R26 --ranges 4`) it took 78, \
         257,\n247 and 561 seeds.",
    ),
    (
        &["R54", "R55"],
        "R54 and R55 (`cargo sim bugs --only R54,R55`) do harm where several things meet. A \
         run lets\nnothing else happen once a disk has lied, before its node has been told what it \
         lacks or is filled;\nwith R54 nobody tells it, so no leader dies too soon. In\n\
         `scenarios::old_disk_that_nobody_tells_of_it_is_noticed` one does, and a checker speaks. \
         With R55\nsomebody must ask for a vote in the very term of the vote that was lost, after \
         the node has come\nback; its test does that.",
    ),
    (
        &["R59"],
        "With R59 an entry must be applied between two turns of one read. Simulated turns take no \
         time,\nso nothing comes between them; its test does that.",
    ),
    (
        OF_REQUESTS,
        "R56, R57, R61, R63, R64, R65 and D80 were hunted in the requests profile alone: no other \
         has what\nthey spoil.",
    ),
];

/// Returns the planted bugs of a mode.
pub fn of(mode: Mode) -> &'static [Bug] {
    match mode {
        Mode::PrimaryBackup => BUGS,
        Mode::Masterless => MASTERLESS_BUGS,
    }
}

/// What hunting one bug came to.
#[derive(Debug, Clone)]
pub struct Hunt {
    /// The bug.
    pub bug: Bug,
    /// In which runs.
    pub plan: Plan,
    /// Seeds until it was found, the failing one included, and what was said.
    pub found: Option<(u64, Violation)>,
    /// The failing seed.
    pub seed: Option<u64>,
    /// Processor seconds.
    pub cpu_seconds: f64,
}

/// Returns the static code of a bug that a user has named.
pub fn find(code: &str) -> Option<&'static str> {
    let all = BUGS.iter().chain(MASTERLESS_BUGS);
    all.map(|bug| bug.code).find(|known| known.eq_ignore_ascii_case(code))
}

/// Hunts one bug in the runs that the seeds draw; the lowest failing seed is the same for any
/// number of `jobs`.
pub fn hunt(bug: Bug, mode: Mode, first_seed: u64, seeds_max: u64, jobs: usize) -> Hunt {
    hunt_where(bug, mode, (first_seed, seeds_max), jobs, |_| {})
}

/// Hunts one bug in runs that are changed: seeds are handed out in order and all that were handed
/// out are finished, so the lowest failing seed is the same for any number of `jobs`.
fn hunt_where(
    bug: Bug,
    mode: Mode,
    (first_seed, seeds_max): (u64, u64),
    jobs: usize,
    change: impl Fn(&mut Options) + Sync,
) -> Hunt {
    let (end, plan) = (first_seed + seeds_max, Plan { mode, ..Plan::default() });
    let swarm = Swarm { first: first_seed, end, jobs, progress: false, plan };
    let plan_of = |seed| plan_of(bug, mode, seed - first_seed);
    let draw = |seed| {
        let mut options = Options { planted: Some(bug.code), ..plan_of(seed).draw(seed) };
        change(&mut options);
        options
    };
    let summary = swarm::run_all(&swarm, draw, true);
    let first = summary.failed().iter().min_by_key(|(seed, _)| *seed);
    Hunt {
        bug,
        plan: first.map_or(plan, |(seed, _)| plan_of(*seed)),
        found: first.map(|(seed, what)| (seed - first_seed + 1, what.clone())),
        seed: first.map(|(seed, _)| *seed),
        cpu_seconds: summary.cpu_seconds(),
    }
}

/// Returns what the n-th run of a hunt is: bugs of the disk show in the storage profile, and those
/// that need a disk which has forgotten something in the forgetful one. The masterless mode had
/// many of these; Raft bears no old disk, and few bugs need a new one. What only the requests
/// profile asks for is hunted there alone.
fn plan_of(bug: Bug, mode: Mode, position: u64) -> Plan {
    let profile = match (mode, position % 8) {
        _ if OF_REQUESTS.contains(&bug.code) => Profile::Requests,
        (_, 3 | 7) => Profile::Storage,
        (Mode::Masterless, 0 | 2 | 4 | 6) | (Mode::PrimaryBackup, 1) => Profile::Forgetful,
        (Mode::PrimaryBackup | Mode::Masterless, _) => Profile::Standard,
    };
    Plan { mode, profile }
}

/// Which bugs are hunted, and how.
#[derive(Debug, Clone)]
pub struct Hunting {
    /// Those of this mode.
    pub mode: Mode,
    /// Only these, if there are any.
    pub only: Vec<String>,
    /// The first seed.
    pub first_seed: u64,
    /// Seeds after which a bug is given up.
    pub seeds_max: u64,
    /// How often each is hunted, each time among other seeds.
    pub ranges: u64,
    /// Runs at the same time.
    pub jobs: usize,
}

/// Hunts bugs; `progress` is told of each hunt as soon as it is over.
pub fn hunt_all(hunting: &Hunting, progress: impl Fn(&Hunt)) -> Vec<Hunt> {
    let Hunting { mode, only, first_seed, seeds_max, ranges, jobs } = hunting;
    let wanted =
        |bug: &&Bug| only.is_empty() || only.iter().any(|code| code.eq_ignore_ascii_case(bug.code));
    let mut hunts = Vec::new();
    for bug in of(*mode).iter().filter(wanted) {
        for range in 0..(*ranges).max(1) {
            let hunt = hunt(*bug, *mode, first_seed + range * seeds_max, *seeds_max, *jobs);
            progress(&hunt);
            hunts.push(hunt);
        }
    }
    hunts
}

/// Which faults and which checker finding a bug depends on.
#[derive(Debug, Clone)]
pub struct Ablation {
    /// The bug.
    pub bug: Bug,
    /// Classes of faults without which it was not found, each with the seeds that were tried.
    pub needs: Vec<(&'static str, u64)>,
    /// Who spoke when the checker that had spoken first was mute, if anybody did; `None` if an
    /// assertion had, which cannot be.
    pub instead: Option<Option<String>>,
}

/// Hunts bugs that were found once more, with one class of faults off after the other, and with the
/// checker mute that spoke first; `progress` is told of each bug. A class that the failing seed did
/// without is not tried, and neither is a bug that took more than sixty seeds, or was missed, in a
/// range.
///
/// A hunt is given up after fifty more than four times the seeds that it took with all classes, so
/// "not found" means at least four times as hard to find.
pub fn ablate_all(hunts: &[Hunt], jobs: usize, progress: impl Fn(&Ablation)) -> Vec<Ablation> {
    let mut ablations = Vec::new();
    for of_bug in by_bug(hunts) {
        if of_bug.iter().any(|hunt| hunt.found.is_none()) {
            continue;
        }
        let mut found = of_bug.iter().filter_map(|hunt| {
            let (seeds, violation) = hunt.found.as_ref()?;
            Some((hunt, *seeds, violation, hunt.seed?))
        });
        let Some((hunt, first, violation, failing)) = found.next() else { continue };
        let slowest = found.map(|(_, seeds, ..)| seeds).max().unwrap_or(0).max(first);
        if slowest > ABLATED_SEEDS_MAX {
            continue;
        }
        let seeds_max = slowest * 4 + ABLATION_SEEDS;
        let range = (failing + 1 - first, seeds_max);
        let mute = Some(violation.checker).filter(|checker| *checker != ASSERTION);
        let instead = mute.map(|_| {
            let quiet = |options: &mut Options| options.mute = mute;
            let again = hunt_where(hunt.bug, hunt.plan.mode, range, jobs, quiet);
            again.found.map(|(_, violation)| speaker(&violation))
        });
        let mut ablation = Ablation { bug: hunt.bug, needs: Vec::new(), instead };
        for (class, is_on) in hunt.plan.draw(failing).faults.named() {
            let off = [(format!("faults.{class}"), json!(false))].into_iter().collect();
            let without = |options: &mut Options| {
                if let Err(what) = settings::put(options, &off) {
                    unreachable!("{what}");
                }
            };
            if !is_on {
                continue;
            }
            let again = hunt_where(hunt.bug, hunt.plan.mode, range, jobs, without);
            if again.found.is_none() {
                ablation.needs.push((class, seeds_max));
            }
        }
        progress(&ablation);
        ablations.push(ablation);
    }
    ablations
}

impl Ablation {
    /// Returns one line for people.
    pub fn to_line(&self) -> String {
        format!("{:<5} needs {}; instead {}", self.bug.code, self.names(), self.second())
    }

    /// Returns who spoke when the first was mute.
    fn second(&self) -> &str {
        match &self.instead {
            Some(Some(who)) => who,
            Some(None) => "nobody",
            None => "–",
        }
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.needs.iter().map(|(class, _)| *class).collect();
        if names.is_empty() { "–".to_owned() } else { names.join(", ") }
    }
}

/// Returns the matrix as a page of the documentation.
pub fn to_markdown(hunting: &Hunting, hunts: &[Hunt], ablations: &[Ablation]) -> String {
    let mut text = page_head(hunting);
    let mut speakers: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let mut missed = BTreeSet::new();
    for of_bug in by_bug(hunts) {
        let Some(Hunt { bug: Bug { code, what }, .. }) = of_bug.first() else { continue };
        let said = of_bug.iter().filter_map(|hunt| hunt.found.as_ref());
        let spoke: BTreeSet<String> = said.map(|(_, violation)| speaker(violation)).collect();
        let ablation = ablations.iter().find(|ablation| ablation.bug.code == *code);
        let needs = ablation.map_or(String::new(), Ablation::names);
        let instead = ablation.map_or("", Ablation::second);
        let who = spoke.iter().cloned().collect::<Vec<_>>().join(", ");
        if spoke.is_empty() {
            missed.insert(*code);
        }
        let seeds = seeds_of_ranges(of_bug);
        // Writing to a string cannot fail.
        writeln!(text, "| {code} | {what} | {seeds} | {who} | {instead} | {needs} |").ok();
        if let [only] = Vec::from_iter(spoke).as_slice() {
            speakers.entry(only.clone()).or_default().insert(*code);
        }
    }
    push_rare(&mut text, &missed);
    let is_hunted = |code: &&str| hunts.iter().any(|hunt| hunt.bug.code == *code);
    for (_, note) in NOTES.iter().filter(|(codes, _)| codes.iter().any(is_hunted)) {
        writeln!(text, "\n{note}").ok();
    }
    text.push_str("\n## Without one class of faults\n\n| off | bugs that survive |\n|---|---|\n");
    let mut survivors: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for ablation in ablations {
        for (class, _) in &ablation.needs {
            survivors.entry(class).or_default().insert(ablation.bug.code);
        }
    }
    let listed = |codes: &BTreeSet<&str>| codes.iter().copied().collect::<Vec<_>>().join(", ");
    for (class, codes) in &survivors {
        writeln!(text, "| {class} | {} |", listed(codes)).ok();
    }
    let alone = ablations.iter().filter(|ablation| ablation.instead == Some(None));
    let alone: BTreeSet<&str> = alone.map(|ablation| ablation.bug.code).collect();
    write!(text, "\n## Nobody spoke instead\n\n{}\n", listed(&alone)).ok();
    text.push_str("\n## Who alone spoke first\n\n| checker | bugs |\n|---|---|\n");
    for (who, codes) in &speakers {
        writeln!(text, "| {who} | {} |", listed(codes)).ok();
    }
    text
}

/// Returns what a page says before its rows: what they mean, and the command that makes them.
fn page_head(hunting: &Hunting) -> String {
    let flags = Plan { mode: hunting.mode, profile: Profile::Standard }.flags();
    let Hunting { ranges, seeds_max, only, .. } = hunting;
    let only = if only.is_empty() { String::new() } else { format!(" --only {}", only.join(",")) };
    let shares = match hunting.mode {
        Mode::PrimaryBackup => "an eighth of the forgetful one, five eighths",
        Mode::Masterless => "half of the forgetful one, a quarter",
    };
    format!(
        "# Planted bugs, and what finds them\n\n\
         Each is one line behind `planted!(\"…\")` in the node, switched on by its code. Each\n\
         was hunted in {ranges} ranges of at most {seeds_max} seeds: a quarter of them of the\n\
         storage profile, {shares} of the standard one.\n\n\
         *Seeds to the first* has a figure for each range: the seeds that were run until the\n\
         bug was found. *Missed* means not found within the seeds of that range; a bug under\n\
         \"Missed\" was found in none. *Spoke first* is a checker, or an assertion of the node\n\
         in that module, with the first words of what it says. *Needs* are classes of faults\n\
         without which it was not found in four times as many seeds and {ABLATION_SEEDS} more;\n\
         *instead* is who spoke in as many seeds while the first checker was mute (an assertion\n\
         cannot be). Both are empty for a bug that was missed in a range or took more than\n\
         {ABLATED_SEEDS_MAX} seeds: too rare to be hunted ten times more. Written by:\n\n    \
         cargo sim bugs{flags}{only} --ranges {ranges} --seeds-max {seeds_max} \
         --ablate --markdown FILE\n\n\
         | bug | what it does | seeds to the first | spoke first | instead | needs |\n\
         |---|---|---|---|---|---|\n"
    )
}

/// Returns the hunts of each bug.
fn by_bug(hunts: &[Hunt]) -> impl Iterator<Item = &[Hunt]> {
    hunts.chunk_by(|one, other| one.bug.code == other.bug.code)
}

/// Returns how many seeds a bug took in each range in which it was hunted.
fn seeds_of_ranges(of_bug: &[Hunt]) -> String {
    let figures = of_bug.iter().map(|hunt| match &hunt.found {
        Some((seeds, _)) => seeds.to_string(),
        None => "missed".to_owned(),
    });
    figures.collect::<Vec<_>>().join(", ")
}

/// Tells of the bugs that were missed, which test has them.
fn push_rare(text: &mut String, missed: &BTreeSet<&str>) {
    if missed.is_empty() {
        return;
    }
    text.push_str(
        "\n## Missed\n\nWhat is too rare for so few seeds is kept by a test of its own, which \
         fails with it.\n\n| bug | test |\n|---|---|\n",
    );
    for code in missed {
        let directed = DIRECTED.iter().find(|(known, _)| known == code);
        let test = directed.map_or("none", |(_, test)| test);
        // Writing to a string cannot fail.
        writeln!(text, "| {code} | {test} |").ok();
    }
}

/// Returns median and 95th percentile of the seeds until each bug was found, over all ranges in
/// which it was hunted; one that was missed counts as infinite.
pub fn quantiles(hunts: &[Hunt]) -> Vec<(&'static str, u64, u64)> {
    let mut seeds: Vec<(&'static str, Vec<u64>)> = Vec::new();
    for hunt in hunts {
        let found = hunt.found.as_ref().map_or(u64::MAX, |(seeds, _)| *seeds);
        match seeds.last_mut() {
            Some((code, all)) if *code == hunt.bug.code => all.push(found),
            _ => seeds.push((hunt.bug.code, vec![found])),
        }
    }
    let row =
        |(code, all): &(&'static str, Vec<u64>)| (*code, percentile(all, 50), percentile(all, 95));
    seeds.iter().map(row).collect()
}

impl Hunt {
    /// Returns one line for people.
    pub fn to_line(&self) -> String {
        match &self.found {
            Some((seeds, violation)) => {
                format!("{:<5} {seeds:>5} seeds  {}", self.bug.code, speaker(violation))
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
            Some((seeds, violation)) => (seeds.to_string(), speaker(violation)),
            None => ("missed".to_owned(), String::new()),
        };
        let replay = hunt.seed.map_or(String::new(), |seed| {
            format!("{} --planted {}", hunt.plan.replay_command(seed), hunt.bug.code)
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
        |hunt: &&Hunt| hunt.found.as_ref().is_some_and(|(_, found)| found.checker == ASSERTION);
    let asserted = hunts.iter().filter(by_assertion).count();
    // The median of two would be the slower one.
    if by_bug(hunts).any(|of_bug| of_bug.len() > 2) {
        write!(text, "\n{}", quantile_table(hunts)).ok();
    }
    write!(
        text,
        "\n{found} of {} planted bugs found: {} by a checker, {asserted} by an assertion",
        hunts.len(),
        found - asserted,
    )
    .ok();
    text
}

fn quantile_table(hunts: &[Hunt]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.set_header(["bug", "median seeds", "95th percentile"]);
    let number = |seeds: u64| {
        if seeds == u64::MAX { "missed".to_owned() } else { seeds.to_string() }
    };
    for (code, median, high) in quantiles(hunts) {
        table.add_row([code.to_owned(), number(median), number(high)]);
    }
    table
}

/// Returns the matrix for programs.
pub fn to_json(hunts: &[Hunt]) -> String {
    let rows: Vec<_> = hunts
        .iter()
        .map(|hunt| {
            json!({
                "bug": hunt.bug.code, "what": hunt.bug.what, "seed": hunt.seed,
                "seeds": hunt.found.as_ref().map(|(seeds, _)| seeds),
                "first_spoke": hunt.found.as_ref().map(|(_, found)| speaker(found)),
                "violation": hunt.found.as_ref().map(|(_, found)| found.to_string()),
                "cpu_seconds": hunt.cpu_seconds,
            })
        })
        .collect();
    json!(rows).to_string()
}

/// Returns who spoke first: a checker by its name, or an assertion of the program by its module and
/// the first words of what it says. A number of a line would be another one soon.
fn speaker(violation: &Violation) -> String {
    let Violation { checker, what, .. } = violation;
    let split = what.rsplit_once(" (").and_then(|(said, end)| Some((said, end.strip_suffix(')')?)));
    let Some((said, place)) = split.filter(|_| *checker == ASSERTION) else {
        return (*checker).to_owned();
    };
    let (module, words) = (module_of(place), first_words(said));
    if words.is_empty() {
        format!("{ASSERTION} {module}")
    } else {
        format!("{ASSERTION} {module} ({words})")
    }
}

/// Returns the module of a place in the node, which is `file:line:column`; elsewhere the file.
fn module_of(place: &str) -> String {
    let file = place.split(':').next().unwrap_or(place);
    let inside = file.strip_prefix("node/src/").and_then(|path| path.strip_suffix(".rs"));
    inside.map_or_else(
        || file.to_owned(),
        |path| path.strip_suffix("/mod").unwrap_or(path).replace('/', "::"),
    )
}

/// Returns the first words of a message, up to a value, which differs from run to run: the label
/// that may stand before a colon, as `R4:`, and words without digits and capital letters.
fn first_words(said: &str) -> String {
    let is_word = |word: &str| {
        !word.contains(|letter: char| {
            letter.is_ascii_digit() || letter.is_uppercase() || letter == '|'
        })
    };
    let words = said.lines().next().unwrap_or_default().split_whitespace().enumerate();
    let words = words.take_while(|(at, word)| (*at == 0 && word.ends_with(':')) || is_word(word));
    let words: Vec<&str> = words.map(|(_, word)| word).take(WORDS_MAX).collect();
    words.join(" ").trim_end_matches([':', ',']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bug(code: &'static str) -> Bug {
        Bug { code, what: "errs" }
    }

    fn hunt(code: &'static str, found: Option<(u64, &'static str)>) -> Hunt {
        let said = |checker| Violation { checker, what: "gone".to_owned(), at: 7 };
        Hunt {
            bug: bug(code),
            plan: Plan::default(),
            found: found.map(|(seeds, checker)| (seeds, said(checker))),
            seed: found.map(|(seeds, _)| seeds),
            cpu_seconds: 0.0,
        }
    }

    #[test]
    fn page_tells_who_is_needed_and_what_survives() {
        let hunts = [
            hunt("W1", Some((3, "durability"))),
            hunt("W1", Some((9, "liveness"))),
            hunt("R2", Some((1, "durability"))),
            hunt("R2", Some((1, "durability"))),
            hunt("R26", Some((78, "log_matching"))),
            hunt("R26", None),
            hunt("D59", None),
            hunt("D59", None),
        ];
        let ablations = [
            Ablation { bug: bug("W1"), needs: vec![("power", 86)], instead: Some(None) },
            Ablation {
                bug: bug("R2"),
                needs: vec![("power", 54), ("crash", 54)],
                instead: Some(Some("log_matching".to_owned())),
            },
        ];
        let hunting = Hunting {
            mode: Mode::Masterless,
            only: Vec::new(),
            first_seed: 1,
            seeds_max: 100,
            ranges: 2,
            jobs: 1,
        };
        let page = to_markdown(&hunting, &hunts, &ablations);
        for line in [
            "    cargo sim bugs --mode masterless --ranges 2 --seeds-max 100 --ablate \
             --markdown FILE",
            "| W1 | errs | 3, 9 | durability, liveness | nobody | power |",
            "| R2 | errs | 1, 1 | durability | log_matching | power, crash |",
            "| R26 | errs | 78, missed | log_matching |  |  |",
            "| D59 | errs | missed, missed |  |  |  |",
            "| D59 | dynamo::tests::batches::batch_of_a_lone_holder_is_caught |",
            "| power | R2, W1 |",
            "| crash | R2 |",
            "| durability | R2 |",
            "| log_matching | R26 |",
        ] {
            assert!(page.lines().any(|other| other == line), "{line:?} is not in\n{page}");
        }
        assert!(page.contains("\n\nR26 is rare") && !page.contains("R54 and R55"), "{page}");
    }

    #[test]
    fn note_stays_with_any_of_its_bugs() {
        let hunting = Hunting {
            mode: Mode::PrimaryBackup,
            only: vec!["R55".to_owned()],
            first_seed: 1,
            seeds_max: 100,
            ranges: 1,
            jobs: 1,
        };
        let page = to_markdown(&hunting, &[hunt("R55", None)], &[]);
        assert!(page.contains("\n\nR54 and R55 (") && !page.contains("R26"), "{page}");
        assert!(page.lines().all(|line| line.starts_with('|') || line.len() <= 100), "{page}");
    }

    #[test]
    fn bug_of_a_request_is_hunted_where_that_is_asked_for() {
        let profiles = |code| -> BTreeSet<&str> {
            let plan = |position| plan_of(bug(code), Mode::PrimaryBackup, position);
            (0..8).map(|position| plan(position).profile.name()).collect()
        };
        assert_eq!(profiles("R2"), BTreeSet::from(["forgetful", "standard", "storage"]));
        for code in OF_REQUESTS.iter().copied() {
            assert!(find(code).is_some(), "{code} is planted nowhere");
            assert_eq!(profiles(code), BTreeSet::from(["requests"]));
        }
    }

    #[test]
    fn bug_that_a_range_missed_is_not_ablated() {
        let hunts = [hunt("R26", Some((3, "durability"))), hunt("R26", None)];
        assert!(ablate_all(&hunts, 1, |_| {}).is_empty());
    }

    #[test]
    fn assertion_is_told_by_its_module_and_first_words() {
        let spoke =
            |checker, what: &str| speaker(&Violation { checker, what: what.to_owned(), at: 7 });
        for (what, expected) in [
            (
                "R4: leads in 7 and commits 9, of Some(6) (node/src/raft/invariants.rs:96:9)",
                "assertion raft::invariants (R4: leads in)",
            ),
            (
                "R6: n1 would truncate to 4 (node/src/raft/replication.rs:138:9)",
                "assertion raft::replication (R6)",
            ),
            (
                "a no-op has no proposer, they say (node/src/replica/mod.rs:1:2)",
                "assertion replica (a no-op has no proposer)",
            ),
            ("3 (sim-tests/src/world/core.rs:1:2)", "assertion sim-tests/src/world/core.rs"),
            ("gone", "assertion"),
        ] {
            assert_eq!(spoke(ASSERTION, what), expected);
        }
        assert_eq!(spoke("durability", "gone (for good)"), "durability");
    }
}
