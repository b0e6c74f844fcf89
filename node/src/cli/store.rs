//! `mangrove store`: the tables of a node that does not run, looked at and salvaged.

use std::fs;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json, json};

use super::CliError;
use super::args::Format;
use super::export::PartialFile;
use super::output::{Output, new_table, say, text};
use super::records::Record;
use super::serve::open_data;
use crate::base::Value;
use crate::codec::keycode;
use crate::env::Env as _;
use crate::env::real::RealEnv;
use crate::kv::{Cell, Version};
use crate::replica::STATE_DIR;
use crate::replica::offline::{self, PlaceRange, SalvageReport, StoreReport, TableReport, Wound};

/// What to do about damage.
const ADVICE: &str = "\
If the node is one of a cluster whose other nodes run, start it: it finds the damage by itself, when
it reads there or when its scrubber comes by (soon with --scrub-rate 1GiB), leaves its state aside
and gets that of the others. Remove nothing by hand.
If the node is alone, or the last one left: restore a backup (`mangrove snapshot restore`), or bring
out what can be read with `mangrove store salvage`.";

/// `mangrove store verify`
pub(super) async fn verify(dir: PathBuf, format: Format) -> Result<(), CliError> {
    let env = open_stopped(&dir)?;
    let mut output = Output::new(format);
    let mut printed = Ok(());
    let on_table = |table: &TableReport| {
        if format != Format::Table && printed.is_ok() {
            printed = output.json(&table_json(table));
        }
    };
    let report = offline::verify_store(env.disk(), on_table).await;
    let report = report.map_err(|error| CliError::Failed(error.to_string()))?;
    printed?;
    match format {
        Format::Table => print_report(&report, &mut output)?,
        Format::Json | Format::Raw => {
            report.all_wounds().try_for_each(|wound| output.json(&wound_json(wound)))?;
            output.json(&summary_json(&report))?;
        }
    }
    output.finish()?;
    if report.is_whole() {
        return Ok(());
    }
    let count = report.all_wounds().count();
    let damaged = format!("{} is damaged in {count} place(s)", dir.display());
    Err(CliError::Failed(damaged).advise(ADVICE.to_owned()))
}

/// `mangrove store salvage`
pub(super) async fn salvage(dir: PathBuf, to: PathBuf) -> Result<(), CliError> {
    let env = open_stopped(&dir)?;
    let mut scratch_path = to.as_os_str().to_owned();
    scratch_path.push(".scratch");
    let scratch_path = PathBuf::from(scratch_path);
    if scratch_path.exists() {
        return Err(CliError::Usage(format!(
            "{} is in the way: remove it if it was left by a salvage that was interrupted",
            scratch_path.display()
        )));
    }
    let scratch = open_data(&scratch_path)?;
    let salvaged = write_salvaged(&env, &scratch, &to).await;
    drop(scratch);
    if let Err(error) = fs::remove_dir_all(&scratch_path) {
        say(&format!("{} stays: {error}", scratch_path.display()));
    }
    let report = salvaged?;
    let what = report_salvage(&report);
    for line in &what {
        say(line);
    }
    say(&format!("wrote {} cells to {}", report.cell_count, to.display()));
    if what.is_empty() {
        return Ok(());
    }
    Err(CliError::Failed("not everything could be salvaged".to_owned()))
}

