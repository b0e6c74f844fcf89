//! Sessions: a write takes effect at most once, however often it is sent. [Thesis §6.3]
//!
//! **Property.** For each session and each number of a write in it there is at most one log index
//! at which it takes effect, the same on all nodes; and a write never takes effect after the client
//! has said that it has the answer of that write already.
//!
//! **Why the obvious check is wrong.** Demanding that numbers grow along the log is too strict: a
//! client may have many writes in flight, and a retry of the first can come after the second. And
//! looking at the log for a command that occurs twice is wrong too: it may well occur twice,
//! because a retry is a new entry; what must not occur twice is its *effect*. So the harness tells
//! of the effect, as the state machine of each node reports it, and the list of (session, number)
//! must be free of doubles: an append-only list in which every element is unique, checked without
//! reading any list back. Planted bug R45, the session table missing from a snapshot, shows as an
//! effect on one node that the others did not have.
//!
//! **What is skipped.** The order of effects against real time: that is linearizability.

use std::collections::BTreeMap;

use mangrove::base::{Index, NodeId, RequestSeq, SessionId};

use super::{Violation, broken};

/// A write in a session.
type Request = (SessionId, RequestSeq);

/// Remembers every effect.
#[derive(Debug, Default)]
pub struct SessionOrder {
    index_of: BTreeMap<Request, Index>,
    effect_at: BTreeMap<Index, (Request, NodeId)>,
    /// By session, the highest "I have all answers below" and the index that said it.
    acked_below: BTreeMap<SessionId, (RequestSeq, Index)>,
}

impl SessionOrder {
    /// Takes note that on `node` the write `seq` of `session` took effect at `index`.
    pub fn observe_effect(
        &mut self,
        at: u64,
        node: NodeId,
        index: Index,
        (session, seq): Request,
        acked_below: RequestSeq,
    ) -> Result<(), Violation> {
        let request = (session, seq);
        if let Some((known, first)) = self.effect_at.get(&index) {
            if *known == request {
                return Ok(());
            }
            let what = format!(
                "at index {index} {known:?} took effect on {first}, but {request:?} on {node}"
            );
            return broken("session_order", at, what);
        }
        self.effect_at.insert(index, (request, node));
        let first = *self.index_of.entry(request).or_insert(index);
        if first != index {
            let what = format!("{request:?} took effect at {first} and, on {node}, at {index}");
            return broken("session_order", at, what);
        }
        let acked = self.acked_below.entry(session).or_insert((acked_below, index));
        if seq < acked.0 && index > acked.1 {
            let what = format!(
                "{request:?} took effect at {index} on {node}, but the client had its answer at \
                 {} already (all below {:?})",
                acked.1, acked.0
            );
            return broken("session_order", at, what);
        }
        if acked_below > acked.0 {
            *acked = (acked_below, index);
        }
        Ok(())
    }
}
