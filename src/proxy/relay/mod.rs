//! Carrying bytes both ways until both sides have finished.

pub mod buffer;
mod direction;
pub mod idle;
pub mod pipes;
pub mod pump;
