//! TLS as the outside sees it: versions, groups, resumption, and what openssl makes of it.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{
    ClientConfig, HandshakeKind, NamedGroup, RootCertStore, SupportedProtocolVersion, version,
};

use crate::daemon::route;
use crate::support::{Authority, Scene, Tls, connect, echo, run, text};

const TCP: &str = "protocol = \"tcp\"";

/// Two open names, and one that asks for certificates of `clients`.
fn scene() -> (Scene, Authority) {
    let mut scene = Scene::new();
    scene.install("a", &scene.operator.issue(&["*.apps.test"]));
    let clients = Authority::new("clients");
    std::fs::write(scene.path("clients.pem"), &clients.pem).unwrap();
    let back = echo(scene.platform.issue(&["backend.test"]).server());
    let terms = scene.terminating(&format!("{TCP}\nbackend_name = \"backend.test\""));
    let closed = format!("{terms}\nclient_ca = \"{}\"", text(&scene.path("clients.pem")));
    let routes = route("open.apps.test", back, &terms)
        + &route("other.apps.test", back, &terms)
        + &route("closed.apps.test", back, &closed);
    scene.serve(&routes);
    (scene, clients)
}

fn client(scene: &Scene, version: &'static SupportedProtocolVersion) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(scene.operator.pem.as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_protocol_versions(&[version]);
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::in_memory_sessions(64);
    config
}

/// Says something, so that tickets have come, and how the handshake was.
fn visit(mut tls: Tls) -> HandshakeKind {
    tls.write_all(b"x").unwrap();
    tls.read_exact(&mut [0]).unwrap();
    tls.conn.handshake_kind().unwrap()
}

#[test]
fn sessions_are_resumed_on_every_worker_and_under_their_own_name_alone() {
    let (scene, _) = scene();
    for version in [&version::TLS12, &version::TLS13] {
        let config = client(&scene, version);
        let ask = |host: &str| visit(connect(scene.address(), host, config.clone()).unwrap());
        assert_eq!(ask("open.apps.test"), HandshakeKind::Full);
        for _ in 0..16 {
            // The kernel chooses the worker.
            assert_eq!(ask("open.apps.test"), HandshakeKind::Resumed, "{version:?}");
        }
        assert_eq!(ask("other.apps.test"), HandshakeKind::Full);
    }
}

/// Keeps what a server gives under one name, whatever name it is asked for.
#[derive(Debug)]
struct OneName(Arc<dyn rustls::client::ClientSessionStore>);

impl rustls::client::ClientSessionStore for OneName {
    fn set_kx_hint(&self, _: rustls::pki_types::ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint("one.test".try_into().unwrap(), group);
    }

    fn kx_hint(&self, _: &rustls::pki_types::ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&"one.test".try_into().unwrap())
    }

    fn set_tls12_session(
        &self,
        _: rustls::pki_types::ServerName<'static>,
        value: rustls::client::Tls12ClientSessionValue,
    ) {
        self.0.set_tls12_session("one.test".try_into().unwrap(), value);
    }

    fn tls12_session(
        &self,
        _: &rustls::pki_types::ServerName<'_>,
    ) -> Option<rustls::client::Tls12ClientSessionValue> {
        self.0.tls12_session(&"one.test".try_into().unwrap())
    }

    fn remove_tls12_session(&self, _: &rustls::pki_types::ServerName<'static>) {
        self.0.remove_tls12_session(&"one.test".try_into().unwrap());
    }

    fn insert_tls13_ticket(
        &self,
        _: rustls::pki_types::ServerName<'static>,
        value: rustls::client::Tls13ClientSessionValue,
    ) {
        self.0.insert_tls13_ticket("one.test".try_into().unwrap(), value);
    }

    fn take_tls13_ticket(
        &self,
        _: &rustls::pki_types::ServerName<'static>,
    ) -> Option<rustls::client::Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&"one.test".try_into().unwrap())
    }
}

#[test]
fn a_ticket_of_an_open_name_opens_no_closed_one() {
    let (scene, clients) = scene();
    for version in [&version::TLS12, &version::TLS13] {
        let mut config = client(&scene, version);
        let store = Arc::new(rustls::client::ClientSessionMemoryCache::new(64));
        config.resumption = Resumption::store(Arc::new(OneName(store)));
        let open = connect(scene.address(), "open.apps.test", config.clone()).unwrap();
        assert_eq!(visit(open), HandshakeKind::Full);
        // It shows the ticket, and is asked for a certificate all the same.
        let closed = connect(scene.address(), "closed.apps.test", config.clone())
            .and_then(|mut tls| tls.read(&mut [0; 1]));
        assert!(!matches!(closed, Ok(1..)), "{version:?} {closed:?}");
        // Nor does that of one open name resume the session of another.
        let other = connect(scene.address(), "other.apps.test", config).unwrap();
        assert_eq!(visit(other), HandshakeKind::Full, "{version:?}");
    }
    // Who may come in may come back.
    let leaf = clients.issue(&["client"]);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(scene.operator.pem.as_bytes()).unwrap()).unwrap();
    let known = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![leaf.der()], leaf.private())
        .unwrap();
    let ask = || visit(connect(scene.address(), "closed.apps.test", known.clone()).unwrap());
    assert_eq!((ask(), ask()), (HandshakeKind::Full, HandshakeKind::Resumed));
}

#[test]
fn a_post_quantum_group_goes_before_all_others() {
    let (scene, _) = scene();
    let tls = scene.connect("open.apps.test").unwrap();
    let group = tls.conn.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
    assert_eq!(tls.conn.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
}

#[test]
fn openssl_finds_nothing_weak() {
    let (scene, _) = scene();
    let address = scene.address().to_string();
    for (weak, is_answered) in [
        (&["-tls1_2", "-cipher", "ECDHE"][..], true),
        (&["-tls1_3"], true),
        (&["-tls1"], false),
        (&["-tls1_1"], false),
        (&["-tls1_2", "-cipher", "AES128-SHA:AES256-SHA:AES128-GCM-SHA256"], false),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA"], false),
        (&["-tls1_2", "-cipher", "DHE"], false),
        (&["-tls1_2", "-cipher", "NULL:aNULL:eNULL:RC4:3DES"], false),
        (&["-tls1_2", "-sigalgs", "ECDSA+SHA1"], false),
    ] {
        let mut arguments = vec!["s_client", "-connect", &address, "-servername", "open.apps.test"];
        arguments.extend_from_slice(weak);
        let output = run("openssl", &arguments, b"");
        assert_eq!(output.status.success(), is_answered, "{weak:?} {output:?}");
    }
    let output = run(
        "openssl",
        &["s_client", "-connect", &address, "-servername", "open.apps.test", "-tls1_2"],
        b"",
    );
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("Secure Renegotiation IS supported"), "{told}");
    assert!(told.contains("Compression: NONE"), "{told}");
    assert!(told.contains("Extended master secret: yes"), "{told}");
}
