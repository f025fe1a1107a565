//! The control socket as the kernel and other processes find it.

use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::Signal;

use crate::support::{Daemon, command, serving, text};

/// Where a proxy under test has its socket, and the socket.
fn scene() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("run/mse-proxy/admin.sock");
    std::fs::write(folder.path().join("routes.toml"), "# none\n").unwrap();
    (folder, socket)
}

fn daemon(folder: &Path, socket: &Path) -> Daemon {
    let mut start = serving(&folder.join("routes.toml"));
    start.env("MSE_PROXY_ADMIN_GRPC", format!("unix:{}", socket.display()));
    Daemon::start(start)
}

fn list(mut program: Command, socket: &Path) -> Output {
    let admin = format!("unix:{}", socket.display());
    program.args(["route", "list", "--admin", &admin]).output().unwrap()
}

/// The binary where everybody can run it, and what runs it as somebody with no rights. None, where
/// this test itself has none to give away.
fn as_nobody(folder: &Path) -> Option<Command> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let copy = folder.join("mse-proxy");
    std::fs::copy(command().get_program(), &copy).unwrap();
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).unwrap();
    let mut start = Command::new("setpriv");
    start.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(copy);
    Some(start)
}

#[test]
fn only_its_owner_may_connect_whatever_the_umask_is() {
    let (folder, socket) = scene();
    let admin = format!("unix:{}", socket.display());
    let inner = serving(&folder.path().join("routes.toml"));
    let mut start = Command::new("sh");
    start.args(["-c", "umask 0; exec \"$0\" serve"]).arg(inner.get_program());
    start.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    start.env("MSE_PROXY_ADMIN_GRPC", admin);
    let mut daemon = Daemon::start(start);
    let found = std::fs::symlink_metadata(&socket).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    let above = std::fs::metadata(socket.parent().unwrap()).unwrap();
    assert_eq!(above.permissions().mode() & 0o777, 0o755);
    assert!(list(command(), &socket).status.success());
    if let Some(nobody) = as_nobody(folder.path()) {
        let refused = list(nobody, &socket);
        assert_eq!(refused.status.code(), Some(3), "{}", text(&refused.stderr));
        assert!(text(&refused.stderr).contains("ermission denied"), "{}", text(&refused.stderr));
    } else {
        eprintln!("not root: that another user is refused was judged by the mode alone");
    }
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
    assert!(!socket.exists(), "it is gone with its proxy");
}

#[test]
fn a_socket_that_a_killed_proxy_left_is_replaced_and_one_that_is_served_is_not() {
    let (folder, socket) = scene();
    let mut killed = daemon(folder.path(), &socket);
    killed.signal(Signal::KILL);
    killed.wait();
    assert!(socket.exists(), "left behind");
    let alive = daemon(folder.path(), &socket);
    assert!(list(command(), &socket).status.success());
    let mut second = serving(&folder.path().join("routes.toml"));
    let output =
        second.env("MSE_PROXY_ADMIN_GRPC", format!("unix:{}", socket.display())).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let words = text(&output.stderr);
    for expected in ["admin.grpc = ", "another process serves", "MSE_PROXY_ADMIN_GRPC="] {
        assert!(words.contains(expected), "`{expected}` is missing in: {words}");
    }
    assert!(list(command(), &socket).status.success(), "the first one is not disturbed");
    drop(alive);
}

#[test]
fn what_is_no_socket_of_ours_is_left_alone() {
    let (folder, _) = scene();
    let (file, served, link) =
        (folder.path().join("file"), folder.path().join("served"), folder.path().join("link"));
    std::fs::write(&file, "precious").unwrap();
    let _listener = UnixListener::bind(&served).unwrap();
    symlink(&file, &link).unwrap();
    for (path, words) in [
        (&file, "is no socket"),
        (&link, "is no socket"),
        (&served, "another process serves"),
        (&file.join("x.sock"), "file"),
    ] {
        let output = serving(&folder.path().join("routes.toml"))
            .env("MSE_PROXY_ADMIN_GRPC", format!("unix:{}", path.display()))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains(words), "{}: {}", words, text(&output.stderr));
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}

#[test]
fn at_its_usual_place_it_may_be_missing() {
    let (folder, _) = scene();
    // Nobody may make /run/mse-proxy.
    let mut start = as_nobody(folder.path()).unwrap_or_else(command);
    let inner = serving(&folder.path().join("routes.toml"));
    start.arg("serve").env_remove("MSE_PROXY_ADMIN_GRPC");
    let variables = inner.get_envs().filter_map(|(name, value)| Some((name, value?)));
    start.envs(variables.filter(|(name, _)| *name != "MSE_PROXY_ADMIN_GRPC"));
    let mut daemon = Daemon::start(start);
    let told = daemon.wait_seen("no control service");
    assert!(told.contains("/run/mse-proxy") && told.contains("admin.grpc"), "{told}");
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
}
