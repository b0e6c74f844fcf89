//! Processes, clocks, and what makes two runs the same run.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mangrove::env::{Disk, Env, File, Listener, Net};
use sim_tests::world::{
    ClockOptions, Host, LinkOptions, NetOptions, PowerLoss, Record, World, WorldOptions, run_seed,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MS: Duration = Duration::from_millis(1);

fn run<T, F, Fut>(scenario: F) -> T
where
    T: Send + 'static,
    F: FnOnce(World) -> Fut + Send + 'static,
    Fut: Future<Output = T> + 'static,
{
    let result = run_seed(1, WorldOptions::default(), scenario);
    result.unwrap_or_else(|failure| panic!("{failure}"))
}

async fn idle(world: &World, host: Host) {
    world.start(host, |_| std::future::pending()).await;
}

#[test]
fn process_whose_main_returns_has_exited() {
    run(|world| async move {
        let host = world.add_server("n1");
        world.start(host, |env| async move { env.sleep(5 * MS).await }).await;
        assert!(world.is_running(host));
        world.sleep(10 * MS).await;
        assert!(!world.is_running(host));
        idle(&world, host).await;
        assert_eq!(world.incarnation(host), 2);
    });
}

#[test]
fn crash_ends_every_task_of_its_host_only() {
    run(|world| async move {
        let (n1, n2) = (world.add_server("n1"), world.add_server("n2"));
        let ticks = Arc::new(Mutex::new([0, 0]));
        for (index, host) in [n1, n2].into_iter().enumerate() {
            let ticks = Arc::clone(&ticks);
            world
                .start(host, move |env| async move {
                    let own = env.clone();
                    env.spawn("ticker", async move {
                        loop {
                            own.sleep(MS).await;
                            ticks.lock().unwrap()[index] += 1;
                        }
                    });
                    std::future::pending::<()>().await;
                })
                .await;
        }
        world.sleep(100 * MS).await;
        world.crash(n1);
        let [one, two] = *ticks.lock().unwrap();
        world.sleep(100 * MS).await;
        let [one_later, two_later] = *ticks.lock().unwrap();
        assert_eq!(one_later, one, "a dead task ticks");
        assert!(two_later > two + 50, "a living task does not tick");
    });
}

#[test]
fn destructors_of_a_dead_process_have_no_effect() {
    struct WritesWhenDropped(sim_tests::world::SimEnv);
    impl Drop for WritesWhenDropped {
        fn drop(&mut self) {
            let env = self.0.clone();
            self.0.spawn("last will", async move {
                env.disk().create("last-will").await.unwrap();
            });
        }
    }
    run(|world| async move {
        let host = world.add_server("n1");
        world
            .start(host, |env| async move {
                let _writes = WritesWhenDropped(env);
                std::future::pending::<()>().await;
            })
            .await;
        world.sleep(MS).await;
        world.crash(host);
        idle(&world, host).await;
        world.sleep(10 * MS).await;
        let env = world.env(host).unwrap();
        assert_eq!(env.disk().list("").await.unwrap(), [""; 0]);
    });
}

#[test]
fn pause_piles_up_timers_and_bytes() {
    run(|world| async move {
        let (n1, n2) = (world.add_server("n1"), world.add_server("n2"));
        let arrived = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&arrived);
        world
            .start(n1, move |env| async move {
                let mut listener = env.net().listen("n1:1").await.unwrap();
                let (mut stream, _) = listener.accept().await.unwrap();
                loop {
                    let len = stream.read(&mut [0; 100]).await.unwrap();
                    seen.lock().unwrap().push((env.now(), len));
                }
            })
            .await;
        idle(&world, n2).await;
        world.sleep(MS).await;
        let mut stream = world.env(n2).unwrap().net().connect("n1:1").await.unwrap();
        world.sleep(10 * MS).await;
        world.pause(n1);
        assert!(world.is_paused(n1));
        let before = world.env(n1).unwrap().now();
        for _ in 0..5 {
            stream.write_all(b"x").await.unwrap();
            world.sleep(100 * MS).await;
        }
        assert_eq!(arrived.lock().unwrap().len(), 0);
        world.resume(n1);
        world.sleep(MS).await;
        let (at, len) = arrived.lock().unwrap()[0];
        assert_eq!(len, 5, "all that piled up comes at once");
        assert!(at.since(before) >= 500 * MS, "clocks go on during a pause");
        assert_eq!(world.fault_counts()["P5"], (1, 1));
    });
}

