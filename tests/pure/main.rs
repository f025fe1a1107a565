//! Pure rooms against captured reality, against another implementation, and against plain models.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the verdict"
)]

mod corpus;
mod documents;
mod hellos;
mod oracle;
mod properties;
mod routing;
mod support;
