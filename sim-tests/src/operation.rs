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
        let RequestMix { get, set, delete, delete_row, cas, bulk_set, multi_get, status } =
            self.options.mix;
        let weights: [(u64, DrawRequest<'a>); 9] = [
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

    fn key(&mut self) -> String {
        format!("k{}-{}", self.window, self.rng.range(0, self.options.key_count))
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
        let count = self.rng.range(2, 6);
        let cells = (0..count).map(|_| {
            let cell = self.cell();
            let is_set = self.rng.chance(0.8);
            (cell, is_set.then(|| self.bytes()))
        });
        Request::BulkSet(cells.collect())
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
            Self::BulkSet(cells) => {
                let names = cells.iter().map(|(cell, bytes)| match bytes {
                    Some(_) => cell.0.clone(),
                    None => format!("{} (deleted)", cell.0),
                });
                write!(f, "writes in one batch {}", names.collect::<Vec<_>>().join(", "))
            }
            Self::MultiGet(cells) => write!(f, "reads together {}", list(cells)),
            Self::Row(key) => write!(f, "reads the row {key}"),
            Self::DeleteRow(key) => write!(f, "deletes the row {key}"),
            Self::Status(node) => write!(f, "asks node {node} how it is"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operation_depends_on_its_name_alone() {
        let options = Options::draw(3);
        let all: Vec<Operation> = Drawn::new(&options, 2).take(50).collect();
        assert_eq!(all[16], Drawn::new(&options, 2).nth(16).unwrap());
        assert_eq!(all[16].id.to_string(), "c2.17");
        assert!(all.windows(2).all(|pair| pair[0].at <= pair[1].at));
    }

    #[test]
    fn operation_is_itself_again_from_json() {
        let mut options = Options::draw(5);
        options.mix.bulk_set = 5;
        options.mix.status = 3;
        for operation in Drawn::new(&options, 1).take(200) {
            let json = serde_json::to_string(&operation).unwrap();
            let again: Operation = serde_json::from_str(&json).unwrap();
            assert_eq!(operation, again, "{json}");
        }
    }
}
