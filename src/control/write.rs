//! The one way by which this proxy writes to its store.
//!
//! Requests queue up; those that wait together share one transaction. Each is judged against the
//! image of the store, and the transaction carries checks for all that it was judged by: if somebody
//! else was faster, the image catches up and the plan is made anew, for as long as the request has
//! time. No refusal is told before the store has confirmed that the image is its newest state. What a
//! store that does not answer leaves open is told as unknown, never as done or not done.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use crate::clock::Clock;
use crate::registry::history::{Answered, Bounds, Kept, Old, Record, Unreadable};
use crate::registry::image::Value;
use crate::registry::keys;
use crate::registry::plan::{MOST_REMOVED_RECORDS, Plan, Rules, Verdict};
use crate::registry::refusal::Refusal;
use crate::registry::wish::{Difference, Effect, Request};
use crate::routing::route::{Origin, Route};
use crate::routing::snapshot::Conflict;
use crate::routing::table::Table;
use crate::source::document;
use crate::source::stored::{self, Handle};
use crate::store::{self, Committed, Revision, Transaction};
use crate::units::Percent;

/// Requests that wait for their turn; whoever comes then is told so.
const MOST_WAITING: usize = 1024;
/// Requests of one transaction: a store's step takes 128 changes at the least, and each request
/// three.
const MOST_TOGETHER: usize = 32;
/// How often a plan that others outran is made anew.
const ATTEMPTS: u32 = 32;
/// How long an outrun plan waits for the image at the most, before it looks again.
const CATCH_UP: Duration = Duration::from_millis(200);
/// How long an answer waits until this proxy itself knows of the change.
const OWN_CHANGE: Duration = Duration::from_secs(1);

/// What a write came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The revision under which it is durable; that of what is there, if nothing was to change.
    pub revision: Revision,
    /// What changed, by the ids.
    pub differences: Vec<Difference>,
    /// How many of the routes that were asked for were so already.
    pub unchanged: u64,
    /// Whether an earlier request with the same id did it.
    pub is_repeat: bool,
}

/// Why a write did not happen, or may not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// It is refused; nothing was changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Too many wait already; nothing was changed.
    #[error("{MOST_WAITING} writes wait already; nothing was changed, try again")]
    Busy,
    /// Others wrote all the time; nothing was changed.
    #[error(
        "others wrote to the store each time ({ATTEMPTS} attempts); nothing was changed, try again"
    )]
    Outrun,
    /// The store does not do it, or has never been read; nothing was changed.
    #[error("{}; nothing was changed", Why(_0.as_ref()))]
    Away(Option<store::Error>),
    /// Nobody knows whether it happened.
    #[error(
        "{}; it is not known whether the change was made: repeat it with the same request id",
        Why(_0.as_ref())
    )]
    Unknown(Option<store::Error>),
}

struct Why<'a>(Option<&'a store::Error>);

impl std::fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(why) => write!(f, "{why}"),
            None => f.write_str("the store did not answer in time"),
        }
    }
}

/// What writes are judged by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How many of the stored routes an Apply may remove without being asked again.
    pub max_removed_percent: Percent,
    /// How much of the history is kept.
    pub history: Bounds,
    /// Whether routes from elsewhere go before stored ones.
    pub yields: bool,
}

/// Writes to the store of this proxy. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Writer {
    jobs: mpsc::Sender<Job>,
    ground: Ground,
}

/// What plans are judged by.
#[derive(Debug, Clone)]
struct Ground {
    handle: Handle,
    table: Table,
    clock: Arc<dyn Clock>,
    settings: Settings,
}

/// A request on its way.
#[derive(Debug)]
struct Job {
    request: Request,
    deadline: Instant,
    attempts: u32,
    reply: oneshot::Sender<Result<Done, Failed>>,
}

