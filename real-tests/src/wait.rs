//! Waiting for something to become true, with a limit.

use std::time::{Duration, Instant};

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks again and again until `look` finds something, and returns it.
///
/// # Panics
/// After `limit`, saying `what` did not happen.
#[track_caller]
pub fn eventually<T>(
    limit: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let started = Instant::now();
        loop {
            if let Some(found) = look().await {
                return found;
            }
            let waited = started.elapsed();
            assert!(waited < limit, "{caller}: not within {limit:?}: {what}");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Runs a test to its end on a runtime of its own.
pub fn block_on<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(test)
}
