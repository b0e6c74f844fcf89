//! Taking the whole state away as one snapshot.
//!
//! All pieces are of one state. The node that gave the first one keeps it while the next is asked
//! for within a minute, so a lost connection, or another leader, costs nothing. If the node itself
//! goes, or has let it go, another state is begun somewhere else, from its first byte.

use std::sync::Arc;

use super::retry::Kind;
use super::routing::Route;
use super::{Client, ClientError, Stream, misfit};
use crate::base::limits::SNAPSHOT_PIECE_BYTES_MAX;
use crate::env::Env;
use crate::probe;
use crate::wire::{RequestBody, ResponseBody, SavedPiece, SavedState};

/// How often another state is begun before it is given up.
const RESTARTS_MAX: u32 = 3;

/// Reads a snapshot piece by piece; see [`Client::snapshot`].
///
/// The state has every write that was acknowledged before the first piece was asked for. The
/// pieces, one after the other, are a file that `mangrove snapshot verify` and `restore` take.
pub struct SnapshotPager<E: Env> {
    client: Client<E>,
    /// Who gives it, and which state it is.
    source: Option<(Arc<Route<Stream<E>>>, SavedState)>,
    offset: u64,
    is_over: bool,
    restart_count: u32,
}

impl<E: Env> std::fmt::Debug for SnapshotPager<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.source.as_ref().map(|(_, state)| state);
        f.debug_struct("SnapshotPager").field("state", &state).finish_non_exhaustive()
    }
}

impl<E: Env> SnapshotPager<E> {
    pub(super) fn new(client: Client<E>) -> Self {
        Self { client, source: None, offset: 0, is_over: false, restart_count: 0 }
    }

    /// Returns the next piece, or `None` after the last one. A piece at offset 0 begins a state:
    /// whatever came before is to be thrown away.
    ///
    /// # Errors
    /// As any read; also [`ClientError::Misbehaved`] if the nodes that began went away too often.
    pub async fn next_piece(&mut self) -> Result<Option<SavedPiece>, ClientError> {
        if self.is_over {
            return Ok(None);
        }
        let piece = match self.go_on().await {
            Ok(Some(piece)) => piece,
            Ok(None) => self.begin().await?,
            Err(error) if self.restart_count >= RESTARTS_MAX => return Err(error),
            Err(_) => {
                self.source = None;
                self.begin().await?
            }
        };
        self.offset = piece.offset + u64::try_from(piece.data.len()).unwrap_or(u64::MAX);
        self.is_over = piece.is_last;
        Ok(Some(piece))
    }

    /// Asks for the next piece of the state at hand; `None` if there is none, or it is gone.
    async fn go_on(&self) -> Result<Option<SavedPiece>, ClientError> {
        let Some((route, state)) = &self.source else { return Ok(None) };
        let inner = &self.client.inner;
        let body = request(Some(*state), self.offset);
        let mut tries = inner.tries(Kind::Harmless);
        match inner.call_at(route, &body, &mut tries).await?.body {
            ResponseBody::Snapshot(piece) => Ok(piece),
            ResponseBody::Command(_)
            | ResponseBody::Query(_)
            | ResponseBody::Status(_)
            | ResponseBody::Error(_) => Err(misfit()),
        }
    }

    /// Asks for the first piece of a new state.
    async fn begin(&mut self) -> Result<SavedPiece, ClientError> {
        if self.offset > 0 {
            probe!("client.snapshot_begins_anew");
            self.restart_count += 1;
            if self.restart_count > RESTARTS_MAX {
                let what = "the node that saved the state let it go too often".to_owned();
                return Err(ClientError::Misbehaved(what));
            }
        }
        self.offset = 0;
        let inner = &self.client.inner;
        let mut tries = inner.tries(Kind::Harmless);
        let (route, answer) = inner.call_routed(&request(None, 0), &mut tries).await?;
        let ResponseBody::Snapshot(Some(piece)) = answer.body else { return Err(misfit()) };
        self.source = Some((route, piece.state));
        Ok(piece)
    }
}

/// Asks for a piece, of a new state if `wanted` is `None`.
fn request(wanted: Option<SavedState>, offset: u64) -> RequestBody {
    let bytes_max = u32::try_from(SNAPSHOT_PIECE_BYTES_MAX).unwrap_or(u32::MAX);
    RequestBody::Snapshot { wanted, offset, bytes_max }
}
