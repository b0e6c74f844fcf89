//! The workers.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use super::keys::{KEY_BYTES, Keys, scattered};
use super::record::Recorder;
use super::{Failure, Load, Outcome, Target, key};
use crate::base::limits::BATCH_BYTES_MAX;
use crate::base::{Instant, Rng};
use crate::client::{BatchBuilder, Client, ClientError};
use crate::env::{Env, race};

/// Most cells of a batch when a store is filled, and batches at a time.
const FILL_CELLS_MAX: usize = 500;
const FILL_BATCHES: u64 = 8;

/// How often a batch is written before filling is given up.
const FILL_TRIES: u32 = 5;

/// Bytes of the number that begins each value: shorter ones cannot tell whether a read is stale.
pub const NUMBER_BYTES: usize = 8;

/// Time between two reports.
const REPORT_INTERVAL: Duration = Duration::from_millis(200);

/// Pause of a closed loop after a failure: what refuses at once is not to be asked all day.
const FAILURE_PAUSE: Duration = Duration::from_millis(5);

/// What all workers share.
struct Common<'a, E> {
    env: &'a E,
    load: &'a Load,
    keys: Keys,
    recorder: RefCell<Recorder>,
    /// Requests that were begun, and those of them that are due after the warm-up.
    begun: Cell<u64>,
    counted: Cell<u64>,
    start: Instant,
    /// End of the warm-up.
    begin: Instant,
    end: Instant,
    /// The highest number acknowledged for each key, if stale reads are to be found.
    floors: RefCell<Vec<u64>>,
    workers: u64,
}

/// Runs a load on these connections to its end; `on_progress` hears now and then how much is
/// answered.
///
/// # Panics
/// If stale reads are to be found by values that have no room for [`NUMBER_BYTES`].
pub async fn run<E: Env, T: Target>(
    env: &E,
    targets: &[T],
    load: &Load,
    mut on_progress: impl FnMut(Duration, u64),
) -> Outcome {
    if load.finds_stale {
        let bytes = load.value_bytes;
        assert!(bytes >= NUMBER_BYTES, "{bytes} B have no room for a number of {NUMBER_BYTES} B");
    }
    let start = env.now();
    let begin = start + load.warm_up;
    let in_flight = load.in_flight.max(1);
    let workers = u64::try_from(targets.len() * in_flight).unwrap_or(u64::MAX).max(1);
    let floor_count = if load.finds_stale { usize::try_from(load.key_count) } else { Ok(0) };
    let common = Common {
        env,
        load,
        keys: Keys::new(load.distribution, load.key_count),
        recorder: RefCell::new(Recorder::new(begin)),
        begun: Cell::new(0),
        counted: Cell::new(0),
        start,
        begin,
        end: begin + load.duration,
        floors: RefCell::new(vec![0; floor_count.unwrap_or(0)]),
        workers,
    };
    let tasks = targets.iter().cycle().zip(0..workers);
    let working = join_all(tasks.map(|(target, worker)| work(&common, target, worker)));
    let reporting = async {
        loop {
            env.sleep(REPORT_INTERVAL).await;
            on_progress(env.now().since(start), common.recorder.borrow().answered());
        }
    };
    race(working, reporting).await;
    // An answer that came late belongs to the time until it came.
    let (load_end, end) = (common.end, env.now().max(begin));
    common.recorder.borrow_mut().on_never_sent(common.never_sent());
    common.recorder.into_inner().finish(load_end, end)
}

/// Asks until the time is over.
async fn work<E: Env, T: Target>(common: &Common<'_, E>, target: &T, worker: u64) {
    let load = common.load;
    let mut rng = Rng::new(load.seed).split(&format!("worker.{worker}"));
    // Keys still hold the numbers of earlier loads, none of which made one for each nanosecond: so
    // all numbers of this one are higher.
    let mut number = common.start.as_nanos();
    while let Some(due) = next_due(common).await {
        if rng.chance(load.read_share) {
            read(common, target, due, common.keys.draw(&mut rng)).await;
        } else {
            number += 1;
            let drawn = common.keys.draw(&mut rng);
            let key = if load.finds_stale { own_key(common, drawn, worker) } else { drawn };
            write(common, target, due, (key, number)).await;
        }
    }
}

