//! `mangrove store`: the tables of a node that does not run, looked at and salvaged.

use std::fs;
use std::io::ErrorKind;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json, json};

use super::args::Format;
use super::export::PartialFile;
use super::files::{NewFile, with_suffix};
use super::output::{Output, counted, new_table, say, text};
use super::records::Record;
use super::serve::open_data;
use super::{CliError, unless_stopped};
use crate::base::Value;
use crate::codec::keycode;
use crate::env::real::RealEnv;
use crate::env::{Disk, Env as _};
use crate::kv::{Cell, Version};
use crate::replica::offline::{
    self, LogReport, PlaceRange, SalvageReport, StoreReport, TableReport, Wound,
};
use crate::replica::{STATE_DIR, mode_of, partition_of_place, without_prefix};

/// What to do about damage.
const ADVICE: &str = "\
If the node is one of a cluster whose other nodes run, start it: it finds the damage by itself, when
it reads there or when its scrubber comes by (soon with --scrub-rate 1GiB), leaves its state aside
and gets that of the others. Remove nothing by hand. Only if both copies in the file NODE are
damaged it does not start, and says what to do.
If the node is alone, or the last one left: restore a backup (`mangrove snapshot restore`), or bring
out what can be read with `mangrove store salvage`.";

/// How the cells of a store lie, which tells what their places say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// By key and column.
    Keys,
    /// By partition, as in the masterless mode; in each by key and column.
    Partitions,
}

/// `mangrove store verify`
pub(super) async fn verify(dir: PathBuf, format: Format) -> Result<(), CliError> {
    let env = open_stopped(&dir)?;
    let order = Order::of(env.disk()).await;
    let mut output = Output::new(format);
    let mut printed = Ok(());
    let on_table = |table: &TableReport| {
        if format != Format::Table && printed.is_ok() {
            printed = output.json(&table_json(table));
        }
    };
    let report = offline::verify_store(env.disk(), on_table).await;
    let report = report.map_err(|error| CliError::Failed(error.to_string()))?;
    let printed = printed.and_then(|()| print(&report, order, format, output));
    if report.is_whole() {
        return printed;
    }
    let count = report.all_wounds().count();
    let damaged = format!("{} is damaged in {count} place(s)", dir.display());
    Err(CliError::Failed(damaged).advise(ADVICE.to_owned()).despite(printed))
}

fn print(
    report: &StoreReport,
    order: Order,
    format: Format,
    mut output: Output,
) -> Result<(), CliError> {
    match format {
        Format::Table => print_report(report, order, &mut output)?,
        Format::Json | Format::Raw => {
            report.all_wounds().try_for_each(|wound| output.json(&order.wound_json(wound)))?;
            output.json(&summary_json(report))?;
        }
    }
    output.finish()
}

/// `mangrove store salvage`
pub(super) async fn salvage(
    dir: PathBuf,
    to: PathBuf,
    sessions_max: usize,
) -> Result<(), CliError> {
    let env = open_stopped(&dir)?;
    let scratch_path = with_suffix(&to, ".scratch");
    if scratch_path.exists() {
        return Err(CliError::Usage(format!(
            "{} is in the way: remove it if it was left by a salvage that was interrupted",
            scratch_path.display()
        )));
    }
    // The file first: what it lies in is not made for it.
    let file = PartialFile::new(NewFile::create(&to)?);
    let report = {
        let room = Scratch(scratch_path);
        let scratch = open_data(&room.0)?;
        let salvaging = Box::pin(write_salvaged(&env, &scratch, sessions_max, file));
        unless_stopped(salvaging, &format!("{} is not written", to.display())).await?
    };
    if mode_of(env.disk()).await.is_none() {
        let mode = if report.is_masterless { "masterless" } else { "primary-backup" };
        say(&format!("the file NODE cannot be read: what else there is tells that it is {mode}"));
    }
    let Told { notices, losses } = report_salvage(&report);
    notices.iter().chain(&losses).for_each(|line| say(line));
    say(&format!("wrote {} to {}", counted(report.cell_count, "cell"), to.display()));
    if losses.is_empty() {
        return Ok(());
    }
    Err(CliError::Failed("not everything could be salvaged".to_owned()))
}

