//! Rounds in which something fails: what was done is told, and nobody else is held up.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mse_proxy::admission::Settings;
use mse_proxy::admission::certificate::Roots;
use mse_proxy::hostname::Hostname;
use mse_proxy::registrar::{Error, Event, Registrar};
use mse_proxy::registry::app::Phase;
use mse_proxy::resolve::records::{Answer as Records_, Records};
use mse_proxy::store::{
    self, Answer, Change, Committed, Entry, Range, Revision, Shared, Store, Transaction, Watch,
};
use tokio::sync::Barrier;
use tokio::time::timeout;

use crate::routed::{KIND, PATIENCE, PROXY};
use crate::support::{Memory, application, at, default, done, fleet_on};

/// A store that is away after so many writes.
#[derive(Debug)]
struct Lasting {
    store: Arc<Memory>,
    writes: AtomicUsize,
}

impl Store for Lasting {
    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Entry>> {
        self.store.get(key)
    }

    fn range<'a>(&'a self, prefix: &'a str) -> Answer<'a, Range> {
        self.store.range(prefix)
    }

    fn commit(&self, transaction: Transaction) -> Answer<'_, Committed> {
        let left = self
            .writes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        match left {
            Ok(_) => self.store.commit(transaction),
            Err(_) => Box::pin(async { Err(store::Error::Refused("it is away".to_owned())) }),
        }
    }

    fn watch<'a>(&'a self, key: &'a str, after: Revision) -> Answer<'a, Box<dyn Watch>> {
        self.store.watch(key, after)
    }

    fn most_changes(&self) -> usize {
        self.store.most_changes()
    }
}

#[tokio::test]
async fn what_was_done_before_the_store_went_away_is_told() {
    let memory = Arc::new(Memory::default());
    let writes = AtomicUsize::new(usize::MAX);
    let lasting = Arc::new(Lasting { store: Arc::clone(&memory), writes });
    let fleet = fleet_on(Arc::clone(&lasting) as Shared, 1).await;
    fleet.one.unpaid(&default(), at(0), (at(0), None)).await.unwrap();
    let suspended_at = at(7 * 24);
    let remind = |number| Event::Reminded { project: default(), number, suspended_at };
    lasting.writes.store(2, Ordering::Relaxed);
    let round = fleet.one.keep_up(at(8 * 24)).await;
    assert_eq!(round.events, [remind(1), remind(2)]);
    assert!(matches!(round.failed, Some(Error::Store(_))), "{:?}", round.failed);
    lasting.writes.store(usize::MAX, Ordering::Relaxed);
    let told = done(fleet.other.keep_up(at(8 * 24)).await);
    assert_eq!(told, [remind(3), Event::Suspended { project: default() }]);
}

#[tokio::test]
async fn a_project_that_cannot_be_swept_holds_up_no_other() {
    let store = Arc::new(Memory::default());
    let fleet = fleet_on(Arc::clone(&store) as Shared, 1).await;
    fleet.one.deploy(&application("a", KIND, None), false, at(0)).await.unwrap().app.unwrap();
    // One that comes first.
    let first = "a-broken".parse().unwrap();
    fleet.one.create_project(&first, "t", at(0)).await.unwrap();
    for project in [&first, &default()] {
        fleet.one.unpaid(project, at(0), (at(0), None)).await.unwrap();
    }
    let broken = Change { key: "apps/a-broken/x".to_owned(), value: Some(b"{}".to_vec()) };
    store.commit(Transaction { checks: vec![], changes: vec![broken] }).await.unwrap();
    let round = fleet.one.keep_up(at(8 * 24)).await;
    assert!(matches!(round.failed, Some(Error::Unreadable(_))), "{:?}", round.failed);
    assert!(round.events.contains(&Event::Suspended { project: first }));
    assert!(round.events.contains(&Event::Suspended { project: default() }));
    let app = fleet.one.app(&default(), &"a".parse().unwrap()).await.unwrap().record;
    assert_eq!(app.phase, Phase::Stopped);
}

/// DNS that answers nobody before so many have asked.
#[derive(Debug)]
struct Meeting(Barrier);

impl Records for Meeting {
    async fn alias(&self, _: &Hostname) -> Records_<Hostname> {
        self.0.wait().await;
        Records_::Found(vec![PROXY.parse().unwrap()])
    }

    async fn addresses(&self, _: &Hostname) -> Records_<IpAddr> {
        Records_::NoRecord
    }

    async fn texts(&self, _: &Hostname) -> Records_<String> {
        Records_::NoRecord
    }
}

#[tokio::test]
async fn a_domain_whose_servers_are_slow_does_not_keep_others_from_being_asked_for() {
    let store: Shared = Arc::new(Memory::default());
    let fleet = fleet_on(Arc::clone(&store), 2).await;
    for name in ["a", "b"] {
        let domain = format!("{name}.test");
        fleet.dns.alias(&domain, None);
        let wish = application(name, KIND, Some(&domain));
        fleet.one.deploy(&wish, false, at(0)).await.unwrap().app.unwrap();
    }
    let dns = Meeting(Barrier::new(2));
    let registrar = Registrar::new(store, dns, Settings::default(), Roots::default());
    let round = timeout(PATIENCE, registrar.check_domains(at(1))).await.unwrap();
    assert_eq!(done(round).len(), 2, "both gates open");
}
