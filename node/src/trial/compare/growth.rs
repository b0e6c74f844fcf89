//! Throughput against the size of the store: the same loads on clusters that hold more and more.
//!
//! For every size there is a cluster of its own, and all of them take turns, so that a machine
//! that becomes slower meanwhile does so for all of them. Cells are written in an order that has
//! nothing to do with that of their keys, which is what tables and their compaction find hardest;
//! the loads then draw from all cells that are there. What is measured begins when flushes and
//! compactions that the filling left behind are done; those that the loads cause are part of it.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::page::{latencies, one, whole};
use super::subject::Subject;
use super::{Figures, REST_MAX, come_to_rest, measure, medians};
use crate::env::real::RealEnv;
use crate::trial::chart::Chart;
use crate::trial::load::{Load, float};
use crate::trial::page::{self, escaped};
use crate::trial::usage::{bytes_in, memory_bytes};
use crate::wire::Level;

/// How long a cluster may take to merge what it was filled with.
const FILL_REST_MAX: Duration = Duration::from_mins(2);

/// What is measured, and how.
#[derive(Debug, Clone)]
pub struct GrowthOptions {
    /// The program that the nodes run.
    pub program: PathBuf,
    /// Where the clusters keep their data.
    pub directory: PathBuf,
    /// Modes: at which level each is asked; primary-backup has none.
    pub modes: Vec<Option<Level>>,
    /// Cells that clusters hold; the first is what the others are compared with.
    pub sizes: Vec<u32>,
    /// How often each load is put on each cluster.
    pub rounds: u32,
    /// How long.
    pub duration: Duration,
    /// What the loads have in common. Keys are drawn from all cells that are there, and from
    /// [`Load::key_count`] at least.
    pub load: Load,
}

/// What came out for one size.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Point {
    /// Cells that were written before.
    pub cells: u32,
    /// Writes, one in flight on each connection.
    pub sets: Figures,
    /// Reads, one in flight on each connection.
    pub gets: Figures,
    /// Resident memory of the largest process in the end, in bytes.
    pub memory_bytes: u64,
    /// Bytes of all files in the end.
    pub data_bytes: u64,
}

/// What came out for one mode.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Curve {
    /// Which mode.
    pub mode: String,
    /// Size by size.
    pub points: Vec<Point>,
}

/// What came out.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Growth {
    /// What was measured, in words.
    pub setup: String,
    /// Mode by mode.
    pub curves: Vec<Curve>,
    /// What else a reader should know.
    pub notes: Vec<String>,
}

/// A cluster of one size, with what it has come to so far.
struct Sized {
    subject: Subject,
    cells: u32,
    sets: Vec<Figures>,
    gets: Vec<Figures>,
}

