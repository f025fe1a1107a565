//! Who may ask a fleet's etcd: certificates, users, and what they may see.

use std::fs;
use std::time::Duration;

use mse_proxy::store::etcd::{Etcd, Settings};
use mse_proxy::store::{Error, Shared};
use tempfile::TempDir;

use crate::contract::{change, in_time, put, told};
use crate::support_etcd::{Authority, Server, open, settings, write};

/// Reads, writes and follows.
async fn works(store: &Shared) {
    let start = in_time(store.range("")).await.unwrap().revision;
    let mut watch = in_time(store.watch("", start)).await.unwrap();
    let revision = in_time(change(store, vec![put("a", "x")])).await;
    assert_eq!(told(&mut watch).await.revision, revision);
    assert_eq!(in_time(store.get("a")).await.unwrap().unwrap().revision, revision);
}

fn tls(url: &str, ca: &str, client: Option<&(String, String)>) -> String {
    let ours =
        client.map(|(certificate, key)| format!("certificate = {certificate:?}\nkey = {key:?}\n"));
    let section = settings(&[url.to_owned()]);
    format!("{section}ca = {ca:?}\n{}", ours.unwrap_or_default())
}

#[tokio::test]
async fn both_sides_show_certificates() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let mut server = Server::with_tls(&authority);
    let client = authority.client("client");
    works(&open(&tls(&server.url(), &authority.path, Some(&client)))).await;
    // By its name as well.
    let by_name = server.url().replace("127.0.0.1", "localhost");
    let store = open(&tls(&by_name, &authority.path, Some(&client)));
    works(&store).await;

    let refused = |text: String| async move {
        let store = open(&format!("{text}timeout = \"2s\"\n"));
        match in_time(store.get("a")).await {
            Err(Error::Unavailable { why, .. }) => why,
            other => panic!("{other:?}"),
        }
    };
    let why = refused(tls(&server.url(), &stranger.path, Some(&client))).await;
    assert!(why.contains("invalid peer certificate"), "{why}");
    let why = refused(tls(&server.url(), &authority.path, None)).await;
    assert!(why.to_lowercase().contains("certificate"), "{why}");
    let unknown = stranger.client("client");
    let why = refused(tls(&server.url(), &authority.path, Some(&unknown))).await;
    assert!(why.to_lowercase().contains("certificate"), "{why}");
    let why = refused(settings(&[server.url().replace("https", "http")])).await;
    assert!(why.contains(&server.address().to_string()), "{why}");

    // A connection breaks off: the next one reads the files again, which were renewed meanwhile.
    fs::copy(&unknown.0, &client.0).unwrap();
    fs::copy(&unknown.1, &client.1).unwrap();
    server.restart();
    let ended = in_time(store.get("a")).await;
    assert!(matches!(ended, Err(Error::Unavailable { .. })), "{ended:?}");
    let renewed = authority.client("renewed");
    fs::rename(&renewed.0, &client.0).unwrap();
    fs::rename(&renewed.1, &client.1).unwrap();
    works(&store).await;
}

/// Makes `proxy` with the password `secret` a user who may do everything under `mse-proxy/`.
fn introduce(server: &Server) {
    for line in [
        "user add root:rootsecret",
        "user grant-role root root",
        "role add proxy",
        "role grant-permission proxy readwrite mse-proxy/ --prefix=true",
        "user add proxy:secret",
        "user grant-role proxy proxy",
    ] {
        server.etcdctl(&line.split(' ').collect::<Vec<_>>());
    }
}

/// A client who is `proxy` with the password of this file.
fn as_proxy(server: &Server, password: &str) -> Shared {
    open(&format!("{}user = \"proxy\"\npassword_file = {password:?}\n", server.settings()))
}

fn logins(server: &Server) -> u64 {
    server.counter(&["grpc_server_handled_total", "\"Authenticate\"", "\"OK\""])
}

