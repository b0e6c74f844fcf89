//! The shipped program, built once per test run.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

/// Returns the `mangrove` program as it is shipped, building it on the first call.
///
/// The release build and not the one under test: other optimisations, `panic = "abort"`, and none
/// of the features that only tests have.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(build)
}

/// A process that dies with its owner.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Runs the program to its end with `arguments` and `input` on its standard input; returns what it
/// said.
pub fn run_program(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(program())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    // A program that does not read its input closes it; that is no failure.
    stdin.write_all(input).ok();
    drop(stdin);
    child.wait_with_output().expect("the program ends")
}

fn build() -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "-p", "mangrove", "--bin", "mangrove"])
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the program does not build:\n{errors}");
    let messages = String::from_utf8_lossy(&output.stdout);
    let executable = messages.lines().find_map(executable_of);
    executable.expect("cargo says where it put the program")
}

/// Returns the program that a message of cargo is about, if it is about one.
fn executable_of(message: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    Some(PathBuf::from(message.get("executable")?.as_str()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executable_is_taken_from_the_message_that_has_one() {
        let program = executable_of(r#"{"reason":"compiler-artifact","executable":"/t/mangrove"}"#);
        assert_eq!(program, Some(PathBuf::from("/t/mangrove")));
        for other in [r#"{"executable":null}"#, r#"{"reason":"build-finished"}"#, "no JSON"] {
            assert_eq!(executable_of(other), None, "{other}");
        }
    }
}
