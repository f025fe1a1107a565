//! Keeping certificates fresh: looking again whenever one may have changed, publishing what is good
//! and telling what is wrong.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::CryptoProvider;
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::clock::{Clock, Timestamp};
use crate::proxy::terminate::certificates::{Certificates, Trouble};
use crate::proxy::terminate::folder::Folders;
use crate::proxy::terminate::pair::{File, Pair};
use crate::watch::{Stir, Watch};

/// When the log reminds of an end, in days before it. Programs that renew do so 30 days before.
const REMINDERS: [i64; 4] = [14, 7, 3, 1];
/// How many faults, or reminders, one look writes to the log.
const MAX_LOGGED: usize = 50;
/// After a look it rests four times as long as that took: very many that change one after the other
/// take at most a fifth of a core …
const REST: u32 = 4;
/// … and one that changes waits no longer than this for others.
const LONGEST_REST: Duration = Duration::from_secs(5);
/// Looking at everything though nothing was told to have changed takes at most a hundredth of a core.
const SELDOM: u32 = 100;
/// How long keys are proven at a time, four fifths of which it rests.
const PROVING: Duration = Duration::from_millis(10);

/// Who looks.
struct Keeper {
    folders: Folders,
    watch: Watch,
    certificates: Certificates,
    clock: Arc<dyn Clock>,
    known: HashSet<String>,
    reminded: HashSet<(File, Timestamp, i64)>,
    /// After how long the files are to be looked at in any case.
    patience: Duration,
    /// How long the last look took.
    took: Duration,
}

/// Keeps the certificates of these paths, for ever.
pub async fn keep(
    paths: Vec<PathBuf>,
    certificates: Certificates,
    clock: Arc<dyn Clock>,
    provider: Arc<CryptoProvider>,
) {
    let stir = Stir::noting();
    let keeper = Keeper {
        folders: Folders::new(&paths, provider),
        watch: Watch::new(paths, &stir),
        certificates: certificates.clone(),
        clock,
        known: HashSet::new(),
        reminded: HashSet::new(),
        patience: Duration::ZERO,
        took: Duration::ZERO,
    };
    if let Err(error) = keeper.go_on(&stir).await {
        error!(%error, "certificates cannot be looked at any more; those that are in stay");
        certificates.settle();
    }
}

impl Keeper {
    async fn go_on(self, stir: &Stir) -> Result<(), tokio::task::JoinError> {
        let mut keeper = self.beside(Self::look_first).await?;
        keeper.certificates.settle();
        loop {
            let touched = stir.touched();
            keeper = keeper.beside(move |keeper| keeper.look(&touched)).await?;
            let rest = (keeper.took * REST).min(LONGEST_REST);
            let patience = keeper.patience;
            let mut wait = pin!(async {
                sleep(rest).await;
                stir.wait(patience).await;
            });
            loop {
                tokio::select! {
                    () = &mut wait => break,
                    () = sleep(PROVING * REST), if keeper.folders.has_unproven() => {
                        keeper = keeper.beside(Self::prove).await?;
                    }
                }
            }
        }
    }

    /// Does something that takes a while.
    async fn beside(
        mut self,
        what: impl FnOnce(&mut Self) + Send + 'static,
    ) -> Result<Self, tokio::task::JoinError> {
        let done = tokio::task::spawn_blocking(move || {
            what(&mut self);
            self
        });
        done.await
    }

    /// Not watched yet: that each file is opened would be an event. What changes meanwhile is found
    /// by the look that follows.
    fn look_first(&mut self) {
        let (began, now) = (Instant::now(), self.clock.now());
        let certificates = self.certificates.clone();
        self.folders.look_first(now, &mut |found| certificates.publish(found));
        self.publish();
        self.tell(now);
        self.took = began.elapsed();
    }

    /// Looks at what was touched, or at everything.
    fn look(&mut self, touched: &BTreeSet<PathBuf>) {
        let (began, now) = (Instant::now(), self.clock.now());
        let is_other = self.folders.look_at(touched, now).unwrap_or_else(|| {
            let patience = self.watch.arm();
            let is_other = self.folders.look(now);
            self.patience = patience.max(began.elapsed() * SELDOM);
            is_other
        });
        if is_other {
            self.publish();
        }
        self.tell(now);
        self.took = began.elapsed();
    }

    fn prove(&mut self) {
        if self.folders.prove(PROVING) {
            self.publish();
            self.tell(self.clock.now());
        }
    }

    fn publish(&mut self) {
        let pairs = self.folders.pairs();
        info!(certificates = pairs.len(), "certificates were read");
        self.certificates.publish(pairs);
    }

    fn tell(&mut self, now: Timestamp) {
        let troubles: Vec<_> = self.folders.faults().into_iter().map(Trouble::from).collect();
        tell_log(&mut self.known, &troubles);
        self.certificates.tell(troubles);
        remind(&mut self.reminded, &self.certificates.pairs(), now);
    }
}

/// Logs what was not known before.
fn tell_log(known: &mut HashSet<String>, troubles: &[Trouble]) {
    let (mut now, mut logged) = (HashSet::new(), 0);
    for Trouble { file, why, is_kept } in troubles {
        let line = format!("{file}: {why}");
        if !known.contains(&line) && logged < MAX_LOGGED {
            warn!(%file, is_kept, "a certificate cannot answer: {why}");
            logged += 1;
        }
        now.insert(line);
    }
    let mended = known.difference(&now).count();
    if mended > 0 {
        info!(mended, left = now.len(), "faults of certificates were mended");
    }
    *known = now;
}

/// Logs, once at each stage, that the end of a certificate comes near.
fn remind(reminded: &mut HashSet<(File, Timestamp, i64)>, pairs: &[Arc<Pair>], now: Timestamp) {
    let (mut near, mut logged) = (HashSet::new(), 0);
    // The nearest ends come last.
    for pair in pairs.iter().rev() {
        let left = pair.not_after.duration_since(now).as_hours().div_euclid(24);
        let Some(stage) = REMINDERS.into_iter().rev().find(|days| left < *days) else { break };
        let key = (pair.file.clone(), pair.not_after, stage);
        if !reminded.contains(&key) && logged < MAX_LOGGED {
            warn!(file = %pair.file, not_after = %pair.not_after, days = left, "a certificate ends soon");
            logged += 1;
        }
        near.insert(key);
    }
    *reminded = near;
}
