//! What the probe finds out: of a domain, from a real DNS server (BIND) on loopback; of an app, from
//! a single-threaded server as enclaves have it, and from one that speaks HTTP/2 alone.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the verdict"
)]

mod check;
mod domains;
mod named;
mod readiness;
