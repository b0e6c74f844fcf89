//! The end of a replica whose state is damaged.

use super::super::ending::{Ending, StopReason};
use super::super::inbox::{Event, Inbox, Over};
use super::super::outbox::PeerOutbox;
use super::super::persist::{LogQueue, PersistEvent};
use super::super::state::{StateEvent, StateQueue};
use super::*;
use crate::base::NodeId;
use crate::storage::StorageError;

fn damage() -> StorageError {
    let (path, what) = ("tables/1.table".to_owned(), "a block".to_owned());
    StorageError::Corrupt { path, offset: 0, what }
}

/// Ends a replica with a damaged state; `over` have ended before, and `events` are what its tasks
/// say then. Returns why it has ended, and how long that took.
fn ended(over: Over, events: Vec<Event>) -> (StopReason, Duration) {
    let (env, inbox) = (TestEnv::default(), Inbox::new(10));
    let (log, state) = (LogQueue::default(), StateQueue::default());
    let peers = [(NodeId(2), Arc::new(PeerOutbox::default()))];
    for event in events {
        inbox.push(event);
    }
    let ending = Ending { env: &env, inbox: &inbox, log: &log, state: &state, peers: &peers };
    let reason = run(ending.condemn_if_damaged(StopReason::Storage(damage()), over));
    (reason, env.now().since(Instant::default()))
}

fn log_stops() -> Event {
    Event::Persist(PersistEvent::Stopped)
}

fn state_is_condemned() -> Event {
    Event::State(StateEvent::Fatal(damage()))
}

#[test]
fn damaged_state_is_condemned_once_both_tasks_have_ended() {
    let (nobody, state) = (Over::default(), Over { state: true, log: false });
    let condemned = (StopReason::Condemned(damage()), Duration::ZERO);
    assert_eq!(ended(nobody, vec![log_stops(), state_is_condemned()]), condemned);
    assert_eq!(ended(nobody, vec![state_is_condemned(), log_stops()]), condemned);
    assert_eq!(ended(state, vec![log_stops()]), condemned);
    let (reason, waited) = ended(nobody, vec![log_stops()]);
    assert_eq!(reason, StopReason::Storage(damage()), "the state may still be worked on");
    assert!(waited > Duration::ZERO);
}

/// The accident: the log of a node that was told to stop had ended when its state was found
/// damaged. The node waited for that end once more, and then said that its storage had failed.
#[test]
fn node_that_is_told_to_stop_while_its_state_is_condemned_does_not_wait_for_its_log_twice() {
    let condemned = (StopReason::Condemned(damage()), Duration::ZERO);
    assert_eq!(ended(Over { log: true, state: true }, vec![]), condemned);
    assert_eq!(ended(Over { log: true, state: false }, vec![state_is_condemned()]), condemned);
}
