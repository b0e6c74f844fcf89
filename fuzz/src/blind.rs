//! Reading without checksums, so that an input reaches what stands behind them.

use mangrove::base::checksum::go_blind;

/// Runs `read` with every checksum of this thread being 0, in what is read and what is written.
pub fn blindly<T>(read: impl FnOnce() -> T) -> T {
    struct Seeing;
    impl Drop for Seeing {
        fn drop(&mut self) {
            go_blind(false);
        }
    }
    go_blind(true);
    let _seeing = Seeing;
    read()
}
