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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eventually_returns_what_is_found_in_the_end() {
        let mut looks = 0;
        let found = block_on(eventually(Duration::from_mins(1), "three looks", async || {
            looks += 1;
            (looks == 3).then_some("found")
        }));
        assert_eq!((found, looks), ("found", 3));
    }

    #[test]
    fn eventually_gives_up_and_says_what_it_waited_for() {
        let waiting = || block_on(eventually(Duration::ZERO, "pigs fly", async || None::<()>));
        let panic = std::panic::catch_unwind(waiting).unwrap_err();
        let message = panic.downcast_ref::<String>().unwrap();
        assert!(message.contains("pigs fly") && message.contains("wait.rs"), "{message}");
    }
}
