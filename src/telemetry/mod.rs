//! What the proxy says about itself.

pub mod access_log;
pub mod logging;
pub mod metrics;
