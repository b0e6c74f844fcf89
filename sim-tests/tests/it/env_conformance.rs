//! The simulated world keeps the contract of `mangrove::env`, also a hostile one.

use std::time::Duration;

use mangrove::env::conformance::Site;
use sim_tests::world::{
    ClockOptions, Latency, LinkOptions, NetOptions, SimEnv, WorldOptions, run_seed,
};

/// Runs one promise between two machines.
fn run_with<F>(options: WorldOptions, case: fn(Site<SimEnv>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let result = run_seed(1, options, move |world| async move {
        let (n1, n2) = (world.add_server("n1"), world.add_server("n2"));
        world.start(n2, |_| std::future::pending()).await;
        let peer = world.env(n2).unwrap();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        world
            .start(n1, move |env| async move {
                case(Site { env, peer, listen: "n1:0".to_owned() }).await;
                sender.send(()).unwrap();
            })
            .await;
        receiver.await.unwrap();
    });
    assert_eq!(result, Ok(()));
}

mod calm {
    use super::*;

    fn run<F: Future<Output = ()> + Send + 'static>(case: fn(Site<SimEnv>) -> F) {
        run_with(WorldOptions::default(), case);
    }

    mangrove::env_conformance_tests!(run);
}

/// Every fault that the contract allows without an error.
mod rough {
    use super::*;

    fn run<F: Future<Output = ()> + Send + 'static>(case: fn(Site<SimEnv>) -> F) {
        let mean = Duration::from_millis(2);
        let servers = LinkOptions {
            latency: Latency::Exponential { floor: Duration::from_micros(50), mean },
            loss: 0.02,
            burst: 0.001,
            burst_length: (Duration::from_millis(1), Duration::from_millis(50)),
            short_read: 0.3,
            ..LinkOptions::default()
        };
        let clock = ClockOptions {
            wall_offset_max: Duration::from_secs(100),
            drift_ppb_max: 100_000,
            timer_late_max: Duration::from_millis(1),
        };
        let net = NetOptions { servers, ..NetOptions::default() };
        run_with(WorldOptions { net, clock, ..WorldOptions::default() }, case);
    }

    mangrove::env_conformance_tests!(run);
}
