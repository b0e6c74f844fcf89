//! Nodes that are killed, stopped, paused and started again keep what they acknowledged.

use std::fs;
use std::time::Duration;

use mangrove::base::{Column, Key};
use mangrove::kv::{Query, QueryReply};
use mangrove::wire::{RequestBody, ResponseBody};
use real_tests::{Load, RealCluster, Signal, Stranger, block_on, eventually};

/// Longest time for a load to get some more writes through.
const LIMIT: Duration = Duration::from_secs(30);

/// Waits until the load has had `count` more writes acknowledged.
async fn acknowledge(load: &Load, count: usize) {
    let wanted = load.acknowledged_count() + count;
    let what = format!("{count} more writes are acknowledged");
    let enough = async || (load.acknowledged_count() >= wanted).then_some(());
    eventually(LIMIT, &what, enough).await;
}

#[test]
fn promises_that_are_broken_are_noticed() {
    block_on(async {
        let cluster = RealCluster::start(1).await;
        let client = cluster.client();
        for break_promise in ["lose", "change", "invent"] {
            let load = Load::start(&client, 1);
            acknowledge(&load, 3).await;
            let promises = load.stop().await;
            promises.check(&client).await;
            let key = promises.acknowledged().next().unwrap().to_owned();
            match break_promise {
                "lose" => client.delete(key).await.unwrap(),
                "change" => client.set(key, "another value").await.unwrap(),
                _ => client.set(format!("{key}0"), format!("value of {key}0")).await.unwrap(),
            };
            let client = client.clone();
            let check = tokio::spawn(async move { promises.check(&client).await });
            assert!(check.await.is_err_and(|error| error.is_panic()), "{break_promise}");
        }
    });
}

#[test]
fn leader_killed_loses_nothing_and_catches_up_when_back() {
    block_on(async {
        let mut cluster = RealCluster::start(3).await;
        let client = cluster.client();
        let load = Load::start(&client, 4);
        acknowledge(&load, 100).await;
        let old = cluster.wait_for_leader().await;
        cluster.kill(old);
        acknowledge(&load, 100).await;
        let new = cluster.wait_for_leader().await;
        assert_ne!(new, old, "a dead node does not lead");
        cluster.start_node(old);
        let promises = load.stop().await;
        promises.check(&client).await;
        cluster.wait_until_caught_up().await;
        cluster.wait_for_role(old, "follower").await;
    });
}

#[test]
fn node_whose_disk_is_exchanged_takes_part_once_all_others_have_answered() {
    block_on(async {
        let mut cluster = RealCluster::start(3).await;
        let client = cluster.client();
        let load = Load::start(&client, 4);
        acknowledge(&load, 100).await;
        let leader = cluster.wait_for_leader().await;
        let promises = load.stop().await;
        let followers: Vec<usize> = cluster.numbers().filter(|node| *node != leader).collect();
        let [loser, other] = followers[..] else { panic!("{followers:?}") };
        cluster.kill(loser);
        cluster.kill(other);
        fs::remove_dir_all(cluster.data(loser)).unwrap();
        cluster.start_node(loser);
        cluster.wait_for_role(loser, "new").await;
        cluster.start_node(other);
        cluster.wait_for_role(loser, "follower").await;
        cluster.wait_until_caught_up().await;
        promises.check(&client).await;
    });
}

#[test]
fn follower_killed_does_not_stop_writes_and_catches_up_when_back() {
    block_on(async {
        let mut cluster = RealCluster::start(3).await;
        let client = cluster.client();
        let leader = cluster.wait_for_leader().await;
        let follower = cluster.numbers().find(|node| *node != leader).unwrap();
        cluster.kill(follower);
        let load = Load::start(&client, 4);
        acknowledge(&load, 200).await;
        let promises = load.stop().await;
        cluster.start_node(follower);
        cluster.wait_until_caught_up().await;
        promises.check(&client).await;
    });
}

#[test]
fn all_nodes_killed_at_once_keep_every_acknowledged_write() {
    block_on(async {
        let mut cluster = RealCluster::start(3).await;
        let client = cluster.client();
        for _ in 0..3 {
            let load = Load::start(&client, 8);
            acknowledge(&load, 200).await;
            for node in cluster.numbers() {
                cluster.kill(node);
            }
            for node in cluster.numbers() {
                cluster.start_node(node);
            }
            let promises = load.stop().await;
            promises.check(&client).await;
        }
    });
}

#[test]
fn nodes_killed_one_after_the_other_under_load_keep_every_acknowledged_write() {
    block_on(async {
        let mut cluster = RealCluster::start(3).await;
        let client = cluster.client();
        let load = Load::start(&client, 4);
        for round in 0..6 {
            acknowledge(&load, 50).await;
            let victim = round % 3 + 1;
            cluster.kill(victim);
            acknowledge(&load, 50).await;
            cluster.start_node(victim);
            cluster.wait_until_caught_up().await;
        }
        let promises = load.stop().await;
        promises.check(&client).await;
    });
}

#[test]
fn nodes_asked_to_stop_end_with_success_and_keep_their_data() {
    block_on(async {
        let mut cluster = RealCluster::start(3).await;
        let client = cluster.client();
        let load = Load::start(&client, 2);
        acknowledge(&load, 50).await;
        let promises = load.stop().await;
        for node in cluster.numbers() {
            let status = cluster.stop(node).await;
            assert!(status.success(), "node {node} ended with {status}");
        }
        for node in cluster.numbers() {
            cluster.start_node(node);
        }
        promises.check(&client).await;
    });
}

#[test]
fn leader_paused_is_replaced_and_never_answers_from_the_past() {
    block_on(async {
        let mut cluster = RealCluster::start(3).await;
        let client = cluster.client();
        client.set("k", "old").await.unwrap();
        let old = cluster.wait_for_leader().await;
        let others: Vec<usize> = cluster.numbers().filter(|node| *node != old).collect();
        cluster.signal(old, Signal::Pause);
        cluster.wait_for_leader_among(&others).await;
        client.set("k", "new").await.unwrap();
        cluster.signal(old, Signal::Resume);

        // It believes to lead until it hears otherwise; what it says meanwhile must not be old.
        let query = Query::Get { key: Key::new("k").unwrap(), column: Column::default() };
        let answer = Stranger::ask(cluster.address(old), RequestBody::Query(query)).await;
        if let Some(ResponseBody::Query(reply)) = answer {
            let QueryReply::Cell(Some(cell)) = reply else { unreachable!("{reply:?}") };
            assert_eq!(cell.value.as_bytes(), b"new", "a stale read");
        }
        cluster.wait_until_caught_up().await;
        cluster.wait_for_role(old, "follower").await;
    });
}
