//! What a session has seen of the store, so that it never sees less.
//!
//! In the masterless mode a read of few replicas may be older than the write, or the read, before
//! it. With [`ClientOptions::session`](super::ClientOptions::session) the client remembers the
//! stamp of what it wrote and read at each place, and compares: an answer that is behind is thrown
//! away, and the same is asked of more replicas. *Read your writes* and *monotonic reads* then hold
//! at any level, and cost something only where they did not hold by themselves.
//!
//! What is missing in an answer is the hard part, for it has no stamp. If the session has seen a
//! value there, then either the replicas that answered are behind, or somebody has deleted it. Of
//! a single cell the answer's `seen` tells, which counts tombstones. Of many cells, or where the
//! tombstone has been cleared away, only the answer of all replicas does.
//!
//! Memory is bounded by [`PLACES_MAX`]. Beyond it everything is forgotten, which is remembered:
//! from then on a place of which nothing is known is read from all replicas.
//!
//! # Invariants
//! 1. What an answer is compared with was seen before its request began. What other tasks see
//!    while it is under way is no reason to throw it away.
//! 2. A mark only goes up.
//!
//! # Left out
//! That something was *missing* in a range: marks are of places, and a range has infinitely many.
//! [`ClientOptions::session`](super::ClientOptions::session) says what that means for a caller.
//!
//! # Sources
//! The two guarantees are those of \[Session '94\].

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::lock;
use crate::base::{Column, Key, Stamp};
use crate::kv::{Cell, Mutation, Query, QueryReply, Version};
use crate::wire::Level;
use crate::{planted, probe};

/// Places that are remembered: about a megabyte with short names. Fewer: sessions that read from
/// all replicas early. More: memory, and time for ranges.
const PLACES_MAX: usize = 10_000;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Token {
    marks: Mutex<Marks>,
}

/// What was seen, everywhere or in the places of one query.
#[derive(Debug, Clone, Default)]
pub(super) struct Marks {
    rows: BTreeMap<Key, Row>,
    /// Columns and row deletions in `rows`.
    place_count: usize,
    /// Something was forgotten: what is not in `rows` may have been seen.
    is_forgetful: bool,
}

/// What was seen of one key.
#[derive(Debug, Clone, Default)]
struct Row {
    /// When the whole row was last deleted by this session; zero if it was not.
    deleted: Stamp,
    columns: BTreeMap<Column, Mark>,
}

/// What was seen at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Mark {
    stamp: Stamp,
    is_value: bool,
}

impl Token {
    /// Takes note of a write of this session. All of it has one stamp, so of each place the last
    /// mutation counts.
    pub(super) fn on_written(&self, mutations: &[Mutation], stamp: Stamp) {
        let mut marks = lock(&self.marks);
        for mutation in mutations {
            match mutation {
                Mutation::Set { key, column, .. } => {
                    marks.raise(key, column, Mark { stamp, is_value: true });
                }
                Mutation::Delete { key, column } => {
                    marks.raise(key, column, Mark { stamp, is_value: false });
                }
                Mutation::DeleteRow { key } => marks.raise_row(key, stamp),
            }
        }
    }

    /// Returns what was seen so far of the places that a query is about.
    pub(super) fn expected(&self, query: &Query) -> Marks {
        lock(&self.marks).part(query)
    }

    /// Takes note of an answer that was not behind.
    pub(super) fn on_read(&self, query: &Query, reply: &QueryReply, seen: Stamp, level: Level) {
        let mut marks = lock(&self.marks);
        match (query, reply) {
            (Query::Get { key, column }, QueryReply::Cell(cell)) => {
                // Of the same stamp may be what the session wrote meanwhile: a value that its own
                // batch set after the deletion that was met.
                let known = marks.mark(key, column).map_or(Stamp::ZERO, |mark| mark.stamp);
                if cell.is_none() && seen > known {
                    marks.raise(key, column, Mark { stamp: seen, is_value: false });
                }
                marks.see(key, column, cell.as_ref(), level);
            }
            (Query::MultiGet { cells: places }, QueryReply::Cells(cells)) => {
                for ((key, column), cell) in places.iter().zip(cells) {
                    marks.see(key, column, cell.as_ref(), level);
                }
            }
            (Query::Slice { key, .. }, QueryReply::Columns { columns, .. }) => {
                for (column, cell) in columns {
                    marks.see(key, column, Some(cell), level);
                }
            }
            (Query::Scan { .. }, QueryReply::Scanned { cells, .. }) => {
                for (key, column, cell) in cells {
                    marks.see(key, column, Some(cell), level);
                }
            }
            // Keys come without stamps.
            _ => {}
        }
    }
}

