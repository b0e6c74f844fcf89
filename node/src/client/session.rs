//! The client's half of a session: it numbers writes so that a repeated one takes effect once.
//!
//! [Thesis §6.3]: a client registers once, and gets a session. Each write carries the session
//! and a number; the servers remember the answer to each number and give it again instead of
//! applying the write again. So that they need not remember for ever, each write also says
//! below which number the client has all answers.
//!
//! That sentence ends a session, too: a write that says so of all numbers leaves none that could
//! still take effect. So a program can go on with what an earlier process began, and know that
//! nothing of that comes late and undoes it, be it in a buffer of the network or of a node that
//! was frozen. Who is ended so must learn it, and is told what one is told whose session keeps too
//! many answers: that its number is out of the window. It knows the difference: only answers to
//! conditions are long, and only for numbers that are not acknowledged.
//!
//! # Invariants
//! 1. A number is used for one write only, and every try of that write uses it.
//! 2. `acked_below` never exceeds the number of a write that may still be tried.
//! 3. Numbers in use span less than [`SESSION_INFLIGHT_MAX`], so no answer is pushed out that a
//!    retry may still ask for.
//! 4. The last of all numbers is that of the write that ends a session, and has no other use.

use std::collections::BTreeSet;
use std::sync::Mutex;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::retry::Kind;
use super::{Client, ClientError, command_reply, lock, misfit};
use crate::base::limits::SESSION_INFLIGHT_MAX;
use crate::base::{Payload, RequestSeq, SessionId};
use crate::codec;
use crate::env::Env;
use crate::kv::{Batch, Command, CommandReply};
use crate::wire::RequestBody;

/// The session of a client, if it has one by now.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    window: Mutex<Window>,
    /// Told when a number is no longer in use.
    room: Notify,
    /// Held while registering, so that a client registers once.
    pub(super) registering: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Window {
    session: Option<SessionId>,
    /// Numbers up to here were given out.
    last_seq: u64,
    /// Numbers of writes that may still be tried.
    in_use: BTreeSet<u64>,
    /// A write with conditions had a number; its answer may be long.
    has_conditions: bool,
}

/// What a write got when it asked for its number.
#[derive(Debug)]
pub(super) enum Begin<'a> {
    /// A number.
    Ticket(Ticket<'a>),
    /// There is no session: register first.
    NoSession,
    /// Too many writes are under way: wait for [`Sessions::room`].
    Full,
}

/// The number of one write, in use until dropped.
#[derive(Debug)]
pub(super) struct Ticket<'a> {
    sessions: &'a Sessions,
    pub(super) session: SessionId,
    pub(super) seq: RequestSeq,
    pub(super) acked_below: RequestSeq,
}

impl Sessions {
    /// Gives the next write its number.
    pub(super) fn begin(&self) -> Begin<'_> {
        let mut window = lock(&self.window);
        let Some(session) = window.session else { return Begin::NoSession };
        let seq = window.last_seq + 1;
        let lowest = window.in_use.first().copied().unwrap_or(seq);
        if seq - lowest >= u64::try_from(SESSION_INFLIGHT_MAX).unwrap_or(u64::MAX) {
            return Begin::Full;
        }
        window.last_seq = seq;
        window.in_use.insert(seq);
        Begin::Ticket(Ticket {
            sessions: self,
            session,
            seq: RequestSeq(seq),
            acked_below: RequestSeq(lowest),
        })
    }

    /// Returns a future that ends when there may be room; make it *before* asking for a number.
    pub(super) fn room(&self) -> Notified<'_> {
        self.room.notified()
    }

    /// Tells whether there is a session.
    pub(super) fn is_registered(&self) -> bool {
        lock(&self.window).session.is_some()
    }

    /// Starts to number the writes of a new session.
    pub(super) fn on_registered(&self, session: SessionId) {
        *lock(&self.window) = Window { session: Some(session), ..Window::default() };
        self.room.notify_waiters();
    }

    /// Forgets a session that the servers no longer know.
    pub(super) fn on_expired(&self, session: SessionId) {
        let mut window = lock(&self.window);
        if window.session == Some(session) {
            *window = Window::default();
            drop(window);
            self.room.notify_waiters();
        }
    }
}

impl<E: Env> Client<E> {
    /// Returns the session that numbers the client's writes, registering one if need be; none in
    /// the masterless mode. It may be another one later, if the cluster forgets this one.
    pub(crate) async fn session(&self) -> Result<Option<SessionId>, ClientError> {
        let inner = &*self.inner;
        let mut tries = inner.tries(Kind::Harmless);
        if inner.mode(&mut tries).await?.is_masterless() {
            return Ok(None);
        }
        Ok(Some(inner.ticket(&mut tries).await?.session))
    }

