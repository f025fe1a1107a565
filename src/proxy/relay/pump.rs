//! The pump: bytes from each side to the other, FIN as FIN, reset as reset.
//!
//! Two `Direction`s and what they mean to each other. When one side breaks, what it had sent
//! before is still delivered, then the other side is reset as well. The pump knows no route and no
//! clock but its idle limit.

use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::time::Instant;

use crate::outcome::Outcome;
use crate::proxy::engine::deadlines::Deadline;
use crate::proxy::handle::Handle;
use crate::proxy::relay::direction::{Broken, Direction};
use crate::proxy::relay::idle::{Due, Idle, Limits};
use crate::proxy::transport::Transport;
use crate::telemetry::metrics::Moved;

/// How a relay ended, and what it carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relayed {
    /// Bytes that the backend's socket took.
    pub to_backend: u64,
    /// Bytes that the client's socket took.
    pub to_client: u64,
    /// When the first byte came from the backend.
    pub first_byte: Option<Instant>,
    /// Why it ended.
    pub end: End,
}

/// Why a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Both sides finished, the client first.
    ClientFinished,
    /// Both sides finished, the backend first.
    BackendFinished,
    /// The client broke off.
    ClientReset,
    /// The backend broke off.
    BackendReset,
    /// Nothing moved for too long.
    Idle,
    /// One side had finished and nothing moved for too long.
    HalfClosed,
    /// The ledger ended the session.
    Retired(Outcome),
}

impl From<Relayed> for Outcome {
    fn from(relayed: Relayed) -> Self {
        match relayed.end {
            End::BackendFinished if relayed.first_byte.is_none() => Self::BackendClosedEarly,
            End::ClientFinished | End::BackendFinished => Self::Closed,
            End::ClientReset => Self::ClientReset,
            End::BackendReset => Self::BackendReset,
            End::Idle => Self::IdleTimeout,
            End::HalfClosed => Self::HalfCloseTimeout,
            End::Retired(outcome) => outcome,
        }
    }
}

/// Two streams and what moves between them.
///
/// It goes on until both sides have finished, one has broken off, nothing moves for too long, or
/// the session is retired.
#[derive(Debug)]
pub struct Relay<C, B> {
    client: C,
    backend: B,
    pump: Pump,
}

impl<C: Transport, B: Transport> Relay<C, B> {
    /// A relay that has not moved anything yet; `prefix` goes to the backend before anything else.
    pub fn new(
        client: C,
        backend: B,
        prefix: Vec<u8>,
        limits: Rc<Limits>,
        timer: &mut Deadline,
    ) -> Self {
        let pump = Pump {
            to_backend: Direction::new(prefix),
            to_client: Direction::new(Vec::new()),
            first_byte: None,
            first_finished: None,
            broken: None,
            idle: Idle::new(limits, timer),
        };
        Self { client, backend, pump }
    }

    /// Moves what can be moved; ready when nothing more will move.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        handle: &Handle,
        timer: &mut Deadline,
    ) -> Poll<End> {
        self.pump.poll(cx, &mut self.client, &mut self.backend, handle, timer)
    }

    /// Other limits hold from here on.
    pub fn relax(&mut self, limits: &Rc<Limits>, timer: &mut Deadline) {
        self.pump.idle.relax(limits, timer);
    }

    /// What has moved so far.
    pub fn moved(&self) -> Moved {
        let Pump { to_backend, to_client, .. } = &self.pump;
        Moved {
            to_backend: to_backend.written,
            to_client: to_client.written,
            spliced: to_backend.spliced + to_client.spliced,
        }
    }

    /// Closes both streams, cleanly after a clean end and by a reset after any other.
    pub fn end(self, end: End) -> Relayed {
        if !matches!(end, End::ClientFinished | End::BackendFinished) {
            self.client.reset_on_close();
            self.backend.reset_on_close();
        }
        let Pump { to_backend, to_client, first_byte, .. } = self.pump;
        Relayed { to_backend: to_backend.written, to_client: to_client.written, first_byte, end }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Backend,
}

