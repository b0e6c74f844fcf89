//! The executor of a world: the tasks of all processes, one at a time, in an order that the seed
//! decides.
//!
//! A run is bound by the turns that its tasks take, a few thousand for each simulated second, most
//! of them short. So a turn must cost little: madsim's executor takes a dozen locks and atomic
//! steps for one, and its timers, which cannot be cancelled, cost a second turn of a task that only
//! wakes the right one. Here a turn is one draw, one poll and one look at the timer queue of the
//! world (`core`). What madsim still does is to lay a virtual clock and seeded randomness under
//! the C library, so that a stray call of either stays a function of the seed.
//!
//! Which task is next has fates of its own, like everything that a run decides (see `fate`): a task
//! that is woken draws a rank, and the lowest rank goes first. The draw is named by the process,
//! the task and the moment, so one that is woken once more, or not at all, changes the order of no
//! others, and a run from which a decision is left out stays nearly the run that it was.
//!
//! Time passes in two ways: each turn takes 50 to 99 ns of it, and when nobody has anything to do
//! it leaps to the next deadline.
//!
//! # Invariants
//! 1. Tasks that are woken while another has its turn go on in any order, each as likely.
//! 2. A task is polled and its future dropped by the loop alone, never where it is woken or killed:
//!    both may happen while the world is locked, and destructors lock the world.
//! 3. A killed process is never polled again; a paused one is not until it goes on.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;

use futures_util::task::{ArcWake, waker_ref};

use super::fate::{Fate, For, Passing};

type TaskFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Nanoseconds that a turn takes: from this to less than its double.
const TURN: u64 = 50;

/// Tasks at once from which on something must be spawning for ever.
const TASKS_MAX: usize = 1_000_000;

/// The tasks that can go on, and what draws the next.
#[derive(Default)]
pub(super) struct Executor {
    ready: Mutex<Vec<Ready>>,
    /// Nanoseconds since the world began.
    now: AtomicU64,
    task_count: AtomicUsize,
    /// What the turns of all tasks are drawn anew by; 0 for nothing.
    reseed: AtomicU64,
}

/// A task that can go on.
struct Ready {
    task: Arc<Task>,
    rank: u64,
    /// How long its turn will take.
    nanos: u64,
}

/// The tasks of one incarnation of a process.
pub(super) struct Process {
    executor: Arc<Executor>,
    is_dead: AtomicBool,
    is_paused: AtomicBool,
    fate: Fate,
    tasks: Mutex<Tasks>,
}

#[derive(Default)]
struct Tasks {
    /// Every task that has not ended, at the place that it knows.
    all: Vec<Option<Arc<Task>>>,
    free: Vec<usize>,
    /// Those that would be polled if the process were not paused.
    parked: Vec<Arc<Task>>,
    /// How many there have been.
    spawned: u64,
}

/// One task. Whoever wants to wake it has a reference; its process keeps it alive.
pub(super) struct Task {
    process: Arc<Process>,
    place: usize,
    is_queued: AtomicBool,
    turns: Mutex<Passing>,
    /// Empty while it is polled, after its end, and in the task that stands for the scenario.
    future: Mutex<Option<TaskFuture>>,
}

/// What the loop has to do next.
pub(super) enum Turn {
    /// Poll the scenario.
    Scenario,
    /// A task had its turn.
    Task,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Executor {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Draws the turns of all tasks anew from now on.
    pub(super) fn reseed(&self, number: u64) {
        self.reseed.store(number + 1, Ordering::Relaxed);
    }

    /// Takes note of the time.
    pub(super) fn at(&self, now: u64) {
        self.now.store(now, Ordering::Relaxed);
    }

    /// Makes the task that stands for the scenario, and queues it.
    pub(super) fn root(process: &Arc<Process>) -> Arc<Task> {
        let root = Task::new(process, usize::MAX, None, process.fate.named("scenario"));
        ArcWake::wake_by_ref(&root);
        root
    }

    /// Gives one task its turn; returns how long that took, in nanoseconds of the world, or
    /// nothing if no task can go on.
    pub(super) fn turn(&self, root: &Arc<Task>) -> Option<(Turn, u64)> {
        let Ready { task, nanos, .. } = {
            let mut ready = lock(&self.ready);
            // Hardly ever more than a handful.
            let lowest = (0..ready.len()).min_by_key(|at| ready.get(*at).map(|ready| ready.rank));
            ready.swap_remove(lowest?)
        };
        if Arc::ptr_eq(&task, root) {
            task.is_queued.store(false, Ordering::Relaxed);
            return Some((Turn::Scenario, nanos));
        }
        task.run();
        Some((Turn::Task, nanos))
    }

    /// Drops what is left of killed processes; tells how many tasks of others are left.
    pub(super) fn drain(&self, root: &Arc<Task>) -> usize {
        while self.turn(root).is_some() {}
        self.task_count.load(Ordering::Relaxed)
    }

    fn push(&self, task: Arc<Task>) {
        let mut fate = lock(&task.turns).next(self.now.load(Ordering::Relaxed));
        let reseed = self.reseed.load(Ordering::Relaxed);
        if reseed > 0 {
            fate = fate.reseeded(reseed);
        }
        let (rank, nanos) = (fate.bits(For::Rank), TURN + fate.below(For::Turn, TURN));
        lock(&self.ready).push(Ready { task, rank, nanos });
    }
}

impl Process {
    pub(super) fn new(executor: &Arc<Executor>, fate: Fate) -> Arc<Self> {
        Arc::new(Self {
            executor: Arc::clone(executor),
            fate,
            is_dead: AtomicBool::new(false),
            is_paused: AtomicBool::new(false),
            tasks: Mutex::default(),
        })
    }

