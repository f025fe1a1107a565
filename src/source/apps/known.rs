//! What is known of projects, apps and domains, by their keys, and the routes that follow.
//!
//! Apps lie on shelves, by a hash of their keys, and the routes of a shelf are one passage: a change
//! makes the passages of the shelves anew that it concerns, and all others stay the values that they
//! were, which whoever takes sets knows by their addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use super::NAME;
use crate::registry::app::{App, Phase};
use crate::registry::domain::Domain;
use crate::registry::project::Project;
use crate::registry::record::{
    APPS, Held, PROJECTS, Record, Unreadable, apps_of_key, domain_key, project_key,
};
use crate::registry::routed::routes;
use crate::routing::claims::{Claims, Passage, Written};
use crate::source::fault::FaultKind;
use crate::store::{Change, Entry, Revision};

/// How many shelves there are: with 100,000 apps some 200 stand on each, whose routes are made
/// within a millisecond, and finding out what changed costs a step a shelf.
const SHELVES: u64 = 512;

/// What is known of a store.
#[derive(Debug, Default)]
pub(super) struct Known {
    projects: BTreeMap<String, Project>,
    shelves: BTreeMap<u64, Shelf>,
    domains: BTreeMap<String, Domain>,
    /// The apps that have or had a domain, by its key.
    claimants: BTreeMap<String, BTreeSet<String>>,
    initializing: BTreeMap<String, App>,
    /// What cannot be read, by its key.
    pub(super) faults: BTreeMap<String, FaultKind>,
    /// The newest transaction that it knows.
    pub(super) revision: Revision,
}

#[derive(Debug, Default)]
struct Shelf {
    apps: BTreeMap<String, App>,
    /// None, if something has changed since.
    passage: Option<Passage>,
}

impl Known {
    pub(super) fn is_empty(&self) -> bool {
        self.projects.is_empty()
            && self.shelves.is_empty()
            && self.domains.is_empty()
            && self.faults.is_empty()
    }

    /// How many apps there are.
    pub(super) fn apps(&self) -> usize {
        self.shelves.values().map(|shelf| shelf.apps.len()).sum()
    }

    /// The apps that initialize and are somewhere.
    pub(super) fn initializing(&self) -> Arc<[App]> {
        self.initializing.values().cloned().collect()
    }

    /// Takes over a change.
    pub(super) fn take(&mut self, Change { key, value }: Change, revision: Revision) {
        self.revision = self.revision.max(revision);
        self.faults.remove(&key);
        let taken = if key.starts_with(PROJECTS) {
            self.touch_project(&key);
            put(&mut self.projects, key, value)
        } else if key.starts_with(APPS) {
            self.take_app(key, value)
        } else {
            self.touch_claimants(&key);
            put(&mut self.domains, key, value)
        };
        if let Err(Unreadable { key, why }) = taken {
            self.faults.insert(key, FaultKind::Record(why));
        }
    }

    fn take_app(&mut self, key: String, value: Option<Vec<u8>>) -> Result<(), Unreadable> {
        self.forget_app(&key);
        let Some(value) = value else { return Ok(()) };
        let app: App = read(&key, value)?;
        if let Some(host) = app.custom_domain() {
            self.claimants.entry(domain_key(host)).or_default().insert(key.clone());
        }
        if app.phase == Phase::Initializing && app.backend.is_some() {
            self.initializing.insert(key.clone(), app.clone());
        }
        let one = self.shelves.entry(number(&key)).or_default();
        one.passage = None;
        one.apps.insert(key, app);
        Ok(())
    }

    fn forget_app(&mut self, key: &str) {
        self.initializing.remove(key);
        let Some(one) = self.shelves.get_mut(&number(key)) else { return };
        let Some(app) = one.apps.remove(key) else { return };
        one.passage = None;
        if one.apps.is_empty() {
            self.shelves.remove(&number(key));
        }
        let Some(domain) = app.custom_domain().map(domain_key) else { return };
        let Some(claimants) = self.claimants.get_mut(&domain) else { return };
        claimants.remove(key);
        if claimants.is_empty() {
            self.claimants.remove(&domain);
        }
    }

    /// Something has changed for all apps of a project.
    fn touch_project(&mut self, project: &str) {
        let Some(prefix) = apps_of_key(project) else { return };
        for shelf in self.shelves.values_mut() {
            let first = shelf.apps.range(prefix.clone()..).next();
            if first.is_some_and(|(key, _)| key.starts_with(&prefix)) {
                shelf.passage = None;
            }
        }
    }

    /// Something has changed for all apps of a domain.
    fn touch_claimants(&mut self, domain: &str) {
        for app in self.claimants.get(domain).into_iter().flatten() {
            if let Some(shelf) = self.shelves.get_mut(&number(app)) {
                shelf.passage = None;
            }
        }
    }

    /// The routes of all apps.
    pub(super) fn claims(&mut self) -> Claims {
        let Self { projects, shelves, domains, .. } = self;
        let passages = shelves.values_mut().map(|Shelf { apps, passage }| {
            passage.get_or_insert_with(|| passage_of(apps.values(), projects, domains)).clone()
        });
        passages.collect()
    }
}

fn passage_of<'a>(
    apps: impl Iterator<Item = &'a App>,
    projects: &BTreeMap<String, Project>,
    domains: &BTreeMap<String, Domain>,
) -> Passage {
    let routes = apps.flat_map(|app| {
        let project = projects.get(&project_key(&app.project));
        let domain = app.custom_domain().and_then(|host| domains.get(&domain_key(host)));
        routes(app, project, domain)
    });
    let written = routes.map(|route| Written { route, line: 0, column: 0 });
    Passage::new(&NAME.into(), 0, written.collect())
}

/// The shelf of an app: the same on every proxy, so that all tell their routes in one order.
fn number(key: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish() % SHELVES
}

fn put<T: Record>(
    all: &mut BTreeMap<String, T>,
    key: String,
    value: Option<Vec<u8>>,
) -> Result<(), Unreadable> {
    all.remove(&key);
    if let Some(value) = value {
        let record = read(&key, value)?;
        all.insert(key, record);
    }
    Ok(())
}

fn read<T: Record>(key: &str, value: Vec<u8>) -> Result<T, Unreadable> {
    let entry = Entry { key: key.to_owned(), value, revision: 0 };
    Ok(Held::read(&entry)?.record)
}
