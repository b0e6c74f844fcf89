//! The client library: a store that is spread over several nodes, used like one.
//!
//! A [`Client`] is made from the addresses of some nodes. It is a cheap handle that any number
//! of tasks share; it connects when the first request needs it.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = mangrove::client::connect(["127.0.0.1:7101", "127.0.0.1:7102"]);
//! client.set("greeting", "hello").await?;
//! let cell = client.get("greeting").await?;
//! assert_eq!(cell.map(|cell| cell.value.into_bytes()), Some("hello".into()));
//! # Ok(())
//! # }
//! ```
//!
//! # What it takes care of
//! *Finding the leader.* A follower answers who leads; the client asks there, and stays until
//! the leader fails (`routing`).
//!
//! *Repeating what is safe.* When an answer does not come, nobody knows whether the request was
//! carried out. Reads are simply asked again. A write carries the number that it has in the
//! client's session; the nodes remember which numbers were carried out, so a repeated write
//! takes effect once (`session`, [Thesis §6.3]).
//!
//! *Saying what became of it.* An error that says "not applied" can be relied on. When neither
//! can be proved, the error is [`ClientError::Unknown`] (`retry`).
//!
//! *Being quick.* One connection per node carries all requests at once, and requests that come
//! together are written together (`connection`).
//!
//! # Consistency
//! In the primary-backup mode every single request is linearizable; a batch and a
//! [`multi_get`](Client::multi_get) are strictly serializable: they see and make one state. What
//! is read page by page ([`row`](Client::row), [`slice`](Client::slice), [`keys`](Client::keys),
//! [`scan`](Client::scan)) is one state per page only.
//!
//! In the masterless mode a request says of how many replicas it wants an answer
//! ([`with_level`](Client::with_level)). At [`Level::Quorum`], the default, a read sees every write
//! of that level that was acknowledged before; at [`Level::One`] it may be older. Of two writes of
//! a cell the later one counts, by the clocks of the nodes; a client's own writes come after what
//! it has read. There are no conditional writes, and writes carry no number: one whose answer is
//! lost is [`ClientError::Unknown`] at once, and repeating it is another write. With
//! [`ClientOptions::session`] the client sees its own writes, and never an older state than before,
//! at any level (`token` says how, and what of long listings it does not remember).
//!
//! # Left out
//! Cancelling a request at the node: dropping a future stops the waiting, not the write. A write
//! whose outcome is unknown may take effect later, even after the client has gone: of those that
//! have left for a node nobody can tell when that reads them. Load
//! balancing: all requests go to one node, the leader or, without leaders, the first of the
//! addresses that answers; give clients the addresses in different orders.
//!
//! # Sources
//! [Raft §8] client interaction; [Thesis §6.2] finding the leader, [Thesis §6.3] sessions.

mod batch;
mod connect;
mod connection;
mod error;
mod options;
mod pager;
mod retry;
mod routing;
mod saving;
mod session;
mod token;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use self::batch::check_query;
use self::connection::Answer;
use self::pager::page_limit;
use self::retry::{Kind, Tries};
use self::routing::Routing;
use self::session::{Begin, Sessions, Ticket};
use self::token::Token;
use crate::base::{Column, Key, Payload, RequestSeq, Rng, SessionId, Stamp, Value};
use crate::codec;
use crate::env::Env;
use crate::env::Net;
use crate::kv::{
    Batch, Cell, Command, CommandReply, Condition, Expectation, Mutation, Query, QueryReply,
    Version, validate_batch,
};
use crate::probe;
use crate::wire::{Consistency, RequestBody, RequestError, ResponseBody, Status};

pub use self::batch::BatchBuilder;
pub use self::connect::connect;
pub use self::error::{ClientError, TryFailure};
pub use self::options::ClientOptions;
pub use self::pager::{KeyRange, KeysPager, ScanPager};
pub use self::saving::SnapshotPager;
#[cfg(feature = "testing")]
pub use self::token::Session as FuzzedSession;
pub use crate::wire::{Level, Mode};

/// The byte stream of an environment.
type Stream<E> = <<E as Env>::Net as Net>::Stream;

/// A client of one cluster. Cheap to clone; all clones share connections and the session.
#[derive(Debug)]
pub struct Client<E: Env> {
    inner: Arc<Inner<E>>,
    level: Level,
    /// How likely it is that a write makes its node lose what it writes to tables, in millionths.
    loss_ppm: u32,
}

