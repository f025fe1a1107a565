//! What the store holds, as types: they know how they are written down, and what may follow what.
//!
//! Pure: no store is asked here and no clock; whoever does that hands over what was found.

pub mod app;
pub mod changes;
pub mod digest;
pub mod domain;
pub mod hardware;
pub mod names;
pub mod project;
pub mod reach;
pub mod record;
pub mod written;
