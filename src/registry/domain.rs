//! A customer's own domain: whose it is, whether its gate is open, and how long it stays reserved
//! when its app has ended.
//!
//! The gate opens when the domain's DNS was seen to lead here, and closes after several checks in
//! a row that say otherwise. A check that found nothing out (a resolver that is down) says nothing.
//! While a gate is not open nothing is forwarded: a dangling CNAME must not become somebody else's
//! certificate.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::hostname::Pattern;
use crate::registry::names::{AppName, ProjectName};
use crate::registry::written;

/// Failed checks in a row that close a gate: one may be a slip of a server, and two of a zone that
/// is being transferred.
pub const FAILURES: u32 = 3;

/// A customer's own domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// The domain: a name, or a wildcard of one label.
    #[serde(with = "written")]
    pub host: Pattern,
    /// Whose.
    pub project: ProjectName,
    /// For which app.
    pub app: AppName,
    /// When that app ends, or ended.
    #[serde(with = "written")]
    pub until: Timestamp,
    /// Whether anything is forwarded.
    pub gate: Gate,
    /// Failed checks in a row.
    pub failures: u32,
}

/// Whether anything is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// Not yet: nobody has seen its DNS lead here.
    Pending,
    /// It is.
    Open,
    /// Not any more: its DNS was seen to lead elsewhere.
    Suspended,
}

impl Gate {
    /// Its word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Open => "open",
            Self::Suspended => "suspended",
        }
    }
}

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It leads here, and whatever else is demanded holds.
    Here,
    /// It does not.
    Elsewhere,
    /// Nothing: DNS did not answer.
    Nothing,
}

impl Seen {
    /// Its word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::Elsewhere => "elsewhere",
            Self::Nothing => "nothing",
        }
    }
}

/// Who has a claim to a domain at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Its app.
    Live,
    /// Its project, until then: its app has ended.
    Reserved(Timestamp),
    /// Nobody.
    Free,
}

impl Domain {
    /// Takes note of a check. Gives the gate that it changed to, if it did.
    #[must_use]
    pub fn observe(self, seen: Seen) -> (Self, Option<Gate>) {
        let (gate, failures) = match (self.gate, seen) {
            (gate, Seen::Nothing) => (gate, self.failures),
            (_, Seen::Here) => (Gate::Open, 0),
            (Gate::Open, Seen::Elsewhere) => {
                let failures = self.failures.saturating_add(1);
                (if failures < FAILURES { Gate::Open } else { Gate::Suspended }, failures)
            }
            (gate, Seen::Elsewhere) => (gate, self.failures.saturating_add(1)),
        };
        let changed = (gate != self.gate).then_some(gate);
        (Self { gate, failures, ..self }, changed)
    }

    /// Lets go of it: its app has ended. It stays reserved from then on.
    #[must_use]
    pub fn release(self, now: Timestamp) -> Self {
        Self { until: self.until.min(now), ..self }
    }

    /// Who has a claim to it.
    #[must_use]
    pub fn claim(&self, quarantine: SignedDuration, now: Timestamp) -> Claim {
        if now < self.until {
            return Claim::Live;
        }
        let free_at = self.until.saturating_add(quarantine).unwrap_or(Timestamp::MAX);
        if now < free_at { Claim::Reserved(free_at) } else { Claim::Free }
    }

    /// Whether some client could ask for a name of both.
    #[must_use]
    pub fn overlaps(&self, other: &Pattern) -> bool {
        self.host == *other || covers(&self.host, other) || covers(other, &self.host)
    }
}

fn covers(wide: &Pattern, narrow: &Pattern) -> bool {
    matches!(narrow, Pattern::Exact(name) if wide.covers(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn domain(host: &str, gate: Gate) -> Domain {
        Domain {
            host: host.parse().unwrap(),
            project: "p".parse().unwrap(),
            app: "a".parse().unwrap(),
            until: at("2026-06-29T00:00:00Z"),
            gate,
            failures: 0,
        }
    }

    /// What became of a gate after each check: `+` here, `-` elsewhere, `?` nothing.
    fn course(gate: Gate, checks: &str) -> String {
        let mut domain = domain("a.test", gate);
        let mut course = String::new();
        for check in checks.chars() {
            let seen = match check {
                '+' => Seen::Here,
                '-' => Seen::Elsewhere,
                _ => Seen::Nothing,
            };
            let before = domain.gate;
            let (next, changed) = domain.observe(seen);
            assert_eq!(changed, (next.gate != before).then_some(next.gate));
            course.push(match next.gate {
                Gate::Pending => 'p',
                Gate::Open => 'o',
                Gate::Suspended => 's',
            });
            domain = next;
        }
        course
    }

    #[test]
    fn a_gate_opens_at_the_first_proof_and_closes_after_the_third_failure_in_a_row() {
        assert_eq!(course(Gate::Pending, "--?-+"), "ppppo");
        assert_eq!(course(Gate::Open, "--+--+"), "oooooo");
        assert_eq!(course(Gate::Open, "---"), "oos");
        assert_eq!(course(Gate::Open, "---+--"), "oosooo");
        // A resolver that is down changes nothing, and is no failure in between either.
        assert_eq!(course(Gate::Open, "????????"), "oooooooo");
        assert_eq!(course(Gate::Open, "-?-?-"), "oooos");
        assert_eq!(course(Gate::Suspended, "?-?+"), "ssso");
    }

    #[test]
    fn an_ended_app_leaves_its_domain_reserved() {
        let week = SignedDuration::from_hours(7 * 24);
        let domain = domain("a.test", Gate::Open);
        let free_at = at("2026-07-06T00:00:00Z");
        for (now, claim) in [
            ("2026-06-28T23:59:59Z", Claim::Live),
            // Nobody need have noted its end.
            ("2026-06-29T00:00:00Z", Claim::Reserved(free_at)),
            ("2026-07-05T23:59:59Z", Claim::Reserved(free_at)),
            ("2026-07-06T00:00:00Z", Claim::Free),
        ] {
            assert_eq!(domain.claim(week, at(now)), claim, "{now}");
        }
        let released = domain.clone().release(at("2026-06-10T00:00:00Z"));
        let reserved = Claim::Reserved(at("2026-06-17T00:00:00Z"));
        assert_eq!(released.claim(week, at("2026-06-10T00:00:00Z")), reserved);
        assert_eq!(domain.clone().release(at("2026-08-01T00:00:00Z")), domain, "never prolonged");
    }

    #[test]
    fn names_under_a_wildcard_overlap_with_it() {
        let overlap =
            |one: &str, other: &str| domain(one, Gate::Open).overlaps(&other.parse().unwrap());
        assert!(overlap("a.test", "a.test") && overlap("*.a.test", "*.a.test"));
        assert!(overlap("*.a.test", "b.a.test") && overlap("b.a.test", "*.a.test"));
        assert!(!overlap("*.a.test", "a.test") && !overlap("*.a.test", "c.b.a.test"));
        assert!(!overlap("a.test", "b.test") && !overlap("*.a.test", "*.b.a.test"));
    }
}
