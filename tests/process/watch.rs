//! The watch over certificates of backends, by the real binary at real servers: pins, ends, and what
//! is told.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use jiff::Timestamp;
use mse_proxy::clock::{Clock, SystemClock};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::enclaves::{Authority, Enclave, KIND, Tls, host, outcome, shake, wish};
use crate::route_support::Controlled;
use crate::support::{PATIENCE, ask, run, text, until};

/// An end before that of the certificates.
const END: &str = "2098-01-01T00:00:00Z";
const BEFORE: &str = "expires_at = 2098-01-01T00:00:00Z";

/// A certificate of its own, and its key, in files.
struct Made {
    certificate: String,
    key: String,
    der: CertificateDer<'static>,
    _folder: tempfile::TempDir,
}

impl Made {
    fn until(name: &str, end: Option<Timestamp>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2099, 1, 1);
        if let Some(end) = end {
            let since = Duration::from_secs(u64::try_from(end.as_second()).unwrap());
            params.not_after = date_time_ymd(1970, 1, 1) + since;
        }
        let key = KeyPair::generate().unwrap();
        let made = params.self_signed(&key).unwrap();
        let write = |name: &str, pem: String| {
            let path = folder.path().join(name);
            fs::write(&path, pem).unwrap();
            path.display().to_string()
        };
        let (certificate, der) = (write("own.pem", made.pem()), made.der().clone());
        Self { certificate, key: write("own.key", key.serialize_pem()), der, _folder: folder }
    }

    fn of(name: &str) -> Self {
        Self::until(name, None)
    }

    fn serve(&self, port: &str) -> Enclave {
        Enclave::start(&[&self.certificate, &self.key, port])
    }

    /// A client that trusts it alone.
    fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let client = ClientConfig::builder_with_provider(provider);
        let client = client.with_safe_default_protocol_versions().unwrap();
        let client = client.with_webpki_verifier(verifier.build().unwrap());
        Arc::new(client.with_no_client_auth())
    }

    /// Whether a client behind the proxy meets it.
    fn is_met(&self, proxy: SocketAddr, name: &str) -> std::io::Result<Tls> {
        shake(&self.client(), proxy, name)
    }
}

