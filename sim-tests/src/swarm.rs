//! Many seeds at once, and what they came to.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::atlas::Contract;
use crate::check::Violation;
use crate::healing::Tally;
use crate::masterless::options::Mechanism;
use crate::options::{Mode, Options, Plan, Profile};
use crate::run::{Report, run};
use crate::world::{Fault, Record};

/// Failing seeds that are listed in a summary; more are only counted.
const FAILURES_LISTED: usize = 20;

/// Faults that a run of [enough seeds](vacuity_seeds) must have made observable, every one of them:
/// a fault that nobody can observe proves nothing.
pub const DEMANDED_FAULTS: &[Fault] = &[
    Fault::P1,
    Fault::P2,
    Fault::P3,
    Fault::P4,
    Fault::P5,
    Fault::P9,
    Fault::D1,
    Fault::D2,
    Fault::D3,
    Fault::D4,
    Fault::D5,
    Fault::D6,
    Fault::D7,
    Fault::D8,
    Fault::D9,
    Fault::D10,
    Fault::D15,
    Fault::N1,
    Fault::N2,
    Fault::N4,
    Fault::N5,
    Fault::N6,
    Fault::N7,
    Fault::N8,
    Fault::N9,
    Fault::N10,
    Fault::C1,
    Fault::C2,
    Fault::C3,
    Fault::C4,
    Fault::C5,
];

/// Faults of processes and disks, the least that a run of [`Profile::Storage`] must have shown.
const DEMANDED_STORAGE_FAULTS: &[Fault] = &[
    Fault::P1,
    Fault::P2,
    Fault::P3,
    Fault::P4,
    Fault::P9,
    Fault::D1,
    Fault::D2,
    Fault::D3,
    Fault::D4,
    Fault::D5,
    Fault::D6,
    Fault::D7,
    Fault::D8,
    Fault::D9,
    Fault::D10,
    Fault::D15,
];

/// What runs of the masterless mode must have shown besides.
const DEMANDED_MASTERLESS_FAULTS: &[Fault] = &[Fault::P7];

