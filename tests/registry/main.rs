//! What the store holds, and the two who deal with it: the source that follows it and the writer.
//! On the real embedded store; that it can be away is put around it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the verdict"
)]

mod followed;
mod history;
mod merged;
mod races;
mod support;
mod writes;
