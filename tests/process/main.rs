//! The real binary: start, signals, exit status, words for whoever types them wrong.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the verdict"
)]

mod access_log;
mod admin_socket;
mod apps;
mod commands;
mod daemon;
mod endurance;
mod eyes;
mod lives;
mod manifest;
mod merged;
mod metrics;
#[path = "../probe/named.rs"]
mod named;
mod page;
mod pipes;
mod probe;
mod reload;
mod route_fleet;
mod route_follow;
mod route_foreign;
mod route_look;
mod route_support;
mod route_tls;
mod route_write;
mod support;
mod systemd;
mod units;
mod watched;
mod web;
