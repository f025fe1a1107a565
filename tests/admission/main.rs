//! What may become a route: manifests, certificates and the platform's rules, each as a table of
//! cases with their verdicts and words. Pure rules, and real certificates made at run time.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the verdict"
)]

mod certificates;
mod certs;
mod changes;
mod manifest;
mod properties;
mod rules;
mod sight;
mod support;
mod watch;
