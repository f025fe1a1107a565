//! Finding out that apps run: one short question at a time, with growing pauses.
//!
//! Each app that initializes has a task of its own, which ends when it is found to run, has ended, or
//! is somebody else's to follow. Who answers counts: whoever showed its certificate first, or the
//! owner's own, that the app was deployed with.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::SignedDuration;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;
use tracing::{debug, warn};

use super::{Error, Event, Registrar};
use crate::admission::readiness::{pause, shows};
use crate::admission::sight::Sight;
use crate::clock::{Clock, Timestamp};
use crate::endpoint::Endpoint;
use crate::hostname::{Hostname, Pattern};
use crate::probe::certificate::{Onlooker, Unseen};
use crate::probe::readiness::{Question, Reply, ask};
use crate::registry::app::{App, CertificateOrigin, News, Phase, Role};
use crate::registry::names::{AppName, ProjectName};
use crate::registry::turn::asking;
use crate::resolve::SystemResolver;
use crate::resolve::records::Records;

/// Questions at once, of all apps.
const ASKED_AT_ONCE: usize = 16;
/// Events on their way to the log.
const TOLD: usize = 64;

/// Which deployment of an app, and where it is.
type Life = (Timestamp, Option<Endpoint>);

impl<D: Records> Registrar<D> {
    /// Asks the apps that initialize whether they run, for as long as this is polled and somebody
    /// says which they are; tells the phases that were found.
    pub async fn find_ready(
        self: Arc<Self>,
        clock: Arc<dyn Clock>,
        mut initializing: watch::Receiver<Arc<[App]>>,
        tell: impl Fn(&Event),
    ) {
        let onlooker = match Onlooker::new() {
            Ok(onlooker) => onlooker,
            Err(error) => return warn!(%error, "nobody asks whether apps run"),
        };
        let places = Arc::new(Semaphore::new(ASKED_AT_ONCE));
        let (found, mut events) = mpsc::channel(TOLD);
        let mut tasks = JoinSet::new();
        let mut known: BTreeMap<(ProjectName, AppName), (Life, AbortHandle)> = BTreeMap::new();
        loop {
            let apps = Arc::clone(&initializing.borrow_and_update());
            known.retain(|(project, name), (life, task)| {
                let is_it = |app: &&App| app.project == *project && app.name == *name;
                let stays = apps.iter().find(is_it).is_some_and(|app| life_of(app) == *life);
                if !stays {
                    task.abort();
                }
                stays
            });
            for app in apps.iter() {
                let name = (app.project.clone(), app.name.clone());
                known.entry(name).or_insert_with(|| {
                    let asking = Asking {
                        app: app.clone(),
                        onlooker: onlooker.clone(),
                        places: Arc::clone(&places),
                        clock: Arc::clone(&clock),
                        trusted: None,
                    };
                    let (registrar, found) = (Arc::clone(&self), found.clone());
                    let task = tasks.spawn(async move { asking.run(&registrar, found).await });
                    (life_of(app), task)
                });
            }
            tokio::select! {
                changed = initializing.changed() => if changed.is_err() { return },
                Some(event) = events.recv() => tell(&event),
                // Whoever has ended takes no room.
                Some(_) = tasks.join_next() => {}
            }
        }
    }
}

fn life_of(app: &App) -> Life {
    (app.deployed_at, app.backend.clone())
}

/// One app that is asked.
struct Asking {
    app: App,
    onlooker: Onlooker,
    places: Arc<Semaphore>,
    clock: Arc<dyn Clock>,
    /// Whose answer counts.
    trusted: Option<Sight>,
}

