//! The golden data directory: what a version of the program wrote, kept so that later ones read it.
//!
//! It is written once, by `sim golden DIRECTORY`, and committed below `tests/fixtures`; a test
//! starts a node on a copy and reads everything. When a format changes, the old directory stays
//! and a new one is added beside it.

use std::collections::BTreeMap;
use std::path::Path;

use mangrove::base::{ClusterId, NodeId};
use mangrove::client::{Client, ClientError, ClientOptions};
use mangrove::env::{Disk, DiskError, Env, File};
use mangrove::replica::NodeConfig;
use mangrove::server;
use mangrove::storage::table::{Compression, TableOptions};
use mangrove::storage::tree::TreeOptions;

use crate::world::{Host, PowerLoss, SimEnv, World, WorldOptions, run_seed};

/// Files by path within the node's directory.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Cells by key and column.
pub type Cells = BTreeMap<(String, String), String>;

const CLUSTER: ClusterId = ClusterId(0x676f_6c64);
const ADDRESS: &str = "n1:7000";
const DIRECTORIES: [&str; 4] = ["", "wal", "tables", "snapshot"];
/// Keys that are written to.
const KEY_COUNT: u64 = 24;
/// Writes in all.
const WRITE_COUNT: u64 = 140;

/// One write of the golden directory.
#[derive(Debug, Clone)]
pub enum Write {
    /// Sets a cell: key, column, value.
    Set(String, String, String),
    /// Deletes a cell.
    Delete(String, String),
    /// Deletes a row.
    DeleteRow(String),
}

/// Returns every key that is written to.
pub fn keys() -> Vec<String> {
    (0..KEY_COUNT).map(key).collect()
}

fn key(number: u64) -> String {
    // A zero byte in a key is escaped in places: some have one.
    let number = number % KEY_COUNT;
    if number.is_multiple_of(5) { format!("row\0{number}") } else { format!("row-{number}") }
}

/// Returns the writes, in order.
pub fn writes() -> Vec<Write> {
    let write = |number: u64| {
        let (key, column) = (key(number * 7), ["", "a", "long column"][index(number, 3)]);
        match number % 12 {
            10 => Write::Delete(key, column.to_owned()),
            11 => Write::DeleteRow(key),
            _ => {
                let len = [3, 10, 40, 900][index(number, 4)];
                let value = format!("value {number}").repeat(len / 3);
                Write::Set(key, column.to_owned(), value)
            }
        }
    };
    (0..WRITE_COUNT).map(write).collect()
}

fn index(number: u64, count: u64) -> usize {
    usize::try_from(number % count).unwrap_or(0)
}

/// Returns the cells that the writes leave.
pub fn cells() -> Cells {
    let mut cells = Cells::new();
    for write in writes() {
        match write {
            Write::Set(key, column, value) => {
                cells.insert((key, column), value);
            }
            Write::Delete(key, column) => {
                cells.remove(&(key, column));
            }
            Write::DeleteRow(row) => cells.retain(|(key, _), _| *key != row),
        }
    }
    cells
}

/// Makes all writes on a node with an empty directory; returns the directory after a power loss.
///
/// # Errors
/// What went wrong.
pub fn make() -> Result<Files, String> {
    let filled = with_node(Files::new(), async |client| {
        for write in writes() {
            match write {
                Write::Set(key, column, value) => client.set_cell(key, column, value).await?,
                Write::Delete(key, column) => client.delete_cell(key, column).await?,
                Write::DeleteRow(key) => client.delete_row(key).await?,
            };
        }
        Ok(())
    });
    filled.map(|((), files)| files)
}

/// Starts a node on these files and reads every row; then writes and reads once more.
///
/// # Errors
/// What went wrong.
pub fn read(files: Files) -> Result<Cells, String> {
    let read = with_node(files, async |client| {
        let mut cells = Cells::new();
        for key in keys() {
            for (column, cell) in client.row(key.clone()).await? {
                let column = String::from_utf8_lossy(column.as_bytes()).into_owned();
                let value = String::from_utf8_lossy(cell.value.as_bytes()).into_owned();
                cells.insert((key.clone(), column), value);
            }
        }
        client.set("one more", "value").await?;
        client.get("one more").await?;
        Ok(cells)
    });
    read.map(|(cells, _)| cells)
}

