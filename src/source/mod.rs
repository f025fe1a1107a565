//! Where routes come from.
//!
//! A [`Source`] tells whole sets, never deltas: whatever it said before is replaced by what it
//! says now. It knows no table and no other source.

pub mod apps;
mod crew;
pub mod document;
pub mod fault;
pub mod file;
mod guard;
pub mod instant;
mod keys;
mod pages;
mod pauses;
mod pieces;
pub mod place;
mod sheet;
mod shelf;
pub mod stored;
mod tell;
mod teller;
mod terminating;
pub mod values;

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::routing::claims::Claims;
use crate::store::Revision;

pub use fault::{Fault, FaultKind};

/// All that one source wants now. Cheap to clone, but for its faults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSet {
    /// The source's name, unique in a proxy.
    pub source: Arc<str>,
    /// The routes, in the order in which they stand.
    pub claims: Claims,
    /// What could not be used, and why.
    pub faults: Vec<Fault>,
    /// How many routes were left out for that.
    pub left_out: usize,
    /// If they come from a store that was read: the newest of its transactions that is in them.
    pub revision: Option<Revision>,
}

/// Who supplies routes.
pub trait Source {
    /// Tells the first set as soon as possible, and another whenever something changed, until
    /// nobody listens any more.
    fn run(self, sets: mpsc::Sender<RouteSet>) -> impl Future<Output = ()> + Send;
}
