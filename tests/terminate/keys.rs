//! Keys: every kind in every form, those that cannot be read, and those that lie.

use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519,
    PKCS_RSA_SHA256, SignatureAlgorithm,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

use crate::daemon::until;
use crate::support::{Leaf, Scene, is_shown, run, shown};

/// What `openssl pkey` makes of a key, with these arguments more.
fn rewritten(key: &str, arguments: &[&str]) -> String {
    let output = run("openssl", &[&["pkey"], arguments].concat(), key.as_bytes());
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl pkey {arguments:?}: {words}");
    String::from_utf8(output.stdout).unwrap()
}

/// A key of each kind, and under which names it is told.
fn kinds() -> [(&'static str, &'static SignatureAlgorithm); 5] {
    [
        ("rsa", &PKCS_RSA_SHA256),
        ("p256", &PKCS_ECDSA_P256_SHA256),
        ("p384", &PKCS_ECDSA_P384_SHA384),
        ("p521", &PKCS_ECDSA_P521_SHA512),
        ("ed25519", &PKCS_ED25519),
    ]
}

fn is_pkcs8(key: &str) -> bool {
    matches!(PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(), PrivateKeyDer::Pkcs8(_))
}

#[test]
fn every_kind_of_key_answers_in_every_form_and_never_for_the_certificate_of_another() {
    let mut scene = Scene::new();
    let mut good = Vec::new();
    for (kind, algorithm) in kinds() {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let other = KeyPair::generate_for(algorithm).unwrap();
        let mut forms = vec![("ours", key.serialize_pem())];
        let (key, other) = if kind == "ed25519" {
            // openssl reads the younger form (RFC 8410 §7) not everywhere, and writes the older one.
            let text = run("openssl", &["genpkey", "-algorithm", "ed25519"], b"").stdout;
            let text = String::from_utf8(text).unwrap();
            let read = KeyPair::from_pem(&text).unwrap();
            forms = vec![("pkcs8", text)];
            (read, key)
        } else {
            forms.push(("pkcs8", rewritten(&key.serialize_pem(), &[])));
            let old = rewritten(&key.serialize_pem(), &["-traditional"]);
            assert!(!is_pkcs8(&old), "{kind}");
            forms.push(("traditional", old));
            (key, other)
        };
        assert!(forms.iter().any(|(_, key)| is_pkcs8(key)));
        for (form, key_text) in forms {
            let host = format!("{form}.{kind}.apps.test");
            let leaf = Leaf { key: key_text, ..scene.operator.issue_for(&[&host], &key) };
            scene.install(&host, &leaf);
            good.push((host, leaf.clone()));
            let host = format!("wrong-{form}.{kind}.apps.test");
            let wrong = scene.operator.issue_for(&[&host], &other);
            scene.install(&host, &Leaf { key: leaf.key, ..wrong });
        }
    }
    let routes = scene.all_apps();
    scene.serve(&routes);
    for (host, leaf) in &good {
        let tls = scene.connect(host).unwrap_or_else(|error| panic!("{host}: {error}"));
        assert_eq!(shown(&tls), leaf.der(), "{host}");
        let wrong = format!("wrong-{host}");
        scene.connect(&wrong).unwrap_err();
        let told = scene.daemon().wait_seen(&format!("{wrong}.pem"));
        assert!(told.contains("its key is not that of the certificate"), "{told}");
    }
}

#[test]
fn a_key_that_lies_about_its_public_half_is_found_out_and_another_certificate_answers() {
    let mut scene = Scene::new();
    let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut lie = other.serialize_der();
    let point = other.public_key_raw();
    let at = lie.windows(point.len()).position(|some| some == point).unwrap();
    lie[at..at + point.len()].copy_from_slice(key.public_key_raw());
    let text = run("openssl", &["base64"], &lie).stdout;
    let text = String::from_utf8(text).unwrap();
    let lie = format!("-----BEGIN PRIVATE KEY-----\n{text}-----END PRIVATE KEY-----\n");
    let leaf = scene.operator.issue_for(&["a.apps.test"], &key);
    scene.install("a", &Leaf { key: lie.clone(), ..leaf.clone() });
    let wild = scene.operator.issue(&["*.apps.test"]);
    scene.install("wild", &wild);
    let routes = scene.all_apps();
    scene.serve(&routes);
    let told = scene.daemon().wait_seen("a certificate cannot answer");
    assert!(told.contains("a.pem") && told.contains("\"is_kept\":false"), "{told}");
    until("the other one answers", || is_shown(&scene, "a.apps.test", &wild));
    // While it runs, such a key is not even believed for a moment.
    scene.install("a", &leaf);
    until("the mended one answers", || is_shown(&scene, "a.apps.test", &leaf));
    scene.put("a.key", &lie);
    let told = scene.daemon().wait_log("a certificate cannot answer");
    assert!(told.contains("a.pem") && told.contains("\"is_kept\":true"), "{told}");
    assert!(is_shown(&scene, "a.apps.test", &leaf));
}

#[test]
fn an_encrypted_key_is_told_with_the_remedy() {
    let mut scene = Scene::new();
    let key = KeyPair::generate().unwrap();
    let locked = ["-aes256", "-passout", "pass:secret"];
    let old = [&["-traditional"][..], &locked].concat();
    for (name, key_text) in [
        ("pkcs8", rewritten(&key.serialize_pem(), &locked)),
        ("traditional", rewritten(&key.serialize_pem(), &old)),
    ] {
        assert!(key_text.contains("ENCRYPTED"));
        let leaf = scene.operator.issue_for(&[&format!("{name}.apps.test")], &key);
        scene.install(name, &Leaf { key: key_text, ..leaf });
    }
    let routes = scene.all_apps();
    scene.serve(&routes);
    for name in ["pkcs8", "traditional"] {
        let told = scene.daemon().wait_seen(&format!("{name}.pem"));
        assert!(told.contains("its key is encrypted: write it without a passphrase"), "{told}");
    }
    scene.connect("pkcs8.apps.test").unwrap_err();
    assert_eq!(scene.ended().0, "no_certificate");
}
