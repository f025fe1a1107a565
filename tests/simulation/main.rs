//! A thousand sessions at a time on simulated time, over in-memory streams: hours pass in seconds,
//! and every run of a seed is the same run. What must have happened is computed from the script by
//! rules of the tests' own, and compared with the records that the sessions left behind.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the verdict"
)]

mod calendar;
mod clocks;
mod explained;
mod hellos;
mod overload;
mod stops;
mod support;
