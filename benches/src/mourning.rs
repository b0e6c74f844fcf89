//! What the death of a node costs the clients that asked it, and those that did not.

use std::time::{Duration, Instant};

use bytes::Bytes;
use mangrove::base::Rng;
use mangrove::client::{Level, connect};

use crate::load::{self, Kind};

/// Clients: enough for those of one node to be many.
const CLIENTS: usize = 48;
/// How long they ask before the death, and after it.
const BEFORE: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(4);

/// What the clients ask, at quorum.
#[derive(Debug, Clone, Copy)]
pub struct Mourning {
    /// What is asked.
    pub kind: Kind,
    /// Keys are drawn uniformly from so many.
    pub key_count: u64,
    /// Bytes of a value.
    pub value_bytes: usize,
}

/// The longest time of each client from one answer to the next.
#[derive(Debug, Default)]
pub struct Gaps {
    /// Of those whose node died.
    pub widowed: Vec<Duration>,
    /// Of those who asked another node.
    pub others: Vec<Duration>,
    /// Clients of which a request failed.
    pub failed_count: usize,
}

/// Lets clients ask, each begins with another node in turn, and has the first node killed.
pub async fn measure(addresses: &[String], mourning: Mourning, kill: impl FnOnce()) -> Gaps {
    let end = Instant::now() + BEFORE + AFTER;
    let begin = |number: usize| {
        let first = number % addresses_count(addresses);
        let mut addresses = addresses.to_vec();
        addresses.rotate_left(first);
        tokio::spawn(ask_until(addresses, mourning, number, end))
    };
    let clients: Vec<_> = (0..CLIENTS).map(begin).collect();
    tokio::time::sleep(BEFORE).await;
    kill();
    let mut gaps = Gaps::default();
    for (number, client) in clients.into_iter().enumerate() {
        let (gap, has_failed) = client.await.expect("a client does not panic");
        let is_widowed = number % addresses_count(addresses) == 0;
        let of = if is_widowed { &mut gaps.widowed } else { &mut gaps.others };
        of.push(gap);
        gaps.failed_count += usize::from(has_failed);
    }
    gaps
}

fn addresses_count(addresses: &[String]) -> usize {
    addresses.len().max(1)
}

/// Asks until `end`; returns the longest time without an answer, and whether a request failed.
async fn ask_until(
    addresses: Vec<String>,
    mourning: Mourning,
    number: usize,
    end: Instant,
) -> (Duration, bool) {
    let client = connect(addresses).with_level(Level::Quorum);
    let value = Bytes::from(vec![b'x'; mourning.value_bytes]);
    let mut rng = Rng::new(5).split(&format!("mourner.{number}"));
    let (mut gap, mut has_failed) = (Duration::ZERO, false);
    let mut answered = Instant::now();
    while Instant::now() < end {
        let key = load::key(rng.range(0, mourning.key_count));
        if load::ask(&client, mourning.kind, key, &value).await {
            gap = gap.max(answered.elapsed());
            answered = Instant::now();
        } else {
            has_failed = true;
        }
    }
    (gap.max(answered.elapsed()), has_failed)
}