/// A directory that is removed when its time is over.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.0) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => say(&format!("{} stays: {error}", self.0.display())),
        }
    }
}

async fn write_salvaged(
    env: &RealEnv,
    scratch: &RealEnv,
    sessions_max: usize,
    mut file: PartialFile,
) -> Result<SalvageReport, CliError> {
    let mut written = Ok(());
    let mut visit = |place: &[u8], value: &[u8], version: u64| {
        written = write_cell(&mut file, place, value, version);
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let (from, scratch) = (env.disk(), scratch.disk());
    let report = offline::salvage(from, scratch, sessions_max, &mut visit).await;
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

/// What a person is told of a salvage, line by line.
#[derive(Debug, Default)]
struct Told {
    /// What was damaged and costs nothing.
    notices: Vec<String>,
    /// What is lost, or not certain to be as it was.
    losses: Vec<String>,
}

/// Says what became of a store; nothing if all was whole.
fn report_salvage(report: &SalvageReport) -> Told {
    let order = if report.is_masterless { Order::Partitions } else { Order::Keys };
    let mut told = Told::default();
    for wound in report.store.all_wounds() {
        let lines = if wound.is_salvageable { &mut told.notices } else { &mut told.losses };
        lines.push(order.wound_line(wound));
    }
    for lost in &report.lost {
        told.losses.push(format!(
            "lost: cells {}, written at version {} or before ({}); {} cells of that range that \
             were read are possibly stale",
            order.range_text(&lost.range),
            lost.version_max,
            lost.path,
            lost.stale_count,
        ));
    }
    if report.store.applied.is_none() {
        told.losses.push(
            "the manifest is lost: what tables there are was taken for the state; cells that were \
             deleted may be back, and tables may be missing"
                .to_owned(),
        );
    }
    told.of_log(&report.log);
    let is_whole = told.notices.is_empty() && told.losses.is_empty();
    if report.is_masterless && !is_whole {
        told.notices.push(
            "tombstones are not brought along: a cell that was deleted is there again if the log \
             has an older write of it, or only the tombstone was damaged"
                .to_owned(),
        );
    }
    told
}

impl Told {
    /// Says what became of the log.
    fn of_log(&mut self, log: &LogReport) {
        if let Some(failure) = &log.failure {
            self.losses.push(format!(
                "the log cannot be read: what was written after entry {} is lost ({failure})",
                log.last
            ));
        }
        for damage in &log.damage {
            self.notices.push(format!(
                "{} is damaged at byte {}: {}",
                damage.path, damage.offset, damage.what
            ));
        }
        if log.is_gone {
            self.losses.push(format!(
                "lost: the log has no record, and the tables tell that it had: its files are gone, \
                 and what was written after entry {} with them",
                log.last
            ));
        } else if log.is_incomplete {
            self.losses.push(
                "lost: the node lacks requests that it may have acknowledged, and had not got them \
                 back from the others: any cell may be missing, stale, or there again"
                    .to_owned(),
            );
        }
        if let Some(last) = log.lost_through {
            let from = log.last + 1;
            self.losses.push(if from <= last {
                format!("lost: the log is damaged; entries {from} to {last} may be lost")
            } else {
                format!("lost: the log is damaged; some requests before {from} may be lost")
            });
        }
        if let Some(torn) = &log.torn {
            self.losses.push(format!(
                "in doubt: the log ends in what looks like an unfinished write, at byte {} of {}: \
                 it was never acknowledged, unless just that place is damaged, or the file cut off",
                torn.offset, torn.path
            ));
        }
        if log.doubtful_count > 0 {
            self.losses.push(format!(
                "{} conditional writes in the log were decided by cells that are possibly stale",
                log.doubtful_count
            ));
        }
        if log.sessions_are_lost && log.entry_count > 0 {
            self.losses.push(format!(
                "the client sessions are lost: of the last {} writes, those that were sent twice \
                 were carried out twice",
                log.entry_count
            ));
        }
    }
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

fn print_report(report: &StoreReport, order: Order, output: &mut Output) -> Result<(), CliError> {
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
    report.all_wounds().try_for_each(|wound| output.line(&order.wound_line(wound)))
}

impl Order {
    /// Finds out how the cells in a directory lie.
    async fn of<D: Disk>(disk: &D) -> Self {
        match mode_of(disk).await {
            Some(mode) if mode.is_masterless() => Self::Partitions,
            Some(_) => Self::Keys,
            None => {
                say(
                    "the file NODE cannot be read. If the node is one of a masterless cluster, the \
                     first two bytes of each key that is named are its partition",
                );
                Self::Keys
            }
        }
    }

    /// Splits a place into the partition, if it is of one, and what the place is within it.
    fn split(self, place: &[u8]) -> (Option<u16>, &[u8]) {
        let partition = match self {
            Self::Keys => None,
            // What is of no partition is a note of the node's own.
            Self::Partitions => partition_of_place(place),
        };
        (partition, if partition.is_some() { without_prefix(place) } else { place })
    }

    fn wound_line(self, wound: &Wound) -> String {
        let Wound { path, offset, what, range, is_salvageable } = wound;
        let cells = match range {
            None => String::new(),
            Some(range) if *is_salvageable => {
                let range = self.range_text(range);
                format!("; cells {range} cannot be read in place, but salvaged")
            }
            Some(range) => format!("; cells {} are lost", self.range_text(range)),
        };
        format!("{path} is damaged at byte {offset}: {what}{cells}")
    }

    /// Describes a range to people.
    fn range_text(self, range: &PlaceRange) -> String {
        let start = match &range.start {
            Bound::Included(place) => format!("from {}", self.place_text(place)),
            Bound::Excluded(place) => format!("after {}", self.place_text(place)),
            Bound::Unbounded => "from the first".to_owned(),
        };
        let end = match &range.end {
            Bound::Included(place) => format!("through {}", self.place_text(place)),
            Bound::Excluded(place) => format!("before {}", self.place_text(place)),
            Bound::Unbounded => "to the last".to_owned(),
        };
        if self == Self::Partitions && !self.is_in_one_partition(range) {
            return format!("(in the order of their partitions) {start} {end}");
        }
        format!("{start} {end}")
    }

    fn is_in_one_partition(self, range: &PlaceRange) -> bool {
        let partition = |bound: &Bound<Vec<u8>>| match bound {
            Bound::Included(place) | Bound::Excluded(place) => self.split(place).0,
            Bound::Unbounded => None,
        };
        let first = partition(&range.start);
        first.is_some() && first == partition(&range.end)
    }

    fn place_text(self, place: &[u8]) -> String {
        let (partition, place) = self.split(place);
        let shown = match keycode::decode_cell(place) {
            Ok((key, [])) => format!("{:?}", text(&key)),
            Ok((key, column)) => format!("{:?} {:?}", text(&key), text(column)),
            // The end of a row is no place of a cell.
            Err(_) => format!("place {:?}", text(place)),
        };
        match partition {
            Some(partition) => format!("{shown} of partition {partition}"),
            None => shown,
        }
    }

    fn wound_json(self, wound: &Wound) -> Json {
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
                line.insert(name.to_owned(), self.place_json(place));
            }
        }
        Json::Object(line)
    }

    fn place_json(self, place: &[u8]) -> Json {
        let (partition, place) = self.split(place);
        let Ok((key, column)) = keycode::decode_place(place) else { return Json::Null };
        let mut shown = json!(Record::of_place(&key, &column));
        if let (Some(partition), Some(fields)) = (partition, shown.as_object_mut()) {
            fields.insert("partition".to_owned(), json!(partition));
        }
        shown
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
    use crate::dynamo::placement::{NOTE_PREFIX, prefix};
    use crate::storage::SnapshotPoint;
    use crate::storage::wal::{self, Torn};

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
            Order::Keys.wound_line(&wound),
            "tables/table-7 is damaged at byte 4096: a block; cells from \"a\" before \
             \"b\\\\xff\" \"c\" are lost"
        );
        let line = Order::Keys.wound_json(&wound);
        assert_eq!(line["from"], json!({"key": "a"}));
        assert_eq!(line["before"], json!({"key_base64": "Yv8=", "column": "c"}));
        assert_eq!(line["is_salvageable"], json!(false));
    }

    #[test]
    fn damage_of_a_masterless_node_is_said_with_its_partitions() {
        let place = |partition: u16, key: &[u8]| {
            [&prefix(partition)[..], &keycode::encode_cell(key, b"c")].concat()
        };
        let (start, end) = (Bound::Included(place(300, b"a")), Bound::Included(place(300, b"b")));
        let within_one = PlaceRange { start: start.clone(), end };
        assert_eq!(
            Order::Partitions.range_text(&within_one),
            "from \"a\" \"c\" of partition 300 through \"b\" \"c\" of partition 300"
        );
        let several = PlaceRange { start, end: Bound::Excluded(place(301, b"A")) };
        assert_eq!(
            Order::Partitions.range_text(&several),
            "(in the order of their partitions) from \"a\" \"c\" of partition 300 before \
             \"A\" \"c\" of partition 301"
        );
        let line = Order::Partitions.wound_json(&wound(Some(several), true));
        assert_eq!(line["from"], json!({"key": "a", "column": "c", "partition": 300}));
        let note = [&NOTE_PREFIX[..], &keycode::encode_cell(b"note", b"")].concat();
        assert_eq!(Order::Partitions.place_text(&note), "\"\\\\xff\\\\xffnote\"");
    }

    fn report(wounds: Vec<Wound>, log: LogReport) -> SalvageReport {
        let applied = Some(SnapshotPoint { index: 7, term: 1 });
        let store = StoreReport { applied, extra: None, tables: Vec::new(), wounds };
        SalvageReport { store, is_masterless: false, lost: Vec::new(), log, cell_count: 0 }
    }

    /// The accident: the exit code was that of a loss although everything had been brought out.
    #[test]
    fn damage_that_costs_nothing_is_no_loss() {
        let counts = |report: &SalvageReport| {
            let Told { notices, losses } = report_salvage(report);
            (notices.len(), losses.len())
        };
        let whole = LogReport::default();
        assert_eq!(counts(&report(Vec::new(), whole.clone())), (0, 0));
        let salvaged = vec![wound(None, true), wound(Some(PlaceRange::ALL), true)];
        assert_eq!(counts(&report(salvaged.clone(), whole.clone())), (2, 0));
        let masterless = SalvageReport { is_masterless: true, ..report(salvaged, whole.clone()) };
        assert_eq!(counts(&masterless), (3, 0), "tombstones");
        let lost = vec![wound(Some(PlaceRange::ALL), false)];
        assert_eq!(counts(&report(lost, whole.clone())), (0, 1));
        let torn = Torn { path: "wal/1.wal".to_owned(), offset: 4096, from: 9, dropped_count: 0 };
        let torn = LogReport { torn: Some(torn), ..whole.clone() };
        assert_eq!(counts(&report(Vec::new(), torn)), (0, 1), "it may not have been torn");
        let rot = wal::Damage {
            path: "wal/1.wal".to_owned(),
            offset: 512,
            missing: 3..4,
            tag: None,
            loss: wal::Loss::Records,
            is_certain: true,
            what: "a record",
        };
        let covered = LogReport { damage: vec![rot], ..whole.clone() };
        assert_eq!(counts(&report(Vec::new(), covered)), (1, 0), "the tables have it");
        let losses = [
            LogReport { failure: Some("a reason".to_owned()), ..whole.clone() },
            LogReport { is_incomplete: true, ..whole.clone() },
            LogReport { is_gone: true, ..whole.clone() },
            LogReport { is_gone: true, is_incomplete: true, ..whole.clone() },
            LogReport { lost_through: Some(9), ..whole.clone() },
            LogReport { doubtful_count: 1, ..whole.clone() },
            LogReport { sessions_are_lost: true, entry_count: 1, ..whole },
        ];
        for log in losses {
            assert_eq!(counts(&report(Vec::new(), log.clone())), (0, 1), "{log:?}");
        }
    }

    #[test]
    fn damage_without_cells_is_said_without() {
        let line = Order::Keys.wound_line(&wound(None, true));
        assert_eq!(line, "tables/table-7 is damaged at byte 4096: a block");
        let all = Order::Keys.wound_line(&wound(Some(PlaceRange::ALL), true));
        assert!(
            all.ends_with("cells from the first to the last cannot be read in place, but salvaged")
        );
        assert!(Order::Keys.wound_json(&wound(Some(PlaceRange::ALL), true)).get("from").is_none());
    }
}
