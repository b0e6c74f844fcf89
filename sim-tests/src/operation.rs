//! What a client asks for, as data: each operation has a name, a time, and all that is in it.
//!
//! `c2.17` is the seventeenth operation of client 2. What it is depends on the seed, the options
//! and that name alone, so that one operation can be left out and the others stay as they were.
//! Each is due at a time of its client's clock, whatever became of those before it. A client that
//! is still waiting for an answer when an operation is due misses it: it was busy.
//!
//! All clients share a *window* of a few keys, so that they meet; the window moves on to new keys
//! every so often, so that the histories of single keys stay short enough to be checked.

use std::fmt;
use std::time::Duration;

use mangrove::base::Rng;
use mangrove::dynamo::Level;
use serde::{Deserialize, Serialize};

use crate::case::{level, ms};
use crate::options::{Options, RequestMix};
use crate::world::Reseed;

/// Operations of all clients on one window of keys before it moves on.
const WINDOW_OPERATIONS: u64 = 250;

/// Columns that cells of one key are spread over; the first is plain key-value data.
const COLUMNS: [&str; 3] = ["", "a", "b"];

/// Most keys or cells that a client asks for on one page, so few that most pages are cut.
const PAGE_LIMIT_MAX: u64 = 6;

/// Shortest value, in bytes.
const VALUE_BYTES_MIN: u64 = 8;

/// The name of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OperationId {
    /// The client, from 1.
    pub client: u32,
    /// The operation of that client, from 1.
    pub number: u32,
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}.{}", self.client, self.number)
    }
}

impl std::str::FromStr for OperationId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.strip_prefix('c').and_then(|rest| rest.split_once('.'));
        let parsed = parts.and_then(|(client, number)| {
            Some(Self { client: client.parse().ok()?, number: number.parse().ok()? })
        });
        parsed.ok_or_else(|| format!("{text:?} does not name an operation, as c2.17 does"))
    }
}

impl Serialize for OperationId {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for OperationId {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A cell, `key/column`; the empty column is left out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cell(pub String);

impl Cell {
    /// Names a cell.
    pub fn new(key: &str, column: &str) -> Self {
        Self(if column.is_empty() { key.to_owned() } else { format!("{key}/{column}") })
    }

    /// Returns its key.
    pub fn key(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(key, _)| key)
    }

    /// Returns its column.
    pub fn column(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, column)| column)
    }
}

/// What a condition demands of a cell, next to what was read there just before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Demand {
    /// It has the value that was read, or still none.
    Unchanged,
    /// It has the version that was read, or still none.
    SameVersion,
    /// There is one.
    Present,
    /// There is none.
    Absent,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Reads one cell.
    Get(Cell),
    /// Writes one cell.
    Set {
        /// Which.
        cell: Cell,
        /// How long the value is.
        bytes: u64,
    },
    /// Deletes one cell.
    Delete(Cell),
    /// Reads a cell, and writes it if it is still what was read.
    CompareAndSet {
        /// Which.
        cell: Cell,
        /// How long the value is.
        bytes: u64,
    },
    /// Writes and deletes several cells, all or none.
    BulkSet(Vec<(Cell, Option<u64>)>),
    /// Reads several cells.
    MultiGet(Vec<Cell>),
    /// Reads all cells of a key.
    Row(String),
    /// Deletes all cells of a key.
    DeleteRow(String),
    /// Asks one node how it is.
    Status(u64),
    /// Reads some cells, and writes and deletes several, all or none, if those are as demanded.
    BulkIf {
        /// What is demanded of which cells; none is named twice.
        conditions: Vec<(Cell, Demand)>,
        /// What is written, and deleted.
        cells: Vec<(Cell, Option<u64>)>,
    },
    /// Writes and deletes several cells and rows, all or none, in this order: what is written to a
    /// row before it is deleted is never to be seen.
    BulkRows {
        /// What is written, and deleted, first.
        before: Vec<(Cell, Option<u64>)>,
        /// The keys whose cells are all deleted then.
        rows: Vec<String>,
        /// What is written, and deleted, last.
        after: Vec<(Cell, Option<u64>)>,
    },
    /// Lists keys page by page.
    Keys {
        /// Only keys that begin so.
        prefix: String,
        /// The first, inclusive.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        start: Option<String>,
        /// The last, inclusive.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stop: Option<String>,
        /// Most keys of a page.
        limit: u32,
    },
    /// Reads cells of several keys page by page.
    Scan {
        /// Only keys that begin so.
        prefix: String,
        /// The first, inclusive.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        start: Option<Cell>,
        /// Most cells of a page.
        limit: u32,
    },
    /// Reads some columns of a key page by page.
    Slice {
        /// Which.
        key: String,
        /// The first, inclusive.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        start: Option<String>,
        /// The last, inclusive.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stop: Option<String>,
        /// Most columns of a page.
        limit: u32,
    },
}

