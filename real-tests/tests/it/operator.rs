//! What an operator's machine does to the program: a log that nobody takes, Ctrl-C in the middle.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use mangrove::client::{Client, ClientOptions};
use mangrove::env::real::RealEnv;
use real_tests::{Running, block_on, free_address, program};

/// How long anything may take that is waited for.
const LIMIT: Duration = Duration::from_mins(1);

/// The accident: a full disk that the logs were on took all nodes down, though not their data.
#[test]
fn node_serves_though_nobody_takes_its_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let address = free_address();
    let mut node = Running(
        Command::new(program())
            .args(["serve", "--cluster-id", "5e1f", "--node", "1", "--log", "debug"])
            .args(["--members", &format!("1={address}"), "--stop-with-input", "--data"])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts"),
    );
    // From here on no line of the log can be written.
    drop(node.0.stderr.take());
    block_on(async {
        let options = ClientOptions { request_timeout: LIMIT, ..ClientOptions::default() };
        let client = Client::connect(RealEnv::client(), vec![address], options);
        client.set("k", "v").await.expect("the node serves");
    });
    drop(node.0.stdin.take());
    let status = node.0.wait().expect("it ends");
    assert!(status.success(), "it ended with {status}");
    assert!(fs::read_dir(folder.path()).expect("it is there").count() > 1, "it kept its data");
}

/// Waits for a client, and does not answer it.
fn client_of(listener: &TcpListener) -> TcpStream {
    listener.accept().expect("somebody connects").0
}

#[test]
fn file_that_ctrl_c_keeps_from_being_complete_is_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it has one").to_string();
    for (words, signal) in
        [(&["snapshot", "save", "file"][..], "-INT"), (&["export", "--file", "file"], "-TERM")]
    {
        let mut command = Command::new(program());
        command.args(words).args(["--cluster", &address, "--timeout", "60s"]);
        command.current_dir(folder.path()).stdin(Stdio::null()).stderr(Stdio::null());
        let mut running = Running(command.spawn().expect("the program starts"));
        let _silent = client_of(&listener);
        assert!(folder.path().join("file.partial").exists(), "{words:?}");
        let told = Command::new("kill").arg(signal).arg(running.0.id().to_string()).status();
        assert!(told.expect("kill starts").success());
        let status = running.0.wait().expect("it ends");
        assert_eq!(status.code(), Some(130), "{words:?}: {status}");
        assert_eq!(fs::read_dir(folder.path()).expect("it is there").count(), 0, "{words:?}");
    }
}
