//! Asking and changing: one call with a deadline, over whichever member answers.
//!
//! Who reads is led to another member when one fails. A change is sent again only if it surely was
//! not carried out; else the caller is told that nobody knows.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status};

use super::link::Link;
use super::members::{Member, Members};
use super::patience::Patience;
use super::rpc::kv_client::KvClient;
use super::rpc::{RangeRequest, RangeResponse, TxnRequest, TxnResponse};
use super::verdict::{Verdict, judge};
use crate::store::Error;

/// The largest answer that is taken. A range is paged until its pages are smaller; a value has at
/// most 256 KiB.
pub(super) const MOST_BYTES: usize = 16 * 1024 * 1024;
/// How often a call logs in anew. Each other client may change a role at any time, which makes
/// all tokens old.
const MOST_LOGINS: usize = 3;

/// Whether a call may be sent again though it may have been carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nature {
    Reads,
    Changes,
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// For good.
    Final(Error),
    /// The revision that was asked for is not kept.
    Compacted,
    /// The answer is larger than [`MOST_BYTES`].
    AnswerTooLarge,
    /// etcd does not take so many operations at once.
    TooManyChanges,
    /// etcd does not take so many bytes at once.
    RequestTooLarge,
    /// etcd's database is full.
    Full,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// Calls, over one connection as long as that is good.
#[derive(Debug)]
pub(super) struct Calls {
    members: Arc<Members>,
    timeout: Duration,
    current: Mutex<Option<Member>>,
    /// One looks for another member, the others wait.
    reaching: tokio::sync::Mutex<()>,
}

impl Calls {
    pub(super) fn new(members: Arc<Members>, timeout: Duration) -> Self {
        Self { members, timeout, current: Mutex::new(None), reaching: tokio::sync::Mutex::new(()) }
    }

    /// Reads keys.
    pub(super) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Failure> {
        self.call(Nature::Reads, request, |mut client, request| async move {
            client.range(request).await
        })
        .await
    }

    /// Changes keys.
    pub(super) async fn change(&self, request: TxnRequest) -> Result<TxnResponse, Failure> {
        self.call(Nature::Changes, request, |mut client, request| async move {
            client.txn(request).await
        })
        .await
    }

    async fn call<Q, A, F, Answered>(
        &self,
        nature: Nature,
        request: Q,
        send: F,
    ) -> Result<A, Failure>
    where
        Q: Clone,
        F: Fn(KvClient<Link>, Request<Q>) -> Answered,
        Answered: Future<Output = Result<Response<A>, Status>>,
    {
        let mut patience = Patience::new(self.timeout);
        let mut logins = 0;
        loop {
            let member = self.member(&mut patience).await?;
            let attempt = self.attempt(&member, nature, &patience, request.clone(), &send);
            let why = match attempt.await {
                Ok(answer) => return Ok(answer),
                Err(Verdict::Token) if logins < MOST_LOGINS => {
                    logins += 1;
                    continue;
                }
                Err(Verdict::NotDone(why)) => why,
                Err(Verdict::Unknown(why)) if nature == Nature::Reads => why,
                Err(verdict) => {
                    if matches!(verdict, Verdict::Unknown(_)) {
                        self.leave(&member);
                    }
                    return Err(self.failure(&member, verdict, &mut patience));
                }
            };
            patience.complain(self.members.name(&member), why);
            self.leave(&member);
            patience.rest().await?;
        }
    }

    async fn attempt<Q, A, F, Answered>(
        &self,
        member: &Member,
        nature: Nature,
        patience: &Patience,
        request: Q,
        send: &F,
    ) -> Result<A, Verdict>
    where
        F: Fn(KvClient<Link>, Request<Q>) -> Answered,
        Answered: Future<Output = Result<Response<A>, Status>>,
    {
        // A member that has fallen silent must leave time for another one.
        let is_shared = nature == Nature::Reads && self.members.count() > 1;
        let left = if is_shared { patience.left() / 2 } else { patience.left() };
        let deadline = Instant::now() + left;
        let silent = || format!("no answer within {} ms", left.as_millis());
        let pass = timeout_at(deadline, self.members.login.pass(&member.link)).await;
        let pass = pass.unwrap_or_else(|_| Err(Verdict::NotDone(silent())))?;
        let mut request = Request::new(request);
        request.set_timeout(left);
        pass.sign(&mut request);
        let client = KvClient::with_origin(member.link.clone(), member.link.origin())
            .max_decoding_message_size(MOST_BYTES);
        match timeout_at(deadline, send(client, request)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => {
                let verdict = judge(&status);
                if verdict == Verdict::Token {
                    self.members.login.forget(&pass)?;
                }
                Err(verdict)
            }
            Err(_) => Err(Verdict::Unknown(silent())),
        }
    }

    /// What the caller is told.
    fn failure(&self, member: &Member, verdict: Verdict, patience: &mut Patience) -> Failure {
        let name = self.members.name(member);
        Failure::Final(match verdict {
            Verdict::Compacted => return Failure::Compacted,
            Verdict::AnswerTooLarge => return Failure::AnswerTooLarge,
            Verdict::TooManyChanges => return Failure::TooManyChanges,
            Verdict::RequestTooLarge => return Failure::RequestTooLarge,
            Verdict::Full => return Failure::Full,
            Verdict::Refused(why) => Error::Refused(format!("etcd: {name}: {why}")),
            Verdict::Damaged(why) => Error::Damaged(format!("etcd: {name}: {why}")),
            verdict @ Verdict::Token => Error::Refused(format!("etcd: {name}: {verdict}")),
            Verdict::NotDone(why) | Verdict::Unknown(why) => {
                patience.complain(name, format!("{why}; whether it was done is not known"));
                patience.exhausted()
            }
        })
    }

    /// The member in use, or another one.
    async fn member(&self, patience: &mut Patience) -> Result<Member, Error> {
        if let Some(member) = self.usable() {
            return Ok(member);
        }
        let Ok(_reaching) = timeout_at(patience.deadline(), self.reaching.lock()).await else {
            self.members.note_silence(patience);
            return Err(patience.exhausted());
        };
        if let Some(member) = self.usable() {
            return Ok(member);
        }
        let member = self.members.reach(patience).await?;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(member.clone());
        Ok(member)
    }

    fn usable(&self) -> Option<Member> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.clone().filter(|member| !member.link.is_closed())
    }

    /// Uses this member no more.
    fn leave(&self, member: &Member) {
        self.members.leave(member);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|current| current.link.is(&member.link)) {
            *current = None;
        }
    }
}
