//! What the store holds, as types, and what may be written next: routes and their history; apps,
//! projects, booked hardware and custom domains.
//!
//! Keys are named in one place ([`keys`]); a route is kept as text of a routes file, every write
//! leaves a [`history`] record, and all writes of a fleet follow one another, because each of them
//! checks the newest record's head. Whoever follows the store keeps an [`image`] of it, judges a
//! wish against that ([`plan`]) and hands the transaction to the store. Apps and what belongs to
//! them are records of their own ([`record`]), each judged and written by itself ([`changes`]).
//! Pure: no store, file or clock is asked here.

pub mod app;
pub mod changes;
pub mod digest;
pub mod domain;
pub mod ended;
pub mod hardware;
pub mod history;
pub mod image;
pub mod keys;
pub mod names;
pub mod plan;
pub mod project;
pub mod reach;
pub mod record;
pub mod refusal;
pub mod routed;
#[cfg(test)]
mod sample;
pub mod turn;
pub mod verify;
pub mod wish;
pub mod written;
