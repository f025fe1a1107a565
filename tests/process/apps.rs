//! Projects, hardware and apps by command: both sides as the real binary.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;

use crate::enclaves::{Authority, Enclave, KIND, wish};
use crate::named::Named;
use crate::route_support::{Controlled, on_terminal, plain};
use crate::support::{text, until};

/// A folder with what the explained manifest names, and that manifest with changes.
pub(crate) fn manifest(folder: &Path, changes: &[(&str, &str)]) -> String {
    for name in ["my_project/code", "my_project/tests"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    let mut text = include_str!("../../config/mse.toml").to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    let path = folder.join("mse.toml");
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn words(json: &Value, keys: &[&str]) -> Vec<String> {
    keys.iter().map(|key| json[*key].to_string()).collect()
}

#[test]
fn projects_and_hardware_are_created_looked_at_and_refused_with_remedies() {
    let proxy = Controlled::storing("");
    let created = proxy.json(&["project", "create", "default"]);
    assert_eq!(
        words(&created, &["name", "standing", "reminders"]),
        ["\"default\"", "\"good\"", "0"]
    );
    assert_eq!(created["token"].as_str().unwrap().len(), 32);
    let refused = proxy.refused(&["project", "create", "default"], 1);
    assert!(refused.contains("there is a project `default` already"), "{refused}");
    let refused = proxy.refused(&["project", "show", "other"], 1);
    assert!(
        refused.contains("there is no project `other`; create it (project create)"),
        "{refused}"
    );

    let free = proxy.told(&["hardware", "list"]);
    assert!(
        free.starts_with("KIND       BOOKED  FREE  APPS\n4g-eu-001       1     1  -\n"),
        "{free}"
    );
    proxy.told(&["hardware", "book", "8g-eu-001", "--count", "2"]);
    let all = proxy.json(&["hardware", "list"]);
    assert_eq!(all["hardware"][1]["booked"], 2, "{all}");
    let refused = proxy.refused(&["hardware", "drop", "4g-eu-001"], 1);
    assert!(refused.contains("neither booked nor dropped"), "{refused}");
    let refused = proxy.refused(&["hardware", "drop", "8g-eu-001", "--count", "3"], 1);
    assert!(refused.contains("only 2 of 8g-eu-001 are booked"), "{refused}");

    let known = proxy.json(&["project", "show", "default"])["revision"].to_string();
    let refused = proxy.refused(&["project", "suspend", "default", "--if-revision", "0"], 1);
    assert!(refused.contains("look at it again"), "{refused}");
    let unpaid = ["project", "unpaid", "default", "--since", "1d", "--if-revision", &known];
    proxy.told(&unpaid);
    let shown = proxy.told(&["project", "show", "default"]);
    assert!(shown.contains("default is unpaid") && shown.contains("suspended at"), "{shown}");
    let refused = proxy.refused(&["project", "unpaid", "default"], 1);
    assert!(refused.contains("the clock is not started anew"), "{refused}");
    assert_eq!(proxy.json(&["project", "paid", "default"])["standing"], "good");
    assert_eq!(proxy.json(&["project", "suspend", "default"])["cause"], "operator");
    let none = proxy.json(&["hardware", "list"]);
    assert_eq!(none["hardware"].as_array().unwrap().len(), 1, "its bookings are gone: {none}");
    assert_eq!(proxy.json(&["project", "resume", "default"])["standing"], "good");
    let list = proxy.told(&["project", "list"]);
    assert!(list.contains("default  good"), "{list}");
}

#[test]
fn a_deployment_is_judged_first_and_every_reason_is_told_at_its_place() {
    let proxy = Controlled::storing("");
    let folder = tempfile::tempdir().unwrap();
    let path = manifest(folder.path(), &[("name = \"my-app\"", "name = \"\"")]);
    let refused = proxy.refused(&["app", "deploy", "--path", &path], 1);
    assert!(refused.contains("mse.toml:") && refused.contains("it is empty"), "{refused}");
    let path = manifest(folder.path(), &[("4g-eu-001", "8g-eu-001")]);
    let refused = proxy.refused(&["app", "deploy", "--path", &path], 1);
    assert!(refused.contains("mse.toml:") && refused.contains("there is no project"), "{refused}");
    proxy.told(&["project", "create", "default"]);
    let refused = proxy.refused(&["app", "deploy", "--path", &path], 1);
    assert!(refused.contains("8g-eu-001"), "{refused}");
    // Whatever is refused by, what is odd is told as well: here by the proxy, there by the command.
    for wrong in [("4g-eu-001", "8g-eu-001"), ("name = \"my-app\"", "name = \"\"")] {
        let odd = ("[cloud]\n", "[cloud]\nspeed = \"much\"\n");
        let path = manifest(folder.path(), &[wrong, odd]);
        let refused = proxy.refused(&["app", "deploy", "--path", &path], 1);
        assert!(refused.contains("warning: ") && refused.contains("speed"), "{refused}");
    }

    let path = manifest(folder.path(), &[]);
    let deploy = ["app", "deploy", "--path", &path, "--backend", "127.0.0.1:1"];
    let dry = proxy.json(&[&deploy[..], &["--dry-run"]].concat());
    assert_eq!((&dry["deployed"], &dry["app"]["phase"]), (&false.into(), &"spawning".into()));
    assert!(proxy.told(&["app", "list"]).lines().count() == 1, "nothing was deployed");
    let told = proxy.told(&deploy);
    assert!(told.contains("default/my-app is deployed (spawning)"), "{told}");
    let refused = proxy.refused(&deploy, 1);
    assert!(refused.contains("my-app"), "{refused}");
    let shown = proxy.told(&["app", "phase", "my-app", "initializing"]);
    assert!(shown.contains("default/my-app is initializing"), "{shown}");
    let refused = proxy.refused(&["app", "phase", "my-app", "spawning"], 1);
    assert!(refused.contains("an app that is initializing cannot become spawning"), "{refused}");
    let known = proxy.json(&["app", "show", "my-app"])["revision"].to_string();
    let refused = proxy.refused(&["app", "stop", "my-app", "--if-revision", "1"], 1);
    assert!(refused.contains(&format!("it is at revision {known}, not at 1")), "{refused}");
    let stopped = proxy.json(&["app", "stop", "my-app", "--if-revision", &known]);
    assert_eq!(stopped["phase"], "stopped");
    // As lists show it; a project that is named apart leaves the name as it is.
    let shown = proxy.told(&["app", "show", "default/my-app"]);
    assert!(shown.contains("default/my-app is stopped"), "{shown}");
    let refused = proxy.refused(&["app", "show", "a/my-app", "--project", "default"], 1);
    assert!(refused.contains("the project `default` has no app `a/my-app`"), "{refused}");
    assert_eq!(proxy.json(&["app", "list"])["apps"][0]["name"], "my-app");
    let refused = proxy.refused(&["app", "show", "other"], 1);
    assert!(refused.contains("the project `default` has no app `other`"), "{refused}");
    let refused = proxy.refused(&["domain", "show", "a.test"], 1);
    assert!(refused.contains("no app has or had the domain `a.test`"), "{refused}");

    let bare = Controlled::serve("");
    let refused = bare.refused(&["project", "list"], 1);
    assert!(refused.contains("set store.path (a file) or store.etcd.endpoints"), "{refused}");
}

#[test]
fn whoever_waits_is_told_each_phase_and_how_it_went() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = Controlled::storing("");
    proxy.told(&["project", "create", "default"]);
    proxy.told(&["hardware", "book", KIND, "--count", "2"]);
    let (certificate, key) = Authority::new().issue(folder.path(), "own.test");
    let enclave = Enclave::serve(&certificate, &key);
    let backend = enclave.address.to_string();
    for (app, ending, status) in [("good", "running", 0), ("bad", "stopped", 1)] {
        // The one answers as an app does, the other as its configuration server.
        let check = if status == 0 { "/204" } else { "/marked/200" };
        let path = wish(folder.path(), app, check, "");
        let deploy = ["app", "deploy", "--wait", "--path", &path, "--backend", &backend];
        let mut waiting = proxy.command(&deploy);
        let waiting = waiting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        until("it is deployed", || proxy.run(&["app", "show", app]).status.success());
        proxy.told(&["app", "phase", app, "initializing"]);
        let phase = || proxy.json(&["app", "show", app])["phase"].clone();
        if status == 1 {
            assert_eq!(phase(), "initializing");
            proxy.told(&["app", "stop", app]);
        }
        let output = waiting.wait_with_output().unwrap();
        let (told, words) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(status), "{told}{words}");
        assert!(told.contains(&format!("default/{app} is deployed ({ending})")), "{told}");
        assert!(words.contains(&format!("default/{app} is {ending}")), "{words}");
        assert_eq!(phase(), ending);
    }
}

