//! The registry as it is kept: deployments, races, projects and what time brings, on a store in
//! memory that gives way between its steps, and DNS with fixed answers.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the verdict"
)]

mod claims;
mod life;
mod many;
mod rounds;
mod routed;
mod support;
