//! Commands over TCP with mutual TLS: who is who, and what is said when one of the two is not.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::route_support::Controlled;
use crate::support::{Daemon, command, route, text};

/// An authority that signs into a folder.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = folder.join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    fn sign(&self, name: &str, host: &str) {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

/// The port on which a proxy is asked over TCP.
fn port(daemon: &mut Daemon) -> String {
    let line = daemon.wait_seen("tcp:127.0.0.1:");
    let at = line.find("tcp:127.0.0.1:").unwrap() + "tcp:127.0.0.1:".len();
    line[at..].chars().take_while(char::is_ascii_digit).collect()
}

/// What makes a proxy answer over TCP, with files of an authority.
fn over_tcp(ours: &Authority) -> [(&'static str, String); 4] {
    [
        ("MSE_PROXY_ADMIN_GRPC", "tcp:127.0.0.1:0".to_owned()),
        ("MSE_PROXY_ADMIN_TLS_CERTIFICATE", ours.file("proxy.pem")),
        ("MSE_PROXY_ADMIN_TLS_KEY", ours.file("proxy.key")),
        ("MSE_PROXY_ADMIN_TLS_CLIENT_CA", ours.file("ca.pem")),
    ]
}

#[test]
fn apps_projects_hardware_and_domains_are_reached_over_mutual_tls_and_by_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path(), "ours");
    let theirs = Authority::new(folder.path(), "theirs");
    ours.sign("proxy", "127.0.0.1");
    ours.sign("deployer", "deployer");
    theirs.sign("stranger", "stranger");
    let settings = over_tcp(&ours);
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut proxy = Controlled::storing_with(&settings);
    let port = port(&mut proxy.daemon);
    let ask = |of: &Authority, who: &str, words: &[&str]| {
        let mut asking = command();
        asking.env("MSE_PROXY_ADMIN", format!("https://127.0.0.1:{port}"));
        asking.env("MSE_PROXY_ADMIN_CA", ours.file("ca.pem"));
        asking.env("MSE_PROXY_ADMIN_CERT", of.file(&format!("{who}.pem")));
        asking.env("MSE_PROXY_ADMIN_KEY", of.file(&format!("{who}.key")));
        let output = asking.args(words).output().unwrap();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let apps = tempfile::tempdir().unwrap();
    let path = crate::apps::manifest(apps.path(), &[]);
    for (words, expected) in [
        (&["project", "create", "default"][..], "default is in good standing"),
        (&["hardware", "book", "8g-eu-001"], "8g-eu-001"),
        (&["app", "deploy", "--path", &path], "default/my-app is deployed (spawning)"),
        (&["app", "list"], "default/my-app"),
        (&["domain", "list"], "DOMAIN"),
    ] {
        let (status, told) = ask(&theirs, "stranger", words);
        assert_eq!(status, Some(3), "{words:?}: {told}");
        let (status, told) = ask(&ours, "deployer", words);
        assert!(status == Some(0) && told.contains(expected), "{words:?}: {told}");
    }
    // Who did it is told in the log.
    let line = proxy.daemon.wait_seen("app deployed");
    assert!(line.contains("tls:CN=deployer"), "{line}");
}

#[test]
fn both_sides_must_know_each_other_and_are_told_who_is_to_blame() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path(), "ours");
    let theirs = Authority::new(folder.path(), "theirs");
    ours.sign("proxy", "127.0.0.1");
    ours.sign("deployer", "deployer");
    theirs.sign("stranger", "stranger");
    let mut proxy = Controlled::with(
        &route("shop.test", "127.0.0.1:1", ""),
        &over_tcp(&ours).each_ref().map(|(name, value)| (*name, value.as_str())),
    );
    let port = port(&mut proxy.daemon);
    let ask = |host: &str, ca: &str, certificate: &str, key: &str, status: i32| {
        let output = command()
            .env("MSE_PROXY_ADMIN", format!("https://{host}:{port}"))
            .env("MSE_PROXY_ADMIN_CA", ca)
            .args(["--admin-cert", certificate, "--admin-key", key, "route", "list"])
            .output()
            .unwrap();
        let words = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{words}");
        if status == 0 { text(&output.stdout) } else { words }
    };
    let (ca, pem, key) =
        (ours.file("ca.pem"), ours.file("deployer.pem"), ours.file("deployer.key"));
    let told = ask("127.0.0.1", &ca, &pem, &key, 0);
    assert!(told.contains("shop.test"), "{told}");

    let words = ask("127.0.0.1", &theirs.file("ca.pem"), &pem, &key, 3);
    assert!(words.contains("--admin-ca FILE names the right one"), "{words}");
    let words = ask("localhost", &ca, &pem, &key, 3);
    assert!(words.contains("is for another name"), "{words}");
    let (pem2, key2) = (theirs.file("stranger.pem"), theirs.file("stranger.key"));
    let words = ask("127.0.0.1", &ca, &pem2, &key2, 3);
    assert!(words.contains("must be of an authority in its admin.tls.client_ca"), "{words}");

    let words = ask("127.0.0.1", &ca, &pem, &key2, 1);
    assert!(words.contains("must be the key of the first certificate"), "{words}");
    let words = ask("127.0.0.1", &ca, &key, &key, 1);
    assert!(words.contains("no certificate in PEM is in it"), "{words}");
    let words = ask("127.0.0.1", &ca, "/nowhere.pem", &key, 1);
    assert!(words.contains("/nowhere.pem: No such file"), "{words}");
}
