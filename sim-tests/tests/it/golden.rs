//! Data directories that earlier versions wrote: every one of them must still open.

use std::path::Path;

use sim_tests::golden::{self, Files};

/// The directories below `tests/fixtures`, the oldest first.
const FIXTURES: [&str; 2] = ["data-v1", "data-v2"];

fn fixture(name: &str) -> Files {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    golden::load(&directory).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn data_directory_of_every_version_opens_and_holds_what_was_written() {
    for name in FIXTURES {
        let files = fixture(name);
        let count = |prefix: &str| files.keys().filter(|path| path.starts_with(prefix)).count();
        assert_eq!(count("NODE"), 1, "{name}");
        assert!(count("wal/") > 0 && count("tables/table-") > 1, "{name}: {:?}", files.keys());
        let cells = golden::read(files).unwrap_or_else(|what| panic!("{name}: {what}"));
        assert_eq!(cells, golden::cells(), "{name}");
    }
}

#[test]
fn data_directory_of_today_opens_and_holds_what_was_written() {
    let files = golden::make().unwrap();
    assert_eq!(golden::read(files), Ok(golden::cells()));
}