#[test]
fn whoever_waits_at_a_terminal_sees_in_which_phase_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = Controlled::storing("");
    proxy.told(&["project", "create", "default"]);
    proxy.told(&["hardware", "book", KIND]);
    let (certificate, key) = Authority::new().issue(folder.path(), "own.test");
    let enclave = Enclave::serve(&certificate, &key);
    let path = wish(folder.path(), "shop", "/204", "");
    let backend = enclave.address.to_string();
    let deploy = ["app", "deploy", "--wait", "--path", &path, "--backend", &backend];
    let command = proxy.command(&deploy);
    let (shown, status) = thread::scope(|scope| {
        let waiting = scope.spawn(|| on_terminal(&command, 100, ""));
        until("it is deployed", || proxy.run(&["app", "show", "shop"]).status.success());
        proxy.told(&["app", "phase", "shop", "initializing"]);
        waiting.join().unwrap()
    });
    let shown = plain(&shown);
    assert_eq!(status, 0, "{shown}");
    for words in
        ["it is spawning and waited for, ", "default/shop is running", "is deployed (running)"]
    {
        assert!(shown.contains(words), "`{words}` is missing: {shown}");
    }
}

#[test]
fn dropped_hardware_is_left_at_once_and_a_suspended_project_loses_all() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = Controlled::storing("");
    proxy.told(&["project", "create", "default"]);
    proxy.told(&["hardware", "book", KIND, "--count", "2"]);
    for app in ["first", "last"] {
        proxy.told(&["app", "deploy", "--path", &wish(folder.path(), app, "/", "")]);
    }
    let all = proxy.json(&["hardware", "list"]);
    assert_eq!(all["hardware"][1]["free"], 0, "{all}");
    let dropped = proxy.json(&["hardware", "drop", KIND]);
    assert_eq!(dropped["hardware"][0]["apps"], serde_json::json!(["first"]), "{dropped}");
    let phase = |app: &str| proxy.json(&["app", "show", app])["phase"].clone();
    assert_eq!((phase("first"), phase("last")), ("spawning".into(), "stopped".into()));

    proxy.told(&["project", "create", "other"]);
    proxy.told(&["project", "suspend", "default"]);
    assert_eq!(phase("first"), "stopped");
    let shown = proxy.told(&["project", "show", "default"]);
    assert!(shown.contains("suspended") && shown.contains("the operator said so"), "{shown}");
    let list = proxy.told(&["project", "list"]);
    let standings: Vec<_> =
        list.lines().map(|line| line.split_whitespace().nth(1).unwrap()).collect();
    assert_eq!(standings, ["STANDING", "suspended", "good"], "{list}");
    let refused =
        proxy.refused(&["app", "deploy", "--path", &wish(folder.path(), "first", "/", "")], 1);
    assert!(refused.contains("is suspended since"), "{refused}");
    let refused = proxy.refused(&["hardware", "book", KIND], 1);
    assert!(refused.contains("suspended"), "{refused}");
    proxy.told(&["project", "resume", "default"]);
    assert_eq!(proxy.json(&["hardware", "list"])["hardware"].as_array().unwrap().len(), 1);
    assert_eq!(proxy.json(&["app", "list", "--project", "other"])["apps"], serde_json::json!([]));
}

