//! `check mse.toml --dns`: the real binary asks a real DNS server.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

use crate::domains::{PROXY, serve};

/// The explained manifest with a domain of its own, and a certificate for it.
fn write(folder: &Path, domain: &str) {
    let mut params = CertificateParams::new([domain.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, domain);
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2099, 1, 1));
    let key = KeyPair::generate().unwrap();
    fs::write(folder.join("fullchain.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
    for name in ["my_project/code", "my_project/tests"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    let manifest = include_str!("../../config/mse.toml")
        .replace("# [cloud.ssl]", "[cloud.ssl]")
        .replace("# domain_name = \"app.example.com\"", &format!("domain_name = \"{domain}\""))
        .replace("# private_key", "private_key")
        .replace("# certificate", "certificate");
    fs::write(folder.join("mse.toml"), manifest).unwrap();
}

fn check(folder: &Path, resolver: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mse-proxy"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MSE_PROXY_") {
            command.env_remove(name);
        }
    }
    command
        .args(["check", "mse.toml"])
        .args(arguments)
        .env("MSE_PROXY_PLATFORM_PROXY_NAME", PROXY)
        .env("MSE_PROXY_PLATFORM_RESOLVERS", resolver)
        .current_dir(folder)
        .output()
        .unwrap()
}

#[test]
fn a_manifests_domain_must_lead_to_the_proxy() {
    let named = serve();
    let resolver = named.address.to_string();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();

    write(folder, "app.customer.test");
    let output = check(folder, &resolver, &["--dns"]);
    let words = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{words}{}", text(&output.stderr));
    assert!(words.contains("app.customer.test (once it runs)"), "{words}");
    assert!(!words.contains("whether its domain leads there"), "{words}");
    let words = text(&check(folder, &resolver, &[]).stdout);
    assert!(words.contains("whether its domain leads there"), "{words}");

    write(folder, "lb.customer.test");
    let output = check(folder, &resolver, &["--dns"]);
    assert_eq!(output.status.code(), Some(1));
    let words = text(&output.stderr);
    let expected = format!(
        ":15: lb.customer.test is a CNAME of other.customer.test (192.0.2.1), which is not this \
         proxy; create lb.customer.test. CNAME {PROXY}. (or, for an apex, A 203.0.113.9, AAAA \
         2001:db8::9)"
    );
    assert!(words.contains(&expected), "{words}");

    write(folder, "fails.customer.test");
    let output = check(folder, &resolver, &["--dns"]);
    assert_eq!(output.status.code(), Some(0), "what nobody knows is no fault");
    let words = text(&output.stderr);
    assert!(words.contains("warning: DNS does not answer for fails.customer.test: "), "{words}");
}
