//! `route.proto` and `app.proto` as Rust: messages, service and client as they are generated.
//!
//! Their reference is the comments of the `.proto` files.

#![allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "generated"
)]

tonic::include_proto!("mse.proxy.v1");
