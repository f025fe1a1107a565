//! What the calendar brings, told to the log: ends that lie ahead, ends that came, and wall clocks
//! that were set.
//!
//! Nothing here ends anything: expiry is judged at each lookup and by the ledger, whether this
//! runs or not. Time is looked at once a second instead of slept for, so that a clock that was set
//! and a machine that was suspended are seen at the next look.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use crate::clock::{Clock, Forward, StepWatch, Timestamp};
use crate::routing::expiry::End;
use crate::routing::snapshot::Snapshot;
use crate::routing::table::Table;
use crate::telemetry::logging::Named;

/// How often the time is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long before an end it is told.
pub const DAY: SignedDuration = SignedDuration::from_hours(24);
/// How long before an end it is told once more.
pub const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// Tells the log until the table has no publisher any more.
pub async fn tell(table: Table, clock: Arc<Forward>) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut steps = StepWatch::new(clock.wall(), clock.since_boot());
    let mut told = Told { until: clock.now(), table: Arc::default() };
    let mut changes = table.subscribe();
    loop {
        // At once after a change: until then the table before it is kept from being freed.
        tokio::select! {
            _ = ticks.tick() => {}
            told = changes.changed() => if told.is_err() { return },
        }
        if let Some(step) = steps.observe(clock.wall(), clock.since_boot()) {
            tell_step(step, clock.lead());
        }
        let (now, snapshot) = (clock.now(), table.current().snapshot);
        let news = told.news(&snapshot, now);
        for (kind, ends) in news {
            tell_ends(kind, &ends);
        }
        told = Told { until: now, table: snapshot };
    }
}

fn tell_step(step: SignedDuration, lead: SignedDuration) {
    let seconds = step.as_secs_f64();
    if step.is_negative() {
        let lead_seconds = lead.as_secs_f64();
        error!(
            seconds,
            lead_seconds,
            "the wall clock was set back; routes go on to be judged by the time that has passed since, \
             so that none comes back to life: if it was the earlier time that was wrong, restart mse-proxy"
        );
    } else {
        warn!(seconds, "the wall clock was set forward");
    }
}

/// Something to tell of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    /// It comes within 24 hours.
    Day,
    /// It comes within the hour.
    Hour,
    /// It came.
    Over,
}

fn tell_ends(news: News, ends: &[&End]) {
    let Some(first) = ends.first() else { return };
    let ids: Vec<_> = ends.iter().map(|end| Arc::clone(&end.route().id)).collect();
    let (routes, first_end) = (Named(&ids), first.at());
    match news {
        News::Day => warn!(%routes, %first_end, "routes end within 24 hours"),
        News::Hour => warn!(%routes, %first_end, "routes end within the hour"),
        News::Over => info!(%routes, %first_end, "routes have ended"),
    }
}

/// What was told last.
struct Told {
    /// All ends were told as of this instant.
    until: Timestamp,
    /// Of this table.
    table: Arc<Snapshot>,
}

