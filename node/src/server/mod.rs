//! The network edge of a node: connections of clients and peers.
