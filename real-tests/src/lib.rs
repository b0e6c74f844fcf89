//! Starts and stops real nodes.
