//! Repeating a request until it is answered: only what is safe, and never longer than asked.
//!
//! A request is tried on one node after the other until one answers or the time is over. Two
//! things decide what a failed try means. *Was the request handed to a connection?* If not, the
//! try cannot have had an effect. *Does the answer prove that this try had none?* `NotLeader`
//! does; silence does not. Once a single try is in doubt, the whole request is: a later
//! `NotLeader` or `Overloaded` speaks of the later try alone. So [`Tries`] keeps that doubt for
//! all tries of a write, and only the answer of the state machine itself ends it.
//!
//! Repeating a write in doubt is safe because all its tries carry the same number, see
//! [`super::session`]; repeating a read always is. In the masterless mode nobody numbers writes:
//! there a second try would be another write with a later stamp, which may undo what somebody else
//! wrote in between. So a write in doubt is over at once: its outcome is unknown.
//!
//! Each further try waits first, with two exceptions: a hint is followed at once, and a node that
//! is not ready is passed over for the next one, until every node has been asked.
//!
//! # Invariants
//! 1. A write of which a try is in doubt never fails with [`Outcome::NotApplied`].
//! 2. No try starts, and no wait lasts, beyond the deadline.
//! 3. A write without a number is not tried again once it is in doubt.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::connection::{Answer, Connection};
use super::error::{ClientError, TryFailure};
use super::routing::Route;
use super::{Inner, Stream, lock};
use crate::base::Instant;
use crate::env::{Env, timeout};
use crate::kv::{Query, QueryReply};
use crate::wire::{Consistency, Mode, Outcome, Refusal, RequestBody, RequestError, ResponseBody};
use crate::{planted, probe};

/// Hints followed in a row without a wait: enough for a change of leader, too few for a loop.
const HINTS_MAX: u32 = 3;

/// Whether a request in doubt needs to be reported as such.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It changes nothing that a caller sees: a read, or the registration of a session.
    Harmless,
    /// It changes the store, and is recognised when it comes twice.
    Write,
    /// It changes the store each time that it comes.
    Unnumbered,
}

/// What is known about one request after the tries so far.
#[derive(Debug)]
pub(super) struct Tries {
    pub(super) kind: Kind,
    /// What is asked for with every try.
    pub(super) consistency: Consistency,
    started: Instant,
    pub(super) deadline: Instant,
    /// A try may have taken effect, or may still do so.
    in_doubt: bool,
    /// A node took a try at least once.
    was_taken: bool,
    /// Refusals in a row that will not pass by themselves.
    refused_count: usize,
    /// Nodes in a row that were not ready.
    passed_count: usize,
    hint_count: u32,
    backoff: Duration,
    last: Option<TryFailure>,
    /// What a node answered last that was reached, and said more than that it does not serve.
    told: Option<RequestError>,
}

/// What to do after a failed try.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Another node leads: ask it at once.
    Follow(String),
    /// Ask another node at once: this one has nothing to do with how the others are.
    PassOver,
    /// Ask another node, after a wait.
    Elsewhere,
    /// Ask the same node again, after a wait.
    Again,
    /// The answer would be the same everywhere.
    Fail(ClientError),
    /// Another try could do harm.
    GiveUp,
}

impl Tries {
    /// Starts a request that may take `limit` from `now`; `backoff` is the first wait.
    pub(super) fn new(kind: Kind, now: Instant, limit: Duration, backoff: Duration) -> Self {
        Self {
            kind,
            consistency: Consistency::default(),
            started: now,
            deadline: now + limit,
            in_doubt: false,
            was_taken: false,
            refused_count: 0,
            passed_count: 0,
            hint_count: 0,
            backoff,
            last: None,
            told: None,
        }
    }

    /// Tells whether a try of this write may have taken effect.
    fn is_write_in_doubt(&self) -> bool {
        self.in_doubt && self.kind != Kind::Harmless && !planted!("R46b")
    }

