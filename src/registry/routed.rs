//! The routes of deployed apps: each hostname by itself, gated by the phase of its app.
//!
//! Where TLS ends in the proxy, the app behind it must show the key that was seen of it when it was
//! found to run: its certificate is its own, and nobody else vouches for it. As long as no key was
//! seen, it must have a certificate that this machine trusts.
//!
//! A route ends with its app. An app that has ended before that keeps its names, as routes that
//! ended then: its connections are cut as at any end, its clients learn what has happened, and
//! nobody else's wildcard takes over. Pure.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::hostname::Pattern;
use crate::registry::app::{App, AppHost, Phase, Role};
use crate::registry::domain::Domain;
use crate::registry::project::Project;
use crate::registry::reach::{claimed, left};
use crate::routing::route::{Hold, Lifetime, Mode, Route, Terms};
use crate::routing::termination::{BackendTls, Protocol, Termination, Trust};

/// The routes of an app. `project` and `domain` are what is stored of its project and of its own
/// domain.
#[must_use]
pub fn routes(app: &App, project: Option<&Project>, domain: Option<&Domain>) -> Vec<Arc<Route>> {
    let left = left(app, domain).filter_map(|host| route(app, host, app.over_at(), None));
    let claimed = claimed(app, project, domain);
    let claimed = claimed.filter_map(|one| route(app, one.host, app.ends_at, one.hold));
    claimed.chain(left).map(Arc::new).collect()
}

fn route(app: &App, host: &AppHost, ends_at: Timestamp, hold: Option<Hold>) -> Option<Route> {
    let backend = app.backend.clone()?;
    let terms = Terms {
        lifetime: Lifetime { expires_at: Some(ends_at), ..Lifetime::default() },
        app: Some(format!("{}/{}", app.project, app.name).into()),
        mode: mode(app, host.role),
        hold,
        is_initializing: app.phase == Phase::Initializing,
        ..Terms::default()
    };
    let host = &host.host;
    Some(Route::new(host.to_string().into(), vec![host.clone()], vec![backend], terms))
}

fn mode(app: &App, role: Role) -> Mode {
    match role {
        Role::Own | Role::Configuration | Role::Custom => Mode::Passthrough,
        Role::Terminated => {
            // The app is asked for the name by which it was seen: it may know no other.
            let name = app.host(Role::Configuration).and_then(|host| match host {
                Pattern::Exact(name) => Some(name.clone()),
                Pattern::OneLabel(_) | Pattern::AnyDepth(_) => None,
            });
            let trust = app.key.map_or(Trust::Platform, Trust::Key);
            Mode::Terminate(Arc::new(Termination {
                protocol: Protocol::Http,
                backend: BackendTls::Verified { trust, name },
                client_ca: None,
            }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::domain::Gate;
    use crate::registry::sample::{app, at, domain, project};
    use crate::routing::route::{self, Claim, Origin};
    use crate::routing::snapshot::{Miss, Snapshot};
    use crate::wire::client_hello::Alpn;

    const NOW: &str = "2026-06-01T12:00:00Z";

    /// What a client of each name is told at an instant.
    fn told(app: &App, project: &Project, domain: &Domain, now: &str) -> [String; 2] {
        let origin = Origin { source: "apps".into(), line: 0, column: 0 };
        let routes = routes(app, Some(project), Some(domain)).into_iter();
        let claims = routes.map(|route| Claim { route, origin: origin.clone() });
        let (snapshot, conflicts) = Snapshot::build(claims);
        assert!(conflicts.is_empty());
        ["conf.test", "own.test"].map(|name| {
            match snapshot.lookup(&name.parse().unwrap(), &Alpn::default(), at(now)) {
                Ok(route) => {
                    assert_eq!(route.app().map(|app| &**app), Some("p/a"));
                    let fresh = if route.is_initializing() { ", initializing" } else { "" };
                    format!("{}{fresh}", route.backends[0])
                }
                Err(miss) => crate::outcome::Outcome::from(&miss).to_string(),
            }
        })
    }

    #[test]
    fn each_name_is_routed_in_its_phases_and_refused_by_its_reason_otherwise() {
        let (project, open) = (project(), domain(Gate::Open));
        let (unknown, there) = ("unknown_name", "10.0.0.1:443");
        for (phase, expected) in [
            (Phase::Spawning, [unknown, unknown]),
            (Phase::Initializing, ["10.0.0.1:443, initializing", unknown]),
            (Phase::Running, [unknown, there]),
            (Phase::Stopped, ["expired_name", "expired_name"]),
            (Phase::OnError, ["expired_name", "expired_name"]),
            (Phase::Expired, ["expired_name", "expired_name"]),
        ] {
            let ended_at = (!phase.is_active()).then(|| at("2026-06-01T11:00:00Z"));
            let app = App { ended_at, ..app(phase) };
            assert_eq!(told(&app, &project, &open, NOW), expected, "{phase}");
        }
        let running = app(Phase::Running);
        for (gate, word) in [(Gate::Pending, "domain_pending"), (Gate::Suspended, "suspended")] {
            assert_eq!(told(&running, &project, &domain(gate), NOW)[1], word);
        }
        let suspended = project.clone().suspend(at(NOW));
        assert_eq!(told(&running, &suspended, &open, NOW)[1], "suspended");
        assert_eq!(told(&app(Phase::Initializing), &suspended, &open, NOW)[0], "suspended");
        // Its end is its end, whoever has noted it and whatever holds it back.
        for (project, gate) in [(&project, Gate::Open), (&suspended, Gate::Pending)] {
            let over = told(&running, project, &domain(gate), "2026-06-02T00:00:00Z");
            assert_eq!(over[1], "expired_name");
        }
    }

    #[test]
    fn an_ended_app_keeps_no_domain_that_has_become_somebody_elses() {
        let ended_at = Some(at("2026-06-01T11:00:00Z"));
        let app = App { ended_at, ..app(Phase::Stopped) };
        let other = Domain { project: "q".parse().unwrap(), ..domain(Gate::Open) };
        assert_eq!(told(&app, &project(), &other, NOW), ["expired_name", "unknown_name"]);
        let nowhere = App { backend: None, ..app };
        assert!(routes(&nowhere, Some(&project()), Some(&domain(Gate::Open))).is_empty());
    }

    #[test]
    fn a_miss_names_the_route() {
        let routes = routes(&app(Phase::Running), None, Some(&domain(Gate::Open)));
        let origin = Origin { source: "apps".into(), line: 0, column: 0 };
        let claims =
            routes.iter().map(|one| Claim { route: Arc::clone(one), origin: origin.clone() });
        let (snapshot, _) = Snapshot::build(claims);
        let name = "own.test".parse().unwrap();
        let miss = snapshot.lookup(&name, &Alpn::default(), at(NOW)).unwrap_err();
        assert_eq!(miss, Miss::Held(Arc::clone(&routes[0]), Hold::Suspended));
        assert_eq!(routes[0].phase(at(NOW)), route::Phase::Live);
    }
}
