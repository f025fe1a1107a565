//! Routes that have TLS ended for names of which no certificate is good: told when the table or the
//! certificates change, before a client finds out.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};

use crate::clock::{Clock, Timestamp};
use crate::hostname::Pattern;
use crate::proxy::terminate::certificates::{Bare, Certificates, Set};
use crate::routing::route::Phase;
use crate::routing::snapshot::Snapshot;
use crate::routing::table::Table;

/// How often it is looked at when nothing changes: certificates also end by themselves.
const LOOK: Duration = Duration::from_secs(30);
/// How many are logged of one change.
const MAX_LOGGED: usize = 10;

/// Tells them, until the table has no publisher.
pub async fn keep_told(certificates: Certificates, table: Table, clock: Arc<dyn Clock>) {
    let (mut tables, mut sets) = (table.subscribe(), certificates.subscribe());
    let mut known = HashSet::new();
    // What was not read yet may be good.
    if sets.wait_for(|are_expected| !are_expected).await.is_err() {
        return;
    }
    loop {
        tables.mark_unchanged();
        sets.mark_unchanged();
        let (set, now) = (certificates.current(), clock.now());
        let snapshot = table.current().snapshot;
        // There may be a million routes.
        let looked = tokio::task::spawn_blocking(move || all(&snapshot, &set, now)).await;
        let bare: Arc<[Bare]> = match looked {
            Ok(bare) => bare.into(),
            Err(error) => return error!(%error, "routes without a certificate are told no more"),
        };
        tell(&mut known, &bare);
        certificates.tell_bare(bare);
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            told = tables.changed() => if told.is_err() { return },
            // Ends no sooner than we let go of the certificates.
            _ = sets.changed() => {}
        }
    }
}

/// Logs what was not known before.
fn tell(known: &mut HashSet<Bare>, bare: &[Bare]) {
    let fresh: Vec<_> = bare.iter().filter(|one| !known.contains(*one)).collect();
    for Bare { route, pattern } in fresh.iter().take(MAX_LOGGED) {
        warn!(%route, "no certificate is good for {pattern}: its clients are refused");
    }
    if let Some(more @ 1..) = fresh.len().checked_sub(MAX_LOGGED) {
        warn!(more, "there are more names of which no certificate is good");
    }
    let now: HashSet<_> = bare.iter().cloned().collect();
    let mended = known.difference(&now).count();
    if mended > 0 {
        info!(mended, left = now.len(), "names without a certificate have one now, or are gone");
    }
    *known = now;
}

/// All of them, by their routes.
fn all(snapshot: &Snapshot, set: &Set, now: Timestamp) -> Vec<Bare> {
    let (mut bare, mut wild) = (Vec::new(), Vec::new());
    let routes = snapshot.claims().map(|written| &written.route);
    let open =
        routes.filter(|route| route.termination().is_some() && route.phase(now) != Phase::Expired);
    for route in open {
        for pattern in &route.hosts {
            let one = || Bare { route: Arc::clone(&route.id), pattern: pattern.clone() };
            match pattern {
                Pattern::Exact(name) if set.find(name, now).is_some() => {}
                Pattern::Exact(_) => bare.push(one()),
                Pattern::OneLabel(_) | Pattern::AnyDepth(_) => wild.push(one()),
            }
        }
    }
    if !wild.is_empty() {
        let below = Below::of(set, &wild, now);
        bare.extend(wild.iter().filter(|one| !below.answers(&one.pattern)).cloned());
    }
    bare.sort_by(|one, other| one.route.cmp(&other.route));
    bare
}

/// Under which names, of those that are asked about, anything can be answered.
struct Below {
    one_label: HashSet<String>,
    any_depth: HashSet<String>,
}

impl Below {
    fn of(set: &Set, wild: &[Bare], now: Timestamp) -> Self {
        let asked: HashSet<&str> = wild.iter().map(|one| one.pattern.name().as_str()).collect();
        let (mut one_label, mut any_depth) = (HashSet::new(), HashSet::new());
        for pair in set.pairs().iter().filter(|pair| pair.is_valid(now)) {
            for pattern in &pair.names {
                let name = pattern.name();
                let itself = (!matches!(pattern, Pattern::Exact(_))).then(|| name.as_str());
                // What lies one label above comes first.
                for (far, parent) in itself.into_iter().chain(name.parents()).enumerate() {
                    if asked.contains(parent) {
                        any_depth.insert(parent.to_owned());
                        if far == 0 {
                            one_label.insert(parent.to_owned());
                        }
                    }
                }
            }
        }
        Self { one_label, any_depth }
    }

    fn answers(&self, pattern: &Pattern) -> bool {
        let names = match pattern {
            Pattern::AnyDepth(_) => &self.any_depth,
            Pattern::Exact(_) | Pattern::OneLabel(_) => &self.one_label,
        };
        names.contains(pattern.name().as_str())
    }
}