impl Told {
    /// What is new in a table at an instant: ends that came nearer with time, and those of the
    /// same nearness that the table did not have before.
    fn news<'a>(&self, table: &'a Snapshot, now: Timestamp) -> Vec<(News, Vec<&'a End>)> {
        let later = |time: Timestamp, by| time.saturating_add(by).unwrap_or(Timestamp::MAX);
        let is_same = std::ptr::eq(&raw const *self.table, table);
        // An end is told under the nearest of these that it lies in, and only there.
        let bounds = [
            (News::Over, SignedDuration::ZERO, Timestamp::MIN),
            (News::Hour, HOUR, now),
            (News::Day, DAY, later(now, HOUR)),
        ];
        let news = bounds.map(|(news, reach, after)| {
            let (told, until) = (later(self.until, reach), later(now, reach));
            // In a table that has not changed, whatever was within reach has been told.
            let after = if is_same { after.max(told) } else { after };
            let ends = table.calendar().ends(after, until).iter();
            (news, ends.filter(|end| end.at() > told || !self.knows(end)).collect::<Vec<_>>())
        });
        // What had ended before this proxy saw its first routes is no news.
        let is_news = |(news, ends): &(News, Vec<&End>)| {
            !(ends.is_empty() || self.table.is_empty() && *news == News::Over)
        };
        news.into_iter().filter(is_news).collect()
    }

    fn knows(&self, end: &End) -> bool {
        let known = self.table.by_id(&end.route().id);
        known.is_some_and(|claim| claim.route.lifetime().expires_at == Some(end.at()))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::source::document;

    fn at(text: &str) -> Timestamp {
        format!("2026-01-{text}:00Z").parse().unwrap()
    }

    fn table(routes: &[(&str, &str)]) -> Arc<Snapshot> {
        let text = routes.iter().fold(String::new(), |mut text, (id, end)| {
            let end = at(end);
            let _ = writeln!(text, "[[route]]\nhosts = ['{id}.test']\nid = '{id}'");
            let _ = writeln!(text, "backends = ['127.0.0.1:1']\nexpires_at = {end}");
            text
        });
        let document = document::read(&"r.toml".into(), &text);
        assert!(document.faults.is_empty(), "{:?}", document.faults);
        Arc::new(Snapshot::build(document.claims.iter()).0)
    }

    /// Looks at each of these tables at its time, and gives what each look told.
    fn told(looks: &[(&str, &Arc<Snapshot>)]) -> Vec<Vec<(News, String)>> {
        let mut told = Told { until: at(looks[0].0), table: Arc::default() };
        let looks = looks.iter().map(|(time, table)| {
            let now = at(time);
            let news = told.news(table, now).into_iter();
            let names = |ends: &[&End]| ends.iter().map(|end| &*end.route().id).collect::<String>();
            let news = news.map(|(news, ends)| (news, names(&ends))).collect();
            told = Told { until: now, table: Arc::clone(table) };
            news
        });
        looks.collect()
    }

    fn one(news: News, ids: &str) -> Vec<(News, String)> {
        vec![(news, ids.to_owned())]
    }

    #[test]
    fn an_end_is_told_a_day_before_an_hour_before_and_when_it_comes() {
        let table = table(&[("a", "20T12:00"), ("b", "20T12:30"), ("c", "25T00:00")]);
        let looks = [
            ("19T11:59", &table),
            ("19T12:00", &table),
            ("19T12:01", &table),
            ("19T13:00", &table),
            ("20T11:00", &table),
            ("20T11:01", &table),
            ("20T11:59", &table),
            // A machine that was suspended: both thresholds and an end at once.
            ("20T12:30", &table),
            ("20T12:31", &table),
        ];
        let nothing = Vec::new();
        assert_eq!(
            told(&looks),
            [
                nothing.clone(),
                one(News::Day, "a"),
                nothing.clone(),
                one(News::Day, "b"),
                one(News::Hour, "a"),
                nothing.clone(),
                one(News::Hour, "b"),
                one(News::Over, "ab"),
                nothing,
            ]
        );
    }

    #[test]
    fn what_a_new_table_brings_near_is_told_at_once_and_what_was_told_is_not_told_again() {
        let first = table(&[("a", "20T12:00"), ("b", "20T11:00"), ("z", "01T00:00")]);
        let second =
            table(&[("a", "20T12:00"), ("b", "20T10:30"), ("c", "20T10:10"), ("d", "30T00:00")]);
        let third = table(&[("a", "20T10:05"), ("b", "20T10:30"), ("c", "29T00:00")]);
        let looks = [
            ("20T10:00", &first),
            ("20T10:00", &second),
            ("20T10:01", &third),
            ("20T10:05", &third),
        ];
        assert_eq!(
            told(&looks),
            [
                // `z` had ended before; `b` ends in an hour, which is within the hour.
                vec![(News::Hour, "b".to_owned()), (News::Day, "a".to_owned())],
                one(News::Hour, "cb"),
                one(News::Hour, "a"),
                one(News::Over, "a"),
            ]
        );
    }
}
