//! A running proxy, as commands ask it: where it is, who we are, and what its refusals mean for
//! whoever typed the command.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use super::Status;
use super::report::{Style, Voice, complain};
use super::words::clean;
use crate::control::client::{Client, Error, Refusal};
use crate::control::dial::{self, Admin, CredentialError, DEFAULT, Dialer};
use crate::control::proto::ListRequest;
use crate::nearest::nearest;

/// How many ids are looked through for one that was meant.
const KNOWN_IDS: usize = 10_000;
const PAGE: u32 = 5000;
/// How many are looked at that have what was typed in their id, hosts or app.
const FEW: usize = 1;

/// What a write about apps and what they need expects to find.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Expected {
    /// Only if what is changed has this revision (`--format json` tells it); 0: only if there is none.
    #[arg(long, value_name = "REVISION")]
    pub(super) if_revision: Option<u64>,
}

/// Which proxy is asked, and how it knows us.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Running proxy")]
pub(super) struct AdminArguments {
    /// Where the running proxy is asked: `unix:PATH` or `https://HOST:PORT`; without,
    /// `unix:/run/mse-proxy/admin.sock`.
    #[arg(
        long,
        global = true,
        value_name = "ENDPOINT",
        env = "MSE_PROXY_ADMIN",
        hide_env_values = true
    )]
    pub(super) admin: Option<Admin>,
    /// For https: whose certificates the proxy may show, in PEM; the system's authorities without.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "MSE_PROXY_ADMIN_CA",
        hide_env_values = true
    )]
    admin_ca: Option<PathBuf>,
    /// For https: our certificate, in PEM.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "MSE_PROXY_ADMIN_CERT",
        hide_env_values = true
    )]
    admin_cert: Option<PathBuf>,
    /// For https: the key of our certificate, in PEM.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "MSE_PROXY_ADMIN_KEY",
        hide_env_values = true
    )]
    admin_key: Option<PathBuf>,
}

/// A running proxy that is asked.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) client: Client,
    pub(super) voice: Voice,
    admin: Admin,
}

/// Asks a running proxy by `command`, which tells how that ended.
pub(super) fn with_proxy(
    arguments: &AdminArguments,
    voice: Voice,
    command: impl AsyncFnOnce(&Remote) -> Result<Status, Error>,
) -> Status {
    if voice.is_verbose {
        show_calls(voice.complaints);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("cannot begin: {error}\n"));
            return Status::Refused;
        }
    };
    // The channel wants a runtime around it from the beginning.
    let _entered = runtime.enter();
    let remote = match Remote::new(arguments, voice) {
        Ok(remote) => remote,
        Err(status) => return status,
    };
    runtime.block_on(async {
        match command(&remote).await {
            Ok(status) => status,
            Err(error) => remote.refuse(&error),
        }
    })
}

/// Writes each call and what came of it to standard error.
fn show_calls(style: Style) {
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(style.is_colored())
        .with_target(false)
        .with_timer(tracing_subscriber::fmt::time::uptime());
    let ours = Targets::new().with_target("mse_proxy::control", LevelFilter::DEBUG);
    // Commands set it once; a second one would be a fault of ours that harms nobody.
    let _ = tracing_subscriber::registry().with(lines.with_filter(ours)).try_init();
}

impl Remote {
    fn new(arguments: &AdminArguments, voice: Voice) -> Result<Self, Status> {
        let admin = match &arguments.admin {
            Some(admin) => admin.clone(),
            None => DEFAULT.parse().map_err(|_| Status::Usage)?,
        };
        let credentials = match (&admin, &arguments.admin_cert, &arguments.admin_key) {
            (Admin::Unix(_), ..) => None,
            (Admin::Https { .. }, Some(certificate), Some(key)) => {
                let read = dial::credentials(arguments.admin_ca.as_deref(), certificate, key);
                Some(read.map_err(|error| {
                    complain(&unusable(&error, voice.complaints));
                    Status::Refused
                })?)
            }
            (Admin::Https { .. }, ..) => {
                complain(&format!(
                    "{}: {admin} asks for a certificate; name it with --admin-cert FILE and its key with --admin-key FILE\n",
                    voice.complaints.bad("wrong usage")
                ));
                return Err(Status::Usage);
            }
        };
        let client = Client::new(Dialer::new(admin.clone(), credentials));
        Ok(Self { client, voice, admin })
    }

    /// Tells why it was not done, and what to do.
    pub(super) fn refuse(&self, error: &Error) -> Status {
        self.refuse_with(error, &self.remedy(error))
    }

    /// The same with a remedy of the command's own.
    pub(super) fn refuse_with(&self, error: &Error, remedy: &str) -> Status {
        let style = self.voice.complaints;
        let (head, status) = match error {
            Error::Unreachable(_) => {
                (format!("cannot reach the proxy at {}", self.admin), Status::Unreachable)
            }
            Error::Lost(_) | Error::Silent(_) => {
                (format!("no answer from the proxy at {}", self.admin), Status::Unreachable)
            }
            Error::Unsure { .. } => ("not answered".to_owned(), Status::Unreachable),
            Error::Refused { .. } => ("refused".to_owned(), Status::Refused),
        };
        // A refusal may tell of several faults, one a line.
        let told = error.to_string();
        let told = told.lines().map(clean).collect::<Vec<_>>().join("\n  ");
        complain(&format!("{}: {told}\n{remedy}", style.bad(&head)));
        status
    }

