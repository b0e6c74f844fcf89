//! The alarm of a replica's loop.

use std::pin::Pin;
use std::time::Duration;

use crate::base::Instant;
use crate::env::Env;

/// Longest sleep of an idle loop.
const IDLE_MAX: Duration = Duration::from_hours(1);

/// The loop's alarm: fires no later than asked, and is set anew only when it must be.
pub(super) struct Alarm {
    pub(super) future: Pin<Box<dyn Future<Output = ()> + Send>>,
    at: Instant,
    /// It has fired.
    pub(super) over: bool,
}

impl Alarm {
    pub(super) fn new<E: Env>(env: &E, at: Instant) -> Self {
        let duration = at.since(env.now()).min(IDLE_MAX);
        let env = env.clone();
        Self { future: Box::pin(async move { env.sleep(duration).await }), at, over: false }
    }

    /// Keeps the alarm if it fires early enough; an early alarm costs one idle turn of the loop,
    /// a new one for every message would cost far more.
    pub(super) fn until<E: Env>(&mut self, env: &E, now: Instant, deadline: Instant) {
        if self.over || deadline < self.at || now >= self.at {
            *self = Self::new(env, deadline);
        }
    }
}
