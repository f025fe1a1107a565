//! Who gets what: names, seats and domains, of which each has one owner whoever is faster; and what
//! is judged without being written.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mse_proxy::admission::refusal::{Refusal, WhyProof};
use mse_proxy::registrar::{Application, Decision, Error, Event};
use mse_proxy::registry::app::Phase;
use mse_proxy::registry::hardware::HardwareError;
use mse_proxy::registry::names::ProjectName;
use mse_proxy::store::embedded::Embedded;
use mse_proxy::store::{
    Answer, Change, Committed, Entry, Range, Revision, Shared, Store, Transaction, Watch,
};
use tokio::sync::Barrier;
use tokio::time::timeout;

use crate::etcd::Server;
use crate::routed::{KIND, PATIENCE, PROXY};
use crate::support::{Fleet, Memory, application, at, default, done, fleet, fleet_on};

const FREE: &str = "4g-eu-001";

/// Both applications at once, each by a proxy of its own; the one that won, and what the other was told.
async fn race(fleet: &Fleet, applications: [Application; 2]) -> (Decision, Vec<Refusal>) {
    let [one, other] = applications;
    let race = [(&fleet.one, one), (&fleet.other, other)].map(|(registrar, application)| {
        let registrar = Arc::clone(registrar);
        tokio::spawn(async move { registrar.deploy(&application, false, at(0)).await })
    });
    let mut decisions = Vec::new();
    for racer in race {
        decisions.push(racer.await.unwrap().unwrap());
    }
    let is_winner = |decision: &Decision| decision.app.is_some();
    let (mut won, mut lost): (Vec<_>, Vec<_>) = decisions.into_iter().partition(is_winner);
    assert_eq!((won.len(), lost.len()), (1, 1), "{won:?} {lost:?}");
    (won.remove(0), lost.remove(0).verdict.refusals)
}

async fn second(fleet: &Fleet) -> ProjectName {
    let name = "second".parse().unwrap();
    fleet.one.create_project(&name, "other", at(0)).await.unwrap();
    name
}

/// The same for another project.
fn of(project: &ProjectName, mut application: Application) -> Application {
    application.manifest.cloud.project = project.clone();
    application
}

#[tokio::test]
async fn of_two_deployments_of_one_name_exactly_one_wins() {
    for _ in 0..20 {
        let fleet = fleet(2).await;
        let places = ["10.0.0.1:1", "10.0.0.2:2"];
        let wishes = places.map(|place| Application {
            backend: place.parse().ok(),
            ..application("a", KIND, None)
        });
        let (won, told) = race(&fleet, wishes).await;
        assert!(matches!(told.as_slice(), [Refusal::NameTaken { .. }]), "{told:?}");
        let stored = fleet.one.app(&default(), &"a".parse().unwrap()).await.unwrap();
        assert_eq!(Some(stored), won.app, "nobody has written over it");
    }
}

#[tokio::test]
async fn of_two_projects_that_want_one_domain_exactly_one_wins() {
    for _ in 0..20 {
        let fleet = fleet(1).await;
        fleet.dns.alias("shop.test", Some(PROXY));
        let project = second(&fleet).await;
        let wishes = [
            application("a", KIND, Some("shop.test")),
            of(&project, application("b", FREE, Some("shop.test"))),
        ];
        let (won, told) = race(&fleet, wishes).await;
        assert!(matches!(told.as_slice(), [Refusal::DomainTaken { .. }]), "{told:?}");
        let domain = fleet.one.domain(&"shop.test".parse().unwrap()).await.unwrap().record;
        let app = won.app.unwrap().record;
        assert_eq!((domain.project, domain.app), (app.project, app.name));
    }
}

/// A store on which two transactions meet: neither is written before both are planned.
#[derive(Debug)]
struct Abreast {
    store: Shared,
    meet: Barrier,
    /// How many there are left that meet.
    left: AtomicUsize,
}

