//! Messages of the registry: texts to values, records to messages.

use std::fmt::Display;
use std::str::FromStr;

use tonic::{Code, Status};

use crate::clock::Timestamp;
use crate::control::{proto, status};
use crate::registry::app::{App, Role};
use crate::registry::domain::{Claim, Domain};
use crate::registry::hardware::Seats;
use crate::registry::project::{Project, Standing};
use crate::registry::reach::claimed;
use crate::registry::record::Held;
use crate::routing::route::Hold;
use crate::routing::zones::Zones;

/// The value of a field; what is wrong with it is told with the field's name.
pub(super) fn field<T: FromStr<Err: Display>>(name: &str, text: &str) -> Result<T, Status> {
    text.parse().map_err(|error| {
        let words = format!("{name}: {error}");
        status::told(Code::InvalidArgument, &words)
    })
}

/// The same for one that may be empty.
pub(super) fn given<T: FromStr<Err: Display>>(name: &str, text: &str) -> Result<Option<T>, Status> {
    if text.is_empty() { Ok(None) } else { field(name, text).map(Some) }
}

fn text<T: Display>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// An app as it stands; `project` and `domain` are what is stored of its project and its own domain,
/// and `zones` where this proxy may end TLS.
pub(super) fn app(
    held: &Held<App>,
    project: Option<&Project>,
    domain: Option<&Domain>,
    zones: &Zones,
    now: Timestamp,
) -> proto::App {
    let Held { record: app, revision } = held;
    let claims: Vec<_> = claimed(app, project, domain).collect();
    let hosts = app.hosts.iter().map(|host| {
        let claim = claims.iter().find(|claim| claim.host == host).filter(|_| now < app.ends_at);
        let why = claim.and_then(|claim| match claim.hold {
            Some(Hold::Suspended) => Some("suspended"),
            Some(Hold::DomainPending) => Some("domain_pending"),
            // The table leaves it out.
            None if host.role == Role::Terminated && !zones.hold(&host.host) => {
                Some("outside_zones")
            }
            None => None,
        });
        proto::AppHost {
            host: host.host.to_string(),
            role: host.role.word().to_owned(),
            reachable: claim.is_some() && why.is_none(),
            hold: text(why),
        }
    });
    proto::App {
        project: app.project.to_string(),
        name: app.name.to_string(),
        phase: app.phase_at(now).to_string(),
        backend: text(app.backend.as_ref()),
        hosts: hosts.collect(),
        certificate: app.origin.word().to_owned(),
        hardware: app.hardware.to_string(),
        docker: app.docker.clone(),
        healthcheck_endpoint: app.healthcheck_endpoint.clone(),
        deployed_at: app.deployed_at.to_string(),
        ends_at: app.ends_at.to_string(),
        ended_at: text(app.ended_at),
        revision: *revision,
    }
}

pub(super) fn project(held: &Held<Project>) -> proto::Project {
    let Held { record: project, revision } = held;
    let (standing, since, reminders, cause) = match project.standing {
        Standing::Good => ("good", None, 0, None),
        Standing::Unpaid { since, reminders } => ("unpaid", Some(since), reminders, None),
        Standing::Suspended { since, cause } => ("suspended", Some(since), 0, Some(cause)),
    };
    proto::Project {
        name: project.name.to_string(),
        created_at: project.created_at.to_string(),
        token: project.token.clone(),
        standing: standing.to_owned(),
        since: text(since),
        reminders: reminders.into(),
        suspended_at: text(project.suspended_at()),
        cause: text(cause.map(crate::registry::project::Cause::word)),
        revision: *revision,
    }
}

pub(super) fn hardware(held: &Held<Seats>, now: Timestamp) -> proto::Hardware {
    let Held { record: seats, revision } = held;
    proto::Hardware {
        project: seats.project.to_string(),
        kind: seats.kind.to_string(),
        booked: seats.booked,
        apps: seats.sitting(now).map(|(app, _)| app.to_string()).collect(),
        revision: *revision,
    }
}

pub(super) fn domain(held: &Held<Domain>, claim: Claim) -> proto::Domain {
    let (claim, reserved_until) = match claim {
        Claim::Live => ("live", None),
        Claim::Reserved(until) => ("reserved", Some(until)),
        Claim::Free => ("free", None),
    };
    let Held { record: domain, revision } = held;
    proto::Domain {
        domain: domain.host.to_string(),
        project: domain.project.to_string(),
        app: domain.app.to_string(),
        claim: claim.to_owned(),
        until: domain.until.to_string(),
        reserved_until: text(reserved_until),
        gate: domain.gate.word().to_owned(),
        failures: domain.failures,
        revision: *revision,
    }
}
