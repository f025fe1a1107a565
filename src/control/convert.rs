//! Between the routes of this crate and the messages of the service.

use super::proto;
use crate::routing::route::Route;
use crate::units::Period;
use crate::wire::alert::Answer;

/// A route as the service tells it.
#[must_use]
pub fn message(route: &Route) -> proto::Route {
    let lifetime = route.lifetime();
    let text = |items: Vec<String>| items;
    let grace = lifetime.grace.unsigned_abs();
    proto::Route {
        id: route.id.to_string(),
        hosts: text(route.hosts.iter().map(ToString::to_string).collect()),
        backends: text(route.backends.iter().map(ToString::to_string).collect()),
        expires_at: lifetime.expires_at.map(|end| end.to_string()).unwrap_or_default(),
        not_before: lifetime.not_before.map(|start| start.to_string()).unwrap_or_default(),
        grace: if grace.is_zero() { String::new() } else { Period(grace).to_string() },
        app: route.app().map(ToString::to_string).unwrap_or_default(),
        mode: String::new(),
        alpn: route.alpn().iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect(),
        refusal: match route.refusal() {
            None => "",
            Some(Answer::Close) => "close",
            Some(Answer::CloseNotify) => "close_notify",
            Some(Answer::Alert) => "alert",
        }
        .to_owned(),
        max_connections: route.max_connections(),
        more: String::new(),
    }
}