    /// The same for a route that was named: if there is none, one that may be meant is told.
    pub(super) async fn refuse_route(&self, error: &Error, id: &str) -> Status {
        let status = self.refuse(error);
        if matches!(error, Error::Refused { refusal: Refusal::NotFound, .. }) {
            let holding = self.ids(id, FEW).await.unwrap_or_default();
            let ids = self.ids("", KNOWN_IDS).await.unwrap_or_default();
            let near =
                nearest(id, ids.iter().map(String::as_str)).or(holding.first().map(|s| &**s));
            complain(&match near {
                Some(near) => format!("did you mean `{}`?\n", clean(near)),
                None if ids.is_empty() => "there are no routes\n".to_owned(),
                None => "`mse-proxy route list` shows all routes\n".to_owned(),
            });
        }
        status
    }

    /// The ids of routes that have something in them, at least so many if there are.
    async fn ids(&self, contains: &str, enough: usize) -> Result<Vec<String>, Error> {
        let mut ids: Vec<String> = Vec::new();
        let page_size = enough.try_into().unwrap_or(PAGE).min(PAGE);
        let contains = contains.to_owned();
        let mut request = ListRequest { contains, page_size, ..ListRequest::default() };
        while ids.len() < enough {
            let page = self.client.list(request.clone()).await?;
            ids.extend(page.routes.into_iter().filter_map(|state| Some(state.route?.id)));
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        Ok(ids)
    }

    fn remedy(&self, error: &Error) -> String {
        match (error, &self.admin) {
            (Error::Unreachable(dial::Error::Io(error)), Admin::Unix(path)) => {
                remedy_for_socket(path, error.kind())
            }
            (Error::Unreachable(dial::Error::Io(error)), Admin::Https { .. }) => match error.kind() {
                io::ErrorKind::ConnectionRefused => {
                    "nobody listens there: does the proxy run, and is its admin.grpc \"tcp:…\" at that port?\n".to_owned()
                }
                _ => String::new(),
            },
            (Error::Unreachable(dial::Error::Tls(error)), _) => remedy_for_tls(error).to_owned(),
            (Error::Unsure { request_id, .. }, _) if request_id.is_empty() => {
                "look whether it was done before you try again\n".to_owned()
            }
            (Error::Unsure { request_id, .. }, _) => format!(
                "ask again with --request-id {request_id}: if it was done, that tells so and does it no second time\n"
            ),
            (Error::Refused { refusal, .. }, _) => match refusal {
                Refusal::Stale => "somebody changed it meanwhile: look at it again, then decide\n".to_owned(),
                Refusal::Unavailable => "the proxy serves on with the routes that it knows; only its store takes nothing now\n".to_owned(),
                Refusal::Unknown => "the proxy is older than this command\n".to_owned(),
                _ => String::new(),
            },
            _ => String::new(),
        }
    }
}

fn unusable(error: &CredentialError, style: Style) -> String {
    let remedy = match error {
        CredentialError::File(_) => "",
        CredentialError::Unusable(_) => {
            "--admin-key must be the key of the first certificate in --admin-cert\n"
        }
    };
    format!("{}: {error}\n{remedy}", style.bad("cannot show who we are"))
}

fn remedy_for_socket(path: &Path, kind: io::ErrorKind) -> String {
    match kind {
        io::ErrorKind::NotFound => {
            "no proxy has made this socket: does it run (systemctl status mse-proxy)? If its admin.grpc is elsewhere, \
             name it with --admin unix:PATH or MSE_PROXY_ADMIN\n"
                .to_owned()
        }
        io::ErrorKind::ConnectionRefused => {
            "the socket is there, but nobody listens: the proxy that made it has ended\n".to_owned()
        }
        io::ErrorKind::PermissionDenied => denied(path),
        _ => String::new(),
    }
}

/// Whose socket it is that we may not use.
fn denied(path: &Path) -> String {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let own = rustix::process::geteuid().as_raw();
    let mut text = format!("you are uid {own}");
    match std::fs::metadata(path) {
        Ok(found) => {
            let (owner, mode) = (found.uid(), found.permissions().mode() & 0o7777);
            let _ = write!(text, ", and the socket belongs to uid {owner} alone (mode {mode:04o})");
            let whom = if owner == 0 { String::new() } else { format!("-u '#{owner}' ") };
            let _ = writeln!(text, ": sudo {whom}mse-proxy …");
        }
        Err(_) => text.push_str(", and may not enter the folder of the socket: sudo mse-proxy …\n"),
    }
    text
}

fn remedy_for_tls(error: &rustls::Error) -> &'static str {
    use rustls::{AlertDescription as Alert, CertificateError as Bad, Error as Tls};
    match error {
        Tls::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => {
            "the proxy's certificate is of an authority that is not trusted here: --admin-ca FILE names the right one\n"
        }
        Tls::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            "the proxy's certificate is for another name: write --admin https://NAME:PORT with a name that is in it\n"
        }
        Tls::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            "the proxy's certificate has ended (or the clock of this machine is wrong): renew admin.tls.certificate\n"
        }
        Tls::AlertReceived(
            Alert::CertificateRequired
            | Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::CertificateUnknown
            | Alert::AccessDenied
            | Alert::DecryptError,
        ) => {
            "the proxy does not accept our certificate: --admin-cert must be of an authority in its admin.tls.client_ca\n"
        }
        Tls::AlertReceived(Alert::CertificateExpired) => {
            "the proxy says that our certificate has ended: renew --admin-cert\n"
        }
        Tls::InvalidMessage(_) => {
            "whoever listens there does not speak TLS: is it the proxy's admin.grpc port?\n"
        }
        _ => "",
    }
}
