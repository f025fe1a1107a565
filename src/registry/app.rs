//! A deployed app: its life in phases, its hostnames, and which of them may be reached when.
//!
//! The table gates each hostname, not the app: a hostname is routed only in the phases of its role,
//! before the app's end, and only once it is known where the app is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::endpoint::Endpoint;
use crate::hostname::{Hostname, HostnameError, Pattern};
use crate::nearest::nearest;
use crate::registry::digest::digits;
use crate::registry::names::{AppName, HardwareName, ProjectName};
use crate::registry::written;
use crate::routing::termination::KeyDigest;

/// Where an app is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Its machine is being started.
    Spawning,
    /// Its configuration server answers, and waits for what the owner sends.
    Initializing,
    /// It answers itself.
    Running,
    /// Somebody ended it.
    Stopped,
    /// It could not start, or broke.
    OnError,
    /// Its end has come.
    Expired,
}

impl Phase {
    /// All of them, in the order of a life.
    pub const ALL: [Self; 6] = [
        Self::Spawning,
        Self::Initializing,
        Self::Running,
        Self::Stopped,
        Self::OnError,
        Self::Expired,
    ];

    /// Its word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Spawning => "spawning",
            Self::Initializing => "initializing",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::OnError => "on_error",
            Self::Expired => "expired",
        }
    }

    /// Whether the app is alive in it, and has its name and its seat.
    #[must_use]
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Spawning | Self::Initializing | Self::Running)
    }

    /// Whether a life may go on with the other phase.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        match (self, next) {
            (Self::Spawning, Self::Initializing) | (Self::Initializing, Self::Running) => true,
            (from, to) => from.is_active() && !to.is_active(),
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Phase {
    type Err = PhaseError;

    fn from_str(word: &str) -> Result<Self, PhaseError> {
        Self::ALL.into_iter().find(|phase| phase.word() == word).ok_or_else(|| {
            let words = Self::ALL.map(Self::word);
            PhaseError::Unknown { word: word.to_owned(), nearest: nearest(word, words) }
        })
    }
}

/// Why a phase does not follow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PhaseError {
    /// No such phase.
    #[error(
        "`{word}` is not a phase; {}",
        nearest.map_or_else(
            || format!("allowed: {}", Phase::ALL.map(Phase::word).join(", ")),
            |nearest| format!("did you mean `{nearest}`?"),
        )
    )]
    Unknown {
        /// What was written.
        word: String,
        /// The nearest phase.
        nearest: Option<&'static str>,
    },
    /// A life does not go that way.
    #[error("an app that is {from} cannot become {to}")]
    Order {
        /// Where it is.
        from: Phase,
        /// Where it should go.
        to: Phase,
    },
}

/// Whose certificate an app shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateOrigin {
    /// The enclave's own, throughout.
    #[serde(rename = "self")]
    Enclave,
    /// That of the app's owner, for a domain of the owner.
    Owner,
    /// The operator's: TLS ends in the proxy.
    Operator,
}

impl CertificateOrigin {
    /// Its word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Enclave => "self",
            Self::Owner => "owner",
            Self::Operator => "operator",
        }
    }
}

/// What a hostname of an app is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Its only one, sealed.
    Own,
    /// What its owner configures it by, sealed; not for its users.
    Configuration,
    /// The owner's domain, sealed.
    Custom,
    /// A name whose TLS ends in the proxy.
    Terminated,
}

impl Role {
    /// Its word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Configuration => "configuration",
            Self::Custom => "custom",
            Self::Terminated => "terminated",
        }
    }

    /// Whether a hostname of this role may be reached in a phase.
    #[must_use]
    pub const fn is_valid_in(self, phase: Phase) -> bool {
        match (self, phase) {
            (Self::Own | Self::Configuration, Phase::Initializing)
            | (Self::Own | Self::Custom | Self::Terminated, Phase::Running) => true,
            (
                Self::Own | Self::Configuration | Self::Custom | Self::Terminated,
                Phase::Spawning
                | Phase::Initializing
                | Phase::Running
                | Phase::Stopped
                | Phase::OnError
                | Phase::Expired,
            ) => false,
        }
    }
}

/// A hostname of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppHost {
    /// The hostname; an owner's may be a wildcard.
    #[serde(with = "written")]
    pub host: Pattern,
    /// What it is for.
    pub role: Role,
}

