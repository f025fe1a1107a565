//! mse-proxy.

pub mod cli;
pub mod clock;
pub mod config;
pub mod endpoint;
pub mod hostname;
pub mod nearest;
pub mod outcome;
pub mod proxy;
pub mod reconcile;
pub mod resolve;
pub mod routing;
pub mod server;
pub mod source;
pub mod telemetry;
pub mod units;
pub mod wire;