    /// Returns `error`, which proves nothing about earlier tries, or that the outcome is unknown.
    pub(super) fn fail(&mut self, now: Instant, error: ClientError) -> ClientError {
        if self.is_write_in_doubt() && error.outcome() == Outcome::NotApplied {
            probe!("client.refusal_of_a_retry_proves_nothing");
            let waited = now.since(self.started);
            return ClientError::Unknown { waited, last: self.last.take() };
        }
        error
    }

    /// Returns the error for a request whose time is over.
    pub(super) fn give_up(&mut self, now: Instant) -> ClientError {
        let waited = now.since(self.started);
        let last = self.last.take();
        if self.is_write_in_doubt() {
            probe!("client.gives_up_in_doubt");
            return ClientError::Unknown { waited, last };
        }
        match last {
            Some(TryFailure::Answered(RequestError::Overloaded)) => ClientError::Overloaded,
            Some(TryFailure::Answered(RequestError::DiskFull)) => ClientError::DiskFull,
            Some(last) if !self.was_taken => {
                let last = self.told_instead_of(last);
                ClientError::Unavailable { waited, last }
            }
            last => ClientError::Timeout { waited, last },
        }
    }

    /// Returns what a node has answered, if `failure` is only that another one was not reached: who
    /// asked for more replicas than are up learns nothing from which of them is down.
    fn told_instead_of(&mut self, failure: TryFailure) -> TryFailure {
        match (failure, self.told.take()) {
            (TryFailure::Connect { .. }, Some(told)) => TryFailure::Answered(told),
            (failure, _) => failure,
        }
    }

    /// Returns the error for a request whose only try failed.
    pub(super) fn give_up_after(&mut self, now: Instant, failure: TryFailure) -> ClientError {
        self.last = Some(failure);
        self.give_up(now)
    }

    /// Returns the error for an answer that makes no sense: the node may have done anything.
    pub(super) fn on_nonsense(&mut self, now: Instant, what: &'static str) -> ClientError {
        self.in_doubt = true;
        self.give_up_after(now, TryFailure::Malformed { what })
    }

    /// Takes note that the last try had no effect because its session is gone.
    ///
    /// # Errors
    /// An earlier try may have had one while the session was there: the write must not be
    /// numbered anew.
    pub(super) fn on_session_expired(&mut self, now: Instant) -> Result<(), ClientError> {
        if !self.in_doubt {
            return Ok(());
        }
        probe!("client.session_expired_in_doubt");
        Err(self.give_up(now))
    }

    /// Takes note that the last try had no effect because its session keeps too many answers;
    /// it keeps fewer when the client has acknowledged some.
    pub(super) fn on_session_full(&mut self) {
        self.last = Some(TryFailure::Answered(RequestError::Overloaded));
    }

    /// Takes note of a failed try and decides what comes next.
    ///
    /// `sent` tells whether the try was handed over, `nodes_count` how many nodes there are.
    fn on_failure(&mut self, failure: TryFailure, sent: bool, nodes_count: usize) -> Next {
        let next = match &failure {
            TryFailure::Answered(error) => self.on_error(error, nodes_count),
            TryFailure::Refused(refusal) => self.on_refused(refusal, nodes_count),
            TryFailure::Connect { .. }
            | TryFailure::ConnectionLost { .. }
            | TryFailure::NoAnswer { .. }
            | TryFailure::Malformed { .. } => {
                self.in_doubt |= sent;
                self.was_taken |= sent;
                Next::Elsewhere
            }
        };
        if !matches!(failure, TryFailure::Refused(_)) {
            self.refused_count = 0;
        }
        if !matches!(failure, TryFailure::Answered(RequestError::NotReady)) {
            self.passed_count = 0;
        }
        if !matches!(next, Next::Follow(_)) {
            self.hint_count = 0;
        }
        if let TryFailure::Answered(
            error @ (RequestError::Unavailable { .. } | RequestError::ClockSkew { .. }),
        ) = &failure
        {
            self.told = Some(error.clone());
        }
        self.last = Some(failure);
        if self.in_doubt && self.kind == Kind::Unnumbered && !planted!("D32") {
            probe!("client.write_in_doubt_is_not_repeated");
            return Next::GiveUp;
        }
        next
    }

