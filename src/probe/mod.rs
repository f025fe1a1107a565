//! Asking the world for what the rules judge: the only part of an admission that does IO.

pub mod certificate;
pub mod domain;
pub mod readiness;
pub mod watch;
