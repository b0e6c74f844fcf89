//! The table store against its goals, and beside redb and fjall.
//!
//! `cargo bench -p benches --bench storage [-- --quick] [--only ROW] [--peers none]`
//!
//! Each measurement is a process of its own on one processor, in a directory below `target/`.
//! Keys of 16 bytes come in random order, values of 100 bytes cannot be packed, 64 changes are
//! a batch. Rates are those of the clock; where a neighbour may have had the processor, too, the
//! rate by processor time stands beside them. `--quick` takes a tenth of the keys, for a look at
//! whether everything works: its figures mean little. Whoever stops it must stop the process that
//! measures, too: it is on the processor that the next run takes.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![expect(clippy::print_stderr, reason = "and its progress")]
#![expect(clippy::expect_used, reason = "a benchmark stops when the machine fails it")]
#![expect(clippy::disallowed_methods, reason = "benchmarks measure the real machine")]
#![expect(clippy::disallowed_types, reason = "benchmarks measure the real machine")]

mod measure;
mod store;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use benches::float;
use benches::plot::Chart;
use tempfile::TempDir;

use self::measure::{LATER_STEPS, Task};
use self::store::{fjall::Fjall, mangrove::Mangrove, redb::Redb};

/// All stores are measured with the allocator of the shipped program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Named on the command line of a process that measures.
const CHILD: &str = "--measure";

const STORES: [&str; 3] = ["mangrove", "redb", "fjall"];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let after = |flag: &str| {
        let at = arguments.iter().position(|argument| argument == flag)?;
        arguments.get(at + 1).cloned()
    };
    if let Some(name) = after(CHILD) {
        let key_count = after("--keys").and_then(|keys| keys.parse().ok()).expect("--keys");
        let directory = PathBuf::from(after("--directory").expect("--directory"));
        let task = Task { name, key_count, directory };
        return match after("--store").as_deref() {
            Some("redb") => task.run::<Redb>(),
            Some("fjall") => task.run::<Fjall>(),
            _ => task.run::<Mangrove>(),
        };
    }
    let is_quick = arguments.iter().any(|argument| argument == "--quick");
    let has_peers = after("--peers").is_none_or(|peers| peers != "none");
    let run = Run { million: if is_quick { 100_000 } else { 1_000_000 }, has_peers };
    let only = after("--only");
    let is_wanted = |row: &str| only.as_ref().is_none_or(|only| only == row);
    if is_quick {
        println!("quick: a tenth of the keys");
    }
    let rows: [(&str, Row); 5] = [
        ("B3", Run::puts),
        ("B4", Run::reads),
        ("B5", Run::growth),
        ("B7", Run::amplification),
        ("B6", Run::memory_and_restart),
    ];
    for (row, measure) in rows {
        // One store is filled for both of them.
        if is_wanted(row) || (row == "B6" && is_wanted("B8")) {
            measure(&run);
        }
    }
}

/// Measures a row, or two that share a store, and prints it.
type Row = fn(&Run);

/// What a measurement printed, in order.
type Figures = Vec<(String, f64)>;

/// How much is measured.
struct Run {
    /// What counts as a million keys.
    million: u64,
    has_peers: bool,
}

impl Run {
    fn stores(&self) -> &[&str] {
        if self.has_peers { &STORES } else { STORES.get(..1).unwrap_or_default() }
    }

    /// B3: random puts, flushes and compactions included.
    fn puts(&self) {
        let mut rates = BTreeMap::new();
        for &store in self.stores() {
            let figures = measure(store, "puts", self.million, scratch().path());
            let [accepted, settled, cpu, longest] =
                ["accepted_per_s", "settled_per_s", "per_cpu_s", "longest_ms"]
                    .map(|name| figure(&figures, name));
            println!(
                "B3 {store:<8} {accepted:>9.0} puts/s accepted, {settled:>9.0}/s with all work \
                 after it, {cpu:>9.0}/s of processor time, longest pause {longest:.1} ms"
            );
            rates.insert(store, (accepted, settled));
            if store == "mangrove" {
                verdict("B3", "puts/s, all work included", settled, Goal::AtLeast(400_000.0));
                verdict("B3", "longest pause, ms", longest, Goal::Below(50.0));
            }
        }
        print_ratios("B3 accepted", &rates, |rates| rates.0);
        print_ratios("B3 all work", &rates, |rates| rates.1);
    }

    /// B4: reads from tables that lie in the cache.
    fn reads(&self) {
        let goals = [
            ("get_per_s", "cached reads/s", 400_000.0),
            ("absent_per_s", "reads of absent keys/s", 1_000_000.0),
            ("scan_per_s", "cells/s of a full scan", 5_000_000.0),
        ];
        let mut rates = BTreeMap::new();
        for &store in self.stores() {
            let figures = measure(store, "reads", self.million, scratch().path());
            for (name, what, goal) in goals {
                let rate = figure(&figures, name);
                println!("B4 {store:<8} {rate:>10.0} {what}");
                if store == "mangrove" {
                    verdict("B4", what, rate, Goal::AtLeast(goal));
                }
            }
            rates.insert(store, goals.map(|(name, _, _)| figure(&figures, name)));
        }
        for (number, (_, what, _)) in (0..).zip(goals) {
            let nth = |rates: &[f64; 3]| rates.get(number).copied().unwrap_or_default();
            print_ratios(&format!("B4 {what}"), &rates, nth);
        }
    }