#[test]
fn panic_of_a_task_is_the_result_of_the_run() {
    let result = run_seed(7, WorldOptions::default(), |world| async move {
        let host = world.add_server("n1");
        world
            .start(host, |env| async move {
                env.sleep(MS).await;
                panic!("found {}", 42);
            })
            .await;
        world.sleep(100 * MS).await;
    });
    let failure = result.unwrap_err();
    assert_eq!((failure.seed, failure.message.as_str()), (7, "found 42"));
    assert!(failure.location.unwrap().contains("world_process.rs"));
}

#[test]
fn run_leaves_nothing_behind() {
    for panics in [false, true] {
        let alive = Arc::new(());
        let held = Arc::clone(&alive);
        let result = run_seed(1, WorldOptions::default(), move |world| async move {
            let hosts = [world.add_server("n1"), world.add_server("n2")];
            for (address, host) in ["n1:1", "n2:1"].into_iter().zip(hosts) {
                let held = Arc::clone(&held);
                world
                    .start(host, move |env| async move {
                        let own = Arc::clone(&held);
                        let sleeper = env.clone();
                        env.spawn("sleeper", async move {
                            sleeper.sleep(Duration::from_secs(1_000)).await;
                            drop(own);
                        });
                        let mut listener = env.net().listen(address).await.unwrap();
                        drop(listener.accept().await);
                        drop(held);
                    })
                    .await;
            }
            world.sleep(10 * MS).await;
            world.pause(hosts[0]);
            let env = world.env(hosts[1]).unwrap();
            let stream = env.net().connect("n1:1").await.unwrap();
            assert!(!panics, "on purpose");
            drop(stream);
        });
        assert_eq!(result.is_err(), panics);
        assert_eq!(Arc::strong_count(&alive), 1, "a task has outlived its run");
    }
}

#[test]
fn clocks_differ_by_offset_and_drift() {
    let clock = ClockOptions {
        wall_offset_max: Duration::from_mins(1),
        drift_ppb_max: 50_000_000,
        timer_late_max: Duration::ZERO,
    };
    let options = WorldOptions { clock, ..WorldOptions::default() };
    let result = run_seed(1, options, |world| async move {
        let (n1, n2) = (world.add_server("n1"), world.add_server("n2"));
        idle(&world, n1).await;
        idle(&world, n2).await;
        let (env1, env2) = (world.env(n1).unwrap(), world.env(n2).unwrap());
        assert_ne!(env1.wall(), env2.wall());
        let starts = [world.now(), Duration::from_nanos(env1.now().as_nanos())];
        env1.sleep(Duration::from_secs(100)).await;
        let ends = [world.now(), Duration::from_nanos(env1.now().as_nanos())];
        assert_ne!(ends[0].saturating_sub(starts[0]), ends[1].saturating_sub(starts[1]));
        assert!(ends[1].saturating_sub(starts[1]) >= Duration::from_secs(100));
        world.fault_counts()
    });
    let counts = result.unwrap();
    assert!(counts["C1"].1 > 0 && counts["C2"].1 > 0, "{counts:?}");
}

#[test]
fn wall_jumps_and_monotonic_does_not() {
    run(|world| async move {
        let host = world.add_server("n1");
        idle(&world, host).await;
        let env = world.env(host).unwrap();
        let (wall, now) = (env.wall().0, env.now());
        world.jump_wall(host, true, Duration::ZERO);
        assert_eq!((env.wall().0, world.fault_counts()["C3"]), (wall, (0, 0)), "it did not jump");
        world.jump_wall(host, false, Duration::from_secs(3));
        assert_eq!(wall - env.wall().0, 3_000_000_000);
        world.jump_wall(host, true, Duration::from_secs(10));
        assert_eq!(env.wall().0 - wall, 7_000_000_000);
        assert_eq!(env.now(), now);
        assert_eq!(world.fault_counts()["C3"], (2, 2));
    });
}

#[test]
fn change_of_drift_never_ends_a_sleep_early() {
    run(|world| async move {
        let host = world.add_server("n1");
        idle(&world, host).await;
        let env = world.env(host).unwrap();
        let start = env.now();
        let slow_down = async {
            world.sleep(50 * MS).await;
            world.set_drift(host, -500_000_000);
        };
        futures_util::future::join(env.sleep(100 * MS), slow_down).await;
        assert!(env.now().since(start) >= 100 * MS);
        assert!(world.now() >= 150 * MS);
    });
}

