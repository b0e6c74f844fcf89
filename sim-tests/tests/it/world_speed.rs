//! How fast the world turns: a ping benchmark that also shows that a quiet world is cheap.

use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use mangrove::codec::{FrameDecoder, encode_frame};
use mangrove::env::{Env, Listener, Net};
use sim_tests::world::{SimEnv, SimStream, WorldOptions, run_seed};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf};

/// Reads one frame; `None` at the end of the stream.
async fn read_frame(stream: &mut ReadHalf<SimStream>, buffer: &mut BytesMut) -> Option<usize> {
    loop {
        if let Some(body) = FrameDecoder::new(1 << 20).decode(buffer).unwrap() {
            return Some(body.len());
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

/// Answers every frame of every connection.
async fn answer(env: SimEnv, address: String) {
    let mut listener = env.net().listen(&address).await.unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        env.spawn("answer", async move {
            let (mut reader, mut writer) = tokio::io::split(stream);
            let mut buffer = BytesMut::new();
            let mut frame = Vec::new();
            while read_frame(&mut reader, &mut buffer).await.is_some() {
                frame.clear();
                encode_frame(&mut frame, |body| body.extend_from_slice(&[0; 8]));
                writer.write_all(&frame).await.unwrap();
            }
        });
    }
}

/// Sends 100 bytes to `address` every 100 ms and counts the answers.
async fn ping(env: SimEnv, address: String, acks: Arc<Mutex<u64>>) {
    let stream = loop {
        match env.net().connect(&address).await {
            Ok(stream) => break stream,
            Err(_) => env.sleep(Duration::from_millis(1)).await,
        }
    };
    let (mut reader, mut writer) = tokio::io::split(stream);
    env.spawn("acks", async move {
        let mut buffer = BytesMut::new();
        while read_frame(&mut reader, &mut buffer).await.is_some() {
            *acks.lock().unwrap() += 1;
        }
    });
    let mut frame = Vec::new();
    encode_frame(&mut frame, |body| body.extend_from_slice(&[7; 100]));
    loop {
        writer.write_all(&frame).await.unwrap();
        env.sleep(Duration::from_millis(100)).await;
    }
}

/// Milliseconds of processor time that this process has used. (From a file: a madsim program
/// replaces libc's clocks.)
fn cpu_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    ticks * 10
}

#[test]
fn three_nodes_ping_each_other_fast() {
    // For a real measurement: SIM_SECONDS=5000 cargo test --profile sim … -- --nocapture
    let seconds = option_env!("SIM_SECONDS").map_or(20, |text| text.parse().unwrap());
    let before = cpu_ms();
    let result = run_seed(1, WorldOptions::default(), move |world| async move {
        let acks = Arc::new(Mutex::new(0));
        let names = ["n1", "n2", "n3"];
        for name in names {
            let host = world.add_server(name);
            let acks = Arc::clone(&acks);
            world
                .start(host, move |env| async move {
                    for other in names.into_iter().filter(|other| *other != name) {
                        let ping = ping(env.clone(), format!("{other}:1"), Arc::clone(&acks));
                        env.spawn("ping", ping);
                    }
                    answer(env, format!("{name}:1")).await;
                })
                .await;
        }
        world.sleep(Duration::from_secs(seconds)).await;
        let acks = *acks.lock().unwrap();
        (acks, world.event_count())
    });
    let (acks, event_count) = result.unwrap();
    let cpu = (cpu_ms() - before).max(1);
    if option_env!("SIM_SECONDS").is_some() {
        let report = format!(
            "{seconds} simulated s in {cpu} CPU ms: {} per CPU s; {} pings and acks, {} trace \
             events per CPU s\n",
            seconds * 1_000 / cpu,
            2_000 * acks / cpu,
            1_000 * event_count / cpu,
        );
        std::io::stdout().write_all(report.as_bytes()).unwrap();
    }
    let expected = seconds * 60;
    assert!(acks > expected * 95 / 100 && acks <= expected + 12, "{acks} of {expected} acks");
}
