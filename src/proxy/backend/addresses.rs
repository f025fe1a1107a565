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
use tokio::time::{MissedTickBehavior, interval};
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
        let mut asked: HashSet<Hostname> = HashSet::new();
        let mut refresh = interval(REFRESH);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // A table may change many times a second: only new names are asked for at once.
            tokio::select! {
                _ = refresh.tick() => asked.clear(),
                told = changes.changed() => if told.is_err() { return },
            }
            let names = names_in(&table);
            self.known.retain(|name, _| names.contains(name));
            asked.retain(|name| names.contains(name));
            let fresh: Vec<_> = names.into_iter().filter(|name| !asked.contains(name)).collect();
            asked.extend(fresh.iter().cloned());
            self.ask(fresh, &resolver).await;
        }
    }

    async fn ask(&self, names: Vec<Hostname>, resolver: &impl Resolve) {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io;
    use std::sync::Mutex;

    use super::*;
    use crate::routing::few::Few;
    use crate::routing::route::{Claim, Origin, Route, Terms};
    use crate::routing::snapshot::Snapshot;
    use crate::routing::table::table;

    /// Counts what it is asked; names that begin with `no` have no address.
    #[derive(Debug, Default, Clone)]
    struct Counting(Arc<Mutex<BTreeMap<String, usize>>>);

    impl Resolve for Counting {
        async fn addresses(&self, name: &Hostname) -> io::Result<Vec<IpAddr>> {
            *self.0.lock().unwrap().entry(name.to_string()).or_default() += 1;
            if name.as_str().starts_with("no") {
                return Err(io::ErrorKind::NotFound.into());
            }
            Ok(vec!["10.0.0.1".parse().unwrap()])
        }
    }

    fn snapshot(backends: &[&str]) -> Snapshot {
        let claim = |name: &&str| {
            let backend = Endpoint::Name(name.parse().unwrap(), 1);
            let route = Route::new((*name).into(), Few::default(), vec![backend], Terms::default());
            let origin = Origin { source: "t".into(), line: 0, column: 0 };
            Claim { route: Arc::new(route), origin }
        };
        Snapshot::build(backends.iter().map(claim)).0
    }

    #[tokio::test(start_paused = true)]
    async fn however_often_the_table_changes_a_name_is_asked_for_once_until_it_is_due() {
        let (mut publisher, table) = table();
        let (addresses, counting) = (Addresses::default(), Counting::default());
        let (keeper, resolver) = (addresses.clone(), counting.clone());
        let task = tokio::spawn(async move { keeper.keep_fresh(table, resolver).await });
        let counts = || counting.0.lock().unwrap().clone();
        for round in 0..100 {
            let names: &[&str] =
                if round < 50 { &["a.test", "no.test"] } else { &["a.test", "b.test"] };
            publisher.publish(snapshot(names));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let once = ["a.test", "b.test", "no.test"].map(|name| (name.to_owned(), 1));
        assert_eq!(counts(), BTreeMap::from(once));
        assert!(addresses.known(&"a.test".parse().unwrap()).is_some());
        tokio::time::sleep(REFRESH * 2).await;
        let later = [("a.test", 3), ("b.test", 3), ("no.test", 1)];
        assert_eq!(counts(), later.map(|(name, count)| (name.to_owned(), count)).into());
        // What is no longer named is forgotten.
        publisher.publish(snapshot(&[]));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(addresses.known(&"a.test".parse().unwrap()).is_none());
        drop(publisher);
        task.abort();
    }
}