/// Writes files below a real directory.
///
/// # Errors
/// The system refuses.
pub fn save(files: &Files, directory: &Path) -> std::io::Result<()> {
    for (path, bytes) in files {
        let path = directory.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, bytes)?;
    }
    Ok(())
}

/// Reads the files of a data directory below a real directory.
///
/// # Errors
/// The system refuses.
pub fn load(directory: &Path) -> std::io::Result<Files> {
    let mut files = Files::new();
    for inside in DIRECTORIES {
        let Ok(entries) = std::fs::read_dir(directory.join(inside)) else { continue };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let path = if inside.is_empty() { name } else { format!("{inside}/{name}") };
                files.insert(path, std::fs::read(entry.path())?);
            }
        }
    }
    Ok(files)
}

fn config() -> NodeConfig {
    let members = vec![(NodeId(1), ADDRESS.to_owned())];
    NodeConfig {
        wal_segment_bytes: 4096,
        flush_log_bytes: 3000,
        log_entries_kept: 0,
        tree: TreeOptions {
            memtable_bytes: 2 << 10,
            table_bytes: 3 << 10,
            base_bytes: 4 << 10,
            level0_tables: 3,
            runs_max: 2,
            table: TableOptions { compression: Compression::Lz4, ..TableOptions::default() },
            ..TreeOptions::default()
        },
        ..NodeConfig::new(CLUSTER, NodeId(1), ADDRESS, members)
    }
}

/// Runs a node on these files, and a client; returns what came of it and the files afterwards.
fn with_node<T: Send + 'static>(
    files: Files,
    script: impl AsyncFnOnce(&Client<SimEnv>) -> Result<T, ClientError> + Send + 'static,
) -> Result<(T, Files), String> {
    let result = run_seed(1, WorldOptions::default(), move |world| async move {
        let host = world.add_server("n1");
        put(&world, host, files).await?;
        world
            .start(host, |env| async move {
                match server::start(env, config()).await {
                    Ok(node) => drop(node.stopped().await),
                    Err(error) => panic!("the node cannot start: {error}"),
                }
            })
            .await;
        let (clients, env) = client_machine(&world).await?;
        let client = Client::connect(env, vec![ADDRESS.to_owned()], ClientOptions::default());
        let answer = script(&client).await.map_err(|error| error.to_string())?;
        drop(client);
        world.power_off(host, PowerLoss::Strict);
        world.crash(clients);
        let files = take(&world.observer(host, world.durable_view(host)))
            .await
            .map_err(|error| error.to_string())?;
        Ok((answer, files))
    });
    result.map_err(|failure| failure.to_string())?
}

async fn client_machine(world: &World) -> Result<(Host, SimEnv), String> {
    let host = world.add_client("c1");
    world.start(host, |_| std::future::pending()).await;
    let env = world.env(host).ok_or("the client does not run")?;
    Ok((host, env))
}

/// Puts files on the disk of a machine, durably.
async fn put(world: &World, host: Host, files: Files) -> Result<(), String> {
    if files.is_empty() {
        // A new node wants an empty directory.
        return Ok(());
    }
    world.start(host, |_| std::future::pending()).await;
    let env = world.env(host).ok_or("the machine does not run")?;
    let disk = env.disk();
    let done = async {
        for directory in DIRECTORIES.iter().filter(|directory| !directory.is_empty()) {
            disk.create_dir(directory).await?;
        }
        for (path, bytes) in files {
            let file = disk.create(&path).await?;
            file.write_at(0, &bytes).await?;
            file.sync().await?;
        }
        for directory in DIRECTORIES {
            disk.sync_dir(directory).await?;
        }
        Ok::<(), DiskError>(())
    };
    done.await.map_err(|error| error.to_string())?;
    world.crash(host);
    world.sleep(std::time::Duration::from_millis(2)).await;
    Ok(())
}

/// Takes the files from a disk.
async fn take(env: &SimEnv) -> Result<Files, DiskError> {
    let mut files = Files::new();
    for directory in DIRECTORIES {
        for name in env.disk().list(directory).await? {
            let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
            if DIRECTORIES.contains(&path.as_str()) {
                continue;
            }
            let file = env.disk().open(&path).await?;
            let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(0)];
            file.read_at(0, &mut bytes)?;
            files.insert(path, bytes);
        }
    }
    Ok(files)
}
