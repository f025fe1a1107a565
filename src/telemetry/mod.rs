//! What the proxy says about itself.

pub mod access_log;
pub mod almanac;
pub mod chronicle;
pub mod logging;
pub mod metrics;
mod scribe;
mod stream;
