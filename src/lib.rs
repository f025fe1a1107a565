//! mse-proxy.

pub mod clock;
pub mod endpoint;
pub mod hostname;
pub mod outcome;
pub mod routing;
pub mod units;
pub mod wire;
