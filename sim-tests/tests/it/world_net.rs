//! What each network fault looks like from a node.

use std::io::ErrorKind;
use std::time::Duration;

use mangrove::env::{Env, Listener, Net, timeout};
use sim_tests::world::{
    Host, Latency, LinkOptions, NetOptions, PowerLoss, Reset, SimEnv, SimStream, World,
    WorldOptions, run_seed,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MS: Duration = Duration::from_millis(1);

/// A world with one connection from n2 to n1.
struct Pair {
    world: World,
    n1: Host,
    n2: Host,
    env1: SimEnv,
    env2: SimEnv,
    server: SimStream,
    client: SimStream,
}

async fn start(world: &World, host: Host) -> SimEnv {
    world.start(host, |_| std::future::pending()).await;
    world.env(host).unwrap()
}

async fn connect(env1: &SimEnv, env2: &SimEnv, port: u16) -> (SimStream, SimStream) {
    let mut listener = env1.net().listen(&format!("n1:{port}")).await.unwrap();
    let address = listener.local_address();
    let both = futures_util::future::join(listener.accept(), env2.net().connect(&address)).await;
    (both.0.unwrap().0, both.1.unwrap())
}

/// Runs `scenario` with a connection between two machines, `link` being how links behave.
fn with_pair<T, F>(seed: u64, link: LinkOptions, scenario: F) -> T
where
    T: Send + 'static,
    F: AsyncFnOnce(Pair) -> T + Send + 'static,
{
    let net = NetOptions { buffer_bytes: 1 << 16, ..NetOptions::default() };
    let options = WorldOptions { net, ..WorldOptions::default() };
    let result = run_seed(seed, options, move |world| async move {
        let (n1, n2) = (world.add_server("n1"), world.add_server("n2"));
        let (env1, env2) = (start(&world, n1).await, start(&world, n2).await);
        let (server, client) = connect(&env1, &env2, 7000).await;
        world.change_net(|net| net.servers = link);
        scenario(Pair { world, n1, n2, env1, env2, server, client }).await
    });
    result.unwrap_or_else(|failure| panic!("{failure}"))
}

fn calm() -> LinkOptions {
    let fast = (Duration::from_micros(100), Duration::from_micros(800));
    let latency = Latency::Bimodal { fast, slow: fast, slow_chance: 0.0 };
    LinkOptions { latency, ..LinkOptions::default() }
}

async fn is_silent(env: &SimEnv, stream: &mut SimStream, length: Duration) -> bool {
    timeout(env, length, stream.read(&mut [0; 100])).await.is_none()
}

fn observed(world: &World, code: &str) -> u64 {
    world.fault_counts()[code].1
}

/// Sends 100 pieces, and returns the time until the last has arrived.
async fn transfer(pair: &mut Pair) -> Duration {
    let start = pair.world.now();
    for byte in 0..100 {
        pair.client.write_all(&[byte; 10]).await.unwrap();
    }
    let mut received = [0; 1_000];
    pair.server.read_exact(&mut received).await.unwrap();
    assert!(received.chunks(10).zip(0..100).all(|(piece, byte)| piece == [byte; 10]));
    pair.world.now().saturating_sub(start)
}

#[test]
fn calm_link_takes_its_latency() {
    let time = with_pair(1, calm(), async |mut pair| transfer(&mut pair).await);
    assert!(time < MS && time >= MS / 10, "took {time:?}");
}

#[test]
fn lost_segment_stalls_the_stream_in_order() {
    let link = LinkOptions { loss: 0.1, ..calm() };
    let time = with_pair(1, link, async |mut pair| {
        let time = transfer(&mut pair).await;
        assert!(observed(&pair.world, "N1") > 0);
        time
    });
    assert!(time >= 200 * MS, "took {time:?} in spite of losses");
}

#[test]
fn burst_of_losses_stalls_longer_than_single_ones() {
    let burst_length = (500 * MS, 510 * MS);
    let link = LinkOptions { burst: 1.0, burst_length, ..calm() };
    let time = with_pair(1, link, async |mut pair| transfer(&mut pair).await);
    assert!(time >= 600 * MS, "took {time:?} in spite of a burst");
}

#[test]
fn what_was_lost_is_under_way_when_the_loss_has_ended() {
    let link = LinkOptions { loss: 0.5, ..calm() };
    with_pair(1, link, async |mut pair| {
        assert_eq!(pair.world.transit_left(), Duration::ZERO);
        for byte in 0..10 {
            pair.client.write_all(&[byte; 10]).await.unwrap();
        }
        pair.world.calm();
        let left = pair.world.transit_left();
        assert!(left > 100 * MS, "only {left:?} left");
        pair.server.read_exact(&mut [0; 100]).await.unwrap();
        assert_eq!(pair.world.transit_left(), Duration::ZERO);
        pair.world.block(pair.n2, pair.n1);
        pair.client.write_all(b"held").await.unwrap();
        assert!(pair.world.transit_left() > 3_600_000 * MS, "nothing passes a partition");
    });
}

#[test]
fn slow_segment_is_a_long_delay() {
    let slow = (50 * MS, 100 * MS);
    let latency = Latency::Bimodal { fast: (MS, MS), slow, slow_chance: 0.05 };
    with_pair(1, LinkOptions { latency, ..calm() }, async |mut pair| {
        assert!(transfer(&mut pair).await >= 50 * MS);
        assert!(observed(&pair.world, "N2") > 0);
    });
}

#[test]
fn added_delay_counts_per_direction() {
    with_pair(1, calm(), async |mut pair| {
        pair.world.delay(pair.n2, pair.n1, 70 * MS);
        let time = transfer(&mut pair).await;
        assert!(time >= 70 * MS && time < 72 * MS, "took {time:?}");
        let start = pair.world.now();
        pair.server.write_all(b"x").await.unwrap();
        pair.client.read_exact(&mut [0]).await.unwrap();
        assert!(pair.world.now().saturating_sub(start) < MS);
    });
}

#[test]
fn narrow_link_takes_time_by_size() {
    let link = LinkOptions { bytes_per_second: Some(100_000), ..calm() };
    with_pair(1, link, async |mut pair| {
        let start = pair.world.now();
        pair.client.write_all(&vec![7; 20_000]).await.unwrap();
        pair.server.read_exact(&mut vec![0; 20_000]).await.unwrap();
        assert!(pair.world.now().saturating_sub(start) >= 200 * MS);
        assert!(observed(&pair.world, "N9") > 0);
    });
}

#[test]
fn partition_holds_bytes_until_it_heals() {
    with_pair(1, calm(), async |mut pair| {
        pair.world.partition(&[pair.n1], &[pair.n2]);
        pair.client.write_all(b"held").await.unwrap();
        assert!(is_silent(&pair.env1, &mut pair.server, 500 * MS).await);
        pair.world.heal_all();
        let mut read = [0; 4];
        timeout(&pair.env1, 2_000 * MS, pair.server.read_exact(&mut read)).await.unwrap().unwrap();
        assert_eq!(&read, b"held");
        assert!(observed(&pair.world, "N4") > 0);
    });
}

#[test]
fn bytes_on_their_way_are_held_by_a_partition() {
    let slow = (100 * MS, 100 * MS);
    let latency = Latency::Bimodal { fast: slow, slow, slow_chance: 0.0 };
    with_pair(1, LinkOptions { latency, ..calm() }, async |mut pair| {
        pair.client.write_all(b"on its way").await.unwrap();
        assert!(is_silent(&pair.env1, &mut pair.server, 50 * MS).await);
        pair.world.block(pair.n2, pair.n1);
        assert!(is_silent(&pair.env1, &mut pair.server, 200 * MS).await);
    });
}

#[test]
fn one_way_partition_lets_the_other_way_pass() {
    with_pair(1, calm(), async |mut pair| {
        pair.world.block(pair.n1, pair.n2);
        assert!(transfer(&mut pair).await < MS);
        pair.server.write_all(b"x").await.unwrap();
        assert!(is_silent(&pair.env2, &mut pair.client, 100 * MS).await);
    });
}

#[test]
fn connecting_under_a_partition_hangs_until_it_heals() {
    for is_outward in [true, false] {
        with_pair(1, calm(), async move |pair| {
            let mut listener = pair.env1.net().listen("n1:8000").await.unwrap();
            let (from, to) = if is_outward { (pair.n2, pair.n1) } else { (pair.n1, pair.n2) };
            pair.world.block(from, to);
            let connect = pair.env2.net().connect("n1:8000");
            assert!(timeout(&pair.env2, 3_000 * MS, connect).await.is_none());
            let heal = async {
                pair.world.sleep(1_000 * MS).await;
                pair.world.heal_all();
            };
            let connect = pair.env2.net().connect("n1:8000");
            let (connected, ()) = futures_util::future::join(connect, heal).await;
            drop(connected.unwrap());
            listener.accept().await.unwrap();
        });
    }
}

#[test]
fn partition_may_reset_instead_of_holding() {
    let link = LinkOptions { reset_on_block: 1.0, ..calm() };
    with_pair(1, link, async |mut pair| {
        pair.world.block(pair.n1, pair.n2);
        for stream in [&mut pair.client, &mut pair.server] {
            let kind = stream.read(&mut [0]).await.unwrap_err().kind();
            assert_eq!(kind, ErrorKind::ConnectionReset);
        }
    });
}

#[test]
fn clog_ends_in_a_burst() {
    with_pair(1, calm(), async |mut pair| {
        pair.world.clog(pair.n2, pair.n1);
        for _ in 0..10 {
            pair.client.write_all(b"x").await.unwrap();
            assert!(is_silent(&pair.env1, &mut pair.server, 10 * MS).await);
        }
        pair.world.unclog(pair.n2, pair.n1);
        let mut buffer = [0; 100];
        pair.world.sleep(MS).await;
        assert_eq!(pair.server.read(&mut buffer).await.unwrap(), 10, "all at once");
        assert!(observed(&pair.world, "N5") > 0);
    });
}

#[test]
fn swizzle_clogs_and_unclogs_within_its_time() {
    with_pair(3, calm(), async |mut pair| {
        let hosts = pair.world.hosts();
        let start = pair.world.now();
        pair.world.swizzle(&hosts, 1_000 * MS).await;
        assert!(pair.world.now().saturating_sub(start) >= 1_000 * MS);
        let (injected, _) = pair.world.fault_counts()["N5"];
        assert!(injected > 0, "the seed clogs nothing");
        assert!(transfer(&mut pair).await < MS, "something is still clogged");
    });
}

#[test]
fn reset_reaches_the_ends_that_it_is_for() {
    with_pair(1, calm(), async |mut pair| {
        assert_eq!(pair.world.reset_connections(pair.n1, pair.n2, Reset::First), 1);
        let kind = pair.server.read(&mut [0]).await.unwrap_err().kind();
        assert_eq!(kind, ErrorKind::ConnectionReset);
        // The other end hears nothing, until it says something.
        assert!(is_silent(&pair.env2, &mut pair.client, 1_000 * MS).await);
        pair.client.write_all(b"x").await.unwrap();
        let kind = pair.client.read(&mut [0]).await.unwrap_err().kind();
        assert_eq!(kind, ErrorKind::ConnectionReset);
        assert_eq!(observed(&pair.world, "N7"), 1);
    });
}

#[test]
fn reset_that_reaches_nobody_is_none() {
    with_pair(1, calm(), async |pair| {
        drop(pair.client);
        assert_eq!(pair.world.reset_connections(pair.n2, pair.n1, Reset::First), 0);
        assert_eq!(pair.world.fault_counts()["N7"], (1, 0), "n2 has closed its end");
        assert_eq!(pair.world.reset_connections(pair.n2, pair.n1, Reset::Both), 1);
        assert_eq!(pair.world.reset_connections(pair.n2, pair.n1, Reset::Both), 0);
        assert_eq!(pair.world.fault_counts()["N7"], (3, 1), "n1 knows it already");
    });
}

#[test]
fn clog_is_told_apart_from_others_by_what_it_holds() {
    with_pair(1, calm(), async |mut pair| {
        let (world, n1, n2) = (&pair.world, pair.n1, pair.n2);
        assert!(!world.has_piled_up(n2, n1), "nothing is clogged");
        world.clog(n2, n1);
        world.clog(n1, n2);
        assert!(!world.has_piled_up(n2, n1), "nothing was sent");
        pair.client.write_all(b"x").await.unwrap();
        assert!(world.has_piled_up(n2, n1));
        assert!(!world.has_piled_up(n1, n2), "nobody has answered");
        world.unclog(n2, n1);
        assert!(!world.has_piled_up(n2, n1), "it is over");
    });
}

#[test]
fn random_resets_break_connections() {
    let link = LinkOptions { reset: 0.05, ..calm() };
    with_pair(1, link, async |mut pair| {
        let write = async {
            loop {
                if let Err(error) = pair.client.write_all(b"x").await {
                    return error.kind();
                }
                pair.world.sleep(MS).await;
            }
        };
        assert_eq!(write.await, ErrorKind::ConnectionReset);
        assert!(observed(&pair.world, "N7") > 0);
    });
}

#[test]
fn half_close_ends_one_direction() {
    with_pair(1, calm(), async |mut pair| {
        assert_eq!(pair.world.half_close(pair.n2, pair.n1), 1);
        assert_eq!(pair.server.read(&mut [0]).await.unwrap(), 0);
        pair.server.write_all(b"x").await.unwrap();
        pair.client.read_exact(&mut [0]).await.unwrap();
        let kind = pair.client.write_all(b"x").await.unwrap_err().kind();
        assert_eq!(kind, ErrorKind::BrokenPipe);
    });
}

#[test]
fn crashed_process_ends_its_connections() {
    with_pair(1, calm(), async |mut pair| {
        pair.world.crash(pair.n1);
        assert_eq!(pair.client.read(&mut [0]).await.unwrap(), 0);
        let kind = pair.env2.net().connect("n1:7000").await.err().unwrap().kind();
        assert_eq!(kind, ErrorKind::ConnectionRefused);
    });
}

#[test]
fn crashed_process_with_unread_bytes_resets() {
    with_pair(1, calm(), async |mut pair| {
        pair.client.write_all(b"never read").await.unwrap();
        pair.world.sleep(5 * MS).await;
        pair.world.crash(pair.n1);
        let kind = pair.client.read(&mut [0]).await.unwrap_err().kind();
        assert_eq!(kind, ErrorKind::ConnectionReset);
    });
}

#[test]
fn crash_behind_a_partition_is_heard_after_it() {
    with_pair(1, calm(), async |mut pair| {
        pair.world.partition(&[pair.n1], &[pair.n2]);
        pair.world.crash(pair.n1);
        assert!(is_silent(&pair.env2, &mut pair.client, 5_000 * MS).await);
        pair.world.heal_all();
        assert_eq!(pair.client.read(&mut [0]).await.unwrap(), 0);
    });
}

#[test]
fn machine_without_power_is_a_black_hole() {
    with_pair(1, calm(), async |mut pair| {
        pair.world.power_off(pair.n1, PowerLoss::Strict);
        assert!(is_silent(&pair.env2, &mut pair.client, 1_000 * MS).await);
        let mut taken = 0;
        while let Some(written) =
            timeout(&pair.env2, 100 * MS, pair.client.write(&[0; 1 << 12])).await
        {
            taken += written.unwrap();
        }
        assert_eq!(taken, 1 << 16, "writes succeed until the buffer is full");
        let connect = pair.env2.net().connect("n1:7000");
        assert!(timeout(&pair.env2, 5_000 * MS, connect).await.is_none());
        // Once it is up again, what was sent to it is answered.
        start(&pair.world, pair.n1).await;
        let kind = pair.client.read(&mut [0]).await.unwrap_err().kind();
        assert_eq!(kind, ErrorKind::ConnectionReset);
    });
}

#[test]
fn survivor_of_a_power_loss_is_reset_when_it_speaks() {
    with_pair(1, calm(), async |mut pair| {
        pair.world.power_off(pair.n1, PowerLoss::Strict);
        start(&pair.world, pair.n1).await;
        assert!(is_silent(&pair.env2, &mut pair.client, 10_000 * MS).await);
        pair.client.write_all(b"anybody there?").await.unwrap();
        let kind = pair.client.read(&mut [0]).await.unwrap_err().kind();
        assert_eq!(kind, ErrorKind::ConnectionReset);
    });
}

#[test]
fn connecting_to_a_machine_hangs_until_it_has_power() {
    with_pair(1, calm(), async |pair| {
        pair.world.power_off(pair.n1, PowerLoss::Strict);
        let boot = async {
            pair.world.sleep(1_000 * MS).await;
            start(&pair.world, pair.n1).await;
        };
        let connect = pair.env2.net().connect("n1:7000");
        let (connected, ()) = futures_util::future::join(connect, boot).await;
        assert_eq!(connected.err().unwrap().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn flipped_bits_arrive() {
    let link = LinkOptions { bit_flip: 1.0, ..calm() };
    with_pair(1, link, async |mut pair| {
        pair.client.write_all(&[0; 100]).await.unwrap();
        let mut read = [0; 100];
        pair.server.read_exact(&mut read).await.unwrap();
        let flipped: u32 = read.iter().map(|byte| byte.count_ones()).sum();
        assert!((1..=3).contains(&flipped), "{flipped} bits flipped");
        assert_eq!(observed(&pair.world, "N8"), 1);
    });
}

#[test]
fn client_links_have_their_own_faults() {
    let clients = LinkOptions { loss: 1.0, ..calm() };
    let net = NetOptions { servers: calm(), clients, ..NetOptions::default() };
    let options = WorldOptions { net, ..WorldOptions::default() };
    let result = run_seed(1, options, |world| async move {
        let (n1, c1) = (world.add_server("n1"), world.add_client("c1"));
        let (env1, client) = (start(&world, n1).await, start(&world, c1).await);
        let begin = world.now();
        drop(connect(&env1, &env1, 7000).await);
        assert!(world.now().saturating_sub(begin) < MS);
        drop(connect(&env1, &client, 7001).await);
        assert!(world.now().saturating_sub(begin) > 200 * MS);
        world.fault_counts()["N10"].0
    });
    assert!(result.unwrap() > 0);
}

#[test]
fn shapes_of_partitions_cut_what_they_say() {
    let result = run_seed(1, WorldOptions::default(), |world| async move {
        let hosts: Vec<Host> = (1..=5).map(|n| world.add_server(&format!("n{n}"))).collect();
        for host in &hosts {
            world.start(*host, |_| std::future::pending()).await;
        }
        let env = world.env(hosts[0]).unwrap();
        let mut reached = Vec::new();
        let shapes: [&dyn Fn(); 3] = [
            &|| world.isolate(hosts[0]),
            &|| world.bridge(&hosts[..2], hosts[2], &hosts[3..]),
            &|| world.ring(&hosts),
        ];
        for shape in shapes {
            shape();
            let mut seen = Vec::new();
            for n in 2..=5 {
                let address = format!("n{n}:1");
                let connect = env.net().connect(&address);
                // A refusal is an answer.
                if timeout(&env, 500 * MS, connect).await.is_some() {
                    seen.push(n);
                }
            }
            reached.push(seen);
            world.heal_all();
        }
        reached
    });
    assert_eq!(result.unwrap(), [vec![], vec![2, 3], vec![2, 5]]);
}

#[test]
fn machine_is_never_cut_off_from_itself() {
    with_pair(1, calm(), async |pair| {
        pair.world.block(pair.n1, pair.n1);
        pair.world.clog(pair.n1, pair.n1);
        let connected = timeout(&pair.env1, 10 * MS, connect(&pair.env1, &pair.env1, 9000)).await;
        assert!(connected.is_some(), "connecting to itself hangs");
        assert_eq!(pair.world.fault_counts()["N4"], (0, 0));
    });
}
