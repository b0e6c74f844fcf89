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
//! 2. A mark only goes up. That a value is gone, which all replicas say, is told by a read that
//!    began after the value was seen: an older one may have been answered before it was written.
//!
//! # Left out
//! That something was *missing* in a range: marks are of places, and a range has infinitely many.
//! [`ClientOptions::session`](super::ClientOptions::session) says what that means for a caller.
//!
//! # Sources
//! The two guarantees are those of \[Session '94\].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

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
    /// How many marks had gone up when the reads that are under way began.
    begun: Mutex<Vec<Weak<u64>>>,
}

/// What was seen, everywhere or in the places of one query.
#[derive(Debug, Clone, Default)]
pub(super) struct Marks {
    rows: BTreeMap<Key, Row>,
    /// Columns and row deletions in `rows`.
    place_count: usize,
    /// Something was forgotten: what is not in `rows` may have been seen.
    is_forgetful: bool,
    /// How often a mark went up.
    raised_count: u64,
    /// Of the places of one query: that number when it began. Kept while it is under way.
    begun: Arc<u64>,
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
    /// Which one of all that went up it was.
    number: u64,
}

/// What an answer found in a stretch of places.
type InRange<'a> = BTreeMap<(&'a Key, &'a Column), Option<&'a Cell>>;

impl Mark {
    fn value(stamp: Stamp) -> Self {
        Self { stamp, is_value: true, number: 0 }
    }

    fn tombstone(stamp: Stamp) -> Self {
        Self { stamp, is_value: false, number: 0 }
    }
}

impl Token {
    /// Takes note of a write of this session. All of it has one stamp, so of each place the last
    /// mutation counts.
    pub(super) fn on_written(&self, mutations: &[Mutation], stamp: Stamp) {
        let mut marks = lock(&self.marks);
        for mutation in mutations {
            match mutation {
                Mutation::Set { key, column, .. } => {
                    marks.raise(key, column, Mark::value(stamp));
                }
                Mutation::Delete { key, column } => {
                    marks.raise(key, column, Mark::tombstone(stamp));
                }
                Mutation::DeleteRow { key } => marks.raise_row(key, stamp),
            }
        }
    }

    /// Returns what was seen so far of the places that a query is about. As long as it is kept,
    /// the query counts as under way.
    pub(super) fn expected(&self, query: &Query) -> Marks {
        let marks = lock(&self.marks);
        let part = Marks { begun: Arc::new(marks.raised_count), ..marks.part(query) };
        let mut begun = lock(&self.begun);
        begun.retain(|read| read.strong_count() > 0);
        begun.push(Arc::downgrade(&part.begun));
        part
    }

    /// Takes note of an answer that was not behind. What was [expected](Self::expected) of it is
    /// to be kept until then.
    pub(super) fn on_read(&self, query: &Query, reply: &QueryReply, seen: Stamp, level: Level) {
        let mut marks = lock(&self.marks);
        // Whichever read of those under way this is, what was seen before all began it expected.
        let is_all = level == Level::All;
        let oldest = is_all.then(|| lock(&self.begun).iter().filter_map(Weak::upgrade).min());
        let known = oldest.map(|oldest| oldest.map_or(u64::MAX, |begun| *begun));
        if let Some((mut found, end)) = found_in_range(query, reply) {
            let part = if is_all { marks.part(query) } else { Marks::default() };
            part.add_missing(&mut found, end);
            for ((key, column), cell) in found {
                marks.see(key, column, cell, known);
            }
            return;
        }
        match (query, reply) {
            (Query::Get { key, column }, QueryReply::Cell(cell)) => {
                // Of the same stamp may be what the session wrote meanwhile: a value that its own
                // batch set after the deletion that was met.
                let before = marks.mark(key, column).map_or(Stamp::ZERO, |mark| mark.stamp);
                if cell.is_none() && seen > before {
                    marks.raise(key, column, Mark::tombstone(seen));
                }
                marks.see(key, column, cell.as_ref(), known);
            }
            (Query::MultiGet { cells: places }, QueryReply::Cells(cells)) => {
                for ((key, column), cell) in places.iter().zip(cells) {
                    marks.see(key, column, cell.as_ref(), known);
                }
            }
            // Keys come without stamps: only of those that are missing something is known.
            (Query::Keys { .. }, QueryReply::Keys { keys, next }) if is_all => {
                for (key, row) in marks.part(query).rows {
                    let is_passed = next.as_ref().is_none_or(|next| key < *next);
                    if is_passed && keys.binary_search(&key).is_err() {
                        row.columns.keys().for_each(|column| marks.see(&key, column, None, known));
                    }
                }
            }
            _ => {}
        }
    }
}