impl Writer {
    /// A writer, and the work that it hands everything to: to be run for as long as writes are taken.
    pub fn new(
        handle: Handle,
        table: Table,
        clock: Arc<dyn Clock>,
        settings: Settings,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (jobs, incoming) = mpsc::channel(MOST_WAITING);
        let ground = Ground { handle, table, clock, settings };
        let desk = Desk { ground: ground.clone(), oldest: VecDeque::new() };
        (Self { jobs, ground }, desk.run(incoming))
    }

    /// Does what is asked for, by then at the latest. After `Ok` it is durable.
    ///
    /// # Errors
    /// [`Failed`] says whether anything may have been changed.
    pub async fn write(&self, request: Request, deadline: Instant) -> Result<Done, Failed> {
        let (reply, answer) = oneshot::channel();
        let job = Job { request, deadline, attempts: 0, reply };
        self.jobs.try_send(job).map_err(|_| Failed::Busy)?;
        match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            // Whoever does the work has stopped, or is not yet done.
            Ok(Err(_)) | Err(_) => Err(Failed::Unknown(None)),
        }
    }

    /// What would come of a request now, without doing it. Its revision is 0. Whether the store takes
    /// so many changes in one step is not asked: they may be meant for several.
    ///
    /// # Errors
    /// [`Failed::Refused`], as it would be.
    pub fn rehearse(&self, request: &Request) -> Result<Done, Failed> {
        let Ground { handle, .. } = &self.ground;
        let image = handle.image();
        let elsewhere = |route: &Route| self.ground.elsewhere(route);
        let rules = Rules { most_changes: usize::MAX, ..self.ground.rules(&elsewhere) };
        match Plan::new(&image, rules).add(request) {
            Verdict::Planned(effect) | Verdict::Idle(effect) => Ok(Done::of(effect, 0)),
            Verdict::Refused(refusal) => Err(refusal.into()),
            // Not said of the first request of a plan.
            Verdict::Later => Err(Failed::Busy),
        }
    }
}

impl Ground {
    fn rules<'a>(&self, elsewhere: &'a dyn Fn(&Route) -> Option<Conflict>) -> Rules<'a> {
        Rules {
            now: self.clock.now(),
            most_changes: self.handle.store().most_changes(),
            max_removed_percent: self.settings.max_removed_percent,
            history: self.settings.history,
            elsewhere,
        }
    }

    /// Whether a route from elsewhere has what a stored one wants, and goes before it.
    fn elsewhere(&self, route: &Route) -> Option<Conflict> {
        let is_elsewhere = |origin: &Origin| &*origin.source != stored::NAME;
        let snapshot = self.settings.yields.then(|| self.table.current().snapshot)?;
        snapshot.conflict_with(route, is_elsewhere)
    }
}

impl Done {
    fn of(effect: Effect, revision: Revision) -> Self {
        let Effect { differences, unchanged, standing } = effect;
        let revision = standing.unwrap_or(revision);
        Self { revision, differences, unchanged, is_repeat: false }
    }
}

/// Where requests become transactions, one after the other.
#[derive(Debug)]
struct Desk {
    ground: Ground,
    /// The oldest records, as far as they were read.
    oldest: VecDeque<Old>,
}

/// A plan and whom it serves.
struct Planned {
    transaction: Transaction,
    jobs: Vec<(Job, Effect)>,
    /// Those for whom nothing is to be written.
    settled: Vec<(Job, Result<Effect, Refusal>)>,
    /// The head that all that was judged by.
    head: Revision,
}

impl Desk {
    async fn run(mut self, mut incoming: mpsc::Receiver<Job>) {
        while let Some(first) = incoming.recv().await {
            let mut open = VecDeque::from([first]);
            while !open.is_empty() {
                while open.len() < MOST_TOGETHER {
                    let Ok(job) = incoming.try_recv() else { break };
                    open.push_back(job);
                }
                open = self.serve(open).await;
            }
        }
    }

