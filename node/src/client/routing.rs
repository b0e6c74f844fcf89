//! Which node to ask: the one that answered, else one after the other.
//!
//! A node that answered as a leader is asked again until it fails. A node that does not lead
//! may say who does; such a hint is followed even to an address that nobody configured. When
//! nothing is known the configured nodes take turns: one is asked by all requests until it
//! fails, so that a hundred requests at the start do not ask every node. Who hinted at an address
//! that nobody configured, and that leads nowhere, has had its turn: it would say so again, for
//! nodes may know each other by names that mean nothing to their clients.
//!
//! In the masterless mode any node answers, and nobody gives hints: the first one of those that
//! are configured that can be reached is asked until it fails, then the next.
//!
//! # Invariants
//! 1. All connections lead to nodes of one cluster that replicate in one way: those of the first
//!    node that answered, if nobody named a cluster. Elsewhere the client's session would be that
//!    of somebody else, and its writes might be repeated where nobody numbers them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::connection::Connection;
use super::error::TryFailure;
use super::lock;
use crate::base::ClusterId;
use crate::env::{Env, Net, timeout};
use crate::wire::{Mode, Refusal};

/// Most addresses that are remembered; hints beyond are ignored, a cluster is far smaller.
const ADDRESSES_MAX: usize = 64;

/// The nodes that a client knows.
#[derive(Debug)]
pub(super) struct Routing<S: AsyncRead + AsyncWrite + Unpin> {
    table: Mutex<Table<S>>,
}

#[derive(Debug)]
struct Table<S: AsyncRead + AsyncWrite + Unpin> {
    /// In the order in which they take turns.
    configured: Vec<Arc<Route<S>>>,
    /// All of them, those of hints included.
    routes: BTreeMap<String, Arc<Route<S>>>,
    leader: Option<Arc<Route<S>>>,
    /// Which of the configured nodes to ask while no leader is known.
    turn: usize,
    cluster: Option<ClusterId>,
    mode: Option<Mode>,
}