/// Returns what a page of a range shows, and where it ends; `None` of another answer.
fn found_in_range<'a>(
    query: &'a Query,
    reply: &'a QueryReply,
) -> Option<(InRange<'a>, Option<(&'a Key, &'a Column)>)> {
    match (query, reply) {
        (Query::Slice { key, .. }, QueryReply::Columns { columns, next }) => {
            let found = columns.iter().map(|(column, cell)| ((key, column), Some(cell)));
            Some((found.collect(), next.as_ref().map(|next| (key, next))))
        }
        (Query::Scan { .. }, QueryReply::Scanned { cells, next }) => {
            let found = cells.iter().map(|(key, column, cell)| ((key, column), Some(cell)));
            Some((found.collect(), next.as_ref().map(|(key, column)| (key, column))))
        }
        _ => None,
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
            (Query::Keys { .. }, QueryReply::Keys { keys, next }) => {
                self.find_stale_key(keys, next.as_ref(), level)
            }
            _ => {
                let (found, end) = found_in_range(query, reply)?;
                self.find_stale_in_range(found, end, level)
            }
        }
    }

    /// As [`find_stale`](Self::find_stale), of all places before `end`: those that were found, and
    /// those that ought to have been.
    fn find_stale_in_range<'a>(
        &'a self,
        mut found: InRange<'a>,
        end: Option<(&Key, &Column)>,
        level: Level,
    ) -> Option<Key> {
        if self.is_forgetful && level != Level::All {
            let first = found.keys().next();
            return Some(first.map(|(key, _)| (*key).clone()).unwrap_or_default());
        }
        self.add_missing(&mut found, end);
        let mut found = found.into_iter();
        let stale = found.find(|((key, column), cell)| self.is_stale(key, column, *cell, level));
        stale.map(|((key, _), _)| key.clone())
    }

    /// Adds the places before `end` that were not found.
    fn add_missing<'a>(&'a self, found: &mut InRange<'a>, end: Option<(&Key, &Column)>) {
        for (key, row) in &self.rows {
            for column in row.columns.keys() {
                if end.is_none_or(|end| (key, column) < end) {
                    found.entry((key, column)).or_insert(None);
                }
            }
        }
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
        let deleted = Mark::tombstone(row.deleted);
        let deleted = (row.deleted > Stamp::ZERO).then_some(deleted);
        row.columns.get(column).copied().max(deleted)
    }

    /// Takes note of what was found at a place. `known`: all replicas say so, to a read that
    /// expected the marks up to that number.
    fn see(&mut self, key: &Key, column: &Column, cell: Option<&Cell>, known: Option<u64>) {
        match (cell, self.mark(key, column)) {
            (Some(cell), _) => {
                let stamp = stamp_of(cell.version);
                self.raise(key, column, Mark::value(stamp));
            }
            // All replicas say that it is gone. The next answer need not prove it again.
            (None, Some(mark)) if mark.is_value && known.is_some_and(|at| mark.number <= at) => {
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
        self.raised_count += 1;
        let mark = Mark { number: self.raised_count, ..mark };
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
            let raised_count = self.raised_count;
            *self = Self { is_forgetful: true, raised_count, ..Self::default() };
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

    /// Has a session read everything at all levels after somebody else deleted `b`, which it had
    /// read; tells whether the next answers are taken at once.
    fn is_deletion_learnt(query: &Query, reply: &QueryReply) -> bool {
        let token = Token::default();
        let row = slice(None, None);
        let before = token.expected(&row);
        token.on_read(&row, &columns(&[("a", 5), ("b", 10)], None), stamp(10), Level::One);
        drop(before);
        let expected = token.expected(query);
        assert!(expected.find_stale(query, reply, Stamp::ZERO, Level::Quorum).is_some());
        assert_eq!(expected.find_stale(query, reply, Stamp::ZERO, Level::All), None);
        token.on_read(query, reply, Stamp::ZERO, Level::All);
        drop(expected);
        token.expected(query).find_stale(query, reply, Stamp::ZERO, Level::One).is_none()
    }

    #[test]
    fn deletion_that_all_replicas_tell_of_is_proven_once() {
        let all = slice(None, None);
        assert!(is_deletion_learnt(&all, &columns(&[("a", 5)], None)));
        assert!(is_deletion_learnt(&all, &columns(&[("a", 5)], Some("c"))));
        let scan = Query::Scan { start: None, prefix: Key::default(), limit: 9 };
        let cells = vec![(key("k"), column("a"), cell(5))];
        assert!(is_deletion_learnt(&scan, &QueryReply::Scanned { cells, next: None }));
        let (start, stop) = (None, None);
        let keys = Query::Keys { start, stop, prefix: Key::default(), limit: 9 };
        let none = QueryReply::Keys { keys: Vec::new(), next: None };
        assert!(is_deletion_learnt(&keys, &none), "of the whole row");
    }

    #[test]
    fn deletion_is_proven_of_the_answers_stretch_alone() {
        let token = Token::default();
        token.on_written(&[set("k", "b"), set("k", "d")], stamp(10));
        let read = |query: &Query, reply: &QueryReply| {
            let _expected = token.expected(query);
            token.on_read(query, reply, Stamp::ZERO, Level::All);
        };
        read(&slice(None, None), &columns(&[], Some("d")));
        read(&slice(None, Some("c")), &columns(&[], None));
        let stale = |start, stop| {
            let (query, reply) = (slice(start, stop), columns(&[], None));
            token.expected(&query).find_stale(&query, &reply, Stamp::ZERO, Level::One).is_some()
        };
        assert!(!stale(None, Some("c")) && stale(Some("c"), None));
    }

    #[test]
    fn deletion_is_not_proven_by_a_read_older_than_the_value() {
        let token = Token::default();
        let get = Query::Get { key: key("k"), column: column("b") };
        for (query, nothing) in
            [(slice(None, None), columns(&[], None)), (get, QueryReply::Cell(None))]
        {
            let expected = token.expected(&query);
            token.on_written(&[set("k", "b")], stamp(10));
            let other = token.expected(&query);
            token.on_read(&query, &nothing, Stamp::ZERO, Level::All);
            drop((expected, other));
            let stale =
                token.expected(&query).find_stale(&query, &nothing, Stamp::ZERO, Level::One);
            assert_eq!(stale, Some(key("k")), "the answer may be older than the write");
        }
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
