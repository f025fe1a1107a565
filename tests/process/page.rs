//! The status page, as a real browser draws it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mse_proxy::clock::Timestamp;
use rustix::process::Signal;

use crate::support::{Daemon, backend, echo, hello, route, text};

/// What a browser made of a page.
struct Drawn {
    dom: String,
    /// What the page's script, or the browser about the page, had to say.
    console: Vec<String>,
}

/// Draws a page and lets it live for some seconds, which pass at once where nothing is waited for.
fn draw(url: &str, seconds: u32) -> Drawn {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new("timeout")
        .args(["-k", "5", "120", "chromium", "--headless", "--no-sandbox", "--disable-gpu"])
        .args(["--disable-dev-shm-usage", "--no-first-run", "--enable-logging=stderr"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--virtual-time-budget={}", seconds * 1000))
        .args(["--dump-dom", url])
        .env("HOME", profile.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let log = text(&output.stderr);
    assert!(output.status.success(), "{log}");
    let said = log.lines().filter(|line| line.contains(":CONSOLE"));
    Drawn { dom: text(&output.stdout), console: said.map(str::to_owned).collect() }
}

impl Drawn {
    /// The words that a reader sees, in their order.
    fn words(&self) -> String {
        let body = self.dom.split_once("<body").unwrap().1.split_once("<script>").unwrap().0;
        let mut words = String::new();
        for piece in body.split('<') {
            words.push_str(piece.split_once('>').map_or(piece, |(_, text)| text));
            words.push(' ');
        }
        let plain = words.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
        plain.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The element with this id, markup and all, up to a closing tag of the kind.
    fn element(&self, id: &str, end: &str) -> &str {
        let (_, after) = self.dom.split_once(&format!("id=\"{id}\"")).unwrap();
        after.split_once(end).unwrap().0
    }
}

fn client(daemon: &Daemon, bytes: &[u8]) {
    let mut client = daemon.dial();
    client.write_all(bytes).unwrap();
    client.read_to_end(&mut Vec::new()).unwrap();
    drop(client);
    daemon.record();
}

fn end(minutes: i64) -> String {
    let at = Timestamp::now() + jiff::SignedDuration::from_mins(minutes);
    format!("expires_at = {:.0}", at + jiff::SignedDuration::from_secs(30))
}

#[test]
fn it_shows_routes_and_their_life_sources_and_faults_sessions_and_traffic() {
    let bytes = hello("app.test");
    let (listener, held) = backend();
    let content = route("app.test", echo(bytes.len()), "app = \"acme/shop\"")
        + &route("held.test", held, &end(150))
        + &route("soon.test", "127.0.0.1:1", &end(5))
        + &route("later.test", "127.0.0.1:1", "not_before = 2099-01-01T00:00:00Z")
        + &route("old.test", "127.0.0.1:1", "expires_at = 2020-01-01T00:00:00Z")
        + &route("app.test", "127.0.0.1:1", "id = \"thief\"")
        + "[[route]]\nhosts = [\"broken.test\"]\nbackend = 1\n";
    let folder = tempfile::tempdir().unwrap();
    let routes = folder.path().join("routes.toml");
    std::fs::write(&routes, content).unwrap();
    let mut daemon = Daemon::serve(&routes, &[("MSE_PROXY_DRAIN_TIMEOUT", "10m")]);
    let admin = daemon.admin();
    for _ in 0..3 {
        client(&daemon, &bytes);
    }
    client(&daemon, &hello("no.test"));
    client(&daemon, b"GET / HTTP/1.1\r\n\r\n");
    let mut open = daemon.dial();
    open.write_all(&hello("held.test")).unwrap();
    let reached = listener.accept().unwrap();

    let drawn = draw(&format!("http://{admin}/"), 5);
    assert_eq!(drawn.console, [""; 0], "the browser has nothing to complain of");
    let words = drawn.words();
    for expected in [
        "mse-proxy ready",
        // Sessions, throughput, routes.
        "1 open",
        "5 ended since the start",
        "B/s to clients",
        "peak of the last 2 min: ",
        "3 live 1 pending 1 expired 2 faulty",
        "1 ending within an hour 2 within a day table revision 1",
        // Whose doing it was.
        "unknown name · client 1",
        "plain http · client 1",
        "Served, by how it ended closed 3",
        // The source and its faults, with their places.
        "file 3 faults 6 routes, 1 left out",
        "never without a fault yet",
        "did you mean `backends`?",
        "app.test is already claimed by the route \"app.test\"",
        "6 routes",
        "thief",
        "acme/shop · routes.toml:1:1 live no end",
        "begins in 72 y",
        "from 2099-01-01 00:00 UTC",
        "at 2020-01-01 00:00 UTC",
        "Refreshes itself every two seconds.",
        concat!("version ", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(words.contains(expected), "`{expected}` is missing in:\n{words}");
    }
    let is_near = |some: &[&str]| some.iter().any(|life| words.contains(&format!("live {life}")));
    assert!(is_near(&["2 h 30 min until", "2 h 29 min until"]), "{words}");
    assert!(is_near(&["5 min ", "4 min "]), "{words}");
    let place = |host: &str| words.rfind(&format!("{host} routes.toml")).unwrap_or(usize::MAX);
    assert!(place("soon.test") < place("held.test"), "what ends first stands first: {words}");

    daemon.signal(Signal::TERM);
    daemon.wait_log("draining");
    let drawn = draw(&format!("http://{admin}/"), 3);
    let words = drawn.words();
    assert!(words.contains("mse-proxy draining 1 session is still open"), "{words}");
    assert!(drawn.dom.contains("<title>draining · mse-proxy</title>"));
    drop((open, reached));
}

#[test]
fn other_peoples_words_are_shown_and_never_run() {
    let hostile =
        "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>";
    let content = route("a.test", "127.0.0.1:1", &format!("id = \"{hostile}\""))
        + &route("b.test", "127.0.0.1:1", &format!("app = \"{hostile}\""))
        + &route("c.test", "unix:/tmp/<b>bold", "")
        + &route("a.test", "127.0.0.1:1", "id = \"second\"")
        + &format!("[[route]]\nhosts = [\"{hostile}\"]\nbackends = [\"127.0.0.1:1\"]\n");
    let folder = tempfile::tempdir().unwrap();
    let routes = folder.path().join("<u>routes.toml");
    std::fs::write(&routes, content).unwrap();
    let mut daemon = Daemon::serve(&routes, &[]);
    let drawn = draw(&format!("http://{}/", daemon.admin()), 3);
    assert_eq!(drawn.console, [""; 0]);
    assert!(drawn.dom.contains("<title>mse-proxy</title>"), "no script of theirs ran");
    let shown = drawn.element("all", "</main>");
    for tag in ["<img", "<script", "<b>", "<u>"] {
        assert!(!shown.contains(tag), "{tag} became markup");
    }
    let text = "&lt;img src=x onerror=document.title='owned'&gt;";
    // As an id, as an app, as the id in a conflict, and as a host in a fault.
    assert!(shown.matches(text).count() >= 4, "{shown}");
    assert!(shown.contains("unix:/tmp/&lt;b&gt;bold") && shown.contains("&lt;u&gt;routes.toml:"));
}

#[test]
fn a_browser_that_complains_would_be_heard() {
    let drawn = draw("data:text/html,<body><script>console.error('heard')</script>", 1);
    assert!(drawn.console.iter().any(|line| line.contains("heard")), "{:?}", drawn.console);
}

#[test]
fn without_routes_it_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let routes = folder.path().join("routes.toml");
    std::fs::write(&routes, "# none\n").unwrap();
    let mut daemon = Daemon::serve(&routes, &[]);
    let words = draw(&format!("http://{}/", daemon.admin()), 3).words();
    for expected in [
        "There are no routes: every name is refused.",
        "Nobody was refused.",
        "No session has ended yet.",
        "file no fault 0 routes",
    ] {
        assert!(words.contains(expected), "`{expected}` is missing in:\n{words}");
    }
}

/// Passes connections on to `target`, the first `most` that ask for the status, and then none: a
/// proxy that goes away. Counts how often the status was asked for.
fn fickle(target: SocketAddr, most: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let count = Arc::clone(&count);
            std::thread::spawn(move || pass(client, target, most, &count));
        }
    });
    (address, asked)
}

fn pass(mut client: TcpStream, target: SocketAddr, most: usize, count: &AtomicUsize) {
    let mut request = vec![0; 16 * 1024];
    let Ok(length) = client.read(&mut request) else { return };
    let request = &request[..length];
    if request.starts_with(b"GET /status.json") && count.fetch_add(1, Ordering::Relaxed) >= most {
        return;
    }
    let mut proxy = crate::web::dial(target);
    if proxy.write_all(request).is_ok() {
        let mut answer = Vec::new();
        let _ = proxy.read_to_end(&mut answer);
        let _ = client.write_all(&answer);
    }
}

#[test]
fn it_refreshes_itself_and_says_when_the_proxy_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let routes = folder.path().join("routes.toml");
    std::fs::write(&routes, route("app.test", "127.0.0.1:1", "")).unwrap();
    let mut daemon = Daemon::serve(&routes, &[]);
    let (address, asked) = fickle(daemon.admin(), 3);
    let drawn = draw(&format!("http://{address}/"), 20);
    assert!(asked.load(Ordering::Relaxed) > 3, "it goes on to ask");
    let words = drawn.words();
    assert!(words.contains("mse-proxy unreachable"), "{words}");
    assert!(words.contains("The proxy cannot be reached ("), "{words}");
    assert!(words.contains("What is shown is of 20"), "{words}");
    assert!(words.contains("app.test"), "what was known stays: {words}");
    assert!(drawn.dom.contains("<title>unreachable · mse-proxy</title>"));

    let (address, asked) = fickle(daemon.admin(), usize::MAX);
    let drawn = draw(&format!("http://{address}/"), 9);
    assert!(asked.load(Ordering::Relaxed) >= 4, "every two seconds");
    assert!(drawn.words().contains("mse-proxy ready"));
}
