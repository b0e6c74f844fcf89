//! Stores side by side: the same loads on each in turn, the same fault, and what came out.
//!
//! Everything runs on one machine, so absolute figures are of that machine, and of what else it did
//! meanwhile. Therefore the stores take turns: round by round each of them gets each load for some
//! seconds, and medians over the rounds are compared. While one is measured the others are idle:
//! a load begins when all have done what the loads before it left them to do, such as merging
//! tables, or has a note.
//!
//! # What is measured
//! Writes and reads with one request in flight on each connection; writes with 16; writes of a
//! single client. With them processor time, bytes on disk and on the loopback interface per
//! request. Then, a few times, a load of half reads through which the node that leads is killed
//! with SIGKILL and started again: the longest time without an acknowledged write, errors, and
//! reads that did not see what was acknowledged before.
//!
//! How throughput depends on what a store holds is another question, which [`grow`] answers.
//!
//! # Left out
//! Several machines: nodes that share two processors take from each other what they need, which
//! favours whoever needs little.

mod growth;
mod page;
mod subject;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join;
use serde::Serialize;

use super::load::{Load, Outcome, Slice};
use super::usage::{Usage, bytes_in, memory_bytes};
use crate::env::Env;
use crate::env::real::RealEnv;

pub use self::growth::{Curve, Growth, GrowthOptions, Point, columns, grow, growth_page, repeated};
pub use self::page::{page, ratios, rows};
use self::subject::Subject;

/// Requests in flight on each connection, where it is not one.
const DEEP: usize = 16;

/// The load through the fault: how long, when the node is killed, and how long it is down.
const FAULT_LENGTH: Duration = Duration::from_secs(8);
const FAULT_KILL: Duration = Duration::from_secs(2);
const FAULT_DOWN: Duration = Duration::from_secs(3);

/// Time after a start, or a fault, until all is calm again.
const SETTLE: Duration = Duration::from_secs(1);

/// A process is at rest if it uses less of a processor than this: heartbeats, and whatever else is
/// done without a load.
const REST_SHARE: f64 = 0.03;

/// For how long it is looked at.
const REST_LOOK: Duration = Duration::from_millis(500);

/// How long a load waits for the stores to come to rest.
const REST_MAX: Duration = Duration::from_secs(20);

/// What is compared, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program that the nodes run.
    pub program: PathBuf,
    /// Where the stores keep their data.
    pub directory: PathBuf,
    /// Whether other stores than ours are measured.
    pub peers: bool,
    /// How often each load is put on each store.
    pub rounds: u32,
    /// How long.
    pub duration: Duration,
    /// How often the leader is killed.
    pub faults: u32,
    /// Cells that are written first.
    pub fill: u32,
    /// What the loads have in common.
    pub load: Load,
}

/// What came out of one load on one store, over all rounds.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Figures {
    /// Requests answered each second; the median of the rounds, as everything here.
    pub per_second: f64,
    /// Latencies in milliseconds.
    pub p50_ms: f64,
    /// Ninety-nine of a hundred are shorter.
    pub p99_ms: f64,
    /// 999 of a thousand are shorter.
    pub p999_ms: f64,
    /// Processor time of all its processes for a thousand requests, in milliseconds.
    pub cpu_ms_per_1000: f64,
    /// Bytes that its processes caused to be written to disks, for each request.
    pub disk_bytes_per_request: f64,
    /// Bytes on the loopback interface, for each request.
    pub network_bytes_per_request: f64,
    /// Requests that failed, in all rounds.
    pub errors: u64,
}

/// What came out of the faults on one store.
#[derive(Debug, Clone, Default, Serialize)]
pub struct FaultFigures {
    /// Longest time without an acknowledged write through each fault, in milliseconds.
    pub gaps_ms: Vec<f64>,
    /// The median of them.
    pub gap_ms: f64,
    /// Requests that failed, in all of them.
    pub errors: u64,
    /// Reads that did not see what was acknowledged before.
    pub stale_reads: u64,
    /// Reads that were compared.
    pub reads: u64,
    /// The first one, tenth by tenth of a second.
    pub timeline: Vec<Slice>,
}

/// What came out for one store.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Column {
    /// Which store, how set up.
    pub name: String,
    /// Writes, one in flight.
    pub sets: Figures,
    /// Reads, one in flight.
    pub gets: Figures,
    /// Writes, 16 in flight.
    pub deep_sets: Figures,
    /// Writes of a single client.
    pub lone_sets: Figures,
    /// What happened when the leader was killed; of stores that have another one then.
    pub fault: Option<FaultFigures>,
    /// Resident memory of all processes in the end, in bytes.
    pub memory_bytes: u64,
    /// Bytes of all files in the end.
    pub data_bytes: u64,
}

/// What came out.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Comparison {
    /// What was measured, in words.
    pub setup: String,
    /// What is missing, and why.
    pub notes: Vec<String>,
    /// Store by store; ours first.
    pub columns: Vec<Column>,
}

