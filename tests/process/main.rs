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
#[path = "../control/support.rs"]
#[allow(dead_code, reason = "its clients are shared, and not all of it is needed here")]
mod control;
mod crash;
mod daemon;
mod domains;
mod enclaves;
mod endurance;
#[path = "../store/support_etcd.rs"]
#[allow(
    dead_code,
    clippy::expect_used,
    reason = "a part of it is enough here; its words are for who runs tests"
)]
mod etcd;
mod eyes;
mod fleet;
mod fleet_losses;
mod full_disk;
#[path = "../journey/support.rs"]
#[allow(dead_code, reason = "what journeys need is shared, and not all of it is needed here")]
mod journey;
mod lives;
mod manifest;
mod merged;
mod metrics;
#[path = "../probe/named.rs"]
mod named;
mod operators;
mod page;
mod pipes;
mod probe;
mod projects;
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
mod watch;
mod watched;
mod web;