    /// Makes one attempt for each of them; gives back those that need another one.
    async fn serve(&mut self, open: VecDeque<Job>) -> VecDeque<Job> {
        let mut reached = self.ground.handle.reached();
        let mut again = VecDeque::new();
        let deadline = open.iter().map(|job| job.deadline).max().unwrap_or_else(Instant::now);
        let open = self.due(open).await;
        reached.borrow_and_update();
        let Planned { transaction, jobs, settled, head } = self.plan(open, &mut again);
        again.extend(self.confirm(settled, head, deadline).await);
        if jobs.is_empty() {
            if !again.is_empty() {
                let _ = timeout(CATCH_UP, reached.changed()).await;
            }
            return again;
        }
        let commit = self.ground.handle.store().commit(transaction);
        match timeout_at(deadline, commit).await {
            Ok(Ok(Committed::Done(revision))) => {
                let _ = timeout(OWN_CHANGE, self.ground.handle.reach(revision)).await;
                for (job, effect) in jobs {
                    job.answer(Ok(Done::of(effect, revision)));
                }
            }
            Ok(Ok(Committed::Conflict)) => {
                // In the order in which they came.
                jobs.into_iter().rev().for_each(|(job, _)| again.push_front(job));
                let _ = timeout(CATCH_UP, reached.changed()).await;
            }
            Ok(Err(store::Error::Refused(_))) if jobs.len() > 1 => {
                // One of them asks for too much; alone, the others are done.
                for (job, _) in jobs {
                    let left = Box::pin(self.serve(VecDeque::from([job]))).await;
                    again.extend(left);
                }
            }
            failed => {
                let failed = match failed {
                    Ok(Err(why @ store::Error::Refused(_))) => Failed::Away(Some(why)),
                    Ok(Err(why)) => Failed::Unknown(Some(why)),
                    Ok(Ok(_)) | Err(_) => Failed::Unknown(None),
                };
                for (job, _) in jobs {
                    job.answer(Err(failed.clone()));
                }
            }
        }
        again
    }

    /// Those whose time has come: the store was read, and they were not answered before.
    async fn due(&mut self, open: VecDeque<Job>) -> Vec<Job> {
        let mut due = Vec::new();
        for mut job in open {
            job.attempts += 1;
            let loaded = timeout_at(job.deadline, self.ground.handle.reach(0)).await;
            if job.reply.is_closed() {
                continue;
            }
            if loaded.is_err() {
                job.answer(Err(Failed::Away(None)));
            } else if job.attempts > ATTEMPTS {
                job.answer(Err(Failed::Outrun));
            } else {
                match timeout_at(job.deadline, self.answered(&job.request)).await {
                    Ok(Ok(None)) => due.push(job),
                    Ok(Ok(Some(done))) => job.answer(Ok(done)),
                    Ok(Err(failed)) => job.answer(Err(failed)),
                    Err(_) => job.answer(Err(Failed::Away(None))),
                }
            }
        }
        if let Some(deadline) = due.iter().map(|job| job.deadline).max() {
            // What cannot be read now is removed another time.
            let _ = timeout_at(deadline, self.read_oldest()).await;
        }
        due
    }

    /// The answer to an earlier request with the same id.
    async fn answered(&self, request: &Request) -> Result<Option<Done>, Failed> {
        if request.id.is_empty() || !request.has_good_id() {
            return Ok(None);
        }
        let store = self.ground.handle.store();
        let away = |why| Failed::Away(Some(why));
        let damaged = |why: Unreadable| away(store::Error::Damaged(why.to_string()));
        let Some(note) = store.get(&keys::request(&request.id)).await.map_err(away)? else {
            return Ok(None);
        };
        let Answered { number, asked } = Answered::read(&note.value).map_err(damaged)?;
        if asked != request.wish.digest() {
            return Err(Refusal::Reused { number }.into());
        }
        let mut done = Done { revision: 0, differences: vec![], unchanged: 0, is_repeat: true };
        // The records of one request stand in a row.
        for number in number.. {
            let Some(entry) = store.get(&keys::record(number)).await.map_err(away)? else { break };
            let record = Record::read(&entry.value).map_err(damaged)?;
            if record.request != request.id {
                break;
            }
            done.revision = record.answered.unwrap_or(entry.revision);
            done.unchanged = record.unchanged;
            done.differences.extend(record.changes.into_iter().map(difference));
        }
        Ok(Some(done))
    }