/// One store with what it has come to so far.
struct Contestant {
    subject: Subject,
    rounds: [Vec<Figures>; 4],
    faults: Vec<Outcome>,
}

/// The loads of a round.
const LOADS: [&str; 4] = ["writes", "reads", "writes, 16 in flight", "writes, one client"];

/// Measures; `on_step` hears what is done next.
///
/// # Errors
/// A store that is there does not start, or cannot be reached.
pub async fn run(options: &Options, mut on_step: impl FnMut(&str)) -> io::Result<Comparison> {
    let env = RealEnv::client();
    let mut notes = Vec::new();
    let mut contestants = Vec::new();
    for subject in Subject::start_all(&env, options, &mut notes, &mut on_step).await? {
        let (rounds, faults) = (std::array::from_fn(|_| Vec::new()), Vec::new());
        contestants.push(Contestant { subject, rounds, faults });
    }
    env.sleep(SETTLE).await;
    if options.fill > 0 {
        for contestant in &contestants {
            on_step(&format!("filling {}", contestant.subject.name()));
            contestant.subject.fill(&env, options.fill, options.load.value_bytes).await?;
        }
    }
    let processes = processes_of(&contestants);
    for round in 0..options.rounds {
        for (number, name) in LOADS.iter().enumerate() {
            for contestant in &mut contestants {
                let subject = &contestant.subject;
                let step = format!("round {}: {name}, {}", round + 1, subject.name());
                on_step(&step);
                if !come_to_rest(&env, &processes, REST_MAX).await {
                    notes.push(format!("others were still at work: {step}"));
                }
                let figures = measure(&env, subject, &load_of(options, number, round)).await?;
                if let Some(rounds) = contestant.rounds.get_mut(number) {
                    rounds.push(figures);
                }
            }
        }
    }
    for fault in 0..options.faults {
        for at in 0..contestants.len() {
            // Those that were started again are others.
            let processes = processes_of(&contestants);
            let Some(contestant) = contestants.get_mut(at) else { continue };
            if contestant.subject.has_others() {
                let step = format!("fault {}: {}", fault + 1, contestant.subject.name());
                on_step(&step);
                if !come_to_rest(&env, &processes, REST_MAX).await {
                    notes.push(format!("others were still at work: {step}"));
                }
                let outcome = through_fault(&env, &mut contestant.subject, options, fault).await?;
                contestant.faults.push(outcome);
            }
        }
    }
    let columns = contestants.into_iter().map(|contestant| contestant.finish(options));
    Ok(Comparison { setup: setup(options), notes, columns: columns.collect() })
}

/// Returns the processes of all stores.
fn processes_of(contestants: &[Contestant]) -> Vec<u32> {
    contestants.iter().flat_map(|contestant| contestant.subject.process_ids()).collect()
}

/// Returns one of the loads of a round.
fn load_of(options: &Options, number: usize, round: u32) -> Load {
    let load = Load {
        duration: options.duration,
        warm_up: Duration::from_millis(300),
        seed: options.load.seed + u64::from(round),
        ..options.load.clone()
    };
    match number {
        0 => load,
        1 => Load { read_share: 1.0, ..load },
        2 => Load { in_flight: DEEP, ..load },
        _ => Load { connections: 1, ..load },
    }
}

/// Waits until processes are at rest, all together; false if they are not for so long.
async fn come_to_rest(env: &RealEnv, processes: &[u32], at_most: Duration) -> bool {
    let share = REST_SHARE * super::load::float(processes.len() as u64);
    let since = env.now();
    loop {
        let before = Usage::of(processes);
        env.sleep(REST_LOOK).await;
        if Usage::of(processes).since(before).cpu_ms < share * REST_LOOK.as_secs_f64() * 1e3 {
            return true;
        }
        if env.now().since(since) > at_most {
            return false;
        }
    }
}

/// Puts one load on one store.
async fn measure(env: &RealEnv, subject: &Subject, load: &Load) -> io::Result<Figures> {
    let processes = subject.process_ids();
    let connections = subject.connect(env, load.connections).await?;
    let before = Usage::of(&processes);
    let outcome = connections.run(env, load).await;
    let used = Usage::of(&processes).since(before);
    let all = outcome.all();
    // What was used in the warm-up was used for requests that do not count.
    let length = (load.warm_up + load.duration).as_secs_f64();
    let share = load.duration.as_secs_f64() / length;
    let count = super::load::float(all.count()).max(1.0);
    let per_request = |bytes: u64| super::load::float(bytes) * share / count;
    Ok(Figures {
        per_second: outcome.per_second(),
        p50_ms: all.percentile_ms(50.0),
        p99_ms: all.percentile_ms(99.0),
        p999_ms: all.percentile_ms(99.9),
        cpu_ms_per_1000: used.cpu_ms * share / count * 1e3,
        disk_bytes_per_request: per_request(used.disk_bytes),
        network_bytes_per_request: per_request(used.loopback_bytes),
        errors: outcome.error_count(),
    })
}

