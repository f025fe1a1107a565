//! A store in memory, DNS with fixed answers, and applications.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use mse_proxy::admission::Settings;
use mse_proxy::admission::certificate::{Chain, KeyFinding, Roots};
use mse_proxy::admission::manifest;
use mse_proxy::hostname::Hostname;
use mse_proxy::registrar::{Application, Event, Registrar, Round};
use mse_proxy::registry::names::ProjectName;
use mse_proxy::resolve::records::{Answer as Records_, Records};
use mse_proxy::store::{
    Answer, Committed, Entry, Error, Range, Revision, Shared, Store, Transaction, Watch,
};
use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

pub(crate) fn at(hours: i64) -> Timestamp {
    "2026-06-01T12:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_hours(hours)
}

/// The contract of a store, but for watching.
#[derive(Debug, Default)]
pub(crate) struct Memory(Mutex<(BTreeMap<String, Entry>, Revision)>);

impl Store for Memory {
    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Entry>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            Ok(self.0.lock().unwrap().0.get(key).cloned())
        })
    }

    fn range<'a>(&'a self, prefix: &'a str) -> Answer<'a, Range> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let held = self.0.lock().unwrap();
            let under = held.0.values().filter(|entry| entry.key.starts_with(prefix));
            Ok(Range { revision: held.1, entries: under.cloned().collect() })
        })
    }

    fn commit(&self, transaction: Transaction) -> Answer<'_, Committed> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let mut held = self.0.lock().unwrap();
            let revision_of = |key: &str| held.0.get(key).map_or(0, |entry: &Entry| entry.revision);
            if !transaction.checks.iter().all(|one| revision_of(&one.key) == one.revision) {
                return Ok(Committed::Conflict);
            }
            held.1 += 1;
            let revision = held.1;
            for change in transaction.changes {
                match change.value {
                    Some(value) => {
                        let entry = Entry { key: change.key.clone(), value, revision };
                        held.0.insert(change.key, entry);
                    }
                    None => drop(held.0.remove(&change.key)),
                }
            }
            Ok(Committed::Done(revision))
        })
    }

    fn watch<'a>(&'a self, _: &'a str, _: Revision) -> Answer<'a, Box<dyn Watch>> {
        Box::pin(async { Err(Error::Refused("nobody watches here".to_owned())) })
    }

    fn most_changes(&self) -> usize {
        128
    }
}

/// DNS with fixed answers: aliases and texts, by name. `None` is a server that is down.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fixed {
    aliases: Arc<Mutex<HashMap<String, Option<String>>>>,
}

impl Fixed {
    /// From now on this is an alias of that, or nobody answers for it.
    pub(crate) fn alias(&self, name: &str, target: Option<&str>) {
        let target = target.map(str::to_owned);
        self.aliases.lock().unwrap().insert(name.to_owned(), target);
    }
}

impl Records for Fixed {
    async fn alias(&self, name: &Hostname) -> Records_<Hostname> {
        match self.aliases.lock().unwrap().get(name.as_str()) {
            Some(Some(target)) => Records_::Found(vec![target.parse().unwrap()]),
            Some(None) => Records_::Unanswered("down".to_owned()),
            None => Records_::NoSuchName,
        }
    }

    async fn addresses(&self, _: &Hostname) -> Records_<IpAddr> {
        Records_::NoRecord
    }

    async fn texts(&self, _: &Hostname) -> Records_<String> {
        Records_::NoRecord
    }
}

/// Two proxies of a fleet, with one store.
pub(crate) struct Fleet {
    pub(crate) one: Arc<Registrar<Fixed>>,
    pub(crate) other: Arc<Registrar<Fixed>>,
    pub(crate) dns: Fixed,
}

/// A fleet that knows the project `default`, with so much hardware of one kind.
pub(crate) async fn fleet(booked: u32) -> Fleet {
    fleet_on(Arc::new(Memory::default()), booked).await
}

/// The same on a store of the test's own.
pub(crate) async fn fleet_on(store: Shared, booked: u32) -> Fleet {
    let dns = Fixed::default();
    let registrar = || {
        let store = Arc::clone(&store);
        let platform = Settings { allow_wildcard_domains: true, ..Settings::default() };
        Arc::new(Registrar::new(store, dns.clone(), platform, Roots::default()))
    };
    let (one, other) = (registrar(), registrar());
    one.create_project(&default(), "t0k3n", at(0)).await.unwrap();
    if booked > 0 {
        one.book(&default(), &"8g-eu-001".parse().unwrap(), booked, None).await.unwrap();
    }
    Fleet { one, other, dns }
}

/// What was done in a round in which nothing failed.
pub(crate) fn done(round: Round) -> Vec<Event> {
    assert_eq!(round.failed, None);
    round.events
}

pub(crate) fn default() -> ProjectName {
    "default".parse().unwrap()
}

/// An application for an app, with a domain of its own or without, on some hardware.
pub(crate) fn application(name: &str, hardware: &str, domain: Option<&str>) -> Application {
    let mut text = include_str!("../../config/mse.toml")
        .replace("name = \"my-app\"", &format!("name = \"{name}\""))
        .replace("hardware = \"4g-eu-001\"", &format!("hardware = \"{hardware}\""));
    text += "expiration_date = \"2026-06-29T00:00:00Z\"\n";
    let mut certificate = None;
    if let Some(domain) = domain {
        let _ = write!(
            text,
            "[cloud.ssl]\ndomain_name = \"{domain}\"\nprivate_key = \"k\"\ncertificate = \"c\"\n"
        );
        let mut params = CertificateParams::new([domain.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, domain);
        (params.not_before, params.not_after) =
            (date_time_ymd(2026, 5, 1), date_time_ymd(2026, 8, 1));
        let pem = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        certificate = Some(Chain::from_pem(pem.as_bytes()));
    }
    let reading = manifest::read(&"mse.toml".into(), &text, at(0));
    Application {
        manifest: reading.manifest.unwrap_or_else(|| panic!("{:?}", reading.faults)),
        operator_tls: false,
        backend: "10.0.0.1:443".parse().ok(),
        certificate,
        if_revision: None,
        key: domain.map(|_| KeyFinding::Matches),
    }
}
