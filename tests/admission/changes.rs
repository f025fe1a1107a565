//! What is written to the store, and what comes of it when several write at once: on a model of the
//! store's contract, whole transactions or nothing.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use mse_proxy::hostname::Pattern;
use mse_proxy::registry::app::{App, AppHost, CertificateOrigin, News, Phase, Role};
use mse_proxy::registry::changes::{self, Ground, MOST_ENDED, Tenure};
use mse_proxy::registry::domain::{Claim, Domain, Gate, Seen};
use mse_proxy::registry::hardware::{HardwareError, Seats};
use mse_proxy::registry::names::ProjectName;
use mse_proxy::registry::project::{Project, StandingError};
use mse_proxy::registry::record::{
    Held, Record, app_key, apps_of, domain_key, project_key, seats_key, seats_of,
};
use mse_proxy::store::{Committed, Entry, Revision, Transaction};

use crate::support::now;

/// The contract of a store, in memory.
#[derive(Default)]
struct Model {
    entries: BTreeMap<String, (Vec<u8>, Revision)>,
    revision: Revision,
}

impl Model {
    fn commit(&mut self, transaction: Transaction) -> Committed {
        let holds = |key: &str, revision| {
            self.entries.get(key).map_or(0, |(_, revision)| *revision) == revision
        };
        if !transaction.checks.iter().all(|check| holds(&check.key, check.revision)) {
            return Committed::Conflict;
        }
        let mut keys: Vec<_> = transaction.changes.iter().map(|change| &change.key).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), transaction.changes.len(), "each key at most once");
        assert!(transaction.changes.len() <= 128, "etcd takes 128");
        self.revision += 1;
        for change in transaction.changes {
            match change.value {
                Some(value) => drop(self.entries.insert(change.key, (value, self.revision))),
                None => drop(self.entries.remove(&change.key)),
            }
        }
        Committed::Done(self.revision)
    }

    /// Commits what cannot conflict.
    fn done(&mut self, transaction: Transaction) {
        assert!(matches!(self.commit(transaction), Committed::Done(_)));
    }

    fn read<T: Record>(&self, key: &str) -> Option<Held<T>> {
        let (value, revision) = self.entries.get(key)?;
        let entry = Entry { key: key.to_owned(), value: value.clone(), revision: *revision };
        Some(Held::read(&entry).unwrap())
    }

    fn range<T: Record>(&self, prefix: &str) -> Vec<Held<T>> {
        let keys = self.entries.keys().filter(|key| key.starts_with(prefix));
        keys.map(|key| self.read(key).unwrap()).collect()
    }

    fn project(&self) -> Held<Project> {
        self.read(&project_key(&default())).unwrap()
    }

    fn app(&self, name: &str) -> Option<Held<App>> {
        self.read(&app_key(&default(), &name.parse().unwrap()))
    }

    fn seats(&self, kind: &str) -> Option<Held<Seats>> {
        self.read(&seats_key(&default(), &kind.parse().unwrap()))
    }

    fn domain(&self, host: &str) -> Option<Held<Domain>> {
        self.read(&domain_key(&host.parse().unwrap()))
    }

    /// What a deployment of this app would write, as far as it is known now.
    fn planned(&self, app: &App) -> Result<Transaction, HardwareError> {
        let (project, seats) = (self.project(), self.seats(app.hardware.as_str()));
        let last = self.app(app.name.as_str());
        let domain = app.custom_domain().and_then(|host| self.domain(&host.to_string()));
        let ground = Ground {
            project: &project,
            seats: seats.as_ref(),
            last: last.as_ref(),
            domain: domain.as_ref(),
            alone: None,
        };
        changes::deploy(ground, app, Some(Gate::Open), now())
    }

    fn deploy(&mut self, app: &App) {
        let transaction = self.planned(app).unwrap();
        self.done(transaction);
    }

    /// Moves an app on.
    fn proceed(&mut self, name: &str, next: Phase, at: Timestamp) {
        let app = self.app(name).unwrap();
        let seats = self.seats(app.record.hardware.as_str());
        let host = app.record.custom_domain().map(ToString::to_string);
        let domain = host.and_then(|host| self.domain(&host));
        let tenure = Tenure { app: &app, seats: seats.as_ref(), domain: domain.as_ref() };
        self.done(changes::proceed(tenure, next, News::default(), at).unwrap());
    }

    /// Does something with all apps of the project, their seats and domains.
    fn with_all<R>(&self, work: impl FnOnce(&[Tenure<'_>], &[Held<Seats>]) -> R) -> R {
        let apps: Vec<Held<App>> = self.range(&apps_of(&default()));
        let seats: Vec<Held<Seats>> = self.range(&seats_of(&default()));
        let domain = |app: &Held<App>| {
            app.record.custom_domain().and_then(|host| self.domain(&host.to_string()))
        };
        let domains: Vec<_> = apps.iter().map(domain).collect();
        let tenures: Vec<_> = apps
            .iter()
            .zip(&domains)
            .map(|(app, domain)| Tenure {
                app,
                seats: seats.iter().find(|seats| seats.record.kind == app.record.hardware),
                domain: domain.as_ref(),
            })
            .collect();
        work(&tenures, &seats)
    }
}

fn default() -> ProjectName {
    "default".parse().unwrap()
}

/// A store with a project that has booked some hardware.
fn booked(count: u32) -> Model {
    let mut model = Model::default();
    let project = Project::new(default(), "t0k3n".to_owned(), now());
    let nothing = Held { record: project.clone(), revision: 0 };
    model.done(changes::change_project(&nothing, &project));
    if count > 0 {
        let kind = "8g-eu-001".parse().unwrap();
        let transaction = changes::book(&model.project(), None, &kind, count).unwrap();
        model.done(transaction);
    }
    model
}

fn app(name: &str, domain: Option<&str>) -> App {
    let hosts = [("0123456789abcdef.cosmian.io", Role::Configuration)]
        .into_iter()
        .chain(domain.map(|domain| (domain, Role::Custom)))
        .map(|(host, role)| AppHost { host: host.parse().unwrap(), role });
    App {
        project: default(),
        name: name.parse().unwrap(),
        hardware: "8g-eu-001".parse().unwrap(),
        docker: "r.example/i:1".to_owned(),
        healthcheck_endpoint: "/".to_owned(),
        origin: CertificateOrigin::Owner,
        leaf: None,
        hosts: hosts.collect(),
        phase: Phase::Spawning,
        backend: Some("10.0.0.1:443".parse().unwrap()),
        key: None,
        deployed_at: now(),
        ends_at: later(24),
        ended_at: None,
    }
}

fn later(hours: i64) -> Timestamp {
    now() + SignedDuration::from_hours(hours)
}

#[test]
fn of_two_deployments_on_the_last_seat_exactly_one_wins() {
    let mut model = booked(2);
    model.deploy(&app("first", None));
    // Both have read before either writes.
    let plans = [app("one", None), app("two", None)].map(|app| model.planned(&app).unwrap());
    let ends = plans.map(|plan| model.commit(plan));
    assert!(matches!(ends, [Committed::Done(_), Committed::Conflict]), "{ends:?}");
    assert!(model.app("one").is_some() && model.app("two").is_none());
    let full = HardwareError::Full { kind: "8g-eu-001".parse().unwrap(), booked: 2 };
    assert_eq!(model.planned(&app("two", None)), Err(full));
}

#[test]
fn the_free_seat_needs_no_booking_and_is_one() {
    let mut model = booked(0);
    let free = |name| App { hardware: "4g-eu-001".parse().unwrap(), ..app(name, None) };
    // Two that both find no record yet.
    let plans = [free("one"), free("two")].map(|app| model.planned(&app).unwrap());
    let ends = plans.map(|plan| model.commit(plan));
    assert!(matches!(ends, [Committed::Done(_), Committed::Conflict]), "{ends:?}");
    assert!(model.planned(&free("two")).is_err());
    model.proceed("one", Phase::Stopped, later(1));
    assert!(model.planned(&free("two")).is_ok());
}

#[test]
fn of_two_deployments_under_one_name_or_domain_exactly_one_wins() {
    let mut model = booked(9);
    for [one, other] in [
        [app("same", None), app("same", None)],
        [app("a", Some("a.test")), app("b", Some("a.test"))],
    ] {
        let plans = [&one, &other].map(|app| model.planned(app).unwrap());
        let ends = plans.map(|plan| model.commit(plan));
        assert!(matches!(ends, [Committed::Done(_), Committed::Conflict]), "{ends:?}");
    }
}

#[test]
fn no_deployment_slips_past_a_suspension() {
    let mut model = booked(1);
    let plan = model.planned(&app("late", None)).unwrap();
    let held = model.project();
    model.done(changes::change_project(&held, &held.record.clone().suspend(now())));
    assert_eq!(model.commit(plan), Committed::Conflict);
}

#[test]
fn of_a_fleet_exactly_one_proxy_takes_each_step_of_an_unpaid_projects_clock() {
    let mut model = booked(0);
    let held = model.project();
    let unpaid = held.record.clone().unpaid(now(), now()).unwrap();
    model.done(changes::change_project(&held, &unpaid));
    let mut steps = 0;
    for hour in 0..=(7 * 24) {
        // Two proxies look at the same record in the same minute.
        let held = [model.project(), model.project()];
        let plans = held.map(|held| {
            let (next, _) = held.record.advance(later(hour))?;
            Some(changes::change_project(&held, &next))
        });
        let [Some(one), Some(other)] = plans else { continue };
        model.done(one);
        assert_eq!(model.commit(other), Committed::Conflict);
        steps += 1;
    }
    assert_eq!(steps, 4, "three reminders and the suspension");
    assert!(model.project().record.is_suspended());
}

#[test]
fn a_life_takes_its_seat_and_domain_and_gives_both_back() {
    let mut model = booked(1);
    let names = |model: &Model, at| {
        let app = model.app("shop").unwrap().record;
        app.reachable(at).map(|host| host.host.to_string()).collect::<Vec<_>>()
    };
    model.deploy(&app("shop", Some("shop.test")));
    assert!(names(&model, now()).is_empty());
    model.proceed("shop", Phase::Initializing, later(1));
    assert_eq!(names(&model, later(1)), ["0123456789abcdef.cosmian.io"]);
    model.proceed("shop", Phase::Running, later(2));
    assert_eq!(names(&model, later(2)), ["shop.test"]);
    assert!(names(&model, later(24)).is_empty(), "its end needs nobody to note it");
    let before = model.revision;
    model.proceed("shop", Phase::Stopped, later(3));
    assert_eq!(model.revision, before + 1, "all at once");
    assert_eq!(model.seats("8g-eu-001").unwrap().record.left(later(3)), 1);
    let week = SignedDuration::from_hours(7 * 24);
    let claim = model.domain("shop.test").unwrap().record.claim(week, later(3));
    assert_eq!(claim, Claim::Reserved(later(3 + 7 * 24)));
    // The same again, under the same name.
    model.deploy(&app("shop", Some("shop.test")));
    assert_eq!(model.app("shop").unwrap().record.phase, Phase::Spawning);
    assert_eq!(model.domain("shop.test").unwrap().record.claim(week, later(3)), Claim::Live);
}

#[test]
fn an_end_that_nobody_noted_frees_the_seat_and_keeps_the_domain() {
    let mut model = booked(1);
    model.deploy(&app("shop", Some("shop.test")));
    let mut next = app("next", None);
    next.ends_at = later(100);
    let (project, seats) = (model.project(), model.seats("8g-eu-001"));
    let (seats, last) = (seats.as_ref(), None);
    let ground = Ground { project: &project, seats, last, domain: None, alone: None };
    assert!(changes::deploy(ground, &next, None, later(23)).is_err());
    let transaction = changes::deploy(ground, &next, None, later(24)).unwrap();
    model.done(transaction);
    // Whoever notes it later takes nothing away from anybody.
    model.proceed("shop", Phase::Expired, later(25));
    let seats = model.seats("8g-eu-001").unwrap().record;
    assert_eq!(seats.taken.keys().map(ToString::to_string).collect::<Vec<_>>(), ["next"]);
    assert_eq!(model.domain("shop.test").unwrap().record.until, later(24));
}

#[test]
fn the_domain_of_an_ended_app_is_not_taken_from_whoever_has_it_now() {
    let mut model = booked(2);
    model.deploy(&app("old", Some("shop.test")));
    let held = model.domain("shop.test").unwrap();
    let taken = Domain { app: "new".parse().unwrap(), until: later(50), ..held.record.clone() };
    model.done(changes::observe(&held, &taken).unwrap());
    model.proceed("old", Phase::OnError, later(1));
    assert_eq!(model.domain("shop.test").unwrap().record, taken);
}

#[test]
fn a_suspension_takes_all_away_in_parts_and_a_resumption_brings_nothing_back() {
    let many = u32::try_from(MOST_ENDED * 2 + 5).unwrap();
    let mut model = booked(many);
    for number in 0..many {
        let domain = format!("d{number}.test");
        model.deploy(&app(&format!("app{number}"), Some(&domain)));
    }
    let held = model.project();
    assert!(model.with_all(|apps, seats| changes::sweep(&held, apps, seats, now())).is_empty());
    model.done(changes::change_project(&held, &held.record.clone().suspend(now())));
    let held = model.project();
    let resume = |model: &Model| {
        model.with_all(|apps, seats| changes::resume(&model.project(), apps, seats, later(1)))
    };
    assert_eq!(resume(&model), Err(StandingError::Unfinished));
    let parts = model.with_all(|apps, seats| changes::sweep(&held, apps, seats, later(1)));
    assert_eq!(parts.len(), 4);
    // Another proxy of the fleet has the same in mind.
    let again = parts.clone();
    for part in parts {
        model.done(part);
    }
    assert!(again.into_iter().all(|part| model.commit(part) == Committed::Conflict));
    let apps: Vec<Held<App>> = model.range(&apps_of(&default()));
    assert!(apps.iter().all(|app| app.record.phase == Phase::Stopped));
    assert!(model.range::<Seats>(&seats_of(&default())).is_empty());
    assert_eq!(model.domain("d7.test").unwrap().record.until, later(1));
    let transaction = resume(&model).unwrap();
    model.done(transaction);
    assert!(model.planned(&app("app0", None)).is_err(), "its bookings are gone");
    assert_eq!(model.app("app0").unwrap().record.phase, Phase::Stopped);
    assert_eq!(resume(&model), Err(StandingError::NotSuspended));
}

#[test]
fn dropped_hardware_stops_those_who_came_last() {
    let mut model = booked(3);
    for (name, hour) in [("a", 2), ("b", 0), ("c", 1)] {
        let deployed = App { deployed_at: later(hour), ..app(name, Some(&format!("{name}.test"))) };
        let (project, seats) = (model.project(), model.seats("8g-eu-001"));
        let (seats, last) = (seats.as_ref(), None);
        let ground = Ground { project: &project, seats, last, domain: None, alone: None };
        let transaction =
            changes::deploy(ground, &deployed, Some(Gate::Open), later(hour)).unwrap();
        model.done(transaction);
    }
    let drop = |model: &Model, count| {
        let seats = model.seats("8g-eu-001").unwrap();
        model.with_all(|apps, _| changes::drop_seats(&seats, count, apps, later(3))).unwrap()
    };
    let transaction = drop(&model, 2);
    model.done(transaction);
    let phases = ["a", "b", "c"].map(|name| model.app(name).unwrap().record.phase);
    assert_eq!(phases, [Phase::Stopped, Phase::Spawning, Phase::Stopped]);
    assert_eq!(model.domain("a.test").unwrap().record.until, later(3));
    assert_eq!(model.domain("b.test").unwrap().record.until, later(24));
    let transaction = drop(&model, 1);
    model.done(transaction);
    assert!(model.seats("8g-eu-001").is_none(), "nothing booked is no record");
    assert_eq!(model.app("b").unwrap().record.phase, Phase::Stopped);
}

#[test]
fn a_check_that_changes_nothing_is_not_written() {
    let mut model = booked(1);
    model.deploy(&app("shop", Some("shop.test")));
    let held = model.domain("shop.test").unwrap();
    let seen = |seen| held.record.clone().observe(seen).0;
    assert_eq!(changes::observe(&held, &seen(Seen::Here)), None);
    assert_eq!(changes::observe(&held, &seen(Seen::Nothing)), None);
    let transaction = changes::observe(&held, &seen(Seen::Elsewhere)).unwrap();
    model.done(transaction);
    let domain = model.domain("shop.test").unwrap().record;
    assert_eq!((domain.failures, domain.gate), (1, Gate::Open));
    let host: Pattern = "shop.test".parse().unwrap();
    assert_eq!(domain.host, host);
}
