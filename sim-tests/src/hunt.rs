//! A hunt that goes on: fresh seeds of both modes, for as long as there is time.
//!
//! Time goes where it finds most. Each *lane*, a mode under a profile, is drawn with a weight: the
//! failures that it has found for each second spent on it, with one more presumed than there were.
//! Every fifth run goes to the lane that had the least time, so that none is forgotten.
//!
//! Many seeds fail for the same reason. Failures are of one *kind* if they are of the same mode and
//! the same checker spoke, for an assertion at the same line. Of each kind the seed is kept that
//! failed after the least simulated time: it is the easiest to make small. The one that failed last
//! takes its place if it does not fail any more, because the program has changed. When time is
//! over, each kind that is new, or has an easier seed than before, is [shrunk](crate::shrink), and
//! a folder gets what a person needs: the replay file, the story, a test, the page.
//!
//! The state is in `hunt.json` in the folder, written every half minute, so a hunt that was stopped
//! goes on where it was, with seeds that it has not tried.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::ProgressBar;
use mangrove::base::Rng;
use serde::{Deserialize, Serialize};

use crate::case::Case;
use crate::check::Violation;
use crate::options::{Mode, Options, Plan, Profile};
use crate::report;
use crate::run::{Keep, Report, run_case};
use crate::shrink::{self, Budget, Failure, Shrunk};
use crate::swarm::float;

/// What can be hunted in, in the order of [`State::lanes`].
const LANES: [Plan; 8] = [
    Plan { mode: Mode::PrimaryBackup, profile: Profile::Standard },
    Plan { mode: Mode::Masterless, profile: Profile::Standard },
    Plan { mode: Mode::PrimaryBackup, profile: Profile::Storage },
    Plan { mode: Mode::Masterless, profile: Profile::Storage },
    Plan { mode: Mode::PrimaryBackup, profile: Profile::Forgetful },
    Plan { mode: Mode::Masterless, profile: Profile::Forgetful },
    Plan { mode: Mode::PrimaryBackup, profile: Profile::Requests },
    Plan { mode: Mode::Masterless, profile: Profile::Requests },
];

/// Chance of a run to go to the lane that had the least time.
const FAIR_CHANCE: f64 = 0.2;

/// Seconds of a lane that has had no time yet, to reckon with.
const SECONDS_MIN: f64 = 1.0;

/// Time between two times that the state is written.
const SAVE_INTERVAL: Duration = Duration::from_secs(30);

/// The file with the state.
const STATE: &str = "hunt.json";

/// What a hunt knows: what it has tried, and what it has found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The planted bug that is on in all runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    planted: Option<String>,
    lanes: Vec<Lane>,
    finds: BTreeMap<String, Find>,
}

/// What was done in one lane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Lane {
    /// For people.
    name: String,
    next_seed: u64,
    runs: u64,
    failures: u64,
    seconds: f64,
}

/// Failures of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Find {
    /// Which lane the seed belongs to.
    lane: usize,
    /// The seed that failed the soonest.
    seed: u64,
    /// After so much simulated time.
    after_ms: u64,
    /// What was said.
    what: String,
    /// How many seeds failed so.
    count: u64,
    /// The seed that failed last: the program may have changed since the easiest one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    latest: Option<Seen>,
    /// Decisions that are left, once it was made small.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    decisions: Option<usize>,
}

/// A run that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    lane: usize,
    seed: u64,
    after_ms: u64,
}

impl Find {
    /// Returns the runs by which it may be made small, the easiest first.
    fn candidates(&self) -> Vec<Seen> {
        let Self { lane, seed, after_ms, latest, .. } = *self;
        let easiest = Seen { lane, seed, after_ms };
        let latest = latest.filter(|latest| *latest != easiest);
        std::iter::once(easiest).chain(latest).collect()
    }

    /// Takes another run for the easiest.
    fn replace(&mut self, by: Seen, what: &str) {
        (self.lane, self.seed, self.after_ms) = (by.lane, by.seed, by.after_ms);
        what.clone_into(&mut self.what);
    }
}