/// Returns from how many seeds on a run is judged by the faults that its profile demands: no more
/// than `.ci/run` runs of it, for which every demanded fault is frequent enough.
pub const fn vacuity_seeds(profile: Profile) -> u64 {
    match profile {
        Profile::Standard => 600,
        Profile::Storage | Profile::Requests | Profile::Forgetful => 300,
        Profile::Beyond => 100,
    }
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Swarm {
    /// The first seed.
    pub first: u64,
    /// The seed after the last.
    pub end: u64,
    /// Runs at the same time.
    pub jobs: usize,
    /// Whether to show a progress bar (on a terminal).
    pub progress: bool,
    /// What the runs are.
    pub plan: Plan,
}

/// What the runs came to.
#[derive(Debug, Default)]
pub struct Summary {
    first: u64,
    end: u64,
    plan: Plan,
    runs: u64,
    simulated: Duration,
    /// Simulated and processor time by the number of nodes.
    times: BTreeMap<u64, (Duration, Duration)>,
    cpu_seconds: f64,
    wall_seconds: f64,
    events: u64,
    acknowledged: u64,
    elections: u64,
    stops: u64,
    faults: BTreeMap<&'static str, (u64, u64)>,
    probes: BTreeMap<&'static str, u64>,
    /// Memory of this process, in KiB: after a tenth of the runs, at the end, and at most.
    memory_kib: [u64; 3],
    converge_ms: Vec<u64>,
    /// The same by mechanism, of runs of the masterless mode that converged.
    mechanism_ms: BTreeMap<Mechanism, Vec<u64>>,
    /// The slowest run of each mechanism: milliseconds and seed.
    slowest: BTreeMap<Mechanism, (u64, u64)>,
    failed: Vec<(u64, Violation)>,
    /// Runs that were held to each contract, and how many of them did not serve in the end.
    contracts: BTreeMap<Contract, (u64, u64)>,
    /// How often a quorum had to serve alone.
    alone: Tally,
}

/// Runs all seeds of a range.
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the swarm runs outside of the simulated world"
)]
pub fn run_all(
    swarm: &Swarm,
    draw: impl Fn(u64) -> Options + Sync,
    stop_at_first: bool,
) -> Summary {
    let begin = std::time::Instant::now();
    let cpu_begin = cpu_seconds();
    let next = AtomicU64::new(swarm.first);
    let bar = progress_bar(swarm);
    let summary =
        Summary { first: swarm.first, end: swarm.end, plan: swarm.plan, ..Summary::default() };
    let summary = Mutex::new(summary);
    std::thread::scope(|scope| {
        for _ in 0..swarm.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= swarm.end {
                        return;
                    }
                    let report = run(&draw(seed), Record::Nothing);
                    let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(violation) = &report.violation {
                        bar.println(format!(
                            "seed {seed}: {violation}\n  replay: {}",
                            swarm.plan.replay_command(seed)
                        ));
                        if stop_at_first {
                            next.store(swarm.end, Ordering::Relaxed);
                        }
                    }
                    summary.add(&report);
                    if summary.runs == (swarm.end - swarm.first).div_ceil(10) {
                        summary.memory_kib[0] = memory_kib("VmRSS:");
                    }
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
    summary.wall_seconds = begin.elapsed().as_secs_f64();
    summary.cpu_seconds = cpu_seconds() - cpu_begin;
    summary.memory_kib[1] = memory_kib("VmRSS:");
    summary.memory_kib[2] = memory_kib("VmHWM:");
    summary
}

/// Runs all seeds of a range with the options that they draw under the profile.
pub fn run_seeds(swarm: &Swarm) -> Summary {
    run_all(swarm, |seed| swarm.plan.draw(seed), false)
}

fn progress_bar(swarm: &Swarm) -> ProgressBar {
    let bar = ProgressBar::new(swarm.end - swarm.first);
    if !swarm.progress {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} seeds  {elapsed}, {eta} left");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}

impl Summary {
    fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.simulated += report.simulated;
        let (simulated, cpu) = self.times.entry(report.node_count).or_default();
        *simulated += report.simulated;
        *cpu += report.cpu;
        self.events += report.event_count;
        self.acknowledged += report.acknowledged;
        self.elections += report.elections;
        self.stops += report.stop_count;
        for (code, (injected, observable)) in &report.faults {
            let counts = self.faults.entry(code).or_default();
            counts.0 += injected;
            counts.1 += observable;
        }
        let (runs, halted) = self.contracts.entry(report.contract).or_default();
        *runs += 1;
        *halted += u64::from(report.is_halted);
        self.alone.add(report.alone);
        for (probe, hits) in &report.probes {
            *self.probes.entry(probe).or_default() += hits;
        }
        let converge = u64::try_from(report.time_to_converge.as_millis()).unwrap_or(u64::MAX);
        self.converge_ms.push(converge);
        if let Some(mechanism) = report.mechanism.filter(|_| report.violation.is_none()) {
            self.mechanism_ms.entry(mechanism).or_default().push(converge);
            let slowest = self.slowest.entry(mechanism).or_default();
            *slowest = (*slowest).max((converge, report.seed));
        }
        if let Some(violation) = &report.violation {
            self.failed.push((report.seed, violation.clone()));
        }
    }

    /// Returns how many seeds failed.
    pub fn failures(&self) -> usize {
        self.failed.len()
    }

    /// Returns the failed seeds with what was found.
    pub fn failed(&self) -> &[(u64, Violation)] {
        &self.failed
    }

    /// Returns how often each fault was injected and observable, by code.
    pub fn faults(&self) -> &BTreeMap<&'static str, (u64, u64)> {
        &self.faults
    }

    /// Returns the demanded faults that nobody could observe.
    pub fn unobserved(&self) -> Vec<&'static str> {
        let demanded = match self.plan.profile {
            Profile::Standard | Profile::Requests => DEMANDED_FAULTS,
            Profile::Storage => DEMANDED_STORAGE_FAULTS,
            Profile::Beyond => &[Fault::D9, Fault::D10],
            Profile::Forgetful => {
                &[Fault::P1, Fault::P2, Fault::P7, Fault::D6, Fault::D9, Fault::D10]
            }
        };
        let of_mode: &[Fault] = match self.plan.mode {
            Mode::PrimaryBackup => &[],
            Mode::Masterless if self.plan.profile == Profile::Beyond => &[],
            Mode::Masterless => DEMANDED_MASTERLESS_FAULTS,
        };
        let codes = demanded.iter().chain(of_mode).map(|fault| fault.code());
        let seen = |code: &&str| self.faults.get(code).is_some_and(|(_, seen)| *seen > 0);
        codes.filter(|code| !seen(code)).collect()
    }

    /// Returns what was demanded and did not happen: faults that nobody could observe, and that a
    /// quorum had to serve alone.
    pub fn missing(&self) -> Vec<&'static str> {
        let alone = self.lacks_quorum_alone().then_some("a quorum alone");
        self.unobserved().into_iter().chain(alone).collect()
    }

    /// Tells whether there were enough seeds for all that is demanded, and something is missing.
    pub fn is_vacuous(&self) -> bool {
        self.runs >= vacuity_seeds(self.plan.profile) && !self.missing().is_empty()
    }

    /// Tells whether no quorum ever had to serve alone. Runs that lose too much have none.
    fn lacks_quorum_alone(&self) -> bool {
        self.plan.profile != Profile::Beyond && self.alone.served_count() == 0
    }

    /// Returns how often a quorum had to serve alone.
    pub fn alone(&self) -> &Tally {
        &self.alone
    }

    /// Returns how many runs were held to each contract, and how many of them did not serve in the
    /// end.
    pub fn contracts(&self) -> &BTreeMap<Contract, (u64, u64)> {
        &self.contracts
    }

    /// Returns how often each probe was hit.
    pub fn probes(&self) -> &BTreeMap<&'static str, u64> {
        &self.probes
    }

    /// Returns the simulated seconds per second of processor time.
    pub fn speed(&self) -> f64 {
        self.simulated.as_secs_f64() / self.cpu_seconds.max(0.01)
    }

    /// Returns the simulated seconds per second of processor time by the number of nodes, without
    /// what it takes to start a run and to clean up after it.
    pub fn speeds(&self) -> BTreeMap<u64, f64> {
        let speed = |(simulated, cpu): (Duration, Duration)| {
            simulated.as_secs_f64() / cpu.as_secs_f64().max(0.01)
        };
        self.times.iter().map(|(nodes, times)| (*nodes, speed(*times))).collect()
    }

    /// Returns the events of the trace per second of processor time.
    pub fn events_per_cpu_second(&self) -> f64 {
        float(self.events) / self.cpu_seconds.max(0.01)
    }

    /// Returns how many of a count there were per simulated second: a fast run of idle clusters
    /// proves little.
    fn per_simulated_second(&self, count: u64) -> f64 {
        float(count) / self.simulated.as_secs_f64().max(0.01)
    }

    /// Returns the memory of this process in KiB: after a tenth of the runs, at the end, and the
    /// most that it ever was.
    pub fn memory_kib(&self) -> [u64; 3] {
        self.memory_kib
    }

    /// Returns the processor seconds of all runs.
    pub fn cpu_seconds(&self) -> f64 {
        self.cpu_seconds
    }

    /// Returns the processor seconds of one seed on average.
    pub fn cpu_seconds_per_seed(&self) -> f64 {
        self.cpu_seconds / float(self.runs.max(1))
    }

    fn converge_percentile(&self, percent: usize) -> u64 {
        percentile(&self.converge_ms, percent)
    }

    /// Returns how long each mechanism took to make the replicas equal, in milliseconds: number of
    /// runs, median, 95th and 99th percentile, longest; and the seed of the longest.
    pub fn convergence(&self) -> BTreeMap<&'static str, [u64; 6]> {
        let row = |(mechanism, times): (&Mechanism, &Vec<u64>)| {
            let count = u64::try_from(times.len()).unwrap_or(u64::MAX);
            let at = |percent| percentile(times, percent);
            let (longest, seed) = self.slowest.get(mechanism).copied().unwrap_or_default();
            (mechanism.name(), [count, at(50), at(95), at(99), longest, seed])
        };
        self.mechanism_ms.iter().map(row).collect()
    }

    fn convergence_table(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.set_header([
            "equal after healing by",
            "runs",
            "median ms",
            "p95",
            "p99",
            "max",
            "its seed",
        ]);
        for (name, row) in self.convergence() {
            let numbers = row.iter().map(ToString::to_string);
            table.add_row(std::iter::once(name.to_owned()).chain(numbers));
        }
        table.to_string()
    }

    fn faults_to_table(&self) -> comfy_table::Table {
        let mut faults = comfy_table::Table::new();
        faults.set_header(["fault", "what it is", "injected", "observable"]);
        for (code, (injected, observable)) in &self.faults {
            let what = Fault::of(code).map_or("", Fault::what);
            faults.add_row([*code, what, &injected.to_string(), &observable.to_string()]);
        }
        faults
    }

    /// Returns the summary for people.
    pub fn to_table(&self) -> String {
        let mut text = String::new();
        writeln!(
            text,
            "{} seeds ({}..{}) of {}, {} failed\n\
             {:.0} simulated s, {:.1} CPU s, {:.1} s on the clock: \
             {:.0} simulated s per CPU s, {:.0} events per CPU s, {:.4} CPU s per seed\n\
             memory: {:.1} MB after a tenth of the seeds, {:.1} MB at the end, {:.1} MB at most\n\
             {} events, {} requests answered, {} elections, {} nodes stopped by themselves; \
             per simulated s: {:.1} events, {:.1} requests\n\
             converged after healing: median {} ms, p99 {} ms",
            self.runs,
            self.first,
            self.end,
            self.plan,
            self.failed.len(),
            self.simulated.as_secs_f64(),
            self.cpu_seconds,
            self.wall_seconds,
            self.speed(),
            self.events_per_cpu_second(),
            self.cpu_seconds_per_seed(),
            megabytes(self.memory_kib[0]),
            megabytes(self.memory_kib[1]),
            megabytes(self.memory_kib[2]),
            self.events,
            self.acknowledged,
            self.elections,
            self.stops,
            self.per_simulated_second(self.events),
            self.per_simulated_second(self.acknowledged),
            self.converge_percentile(50),
            self.converge_percentile(99),
        )
        .ok();
        let speeds = self.speeds();
        let speeds = speeds.iter().map(|(nodes, speed)| format!("{speed:.0} of {nodes}"));
        writeln!(
            text,
            "simulated s per CPU s by the number of nodes: {}",
            speeds.collect::<Vec<_>>().join(", ")
        )
        .ok();
        writeln!(text, "{}", self.alone.to_line()).ok();
        for (contract, (runs, halted)) in &self.contracts {
            if *contract != Contract::MustSurvive {
                writeln!(text, "{runs} runs {contract}: {halted} of them did not serve in the end")
                    .ok();
            }
        }
        let faults = self.faults_to_table();
        let mut probes = comfy_table::Table::new();
        probes.set_header(["probe", "hits"]);
        for (probe, hits) in &self.probes {
            probes.add_row([(*probe).to_owned(), hits.to_string()]);
        }
        if !self.mechanism_ms.is_empty() {
            writeln!(text, "{}", self.convergence_table()).ok();
        }
        writeln!(text, "{faults}\n{probes}").ok();
        if self.is_vacuous() {
            writeln!(text, "VACUOUS: never observable: {}", self.missing().join(", ")).ok();
        }
        for (seed, what) in self.failed.iter().take(FAILURES_LISTED) {
            let replay = self.plan.replay_command(*seed);
            writeln!(text, "seed {seed}: {what}\n  replay: {replay}").ok();
        }
        text
    }

    /// Returns the summary for programs.
    pub fn to_json(&self) -> String {
        let faults: BTreeMap<_, _> = self
            .faults
            .iter()
            .map(|(code, (injected, observable))| {
                (code, json!({ "injected": injected, "observable": observable }))
            })
            .collect();
        let contract = |(contract, (runs, halted)): (&Contract, &(u64, u64))| {
            (contract.name(), json!({ "runs": runs, "not_serving": halted }))
        };
        let failure = |(seed, violation): &(u64, Violation)| {
            let what = violation.to_string();
            json!({ "seed": seed, "what": what })
        };
        let contracts: BTreeMap<_, _> = self.contracts.iter().map(contract).collect();
        json!({
            "mode": self.plan.mode.name(),
            "profile": self.plan.profile.name(),
            "convergence_ms": self.convergence(),
            "first_seed": self.first, "end_seed": self.end, "seeds": self.runs,
            "simulated_seconds": self.simulated.as_secs_f64(),
            "cpu_seconds": self.cpu_seconds, "wall_seconds": self.wall_seconds,
            "simulated_per_cpu_second": self.speed(), "events": self.events,
            "simulated_per_cpu_second_by_nodes": self.speeds(),
            "cpu_seconds_per_seed": self.cpu_seconds_per_seed(),
            "events_per_cpu_second": self.events_per_cpu_second(),
            "events_per_simulated_second": self.per_simulated_second(self.events),
            "acknowledged_per_simulated_second": self.per_simulated_second(self.acknowledged),
            "contracts": contracts, "quorum_alone": self.alone.to_json(),
            "memory_kib": { "after_a_tenth": self.memory_kib[0], "at_the_end": self.memory_kib[1],
            "at_most": self.memory_kib[2] },
            "acknowledged": self.acknowledged, "elections": self.elections,
            "nodes_stopped": self.stops, "unobserved": self.missing(),
            "vacuous": self.is_vacuous(), "failed": self.failed.len(),
            "converge_ms": { "p50": self.converge_percentile(50),
            "p99": self.converge_percentile(99) },
            "faults": faults, "probes": self.probes,
            "failures": self.failed.iter().map(failure).collect::<Vec<_>>(),
        })
        .to_string()
    }
}

