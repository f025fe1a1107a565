//! Which route a hello takes: values and pure rules, without sockets, files or clocks.

pub mod claims;
pub mod expiry;
pub mod explain;
pub mod few;
pub mod names;
pub mod removal;
pub mod route;
pub mod seen;
mod shards;
pub mod snapshot;
pub mod table;
pub mod termination;
pub mod text;
pub mod words;
pub mod zones;
