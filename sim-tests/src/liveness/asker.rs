//! A client that writes from the moment of healing on, until it is answered once.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::options::Options;
use crate::run::clock;
use crate::workload::{ClientProcess, Helper, Shared};
use crate::world::World;

/// Pause between two of its requests. The client library has tried all nodes by then, each several
/// times if it was refused.
const PAUSE: Duration = Duration::from_millis(20);

/// Somebody who asks after healing, and what came of it.
#[derive(Debug)]
pub struct Asker {
    healed_at: Duration,
    answered_at: Arc<OnceLock<Duration>>,
}

impl Asker {
    /// Starts it, on a machine of its own; what it asks is in the history like all else.
    pub(crate) async fn start(
        world: &World,
        addresses: Vec<String>,
        options: &Options,
        shared: &Arc<Shared>,
    ) -> Self {
        let healed_at = world.now();
        let answered_at = Arc::new(OnceLock::new());
        let (options, shared, answered) =
            (options.clone(), Arc::clone(shared), Arc::clone(&answered_at));
        let (clock, observer) = (clock(world), world.clone());
        let main = move |env| async move {
            let client = Helper::Asker.client();
            let mut asker = ClientProcess::new(&env, client, addresses, &options, &shared, clock);
            while !asker.set_one().await {
                asker.pause(PAUSE).await;
            }
            answered.get_or_init(|| observer.now());
            std::future::pending::<()>().await;
        };
        let host = world.add_client("asker");
        world.start(host, main).await;
        Self { healed_at, answered_at }
    }

    /// Tells whether a write of it was acknowledged.
    pub(crate) fn is_answered(&self) -> bool {
        self.answered_at.get().is_some()
    }

    /// Returns when everything was healed and it began to ask.
    pub(crate) fn healed_at(&self) -> Duration {
        self.healed_at
    }

    /// Returns how long it took until a write of it was acknowledged.
    pub(crate) fn answered_after(&self) -> Option<Duration> {
        self.answered_at.get().map(|at| at.saturating_sub(self.healed_at))
    }
}
