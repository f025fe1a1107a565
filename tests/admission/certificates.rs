//! Certificates and keys as openssl and rcgen make them: what is read of them, and what fits.

use std::fs;
use std::path::Path;
use std::process::Command;

use mse_proxy::admission::certificate::{
    Chain, ChainError, End, KeyFinding, MAX_CERTIFICATES, Torn, end, match_key, torn,
};
use mse_proxy::hostname::Pattern;

use crate::certs::{Leaf, World, chain};
use crate::support::at;

/// Runs openssl in a folder.
fn openssl(folder: &Path, line: &str) {
    let output = Command::new("openssl")
        .args(line.split_whitespace())
        .current_dir(folder)
        .output()
        .unwrap_or_else(|error| panic!("openssl (Debian package openssl): {error}"));
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

fn covers(chain: &Chain, name: &str) -> bool {
    chain.leaf.covers(&name.parse::<Pattern>().unwrap())
}

#[test]
fn chains_of_every_kind_of_key_are_read_and_held_together() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let run = |line: &str| openssl(folder, line);
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    let extensions = "[ca]\nbasicConstraints=critical,CA:TRUE\n\
                      [leaf]\nsubjectAltName=DNS:app.example.com,DNS:*.b.test,IP:192.0.2.1,email:a@b.test\n";
    fs::write(folder.join("ext"), extensions).unwrap();
    let keys = [
        ("rsa", "genrsa -out KEY 2048"),
        ("rsa1", "genrsa -traditional -out KEY 3072"),
        ("p256", "ecparam -name prime256v1 -genkey -out KEY"),
        ("p384", "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out KEY"),
        ("p521", "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-521 -out KEY"),
        ("ed", "genpkey -algorithm ED25519 -out KEY"),
    ];
    for (name, make) in keys {
        run(&make.replace("KEY", &format!("{name}.key")));
    }
    // Each key signs the leaf of the next, under an authority of its own.
    for (index, (name, _)) in keys.iter().enumerate() {
        run(&format!(
            "req -x509 -new -key {name}.key -subj /CN=Root-{name} -days 30 -out {name}.ca"
        ));
        let (leaf, _) = keys[(index + 1) % keys.len()];
        run(&format!("req -new -key {leaf}.key -subj /CN=app.example.com -out {leaf}.csr"));
        run(&format!(
            "x509 -req -in {leaf}.csr -CA {name}.ca -CAkey {name}.key -CAcreateserial -days 20 \
             -extfile ext -extensions leaf -out {leaf}.pem"
        ));
        let both = [read(&format!("{leaf}.pem")), read(&format!("{name}.ca"))].concat();
        let chain = Chain::from_pem(&both).unwrap();
        assert_eq!(torn(&chain), None, "{name} signed {leaf}");
        assert_eq!(end(&chain, &World::new().roots()), End::Root, "the root stands in the chain");
        assert!(covers(&chain, "app.example.com") && covers(&chain, "a.b.test"));
        assert!(!covers(&chain, "b.test") && !covers(&chain, "192-0-2-1.test"));
        assert_eq!(chain.leaf.ip_names.len(), 1);
        assert_eq!(chain.leaf.common_name.as_deref(), Some("app.example.com"));
        for (other, _) in keys {
            let expected = if other == leaf { KeyFinding::Matches } else { KeyFinding::Differs };
            let found = match_key(&read(&format!("{other}.key")), &chain.leaf);
            assert_eq!(found, expected, "{other} for {leaf}");
        }
    }
}

#[test]
fn keys_that_are_none_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let run = |line: &str| openssl(folder, line);
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    run("genrsa -out rsa.key 2048");
    run("pkcs8 -topk8 -in rsa.key -passout pass:secret -out locked.key");
    run("rsa -traditional -in rsa.key -aes128 -passout pass:secret -out old.key");
    run("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:secp256k1 -out odd.key");
    run("rsa -in rsa.key -pubout -out public.key");
    let leaf = chain(&[&Leaf::default().self_signed().pem]).leaf;
    for (name, finding) in [
        ("rsa.key", KeyFinding::Differs),
        ("locked.key", KeyFinding::Encrypted),
        ("old.key", KeyFinding::Encrypted),
        ("odd.key", KeyFinding::Unusable),
        ("public.key", KeyFinding::Missing),
    ] {
        assert_eq!(match_key(&read(name), &leaf), finding, "{name}");
    }
    assert_eq!(match_key(b"", &leaf), KeyFinding::Missing);
    let torn = "-----BEGIN PRIVATE KEY-----\nMIIBVQ==\n-----END PRIVATE KEY-----\n";
    assert_eq!(match_key(torn.as_bytes(), &leaf), KeyFinding::Unusable);
}

#[test]
fn what_is_no_chain_is_told_why() {
    let made = Leaf::default().self_signed();
    let read = |pem: &str| Chain::from_pem(pem.as_bytes());
    assert_eq!(read("").unwrap_err(), ChainError::Empty);
    assert_eq!(read("no certificate\n").unwrap_err(), ChainError::Empty);
    assert_eq!(read(&made.key).unwrap_err(), ChainError::Empty);
    let junk = "-----BEGIN CERTIFICATE-----\nMIIBVQ==\n-----END CERTIFICATE-----\n";
    let second = read(&format!("{}{junk}", made.pem)).unwrap_err();
    assert_eq!(second, ChainError::Unreadable { position: 2 });
    let broken = "-----BEGIN CERTIFICATE-----\nMI*BVQ==\n-----END CERTIFICATE-----\n";
    assert!(matches!(read(broken).unwrap_err(), ChainError::NotPem(_)));
    assert!(read(&made.pem.repeat(MAX_CERTIFICATES)).is_ok());
    assert_eq!(read(&made.pem.repeat(MAX_CERTIFICATES + 1)).unwrap_err(), ChainError::TooMany);
    // Comments and what openssl writes before a certificate are no part of it.
    assert!(read(&format!("# mine\nsubject=CN = x\n{}", made.pem)).is_ok());
}

#[test]
fn a_never_ending_certificate_has_the_last_end_that_there_is() {
    let made = Leaf { from: (2026, 1, 1), to: (9999, 12, 31), ..Leaf::default() }.self_signed();
    let leaf = chain(&[&made.pem]).leaf;
    assert_eq!(leaf.not_before, at("2026-01-01T00:00:00Z"));
    assert_eq!(leaf.not_after, jiff::Timestamp::MAX);
}

#[test]
fn a_chain_is_torn_where_a_signature_is_another_ones() {
    let world = World::new();
    let leaf = world.issuer.issue(&Leaf::default());
    let pem = |pems: &[&str]| torn(&chain(pems));
    assert_eq!(pem(&[&leaf.pem, &world.issuer.pem, &world.root.pem]), None);
    let signature = Some(Torn::Signature { position: 1 });
    assert_eq!(pem(&[&leaf.pem, &world.impostor.pem, &world.root.pem]), signature);
    let order = |torn| matches!(torn, Some(Torn::Order { position: 2, .. }));
    assert!(order(pem(&[&leaf.pem, &world.issuer.pem, &world.elsewhere.pem])));
}
