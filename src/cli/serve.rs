//! `serve`: runs the proxy until it is told to stop.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use super::check::load;
use super::report::{Style, Voice, complain, complain_all};
use super::{ConfigArgument, Status, demo, supervised};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::control::{self, TlsError, UnixError};
use crate::proxy::capacity::Machine;
use crate::proxy::descriptors;
use crate::proxy::listener::{self, ListenError, listen};
use crate::server::{self, StartError};
use crate::store::choice;
use crate::systemd::{self, InheritError, Inherited, Notice};
use crate::telemetry::access_log::OpenError;
use crate::telemetry::logging;

/// Threads for everything beside the data path: one more than what a large table can keep busy.
const CONTROL_THREADS: usize = 2;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Also start two sample enclave apps on loopback, route them, and print how to reach them.
    #[arg(long)]
    demo: bool,
}

pub(super) fn run(arguments: &Arguments, voice: Voice) -> Status {
    let base = if arguments.demo { demo::defaults() } else { Config::default() };
    let config = match load(arguments.config.config.as_deref(), &base) {
        Ok(config) => config,
        Err(findings) => {
            return complain_all(&findings, voice.complaints);
        }
    };
    // Before there is a second thread.
    let inherited = systemd::inherited();
    let log = match logging::start(&config.log) {
        Ok(log) => log,
        Err(error) => {
            complain(&format!("cannot start: the log cannot be written: {error}\n"));
            return Status::Refused;
        }
    };
    let config = Config { limits: descriptors::make_room(config.limits.clone()), ..config };
    for shortage in Machine::look().judge(&config.limits) {
        warn!("{shortage}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("cannot start: {error}\n"));
            return Status::Refused;
        }
    };
    let served = runtime.block_on(serve(arguments.demo, inherited, &config, voice.style));
    // What still blocks then (a routes file on a dead network disk, a systemd that does not read)
    // is not worth waiting for.
    runtime.shutdown_background();
    // Before any last words of ours.
    drop(log);
    match served {
        Ok(()) => Status::Done,
        Err(error) => {
            complain(&format!(
                "{}: {error}\n{}",
                voice.complaints.bad("cannot start"),
                remedy(&error)
            ));
            Status::Refused
        }
    }
}

/// Why the proxy cannot run.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Inherit(#[from] InheritError),
    #[error("the inherited sockets cannot be used: {0}")]
    Adopt(std::io::Error),
    #[error("the demo cannot be set up: {0}")]
    Demo(#[from] demo::DemoError),
    #[error("signals cannot be received: {0}")]
    Signals(std::io::Error),
}

fn remedy(error: &ServeError) -> String {
    match error {
        ServeError::Start(StartError::Listen(error)) => listen_remedy(error, "LISTEN_ADDRESSES", ""),
        ServeError::Start(StartError::Admin(error)) => {
            let off = "; MSE_PROXY_ADMIN_HTTP= turns metrics, probes and the status page off";
            listen_remedy(error, "ADMIN_HTTP", off)
        }
        ServeError::Start(StartError::Store(choice::OpenError::Embedded(error))) => {
            format!("{}\n", error.remedy())
        }
        ServeError::Start(StartError::Control { error, .. }) => remedy_for_control(error),
        ServeError::Start(StartError::AccessLog(error)) => remedy_for_log(error).to_owned(),
        ServeError::Inherit(_) => {
            "every socket of the .socket unit must be a ListenStream= with an IP address or a port, with Accept=no\n"
                .to_owned()
        }
        _ => String::new(),
    }
}

