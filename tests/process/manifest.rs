//! `check mse.toml`: a manifest with its files, certificate and key, without a running proxy.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use serde_json::Value;

use crate::support::{command, text};

/// A folder with what the explained manifest names.
fn project() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["my_project/code", "my_project/tests"] {
        fs::create_dir_all(folder.path().join(name)).unwrap();
    }
    fs::write(folder.path().join("mse.toml"), include_str!("../../config/mse.toml")).unwrap();
    folder
}

/// The explained manifest, with a domain, a certificate and a key of its own; gives the key.
fn own_domain(folder: &Path) -> String {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.distinguished_name.push(DnType::CommonName, "Test Root");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let root = authority.self_signed(&authority_key).unwrap();
    let mut leaf = CertificateParams::new(["app.example.com".to_owned()]).unwrap();
    leaf.distinguished_name.push(DnType::CommonName, "app.example.com");
    (leaf.not_before, leaf.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2099, 1, 1));
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::from_params(&authority, &authority_key);
    let certificate = leaf.signed_by(&key, &issuer).unwrap();
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    write("root.pem", &root.pem());
    write("fullchain.pem", &certificate.pem());
    write("key.pem", &key.serialize_pem());
    let manifest = include_str!("../../config/mse.toml")
        .replace("hardware = \"4g-eu-001\"", "hardware = \"8g-eu-001\"")
        .replace("# [cloud.ssl]", "[cloud.ssl]")
        .replace("# domain_name", "domain_name")
        .replace("# private_key", "private_key")
        .replace("# certificate", "certificate");
    write("mse.toml", &manifest);
    key.serialize_pem()
}

fn check(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = command();
    command.args(["check", "mse.toml"]).args(arguments).current_dir(folder);
    // The roots that this machine knows.
    command.env("SSL_CERT_FILE", folder.join("root.pem")).output().unwrap()
}

/// The line of the manifest that begins so.
fn line(folder: &Path, start: &str) -> usize {
    let manifest = fs::read_to_string(folder.join("mse.toml")).unwrap();
    manifest.lines().position(|line| line.starts_with(start)).unwrap() + 1
}

