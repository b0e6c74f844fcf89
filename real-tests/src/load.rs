//! Writers that remember what they were promised, and a check that the promises were kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mangrove::base::{Key, Value};
use mangrove::client::Client;
use mangrove::env::real::RealEnv;
use mangrove::wire::Outcome;
use tokio::task::JoinHandle;

/// Tasks that write new keys one after the other until they are stopped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    promises: Arc<Mutex<Promises>>,
    writers: Vec<JoinHandle<()>>,
}

/// What the cluster said about each write of a load.
#[derive(Debug, Default)]
pub struct Promises {
    /// What every key of the load begins with.
    prefix: String,
    acknowledged: BTreeSet<String>,
    not_applied: BTreeSet<String>,
    unknown: BTreeSet<String>,
}

impl Load {
    /// Starts `writers` tasks that write through clones of `client`, one write each at a time.
    pub fn start(client: &Client<RealEnv>, writers: usize) -> Self {
        static LOADS: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("load/{}/", LOADS.fetch_add(1, Ordering::Relaxed));
        let stop = Arc::<AtomicBool>::default();
        let promises = Promises { prefix: prefix.clone(), ..Promises::default() };
        let promises = Arc::new(Mutex::new(promises));
        let start_writer = |writer| {
            let keys = format!("{prefix}{writer}/");
            tokio::spawn(write_until(client.clone(), keys, stop.clone(), promises.clone()))
        };
        let writers = (0..writers).map(start_writer).collect();
        Self { stop, promises, writers }
    }

    /// Returns how many writes were acknowledged so far.
    pub fn acknowledged_count(&self) -> usize {
        lock(&self.promises).acknowledged.len()
    }

    /// Lets every writer end its last write, and returns what was promised.
    pub async fn stop(self) -> Promises {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.await.expect("a writer ends without panic");
        }
        std::mem::take(&mut *lock(&self.promises))
    }
}

impl Promises {
    /// Returns the keys of the acknowledged writes.
    pub fn acknowledged(&self) -> impl Iterator<Item = &str> {
        self.acknowledged.iter().map(String::as_str)
    }

    /// Reads everything back and demands that each promise was kept: what was acknowledged is
    /// there, what was reported as not applied is not, and nothing else but what is unknown.
    pub async fn check(&self, client: &Client<RealEnv>) {
        let found = read_all(client, &self.prefix).await;
        let lost: Vec<&String> =
            self.acknowledged.iter().filter(|key| !found.contains_key(*key)).collect();
        let (lost_count, count) = (lost.len(), self.acknowledged.len());
        assert!(lost.is_empty(), "{lost_count} of {count} acknowledged writes are lost: {lost:?}");
        for (key, value) in &found {
            assert_eq!(*value, value_of(key), "the value of {key}");
            assert!(!self.not_applied.contains(key), "{key} was reported as not applied");
            let is_ours = self.acknowledged.contains(key) || self.unknown.contains(key);
            assert!(is_ours, "nobody wrote {key}");
        }
    }
}

async fn write_until(
    client: Client<RealEnv>,
    keys: String,
    stop: Arc<AtomicBool>,
    promises: Arc<Mutex<Promises>>,
) {
    for number in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let key = format!("{keys}{number:08}");
        let written = client.set(key.clone(), value_of(&key)).await;
        let mut promises = lock(&promises);
        let said = match written.map_err(|error| error.outcome()) {
            Ok(_) => &mut promises.acknowledged,
            Err(Outcome::NotApplied) => &mut promises.not_applied,
            Err(Outcome::Unknown) => &mut promises.unknown,
        };
        said.insert(key);
    }
}

/// Returns everything whose key begins so.
async fn read_all(client: &Client<RealEnv>, prefix: &str) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut pages = client.scan(Key::new(prefix.to_owned()).expect("a short key"));
    let mut found = BTreeMap::new();
    while let Some(page) = pages.next_page().await.expect("the cluster serves") {
        for (key, _, cell) in page {
            found.insert(text(key.as_bytes()), text(Value::as_bytes(&cell.value)));
        }
    }
    found
}

/// Returns the one value that is ever written to `key`.
fn value_of(key: &str) -> String {
    format!("value of {key}")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
