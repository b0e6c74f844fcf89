//! A comparison as one page that needs nothing from a network.

use std::fmt::Write as _;

use mangrove::trial::chart::Chart;
use mangrove::trial::page::{self, escaped};

use super::figures::{Figures, SLICE};
use super::scenario::{CLIENTS, PACE, PATIENCE};
use super::table::COLUMNS;
use super::{Row, Subject};
use crate::swarm::percentile;

/// Returns the page.
pub fn page(rows: &[Row]) -> String {
    let runs = rows.first().and_then(|row| row.figures.first()).map_or(0, |figures| figures.runs);
    let mut html = format!(
        "<p>A simulated cluster of three nodes, {CLIENTS} clients that each ask every {} ms, reads \
         and writes in turn, of eight keys. {runs} runs of each scenario with each subject. \
         Election time-out, and time-out of a masterless request: {} ms; clients turn to another \
         node after twice that.</p>\n",
        PACE.as_millis(),
        PATIENCE.as_millis(),
    );
    push_overview(&mut html, rows);
    for row in rows {
        push_scenario(&mut html, row);
    }
    push(&mut html, "<h2>How to read this</h2>\n<ul class=\"note\">\n");
    for note in NOTES {
        push(&mut html, &format!("<li>{}</li>\n", escaped(note)));
    }
    push(&mut html, "</ul>\n");
    page::page("Mangrove: two modes, the same accidents", &html)
}

const NOTES: [&str; 7] = [
    "Answered: of the requests that were due. A client that waits misses what is due meanwhile, so \
     a time-out costs several.",
    "Longest gap: the longest time in a run in which no write of any client was acknowledged; the \
     median over the runs, and the longest of all.",
    "Refused: certainly not applied, or a read without an answer. Unknown: the client cannot tell \
     whether a write was applied, and is told so.",
    "A stale read returned a value although another one had been written, and acknowledged, \
     entirely after it and before the read began. Reads at ONE may: they ask one replica. The \
     primary-backup mode never does, and the checkers demand it. At QUORUM it takes a clock that \
     is behind: the newer write got the older stamp.",
    "A lost write was acknowledged, and in the end an older one stands in its place. Nothing that \
     was acknowledged is missing on the disks: it was replaced, because a clock said that it was \
     older.",
    "Equal after: from the end of the load, when everything is healed, until all replicas have the \
     same.",
    "Segments and bytes: what nodes sent each other, heartbeats and repair included, for each \
     request that was answered. Batching over more load makes them fewer.",
];

/// One line for each scenario: what matters most of each subject.
fn push_overview(html: &mut String, rows: &[Row]) {
    push(html, "<h2>At a glance</h2>\n<table><thead><tr><th>median of the longest gaps, ms</th>");
    for subject in Subject::ALL {
        push(html, &format!("<th>{}</th>", subject.name()));
    }
    push(html, "</tr></thead><tbody>\n");
    for row in rows {
        let name = row.scenario.name;
        push(html, &format!("<tr><td><a href=\"#{name}\">{name}</a></td>"));
        for figures in &row.figures {
            push(html, &format!("<td>{}</td>", glance(figures)));
        }
        push(html, "</tr>\n");
    }
    push(html, "</tbody></table>\n");
}

fn glance(figures: &Figures) -> String {
    let mut text = percentile(&figures.gaps_ms, 50).to_string();
    if figures.stale > 0 {
        _ = write!(text, ", {} stale reads", figures.stale);
    }
    if figures.lost > 0 {
        _ = write!(text, ", {} writes lost", figures.lost);
    }
    text
}

fn push_scenario(html: &mut String, row: &Row) {
    let scenario = row.scenario;
    push(html, &format!("<h2 id=\"{0}\">{0}</h2>\n", scenario.name));
    push(html, &format!("<p>{}</p>\n<div class=\"charts\">\n", escaped(scenario.what)));
    let subjects = || Subject::ALL.iter().zip(&row.figures);
    let lines = subjects().map(|(subject, f)| (subject.name().to_owned(), f.rates()));
    let answers = Chart {
        title: "requests answered each second".to_owned(),
        x: "seconds since the start".to_owned(),
        y: format!("mean of {} ms", SLICE.as_millis()),
        x_axis: None,
        lines: lines.collect(),
    };
    push(html, &answers.svg());
    let lines = subjects().map(|(subject, f)| (subject.name().to_owned(), distribution(f)));
    let latencies = Chart {
        title: "latency of writes".to_owned(),
        x: "per cent of the acknowledged writes".to_owned(),
        y: "ms".to_owned(),
        x_axis: None,
        lines: lines.collect(),
    };
    push(html, &latencies.svg());
    push(html, "</div>\n<table><thead><tr><th></th>");
    for column in COLUMNS {
        push(html, &format!("<th>{}</th>", column.head));
    }
    push(html, "</tr></thead><tbody>\n");
    for (subject, figures) in subjects() {
        push(html, &format!("<tr><td>{}</td>", subject.name()));
        for column in COLUMNS {
            push(html, &format!("<td>{}</td>", column.shown(figures)));
        }
        push(html, "</tr>\n");
    }
    push(html, "</tbody></table>\n");
    push(html, &format!("<p class=\"note\">{}</p>\n", escaped(scenario.why)));
}

/// Returns the latency below which so many per cent of the writes lie, up to 99: the last of a
/// hundred would hide all others.
fn distribution(figures: &Figures) -> Vec<(f64, f64)> {
    (1_u32..100)
        .map(|at| (f64::from(at), figures.write_ms(usize::try_from(at).unwrap_or(0))))
        .collect()
}

fn push(html: &mut String, text: &str) {
    html.push_str(text);
}
