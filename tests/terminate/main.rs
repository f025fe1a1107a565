//! TLS that ends in the proxy: the real binary, real clients, real backends.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the verdict"
)]

#[path = "../process/support.rs"]
#[allow(dead_code, reason = "the tests of the process use the rest")]
mod daemon;

mod ambiguous;
mod backends;
mod certificates;
mod ends;
mod files;
mod floods;
mod handshakes;
mod http;
mod keys;
mod load;
mod origin;
mod programs;
mod scan;
mod slow;
mod starts;
mod streams;
mod support;
mod tcp;
mod tickets;
mod together;
mod zones;