/// Returns the kind of a failure in a lane.
fn kind_of(lane: usize, violation: &Violation) -> String {
    let mode = LANES.get(lane).map_or("", |plan| plan.mode.name());
    format!("{mode} {}", Failure::of(violation))
}

/// What to do.
#[derive(Debug, Clone)]
pub struct Hunt {
    /// Where everything is kept.
    pub folder: PathBuf,
    /// How long to try seeds; making failures small comes on top.
    pub budget: Duration,
    /// Runs at the same time.
    pub jobs: usize,
    /// The seed that a new hunt begins with.
    pub first_seed: u64,
    /// A planted bug that is on in all runs.
    pub planted: Option<&'static str>,
}

impl State {
    fn new(first_seed: u64, planted: Option<&str>) -> Self {
        let lane = |plan: &Plan| Lane {
            name: plan.to_string(),
            next_seed: first_seed,
            runs: 0,
            failures: 0,
            seconds: 0.0,
        };
        let lanes = LANES.iter().map(lane).collect();
        Self { planted: planted.map(str::to_owned), lanes, finds: BTreeMap::new() }
    }

    /// Reads the state of a folder, or begins anew.
    fn open(folder: &Path, first_seed: u64, planted: Option<&str>) -> io::Result<Self> {
        let text = match fs::read_to_string(folder.join(STATE)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self::new(first_seed, planted));
            }
            Err(error) => return Err(error),
        };
        let state: Self = serde_json::from_str(&text)?;
        let names = state.lanes.iter().map(|lane| lane.name.clone());
        if !names.eq(LANES.iter().map(Plan::to_string)) {
            return Err(io::Error::other(format!("{STATE} is of another version of this program")));
        }
        if state.planted.as_deref() != planted {
            let was = state.planted.as_deref().unwrap_or("none");
            let what =
                format!("{STATE} is of a hunt whose planted bug is {was}: take a new folder");
            return Err(io::Error::other(what));
        }
        Ok(state)
    }

    fn save(&self, folder: &Path) -> io::Result<()> {
        // Whole or not at all: who is stopped here goes on with the state before.
        let new = folder.join(format!("{STATE}.new"));
        fs::write(&new, serde_json::to_string_pretty(self)?)?;
        fs::rename(new, folder.join(STATE))
    }

    /// Draws the lane of the next run, and takes a seed of it.
    fn next(&mut self) -> (usize, u64) {
        let runs: u64 = self.lanes.iter().map(|lane| lane.runs).sum();
        let taken: u64 = self.lanes.iter().map(|lane| lane.next_seed).fold(0, u64::wrapping_add);
        let mut rng = Rng::new(runs.rotate_left(32) ^ taken);
        let lane = if rng.chance(FAIR_CHANCE) {
            let numbered = self.lanes.iter().enumerate();
            let least = numbered.min_by(|(_, a), (_, b)| a.seconds.total_cmp(&b.seconds));
            least.map_or(0, |(at, _)| at)
        } else {
            self.by_weight(rng.unit())
        };
        let Some(chosen) = self.lanes.get_mut(lane) else { unreachable!("lane {lane} was chosen") };
        let seed = chosen.next_seed;
        chosen.next_seed += 1;
        (lane, seed)
    }

    /// Returns the lane that a number from 0 to 1 stands for.
    fn by_weight(&self, drawn: f64) -> usize {
        let weights = self.lanes.iter().map(Lane::weight);
        let mut left = drawn * weights.clone().sum::<f64>();
        for (at, weight) in weights.enumerate() {
            left -= weight;
            if left < 0.0 {
                return at;
            }
        }
        0
    }

    /// Takes note of a run.
    fn add(&mut self, lane: usize, report: &Report, seconds: f64) {
        let Some(place) = self.lanes.get_mut(lane) else { return };
        place.runs += 1;
        place.seconds += seconds;
        let Some(violation) = &report.violation else { return };
        place.failures += 1;
        let after_ms = u64::try_from(report.simulated.as_millis()).unwrap_or(u64::MAX);
        let found = Find {
            lane,
            seed: report.seed,
            after_ms,
            what: violation.what.clone(),
            count: 0,
            latest: None,
            decisions: None,
        };
        let kind = kind_of(lane, violation);
        let find = self.finds.entry(kind).or_insert_with(|| found.clone());
        if after_ms < find.after_ms {
            *find = Find { count: find.count, ..found };
        }
        find.count += 1;
        find.latest = Some(Seen { lane, seed: report.seed, after_ms });
    }

    /// Tells whether anything was found.
    pub fn has_finds(&self) -> bool {
        !self.finds.is_empty()
    }

    /// Returns the state for people.
    pub fn to_table(&self) -> String {
        let mut lanes = comfy_table::Table::new();
        lanes.set_header(["lane", "seeds", "failed", "seconds"]);
        for lane in &self.lanes {
            let seconds = format!("{:.0}", lane.seconds);
            let numbers = [lane.runs.to_string(), lane.failures.to_string(), seconds];
            lanes.add_row([lane.name.clone()].into_iter().chain(numbers));
        }
        let mut finds = comfy_table::Table::new();
        finds.set_header(["kind", "seeds", "easiest", "after ms", "decisions left"]);
        for (kind, find) in &self.finds {
            let left = find.decisions.map_or("–".to_owned(), |left| left.to_string());
            let numbers = [find.count, find.seed, find.after_ms].map(|number| number.to_string());
            finds.add_row([kind.clone()].into_iter().chain(numbers).chain([left]));
        }
        let mut text = lanes.to_string();
        // Writing to a string cannot fail.
        _ = if self.finds.is_empty() {
            write!(text, "\nnothing was found")
        } else {
            write!(text, "\n{finds}")
        };
        text
    }

    /// Returns the state for programs.
    pub fn to_json(&self) -> String {
        // Numbers and strings always can be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Lane {
    /// Returns the failures for each second, with one presumed.
    fn weight(&self) -> f64 {
        float(self.failures + 1) / self.seconds.max(SECONDS_MIN)
    }
}

