//! Claims as a source tells them: many, in the order in which they stand, and shared.
//!
//! They come in [`Passage`]s: the routes of one stretch of a text, or of whatever else a source can
//! tell apart as unchanged. A passage is immutable and shared by everybody who keeps the set, and it
//! knows its lines only from its own beginning: one that moved down in its file is still the same.
//! So a set of a million routes is cloned, compared and searched for changes by its passages.

use std::sync::Arc;

use crate::routing::route::{Claim, Origin, Route};

/// A route and where it was written down in its passage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The route.
    pub route: Arc<Route>,
    /// The line, from that of the passage's beginning, which is 1; 0 is unknown.
    pub line: u32,
    /// The column, from 1; 0 is unknown.
    pub column: u32,
}

/// Claims that were written down one after the other.
#[derive(Debug, Clone)]
pub struct Passage {
    source: Arc<str>,
    /// How many lines of the source stand before it.
    above: u32,
    written: Arc<[Written]>,
}

impl PartialEq for Passage {
    fn eq(&self, other: &Self) -> bool {
        let is_same = Arc::ptr_eq(&self.written, &other.written);
        let is_there = self.above == other.above && self.source == other.source;
        // Of slices, `Arc` itself does not know that one is equal to itself: it would look at a
        // million routes for each set that is told.
        is_there && (is_same || self.written == other.written)
    }
}

impl Eq for Passage {}

/// All claims of a source, or of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims(Arc<[Passage]>);

impl Passage {
    /// A passage of a source, below so many lines.
    #[must_use]
    pub fn new(source: &Arc<str>, above: u32, written: Vec<Written>) -> Self {
        Self { source: Arc::clone(source), above, written: written.into() }
    }

    /// The same passage where it stands now.
    #[must_use]
    pub fn below(&self, above: u32) -> Self {
        Self { above, ..self.clone() }
    }

    /// The same passage at the place of another one.
    #[must_use]
    pub fn at_the_place_of(&self, other: &Self) -> Self {
        Self { source: Arc::clone(&other.source), above: other.above, ..self.clone() }
    }

    /// What is written here.
    #[must_use]
    pub fn written(&self) -> &[Written] {
        &self.written
    }

    /// Where something that is written here stands.
    #[must_use]
    pub fn origin(&self, written: &Written) -> Origin {
        let line = if written.line == 0 { 0 } else { written.line.saturating_add(self.above) };
        Origin { source: Arc::clone(&self.source), line, column: written.column }
    }

    /// A route that is written here, with where it stands.
    #[must_use]
    pub fn claim(&self, written: &Written) -> Claim {
        Claim { route: Arc::clone(&written.route), origin: self.origin(written) }
    }

    /// What two equal addresses mean: the same routes at the same places of the passage.
    #[must_use]
    pub fn address(&self) -> usize {
        self.written.as_ptr().addr()
    }

    /// The same passage with other values of its routes.
    #[must_use]
    pub fn with_routes(&self, of: impl Fn(&Arc<Route>) -> Arc<Route>) -> Self {
        let other = |written: &Written| Written { route: of(&written.route), ..written.clone() };
        Self { written: self.written.iter().map(other).collect(), ..self.clone() }
    }

    /// The same passage, with the known value in the place of each route that is equal to it, so
    /// that what did not change stays one value. None, if there is nothing to put in.
    #[must_use]
    pub fn reusing<'a>(&self, known: impl Fn(&str) -> Option<&'a Arc<Route>>) -> Option<Self> {
        let older = |written: &Written| {
            known(&written.route.id)
                .filter(|old| !Arc::ptr_eq(old, &written.route) && **old == written.route)
        };
        if !self.written.iter().any(|written| older(written).is_some()) {
            return None;
        }
        let reuse = |written: &Written| Written {
            route: Arc::clone(older(written).unwrap_or(&written.route)),
            ..written.clone()
        };
        Some(Self { written: self.written.iter().map(reuse).collect(), ..self.clone() })
    }
}

impl Claims {
    /// The passages, in order.
    #[must_use]
    pub fn passages(&self) -> &[Passage] {
        &self.0
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Claim> {
        let of_passage = |passage| Passage::written(passage).iter().map(|one| passage.claim(one));
        self.0.iter().flat_map(of_passage)
    }

    /// The routes, in order.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.0.iter().flat_map(|passage| passage.written.iter().map(|one| &one.route))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|passage| passage.written.len()).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|passage| passage.written.is_empty())
    }
}

impl Default for Claims {
    fn default() -> Self {
        Self(Arc::new([]))
    }
}

impl FromIterator<Passage> for Claims {
    fn from_iter<I: IntoIterator<Item = Passage>>(passages: I) -> Self {
        Self(passages.into_iter().collect())
    }
}

impl FromIterator<Claim> for Claims {
    /// One passage for each run of claims from one source.
    fn from_iter<I: IntoIterator<Item = Claim>>(claims: I) -> Self {
        let mut passages = Vec::new();
        let mut run: Option<(Arc<str>, Vec<Written>)> = None;
        for Claim { route, origin } in claims {
            let written = Written { route, line: origin.line, column: origin.column };
            match &mut run {
                Some((source, all)) if *source == origin.source => all.push(written),
                _ => {
                    let before = run.replace((origin.source, vec![written]));
                    passages.extend(before.map(|(source, all)| Passage::new(&source, 0, all)));
                }
            }
        }
        passages.extend(run.map(|(source, all)| Passage::new(&source, 0, all)));
        passages.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::few::Few;
    use crate::routing::route::Terms;

    fn claim(id: &str, source: &str, line: u32) -> Claim {
        let route = Route::new(id.into(), Few::default(), Few::default(), Terms::default());
        let origin = Origin { source: source.into(), line, column: 1 };
        Claim { route: Arc::new(route), origin }
    }

    #[test]
    fn claims_come_out_as_they_went_in() {
        let all = [claim("a", "1", 1), claim("b", "1", 9), claim("c", "2", 0), claim("a", "1", 5)];
        let claims: Claims = all.iter().cloned().collect();
        assert_eq!(claims.iter().collect::<Vec<_>>(), all);
        assert_eq!((claims.len(), claims.passages().len()), (4, 3));
        assert!(Claims::default().is_empty());
    }

    #[test]
    fn a_passage_that_moved_tells_other_lines_of_the_same_routes() {
        let passage = Passage::new(&"f".into(), 10, vec![]);
        let there = Written { route: claim("a", "f", 0).route, line: 3, column: 2 };
        assert_eq!(passage.origin(&there).to_string(), "f:13:2");
        assert_eq!(passage.below(20).origin(&there).to_string(), "f:23:2");
        assert_eq!(passage.origin(&Written { line: 0, column: 0, ..there }).to_string(), "f");
        assert_eq!(passage.below(20).address(), passage.address());
    }

    #[test]
    fn equal_routes_become_the_known_value_and_others_stay() {
        let (old, new) = (claim("a", "f", 1), claim("a", "f", 1));
        let other = claim("b", "f", 2);
        let claims: Claims = [new, other.clone()].into_iter().collect();
        let passage = &claims.passages()[0];
        let known = |id: &str| (id == "a").then_some(&old.route);
        let reused = passage.reusing(known).unwrap();
        assert!(Arc::ptr_eq(&reused.written()[0].route, &old.route));
        assert!(Arc::ptr_eq(&reused.written()[1].route, &other.route));
        assert_eq!(reused, *passage);
        assert_eq!(reused.reusing(known), None);
    }
}
