//! mse-proxy.

pub mod clock;
pub mod endpoint;
pub mod hostname;
pub mod outcome;
pub mod proxy;
pub mod resolve;
pub mod routing;
pub mod telemetry;
pub mod units;
pub mod wire;
