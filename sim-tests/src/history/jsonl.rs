//! Histories as JSON Lines: one event a line, in the form that outside judges read.
//!
//! ```text
//! {"process":3,"type":"invoke","f":"set","key":"k/c","value":"v7","time":120000}
//! {"process":3,"type":"ok","f":"set","key":"k/c","value":"v7","time":150000}
//! ```
//!
//! # Layout
//! `type` is `invoke`, `ok`, `fail` or `info`; `time` is in nanoseconds; values are strings, `null`
//! is an absent cell. By `f`, the `value` of the invocation and of its `ok`:
//!
//! | f | key | invoke | ok |
//! |---|---|---|---|
//! | `get` | `k/c` | `null` | the value |
//! | `set`, `delete` | `k/c` | the value, `null` | the same |
//! | `cas` | `k/c` | `[old,new]` | the same, and `"applied"`; optionally `"current"` |
//! | `bulk_set` | – | `{"k/c":value,"k/*":null}`, null deletes, `*` a row | the same |
//! | `bulk_if` | – | `{"if":{"k/c":[value]},"set":{…}}` | the same, and `"applied"`; see below |
//! | `multi_get` | – | `["k/c",…]` | `{"k/c":value,…}` |
//! | `delete_row` | `k` | `null` | `null` |
//! | `row`, `slice` | `k` | `{"start":c,"stop":c}` | `{"k/c":value,…}`, and `"next"` if cut |
//! | `scan` | – | `{"prefix":k,"start":"k/c","stop":"k/c"}` | `{"k/c":value,…}`, and `"next"` |
//! | `keys` | – | `{"prefix":k,"start":k,"stop":k}` | `["k",…]`, and `"next"` |
//!
//! In the masterless mode every end has also `level`, `session`, `token` and, if `ok`, the `stamp`
//! of a write, the `seen` of a read and the `stamps` of its cells, as numbers; reading a file
//! skips them.
//!
//! In `bulk_if` a condition is `[value]`, `"present"` or `"opaque"`. Where it was not applied, the
//! `ok` may have the `"cell"` whose condition did not hold, and what is there as `"current"`.
//! `fail` and `info` repeat the invocation. Rows are emptied before cells are written.

use std::io::{self, BufRead, Write};

use mangrove::base::Stamp;
use serde_json::{Map, Value as Json, json};

use super::{
    Answer, Bulk, Call, CellId, Disorder, Event, EventKind, Expected, History, OpId, Outcome,
    Process, Range, Slice, Terms, ValueId,
};

