//! Following what changes under a prefix.
//!
//! A task of its own holds the watch, on a connection of its own: a follower that is slow to take
//! its batches holds up nobody's calls, and one that is cancelled while it waits loses nothing.
//! When the connection breaks off or its member loses the cluster, the task goes on elsewhere
//! from the last whole revision; only when that fails for a while, the follower is told.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Status, Streaming};
use tracing::{debug, info};

use super::calls::MOST_BYTES;
use super::gather::Gather;
use super::members::{Member, Members};
use super::patience::Patience;
use super::range::span;
use super::rpc::watch_client::WatchClient;
use super::rpc::watch_request::RequestUnion;
use super::rpc::{WatchCreateRequest, WatchRequest, WatchResponse};
use super::settings::Prefix;
use super::verdict::{Verdict, is_denied, judge};
use crate::store::{Answer, Batch, Error, Revision, Watch};

/// Batches that wait for the follower; etcd keeps the rest until they are compacted.
const MOST_WAITING: usize = 16;
/// A watch that has lived this long was a good one: what comes after it is another loss.
const STEADY: Duration = Duration::from_secs(10);

/// Whom to follow, and where.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) members: Arc<Members>,
    pub(super) prefix: Prefix,
    /// Under which of our keys.
    pub(super) under: String,
    /// For one call.
    pub(super) timeout: Duration,
}

impl Plan {
    /// How long a loss is borne before it is told: two calls' time, in which a cluster elects
    /// another leader, or a member starts again.
    fn bound(&self) -> Duration {
        self.timeout * 2
    }
}

/// Begins to tell what comes after a revision.
pub(super) async fn follow(plan: Plan, after: Revision) -> Result<Box<dyn Watch>, Error> {
    let mut patience = Patience::new(plan.timeout);
    let mut source = Source { cluster: None, gather: Gather::after(after), plan };
    let stream = source.begin(&mut patience).await?;
    let (sender, receiver) = mpsc::channel(MOST_WAITING);
    tokio::spawn(async move {
        let closed = sender.clone();
        tokio::select! {
            // The follower has left.
            () = closed.closed() => {}
            error = source.run(stream, &sender) => {
                // Whoever has left needs no error.
                let _ = sender.send(Err(error)).await;
            }
        }
    });
    Ok(Box::new(Following(receiver)))
}

/// The follower's end.
struct Following(mpsc::Receiver<Result<Batch, Error>>);

impl Watch for Following {
    fn next(&mut self) -> Answer<'_, Batch> {
        Box::pin(async {
            self.0.recv().await.unwrap_or_else(|| {
                let why = "this watch has ended".to_owned();
                Err(Error::Unavailable { why, tried: Duration::ZERO })
            })
        })
    }
}

/// A watch that etcd has confirmed.
struct Stream {
    answers: Streaming<WatchResponse>,
    member: Member,
    begun: Instant,
}

/// etcd's end.
struct Source {
    plan: Plan,
    /// The cluster whose revisions are meant; none before the first answer.
    cluster: Option<u64>,
    gather: Gather,
}

impl Source {
    /// Tells batches until that is over, and then why.
    async fn run(
        &mut self,
        mut stream: Stream,
        batches: &mpsc::Sender<Result<Batch, Error>>,
    ) -> Error {
        let mut patience: Option<Patience> = None;
        loop {
            let why = match stream.answers.message().await {
                Ok(Some(answer)) if answer.canceled => match self.cancelled(&answer) {
                    Ok(why) => why,
                    Err(error) => return error,
                },
                Ok(Some(answer)) => {
                    for batch in self.gather.take(&self.plan.prefix, answer) {
                        if batches.send(Ok(batch)).await.is_err() {
                            // What is returned is for nobody.
                            return Patience::new(self.plan.timeout).exhausted();
                        }
                    }
                    continue;
                }
                Ok(None) => "it ended the watch".to_owned(),
                Err(status) => said(&status),
            };
            let members = &self.plan.members;
            let name = members.name(&stream.member);
            debug!(endpoint = %name, why, "the store's watch broke off");
            members.leave(&stream.member);
            // Losses that follow each other closely are one.
            let kept = patience.take().filter(|_| stream.begun.elapsed() < STEADY);
            let patience =
                patience.insert(kept.unwrap_or_else(|| Patience::new(self.plan.bound())));
            patience.complain(name, why);
            let resumed = match patience.rest().await {
                Ok(()) => self.begin(patience).await,
                Err(error) => Err(error),
            };
            stream = match resumed {
                Ok(stream) => stream,
                Err(error) => return error,
            };
            let name = self.plan.members.name(&stream.member);
            info!(endpoint = %name, after = self.gather.last, "the store's watch goes on");
        }
    }

