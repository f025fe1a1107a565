//! `AppService`, `ProjectService`, `HardwareService`, `DomainService`: each call read, handed to the
//! registrar, and told. Nothing is decided here.

mod app;
mod convert;
mod domain;
mod project;

use std::sync::Arc;

use tonic::{Code, Request, Response, Status};

use crate::clock::{Clock, Timestamp};
use crate::control::client::request_id;
use crate::control::service::Asked;
use crate::control::status;
use crate::registrar::{Error, Registrar};
use crate::resolve::dns::Dns;

/// What a call gives.
type Answer<T> = Result<Response<T>, Status>;

/// The four services.
#[derive(Debug)]
pub(super) struct Apps {
    /// Who keeps the registry, if there is a store to keep it in.
    pub(super) registrar: Option<Arc<Registrar<Dns>>>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Apps {
    fn registrar(&self) -> Result<&Registrar<Dns>, Status> {
        self.registrar.as_deref().ok_or_else(status::no_store)
    }

    /// What a write is about: who asks, for the log, and when.
    fn write<T>(&self, request: Request<T>) -> Result<(T, String, Timestamp), Status> {
        let by = Asked::of(&request)?.by;
        Ok((request.into_inner(), by, self.clock.now()))
    }
}

/// A secret that nobody guesses.
fn token() -> Result<String, Status> {
    Some(request_id())
        .filter(|token| !token.is_empty())
        .ok_or_else(|| Status::internal("this machine gives no random numbers"))
}

/// Why the registrar did not do something, with what helps.
fn refused(error: &Error) -> Status {
    let (code, remedy) = match error {
        Error::Store(error) => return status::of_store(error),
        Error::Unreadable(_) => (Code::DataLoss, ""),
        Error::NoProject(_) => {
            (Code::NotFound, "; create it (project create), or look at all (project list)")
        }
        Error::NoApp { .. } => (Code::NotFound, "; look at all (app list)"),
        Error::NoDomain(_) => (Code::NotFound, "; look at all (domain list)"),
        Error::ProjectExists(_) => (Code::AlreadyExists, ""),
        Error::Phase(_) | Error::Standing(_) | Error::Hardware(_) => (Code::FailedPrecondition, ""),
        Error::Unseen { .. } => (
            Code::FailedPrecondition,
            "; TLS is ended here, and goes on only to a known key: say it again once the app answers",
        ),
        Error::Stale { .. } | Error::Busy => (Code::Aborted, ""),
    };
    status::told(code, &format!("{error}{remedy}"))
}
