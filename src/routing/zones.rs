//! The zones in which an operator lets TLS be ended, and the one rule that guards them.
//!
//! A route that would have TLS ended here claims only names that lie in a zone; any other is left
//! out, whoever wrote it. So no edit of the table can open a name that was sealed: whoever may
//! write routes cannot write zones. A snapshot holds its zones and applies the rule to each route
//! that comes in ([`Snapshot::after`](crate::routing::snapshot::Snapshot::after)); one that was
//! given none lets nothing be ended.

use serde::{Deserialize, Serialize};

use crate::hostname::{HostnameError, Pattern};
use crate::routing::route::Route;

/// The patterns under which names may be terminated; none of them, by default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Zones(Extent);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Extent {
    Everywhere,
    These(Box<[Pattern]>),
}

impl Default for Extent {
    fn default() -> Self {
        Self::These(Box::default())
    }
}

/// A zone that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{zone}` is not a pattern: {why}; write *.apps.example.com or **.apps.example.com")]
pub struct NotAZone {
    zone: String,
    why: HostnameError,
}

impl Zones {
    /// No bounds: for whoever reads routes that somebody else will judge.
    #[must_use]
    pub fn everywhere() -> Self {
        Self(Extent::Everywhere)
    }

    /// The first name for which a route would have TLS ended outside of the zones.
    #[must_use]
    pub fn first_outside<'a>(&self, route: &'a Route) -> Option<&'a Pattern> {
        route.termination()?;
        route.hosts.iter().find(|pattern| !self.hold(pattern))
    }

    /// Whether every name that a pattern covers lies in one of the zones.
    #[must_use]
    pub fn hold(&self, pattern: &Pattern) -> bool {
        match &self.0 {
            Extent::Everywhere => true,
            Extent::These(zones) => zones.iter().any(|zone| holds(zone, pattern)),
        }
    }

    /// Whether nothing may be terminated.
    #[must_use]
    pub fn are_none(&self) -> bool {
        matches!(&self.0, Extent::These(zones) if zones.is_empty())
    }
}

fn holds(zone: &Pattern, pattern: &Pattern) -> bool {
    match (zone, pattern) {
        (_, Pattern::Exact(name)) => zone.covers(name),
        (Pattern::Exact(_), _) | (Pattern::OneLabel(_), Pattern::AnyDepth(_)) => false,
        (Pattern::OneLabel(zone), Pattern::OneLabel(suffix)) => zone == suffix,
        (Pattern::AnyDepth(own), Pattern::OneLabel(suffix) | Pattern::AnyDepth(suffix)) => {
            own == suffix || zone.covers(suffix)
        }
    }
}

impl FromIterator<Pattern> for Zones {
    fn from_iter<I: IntoIterator<Item = Pattern>>(patterns: I) -> Self {
        Self(Extent::These(patterns.into_iter().collect()))
    }
}

impl TryFrom<Vec<String>> for Zones {
    type Error = NotAZone;

    fn try_from(texts: Vec<String>) -> Result<Self, NotAZone> {
        let zones = texts.into_iter().map(|text| match text.parse() {
            Ok(pattern) => Ok(pattern),
            Err(why) => Err(NotAZone { zone: text, why }),
        });
        zones.collect()
    }
}

impl From<Zones> for Vec<String> {
    fn from(zones: Zones) -> Self {
        match zones.0 {
            Extent::Everywhere => vec!["**".to_owned()],
            Extent::These(zones) => zones.iter().map(ToString::to_string).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn zones(texts: &[&str]) -> Zones {
        texts.iter().map(|text| text.parse::<Pattern>().unwrap()).collect()
    }

    #[test]
    fn a_zone_holds_what_it_covers_and_nothing_beside() {
        for (zone, inside, outside) in [
            ("a.test", &["a.test", "A.test."][..], &["*.a.test", "**.a.test", "b.a.test"][..]),
            ("*.a.test", &["b.a.test", "*.a.test"], &["a.test", "c.b.a.test", "**.a.test"]),
            (
                "**.a.test",
                &["b.a.test", "c.b.a.test", "*.a.test", "*.b.a.test", "**.a.test", "**.b.a.test"],
                &["a.test", "xa.test", "*.test", "**.test", "test"],
            ),
        ] {
            let zones = zones(&[zone]);
            for pattern in inside {
                assert!(zones.hold(&pattern.parse().unwrap()), "{zone} {pattern}");
            }
            for pattern in outside {
                assert!(!zones.hold(&pattern.parse().unwrap()), "{zone} {pattern}");
            }
        }
        assert!(!Zones::default().hold(&"a.test".parse().unwrap()));
    }

    fn names() -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4)
            .prop_map(|labels| labels.join(".") + ".test")
    }

    fn patterns() -> impl Strategy<Value = Pattern> {
        (prop::sample::select(vec!["", "*.", "**."]), names())
            .prop_map(|(stars, name)| format!("{stars}{name}").parse().unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_name_outside_of_the_zones_is_reached_through_a_pattern_that_they_hold(
            own in prop::collection::vec(patterns(), 0..3),
            pattern in patterns(),
            name in names(),
        ) {
            let zones: Zones = own.iter().cloned().collect();
            let name = name.parse().unwrap();
            if zones.hold(&pattern) && pattern.covers(&name) {
                prop_assert!(own.iter().any(|zone| zone.covers(&name)));
            }
        }
    }

    #[test]
    fn zones_are_written_as_patterns() {
        #[derive(Debug, Deserialize)]
        struct Section {
            zones: Zones,
        }
        let read = |text: &str| toml::from_str::<Section>(text).map(|section| section.zones);
        let known = zones(&["**.cosmian.dev", "www.example.com"]);
        assert_eq!(read("zones = ['**.Cosmian.dev', 'www.example.com']").unwrap(), known);
        assert_eq!(Vec::<String>::from(known), ["**.cosmian.dev", "www.example.com"]);
        assert!(read("zones = ['a.*.test']").unwrap_err().message().contains("`a.*.test`"));
        assert!(read("zones = 'a.test'").is_err());
    }
}