/// What the threads share.
#[expect(clippy::disallowed_types, reason = "the hunt runs outside of the simulated world")]
struct Shared {
    state: State,
    saved_at: std::time::Instant,
    /// How the last attempt ended.
    saved: io::Result<()>,
}

/// Hunts until the time is over, then makes small what was found.
///
/// # Errors
/// The folder cannot be read or written.
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the hunt runs outside of the simulated world"
)]
pub fn hunt(hunt: &Hunt, bar: &ProgressBar) -> io::Result<State> {
    fs::create_dir_all(&hunt.folder)?;
    let begin = std::time::Instant::now();
    let state = State::open(&hunt.folder, hunt.first_seed, hunt.planted)?;
    let shared = Mutex::new(Shared { state, saved_at: begin, saved: Ok(()) });
    let lock = || shared.lock().unwrap_or_else(PoisonError::into_inner);
    std::thread::scope(|scope| {
        for _ in 0..hunt.jobs.max(1) {
            scope.spawn(|| {
                while begin.elapsed() < hunt.budget && lock().saved.is_ok() {
                    let (lane, seed) = lock().state.next();
                    let began = std::time::Instant::now();
                    let report = run_case(&hunt.case(lane, seed), Keep::default());
                    let mut shared = lock();
                    shared.state.add(lane, &report, began.elapsed().as_secs_f64());
                    if shared.saved_at.elapsed() >= SAVE_INTERVAL {
                        shared.saved_at = std::time::Instant::now();
                        shared.saved = shared.state.save(&hunt.folder);
                    }
                    bar.set_message(format!("{} kinds of failures", shared.state.finds.len()));
                    bar.inc(1);
                }
            });
        }
    });
    let Shared { mut state, saved, .. } =
        shared.into_inner().unwrap_or_else(PoisonError::into_inner);
    saved?;
    state.save(&hunt.folder)?;
    hunt.make_small(&mut state, bar)?;
    Ok(state)
}

