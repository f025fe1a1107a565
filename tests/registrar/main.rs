//! The registry as it is kept: deployments, races, projects and what time brings, on a store in
//! memory that gives way between its steps (where its transactions matter, on real ones too), and
//! DNS with fixed answers.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the verdict"
)]

mod claims;
#[path = "../store/support_etcd.rs"]
#[allow(
    dead_code,
    clippy::expect_used,
    reason = "a part of it is enough here; its words are for who runs tests"
)]
mod etcd;
mod life;
mod many;
mod rounds;
mod routed;
mod support;