async fn write_salvaged(
    env: &RealEnv,
    scratch: &RealEnv,
    to: &Path,
) -> Result<SalvageReport, CliError> {
    let mut file = PartialFile::create(to)?;
    let mut written = Ok(());
    let mut visit = |place: &[u8], value: &[u8], version: u64| {
        written = write_cell(&mut file, place, value, version);
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let report = offline::salvage(env.disk(), scratch.disk(), &mut visit).await;
    let report = report.map_err(|error| CliError::Failed(error.to_string()))?;
    written?;
    file.finish()?;
    Ok(report)
}

fn write_cell(
    file: &mut PartialFile,
    place: &[u8],
    value: &[u8],
    version: u64,
) -> Result<(), CliError> {
    let failed = |error: String| CliError::Failed(format!("a cell that cannot be: {error}"));
    let (key, column) = keycode::decode_place(place).map_err(|error| failed(error.to_string()))?;
    let value = Value::new(value.to_vec()).map_err(|error| failed(error.to_string()))?;
    let cell = Cell { value, version: Version(version) };
    file.write(&Record::of_cell(&key, &column, &cell, false))
}

/// Says what is lost, line by line; nothing if all is there.
fn report_salvage(report: &SalvageReport) -> Vec<String> {
    let mut lines: Vec<String> = report.store.all_wounds().map(wound_line).collect();
    for lost in &report.lost {
        lines.push(format!(
            "lost: cells {}, written at version {} or before ({}); {} cells of that range that \
             were read are possibly stale",
            range_text(&lost.range),
            lost.version_max,
            lost.path,
            lost.stale_count,
        ));
    }
    if report.store.applied.is_none() {
        lines.push(
            "the manifest is lost: what tables there are was taken for the state; cells that were \
             deleted may be back, and tables may be missing"
                .to_owned(),
        );
    }
    let log = &report.log;
    if let Some(failure) = &log.failure {
        lines.push(format!(
            "the log cannot be read: what was written after entry {} is lost ({failure})",
            log.last
        ));
    }
    if let Some(last) = log.lost_through {
        let from = log.last + 1;
        lines.push(format!("lost: the log is damaged; entries {from} to {last} may be lost"));
    }
    if let Some(torn) = &log.torn {
        lines.push(format!(
            "the log ends in what looks like an unfinished write, at byte {} of {}: it was never \
             acknowledged, unless just that place is damaged",
            torn.offset, torn.path
        ));
    }
    if log.doubtful_count > 0 {
        lines.push(format!(
            "{} conditional writes in the log were decided by cells that are possibly stale",
            log.doubtful_count
        ));
    }
    if log.sessions_are_lost && log.entry_count > 0 {
        lines.push(format!(
            "the client sessions are lost: of the last {} writes, those that were sent twice were \
             carried out twice",
            log.entry_count
        ));
    }
    lines
}

/// Opens the directory of a node that does not run and has run.
fn open_stopped(dir: &Path) -> Result<RealEnv, CliError> {
    // Opening would create it, and to look must not leave traces.
    if !dir.join(STATE_DIR).is_dir() {
        return Err(CliError::Usage(format!(
            "there are no tables in {}: give the data directory of a node, such as \
             mangrove-data/n1",
            dir.display()
        )));
    }
    open_data(dir)
}

fn print_report(report: &StoreReport, output: &mut Output) -> Result<(), CliError> {
    let mut table = new_table(&["table", "level", "cells", "bytes", "state"]);
    for TableReport { level, meta, wounds, .. } in &report.tables {
        let level = level.map_or_else(|| "?".to_owned(), |level| level.to_string());
        let state = match wounds.len() {
            0 => "ok".to_owned(),
            count => format!("damaged in {count} place(s)"),
        };
        let (cells, bytes) = (meta.cell_count.to_string(), meta.bytes.to_string());
        table.add_row(vec![meta.number.to_string(), level, cells, bytes, state]);
    }
    output.table(&table)?;
    report.all_wounds().try_for_each(|wound| output.line(&wound_line(wound)))
}

fn wound_line(wound: &Wound) -> String {
    let Wound { path, offset, what, range, is_salvageable } = wound;
    let cells = match range {
        None => String::new(),
        Some(range) if *is_salvageable => {
            format!("; cells {} cannot be read in place, but salvaged", range_text(range))
        }
        Some(range) => format!("; cells {} are lost", range_text(range)),
    };
    format!("{path} is damaged at byte {offset}: {what}{cells}")
}

/// Describes a range to people.
fn range_text(range: &PlaceRange) -> String {
    let start = match &range.start {
        Bound::Included(place) => format!("from {}", place_text(place)),
        Bound::Excluded(place) => format!("after {}", place_text(place)),
        Bound::Unbounded => "from the first".to_owned(),
    };
    let end = match &range.end {
        Bound::Included(place) => format!("through {}", place_text(place)),
        Bound::Excluded(place) => format!("before {}", place_text(place)),
        Bound::Unbounded => "to the last".to_owned(),
    };
    format!("{start} {end}")
}

fn place_text(place: &[u8]) -> String {
    match keycode::decode_cell(place) {
        Ok((key, [])) => format!("{:?}", text(&key)),
        Ok((key, column)) => format!("{:?} {:?}", text(&key), text(column)),
        // The end of a row is no place of a cell.
        Err(_) => format!("place {:?}", text(place)),
    }
}

fn table_json(table: &TableReport) -> Json {
    json!({
        "table": table.meta.number,
        "path": table.path,
        "level": table.level,
        "cells": table.meta.cell_count,
        "bytes": table.meta.bytes,
        "ok": table.wounds.is_empty(),
    })
}

fn wound_json(wound: &Wound) -> Json {
    let mut line = Map::new();
    line.insert("damage".to_owned(), json!(wound.path));
    line.insert("offset".to_owned(), json!(wound.offset));
    line.insert("what".to_owned(), json!(wound.what));
    line.insert("is_salvageable".to_owned(), json!(wound.is_salvageable));
    if let Some(range) = &wound.range {
        for (bound, included, excluded) in
            [(&range.start, "from", "after"), (&range.end, "through", "before")]
        {
            let (name, place) = match bound {
                Bound::Included(place) => (included, place),
                Bound::Excluded(place) => (excluded, place),
                Bound::Unbounded => continue,
            };
            line.insert(name.to_owned(), place_json(place));
        }
    }
    Json::Object(line)
}

fn place_json(place: &[u8]) -> Json {
    let record = keycode::decode_place(place).map(|(key, column)| Record::of_place(&key, &column));
    record.map_or(Json::Null, |record| json!(record))
}

fn summary_json(report: &StoreReport) -> Json {
    json!({
        "ok": report.is_whole(),
        "tables": report.tables.len(),
        "index": report.applied.map(|applied| applied.index),
        "term": report.applied.map(|applied| applied.term),
        "damages": report.all_wounds().count(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wound(range: Option<PlaceRange>, is_salvageable: bool) -> Wound {
        let (path, what) = ("tables/table-7".to_owned(), "a block".to_owned());
        Wound { path, offset: 4096, what, range, is_salvageable }
    }

    #[test]
    fn damage_is_said_with_its_cells() {
        let start = Bound::Included(keycode::encode_cell(b"a", b""));
        let end = Bound::Excluded(keycode::encode_cell(b"b\xFF", b"c"));
        let wound = wound(Some(PlaceRange { start, end }), false);
        assert_eq!(
            wound_line(&wound),
            "tables/table-7 is damaged at byte 4096: a block; cells from \"a\" before \
             \"b\\\\xff\" \"c\" are lost"
        );
        let line = wound_json(&wound);
        assert_eq!(line["from"], json!({"key": "a"}));
        assert_eq!(line["before"], json!({"key_base64": "Yv8=", "column": "c"}));
        assert_eq!(line["is_salvageable"], json!(false));
    }

    #[test]
    fn damage_without_cells_is_said_without() {
        let line = wound_line(&wound(None, true));
        assert_eq!(line, "tables/table-7 is damaged at byte 4096: a block");
        let all = wound_line(&wound(Some(PlaceRange::ALL), true));
        assert!(
            all.ends_with("cells from the first to the last cannot be read in place, but salvaged")
        );
        assert!(wound_json(&wound(Some(PlaceRange::ALL), true)).get("from").is_none());
    }
}
