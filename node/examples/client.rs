//! A walk through the client library.
//!
//! Start a cluster in one terminal with `cargo cluster`, then in another:
//! `cargo run -p mangrove --example client`.

use std::error::Error;
use std::io::Write;

use mangrove::base::Value;
use mangrove::client::{self, BatchBuilder, CasResult, Client, KeyRange};
use mangrove::env::Env;
use mangrove::kv::Expectation;

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Some nodes of the cluster are enough: they tell where the leader is.
        let client = client::connect(["127.0.0.1:7101", "127.0.0.1:7102", "127.0.0.1:7103"]);
        plain_values(&client).await?;
        rows(&client).await?;
        transfer(&client).await
    })
}

/// Keys and values.
async fn plain_values<E: Env>(client: &Client<E>) -> Result<(), Box<dyn Error>> {
    let version = client.set("greeting", "hello").await?;
    let cell = client.get("greeting").await?.ok_or("just written")?;
    assert_eq!(cell.version, version, "nobody else writes this key");
    say(&format!("greeting = {:?}, written at {}", cell.value, version.0))?;
    client.delete("greeting").await?;
    Ok(())
}

/// A key may have many columns, and they are read together.
async fn rows<E: Env>(client: &Client<E>) -> Result<(), Box<dyn Error>> {
    let batch = BatchBuilder::new()
        .set_cell("person/1", "name", "Ada")
        .set_cell("person/1", "town", "London")
        .set_cell("person/2", "name", "Grace");
    // All of it, or nothing of it.
    client.bulk_set(batch.build()?).await?;
    for (column, cell) in client.row("person/1").await? {
        say(&format!("person/1 {column:?} = {:?}", cell.value))?;
    }
    let mut pages = client.keys(KeyRange::prefix("person/")?);
    while let Some(keys) = pages.next_page().await? {
        say(&format!("people: {keys:?}"))?;
    }
    Ok(())
}

/// Takes one of two coins, whatever others do meanwhile: read, then write if nothing changed.
async fn transfer<E: Env>(client: &Client<E>) -> Result<(), Box<dyn Error>> {
    client.set("coins", "2").await?;
    loop {
        let cell = client.get("coins").await?.ok_or("just written")?;
        let coins: u32 = std::str::from_utf8(cell.value.as_bytes())?.parse()?;
        let left = Value::new(coins.saturating_sub(1).to_string())?;
        let unchanged = Expectation::Version(cell.version);
        match client.compare_and_set("coins", "", unchanged, Some(left)).await? {
            CasResult::Applied(_) => return Ok(say("took a coin")?),
            CasResult::Conflict { current, .. } => say(&format!("meanwhile {current:?}: again"))?,
        }
    }
}

fn say(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}
