//! Answers that change nothing: which routes there are, how one stands, what a client would meet.
//!
//! They are made of the table and of what became of the sources' sets, so they are the same for
//! routes of every source. A page of a list looks at each route once and keeps no more of them than
//! it tells.

use std::collections::BinaryHeap;
use std::sync::Arc;

use tonic::Status;

use crate::admin::Eyes;
use crate::clock::{Clock, Timestamp};
use crate::control::{convert, proto};
use crate::reconcile::Report;
use crate::routing::explain::{Explanation, explain};
use crate::routing::route::{Origin, Route};
use crate::routing::snapshot::Snapshot;
use crate::source::file;
use crate::wire::client_hello::Alpn;

/// How many routes a page has if nobody says how many, and at the most.
const PAGE: usize = 1_000;
const MOST: usize = 10_000;
/// Between the two parts of a page token.
const SEPARATOR: char = ':';

/// A moment of the proxy: everything that one answer tells is of this moment.
#[derive(Debug)]
pub(super) struct Moment<'a> {
    eyes: &'a Eyes,
    now: Timestamp,
    report: Report,
    snapshot: Arc<Snapshot>,
    table_revision: u64,
}

/// Where a route stands among all: by its id, those in force before those that are left out.
type Place = (Arc<str>, u32);

/// A route of the table, or one that was left out of it.
#[derive(Debug)]
struct Row<'a> {
    place: Place,
    route: &'a Arc<Route>,
    origin: Option<Origin>,
    fault: Option<String>,
}

impl<'a> Moment<'a> {
    pub(super) fn of(eyes: &'a Eyes) -> Self {
        let table = eyes.table.current();
        Self {
            eyes,
            now: eyes.clock.now(),
            report: eyes.reports.borrow().clone(),
            snapshot: table.snapshot,
            table_revision: table.revision,
        }
    }