/// A session that a fuzzer drives.
#[cfg(feature = "testing")]
#[derive(Debug, Default)]
pub struct Session(Token);

#[cfg(feature = "testing")]
impl Session {
    /// Has the session write.
    pub fn write(&self, mutations: &[Mutation], stamp: Stamp) {
        self.0.on_written(mutations, stamp);
    }

    /// Gives the session an answer; tells whether it takes it, or throws it away because it is
    /// behind what was seen before.
    pub fn read(&self, query: &Query, reply: &QueryReply, seen: Stamp, level: Level) -> bool {
        let is_taken = self.0.expected(query).find_stale(query, reply, seen, level).is_none();
        if is_taken {
            self.0.on_read(query, reply, seen, level);
        }
        is_taken
    }

    /// Returns how many places are remembered.
    pub fn place_count(&self) -> usize {
        lock(&self.0.marks).place_count
    }
}

impl Marks {
    /// Returns the key of a place at which the answer is behind, if there is one.
    ///
    /// Only at [`Level::All`] does a value count as deleted because it is missing.
    pub(super) fn find_stale(
        &self,
        query: &Query,
        reply: &QueryReply,
        seen: Stamp,
        level: Level,
    ) -> Option<Key> {
        match (query, reply) {
            (Query::Get { key, column }, QueryReply::Cell(cell)) => {
                let is_stale = match (self.mark(key, column), cell) {
                    // Of a single place, `seen` is the stamp of what is, or was, there. A row's
                    // deletion hides nothing that its own batch set after it.
                    (Some(mark), None) if seen > mark.stamp => false,
                    _ => self.is_stale(key, column, cell.as_ref(), level),
                };
                is_stale.then(|| key.clone())
            }
            (Query::MultiGet { cells: places }, QueryReply::Cells(cells)) => {
                let mut both = places.iter().zip(cells);
                let stale = both
                    .find(|((key, column), cell)| self.is_stale(key, column, cell.as_ref(), level));
                stale.map(|((key, _), _)| key.clone())
            }
            (Query::Slice { key, .. }, QueryReply::Columns { columns, next }) => {
                let found = columns.iter().map(|(column, cell)| ((key, column), Some(cell)));
                let end = next.as_ref().map(|next| (key, next));
                self.find_stale_in_range(found.collect(), end, level)
            }
            (Query::Scan { .. }, QueryReply::Scanned { cells, next }) => {
                let found = cells.iter().map(|(key, column, cell)| ((key, column), Some(cell)));
                let end = next.as_ref().map(|(key, column)| (key, column));
                self.find_stale_in_range(found.collect(), end, level)
            }
            (Query::Keys { .. }, QueryReply::Keys { keys, next }) => {
                self.find_stale_key(keys, next.as_ref(), level)
            }
            _ => None,
        }
    }

