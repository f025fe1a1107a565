//! Answers that change nothing: which routes there are, how one stands, what a client would meet.
//!
//! They are made of the table and of what became of the sources' sets, so they are the same for
//! routes of every source. What is stored is told as the store has it, with the revision that a
//! change of it may name. A page of a list looks at each route once and keeps no more of them than
//! it tells.

use std::collections::{BinaryHeap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use tonic::Status;

use crate::admin::Eyes;
use crate::clock::{Clock, Timestamp};
use crate::control::{convert, proto};
use crate::reconcile::Report;
use crate::registry::image::{Stored, Value};
use crate::routing::explain::{Explanation, explain, shortcomings};
use crate::routing::route::{Origin, Route};
use crate::routing::snapshot::Snapshot;
use crate::source::stored::Handle;
use crate::source::{file, stored};
use crate::store::Revision;
use crate::wire::client_hello::Alpn;

/// How many routes a page has if nobody says how many, and at the most.
const PAGE: usize = 1_000;
const MOST: usize = 10_000;
/// Between the two parts of a page token.
const SEPARATOR: char = ':';
/// The rank of a route that is in force, of one that was stored a moment ago and will be, and of what
/// is stored and no route. Those between are routes that were left out, by their places among all of
/// them.
const IN_FORCE: u32 = 0;
const FRESH: u32 = u32::MAX - 1;
const UNREADABLE: u32 = u32::MAX;

/// A moment of the proxy: everything that one answer tells is of this moment.
#[derive(Debug)]
pub(super) struct Moment<'a> {
    eyes: &'a Eyes,
    /// What is stored, where there is a store: newer than the table by some milliseconds.
    handle: Option<&'a Handle>,
    /// The newest transaction of the store that is certainly told; who watches from there misses
    /// nothing.
    stored: Revision,
    now: Timestamp,
    report: Report,
    snapshot: Arc<Snapshot>,
    table_revision: u64,
}

/// Where a route stands among all: by its id, then by its rank.
type Place = (Arc<str>, u32);

/// A route, wherever it was found.
#[derive(Debug)]
struct Row {
    route: Arc<Route>,
    origin: Option<Origin>,
    fault: Option<String>,
}

impl<'a> Moment<'a> {
    pub(super) fn of(eyes: &'a Eyes, handle: Option<&'a Handle>) -> Self {
        // First: whatever is looked at later knows at least as much.
        let stored = handle.map_or(0, |handle| handle.image().revision());
        let table = eyes.table.current();
        Self {
            eyes,
            handle,
            stored,
            now: eyes.clock.now(),
            report: eyes.reports.borrow().clone(),
            snapshot: table.snapshot,
            table_revision: table.revision,
        }
    }

    pub(super) fn list(&self, request: &proto::ListRequest) -> Result<proto::ListResponse, Status> {
        let mut page = Page::of(request)?;
        let filter = Filter(request.contains.to_lowercase());
        let source = request.source.as_str();
        // Origins are looked up only if they are asked for.
        let is_from = |origin: &dyn Fn() -> Option<Origin>| {
            source.is_empty() || self.source_of(origin().as_ref()) == source
        };
        for written in self.snapshot.claims() {
            let route = &written.route;
            if filter.takes(route) && is_from(&|| self.snapshot.origin(&route.id)) {
                page.add((Arc::clone(&route.id), IN_FORCE));
            }
        }
        for ((claim, _), rank) in self.report.conflicts.iter().zip(IN_FORCE + 1..) {
            if filter.takes(&claim.route) && is_from(&|| Some(claim.origin.clone())) {
                page.add((Arc::clone(&claim.route.id), rank));
            }
        }
        for route in self.not_in_force_yet() {
            if filter.takes(&route) && [stored::NAME, ""].contains(&source) {
                page.add((Arc::clone(&route.id), FRESH));
            }
        }
        for id in self.unreadable() {
            if filter.has(&id) && [stored::NAME, ""].contains(&source) {
                page.add((id, UNREADABLE));
            }
        }
        let (places, next, total) = page.finish();
        Ok(proto::ListResponse {
            routes: places.iter().filter_map(|place| self.at(place)).collect(),
            next_page_token: next,
            revision: self.stored,
            total,
        })
    }

