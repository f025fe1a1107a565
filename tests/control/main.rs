//! The control service of a whole proxy, over real sockets: routes are read, changed and watched by
//! gRPC clients while real TLS clients come and go.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the verdict"
)]

#[path = "../journey/support.rs"]
#[allow(dead_code, reason = "what journeys need is shared, and not all of it is needed here")]
mod journey;
mod limits;
mod lives;
mod load;
mod reading;
mod support;
mod tcp;
mod watching;
mod writing;
