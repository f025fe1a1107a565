//! What a change would do to those who are connected now: how many it would cut, and how much they
//! carry.
//!
//! Live connections are counted in the ledger, by the rule that cuts them. What they carry is
//! measured: the counters of their routes are read twice, [`WINDOW`] apart. Routes without counters
//! of their own (`telemetry.max_routes`) cannot be measured, and that is said.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::admin::Eyes;
use crate::clock::Clock;
use crate::control::proto;
use crate::control::proto::difference::Kind;
use crate::proxy::connections::OnRemove;
use crate::registry::image::Value;
use crate::registry::wish::Difference;
use crate::routing::route::Route;
use crate::routing::text;
use crate::source::stored;

/// How long is measured. Bursts that are rarer are missed.
const WINDOW: Duration = Duration::from_secs(1);
/// The longest account of one change, in bytes.
const MAX_DETAIL: usize = 1024;
const UNMEASURED: &str = "what it carries is not counted apart (telemetry.max_routes)";

/// Tells differences without their consequences.
pub(super) fn tell(differences: &[Difference]) -> Vec<proto::Difference> {
    differences.iter().map(plain).collect()
}

/// Tells differences with what each would do now. Takes [`WINDOW`] if anybody would be cut.
pub(super) async fn foretell(
    eyes: &Eyes,
    on_remove: OnRemove,
    differences: &[Difference],
) -> Vec<proto::Difference> {
    let mut told = tell(differences);
    let mut carried = Vec::new();
    for (difference, told) in differences.iter().zip(&mut told) {
        told.cut_connections = cut(eyes, on_remove, difference).try_into().unwrap_or(u64::MAX);
        if told.cut_connections > 0 {
            carried.push((bytes(eyes, &difference.id), told));
        }
    }
    if carried.is_empty() {
        return told;
    }
    let began = Instant::now();
    sleep(WINDOW).await;
    let passed = began.elapsed();
    for (before, told) in carried {
        match (before, bytes(eyes, &told.id)) {
            (Some(before), Some(after)) => {
                told.cut_bytes_per_second = rate(after.saturating_sub(before), passed);
            }
            _ => extend(&mut told.detail, UNMEASURED),
        }
    }
    told
}