/// A deployed app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// Whose.
    pub project: ProjectName,
    /// What it is called; unique in the project among those that are active.
    pub name: AppName,
    /// On what it runs.
    pub hardware: HardwareName,
    /// The image that it runs in.
    pub docker: String,
    /// The path that answers once it is ready.
    pub healthcheck_endpoint: String,
    /// Whose certificate it shows.
    pub origin: CertificateOrigin,
    /// Its hostnames.
    pub hosts: Vec<AppHost>,
    /// The digest of its owner's certificate, if it was deployed with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaf: Option<String>,
    /// Where it is in its life, as far as anybody said.
    pub phase: Phase,
    /// Where it is reached, once that is known.
    #[serde(with = "written::optional", default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<Endpoint>,
    /// The key that was seen there; where TLS ends in the proxy, nobody else is believed.
    #[serde(with = "written::optional", default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyDigest>,
    /// When it was deployed.
    #[serde(with = "written")]
    pub deployed_at: Timestamp,
    /// When it ends: it is live before that instant and not at it.
    #[serde(with = "written")]
    pub ends_at: Timestamp,
    /// When it ended before that.
    #[serde(with = "written::optional", default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
}

impl App {
    /// Where it is in its life at an instant, whether or not anybody has noted its end.
    #[must_use]
    pub fn phase_at(&self, now: Timestamp) -> Phase {
        if self.phase.is_active() && now >= self.ends_at { Phase::Expired } else { self.phase }
    }

    /// When it ends or ended, however late somebody noted that.
    #[must_use]
    pub fn over_at(&self) -> Timestamp {
        self.ended_at.map_or(self.ends_at, |ended_at| ended_at.min(self.ends_at))
    }

    /// Goes on in its life. The phase in which it is already changes nothing.
    ///
    /// # Errors
    /// A life does not go that way.
    pub fn become_phase(self, next: Phase, now: Timestamp) -> Result<Self, PhaseError> {
        let from = self.phase_at(now);
        if from == next {
            let phase = next;
            return Ok(Self { phase, ..self });
        }
        if !from.may_become(next) {
            return Err(PhaseError::Order { from, to: next });
        }
        let ended_at = (!next.is_active()).then_some(now);
        Ok(Self { phase: next, ended_at, ..self })
    }

    /// Notes where it is, as far as that is news. A key that was seen elsewhere is not its key.
    #[must_use]
    pub fn learn(self, news: News) -> Self {
        let backend = news.backend.or_else(|| self.backend.clone());
        let known = self.key.filter(|_| backend == self.backend);
        let seen = news.seen.filter(|(place, _)| Some(place) == backend.as_ref());
        let key = seen.map(|(_, key)| key).or(known);
        Self { backend, key, ..self }
    }

    /// The hostnames that may be reached at an instant.
    pub fn reachable(&self, now: Timestamp) -> impl Iterator<Item = &AppHost> {
        let phase = self.phase_at(now);
        let is_somewhere = self.backend.is_some();
        self.hosts.iter().filter(move |host| is_somewhere && host.role.is_valid_in(phase))
    }

    /// The owner's domain, if it has one.
    #[must_use]
    pub fn custom_domain(&self) -> Option<&Pattern> {
        self.host(Role::Custom)
    }

    /// Its first hostname of a role.
    #[must_use]
    pub fn host(&self, role: Role) -> Option<&Pattern> {
        self.hosts.iter().find(|host| host.role == role).map(|host| &host.host)
    }
}

/// What has become known of where an app is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct News {
    /// Where it is.
    pub backend: Option<Endpoint>,
    /// Which key was seen there.
    pub seen: Option<(Endpoint, KeyDigest)>,
}

/// How many digits a generated hostname has before its zone.
pub const GENERATED: usize = 16;