/// One operation of one client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its name.
    pub id: OperationId,
    /// When it is due, by the clock of its client since the world began.
    #[serde(rename = "at_ms", with = "ms")]
    pub at: Duration,
    /// Of how many replicas an answer is wanted; in the masterless mode.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "level")]
    pub level: Option<Level>,
    /// What is asked for.
    #[serde(flatten)]
    pub request: Request,
}

/// Draws the operations of one client, one after the other, for ever.
#[derive(Debug, Clone)]
pub struct Drawn {
    options: Options,
    root: Rng,
    client: u32,
    number: u32,
    at: Duration,
    reseed: Option<Reseed>,
}

impl Drawn {
    /// Begins with the first operation of a client.
    pub fn new(options: &Options, client: u32) -> Self {
        let root = Rng::new(options.seed).split(&format!("client.{client}"));
        let (number, at, reseed) = (0, Duration::ZERO, None);
        Self { options: options.clone(), root, client, number, at, reseed }
    }

    /// Draws other operations from a moment on.
    #[must_use]
    pub fn reseeded(self, reseed: Option<Reseed>) -> Self {
        Self { reseed, ..self }
    }

    /// Draws what the next operation is drawn from, and when it is due.
    fn draw(&self) -> (Rng, Duration) {
        let mut rng = self.root.split(&self.number.to_string());
        let at = self.at + rng.duration(Duration::ZERO, self.options.think_time * 2);
        (rng, at)
    }
}

impl Iterator for Drawn {
    type Item = Operation;

    fn next(&mut self) -> Option<Operation> {
        self.number += 1;
        let (mut rng, mut at) = self.draw();
        if let Some(reseed) = self.reseed
            && at > reseed.at
        {
            self.reseed = None;
            self.root = reseed.split(&self.root);
            self.at = self.at.max(reseed.at);
            (rng, at) = self.draw();
        }
        self.at = at;
        let window = u64::from(self.number) * self.options.client_count.max(1) / WINDOW_OPERATIONS;
        let mut draw = Draw { options: &self.options, window, rng: rng.split("what") };
        let level = self.options.masterless.as_ref();
        let level = level.map(|masterless| masterless.levels.draw(&mut rng.split("level")));
        Some(Operation {
            id: OperationId { client: self.client, number: self.number },
            at: self.at,
            level,
            request: draw.request(),
        })
    }
}

/// Draws what one operation is.
struct Draw<'a> {
    options: &'a Options,
    window: u64,
    rng: Rng,
}

/// A draw of one kind of request.
type DrawRequest<'a> = fn(&mut Draw<'a>) -> Request;