impl<E: Env> Clone for Client<E> {
    fn clone(&self) -> Self {
        let Self { inner, level, loss_ppm } = self;
        Self { inner: Arc::clone(inner), level: *level, loss_ppm: *loss_ppm }
    }
}

/// What became of a write with conditions. Both are answers, not errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CasResult {
    /// All conditions held, and all mutations took effect, at this version.
    Applied(Version),
    /// A condition did not hold; nothing took effect.
    Conflict {
        /// Which condition, counted from 0.
        position: u32,
        /// The cell as it is.
        current: Option<Cell>,
    },
}

struct Inner<E: Env> {
    env: E,
    options: ClientOptions,
    routing: Routing<Stream<E>>,
    addresses_count: usize,
    sessions: Sessions,
    /// The largest stamp that any answer has met, as a version; masterless only.
    seen: AtomicU64,
    /// What the session has seen, if it is to see no less from now on; masterless only.
    token: Option<Token>,
    rng: Mutex<Rng>,
}

impl<E: Env> std::fmt::Debug for Inner<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("addresses", &self.routing.addresses())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl<E: Env> Client<E> {
    /// Makes a client of the nodes at `addresses` (`host:port`; some nodes of the cluster are
    /// enough). Connects only when a request needs it, so it never fails.
    pub fn connect(env: E, addresses: Vec<String>, options: ClientOptions) -> Self {
        let routing = Routing::new(addresses, options.cluster);
        let level = options.level;
        let inner = Inner {
            seen: AtomicU64::new(Stamp::ZERO.version()),
            token: options.session.then(Token::default),
            rng: Mutex::new(env.rng("client")),
            addresses_count: routing.addresses().len(),
            sessions: Sessions::default(),
            routing,
            options,
            env,
        };
        Self { inner: Arc::new(inner), level, loss_ppm: 0 }
    }

    /// Returns the same client, which asks for answers of another level from now on.
    #[must_use]
    pub fn with_level(&self, level: Level) -> Self {
        Self { level, ..self.clone() }
    }

    /// Returns the same client, whose writes are now accompanied by a fault: with this probability
    /// each, the node that takes the write loses, when it is killed, whatever it writes to its
    /// *tables* from then on, as in a power cut; never what it writes to its log. Nothing that is
    /// acknowledged may be lost by that.
    ///
    /// For tests. A node that was not started with `--debug-faults` refuses such writes with
    /// [`ClientError::Invalid`]: not applied. A probability of 0 asks for nothing.
    #[must_use]
    pub fn with_debug_table_loss(&self, probability: f64) -> Self {
        Self { loss_ppm: ppm(probability), ..self.clone() }
    }

    /// Returns how the cluster replicates. Connects to a node if need be.
    pub async fn mode(&self) -> Result<Mode, ClientError> {
        self.inner.mode(&mut self.inner.tries(Kind::Harmless)).await
    }

    /// Returns the addresses that the client was made with.
    pub fn addresses(&self) -> Vec<String> {
        self.inner.routing.addresses()
    }