    /// Knows those records that could be removed next.
    async fn read_oldest(&mut self) -> Result<(), store::Error> {
        let (first, newest) = match self.ground.handle.image().head() {
            Some((head, _)) => (head.oldest, head.number),
            None => return Ok(()),
        };
        while self.oldest.front().is_some_and(|old| old.number < first) {
            self.oldest.pop_front();
        }
        if self.oldest.front().is_some_and(|old| old.number > first) {
            self.oldest.clear();
        }
        while self.oldest.len() < MOST_REMOVED_RECORDS {
            let number = self.oldest.back().map_or(first, |old| old.number + 1);
            if number > newest {
                break;
            }
            let entry = self.ground.handle.store().get(&keys::record(number)).await?;
            // A record that is gone or unreadable can be removed all the same, as if it were ancient.
            let record = entry.and_then(|entry| Record::read(&entry.value).ok());
            let ancient = || Old { number, at: jiff::Timestamp::MIN, request: String::new() };
            self.oldest.push_back(record.as_ref().map_or_else(ancient, Old::from));
        }
        Ok(())
    }

    /// Judges everybody. Those who cannot join the others come `again`.
    fn plan(&self, due: Vec<Job>, again: &mut VecDeque<Job>) -> Planned {
        let image = self.ground.handle.image();
        let elsewhere = |route: &Route| self.ground.elsewhere(route);
        let mut plan = Plan::new(&image, self.ground.rules(&elsewhere));
        let (mut jobs, mut settled) = (Vec::new(), Vec::new());
        for mut job in due {
            match plan.add(&job.request) {
                Verdict::Planned(effect) => jobs.push((job, effect)),
                Verdict::Idle(effect) => settled.push((job, Ok(effect))),
                Verdict::Refused(refusal) => settled.push((job, Err(refusal))),
                Verdict::Later => {
                    job.attempts -= 1;
                    again.push_back(job);
                }
            }
        }
        let oldest = self.oldest.iter().cloned().collect::<Vec<_>>();
        let head = image.head_revision();
        Planned { transaction: plan.finish(&oldest), jobs, settled, head }
    }

    /// Answers those for whom nothing is to be written, if they were judged by the newest state; else
    /// they come again.
    async fn confirm(
        &self,
        settled: Vec<(Job, Result<Effect, Refusal>)>,
        head: Revision,
        deadline: Instant,
    ) -> Vec<Job> {
        if settled.is_empty() {
            return Vec::new();
        }
        let newest = timeout_at(deadline, self.ground.handle.store().get(keys::HEAD)).await;
        let newest = match newest {
            Ok(Ok(entry)) => Ok(entry.map_or(0, |entry| entry.revision)),
            Ok(Err(why)) => Err(Failed::Away(Some(why))),
            Err(_) => Err(Failed::Away(None)),
        };
        let mut again = Vec::new();
        for (job, verdict) in settled {
            match &newest {
                Ok(newest) if *newest == head => {
                    job.answer(verdict.map(|effect| Done::of(effect, 0)).map_err(Failed::from));
                }
                Ok(_) => again.push(job),
                Err(failed) => job.answer(Err(failed.clone())),
            }
        }
        again
    }
}

impl Job {
    fn answer(self, answer: Result<Done, Failed>) {
        // Whoever asked may have left.
        let _ = self.reply.send(answer);
    }
}

/// What a record says of one route, as a value again.
fn difference(change: crate::registry::history::Change) -> Difference {
    let source: Arc<str> = Arc::from("the history");
    let read = |text: &String| document::route(&source, text);
    let before = change.before.as_ref().map(|text| {
        read(text).map_or_else(|_| Value::Unreadable(text.as_str().into()), Value::Route)
    });
    let after = change.after.as_ref().and_then(|text| read(text).ok());
    Difference { id: change.id.into(), before, after }
}
