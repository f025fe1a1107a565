//! Lives of apps and projects, and races between two proxies of a fleet.

use std::sync::Arc;

use jiff::SignedDuration;
use mse_proxy::admission::refusal::{Refusal, WhyProof};
use mse_proxy::registrar::{Application, Decision, Error, Event};
use mse_proxy::registry::app::{App, Phase};
use mse_proxy::registry::changes;
use mse_proxy::registry::domain::Gate;
use mse_proxy::registry::hardware::HardwareError;
use mse_proxy::registry::project::StandingError;
use mse_proxy::registry::turn::asking;
use mse_proxy::store::{Committed, Shared, Store as _};

use crate::support::{Fleet, Memory, application, at, default, done, fleet, fleet_on};

const KIND: &str = "8g-eu-001";
const PROXY: &str = "proxy.mse.cosmian.com";

async fn deployed(fleet: &Fleet, name: &str, domain: Option<&str>, hours: i64) -> Decision {
    fleet.one.deploy(&application(name, KIND, domain), false, at(hours)).await.unwrap()
}

async fn phase(fleet: &Fleet, name: &str, next: Phase, hours: i64) -> App {
    let name = name.parse().unwrap();
    fleet.other.proceed(&default(), &name, next, None, at(hours)).await.unwrap().record
}

fn reachable(app: &App, hours: i64) -> Vec<String> {
    app.reachable(at(hours)).map(|host| host.host.to_string()).collect()
}