/// One node's address and the connection to it.
#[derive(Debug)]
pub(super) struct Route<S: AsyncRead + AsyncWrite + Unpin> {
    address: String,
    link: Mutex<Link<S>>,
    /// Held while connecting, so that the others wait for the one who does.
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Link<S: AsyncRead + AsyncWrite + Unpin> {
    connection: Option<Arc<Connection<S>>>,
    /// Attempts to connect that failed, and how the last one did.
    failed_count: u64,
    failure: Option<TryFailure>,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Routing<S> {
    /// Starts with the configured addresses, and the cluster if it is known.
    pub(super) fn new(addresses: Vec<String>, cluster: Option<ClusterId>) -> Self {
        let mut table = Table {
            configured: Vec::new(),
            routes: BTreeMap::new(),
            leader: None,
            turn: 0,
            cluster,
            mode: None,
        };
        for address in addresses {
            if !table.routes.contains_key(&address) {
                let route = Arc::new(Route::new(address.clone()));
                table.configured.push(Arc::clone(&route));
                table.routes.insert(address, route);
            }
        }
        Self { table: Mutex::new(table) }
    }

    /// Returns the configured addresses.
    pub(super) fn addresses(&self) -> Vec<String> {
        lock(&self.table).configured.iter().map(|route| route.address.clone()).collect()
    }

    /// Returns the node to ask now; `None` if no address is known at all.
    pub(super) fn target(&self) -> Option<Arc<Route<S>>> {
        let table = lock(&self.table);
        table.leader.as_ref().or_else(|| table.configured.get(table.turn)).map(Arc::clone)
    }

    /// Returns the node at `address`, for a question to exactly that node.
    pub(super) fn at(&self, address: &str) -> Arc<Route<S>> {
        let table = lock(&self.table);
        match table.routes.get(address) {
            Some(route) => Arc::clone(route),
            None => Arc::new(Route::new(address.to_owned())),
        }
    }

    /// Remembers that the node answered: as only a leader does, if there are leaders.
    pub(super) fn on_leader(&self, route: &Arc<Route<S>>) {
        let mut table = lock(&self.table);
        if !table.leader.as_ref().is_some_and(|leader| Arc::ptr_eq(leader, route)) {
            tracing::debug!(address = route.address, "found a node that answers");
            table.leader = Some(Arc::clone(route));
        }
    }

    /// Turns to another node, unless another request has done so meanwhile.
    pub(super) fn on_failure(&self, route: &Arc<Route<S>>) {
        let is_route =
            |other: Option<&Arc<Route<S>>>| other.is_some_and(|other| Arc::ptr_eq(other, route));
        let mut table = lock(&self.table);
        let mut is_turn_over = is_route(table.configured.get(table.turn));
        if is_route(table.leader.as_ref()) {
            table.leader = None;
            is_turn_over |= !table.configured.iter().any(|other| is_route(Some(other)));
        }
        if is_turn_over {
            table.turn = (table.turn + 1) % table.configured.len().max(1);
        }
    }

    /// Follows the hint of `route` that the node at `address` leads; returns whether that is
    /// news.
    pub(super) fn on_hint(&self, route: &Arc<Route<S>>, address: &str) -> bool {
        if route.address == address {
            self.on_failure(route);
            return false;
        }
        let mut table = lock(&self.table);
        if table.routes.len() >= ADDRESSES_MAX && !table.routes.contains_key(address) {
            return false;
        }
        let hinted = table
            .routes
            .entry(address.to_owned())
            .or_insert_with(|| Arc::new(Route::new(address.to_owned())));
        let hinted = Arc::clone(hinted);
        table.leader = Some(hinted);
        true
    }

    /// Returns the cluster that connections must belong to, if it is known.
    pub(super) fn cluster(&self) -> Option<ClusterId> {
        lock(&self.table).cluster
    }

    /// Returns how the cluster replicates, once a node was reached.
    pub(super) fn mode(&self) -> Option<Mode> {
        lock(&self.table).mode
    }

    /// Stays with the cluster of the first node that answered.
    ///
    /// # Errors
    /// This one is of another cluster, or replicates in another way. It was connected to before
    /// that was known, so it could not say so itself; this is what it would have said.
    fn on_welcome(&self, cluster: ClusterId, mode: Mode) -> Result<(), Refusal> {
        let mut table = lock(&self.table);
        let known = *table.cluster.get_or_insert(cluster);
        if known != cluster {
            return Err(Refusal::Cluster { ours: cluster, theirs: known });
        }
        let known = *table.mode.get_or_insert(mode);
        if known != mode {
            return Err(Refusal::Mode { ours: mode, theirs: known });
        }
        Ok(())
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Route<S> {
    fn new(address: String) -> Self {
        let link = Link { connection: None, failed_count: 0, failure: None };
        Self { address, link: Mutex::new(link), connecting: tokio::sync::Mutex::new(()) }
    }

    /// Returns an open connection to the node, opening one within `limit` if need be.
    ///
    /// Callers that come while one of them connects share its result, good or bad: a node that
    /// is gone costs all of them one time-out, not one each in a row.
    pub(super) async fn connection<E>(
        &self,
        env: &E,
        routing: &Routing<S>,
        limit: Duration,
    ) -> Result<Arc<Connection<S>>, TryFailure>
    where
        E: Env<Net: Net<Stream = S>>,
    {
        let failed_count = match self.current() {
            Ok(connection) => return Ok(connection),
            Err((failed_count, _)) => failed_count,
        };
        let started = env.now();
        let Some(_guard) = timeout(env, limit, self.connecting.lock()).await else {
            let what = format!("no connection within {limit:?}");
            return Err(TryFailure::Connect { address: self.address.clone(), what });
        };
        match self.current() {
            Ok(connection) => return Ok(connection),
            Err((count, Some(failure))) if count > failed_count => return Err(failure),
            Err(_) => {}
        }
        let limit = limit.saturating_sub(env.now().since(started));
        let opened = Connection::open(env, &self.address, routing.cluster(), limit).await;
        // Nothing was sent on a connection that is dropped here.
        let opened = opened.and_then(|connection| {
            let welcome = routing.on_welcome(connection.cluster(), connection.mode());
            welcome.map(|()| connection).map_err(TryFailure::Refused)
        });
        let mut link = lock(&self.link);
        match opened {
            Ok(connection) => {
                let connection = Arc::new(connection);
                link.connection = Some(Arc::clone(&connection));
                Ok(connection)
            }
            Err(failure) => {
                link.failed_count += 1;
                link.failure = Some(failure.clone());
                Err(failure)
            }
        }
    }

    /// Returns the open connection, else how often and how connecting failed so far.
    fn current(&self) -> Result<Arc<Connection<S>>, (u64, Option<TryFailure>)> {
        let mut link = lock(&self.link);
        if let Some(connection) = link.connection.take_if(|connection| connection.is_open()) {
            link.connection = Some(Arc::clone(&connection));
            return Ok(connection);
        }
        link.connection = None;
        Err((link.failed_count, link.failure.clone()))
    }
}
