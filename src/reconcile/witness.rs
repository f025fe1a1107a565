//! What is seen of the backends of routes, put into the routes of a new table.
//!
//! Words are few and change rarely, tables are many. So a passage with words in it is kept, and
//! made again only when it or the words have changed.

use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;

use tokio::sync::watch;

use crate::routing::claims::{Claims, Passage};
use crate::routing::snapshot::Snapshot;
use crate::routing::words::Words;

/// Who hears what is seen.
#[derive(Debug, Default)]
pub(super) struct Witness {
    words: Option<watch::Receiver<Words>>,
    /// The words that are in what is kept.
    put: Words,
    /// By the addresses of passages as they were told, which are held so that no other one gets
    /// their address: what they are with the words, if these say anything of them.
    kept: HashMap<usize, (Passage, Option<Passage>)>,
}

impl Witness {
    pub(super) fn new(words: watch::Receiver<Words>) -> Self {
        Self { words: Some(words), ..Self::default() }
    }

    /// Waits until something new is seen.
    pub(super) async fn wait(&mut self) {
        if let Some(words) = &mut self.words
            && words.changed().await.is_ok()
        {
            return;
        }
        // Nobody looks, or nobody looks any more.
        self.words = None;
        pending::<()>().await;
    }

    /// Puts the newest words into the routes of all sets.
    pub(super) fn put_into<'a>(
        &mut self,
        sets: impl Iterator<Item = &'a Claims>,
        old: &Snapshot,
    ) -> Vec<Claims> {
        let words = self.words.as_mut().map(|words| words.borrow_and_update().clone());
        let words = words.unwrap_or_else(|| self.put.clone());
        let before = std::mem::take(&mut self.kept);
        let is_same = words.are(&self.put);
        if words.are_none() {
            // Nor is anything to be kept, where nobody looks.
            self.put = words;
            return sets.cloned().collect();
        }
        let known = |id: &str| old.by_id(id).map(|written| &written.route);
        let mut put_into = |passage: &Passage| {
            let kept = before.get(&passage.address());
            let seen = match kept {
                Some((_, seen)) if is_same => seen.clone(),
                _ => {
                    let seen = words.put_into(passage, known);
                    let kept = kept.and_then(|(_, seen)| seen.as_ref());
                    // What says the same stays the same passage.
                    seen.map(|seen| {
                        kept.filter(|kept| is_alike(kept, &seen)).map_or(seen, Clone::clone)
                    })
                }
            };
            self.kept.insert(passage.address(), (passage.clone(), seen.clone()));
            seen.map_or_else(|| passage.clone(), |seen| seen.at_the_place_of(passage))
        };
        let sets = sets.map(|set| set.passages().iter().map(&mut put_into).collect());
        let sets = sets.collect();
        self.put = words;
        sets
    }
}

/// Whether two passages hold the very same routes.
fn is_alike(one: &Passage, other: &Passage) -> bool {
    let (one, other) = (one.written(), other.written());
    one.len() == other.len()
        && one.iter().zip(other).all(|(one, other)| Arc::ptr_eq(&one.route, &other.route))
}