    /// Starts a task; it is dropped at once if the process is dead.
    pub(super) fn spawn(self: &Arc<Self>, future: impl Future<Output = ()> + Send + 'static) {
        if self.is_dead.load(Ordering::Relaxed) {
            return;
        }
        let future: TaskFuture = Box::pin(future);
        let task = {
            let mut tasks = lock(&self.tasks);
            let place = tasks.free.pop().unwrap_or(tasks.all.len());
            tasks.spawned += 1;
            let task = Task::new(self, place, Some(future), self.fate.of(tasks.spawned));
            match tasks.all.get_mut(place) {
                Some(slot) => *slot = Some(Arc::clone(&task)),
                None => tasks.all.push(Some(Arc::clone(&task))),
            }
            task
        };
        let count = self.executor.task_count.fetch_add(1, Ordering::Relaxed);
        assert!(count < TASKS_MAX, "{count} tasks at once: something spawns for ever");
        ArcWake::wake_by_ref(&task);
    }

    /// Ends every task; the loop drops them soon, in an order that the seed decides.
    pub(super) fn kill(&self) {
        self.is_dead.store(true, Ordering::Relaxed);
        let (all, parked) = {
            let mut tasks = lock(&self.tasks);
            tasks.free.clear();
            (std::mem::take(&mut tasks.all), std::mem::take(&mut tasks.parked))
        };
        for task in all.into_iter().flatten() {
            ArcWake::wake_by_ref(&task);
        }
        for task in parked {
            self.executor.push(task);
        }
    }

    /// Lets no task go on.
    pub(super) fn pause(&self) {
        self.is_paused.store(true, Ordering::Relaxed);
    }

    /// Lets all tasks go on that have been woken meanwhile.
    pub(super) fn resume(&self) {
        self.is_paused.store(false, Ordering::Relaxed);
        let parked = std::mem::take(&mut lock(&self.tasks).parked);
        for task in parked {
            self.executor.push(task);
        }
    }
}

impl Task {
    fn new(
        process: &Arc<Process>,
        place: usize,
        future: Option<TaskFuture>,
        fate: Fate,
    ) -> Arc<Self> {
        Arc::new(Self {
            turns: Mutex::new(Passing::new(fate)),
            process: Arc::clone(process),
            place,
            is_queued: AtomicBool::new(false),
            future: Mutex::new(future),
        })
    }

    fn run(self: Arc<Self>) {
        let process = &self.process;
        let is_dead = || process.is_dead.load(Ordering::Relaxed);
        if !is_dead() && process.is_paused.load(Ordering::Relaxed) {
            // It stays queued, so that nobody queues it again.
            lock(&process.tasks).parked.push(Arc::clone(&self));
            return;
        }
        self.is_queued.store(false, Ordering::Relaxed);
        let Some(mut future) = lock(&self.future).take() else { return };
        if !is_dead() {
            let waker = waker_ref(&self);
            let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
            if polled.is_pending() && !is_dead() {
                *lock(&self.future) = Some(future);
                return;
            }
        }
        // Its own destructor may spawn, wake and lock the world.
        drop(future);
        process.executor.task_count.fetch_sub(1, Ordering::Relaxed);
        let mut tasks = lock(&process.tasks);
        if let Some(slot) = tasks.all.get_mut(self.place)
            && slot.as_ref().is_some_and(|task| Arc::ptr_eq(task, &self))
        {
            *slot = None;
            tasks.free.push(self.place);
        }
    }
}

impl ArcWake for Task {
    fn wake_by_ref(task: &Arc<Self>) {
        if !task.is_queued.swap(true, Ordering::Relaxed) {
            task.process.executor.push(Arc::clone(task));
        }
    }
}