/// Carries bytes between a command and a proxy; what the command has said is kept.
fn overheard(socket: &Path, proxy: &Controlled) -> Arc<Mutex<Vec<u8>>> {
    let listener = UnixListener::bind(socket).unwrap();
    let (heard, target) = (Arc::new(Mutex::new(Vec::new())), proxy.socket());
    let keep = Arc::clone(&heard);
    thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut server) = (client.unwrap(), UnixStream::connect(&target).unwrap());
            let (mut to_client, mut from_server) =
                (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut from_server, &mut to_client));
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = client.read(&mut bytes) {
                keep.lock().unwrap().extend_from_slice(&bytes[..length]);
                if server.write_all(&bytes[..length]).is_err() {
                    break;
                }
            }
        }
    });
    heard
}

#[test]
fn the_owners_private_key_never_leaves_the_owner() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let root = authority.write_root(folder.path());
    let dns = Named::serve(&[("shop.test", "www IN CNAME proxy.mse.cosmian.com.\n")]);
    let resolvers = format!("[\"{}\"]", dns.address);
    let proxy = Controlled::storing_with(&[
        ("MSE_PROXY_PLATFORM_RESOLVERS", &resolvers),
        ("SSL_CERT_FILE", &root),
    ]);
    proxy.told(&["project", "create", "default"]);
    proxy.told(&["hardware", "book", KIND]);
    let (certificate, key) = authority.issue(folder.path(), "www.shop.test");
    // Even where somebody has written it into the file that is sent.
    let pem = fs::read_to_string(&key).unwrap();
    fs::write(&certificate, fs::read_to_string(&certificate).unwrap() + &pem).unwrap();
    let ssl = format!(
        "[cloud.ssl]\ndomain_name = \"www.shop.test\"\nprivate_key = \"{key}\"\n\
         certificate = \"{certificate}\"\n"
    );
    let path = wish(folder.path(), "shop", "/", &ssl);
    let socket = folder.path().join("overheard.sock");
    let heard = overheard(&socket, &proxy);
    let mut deploy = proxy.command(&["app", "deploy", "-v", "--path", &path]);
    deploy.env("MSE_PROXY_ADMIN", format!("unix:{}", socket.display()));
    let output = deploy.output().unwrap();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(said.contains("the certificate's file holds a private key too"), "{said}");

    let heard = heard.lock().unwrap().clone();
    let holds = |bytes: &[u8]| heard.windows(bytes.len()).any(|window| window == bytes);
    let leaf = CertificateDer::from_pem_file(&certificate).unwrap();
    assert!(holds(b"domain_name") && holds(&leaf), "it can be heard what is sent");
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    let der = der.secret_der();
    // The secret itself, as 32 bytes of an ECPrivateKey (RFC 5915).
    let prefix = [0x02, 0x01, 0x01, 0x04, 0x20];
    let start =
        der.windows(prefix.len()).position(|window| window == prefix).unwrap() + prefix.len();
    let secret = &der[start..start + 32];
    assert!(!holds(secret) && !holds(pem.lines().nth(1).unwrap().as_bytes()));
    let stored = fs::read(proxy.path("routes.redb")).unwrap();
    assert!(!stored.windows(32).any(|window| window == secret));
}
