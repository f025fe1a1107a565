//! One client's journey, from accept to the record it leaves behind.
//!
//! In reading order: [`session`] shows the journey as a whole, [`peek`] reads the hello,
//! [`backend`] dials, [`relay`] carries the bytes, [`terminate`] ends TLS here where that is wanted,
//! [`refuse`] answers whoever may not pass;
//! [`listener`], [`accept`] and [`limits`] stand before it, [`connections`] can end it from
//! outside, [`pulse`] proves that it turns. Nothing in this room knows where a route came from, nor waits for it.

pub mod accept;
pub mod backend;
pub mod capacity;
mod cohort;
pub mod connections;
pub mod descriptors;
mod draft;
pub mod drain;
pub mod engine;
pub mod fresh;
pub mod handle;
pub mod handover;
pub mod house;
pub mod limits;
pub mod listener;
mod passage;
pub mod peek;
mod pinned;
pub mod pulse;
pub mod refuse;
pub mod relay;
pub mod retire;
pub mod session;
pub mod terminate;
pub mod transport;
