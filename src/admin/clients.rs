//! The clients of the admin port, and how many of them there may be.
//!
//! Each connection gets one answer and is closed, so nobody keeps a place by staying. Who takes
//! a place and does not move loses it: when all are taken, the oldest makes room after a moment.
//! So probes and scrapes are answered whatever others do to this port.

use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

/// How many there may be. A Prometheus or two, a load balancer's probes, some people.
const MOST: usize = 64;
/// What everybody gets even when others wait: a scrape of a large table takes less.
const FAIR_SHARE: Duration = Duration::from_secs(1);
/// What nobody gets more of.
const LONGEST: Duration = Duration::from_mins(1);

/// Those who are being served.
#[derive(Debug, Default)]
pub(super) struct Clients {
    running: JoinSet<()>,
    /// In the order in which they came.
    places: VecDeque<(Instant, AbortHandle)>,
}

impl Clients {
    /// Waits until one more can be served.
    pub(super) async fn room(&mut self) {
        loop {
            while self.running.try_join_next().is_some() {}
            self.places.retain(|(_, client)| !client.is_finished());
            let oldest = match self.places.front() {
                Some((came, _)) if self.places.len() >= MOST => *came,
                _ => return,
            };
            tokio::select! {
                _ = self.running.join_next() => {}
                () = sleep_until(oldest + FAIR_SHARE) => {
                    if let Some((_, client)) = self.places.pop_front() {
                        client.abort();
                    }
                }
            }
        }
    }

    /// Ends the oldest if it has had its fair share: somebody waits for what it holds.
    pub(super) fn end_oldest(&mut self) {
        self.places.retain(|(_, client)| !client.is_finished());
        let has_had_it = |(came, _): &mut (Instant, AbortHandle)| came.elapsed() >= FAIR_SHARE;
        if let Some((_, client)) = self.places.pop_front_if(has_had_it) {
            client.abort();
        }
    }

    /// Serves one more.
    pub(super) fn serve(&mut self, client: impl Future<Output = ()> + Send + 'static) {
        let bounded = async { drop(tokio::time::timeout(LONGEST, client).await) };
        let handle = self.running.spawn(bounded);
        self.places.push_back((Instant::now(), handle));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_stands_still_makes_room_and_nobody_is_cut_before_the_fair_share() {
        let mut clients = Clients::default();
        let began = Instant::now();
        for _ in 0..MOST {
            clients.room().await;
            clients.serve(std::future::pending());
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        clients.room().await;
        assert_eq!(began.elapsed(), FAIR_SHARE);
        assert_eq!(clients.places.len(), MOST - 1);
        clients.serve(std::future::ready(()));
        tokio::task::yield_now().await;
        clients.room().await;
        assert_eq!(clients.places.len(), MOST - 1, "who has been served holds no place");
    }
}
