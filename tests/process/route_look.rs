//! `route list`, `route show` and `explain` on a running proxy: on terminals, in pipes, for programs.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use crate::route_support::{Controlled, on_terminal, plain};
use crate::support::{command, route, run, text};

fn routes() -> String {
    route(
        "shop.test",
        "127.0.0.1:1",
        "id = \"shop\"\napp = \"demo/shop\"\nexpires_at = 2099-01-01T00:00:00Z",
    ) + &route("ended.test", "127.0.0.1:2", "expires_at = 2020-01-01T00:00:00Z")
        + &route("later.test", "127.0.0.1:3", "not_before = 2098-01-01T00:00:00Z")
        + &route("shop.test", "127.0.0.1:4", "id = \"thief\"")
}

#[test]
fn a_list_is_the_same_for_every_reader_of_a_pipe() {
    let proxy = Controlled::serve(&routes());
    let output = proxy.run(&["route", "list"]);
    assert_eq!(
        text(&output.stdout),
        "ID          HOSTS       BACKENDS     STATE    ENDS                  OPEN  SOURCE\n\
         ended.test  ended.test  127.0.0.1:2  expired  2020-01-01T00:00:00Z     0  file\n\
         later.test  later.test  127.0.0.1:3  pending  2098-01-01T00:00:00Z     0  file\n\
         shop        shop.test   127.0.0.1:1  live     2099-01-01T00:00:00Z     0  file\n\
         thief       shop.test   127.0.0.1:4  faulty   never                    0  file\n"
    );
    assert!(text(&output.stderr).starts_with("thief: shop.test is already claimed"));
    let ids = |arguments: &[&str]| {
        let all = proxy.json(&[&["route", "list"], arguments].concat());
        let ids = all["routes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|route| route["id"].as_str().unwrap().to_owned());
        ids.collect::<Vec<_>>()
    };
    assert_eq!(ids(&["SHOP"]), ["shop", "thief"]);
    assert_eq!(ids(&["--state", "faulty"]), ["thief"]);
    assert_eq!(ids(&["--source", "store"]), Vec::<String>::new());
    assert_eq!(ids(&["--sort", "end"]), ["ended.test", "shop", "later.test", "thief"]);
    let all = proxy.json(&["route", "list", "shop.test", "--state", "live"]);
    let shop = &all["routes"][0];
    assert_eq!(shop["state"], "live");
    assert_eq!(shop["app"], "demo/shop");
    assert_eq!(shop["open_connections"], 0);
    assert_eq!(shop["not_before"], serde_json::Value::Null);
}

#[test]
fn a_terminal_gets_colours_words_and_no_more_than_fits() {
    let proxy = Controlled::serve(&routes());
    let list = proxy.command(&["route", "list"]);
    for columns in [40, 60, 80, 200] {
        let (shown, status) = on_terminal(&list, columns, "");
        assert_eq!(status, 0);
        assert!(shown.contains("\u{1b}["), "{shown}");
        let shown = plain(&shown);
        let table = shown.lines().take_while(|line| !line.starts_with("thief: "));
        for line in table {
            assert!(line.chars().count() <= usize::from(columns), "{columns}: {line}");
        }
        assert!(shown.contains("ended.test"), "ids are whole: {shown}");
        assert_eq!(shown.contains("SOURCE"), columns >= 80, "{columns}: {shown}");
        assert!(shown.contains(" ago") && shown.contains("begins in"), "{shown}");
        assert!(shown.trim_end().ends_with("4 routes"), "{shown}");
    }
    let mut silent = proxy.command(&["route", "list"]);
    silent.arg("--color=never");
    assert!(!on_terminal(&silent, 80, "").0.contains("\u{1b}["));
    let painted = proxy.told(&["--color", "always", "route", "list"]);
    assert!(painted.contains("\u{1b}[") && painted.contains("2099-01-01T00:00:00Z"), "{painted}");
}

#[test]
fn one_route_is_shown_whole_and_a_mistyped_one_is_guessed() {
    let proxy = Controlled::serve(&routes());
    let told = proxy.told(&["route", "show", "shop"]);
    for expected in [
        "shop is live",
        "hosts    shop.test",
        "until    2099-01-01T00:00:00Z, in ",
        "open     0 connections",
    ] {
        assert!(told.contains(expected), "`{expected}` is missing in:\n{told}");
    }
    assert_eq!(proxy.json(&["route", "show", "ended.test"])["state"], "expired");
    let words = proxy.refused(&["route", "show", "shpo"], 1);
    assert!(
        words.contains("there is no route") && words.contains("did you mean `shop`?"),
        "{words}"
    );
    let words = proxy.refused(&["route", "show", "something-else"], 1);
    assert!(words.contains("`mse-proxy route list` shows all routes"), "{words}");
    let words = proxy.refused(&["route", "set", "new.test", "--backend", "127.0.0.1:1"], 1);
    assert!(words.contains("store.path"), "without a store, the remedy is named: {words}");
}

#[test]
fn explain_asks_the_running_proxy_unless_a_file_is_named() {
    let proxy = Controlled::serve(&routes());
    let told = proxy.told(&["explain", "SHOP.test"]);
    assert!(told.starts_with("shop.test is let through\n"), "{told}");
    assert!(told.contains("table    revision 1"), "{told}");
    for (arguments, outcome) in [
        (&["explain", "ended.test"][..], "expired_name"),
        (&["explain", "later.test"], "not_yet_valid"),
        (&["explain", "other.test"], "unknown_name"),
        (&["explain", "192.0.2.1"], "invalid_sni"),
        (&["explain", "shop.test", "--at", "2099-01-01T00:00:00Z"], "expired_name"),
    ] {
        let output = proxy.command(&["--format", "json"]).args(arguments).output().unwrap();
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((output.status.code(), json["outcome"].as_str()), (Some(1), Some(outcome)));
    }
    let file = proxy.file("other.toml", &route("other.test", "127.0.0.1:1", ""));
    let told = proxy.told(&["explain", "other.test", "--routes", &file]);
    assert!(told.contains("other.toml:1:1") && !told.contains("table "), "{told}");
    let admin = format!("unix:{}", proxy.socket().display());
    let words = proxy.refused(&["explain", "x.test", "--routes", &file, "--admin", &admin], 2);
    assert!(words.contains("at once"), "{words}");
}

#[test]
fn whoever_cannot_be_reached_is_told_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let admin = format!("unix:{}", path.display());
    let ask = |arguments: &[&str]| {
        let output = run(&[&["--admin", &admin], arguments].concat());
        assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let words = ask(&["route", "list"]);
    assert!(
        words.contains("systemctl status mse-proxy") && words.contains("MSE_PROXY_ADMIN"),
        "{words}"
    );
    assert!(ask(&["explain", "a.test"]).contains("--routes PATH"));
    for command in [&["route", "watch"][..], &["route", "history"], &["route", "remove", "a"]] {
        assert!(ask(command).contains("cannot reach the proxy at unix:"));
    }
    drop(UnixListener::bind(&path).unwrap());
    assert!(ask(&["route", "list"]).contains("the proxy that made it has ended"));
    // Somebody who takes connections and says nothing.
    std::fs::remove_file(&path).unwrap();
    let _silent = UnixListener::bind(&path).unwrap();
    assert!(ask(&["route", "list"]).contains("no answer within 10s"));
    for wrong in ["/run/x.sock", "http://a:1", "https://a.test"] {
        let output = run(&["--admin", wrong, "route", "list"]);
        assert_eq!(output.status.code(), Some(2));
        assert!(
            text(&output.stderr).contains("write unix:/path/of/the/socket, or https://host:port")
        );
    }
    let output = run(&["--admin", "https://a.test:1", "route", "list"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--admin-cert"), "{}", text(&output.stderr));
}

#[test]
fn whoever_may_not_use_the_socket_is_told_whose_it_is() {
    let proxy = Controlled::serve(&routes());
    let folder = proxy.path("");
    let is_root = rustix::process::geteuid().is_root();
    // Root may do everything, so somebody else must try: nobody, where we are root.
    let (mut other, mode) = if is_root {
        let mut setpriv = std::process::Command::new("setpriv");
        setpriv.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        let binary = folder.join("mse-proxy");
        std::fs::copy(command().get_program(), &binary).unwrap();
        setpriv.arg(binary);
        (setpriv, 0o755)
    } else {
        std::fs::set_permissions(proxy.socket(), PermissionsExt::from_mode(0o0)).unwrap();
        (command(), 0o700)
    };
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(mode)).unwrap();
    let admin = format!("unix:{}", proxy.socket().display());
    let output = other.args(["--admin", &admin, "route", "list"]).output().unwrap();
    let words = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{words}");
    let owner = rustix::process::geteuid().as_raw();
    assert!(words.contains(&format!("the socket belongs to uid {owner} alone")), "{words}");
    assert!(words.contains("sudo "), "{words}");
}
