//! Clients and servers in Python, and a proxy between them.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use crate::daemon::route;
use crate::support::{Leaf, Scene, text};

/// Debian's Python, for which Debian's packages are.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

fn script(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "terminate", "clients", name].iter().collect()
}

/// A server that is killed when the test ends.
pub(crate) struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(scene: &Scene, name: &str, leaf: &Leaf, more: &[&str]) -> Self {
        let (chain, key) = (scene.path("server.pem"), scene.path("server.key"));
        std::fs::write(&chain, &leaf.chain).unwrap();
        std::fs::write(&key, &leaf.key).unwrap();
        let mut child = Command::new(PYTHON)
            .arg(script(name))
            .args(["serve", text(&chain), text(&key)])
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { port: line.trim().parse().unwrap(), child }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn scene_before(server: &str, more: &[&str]) -> (Scene, Server) {
    let mut scene = Scene::new();
    scene.install("a", &scene.operator.issue(&["a.apps.test"]));
    let server = Server::start(&scene, server, &scene.platform.issue(&["a.apps.test"]), more);
    let backend = format!("127.0.0.1:{}", server.port);
    scene.serve(&route("a.apps.test", backend, &scene.terminating("")));
    (scene, server)
}

/// Runs a script against the proxy; its arguments end with where that is.
pub(crate) fn client(scene: &Scene, name: &str, arguments: &[&str]) -> Output {
    let port = scene.address().port().to_string();
    Command::new(PYTHON)
        .arg(script(name))
        .args(arguments)
        .args(["a.apps.test", &port, text(&scene.path("operator.pem"))])
        .output()
        .unwrap()
}

pub(crate) fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap().trim().to_owned()
}
