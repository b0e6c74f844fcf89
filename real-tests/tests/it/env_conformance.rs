//! The real world keeps the contract of `mangrove::env`.

use mangrove::env::conformance::Site;
use mangrove::env::real::RealEnv;
use real_tests::block_on;

/// Runs one promise in a directory of its own; connections come from the same process.
fn run<F: Future<Output = ()>>(case: fn(Site<RealEnv>) -> F) {
    let directory = tempfile::tempdir().expect("a directory");
    let env = RealEnv::open(directory.path()).expect("an unused directory");
    let peer = RealEnv::client();
    block_on(case(Site { env, peer, listen: "127.0.0.1:0".to_owned() }));
}

mangrove::env_conformance_tests!(run);
