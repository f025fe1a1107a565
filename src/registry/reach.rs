//! Which hostnames apps claim, and whether anything is forwarded there.
//!
//! A hostname is claimed in the phases of its role. What is claimed but held back keeps its name: a
//! client is refused with the reason, and nobody else's wildcard takes over. Ends are not judged
//! here: a claim carries its end, and whoever routes looks at the clock.

use crate::registry::app::{App, AppHost, Role};
use crate::registry::domain::{Domain, Gate};
use crate::registry::project::Project;
use crate::routing::route::Hold;

/// A hostname that an app claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimed<'a> {
    /// The app: its backend and its end are those of the claim.
    pub app: &'a App,
    /// The hostname and what it is for.
    pub host: &'a AppHost,
    /// Why nothing is forwarded, if nothing is.
    pub hold: Option<Hold>,
}

/// The hostnames that an app claims in the phase that is noted of it. `project` and `domain` are
/// what is stored of its project and of its own domain.
pub fn claimed<'a>(
    app: &'a App,
    project: Option<&'a Project>,
    domain: Option<&'a Domain>,
) -> impl Iterator<Item = Claimed<'a>> {
    let is_suspended = project.is_none_or(Project::is_suspended);
    let is_somewhere = app.backend.is_some();
    let valid = move |host: &&AppHost| is_somewhere && host.role.is_valid_in(app.phase);
    app.hosts.iter().filter(valid).map(move |host| {
        let hold = match host.role {
            _ if is_suspended => Some(Hold::Suspended),
            Role::Own | Role::Configuration | Role::Terminated => None,
            Role::Custom => gate(app, host, domain),
        };
        Claimed { app, host, hold }
    })
}

/// The hostnames that an app which was ended still has: nobody else gets its generated names, and its
/// own domain is its own until somebody else has it.
pub fn left<'a>(app: &'a App, domain: Option<&'a Domain>) -> impl Iterator<Item = &'a AppHost> {
    let is_over = !app.phase.is_active();
    app.hosts.iter().filter(move |host| {
        is_over && (host.role != Role::Custom || domain.is_some_and(|one| is_own(app, host, one)))
    })
}

fn is_own(app: &App, host: &AppHost, domain: &Domain) -> bool {
    domain.host == host.host && domain.project == app.project && domain.app == app.name
}

/// What holds an owner's domain back. A domain that is not this app's is not open for it.
fn gate(app: &App, host: &AppHost, domain: Option<&Domain>) -> Option<Hold> {
    match domain.filter(|domain| is_own(app, host, domain)).map(|domain| domain.gate) {
        Some(Gate::Open) => None,
        Some(Gate::Suspended) => Some(Hold::Suspended),
        Some(Gate::Pending) | None => Some(Hold::DomainPending),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::app::Phase;
    use crate::registry::sample::{app, at, domain, project};

    fn claims(
        app: &App,
        project: Option<&Project>,
        domain: Option<&Domain>,
    ) -> Vec<(String, Option<Hold>)> {
        claimed(app, project, domain).map(|one| (one.host.host.to_string(), one.hold)).collect()
    }

    #[test]
    fn the_custom_name_takes_over_when_the_app_runs_and_its_gate_is_open() {
        let (project, open) = (project(), domain(Gate::Open));
        let of = |phase| claims(&app(phase), Some(&project), Some(&open));
        assert_eq!(of(Phase::Initializing), [("conf.test".to_owned(), None)]);
        assert_eq!(of(Phase::Running), [("own.test".to_owned(), None)]);
        for phase in [Phase::Spawning, Phase::Stopped, Phase::OnError, Phase::Expired] {
            assert!(of(phase).is_empty(), "{phase}");
        }
        let nowhere = App { backend: None, ..app(Phase::Running) };
        assert!(claims(&nowhere, Some(&project), Some(&open)).is_empty());
    }

    #[test]
    fn what_is_held_back_keeps_its_name() {
        let (project, running) = (project(), app(Phase::Running));
        let other = Domain { app: "b".parse().unwrap(), ..domain(Gate::Open) };
        for (domain, hold) in [
            (Some(domain(Gate::Pending)), Hold::DomainPending),
            (Some(domain(Gate::Suspended)), Hold::Suspended),
            (Some(other), Hold::DomainPending),
            (None, Hold::DomainPending),
        ] {
            let found = claims(&running, Some(&project), domain.as_ref());
            assert_eq!(found, [("own.test".to_owned(), Some(hold))], "{domain:?}");
        }
        let suspended = project.suspend(at("2026-06-01T00:00:00Z"));
        let held = Some(Hold::Suspended);
        for project in [Some(&suspended), None] {
            let found = claims(&running, project, Some(&domain(Gate::Open)));
            assert_eq!(found, [("own.test".to_owned(), held)]);
            let found = claims(&app(Phase::Initializing), project, None);
            assert_eq!(found, [("conf.test".to_owned(), held)]);
        }
    }
}