#[test]
fn late_timers_are_late_only() {
    run(|world| async move {
        let host = world.add_server("n1");
        idle(&world, host).await;
        world.set_timer_late_max(50 * MS);
        let env = world.env(host).unwrap();
        let mut latest = Duration::ZERO;
        for _ in 0..20 {
            let start = env.now();
            env.sleep(MS).await;
            latest = latest.max(env.now().since(start));
        }
        assert!(latest > 10 * MS && latest < 52 * MS, "latest {latest:?}");
        assert!(world.fault_counts()["C5"].1 > 0);
    });
}

#[test]
fn random_streams_differ_by_incarnation() {
    run(|world| async move {
        let host = world.add_server("n1");
        idle(&world, host).await;
        let first = world.env(host).unwrap().rng("x").next_u64();
        world.crash(host);
        idle(&world, host).await;
        let second = world.env(host).unwrap().rng("x").next_u64();
        assert_ne!(first, second);
    });
}

/// A busy scenario with a bit of everything.
async fn everything(world: World) -> (u64, u64, Vec<String>) {
    let hosts: Vec<Host> = (1..=3).map(|n| world.add_server(&format!("n{n}"))).collect();
    for (number, host) in hosts.iter().enumerate() {
        world.start(*host, move |env| chatter(env, number + 1)).await;
    }
    let mut rng = world.rng("nemesis");
    for _ in 0..30 {
        world.sleep(rng.duration(10 * MS, 200 * MS)).await;
        let (one, other) = (hosts[rng.index(3)], hosts[rng.index(3)]);
        match rng.range(0, 7) {
            0 => world.block(one, other),
            1 => world.heal_all(),
            2 => world.pause(one),
            3 => world.resume(one),
            4 => world.stall_disk(one, 50 * MS),
            5 => world.power_off(one, PowerLoss::Subset),
            _ => world.crash(one),
        }
        for (number, host) in hosts.iter().enumerate() {
            if !world.is_running(*host) {
                world.start(*host, move |env| chatter(env, number + 1)).await;
            }
        }
    }
    (world.trace_hash(), world.event_count(), world.take_trace())
}

/// Writes what it hears into a file, and says something to the next machine now and then.
async fn chatter(env: sim_tests::world::SimEnv, number: usize) {
    let mut listener = env.net().listen(&format!("n{number}:1")).await.unwrap();
    let hearing = env.clone();
    env.spawn("listen", async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let own = hearing.clone();
            hearing.spawn("hear", async move {
                let file = own.disk().create("heard").await.unwrap();
                let mut at = 0;
                let mut buffer = [0; 64];
                while let Ok(len @ 1..) = stream.read(&mut buffer).await {
                    file.write_at(at, &buffer[..len]).await.unwrap();
                    file.sync().await.unwrap();
                    at += len as u64;
                }
            });
        }
    });
    let next = format!("n{}:1", number % 3 + 1);
    loop {
        if let Ok(mut stream) = env.net().connect(&next).await {
            while stream.write_all(b"something").await.is_ok() {
                env.sleep(7 * MS).await;
            }
        }
        env.sleep(3 * MS).await;
    }
}

fn rough(record: Record) -> WorldOptions {
    let servers = LinkOptions { loss: 0.01, reset: 0.001, short_read: 0.1, ..Default::default() };
    let net = NetOptions { servers, ..NetOptions::default() };
    WorldOptions { record, net, ..WorldOptions::default() }
}

#[test]
fn same_seed_is_the_same_run() {
    let mut hashes = std::collections::BTreeSet::new();
    for seed in 0..10 {
        let first = run_seed(seed, rough(Record::Lines), everything).unwrap();
        let second = run_seed(seed, rough(Record::Nothing), everything).unwrap();
        assert_eq!((first.0, first.1), (second.0, second.1), "seed {seed}");
        assert!(!first.2.is_empty() && second.2.is_empty());
        hashes.insert(first.0);
    }
    assert_eq!(hashes.len(), 10, "two seeds made the same run");
}

#[test]
fn runs_beside_each_other_are_the_same_runs() {
    let alone = run_seed(3, rough(Record::Nothing), everything).unwrap().0;
    let beside: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| run_seed(3, rough(Record::Nothing), everything).unwrap().0))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(beside, [alone; 3]);
}
