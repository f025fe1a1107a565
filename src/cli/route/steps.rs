//! An apply in several transactions, for stores that bound what one may change.
//!
//! A name goes from one route to another within one step, so that it is never without a route
//! and two routes can exchange their names; so a step may be larger than it should be.

use std::collections::HashMap;

use crate::control::proto::Route;
use crate::control::proto::difference::Kind;

/// One route that changes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Move {
    pub(super) id: String,
    pub(super) kind: Kind,
    /// What is wanted; none, if it goes.
    pub(super) route: Option<Route>,
    /// The names that it has now.
    pub(super) held: Vec<String>,
}

/// Puts moves that share names together, and groups into steps of about `size`. Routes that go
/// and have no part in any other move come last.
pub(super) fn steps(moves: Vec<Move>, size: usize) -> Vec<Vec<Move>> {
    let mut groups = Groups::new(moves.len());
    let mut first_with: HashMap<&str, usize> = HashMap::new();
    for (index, one) in moves.iter().enumerate() {
        let wanted = one.route.iter().flat_map(|route| &route.hosts);
        for host in wanted.chain(&one.held) {
            let first = *first_with.entry(host).or_insert(index);
            groups.join(first, index);
        }
    }
    let roots: Vec<usize> = (0..moves.len()).map(|index| groups.root(index)).collect();
    let mut bundles: HashMap<usize, Vec<Move>> = HashMap::new();
    let mut order: Vec<usize> = Vec::new();
    for (root, one) in roots.into_iter().zip(moves) {
        let bundle = bundles.entry(root).or_default();
        if bundle.is_empty() {
            order.push(root);
        }
        bundle.push(one);
    }
    let mut bundles: Vec<Vec<Move>> =
        order.iter().filter_map(|root| bundles.remove(root)).collect();
    bundles.sort_by_key(|bundle| bundle.iter().all(|one| one.kind == Kind::Removed));
    let mut steps: Vec<Vec<Move>> = Vec::new();
    for bundle in bundles {
        match steps.last_mut() {
            Some(step) if step.len() + bundle.len() <= size => step.extend(bundle),
            _ => steps.push(bundle),
        }
    }
    steps
}

/// Which of so many things belong together.
struct Groups(Vec<usize>);

impl Groups {
    fn new(count: usize) -> Self {
        Self((0..count).collect())
    }

    fn root(&mut self, of: usize) -> usize {
        let mut at = of;
        while let Some(next) = self.0.get(at).copied().filter(|next| *next != at) {
            // Halves the way for whoever comes next.
            let beyond = self.0.get(next).copied().unwrap_or(next);
            if let Some(link) = self.0.get_mut(at) {
                *link = beyond;
            }
            at = next;
        }
        at
    }

    fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.root(one), self.root(other));
        if let Some(link) = self.0.get_mut(other) {
            *link = one;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moving(id: &str, held: &[&str], wanted: &[&str]) -> Move {
        let texts = |hosts: &[&str]| hosts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let kind = match (held, wanted) {
            ([], _) => Kind::Added,
            (_, []) => Kind::Removed,
            _ => Kind::Changed,
        };
        let route = Route { id: id.to_owned(), hosts: texts(wanted), ..Route::default() };
        Move {
            id: id.to_owned(),
            kind,
            route: (!wanted.is_empty()).then_some(route),
            held: texts(held),
        }
    }

    fn ids(steps: &[Vec<Move>]) -> Vec<Vec<&str>> {
        steps.iter().map(|step| step.iter().map(|one| one.id.as_str()).collect()).collect()
    }

    #[test]
    fn steps_are_as_large_as_they_may_be() {
        let moves: Vec<_> =
            ["a", "b", "c", "d", "e"].iter().map(|id| moving(id, &[], &[id])).collect();
        assert_eq!(ids(&steps(moves.clone(), 2)), [vec!["a", "b"], vec!["c", "d"], vec!["e"]]);
        assert_eq!(steps(moves, 100).len(), 1);
        assert!(steps(Vec::new(), 2).is_empty());
    }

    #[test]
    fn a_name_is_handed_over_within_one_step() {
        let moves = vec![
            moving("a", &["x"], &["y"]),
            moving("gone", &["z"], &[]),
            moving("b", &[], &["b"]),
            moving("new", &[], &["z"]),
            moving("c", &["y"], &["x"]),
            moving("last", &["l"], &[]),
        ];
        let steps = steps(moves, 2);
        assert_eq!(ids(&steps), [vec!["a", "c"], vec!["gone", "new"], vec!["b", "last"]]);
    }
}
