//! What is written when something happens to projects, apps, hardware and domains: records as they
//! were read in, one transaction out.
//!
//! A transaction checks every record that it rests on, those that it leaves alone included: whoever
//! read them before somebody else changed them finds a conflict, reads again and judges again. So
//! of two deployments on the last seat exactly one wins, and none slips past a suspension. Records
//! that end something may be many; what does so stays well below what any store takes at once.

use crate::clock::Timestamp;
use crate::hostname::Pattern;
use crate::registry::app::{App, News, Phase, PhaseError};
use crate::registry::domain::{Domain, Gate};
use crate::registry::hardware::{HardwareError, Seats};
use crate::registry::names::{AppName, HardwareName};
use crate::registry::project::{Project, StandingError};
use crate::registry::record::{Held, Record, app_key, check, domain_key, remove, seats_key, write};
use crate::registry::turn::{CLAIMS, Turn, asking, turn_key};
use crate::store::{Change, Check, Transaction};

/// Apps that one transaction ends at most: with their domains and their seats these are 65 changes,
/// and etcd takes 128 as it comes.
pub const MOST_ENDED: usize = 32;

/// An app with everything that its end changes.
#[derive(Debug, Clone, Copy)]
pub struct Tenure<'a> {
    /// The app.
    pub app: &'a Held<App>,
    /// The seats that it sits on.
    pub seats: Option<&'a Held<Seats>>,
    /// What is stored of its own domain, if it has one.
    pub domain: Option<&'a Held<Domain>>,
}

/// What a deployment rests on.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    /// Its project.
    pub project: &'a Held<Project>,
    /// The project's seats on the hardware, if there is a record of them.
    pub seats: Option<&'a Held<Seats>>,
    /// The last deployment of that name.
    pub last: Option<&'a Held<App>>,
    /// What is stored of the app's own domain.
    pub domain: Option<&'a Held<Domain>>,
    /// That nobody has claimed a domain since that overlaps with the app's own.
    pub alone: Option<&'a Check>,
}

/// Deploys an app that was admitted; `gate` is that of its own domain.
///
/// # Errors
/// There is no seat for it, which the rules had told.
pub fn deploy(
    ground: Ground<'_>,
    app: &App,
    gate: Option<Gate>,
    now: Timestamp,
) -> Result<Transaction, HardwareError> {
    let Ground { project, seats, last, domain, alone } = ground;
    let known = seats.map_or_else(
        || Seats::none(app.project.clone(), app.hardware.clone()),
        |seats| seats.record.clone(),
    );
    let seated = known.seat(&app.name, app.ends_at, now)?;
    let mut checks = vec![
        project.check(),
        check(seats, || seats_key(&app.project, &app.hardware)),
        check(last, || app_key(&app.project, &app.name)),
    ];
    let mut changes = vec![write(app), write(&seated)];
    if let (Some(host), Some(gate)) = (app.custom_domain(), gate) {
        checks.push(check(domain, || domain_key(host)));
        checks.extend(alone.cloned());
        if matches!(host, Pattern::Exact(_)) {
            // Without a check: those who claim names hold up nobody but those who claim wildcards.
            changes.push(write(&Turn { what: CLAIMS.to_owned(), at: now }));
        }
        changes.push(write(&Domain {
            host: host.clone(),
            project: app.project.clone(),
            app: app.name.clone(),
            until: app.ends_at,
            gate,
            failures: 0,
        }));
    }
    Ok(Transaction { checks, changes })
}

/// Moves an app on in its life, and notes what has become known of where it is. With its end it
/// leaves its seat, and its domain becomes reserved.
///
/// # Errors
/// A life does not go that way.
pub fn proceed(
    tenure: Tenure<'_>,
    next: Phase,
    news: News,
    now: Timestamp,
) -> Result<Transaction, PhaseError> {
    let app = tenure.app.record.clone().become_phase(next, now)?.learn(news);
    let mut transaction = Transaction { checks: vec![tenure.app.check()], changes: vec![] };
    if app != tenure.app.record {
        transaction.changes.push(write(&app));
    }
    if !next.is_active() {
        leave(&tenure, now, &mut transaction);
        if let Some(seats) = tenure.seats {
            let left = seats.record.clone().stand_up(&app.name);
            if left != seats.record {
                transaction.checks.push(seats.check());
                transaction.changes.push(write(&left));
            }
        }
    }
    Ok(transaction)
}

/// Books hardware.
///
/// # Errors
/// Why it cannot be booked.
pub fn book(
    project: &Held<Project>,
    seats: Option<&Held<Seats>>,
    kind: &HardwareName,
    count: u32,
) -> Result<Transaction, HardwareError> {
    let name = &project.record.name;
    let known =
        seats.map_or_else(|| Seats::none(name.clone(), kind.clone()), |seats| seats.record.clone());
    let booked = known.book(count)?;
    let checks = vec![project.check(), check(seats, || seats_key(name, kind))];
    Ok(Transaction { checks, changes: vec![write(&booked)] })
}