#[tokio::test]
async fn of_two_deployments_for_the_last_seat_exactly_one_wins() {
    // Again and again, because who is first is chance.
    for _ in 0..20 {
        let fleet = fleet(1).await;
        // Each on a task of its own: what is asked for over the network must be able to move.
        let race = [(&fleet.one, "a"), (&fleet.other, "b")].map(|(registrar, name)| {
            let registrar = Arc::clone(registrar);
            let application = application(name, KIND, None);
            tokio::spawn(async move { registrar.deploy(&application, false, at(0)).await })
        });
        let mut decisions = Vec::new();
        for racer in race {
            decisions.push(racer.await.unwrap().unwrap());
        }
        let (won, lost): (Vec<_>, Vec<_>) =
            decisions.into_iter().partition(|decision| decision.app.is_some());
        assert_eq!((won.len(), lost.len()), (1, 1));
        let winner = won[0].app.as_ref().unwrap().record.name.clone();
        let refusal = Refusal::InUse { kind: KIND.parse().unwrap(), booked: 1, by: vec![winner] };
        assert_eq!(lost[0].verdict.refusals, [refusal], "it is told who was faster");
        assert_eq!(fleet.one.apps(Some(&default())).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_whole_life_from_a_manifest_to_a_tombstone_and_back() {
    let fleet = fleet(1).await;
    let refused = deployed(&fleet, "shop", Some("shop.test"), 0).await;
    assert_eq!(refused.app, None);
    assert!(matches!(refused.verdict.refusals.as_slice(), [Refusal::Astray { .. }]), "{refused:?}");

    fleet.dns.alias("shop.test", Some(PROXY));
    let dry = fleet.one.deploy(&application("shop", KIND, Some("shop.test")), true, at(0)).await;
    assert!(dry.unwrap().verdict.terms.is_some());
    assert!(fleet.one.apps(Some(&default())).await.unwrap().is_empty(), "a dry run writes nothing");

    let app = deployed(&fleet, "shop", Some("shop.test"), 0).await.app.unwrap();
    let app = app.record;
    assert_eq!((app.phase, reachable(&app, 0)), (Phase::Spawning, vec![]));
    let configuration = app.hosts[0].host.to_string();
    assert!(configuration.ends_with(".cosmian.io") && configuration.len() == 27);
    let app = phase(&fleet, "shop", Phase::Initializing, 1).await;
    assert_eq!(reachable(&app, 1), [configuration.as_str()]);
    let app = phase(&fleet, "shop", Phase::Running, 2).await;
    assert_eq!(reachable(&app, 2), ["shop.test"]);
    // What was answered is what is stored, for the whole fleet.
    assert_eq!(fleet.one.app(&default(), &app.name).await.unwrap().record, app);

    let again = deployed(&fleet, "shop", Some("shop.test"), 3).await;
    assert!(matches!(again.verdict.refusals[0], Refusal::NameTaken { .. }), "{again:?}");

    // Its end needs nobody; that it is noted is for people.
    let end = 27 * 24 + 12;
    assert!(reachable(&app, end).is_empty());
    let expired = Event::Expired { project: default(), app: app.name.clone() };
    // Both proxies look at the same moment; one of them notes it, and tells.
    let (one, other) = tokio::join!(fleet.one.keep_up(at(end)), fleet.other.keep_up(at(end)));
    assert_eq!([done(one), done(other)].concat(), [expired]);
    assert_eq!(fleet.one.app(&default(), &app.name).await.unwrap().record.phase, Phase::Expired);

    // Another project must prove that the reserved domain is its own.
    let second = "second".parse().unwrap();
    fleet.one.create_project(&second, "other", at(0)).await.unwrap();
    let mut stranger = application("x", "4g-eu-001", Some("shop.test"));
    stranger.manifest.cloud.project = second;
    let decision = fleet.one.deploy(&stranger, false, at(end + 1)).await.unwrap();
    assert!(matches!(decision.verdict.refusals.as_slice(), [Refusal::NotProven { .. }]));
    // Its own project need not, and has the same generated name again.
    let mut application = application("shop", KIND, Some("shop.test"));
    application.manifest.cloud.expiration_date = None;
    let back = fleet.one.deploy(&application, false, at(end + 1)).await.unwrap();
    assert_eq!(back.app.unwrap().record.hosts[0].host.to_string(), configuration);
}

#[tokio::test]
async fn what_has_ended_is_shown_for_a_month_and_then_forgotten() {
    let store = Arc::new(Memory::default());
    let fleet = fleet_on(Arc::clone(&store) as Shared, 1).await;
    fleet.dns.alias("shop.test", Some(PROXY));
    // More than go at once.
    for number in 0..70 {
        let name = format!("a{number}");
        let domain = (number == 0).then_some("shop.test");
        let app = deployed(&fleet, &name, domain, 0).await.app.unwrap().record;
        assert_eq!(app.hosts.len(), if number == 0 { 2 } else { 1 });
        let turn = asking(&default(), &name.parse().unwrap());
        assert!(fleet.one.take_turn(&turn, SignedDuration::ZERO, at(0)).await.unwrap());
        phase(&fleet, &name, Phase::Stopped, 1).await;
    }
    let before = fleet.one.app(&default(), &"a1".parse().unwrap()).await.unwrap();
    let left = async |hours| {
        // Both proxies at the same moment, whoever is faster.
        let (one, other) =
            tokio::join!(fleet.one.keep_up(at(hours)), fleet.other.keep_up(at(hours)));
        assert_eq!([done(one), done(other)].concat(), []);
        let (one, other) =
            tokio::join!(fleet.one.check_domains(at(hours)), fleet.other.check_domains(at(hours)));
        assert_eq!([done(one), done(other)].concat(), []);
        let apps = fleet.one.apps(Some(&default())).await.unwrap().len();
        (apps, fleet.one.domains(None).await.unwrap().len())
    };
    let month = 30 * 24;
    assert_eq!(left(month).await, (70, 1));
    // What was planned does not befall whoever has come back meanwhile.
    let planned = changes::forget_apps(&[&before]).remove(0);
    let again = fleet.one.deploy(&application("a1", KIND, None), false, at(month - 100)).await;
    let again = again.unwrap().app.unwrap().record;
    assert_eq!(store.commit(planned).await, Ok(Committed::Conflict));
    assert_eq!(again.hosts, before.record.hosts, "its name is the same for ever");
    phase(&fleet, "a1", Phase::Stopped, month - 99).await;
    let mut rest = left(month + 1).await;
    for _ in 0..3 {
        // Where both met, the next round sees to it.
        rest = left(month + 1).await;
    }
    assert_eq!(rest, (1, 0));
    assert_eq!(left(2 * month).await, (0, 0));
    let kept = store.range("turns/").await.unwrap().entries;
    assert_eq!(kept.iter().map(|one| &*one.key).collect::<Vec<_>>(), ["turns/claims"]);
}

#[tokio::test]
async fn an_unpaid_project_is_reminded_and_suspended_once_in_a_fleet() {
    let fleet = fleet(2).await;
    deployed(&fleet, "a", None, 0).await.app.unwrap();
    fleet.one.unpaid(&default(), at(0), (at(0), None)).await.unwrap();
    let mut events = Vec::new();
    for hours in (0..=8 * 24).step_by(6) {
        let (one, other) =
            tokio::join!(fleet.one.keep_up(at(hours)), fleet.other.keep_up(at(hours)));
        events.extend([done(one), done(other)].concat());
    }
    let suspended_at = at(7 * 24);
    let remind = |number| Event::Reminded { project: default(), number, suspended_at };
    let all = [remind(1), remind(2), remind(3), Event::Suspended { project: default() }];
    assert_eq!(events, all);
    let app = fleet.one.app(&default(), &"a".parse().unwrap()).await.unwrap();
    assert_eq!(app.record.phase, Phase::Stopped);
    assert!(fleet.one.hardware(&default()).await.unwrap().is_empty());
    let refused = deployed(&fleet, "b", None, 200).await;
    assert!(matches!(refused.verdict.refusals[0], Refusal::Suspended { .. }), "{refused:?}");
    let suspended = StandingError::Suspended { since: suspended_at };
    assert_eq!(fleet.one.paid(&default(), None).await, Err(Error::Standing(suspended)));
    let book = fleet.one.book(&default(), &KIND.parse().unwrap(), 1, None).await;
    assert_eq!(book, Err(Error::Standing(suspended)));
    fleet.one.resume(&default(), (at(200), None)).await.unwrap();
    let refused = deployed(&fleet, "b", None, 200).await;
    assert!(matches!(refused.verdict.refusals[0], Refusal::NotBooked { .. }), "{refused:?}");
}

#[tokio::test]
async fn a_paid_project_goes_on() {
    let fleet = fleet(1).await;
    fleet.one.unpaid(&default(), at(0), (at(0), None)).await.unwrap();
    done(fleet.one.keep_up(at(100)).await);
    fleet.other.paid(&default(), None).await.unwrap();
    assert_eq!(done(fleet.one.keep_up(at(1000)).await), []);
    assert!(!fleet.one.project(&default()).await.unwrap().record.is_suspended());
}

#[tokio::test]
async fn dropped_hardware_stops_its_apps_in_parts() {
    let fleet = fleet(70).await;
    for number in 0..70 {
        deployed(&fleet, &format!("a{number}"), None, number).await.app.unwrap();
    }
    let kind = KIND.parse().unwrap();
    let fewer = HardwareError::Fewer { kind: KIND.parse().unwrap(), booked: 70 };
    let refused = fleet.one.drop_hardware(&default(), &kind, 71, (at(80), None)).await;
    assert_eq!(refused, Err(Error::Hardware(fewer)), "and nothing is dropped");
    fleet.one.drop_hardware(&default(), &kind, 69, (at(80), None)).await.unwrap();
    let apps = fleet.one.apps(Some(&default())).await.unwrap();
    let active: Vec<_> = apps.iter().filter(|app| app.record.phase.is_active()).collect();
    assert_eq!(active.len(), 1);
    assert_eq!(active[0].record.name.as_str(), "a0", "those who came last go first");
    assert_eq!(fleet.one.hardware(&default()).await.unwrap()[0].record.booked, 1);
}

#[tokio::test]
async fn a_name_under_another_projects_wildcard_must_be_proven_and_the_other_way_round() {
    for [first, second] in [["*.shop.test", "a.shop.test"], ["a.shop.test", "*.shop.test"]] {
        let fleet = fleet(1).await;
        for name in ["a.shop.test", "mse-proxy-check.shop.test"] {
            fleet.dns.alias(name, Some(PROXY));
        }
        deployed(&fleet, "first", Some(first), 0).await.app.unwrap();
        let project = "second".parse().unwrap();
        fleet.one.create_project(&project, "other", at(0)).await.unwrap();
        let mut application = application("x", "4g-eu-001", Some(second));
        application.manifest.cloud.project = project;
        let decision = fleet.other.deploy(&application, false, at(1)).await.unwrap();
        let [Refusal::NotProven { why, .. }] = decision.verdict.refusals.as_slice() else {
            panic!("{decision:?}");
        };
        assert_eq!(*why, WhyProof::Overlaps(first.parse().unwrap()));
    }
}

#[tokio::test]
async fn a_domain_is_looked_at_again_and_a_resolver_that_is_down_changes_nothing() {
    let fleet = fleet(1).await;
    fleet.dns.alias("shop.test", None);
    let pending = deployed(&fleet, "shop", Some("shop.test"), 0).await;
    assert_eq!(pending.verdict.terms.unwrap().gate, Some(Gate::Pending));
    let check = async || done(fleet.one.check_domains(at(1)).await);
    let gate = |gate| vec![Event::Gate { domain: "shop.test".parse().unwrap(), gate }];
    assert_eq!(check().await, []);
    fleet.dns.alias("shop.test", Some(PROXY));
    assert_eq!(check().await, gate(Gate::Open));
    fleet.dns.alias("shop.test", None);
    for _ in 0..9 {
        assert_eq!(check().await, []);
    }
    fleet.dns.alias("shop.test", Some("elsewhere.test"));
    assert_eq!((check().await, check().await), (vec![], vec![]));
    assert_eq!(check().await, gate(Gate::Suspended));
    fleet.dns.alias("shop.test", Some(PROXY));
    assert_eq!(check().await, gate(Gate::Open));
    // An app that has ended is not asked for.
    phase(&fleet, "shop", Phase::Stopped, 1).await;
    fleet.dns.alias("shop.test", Some("elsewhere.test"));
    for _ in 0..5 {
        assert_eq!(done(fleet.one.check_domains(at(2)).await), []);
    }
}

#[tokio::test]
async fn a_write_is_done_only_to_what_whoever_asks_has_seen() {
    let fleet = fleet(2).await;
    let stale = |expected, now| Error::Stale { now, expected };
    let kind = KIND.parse().unwrap();
    let wish = |if_revision| Application { if_revision, ..application("a", KIND, None) };
    let taken = fleet.one.deploy(&wish(Some(7)), false, at(0)).await.unwrap_err();
    assert_eq!(taken, stale(7, 0));
    let app = fleet.one.deploy(&wish(Some(0)), false, at(0)).await.unwrap().app.unwrap();
    assert_eq!(fleet.other.app(&default(), &app.record.name).await.unwrap(), app);
    let name = app.record.name.clone();
    let advance = async |phase, expected| {
        fleet.other.advance(&default(), &name, Some(phase), None, (at(1), Some(expected))).await
    };
    let next = advance(Phase::Initializing, app.revision).await.unwrap();
    assert!(next.revision > app.revision);
    // Whoever repeats it without an answer is told that it was done, or that somebody was faster.
    let late = advance(Phase::Stopped, app.revision).await.unwrap_err();
    assert_eq!(late, stale(app.revision, next.revision));
    assert_eq!(advance(Phase::Initializing, next.revision).await.unwrap(), next, "no change");

    let project = fleet.one.project(&default()).await.unwrap();
    let known = project.revision;
    let unpaid = fleet.one.unpaid(&default(), at(0), (at(0), Some(known))).await.unwrap();
    let late = stale(known, unpaid.revision);
    assert_eq!(fleet.one.paid(&default(), Some(known)).await, Err(late.clone()));
    assert_eq!(fleet.one.suspend(&default(), (at(1), Some(known))).await, Err(late.clone()));
    assert_eq!(fleet.one.app(&default(), &name).await.unwrap(), next, "nothing was swept");
    let paid = fleet.one.paid(&default(), Some(unpaid.revision)).await.unwrap();
    assert_eq!(fleet.one.project(&default()).await.unwrap(), paid);

    let seats = fleet.one.hardware(&default()).await.unwrap()[0].revision;
    let booked = fleet.one.book(&default(), &kind, 1, Some(seats - 1)).await;
    assert_eq!(booked, Err(stale(seats - 1, seats)));
    fleet.one.book(&default(), &kind, 97, Some(seats)).await.unwrap();
    let late = fleet.one.drop_hardware(&default(), &kind, 40, (at(1), Some(seats))).await;
    assert!(matches!(late, Err(Error::Stale { .. })), "{late:?}");
    let seats = fleet.one.hardware(&default()).await.unwrap()[0].revision;
    // In parts, of which the first one alone is on what was seen.
    fleet.one.drop_hardware(&default(), &kind, 40, (at(1), Some(seats))).await.unwrap();
    assert_eq!(fleet.one.hardware(&default()).await.unwrap()[0].record.booked, 59);
}
