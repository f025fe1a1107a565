//! Words on routes: what was seen of their backends, from whoever looks and judges, who is not known
//! here.
//!
//! A word is of a route as it stood when somebody looked: one that leads elsewhere since then, or
//! has another pin, is not concerned.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::routing::claims::Passage;
use crate::routing::route::Route;
use crate::routing::seen::Seen;

/// What was seen of a route, and of which version of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The route as it stood then.
    pub of: Arc<Route>,
    /// What was seen.
    pub seen: Seen,
}

/// All that was seen that says something, by the ids of the routes. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Words(Arc<HashMap<Arc<str>, Word, RandomState>>);

impl Words {
    /// Whether these are the very same.
    #[must_use]
    pub fn are(&self, others: &Self) -> bool {
        Arc::ptr_eq(&self.0, &others.0)
    }

    /// Whether nothing is said.
    #[must_use]
    pub fn are_none(&self) -> bool {
        self.0.is_empty()
    }

    /// What is said of a route as it stands now.
    #[must_use]
    fn of(&self, route: &Route) -> Option<&Seen> {
        let word = self.0.get(&route.id)?;
        let is_it = word.of.hosts == route.hosts && word.of.leads_like(route);
        is_it.then_some(&word.seen)
    }

    /// A passage with these words in its routes; none, if they say nothing of any. What is known
    /// already stays the same value.
    #[must_use]
    pub fn put_into<'a>(
        &self,
        passage: &Passage,
        known: impl Fn(&str) -> Option<&'a Arc<Route>>,
    ) -> Option<Passage> {
        let says = |route: &Route| self.of(route).is_some_and(|seen| route.would_change(seen));
        if self.are_none() || !passage.written().iter().any(|written| says(&written.route)) {
            return None;
        }
        Some(passage.with_routes(|route| {
            let new = self.of(route).filter(|seen| route.would_change(seen));
            let new = new.map_or_else(|| Arc::clone(route), |seen| Arc::new(route.seen(seen)));
            known(&route.id).filter(|old| **old == new).map_or(new, Arc::clone)
        }))
    }
}

impl FromIterator<(Arc<str>, Word)> for Words {
    fn from_iter<I: IntoIterator<Item = (Arc<str>, Word)>>(words: I) -> Self {
        Self(Arc::new(words.into_iter().collect()))
    }
}