/// Drops hardware: the apps that no seat is left for are stopped. Whoever drops more than
/// [`MOST_ENDED`] at once does it in parts.
///
/// # Errors
/// Why it cannot be dropped.
pub fn drop_seats(
    seats: &Held<Seats>,
    count: u32,
    apps: &[Tenure<'_>],
    now: Timestamp,
) -> Result<Transaction, HardwareError> {
    let (left, up) = seats.record.clone().drop(count, now)?;
    let mut transaction = Transaction { checks: vec![seats.check()], changes: vec![] };
    transaction.changes.push(if left.booked == 0 { remove(&left) } else { write(&left) });
    let sits = |app: &AppName| up.contains(app);
    for tenure in apps.iter().filter(|tenure| sits(&tenure.app.record.name)) {
        stop(tenure, now, &mut transaction);
    }
    Ok(transaction)
}

/// Writes what has become of a project.
#[must_use]
pub fn change_project(held: &Held<Project>, next: &Project) -> Transaction {
    Transaction { checks: vec![held.check()], changes: vec![write(next)] }
}

/// Lets a suspended project deploy again.
///
/// # Errors
/// It is not suspended, or its apps and bookings are not all gone yet: they would come back.
pub fn resume(
    project: &Held<Project>,
    apps: &[Tenure<'_>],
    seats: &[Held<Seats>],
    now: Timestamp,
) -> Result<Transaction, StandingError> {
    let next = project.record.clone().resume()?;
    if sweep(project, apps, seats, now).is_empty() {
        Ok(change_project(project, &next))
    } else {
        Err(StandingError::Unfinished)
    }
}

/// What is left to do for a suspended project: its bookings go and all its apps stop. Its apps are
/// unreachable already, by the project's record alone; until all this is done it cannot be resumed.
#[must_use]
pub fn sweep(
    project: &Held<Project>,
    apps: &[Tenure<'_>],
    seats: &[Held<Seats>],
    now: Timestamp,
) -> Vec<Transaction> {
    if !project.record.is_suspended() {
        return Vec::new();
    }
    let checked = || Transaction { checks: vec![project.check()], changes: vec![] };
    let active = |tenure: &&Tenure<'_>| tenure.app.record.phase_at(now).is_active();
    let active: Vec<_> = apps.iter().filter(active).collect();
    let mut transactions: Vec<_> = active
        .chunks(MOST_ENDED)
        .map(|part| {
            let mut transaction = checked();
            for tenure in part {
                stop(tenure, now, &mut transaction);
            }
            transaction
        })
        .collect();
    transactions.extend(seats.chunks(MOST_ENDED).map(|part| {
        let mut transaction = checked();
        transaction.checks.extend(part.iter().map(Held::check));
        transaction.changes.extend(part.iter().map(|seats| remove(&seats.record)));
        transaction
    }));
    transactions
}

/// Takes away what nobody needs any more, in parts.
#[must_use]
pub fn forget<T: Record>(old: &[&Held<T>]) -> Vec<Transaction> {
    let parts = old.chunks(MOST_ENDED).map(|part| Transaction {
        checks: part.iter().map(|held| held.check()).collect(),
        changes: part.iter().map(|held| remove(&held.record)).collect(),
    });
    parts.collect()
}

/// The same for apps; whose turn it was to ask them goes with them.
#[must_use]
pub fn forget_apps(old: &[&Held<App>]) -> Vec<Transaction> {
    let mut transactions = forget(old);
    for (transaction, part) in transactions.iter_mut().zip(old.chunks(MOST_ENDED)) {
        transaction.changes.extend(part.iter().map(|held| {
            let turn = asking(&held.record.project, &held.record.name);
            Change { key: turn_key(&turn), value: None }
        }));
    }
    transactions
}

/// Notes what a check of a domain has seen, if that changes anything.
#[must_use]
pub fn observe(held: &Held<Domain>, next: &Domain) -> Option<Transaction> {
    let transaction = Transaction { checks: vec![held.check()], changes: vec![write(next)] };
    (held.record != *next).then_some(transaction)
}

/// Stops an app, apart from its seat.
fn stop(tenure: &Tenure<'_>, now: Timestamp, transaction: &mut Transaction) {
    // An app that has ended on its own is left as it is.
    let Ok(app) = tenure.app.record.clone().become_phase(Phase::Stopped, now) else { return };
    transaction.checks.push(tenure.app.check());
    transaction.changes.push(write(&app));
    leave(tenure, now, transaction);
}

/// Lets go of an app's own domain, if it is still the app's.
fn leave(tenure: &Tenure<'_>, now: Timestamp, transaction: &mut Transaction) {
    let Some(domain) = tenure.domain else { return };
    let app = &tenure.app.record;
    let released = domain.record.clone().release(now);
    let is_own = domain.record.project == app.project && domain.record.app == app.name;
    if is_own && released != domain.record {
        transaction.checks.push(domain.check());
        transaction.changes.push(write(&released));
    }
}