impl Store for Abreast {
    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Entry>> {
        self.store.get(key)
    }

    fn range<'a>(&'a self, prefix: &'a str) -> Answer<'a, Range> {
        self.store.range(prefix)
    }

    fn commit(&self, transaction: Transaction) -> Answer<'_, Committed> {
        Box::pin(async move {
            let meets = |left: usize| left.checked_sub(1);
            if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, meets).is_ok() {
                timeout(PATIENCE, self.meet.wait()).await.unwrap();
            }
            self.store.commit(transaction).await
        })
    }

    fn watch<'a>(&'a self, key: &'a str, after: Revision) -> Answer<'a, Box<dyn Watch>> {
        self.store.watch(key, after)
    }

    fn most_changes(&self) -> usize {
        self.store.most_changes()
    }
}

/// Two projects that claim what some client could mean as one, when neither can know of the other.
async fn nobody_slips_past_the_other(store: Shared) {
    let (meet, left) = (Barrier::new(2), AtomicUsize::new(0));
    let abreast = Arc::new(Abreast { store, meet, left });
    let fleet = fleet_on(Arc::clone(&abreast) as Shared, 20).await;
    let project = second(&fleet).await;
    fleet.one.book(&project, &KIND.parse().unwrap(), 20, None).await.unwrap();
    let pairs = [("*", "a"), ("a", "*"), ("a", "a"), ("*", "*")];
    for (round, (one, other)) in (0..3).flat_map(|_| pairs).enumerate() {
        for label in ["a", "mse-proxy-check"] {
            fleet.dns.alias(&format!("{label}.zone{round}.test"), Some(PROXY));
        }
        let [one, other] = [one, other].map(|label| format!("{label}.zone{round}.test"));
        let name = format!("app{round}");
        let wishes = [
            application(&name, KIND, Some(&one)),
            of(&project, application(&name, KIND, Some(&other))),
        ];
        abreast.left.store(2, Ordering::Relaxed);
        let (won, told) = race(&fleet, wishes).await;
        let is_told = match told.as_slice() {
            [Refusal::DomainTaken { .. }] => one == other,
            [Refusal::NotProven { why: WhyProof::Overlaps(host), .. }] => {
                won.app.unwrap().record.custom_domain() == Some(host)
            }
            _ => false,
        };
        assert!(is_told, "{one} {other} {told:?}");
    }
}

#[tokio::test]
async fn a_wildcard_and_a_name_below_it_go_to_one_project_alone() {
    nobody_slips_past_the_other(Arc::new(Memory::default())).await;
}

#[tokio::test]
async fn a_wildcard_and_a_name_below_it_go_to_one_project_alone_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(&folder.path().join("store.db")).unwrap();
    nobody_slips_past_the_other(Arc::new(store)).await;
}

#[tokio::test]
async fn a_wildcard_and_a_name_below_it_go_to_one_project_alone_in_a_fleet() {
    let server = Server::start(&[]);
    nobody_slips_past_the_other(server.open()).await;
}

#[tokio::test]
async fn names_that_nobody_could_confuse_do_not_hold_up_each_other() {
    let store = Arc::new(Memory::default()) as Shared;
    let (meet, left) = (Barrier::new(2), AtomicUsize::new(0));
    let abreast = Arc::new(Abreast { store, meet, left });
    let fleet = fleet_on(Arc::clone(&abreast) as Shared, 2).await;
    let project = second(&fleet).await;
    for name in ["a.test", "b.test"] {
        fleet.dns.alias(name, Some(PROXY));
    }
    let one = application("a", KIND, Some("a.test"));
    let other = of(&project, application("b", FREE, Some("b.test")));
    abreast.left.store(3, Ordering::Relaxed);
    let (one, other) = tokio::join!(
        fleet.one.deploy(&one, false, at(0)),
        fleet.other.deploy(&other, false, at(0))
    );
    assert!(one.unwrap().app.is_some() && other.unwrap().app.is_some());
    assert_eq!(abreast.left.load(Ordering::Relaxed), 1, "nobody had to begin anew");
}

