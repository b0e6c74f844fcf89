//! What was measured as one page that needs nothing from a network.

use std::collections::BTreeSet;

use mangrove::trial::chart::Chart;
use mangrove::trial::page::{self, escaped};

use super::Measured;
use super::curves::{AFTER, BEFORE, Curve, PATIENCE};
use super::figures::Series;
use super::limits::exceeded;
use super::table::{FAULT_HEADS, STEP_HEADS, fault_row, step_row};
use crate::compare::scenario::{CLIENTS, PACE, PATIENCE as TIMEOUT};

/// Points of a distribution.
const POINTS: u32 = 100;

/// Returns the page.
pub fn page(measured: &Measured) -> String {
    let mut html = format!("<p>Runs: {}.</p>\n", escaped(&measured.runs.to_string()));
    for excess in exceeded(measured.runs, &measured.series) {
        let line = format!("{excess}; {}", measured.again(excess.seed));
        push(&mut html, &format!("<p><b>Too slow.</b> {}</p>\n", escaped(&line)));
    }
    for line in &measured.broken {
        push(&mut html, &format!("<p><b>A promise is broken.</b> {}</p>\n", escaped(line)));
    }
    push_recovery(&mut html, measured);
    if !measured.curves.is_empty() {
        push_faults(&mut html, &measured.curves);
    }
    let title = format!("Mangrove: how fast it is back, {}", measured.runs.mode.name());
    page::page(&title, &html)
}

fn push_recovery(html: &mut String, measured: &Measured) {
    push(html, "<h2>After healing</h2>\n");
    push_table(
        html,
        &STEP_HEADS,
        measured.series.iter().map(|series| step_row(measured.runs, series)),
    );
    let note = format!(
        "From the moment when nothing is wrong any more. Limits are of p99 and of the longest \
         run, in units. The slowest run took the most units; {} shows it.",
        measured.again_with("SEED")
    );
    push(html, &format!("<p class=\"note\">{}</p>\n<div class=\"charts\">\n", escaped(&note)));
    let units: BTreeSet<&str> = measured.series.iter().map(|series| series.unit).collect();
    for unit in units {
        let own = measured.series.iter().filter(|series| series.unit == unit);
        let chart = Chart {
            title: "how long it takes after healing".to_owned(),
            x: "per cent of the runs".to_owned(),
            y: unit.to_owned(),
            x_axis: None,
            lines: own.map(|series| (series.step.name(), distribution(series))).collect(),
        };
        push(html, &chart.svg());
    }
    push(html, "</div>\n");
}

/// Returns the units within which so many per cent of the runs had done the step.
fn distribution(series: &Series) -> Vec<(f64, f64)> {
    let at = |percent: u32| usize::try_from(percent).unwrap_or(0);
    (0..=POINTS).map(|percent| (f64::from(percent), series.units(at(percent)))).collect()
}

fn push_faults(html: &mut String, curves: &[Curve]) {
    let runs = curves.iter().map(|curve| curve.runs).max().unwrap_or(0);
    let text = format!(
        "A cluster of three, {CLIENTS} clients that each ask every {} ms, reads and writes in \
         turn. One fault strikes at 0 s, at the leader where the nemesis can aim at it, as long \
         and as bad as it draws it. A request is available if it is answered within {PATIENCE:?} \
         of the time when it was due; a client that waits misses what is due meanwhile. {runs} \
         runs of each kind. Time-outs: {TIMEOUT:?}.",
        PACE.as_millis(),
    );
    push(html, "<h2>While something is wrong</h2>\n");
    push(html, &format!("<p>{}</p>\n<div class=\"charts\">\n", escaped(&text)));
    for group in curves.chunk_by(|one, next| one.group == next.group) {
        let lines = group.iter().map(|curve| (curve.kind.to_owned(), curve.shares()));
        let chart = Chart {
            title: group.first().map_or("", |curve| curve.group).to_owned(),
            x: "seconds since the fault".to_owned(),
            y: "per cent available".to_owned(),
            x_axis: Some((-BEFORE.as_secs_f64(), AFTER.as_secs_f64())),
            lines: lines.collect(),
        };
        push(html, &chart.svg());
    }
    push(html, "</div>\n");
    push_table(html, &FAULT_HEADS, curves.iter().map(fault_row));
    push(html, "<ul class=\"note\">\n");
    for note in NOTES {
        push(html, &format!("<li>{}</li>\n", escaped(note)));
    }
    push(html, "</ul>\n");
}

const NOTES: [&str; 4] = [
    "Lowest: the least share of a quarter of a second, over all runs of the kind together.",
    "Lost: what was missing over ten seconds, as seconds in which nothing would have been \
     available.",
    "As usual: 95 per cent, and so to the end of the ten seconds.",
    "Faults last as long as they are drawn, some of them longer than this. A lie and an old disk \
     show with the loss of power after them, which is at 0 s.",
];

fn push_table<const N: usize>(
    html: &mut String,
    heads: &[&str; N],
    rows: impl Iterator<Item = [String; N]>,
) {
    push(html, "<table><thead><tr>");
    for head in heads {
        push(html, &format!("<th>{}</th>", escaped(head)));
    }
    push(html, "</tr></thead><tbody>\n");
    for row in rows {
        push(html, "<tr>");
        for cell in row {
            push(html, &format!("<td>{}</td>", escaped(&cell)));
        }
        push(html, "</tr>\n");
    }
    push(html, "</tbody></table>\n");
}

fn push(html: &mut String, text: &str) {
    html.push_str(text);
}
