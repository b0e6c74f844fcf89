//! A quorum alone, and what it must do in that time.
//!
//! ```text
//! faults ──► heal a quorum ──► a leader ──► a write ──► every cell ──► heal the rest ──► …
//! ```
//! The deadlines count from the moment when the quorum is healed, and are those of a whole cluster
//! after healing: it is the weakest member that takes the time, and it is waited for then, too.
//! What is answered meanwhile stands in the history, and is judged with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mangrove::dynamo::Level;

use super::{Alone, Healing, Quorum};
use crate::check::{Violation, broken};
use crate::masterless::phases::Phases;
use crate::options::Mode;
use crate::run::clock;
use crate::workload::{ClientProcess, Helper};
use crate::world::Host;

/// Longest time until one of them leads.
const LEADER_MAX: Duration = Duration::from_secs(30);
/// Longest time until a write is acknowledged.
const WRITE_MAX: Duration = Duration::from_mins(1);
/// Longest time until every cell has been read.
const READ_MAX: Duration = Duration::from_secs(90);
/// Time between two looks at what is done.
const POLL: Duration = Duration::from_millis(50);
/// Tries of each read before all are read again.
const READ_ATTEMPTS: u32 = 5;
/// Pause between two tries of a write, or of reading everything.
const PAUSE: Duration = Duration::from_millis(200);

/// What the client has got so far.
#[derive(Debug, Default)]
struct Got {
    write: AtomicBool,
    reads: AtomicBool,
}

/// Heals a quorum, if one has to serve, and demands that it does. Healing the rest is left.
///
/// # Errors
/// It does not serve in time, or a checker has spoken.
pub(crate) async fn serve_alone(run: &mut Phases<'_>) -> Result<Alone, Violation> {
    let sound = match run.options.mode() {
        Mode::PrimaryBackup => run.cluster.voters().await,
        Mode::Masterless => run.whole_nodes().await?,
    };
    let (healing, placement) = (run.options.healing, run.cluster.placement());
    let mut rng = run.world.rng("healing");
    let drawn = Quorum::draw(run.options.node_count, &sound, placement.as_ref(), &mut rng);
    let Some(quorum) = drawn else { return Ok(Alone::Skipped) };
    let numbers = (u64::try_from(quorum.healed.len()).unwrap_or(u64::MAX), 0);
    run.world.trace(None, "quorum", numbers, || format!("{:?}, {}", quorum.healed, healing.name()));
    // The machine is there before the others are cut off from all.
    let host = run.world.add_client("asker of a quorum");
    run.cluster.heal_only(&quorum.healed, healing == Healing::OthersDown).await;
    let got = start_client(run, host, quorum.level).await;
    let after = wait(run, &quorum, &got).await?;
    Ok(Alone::Served { healing, level: quorum.level, after })
}

/// Lets a client write once and read everything.
async fn start_client(run: &Phases<'_>, host: Host, level: Level) -> Arc<Got> {
    let mut options = run.options.clone();
    if let Some(masterless) = &mut options.masterless {
        // A session may need more replicas than the level asks for.
        masterless.session_chance = 0.0;
    }
    let (addresses, shared) = (run.cluster.addresses(), Arc::clone(run.shared));
    let clock = clock(run.world);
    let got = Arc::new(Got::default());
    let told = Arc::clone(&got);
    let main = move |env| async move {
        let client = Helper::OfQuorum.client();
        let mut client = ClientProcess::new(&env, client, addresses, &options, &shared, clock);
        client.ask_at(level);
        while !client.set_one().await {
            client.pause(PAUSE).await;
        }
        told.write.store(true, Ordering::Relaxed);
        while !client.read_everything(READ_ATTEMPTS).await {
            client.pause(PAUSE).await;
        }
        told.reads.store(true, Ordering::Relaxed);
        std::future::pending::<()>().await;
    };
    run.world.start(host, main).await;
    got
}

/// Waits until all is done; returns how long that took.
async fn wait(run: &mut Phases<'_>, quorum: &Quorum, got: &Got) -> Result<Duration, Violation> {
    let healed_at = run.world.now();
    let mut is_led = run.options.mode() == Mode::Masterless;
    loop {
        run.world.sleep(POLL).await;
        run.cluster.undo_due().await;
        if let Some(violation) = run.cluster.watch().violation() {
            return Err(violation);
        }
        is_led |= run.cluster.is_led_among(&quorum.healed);
        let is_written = got.write.load(Ordering::Relaxed);
        let is_read = got.reads.load(Ordering::Relaxed);
        let waited = run.world.now().saturating_sub(healed_at);
        if is_led && is_read {
            return Ok(waited);
        }
        let steps = [
            (is_led, LEADER_MAX, "nobody leads"),
            (is_written, WRITE_MAX, "no write is acknowledged"),
            (is_read, READ_MAX, "not every cell can be read"),
        ];
        let late = steps.iter().find(|(is_done, max, _)| !is_done && waited > *max);
        if let Some((_, max, what)) = late {
            let (healed, healing) = (&quorum.healed, run.options.healing.name());
            let what = format!("{max:?} after {healed:?} were healed, {healing}: {what}");
            let at = u64::try_from(run.world.now().as_nanos()).unwrap_or(u64::MAX);
            return broken("liveness", at, what).map(|()| waited);
        }
    }
}