fn refusal<T: std::fmt::Debug>(ended: Result<T, Error>) -> String {
    match ended {
        Err(Error::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_user_logs_in_and_stays_logged_in() {
    let mut server = Server::start(&["--auth-token-ttl=1"]);
    let folder = TempDir::new().unwrap();
    let password = write(folder.path(), "password", "secret\n");
    introduce(&server);
    let store = as_proxy(&server, &password);
    // Nobody asks for a user yet.
    works(&store).await;
    server.etcdctl(&["auth", "enable"]);
    works(&store).await;
    let first = logins(&server);
    assert!(first >= 1);
    works(&store).await;
    assert_eq!(logins(&server), first, "one token is enough");

    // The token's time passes; etcd tells nobody, and asking with a token makes it last longer: there
    // is nothing to wait for but the clock, here and below.
    let start = store.range("").await.unwrap().revision;
    let mut watch = store.watch("", start).await.unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    works(&store).await;
    let second = logins(&server);
    assert!(second > first, "the token was bought anew");
    assert_eq!(told(&mut watch).await.changes, [put("a", "x")]);
    tokio::time::sleep(Duration::from_secs(4)).await;
    // A watch is what meets the old token first.
    let mut other = in_time(store.watch("", start)).await.unwrap();
    assert_eq!(told(&mut other).await.changes, [put("a", "x")]);
    assert!(logins(&server) > second);

    // A change of roles makes all tokens old.
    server.etcdctl(&["--user=root:rootsecret", "role", "add", "another"]);
    works(&store).await;
    // A restart forgets them; the watch goes on.
    let revision = change(&store, vec![put("b", "x")]).await;
    while told(&mut watch).await.revision < revision {}
    server.restart();
    works(&store).await;
    assert_eq!(told(&mut watch).await.changes, [put("a", "x")]);
}

#[tokio::test]
async fn who_may_not_is_told_so() {
    let server = Server::start(&[]);
    let folder = TempDir::new().unwrap();
    let password = write(folder.path(), "password", "wrong");
    introduce(&server);
    server.etcdctl(&["auth", "enable"]);

    let why = refusal(in_time(server.open().get("a")).await);
    assert!(why.contains("store.etcd.user"), "{why}");
    let why = refusal(in_time(server.open().watch("", 1)).await.map(|_| ()));
    assert!(why.contains("store.etcd.user"), "{why}");
    let store = as_proxy(&server, &password);
    let why = refusal(in_time(store.get("a")).await);
    assert!(why.contains("`proxy`") && why.contains("authentication failed"), "{why}");
    assert!(!why.contains("wrong") && !format!("{store:?}").contains("wrong"));
    // Whoever mends the file need not start anything again.
    fs::remove_file(&password).unwrap();
    fs::write(&password, "secret").unwrap();
    works(&store).await;

    let elsewhere = format!(
        "{}user = \"proxy\"\npassword_file = {password:?}\nprefix = \"theirs/\"\n",
        server.settings()
    );
    let store = open(&elsewhere);
    for why in [
        refusal(in_time(store.get("a")).await),
        refusal(in_time(store.watch("", 1)).await.map(|_| ())),
    ] {
        assert!(why.contains("permission denied"), "{why}");
    }
    // Who may only read is told when it wants to write.
    server.etcdctl(&[
        "--user=root:rootsecret",
        "role",
        "grant-permission",
        "proxy",
        "read",
        "theirs/",
        "--prefix=true",
    ]);
    assert_eq!(in_time(store.get("a")).await.unwrap(), None);
    let ended = store
        .commit(mse_proxy::store::Transaction { checks: vec![], changes: vec![put("a", "x")] })
        .await;
    assert!(refusal(ended).contains("permission denied"));
}

#[test]
fn settings_that_cannot_work_are_told_before_anything_runs() {
    let folder = TempDir::new().unwrap();
    let empty = write(folder.path(), "empty", "\n");
    let words = write(folder.path(), "words", "no certificate");
    let missing = format!("{words}.missing");
    let authority = Authority::new();
    let (certificate, key) = authority.client("client");
    let (other, _) = authority.client("other");
    let (http, https) =
        ("endpoints = [\"http://127.0.0.1:1\"]\n", "endpoints = [\"https://127.0.0.1:1\"]\n");
    for (text, expected) in [
        (String::new(), "`store.etcd.endpoints` is empty"),
        (format!("{http}user = \"u\""), "needs `store.etcd.password_file`"),
        (format!("{http}password_file = {empty:?}"), "needs `store.etcd.user`"),
        (format!("{http}user = \"u\"\npassword_file = {empty:?}"), "no password in it"),
        (format!("{http}user = \"u\"\npassword_file = {missing:?}"), "No such file"),
        (format!("{http}ca = {certificate:?}"), "no endpoint begins with https://"),
        (format!("{https}ca = {missing:?}"), "`store.etcd.ca`"),
        (format!("{https}ca = {words:?}"), "no certificate in it"),
        (format!("{https}certificate = {certificate:?}"), "needs `store.etcd.key`"),
        (format!("{https}key = {key:?}"), "needs `store.etcd.certificate`"),
        (format!("{https}certificate = {certificate:?}\nkey = {words:?}"), "no private key in it"),
        (format!("{https}certificate = {other:?}\nkey = {key:?}"), "`store.etcd.key`"),
    ] {
        let settings: Settings = toml::from_str(&text).unwrap();
        let why = Etcd::open(&settings).unwrap_err().to_string();
        assert!(why.contains(expected), "{text}: {why}");
    }
    let good =
        format!("{https}ca = {:?}\ncertificate = {certificate:?}\nkey = {key:?}", authority.path);
    assert!(Etcd::open(&toml::from_str(&good).unwrap()).is_ok());
}
