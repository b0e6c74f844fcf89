//! Whatever comes in on the port, a node keeps serving the others.

use mangrove::base::limits::FRAME_BYTES_MAX;
use mangrove::base::{ClusterId, Column, Key, NodeId};
use mangrove::codec;
use mangrove::kv::Query;
use mangrove::replica::NodeConfig;
use mangrove::wire::{
    Hello, Identity, Mode, PROTOCOL_VERSION, Refusal, RequestBody, RequestError, Response,
    ResponseBody, Welcome,
};
use real_tests::{RealCluster, Received, Stranger, block_on};

/// Idle connections that a node must bear; its limit is 4,096.
const IDLE_COUNT: usize = 1_000;

/// Requests sent at once: far more than a connection may have under way.
const PIPELINED_COUNT: usize = 3_000;

/// Requests for a cell of 1 MiB, all of which may be under way.
const UNREAD_COUNT: usize = 1_000;

/// Connects to the first node.
async fn stranger(cluster: &RealCluster) -> Stranger {
    Stranger::connect(cluster.address(1)).await.expect("the node listens")
}

/// Connects to a node as a client does.
async fn greeted(cluster: &RealCluster, node: usize) -> Stranger {
    let mut stranger = Stranger::connect(cluster.address(node)).await.expect("the node listens");
    let answer = stranger.shake(&Stranger::hello()).await;
    assert!(matches!(answer, Received::Message(Welcome::Accepted { .. })), "{answer:?}");
    stranger
}

/// Demands that the cluster still takes a write and gives it back, and that node 1 still answers.
async fn assert_serves(cluster: &RealCluster, after: &str) {
    let client = cluster.client();
    client.set("still here", after.to_owned()).await.expect("the cluster takes writes");
    let cell = client.get("still here").await.expect("the cluster answers reads");
    let value = cell.expect("it was just written").value;
    assert_eq!(value.as_bytes(), after.as_bytes(), "after {after}");
    assert!(cluster.status(1).await.is_some(), "node 1 answers after {after}");
}

