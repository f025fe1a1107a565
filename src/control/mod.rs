//! The service by which routes are read and changed while the proxy runs, over gRPC.
//!
//! [`proto`] is `route.proto` as Rust. [`dial`] and [`client`] are the side that asks: they know a
//! running proxy by its endpoint and nothing else of it. [`write`] is the one way to the store.

pub mod client;
pub mod convert;
pub mod dial;
pub mod proto;
pub mod write;