    pub(super) fn get(&self, id: &str) -> Result<proto::RouteState, Status> {
        let left_out = self.report.conflicts.iter().zip(IN_FORCE + 1..);
        let left_out = left_out.filter(|((claim, _), _)| *claim.route.id == *id);
        let left_out = left_out.map(|(_, rank)| rank);
        let mut ranks = std::iter::once(IN_FORCE).chain(left_out).chain([FRESH, UNREADABLE]);
        let state = ranks.find_map(|rank| self.at(&(id.into(), rank)));
        state.ok_or_else(|| Status::not_found(format!("there is no route with the id \"{id}\"")))
    }

    pub(super) fn explain(
        &self,
        request: &proto::ExplainRequest,
    ) -> Result<proto::ExplainResponse, Status> {
        let at = match request.at.as_str() {
            "" => self.now,
            text => text.parse().map_err(|_| {
                let words = "at: write a time as 2026-12-24T18:00:00Z, with its offset";
                Status::invalid_argument(words)
            })?,
        };
        if !request.from.is_empty() && request.from.parse::<IpAddr>().is_err() {
            return Err(Status::invalid_argument("from: write an IP address"));
        }
        let alpn = Alpn::from_names(request.alpn.iter().map(String::as_bytes));
        let Explanation { host, verdict, origin, .. } =
            explain(&self.snapshot, &request.host, &alpn, at);
        let route =
            verdict.route().map(|route| Row { route: Arc::clone(route), origin, fault: None });
        Ok(proto::ExplainResponse {
            allowed: verdict.refusal().is_none(),
            outcome: verdict.refusal().map(|outcome| outcome.word().to_owned()).unwrap_or_default(),
            why: verdict.why().unwrap_or_default(),
            route: route.map(|row| self.state(&row, at, 0)),
            host,
            at: at.to_string(),
            table_revision: self.table_revision,
        })
    }

    /// What is stored, and neither in the table nor left out of it.
    fn not_in_force_yet(&self) -> Vec<Arc<Route>> {
        let Some(handle) = self.handle else { return Vec::new() };
        // The image is held no longer than it takes to count references.
        let stored: Vec<_> = {
            let image = handle.image();
            image.routes().map(|(route, _)| Arc::clone(route)).collect()
        };
        let left_out = self.report.conflicts.iter();
        let left_out: HashSet<&str> = left_out.map(|(claim, _)| &*claim.route.id).collect();
        let is_new = |route: &Arc<Route>| {
            self.snapshot.by_id(&route.id).is_none() && !left_out.contains(&*route.id)
        };
        stored.into_iter().filter(is_new).collect()
    }

    fn unreadable(&self) -> Vec<Arc<str>> {
        let ids = |handle: &Handle| {
            handle.image().unreadable().map(|(id, _)| Arc::clone(id)).collect::<Vec<_>>()
        };
        self.handle.map(ids).unwrap_or_default()
    }

    /// What stands at a place.
    fn at(&self, (id, rank): &Place) -> Option<proto::RouteState> {
        let mut row = match *rank {
            UNREADABLE => return self.unreadable_state(id),
            FRESH => return self.fresh(id),
            IN_FORCE => Row {
                route: Arc::clone(&self.snapshot.by_id(id)?.route),
                origin: self.snapshot.origin(id),
                fault: None,
            },
            rank => {
                let index = usize::try_from(rank - 1).ok()?;
                let (claim, conflict) = self.report.conflicts.get(index)?;
                let is_it = claim.route.id == *id;
                is_it.then(|| Row {
                    route: Arc::clone(&claim.route),
                    origin: Some(claim.origin.clone()),
                    fault: Some(conflict.to_string()),
                })?
            }
        };
        if self.source_of(row.origin.as_ref()) != stored::NAME {
            return Some(self.state(&row, self.now, 0));
        }
        // What is gone or changed there is so in the table in a moment.
        match self.stored(id)? {
            Stored { value: Value::Route(route), revision } => {
                row.route = route;
                Some(self.state(&row, self.now, revision))
            }
            Stored { value: Value::Unreadable(_), .. } => None,
        }
    }

    /// A stored route that is not in the table yet.
    fn fresh(&self, id: &str) -> Option<proto::RouteState> {
        let Stored { value: Value::Route(route), revision } = self.stored(id)? else { return None };
        let origin = Origin { source: stored::NAME.into(), line: 0, column: 0 };
        let row = Row { route, origin: Some(origin), fault: None };
        Some(self.state(&row, self.now, revision))
    }

    fn stored(&self, id: &str) -> Option<Stored> {
        self.handle?.image().of(id)
    }

