//! Who shows which leaf: for each leaf, the apps whose routes show it. However many routes of one app
//! share a certificate, they are one entry.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::admission::watch::{Leaf, are_apart, called, owner};
use crate::routing::route::Route;

/// Who shows which leaf.
#[derive(Debug, Default)]
pub(super) struct Leaves(BTreeMap<(Leaf, Arc<str>), Showing>);

/// Routes of one app that show one leaf.
#[derive(Debug)]
struct Showing {
    /// One of them.
    route: Arc<Route>,
    /// How many times it is shown.
    times: usize,
}

impl Leaves {
    pub(super) fn add(&mut self, leaf: Leaf, route: &Arc<Route>) {
        let showing = self.0.entry((leaf, owner(route)));
        let showing = showing.or_insert_with(|| Showing { route: Arc::clone(route), times: 0 });
        showing.times += 1;
        showing.route = Arc::clone(route);
    }

    pub(super) fn remove(&mut self, leaf: Leaf, route: &Route) {
        let key = (leaf, owner(route));
        if let Some(showing) = self.0.get_mut(&key) {
            showing.times -= 1;
            if showing.times == 0 {
                self.0.remove(&key);
            }
        }
    }

    /// Who else shows a leaf and is for another app.
    pub(super) fn sharer(&self, route: &Route, leaf: Leaf) -> Option<Arc<str>> {
        let from = (leaf, Arc::from(""));
        let others = self.0.range(from..).take_while(|((other, _), _)| *other == leaf);
        let mut others = others.map(|(_, showing)| &showing.route);
        // Two that are not apart have one owner, or one of them names no app: so the first few decide.
        others.find(|other| are_apart(route, other)).map(|other| called(other))
    }
}
