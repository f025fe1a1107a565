//! Reading and changing routes while the proxy runs.

pub mod write;