    /// As [`find_stale`](Self::find_stale), of all places before `end`: those that were found, and
    /// those that ought to have been.
    fn find_stale_in_range<'a>(
        &'a self,
        mut found: BTreeMap<(&'a Key, &'a Column), Option<&Cell>>,
        end: Option<(&Key, &Column)>,
        level: Level,
    ) -> Option<Key> {
        if self.is_forgetful && level != Level::All {
            let first = found.keys().next();
            return Some(first.map(|(key, _)| (*key).clone()).unwrap_or_default());
        }
        for (key, row) in &self.rows {
            for column in row.columns.keys() {
                if end.is_none_or(|end| (key, column) < end) {
                    found.entry((key, column)).or_insert(None);
                }
            }
        }
        let mut found = found.into_iter();
        let stale = found.find(|((key, column), cell)| self.is_stale(key, column, *cell, level));
        stale.map(|((key, _), _)| key.clone())
    }

    /// As [`find_stale`](Self::find_stale), of keys without their columns.
    fn find_stale_key(&self, keys: &[Key], next: Option<&Key>, level: Level) -> Option<Key> {
        if level == Level::All {
            return None;
        }
        if self.is_forgetful {
            return Some(keys.first().cloned().unwrap_or_default());
        }
        let is_odd = |(key, row): &(&Key, &Row)| {
            let is_listed = keys.binary_search(key).is_ok();
            // Of the same stamp as the deletion is a value that one batch set after it.
            let has_value =
                row.columns.values().any(|mark| mark.is_value && mark.stamp >= row.deleted);
            let has_tombstone = row.columns.values().any(|mark| !mark.is_value);
            let may_be_gone = row.deleted > Stamp::ZERO || has_tombstone;
            (has_value && !is_listed) || (may_be_gone && !has_value && is_listed)
        };
        let mut rows = self.rows.iter().filter(|(key, _)| next.is_none_or(|next| *key < next));
        rows.find(is_odd).map(|(key, _)| key.clone())
    }

    fn is_stale(&self, key: &Key, column: &Column, cell: Option<&Cell>, level: Level) -> bool {
        match (self.mark(key, column), cell) {
            (Some(mark), Some(cell)) => stamp_of(cell.version) < mark.stamp,
            (Some(mark), None) => mark.is_value && level != Level::All,
            (None, _) => self.is_forgetful && level != Level::All,
        }
    }

    /// Returns what was seen at a place.
    fn mark(&self, key: &Key, column: &Column) -> Option<Mark> {
        let row = self.rows.get(key)?;
        let deleted = Mark { stamp: row.deleted, is_value: false };
        let deleted = (row.deleted > Stamp::ZERO).then_some(deleted);
        row.columns.get(column).copied().max(deleted)
    }

    /// Takes note of what was found at a place.
    fn see(&mut self, key: &Key, column: &Column, cell: Option<&Cell>, level: Level) {
        match (cell, self.mark(key, column)) {
            (Some(cell), _) => {
                let stamp = stamp_of(cell.version);
                self.raise(key, column, Mark { stamp, is_value: true });
            }
            // All replicas say that it is gone. The next answer need not prove it again.
            (None, Some(mark)) if mark.is_value && level == Level::All => {
                let row = self.rows.get_mut(key);
                let old = row.and_then(|row| row.columns.get_mut(column));
                if let Some(old) = old.filter(|old| **old == mark) {
                    old.is_value = false;
                }
            }
            (None, _) => {}
        }
    }

    fn raise(&mut self, key: &Key, column: &Column, mark: Mark) {
        if let Some(old) = self.rows.get_mut(key).and_then(|row| row.columns.get_mut(column)) {
            if mark.stamp > old.stamp || mark.stamp == old.stamp && !planted!("D55") {
                *old = mark;
            }
            return;
        }
        self.make_room();
        self.rows.entry(key.clone()).or_default().columns.insert(column.clone(), mark);
    }

    fn raise_row(&mut self, key: &Key, stamp: Stamp) {
        if self.rows.get(key).is_none_or(|row| row.deleted == Stamp::ZERO) {
            self.make_room();
        }
        let row = self.rows.entry(key.clone()).or_default();
        row.deleted = row.deleted.max(stamp);
        for mark in row.columns.values_mut().filter(|mark| mark.stamp == stamp) {
            mark.is_value = false;
        }
    }

    fn make_room(&mut self) {
        if self.place_count >= PLACES_MAX {
            probe!("client.session_forgets_what_it_saw");
            *self = Self { is_forgetful: true, ..Self::default() };
        }
        self.place_count += 1;
    }

    /// Returns the marks of the places that a query may answer with.
    fn part(&self, query: &Query) -> Self {
        let mut part = Self { is_forgetful: self.is_forgetful, ..Self::default() };
        match query {
            Query::Get { key, .. } => part.take_row(self, key),
            Query::MultiGet { cells } => {
                for (key, _) in cells {
                    part.take_row(self, key);
                }
            }
            Query::Slice { key, start, stop, .. } => {
                part.take_row(self, key);
                if let Some(row) = part.rows.get_mut(key) {
                    row.columns.retain(|column, _| {
                        start.as_ref().is_none_or(|start| column >= start)
                            && stop.as_ref().is_none_or(|stop| column <= stop)
                    });
                }
            }
            Query::Keys { start, stop, prefix, .. } => {
                part.rows = self.rows_from(start.as_ref(), prefix);
                part.rows.retain(|key, _| stop.as_ref().is_none_or(|stop| key <= stop));
            }
            Query::Scan { start, prefix, .. } => {
                let start = start.as_ref();
                part.rows = self.rows_from(start.map(|(key, _)| key), prefix);
                if let Some((key, first)) = start
                    && let Some(row) = part.rows.get_mut(key)
                {
                    row.columns.retain(|column, _| column >= first);
                }
            }
        }
        part
    }

    fn take_row(&mut self, from: &Self, key: &Key) {
        if let Some(row) = from.rows.get(key) {
            self.rows.entry(key.clone()).or_insert_with(|| row.clone());
        }
    }

    /// Returns the rows from `start` on whose keys begin with `prefix`.
    fn rows_from(&self, start: Option<&Key>, prefix: &Key) -> BTreeMap<Key, Row> {
        let first = start.map_or(prefix, |start| start.max(prefix));
        let rows = self.rows.range::<Key, _>(first..);
        let rows = rows.take_while(|(key, _)| key.as_bytes().starts_with(prefix.as_bytes()));
        rows.map(|(key, row)| (key.clone(), row.clone())).collect()
    }
}