impl Asking {
    async fn run<D: Records>(mut self, registrar: &Arc<Registrar<D>>, found: mpsc::Sender<Event>) {
        let App { project, name, .. } = &self.app;
        let (project, app) = (project.clone(), name.clone());
        // The fleet asks once, not each of its proxies.
        let turn = asking(&project, &app);
        let mut asked = 0;
        while self.clock.now() < self.app.ends_at {
            let every = SignedDuration::try_from(pause(asked)).unwrap_or(SignedDuration::ZERO);
            // A little less than the pause, as clocks and machines are not exact.
            let is_ours = registrar.take_turn(&turn, every * 9 / 10, self.clock.now()).await;
            if is_ours.unwrap_or(false) {
                asked += 1;
                let now = self.clock.now();
                match self.ask().await {
                    Ok(Reply { status, is_marked }) => {
                        debug!(%project, %app, status, is_marked, "an app was asked");
                        let Some(phase) = shows(status, is_marked) else { continue };
                        // By itself, since this task ends with the phase that it is noting.
                        let (registrar, found) = (Arc::clone(registrar), found.clone());
                        let noting =
                            note(registrar, self.app.clone(), self.news(), (phase, now), found);
                        match tokio::spawn(noting).await {
                            Ok(Ok(())) => return,
                            Ok(Err(error)) => debug!(%project, %app, %error, "not noted"),
                            Err(error) => debug!(%project, %app, %error, "not noted"),
                        }
                    }
                    Err(why) => debug!(%project, %app, %why, "an app does not answer"),
                }
            }
            sleep(pause(asked)).await;
        }
    }

    async fn ask(&mut self) -> Result<Reply, Unseen> {
        let _place = self.places.acquire().await;
        let trusted = self.trusted.take();
        let App { backend, healthcheck_endpoint: path, .. } = &self.app;
        let (Some(backend), Some(name)) = (backend, self.name(false)) else {
            return Err(Unseen::NoPath);
        };
        let trusted = match trusted {
            Some(trusted) => trusted,
            None => Sight::from(&self.onlooker.look(backend, name, &SystemResolver).await?),
        };
        let question = |name, trusted| Question { backend, name, path, trusted };
        let answer = ask(&self.onlooker, question(name, &trusted), &SystemResolver).await;
        let answer = match (answer, &self.app.leaf, self.name(true)) {
            // The owner's certificate takes over when the app does.
            (Err(Unseen::Another { .. }), Some(leaf), Some(name)) => {
                let owners = Sight { leaf: leaf.clone(), ..trusted.clone() };
                ask(&self.onlooker, question(name, &owners), &SystemResolver).await
            }
            (answer, ..) => answer,
        };
        self.trusted = Some(trusted);
        answer
    }

    /// Whom to believe from now on, where TLS ends in the proxy.
    fn news(&self) -> News {
        let is_terminated = self.app.origin == CertificateOrigin::Operator;
        let seen = self.trusted.as_ref().filter(|_| is_terminated);
        let key = seen.and_then(|seen| seen.key.parse().ok());
        News { backend: None, seen: self.app.backend.clone().zip(key) }
    }

    /// The name that it is asked by, while it initializes or once it runs.
    fn name(&self, is_running: bool) -> Option<&Hostname> {
        let phase = if is_running { Phase::Running } else { Phase::Initializing };
        let is_valid = |role: Role| role.is_valid_in(phase);
        let mut hosts = self.app.hosts.iter().filter(|host| is_valid(host.role));
        hosts.find_map(|host| match &host.host {
            Pattern::Exact(name) => Some(name),
            Pattern::OneLabel(_) | Pattern::AnyDepth(_) => None,
        })
    }
}

/// Notes what was found, and tells it.
async fn note<D: Records>(
    registrar: Arc<Registrar<D>>,
    app: App,
    news: News,
    (phase, now): (Phase, Timestamp),
    found: mpsc::Sender<Event>,
) -> Result<(), Error> {
    let App { project, name, .. } = app;
    registrar.note(&project, &name, phase, &news, (now, None)).await?;
    // Nobody is left to be told once the proxy stops.
    let _ = found.send(Event::Found { project, app: name, phase }).await;
    Ok(())
}
