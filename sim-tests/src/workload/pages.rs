//! What clients read page by page: keys, cells of several keys, and rows.
//!
//! Each page is an operation of its own in the history, with the bounds that it was asked for and
//! where it was cut; the checkers judge by these what it may show and must not leave out. What no
//! state of the store excuses is judged at once: order, number and range of what is on a page.

use mangrove::base::{Column, Key};
use mangrove::env::Env;
use mangrove::kv::{Cell as FoundCell, Query, QueryReply};

use super::{ClientProcess, State, column, key};
use crate::history::{Answer, Call, CellId, Range, Slice, ValueId, text};
use crate::operation::Cell;

impl<E: Env> ClientProcess<E> {
    /// Asks for a page of keys; returns where the next one begins.
    pub(super) async fn keys(
        &mut self,
        prefix: &str,
        start: Option<&str>,
        stop: Option<&str>,
        limit: u32,
    ) -> Option<String> {
        let named = |key: &str| Box::from(text(key.as_bytes()));
        let range = Range { prefix: named(prefix), start: start.map(named), stop: stop.map(named) };
        let op = self.invoke(Call::Keys(Box::new(range)));
        let (prefix, start, stop) = (key(prefix), start.map(key), stop.map(key));
        let query =
            Query::Keys { start: start.clone(), stop: stop.clone(), prefix: prefix.clone(), limit };
        let mut following = None;
        let result = self.client.query(query).await;
        self.end(op, result, |state, reply| {
            let QueryReply::Keys { keys, next } = reply else {
                unreachable!("the client library takes {reply:?} for a page of keys")
            };
            let is_inside = |key: &Key| {
                key.as_bytes().starts_with(prefix.as_bytes())
                    && start.as_ref().is_none_or(|start| start <= key)
                    && stop.as_ref().is_none_or(|stop| key <= stop)
            };
            assert_page(&keys, next.as_ref(), limit, is_inside);
            following = next.as_ref().and_then(|next| readable(next.as_bytes()));
            let rows = keys.iter().map(|key| state.history.row(&text(key.as_bytes())));
            let next = next.map(|next| Box::from(text(next.as_bytes())));
            Answer::Rows { rows: rows.collect(), next }
        });
        following
    }

    /// Asks for a page of cells; returns where the next one begins.
    pub(super) async fn scan(
        &mut self,
        prefix: &str,
        start: Option<&Cell>,
        limit: u32,
    ) -> Option<Cell> {
        let range = Range {
            prefix: text(prefix.as_bytes()).into(),
            start: start.map(|cell| place_text(cell.key().as_bytes(), cell.column().as_bytes())),
            stop: None,
        };
        let op = self.invoke(Call::Scan(Box::new(range)));
        let prefix = key(prefix);
        let start = start.map(|cell| (key(cell.key()), column(cell.column())));
        let query = Query::Scan { start: start.clone(), prefix: prefix.clone(), limit };
        let mut following = None;
        let result = self.client.query(query).await;
        self.end(op, result, |state, reply| {
            let QueryReply::Scanned { cells, next } = reply else {
                unreachable!("the client library takes {reply:?} for a page of cells")
            };
            let places: Vec<(Key, Column)> =
                cells.iter().map(|(key, column, _)| (key.clone(), column.clone())).collect();
            let is_inside = |place: &(Key, Column)| {
                place.0.as_bytes().starts_with(prefix.as_bytes())
                    && start.as_ref().is_none_or(|start| start <= place)
            };
            assert_page(&places, next.as_ref(), limit, is_inside);
            following = next.as_ref().and_then(|(key, column)| {
                Some(Cell::new(&readable(key.as_bytes())?, &readable(column.as_bytes())?))
            });
            let found = cells.iter().map(|(key, column, cell)| {
                let id = state.history.cell(&text(key.as_bytes()), &text(column.as_bytes()));
                (id, state.found(id, Some(cell)))
            });
            let cells = found.collect();
            let next = next.map(|(key, column)| place_text(key.as_bytes(), column.as_bytes()));
            Answer::Page { cells, next }
        });
        following
    }

