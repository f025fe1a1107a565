//! `probe`: what a backend shows, seen by the real binary at real servers.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{CertificateParams, CustomExtension, KeyPair, PublicKeyData as _, date_time_ymd};
use serde_json::Value;

use crate::route_support::Controlled;
use crate::support::{route, run, text};

/// 1.2.840.113741.1337.6
const SGX_QUOTE: [u64; 6] = [1, 2, 840, 113_741, 1337, 6];

/// What a leaf says of an enclave.
enum Extension {
    None,
    /// A quote for its own key, critical or not.
    Quote {
        is_critical: bool,
    },
    OtherQuote,
    Junk,
}

/// A single-threaded server with a certificate of its own.
struct Enclave {
    child: Child,
    address: String,
    key: String,
    _folder: tempfile::TempDir,
}

impl Enclave {
    fn start(extension: &Extension) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = certificate(&key, extension);
        let pem = folder.path().join("certificate.pem");
        fs::write(&pem, certificate.pem()).unwrap();
        let key_file = folder.path().join("key.pem");
        fs::write(&key_file, key.serialize_pem()).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/probe/enclave.py");
        let mut child = Command::new("python3")
            .args([&script, &pem, &key_file])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let address = format!("127.0.0.1:{}", port.trim());
        let digest = digest(&SHA256, &key.subject_public_key_info());
        let digest: Vec<_> = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let key = format!("sha256:{}", digest.concat());
        Self { child, address, key, _folder: folder }
    }

    /// What the binary tells of it, for one name.
    fn probed(&self, host: &str) -> Value {
        let output = run(&["--format", "json", "probe", host, "--backend", &self.address]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        json["backends"][0].clone()
    }
}

impl Drop for Enclave {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn certificate(key: &KeyPair, extension: &Extension) -> rcgen::Certificate {
    let mut params =
        CertificateParams::new(["app.test".to_owned(), "10.0.0.1".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2099, 1, 1));
    // 65 bytes: the uncompressed point.
    assert_eq!(key.public_key_raw().len(), 65);
    let quote = |of: &[u8]| {
        let mut quote = vec![0; 600];
        quote[368..400].copy_from_slice(digest(&SHA256, of).as_ref());
        quote
    };
    let (content, is_critical) = match extension {
        Extension::None => return params.self_signed(key).unwrap(),
        Extension::Quote { is_critical } => (quote(key.public_key_raw()), *is_critical),
        Extension::OtherQuote => (quote(b"another key"), false),
        Extension::Junk => (vec![0; 431], false),
    };
    let mut extension = CustomExtension::from_oid_content(&SGX_QUOTE, content);
    extension.set_criticality(is_critical);
    params.custom_extensions.push(extension);
    params.self_signed(key).unwrap()
}

#[test]
fn the_quote_of_an_enclave_is_seen_and_compared_with_the_key() {
    for (extension, quote, warning) in [
        (Extension::None, "absent", None),
        (Extension::Quote { is_critical: false }, "this_key", None),
        // An ordinary client would refuse it; whoever looks must see it all the same.
        (Extension::Quote { is_critical: true }, "this_key", None),
        (Extension::OtherQuote, "other_key", Some("the quote of an enclave that has another key")),
        (Extension::Junk, "malformed", Some("too short to be the quote of an enclave")),
    ] {
        let enclave = Enclave::start(&extension);
        let seen = enclave.probed("app.test");
        assert_eq!(seen["quote"], quote, "{seen}");
        assert_eq!(seen["key"], *enclave.key, "{seen}");
        let warnings = seen["warnings"].as_array().unwrap();
        assert_eq!(warnings.len(), usize::from(warning.is_some()), "{seen}");
        let is_told = |words| warnings[0].as_str().unwrap().contains(words);
        assert!(warning.is_none_or(is_told), "{seen}");
    }
}

#[test]
fn names_validity_and_key_are_told_and_the_server_is_free_again() {
    let enclave = Enclave::start(&Extension::None);
    let seen = enclave.probed("app.test");
    assert_eq!(seen["names"], serde_json::json!(["app.test"]));
    assert_eq!(seen["addresses"], serde_json::json!(["10.0.0.1"]));
    assert_eq!(seen["not_before"], "2020-01-01T00:00:00Z");
    assert_eq!(seen["not_after"], "2099-01-01T00:00:00Z");
    assert_eq!(seen["chain"], 1);
    // It serves one at a time: another look would wait for one that stayed.
    let seen = enclave.probed("other.test");
    assert_eq!(seen["warnings"], serde_json::json!(["the certificate does not cover other.test"]));

    // By way of a route, which would outlive the certificate.
    let folder = tempfile::tempdir().unwrap();
    let routes = folder.path().join("routes.toml");
    let end = "expires_at = 2100-01-01T00:00:00Z";
    fs::write(&routes, route("app.test", &enclave.address, end)).unwrap();
    let output = run(&["probe", "APP.test", "--routes", routes.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let words = text(&output.stdout);
    for line in [
        format!("{} shows for app.test", enclave.address),
        "  names    app.test, 10.0.0.1".to_owned(),
        "  valid    2020-01-01T00:00:00Z until 2099-01-01T00:00:00Z".to_owned(),
        format!("  key      {}", enclave.key),
        "  enclave  the certificate carries no quote".to_owned(),
        "  warning: the certificate ends at 2099-01-01T00:00:00Z, before the route \
         (2100-01-01T00:00:00Z)"
            .to_owned(),
    ] {
        assert!(words.lines().any(|own| own == line), "`{line}` is missing in:\n{words}");
    }
    let output = run(&["probe", "x.test", "--routes", routes.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no live route covers x.test"));

    // By way of the running proxy.
    let proxy = Controlled::serve(&fs::read_to_string(&routes).unwrap());
    let told = proxy.told(&["probe", "app.test"]);
    assert!(told.contains(&format!("{} shows for app.test", enclave.address)), "{told}");
    assert!(told.contains("before the route (2100-01-01T00:00:00Z)"), "{told}");
    let refused = proxy.refused(&["probe", "x.test"], 1);
    assert!(refused.contains("no live route covers x.test"), "{refused}");
    let both = ["probe", "app.test", "--backend", &enclave.address, "--admin", "unix:/nowhere"];
    proxy.refused(&both, 2);
}

#[test]
fn whoever_shows_nothing_is_told_as_such() {
    let probe = |backend: &str| {
        let output = run(&["probe", "app.test", "--backend", backend]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
        text(&output.stderr)
    };
    // A port that is taken, so that nobody else listens there, and on which nobody does.
    let taken = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    taken.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = taken.local_addr().unwrap().as_socket().unwrap();
    let refused = probe(&address.to_string());
    assert!(refused.contains("the backend cannot be reached"), "{refused}");
    let talker = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = talker.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let (mut client, _) = talker.accept().unwrap();
        let _ = std::io::Write::write_all(&mut client, b"SSH-2.0-OpenSSH_9.2\r\n");
        // Until it leaves.
        let _ = std::io::copy(&mut client, &mut std::io::sink());
    });
    let words = probe(&address);
    assert!(words.contains("the backend makes no TLS connection"), "{words}");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let words = probe(&silent.local_addr().unwrap().to_string());
    assert!(words.contains("the backend does not answer within 10 s"), "{words}");
    let usage = run(&["probe", "a..b", "--backend", "127.0.0.1:1"]);
    assert_eq!(usage.status.code(), Some(2));
}