/// What to do about an address that cannot be had, by the variable that leads elsewhere.
fn listen_remedy(ListenError { address, error }: &ListenError, key: &str, or: &str) -> String {
    use std::io::ErrorKind;
    let port = address.port();
    match error.kind() {
        ErrorKind::AddrInUse => format!(
            "another program listens there (ss -ltnp 'sport = :{port}' names it); stop it, or listen elsewhere:\n\
             MSE_PROXY_{key}={} lets the kernel choose a port{or}\n",
            std::net::SocketAddr::new(address.ip(), 0)
        ),
        ErrorKind::PermissionDenied => format!(
            "ports below 1024 need CAP_NET_BIND_SERVICE (the systemd unit gives it) or root; or listen elsewhere:\n\
             MSE_PROXY_{key}={}{or}\n",
            std::net::SocketAddr::new(address.ip(), 8443)
        ),
        ErrorKind::AddrNotAvailable => {
            "this machine has no such address (ip addr lists them)\n".to_owned()
        }
        _ => String::new(),
    }
}

fn remedy_for_control(error: &control::OpenError) -> String {
    let off = "; MSE_PROXY_ADMIN_GRPC= turns the control service off";
    match error {
        control::OpenError::Tcp(error) => {
            listen_remedy(error, "ADMIN_GRPC", off).replace("ADMIN_GRPC=", "ADMIN_GRPC=tcp:")
        }
        control::OpenError::Tls(TlsError::Unset(_)) => {
            "set admin.tls.certificate, admin.tls.key and admin.tls.client_ca, or serve it on a Unix socket\n"
                .to_owned()
        }
        control::OpenError::Tls(_) => String::new(),
        control::OpenError::Unix(UnixError::InUse(_)) => {
            format!("another proxy runs with this socket; stop it, or choose another path{off}\n")
        }
        control::OpenError::Unix(UnixError::NotASocket(_)) => {
            "it is left alone; remove it yourself, or choose another path\n".to_owned()
        }
        control::OpenError::Unix(UnixError::Io { .. }) => {
            format!("the proxy's user must be able to write to the folder; or choose another path{off}\n")
        }
    }
}

fn remedy_for_log(error: &OpenError) -> &'static str {
    match error {
        OpenError::File { .. } => {
            "its folder must be there and the proxy's user may write to it; or log elsewhere:\n\
             MSE_PROXY_LOG_ACCESS=stdout\n"
        }
        OpenError::Journald { .. } => {
            "systemd-journald does not run here, or listens elsewhere (log.access = \"journald:/path\"); or log elsewhere:\n\
             MSE_PROXY_LOG_ACCESS=stdout\n"
        }
        OpenError::Own(_) => "",
    }
}

async fn serve(
    with_demo: bool,
    inherited: Result<Vec<Inherited>, InheritError>,
    config: &Config,
    style: Style,
) -> Result<(), ServeError> {
    // Signals first: one that comes while starting must not be lost.
    let mut signals = Signals::new().map_err(ServeError::Signals)?;
    let inherited = inherited?;
    let listeners = if inherited.is_empty() {
        listen(&config.listen, server::workers()).map_err(StartError::from)?
    } else {
        listener::adopt(inherited).map_err(ServeError::Adopt)?
    };
    let demo = if with_demo { Some(demo::Demo::start().await?) } else { None };
    let fixed = demo.iter().map(demo::Demo::routes).collect();
    // The first routes may be long in coming, from a disk that does not answer.
    let running = tokio::select! {
        running = server::start_on(listeners, config, Arc::new(SystemClock), fixed) => running?,
        () = signals.stop() => {
            info!("told to stop before the first routes came");
            return Ok(());
        }
    };
    if let Some(demo) = &demo {
        demo.print(&running, style);
    }
    let _told = supervised::keep_told(&running.vitals());
    systemd::tell(vec![Notice::Ready]).await;
    while let Asked::Reload = signals.next().await {
        systemd::tell(vec![Notice::Reloading]).await;
        tokio::select! {
            () = running.reload_now() => systemd::tell(vec![Notice::Ready]).await,
            () = signals.stop() => break,
        }
    }
    systemd::tell(vec![Notice::Stopping]).await;
    running.stop(signals.stop()).await;
    Ok(())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

enum Asked {
    Stop,
    Reload,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hang_up.recv() => Asked::Reload,
        }
    }

    /// Leaves a SIGHUP where it is, for [`Signals::next`].
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
