//! Which route a hello takes: values and pure rules, without sockets, files or clocks.

pub mod expiry;
pub mod route;
pub mod snapshot;
pub mod table;
