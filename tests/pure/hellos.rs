//! Hellos that were captured from real TLS stacks, and what an independent dissector found in them.

use std::path::Path;

use mse_proxy::wire::client_hello::Progress;
use serde::Deserialize;

use crate::support::{MAX_SIZE, hello_of, in_records, parse, parse_in, payload};

#[derive(Deserialize)]
struct Manifest {
    hello: Vec<Captured>,
}

#[derive(Deserialize)]
struct Captured {
    file: String,
    stack: String,
    sni: Option<String>,
    alpn: Vec<String>,
    ech: bool,
    records: usize,
    size: u32,
    key_shares: Vec<String>,
}

fn captured() -> Vec<(Captured, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hellos");
    let text = std::fs::read_to_string(folder.join("hellos.toml")).unwrap();
    let manifest: Manifest = toml::from_str(&text).unwrap();
    manifest
        .hello
        .into_iter()
        .map(|one| {
            let bytes = std::fs::read(folder.join(&one.file)).unwrap();
            (one, bytes)
        })
        .collect()
}

#[test]
fn the_collection_covers_what_it_is_for() {
    let all = captured();
    assert!(all.len() >= 30, "{}", all.len());
    let has = |what: &str, is_so: &dyn Fn(&Captured) -> bool| {
        assert!(all.iter().any(|(one, _)| is_so(one)), "no captured hello {what}");
    };
    for stack in
        ["OpenSSL", "gnutls", "NSS", "go ", "openjdk", "Node", "Chromium", "Python", "BoringSSL"]
    {
        has(&format!("of {stack}"), &|one| one.stack.contains(stack));
    }
    has("with X25519MLKEM768", &|one| one.key_shares.iter().any(|share| share == "11ec"));
    has("with a GREASE key share", &|one| one.key_shares.iter().any(|share| share == "grease"));
    has("with ECH", &|one| one.ech);
    has("without a name", &|one| one.sni.is_none());
    has("in several records", &|one| one.records > 1);
    has("of 60 KB", &|one| one.size > 60_000);
    has("that renews a certificate", &|one| one.alpn == ["acme-tls/1"]);
}

#[test]
fn each_parses_to_what_the_dissector_found_however_it_is_cut() {
    for (one, bytes) in captured() {
        let name = one.sni.as_ref().map(|name| name.to_lowercase());
        let check = |progress: Progress, wire_size: usize, how: &str| {
            let hello = hello_of(progress);
            let context = format!("{} ({}) {how}", one.file, one.stack);
            assert_eq!(hello.sni.as_ref().map(|name| name.as_str().to_owned()), name, "{context}");
            let alpn: Vec<&[u8]> = hello.alpn.iter().collect();
            assert_eq!(
                alpn,
                one.alpn.iter().map(String::as_bytes).collect::<Vec<_>>(),
                "{context}"
            );
            assert_eq!((hello.ech, hello.size), (one.ech, one.size), "{context}");
            assert_eq!(hello.wire_size, wire_size, "{context}");
        };
        check(parse(&bytes), bytes.len(), "whole");
        check(parse_in(&bytes, &[1]), bytes.len(), "byte by byte");
        check(parse_in(&bytes, &[1400]), bytes.len(), "in segments");
        let followed = [bytes.as_slice(), b"\x14\x03\x03\x00\x01\x01early data"].concat();
        check(parse(&followed), bytes.len(), "with more behind it");
        for size in [1, 40, 1000] {
            let records = in_records(&payload(&bytes), &[size]);
            check(parse(&records), records.len(), &format!("in records of {size}"));
            check(
                parse_in(&records, &[1]),
                records.len(),
                &format!("bytewise in records of {size}"),
            );
        }
        for version in 0..=4 {
            let mut bytes = bytes.clone();
            bytes[2] = version;
            check(parse(&bytes), bytes.len(), &format!("in a record of version 3.{version}"));
        }
    }
}

#[test]
fn every_prefix_is_incomplete() {
    for (one, bytes) in captured() {
        // The two giants in steps, so that the test stays quick.
        let step = if bytes.len() > 10_000 { 97 } else { 1 };
        for cut in (0..bytes.len()).step_by(step) {
            assert_eq!(parse(&bytes[..cut]), Progress::Incomplete, "{} cut at {cut}", one.file);
        }
        assert!(u32::try_from(bytes.len()).unwrap() <= MAX_SIZE + 5 * 10);
    }
}