    /// Returns the cell of plain key-value data, that of the empty column.
    ///
    /// # Errors
    /// See [`ClientError`], here and everywhere below.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Cell>, ClientError> {
        self.get_cell(key, Bytes::new()).await
    }

    /// Returns a cell.
    pub async fn get_cell(
        &self,
        key: impl Into<Bytes>,
        column: impl Into<Bytes>,
    ) -> Result<Option<Cell>, ClientError> {
        let query = Query::Get { key: Key::new(key)?, column: Column::new(column)? };
        let QueryReply::Cell(cell) = self.query(query).await? else { return Err(misfit()) };
        Ok(cell)
    }

    /// Sets the cell of plain key-value data; returns the version it got.
    pub async fn set(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<Version, ClientError> {
        self.set_cell(key, Bytes::new(), value).await
    }

    /// Sets a cell; returns the version it got.
    pub async fn set_cell(
        &self,
        key: impl Into<Bytes>,
        column: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<Version, ClientError> {
        let (key, column, value) = (Key::new(key)?, Column::new(column)?, Value::new(value)?);
        self.mutate(Mutation::Set { key, column, value }).await
    }

    /// Deletes the cell of plain key-value data; fine if there is none.
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<Version, ClientError> {
        self.delete_cell(key, Bytes::new()).await
    }

    /// Deletes a cell; fine if there is none.
    pub async fn delete_cell(
        &self,
        key: impl Into<Bytes>,
        column: impl Into<Bytes>,
    ) -> Result<Version, ClientError> {
        let (key, column) = (Key::new(key)?, Column::new(column)?);
        self.mutate(Mutation::Delete { key, column }).await
    }

    /// Deletes all columns of a key; fine if there are none.
    pub async fn delete_row(&self, key: impl Into<Bytes>) -> Result<Version, ClientError> {
        self.mutate(Mutation::DeleteRow { key: Key::new(key)? }).await
    }

    /// Applies the mutations of a batch together or not at all; see [`BatchBuilder`].
    ///
    /// # Errors
    /// Also [`ClientError::Invalid`] for a batch with conditions: that is
    /// [`conditional_bulk`](Self::conditional_bulk).
    pub async fn bulk_set(&self, batch: Batch) -> Result<Version, ClientError> {
        if !batch.conditions.is_empty() {
            let what = "a bulk write has no conditions: send it as a conditional one".to_owned();
            return Err(ClientError::Invalid(what));
        }
        match self.write(batch).await? {
            CasResult::Applied(version) => Ok(version),
            CasResult::Conflict { .. } => Err(misfit()),
        }
    }

    /// Applies the mutations of a batch together if all its conditions hold, else not at all.
    pub async fn conditional_bulk(&self, batch: Batch) -> Result<CasResult, ClientError> {
        self.write(batch).await
    }

    /// Sets a cell to `new`, or deletes it if that is `None`, if it is as `expected`.
    pub async fn compare_and_set(
        &self,
        key: impl Into<Bytes>,
        column: impl Into<Bytes>,
        expected: Expectation,
        new: Option<Value>,
    ) -> Result<CasResult, ClientError> {
        let (key, column) = (Key::new(key)?, Column::new(column)?);
        let condition = Condition { key: key.clone(), column: column.clone(), expected };
        let mutation = match new {
            Some(value) => Mutation::Set { key, column, value },
            None => Mutation::Delete { key, column },
        };
        self.write(Batch { conditions: vec![condition], mutations: vec![mutation] }).await
    }

    /// Returns several cells of one state of the store, in the order asked.
    pub async fn multi_get(
        &self,
        cells: Vec<(Key, Column)>,
    ) -> Result<Vec<Option<Cell>>, ClientError> {
        let query = Query::MultiGet { cells };
        let QueryReply::Cells(cells) = self.query(query).await? else { return Err(misfit()) };
        Ok(cells)
    }

    /// Returns all columns of a key, sorted by bytes; empty if there are none.
    pub async fn row(&self, key: impl Into<Bytes>) -> Result<Vec<(Column, Cell)>, ClientError> {
        self.slice(key, None, None).await
    }

    /// Returns the columns of a key from `start` to `stop`, both inclusive, either open.
    pub async fn slice(
        &self,
        key: impl Into<Bytes>,
        start: Option<Column>,
        stop: Option<Column>,
    ) -> Result<Vec<(Column, Cell)>, ClientError> {
        let key = Key::new(key)?;
        let (mut start, mut found) = (start, Vec::new());
        loop {
            let limit = page_limit();
            let query = Query::Slice { key: key.clone(), start, stop: stop.clone(), limit };
            let QueryReply::Columns { columns, next } = self.query(query).await? else {
                return Err(misfit());
            };
            found.extend(columns);
            if next.is_none() {
                return Ok(found);
            }
            start = next;
        }
    }

    /// Lists the keys of a range, page by page.
    pub fn keys(&self, range: KeyRange) -> KeysPager<E> {
        KeysPager::new(self.clone(), range)
    }

    /// Reads all cells whose keys begin with `prefix`, page by page.
    pub fn scan(&self, prefix: Key) -> ScanPager<E> {
        ScanPager::new(self.clone(), prefix)
    }

    /// Reads the whole state as one snapshot, piece by piece; see [`SnapshotPager`].
    pub fn snapshot(&self) -> SnapshotPager<E> {
        SnapshotPager::new(self.clone())
    }

    /// Returns how the node at `address` is, whether it leads or not. Tried once.
    pub async fn status(&self, address: &str) -> Result<Status, ClientError> {
        match self.ask_once(address, &RequestBody::Status).await? {
            ResponseBody::Status(status) => Ok(*status),
            ResponseBody::Command(_)
            | ResponseBody::Query(_)
            | ResponseBody::Snapshot(_)
            | ResponseBody::Error(_) => Err(misfit()),
        }
    }

    /// Returns where the node is reached that leads, as far as the node at `address` knows: there
    /// itself, if it answers reads, as every node does where none leads. Tried once.
    pub async fn leader_known_at(&self, address: &str) -> Result<Option<String>, ClientError> {
        let query = Query::Get { key: Key::default(), column: Column::default() };
        let answer = self.ask_once(address, &RequestBody::Query(query)).await;
        if let Err(ClientError::Unavailable {
            last: TryFailure::Answered(RequestError::NotLeader { leader }),
            ..
        }) = answer
        {
            return Ok(leader.map(|(_, address)| address));
        }
        answer.map(|_cell| Some(address.to_owned()))
    }

    /// Makes the node at `address` lose what it writes to its tables, with this probability, as
    /// [`with_debug_table_loss`](Self::with_debug_table_loss) does with the node that takes a
    /// write: for nodes that take none because another one leads. Tried once; writes nothing.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] if the node was not started for it; others if it gives no answer,
    /// and then it may or may not have heard of it.
    pub async fn debug_table_loss_at(
        &self,
        address: &str,
        probability: f64,
    ) -> Result<(), ClientError> {
        // A session that nobody uses, if this node leads; it is refused elsewhere, after the fault.
        let command = Command::Register { nonce: lock(&self.inner.rng).next_u64() };
        let command = Payload::new(codec::encode(&command))?;
        let body = RequestBody::FaultyCommand { command, loss_ppm: ppm(probability) };
        match self.ask_once(address, &body).await {
            Err(ClientError::Unavailable {
                last: TryFailure::Answered(RequestError::Invalid(what)),
                ..
            }) => Err(ClientError::Invalid(what)),
            // Whatever else a node answers, it does so after the fault.
            Ok(_)
            | Err(
                ClientError::Unavailable { last: TryFailure::Answered(_), .. }
                | ClientError::Overloaded
                | ClientError::DiskFull,
            ) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Asks the node at `address`, once.
    async fn ask_once(
        &self,
        address: &str,
        body: &RequestBody,
    ) -> Result<ResponseBody, ClientError> {
        let inner = &self.inner;
        let (route, mut tries) = (inner.routing.at(address), inner.tries(Kind::Harmless));
        let (limit, mut sent) =
            (inner.options.try_timeout.min(inner.options.request_timeout), false);
        let answer = inner.try_once(&route, Consistency::default(), body, limit, &mut sent).await;
        let failure = match answer {
            Ok(Answer { body: ResponseBody::Error(error), .. }) => TryFailure::Answered(error),
            Ok(answer) => return Ok(answer.body),
            Err(TryFailure::Refused(refusal)) => return Err(ClientError::Refused(refusal)),
            Err(failure) => failure,
        };
        Err(tries.give_up_after(inner.env.now(), failure))
    }

    /// Carries out any batch; everything that writes goes through here.
    pub async fn write(&self, mut batch: Batch) -> Result<CasResult, ClientError> {
        validate_batch(&batch)?;
        let inner = &*self.inner;
        let mut tries = inner.tries(Kind::Write);
        if inner.mode(&mut tries).await?.is_masterless() {
            return self.write_unnumbered(batch, tries).await.map(CasResult::Applied);
        }
        let mut ticket = inner.ticket(&mut tries).await?;
        loop {
            if !batch.conditions.is_empty() {
                ticket.expect_long_answer();
            }
            let body = self.with_fault(encode_write(&ticket, &mut batch)?);
            let answer = inner.call(&body, &mut tries).await?;
            let now = inner.env.now();
            let ResponseBody::Command(reply) = answer.body else {
                return Err(tries.on_nonsense(now, "something else than it was asked"));
            };
            match reply {
                CommandReply::Applied(version) => return Ok(CasResult::Applied(version)),
                CommandReply::ConditionFailed { position, current } => {
                    return Ok(CasResult::Conflict { position, current });
                }
                CommandReply::SessionExpired => {
                    inner.sessions.on_expired(ticket.session);
                    tries.on_session_expired(now)?;
                    probe!("client.session_expired_before_any_effect");
                    inner.back_off(&mut tries).await?;
                    ticket = inner.ticket(&mut tries).await?;
                }
                CommandReply::OutOfWindow if ticket.is_session_ended() => {
                    probe!("client.session_was_ended_by_somebody_else");
                    return Err(tries.fail(now, ClientError::SessionEnded));
                }
                CommandReply::OutOfWindow => {
                    probe!("client.session_has_no_room_for_answers");
                    tries.on_session_full();
                    inner.back_off(&mut tries).await?;
                    ticket.acknowledge();
                }
                CommandReply::Malformed => {
                    let what = "the nodes do not understand it; are they of another release?";
                    return Err(tries.fail(now, ClientError::Misbehaved(what.to_owned())));
                }
                CommandReply::Registered(_) => {
                    return Err(tries.on_nonsense(now, "the registration of a session"));
                }
            }
        }
    }

    /// Carries out a batch where nobody numbers writes: it is sent once at most, unless it surely
    /// had no effect.
    async fn write_unnumbered(
        &self,
        batch: Batch,
        mut tries: Tries,
    ) -> Result<Version, ClientError> {
        if !batch.conditions.is_empty() {
            let what = "a masterless cluster has no conditional writes, for nobody decides between \
                        two of them: use a primary-backup cluster where they are needed";
            return Err(ClientError::Unsupported(what.to_owned()));
        }
        tries.kind = Kind::Unnumbered;
        tries.consistency = self.consistency();
        let (session, seq, acked_below) = (SessionId(0), RequestSeq(0), RequestSeq(0));
        let command = Command::Write { session, seq, acked_below, batch };
        let body = self.with_fault(Payload::new(codec::encode(&command))?);
        let inner = &*self.inner;
        let answer = inner.call(&body, &mut tries).await?;
        let ResponseBody::Command(CommandReply::Applied(version)) = answer.body else {
            return Err(tries.on_nonsense(inner.env.now(), "something else than it was asked"));
        };
        let stamp = Stamp::from_version(version.0);
        inner.see(stamp);
        if let (Some(token), Command::Write { batch, .. }) = (&inner.token, &command) {
            token.on_written(&batch.mutations, stamp);
        }
        Ok(version)
    }

    /// Asks any query; everything that reads goes through here.
    pub async fn query(&self, query: Query) -> Result<QueryReply, ClientError> {
        // A frame that is too long would close the connection, which all clones share.
        check_query(&query)?;
        let mut tries = self.inner.tries(Kind::Harmless);
        tries.consistency = self.consistency();
        if let Some(token) = &self.inner.token
            && self.inner.mode(&mut tries).await?.is_masterless()
        {
            return self.query_in_session(query, token, tries).await;
        }
        let (reply, _seen) = self.query_once(&RequestBody::Query(query), &mut tries).await?;
        Ok(reply)
    }

    /// Asks a query at higher and higher levels until the answer is not behind what was seen.
    async fn query_in_session(
        &self,
        query: Query,
        token: &Token,
        mut tries: Tries,
    ) -> Result<QueryReply, ClientError> {
        let expected = token.expected(&query);
        let body = RequestBody::Query(query);
        loop {
            let (reply, seen) = self.query_once(&body, &mut tries).await?;
            let RequestBody::Query(query) = &body else { return Err(misfit()) };
            let level = tries.consistency.level;
            let Some(key) = expected.find_stale(query, &reply, seen, level) else {
                token.on_read(query, &reply, seen, level);
                return Ok(reply);
            };
            probe!("client.answer_is_behind_the_session");
            tries.consistency.level = match level {
                Level::One | Level::Two => Level::Quorum,
                // A quorum of three replicas are two: it may be fewer than were asked for.
                Level::Three | Level::Quorum => Level::All,
                Level::All => return Err(ClientError::Stale { key }),
            };
        }
    }

    async fn query_once(
        &self,
        body: &RequestBody,
        tries: &mut Tries,
    ) -> Result<(QueryReply, Stamp), ClientError> {
        let answer = self.inner.call(body, tries).await?;
        match answer.body {
            ResponseBody::Query(reply) => Ok((reply, answer.seen)),
            ResponseBody::Command(_)
            | ResponseBody::Status(_)
            | ResponseBody::Snapshot(_)
            | ResponseBody::Error(_) => Err(misfit()),
        }
    }

    /// Returns what a request that begins now asks for.
    fn consistency(&self) -> Consistency {
        Consistency { level: self.level, seen: self.inner.seen() }
    }

    /// Makes a request of a command, with the fault that is asked for.
    fn with_fault(&self, command: Payload) -> RequestBody {
        match self.loss_ppm {
            0 => RequestBody::Command(command),
            loss_ppm => RequestBody::FaultyCommand { command, loss_ppm },
        }
    }

    async fn mutate(&self, mutation: Mutation) -> Result<Version, ClientError> {
        self.bulk_set(Batch { conditions: Vec::new(), mutations: vec![mutation] }).await
    }
}

impl<E: Env> Inner<E> {
    /// Returns the largest stamp that was seen so far.
    fn seen(&self) -> Stamp {
        Stamp::from_version(self.seen.load(Ordering::Relaxed))
    }

    /// Takes note of a stamp.
    fn see(&self, stamp: Stamp) {
        self.seen.fetch_max(stamp.version(), Ordering::Relaxed);
    }

    /// Gets a number for a write, registering a session first if there is none.
    async fn ticket(&self, tries: &mut Tries) -> Result<Ticket<'_>, ClientError> {
        loop {
            let room = self.sessions.room();
            match self.sessions.begin() {
                Begin::Ticket(ticket) => return Ok(ticket),
                Begin::NoSession => self.register(tries).await?,
                Begin::Full => {
                    probe!("client.waits_for_room_in_the_session");
                    self.until_deadline(tries, room).await?;
                }
            }
        }
    }

    /// Registers a session, or waits for the task that does.
    async fn register(&self, tries: &mut Tries) -> Result<(), ClientError> {
        let _guard = self.until_deadline(tries, self.sessions.registering.lock()).await?;
        if self.sessions.is_registered() {
            return Ok(());
        }
        let command = Command::Register { nonce: lock(&self.rng).next_u64() };
        let body = RequestBody::Command(Payload::new(codec::encode(&command))?);
        // A registration that is repeated makes a session that nobody uses: no harm.
        let mut registering = self.tries(Kind::Harmless);
        registering.deadline = tries.deadline;
        let reply = command_reply(self.call(&body, &mut registering).await?.body)?;
        let CommandReply::Registered(session) = reply else { return Err(misfit()) };
        self.sessions.on_registered(session);
        Ok(())
    }
}

/// Returns the answer to a command.
fn command_reply(body: ResponseBody) -> Result<CommandReply, ClientError> {
    match body {
        ResponseBody::Command(reply) => Ok(reply),
        ResponseBody::Query(_)
        | ResponseBody::Status(_)
        | ResponseBody::Snapshot(_)
        | ResponseBody::Error(_) => Err(misfit()),
    }
}

/// Encodes a write; the batch is lent, not copied.
fn encode_write(ticket: &Ticket<'_>, batch: &mut Batch) -> Result<Payload, ClientError> {
    let &Ticket { session, seq, acked_below, .. } = ticket;
    let lent = std::mem::take(batch);
    let command = Command::Write { session, seq, acked_below, batch: lent };
    let encoded = codec::encode(&command);
    if let Command::Write { batch: returned, .. } = command {
        *batch = returned;
    }
    Ok(Payload::new(encoded)?)
}

/// Returns a probability in millionths.
fn ppm(probability: f64) -> u32 {
    const MILLION: u32 = 1_000_000;
    // The largest whole number that is not more, bit by bit; what is no number is none.
    let wanted = probability.clamp(0.0, 1.0) * f64::from(MILLION);
    (0..=20)
        .rev()
        .map(|bit| 1_u32 << bit)
        .fold(0, |sum, bit| if f64::from(sum + bit) <= wanted { sum + bit } else { sum })
}

/// The error for an answer of the wrong kind; such answers are refused before they come here.
fn misfit() -> ClientError {
    ClientError::Misbehaved("it answered something else than it was asked".to_owned())
}

/// Takes a lock. A panic elsewhere ends the node anyway, so what it left behind does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