impl Hunt {
    fn case(&self, lane: usize, seed: u64) -> Case {
        let plan = LANES.get(lane).copied().unwrap_or_default();
        Case::drawn(Options { planted: self.planted, ..plan.draw(seed) })
    }

    /// Shrinks what is new, and writes what a person needs of it.
    fn make_small(&self, state: &mut State, bar: &ProgressBar) -> io::Result<()> {
        let is_new = |(_, find): &(&String, &Find)| find.decisions.is_none();
        let new: Vec<(String, Find)> = state.finds.iter().filter(is_new).map(owned).collect();
        for (kind, mut find) in new {
            bar.set_message(format!("making small: {kind}"));
            let small = find.candidates().into_iter().find_map(|seen| {
                let shrunk = self.shrink(&kind, seen, bar)?;
                let said = shrunk.report.violation.as_ref().map_or("", |found| &found.what);
                if (seen.lane, seen.seed) != (find.lane, find.seed) {
                    find.replace(seen, said);
                }
                Some(shrunk)
            });
            let Some(shrunk) = small else {
                // Only if the program has changed since these seeds were found.
                bar.println(format!("{kind}: seed {} does not fail so any more", find.seed));
                state.finds.remove(&kind);
                state.save(&self.folder)?;
                continue;
            };
            find.decisions = Some(shrunk.after);
            state.finds.insert(kind.clone(), find);
            self.write(&kind, &shrunk)?;
            state.save(&self.folder)?;
        }
        state.save(&self.folder)
    }

    /// Makes a run small, if it still fails in the way of that kind.
    fn shrink(&self, kind: &str, seen: Seen, bar: &ProgressBar) -> Option<Shrunk> {
        let mut case = self.case(seen.lane, seen.seed);
        let plan = Plan { mode: case.options.mode(), profile: case.options.profile };
        case.about = format!("{kind}, found by a hunt as seed {} ({plan}).", seen.seed);
        let budget = Budget { jobs: self.jobs, runs_max: 4000, cpu_seconds_max: 50.0 };
        let shrunk = shrink::shrink(&case, budget, bar).ok()?;
        let violation = shrunk.report.violation.as_ref();
        let is_that_kind = violation.is_some_and(|found| kind_of(seen.lane, found) == kind);
        is_that_kind.then_some(shrunk)
    }

    fn write(&self, kind: &str, shrunk: &Shrunk) -> io::Result<()> {
        let folder = self.folder.join(file_name(kind));
        fs::create_dir_all(&folder)?;
        let (case, report) = (&shrunk.case, &shrunk.report);
        fs::write(folder.join("replay.json"), case.to_json())?;
        fs::write(folder.join("story.txt"), shrink::in_words(case, report))?;
        fs::write(folder.join("report.html"), report::page(case, report))?;
        fs::write(folder.join("last.svg"), report::last_moments(case, report))?;
        if let Some(test) = shrink::to_rust(case, report) {
            fs::write(folder.join("scenario.rs"), test)?;
        }
        Ok(())
    }
}

fn owned((kind, find): (&String, &Find)) -> (String, Find) {
    (kind.clone(), find.clone())
}

