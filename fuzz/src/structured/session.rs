//! What a client's session remembers, whatever it is answered.

use std::collections::BTreeMap;

use arbitrary::{Result, Unstructured};
use mangrove::base::{Column, Key, Stamp, Value};
use mangrove::client::FuzzedSession;
use mangrove::kv::{Cell, Mutation, Query, QueryReply, Version};
use mangrove::wire::Level;

use crate::decoders::wire::{column, key};

/// Steps of one session.
const STEPS_MAX: usize = 64;

/// What a session has seen of each cell, told in the simplest way.
#[derive(Default)]
struct Seen(BTreeMap<(Key, Column), Stamp>);

/// A client's session in the masterless mode, and any answers from any nodes.
pub(super) fn token(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let (session, mut seen) = (FuzzedSession::default(), Seen::default());
    for _ in 0..STEPS_MAX {
        if input.is_empty() || step(&mut input, &session, &mut seen).is_err() {
            break;
        }
    }
    assert!(session.place_count() <= 10_000, "{} places", session.place_count());
}

fn step(input: &mut Unstructured<'_>, session: &FuzzedSession, seen: &mut Seen) -> Result<()> {
    if input.ratio(1, 3)? {
        let stamp = stamp(input)?;
        let mutation = mutation(input)?;
        session.write(std::slice::from_ref(&mutation), stamp);
        if let Mutation::Set { key, column, .. } | Mutation::Delete { key, column } = mutation {
            seen.raise(key, column, stamp);
        }
        return Ok(());
    }
    let (query, reply) = (query(input)?, reply(input)?);
    let (newest, level) = (stamp(input)?, level(input)?);
    let is_taken = session.read(&query, &reply, newest, level);
    if !is_taken {
        return Ok(());
    }
    let shown = cells(&query, &reply);
    // One answer may show a place twice, each as of another time: it shows one state all the same.
    for (key, column, version) in &shown {
        let at = Stamp::from_version(version.0);
        let before = seen.0.get(&(key.clone(), column.clone())).copied().unwrap_or_default();
        assert!(at >= before, "took {at} of {key:?}/{column:?} after {before}, at {level:?}");
    }
    for (key, column, version) in shown {
        seen.raise(key, column, Stamp::from_version(version.0));
    }
    Ok(())
}

impl Seen {
    fn raise(&mut self, key: Key, column: Column, stamp: Stamp) {
        let known = self.0.entry((key, column)).or_default();
        *known = stamp.max(*known);
    }
}

/// Returns the cells that an answer shows, if it is one to the query.
fn cells(query: &Query, reply: &QueryReply) -> Vec<(Key, Column, Version)> {
    match (query, reply) {
        (Query::Get { key, column }, QueryReply::Cell(Some(cell))) => {
            vec![(key.clone(), column.clone(), cell.version)]
        }
        (Query::MultiGet { cells: places }, QueryReply::Cells(cells)) => {
            let both = places.iter().zip(cells);
            let shown = |((key, column), cell): (&(Key, Column), &Option<Cell>)| {
                Some((key.clone(), column.clone(), cell.as_ref()?.version))
            };
            both.filter_map(shown).collect()
        }
        _ => Vec::new(),
    }
}

fn stamp(input: &mut Unstructured<'_>) -> Result<Stamp> {
    Ok(Stamp::from_version(input.int_in_range(0..=15)?))
}

fn level(input: &mut Unstructured<'_>) -> Result<Level> {
    Ok(*input.choose(&[Level::One, Level::Two, Level::Three, Level::Quorum, Level::All])?)
}

fn a_key(input: &mut Unstructured<'_>) -> Result<Key> {
    Ok(key(input.choose(&["", "a", "ab", "b"])?))
}

fn a_column(input: &mut Unstructured<'_>) -> Result<Column> {
    Ok(column(input.choose(&["", "c", "d"])?))
}

fn place(input: &mut Unstructured<'_>) -> Result<(Key, Column)> {
    Ok((a_key(input)?, a_column(input)?))
}

fn optional<T>(
    input: &mut Unstructured<'_>,
    make: fn(&mut Unstructured<'_>) -> Result<T>,
) -> Result<Option<T>> {
    if input.arbitrary()? { make(input).map(Some) } else { Ok(None) }
}

fn several<T>(
    input: &mut Unstructured<'_>,
    make: fn(&mut Unstructured<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let count = input.int_in_range(0..=4)?;
    (0..count).map(|_| make(input)).collect()
}

fn mutation(input: &mut Unstructured<'_>) -> Result<Mutation> {
    let (key, column) = place(input)?;
    Ok(match input.int_in_range(0..=2)? {
        0 => Mutation::Set { key, column, value: Value::default() },
        1 => Mutation::Delete { key, column },
        _ => Mutation::DeleteRow { key },
    })
}

fn cell(input: &mut Unstructured<'_>) -> Result<Cell> {
    Ok(Cell { value: Value::default(), version: Version(stamp(input)?.version()) })
}

fn query(input: &mut Unstructured<'_>) -> Result<Query> {
    Ok(match input.int_in_range(0..=5)? {
        0 | 1 => Query::Get { key: a_key(input)?, column: a_column(input)? },
        2 => Query::MultiGet { cells: several(input, place)? },
        3 => Query::Slice {
            key: a_key(input)?,
            start: optional(input, a_column)?,
            stop: optional(input, a_column)?,
            limit: 3,
        },
        4 => Query::Keys {
            start: optional(input, a_key)?,
            stop: optional(input, a_key)?,
            prefix: a_key(input)?,
            limit: 3,
        },
        _ => Query::Scan { start: optional(input, place)?, prefix: a_key(input)?, limit: 3 },
    })
}

fn reply(input: &mut Unstructured<'_>) -> Result<QueryReply> {
    Ok(match input.int_in_range(0..=5)? {
        0 | 1 => QueryReply::Cell(optional(input, cell)?),
        2 => QueryReply::Cells(several(input, |input| optional(input, cell))?),
        3 => QueryReply::Columns {
            columns: several(input, |input| Ok((a_column(input)?, cell(input)?)))?,
            next: optional(input, a_column)?,
        },
        4 => QueryReply::Keys { keys: several(input, a_key)?, next: optional(input, a_key)? },
        _ => QueryReply::Scanned {
            cells: several(input, |input| Ok((a_key(input)?, a_column(input)?, cell(input)?)))?,
            next: optional(input, place)?,
        },
    })
}

pub(super) fn token_seeds() -> Vec<Vec<u8>> {
    (0..8_u8).map(|start| (0..200).map(|n: u8| n.wrapping_mul(start * 2 + 1)).collect()).collect()
}
