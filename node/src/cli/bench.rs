//! `mangrove bench`: a load on a running cluster, and what came out. The generator is
//! [`crate::trial::load`].

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::CliError;
use super::args::Format;
use super::client_commands::client_at;
use super::output::{Output, say};
use super::trial_args::BenchArgs;
use crate::client::Client;
use crate::env::real::RealEnv;
use crate::trial::load::{self, Load, Outcome, Series};

/// Percentiles that are shown.
const PERCENTILES: [(&str, f64); 6] = [
    ("p50", 50.0),
    ("p90", 90.0),
    ("p99", 99.0),
    ("p99.9", 99.9),
    ("p99.99", 99.99),
    ("max", 100.0),
];

/// `mangrove bench`
pub(super) async fn bench(args: BenchArgs) -> Result<(), CliError> {
    let load = Load {
        in_flight: usize::from(args.in_flight),
        read_share: args.reads,
        warm_up: args.warm_up,
        duration: args.duration,
        requests_max: args.requests,
        rate: args.rate.map(f64::from),
        ..args.load.load()
    };
    let clients: Vec<Client<RealEnv>> = (0..load.connections)
        .map(|number| {
            // Each asks another node first; one that does not lead says who does.
            let mut connection = args.connection.clone();
            let count = connection.cluster.len().max(1);
            connection.cluster.rotate_left(number % count);
            client_at(&connection, args.level)
        })
        .collect();
    // Says what is wrong before any load, and how the cluster replicates.
    let Some(first) = clients.first() else { return Ok(()) };
    let mode = first.mode().await?;
    if args.fill {
        fill(first, &load).await?;
    }
    let bar = progress();
    let total = load.warm_up + load.duration;
    let outcome = load::run(&RealEnv::client(), &clients, &load, |elapsed, answered| {
        let left = total.saturating_sub(elapsed).as_secs();
        bar.set_message(format!("{answered} requests answered, {left} s left"));
    })
    .await;
    bar.finish_and_clear();
    let printed = print(args.output, mode.name(), &load, &outcome);
    if outcome.sets.count() + outcome.gets.count() == 0 {
        let verdict = CliError::Failed("no request was answered after the warm-up".to_owned());
        return Err(verdict.despite(printed));
    }
    printed
}

async fn fill(client: &Client<RealEnv>, load: &Load) -> Result<(), CliError> {
    let count = u64::from(load.key_count);
    let style = ProgressStyle::with_template("filling {wide_bar} {pos} of {len}, {eta} left");
    let bar = ProgressBar::new(count).with_style(style.unwrap_or(ProgressStyle::default_bar()));
    let filled = load::fill(client, (0, count), load.value_bytes, |done| bar.set_position(done));
    filled.await?;
    bar.finish_and_clear();
    say(&format!("{count} cells were written before the load"));
    Ok(())
}

fn progress() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg}");
    ProgressBar::new_spinner().with_style(style.unwrap_or(ProgressStyle::default_spinner()))
}

fn print(format: Format, mode: &str, load: &Load, outcome: &Outcome) -> Result<(), CliError> {
    let mut output = Output::new(format);
    if format == Format::Json {
        output.json(&as_json(mode, load, outcome))?;
        return output.finish();
    }
    let heads = ["", "per second"].into_iter().chain(PERCENTILES.map(|(name, _)| name));
    let mut rows = Vec::new();
    for (name, series) in [("writes", &outcome.sets), ("reads", &outcome.gets)] {
        if series.count() > 0 {
            let mut row = vec![name.to_owned()];
            row.push(format!("{:.0}", outcome.rate_of(series.count())));
            row.extend(PERCENTILES.map(|(_, p)| format!("{:.3} ms", series.percentile_ms(p))));
            rows.push(row);
        }
    }
    output.grid(&heads.collect::<Vec<_>>(), &rows)?;
    let loop_of = load.rate.map_or_else(
        || "closed loop".to_owned(),
        |rate| format!("open loop, {rate:.0} due each second"),
    );
    output.line(&format!(
        "{mode}, {} connections, {} in flight on each, {loop_of}, values of {} B, {:.1} s",
        load.connections,
        load.in_flight,
        load.value_bytes,
        outcome.elapsed.as_secs_f64(),
    ))?;
    if let Some(gap) = outcome.longest_gap {
        output.line(&format!("longest time without an acknowledged write: {gap:.1?}"))?;
    }
    if outcome.never_sent > 0 {
        let count = outcome.never_sent;
        output.line(&format!(
            "never sent, though due: {count}; the requests before them were not answered in time"
        ))?;
    }
    for (why, count) in &outcome.errors {
        output.line(&format!("failed: {why}: {count}"))?;
    }
    output.finish()
}

/// Returns the figures of one kind of request, for programs.
pub(super) fn series_json(outcome: &Outcome, series: &Series) -> Value {
    let mut latency = serde_json::Map::new();
    for (name, percentile) in PERCENTILES {
        latency.insert(name.to_owned(), json!(series.percentile_ms(percentile)));
    }
    json!({
        "count": series.count(),
        "per_second": outcome.rate_of(series.count()),
        "latency_ms": latency,
    })
}

fn as_json(mode: &str, load: &Load, outcome: &Outcome) -> Value {
    json!({
        "mode": mode,
        "connections": load.connections,
        "in_flight": load.in_flight,
        "read_share": load.read_share,
        "rate": load.rate,
        "key_count": load.key_count,
        "value_bytes": load.value_bytes,
        "seconds": outcome.elapsed.as_secs_f64(),
        "writes": series_json(outcome, &outcome.sets),
        "reads": series_json(outcome, &outcome.gets),
        "errors": outcome.errors,
        "never_sent": outcome.never_sent,
        "longest_gap_ms": outcome.longest_gap.map(|gap| gap.as_secs_f64() * 1e3),
    })
}