/// The pin of whoever serves there.
fn pin_of(enclave: &Enclave, name: &str) -> String {
    let backend = enclave.address.to_string();
    let output = run(&["--format", "json", "probe", name, "--backend", &backend]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    json["backends"][0]["key"].as_str().unwrap_or_else(|| panic!("{}", text(&output.stderr))).into()
}

fn status(proxy: &mut Controlled) -> Value {
    proxy.daemon.admin();
    serde_json::from_str(&proxy.daemon.ask_admin("/status.json").unwrap().1).unwrap()
}

fn route(host: &str, backends: &[SocketAddr], more: &str) -> String {
    let backends: Vec<_> = backends.iter().map(ToString::to_string).collect();
    format!("[[route]]\nhosts = [\"{host}\"]\nbackends = {backends:?}\n{more}\n")
}

#[test]
fn a_pinned_route_leads_only_to_backends_that_were_seen_to_have_the_key() {
    let (own, strange) = (Made::of("a.test"), Made::of("a.test"));
    let (good, bad) = (own.serve("0"), strange.serve("0"));
    let pin = pin_of(&good, "a.test");
    // The one with another key would be the first to be tried.
    let routes =
        route("a.test", &[bad.address, good.address], &format!("pin = \"{pin}\"\n{BEFORE}"));
    let variables = [("MSE_PROXY_PROBE_PINNED_INTERVAL", "200ms")];
    let mut proxy = Controlled::with(&routes, &variables);
    let address = proxy.daemon.address;
    // Whoever comes first waits for the first look.
    own.is_met(address, "a.test").unwrap();
    let record = proxy.daemon.record();
    assert_eq!(record["endpoint"], *good.address.to_string(), "{record}");
    let told = proxy.daemon.wait_seen("\"other_key\"");
    assert!(told.contains("nobody is led there") && told.contains(&bad.address.to_string()));
    let shown = proxy.json(&["route", "show", "a.test"]);
    let note = format!("{} has another key than the pinned one", bad.address);
    assert_eq!((&shown["pin"], &shown["note"]), (&Value::from(&*pin), &Value::from(&*note)));
    assert!(proxy.told(&["explain", "a.test"]).contains(&note));

    // A backend that is not there shows nothing, and that changes nothing.
    let port = good.address.port().to_string();
    drop(good);
    let failed = "mse_proxy_probe_looks_total{result=\"failed\"}";
    proxy.daemon.admin();
    proxy.daemon.wait_metric(failed, |count| count >= 2);
    assert_eq!(proxy.json(&["route", "show", "a.test"])["note"], *note);

    // Somebody else takes its place.
    let swapped = strange.serve(&port);
    let note = format!("{} has another key", swapped.address);
    let is_out = |proxy: &Controlled| {
        proxy.json(&["route", "show", "a.test"])["note"].as_str().unwrap().contains(&note)
    };
    until("it is seen", || is_out(&proxy));
    while proxy.daemon.records.try_recv().is_ok() {}
    assert!(strange.is_met(address, "a.test").is_err());
    assert_eq!(proxy.daemon.record()["outcome"], "backend_tls");
    proxy.daemon.wait_seen("\"changed\"");

    // And leaves it again.
    drop(swapped);
    let _good = own.serve(&port);
    until("it is let through", || own.is_met(address, "a.test").is_ok());
    let page = status(&mut proxy);
    assert_eq!(page["probe"]["faults"]["other_key"], 1, "{page}");
    assert_eq!(page["probe"]["odd_count"], 1, "{page}");
    let kinds: Vec<_> =
        page["events"].as_array().unwrap().iter().map(|one| &one["event"]).collect();
    assert!(kinds.contains(&&Value::from("other_key")) && kinds.contains(&&Value::from("changed")));
}

#[test]
fn a_pin_is_set_by_command_and_a_backend_that_never_shows_it_gets_nobody() {
    let own = Made::of("a.test");
    let enclave = own.serve("0");
    let pin = pin_of(&enclave, "a.test");
    let backend = enclave.address.to_string();
    let mut proxy = Controlled::storing_with(&[
        ("MSE_PROXY_PROBE_PINNED_INTERVAL", "200ms"),
        ("MSE_PROXY_PROBE_INTERVAL", "0s"),
        ("MSE_PROXY_BACKEND_CONNECT_TIMEOUT", "500ms"),
    ]);
    let address = proxy.daemon.address;
    proxy.told(&[
        "route",
        "set",
        "a.test",
        "--backend",
        &backend,
        "--pin",
        &pin,
        "--expires-at",
        END,
    ]);
    until("it is let through", || own.is_met(address, "a.test").is_ok());
    assert_eq!(proxy.json(&["route", "show", "a.test"])["note"], Value::Null);
    // Another pin is another route: nothing of what was seen holds for it.
    let other = format!("sha256:{}", "00".repeat(32));
    proxy.told(&["route", "set", "a.test", "--pin", &other]);
    until("nobody is let through", || own.is_met(address, "a.test").is_err());
    proxy.told(&["route", "set", "a.test", "--pin", ""]);
    until("without a pin it is let through", || own.is_met(address, "a.test").is_ok());
    assert_eq!(proxy.json(&["route", "show", "a.test"])["pin"], Value::Null);
    // Nobody is there, so nobody was ever seen.
    drop(enclave);
    proxy.told(&["route", "set", "a.test", "--pin", &pin, "--refusal", "alert"]);
    until("it is pinned", || {
        let note = proxy.json(&["explain", "a.test"])["route"]["note"].to_string();
        note.contains("was not seen to have the pinned key yet")
    });
    while proxy.daemon.records.try_recv().is_ok() {}
    // 80, internal_error: the failure is not the client's.
    assert_eq!(ask(address, "a.test").unwrap(), [0x15, 3, 3, 0, 2, 2, 80]);
    let record = proxy.daemon.record();
    assert_eq!((&record["outcome"], &record["reason"]), (&"backend_tls".into(), &"pin".into()));
    let page = status(&mut proxy);
    assert_eq!(page["probe"]["routes"], 1, "{page}");
}

#[test]
fn a_route_ends_with_its_certificate_and_goes_on_when_that_is_renewed() {
    let end = SystemClock.now() + jiff::SignedDuration::from_secs(20);
    let end: Timestamp = format!("{end:.0}").parse().unwrap();
    let short = Made::until("a.test", Some(end));
    let enclave = short.serve("0");
    let routes = route("a.test", &[enclave.address], "expires_at = 2099-01-01T00:00:00Z")
        + &route("b.test", &[enclave.address], "");
    let mut proxy = Controlled::with(&routes, &[("MSE_PROXY_PROBE_INTERVAL", "500ms")]);
    let address = proxy.daemon.address;
    let told = proxy.daemon.wait_seen("\"ends_before\"");
    assert!(told.contains(&format!("the certificate ends at {end}, before the route")), "{told}");
    let note = format!("ends at {end}, with the certificate of its backend");
    for host in ["a.test", "b.test"] {
        until("the table knows", || proxy.json(&["route", "show", host])["note"] == *note);
    }
    let shown = proxy.json(&["route", "show", "a.test"]);
    assert_eq!(shown["expires_at"], "2099-01-01T00:00:00Z");
    assert_eq!(
        (&shown["ends_at"], &shown["state"]),
        (&Value::from(end.to_string()), &"live".into())
    );
    assert!(proxy.told(&["route", "show", "a.test"]).contains(&note));
    let after = (end + jiff::SignedDuration::from_secs(1)).to_string();
    let later = proxy.run(&["explain", "a.test", "--at", &after]);
    let words = text(&later.stdout) + &text(&later.stderr);
    assert!(words.contains(&format!("the certificate of its backend ended at {end}")), "{words}");

    // A live connection ends with it as with any end.
    let live = short.is_met(address, "a.test");
    if SystemClock.now() < end {
        let mut live = live.unwrap();
        assert!(!matches!(live.read(&mut [0; 1]), Ok(1..)));
        let is_cut = |record: &Value| record["outcome"] == "route_expired";
        until("it is cut", || proxy.daemon.records.try_iter().any(|record| is_cut(&record)));
    }
    until("it is over", || outcome(&proxy, "a.test") == "expired_name");
    until("the one without an end is too", || outcome(&proxy, "b.test") == "expired_name");

    // It goes on as soon as a renewed one is seen.
    let port = enclave.address.port().to_string();
    drop(enclave);
    let renewed = Made::of("a.test");
    let _enclave = renewed.serve(&port);
    until("it is live again", || renewed.is_met(address, "a.test").is_ok());
    proxy.daemon.wait_seen("\"changed\"");
    // Up to 2099-01-01, as the certificate.
    assert_eq!(proxy.json(&["route", "show", "a.test"])["note"], Value::Null);
    let note = proxy.json(&["route", "show", "b.test"])["note"].to_string();
    assert!(note.contains("ends at 2099-01-01T00:00:00Z"), "{note}");
}

#[test]
fn names_that_are_not_covered_and_one_leaf_for_two_apps_are_told_once() {
    let own = Made::of("a.test");
    let (one, other) = (own.serve("0"), own.serve("0"));
    let routes = route("a.test", &[one.address], "app = \"p/a\"")
        + &route("b.test", &[other.address], "app = \"p/b\"")
        + &route("c.test", &[other.address], "app = \"p/b\"");
    let mut proxy = Controlled::with(&routes, &[("MSE_PROXY_PROBE_INTERVAL", "300ms")]);
    proxy.daemon.admin();
    let faulty = |fault: &str| format!("mse_proxy_probe_faulty_routes{{fault=\"{fault}\"}}");
    proxy.daemon.wait_metric(&faulty("shared"), |count| count == 3);
    proxy.daemon.wait_metric(&faulty("not_covered"), |count| count == 2);
    let seen = proxy.daemon.metric("mse_proxy_probe_looks_total{result=\"seen\"}");
    proxy.daemon.wait_metric("mse_proxy_probe_looks_total{result=\"seen\"}", |now| now > seen + 9);
    for (event, count) in [("shared", 3), ("not_covered", 2), ("changed", 0), ("other_key", 0)] {
        let sample = format!("mse_proxy_probe_events_total{{event=\"{event}\"}}");
        assert_eq!(proxy.daemon.metric(&sample), count, "{event}");
    }
    // The log is written a moment later, and each line once.
    let words = ["shows the same certificate", "does not cover b.test", "does not cover c.test"];
    let mut lines = || {
        let log = proxy.daemon.seen();
        words.map(|words| log.iter().filter(|line| line.contains(words)).count())
    };
    until("the log has them", || lines() >= [3, 1, 1]);
    assert_eq!(lines(), [3, 1, 1]);
    let page = status(&mut proxy);
    assert_eq!(page["probe"]["faults"]["shared"], 3, "{page}");
    let odd = page["probe"]["odd"].as_array().unwrap();
    let is_told = |at: &str, words: &str| {
        let mut of_it = odd.iter().filter(|one| one["at"] == at);
        of_it.any(|one| one["message"].as_str().unwrap().contains(words))
    };
    assert!(is_told("route a.test", "`p/b` shows the same certificate"), "{page}");
    assert!(is_told("route b.test", "does not cover b.test"), "{page}");
    // A route that goes takes its faults along.
    fs::write(proxy.path("routes.toml"), route("a.test", &[one.address], "")).unwrap();
    proxy.daemon.wait_metric(&faulty("not_covered"), |count| count == 0);
    proxy.daemon.wait_metric(&faulty("shared"), |count| count == 0);
    assert_eq!(proxy.daemon.metric("mse_proxy_probe_routes"), 1);
}

/// What one client of a server did.
#[derive(Debug, PartialEq, Eq)]
enum Visit {
    /// It shook hands and left.
    Look,
    /// It asked something.
    Question,
}

/// A server of one thread that tells of each client what it did, and looks like one that is being
/// configured.
fn configured(certificate: &Path, key: &Path) -> (SocketAddr, Receiver<Visit>) {
    let read = |path: &Path| fs::read(path).unwrap();
    let pem = rustls::pki_types::pem::PemObject::from_pem_slice;
    let chain: CertificateDer<'static> = pem(&read(certificate)).unwrap();
    let key: PrivateKeyDer<'static> =
        rustls::pki_types::pem::PemObject::from_pem_slice(&read(key)).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (visits, told) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut tls = StreamOwned::new(connection, stream.unwrap());
            tls.sock.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut first = [0; 4096];
            // Until it says something or leaves: nobody else is served meanwhile.
            let visit = match tls.read(&mut first) {
                Ok(1..) => {
                    let answer =
                        "HTTP/1.1 200 OK\r\nMse-Status: waiting\r\nContent-Length: 0\r\n\r\n";
                    let _ = tls.write_all(answer.as_bytes());
                    tls.conn.send_close_notify();
                    let _ = tls.flush();
                    Visit::Question
                }
                _ => Visit::Look,
            };
            if visits.send(visit).is_err() {
                return;
            }
        }
    });
    (address, told)
}