/// Puts a load of half reads on a store, kills its leader and starts it again.
async fn through_fault(
    env: &RealEnv,
    subject: &mut Subject,
    options: &Options,
    fault: u32,
) -> io::Result<Outcome> {
    let load = Load {
        duration: FAULT_LENGTH,
        read_share: 0.5,
        finds_stale: true,
        // Few, so that reads meet what was just written.
        key_count: 1_000.min(options.load.key_count),
        seed: options.load.seed + u64::from(fault),
        ..options.load.clone()
    };
    let victim = subject.leader(env).await?;
    let connections = subject.connect(env, load.connections).await?;
    let disturbing = async {
        env.sleep(FAULT_KILL).await;
        subject.kill(victim)?;
        env.sleep(FAULT_DOWN).await;
        subject.start(victim)
    };
    let (outcome, disturbed) = join(connections.run(env, &load), disturbing).await;
    disturbed?;
    env.sleep(SETTLE).await;
    Ok(outcome)
}

impl Contestant {
    fn finish(self, options: &Options) -> Column {
        let Self { subject, rounds, faults } = self;
        let [sets, gets, deep_sets, lone_sets] = rounds.map(|rounds| medians(&rounds));
        let processes = subject.process_ids();
        let memory = processes.iter().map(|process| memory_bytes(*process).0).sum();
        let directory = subject.directory(&options.directory);
        Column {
            name: subject.name().to_owned(),
            sets,
            gets,
            deep_sets,
            lone_sets,
            fault: fault_figures(&faults),
            memory_bytes: memory,
            data_bytes: bytes_in(&directory),
        }
    }
}

fn fault_figures(faults: &[Outcome]) -> Option<FaultFigures> {
    let first = faults.first()?;
    // Without a write that was even tried, there was none in all of the time.
    let gap_of = |outcome: &Outcome| outcome.longest_gap.unwrap_or(outcome.elapsed);
    let gaps_ms: Vec<f64> =
        faults.iter().map(|outcome| gap_of(outcome).as_secs_f64() * 1e3).collect();
    Some(FaultFigures {
        gap_ms: median(gaps_ms.clone()),
        gaps_ms,
        errors: faults.iter().map(Outcome::error_count).sum(),
        stale_reads: faults.iter().map(|outcome| outcome.stale_reads).sum(),
        reads: faults.iter().map(|outcome| outcome.gets.count()).sum(),
        timeline: first.timeline.clone(),
    })
}

/// Returns the median of each figure.
fn medians(rounds: &[Figures]) -> Figures {
    let of = |figure: fn(&Figures) -> f64| median(rounds.iter().map(figure).collect());
    Figures {
        per_second: of(|figures| figures.per_second),
        p50_ms: of(|figures| figures.p50_ms),
        p99_ms: of(|figures| figures.p99_ms),
        p999_ms: of(|figures| figures.p999_ms),
        cpu_ms_per_1000: of(|figures| figures.cpu_ms_per_1000),
        disk_bytes_per_request: of(|figures| figures.disk_bytes_per_request),
        network_bytes_per_request: of(|figures| figures.network_bytes_per_request),
        errors: rounds.iter().map(|figures| figures.errors).sum(),
    }
}

/// Returns the median; the upper one of two.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn setup(options: &Options) -> String {
    let Options { rounds, duration, fill, load, .. } = options;
    let Load { connections, value_bytes, key_count, distribution, .. } = load;
    format!(
        "{connections} connections, keys of 16 B ({key_count}, {distribution:?}), values of \
         {value_bytes} B, {fill} cells written first; medians of {rounds} rounds of {duration:?}, \
         taking turns"
    )
}

/// Returns a directory for one store.
fn directory_of(directory: &Path, name: &str) -> PathBuf {
    directory.join(name.replace(|c: char| !c.is_ascii_alphanumeric(), "-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_taken_figure_by_figure() {
        let rounds: Vec<Figures> = [(3.0, 1.0), (1.0, 9.0), (2.0, 5.0)]
            .map(|(per_second, p50_ms)| Figures {
                per_second,
                p50_ms,
                errors: 2,
                ..Figures::default()
            })
            .into();
        let medians = medians(&rounds);
        assert!((medians.per_second - 2.0).abs() < 1e-9 && (medians.p50_ms - 5.0).abs() < 1e-9);
        assert_eq!(medians.errors, 6, "errors are not passed over");
    }

    #[test]
    fn directory_has_a_plain_name() {
        let directory = directory_of(Path::new("/d"), "redis + 2 replicas");
        assert_eq!(directory, Path::new("/d/redis---2-replicas"));
    }
}
