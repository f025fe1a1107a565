//! The members of the cluster: which of them answers.
//!
//! The one that answered last is asked first. When one does not say a word within
//! [`HEAD_START`], the next one is tried beside it, and whoever answers first is taken: a machine
//! that swallows everything costs half a second, and a slow one is not given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{sleep, sleep_until};
use tonic::Request;

use super::files::{self, OpenError};
use super::link::Link;
use super::login::Login;
use super::patience::Patience;
use super::rpc::kv_client::KvClient;
use super::rpc::{RangeRequest, ResponseHeader};
use super::settings::{Address, Settings};
use super::verdict::{Verdict, judge};
use crate::store::{Error, Revision};

/// How long a member is waited for before the next is tried as well.
const HEAD_START: Duration = Duration::from_millis(500);

/// Where the cluster is, and who we are there.
#[derive(Debug)]
pub(super) struct Members {
    settings: Arc<Settings>,
    pub(super) login: Login,
    /// The index of the one that answered last.
    first: AtomicUsize,
}

/// A member that has answered, with the agreement of its cluster.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) link: Link,
    index: usize,
    /// Which cluster it is of.
    pub(super) cluster: u64,
    /// The newest revision of the cluster then: not just of this member.
    pub(super) revision: Revision,
}

impl Members {
    pub(super) fn new(settings: Arc<Settings>) -> Self {
        Self { login: Login::new(&settings), settings, first: AtomicUsize::new(0) }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.settings.endpoints.len()
    }

    /// How a member is called in messages.
    pub(super) fn name(&self, member: &Member) -> String {
        self.endpoint(member.index)
    }

    fn endpoint(&self, index: usize) -> String {
        self.settings.endpoints.get(index).map(Address::to_string).unwrap_or_default()
    }

    /// Notes that none of them answered in time, unless it said something before.
    pub(super) fn note_silence(&self, patience: &mut Patience) {
        for address in &self.settings.endpoints {
            patience.note_silence(address.to_string());
        }
    }

    /// From now on another one is asked before this.
    pub(super) fn leave(&self, member: &Member) {
        let next = (member.index + 1) % self.count().max(1);
        // Unless somebody found a better one meanwhile.
        let _ =
            self.first.compare_exchange(member.index, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// A new connection to a member that answers, found within the patience.
    pub(super) async fn reach(&self, patience: &mut Patience) -> Result<Member, Error> {
        loop {
            match self.round(patience).await {
                Some(Ok(member)) => {
                    self.first.store(member.index, Ordering::Relaxed);
                    return Ok(member);
                }
                Some(Err(refused)) => return Err(Error::Refused(refused)),
                None => patience.rest().await?,
            }
        }
    }

    /// Tries each of them once. None: no answer; an error: all of them refuse us.
    async fn round(&self, patience: &mut Patience) -> Option<Result<Member, String>> {
        let (count, first) = (self.count(), self.first.load(Ordering::Relaxed));
        let mut waiting = (0..count).map(|at| (first + at) % count.max(1));
        let mut greeted = FuturesUnordered::new();
        let mut refusals = Vec::new();
        loop {
            if let Some(index) = waiting.next() {
                greeted.push(async move { (index, self.greet(index).await) });
            }
            tokio::select! {
                answer = greeted.next() => match answer {
                    Some((_, Ok(member))) => return Some(Ok(member)),
                    Some((index, Err(verdict))) => {
                        if let Some(refusal) = self.complain(patience, index, &verdict) {
                            refusals.push(refusal);
                        }
                    }
                    None => break,
                },
                () = sleep(HEAD_START), if waiting.len() > 0 => {}
                () = sleep_until(patience.deadline()) => {
                    // Those that did say something keep it.
                    self.note_silence(patience);
                    return None;
                }
            }
        }
        (count > 0 && refusals.len() == count).then(|| Err(refusals.swap_remove(0)))
    }

    /// Notes what one said; gives it back if it was a refusal.
    fn complain(&self, patience: &mut Patience, index: usize, verdict: &Verdict) -> Option<String> {
        let name = self.settings.endpoints.get(index).map(Address::to_string).unwrap_or_default();
        let (why, is_refusal) = (verdict.to_string(), matches!(verdict, Verdict::Refused(_)));
        patience.complain(name.clone(), why.clone());
        is_refusal.then(|| format!("etcd: {name}: {why}"))
    }

    /// Connects to a member, logs in, and asks something that only a member with its cluster can
    /// answer.
    async fn greet(&self, index: usize) -> Result<Member, Verdict> {
        let link = self.dial(index).await?;
        let header = self.introduce(&link).await.map_err(|verdict| match verdict {
            // In TLS 1.3 a server judges our certificate when we are done, and its alert may get
            // lost when it hangs up.
            Verdict::NotDone(why) | Verdict::Unknown(why)
                if link.is_closed() && self.is_tls(index) =>
            {
                Verdict::NotDone(format!(
                    "{why} (perhaps it does not accept `store.etcd.certificate`)"
                ))
            }
            verdict => verdict,
        })?;
        let revision = u64::try_from(header.revision).unwrap_or(0);
        Ok(Member { link, index, cluster: header.cluster_id, revision })
    }

    fn is_tls(&self, index: usize) -> bool {
        self.settings.endpoints.get(index).is_some_and(|address| address.is_tls)
    }

    async fn introduce(&self, link: &Link) -> Result<ResponseHeader, Verdict> {
        let mut is_second_try = false;
        loop {
            let pass = self.login.pass_of_stranger(link).await?;
            let mut request = Request::new(RangeRequest {
                // A user who may do what we do may ask for this key, whether there is one or not.
                key: self.probe_key(),
                limit: 1,
                ..RangeRequest::default()
            });
            pass.sign(&mut request);
            let mut client = KvClient::with_origin(link.clone(), link.origin());
            match client.range(request).await {
                Ok(answer) => return Ok(answer.into_inner().header.unwrap_or_default()),
                Err(status) => match judge(&status) {
                    Verdict::Token if !is_second_try => self.login.forget(&pass)?,
                    verdict => return Err(verdict),
                },
            }
            is_second_try = true;
        }
    }

    fn probe_key(&self) -> Vec<u8> {
        let key = self.settings.prefix.with("");
        if key.is_empty() { vec![0] } else { key }
    }

    async fn dial(&self, index: usize) -> Result<Link, Verdict> {
        let lost = |why: String| Verdict::NotDone(why);
        let Some(address) = self.settings.endpoints.get(index) else {
            return Err(lost(OpenError::NoEndpoint.to_string()));
        };
        let settings = Arc::clone(&self.settings);
        let tls = if address.is_tls {
            let reading = tokio::task::spawn_blocking(move || files::tls(&settings));
            let read = reading.await.map_err(|error| lost(error.to_string()))?;
            read.map_err(|error| lost(error.to_string()))?
        } else {
            None
        };
        Link::dial(address, tls).await.map_err(|error| lost(error.to_string()))
    }
}
