//! One run of one seed, in a thread of its own.
//!
//! Hash seeds, probe counters and planted bugs belong to a thread, so a run never shares one with
//! another; then its trace depends on the seed alone, whatever ran before in this process and
//! whatever runs beside it.

use std::any::Any;
use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::Duration;

use madsim::runtime::Runtime;
use mangrove::base::Rng;

use super::{World, WorldOptions};

/// Bytes of stack of a run's thread: futures of unoptimised builds are large.
const STACK_BYTES: usize = 8 << 20;

/// A run that panicked: a find.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "seed {seed}: {message}{}",
    location.as_ref().map_or(String::new(), |at| format!(" ({at})"))
)]
pub struct RunFailure {
    /// The seed that shows it again.
    pub seed: u64,
    /// What the panic said.
    pub message: String,
    /// Where, as `file:line:column`.
    pub location: Option<String>,
    /// Time in the world when it was; zero if there was no world yet.
    pub at: Duration,
    /// What had happened until then, if it was recorded.
    pub trace: Vec<String>,
    /// Hash of all events until then.
    pub hash: u64,
    /// How many those were.
    pub event_count: u64,
}

/// Runs `scenario` in a world made from `seed`, and cleans up after it.
///
/// # Errors
/// A panic, of the scenario or of any task of any node.
pub fn run_seed<T, F, Fut>(seed: u64, options: WorldOptions, scenario: F) -> Result<T, RunFailure>
where
    T: Send + 'static,
    F: FnOnce(World) -> Fut + Send + 'static,
    Fut: Future<Output = T> + 'static,
{
    catch_panic_locations();
    let thread = std::thread::Builder::new().name(format!("seed {seed}")).stack_size(STACK_BYTES);
    let spawned = thread.spawn(move || run_here(seed, options, scenario));
    let joined = match spawned {
        Ok(thread) => thread.join(),
        Err(error) => panic!("cannot start a thread for seed {seed}: {error}"),
    };
    match joined {
        Ok(result) => result,
        Err(payload) => Err(failure(seed, payload.as_ref())),
    }
}

fn run_here<T, F, Fut>(seed: u64, options: WorldOptions, scenario: F) -> Result<T, RunFailure>
where
    F: FnOnce(World) -> Fut,
    Fut: Future<Output = T> + 'static,
{
    local::IN_RUN.set(true);
    let runtime = Runtime::with_seed_and_config(seed, madsim::Config::default());
    let rng = Rng::new(seed);
    let world = runtime.block_on(async { World::new(&rng, options) });
    let run = async { world.run(scenario(world.clone())) };
    let result = catch_unwind(AssertUnwindSafe(|| runtime.block_on(run)));
    let result = result.map_err(|payload| RunFailure {
        at: world.now(),
        hash: world.trace_hash(),
        event_count: world.event_count(),
        trace: world.take_trace(),
        ..failure(seed, payload.as_ref())
    });
    let left = runtime.block_on(async { world.shutdown() });
    assert!(result.is_err() || left == 0, "seed {seed} leaves {left} tasks behind");
    result
}

fn failure(seed: u64, payload: &(dyn Any + Send)) -> RunFailure {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    let message = text.unwrap_or_else(|| "a panic without a message".to_owned());
    let location = local::LOCATION.take();
    let (at, trace, hash, event_count) = (Duration::ZERO, Vec::new(), 0, 0);
    RunFailure { seed, message, location, at, trace, hash, event_count }
}

/// A panic hook is told nothing but its thread.
mod local {
    use super::RefCell;
    use std::cell::Cell;

    thread_local! {
        pub(super) static IN_RUN: Cell<bool> = const { Cell::new(false) };
        pub(super) static LOCATION: RefCell<Option<String>> = const { RefCell::new(None) };
    }
}

/// Keeps the place of a panic within a run for its [`RunFailure`]; others go to the usual hook.
fn catch_panic_locations() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !local::IN_RUN.get() {
                return usual(info);
            }
            // The first panic is the find; what follows from it is noise.
            local::LOCATION.with_borrow_mut(|location| {
                let here = || info.location().map(ToString::to_string);
                *location = location.take().or_else(here);
            });
        }));
    });
}
