//! One directed test per rule.
