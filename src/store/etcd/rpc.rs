//! etcd's wire format, as generated from `rpc.proto`.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::all,
    clippy::pedantic,
    reason = "generated; rpc.proto is the text to read"
)]

tonic::include_proto!("etcdserverpb");