#[test]
fn an_app_that_is_configured_is_looked_at_once_and_its_connection_closed_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut proxy = Controlled::storing_with(&[("MSE_PROXY_PROBE_INTERVAL", "100ms")]);
    proxy.told(&["project", "create", "default"]);
    proxy.told(&["hardware", "book", KIND]);
    let path = wish(folder.path(), "my-app", "/", "");
    let app = proxy.json(&["app", "deploy", "--path", &path, "--dry-run"])["app"].clone();
    let name = host(&app, "own");
    let (certificate, key) = Authority::new().issue(folder.path(), &name);
    let (backend, visits) = configured(Path::new(&certificate), Path::new(&key));
    proxy.told(&["app", "deploy", "--path", &path, "--backend", &backend.to_string()]);
    proxy.told(&["app", "phase", "my-app", "initializing"]);
    until("it is routed", || outcome(&proxy, &name) == "allowed");
    // One client at a time: had the look stayed, no question would have been answered.
    assert_eq!(visits.recv_timeout(PATIENCE).unwrap(), Visit::Look);
    for _ in 0..4 {
        assert_eq!(visits.recv_timeout(PATIENCE).unwrap(), Visit::Question);
    }
    let page = status(&mut proxy);
    assert_eq!(
        (&page["probe"]["routes"], &page["probe"]["looks"]),
        (&1.into(), &0.into()),
        "{page}"
    );
    // Once it runs it is watched as all others, and what became of it is told.
    proxy.told(&["app", "phase", "my-app", "running"]);
    until("it is watched", || {
        visits.try_iter().any(|visit| visit == Visit::Look)
            && status(&mut proxy)["probe"]["looks"].as_u64() > Some(0)
    });
}
