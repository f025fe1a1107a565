//! Journeys through the whole proxy: real sockets, real TLS, real clients.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the verdict"
)]

mod crowds;
mod ends;
mod foreign;
mod lifetimes;
mod limits;
mod passage;
mod refusals;
mod splice;
mod support;
