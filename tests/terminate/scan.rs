//! What a scanner of TLS servers finds: sslyze, against a name whose TLS ends here.

use std::process::Command;

use serde_json::{Value, json};

use crate::daemon::{python, route};
use crate::origin::Origin;
use crate::support::{Leaf, Scene, text};

/// What is looked for, as the command calls it and as the report does.
const SCANS: [(&str, &str); 16] = [
    ("--sslv2", "ssl_2_0_cipher_suites"),
    ("--sslv3", "ssl_3_0_cipher_suites"),
    ("--tlsv1", "tls_1_0_cipher_suites"),
    ("--tlsv1_1", "tls_1_1_cipher_suites"),
    ("--tlsv1_2", "tls_1_2_cipher_suites"),
    ("--tlsv1_3", "tls_1_3_cipher_suites"),
    ("--elliptic_curves", "elliptic_curves"),
    ("--reneg", "session_renegotiation"),
    ("--compression", "tls_compression"),
    ("--robot", "robot"),
    ("--heartbleed", "heartbleed"),
    ("--openssl_ccs", "openssl_ccs_injection"),
    ("--fallback", "tls_fallback_scsv"),
    ("--early_data", "tls_1_3_early_data"),
    ("--ems", "tls_extended_master_secret"),
    ("--certinfo", "certificate_info"),
];

/// The report on one name of a proxy: each scan with what it found.
fn scan(scene: &Scene, host: &str) -> Value {
    let report = scene.path("report.json");
    let output = Command::new(python())
        .args(["-m", "sslyze", "--quiet", "--sni", host, "--json_out", text(&report)])
        .args(SCANS.map(|(option, _)| option))
        .args(["--certinfo_ca_file", text(&scene.path("operator.pem"))])
        .arg(scene.address().to_string())
        .output()
        .unwrap();
    let told = std::fs::read(&report).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let mut told: Value = serde_json::from_slice(&told).unwrap();
    let found = told["server_scan_results"][0]["scan_result"].take();
    for (_, name) in SCANS {
        assert_eq!(found[name]["status"], "COMPLETED", "{name}: {}", found[name]);
    }
    found
}

/// The names in a list of a report, in their alphabetic order.
fn names<'a>(list: &'a Value, name: impl Fn(&'a Value) -> &'a Value) -> Vec<&'a str> {
    let mut names: Vec<_> =
        list.as_array().unwrap().iter().map(|one| name(one).as_str().unwrap()).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_scanner_finds_nothing_old_weak_or_out_of_order() {
    let mut scene = Scene::new();
    let leaf = scene.operator.issue_with(&["a.apps.test"], |params| {
        // The scanner's own rules for certificates want it.
        params.use_authority_key_identifier_extension = true;
    });
    let leaf = Leaf { chain: leaf.chain + &scene.operator.pem, key: leaf.key };
    scene.install("a", &leaf);
    let origin = Origin::start(scene.platform.issue(&["a.apps.test"]).server(), &["h2"]);
    scene.serve(&route("a.apps.test", origin.address, &scene.terminating("")));
    let found = scan(&scene, "a.apps.test");

    let suites = |version: &str| {
        let found = &found[format!("{version}_cipher_suites")]["result"];
        let accepted = names(&found["accepted_cipher_suites"], |one| &one["cipher_suite"]["name"]);
        assert_eq!(found["is_tls_version_supported"], !accepted.is_empty(), "{version}");
        // It has tried others as well.
        assert!(found["rejected_cipher_suites"].as_array().unwrap().len() > 1, "{version}");
        accepted
    };
    for old in ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"] {
        assert_eq!(suites(old), [""; 0], "{old}");
    }
    // With a key for ECDSA; each of them is ephemeral and authenticates what it encrypts.
    let modern = [
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    ];
    assert_eq!(suites("tls_1_2"), modern);
    let modern =
        ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];
    assert_eq!(suites("tls_1_3"), modern);

    // The scanner does not know the post-quantum group; `tickets.rs` asks for that.
    let curves = &found["elliptic_curves"]["result"];
    let curve = |one| names(one, |one| &one["name"]);
    assert_eq!(curve(&curves["supported_curves"]), ["X25519", "secp256r1", "secp384r1"]);
    for (scan, key, value) in [
        ("session_renegotiation", "supports_secure_renegotiation", json!(true)),
        ("session_renegotiation", "is_vulnerable_to_client_renegotiation_dos", json!(false)),
        ("session_renegotiation", "client_renegotiations_success_count", json!(0)),
        ("tls_compression", "supports_compression", json!(false)),
        ("robot", "robot_result", json!("NOT_VULNERABLE_RSA_NOT_SUPPORTED")),
        ("heartbleed", "is_vulnerable_to_heartbleed", json!(false)),
        ("openssl_ccs_injection", "is_vulnerable_to_ccs_injection", json!(false)),
        ("tls_fallback_scsv", "supports_fallback_scsv", json!(true)),
        ("tls_1_3_early_data", "supports_early_data", json!(false)),
        ("tls_extended_master_secret", "supports_ems_extension", json!(true)),
    ] {
        assert_eq!(found[scan]["result"][key], value, "{scan}.{key}");
    }

    let shown = &found["certificate_info"]["result"]["certificate_deployments"];
    assert_eq!(shown.as_array().unwrap().len(), 1, "one chain, whoever asks");
    let shown = &shown[0];
    assert_eq!(shown["received_chain_has_valid_order"], true);
    assert_eq!(shown["received_certificate_chain"].as_array().unwrap().len(), 2);
    let judged = shown["path_validation_results"].as_array().unwrap();
    let own =
        judged.iter().find(|one| one["trust_store"]["path"] == *text(&scene.path("operator.pem")));
    assert_eq!(own.unwrap()["was_validation_successful"], true, "{own:?}");
}
