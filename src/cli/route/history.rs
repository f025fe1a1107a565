//! `route history`: who changed what and when, and whether anybody tampered with that.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::{Value, json};

use super::draft;
use super::verify::Known;
use crate::cli::remote::Remote;
use crate::cli::report::print;
use crate::cli::shown::{changes, gist, instant, route_json, short};
use crate::cli::table::{Column, Part, Tone, table};
use crate::cli::words::{When, parse_since, remaining};
use crate::cli::{Format, Status};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::control::client::Error;
use crate::control::convert::message;
use crate::control::proto::history_record::Change;
use crate::control::proto::{HistoryRecord, HistoryRequest, HistoryResponse, Route};

/// Records of a page: some of them may be large.
const PAGE: u32 = 500;
/// So many changes of one record are shown on a terminal: an apply may have very many.
const SHOWN: usize = 10;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Only changes of this route.
    #[arg(conflicts_with = "verify")]
    id: Option<String>,
    /// Only what was changed since then: an RFC 3339 time, or how long ago, as 2h.
    #[arg(long, value_name = "TIME|2h", value_parser = parse_since)]
    since: Option<When>,
    /// Only the newest so many; 0: all.
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    limit: usize,
    /// Check the whole chain of records, and name the first that was tampered with.
    #[arg(long, conflicts_with_all = ["since", "limit"])]
    verify: bool,
    /// Also check that this record is still the one whose digest was noted down.
    #[arg(long, value_name = "NUMBER:DIGEST", requires = "verify")]
    known: Option<Known>,
}

const COLUMNS: [Column; 6] = [
    Column::whole("NUMBER").number().or_left_out(),
    Column::whole("REVISION").number(),
    Column::whole("WHEN"),
    Column::whole("ID"),
    Column::cut("CHANGE").at_least(30),
    Column::cut("BY").or_left_out(),
];

pub(super) async fn run(arguments: &Arguments, remote: &Remote) -> Result<Status, Error> {
    if arguments.verify {
        return super::verify::run(arguments.known.as_ref(), remote).await;
    }
    let now = SystemClock.now();
    let (records, are_all) = newest(arguments, remote, now).await?;
    if remote.voice.format == Format::Json {
        let records: Vec<_> = records.iter().map(record_json).collect();
        print(&format!("{}\n", json!({ "records": records, "are_all": are_all })));
        return Ok(Status::Done);
    }
    let style = remote.voice.style;
    let mut rows = Vec::new();
    for record in &records {
        let when = match instant(&record.at) {
            Some(at) if style.is_terminal() => remaining(now, at),
            _ => short(&record.at),
        };
        let most = if style.is_terminal() { SHOWN } else { usize::MAX };
        let changes = record.changes.iter().filter(|change| concerns(arguments, change));
        for change in changes.clone().take(most) {
            let (words, tone) = told(change);
            rows.push(vec![
                Part::new(record.number.to_string(), Tone::Faint),
                Part::plain(record.revision.to_string()),
                Part::plain(&when),
                Part::new(&change.id, Tone::Strong),
                Part::new(words, tone),
                Part::new(&record.by, Tone::Faint),
            ]);
        }
        let more = changes.count().saturating_sub(most);
        if more > 0 {
            let words = format!("… {more} more");
            let texts = [String::new(), String::new(), String::new(), words];
            let mut row: Vec<_> = texts.iter().map(|text| Part::new(text, Tone::Faint)).collect();
            row.extend([Part::plain(""), Part::plain("")]);
            rows.push(row);
        }
    }
    if rows.is_empty() && style.is_terminal() {
        print("no changes\n");
    } else {
        print(&table(&COLUMNS, &rows, style));
    }
    if !are_all && style.is_terminal() {
        print(&format!("{}\n", style.faint("there are older records: --limit 0 shows all")));
    }
    Ok(Status::Done)
}

fn concerns(arguments: &Arguments, change: &Change) -> bool {
    arguments.id.as_ref().is_none_or(|id| *id == change.id)
}

/// The newest records that are wanted, oldest first, and whether there are no more. Looked for from
/// the newest back, window by window: whoever asks wants the end of a long history.
async fn newest(
    arguments: &Arguments,
    remote: &Remote,
    now: Timestamp,
) -> Result<(Vec<HistoryRecord>, bool), Error> {
    let since = arguments.since.map(|since| since.instant(now));
    let limit = if arguments.limit == 0 { usize::MAX } else { arguments.limit };
    let mut request = HistoryRequest {
        id: arguments.id.clone().unwrap_or_default(),
        page_size: 1,
        ..HistoryRequest::default()
    };
    let HistoryResponse { head_number, oldest, .. } =
        remote.client.history(request.clone()).await?;
    request.page_size = PAGE;
    let mut found: VecDeque<HistoryRecord> = VecDeque::new();
    let mut end = head_number;
    while end >= oldest.max(1) {
        let start = end.saturating_sub(u64::from(PAGE)).max(oldest.saturating_sub(1));
        request.after = start;
        let page = remote.client.history(request.clone()).await?;
        let window: Vec<_> =
            page.records.into_iter().filter(|record| record.number <= end).collect();
        for record in window.into_iter().rev() {
            let is_older = |since| instant(&record.at).is_some_and(|at| at < since);
            if since.is_some_and(is_older) {
                return Ok((found.into(), true));
            }
            if found.len() == limit {
                return Ok((found.into(), false));
            }
            found.push_front(record);
        }
        end = start;
    }
    Ok((found.into(), true))
}

/// A change in words.
fn told(change: &Change) -> (String, Tone) {
    match (route(&change.before), route(&change.after)) {
        (None, Some(after)) => (format!("added {}", gist(&after)), Tone::Good),
        (Some(before), Some(after)) => (changes(&before, &after).join("; "), Tone::Warning),
        (Some(_), None) => ("removed".to_owned(), Tone::Bad),
        (None, None) => ("changed".to_owned(), Tone::Plain),
    }
}

/// The route that a record keeps as text.
fn route(text: &str) -> Option<Route> {
    let source: Arc<str> = "history".into();
    let (snapshot, _) = draft::judge(&source, text);
    snapshot.claims().next().map(|written| message(&written.route))
}

fn record_json(record: &HistoryRecord) -> Value {
    let change = |change: &Change| {
        let route = |text: &str| route(text).map(|route| Value::Object(route_json(&route)));
        json!({ "id": change.id, "before": route(&change.before), "after": route(&change.after) })
    };
    json!({
        "number": record.number,
        "revision": record.revision,
        "at": record.at,
        "by": record.by,
        "request_id": (!record.request_id.is_empty()).then_some(&record.request_id),
        "changes": record.changes.iter().map(change).collect::<Vec<_>>(),
    })
}
