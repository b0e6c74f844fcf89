//! Files that people write: TOML and JSON Lines.

use mangrove::cli::fuzzed;
use mangrove::kv::{Cell, Mutation, Version};
use mangrove::replica::Replication;

use crate::history::jsonl;

/// ```text
/// which u8: a node (bit 0 clear) or a cluster on this machine │ text
/// ```
pub(super) fn configuration(input: &[u8]) {
    let Some((&which, text)) = input.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    if which & 1 == 0 {
        if let Ok(config) = fuzzed::configuration(text) {
            // What a node starts with is within its limits.
            assert!(config.members.iter().any(|(id, _)| *id == config.node), "{config:?}");
            assert!(config.node.0 > 0, "{config:?}");
            let is_masterless = matches!(config.replication, Replication::Masterless(_));
            assert_eq!(config.mode().is_masterless(), is_masterless, "{config:?}");
        }
    } else if let Ok(again) = fuzzed::cluster_file(text) {
        let twice = fuzzed::cluster_file(&again);
        assert_eq!(twice.as_ref(), Ok(&again), "what is read survives writing it");
    }
}

pub(super) fn configuration_seeds() -> Vec<Vec<u8>> {
    let node = "cluster_id = \"7a11\"\nnode = 2\nlisten = \"127.0.0.1:7102\"\n\
                members = [\"1=127.0.0.1:7101\", \"2=127.0.0.1:7102\", \"3=127.0.0.1:7103\"]\n";
    let rest = "mode = \"masterless\"\nreplication_factor = 3\npartitions = 8\n\
                repair = \"read-repair\"\n";
    let sizes = "sync = \"interval:20\"\nelection_timeout = \"300ms\"\n\
                 heartbeat_interval = \"1s\"\nrequest_timeout = \"2m\"\n\
                 wal_segment_bytes = \"16MiB\"\nmemtable_bytes = \"1GiB\"\n\
                 scrub_rate = \"65536\"\nthreads = 1\npack_tables = true\n";
    let cluster = "cluster_id = \"5e1f0c0ffee5e1f0\"\nmode = \"masterless\"\n\
                   replication_factor = 3\npartitions = 256\n\n[[node]]\nid = 1\n\
                   address = \"127.0.0.1:7101\"\n";
    vec![
        format!("\0{node}").into_bytes(),
        format!("\0{node}{rest}").into_bytes(),
        format!("\0{node}{sizes}").into_bytes(),
        format!("\x01{cluster}").into_bytes(),
    ]
}

/// What clients asked and were told.
pub(super) fn history(input: &[u8]) {
    let Ok(history) = jsonl::read(&mut &*input) else { return };
    let mut written = Vec::new();
    if let Err(error) = jsonl::write(&history, &mut written) {
        panic!("memory refuses: {error}");
    }
    let again = match jsonl::read(&mut written.as_slice()) {
        Ok(again) => again,
        Err(error) => panic!("{error} in {:?}", String::from_utf8_lossy(&written)),
    };
    let mut twice = Vec::new();
    if let Err(error) = jsonl::write(&again, &mut twice) {
        panic!("memory refuses: {error}");
    }
    assert!(written == twice, "what is read survives writing it");
    for op in 0..history.ops().len().min(50) {
        drop(history.describe(crate::history::OpId(op as u32)));
    }
    assert!(history.events().len() <= input.len(), "{} events", history.events().len());
}

