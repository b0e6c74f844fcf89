//! Reading long ranges page by page.
//!
//! Every page is one state of the store, but not the same as the page before: what is written
//! between two pages may be seen or missed, what is not written is seen exactly once. A page may
//! be empty and yet not be the last one: a node that has to pass over many tombstones answers with
//! what it has, and where to go on.

use bytes::Bytes;

use super::{Client, ClientError};
use crate::base::limits::PAGE_COUNT_MAX;
use crate::base::{Column, Key, TooLarge};
use crate::env::Env;
use crate::kv::{Cell, Query, QueryReply};

/// Which keys to list; the default is all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyRange {
    /// First key (inclusive).
    pub start: Option<Key>,
    /// Last key (inclusive).
    pub stop: Option<Key>,
    /// Only keys that begin so.
    pub prefix: Key,
}

impl KeyRange {
    /// Takes the keys that begin with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Result<Self, TooLarge> {
        Ok(Self { prefix: Key::new(prefix)?, ..Self::default() })
    }
}

/// Lists keys page by page; see [`Client::keys`].
#[derive(Debug)]
pub struct KeysPager<E: Env> {
    client: Client<E>,
    range: KeyRange,
    limit: u32,
    is_over: bool,
}

impl<E: Env> KeysPager<E> {
    pub(super) fn new(client: Client<E>, range: KeyRange) -> Self {
        Self { client, range, limit: page_limit(), is_over: false }
    }

    /// Asks for at most `limit` keys per page; the default is the most that a node gives.
    #[must_use]
    pub fn page_limit(mut self, limit: u32) -> Self {
        self.limit = limit.clamp(1, page_limit());
        self
    }

    /// Returns the next page, sorted by bytes and perhaps empty, or `None` after the last one.
    /// After an error the same page can be asked for again.
    ///
    /// # Errors
    /// As any read; see [`ClientError`].
    pub async fn next_page(&mut self) -> Result<Option<Vec<Key>>, ClientError> {
        if self.is_over {
            return Ok(None);
        }
        let KeyRange { start, stop, prefix } = self.range.clone();
        let query = Query::Keys { start, stop, prefix, limit: self.limit };
        let QueryReply::Keys { keys, next } = self.client.query(query).await? else {
            return Err(super::misfit());
        };
        self.is_over = next.is_none();
        self.range.start = next;
        Ok(Some(keys))
    }
}

/// Reads whole cells page by page; see [`Client::scan`].
#[derive(Debug)]
pub struct ScanPager<E: Env> {
    client: Client<E>,
    start: Option<(Key, Column)>,
    prefix: Key,
    limit: u32,
    is_over: bool,
}

impl<E: Env> ScanPager<E> {
    pub(super) fn new(client: Client<E>, prefix: Key) -> Self {
        Self { client, start: None, prefix, limit: page_limit(), is_over: false }
    }

    /// Starts at this place (inclusive) instead of at the first one.
    #[must_use]
    pub fn start(mut self, key: Key, column: Column) -> Self {
        self.start = Some((key, column));
        self
    }

    /// Asks for at most `limit` cells per page; the default is the most that a node gives.
    #[must_use]
    pub fn page_limit(mut self, limit: u32) -> Self {
        self.limit = limit.clamp(1, page_limit());
        self
    }

    /// Returns the next page in order of (key, column), perhaps empty, or `None` after the last
    /// one. After an error the same page can be asked for again.
    ///
    /// # Errors
    /// As any read; see [`ClientError`].
    pub async fn next_page(&mut self) -> Result<Option<Vec<(Key, Column, Cell)>>, ClientError> {
        if self.is_over {
            return Ok(None);
        }
        let (start, prefix) = (self.start.clone(), self.prefix.clone());
        let query = Query::Scan { start, prefix, limit: self.limit };
        let QueryReply::Scanned { cells, next } = self.client.query(query).await? else {
            return Err(super::misfit());
        };
        self.is_over = next.is_none();
        self.start = next;
        Ok(Some(cells))
    }
}

/// Returns the most that one page carries.
pub(super) fn page_limit() -> u32 {
    u32::try_from(PAGE_COUNT_MAX).unwrap_or(u32::MAX)
}