    /// Ends the session of another client: what that one has written and what is not carried out
    /// by now never will be. Fine if the cluster does not know the session (any more), for then
    /// nothing of it will be either.
    pub(crate) async fn end_session(&self, session: SessionId) -> Result<(), ClientError> {
        let inner = &*self.inner;
        let mut tries = inner.tries(Kind::Harmless);
        if inner.mode(&mut tries).await?.is_masterless() {
            return Ok(());
        }
        let (seq, acked_below) = (RequestSeq(u64::MAX), RequestSeq(u64::MAX));
        let command = Command::Write { session, seq, acked_below, batch: Batch::default() };
        let body = RequestBody::Command(Payload::new(codec::encode(&command))?);
        let reply = command_reply(inner.call(&body, &mut tries).await?.body)?;
        let is_over = matches!(reply, CommandReply::Applied(_) | CommandReply::SessionExpired);
        if is_over { Ok(()) } else { Err(misfit()) }
    }
}

impl Ticket<'_> {
    /// Takes note that the write has conditions, before it is sent.
    pub(super) fn expect_long_answer(&self) {
        let mut window = lock(&self.sessions.window);
        window.has_conditions |= window.session == Some(self.session);
    }

    /// Tells whether somebody else has ended the session, if a try was answered that its number is
    /// out of the window: the session surely has room for its answer, because it keeps no long
    /// ones, or because the try has acknowledged all others and no later one was ever sent.
    pub(super) fn is_session_ended(&self) -> bool {
        let window = lock(&self.sessions.window);
        let is_alone = self.acked_below == self.seq && window.last_seq == self.seq.0;
        window.session == Some(self.session) && (is_alone || !window.has_conditions)
    }

    /// Brings up to date what the next try acknowledges.
    pub(super) fn acknowledge(&mut self) {
        let window = lock(&self.sessions.window);
        if window.session == Some(self.session)
            && let Some(&lowest) = window.in_use.first()
        {
            self.acked_below = RequestSeq(lowest);
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut window = lock(&self.sessions.window);
        // Another session may have begun meanwhile; its numbers are not ours.
        if window.session == Some(self.session) {
            let was_lowest = window.in_use.first() == Some(&self.seq.0);
            let was_in_use = window.in_use.remove(&self.seq.0);
            assert!(was_in_use, "{:?} of {:?} was given back twice", self.seq, self.session);
            drop(window);
            if was_lowest {
                self.sessions.room.notify_waiters();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ticket(sessions: &Sessions) -> Option<Ticket<'_>> {
        match sessions.begin() {
            Begin::Ticket(ticket) => Some(ticket),
            Begin::NoSession | Begin::Full => None,
        }
    }

    #[test]
    fn session_unregistered_gives_no_number() {
        let sessions = Sessions::default();
        assert!(matches!(sessions.begin(), Begin::NoSession));
        assert!(!sessions.is_registered());
    }

    #[test]
    fn window_full_waits_for_the_lowest() {
        let sessions = Sessions::default();
        sessions.on_registered(SessionId(1));
        let mut tickets: Vec<_> =
            (0..SESSION_INFLIGHT_MAX).map(|_| ticket(&sessions).unwrap()).collect();
        assert!(matches!(sessions.begin(), Begin::Full));
        tickets.pop();
        assert!(matches!(sessions.begin(), Begin::Full), "the span counts, not the number");
        tickets.remove(0);
        let next = ticket(&sessions).unwrap();
        assert_eq!((next.seq, next.acked_below), (RequestSeq(1025), RequestSeq(2)));
    }

    #[test]
    fn ticket_of_an_expired_session_leaves_the_new_one_alone() {
        let sessions = Sessions::default();
        sessions.on_registered(SessionId(1));
        let old = ticket(&sessions).unwrap();
        sessions.on_expired(SessionId(1));
        sessions.on_registered(SessionId(9));
        let new = ticket(&sessions).unwrap();
        assert_eq!((old.seq, new.seq), (RequestSeq(1), RequestSeq(1)));
        drop(old);
        assert_eq!(ticket(&sessions).unwrap().acked_below, RequestSeq(1), "new is in use");
        sessions.on_expired(SessionId(1));
        assert!(sessions.is_registered(), "the end of an old session is no news");
    }

    proptest! {
        #[test]
        fn acked_below_is_the_lowest_in_use(ends in prop::collection::vec(0_usize..8, 0..100)) {
            let sessions = Sessions::default();
            sessions.on_registered(SessionId(1));
            let mut tickets: Vec<Ticket<'_>> = Vec::new();
            for end in ends {
                tickets.push(ticket(&sessions).unwrap());
                let lowest = tickets.iter().map(|ticket| ticket.seq).min().unwrap();
                prop_assert_eq!(tickets.last().unwrap().acked_below, lowest);
                if end < tickets.len() {
                    drop(tickets.swap_remove(end));
                }
            }
        }
    }
}