    fn unreadable_state(&self, id: &Arc<str>) -> Option<proto::RouteState> {
        let Stored { value: Value::Unreadable(_), revision } = self.stored(id)? else {
            return None;
        };
        let route = proto::Route { id: id.to_string(), ..proto::Route::default() };
        Some(proto::RouteState {
            route: Some(route),
            phase: proto::Phase::Faulty.into(),
            source: stored::NAME.to_owned(),
            origin: stored::NAME.to_owned(),
            revision,
            fault: "what is stored is no route".to_owned(),
            ..proto::RouteState::default()
        })
    }

    fn state(&self, row: &Row, at: Timestamp, revision: u64) -> proto::RouteState {
        let Row { route, origin, fault } = row;
        let hold = route.hold();
        let seen = self.in_force(row);
        let phase = match fault {
            Some(_) => proto::Phase::Faulty,
            None if hold.is_some() => proto::Phase::Pending,
            None => convert::phase(seen.phase(at)),
        };
        let fault = fault.clone().or_else(|| Some(hold?.words().to_owned()));
        let open = if row.fault.is_none() { self.eyes.ledger.open_of(&route.id) } else { 0 };
        proto::RouteState {
            route: Some(convert::message(route)),
            phase: phase.into(),
            source: self.source_of(origin.as_ref()).to_owned(),
            origin: origin.as_ref().map(ToString::to_string).unwrap_or_default(),
            revision,
            fault: fault.unwrap_or_default(),
            open_connections: open.try_into().unwrap_or(u64::MAX),
            ends_at: seen.seen_end().map(|end| end.to_string()).unwrap_or_default(),
            note: shortcomings(seen).unwrap_or_default(),
        }
    }

    /// The same route as it is in force: what was seen of its backends is not stored with it.
    fn in_force<'r>(&'r self, row: &'r Row) -> &'r Route {
        let known = self.snapshot.by_id(&row.route.id).filter(|_| row.fault.is_none());
        let known = known.map(|written| &*written.route);
        known.filter(|known| is_same(known, &row.route)).unwrap_or(&row.route)
    }

    /// The source that told a route: routes of files bear the names of their files.
    fn source_of(&self, origin: Option<&Origin>) -> &str {
        let Some(origin) = origin else { return "" };
        if *origin.source == *stored::NAME {
            return stored::NAME;
        }
        let mut sources = self.report.sources.iter().map(|standing| &*standing.name);
        sources.find(|name| *name == &*origin.source).unwrap_or(file::NAME)
    }
}

/// Whether what was seen of a route concerns another version of it.
fn is_same(one: &Route, other: &Route) -> bool {
    one.leads_like(other) && one.hosts == other.hosts && one.written_end() == other.written_end()
}

/// The first places behind one.
struct Page {
    behind: Option<Place>,
    most: usize,
    first: BinaryHeap<Place>,
    total: u64,
}

impl Page {
    fn of(request: &proto::ListRequest) -> Result<Self, Status> {
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
        Ok(Self { behind, most, first: BinaryHeap::new(), total: 0 })
    }

    fn add(&mut self, place: Place) {
        self.total += 1;
        if self.behind.as_ref().is_none_or(|behind| place > *behind) {
            self.first.push(place);
            // One more than is told shows whether there are more.
            if self.first.len() > self.most + 1 {
                self.first.pop();
            }
        }
    }

    /// The places, the token of the next page, and how many there are on all.
    fn finish(self) -> (Vec<Place>, String, u64) {
        let mut places = self.first.into_sorted_vec();
        let has_more = places.len() > self.most;
        places.truncate(self.most);
        let next = places.last().filter(|_| has_more).map(token).unwrap_or_default();
        (places, next, self.total)
    }
}

fn token((id, rank): &Place) -> String {
    format!("{rank}{SEPARATOR}{id}")
}

fn place(token: &str) -> Option<Place> {
    let (rank, id) = token.split_once(SEPARATOR)?;
    Some((id.into(), rank.parse().ok()?))
}

/// What a list is narrowed down to, without regard to case; in lower case.
struct Filter(String);

impl Filter {
    fn takes(&self, route: &Route) -> bool {
        self.0.is_empty()
            || self.has(&route.id)
            || route.app().is_some_and(|app| self.has(app))
            || route.hosts.iter().any(|host| self.has(&host.to_string()))
    }

    fn has(&self, text: &str) -> bool {
        text.contains(&self.0) || text.to_lowercase().contains(&self.0)
    }
}