#[test]
fn bytes_that_are_no_frames_end_their_connection_only() {
    block_on(async {
        let cluster = RealCluster::start(3).await;
        let garbage: Vec<u8> =
            (0_u32..16_384).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
        let mut oversized = Vec::new();
        codec::encode_frame(&mut oversized, |body| {
            body.resize(body.len() + FRAME_BYTES_MAX + 1, 0);
        });
        oversized.truncate(4_096);
        let mut flipped = Vec::new();
        codec::encode_frame(&mut flipped, |body| codec::encode_into(&Stranger::hello(), body));
        *flipped.last_mut().unwrap() ^= 1;
        for (what, bytes) in [
            ("garbage", garbage),
            ("a frame over the limit", oversized),
            ("a frame with a flipped bit", flipped),
            ("another protocol", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ] {
            let mut stranger = stranger(&cluster).await;
            stranger.send_bytes(&bytes).await;
            let answer = stranger.receive::<Welcome>().await;
            assert_eq!(answer, Received::Closed, "{what}");
            assert_serves(&cluster, what).await;
        }
    });
}

/// Returns what nodes of three that remember so many sessions tell each other.
fn group(cluster: ClusterId, sessions_max: usize) -> Mode {
    let members = (1..=3).map(|node| (NodeId(node), String::new())).collect();
    let config = NodeConfig::new(cluster, NodeId(1), "", members);
    NodeConfig { sessions_max, ..config }.mode()
}

#[test]
fn greeting_that_does_not_fit_is_refused_with_its_reason() {
    block_on(async {
        let cluster = RealCluster::start(3).await;
        let ours = cluster.id();
        let theirs = ClusterId(ours.0 ^ 1);
        let peer_in = |mode, cluster, from, to| {
            let (from, to) = (NodeId(from), NodeId(to));
            Identity::Peer { cluster, from, to, mode }
        };
        let own = group(ours, 10_000);
        let peer = |cluster, from, to| peer_in(own, cluster, from, to);
        let masterless = Mode::Masterless { placement: 7 };
        let newer = Hello { version: PROTOCOL_VERSION + 1, ..Stranger::hello() };
        for (hello, refusal) in [
            (newer, Refusal::Version { ours: PROTOCOL_VERSION, theirs: PROTOCOL_VERSION + 1 }),
            (Stranger::hello_for(theirs), Refusal::Cluster { ours, theirs }),
            (Stranger::hello_as(peer(theirs, 2, 1)), Refusal::Cluster { ours, theirs }),
            (
                Stranger::hello_as(peer(ours, 2, 3)),
                Refusal::Node { ours: NodeId(1), wanted: NodeId(3) },
            ),
            (Stranger::hello_as(peer(ours, 9, 1)), Refusal::NotAMember { from: NodeId(9) }),
            (
                Stranger::hello_as(peer_in(masterless, ours, 2, 1)),
                Refusal::Mode { ours: own, theirs: masterless },
            ),
            (
                Stranger::hello_as(peer_in(group(ours, 10), ours, 2, 1)),
                Refusal::Mode { ours: own, theirs: group(ours, 10) },
            ),
        ] {
            let mut stranger = stranger(&cluster).await;
            let answer = stranger.shake(&hello).await;
            assert_eq!(answer, Received::Message(Welcome::Refused(refusal)), "{hello:?}");
            assert_eq!(stranger.receive::<Welcome>().await, Received::Closed, "{hello:?}");
        }
        assert_serves(&cluster, "refusals").await;
    });
}

#[test]
fn request_without_greeting_is_not_served() {
    block_on(async {
        let cluster = RealCluster::start(3).await;
        let mut stranger = stranger(&cluster).await;
        stranger.send(&Stranger::request(RequestBody::Status)).await;
        let answer = stranger.receive::<Welcome>().await;
        assert!(!matches!(answer, Received::Message(Welcome::Accepted { .. })), "{answer:?}");
        assert_serves(&cluster, "a request without greeting").await;
    });
}

#[test]
fn half_a_request_keeps_nobody_else_waiting() {
    block_on(async {
        let cluster = RealCluster::start(3).await;
        let mut stranger = greeted(&cluster, 1).await;
        let mut frame = Vec::new();
        let request = Stranger::request(RequestBody::Status);
        codec::encode_frame(&mut frame, |body| codec::encode_into(&request, body));
        let (first, second) = frame.split_at(frame.len() / 2);
        stranger.send_bytes(first).await;
        assert_serves(&cluster, "half a request").await;
        stranger.send_bytes(second).await;
        let answer = stranger.receive::<Response>().await;
        assert!(matches!(answer, Received::Message(_)), "the other half is taken: {answer:?}");
    });
}

#[test]
fn a_thousand_idle_connections_do_not_stop_a_node() {
    block_on(async {
        let cluster = RealCluster::start(3).await;
        let mut crowd = Vec::new();
        for number in 0..IDLE_COUNT {
            // Half of them do not even say who they are.
            let is_greeted = number % 2 == 0;
            crowd.push(if is_greeted {
                greeted(&cluster, 1).await
            } else {
                stranger(&cluster).await
            });
        }
        assert_serves(&cluster, "the crowd came").await;
        drop(crowd);
        assert_serves(&cluster, "the crowd left").await;
    });
}

#[test]
fn requests_beyond_what_may_be_under_way_are_answered_all_the_same() {
    block_on(async {
        let cluster = RealCluster::start(3).await;
        let mut stranger = greeted(&cluster, 1).await;
        let mut frames = Vec::new();
        for _ in 0..PIPELINED_COUNT {
            let request = Stranger::request(RequestBody::Status);
            codec::encode_frame(&mut frames, |body| codec::encode_into(&request, body));
        }
        stranger.send_bytes(&frames).await;
        for number in 0..PIPELINED_COUNT {
            let answer = stranger.receive::<Response>().await;
            assert!(matches!(answer, Received::Message(_)), "answer {number}: {answer:?}");
        }
        assert_serves(&cluster, "a crowd of requests").await;
    });
}

/// The accident: small requests for a large cell, whose answers nobody fetches, made gigabytes of
/// answers in the node.
#[test]
fn answers_that_nobody_fetches_do_not_fill_the_memory() {
    block_on(async {
        let mut cluster = RealCluster::start(3).await;
        let leader = cluster.wait_for_leader().await;
        cluster.client().set("large", vec![7; 1 << 20]).await.expect("a cell of 1 MiB");
        let mut stranger = greeted(&cluster, leader).await;
        let mut frames = Vec::new();
        for _ in 0..UNREAD_COUNT {
            let key = Key::new("large").expect("a key");
            let query = Query::Get { key, column: Column::default() };
            let request = Stranger::request(RequestBody::Query(query));
            codec::encode_frame(&mut frames, |body| codec::encode_into(&request, body));
        }
        stranger.send_bytes(&frames).await;
        assert_serves(&cluster, "a crowd of requests for a large cell").await;
        let (mut refused, mut answered) = (0, 0);
        for number in 0..UNREAD_COUNT {
            let answer = stranger.receive::<Response>().await;
            match answer {
                Received::Message(Response { body: ResponseBody::Query(_), .. }) => answered += 1,
                Received::Message(Response {
                    body: ResponseBody::Error(RequestError::Overloaded),
                    ..
                }) => refused += 1,
                other @ (Received::Message(_) | Received::Closed | Received::Silence) => {
                    panic!("answer {number}: {other:?}")
                }
            }
        }
        assert!(refused > UNREAD_COUNT / 2 && answered > 0, "{answered} and {refused}");
    });
}
