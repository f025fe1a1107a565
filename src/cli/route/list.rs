//! `route list`.

use clap::ValueEnum;
use serde_json::json;

use super::pages::all_routes;
use crate::cli::remote::Remote;
use crate::cli::report::{Style, complain, print};
use crate::cli::shown::{end, end_of, instant, phase, phase_word, state_json};
use crate::cli::table::{Column, Part, Tone, table};
use crate::cli::words::{clean, counted, grouped, joined};
use crate::cli::{Format, Status};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::control::client::Error;
use crate::control::proto::{ListRequest, Route, RouteState};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Only routes whose id, hosts or app contain this.
    text: Option<String>,
    /// Only routes of this source, as file or store.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Only routes that stand so.
    #[arg(long)]
    state: Option<State>,
    /// In which order.
    #[arg(long, default_value = "id")]
    sort: Sort,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum State {
    Live,
    Pending,
    Expired,
    Faulty,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// By id.
    Id,
    /// What ends first comes first.
    End,
    /// What has most open connections comes first.
    Open,
}

const COLUMNS: [Column; 7] = [
    Column::whole("ID"),
    Column::cut("HOSTS").or_left_out(),
    Column::cut("BACKENDS").or_left_out(),
    Column::whole("STATE"),
    Column::whole("ENDS"),
    Column::whole("OPEN").number().or_left_out(),
    Column::whole("SOURCE").or_left_out(),
];

pub(super) async fn run(arguments: &Arguments, remote: &Remote) -> Result<Status, Error> {
    let request = ListRequest {
        contains: arguments.text.clone().unwrap_or_default(),
        source: arguments.source.clone().unwrap_or_default(),
        ..ListRequest::default()
    };
    let (mut routes, revision) = all_routes(&remote.client, request).await?;
    if let Some(state) = arguments.state {
        let word = match state {
            State::Live => "live",
            State::Pending => "pending",
            State::Expired => "expired",
            State::Faulty => "faulty",
        };
        routes.retain(|route| phase_word(route) == word);
    }
    sort(&mut routes, arguments.sort);
    match remote.voice.format {
        Format::Json => {
            let all: Vec<_> = routes.iter().map(state_json).collect();
            print(&format!("{}\n", json!({ "routes": all, "store_revision": revision })));
        }
        Format::Table => show(&routes, revision, remote),
    }
    Ok(Status::Done)
}

fn sort(routes: &mut [RouteState], sort: Sort) {
    let id = |state: &RouteState| state.route.as_ref().map(|route| route.id.clone());
    routes.sort_by_cached_key(id);
    match sort {
        Sort::Id => {}
        Sort::End => routes.sort_by_key(|state| {
            let written = state.route.as_ref().and_then(|route| instant(&route.expires_at));
            instant(&state.ends_at).or(written).unwrap_or(Timestamp::MAX)
        }),
        Sort::Open => routes.sort_by_key(|state| u64::MAX - state.open_connections),
    }
}

fn show(routes: &[RouteState], revision: u64, remote: &Remote) {
    let (style, complaints) = (remote.voice.style, remote.voice.complaints);
    let now = SystemClock.now();
    let rows: Vec<_> = routes
        .iter()
        .map(|state| {
            let route = state.route.clone().unwrap_or_default();
            let open = if state.open_connections == 0 { Tone::Faint } else { Tone::Plain };
            // A certificate that was seen may end it sooner than was written down.
            let end = match instant(&state.ends_at) {
                Some(at) => end_of(Some(at), now, style),
                None => end(&route, now, style),
            };
            vec![
                Part::new(&route.id, Tone::Strong),
                Part::plain(hosts(&route, style)),
                Part::plain(joined(&route.backends)),
                phase(state),
                end,
                Part::new(grouped(state.open_connections), open),
                Part::new(&state.source, Tone::Faint),
            ]
        })
        .collect();
    if !(rows.is_empty() && style.is_terminal()) {
        print(&table(&COLUMNS, &rows, style));
    }
    for state in routes.iter().filter(|state| !state.fault.is_empty()) {
        let id = state.route.as_ref().map(|route| route.id.clone()).unwrap_or_default();
        complain(&format!("{}: {}\n", complaints.bad(&clean(&id)), clean(&state.fault)));
    }
    if style.is_terminal() {
        let count = counted(u64::try_from(routes.len()).unwrap_or(u64::MAX), "route");
        let revision = match revision {
            0 => String::new(),
            revision => format!(", store revision {revision}"),
        };
        print(&format!("{}\n", style.faint(&format!("{count}{revision}"))));
    }
}

/// The hosts of a route. Most ids are a host: on a terminal there is no room to say it twice.
fn hosts(route: &Route, style: Style) -> String {
    let word = |host: &String| {
        if *host == route.id && style.is_terminal() { "same".to_owned() } else { host.clone() }
    };
    joined(&route.hosts.iter().map(word).collect::<Vec<_>>())
}