    /// Asks for a page of columns; returns where the next one begins.
    pub(super) async fn slice(
        &mut self,
        key: &str,
        start: Option<&str>,
        stop: Option<&str>,
        limit: u32,
    ) -> Option<String> {
        let row = self.shared.lock().history.row(key);
        let named = |column: &str| Box::from(text(column.as_bytes()));
        let slice = Slice { row, start: start.map(named), stop: stop.map(named) };
        let op = self.invoke(Call::Slice(Box::new(slice)));
        let (start, stop) = (start.map(column), stop.map(column));
        let query =
            Query::Slice { key: self::key(key), start: start.clone(), stop: stop.clone(), limit };
        let mut following = None;
        let result = self.client.query(query).await;
        self.end(op, result, |state, reply| {
            let QueryReply::Columns { columns, next } = reply else {
                unreachable!("the client library takes {reply:?} for a page of columns")
            };
            let names: Vec<Column> = columns.iter().map(|(column, _)| column.clone()).collect();
            let is_inside = |column: &Column| {
                start.as_ref().is_none_or(|start| start <= column)
                    && stop.as_ref().is_none_or(|stop| column <= stop)
            };
            assert_page(&names, next.as_ref(), limit, is_inside);
            following = next.as_ref().and_then(|next| readable(next.as_bytes()));
            let next = next.map(|next| Box::from(text(next.as_bytes())));
            Answer::Page { cells: found_in_row(state, key, &columns), next }
        });
        following
    }

    /// Reads a row; returns whether that was answered.
    pub(super) async fn row(&mut self, key: &str) -> bool {
        let row = self.shared.lock().history.row(key);
        let op = self.invoke(Call::Slice(Box::new(Slice { row, start: None, stop: None })));
        let result = self.client.row(key.to_owned()).await;
        let answered = result.is_ok();
        self.end(op, result, |state, columns| Answer::Page {
            cells: found_in_row(state, key, &columns),
            next: None,
        });
        answered
    }
}

/// Takes in what was found in the columns of a key.
fn found_in_row(
    state: &mut State,
    key: &str,
    columns: &[(Column, FoundCell)],
) -> Box<[(CellId, ValueId)]> {
    let cells = columns.iter().map(|(column, cell)| {
        let id = state.history.cell(&text(key.as_bytes()), &text(column.as_bytes()));
        (id, state.found(id, Some(cell)))
    });
    cells.collect()
}

/// Returns bytes as the text that they were made of, if they were.
fn readable(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

/// Names a place as a history does.
fn place_text(key: &[u8], column: &[u8]) -> Box<str> {
    format!("{}/{}", text(key), text(column)).into()
}

/// Demands of a page what no state of the store excuses: what is on it stands for itself and needs
/// no history to be judged.
fn assert_page<T: Ord + std::fmt::Debug>(
    items: &[T],
    next: Option<&T>,
    limit: u32,
    is_inside: impl Fn(&T) -> bool,
) {
    let what = flaw_of_page(items, next, limit, is_inside);
    assert!(what.is_none(), "a page {what:?}: {items:?}, and then {next:?}, at most {limit}");
}

/// Says what is wrong with a page, if anything is.
fn flaw_of_page<T: Ord>(
    items: &[T],
    next: Option<&T>,
    limit: u32,
    is_inside: impl Fn(&T) -> bool,
) -> Option<&'static str> {
    if !items.is_sorted_by(|one, other| one < other) {
        return Some("is not sorted, or has something twice");
    }
    if items.len() > usize::try_from(limit).unwrap_or(usize::MAX) {
        return Some("has more than was asked for");
    }
    if !items.iter().all(is_inside) {
        return Some("has something outside of what was asked for");
    }
    if items.last().zip(next).is_some_and(|(last, next)| next <= last) {
        return Some("is followed by one that begins on it");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_is_judged_by_itself() {
        let flaw = |items: &[u32], next: Option<u32>| {
            flaw_of_page(items, next.as_ref(), 3, |item| (10..20).contains(item))
        };
        assert_eq!(flaw(&[], None), None);
        assert_eq!(flaw(&[], Some(12)), None, "the masterless mode may find nothing so far");
        assert_eq!(flaw(&[10, 11, 13], Some(14)), None);
        assert_eq!(flaw(&[10, 12, 11], None), Some("is not sorted, or has something twice"));
        assert_eq!(flaw(&[10, 10], None), Some("is not sorted, or has something twice"));
        assert_eq!(flaw(&[10, 11, 12, 13], None), Some("has more than was asked for"));
        let outside = Some("has something outside of what was asked for");
        assert_eq!([flaw(&[9, 11], None), flaw(&[11, 20], None)], [outside, outside]);
        assert_eq!(flaw(&[10, 11], Some(11)), Some("is followed by one that begins on it"));
    }
}
