//! What DNS says of a domain, asked of a real server (BIND) on loopback.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the verdict"
)]

mod domains;
mod named;
