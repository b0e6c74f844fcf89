//! The command line against a real cluster: every command, its exit code and its output.

use std::process::Output;

use real_tests::{RealCluster, block_on, free_address, run_program};

/// The command line with the addresses of a cluster.
struct Cli {
    addresses: String,
}

/// What a command said.
#[derive(Debug)]
struct Answer {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Cli {
    fn of(cluster: &RealCluster) -> Self {
        Self { addresses: cluster.addresses().join(",") }
    }

    fn run(&self, arguments: &str) -> Answer {
        self.run_with(arguments, "")
    }

    fn run_with(&self, arguments: &str, input: &str) -> Answer {
        let words: Vec<&str> =
            arguments.split(' ').chain(["--cluster", self.addresses.as_str()]).collect();
        let Output { status, stdout, stderr } = run_program(&words, input.as_bytes());
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the program writes text");
        Answer { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }

    /// Runs a command that must succeed; returns its output.
    #[track_caller]
    fn ok(&self, arguments: &str) -> String {
        let answer = self.run(arguments);
        assert_eq!(answer.code, Some(0), "{arguments}: {answer:?}");
        answer.stdout
    }

    /// Runs a command whose answer is one line of JSON.
    #[track_caller]
    fn json(&self, arguments: &str) -> serde_json::Value {
        let line = self.ok(&format!("{arguments} --output json"));
        assert_eq!(line.lines().count(), 1, "{arguments}: {line}");
        serde_json::from_str(&line).expect("the program writes JSON")
    }
}

#[test]
fn cell_goes_round_and_its_absence_is_an_exit_code() {
    block_on(async {
        let cluster = RealCluster::start(3).await;
        let cli = Cli::of(&cluster);
        let missing = cli.run("get greeting");
        assert_eq!((missing.code, missing.stdout.as_str()), (Some(1), ""), "{missing:?}");
        assert!(missing.stderr.contains("not found"), "{missing:?}");

        cli.ok("set greeting hello");
        assert_eq!(cli.ok("get greeting"), "hello\n");
        assert_eq!(cli.ok("get greeting --output raw"), "hello");
        let cell = cli.json("get greeting");
        assert_eq!((&cell["key"], &cell["value"]), (&"greeting".into(), &"hello".into()));
        assert!(cell["version"].is_u64(), "{cell}");

        let piped = cli.run_with("set greeting -", "from\nstandard input");
        assert_eq!(piped.code, Some(0), "{piped:?}");
        assert_eq!(cli.ok("get greeting --output raw"), "from\nstandard input");

        cli.ok("delete greeting");
        cli.ok("delete greeting");
        assert_eq!(cli.run("get greeting").code, Some(1));
    });
}

#[test]
fn rows_keys_and_bulk_go_round() {
    block_on(async {
        let cluster = RealCluster::start(3).await;
        let cli = Cli::of(&cluster);
        let changes = "{\"key\":\"row/a\",\"column\":\"1\",\"value\":\"a1\"}\n\
                       {\"key\":\"row/a\",\"column\":\"2\",\"value\":\"a2\"}\n\
                       {\"key\":\"row/b\",\"value_base64\":\"/wA=\"}\n";
        let answer = cli.run_with("bulk -", changes);
        assert_eq!(answer.code, Some(0), "{answer:?}");
        assert_eq!(cli.ok("row row/a --output raw"), "1\ta1\n2\ta2\n");
        assert_eq!(cli.ok("slice row/a --start 2 --output raw"), "2\ta2\n");
        assert_eq!(cli.ok("keys --prefix row/ --output raw"), "row/a\nrow/b\n");
        assert_eq!(cli.ok("keys --prefix row/ --limit 1 --output raw"), "row/a\n");
        assert_eq!(cli.json("get row/b")["value_base64"], "/wA=", "no byte is lost");

        let refused = cli.run_with("bulk -", "{\"key\":\"x\",\"value\":\"1\"}\n{\"kye\":\"y\"}\n");
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains("line 2"), "{refused:?}");
        assert_eq!(cli.run("get x").code, Some(1), "nothing of a refused batch");

        cli.ok("delete row/a --row");
        assert_eq!(cli.ok("keys --prefix row/ --output raw"), "row/b\n");
    });
}

#[test]
fn condition_that_does_not_hold_is_an_exit_code_and_shows_the_cell() {
    block_on(async {
        let cluster = RealCluster::start(3).await;
        let cli = Cli::of(&cluster);
        cli.ok("cas lock --expect-absent --set me");
        let refused = cli.run("cas lock --expect-absent --set you");
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(5), "me\n"), "{refused:?}");
        assert_eq!(cli.run("cas lock --expect you --delete").code, Some(5));
        cli.ok("cas lock --expect me --delete");
        assert_eq!(cli.run("get lock").code, Some(1));
    });
}

#[test]
fn mistakes_and_silence_have_their_exit_codes() {
    block_on(async {
        let cluster = RealCluster::start(1).await;
        let cli = Cli::of(&cluster);
        for mistake in ["frobnicate", "get", "cas k --set v", "set k @/no/such/file"] {
            let answer = cli.run(mistake);
            assert_eq!(answer.code, Some(2), "{mistake}: {answer:?}");
            assert!(!answer.stderr.is_empty(), "{mistake}: a mistake is explained");
        }
        let nobody = Cli { addresses: free_address() };
        let answer = nobody.run("set k v --timeout 500ms");
        assert_eq!(answer.code, Some(3), "not applied: {answer:?}");
        assert!(answer.stderr.contains(&nobody.addresses), "it says whom it tried: {answer:?}");
        let help = run_program(&["--help"], b"");
        assert!(String::from_utf8_lossy(&help.stdout).contains("Exit codes"), "{help:?}");
    });
}

#[test]
fn status_shows_every_node_and_the_one_that_is_down() {
    block_on(async {
        let mut cluster = RealCluster::start(3).await;
        let cli = Cli::of(&cluster);
        let leader = cluster.wait_for_leader().await;
        let follower = cluster.numbers().find(|node| *node != leader).unwrap();
        cluster.kill(follower);
        let lines = cli.ok("status --output json");
        assert_eq!(lines.lines().count(), 3, "{lines}");
        assert_eq!(lines.matches("\"role\":\"leader\"").count(), 1, "{lines}");
        assert!(lines.contains(cluster.address(follower)), "{lines}");
        let table = cli.ok("status");
        assert!(table.contains("leader"), "the table for people");
        assert!(table.contains(&format!("n{follower}: does not answer")), "{table}");
        // A follower names nobody in its status, but knows who leads, and the leader knows all.
        let other = cluster.numbers().find(|node| ![leader, follower].contains(node)).unwrap();
        let over = Cli { addresses: cluster.address(other).to_owned() };
        let lines = over.ok("status --output json");
        assert_eq!(lines.lines().count(), 3, "{lines}");
        assert_eq!(lines.matches("\"role\":\"leader\"").count(), 1, "{lines}");
        assert!(lines.contains(cluster.address(follower)), "{lines}");
    });
}
