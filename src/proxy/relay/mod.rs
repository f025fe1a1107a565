//! Carrying bytes both ways until both sides have finished.

pub mod buffer;
pub mod copy;
pub mod idle;
pub mod pipes;
