//! Tests of the package as a whole: what its source text promises.
#![expect(clippy::expect_used, reason = "helpers of tests stop the test they help")]

mod tidy;
