//! The stores: one contract for all of them, and what each owes beyond it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the verdict"
)]

mod child;
mod contract;
mod crash;
mod damage;
mod embedded;
mod etcd;
mod etcd_losses;
mod etcd_trust;
mod full;
mod model;
mod support_etcd;