#[derive(Debug)]
struct Pump {
    to_backend: Direction,
    to_client: Direction,
    first_byte: Option<Instant>,
    first_finished: Option<Side>,
    /// The side that broke off: only what it sent before is still delivered.
    broken: Option<Side>,
    idle: Idle,
}

impl Pump {
    fn poll<C: Transport, B: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        backend: &mut B,
        handle: &Handle,
        timer: &mut Deadline,
    ) -> Poll<End> {
        if let Poll::Ready(outcome) = handle.poll_retired(cx) {
            return Poll::Ready(End::Retired(outcome));
        }
        let before = (self.to_backend.activity, self.to_client.activity);
        if self.broken != Some(Side::Backend) {
            self.to_backend.is_last = self.to_client.is_over();
            let step = self.to_backend.poll(cx, client, backend);
            self.note(Side::Client, step, timer);
        }
        if self.broken != Some(Side::Client) {
            self.to_client.is_last = self.to_backend.is_over();
            let step = self.to_client.poll(cx, backend, client);
            self.note(Side::Backend, step, timer);
            if self.first_byte.is_none() && self.to_client.activity > 0 {
                self.first_byte = Some(Instant::now());
            }
            // The backend broke while the client's bytes were written to it: its last words were
            // read just now, or are waiting to be written.
            if self.broken == Some(Side::Client) && !self.to_backend.is_over() {
                let step = self.to_backend.poll(cx, client, backend);
                self.note(Side::Client, step, timer);
            }
        }
        if let Some(end) = self.end() {
            return Poll::Ready(end);
        }
        if before != (self.to_backend.activity, self.to_client.activity) {
            self.idle.touch();
        }
        while let Poll::Ready(due) = self.idle.poll_due(timer, cx) {
            match due {
                Due::Old => backend.keep_alive(),
                Due::Expired if self.idle.is_half_closed() => return Poll::Ready(End::HalfClosed),
                Due::Expired => return Poll::Ready(End::Idle),
            }
        }
        Poll::Pending
    }

    /// Takes in what happened to the bytes that come from `source`.
    fn note(&mut self, source: Side, step: Poll<Result<(), Broken>>, timer: &mut Deadline) {
        let sink = if source == Side::Client { Side::Backend } else { Side::Client };
        match step {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => {
                if self.first_finished.is_none() {
                    self.first_finished = Some(source);
                    self.idle.half_close(timer);
                }
            }
            Poll::Ready(Err(broken)) => {
                let side = if broken == Broken::Source { source } else { sink };
                self.broken.get_or_insert(side);
                self.idle.half_close(timer);
                // A broken side may still read as finished; that must not become a clean end.
                match side {
                    Side::Client => self.to_backend.source_broke = true,
                    Side::Backend => self.to_client.source_broke = true,
                }
            }
        }
    }

    fn end(&self) -> Option<End> {
        match self.broken {
            Some(Side::Client) if self.to_backend.is_over() => Some(End::ClientReset),
            Some(Side::Backend) if self.to_client.is_over() => Some(End::BackendReset),
            None if self.to_backend.is_over() && self.to_client.is_over() => {
                Some(match self.first_finished {
                    Some(Side::Backend) => End::BackendFinished,
                    Some(Side::Client) | None => End::ClientFinished,
                })
            }
            Some(_) | None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::{JoinHandle, LocalSet, spawn_local};
    use tokio::time::{advance, sleep};

    use super::*;
    use crate::proxy::engine::deadlines::Deadlines;
    use crate::proxy::relay::buffer;

    const LIMITS: Limits =
        Limits { idle: Duration::from_mins(10), half_close: Duration::from_mins(5) };

    /// How late simulated deadlines may come up.
    const SOON: Duration = Duration::from_secs(2);

    struct Scene {
        client: DuplexStream,
        backend: DuplexStream,
        handle: std::sync::Arc<Handle>,
        relay: JoinHandle<Relayed>,
    }

    /// A relay between two in-memory streams; time is simulated and costs nothing.
    fn scene(prefix: &[u8]) -> Scene {
        let (client, client_side) = duplex(1024);
        let (backend, backend_side) = duplex(1024);
        let handle = std::sync::Arc::new(Handle::default());
        let (prefix, held) = (prefix.to_vec(), std::sync::Arc::clone(&handle));
        let deadlines = Deadlines::new(Instant::now());
        spawn_local(deadlines.clone().turn_for_ever());
        let mut timer = deadlines.unset();
        let relay = spawn_local(async move {
            let mut relay =
                Relay::new(client_side, backend_side, prefix, Rc::new(LIMITS), &mut timer);
            let move_on = |cx: &mut Context<'_>| relay.poll(cx, &held, &mut timer);
            let end = std::future::poll_fn(move_on).await;
            relay.end(end)
        });
        Scene { client, backend, handle, relay }
    }

    #[tokio::test(start_paused = true)]
    async fn a_relay_that_moves_lives_for_ever_and_one_that_does_not_is_ended() {
        let test = async {
            let Scene { mut client, mut backend, relay, .. } = scene(b"hello");
            let began = Instant::now();
            for _ in 0..100 {
                sleep(Duration::from_secs(9 * 60 + 59)).await;
                client.write_all(b"x").await.unwrap();
                backend.write_all(b"y").await.unwrap();
            }
            assert!(!relay.is_finished());
            let moved = Instant::now();
            let relayed = relay.await.unwrap();
            assert_eq!(relayed.end, End::Idle);
            assert!((LIMITS.idle..LIMITS.idle + SOON).contains(&moved.elapsed()));
            assert!(began.elapsed() > Duration::from_hours(16));
            assert_eq!((relayed.to_backend, relayed.to_client), (105, 100));
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test(start_paused = true)]
    async fn once_one_side_has_finished_the_shorter_limit_holds() {
        let test = async {
            let Scene { client, mut backend, relay, .. } = scene(b"");
            let (mut client_read, mut client_write) = tokio::io::split(client);
            sleep(Duration::from_mins(9)).await;
            client_write.shutdown().await.unwrap();
            sleep(Duration::from_mins(4)).await;
            backend.write_all(b"still here").await.unwrap();
            let moved = Instant::now();
            let mut read = [0; 10];
            client_read.read_exact(&mut read).await.unwrap();
            assert_eq!(relay.await.unwrap().end, End::HalfClosed);
            assert!((LIMITS.half_close..LIMITS.half_close + SOON).contains(&moved.elapsed()));
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_retired_session_ends_at_once_with_the_reason_given_first() {
        let test = async {
            let Scene { handle, relay, client: _client, backend: _backend, .. } = scene(b"hello");
            advance(Duration::from_secs(1)).await;
            handle.retire(Outcome::RouteExpired);
            handle.retire(Outcome::Drained);
            let relayed = relay.await.unwrap();
            assert_eq!(Outcome::from(relayed), Outcome::RouteExpired);
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn bytes_that_the_sink_does_not_take_stop_the_source() {
        let test = async {
            let Scene { mut client, mut backend, relay, .. } = scene(b"");
            // 1 KiB fits in each in-memory stream and 64 KiB in the pump; a MiB does not.
            let sent = vec![7; 1 << 20];
            let mut given = 0;
            while let Ok(count) =
                tokio::time::timeout(Duration::from_millis(100), client.write(&sent)).await
            {
                given += count.unwrap();
            }
            assert!(given <= buffer::SIZE + 2 * 1024, "{given} bytes went in");
            let mut received = vec![0; given];
            backend.read_exact(&mut received).await.unwrap();
            drop((client, backend));
            assert_eq!(relay.await.unwrap().to_backend, given as u64);
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn what_a_broken_side_said_before_is_delivered_without_a_clean_end() {
        let mut pump = Direction::new(b"last words".to_vec());
        pump.source_broke = true;
        let (mut source, broken) = duplex(64);
        drop(broken);
        let (mut sink, mut other) = duplex(64);
        let step = std::future::poll_fn(|cx| pump.poll(cx, &mut source, &mut sink)).await;
        assert_eq!(step, Err(Broken::Source));
        let mut words = [0; 10];
        other.read_exact(&mut words).await.unwrap();
        assert_eq!(&words, b"last words");
        // No FIN was passed on: the sink is still open.
        let silent = tokio::time::timeout(Duration::from_millis(20), other.read(&mut words)).await;
        assert!(silent.is_err());
    }
}