/// Returns the name of the folder of a kind.
fn file_name(kind: &str) -> String {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
    kind.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(seed: u64, seconds: u64, checker: Option<&'static str>) -> Report {
        let violation = checker.map(|checker| Violation { checker, what: "bad".to_owned(), at: 0 });
        Report { seed, simulated: Duration::from_secs(seconds), violation, ..Report::empty(seed) }
    }

    #[test]
    fn easiest_seed_of_each_kind_is_kept() {
        let mut state = State::new(100, None);
        for (seed, seconds, checker) in
            [(1, 9, "durability"), (2, 3, "durability"), (3, 7, "durability"), (4, 1, "liveness")]
        {
            state.add(1, &report(seed, seconds, Some(checker)), 0.1);
        }
        state.add(0, &report(5, 2, Some("durability")), 0.1);
        state.add(0, &report(6, 2, None), 0.1);
        let kept = |kind: &str| state.finds.get(kind).map(|find| (find.seed, find.count));
        assert_eq!(kept("masterless durability"), Some((2, 3)));
        assert_eq!(kept("masterless liveness"), Some((4, 1)));
        assert_eq!(kept("primary-backup durability"), Some((5, 1)));
        assert_eq!(state.lanes[0].runs, 2);
    }

    /// A find that was made small is so again if an easier seed comes, and only then.
    #[test]
    fn easier_seed_is_made_small_anew() {
        let mut state = State::new(100, None);
        state.add(0, &report(1, 9, Some("durability")), 0.1);
        let small = |state: &mut State, decisions| {
            state.finds.values_mut().for_each(|find| find.decisions = Some(decisions));
        };
        small(&mut state, 7);
        state.add(0, &report(2, 12, Some("durability")), 0.1);
        assert!(state.finds.values().all(|find| find.decisions == Some(7)));
        state.add(0, &report(3, 2, Some("durability")), 0.1);
        assert!(state.finds.values().all(|find| find.decisions.is_none() && find.count == 3));
    }

    #[test]
    fn latest_failure_stands_behind_the_easiest() {
        let mut state = State::new(100, None);
        let candidates = |state: &State| {
            let seen = state.finds.values().flat_map(Find::candidates);
            seen.map(|seen| (seen.lane, seen.seed, seen.after_ms)).collect::<Vec<_>>()
        };
        state.add(0, &report(1, 2, Some("durability")), 0.1);
        assert_eq!(candidates(&state), [(0, 1, 2000)]);
        state.add(2, &report(7, 9, Some("durability")), 0.1);
        state.add(2, &report(8, 5, Some("durability")), 0.1);
        assert_eq!(candidates(&state), [(0, 1, 2000), (2, 8, 5000)]);
        // A state that was written before has none.
        let text = state.to_json().replace("\"latest\"", "\"was\"");
        let old: State = serde_json::from_str(&text).unwrap();
        assert_eq!(candidates(&old), [(0, 1, 2000)]);
    }

    /// Both seeds find nothing: what the state says of them is made up.
    #[test]
    fn find_whose_seeds_are_sound_is_dropped() {
        let folder = std::env::temp_dir().join(format!("mangrove-finds-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (budget, first_seed) = (Duration::ZERO, 1);
        let hunt = Hunt { folder: folder.clone(), budget, jobs: 1, first_seed, planted: None };
        let mut state = State::new(1, None);
        state.add(0, &report(1, 1, Some("durability")), 0.1);
        state.add(0, &report(7, 9, Some("durability")), 0.1);
        hunt.make_small(&mut state, &ProgressBar::hidden()).unwrap();
        assert!(!state.has_finds(), "{state:?}");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn lane_that_finds_most_gets_most_and_none_is_forgotten() {
        let mut state = State::new(0, None);
        for lane in 0..LANES.len() {
            state.lanes[lane].seconds = 50.0;
        }
        state.lanes[2].failures = 20;
        let mut drawn = [0_u64; LANES.len()];
        for _ in 0..2_000 {
            let (lane, seed) = state.next();
            assert_eq!(seed, drawn[lane], "seeds follow each other in lane {lane}");
            drawn[lane] += 1;
            state.lanes[lane].runs += 1;
        }
        assert!(drawn[2] > 1_000 && drawn.iter().all(|count| *count > 20), "{drawn:?}");
    }

    #[test]
    fn hunt_goes_on_where_it_was() {
        let folder = std::env::temp_dir().join(format!("mangrove-hunt-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        assert_eq!(State::open(&folder, 7, None).unwrap(), State::new(7, None));
        let mut state = State::new(7, None);
        let (lane, seed) = state.next();
        state.add(lane, &report(seed, 1, Some("liveness")), 0.5);
        state.save(&folder).unwrap();
        assert_eq!(State::open(&folder, 9, None).unwrap(), state);
        // What a planted bug does is not to be taken for a find of before.
        assert!(State::open(&folder, 9, Some("W1")).is_err());
        fs::write(folder.join(STATE), "{\"lanes\":[],\"finds\":{}}").unwrap();
        assert!(State::open(&folder, 9, None).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }
}