impl<E> Common<'_, E> {
    /// Returns when a request is due in an open loop.
    fn due(&self, number: u64, rate: f64) -> Instant {
        let seconds = super::record::float(number) / rate;
        self.start + Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// Returns how many requests are due before `end` in an open loop.
    fn due_before(&self, end: Instant, rate: f64) -> u64 {
        let (mut low, mut high) = (0, u64::MAX);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.due(middle, rate) < end {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Returns how many requests were due after the warm-up and were not begun.
    fn never_sent(&self) -> u64 {
        let Some(rate) = self.load.rate else { return 0 };
        let first = self.begun.get().max(self.due_before(self.begin, rate));
        let left = self.load.requests_max.map_or(u64::MAX, |most| most - self.counted.get());
        self.due_before(self.end, rate).saturating_sub(first).min(left)
    }
}

/// Waits until a worker's next request is due; `None` when there are no more.
async fn next_due<E: Env>(common: &Common<'_, E>) -> Option<Instant> {
    let mut number = common.begun.get();
    if common.load.requests_max.is_some_and(|most| common.counted.get() >= most) {
        return None;
    }
    let now = common.env.now();
    if let Some(rate) = common.load.rate
        && now >= common.begin
        && common.due(number, rate) < common.begin
    {
        // What could not be sent in the warm-up must not take the time of what counts.
        number = common.due_before(common.begin, rate);
    }
    let due = common.load.rate.map_or(now, |rate| common.due(number, rate));
    // What could not be sent in time is not sent after it: a load above what the store takes would
    // not end.
    if due >= common.end || now >= common.end {
        return None;
    }
    common.begun.set(number + 1);
    if due >= common.begin {
        common.counted.set(common.counted.get() + 1);
    }
    let wait = due.since(now);
    if !wait.is_zero() {
        common.env.sleep(wait).await;
    }
    Some(due)
}

/// Returns a key near the drawn one that this worker alone writes.
fn own_key<E>(common: &Common<'_, E>, drawn: u64, worker: u64) -> u64 {
    let first = drawn - drawn % common.workers;
    let own = first + worker;
    if own < u64::from(common.load.key_count) { own } else { worker }
}

async fn write<E: Env, T: Target>(
    common: &Common<'_, E>,
    target: &T,
    due: Instant,
    (number_of_key, number): (u64, u64),
) {
    let value = value(number, common.load.value_bytes);
    let written = target.set(key(number_of_key), value).await;
    let now = common.env.now();
    match written {
        Ok(()) => {
            common.recorder.borrow_mut().on_answered(due, now, true);
            let at = usize::try_from(number_of_key).unwrap_or(usize::MAX);
            if let Some(floor) = common.floors.borrow_mut().get_mut(at) {
                *floor = number;
            }
        }
        Err(failure) => {
            common.recorder.borrow_mut().on_failed(due, now, true, &failure);
            common.env.sleep(FAILURE_PAUSE).await;
        }
    }
}

async fn read<E: Env, T: Target>(
    common: &Common<'_, E>,
    target: &T,
    due: Instant,
    number_of_key: u64,
) {
    let at = usize::try_from(number_of_key).unwrap_or(usize::MAX);
    let floor = common.floors.borrow().get(at).copied().unwrap_or(0);
    let found = target.get(key(number_of_key)).await;
    let now = common.env.now();
    match found {
        Ok(found) => {
            let mut recorder = common.recorder.borrow_mut();
            recorder.on_answered(due, now, false);
            if found.as_ref().map_or(0, number_in) < floor {
                recorder.on_stale();
            }
        }
        Err(failure) => {
            common.recorder.borrow_mut().on_failed(due, now, false, &failure);
            common.env.sleep(FAILURE_PAUSE).await;
        }
    }
}

/// Returns a value that begins with its number.
fn value(number: u64, bytes: usize) -> Bytes {
    let mut value = number.to_le_bytes().to_vec();
    value.resize(bytes, b'x');
    value.into()
}

fn number_in(value: &Bytes) -> u64 {
    value.first_chunk::<NUMBER_BYTES>().map_or(0, |number| u64::from_le_bytes(*number))
}

/// Writes cells `from..to` in batches, so that a cluster has data; `on_progress` hears how far it
/// is. Their order has nothing to do with that of their keys.
///
/// # Errors
/// A batch was not taken.
pub async fn fill<E: Env>(
    client: &Client<E>,
    (from, to): (u64, u64),
    value_bytes: usize,
    mut on_progress: impl FnMut(u64),
) -> Result<(), ClientError> {
    let mut next = from;
    while next < to {
        let mut batches = Vec::new();
        for _ in 0..FILL_BATCHES {
            let end = (next + fill_cells(value_bytes)).min(to);
            if end > next {
                batches.push(fill_batch(client, next..end, (from, to), value_bytes));
            }
            next = end;
        }
        for written in join_all(batches).await {
            written?;
        }
        on_progress(next);
    }
    Ok(())
}

/// Returns how many cells of such values a batch has: about half as many as fit, at most.
fn fill_cells(value_bytes: usize) -> u64 {
    let fit = BATCH_BYTES_MAX / 2 / (KEY_BYTES + value_bytes);
    u64::try_from(fit.clamp(1, FILL_CELLS_MAX)).unwrap_or(1)
}

/// Writes some of the cells of a range at once. If it is unknown whether a batch took effect, it
/// does no harm to write it again.
async fn fill_batch<E: Env>(
    client: &Client<E>,
    numbers: Range<u64>,
    range: (u64, u64),
    value_bytes: usize,
) -> Result<(), ClientError> {
    for tries_left in (0..FILL_TRIES).rev() {
        let mut batch = BatchBuilder::new();
        for number in numbers.clone() {
            batch = batch.set(key(scattered(number, range)), value(0, value_bytes));
        }
        match client.bulk_set(batch.build()?).await {
            Err(error) if tries_left == 0 => return Err(error),
            Err(_) => {}
            Ok(_) => break,
        }
    }
    Ok(())
}

/// Writes cells one by one through these connections, as any store can.
///
/// # Errors
/// A write was not taken.
pub async fn fill_each<T: Target>(
    targets: &[T],
    count: u32,
    value_bytes: usize,
) -> Result<(), Failure> {
    let workers = (FILL_BATCHES * 2).max(1);
    let next = Cell::new(0);
    let write = async |target: &T| -> Result<(), Failure> {
        while next.get() < u64::from(count) {
            let number = next.replace(next.get() + 1);
            target.set(key(number), value(0, value_bytes)).await?;
        }
        Ok(())
    };
    let tasks = targets.iter().flat_map(|target| (0..workers).map(move |_| target));
    join_all(tasks.map(write)).await.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::env::real::RealEnv;
    use crate::trial::load::Distribution;

    /// A store that stands still for a while, once.
    struct Stalling {
        env: RealEnv,
        until: Rc<Cell<Option<Instant>>>,
        cells: RefCell<std::collections::BTreeMap<Bytes, Bytes>>,
        forgets: bool,
        asked: Cell<u64>,
    }

    impl Target for Stalling {
        async fn set(&self, key: Bytes, value: Bytes) -> Result<(), Failure> {
            self.asked.set(self.asked.get() + 1);
            if let Some(until) = self.until.get() {
                self.env.sleep(until.since(self.env.now())).await;
            }
            if !self.forgets {
                self.cells.borrow_mut().insert(key, value);
            }
            Ok(())
        }

        async fn get(&self, key: Bytes) -> Result<Option<Bytes>, Failure> {
            Ok(self.cells.borrow().get(&key).cloned())
        }
    }

    fn target(env: &RealEnv, stall: Duration, forgets: bool) -> Stalling {
        let until = Rc::new(Cell::new(Some(env.now() + stall)));
        let (cells, asked) = (RefCell::default(), Cell::new(0));
        Stalling { env: env.clone(), until, cells, forgets, asked }
    }

    /// A write of one of ten keys is due in each of so many milliseconds.
    fn each_millisecond(count: u64) -> Load {
        let (rate, duration) = (Some(1_000.0), Duration::from_millis(count));
        Load { rate, duration, key_count: 10, ..Load::default() }
    }

    fn run_on(env: &RealEnv, targets: &[Stalling], load: &Load) -> Outcome {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(run(env, targets, load, |_, _| {}))
    }

    #[test]
    fn open_loop_counts_the_requests_that_waited_for_a_stalled_store() {
        // The clock is the real one here: wide margins.
        let env = RealEnv::client();
        let load = each_millisecond(400);
        let stalled = [target(&env, Duration::from_millis(200), false)];
        let outcome = run_on(&env, &stalled, &load);
        // One worker catches up with what was due; on a busy machine not with the last ones.
        assert_eq!(outcome.sets.count() + outcome.never_sent, 400, "{}", outcome.never_sent);
        // Half of the requests were due while it stood still; they waited 100 ms on average.
        assert!(outcome.sets.percentile_ms(40.0) > 20.0, "{}", outcome.sets.percentile_ms(40.0));
        assert!(outcome.sets.percentile_ms(100.0) >= 199.0);
        let gap = outcome.longest_gap;
        assert!(gap >= Some(Duration::from_millis(199)), "{gap:?}");
    }

    #[test]
    fn open_loop_above_what_the_store_takes_ends_and_tells_what_was_never_sent() {
        let env = RealEnv::client();
        let load = each_millisecond(100);
        // The first request is answered long after the end; there is nobody to send the others.
        let stalled = [target(&env, Duration::from_millis(300), false)];
        let outcome = run_on(&env, &stalled, &load);
        assert_eq!((outcome.sets.count(), outcome.never_sent), (1, 99));
    }

    #[test]
    fn backlog_of_the_warm_up_is_not_sent_when_it_is_over() {
        let env = RealEnv::client();
        let load = Load { warm_up: Duration::from_millis(50), ..each_millisecond(100) };
        let stalled = [target(&env, Duration::from_millis(80), false)];
        let outcome = run_on(&env, &stalled, &load);
        let (asked, count) = (stalled[0].asked.get(), outcome.sets.count());
        assert!(asked - count <= 1, "{asked} asked, {count} of them count");
        assert_eq!(count + outcome.never_sent, 100, "{}", outcome.never_sent);
    }

    #[test]
    fn closed_loop_ends_after_so_many_requests() {
        let env = RealEnv::client();
        let load = Load {
            requests_max: Some(1_000),
            read_share: 0.5,
            in_flight: 4,
            distribution: Distribution::Zipfian,
            key_count: 100,
            ..Load::default()
        };
        let targets = [(); 3].map(|()| target(&env, Duration::ZERO, false));
        let outcome = run_on(&env, &targets, &load);
        assert_eq!(outcome.sets.count() + outcome.gets.count(), 1_000);
        assert_eq!(outcome.never_sent, 0, "nothing is due in a closed loop");
        let share = super::super::record::float(outcome.gets.count()) / 1_000.0;
        assert!((0.4..0.6).contains(&share), "{share}");
    }

    #[test]
    fn requests_of_the_warm_up_are_not_among_those_that_are_wanted() {
        let env = RealEnv::client();
        let warm_up = Duration::from_millis(20);
        let load = Load { requests_max: Some(50), key_count: 10, warm_up, ..Load::default() };
        let outcome = run_on(&env, &[target(&env, Duration::ZERO, false)], &load);
        assert_eq!(outcome.sets.count(), 50);
    }

    #[test]
    fn batch_that_fills_a_store_is_taken_whatever_its_values_are() {
        for value_bytes in [0, 1, 100, 4_000, 8_400, 9_000, 1 << 19, 1 << 20] {
            let count = fill_cells(value_bytes);
            let mut batch = BatchBuilder::new();
            for number in 0..count {
                batch = batch.set(key(number), value(0, value_bytes));
            }
            let built = batch.build().map(|_batch| ());
            assert_eq!(built, Ok(()), "{count} values of {value_bytes} B");
        }
        assert_eq!((fill_cells(100), fill_cells(1 << 20)), (500, 1));
    }

    #[test]
    fn forgotten_writes_are_found_as_stale_reads() {
        let env = RealEnv::client();
        let load = Load {
            requests_max: Some(2_000),
            read_share: 0.5,
            key_count: 16,
            finds_stale: true,
            ..Load::default()
        };
        for (forgets, is_stale) in [(false, false), (true, true)] {
            let targets = [target(&env, Duration::ZERO, forgets)];
            let outcome = run_on(&env, &targets, &load);
            assert_eq!(outcome.stale_reads > 0, is_stale, "{}", outcome.stale_reads);
        }
    }

    #[test]
    fn forgotten_writes_are_found_behind_what_an_earlier_load_wrote() {
        let env = RealEnv::client();
        let load = Load {
            requests_max: Some(2_000),
            read_share: 0.5,
            key_count: 16,
            finds_stale: true,
            ..Load::default()
        };
        let targets = [target(&env, Duration::ZERO, true)];
        // The most that another load of this process can have come to.
        let earlier = value(env.now().as_nanos(), load.value_bytes);
        for number in 0..16 {
            targets[0].cells.borrow_mut().insert(key(number), earlier.clone());
        }
        let outcome = run_on(&env, &targets, &load);
        assert!(outcome.stale_reads > 0, "of {} reads", outcome.gets.count());
    }
}