fn rate(bytes: u64, passed: Duration) -> u64 {
    let micros = passed.as_micros().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

fn bytes(eyes: &Eyes, id: &str) -> Option<u64> {
    eyes.metrics.of_route(id).map(|counts| counts.to_backend + counts.to_client)
}

/// How many live connections a change would end.
fn cut(eyes: &Eyes, on_remove: OnRemove, difference: &Difference) -> usize {
    let Difference { id, after, .. } = difference;
    // Where a route from elsewhere has this id, those who are connected are its own.
    let origin = eyes.table.current().snapshot.origin(id);
    if origin.is_some_and(|origin| &*origin.source != stored::NAME) {
        return 0;
    }
    let ends_at_once =
        |next: &Route| next.lifetime().cut_at().is_some_and(|end| end <= eyes.clock.now());
    let keeps = on_remove == OnRemove::Keep;
    eyes.ledger.count_of(id, |route| match after {
        Some(next) if next.leads_like(route) => ends_at_once(next),
        _ => !keeps,
    })
}

fn plain(difference: &Difference) -> proto::Difference {
    let Difference { id, before, after } = difference;
    let kind = match (before, after) {
        (None, _) => Kind::Added,
        (Some(_), None) => Kind::Removed,
        (Some(_), Some(_)) => Kind::Changed,
    };
    let end = |route: &Arc<Route>| route.lifetime().expires_at;
    let ends_sooner = match (before, after) {
        (Some(Value::Route(before)), Some(after)) => match (end(before), end(after)) {
            (Some(before), Some(after)) => after < before,
            (None, after) => after.is_some(),
            (Some(_), None) => false,
        },
        _ => false,
    };
    proto::Difference {
        kind: kind.into(),
        id: id.to_string(),
        ends_sooner,
        cut_connections: 0,
        cut_bytes_per_second: 0,
        detail: detail(before.as_ref(), after.as_deref()),
    }
}

/// Which keys change, and how.
fn detail(before: Option<&Value>, after: Option<&Route>) -> String {
    let (before, after) = match (before, after) {
        (Some(Value::Unreadable(_)), _) => return "what is stored is no route".to_owned(),
        (Some(Value::Route(before)), Some(after)) => (text::write(before), text::write(after)),
        (Some(Value::Route(_)), None) | (None, _) => return String::new(),
    };
    let keys = |text: &str| {
        let lines = text.lines().filter_map(|line| line.split_once(" = "));
        lines.map(|(key, value)| (key.to_owned(), value.to_owned())).collect::<Vec<_>>()
    };
    let (before, after) = (keys(&before), keys(&after));
    let of = |keys: &[(String, String)], key: &str| {
        keys.iter().find(|(own, _)| own == key).map(|(_, value)| value.clone())
    };
    let mut words = String::new();
    for (key, value) in &before {
        match of(&after, key) {
            Some(next) if next == *value => {}
            Some(next) => extend(&mut words, &format!("{key}: {value} → {next}")),
            None => extend(&mut words, &format!("{key}: {value} → none")),
        }
    }
    for (key, value) in after.iter().filter(|(key, _)| of(&before, key).is_none()) {
        extend(&mut words, &format!("{key}: none → {value}"));
    }
    words
}

/// Adds to an account, as far as there is room.
fn extend(words: &mut String, more: &str) {
    let separator = if words.is_empty() { "" } else { "; " };
    let room = MAX_DETAIL.saturating_sub(words.len());
    let end = more.floor_char_boundary(room);
    if end < more.len() {
        let _ = write!(words, "{separator}{}…", more.get(..end).unwrap_or_default());
    } else {
        let _ = write!(words, "{separator}{more}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::document;

    fn route(more: &str) -> Arc<Route> {
        let text = format!("[[route]]\nid = \"a\"\nhosts = [\"a.test\"]\n{more}\n");
        document::route(&"t".into(), &text).unwrap()
    }

    fn told(before: Option<&str>, after: Option<&str>) -> proto::Difference {
        let before = before.map(|text| Value::Route(route(text)));
        plain(&Difference { id: "a".into(), before, after: after.map(route) })
    }

    #[test]
    fn a_change_is_told_key_by_key() {
        const BACKEND: &str = "backends = [\"127.0.0.1:1\"]";
        let with = |more: &str| format!("{BACKEND}\n{more}");
        let added = told(None, Some(BACKEND));
        assert_eq!((added.kind(), added.detail.as_str()), (Kind::Added, ""));
        assert_eq!(told(Some(BACKEND), None).kind(), Kind::Removed);
        let moved = told(Some(BACKEND), Some("backends = [\"127.0.0.1:2\"]\napp = \"x\""));
        assert_eq!(moved.kind(), Kind::Changed);
        let words = "backends: [\"127.0.0.1:1\"] → [\"127.0.0.1:2\"]; app: none → \"x\"";
        assert_eq!(moved.detail, words);
        let (soon, late) =
            ("expires_at = 2026-01-01T00:00:00Z", "expires_at = 2027-01-01T00:00:00Z");
        for (before, after, sooner) in
            [("", soon, true), (late, soon, true), (soon, late, false), (soon, "", false)]
        {
            let change = told(Some(&with(before)), Some(&with(after)));
            assert_eq!(change.ends_sooner, sooner, "{}", change.detail);
        }
    }

    #[test]
    fn an_account_has_a_bound() {
        let mut words = String::new();
        for _ in 0..100 {
            extend(&mut words, &"ä".repeat(40));
        }
        assert!(words.len() < MAX_DETAIL + 100 * 8, "{}", words.len());
    }

    #[test]
    fn bytes_become_a_rate() {
        assert_eq!(rate(1500, Duration::from_millis(1500)), 1000);
        assert_eq!(rate(5, Duration::ZERO), 5_000_000);
    }
}