/// Returns the value below which so many per cent lie; 100 for the largest.
pub(crate) fn percentile(values: &[u64], percent: usize) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or(0)
}

pub(crate) fn float(number: u64) -> f64 {
    let half = |bits: u64| f64::from(u32::try_from(bits & 0xffff_ffff).unwrap_or(u32::MAX));
    half(number >> 32) * 4_294_967_296.0 + half(number)
}

fn megabytes(kib: u64) -> f64 {
    float(kib) * 1024.0 / 1e6
}

/// Returns how much memory this process has, or had at most.
fn memory_kib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Returns the processor time that the thread has used; zero if the system does not tell.
pub(crate) fn thread_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// Returns the processor seconds that this process has used, in steps of 10 ms.
pub(crate) fn cpu_seconds() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = |at: usize| {
        let field = after_name.split_whitespace().nth(at);
        field.and_then(|field| field.parse::<u64>().ok()).unwrap_or(0)
    };
    float(ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    /// Evaluates `SEEDS * 2 / 3` as a shell does.
    fn share(seeds: u64, expression: &str) -> u64 {
        let mut words = expression.split_whitespace();
        let mut value = seeds;
        while let (Some(operator), Some(number)) = (words.next(), words.next()) {
            let number: u64 = number.parse().unwrap_or_else(|_| panic!("{expression:?}"));
            value = if operator == "*" { value * number } else { value / number };
        }
        value
    }

    /// Returns the seeds of each swarm that `.ci/run` runs if nobody says how many.
    fn swarms_of(script: &str) -> Vec<(Profile, u64)> {
        let (mut shares, mut swarms) = (BTreeMap::new(), Vec::new());
        for line in script.lines().map(str::trim) {
            if let Some((name, rest)) = line.split_once("=$((first_seed + ${SEEDS:-") {
                let (seeds, rest) = rest.split_once('}').unwrap();
                let expression = rest.strip_suffix(" + 1))").unwrap_or_else(|| panic!("{line}"));
                let name = name.strip_prefix("local ").unwrap();
                shares.insert(format!("\"${name}\""), share(seeds.parse().unwrap(), expression));
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["swarm_of", _, profile, "\"$first_seed\"", end] = words.as_slice() {
                swarms.push((Profile::from_str(profile, false).unwrap(), shares[*end]));
            }
        }
        swarms
    }

    #[test]
    fn every_swarm_of_the_checks_is_judged_by_the_faults_that_it_shows() {
        let swarms = swarms_of(include_str!("../../.ci/run"));
        assert_eq!(swarms.len(), 10, "{swarms:?}");
        for (profile, seeds) in swarms {
            let wanted = vacuity_seeds(profile);
            assert!(seeds >= wanted, "{} has {seeds} seeds of {wanted}", profile.name());
        }
    }

    #[test]
    fn quorum_that_never_served_alone_is_named() {
        let plan = Plan { profile: Profile::Beyond, ..Plan::default() };
        let mut summary = Summary { plan, runs: 100, ..Summary::default() };
        let seen = |codes: &[Fault]| codes.iter().map(|fault| (fault.code(), (1, 1))).collect();
        summary.faults = seen(&[Fault::D9, Fault::D10]);
        assert!(!summary.is_vacuous(), "{:?}", summary.missing());
        summary.plan.profile = Profile::Standard;
        summary.faults = seen(DEMANDED_FAULTS);
        assert_eq!((summary.is_vacuous(), summary.missing()), (false, vec!["a quorum alone"]));
        summary.runs = 600;
        assert!(summary.is_vacuous());
        assert!(summary.to_table().contains("VACUOUS: never observable: a quorum alone"));
        assert!(summary.to_json().contains("\"unobserved\":[\"a quorum alone\"]"));
    }
}
