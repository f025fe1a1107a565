//! What the registry holds becomes routes: the source follows a real store, and tells each change.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mse_proxy::admission::certificate::Chain;
use mse_proxy::admission::sight::Sight;
use mse_proxy::endpoint::Endpoint;
use mse_proxy::outcome::Outcome;
use mse_proxy::registrar::{Application, Error};
use mse_proxy::registry::app::{Phase, Role};
use mse_proxy::registry::record::project_key;
use mse_proxy::routing::route::Mode;
use mse_proxy::routing::snapshot::Snapshot;
use mse_proxy::routing::termination::{BackendTls, Trust};
use mse_proxy::routing::zones::Zones;
use mse_proxy::source::apps::Apps;
use mse_proxy::source::{RouteSet, Source};
use mse_proxy::store::embedded::Embedded;
use mse_proxy::store::{Change, Shared, Transaction};
use mse_proxy::wire::client_hello::Alpn;
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::support::{application, at, default, done, fleet_on};

pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
pub(crate) const KIND: &str = "8g-eu-001";
pub(crate) const PROXY: &str = "proxy.mse.cosmian.com";

pub(crate) fn store() -> (Shared, TempDir) {
    let folder = TempDir::new().unwrap();
    (Arc::new(Embedded::open(&folder.path().join("store.redb")).unwrap()), folder)
}

pub(crate) fn follow(store: &Shared) -> Receiver<RouteSet> {
    let (sender, sets) = channel(16);
    tokio::spawn(Apps::new(Arc::clone(store)).run(sender));
    sets
}

/// What a client of a name is told at an instant.
pub(crate) fn told(set: &RouteSet, name: &str, now: Timestamp) -> String {
    let (snapshot, conflicts) = Snapshot::after(&Snapshot::default(), &set.claims);
    assert!(conflicts.is_empty(), "{conflicts:?}");
    match snapshot.lookup(&name.parse().unwrap(), &Alpn::default(), now) {
        Ok(route) => route.backends[0].to_string(),
        Err(miss) => Outcome::from(&miss).to_string(),
    }
}

/// Waits until clients of a name are told this.
async fn until(sets: &mut Receiver<RouteSet>, name: &str, now: Timestamp, word: &str) -> RouteSet {
    let mut last = String::new();
    let waiting = async {
        while let Some(set) = sets.recv().await {
            last = told(&set, name, now);
            if last == word {
                return Some(set);
            }
        }
        None
    };
    let found = timeout(PATIENCE, waiting).await.ok().flatten();
    found.unwrap_or_else(|| panic!("{name} is never {word}, last it was {last}"))
}

#[tokio::test]
async fn a_life_is_followed_from_its_configuration_name_to_its_tombstone_and_a_restart() {
    let (store, _folder) = store();
    let mut sets = follow(&store);
    let fleet = fleet_on(Arc::clone(&store), 1).await;
    fleet.dns.alias("shop.test", Some(PROXY));
    let name = "shop".parse().unwrap();
    let wish = application("shop", KIND, Some("shop.test"));
    let app = fleet.one.deploy(&wish, false, at(0)).await.unwrap().app.unwrap().record;
    let configuration = app.hosts[0].host.to_string();
    let proceed = async |phase| {
        fleet.other.proceed(&default(), &name, phase, None, at(1)).await.unwrap();
    };
    proceed(Phase::Initializing).await;
    let set = until(&mut sets, &configuration, at(1), "10.0.0.1:443").await;
    assert_eq!(told(&set, "shop.test", at(1)), "unknown_name");
    proceed(Phase::Running).await;
    let set = until(&mut sets, "shop.test", at(1), "10.0.0.1:443").await;
    assert_eq!(told(&set, &configuration, at(1)), "unknown_name");
    assert_eq!(told(&set, "shop.test", app.ends_at), "expired_name");
    assert_eq!(set.faults, []);

    // Its DNS leads elsewhere for too long, and back.
    fleet.dns.alias("shop.test", Some("elsewhere.test"));
    for _ in 0..3 {
        done(fleet.one.check_domains(at(2)).await);
    }
    until(&mut sets, "shop.test", at(2), "suspended").await;
    fleet.dns.alias("shop.test", Some(PROXY));
    done(fleet.one.check_domains(at(2)).await);
    until(&mut sets, "shop.test", at(2), "10.0.0.1:443").await;

    proceed(Phase::Stopped).await;
    until(&mut sets, "shop.test", at(2), "expired_name").await;
    // Whoever starts anew finds the same.
    let set = until(&mut follow(&store), "shop.test", at(2), "expired_name").await;
    assert_eq!(told(&set, &configuration, at(2)), "expired_name");
}

#[tokio::test]
async fn a_suspended_project_and_an_unreadable_record_take_nothing_but_their_own() {
    let (store, _folder) = store();
    let fleet = fleet_on(Arc::clone(&store), 2).await;
    let mut names = Vec::new();
    for name in ["one", "two"] {
        let wish = application(name, KIND, None);
        let app = fleet.one.deploy(&wish, false, at(0)).await.unwrap().app.unwrap().record;
        names.push(app.hosts[0].host.to_string());
        let name = name.parse().unwrap();
        fleet.one.proceed(&default(), &name, Phase::Initializing, None, at(0)).await.unwrap();
    }
    let mut sets = follow(&store);
    until(&mut sets, &names[0], at(1), "10.0.0.1:443").await;
    let broken = Change { key: "apps/default/two".to_owned(), value: Some(b"{}".to_vec()) };
    store.commit(Transaction { checks: vec![], changes: vec![broken] }).await.unwrap();
    let set = until(&mut sets, &names[1], at(1), "unknown_name").await;
    assert_eq!((told(&set, &names[0], at(1)).as_str(), set.left_out), ("10.0.0.1:443", 1));
    let words = set.faults[0].kind.to_string();
    assert!(words.starts_with("this record cannot be read: missing field"), "{words}");
    assert_eq!(&*set.faults[0].place.origin.source, "store apps/default/two");

    // By the project's record alone, before any of its apps is stopped.
    let held = store.get(&project_key(&default())).await.unwrap().unwrap();
    let text = String::from_utf8(held.value).unwrap();
    let standing = r#"{"suspended":{"since":"2026-06-01T13:00:00Z","cause":"operator"}}"#;
    let value = Some(text.replace("\"good\"", standing).into_bytes());
    let changes = vec![Change { key: held.key, value }];
    store.commit(Transaction { checks: vec![], changes }).await.unwrap();
    until(&mut sets, &names[0], at(1), "suspended").await;
}

