//! What somebody wants of the stored routes, and what that changes.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use crate::registry::digest::digest;
use crate::registry::image::{Image, Value};
use crate::registry::refusal::MAX_REQUEST_ID;
use crate::routing::route::Route;
use crate::routing::text;
use crate::store::Revision;

/// What somebody wants.
#[derive(Debug, Clone)]
pub struct Request {
    /// Who repeats a request with the same id gets the first one's answer; may be empty.
    pub id: String,
    /// Who asks, in words.
    pub by: String,
    /// What for.
    pub wish: Wish,
}

/// What is to be changed.
#[derive(Debug, Clone)]
pub enum Wish {
    /// A route is created, or takes the place of the one with its id.
    Set {
        /// The route.
        route: Arc<Route>,
        /// The revision that it must have; 0: there must be none.
        if_revision: Option<Revision>,
    },
    /// A route is removed.
    Remove {
        /// Its id.
        id: Arc<str>,
        /// The revision that it must have.
        if_revision: Option<Revision>,
    },
    /// The stored routes become exactly these.
    Apply {
        /// The routes, in any order.
        routes: Vec<Arc<Route>>,
        /// Nothing may have been written after this revision.
        if_revision: Option<Revision>,
        /// Whether as many may go as it takes.
        allow_removal: bool,
        /// What becomes of the others.
        others: Others,
    },
}

/// What becomes of stored routes that an Apply does not name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Others {
    /// They go.
    Go,
    /// They stay, but for these.
    StayBut(BTreeSet<Arc<str>>),
}

impl Others {
    /// Whether one of them goes.
    #[must_use]
    pub fn goes(&self, id: &str) -> bool {
        match self {
            Self::Go => true,
            Self::StayBut(these) => these.contains(id),
        }
    }
}

/// One route that changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its id.
    pub id: Arc<str>,
    /// What was stored.
    pub before: Option<Value>,
    /// What is stored from then on.
    pub after: Option<Arc<Route>>,
}

/// What comes of a request, once its transaction is durable.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Effect {
    /// What changes, by the ids.
    pub differences: Vec<Difference>,
    /// How many of the routes that were asked for are so already.
    pub unchanged: u64,
    /// If nothing changes: the revision of what is there.
    pub standing: Option<Revision>,
}

impl Request {
    /// Whether its id is none, or one that can be kept.
    #[must_use]
    pub fn has_good_id(&self) -> bool {
        !self.id.contains(char::is_control) && self.id.chars().count() <= MAX_REQUEST_ID
    }
}

impl Wish {
    /// Tells two wishes apart.
    #[must_use]
    pub fn digest(&self) -> String {
        let whole = match self {
            Self::Set { route, if_revision } => {
                format!("set {if_revision:?}\n{}{}", route.id, text::write(route))
            }
            Self::Remove { id, if_revision } => format!("remove {if_revision:?}\n{id}"),
            Self::Apply { routes, if_revision, allow_removal, others } => {
                let mut texts: Vec<_> = routes
                    .iter()
                    .map(|route| format!("{}{}", route.id, text::write(route)))
                    .collect();
                texts.sort_unstable();
                format!("apply {if_revision:?} {allow_removal} {others:?}\n{}", texts.concat())
            }
        };
        digest(whole.as_bytes())
    }
}

/// What changes if these become stored routes, and of the others what is said.
#[must_use]
pub fn differences(image: &Image, routes: &[Arc<Route>], leftover: &Others) -> Effect {
    let wanted: BTreeMap<&str, &Arc<Route>> =
        routes.iter().map(|route| (&*route.id, route)).collect();
    let mut effect = Effect::default();
    let stored =
        image.routes().map(|(route, _)| (Arc::clone(&route.id), Value::Route(Arc::clone(route))));
    let others =
        image.unreadable().filter_map(|(id, _)| Some((Arc::clone(id), image.of(id)?.value)));
    let mut known = HashSet::new();
    for (id, before) in stored.chain(others) {
        let after = wanted.get(&*id).map(|route| Arc::clone(route));
        known.insert(Arc::clone(&id));
        match (&before, &after) {
            (Value::Route(before), Some(after)) if before == after => effect.unchanged += 1,
            (_, None) if !leftover.goes(&id) => {}
            _ => effect.differences.push(Difference { id, before: Some(before), after }),
        }
    }
    let fresh = wanted.iter().filter(|(id, _)| !known.contains(**id));
    effect.differences.extend(fresh.map(|(_, route)| Difference {
        id: Arc::clone(&route.id),
        before: None,
        after: Some(Arc::clone(route)),
    }));
    effect.differences.sort_unstable_by(|one, other| one.id.cmp(&other.id));
    effect
}