    /// B5: puts into stores of any size, and ten million into one of ten million.
    fn growth(&self) {
        let figures = measure("mangrove", "growth", 10 * self.million, scratch().path());
        let points = |name: &str| -> Vec<(f64, f64)> {
            let values = |name| figures.iter().filter(move |figure| figure.0 == name);
            let pairs = values("size").zip(values(name));
            pairs.map(|(size, value)| (size.1, value.1)).collect()
        };
        let settled = points("settled_per_s");
        let lines = [("accepted", "accepted_per_s"), ("with all work after it", "settled_per_s")];
        for (size, rate) in points("per_cpu_s") {
            println!("B5 mangrove {rate:>9.0}/s of processor time, into {size:.0} cells");
        }
        for (size, rate) in &settled {
            println!("B5 mangrove {rate:>9.0} puts/s with all work, into {size:.0} cells");
        }
        // Rates are added up as times: what a step takes counts as often as it is taken.
        let later = |points: &[(f64, f64)]| {
            let count = usize::try_from(LATER_STEPS).unwrap_or(usize::MAX);
            let times: Vec<f64> =
                points.iter().rev().take(count).map(|point| 1.0 / point.1).collect();
            let first = points.first().map_or(f64::NAN, |point| 1.0 / point.1);
            let sum: f64 = times.iter().sum();
            let longest = times.iter().fold(0.0, |longest: f64, time| longest.max(*time));
            (first * float(LATER_STEPS) / sum, first / longest)
        };
        for (what, name) in [("accepted", "accepted_per_s"), ("processor time", "per_cpu_s")] {
            let (mean, worst) = later(&points(name));
            println!("B5 largest / first, {what}: {mean:.2}, the slowest of its steps {worst:.2}");
        }
        let (mean, worst) = later(&settled);
        println!("B5 largest / first, all work: {mean:.2}, the slowest of its steps {worst:.2}");
        verdict("B5", "rate into the largest / into none", mean, Goal::AtLeast(0.7));
        let chart = Chart {
            title: "Random puts into a store that grows".to_owned(),
            x: "cells in the store".to_owned(),
            y: "puts/s".to_owned(),
            x_axis: None,
            lines: lines.map(|(title, name)| (title.to_owned(), points(name))).into(),
        };
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("storage.svg");
        std::fs::write(&path, chart.svg()).expect("space");
        println!("B5 plot: {}", path.display());
    }

    /// B7: what is written, and what is kept, of each byte.
    fn amplification(&self) {
        for &store in self.stores() {
            let figures = measure(store, "rewrite", 3 * self.million, scratch().path());
            let written = figure(&figures, "write_amplification");
            let kept = figure(&figures, "space_amplification");
            println!("B7 {store:<8} write amplification {written:.2}, space {kept:.2}");
            if store == "mangrove" {
                verdict("B7", "space / live data", kept, Goal::AtMost(1.5));
            }
        }
    }

    /// B6: the memory that a large store takes; B8: the time until it serves again.
    fn memory_and_restart(&self) {
        let directory = scratch();
        let count = 10 * self.million;
        let figures = measure("mangrove", "fill", count, directory.path());
        let (gets, longest) = (figure(&figures, "get_per_s"), figure(&figures, "longest_ms"));
        println!(
            "B6 mangrove {gets:.0} reads/s, few of them cached; longest pause {longest:.1} ms"
        );
        let peak = figure(&figures, "peak_bytes") / float(1 << 20);
        verdict("B6", "peak memory, MiB", peak, Goal::Below(300.0));
        let figures = measure("mangrove", "restart", count, directory.path());
        let [open, serves, entries] =
            ["open_s", "serves_s", "entries"].map(|name| figure(&figures, name));
        println!("B8 mangrove opens in {open:.3} s, then applies {entries:.0} entries");
        verdict("B8", "restart, s", serves, Goal::AtMost(3.0));
    }
}

/// What a value ought to be.
#[derive(Debug, Clone, Copy)]
enum Goal {
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
}

fn verdict(row: &str, what: &str, value: f64, goal: Goal) {
    let (is_reached, sign, bound) = match goal {
        Goal::AtLeast(bound) => (value >= bound, ">=", bound),
        Goal::AtMost(bound) => (value <= bound, "<=", bound),
        Goal::Below(bound) => (value < bound, "<", bound),
    };
    let answer = if is_reached { "yes" } else { "no" };
    let shown = if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") };
    println!("{row} {what}: {shown} (goal {sign} {bound}): {answer}");
}

fn print_ratios<T>(what: &str, rates: &BTreeMap<&str, T>, value: impl Fn(&T) -> f64) {
    let Some(own) = rates.get("mangrove").map(&value) else { return };
    for (store, rate) in rates.iter().filter(|(store, _)| **store != "mangrove") {
        println!("{what}: {:.2} x {store}", own / value(rate));
    }
}

fn figure(figures: &Figures, name: &str) -> f64 {
    let found = figures.iter().find(|figure| figure.0 == name);
    found.unwrap_or_else(|| panic!("no {name} among {figures:?}")).1
}

/// Makes a directory on the disk that the build lies on; it goes with what is returned.
fn scratch() -> TempDir {
    let builder =
        tempfile::Builder::new().prefix("storage-").tempdir_in(env!("CARGO_TARGET_TMPDIR"));
    builder.expect("a directory")
}

/// Runs a measurement in a process of its own; returns what it printed.
fn measure(store: &str, name: &str, key_count: u64, directory: &Path) -> Figures {
    let child = Command::new(std::env::current_exe().expect("this program"))
        .args([CHILD, name, "--store", store, "--keys", &key_count.to_string(), "--directory"])
        .arg(directory)
        .stderr(Stdio::inherit())
        .output()
        .expect("this program runs");
    assert!(child.status.success(), "{name} of {store}: {}", child.status);
    let printed = String::from_utf8_lossy(&child.stdout);
    let figures = printed.lines().filter_map(|line| line.split_once(' '));
    figures.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
}