pub(super) fn history_seeds() -> Vec<Vec<u8>> {
    let pairs = [
        (r#""f":"get","key":"k/c","value":null"#, r#""f":"get","key":"k/c","value":"v""#),
        (r#""f":"set","key":"k/c","value":"v""#, r#""f":"set","key":"k/c","value":"v""#),
        (
            r#""f":"cas","key":"k/c","value":["a",null]"#,
            r#""f":"cas","key":"k/c","value":["a",null],"applied":false,"current":"b""#,
        ),
        (r#""f":"bulk_set","value":{"k/c":"v","k/*":null}"#, r#""f":"bulk_set","value":null"#),
        (
            r#""f":"bulk_if","value":{"if":{"k/c":["v"],"k/d":"present"},"set":{"k/c":null}}"#,
            r#""f":"bulk_if","value":null,"applied":true"#,
        ),
        (
            r#""f":"multi_get","value":["k/c","l/"]"#,
            r#""f":"multi_get","value":{"k/c":"v","l/":null}"#,
        ),
        (r#""f":"delete_row","key":"k","value":null"#, r#""f":"delete_row","value":null"#),
        (
            r#""f":"slice","key":"k","value":{"start":"a","stop":"z"}"#,
            r#""f":"slice","key":"k","value":{"k/c":"v"},"next":"k/d""#,
        ),
        (r#""f":"scan","value":{"prefix":"k","start":"k/a"}"#, r#""f":"scan","value":{"k/c":"v"}"#),
        (r#""f":"keys","value":{"prefix":"","stop":"z"}"#, r#""f":"keys","value":["k"]"#),
    ];
    let event = |process: usize, kind: &str, rest: &str, time: usize| {
        format!("{{\"process\":{process},\"type\":\"{kind}\",{rest},\"time\":{time}}}\n")
    };
    let mut seeds = Vec::new();
    for (number, (asked, answered)) in pairs.iter().enumerate() {
        for end in ["ok", "fail", "info"] {
            let invoked = event(number, "invoke", asked, number);
            seeds.push((invoked + &event(number, end, answered, number + 1)).into_bytes());
        }
    }
    seeds.push(event(u32::MAX as usize, "invoke", pairs[0].0, 0).into_bytes());
    seeds
}

/// Lines as `import` takes them, and, if it takes them all, each alone as `bulk` does.
pub(super) fn import(input: &[u8]) {
    let (lines, bytes, cells, result) = fuzzed::import(input);
    assert!(cells <= lines && lines <= bytes && bytes <= input.len() as u64, "{cells} of {lines}");
    if result.is_err() {
        return;
    }
    assert!(bytes == input.len() as u64, "{bytes} of {}", input.len());
    for line in input.split(|&byte| byte == b'\n').take(64) {
        let Ok(mutation) = fuzzed::line(line) else { continue };
        let Mutation::Set { key, column, value } = &mutation else { continue };
        let cell = Cell { value: value.clone(), version: Version(0) };
        let exported = fuzzed::exported(key, column, &cell);
        let again = exported.as_ref().map(|line| fuzzed::line(line));
        assert_eq!(again, Ok(Ok(mutation.clone())), "what is exported can be imported");
    }
}

pub(super) fn import_seeds() -> Vec<Vec<u8>> {
    let lines = [
        r#"{"key":"person/1","column":"name","value":"Ada"}"#,
        r#"{"key_base64":"/wA=","value":"text"}"#,
        r#"{"key":"k","column_base64":"AAE=","value_base64":"////","version":7}"#,
        r#"{"action":"delete","key":"person/1","column":"name"}"#,
        r#"{"action":"delete_row","key":"person/1"}"#,
        "",
    ];
    let mut seeds: Vec<Vec<u8>> = lines.iter().map(|line| line.as_bytes().to_vec()).collect();
    seeds.push(lines[..3].join("\n").into_bytes());
    seeds.push(lines.join("\n").into_bytes());
    seeds
}

/// ```text
/// length of the import's input u64 LE │ checksum of any of its beginnings u32 LE │ the file
/// ```
pub(super) fn progress(input: &[u8]) {
    let Some((total, rest)) = input.split_first_chunk::<8>() else { return };
    let Some((crc, file)) = rest.split_first_chunk::<4>() else { return };
    let (total, crc) = (u64::from_le_bytes(*total), u32::from_le_bytes(*crc));
    let Ok((done, again)) = fuzzed::progress(file, total, crc) else { return };
    assert!(done <= total, "{done} bytes of {total} are done");
    let twice = fuzzed::progress(&again, total, crc);
    assert_eq!(twice, Ok((done, again)), "what is read survives writing it");
}

pub(super) fn progress_seeds() -> Vec<Vec<u8>> {
    let whole = r#"{"cluster":"5e1f0c0ffee5e1f0","progress":{"total_bytes":30,"done_bytes":20,"#;
    let whole = format!(r#"{whole}"done_crc":7,"done_lines":2,"done_cells":2}}}}"#);
    let unbound = r#"{"cluster":null,"progress":{"total_bytes":0,"done_bytes":0,"#;
    let unbound = format!(r#"{unbound}"done_crc":7,"done_lines":0,"done_cells":0}}}}"#);
    let earlier = r#"{"total_bytes":30,"done_bytes":0,"done_lines":0,"done_cells":0}"#;
    let input = |total: u64, file: &str| {
        [&total.to_le_bytes()[..], &7_u32.to_le_bytes(), file.as_bytes()].concat()
    };
    // The third was cut: less is there than was done.
    vec![
        input(30, &whole),
        input(31, &whole),
        input(19, &whole),
        input(0, &unbound),
        input(9, earlier),
    ]
}