    /// Takes note of a failed try; returns the error if that is the end.
    #[cfg(test)]
    pub(super) fn fail_after(
        &mut self,
        now: Instant,
        failure: TryFailure,
        sent: bool,
        nodes_count: usize,
    ) -> Option<ClientError> {
        match self.on_failure(failure, sent, nodes_count) {
            Next::Fail(error) => Some(self.fail(now, error)),
            Next::GiveUp => Some(self.give_up(now)),
            Next::Follow(_) | Next::PassOver | Next::Elsewhere | Next::Again => None,
        }
    }

    fn on_error(&mut self, error: &RequestError, nodes_count: usize) -> Next {
        self.in_doubt |= error.outcome() == Outcome::Unknown;
        self.was_taken |= !matches!(
            error,
            RequestError::NotLeader { .. }
                | RequestError::Unavailable { .. }
                | RequestError::ClockSkew { .. }
                | RequestError::NotReady
        );
        match error {
            RequestError::NotLeader { leader: Some((_, address)) }
                if self.hint_count < HINTS_MAX =>
            {
                self.hint_count += 1;
                Next::Follow(address.clone())
            }
            RequestError::NotReady if self.passed_count + 1 < nodes_count => {
                self.passed_count += 1;
                Next::PassOver
            }
            RequestError::NotReady => {
                self.passed_count = 0;
                Next::Elsewhere
            }
            RequestError::NotLeader { .. }
            | RequestError::Unavailable { .. }
            | RequestError::ClockSkew { .. }
            | RequestError::LeadershipLost
            | RequestError::Timeout
            | RequestError::ShuttingDown => Next::Elsewhere,
            RequestError::Overloaded => Next::Again,
            // Only a later try can tell what became of the earlier ones.
            RequestError::DiskFull if self.is_write_in_doubt() => Next::Again,
            RequestError::DiskFull => Next::Fail(ClientError::DiskFull),
            RequestError::Invalid(what) => Next::Fail(ClientError::Invalid(what.clone())),
            RequestError::Unsupported(what) => Next::Fail(ClientError::Unsupported(what.clone())),
        }
    }

    fn on_refused(&mut self, refusal: &Refusal, nodes_count: usize) -> Next {
        match refusal {
            Refusal::TooManyConnections { .. } => self.refused_count = 0,
            Refusal::Version { .. }
            | Refusal::Cluster { .. }
            | Refusal::Node { .. }
            | Refusal::Mode { .. }
            | Refusal::NotAMember { .. } => self.refused_count += 1,
        }
        if self.refused_count >= nodes_count.max(1) {
            return Next::Fail(ClientError::Refused(refusal.clone()));
        }
        Next::Elsewhere
    }
}

impl<E: Env> Inner<E> {
    /// Starts the account of a request that begins now.
    pub(super) fn tries(&self, kind: Kind) -> Tries {
        let options = &self.options;
        Tries::new(kind, self.env.now(), options.request_timeout, options.backoff_min)
    }

