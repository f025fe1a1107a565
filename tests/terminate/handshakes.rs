//! Handshakes that must not succeed, on either side, and what becomes of them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::daemon::{PATIENCE, hello, route, until};
use crate::support::{Authority, Scene, connect, echo, run, say, text};

const TCP: &str = "protocol = \"tcp\"";

#[test]
fn a_name_without_a_certificate_is_refused_by_an_outcome_of_its_own() {
    let mut scene = Scene::new();
    scene.install("a", &scene.operator.issue(&["a.apps.test"]));
    let back = echo(scene.platform.issue(&["x"]).server());
    let terms = scene.terminating("refusal = \"alert\"");
    scene.serve(&route("**.apps.test", back, &terms));
    let error = scene.connect("b.apps.test").unwrap_err().to_string();
    assert!(error.contains("UnrecognisedName"), "{error}");
    assert_eq!(scene.ended(), ("no_certificate".into(), None));
}

#[test]
fn a_backend_that_does_not_prove_itself_gets_not_one_byte() {
    let mut scene = Scene::new();
    scene.install("a", &scene.operator.issue(&["*.apps.test"]));
    let stranger = Authority::new("stranger");
    let good = scene.platform.issue(&["backend.test", "name.apps.test"]);
    let expired = scene.platform.issue_with(&["old.apps.test"], |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let servers = [
        ("name", echo(good.server()), "", None),
        ("named", echo(good.server()), "backend_name = \"backend.test\"", None),
        ("other", echo(good.server()), "", Some("certificate_for_other_name")),
        (
            "stranger",
            echo(stranger.issue(&["stranger.apps.test"]).server()),
            "",
            Some("certificate_of_unknown_issuer"),
        ),
        ("old", echo(expired.server()), "", Some("certificate_expired")),
        ("plain", plain(), "", Some("malformed")),
        ("platform", echo(good.server()), "platform", Some("certificate_of_unknown_issuer")),
    ];
    let routes = servers.iter().map(|(host, address, more, _)| {
        let terms = match *more {
            "platform" => format!("mode = \"terminate\"\n{TCP}\nbackend_name = \"backend.test\""),
            more => scene.terminating(&format!("{TCP}\n{more}")),
        };
        route(&format!("{host}.apps.test"), address, &terms)
    });
    let routes: String = routes.collect();
    scene.serve(&routes);
    for (host, _, _, reason) in servers {
        let mut tls = scene.connect(&format!("{host}.apps.test")).unwrap();
        if reason.is_none() {
            assert_eq!(say(tls, b"x"), b"x", "{host}");
        } else {
            // The client's handshake is over; it is told the end.
            let _ = tls.write_all(b"secret");
            let mut heard = Vec::new();
            tls.read_to_end(&mut heard).unwrap();
            assert!(heard.is_empty(), "{host}");
            drop(tls);
        }
        let outcome = if reason.is_some() { "backend_tls" } else { "closed" };
        assert_eq!(scene.ended(), (outcome.into(), reason.map(str::to_owned)), "{host}");
    }
}

/// A backend that speaks no TLS and must never hear a secret.
fn plain() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.write_all(b"220 no TLS is spoken here\r\n");
            let mut heard = Vec::new();
            let _ = stream.read_to_end(&mut heard);
            assert!(!heard.windows(6).any(|window| window == b"secret"));
        }
    });
    address
}

