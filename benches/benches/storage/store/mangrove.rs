//! The table store of Mangrove, driven as the node drives it: on one thread, by two tasks.
//!
//! The loop writes to the [`Tree`] and gives the other task a turn after each batch; the
//! [`Keeper`] flushes and compacts in steps, each of which ends with a turn for the loop. Only
//! syncs run on threads of their own, as everywhere in the real world. The write-ahead log is no
//! part of this: without it, what was not flushed is lost with the process.

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;

use mangrove::codec::keycode;
use mangrove::env::Env;
use mangrove::env::real::{RealDisk, RealEnv};
use mangrove::storage::tree::{self, Frozen, Keeper, Tree, TreeOptions, Version};
use mangrove::storage::{Change, Engine, SnapshotPoint};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{
    UnboundedReceiver, UnboundedSender, error::TryRecvError, unbounded_channel,
};

use super::{Candidate, Key, MEMTABLE_BYTES, Put, VALUE_BYTES};

/// What the loop asks the other task for.
enum Order {
    Flush(Frozen),
    /// Report when nothing is left to do.
    Settle,
}

/// What the other task reports.
enum News {
    Version(Arc<Version<RealDisk>>),
    /// Nothing is left to do.
    Settled,
}

/// A tree, and the task that writes its files.
pub(crate) struct Mangrove {
    runtime: Runtime,
    side: LoopSide,
}

/// What the loop holds.
struct LoopSide {
    tree: Tree<RealDisk>,
    orders: UnboundedSender<Order>,
    news: UnboundedReceiver<News>,
    applied: SnapshotPoint,
}

impl LoopSide {
    async fn write(&mut self, changes: &[Change<'_>]) {
        while self.tree.is_stalled() {
            self.adopt_next().await;
        }
        self.applied.index += 1;
        self.tree.write(self.applied, changes);
        if self.tree.is_flush_due() && !self.tree.is_stalled() {
            self.freeze();
        }
        let_others_run().await;
        while let Ok(News::Version(version)) = self.news.try_recv() {
            self.tree.adopt(version);
        }
    }

    fn freeze(&mut self) {
        let frozen = self.tree.freeze(Vec::new());
        self.order(Order::Flush(frozen));
    }

    fn order(&self, order: Order) {
        assert!(self.orders.send(order).is_ok(), "the keeper's task goes on");
    }

    /// Adopts the next version, waiting for it; tells whether there was one.
    async fn adopt_next(&mut self) -> bool {
        match self.news.recv().await.expect("the keeper's task goes on") {
            News::Version(version) => {
                self.tree.adopt(version);
                true
            }
            News::Settled => false,
        }
    }

    async fn settle(&mut self) {
        while self.tree.is_stalled() {
            self.adopt_next().await;
        }
        self.freeze();
        // Once for the work, and once for the files that the tree let go with the last version.
        for _ in 0..2 {
            self.order(Order::Settle);
            while self.adopt_next().await {}
        }
    }
}

impl Candidate for Mangrove {
    fn open(directory: &Path, cache_bytes: u64) -> Self {
        // One turn of the other task between two turns of the loop, neither more nor less.
        let runtime = Builder::new_current_thread().event_interval(1).build().expect("a runtime");
        let disk = RealEnv::open(directory).expect("a directory").disk().clone();
        let options =
            TreeOptions { memtable_bytes: MEMTABLE_BYTES, cache_bytes, ..TreeOptions::default() };
        let opened = runtime.block_on(tree::open(disk, "cells", options));
        let (tree, keeper, recovery) = opened.expect("a disk that works");
        assert!(recovery.damage.is_none(), "{recovery:?}");
        let (orders, orders_in) = unbounded_channel();
        let (news_out, news) = unbounded_channel();
        drop(runtime.spawn(keep(keeper, orders_in, news_out)));
        let applied = recovery.applied;
        Self { runtime, side: LoopSide { tree, orders, news, applied } }
    }

    fn write(&mut self, puts: &[Put<'_>]) {
        let places: Vec<Vec<u8>> =
            puts.iter().map(|(key, _)| keycode::encode_cell(key, &[])).collect();
        let changes: Vec<Change<'_>> = places
            .iter()
            .zip(puts)
            .map(|(place, (_, value))| Change::Set { place, value })
            .collect();
        self.runtime.block_on(self.side.write(&changes));
    }

    fn settle(&mut self) {
        self.runtime.block_on(self.side.settle());
    }

    fn count_found(&self, keys: impl Iterator<Item = Key>) -> u64 {
        let mut found = 0;
        for key in keys {
            let place = keycode::encode_cell(&key, &[]);
            let stored = self.side.tree.get(&place).expect("files that are whole");
            found += u64::from(stored.is_some_and(|stored| stored.value.len() == VALUE_BYTES));
        }
        found
    }

    fn scan(&self) -> (u64, u64) {
        let (mut cells, mut bytes) = (0, 0);
        let mut visit = |_: &[u8], value: &[u8], _: u64| {
            cells += 1;
            bytes += u64::try_from(value.len()).unwrap_or(u64::MAX);
            ControlFlow::Continue(())
        };
        self.side.tree.scan(&[], None, &mut visit).expect("files that are whole");
        (cells, bytes)
    }

    fn describe(&self) -> String {
        let shown = |(bytes, tables): &(u64, usize)| format!("{} MB in {tables}", bytes >> 20);
        let sizes = self.side.tree.pin().level_sizes();
        sizes.iter().map(shown).collect::<Vec<_>>().join(", ")
    }
}

/// The task that writes files: what is to be flushed comes first, then the next compaction step.
async fn keep(
    mut keeper: Keeper<RealDisk>,
    mut orders: UnboundedReceiver<Order>,
    news: UnboundedSender<News>,
) {
    let mut is_asked = false;
    loop {
        let is_idle = !keeper.needs_compaction();
        let order = match orders.try_recv() {
            Ok(order) => Some(order),
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) if is_idle && is_asked => {
                keeper.collect().await;
                is_asked = false;
                if news.send(News::Settled).is_err() {
                    return;
                }
                continue;
            }
            Err(TryRecvError::Empty) if is_idle => orders.recv().await,
            Err(TryRecvError::Empty) => None,
        };
        let version = match order {
            Some(Order::Flush(frozen)) => Some(keeper.flush(&frozen).await.expect("space")),
            Some(Order::Settle) => {
                is_asked = true;
                None
            }
            None => keeper.compact_step().await.expect("space"),
        };
        if let Some(version) = version {
            if news.send(News::Version(version)).is_err() {
                return;
            }
            keeper.collect().await;
        }
        let_others_run().await;
    }
}

/// Gives the other task a turn.
async fn let_others_run() {
    let mut is_asked = false;
    poll_fn(|context| {
        if is_asked {
            return Poll::Ready(());
        }
        is_asked = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