    /// Asks one node until it answers with anything but an error.
    ///
    /// # Errors
    /// As of [`call`](Self::call).
    pub(super) async fn call_at(
        &self,
        route: &Route<Stream<E>>,
        body: &RequestBody,
        tries: &mut Tries,
    ) -> Result<Answer, ClientError> {
        loop {
            let limit = self.try_limit(tries)?;
            let (consistency, mut sent) = (tries.consistency, false);
            let failure = match self.try_once(route, consistency, body, limit, &mut sent).await {
                Ok(Answer { body: ResponseBody::Error(error), .. }) => TryFailure::Answered(error),
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            match tries.on_failure(failure, sent, self.addresses_count) {
                Next::Follow(_) | Next::PassOver | Next::Elsewhere | Next::Again => {}
                Next::Fail(error) => return Err(tries.fail(self.env.now(), error)),
                Next::GiveUp => return Err(tries.give_up(self.env.now())),
            }
            self.back_off(tries).await?;
        }
    }

    /// Returns how long the next try may take.
    ///
    /// # Errors
    /// The time of `tries` is over.
    fn try_limit(&self, tries: &mut Tries) -> Result<Duration, ClientError> {
        let now = self.env.now();
        let left = tries.deadline.since(now);
        if left.is_zero() {
            return Err(tries.give_up(now));
        }
        // What is not tried again had better be waited for.
        let is_only_try = tries.kind == Kind::Unnumbered;
        Ok(if is_only_try { left } else { left.min(self.options.try_timeout) })
    }

    /// Returns how the cluster replicates, connecting to a node if none was reached before.
    ///
    /// # Errors
    /// The time of `tries` is over, or every node refuses the connection.
    pub(super) async fn mode(&self, tries: &mut Tries) -> Result<Mode, ClientError> {
        loop {
            if let Some(mode) = self.routing.mode() {
                return Ok(mode);
            }
            let route = self.target()?;
            let limit = self.try_limit(tries)?.min(self.options.connect_timeout);
            match route.connection(&self.env, &self.routing, limit).await {
                Ok(connection) => return Ok(connection.mode()),
                Err(failure) => match tries.on_failure(failure, false, self.addresses_count) {
                    Next::Follow(_) | Next::PassOver | Next::Elsewhere | Next::Again => {
                        self.routing.on_failure(&route);
                    }
                    Next::Fail(error) => return Err(tries.fail(self.env.now(), error)),
                    Next::GiveUp => return Err(tries.give_up(self.env.now())),
                },
            }
            self.back_off(tries).await?;
        }
    }

    fn target(&self) -> Result<Arc<Route<Stream<E>>>, ClientError> {
        let none = || ClientError::Invalid("no address of a node is given".to_owned());
        self.routing.target().ok_or_else(none)
    }

    /// Asks until a node answers with anything but an error.
    ///
    /// # Errors
    /// As of [`call_routed`](Self::call_routed).
    pub(super) async fn call(
        &self,
        body: &RequestBody,
        tries: &mut Tries,
    ) -> Result<Answer, ClientError> {
        Ok(self.call_routed(body, tries).await?.1)
    }

    /// Asks until a node answers with anything but an error; returns which one did.
    ///
    /// # Errors
    /// The time of `tries` is over, or no node would answer otherwise.
    pub(super) async fn call_routed(
        &self,
        body: &RequestBody,
        tries: &mut Tries,
    ) -> Result<(Arc<Route<Stream<E>>>, Answer), ClientError> {
        loop {
            let route = self.target()?;
            let limit = self.try_limit(tries)?;
            let (consistency, mut sent) = (tries.consistency, false);
            let failure = match self.try_once(&route, consistency, body, limit, &mut sent).await {
                Ok(Answer { body: ResponseBody::Error(error), .. }) => TryFailure::Answered(error),
                Ok(answer) => {
                    self.routing.on_leader(&route);
                    return Ok((route, answer));
                }
                Err(failure) => failure,
            };
            tracing::trace!(%failure, sent, "a try failed");
            match tries.on_failure(failure, sent, self.addresses_count) {
                Next::Follow(address) => {
                    probe!("client.follows_a_hint");
                    if self.routing.on_hint(&route, &address) {
                        continue;
                    }
                }
                Next::PassOver => {
                    probe!("client.passes_over_a_node_that_is_not_ready");
                    self.routing.on_failure(&route);
                    continue;
                }
                Next::Elsewhere => self.routing.on_failure(&route),
                Next::Again => {}
                Next::Fail(error) => {
                    if matches!(error, ClientError::DiskFull) {
                        // Others may have space: the next request goes to one of them.
                        self.routing.on_failure(&route);
                    }
                    return Err(tries.fail(self.env.now(), error));
                }
                Next::GiveUp => {
                    // It did not answer in time: who only writes would come back to it for ever.
                    self.routing.on_failure(&route);
                    return Err(tries.give_up(self.env.now()));
                }
            }
            self.back_off(tries).await?;
        }
    }

    /// Tries once, at one node, for at most `limit`; `sent` tells whether it was handed over.
    pub(super) async fn try_once(
        &self,
        route: &Route<Stream<E>>,
        consistency: Consistency,
        body: &RequestBody,
        limit: Duration,
        sent: &mut bool,
    ) -> Result<Answer, TryFailure> {
        let deadline = self.env.now() + limit;
        let connect_limit = limit.min(self.options.connect_timeout);
        let connection = route.connection(&self.env, &self.routing, connect_limit).await?;
        if deadline.since(self.env.now()).is_zero() {
            // What is not sent is not in doubt.
            return Err(TryFailure::NoAnswer { limit });
        }
        let in_flight = connection.send(consistency, body)?;
        *sent = true;
        let silence_max = self.options.connect_timeout;
        let answer = in_flight.answer(&self.env, deadline, silence_max).await?;
        self.see(answer.seen);
        check_answer(&connection, body, answer)
    }

    /// Waits before the next try, each time about twice as long.
    ///
    /// # Errors
    /// The time of `tries` would be over by then.
    pub(super) async fn back_off(&self, tries: &mut Tries) -> Result<(), ClientError> {
        let whole = tries.backoff.max(Duration::from_micros(2));
        tries.backoff = whole.saturating_mul(2).min(self.options.backoff_max);
        let wait = lock(&self.rng).duration(whole / 2, whole);
        let left = tries.deadline.since(self.env.now());
        if left <= wait {
            // Whoever waits longer for the answer than he wanted to has no use for it.
            return Err(tries.give_up(self.env.now()));
        }
        self.env.sleep(wait).await;
        Ok(())
    }

    /// Waits for `future` until the deadline of `tries`.
    pub(super) async fn until_deadline<F: Future>(
        &self,
        tries: &mut Tries,
        future: F,
    ) -> Result<F::Output, ClientError> {
        let left = tries.deadline.since(self.env.now());
        match timeout(&self.env, left, future).await {
            Some(output) => Ok(output),
            None => Err(tries.give_up(self.env.now())),
        }
    }
}

/// Returns `answer` if it is one to `body`; else the node is not to be talked to any more.
fn check_answer<S>(
    connection: &Connection<S>,
    body: &RequestBody,
    answer: Answer,
) -> Result<Answer, TryFailure>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let fits = match (body, &answer.body) {
        (RequestBody::Query(query), ResponseBody::Query(reply)) => is_answer(query, reply),
        (_, ResponseBody::Error(_))
        | (RequestBody::Command(_) | RequestBody::FaultyCommand { .. }, ResponseBody::Command(_))
        | (RequestBody::Status, ResponseBody::Status(_)) => true,
        (RequestBody::Snapshot { wanted, offset, bytes_max }, ResponseBody::Snapshot(piece)) => {
            piece.as_ref().map_or(wanted.is_some(), |piece| {
                let len = u32::try_from(piece.data.len()).unwrap_or(u32::MAX);
                let is_right = wanted.is_none_or(|wanted| wanted == piece.state);
                is_right && piece.offset == *offset && len <= *bytes_max
            })
        }
        (
            RequestBody::Command(_)
            | RequestBody::FaultyCommand { .. }
            | RequestBody::Query(_)
            | RequestBody::Status
            | RequestBody::Snapshot { .. },
            _,
        ) => false,
    };
    if fits {
        return Ok(answer);
    }
    probe!("client.answer_does_not_fit_the_request");
    connection.close("an answer did not fit its request");
    Err(TryFailure::Malformed { what: "something else than it was asked" })
}

/// Tells whether `reply` is of the kind that `query` asks for.
fn is_answer(query: &Query, reply: &QueryReply) -> bool {
    match query {
        Query::Get { .. } => matches!(reply, QueryReply::Cell(_)),
        Query::MultiGet { cells } => {
            matches!(reply, QueryReply::Cells(found) if found.len() == cells.len())
        }
        Query::Slice { .. } => matches!(reply, QueryReply::Columns { .. }),
        Query::Keys { .. } => matches!(reply, QueryReply::Keys { .. }),
        Query::Scan { .. } => matches!(reply, QueryReply::Scanned { .. }),
    }
}