impl<'a> Draw<'a> {
    fn request(&mut self) -> Request {
        let RequestMix { get, set, delete, delete_row, cas, bulk_set, multi_get, status, .. } =
            self.options.mix;
        let RequestMix { bulk_if, keys, scan, bulk_rows, slice, .. } = self.options.mix;
        let weights: [(u64, DrawRequest<'a>); 14] = [
            (get, |draw| Request::Get(draw.cell())),
            (set, |draw| Request::Set { cell: draw.cell(), bytes: draw.bytes() }),
            (delete, |draw| Request::Delete(draw.cell())),
            (cas, |draw| Request::CompareAndSet { cell: draw.cell(), bytes: draw.bytes() }),
            (bulk_set, Draw::bulk),
            (multi_get, |draw| {
                let count = draw.rng.range(2, 5);
                Request::MultiGet((0..count).map(|_| draw.cell()).collect())
            }),
            (multi_get.min(1), |draw| Request::Row(draw.key())),
            (delete_row, |draw| Request::DeleteRow(draw.key())),
            (status, |draw| Request::Status(draw.rng.range(1, draw.options.node_count + 1))),
            (bulk_if, Draw::bulk_if),
            (keys, Draw::keys),
            (scan, Draw::scan),
            (bulk_rows, Draw::bulk_rows),
            (slice, Draw::slice),
        ];
        let total: u64 = weights.iter().map(|(weight, _)| weight).sum();
        let mut drawn = self.rng.range(0, total.max(1));
        for (weight, make) in weights {
            if drawn < weight {
                return make(self);
            }
            drawn -= weight;
        }
        Request::Get(self.cell())
    }

    /// Returns how all keys of the window begin, and no others.
    fn prefix(&self) -> String {
        format!("k{}-", self.window)
    }

    fn key(&mut self) -> String {
        format!("{}{}", self.prefix(), self.rng.range(0, self.options.key_count))
    }

    fn cell(&mut self) -> Cell {
        let key = self.key();
        // Most data is plain; columns are for slices and bulks.
        let plain = self.rng.chance(0.7);
        Cell::new(&key, if plain { "" } else { COLUMNS[self.rng.index(COLUMNS.len())] })
    }

    fn bytes(&mut self) -> u64 {
        let max = self.options.tuning.value_bytes_max;
        self.rng.range(VALUE_BYTES_MIN, max.max(VALUE_BYTES_MIN + 1))
    }

    fn bulk(&mut self) -> Request {
        Request::BulkSet(self.writes())
    }

    fn writes(&mut self) -> Vec<(Cell, Option<u64>)> {
        let count = self.rng.range(2, 6);
        let cells = (0..count).map(|_| {
            let cell = self.cell();
            self.write_to(cell)
        });
        cells.collect()
    }

    fn write_to(&mut self, cell: Cell) -> (Cell, Option<u64>) {
        let is_set = self.rng.chance(0.8);
        (cell, is_set.then(|| self.bytes()))
    }

    fn bulk_rows(&mut self) -> Request {
        let mut rows = vec![self.key()];
        if self.rng.chance(0.3) {
            rows.push(self.key());
        }
        let (before, after) = (self.writes_near(&rows), self.writes_near(&rows));
        Request::BulkRows { before, rows, after }
    }

    /// Draws writes, most of them to these rows: beside others their deletion shows nothing.
    fn writes_near(&mut self, rows: &[String]) -> Vec<(Cell, Option<u64>)> {
        let count = self.rng.range(0, 4);
        let cells = (0..count).map(|_| {
            let mut cell = self.cell();
            if self.rng.chance(0.7) {
                cell = Cell::new(&rows[self.rng.index(rows.len())], cell.column());
            }
            self.write_to(cell)
        });
        cells.collect()
    }

    fn bulk_if(&mut self) -> Request {
        let mut conditions: Vec<(Cell, Demand)> = Vec::new();
        for _ in 0..self.rng.range(1, 4) {
            let (cell, demand) = (self.cell(), self.demand());
            if conditions.iter().all(|(held, _)| *held != cell) {
                conditions.push((cell, demand));
            }
        }
        Request::BulkIf { conditions, cells: self.writes() }
    }

    /// Draws mostly what holds unless somebody comes in between: the others hold by chance.
    fn demand(&mut self) -> Demand {
        match self.rng.range(0, 8) {
            0..=3 => Demand::Unchanged,
            4 | 5 => Demand::SameVersion,
            6 => Demand::Present,
            _ => Demand::Absent,
        }
    }

    fn keys(&mut self) -> Request {
        let start = self.rng.chance(0.3).then(|| self.key());
        let stop = self.rng.chance(0.3).then(|| self.key());
        Request::Keys { prefix: self.prefix(), start, stop, limit: self.limit() }
    }

    fn scan(&mut self) -> Request {
        let start = self.rng.chance(0.3).then(|| self.cell());
        Request::Scan { prefix: self.prefix(), start, limit: self.limit() }
    }

    fn slice(&mut self) -> Request {
        let key = self.key();
        let start = self.rng.chance(0.4).then(|| self.column());
        let stop = self.rng.chance(0.6).then(|| self.column());
        // Never all columns that there are, so that a whole row takes more than one page.
        let limit = self.rng.range(1, u64::try_from(COLUMNS.len()).unwrap_or(2));
        Request::Slice { key, start, stop, limit: u32::try_from(limit).unwrap_or(1) }
    }

    fn column(&mut self) -> String {
        COLUMNS[self.rng.index(COLUMNS.len())].to_owned()
    }

    fn limit(&mut self) -> u32 {
        u32::try_from(self.rng.range(1, PAGE_LIMIT_MAX + 1)).unwrap_or(1)
    }
}

/// Names the cells of a batch.
fn written(cells: &[(Cell, Option<u64>)]) -> String {
    let names = cells.iter().map(|(cell, bytes)| match bytes {
        Some(_) => cell.0.clone(),
        None => format!("{} (deleted)", cell.0),
    });
    names.collect::<Vec<_>>().join(", ")
}

/// Says between which bounds something is listed, where it has any.
fn bounds(start: Option<&str>, stop: Option<&str>) -> String {
    let start = start.map_or(String::new(), |start| format!(" from {start}"));
    let stop = stop.map_or(String::new(), |stop| format!(" to {stop}"));
    start + &stop
}

impl fmt::Display for Demand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unchanged => "is unchanged",
            Self::SameVersion => "has the same version",
            Self::Present => "is there",
            Self::Absent => "is not there",
        })
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |cells: &[Cell]| {
            let names: Vec<&str> = cells.iter().map(|cell| cell.0.as_str()).collect();
            names.join(", ")
        };
        match self {
            Self::Get(cell) => write!(f, "reads {}", cell.0),
            Self::Set { cell, .. } => write!(f, "writes {}", cell.0),
            Self::Delete(cell) => write!(f, "deletes {}", cell.0),
            Self::CompareAndSet { cell, .. } => write!(f, "compares and sets {}", cell.0),
            Self::BulkSet(cells) => write!(f, "writes in one batch {}", written(cells)),
            Self::MultiGet(cells) => write!(f, "reads together {}", list(cells)),
            Self::Row(key) => write!(f, "reads the row {key}"),
            Self::DeleteRow(key) => write!(f, "deletes the row {key}"),
            Self::Status(node) => write!(f, "asks node {node} how it is"),
            Self::BulkIf { conditions, cells } => {
                let demands =
                    conditions.iter().map(|(cell, demand)| format!("{} {demand}", cell.0));
                let demands = demands.collect::<Vec<_>>().join(" and ");
                write!(f, "writes in one batch {}, if {demands}", written(cells))
            }
            Self::BulkRows { before, rows, after } => {
                let writes = |cells: &[(Cell, Option<u64>)]| {
                    (!cells.is_empty()).then(|| format!("writes {}", written(cells)))
                };
                let rows = format!("deletes the rows {}", rows.join(", "));
                let steps = [writes(before), Some(rows), writes(after)];
                let steps: Vec<String> = steps.into_iter().flatten().collect();
                write!(f, "in one batch {}", steps.join(", then "))
            }
            Self::Keys { prefix, start, stop, limit } => {
                let bounds = bounds(start.as_deref(), stop.as_deref());
                write!(f, "lists the keys {prefix}…{bounds}, {limit} a page")
            }
            Self::Scan { prefix, start, limit } => {
                let bounds = bounds(start.as_ref().map(|cell| cell.0.as_str()), None);
                write!(f, "reads the cells of {prefix}…{bounds}, {limit} a page")
            }
            Self::Slice { key, start, stop, limit } => {
                // One of them has no name.
                let quoted = |column: Option<&String>| column.map(|name| format!("{name:?}"));
                let (start, stop) = (quoted(start.as_ref()), quoted(stop.as_ref()));
                let bounds = bounds(start.as_deref(), stop.as_deref());
                write!(f, "reads the columns of {key}{bounds}, {limit} a page")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn operation_depends_on_its_name_alone() {
        let options = Options::draw(3);
        let all: Vec<Operation> = Drawn::new(&options, 2).take(50).collect();
        assert_eq!(all[16], Drawn::new(&options, 2).nth(16).unwrap());
        assert_eq!(all[16].id.to_string(), "c2.17");
        assert!(all.windows(2).all(|pair| pair[0].at <= pair[1].at));
    }

    /// A listing that reached beyond its window would tie all cells of a run into one object.
    #[test]
    fn listing_stays_in_its_window() {
        let mut options = Options::draw(7);
        (options.mix.keys, options.mix.scan) = (50, 50);
        let mut listings = 0;
        let mut check = |prefix: &str, bounds: &[Option<&str>]| {
            listings += 1;
            assert!(prefix.ends_with('-'), "{prefix} is also that of other windows");
            let mut bounds = bounds.iter().flatten();
            assert!(bounds.all(|bound| bound.starts_with(prefix)), "a bound is not of {prefix}");
        };
        for operation in Drawn::new(&options, 1).take(500) {
            if let Request::Keys { prefix, start, stop, .. } = &operation.request {
                check(prefix, &[start.as_deref(), stop.as_deref()]);
            }
            if let Request::Scan { prefix, start, .. } = &operation.request {
                check(prefix, &[start.as_ref().map(Cell::key)]);
            }
        }
        assert!(listings > 300, "{listings} of 500");
    }

    #[test]
    fn conditions_name_no_cell_twice() {
        let mut options = Options::draw(7);
        (options.mix.bulk_if, options.key_count) = (100, 2);
        for operation in Drawn::new(&options, 1).take(300) {
            if let Request::BulkIf { conditions, .. } = operation.request {
                let mut cells: Vec<&Cell> = conditions.iter().map(|(cell, _)| cell).collect();
                cells.sort();
                cells.dedup();
                assert_eq!(cells.len(), conditions.len(), "{conditions:?}");
            }
        }
    }

    /// Only writes to the very row that is deleted tell whether its deletion comes in their middle.
    #[test]
    fn batch_writes_to_the_rows_that_it_deletes_before_and_after() {
        let mut options = Options::draw(7);
        options.mix.bulk_rows = 1000;
        let (mut batches, mut counts) = (0, [0; 2]);
        for operation in Drawn::new(&options, 1).take(300) {
            let Request::BulkRows { before, rows, after } = operation.request else { continue };
            batches += 1;
            let is_hit = |(cell, bytes): &(Cell, Option<u64>)| {
                bytes.is_some() && rows.iter().any(|row| row == cell.key())
            };
            counts[0] += u32::from(before.iter().any(is_hit));
            counts[1] += u32::from(after.iter().any(is_hit));
        }
        assert!(batches > 200, "{batches} of 300");
        assert!(counts.iter().all(|count| *count > batches / 3), "{counts:?} of {batches}");
    }

    #[test]
    fn batch_with_rows_is_told_in_its_order() {
        let cell = |name: &str| Cell(name.to_owned());
        let told = |before: &[(Cell, Option<u64>)], after: &[(Cell, Option<u64>)]| {
            let rows = vec!["k".to_owned(), "l".to_owned()];
            Request::BulkRows { before: before.to_vec(), rows, after: after.to_vec() }.to_string()
        };
        assert_eq!(told(&[], &[]), "in one batch deletes the rows k, l");
        assert_eq!(
            told(&[(cell("k"), Some(8))], &[(cell("k/a"), None), (cell("l"), Some(8))]),
            "in one batch writes k, then deletes the rows k, l, then writes k/a (deleted), l"
        );
    }

    #[test]
    fn slice_has_bounds_and_pages_shorter_than_a_row() {
        let mut options = Options::draw(7);
        options.mix.slice = 1000;
        let mut bounded = BTreeSet::new();
        for operation in Drawn::new(&options, 1).take(100) {
            let Request::Slice { start, stop, limit, .. } = operation.request else { continue };
            assert!((1..COLUMNS.len()).contains(&usize::try_from(limit).unwrap()), "{limit}");
            bounded.insert((start.is_some(), stop.is_some()));
        }
        assert_eq!(bounded.len(), 4, "only {bounded:?}");
        let (key, start, stop) = ("k".to_owned(), Some(String::new()), Some("b".to_owned()));
        let told = Request::Slice { key, start, stop, limit: 2 }.to_string();
        assert_eq!(told, "reads the columns of k from \"\" to \"b\", 2 a page");
    }

    #[test]
    fn operation_is_itself_again_from_json() {
        let mut options = Options::draw(5);
        options.mix.bulk_set = 5;
        options.mix.status = 3;
        (options.mix.bulk_rows, options.mix.slice) = (4, 4);
        (options.mix.bulk_if, options.mix.keys, options.mix.scan) = (4, 4, 4);
        for operation in Drawn::new(&options, 1).take(200) {
            let json = serde_json::to_string(&operation).unwrap();
            let again: Operation = serde_json::from_str(&json).unwrap();
            assert_eq!(operation, again, "{json}");
        }
    }
}
