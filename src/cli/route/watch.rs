//! `route watch`: changes as they come, until somebody presses Ctrl-C or nobody reads any more.
//!
//! All stored routes are kept in mind, so that a change can be told by what differs, and so that
//! after a gap what was missed is told as well. A connection that breaks is made again, and the
//! watch goes on behind the last revision that was told.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::cli::remote::Remote;
use crate::cli::report::{complain, put};
use crate::cli::shown::{changes, gist, route_json};
use crate::cli::words::clean;
use crate::cli::{Format, Status};
use crate::clock::{Clock, SystemClock};
use crate::control::client::{Error, Events, Refusal};
use crate::control::proto::{Route, WatchResponse};

/// How long is waited before a broken connection is made again, at first and at the most.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Begin with the changes after this revision; without, with those from now on.
    #[arg(long, value_name = "REVISION", conflicts_with = "initial")]
    after: Option<u64>,
    /// First tell the routes that are there.
    #[arg(long)]
    initial: bool,
}

pub(super) async fn run(arguments: &Arguments, remote: &Remote) -> Result<Status, Error> {
    let mut watcher = Watcher {
        remote,
        known: BTreeMap::new(),
        fresh: BTreeMap::new(),
        seen: arguments.after,
        has_begun: arguments.after.is_some(),
        knows_all: false,
        tells_initial: arguments.initial,
    };
    // Whoever cannot be reached at first is told as by any other command.
    let mut events = remote.client.watch(arguments.after).await?;
    let mut pause = PAUSE;
    loop {
        match watcher.follow(&mut events, &mut pause).await {
            Ok(()) => return Ok(Status::Done),
            Err(error) => events = watcher.resume(&error, &mut pause).await?,
        }
    }
}

struct Watcher<'a> {
    remote: &'a Remote,
    known: BTreeMap<String, Route>,
    /// What is there, as far as it was told.
    fresh: BTreeMap<String, Route>,
    /// Up to here everything was told.
    seen: Option<u64>,
    /// Whether there is anything to compare with.
    has_begun: bool,
    /// Whether a route that is not known is a new one.
    knows_all: bool,
    tells_initial: bool,
}

/// Why a change is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    There,
    Added,
    Changed,
    /// Added or changed: what was there before is not known.
    Set,
    Removed,
}

/// The reader of our output has gone.
struct Unread;

impl Watcher<'_> {
    /// Tells what comes, until nobody reads it, or the stream ends.
    async fn follow(&mut self, events: &mut Events, pause: &mut Duration) -> Result<(), Error> {
        loop {
            let Some(response) = events.next().await? else {
                return Err(Error::Lost("the proxy ended the watch".to_owned()));
            };
            *pause = PAUSE;
            if self.take(response).is_err() {
                return Ok(());
            }
        }
    }

    /// Makes the connection again, as often as it takes. Each reason is told once.
    async fn resume(&mut self, error: &Error, pause: &mut Duration) -> Result<Events, Error> {
        let style = self.remote.voice.complaints;
        let (mut why, mut told) = (error.clone(), String::new());
        loop {
            let words = clean(&why.to_string());
            let (head, then) = match &why {
                Error::Refused { refusal: Refusal::TooOld, .. } if self.seen.is_some() => {
                    self.seen = None;
                    ("too late", "all routes are compared with those last seen")
                }
                Error::Refused { refusal: Refusal::TooMuch | Refusal::Unavailable, .. }
                | Error::Lost(_)
                | Error::Silent(_)
                | Error::Unreachable(_) => ("connection lost", "trying again"),
                Error::Refused { .. } | Error::Unsure { .. } => return Err(why),
            };
            if words != told {
                complain(&format!("{}: {words}; {then}\n", style.warning(head)));
                told = words;
            }
            sleep(*pause).await;
            *pause = (*pause * 2).min(LONGEST_PAUSE);
            self.fresh.clear();
            match self.remote.client.watch(self.seen).await {
                Ok(events) => {
                    if let Some(revision) = self.seen {
                        let words = format!("going on behind revision {revision}\n");
                        complain(&format!("{}: {words}", style.good("connected again")));
                    }
                    return Ok(events);
                }
                Err(error) => why = error,
            }
        }
    }

    fn take(&mut self, response: WatchResponse) -> Result<(), Unread> {
        let WatchResponse { revision, events, is_initial, is_complete } = response;
        if !is_initial {
            for event in events {
                self.change(revision, &event.id, event.route)?;
            }
            self.seen = Some(revision);
            return Ok(());
        }
        let routes = events.into_iter().filter_map(|event| Some((event.id, event.route?)));
        self.fresh.extend(routes);
        if !is_complete {
            return Ok(());
        }
        let fresh = std::mem::take(&mut self.fresh);
        // At first there is nothing to compare with; later, what was missed is told.
        if self.has_begun {
            self.compare(revision, fresh)?;
        } else {
            let told = if self.tells_initial { fresh.len() } else { 0 };
            for (id, route) in fresh.iter().take(told) {
                self.tell(revision, Change::There, id, Some(route), &[gist(route)])?;
            }
            self.known = fresh;
        }
        (self.has_begun, self.knows_all) = (true, true);
        self.seen = Some(revision);
        Ok(())
    }

    /// Tells what differs from what was known before a gap.
    fn compare(&mut self, revision: u64, fresh: BTreeMap<String, Route>) -> Result<(), Unread> {
        let is_gone = |id: &&String| !fresh.contains_key(*id);
        let gone: Vec<String> = self.known.keys().filter(is_gone).cloned().collect();
        for id in gone {
            self.change(revision, &id, None)?;
        }
        for (id, route) in fresh {
            if self.known.get(&id) != Some(&route) {
                self.change(revision, &id, Some(route))?;
            }
        }
        Ok(())
    }

    fn change(&mut self, revision: u64, id: &str, route: Option<Route>) -> Result<(), Unread> {
        let Some(route) = route else {
            self.known.remove(id);
            return self.tell(revision, Change::Removed, id, None, &[]);
        };
        let before = self.known.insert(id.to_owned(), route.clone());
        let (change, lines) = match &before {
            Some(before) => (Change::Changed, changes(before, &route)),
            None if self.knows_all => (Change::Added, vec![gist(&route)]),
            None => (Change::Set, vec![gist(&route)]),
        };
        self.tell(revision, change, id, Some(&route), &lines)
    }

    fn tell(
        &self,
        revision: u64,
        change: Change,
        id: &str,
        route: Option<&Route>,
        lines: &[String],
    ) -> Result<(), Unread> {
        let text = match self.remote.voice.format {
            Format::Json => {
                let route = route.map(|route| Value::Object(route_json(route)));
                let event = json!({
                    "revision": revision, "change": change.word(), "id": id, "route": route,
                });
                format!("{event}\n")
            }
            Format::Table => {
                let style = self.remote.voice.style;
                let word = format!("{:<7}", change.word());
                let word = match change {
                    Change::There => style.faint(&word),
                    Change::Added | Change::Set => style.good(&word),
                    Change::Changed => style.warning(&word),
                    Change::Removed => style.bad(&word),
                };
                let line = format!(
                    "{} {revision:>6} {word} {} {}",
                    style.faint(&format!("{:.0}", SystemClock.now())),
                    style.strong(&clean(id)),
                    lines.join("; ")
                );
                format!("{}\n", line.trim_end())
            }
        };
        put(&text).map_err(|_| Unread)
    }
}

impl Change {
    fn word(self) -> &'static str {
        match self {
            Self::There => "there",
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Set => "set",
            Self::Removed => "removed",
        }
    }
}
