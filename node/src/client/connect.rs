//! A client in the real world, for programs that live in no other.

use super::{Client, ClientOptions};
use crate::env::real::RealEnv;

/// Returns a client of the real nodes at `addresses` (`host:port`), with default time limits.
///
/// Must be used within a tokio runtime that has its network and clock enabled.
pub fn connect<A: Into<String>>(addresses: impl IntoIterator<Item = A>) -> Client<RealEnv> {
    let addresses = addresses.into_iter().map(Into::into).collect();
    Client::connect(RealEnv::client(), addresses, ClientOptions::default())
}