/// The generated hostname of a project's app with this origin: 16 hexadecimal digits under a zone.
/// It is computed and not drawn, so that the same app has the same one for ever.
///
/// # Errors
/// A zone that leaves no room for it.
pub fn generated(
    project: &ProjectName,
    name: &AppName,
    origin: CertificateOrigin,
    zone: &Hostname,
) -> Result<Hostname, HostnameError> {
    let mut digits = digits(&[project.as_str(), name.as_str(), origin.word()]);
    digits.truncate(GENERATED);
    format!("{digits}.{zone}").parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn app(hosts: &[(&str, Role)]) -> App {
        let host =
            |(host, role): &(&str, Role)| AppHost { host: host.parse().unwrap(), role: *role };
        App {
            project: "p".parse().unwrap(),
            name: "a".parse().unwrap(),
            hardware: "4g-eu-001".parse().unwrap(),
            docker: "r.example/i:1".to_owned(),
            healthcheck_endpoint: "/".to_owned(),
            origin: CertificateOrigin::Owner,
            leaf: None,
            hosts: hosts.iter().map(host).collect(),
            phase: Phase::Spawning,
            backend: Some("10.0.0.1:443".parse().unwrap()),
            key: None,
            deployed_at: at("2026-06-01T00:00:00Z"),
            ends_at: at("2026-06-02T00:00:00Z"),
            ended_at: None,
        }
    }

    fn reachable(app: &App, now: &str) -> Vec<String> {
        app.reachable(at(now)).map(|host| host.host.to_string()).collect()
    }

    #[test]
    fn each_hostname_is_reached_in_its_phases_only() {
        let roles = [
            ("own.test", Role::Own),
            ("conf.test", Role::Configuration),
            ("custom.test", Role::Custom),
            ("term.test", Role::Terminated),
        ];
        let now = "2026-06-01T12:00:00Z";
        for (phase, hosts) in [
            (Phase::Spawning, &[][..]),
            (Phase::Initializing, &["own.test", "conf.test"]),
            (Phase::Running, &["own.test", "custom.test", "term.test"]),
            (Phase::Stopped, &[]),
            (Phase::OnError, &[]),
            (Phase::Expired, &[]),
        ] {
            let app = App { phase, ..app(&roles) };
            assert_eq!(reachable(&app, now), hosts, "{phase}");
            assert!(reachable(&app, "2026-06-02T00:00:00Z").is_empty(), "its end is its end");
            assert!(reachable(&App { backend: None, ..app }, now).is_empty());
        }
        let running = App { phase: Phase::Running, ..app(&roles) };
        assert_eq!(reachable(&running, "2026-06-01T23:59:59.999999999Z").len(), 3);
    }

    #[test]
    fn a_life_goes_one_way() {
        use Phase::{Expired, Initializing, OnError, Running, Spawning, Stopped};
        let allowed = |from: Phase| Phase::ALL.into_iter().filter(move |to| from.may_become(*to));
        for (from, to) in [
            (Spawning, &[Initializing, Stopped, OnError, Expired][..]),
            (Initializing, &[Running, Stopped, OnError, Expired]),
            (Running, &[Stopped, OnError, Expired]),
            (Stopped, &[]),
            (OnError, &[]),
            (Expired, &[]),
        ] {
            assert_eq!(allowed(from).collect::<Vec<_>>(), to, "{from}");
        }
        let now = at("2026-06-01T12:00:00Z");
        let initializing = app(&[]).become_phase(Initializing, now).unwrap();
        assert_eq!(initializing.clone().become_phase(Initializing, now).unwrap(), initializing);
        let stopped = initializing.clone().become_phase(Stopped, now).unwrap();
        assert_eq!((stopped.phase, stopped.ended_at), (Stopped, Some(now)));
        let order = PhaseError::Order { from: Stopped, to: Running };
        assert_eq!(stopped.become_phase(Running, now), Err(order));
        let over = initializing.become_phase(Running, at("2026-06-03T00:00:00Z")).unwrap_err();
        assert_eq!(over.to_string(), "an app that is expired cannot become running");
    }

    #[test]
    fn a_phase_is_read_by_its_word() {
        for phase in Phase::ALL {
            assert_eq!(phase.word().parse::<Phase>().unwrap(), phase);
            assert_eq!(serde_json::to_string(&phase).unwrap(), format!("\"{phase}\""));
        }
        let error = "runing".parse::<Phase>().unwrap_err().to_string();
        assert_eq!(error, "`runing` is not a phase; did you mean `running`?");
        assert!("x".parse::<Phase>().unwrap_err().to_string().contains("allowed: spawning, "));
    }

    #[test]
    fn a_generated_hostname_is_16_digits_and_stays() {
        let zone: Hostname = "cosmian.io".parse().unwrap();
        let of = |project: &str, name: &str, origin| {
            generated(&project.parse().unwrap(), &name.parse().unwrap(), origin, &zone).unwrap()
        };
        let (enclave, owner) = (CertificateOrigin::Enclave, CertificateOrigin::Owner);
        let one = of("default", "test", enclave);
        // Written down, because a change would give every app another name.
        assert_eq!(one.as_str(), "086b0dfd7bd2ea37.cosmian.io");
        let others = [of("default", "test", owner), of("defaultt", "est", enclave)];
        assert!(!others.contains(&one) && others[0] != others[1]);
        let digits = one.as_str().strip_suffix(".cosmian.io").unwrap();
        assert!(digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