    pub(super) fn list(&self, request: &proto::ListRequest) -> Result<proto::ListResponse, Status> {
        let most = match usize::try_from(request.page_size) {
            Ok(0) => PAGE,
            Ok(size) => size.min(MOST),
            Err(_) => MOST,
        };
        let behind = match request.page_token.as_str() {
            "" => None,
            token => Some(place(token).ok_or_else(|| {
                Status::invalid_argument("page_token: give next_page_token of the page before")
            })?),
        };
        let filter = Filter::new(&request.contains);
        let is_wanted = |row: &Row<'_>| {
            filter.takes(row.route)
                && (request.source.is_empty()
                    || self.source_of(row.origin.as_ref()) == request.source)
        };
        let (mut total, mut first) = (0, BinaryHeap::with_capacity(most.min(PAGE) + 1));
        for row in self.rows(request.source.is_empty()).filter(is_wanted) {
            total += 1;
            if behind.as_ref().is_some_and(|behind| row.place <= *behind) {
                continue;
            }
            first.push(row.place);
            if first.len() > most + 1 {
                first.pop();
            }
        }
        let mut places = first.into_sorted_vec();
        let has_more = places.len() > most;
        places.truncate(most);
        let next = places.last().filter(|_| has_more).map(token);
        let routes = places.iter().filter_map(|place| self.row(place)).map(|row| self.state(row));
        Ok(proto::ListResponse {
            routes: routes.collect(),
            next_page_token: next.unwrap_or_default(),
            revision: 0,
            total,
        })
    }

    pub(super) fn get(&self, id: &str) -> Result<proto::RouteState, Status> {
        let left_out = self.report.conflicts.iter().zip(1..);
        let left_out = left_out.filter(|((claim, _), _)| *claim.route.id == *id);
        let mut ranks = std::iter::once(0).chain(left_out.map(|(_, rank)| rank));
        let row = ranks.find_map(|rank| self.row(&(id.into(), rank)));
        row.map(|row| self.state(row))
            .ok_or_else(|| Status::not_found(format!("there is no route with the id \"{id}\"")))
    }

    pub(super) fn explain(
        &self,
        request: &proto::ExplainRequest,
    ) -> Result<proto::ExplainResponse, Status> {
        let at = match request.at.as_str() {
            "" => self.now,
            text => text.parse().map_err(|_| {
                Status::invalid_argument(
                    "at: write a time as 2026-12-24T18:00:00Z, with its offset",
                )
            })?,
        };
        if !request.from.is_empty() && request.from.parse::<std::net::IpAddr>().is_err() {
            return Err(Status::invalid_argument("from: write an IP address"));
        }
        let alpn = Alpn::from_names(request.alpn.iter().map(String::as_bytes));
        let Explanation { host, verdict, .. } = explain(&self.snapshot, &request.host, &alpn, at);
        let route = verdict.route().and_then(|route| self.row(&(Arc::clone(&route.id), 0)));
        Ok(proto::ExplainResponse {
            allowed: verdict.refusal().is_none(),
            outcome: verdict.refusal().map(|outcome| outcome.word().to_owned()).unwrap_or_default(),
            why: verdict.why().unwrap_or_default(),
            route: route.map(|row| self.state_at(row, at)),
            host,
            at: at.to_string(),
            table_revision: self.table_revision,
        })
    }

    /// All routes in no order. Origins are looked up only if they are asked for.
    fn rows(&self, without_origins: bool) -> impl Iterator<Item = Row<'_>> {
        let in_force = self.snapshot.claims().map(move |written| Row {
            place: (Arc::clone(&written.route.id), 0),
            route: &written.route,
            origin: if without_origins { None } else { self.snapshot.origin(&written.route.id) },
            fault: None,
        });
        let left_out = self.report.conflicts.iter().zip(1..).map(|((claim, conflict), rank)| Row {
            place: (Arc::clone(&claim.route.id), rank),
            route: &claim.route,
            origin: Some(claim.origin.clone()),
            fault: Some(conflict.to_string()),
        });
        in_force.chain(left_out)
    }

    fn row(&self, place: &Place) -> Option<Row<'_>> {
        let (id, rank) = place;
        let place = (Arc::clone(id), *rank);
        let Some(index) = rank.checked_sub(1) else {
            let written = self.snapshot.by_id(id)?;
            let origin = self.snapshot.origin(id);
            return Some(Row { place, route: &written.route, origin, fault: None });
        };
        let (claim, conflict) = self.report.conflicts.get(usize::try_from(index).ok()?)?;
        let (origin, fault) = (Some(claim.origin.clone()), Some(conflict.to_string()));
        (claim.route.id == *id).then(|| Row { place, route: &claim.route, origin, fault })
    }

    fn state(&self, row: Row<'_>) -> proto::RouteState {
        self.state_at(row, self.now)
    }

    fn state_at(&self, row: Row<'_>, at: Timestamp) -> proto::RouteState {
        let Row { route, origin, fault, .. } = row;
        let phase = match fault {
            Some(_) => proto::Phase::Faulty,
            None => convert::phase(route.phase(at)),
        };
        let open = if fault.is_none() { self.eyes.ledger.open_of(&route.id) } else { 0 };
        proto::RouteState {
            route: Some(convert::message(route)),
            phase: phase.into(),
            source: self.source_of(origin.as_ref()).to_owned(),
            origin: origin.map(|origin| origin.to_string()).unwrap_or_default(),
            revision: 0,
            fault: fault.unwrap_or_default(),
            open_connections: open.try_into().unwrap_or(u64::MAX),
        }
    }

    /// The source that told a route: routes of files bear the names of their files.
    fn source_of(&self, origin: Option<&Origin>) -> &str {
        let Some(origin) = origin else { return "" };
        let sources = self.report.sources.iter().map(|standing| &*standing.name);
        sources.into_iter().find(|name| *name == &*origin.source).unwrap_or(file::NAME)
    }
}

/// What a list is narrowed down to, without regard to case.
struct Filter(String);

impl Filter {
    fn new(contains: &str) -> Self {
        Self(contains.to_lowercase())
    }

    fn takes(&self, route: &Route) -> bool {
        let Self(needle) = self;
        let has = |text: &str| text.contains(needle) || text.to_lowercase().contains(needle);
        needle.is_empty()
            || has(&route.id)
            || route.app().is_some_and(|app| has(app))
            || route.hosts.iter().any(|host| has(&host.to_string()))
    }
}

fn token((id, rank): &Place) -> String {
    format!("{rank}{SEPARATOR}{id}")
}

fn place(token: &str) -> Option<Place> {
    let (rank, id) = token.split_once(SEPARATOR)?;
    Some((id.into(), rank.parse().ok()?))
}
