//! Bytes as they stand on the wire, read and written without any IO.

pub mod alert;
pub mod client_hello;