/// Returns when a cell was written; in the masterless mode its version is a stamp.
fn stamp_of(version: Version) -> Stamp {
    Stamp::from_version(version.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{NodeId, Value};

    fn stamp(ms: u64) -> Stamp {
        Stamp::new(ms, 0, NodeId(1))
    }

    fn key(name: &str) -> Key {
        Key::new(name.to_owned()).unwrap()
    }

    fn column(name: &str) -> Column {
        Column::new(name.to_owned()).unwrap()
    }

    fn cell(ms: u64) -> Cell {
        Cell { value: Value::default(), version: Version(stamp(ms).version()) }
    }

    fn set(k: &str, c: &str) -> Mutation {
        Mutation::Set { key: key(k), column: column(c), value: Value::default() }
    }

    /// Tells whether a session that wrote these at 10 ms takes the answer.
    fn is_taken(written: &[Mutation], query: &Query, reply: &QueryReply, level: Level) -> bool {
        let token = Token::default();
        token.on_written(written, stamp(10));
        token.expected(query).find_stale(query, reply, Stamp::ZERO, level).is_none()
    }

    fn slice(start: Option<&str>, stop: Option<&str>) -> Query {
        let bound = |bound: Option<&str>| bound.map(column);
        Query::Slice { key: key("k"), start: bound(start), stop: bound(stop), limit: 9 }
    }

    fn columns(found: &[(&str, u64)], next: Option<&str>) -> QueryReply {
        let columns = found.iter().map(|(name, ms)| (column(name), cell(*ms))).collect();
        QueryReply::Columns { columns, next: next.map(column) }
    }

    #[test]
    fn slice_must_have_what_was_written_in_it_and_may_lack_the_rest() {
        let written = [set("k", "b"), set("k", "d"), set("other", "c")];
        let all = slice(None, None);
        let taken = |query: &Query, reply| is_taken(&written, query, &reply, Level::One);
        assert!(taken(&all, columns(&[("a", 1), ("b", 10), ("d", 11)], None)));
        assert!(!taken(&all, columns(&[("a", 1), ("b", 9), ("d", 11)], None)), "an older b");
        assert!(!taken(&all, columns(&[("a", 1), ("b", 10)], None)), "d is missing");
        assert!(taken(&all, columns(&[("a", 1), ("b", 10)], Some("c"))), "d is on another page");
        assert!(taken(&slice(Some("c"), None), columns(&[("d", 10)], None)));
        assert!(taken(&slice(None, Some("c")), columns(&[("b", 10)], None)));
        assert!(is_taken(&written, &all, &columns(&[], None), Level::All), "deleted by somebody");
    }

    #[test]
    fn row_deleted_by_the_session_hides_older_cells_in_every_answer() {
        let written = [Mutation::DeleteRow { key: key("k") }];
        let taken = |ms| {
            let reply = columns(&[("a", ms)], None);
            is_taken(&written, &slice(None, None), &reply, Level::One)
        };
        assert!(!taken(9));
        assert!(taken(11));
        let query = Query::MultiGet { cells: vec![(key("k"), column("x"))] };
        let reply = |found| QueryReply::Cells(vec![found]);
        assert!(!is_taken(&written, &query, &reply(Some(cell(9))), Level::Quorum));
        assert!(is_taken(&written, &query, &reply(None), Level::One));
    }

    #[test]
    fn last_mutation_of_a_place_counts() {
        let delete = Mutation::Delete { key: key("k"), column: column("a") };
        let delete_row = Mutation::DeleteRow { key: key("k") };
        let is_nothing_taken = |written: &[Mutation]| {
            is_taken(written, &slice(None, None), &columns(&[], None), Level::One)
        };
        assert!(!is_nothing_taken(&[delete.clone(), set("k", "a")]));
        assert!(is_nothing_taken(&[set("k", "a"), delete]));
        assert!(!is_nothing_taken(&[delete_row.clone(), set("k", "a")]));
        assert!(is_nothing_taken(&[set("k", "a"), delete_row]));
    }

    #[test]
    fn value_written_meanwhile_is_not_deleted_by_the_tombstone_of_its_own_batch() {
        let token = Token::default();
        let query = Query::Get { key: key("k"), column: column("a") };
        let expected = token.expected(&query);
        token.on_written(&[Mutation::DeleteRow { key: key("k") }, set("k", "a")], stamp(10));
        let nothing = QueryReply::Cell(None);
        assert_eq!(expected.find_stale(&query, &nothing, stamp(10), Level::One), None);
        token.on_read(&query, &nothing, stamp(10), Level::One);
        drop(expected);
        let stale = token.expected(&query).find_stale(&query, &nothing, stamp(10), Level::One);
        assert_eq!(stale, Some(key("k")), "the session has set it");
    }

    #[cfg(feature = "testing")]
    #[test]
    fn first_mutation_that_counts_is_caught() {
        crate::base::planted::loses_only_with("D55", || {
            let written = [Mutation::Delete { key: key("k"), column: column("a") }, set("k", "a")];
            is_taken(&written, &slice(None, None), &columns(&[], None), Level::One)
        });
    }

    #[test]
    fn listed_keys_must_agree_with_what_was_written() {
        let written = [set("b", ""), Mutation::Delete { key: key("d"), column: column("") }];
        let query = |start: Option<&str>, prefix: &str| Query::Keys {
            start: start.map(key),
            stop: None,
            prefix: key(prefix),
            limit: 9,
        };
        let reply = |keys: &[&str]| {
            let keys = keys.iter().map(|name| key(name)).collect();
            QueryReply::Keys { keys, next: None }
        };
        let taken =
            |query: &Query, keys: &[&str]| is_taken(&written, query, &reply(keys), Level::One);
        assert!(taken(&query(None, ""), &["a", "b", "c"]));
        assert!(!taken(&query(None, ""), &["a", "c"]), "b is missing");
        assert!(!taken(&query(None, ""), &["b", "d"]), "d may be gone");
        assert!(taken(&query(Some("c"), ""), &["c"]));
        assert!(taken(&query(None, "c"), &["c", "cc"]));
        assert!(is_taken(&written, &query(None, ""), &reply(&["d"]), Level::All));

        let delete_row = Mutation::DeleteRow { key: key("b") };
        let taken = |written: &[Mutation], keys: &[&str]| {
            is_taken(written, &query(None, ""), &reply(keys), Level::One)
        };
        assert!(!taken(&[delete_row.clone(), set("b", "")], &[]), "b was set after its deletion");
        assert!(taken(&[delete_row.clone(), set("b", "")], &["b"]));
        assert!(!taken(&[set("b", ""), delete_row.clone()], &["b"]), "b may be gone");
        assert!(taken(&[set("b", ""), delete_row], &[]));
    }

    #[test]
    fn value_is_not_deleted_by_the_tombstone_of_its_own_batch() {
        let query = Query::Get { key: key("k"), column: column("a") };
        let delete_row = Mutation::DeleteRow { key: key("k") };
        let is_nothing_taken = |written: &[Mutation], seen, level| {
            let token = Token::default();
            token.on_written(written, stamp(10));
            let expected = token.expected(&query);
            expected.find_stale(&query, &QueryReply::Cell(None), stamp(seen), level).is_none()
        };
        // A replica may have the row's tombstone and not yet the value, with one stamp.
        let set_again = [delete_row.clone(), set("k", "a")];
        assert!(!is_nothing_taken(&set_again, 10, Level::One));
        assert!(!is_nothing_taken(&set_again, 10, Level::Quorum));
        assert!(is_nothing_taken(&set_again, 10, Level::All));
        assert!(is_nothing_taken(&set_again, 11, Level::One), "deleted later");
        assert!(is_nothing_taken(&[set("k", "a"), delete_row], 10, Level::One));
    }

    #[test]
    fn scan_begins_in_the_middle_of_a_row() {
        let written = [set("k", "a"), set("k", "c")];
        let start = Some((key("k"), column("b")));
        let query = Query::Scan { start, prefix: Key::default(), limit: 9 };
        let reply = |cells| QueryReply::Scanned { cells, next: None };
        let whole = vec![(key("k"), column("c"), cell(10))];
        assert!(is_taken(&written, &query, &reply(whole), Level::One));
        assert!(!is_taken(&written, &query, &reply(Vec::new()), Level::One));
    }

    #[test]
    fn session_that_has_seen_too_much_reads_the_rest_from_all() {
        let token = Token::default();
        for number in 0..=PLACES_MAX {
            token.on_written(&[set(&number.to_string(), "")], stamp(10));
        }
        let get = |name: &str| Query::Get { key: key(name), column: column("") };
        let is_taken = |name: &str, level| {
            let (query, reply) = (get(name), QueryReply::Cell(Some(cell(10))));
            token.expected(&query).find_stale(&query, &reply, Stamp::ZERO, level).is_none()
        };
        assert!(is_taken(&PLACES_MAX.to_string(), Level::One), "the last one is remembered");
        assert!(!is_taken("0", Level::Quorum) && is_taken("0", Level::All));
        let place_count = lock(&token.marks).place_count;
        assert_eq!(place_count, 1, "what is remembered is bounded");
    }

    #[test]
    fn what_comes_while_an_answer_is_under_way_is_no_reason_to_throw_it_away() {
        let token = Token::default();
        let query = Query::Get { key: key("k"), column: column("") };
        let expected = token.expected(&query);
        token.on_written(&[set("k", "")], stamp(10));
        let reply = QueryReply::Cell(Some(cell(9)));
        assert_eq!(expected.find_stale(&query, &reply, Stamp::ZERO, Level::One), None);
        token.on_read(&query, &reply, stamp(9), Level::One);
        let again = token.expected(&query);
        assert!(again.find_stale(&query, &reply, Stamp::ZERO, Level::All).is_some());
    }
}
