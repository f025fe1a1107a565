//! The last known addresses of backends that are written as names.
//!
//! A task beside the data path asks DNS for every name that the table mentions, at once when it
//! appears and again every 30 s; a connection only reads what is known. When DNS fails, the
//! last good answer stays.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tracing::{info, warn};

use crate::endpoint::Endpoint;
use crate::hostname::Hostname;
use crate::resolve::Resolve;
use crate::routing::table::Table;

/// How long an answer is good for: `getaddrinfo` does not tell a TTL, and 30 s is what failover
/// records commonly use.
const REFRESH: Duration = Duration::from_secs(30);
/// How many questions are asked at once.
const AT_ONCE: usize = 16;

/// What DNS said last.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    known: Arc<DashMap<Hostname, Arc<[IpAddr]>>>,
}

impl Addresses {
    /// The last known addresses of a name, if it ever had any.
    #[must_use]
    pub fn known(&self, name: &Hostname) -> Option<Arc<[IpAddr]>> {
        self.known.get(name).map(|addresses| Arc::clone(&addresses))
    }

    /// Keeps the addresses of all names in the table fresh, until the table has no publisher.
    pub async fn keep_fresh(&self, table: Table, resolver: impl Resolve) {
        let mut changes = table.subscribe();
        loop {
            changes.mark_unchanged();
            let names = names_in(&table);
            self.known.retain(|name, _| names.contains(name));
            let refresh = tokio::time::sleep(REFRESH);
            self.ask(names, &resolver).await;
            tokio::select! {
                () = refresh => {}
                told = changes.changed() => if told.is_err() { return },
            }
        }
    }

    async fn ask(&self, names: HashSet<Hostname>, resolver: &impl Resolve) {
        let mut names = names.into_iter();
        let question = |name: Hostname| async {
            let answer = resolver.addresses(&name).await;
            (name, answer)
        };
        let mut asked: FuturesUnordered<_> = names.by_ref().take(AT_ONCE).map(question).collect();
        while let Some((name, answer)) = asked.next().await {
            match answer {
                Ok(addresses) => self.learn(name, &addresses),
                Err(error) => {
                    let known = self.known.contains_key(&name);
                    warn!(backend = %name, %error, known, "DNS gave no address for a backend");
                }
            }
            asked.extend(names.next().map(question));
        }
    }

    fn learn(&self, name: Hostname, addresses: &[IpAddr]) {
        if self.known(&name).as_deref() != Some(addresses) {
            info!(backend = %name, ?addresses, "DNS told where a backend is");
            self.known.insert(name, addresses.into());
        }
    }
}

fn names_in(table: &Table) -> HashSet<Hostname> {
    let current = table.current();
    let endpoints = current.snapshot.claims().flat_map(|claim| &claim.route.backends);
    let names = endpoints.filter_map(|endpoint| match endpoint {
        Endpoint::Name(name, _) => Some(name.clone()),
        Endpoint::Ip(_) | Endpoint::Unix(_) => None,
    });
    names.collect()
}