#[test]
fn the_explained_manifest_is_a_good_one() {
    let folder = project();
    let output = check(folder.path(), &[]);
    let words = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{words}{}", text(&output.stderr));
    assert!(words.starts_with("no faults, default/my-app would end at 20"), "{words}");
    assert!(words.contains("Z and be reached as "), "{words}");
    assert!(
        words.ends_with(
            ".cosmian.io; only a running proxy can tell whether project, name and hardware are free\n"
        ),
        "{words}"
    );
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn faults_of_text_files_and_rules_are_told_with_their_lines() {
    let folder = project();
    let folder = folder.path();
    fs::remove_dir(folder.join("my_project/tests")).unwrap();
    let manifest = fs::read_to_string(folder.join("mse.toml")).unwrap();
    let manifest =
        manifest.replace("image:20230710", "image:latest").replace("# secrets", "secrets");
    fs::write(folder.join("mse.toml"), format!("{manifest}colour = 1\n")).unwrap();
    let output = check(folder, &[]);
    assert_eq!(output.status.code(), Some(1));
    let words = text(&output.stderr);
    let at = |start, column| format!("mse.toml:{}:{column}: ", line(folder, start));
    for expected in [
        at("tests =", 9) + "`tests`: my_project/tests does not exist",
        at("docker =", 10) + "the image `registry.example/image:latest` may change at any time",
        at("secrets =", 11) + "`secrets`: secrets.json does not exist",
        at("colour =", 1) + "warning: `cloud.colour` is not known and does nothing",
    ] {
        assert!(words.contains(&expected), "`{expected}` is missing in:\n{words}");
    }
    assert_eq!(text(&output.stdout), "3 faults, the manifest cannot be deployed\n");
    // Files are looked for whatever else is wrong.
    let broken = manifest.replace("name = \"my-app\"", "name = 5").replace("hardware", "hradware");
    fs::write(folder.join("mse.toml"), broken).unwrap();
    let words = text(&check(folder, &[]).stderr);
    for expected in
        ["`name` must be a text", "`hardware` is missing", "`secrets`: secrets.json does"]
    {
        assert!(words.contains(expected), "`{expected}` is missing in:\n{words}");
    }
    fs::write(folder.join("mse.toml"), "name = 5\n").unwrap();
    let output = check(folder, &[]);
    assert!(text(&output.stderr).starts_with("mse.toml:1:1: the section [cloud] is missing"));
}

#[test]
fn a_certificate_is_judged_with_its_key_and_the_key_is_never_shown() {
    let folder = project();
    let folder = folder.path();
    let key = own_domain(folder);
    let good = check(folder, &["--format", "json"]);
    assert_eq!(good.status.code(), Some(0), "{}{}", text(&good.stdout), text(&good.stderr));
    let json: Value = serde_json::from_slice(&good.stdout).unwrap();
    assert_eq!(json["faults"], Value::Array(vec![]));
    assert_eq!(json["warnings"], Value::Array(vec![]), "the root is one that this machine knows");
    let terms = &json["manifest"]["terms"];
    assert_eq!(
        (&json["manifest"]["app"], &terms["origin"]),
        (&"default/my-app".into(), &"owner".into())
    );
    assert_eq!(terms["ends_at"], "2099-01-01T00:00:00Z");
    assert_eq!(terms["hosts"][0]["role"], "configuration");
    assert_eq!(terms["hosts"][1], serde_json::json!({"host": "app.example.com", "role": "custom"}));
    assert_eq!(
        json["manifest"]["open"],
        serde_json::json!([
            "whether project, name and hardware are free",
            "whether its domain leads there"
        ])
    );

    let other = KeyPair::generate().unwrap().serialize_pem();
    fs::write(folder.join("key.pem"), &other).unwrap();
    let bad = check(folder, &[]);
    assert_eq!(bad.status.code(), Some(1));
    let words = text(&bad.stderr);
    let expected = format!(
        "mse.toml:{}:15: the private key is not that of the certificate",
        line(folder, "private_key")
    );
    assert!(words.contains(&expected), "{words}");
    for output in [&good, &bad] {
        let all = text(&output.stdout) + &text(&output.stderr);
        for line in key.lines().chain(other.lines()) {
            assert!(!all.contains(line), "{all}");
        }
    }

    // On a machine that does not know the root: the leaf's issuer is missing.
    fs::write(folder.join("key.pem"), &key).unwrap();
    fs::write(folder.join("root.pem"), "").unwrap();
    let words = text(&check(folder, &[]).stderr);
    assert!(words.contains("the chain is incomplete: append the certificate of `"), "{words}");
}

#[test]
fn the_platform_of_a_configuration_judges() {
    let folder = project();
    let folder = folder.path();
    let config = |text: &str| fs::write(folder.join("proxy.toml"), text).unwrap();
    config("[platform]\nzone = \"Apps.Example.\"\nimages = [\"registry.example/*\"]\n");
    let output = check(folder, &["--config", "proxy.toml"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains(".apps.example;"), "{}", text(&output.stdout));
    config("[platform]\nimages = [\"other.example/*\"]\nzone = \"-x\"\nquarantine = 7\n");
    let output = check(folder, &["--config", "proxy.toml"]);
    let words = text(&output.stderr);
    for expected in [
        "proxy.toml:3:8: `platform.zone`: a label begins or ends with a hyphen",
        "proxy.toml:4:14: `platform.quarantine`: ",
    ] {
        assert!(words.contains(expected), "`{expected}` is missing in:\n{words}");
    }
    config("[platform]\nimages = [\"other.example/*\"]\n");
    let words = text(&check(folder, &["--config", "proxy.toml"]).stderr);
    assert!(words.contains("is not approved here; approved: other.example/*"), "{words}");
}

#[test]
fn what_cannot_be_read_is_told_and_nothing_is_waited_for() {
    let folder = project();
    let folder = folder.path();
    own_domain(folder);
    let made = Command::new("mkfifo").arg(folder.join("pipe.pem")).status().unwrap();
    assert!(made.success());
    let manifest = fs::read_to_string(folder.join("mse.toml")).unwrap();
    fs::write(folder.join("mse.toml"), manifest.replace("\"key.pem\"", "\"pipe.pem\"")).unwrap();
    let words = text(&check(folder, &[]).stderr);
    assert!(words.contains("`private_key`: pipe.pem cannot be read"), "{words}");

    let run = |path: &str| {
        let output = command().args(["check", path]).current_dir(folder).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        text(&output.stderr)
    };
    assert!(run("none.toml").starts_with("none.toml: cannot be read: No such file"));
    assert!(run(".").starts_with(".: is a folder; name the manifest in it: ./mse.toml"));
    fs::write(folder.join("mse.toml"), b"name = \"\xff\"").unwrap();
    assert!(run("mse.toml").starts_with("mse.toml: is not UTF-8: byte 8 belongs to no"));
    fs::write(folder.join("mse.toml"), "#".repeat(300_000)).unwrap();
    assert!(run("mse.toml").starts_with("mse.toml: the text has more than 262144 bytes"));
}