#[test]
fn a_pinned_key_is_all_that_counts() {
    let mut scene = Scene::new();
    scene.install("a", &scene.operator.issue(&["*.apps.test"]));
    // As an enclave may: a critical extension that nobody knows, another name, issued by nobody known.
    let enclave = Authority::new("enclave").issue_with(&["whatever"], |params| {
        let mut extension =
            rcgen::CustomExtension::from_oid_content(&[1, 2, 840, 113_741, 1337, 6], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
    });
    let mut server = rustls::ServerConfig::builder().with_no_client_auth().with_cert_resolver(
        Arc::new(rustls::sign::SingleCertAndKey::from(rustls::sign::CertifiedKey::new(
            vec![enclave.der()],
            rustls::crypto::aws_lc_rs::sign::any_supported_type(&enclave.private()).unwrap(),
        ))),
    );
    server.alpn_protocols = Vec::new();
    let back = echo(server);
    let other = Authority::new("other").issue(&["b.apps.test"]).pin();
    let terms = |pin: &str| format!("mode = \"terminate\"\n{TCP}\npin = \"{pin}\"");
    let routes = route("a.apps.test", back, &terms(&enclave.pin()))
        + &route("b.apps.test", back, &terms(&other));
    scene.serve(&routes);
    assert_eq!(say(scene.connect("a.apps.test").unwrap(), b"pinned"), b"pinned");
    assert_eq!(scene.ended().0, "closed");
    assert_eq!(say(scene.connect("b.apps.test").unwrap(), b"secret"), b"");
    assert_eq!(scene.ended(), ("backend_tls".into(), Some("other_key".into())));
}

#[test]
fn without_a_word_the_roots_of_the_machine_are_asked() {
    for (roots, reason) in
        [("platform.pem", None), ("operator.pem", Some("certificate_of_unknown_issuer"))]
    {
        let mut scene = Scene::new();
        scene.install("a", &scene.operator.issue(&["a.apps.test"]));
        let back = echo(scene.platform.issue(&["a.apps.test"]).server());
        let roots = scene.path(roots);
        let routes = route("a.apps.test", back, &format!("mode = \"terminate\"\n{TCP}"));
        // Where OpenSSL, and whoever does as it does, looks for them.
        scene.serve_with(&routes, &[("SSL_CERT_FILE", text(&roots))]);
        let heard = say(scene.connect("a.apps.test").unwrap(), b"x");
        assert_eq!(heard.is_empty(), reason.is_some(), "{roots:?}");
        let outcome = if reason.is_some() { "backend_tls" } else { "closed" };
        assert_eq!(scene.ended(), (outcome.into(), reason.map(str::to_owned)));
    }
}

#[test]
fn a_route_whose_authorities_cannot_be_read_reaches_nobody() {
    let mut scene = Scene::new();
    scene.install("a", &scene.operator.issue(&["*.apps.test"]));
    let back = echo(scene.platform.issue(&["a.apps.test", "b.apps.test"]).server());
    std::fs::write(scene.path("empty.pem"), "").unwrap();
    let folder = scene.folder.path().to_owned();
    let terms = |key: &str, file: &str| {
        let file = folder.join(file);
        format!("mode = \"terminate\"\n{TCP}\n{key} = \"{}\"", file.display())
    };
    let routes = route("a.apps.test", back, &terms("backend_ca", "none.pem"))
        + &route("b.apps.test", back, &terms("backend_ca", "empty.pem"))
        + &route("c.apps.test", back, &terms("client_ca", "none.pem"));
    scene.serve(&routes);
    for host in ["a.apps.test", "b.apps.test"] {
        assert_eq!(say(scene.connect(host).unwrap(), b"secret"), b"");
        assert_eq!(scene.ended(), ("backend_tls".into(), Some("backend_ca".into())));
    }
    scene.connect("c.apps.test").unwrap_err();
    assert_eq!(scene.ended(), ("internal".into(), Some("client_ca".into())));
    // Once there are any, they are used; a change of the routes has them looked for at once.
    std::fs::write(scene.path("none.pem"), &scene.platform.pem).unwrap();
    let more = route("d.apps.test", back, &terms("backend_ca", "platform.pem"));
    std::fs::write(scene.path("routes.toml"), routes + &more).unwrap();
    until("it is read", || say(scene.connect("a.apps.test").unwrap(), b"x") == b"x");
}

#[test]
fn a_client_with_whom_there_is_no_agreement_is_told_so() {
    let mut scene = Scene::new();
    scene.install("a", &scene.operator.issue(&["a.apps.test"]));
    let back = echo(scene.platform.issue(&["a.apps.test"]).server());
    let terms = scene.terminating("");
    let variables = [("MSE_PROXY_TERMINATE_HANDSHAKE_TIMEOUT", "1s")];
    scene.serve_with(&route("a.apps.test", back, &terms), &variables);
    // It does not trust the operator.
    connect(scene.address(), "a.apps.test", scene.platform.client()).unwrap_err();
    assert_eq!(scene.ended(), ("handshake_failed".into(), Some("unknown_ca".into())));
    scene.daemon().admin();
    let unknown_ca = "mse_proxy_handshake_failures_total{reason=\"unknown_ca\"}";
    assert_eq!(scene.daemon().metric(unknown_ca), 1);
    // It speaks nothing that the route offers.
    let mut odd = scene.operator.client();
    odd.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    let error = connect(scene.address(), "a.apps.test", odd).unwrap_err().to_string();
    assert!(error.contains("NoApplicationProtocol"), "{error}");
    assert_eq!(scene.ended(), ("handshake_failed".into(), Some("no_shared_protocol".into())));
    // TLS 1.1 is too old.
    let address = scene.address().to_string();
    let arguments = [
        "s_client",
        "-connect",
        &address,
        "-servername",
        "a.apps.test",
        "-tls1_1",
        "-cipher",
        "DEFAULT@SECLEVEL=0",
    ];
    let output = run("openssl", &arguments, b"");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("SSL alert number"), "{output:?}");
    assert_eq!(scene.ended(), ("handshake_failed".into(), Some("incompatible".into())));
    // Its hello is fine for finding a route, and no hello to answer.
    let mut stream = TcpStream::connect(scene.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&hello("a.apps.test")).unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap();
    assert_eq!(heard[..2], [21, 3], "an alert");
    assert_eq!(scene.ended().0, "handshake_failed");
}

