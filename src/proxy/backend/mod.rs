//! Reaching the backend that a route names.

pub mod addresses;
pub mod connect;
