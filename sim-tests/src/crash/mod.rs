//! Crash points: the images that a power loss can leave, at every moment of a store's life.
//!
//! A *script* uses the store as a node does: log, tables and recovery, flushes,
//! compactions, snapshots, restarts. The disk records every write, sync, creation, rename and
//! removal. Then, at every boundary between two of them, the *images* that the fault model allows
//! there are made, and each is recovered by the node's own code. Where the swarm draws one fate of
//! a power loss, this goes through all of them, as far as a bound.
//!
//! ```text
//! script ─▶ steps of the disk: write, sync, rename …          the promise at each: what must be
//!             │                                               found, what may be found
//!             ▼ at every boundary                                      │
//!           images: each pending change lost, kept, torn ─▶ recovery ─▶ state = model?
//!             by hash: each distinct one once                  │
//!                                                              └▶ power loss ─▶ the same again?
//! ```
//! Checked of each image: it opens, and nothing is called damaged; what was acknowledged is there;
//! the state is that of one position of the history, cell by cell, and so is the last vote; a power
//! loss right after the recovery changes nothing. Of a sample, all boundaries *within* the recovery
//! are gone through in the same way, for a node may lose power while it recovers.
//!
//! What several disks owe together is explored by [`cluster`].
//!
//! # Left out
//! The names of directories, which are taken to be durable. Rot, failing and lying syncs, a full
//! disk: the swarm has them.
//!
//! # Sources
//! The idea of recording once and enumerating what a crash may leave: \[ALICE\].

#[cfg(madsim)]
pub mod cluster;
mod history;
mod images;
mod medium;
mod script;
mod trace;
mod verify;

use std::collections::BTreeMap;
use std::fmt;

use mangrove::base::{Index, Rng, planted};
use serde_json::json;

use self::images::Images;
use self::medium::{Image, Medium};
use self::script::{Recording, record};
use self::trace::Step;
use self::verify::{Found, Promise, Recovered, recover};

/// One image in so many is a start for crashes within its recovery.
const NESTED_EVERY: u64 = 32;

/// Images of each boundary within a recovery.
const NESTED_IMAGES_MAX: usize = 24;

/// Violations that are kept; more are only counted.
const VIOLATIONS_MAX: usize = 10;

/// What to explore.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where the script comes from.
    pub seed: u64,
    /// Operations of the script.
    pub operations: u64,
    /// Most images of one boundary.
    pub images_max: usize,
    /// The planted bug that is switched on, if any.
    pub planted: Option<&'static str>,
    /// Whether to stop at the first violation.
    pub stop_at_first: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self { seed: 1, operations: 200, images_max: 1000, planted: None, stop_at_first: false }
    }
}

/// What an exploration came to.
#[derive(Debug, Clone, Default)]
pub struct Exploration {
    /// Operations of the script.
    pub operations: u64,
    /// The bound: most images of one boundary.
    pub images_max: usize,
    /// Boundaries between two steps of the disk, the end included.
    pub boundaries: u64,
    /// Boundaries at which the bound left no image out, but for kinds of garbage.
    pub complete_boundaries: u64,
    /// Images that were made, those within recoveries included.
    pub images: u64,
    /// Images that differ from all before.
    pub distinct: u64,
    /// Distinct images of a power loss within a recovery.
    pub nested: u64,
    /// Recoveries that were run.
    pub recoveries: u64,
    /// Log entries of the script.
    pub entries: u64,
    /// Steps of the disk by what they are.
    pub steps: BTreeMap<&'static str, u64>,
    /// What was wrong; see [`violation_count`](Self::violation_count) for how often.
    pub violations: Vec<String>,
    /// How many images were not recovered as promised.
    pub violation_count: u64,
}

impl Exploration {
    /// Returns it for programs.
    pub fn to_json(&self) -> String {
        json!({
            "operations": self.operations, "log_entries": self.entries,
            "boundaries": self.boundaries, "steps": self.steps,
            "images_max": self.images_max, "complete_boundaries": self.complete_boundaries,
            "images": self.images, "distinct": self.distinct, "nested": self.nested,
            "recoveries": self.recoveries,
            "violation_count": self.violation_count, "violations": self.violations,
        })
        .to_string()
    }
}

impl fmt::Display for Exploration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<String> =
            self.steps.iter().map(|(what, count)| format!("{count} × {what}")).collect();
        writeln!(
            f,
            "{} operations, {} log entries, {} boundaries: {}",
            self.operations,
            self.entries,
            self.boundaries,
            steps.join(", ")
        )?;
        writeln!(
            f,
            "at most {} images of a boundary: nothing left out at {} boundaries, the telling and \
             some random images at {}",
            self.images_max,
            self.complete_boundaries,
            self.boundaries - self.complete_boundaries,
        )?;
        writeln!(
            f,
            "{} images, {} distinct ({} of them of a power loss within a recovery), {} recoveries",
            self.images, self.distinct, self.nested, self.recoveries
        )?;
        write!(f, "{} violations", self.violation_count)?;
        self.violations.iter().try_for_each(|violation| write!(f, "\n{violation}"))
    }
}

/// Records a script and goes through what power losses leave of it.
pub fn explore(plan: &Plan) -> Exploration {
    planted::turn_on(plan.planted);
    let recording = record(plan.seed, plan.operations);
    let mut explorer = Explorer::new(plan, &recording);
    explorer.walk(&recording.steps);
    planted::turn_on(None);
    let mut result = explorer.result;
    if let Some(failure) = &recording.failure {
        result.violation_count += 1;
        result.violations.push(format!("the script cannot go on: {failure}"));
    }
    result
}