#[tokio::test]
async fn a_project_has_one_free_seat_and_that_is_all_it_has_for_nothing() {
    let fleet = fleet(1).await;
    let project = second(&fleet).await;
    let deploy = async |wish: Application, hours| {
        fleet.one.deploy(&wish, false, at(hours)).await.unwrap().verdict.refusals
    };
    assert_eq!(deploy(application("a", FREE, None), 0).await, []);
    let told = deploy(application("b", FREE, None), 3).await;
    assert!(matches!(told.as_slice(), [Refusal::InUse { booked: 1, .. }]), "{told:?}");
    // Each project has its own; and what the one has booked, the other has not.
    assert_eq!(deploy(of(&project, application("a", FREE, None)), 3).await, []);
    let told = deploy(of(&project, application("b", KIND, None)), 3).await;
    assert!(matches!(told.as_slice(), [Refusal::NotBooked { .. }]), "{told:?}");
    // After four hours it is free by itself.
    assert_eq!(deploy(application("b", FREE, None), 4).await, []);
    let kind = FREE.parse().unwrap();
    let refused = Err(Error::Hardware(HardwareError::Free(FREE.parse().unwrap())));
    assert_eq!(fleet.one.book(&default(), &kind, 1, None).await, refused);
    assert_eq!(fleet.one.drop_hardware(&default(), &kind, 1, (at(4), None)).await, refused);
    let app = fleet.one.app(&default(), &"b".parse().unwrap()).await.unwrap().record;
    assert_eq!((app.phase, app.ends_at), (Phase::Spawning, at(8)));
}

#[tokio::test]
async fn what_is_only_judged_or_refused_writes_nothing() {
    let store = Arc::new(Memory::default());
    let fleet = fleet_on(Arc::clone(&store) as Shared, 1).await;
    fleet.dns.alias("shop.test", Some(PROXY));
    let before = store.range("").await.unwrap();
    assert!(!before.entries.is_empty());
    let wish = application("shop", KIND, Some("shop.test"));
    let dry = fleet.one.deploy(&wish, true, at(0)).await.unwrap();
    assert!(dry.verdict.terms.is_some() && dry.app.is_none());
    fleet.dns.alias("shop.test", Some("elsewhere.test"));
    let refused = fleet.one.deploy(&wish, false, at(0)).await.unwrap();
    assert!(refused.verdict.terms.is_none() && refused.app.is_none());
    let after = store.range("").await.unwrap();
    assert_eq!((after.revision, after.entries), (before.revision, before.entries));
}

#[tokio::test]
async fn a_record_that_cannot_be_read_holds_up_nobody_else() {
    let store = Arc::new(Memory::default());
    let fleet = fleet_on(Arc::clone(&store) as Shared, 1).await;
    let wish = application("a", KIND, None);
    fleet.one.deploy(&wish, false, at(0)).await.unwrap().app.unwrap();
    let broken = ["apps/broken/a", "projects/broken", "domains/broken.test", "hardware/broken/a"];
    let changes = broken.map(|key| Change { key: key.to_owned(), value: Some(b"{}".to_vec()) });
    let transaction = Transaction { checks: vec![], changes: changes.into() };
    store.commit(transaction).await.unwrap();
    fleet.one.unpaid(&default(), at(0), (at(0), None)).await.unwrap();
    let told = done(fleet.one.keep_up(at(8 * 24)).await);
    assert_eq!(told.last(), Some(&Event::Suspended { project: default() }), "{told:?}");
    let app = fleet.one.app(&default(), &"a".parse().unwrap()).await.unwrap().record;
    assert_eq!(app.phase, Phase::Stopped, "and in the same round it is stopped");
    assert_eq!(done(fleet.one.check_domains(at(0)).await), []);
}
