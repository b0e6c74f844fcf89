//! How long a write takes that is begun when the leader has just been killed.

use std::time::Instant;

use real_tests::{Load, RealCluster, block_on};

/// How often the leader is killed.
const ROUNDS: usize = 20;

#[test]
#[expect(clippy::print_stdout, reason = "the figures are for people: --nocapture shows them")]
fn leader_killed_under_load_is_replaced_every_time() {
    block_on(async {
        let mut cluster = RealCluster::start(3).await;
        let client = cluster.client();
        let load = Load::start(&client, 4);
        let mut gaps = Vec::new();
        for round in 0..ROUNDS {
            let leader = cluster.wait_for_leader().await;
            cluster.kill(leader);
            let killed = Instant::now();
            client.set("failover", round.to_string()).await.unwrap();
            gaps.push(killed.elapsed());
            cluster.start_node(leader);
            cluster.wait_until_caught_up().await;
        }
        load.stop().await.check(&client).await;
        gaps.sort();
        let at =
            |percent: usize| gaps.get((ROUNDS - 1) * percent / 100).copied().unwrap_or_default();
        println!(
            "{ROUNDS} failovers under load: shortest {:?}, median {:?}, 90 % {:?}, longest {:?}",
            at(0),
            at(50),
            at(90),
            at(100),
        );
    });
}