/// Goes through boundaries and remembers which images it has seen.
struct Explorer<'r> {
    plan: &'r Plan,
    recording: &'r Recording,
    rng: Rng,
    /// What was found in the images so far, by hash; `None` where something was wrong.
    known: BTreeMap<u64, Option<Found>>,
    result: Exploration,
}

impl<'r> Explorer<'r> {
    fn new(plan: &'r Plan, recording: &'r Recording) -> Self {
        let result = Exploration {
            operations: plan.operations,
            images_max: plan.images_max,
            entries: recording.history.last(),
            ..Exploration::default()
        };
        let rng = Rng::new(plan.seed).split("crash.images");
        Self { plan, recording, rng, known: BTreeMap::new(), result }
    }

    fn is_done(&self) -> bool {
        self.plan.stop_at_first && self.result.violation_count > 0
    }

    /// Goes through all boundaries of the script.
    fn walk(&mut self, steps: &[Step]) {
        let mut medium = Medium::default();
        let mut promise = Promise::default();
        for (number, step) in steps.iter().enumerate() {
            if let Step::Note(note) = step {
                promise.update(note);
                continue;
            }
            let here = || format!("before step {number} ({step})");
            self.boundary(&medium, &promise, self.plan.images_max, &here);
            if self.is_done() {
                return;
            }
            *self.result.steps.entry(kind_of(step)).or_default() += 1;
            medium.apply(step);
        }
        self.boundary(&medium, &promise, self.plan.images_max, &|| "at the end".to_owned());
    }

    /// Goes through the images of one boundary.
    fn boundary(
        &mut self,
        medium: &Medium,
        promise: &Promise,
        images_max: usize,
        here: &dyn Fn() -> String,
    ) {
        let mut rng = self.rng.split(&self.result.boundaries.to_string());
        let images = Images::of(medium, images_max, &mut rng);
        self.result.boundaries += 1;
        self.result.complete_boundaries += u64::from(images.is_complete);
        images.each(|hash, make| {
            self.image(hash, make, promise, true, here);
        });
    }

    /// Recovers an image if there was none like it, and checks what is found; returns it.
    fn image(
        &mut self,
        hash: u64,
        make: &dyn Fn() -> Image,
        promise: &Promise,
        is_outer: bool,
        here: &dyn Fn() -> String,
    ) -> Option<Found> {
        self.result.images += 1;
        if self.is_done() {
            return None;
        }
        let known = self.known.get(&hash).copied();
        let found = known.unwrap_or_else(|| {
            self.result.distinct += 1;
            self.result.nested += u64::from(!is_outer);
            let recovered = self.recover(&make(), promise, is_outer, here);
            if let Err(what) = &recovered {
                self.violation(what, here);
            }
            self.known.insert(hash, recovered.as_ref().ok().copied());
            recovered.ok()
        });
        if let Some(found) = found
            && let Err(what) = promise.check(found)
        {
            self.violation(&what, here);
        }
        found
    }

    /// Recovers an image, loses the power right after, and recovers what is left.
    fn recover(
        &mut self,
        image: &Image,
        promise: &Promise,
        is_outer: bool,
        here: &dyn Fn() -> String,
    ) -> Result<Found, String> {
        let history = &self.recording.history;
        self.result.recoveries += 1;
        let first = recover(image, history)?;
        if first.after.hash != image.hash {
            let again = if let Some(Some(found)) = self.known.get(&first.after.hash) {
                *found
            } else {
                self.result.recoveries += 1;
                let again = recover(&first.after, history);
                again.map_err(|what| format!("after a second power loss: {what}"))?.found
            };
            if again != first.found {
                let first = first.found;
                return Err(format!("the first recovery finds {first:?}, the next one {again:?}"));
            }
            self.known.insert(first.after.hash, Some(again));
        }
        if is_outer && image.hash.is_multiple_of(NESTED_EVERY) {
            self.within(image, &first, promise, here);
        }
        Ok(first.found)
    }

    /// Goes through all boundaries within a recovery: what it was about to find stays there.
    fn within(
        &mut self,
        image: &Image,
        whole: &Recovered,
        promise: &Promise,
        here: &dyn Fn() -> String,
    ) {
        let mut medium = Medium::of(image);
        for step in &whole.steps {
            medium.apply(step);
            let mut rng = self.rng.split("within");
            let images = Images::of(&medium, NESTED_IMAGES_MAX, &mut rng);
            let here = || format!("{}, then in the recovery after {step}", here());
            images.each(|hash, make| {
                let found = self.image(hash, make, promise, false, &here);
                let position = found.map_or(whole.found.position, |found| found.position);
                if let Err(what) = not_before(position, whole.found.position) {
                    self.violation(&what, &here);
                }
            });
        }
    }

    fn violation(&mut self, what: &str, here: &dyn Fn() -> String) {
        self.result.violation_count += 1;
        if self.result.violations.len() < VIOLATIONS_MAX {
            self.result.violations.push(format!("power loss {}: {what}", here()));
        }
    }
}

/// Checks what a recovery finds that begins anew where another one was interrupted.
fn not_before(position: Index, whole: Index) -> Result<(), String> {
    if position >= whole {
        return Ok(());
    }
    Err(format!("the recovery would have found {whole}, the next one finds {position}"))
}

fn kind_of(step: &Step) -> &'static str {
    match step {
        Step::Create(_) => "create",
        Step::Write { .. } => "write",
        Step::Sync(_) => "sync",
        Step::SyncDirectory(_) => "sync of a directory",
        Step::Rename { .. } => "rename",
        Step::Remove(_) => "remove",
        Step::Note(_) => "note",
    }
}
