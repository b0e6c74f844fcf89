//! A comparison as a table for people, and as JSON for programs.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use super::figures::Figures;
use super::{Row, Subject};
use crate::swarm::{float, percentile};

/// A figure: its name in the table, in JSON, and what it is.
pub(super) struct Column {
    pub(super) head: &'static str,
    key: &'static str,
    value: fn(&Figures) -> f64,
    /// Digits after the point.
    digits: usize,
}

/// Everything that is shown.
pub(super) const COLUMNS: &[Column] = &[
    Column {
        head: "answered %",
        key: "answered_percent",
        value: Figures::availability_percent,
        digits: 1,
    },
    Column {
        head: "longest gap ms",
        key: "gap_median_ms",
        value: |figures| float(percentile(&figures.gaps_ms, 50)),
        digits: 0,
    },
    Column {
        head: "at most",
        key: "gap_max_ms",
        value: |figures| float(percentile(&figures.gaps_ms, 100)),
        digits: 0,
    },
    Column { head: "write p50 ms", key: "write_p50_ms", value: |f| f.write_ms(50), digits: 1 },
    Column { head: "p99", key: "write_p99_ms", value: |f| f.write_ms(99), digits: 1 },
    Column { head: "read p50 ms", key: "read_p50_ms", value: |f| f.read_ms(50), digits: 1 },
    Column { head: "p99", key: "read_p99_ms", value: |f| f.read_ms(99), digits: 1 },
    Column { head: "refused", key: "refused", value: |f| float(f.refused), digits: 0 },
    Column { head: "unknown", key: "unknown", value: |f| float(f.unknown), digits: 0 },
    Column { head: "stale reads", key: "stale_reads", value: |f| float(f.stale), digits: 0 },
    Column { head: "lost writes", key: "lost_writes", value: |f| float(f.lost), digits: 0 },
    Column {
        head: "equal after ms",
        key: "converge_median_ms",
        value: |figures| float(percentile(&figures.converge_ms, 50)),
        digits: 0,
    },
    Column {
        head: "segments",
        key: "segments_per_answer",
        value: |figures| figures.sent_per_answer().0,
        digits: 1,
    },
    Column {
        head: "bytes",
        key: "bytes_per_answer",
        value: |figures| figures.sent_per_answer().1,
        digits: 0,
    },
];

impl Column {
    /// Returns the figure for people.
    pub(super) fn shown(&self, figures: &Figures) -> String {
        format!("{:.*}", self.digits, (self.value)(figures))
    }
}

/// Returns the rows for people.
pub fn to_table(rows: &[Row]) -> String {
    let mut table = comfy_table::Table::new();
    let heads = COLUMNS.iter().map(|column| column.head);
    table.set_header(["scenario", "subject"].into_iter().chain(heads));
    for row in rows {
        for (at, (subject, figures)) in Subject::ALL.iter().zip(&row.figures).enumerate() {
            let scenario = if at == 0 { row.scenario.name } else { "" };
            let shown = COLUMNS.iter().map(|column| column.shown(figures));
            let names = [scenario.to_owned(), subject.name().to_owned()];
            table.add_row(names.into_iter().chain(shown));
        }
    }
    let mut text = table.to_string();
    // Writing to a string cannot fail.
    _ = write!(
        text,
        "\nAll runs of a scenario together; gaps and \"equal after\" are medians over the runs. \
         Segments and bytes are\nwhat nodes sent each other for each request answered."
    );
    text
}

/// Returns the rows for programs.
pub fn to_json(rows: &[Row]) -> String {
    let scenarios: Vec<Json> = rows
        .iter()
        .map(|row| {
            let subjects = Subject::ALL.iter().zip(&row.figures);
            let subjects: Vec<Json> = subjects.map(|(subject, f)| of(*subject, f)).collect();
            json!({ "scenario": row.scenario.name, "subjects": subjects })
        })
        .collect();
    json!({ "scenarios": scenarios }).to_string()
}

fn of(subject: Subject, figures: &Figures) -> Json {
    let mut json: serde_json::Map<String, Json> = COLUMNS
        .iter()
        .map(|column| (column.key.to_owned(), json!((column.value)(figures))))
        .collect();
    json.insert("subject".to_owned(), json!(subject.name()));
    json.insert("runs".to_owned(), json!(figures.runs));
    json.insert("due".to_owned(), json!(figures.due));
    json.insert("answered_per_second".to_owned(), json!(figures.rates()));
    Json::Object(json)
}
