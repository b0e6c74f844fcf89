//! How a replica ends: why it stops, and what it sees to before.

use std::sync::Arc;
use std::time::Duration;

use super::inbox::{Arrivals, Inbox, Over};
use super::outbox::PeerOutbox;
use super::persist::{LogJob, LogQueue};
use super::state::{StateJob, StateQueue};
use crate::base::NodeId;
use crate::env::Env;
use crate::storage::StorageError;
use crate::wire::{RequestError, ResponseBody};

/// Longest wait for a damaged state to be condemned, before the node stops anyhow.
const CONDEMN_MAX: Duration = Duration::from_secs(5);

/// Why a node stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// It was asked to.
    #[error("stopped on request")]
    Requested,
    /// Its tables are damaged, and it has forgotten them: started again, it gets the state from
    /// the other nodes.
    #[error("the stored state is damaged: {0}; start the node again to get it from the others")]
    Condemned(StorageError),
    /// Its storage failed; see the error for what to do.
    #[error("storage failed: {0}; check the disk, then start the node again")]
    Storage(StorageError),
}

/// What a replica lets go of when it ends.
pub(super) struct Ending<'a, E: Env> {
    pub(super) env: &'a E,
    pub(super) inbox: &'a Inbox,
    pub(super) log: &'a LogQueue,
    pub(super) state: &'a StateQueue<E::Disk>,
    pub(super) peers: &'a [(NodeId, Arc<PeerOutbox>)],
}

impl<E: Env> Ending<'_, E> {
    /// Has a damaged state condemned before the node stops because of it, and waits until nobody
    /// works on the files any more, so that it may be started again. `over` tells who has ended
    /// already: the state task by itself, the log task because the node was told to stop.
    pub(super) async fn condemn_if_damaged(&self, reason: StopReason, over: Over) -> StopReason {
        let StopReason::Storage(error @ StorageError::Corrupt { .. }) = reason else {
            return reason;
        };
        if self.peers.is_empty() {
            return StopReason::Storage(error);
        }
        self.state.push(StateJob::Condemn(error.clone()));
        self.log.push(LogJob::Stop);
        let mut arrivals = Arrivals::default();
        let mut sleep = Box::pin({
            let env = self.env.clone();
            async move { env.sleep(CONDEMN_MAX).await }
        });
        let mut is_late = false;
        while !self.inbox.has_ended(&mut arrivals, over) && !is_late {
            is_late = self.inbox.wait(sleep.as_mut()).await;
        }
        self.refuse(arrivals);
        if is_late { StopReason::Storage(error) } else { StopReason::Condemned(error) }
    }

    /// Lets go of everything; returns the reason.
    pub(super) fn finish(&self, reason: StopReason) -> StopReason {
        for (_, outbox) in self.peers {
            outbox.close();
        }
        let rest = self.inbox.close();
        self.state.push(StateJob::Stop);
        self.refuse(rest);
        reason
    }

    fn refuse(&self, arrivals: Arrivals) {
        for request in arrivals.requests {
            self.inbox.answered();
            let error = RequestError::ShuttingDown;
            request.outbox.reply(request.id, ResponseBody::Error(error));
        }
    }
}
