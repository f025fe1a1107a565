//! Foreign clients: OpenSSL, curl and Python see the backend's own certificate and clean ends.

use std::process::{Output, Stdio};
use std::sync::Arc;

use mse_proxy::clock::SystemClock;
use tokio::process::Command;

use crate::support::{Identity, Proxy, route, soon};

/// Runs a program that the test command has installed; one that is missing is a failure.
async fn run(program: &str, arguments: &[&str]) -> Output {
    let child =
        Command::new(program).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = soon(program, child).await;
    output.unwrap_or_else(|error| panic!("{program}: {error} (tests/run installs what is needed)"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

struct Scene {
    proxy: Proxy,
    identity: Identity,
    folder: tempfile::TempDir,
}

impl Scene {
    async fn new(answer: &str) -> Self {
        let identity = Identity::of("app.test");
        let address = identity.serve_page("sealed\n").await;
        let answer = mse_proxy::wire::alert::Answer::from_word(answer).unwrap();
        let proxy = Proxy::with(&route("app.test", address, ""), Arc::new(SystemClock), |config| {
            config.refusal.answer = answer;
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), &identity.pem).unwrap();
        Self { proxy, identity, folder }
    }

    fn authority(&self) -> String {
        self.folder.path().join("ca.pem").display().to_string()
    }

    async fn curl(&self, host: &str, more: &[&str]) -> Output {
        let port = self.proxy.address.port();
        let (resolve, url) =
            (format!("{host}:{port}:127.0.0.1"), format!("https://{host}:{port}/"));
        let authority = self.authority();
        let mut arguments =
            vec!["-sS", "--http1.1", "--resolve", &resolve, "--cacert", &authority, &url];
        arguments.extend_from_slice(more);
        run("curl", &arguments).await
    }

    async fn python(&self, script: &str, host: &str) -> String {
        let port = self.proxy.address.port().to_string();
        let output = run("python3", &["-c", script, &self.authority(), host, &port]).await;
        text(&output.stdout) + &text(&output.stderr)
    }
}

#[tokio::test]
async fn curl_trusts_the_backends_certificate_alone() {
    let scene = Scene::new("close").await;
    for version in ["--tlsv1.3", "--tls-max=1.2"] {
        let version: Vec<&str> = version.split('=').collect();
        let output = scene.curl("app.test", &version).await;
        assert_eq!(text(&output.stdout), "sealed\n", "{}", text(&output.stderr));
    }
    let record = scene.proxy.record().await;
    assert_eq!(record["sni"], "app.test");
    assert_eq!(record["alpn"], "http/1.1");
}

#[tokio::test]
async fn openssl_sees_the_backends_certificate() {
    let scene = Scene::new("close").await;
    let address = scene.proxy.address.to_string();
    let authority = scene.authority();
    let output = run(
        "openssl",
        &[
            "s_client",
            "-connect",
            &address,
            "-servername",
            "app.test",
            "-CAfile",
            &authority,
            "-verify_return_error",
            "-showcerts",
        ],
    )
    .await;
    let shown = text(&output.stdout);
    assert!(shown.contains("Verify return code: 0 (ok)"), "{shown}");
    let pem: Vec<&str> = scene.identity.pem.lines().collect();
    assert!(pem.iter().all(|line| shown.contains(line)), "the very certificate: {shown}");
}

const PYTHON_FETCH: &str = r#"
import socket, ssl, sys, hashlib
authority, host, port = sys.argv[1:]
context = ssl.create_default_context(cafile=authority)
with socket.create_connection(("127.0.0.1", int(port))) as raw:
    with context.wrap_socket(raw, server_hostname=host) as tls:
        print(hashlib.sha256(tls.getpeercert(binary_form=True)).hexdigest())
        tls.sendall(b"GET / HTTP/1.1\r\n\r\n")
        print(tls.recv(10000).decode())
"#;

#[tokio::test]
async fn python_sees_the_backends_certificate() {
    let scene = Scene::new("close").await;
    let printed = scene.python(PYTHON_FETCH, "app.test").await;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &scene.identity.certificate);
    let digest: Vec<String> = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(printed.contains(&digest.concat()) && printed.contains("sealed"), "{printed}");
}

const PYTHON_REFUSED: &str = r#"
import socket, ssl, sys
authority, host, port = sys.argv[1:]
context = ssl.create_default_context(cafile=authority)
try:
    with socket.create_connection(("127.0.0.1", int(port))) as raw:
        context.wrap_socket(raw, server_hostname=host)
except Exception as error:
    print(type(error).__name__, error)
"#;

#[tokio::test]
async fn a_refused_python_client_sees_a_clean_end_or_the_fitting_alert() {
    for (answer, words) in [
        ("close", "SSLEOFError"),
        ("close_notify", "SSLZeroReturnError"),
        ("alert", "UNRECOGNIZED_NAME"),
    ] {
        let scene = Scene::new(answer).await;
        let printed = scene.python(PYTHON_REFUSED, "unknown.test").await;
        assert!(printed.to_uppercase().contains(&words.to_uppercase()), "{answer}: {printed}");
        assert_eq!(scene.proxy.outcome().await, "unknown_name");
    }
}

#[tokio::test]
async fn a_refused_curl_never_sees_a_reset() {
    for answer in ["close", "close_notify", "alert"] {
        let scene = Scene::new(answer).await;
        let output = scene.curl("unknown.test", &[]).await;
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(35), "{answer}: {error}");
        assert!(!error.to_lowercase().contains("reset"), "{answer}: {error}");
        if answer == "alert" {
            assert!(error.contains("unrecognized name"), "{error}");
        }
    }
}

#[tokio::test]
async fn curl_without_tls_gets_an_explanation() {
    let scene = Scene::new("close").await;
    let url = format!("http://{}/", scene.proxy.address);
    let output = run("curl", &["-sS", "-i", &url]).await;
    let page = text(&output.stdout);
    assert!(page.starts_with("HTTP/1.1 400 Bad Request") && page.contains("https://"), "{page}");
    assert_eq!(scene.proxy.outcome().await, "plain_http");
}
