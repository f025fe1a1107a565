//! The real binary: start, signals, exit status, words for whoever types them wrong.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the verdict"
)]

mod access_log;
mod commands;
mod daemon;
mod endurance;
mod eyes;
mod manifest;
mod metrics;
mod page;
mod probe;
mod reload;
mod support;
mod systemd;
mod units;
mod watched;
mod web;
