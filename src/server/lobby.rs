//! Where a proxy is looked at and asked: its status page and metrics, and its control service.

use std::sync::Arc;

use tracing::warn;

use crate::admin::{self, Admin, Eyes};
use crate::config::Config;
use crate::control::{self, Control, Subject};
use crate::server::StartError;

/// The doors, open before anybody answers there: whatever keeps them shut keeps a proxy from
/// starting.
pub(super) struct Lobby {
    http: Option<admin::Door>,
    grpc: Option<control::Door>,
}

impl Lobby {
    /// Opens both, as far as the configuration wants them.
    pub(super) fn open(config: &Config) -> Result<Self, StartError> {
        let http = admin::open(config.admin.http).map_err(StartError::Admin)?;
        Ok(Self { http, grpc: open_control(config)? })
    }

    /// Answers at both.
    pub(super) fn serve(
        self,
        subject: Subject,
    ) -> Result<(Option<Admin>, Option<Control>), StartError> {
        let eyes: Arc<Eyes> = Arc::clone(&subject.eyes);
        let http = self.http.map(|door| door.serve(eyes)).transpose();
        let http = http.map_err(StartError::Thread)?;
        let grpc = self.grpc.map(|door| door.serve(subject)).transpose();
        Ok((http, grpc.map_err(StartError::Thread)?))
    }
}

/// Opens the control service. At its usual place it is a comfort that a proxy can do without: one
/// that may not write to /run serves all the same.
fn open_control(config: &Config) -> Result<Option<control::Door>, StartError> {
    let address = &config.admin.grpc;
    match control::open(address, &config.admin.tls) {
        Ok(door) => Ok(door),
        Err(error) if address.is_usual() => {
            warn!(%error, "no control service: set admin.grpc to another place, or to \"\"");
            Ok(None)
        }
        Err(error) => Err(StartError::Control { address: address.clone(), error }),
    }
}