/// A server that shakes hands with whoever comes, and the digest of its key.
async fn enclave() -> (SocketAddr, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["own.test".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let chain = Chain::from_der([certificate.der().as_ref()], false).unwrap();
    let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(provider);
    let server = server.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let server = server.with_single_cert(vec![certificate.der().clone()], private).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Whoever looks says goodbye.
            if let Ok(mut tls) = acceptor.accept(stream).await {
                let _ = tls.read(&mut [0]).await;
            }
        }
    });
    (address, Sight::from(&chain).key)
}

#[tokio::test]
async fn an_operators_app_is_sealed_while_it_is_configured_and_ended_here_by_the_key_that_was_seen()
{
    let (store, _folder) = store();
    let mut sets = follow(&store);
    let fleet = fleet_on(Arc::clone(&store), 1).await;
    let name = "shop".parse().unwrap();
    let (address, key) = enclave().await;
    let backend = Endpoint::Ip(address);
    let wish = Application { operator_tls: true, ..application("shop", KIND, None) };
    let refused = fleet.other.deploy(&wish, false, at(0)).await.unwrap();
    assert!(refused.app.is_none(), "TLS is ended nowhere there: {:?}", refused.verdict);
    let zones: Zones = ["*.cosmian.dev".parse().unwrap()].into_iter().collect();
    let one = (*fleet.one).clone().within(zones.clone());
    let app = one.deploy(&wish, false, at(0)).await.unwrap().app.unwrap().record;
    let configuration = app.host(Role::Configuration).unwrap().to_string();
    let terminated = app.host(Role::Terminated).unwrap().to_string();

    let advance = async |phase, backend: Option<Endpoint>| {
        one.advance(&default(), &name, phase, backend.as_ref(), (at(1), None)).await
    };
    advance(Some(Phase::Initializing), Some(backend.clone())).await.unwrap();
    let set = until(&mut sets, &configuration, at(1), &address.to_string()).await;
    let mode = |set: &RouteSet, host: &str| {
        let mut routes = set.claims.routes();
        routes.find(|route| *route.id == *host).map(|route| route.mode().clone())
    };
    assert_eq!(mode(&set, &configuration), Some(Mode::Passthrough));
    assert_eq!(mode(&set, &terminated), None);

    advance(Some(Phase::Running), None).await.unwrap();
    let set = loop {
        let set = timeout(PATIENCE, sets.recv()).await.unwrap().unwrap();
        if mode(&set, &terminated).is_some() {
            break set;
        }
    };
    let Some(Mode::Terminate(how)) = mode(&set, &terminated) else { panic!("{set:?}") };
    let name_asked = configuration.parse().ok();
    let trust = Trust::Key(key.parse().unwrap());
    assert_eq!(how.backend, BackendTls::Verified { trust, name: name_asked.clone() });
    assert_eq!(mode(&set, &configuration), None);
    // Where its zone is none, it is left out, and never let through sealed.
    let (within, conflicts) = Snapshot::after(&Snapshot::within(zones), &set.claims);
    assert!(conflicts.is_empty(), "{conflicts:?}");
    let asked = terminated.parse().unwrap();
    let route = within.lookup(&asked, &Alpn::default(), at(1)).unwrap();
    assert_eq!(route.backends[0], backend);
    let (outside, conflicts) = Snapshot::after(&Snapshot::default(), &set.claims);
    assert_eq!(conflicts.len(), 1);
    assert!(outside.lookup(&asked, &Alpn::default(), at(1)).is_err());

    // Somewhere else, another key is seen; and nobody is believed where nobody answers.
    let (elsewhere, other) = enclave().await;
    let app = advance(None, Some(Endpoint::Ip(elsewhere))).await.unwrap();
    assert_eq!(app.record.key.unwrap().to_string(), other);
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let unseen = advance(None, Some(Endpoint::Ip(free))).await.unwrap_err();
    assert!(matches!(unseen, Error::Unseen { .. }), "{unseen}");
    // Moved without a look, it must have a certificate that is trusted here.
    let running = Phase::Running;
    let app =
        one.proceed(&default(), &name, running, Some(&Endpoint::Ip(free)), at(1)).await.unwrap();
    assert_eq!(app.record.key, None);
    let by_roots = BackendTls::Verified { trust: Trust::Platform, name: name_asked };
    loop {
        let set = timeout(PATIENCE, sets.recv()).await.unwrap().unwrap();
        let Some(Mode::Terminate(how)) = mode(&set, &terminated) else { continue };
        if how.backend == by_roots {
            break;
        }
    }
    advance(Some(Phase::Stopped), None).await.unwrap();
    loop {
        let set = timeout(PATIENCE, sets.recv()).await.unwrap().unwrap();
        let (ended, _) = Snapshot::after(&within, &set.claims);
        if let Err(miss) = ended.lookup(&asked, &Alpn::default(), at(2)) {
            assert_eq!(Outcome::from(&miss).to_string(), "expired_name");
            break;
        }
    }
}
