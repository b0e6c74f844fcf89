//! How long a client waits, and for what.

use std::time::Duration;

use crate::base::ClusterId;
use crate::wire::Level;

/// What can be chosen about a client. The defaults suit a cluster in one data centre.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientOptions {
    /// Longest time for opening one connection, the handshake included; also how long an open
    /// one may be silent while a request waits, before it counts as dead. Too small: slow links
    /// never connect. Too large: a node that is gone without a word holds requests up.
    pub connect_timeout: Duration,
    /// Longest time that one node is waited for, before the request is tried elsewhere. Too
    /// small: a slow node gets everything twice, and a read of a row with millions of deleted
    /// columns, which takes it longer, is never answered. Too large: a failover takes that long.
    pub try_timeout: Duration,
    /// Longest time for a request with all its tries; then it fails, see
    /// [`ClientError`](super::ClientError).
    pub request_timeout: Duration,
    /// Wait before the second try; doubles with every further one up to
    /// [`backoff_max`](Self::backoff_max). Each wait is drawn between its half and its whole.
    pub backoff_min: Duration,
    /// Longest wait between two tries.
    pub backoff_max: Duration,
    /// The cluster that must be reached. `None` takes the cluster of the first node that answers
    /// and stays with it.
    pub cluster: Option<ClusterId>,
    /// Of how many replicas an answer is wanted, unless
    /// [`Client::with_level`](super::Client::with_level) says otherwise. Of the masterless mode:
    /// the primary-backup mode always answers linearizably.
    pub level: Level,
    /// Whether the client reads its own writes, and never an older state than it has read before,
    /// whatever the level. Of the masterless mode.
    ///
    /// What is promised is promised of each cell that the client has written, or has been shown
    /// by a read, through this client or a clone of it: no later answer shows the cell as it was
    /// before, and none leaves it out unless it was deleted since. What a page of
    /// [`slice`](super::Client::slice), [`keys`](super::Client::keys) or
    /// [`scan`](super::Client::scan) did *not* show is not remembered, for a range has no end of
    /// cells: a cell that was missing in one page because it was deleted may be back in a later one
    /// that is read from a replica which has not heard of it, unless the client itself has deleted
    /// it, or has read just that cell and found it missing. Who needs that reads at
    /// [`Level::Quorum`] and writes at it.
    ///
    /// Where a cell that the client has seen was deleted by somebody else, one read of the range
    /// asks all replicas, and then it is known. That cannot be learnt while one of them is down:
    /// until then each such read fails with [`Stale`](super::ClientError::Stale), or for want of
    /// replicas. And keys come without stamps: a listing that shows a key of which the client knows
    /// only deletions, which somebody else has set again, asks all replicas each time, until the
    /// client has read a cell of it.
    ///
    /// Beyond ten thousand cells the client forgets them all and reads from all replicas what it
    /// does not know any more; the promise holds, and costs more.
    pub session: bool,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            try_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(10),
            backoff_min: Duration::from_millis(5),
            backoff_max: Duration::from_millis(200),
            cluster: None,
            level: Level::Quorum,
            session: false,
        }
    }
}
