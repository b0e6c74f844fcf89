//! What was measured as tables for people, and as JSON for programs.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use super::Measured;
use super::curves::{Curve, PATIENCE};
use super::figures::{Sample, Series};
use super::limits::{JUDGED_SEEDS, Limit, exceeded, limit};
use crate::options::Plan;

/// The percentiles that are shown: name, and per cent.
pub(super) const PERCENTILES: [(&str, usize); 4] =
    [("median", 50), ("p90", 90), ("p99", 99), ("max", 100)];

/// Heads of the table of steps.
pub(super) const STEP_HEADS: [&str; 13] = [
    "after healing",
    "runs",
    "median ms",
    "p90",
    "p99",
    "max",
    "median units",
    "p90",
    "p99",
    "max",
    "limits",
    "unit",
    "slowest seed",
];

/// Heads of the table of faults.
pub(super) const FAULT_HEADS: [&str; 5] =
    ["fault", "runs", "lowest %", "lost s", "as usual after s"];

/// Returns a row of the table of steps.
pub(super) fn step_row(runs: Plan, series: &Series) -> [String; 13] {
    let ms = PERCENTILES.map(|(_, percent)| format!("{:.0}", series.ms(percent)));
    let units = PERCENTILES.map(|(_, percent)| format!("{:.2}", series.units(percent)));
    let Limit { p99, max } = limit(runs, series.step);
    let ([ms50, ms90, ms99, ms100], [units50, units90, units99, units100]) = (ms, units);
    [
        series.step.name(),
        series.runs().to_string(),
        ms50,
        ms90,
        ms99,
        ms100,
        units50,
        units90,
        units99,
        units100,
        format!("{p99:.1}, {max:.1}"),
        series.unit.to_owned(),
        series.slowest().map_or(String::new(), |slowest| slowest.seed.to_string()),
    ]
}

/// Returns a row of the table of faults.
pub(super) fn fault_row(curve: &Curve) -> [String; 5] {
    [
        curve.kind.to_owned(),
        curve.runs.to_string(),
        format!("{:.1}", curve.lowest()),
        format!("{:.2}", curve.lost_seconds()),
        curve.usual_after().map_or("later".to_owned(), |seconds| format!("{seconds:.2}")),
    ]
}

/// Returns what was measured for people.
pub fn to_table(measured: &Measured) -> String {
    let mut steps = comfy_table::Table::new();
    steps.set_header(STEP_HEADS);
    for series in &measured.series {
        steps.add_row(step_row(measured.runs, series));
    }
    let mut text = steps.to_string();
    // Writing to a string cannot fail.
    _ = write!(
        text,
        "\nLimits are of p99 and of the longest run, in units. The slowest run took the most \
         units; see it: {}",
        measured.again_with("SEED")
    );
    let few = measured.series.iter().filter(|series| series.runs() < JUDGED_SEEDS);
    let few: Vec<String> = few.map(|series| series.step.name()).collect();
    if !few.is_empty() {
        let few = few.join("; ");
        _ = write!(
            text,
            "\nFewer than {JUDGED_SEEDS} runs, so that only the longest is judged: {few}."
        );
    }
    if !measured.curves.is_empty() {
        let mut faults = comfy_table::Table::new();
        faults.set_header(FAULT_HEADS);
        for curve in &measured.curves {
            faults.add_row(fault_row(curve));
        }
        _ = write!(
            text,
            "\n{faults}\nOne fault alone, under load: the lowest share of requests that were \
             answered within {PATIENCE:?} of their time\nin a quarter of a second, and what was \
             missing over ten seconds, in seconds of everything."
        );
    }
    for excess in exceeded(measured.runs, &measured.series) {
        _ = write!(text, "\nTOO SLOW: {excess}\n  see it: {}", measured.again(excess.seed));
    }
    text
}

/// Returns what was measured for programs.
pub fn to_json(measured: &Measured) -> String {
    let steps: Vec<Json> =
        measured.series.iter().map(|series| of_series(measured.runs, series)).collect();
    let too_slow: Vec<Json> = exceeded(measured.runs, &measured.series)
        .iter()
        .map(|excess| {
            json!({
                "step": excess.step.code(), "figure": excess.figure, "units": excess.units.0,
                "limit": excess.units.1, "seed": excess.seed,
                "see_it": measured.again(excess.seed),
            })
        })
        .collect();
    let faults: Vec<Json> = measured.curves.iter().map(of_curve).collect();
    json!({
        "mode": measured.runs.mode.name(), "profile": measured.runs.profile.name(),
        "after_healing": steps, "too_slow": too_slow,
        "broken": measured.broken, "availability": faults,
    })
    .to_string()
}

fn of_series(runs: Plan, series: &Series) -> Json {
    let figures = |value: &dyn Fn(usize) -> f64, longest: Option<&Sample>| {
        let mut figures: serde_json::Map<String, Json> = PERCENTILES
            .iter()
            .map(|(name, percent)| ((*name).to_owned(), json!(value(*percent))))
            .collect();
        figures.insert("max_seed".to_owned(), json!(longest.map(|sample| sample.seed)));
        figures
    };
    let Limit { p99, max } = limit(runs, series.step);
    json!({
        "step": series.step.code(), "runs": series.runs(), "unit": series.unit,
        "ms": figures(&|percent| series.ms(percent), series.longest()),
        "units": figures(&|percent| series.units(percent), series.slowest()),
        "limits": { "p99": p99, "max": max },
        "is_p99_judged": series.runs() >= JUDGED_SEEDS,
    })
}

fn of_curve(curve: &Curve) -> Json {
    json!({
        "fault": curve.kind, "group": curve.group, "runs": curve.runs,
        "lowest_percent": curve.lowest(), "lost_seconds": curve.lost_seconds(),
        "usual_after_seconds": curve.usual_after(), "curve": curve.shares(),
    })
}