#[test]
fn a_handshake_that_stands_still_is_ended() {
    let mut scene = Scene::new();
    scene.install("a", &scene.operator.issue(&["a.apps.test"]));
    let terms = scene.terminating("");
    let variables = [("MSE_PROXY_TERMINATE_HANDSHAKE_TIMEOUT", "200ms")];
    scene.serve_with(&route("a.apps.test", "127.0.0.1:1", &terms), &variables);
    let name = "a.apps.test".try_into().unwrap();
    let config = Arc::new(scene.operator.client());
    let mut client = rustls::ClientConnection::new(config, name).unwrap();
    let mut stream = TcpStream::connect(scene.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_tls(&mut stream).unwrap();
    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard);
    assert_eq!(heard[0], 22, "the server's part of the handshake came");
    assert_eq!(scene.ended(), ("handshake_timeout".into(), None));
}

#[test]
fn a_route_may_ask_its_clients_for_certificates() {
    let mut scene = Scene::new();
    scene.install("a", &scene.operator.issue(&["*.apps.test"]));
    let clients = Authority::new("clients");
    std::fs::write(scene.path("clients.pem"), &clients.pem).unwrap();
    let back = echo(scene.platform.issue(&["open.apps.test", "closed.apps.test"]).server());
    let closed = format!("{TCP}\nclient_ca = \"{}\"", text(&scene.path("clients.pem")));
    let routes = route("open.apps.test", back, &scene.terminating(TCP))
        + &route("closed.apps.test", back, &scene.terminating(&closed));
    scene.serve(&routes);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(scene.operator.pem.as_bytes()).unwrap()).unwrap();
    let with = |leaf: &crate::support::Leaf| {
        ClientConfig::builder()
            .with_root_certificates(roots.clone())
            .with_client_auth_cert(vec![leaf.der()], leaf.private())
            .unwrap()
    };
    let known = with(&clients.issue(&["client"]));
    let tls = connect(scene.address(), "closed.apps.test", known.clone()).unwrap();
    assert_eq!(say(tls, b"known"), b"known");
    assert_eq!(scene.ended().0, "closed");
    for (config, reason) in [
        (scene.operator.client(), "no_client_certificate"),
        (with(&Authority::new("others").issue(&["client"])), "certificate_of_unknown_issuer"),
    ] {
        // In TLS 1.3 a client learns of it with its first read.
        let refused = connect(scene.address(), "closed.apps.test", config)
            .and_then(|mut tls| tls.read(&mut [0; 1]));
        assert!(!matches!(refused, Ok(1..)), "{refused:?}");
        assert_eq!(scene.ended(), ("handshake_failed".into(), Some(reason.into())));
    }
    assert_eq!(say(scene.connect("open.apps.test").unwrap(), b"open"), b"open");
}