/// A file is no history.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Reading failed.
    #[error("cannot read the history: {0}")]
    Io(#[from] io::Error),
    /// A line is no JSON.
    #[error("line {line}: {source}")]
    Json {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A record lacks something or has the wrong shape.
    #[error("line {line}: {what}")]
    Shape {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// A record cannot follow the ones before it.
    #[error("line {line}: {source}")]
    Disorder {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        source: Disorder,
    },
}

/// Writes the history, one event a line.
pub fn write(history: &History, to: &mut dyn Write) -> io::Result<()> {
    for event in history.events() {
        serde_json::to_writer(&mut *to, &record(history, event))?;
        to.write_all(b"\n")?;
    }
    Ok(())
}

/// Reads a history; empty lines are skipped.
pub fn read(from: &mut dyn BufRead) -> Result<History, ReadError> {
    let mut history = History::new();
    let mut open: Vec<(Process, OpId)> = Vec::new();
    for (position, text) in from.lines().enumerate() {
        let (line, text) = (position + 1, text?);
        if text.trim().is_empty() {
            continue;
        }
        let json: Json =
            serde_json::from_str(&text).map_err(|source| ReadError::Json { line, source })?;
        read_record(&mut history, &mut open, &json).map_err(|flaw| match flaw {
            Flaw::Shape(what) => ReadError::Shape { line, what },
            Flaw::Disorder(source) => ReadError::Disorder { line, source },
        })?;
    }
    Ok(history)
}

enum Flaw {
    Shape(&'static str),
    Disorder(Disorder),
}

impl From<&'static str> for Flaw {
    fn from(what: &'static str) -> Self {
        Self::Shape(what)
    }
}

fn read_record(
    history: &mut History,
    open: &mut Vec<(Process, OpId)>,
    json: &Json,
) -> Result<(), Flaw> {
    let process = json["process"].as_u64().and_then(|id| u32::try_from(id).ok());
    // The last id is kept free, so that there is always a next one.
    let is_free = |id: &u32| *id < u32::MAX || mangrove::planted!("F20");
    let process = process.filter(is_free).ok_or("no process number")?;
    let (process, time_ns) = (Process(process), json["time"].as_u64().ok_or("no time")?);
    let kind = json["type"].as_str().ok_or("no type")?;
    if kind == "invoke" {
        history.admits(process).map_err(Flaw::Disorder)?;
        let call = read_call(history, json)?;
        open.push((process, history.invoke(process, call, time_ns)));
        return Ok(());
    }
    let position = open.iter().position(|(owner, _)| *owner == process);
    let position = position.ok_or(Flaw::Disorder(Disorder::Idle(process.0)))?;
    let op = open.swap_remove(position).1;
    match kind {
        "ok" => {
            let call = history.op(op).call.clone();
            let answer = read_answer(history, &call, json)?;
            if !answer.fits(&call) {
                return Err(Flaw::Disorder(Disorder::Shape(process.0)));
            }
            history.ok(op, answer, time_ns);
        }
        "fail" => history.fail(op, time_ns),
        "info" => {
            history.info(op, time_ns);
        }
        _ => return Err("unknown type".into()),
    }
    Ok(())
}

fn record(history: &History, event: &Event) -> Json {
    let op = history.op(event.op);
    let (kind, answer) = match (event.kind, &op.outcome) {
        (EventKind::Invoke, _) => ("invoke", None),
        (EventKind::End, Outcome::Ok(answer)) => ("ok", Some(answer)),
        (EventKind::End, Outcome::Fail) => ("fail", None),
        (EventKind::End, Outcome::Info | Outcome::Open) => ("info", None),
    };
    let value = match answer {
        Some(answer) => answered(history, &op.call, answer),
        None => asked(history, &op.call),
    };
    let mut record = json!({
        "process": op.process.0, "type": kind, "f": f(&op.call), "key": key(history, &op.call),
        "value": value, "time": event.time_ns,
    });
    match answer {
        Some(Answer::Tried { applied, current }) => {
            record["applied"] = json!(applied);
            if let Some(current) = current {
                record["current"] = value_json(history, *current);
            }
        }
        Some(Answer::Refused { cell, current }) => {
            record["applied"] = json!(false);
            record["cell"] = json!(history.cell_text(*cell));
            record["current"] = value_json(history, *current);
        }
        Some(Answer::Page { next: Some(next), .. } | Answer::Rows { next: Some(next), .. }) => {
            record["next"] = json!(next);
        }
        _ => {}
    }
    if event.kind == EventKind::End
        && let Some(terms) = history.terms(event.op)
    {
        add_terms(history, &mut record, terms);
    }
    record
}

fn add_terms(history: &History, record: &mut Json, terms: &Terms) {
    record["level"] = json!(format!("{:?}", terms.level));
    record["session"] = json!(terms.session.0);
    record["token"] = json!(terms.token.version());
    record["seen"] = json!(terms.seen.version());
    record["stamp"] = json!(terms.stamp.map(Stamp::version));
    let stamps = terms.found.iter();
    let stamps =
        stamps.map(|(cell, at)| (history.cell_text(*cell).to_owned(), json!(at.version())));
    record["stamps"] = Json::Object(stamps.collect());
}

/// Returns the name of an operation in a file.
pub(super) fn f(call: &Call) -> &'static str {
    match call {
        Call::Get { .. } => "get",
        Call::Set { .. } => "set",
        Call::Delete { .. } => "delete",
        Call::Cas { .. } => "cas",
        Call::Bulk(bulk) if bulk.conditions.is_empty() => "bulk_set",
        Call::Bulk(_) => "bulk_if",
        Call::MultiGet(_) => "multi_get",
        Call::DeleteRow { .. } => "delete_row",
        Call::Slice(slice) if slice.start.is_none() && slice.stop.is_none() => "row",
        Call::Slice(_) => "slice",
        Call::Keys(_) => "keys",
        Call::Scan(_) => "scan",
    }
}

/// Returns the `key` of an operation in a file.
pub(super) fn key(history: &History, call: &Call) -> Json {
    match call {
        Call::Get { cell }
        | Call::Set { cell, .. }
        | Call::Delete { cell }
        | Call::Cas { cell, .. } => json!(history.cell_text(*cell)),
        Call::DeleteRow { row } => json!(history.row_text(*row)),
        Call::Slice(slice) => json!(history.row_text(slice.row)),
        Call::Bulk(_) | Call::MultiGet(_) | Call::Keys(_) | Call::Scan(_) => Json::Null,
    }
}

/// Returns the `value` of an invocation in a file.
pub(super) fn asked(history: &History, call: &Call) -> Json {
    match call {
        Call::Get { .. } | Call::Delete { .. } | Call::DeleteRow { .. } => Json::Null,
        Call::Set { value, .. } => value_json(history, *value),
        Call::Cas { old, new, .. } => {
            json!([value_json(history, *old), value_json(history, *new)])
        }
        Call::Bulk(bulk) if bulk.conditions.is_empty() => writes_json(history, bulk),
        Call::Bulk(bulk) => {
            let condition = |(cell, expected): &(CellId, Expected)| {
                let expected = match expected {
                    Expected::Value(value) => json!([value_json(history, *value)]),
                    Expected::Present => json!("present"),
                    Expected::Opaque => json!("opaque"),
                };
                (history.cell_text(*cell).to_owned(), expected)
            };
            let conditions: Map<String, Json> = bulk.conditions.iter().map(condition).collect();
            json!({ "if": conditions, "set": writes_json(history, bulk) })
        }
        Call::MultiGet(cells) => cells.iter().map(|cell| json!(history.cell_text(*cell))).collect(),
        Call::Slice(slice) => json!({ "start": slice.start, "stop": slice.stop }),
        Call::Keys(range) | Call::Scan(range) => {
            json!({ "prefix": range.prefix, "start": range.start, "stop": range.stop })
        }
    }
}

/// Returns the `value` of an `ok` in a file.
pub(super) fn answered(history: &History, call: &Call, answer: &Answer) -> Json {
    match answer {
        Answer::Done | Answer::Tried { .. } | Answer::Refused { .. } => asked(history, call),
        Answer::Value(value) => value_json(history, *value),
        Answer::Values(cells) | Answer::Page { cells, .. } => cells_json(history, cells),
        Answer::Rows { rows, .. } => rows.iter().map(|row| json!(history.row_text(*row))).collect(),
    }
}

fn value_json(history: &History, value: ValueId) -> Json {
    history.value_text(value).map_or(Json::Null, |text| json!(text))
}

fn cells_json(history: &History, cells: &[(CellId, ValueId)]) -> Json {
    let entry = |(cell, value): &(CellId, ValueId)| {
        (history.cell_text(*cell).to_owned(), value_json(history, *value))
    };
    Json::Object(cells.iter().map(entry).collect())
}

fn writes_json(history: &History, bulk: &Bulk) -> Json {
    let rows = bulk.rows.iter().map(|row| (format!("{}/*", history.row_text(*row)), Json::Null));
    let Json::Object(cells) = cells_json(history, &bulk.cells) else { return Json::Null };
    Json::Object(rows.chain(cells).collect())
}

fn read_call(history: &mut History, json: &Json) -> Result<Call, Flaw> {
    let value = &json["value"];
    let key = json["key"].as_str();
    Ok(match json["f"].as_str().ok_or("no f")? {
        "get" => Call::Get { cell: history.cell_named(key.ok_or("no key")?) },
        "set" => Call::Set {
            cell: history.cell_named(key.ok_or("no key")?),
            value: read_value(history, value)?,
        },
        "delete" => Call::Delete { cell: history.cell_named(key.ok_or("no key")?) },
        "cas" => Call::Cas {
            cell: history.cell_named(key.ok_or("no key")?),
            old: read_value(history, value.get(0).ok_or("no old value")?)?,
            new: read_value(history, value.get(1).ok_or("no new value")?)?,
        },
        "bulk_set" => Call::Bulk(Box::new(read_writes(history, value)?)),
        "bulk_if" => {
            let mut bulk = read_writes(history, &value["set"])?;
            for (name, expected) in value["if"].as_object().ok_or("no conditions")? {
                let expected = match expected.as_str() {
                    Some("present") => Expected::Present,
                    Some("opaque") => Expected::Opaque,
                    _ => {
                        let value = expected.get(0).ok_or("unknown condition")?;
                        Expected::Value(read_value(history, value)?)
                    }
                };
                bulk.conditions.push((history.cell_named(name), expected));
            }
            Call::Bulk(Box::new(bulk))
        }
        "multi_get" => {
            let mut cells = Vec::new();
            for name in value.as_array().ok_or("no list of keys")? {
                cells.push(history.cell_named(name.as_str().ok_or("key is no string")?));
            }
            Call::MultiGet(cells.into())
        }
        "delete_row" => Call::DeleteRow { row: history.row(key.ok_or("no key")?) },
        "row" | "slice" => Call::Slice(Box::new(Slice {
            row: history.row(key.ok_or("no key")?),
            start: text(&value["start"]),
            stop: text(&value["stop"]),
        })),
        "keys" => Call::Keys(Box::new(read_range(value))),
        "scan" => Call::Scan(Box::new(read_range(value))),
        _ => return Err("unknown f".into()),
    })
}

fn read_answer(history: &mut History, call: &Call, json: &Json) -> Result<Answer, Flaw> {
    let value = &json["value"];
    Ok(match call {
        Call::Get { .. } => Answer::Value(read_value(history, value)?),
        Call::Set { .. } | Call::Delete { .. } | Call::DeleteRow { .. } => Answer::Done,
        Call::Bulk(bulk) if bulk.conditions.is_empty() => Answer::Done,
        Call::Cas { .. } | Call::Bulk(_) => {
            let applied = json["applied"].as_bool().ok_or("no applied")?;
            let current = match json.get("current") {
                Some(current) => Some(read_value(history, current)?),
                None => None,
            };
            match (json["cell"].as_str(), current) {
                (Some(cell), Some(current)) if !applied => {
                    Answer::Refused { cell: history.cell_named(cell), current }
                }
                _ => Answer::Tried { applied, current },
            }
        }
        Call::MultiGet(_) => Answer::Values(read_cells(history, value)?.into()),
        Call::Slice(_) | Call::Scan(_) => {
            Answer::Page { cells: read_cells(history, value)?.into(), next: text(&json["next"]) }
        }
        Call::Keys(_) => {
            let mut rows = Vec::new();
            for name in value.as_array().ok_or("no list of keys")? {
                rows.push(history.row(name.as_str().ok_or("key is no string")?));
            }
            Answer::Rows { rows: rows.into(), next: text(&json["next"]) }
        }
    })
}

fn read_value(history: &mut History, json: &Json) -> Result<ValueId, Flaw> {
    match json.as_str() {
        Some(text) => Ok(history.value(text)),
        None if json.is_null() => Ok(ValueId::ABSENT),
        None => Err("a value is neither string nor null".into()),
    }
}

fn read_cells(history: &mut History, json: &Json) -> Result<Vec<(CellId, ValueId)>, Flaw> {
    let mut cells = Vec::new();
    for (name, value) in json.as_object().ok_or("no map of cells")? {
        cells.push((history.cell_named(name), read_value(history, value)?));
    }
    Ok(cells)
}

fn read_writes(history: &mut History, json: &Json) -> Result<Bulk, Flaw> {
    let mut bulk = Bulk::default();
    for (name, value) in json.as_object().ok_or("no map of cells")? {
        match name.strip_suffix("/*") {
            Some(key) => bulk.rows.push(history.row(key)),
            None => bulk.cells.push((history.cell_named(name), read_value(history, value)?)),
        }
    }
    Ok(bulk)
}

fn read_range(json: &Json) -> Range {
    Range {
        prefix: text(&json["prefix"]).unwrap_or_default(),
        start: text(&json["start"]),
        stop: text(&json["stop"]),
    }
}

fn text(json: &Json) -> Option<Box<str>> {
    json.as_str().map(Box::from)
}
