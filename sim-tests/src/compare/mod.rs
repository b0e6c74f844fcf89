//! The two replication modes through the same accidents, under the same load.
//!
//! Which mode is right for somebody depends on what goes wrong and on what must not happen then.
//! So each [scenario](Scenario) is run with three *subjects*: the primary-backup mode, and the
//! masterless one asked at QUORUM and at ONE. The cluster, the network, the disks, the seeds, the
//! requests of every client and the faults are the same; only who replicates is not. A fault that
//! is aimed at the leader strikes node 1 where nobody leads.
//!
//! What is [measured](Figures) is what a client could measure: what was answered and when, reads
//! that did not see what was acknowledged before them, acknowledged writes that an older one
//! replaced. All checkers are on as in a swarm, so a comparison also fails if a mode breaks what it
//! promises. The [page](page()) has it all as pictures.
//!
//! # Left out
//! Absolute speed: a simulated processor costs nothing. `mangrove compare` measures that, on real
//! processes.

mod figures;
mod page;
pub(crate) mod scenario;
mod table;

pub use self::figures::Figures;
pub use self::page::page;
pub use self::scenario::{SCENARIOS, Scenario};
pub use self::table::{to_json, to_table};
use crate::parallel;
use crate::run::{Keep, run_case};

/// Who replicates, and of how many nodes a client wants an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// One elected leader.
    PrimaryBackup,
    /// No leader; a majority of the replicas answers.
    Quorum,
    /// No leader; one replica answers.
    One,
}

impl Subject {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 3] = [Self::PrimaryBackup, Self::Quorum, Self::One];

    /// Returns its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::PrimaryBackup => "primary-backup",
            Self::Quorum => "masterless, QUORUM",
            Self::One => "masterless, ONE",
        }
    }

    /// Returns its name in the names of files.
    pub fn code(self) -> &'static str {
        match self {
            Self::PrimaryBackup => "primary-backup",
            Self::Quorum => "quorum",
            Self::One => "one",
        }
    }
}

/// What to compare.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The scenarios.
    pub scenarios: Vec<&'static Scenario>,
    /// The first seed.
    pub first_seed: u64,
    /// Runs of each scenario with each subject, with seeds that follow each other.
    pub seeds: u64,
    /// Runs at the same time.
    pub jobs: usize,
}

impl Plan {
    /// Returns how many runs that makes.
    pub fn run_count(&self) -> u64 {
        let rows = self.scenarios.len() * Subject::ALL.len();
        self.seeds * u64::try_from(rows).unwrap_or(u64::MAX)
    }
}

/// What came of a scenario.
#[derive(Debug)]
pub struct Row {
    /// The scenario.
    pub scenario: &'static Scenario,
    /// The figures of each [subject](Subject::ALL), all its runs together.
    pub figures: [Figures; 3],
}

/// Runs everything; `progress` hears of each run that is over. Returns the rows, and what promises
/// were broken: a line each.
pub fn compare(plan: &Plan, progress: impl Fn() + Sync) -> (Vec<Row>, Vec<String>) {
    let mut tasks = Vec::new();
    for (at, scenario) in plan.scenarios.iter().enumerate() {
        for subject in Subject::ALL {
            let seeds = plan.first_seed..plan.first_seed + plan.seeds;
            tasks.extend(seeds.map(|seed| (at, *scenario, subject, seed)));
        }
    }
    let work = |task: &(usize, &Scenario, Subject, u64)| {
        let (at, scenario, subject, seed) = *task;
        let report = run_case(&scenario.case(subject, seed), Keep::default());
        let figures = Figures::of(&report);
        let broken = report.violation.map(|violation| {
            format!("{}, {}, seed {seed}: {violation}", scenario.name, subject.name())
        });
        (at, subject, figures, broken)
    };
    let done = parallel::map(&tasks, plan.jobs, work, |_| progress());
    let mut rows: Vec<Row> = plan
        .scenarios
        .iter()
        .map(|scenario| Row { scenario, figures: Default::default() })
        .collect();
    let mut broken = Vec::new();
    for (at, subject, figures, violation) in done {
        let position = Subject::ALL.iter().position(|other| *other == subject);
        let row = rows.get_mut(at).and_then(|row| row.figures.get_mut(position?));
        if let Some(sum) = row {
            sum.add(figures);
        }
        broken.extend(violation);
    }
    (rows, broken)
}
