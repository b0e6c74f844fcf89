//! Independent pieces of work on several threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Does a piece of work for each task, so many at a time, and returns what came of them in the
/// order of the tasks; `progress` hears of each that is over.
pub(crate) fn map<T: Sync, R: Send>(
    tasks: &[T],
    jobs: usize,
    work: impl Fn(&T) -> R + Sync,
    progress: impl Fn(&R) + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(tasks.len()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(task) = tasks.get(at) else { return };
                    let result = work(task);
                    progress(&result);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    // As they came depends on the threads.
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_tasks() {
        let tasks: Vec<u64> = (0..100).collect();
        let heard = AtomicUsize::new(0);
        let count = |_: &u64| _ = heard.fetch_add(1, Ordering::Relaxed);
        let doubled = map(&tasks, 3, |task| task * 2, count);
        assert!(doubled.iter().zip(&tasks).all(|(double, task)| *double == task * 2));
        assert_eq!((doubled.len(), heard.into_inner()), (100, 100));
    }
}