/// Measures; `on_step` hears what is done next.
///
/// # Errors
/// The nodes do not start, or cannot be reached; or a size is there twice.
pub async fn grow(options: &GrowthOptions, mut on_step: impl FnMut(&str)) -> io::Result<Growth> {
    let env = RealEnv::client();
    if let Some(twice) = repeated(&options.sizes) {
        let why = format!("{twice} cells are asked for twice: name every size once");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let (mut curves, mut notes) = (Vec::new(), Vec::new());
    for level in &options.modes {
        let mut clusters = Vec::new();
        for cells in &options.sizes {
            let cluster = Sized::fill(&env, options, *level, *cells, &mut on_step).await?;
            if !cluster.come_to_rest(&env, &mut on_step).await {
                notes.push(format!(
                    "{} was still merging tables when the loads began",
                    cluster.subject.name()
                ));
            }
            clusters.push(cluster);
        }
        let processes: Vec<u32> =
            clusters.iter().flat_map(|cluster| cluster.subject.process_ids()).collect();
        for round in 0..options.rounds {
            for cluster in &mut clusters {
                let step = format!("round {}: {}", round + 1, cluster.subject.name());
                on_step(&step);
                if !come_to_rest(&env, &processes, REST_MAX).await {
                    notes.push(format!("others were still at work: {step}"));
                }
                cluster.measure(&env, options, round).await?;
            }
        }
        let points = clusters.into_iter().map(|cluster| cluster.finish(options)).collect();
        curves.push(Curve { mode: mode_name(*level).to_owned(), points });
    }
    Ok(Growth { setup: setup(options), curves, notes })
}

impl Sized {
    /// Starts a cluster and fills it.
    async fn fill(
        env: &RealEnv,
        options: &GrowthOptions,
        level: Option<Level>,
        cells: u32,
        on_step: &mut impl FnMut(&str),
    ) -> io::Result<Self> {
        let name = format!("{}, {cells} cells", mode_name(level));
        on_step(&format!("filling {name}"));
        let GrowthOptions { program, directory, load, .. } = options;
        let subject = Subject::start_cluster(env, program, directory, name, level).await?;
        subject.fill(env, cells, load.value_bytes).await?;
        Ok(Self { subject, cells, sets: Vec::new(), gets: Vec::new() })
    }

    /// Waits until compactions are done; false if they are not for long.
    async fn come_to_rest(&self, env: &RealEnv, on_step: &mut impl FnMut(&str)) -> bool {
        on_step(&format!("waiting for compactions of {}", self.subject.name()));
        come_to_rest(env, &self.subject.process_ids(), FILL_REST_MAX).await
    }

    async fn measure(
        &mut self,
        env: &RealEnv,
        options: &GrowthOptions,
        round: u32,
    ) -> io::Result<()> {
        let load = Load {
            duration: options.duration,
            warm_up: Duration::from_millis(300),
            key_count: options.load.key_count.max(self.cells),
            seed: options.load.seed + u64::from(round),
            ..options.load.clone()
        };
        self.sets.push(measure(env, &self.subject, &load).await?);
        let reads = Load { read_share: 1.0, ..load };
        self.gets.push(measure(env, &self.subject, &reads).await?);
        Ok(())
    }

    fn finish(self, options: &GrowthOptions) -> Point {
        let processes = self.subject.process_ids();
        let memory = processes.iter().map(|process| memory_bytes(*process).0).max();
        Point {
            cells: self.cells,
            sets: medians(&self.sets),
            gets: medians(&self.gets),
            memory_bytes: memory.unwrap_or_default(),
            data_bytes: bytes_in(&self.subject.directory(&options.directory)),
        }
    }
}

impl Curve {
    /// Returns the rates of writes and reads at each size as a multiple of those at the first.
    pub fn shares(&self) -> Vec<(u32, f64, f64)> {
        let Some(first) = self.points.first() else { return Vec::new() };
        let share = |point: &Point| {
            let of = |a: &Figures, b: &Figures| a.per_second / b.per_second;
            (point.cells, of(&point.sets, &first.sets), of(&point.gets, &first.gets))
        };
        self.points.iter().map(share).collect()
    }
}

/// A column of the table: what, and how it is shown for a size.
type Show = (&'static str, fn(&Point) -> String);

/// Returns the columns of the table of a mode.
pub fn columns() -> [Show; 10] {
    [
        ("cells", |point| whole(f64::from(point.cells))),
        ("writes/s", |point| whole(point.sets.per_second)),
        ("p50 / p99 / p99.9, ms", |point| latencies(&point.sets)),
        ("CPU per 1,000, ms", |point| one(point.sets.cpu_ms_per_1000)),
        ("reads/s", |point| whole(point.gets.per_second)),
        ("p50 / p99 / p99.9, ms", |point| latencies(&point.gets)),
        ("CPU per 1,000, ms", |point| one(point.gets.cpu_ms_per_1000)),
        ("memory of a node, MB", |point| whole(float(point.memory_bytes) / 1e6)),
        ("files, MB", |point| whole(float(point.data_bytes) / 1e6)),
        ("failed", |point| (point.sets.errors + point.gets.errors).to_string()),
    ]
}

/// Returns the page.
pub fn growth_page(growth: &Growth) -> String {
    let mut html = format!("<p>{}.</p>\n", escaped(&growth.setup));
    for (title, of) in [
        ("Writes", (|point: &Point| point.sets.per_second) as fn(&Point) -> f64),
        ("Reads", |point: &Point| point.gets.per_second),
    ] {
        let line = |curve: &Curve| {
            let points = curve.points.iter().map(|point| (f64::from(point.cells), of(point)));
            (curve.mode.clone(), points.collect())
        };
        let chart = Chart {
            title: title.to_owned(),
            x: "cells in the store before".to_owned(),
            y: "a second".to_owned(),
            x_axis: None,
            lines: growth.curves.iter().map(line).collect(),
        };
        html.push_str(&chart.svg());
    }
    for curve in &growth.curves {
        push_curve(&mut html, curve);
    }
    for note in &growth.notes {
        // Writing to a string does not fail.
        _ = writeln!(html, "<p>Note: {}.</p>", escaped(note));
    }
    page::page("Mangrove: throughput against the size of the store", &html)
}

fn push_curve(html: &mut String, curve: &Curve) {
    let heads = columns().map(|(name, _)| format!("<th>{name}</th>")).concat();
    // Writing to a string does not fail.
    _ = writeln!(html, "<h2>{}</h2>\n<table><thead><tr>{heads}</tr></thead><tbody>", curve.mode);
    for point in &curve.points {
        let cells = columns().map(|(_, show)| format!("<td>{}</td>", escaped(&show(point))));
        _ = writeln!(html, "<tr>{}</tr>", cells.concat());
    }
    html.push_str("</tbody></table>\n<p>");
    for (cells, sets, gets) in curve.shares().into_iter().skip(1) {
        let cells = whole(f64::from(cells));
        _ = writeln!(html, "With {cells} cells: writes {sets:.2} ×, reads {gets:.2} ×.");
    }
    html.push_str("</p>\n");
}

/// Returns a size that is there more than once.
pub fn repeated(sizes: &[u32]) -> Option<u32> {
    let mut earlier = BTreeSet::new();
    sizes.iter().copied().find(|size| !earlier.insert(*size))
}

fn mode_name(level: Option<Level>) -> &'static str {
    if level.is_some() { "masterless" } else { "primary-backup" }
}

fn setup(options: &GrowthOptions) -> String {
    let GrowthOptions { rounds, duration, load, .. } = options;
    let Load { connections, value_bytes, key_count, distribution, .. } = load;
    format!(
        "{connections} connections, keys of 16 B ({distribution:?}, all that are there and \
         {key_count} at least), values of {value_bytes} B; medians of {rounds} rounds of \
         {duration:?}, taking turns"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn growth() -> Growth {
        let point = |cells, sets, gets| Point {
            cells,
            sets: Figures { per_second: sets, ..Figures::default() },
            gets: Figures { per_second: gets, errors: 3, ..Figures::default() },
            ..Point::default()
        };
        let points = vec![point(0, 40_000.0, 90_000.0), point(10_000_000, 30_000.0, 99_000.0)];
        let curves = vec![Curve { mode: "primary-backup".to_owned(), points }];
        let notes = vec!["not at <rest>".to_owned()];
        Growth { setup: "a & b".to_owned(), curves, notes }
    }

    #[test]
    fn sizes_are_compared_with_the_first() {
        let shares = growth().curves[0].shares();
        assert_eq!(shares, [(0, 1.0, 1.0), (10_000_000, 0.75, 1.1)]);
        assert!(Curve::default().shares().is_empty());
    }

    #[test]
    fn size_that_is_there_twice_is_found() {
        assert_eq!((repeated(&[0, 5, 1, 5, 0]), repeated(&[2, 0, 1])), (Some(5), None));
    }

    #[test]
    fn page_shows_every_size_and_asks_nobody_for_anything() {
        let html = growth_page(&growth());
        for part in ["a &amp; b", "10,000,000", "writes 0.75 ×, reads 1.10 ×", "<td>3</td>"] {
            assert!(html.contains(part), "{part} is missing");
        }
        assert!(html.contains("not at &lt;rest&gt;"));
        for link in ["src=", "href=", "url(", "@import"] {
            assert!(!html.contains(link), "{link} asks somebody");
        }
        assert_eq!(html.matches("<svg").count(), 2);
    }
}