    /// What it means that etcd ended the watch: an error for good, or a reason to try again.
    fn cancelled(&self, answer: &WatchResponse) -> Result<String, Error> {
        if answer.compact_revision > 0 {
            return Err(self.too_old(u64::try_from(answer.compact_revision).unwrap_or(0)));
        }
        Ok(answer.cancel_reason.clone())
    }

    fn too_old(&self, oldest: Revision) -> Error {
        Error::TooOld { after: self.gather.last, oldest }
    }

    /// Has a member confirm the watch, within the patience.
    async fn begin(&mut self, patience: &mut Patience) -> Result<Stream, Error> {
        let mut is_second_login = false;
        loop {
            let member = self.plan.members.reach(patience).await?;
            // Revisions of another cluster, or of one that was set back, mean something else.
            let is_same = self.cluster.is_none_or(|cluster| cluster == member.cluster);
            if !is_same || member.revision < self.gather.last {
                return Err(self.too_old(member.revision));
            }
            let why = match timeout_at(patience.deadline(), self.open(&member)).await {
                Ok(Ok(answers)) => {
                    self.cluster = Some(member.cluster);
                    self.gather.forget_open();
                    return Ok(Stream { answers, member, begun: Instant::now() });
                }
                Ok(Err(Refusal::Denied(why))) if is_second_login => {
                    return Err(Error::Refused(format!("etcd: the watch: {why}")));
                }
                Ok(Err(Refusal::Denied(why))) => {
                    is_second_login = true;
                    why
                }
                Ok(Err(Refusal::Compacted(oldest))) => return Err(self.too_old(oldest)),
                Ok(Err(Refusal::Lost(why))) => why,
                Err(_) => "it does not confirm the watch".to_owned(),
            };
            patience.complain(self.plan.members.name(&member), why);
            self.plan.members.leave(&member);
            patience.rest().await?;
        }
    }

    async fn open(&self, member: &Member) -> Result<Streaming<WatchResponse>, Refusal> {
        let (key, range_end) = span(&self.plan.prefix, &self.plan.under);
        // From the revision that is known already, and not from the next one: etcd then refuses
        // whenever it was compacted to a later one. It takes a watch that begins at the revision to
        // which it was compacted, but many versions have lost what was removed just there (etcd
        // issue 19179). 0 would mean "from now on".
        let start_revision = i64::try_from(self.gather.last).unwrap_or(i64::MAX).max(1);
        let create = WatchCreateRequest { key, range_end, start_revision, fragment: true };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        // It stays open: etcd would take its end for ours.
        let mut request = Request::new(stream::iter([create]).chain(stream::pending()));
        let login = &self.plan.members.login;
        let lost = |verdict: Verdict| Refusal::Lost(verdict.to_string());
        let pass = login.pass(&member.link).await.map_err(lost)?;
        pass.sign(&mut request);
        let mut client = WatchClient::with_origin(member.link.clone(), member.link.origin())
            .max_decoding_message_size(MOST_BYTES);
        let denied = |why: String| {
            // Without a user, there is no other pass to try.
            let _ = login.forget(&pass);
            Refusal::Denied(why)
        };
        let refused = |status: Status| match judge(&status) {
            Verdict::Token | Verdict::Refused(_) => denied(said(&status)),
            _ => Refusal::Lost(said(&status)),
        };
        let mut answers = client.watch(request).await.map_err(refused)?.into_inner();
        let first = answers.message().await.map_err(refused)?;
        let first = first.ok_or_else(|| Refusal::Lost("it ended the watch".to_owned()))?;
        if first.compact_revision > 0 {
            return Err(Refusal::Compacted(u64::try_from(first.compact_revision).unwrap_or(0)));
        }
        if first.canceled {
            let why = first.cancel_reason;
            return Err(if is_denied(&why) { denied(why) } else { Refusal::Lost(why) });
        }
        if first.created { Ok(answers) } else { Err(Refusal::Lost("an odd answer".to_owned())) }
    }
}

/// Why a watch was not confirmed.
enum Refusal {
    /// We may not, or our token is not known any more.
    Denied(String),
    /// It is too late.
    Compacted(Revision),
    /// Anything that may be otherwise elsewhere.
    Lost(String),
}

fn said(status: &Status) -> String {
    match status.message() {
        "" => format!("{:?}", status.code()),
        words => words.to_owned(),
    }
}
