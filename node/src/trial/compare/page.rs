//! The comparison as one page that needs nothing from the network.

use std::fmt::Write;

use super::{Column, Comparison, Figures};
use crate::trial::chart::Chart;
use crate::trial::load::{Outcome, float};
use crate::trial::page::{self, escaped};

/// One line of the table: what, and how it is shown for a store.
type Row = (&'static str, fn(&Column) -> String);

/// Returns the rows of the table, with a heading where a part begins.
pub fn rows() -> Vec<(&'static str, Vec<Row>)> {
    vec![
        (
            "writes, 1 in flight",
            vec![
                ("per second", |column| whole(column.sets.per_second)),
                ("latency p50 / p99 / p99.9, ms", |column| latencies(&column.sets)),
                ("CPU per 1,000, ms", |column| one(column.sets.cpu_ms_per_1000)),
                ("disk per write, B", |column| whole(column.sets.disk_bytes_per_request)),
                ("network per write, B", |column| whole(column.sets.network_bytes_per_request)),
            ],
        ),
        (
            "reads, 1 in flight",
            vec![
                ("per second", |column| whole(column.gets.per_second)),
                ("latency p50 / p99 / p99.9, ms", |column| latencies(&column.gets)),
                ("CPU per 1,000, ms", |column| one(column.gets.cpu_ms_per_1000)),
            ],
        ),
        (
            "writes, 16 in flight",
            vec![
                ("per second", |column| whole(column.deep_sets.per_second)),
                ("latency p50 / p99 / p99.9, ms", |column| latencies(&column.deep_sets)),
                ("CPU per 1,000, ms", |column| one(column.deep_sets.cpu_ms_per_1000)),
            ],
        ),
        (
            "writes, one client",
            vec![("latency p50 / p99 / p99.9, ms", |column| latencies(&column.lone_sets))],
        ),
        (
            "leader (or a node) killed under load",
            vec![
                ("longest time without a write, ms", |column| {
                    column.fault.as_ref().map_or(none(), |fault| whole(fault.gap_ms))
                }),
                ("requests that failed", |column| {
                    column.fault.as_ref().map_or(none(), |fault| fault.errors.to_string())
                }),
                ("stale reads", |column| {
                    let shown = |fault: &super::FaultFigures| {
                        format!("{} of {}", fault.stale_reads, fault.reads)
                    };
                    column.fault.as_ref().map_or(none(), shown)
                }),
            ],
        ),
        (
            "in the end",
            vec![
                ("memory of all processes, MB", |column| whole(float(column.memory_bytes) / 1e6)),
                ("files, MB", |column| whole(float(column.data_bytes) / 1e6)),
                ("requests that failed without a fault", |column| {
                    let parts = [&column.sets, &column.gets, &column.deep_sets, &column.lone_sets];
                    parts.map(|figures| figures.errors).iter().sum::<u64>().to_string()
                }),
            ],
        ),
    ]
}

/// Returns how our first mode stands to each other store: what, and the ratio.
pub fn ratios(comparison: &Comparison) -> Vec<(String, Vec<(&'static str, f64)>)> {
    let Some((ours, others)) = comparison.columns.split_first() else { return Vec::new() };
    let ratio = |of: fn(&Figures) -> f64, a: &Figures, b: &Figures| of(a) / of(b);
    let per_second = |figures: &Figures| figures.per_second;
    others
        .iter()
        .map(|other| {
            let mut ratios = vec![
                ("writes", ratio(per_second, &ours.sets, &other.sets)),
                ("reads", ratio(per_second, &ours.gets, &other.gets)),
                ("writes, 16 in flight", ratio(per_second, &ours.deep_sets, &other.deep_sets)),
                (
                    "p50 of one client",
                    ratio(|figures| figures.p50_ms, &ours.lone_sets, &other.lone_sets),
                ),
                (
                    "CPU per write",
                    ratio(|figures| figures.cpu_ms_per_1000, &ours.sets, &other.sets),
                ),
                ("memory", float(ours.memory_bytes) / float(other.memory_bytes.max(1))),
            ];
            if let (Some(ours), Some(other)) = (&ours.fault, &other.fault) {
                ratios.push(("gap", ours.gap_ms / other.gap_ms));
            }
            (other.name.clone(), ratios)
        })
        .collect()
}

/// Returns the page.
pub fn page(comparison: &Comparison) -> String {
    let mut html = format!("<p>{}.</p>\n", escaped(&comparison.setup));
    push(&mut html, "<table><thead><tr><th></th>");
    for column in &comparison.columns {
        push(&mut html, &format!("<th>{}</th>", escaped(&column.name)));
    }
    push(&mut html, "</tr></thead><tbody>\n");
    let width = comparison.columns.len() + 1;
    for (head, rows) in rows() {
        push(&mut html, &format!("<tr class=\"head\"><td colspan=\"{width}\">{head}</td></tr>\n"));
        for (name, show) in rows {
            push(&mut html, &format!("<tr><td>{name}</td>"));
            for column in &comparison.columns {
                push(&mut html, &format!("<td>{}</td>", escaped(&show(column))));
            }
            push(&mut html, "</tr>\n");
        }
    }
    push(&mut html, "</tbody></table>\n");
    push_ratios(&mut html, comparison);
    push_charts(&mut html, comparison);
    push(&mut html, "<h2>How to read this</h2>\n<ul class=\"note\">\n");
    for note in NOTES.iter().copied().chain(comparison.notes.iter().map(String::as_str)) {
        push(&mut html, &format!("<li>{}</li>\n", escaped(note)));
    }
    push(&mut html, "</ul>\n");
    page::page("Mangrove: a comparison", &html)
}

const NOTES: [&str; 6] = [
    "All stores ran on one machine, and took turns: ratios mean something, absolute figures \
     little.",
    "Network is what went through the loopback interface meanwhile, requests of the load included, \
     whoever sent it.",
    "A stale read did not see a write that was acknowledged before the read began. The level `one` \
     promises no more.",
    "The masterless mode has no leader: one of its nodes is killed instead. Of etcd and of the \
     primary-backup mode it is the one that leads.",
    "Requests through the fault fail at different times: the client of Mangrove tries again within \
     a request, for up to 10 s, where that is safe; the one of etcd here fails at the first error. \
     So compare the time without a write, and not how many requests failed.",
    "etcd and Redis were asked through their own protocols, on connections to the leader. Redis \
     with two replicas acknowledges when one of them has the write in memory (WAIT 1).",
];

fn push_ratios(html: &mut String, comparison: &Comparison) {
    let ratios = ratios(comparison);
    let (Some(ours), Some((_, first))) = (comparison.columns.first(), ratios.first()) else {
        return;
    };
    push(html, &format!("<h2>{}, as a multiple of the others</h2>\n", escaped(&ours.name)));
    push(html, "<table><thead><tr><th></th>");
    for (name, _) in first {
        push(html, &format!("<th>{name}</th>"));
    }
    push(html, "</tr></thead><tbody>\n");
    for (name, ratios) in &ratios {
        push(html, &format!("<tr><td>{}</td>", escaped(name)));
        for (_, ratio) in ratios {
            push(html, &format!("<td>{ratio:.2} ×</td>"));
        }
        push(html, &"<td>–</td>".repeat(first.len().saturating_sub(ratios.len())));
        push(html, "</tr>\n");
    }
    push(html, "</tbody></table>\n");
}

/// A chart for each store: they differ too much for one.
fn push_charts(html: &mut String, comparison: &Comparison) {
    push(
        html,
        "<h2>Through the fault</h2>\n<p>Requests answered each second, half of them reads; ",
    );
    push(html, "the leader, or a node where none leads, is killed after two seconds and started ");
    push(html, "again after five.</p>\n");
    let slice = Outcome::SLICE.as_secs_f64();
    for column in &comparison.columns {
        let Some(fault) = &column.fault else { continue };
        let points = |of: fn(&crate::trial::load::Slice) -> u32| {
            let slices = (0_u32..).zip(&fault.timeline);
            slices.map(|(at, one)| (f64::from(at) * slice, f64::from(of(one)) / slice)).collect()
        };
        let chart = Chart {
            title: column.name.clone(),
            x: "seconds".to_owned(),
            y: "requests a second".to_owned(),
            x_axis: None,
            lines: vec![
                ("answered".to_owned(), points(|one| one.answered)),
                ("failed".to_owned(), points(|one| one.failed)),
            ],
        };
        push(html, &chart.svg());
    }
}

pub(super) fn latencies(figures: &Figures) -> String {
    let Figures { p50_ms, p99_ms, p999_ms, .. } = figures;
    format!("{p50_ms:.2} / {p99_ms:.2} / {p999_ms:.1}")
}

pub(super) fn one(value: f64) -> String {
    format!("{value:.1}")
}

/// Shows a number without fraction, its thousands apart.
pub(super) fn whole(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut shown = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

fn none() -> String {
    "–".to_owned()
}

fn push(html: &mut String, text: &str) {
    // Writing to a string does not fail.
    _ = html.write_str(text);
}

#[cfg(test)]
mod tests {
    use super::super::FaultFigures;
    use super::*;
    use crate::trial::load::Slice;

    fn comparison() -> Comparison {
        let column = |name: &str, per_second| Column {
            name: name.to_owned(),
            sets: Figures { per_second, ..Figures::default() },
            fault: Some(FaultFigures {
                timeline: vec![Slice { answered: 10, ..Slice::default() }; 5],
                ..FaultFigures::default()
            }),
            ..Column::default()
        };
        let columns = vec![column("ours", 12_345.0), column("<other>", 6_000.0)];
        Comparison { setup: "a & b".to_owned(), notes: vec!["no etcd".to_owned()], columns }
    }

    #[test]
    fn page_has_every_store_and_asks_nobody_for_anything() {
        let html = page(&comparison());
        let said = ["no leader", "fails at the first error"];
        let shown = ["a &amp; b", "12,345", "&lt;other&gt;", "no etcd", "2.06 ×", "<polyline"];
        for part in shown.into_iter().chain(said) {
            assert!(html.contains(part), "{part} is missing");
        }
        for link in ["src=", "href=", "url(", "@import"] {
            assert!(!html.contains(link), "{link} asks somebody");
        }
        assert_eq!(html.matches("<svg").count(), 2);
        assert_eq!(html.matches("<table").count(), html.matches("</table>").count());
    }

    #[test]
    fn thousands_are_set_apart() {
        let shown = [0.0, 999.4, 1_000.0, 1_234_567.0].map(whole);
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567"]);
    }
}
