//! The pump: bytes from each side to the other, FIN as FIN, reset as reset.
//!
//! Bytes go from the socket into the thread's buffer and out again in one poll. What the other
//! side does not take at once is kept, and the side that it came from is not read until it is
//! gone: back-pressure needs no more memory than one buffer. A direction that proves bulky moves
//! to splice(2), where the kernel passes pages on through a pipe, and comes back when it does not
//! pay any more; the rules of closing are the same on both ways. When one side breaks, what it had
//! sent before is still delivered, then the other side is reset as well. The pump knows no route
//! and no clock but its idle limit.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;
use tokio::time::Instant;

use crate::outcome::Outcome;
use crate::proxy::connections::Handle;
use crate::proxy::engine::deadlines::Deadline;
use crate::proxy::engine::socket::Socket;
use crate::proxy::relay::buffer;
use crate::proxy::relay::idle::{Due, Idle, Limits};
use crate::proxy::relay::pipes::{self, Pipe};
use crate::proxy::transport::Transport;
use crate::telemetry::metrics::Moved;

/// Reads per direction and poll, after which other sessions of the thread get their turn. Sixteen
/// full buffers are 1 MiB.
const ROUNDS: u32 = 16;
/// So many bytes are enough for one turn as well.
const ENOUGH: u64 = 1 << 20;
/// A read that found this much is large: copying it costs more than the two calls that a pipe needs.
const LARGE: usize = 16 * 1024;
/// Large reads in a row: then a direction is bulky.
const BULKY: u8 = 4;
/// A splice that moved less does not pay.
const THIN: usize = 8 * 1024;
/// So many of these in a row, and a direction is bulky no more.
const MANY_THIN: u8 = 4;

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

/// Which end of a direction broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Source,
    Sink,
}

/// One direction: what was read and not yet written, and how far it has come.
#[derive(Debug)]
struct Direction {
    owed: Owed,
    pace: Pace,
    stage: Stage,
    /// The source broke while it was written to: its end is no clean one.
    source_broke: bool,
    /// The other direction is over: closing both sockets says all that is left to be said.
    is_last: bool,
    /// Rises with every read and write.
    activity: u64,
    written: u64,
    spliced: u64,
}

/// What was taken from the source and not yet given to the sink. Nothing, most of the time.
#[derive(Debug)]
enum Owed {
    Nothing,
    /// Bytes that were copied, from this one on.
    Bytes(Box<(Vec<u8>, usize)>),
    /// Bytes that are in a pipe.
    Pipe(Box<Pipe>),
}

impl Owed {
    fn bytes(bytes: Vec<u8>) -> Self {
        if bytes.is_empty() { Self::Nothing } else { Self::Bytes(Box::new((bytes, 0))) }
    }
}

/// Whether a direction is bulky, and the signs that it may not be what it is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// Its bytes are copied; so many reads in a row filled the buffer.
    Copy(u8),
    /// They are spliced; so many splices in a row were thin.
    Splice(u8),
    /// They are copied for good: something about these sockets cannot be spliced.
    OnlyCopy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The source may send more.
    Open,
    /// The source has finished; its FIN is owed to the sink.
    Finishing,
    /// The source broke; what it had sent is owed to the sink, but no FIN.
    SourceBroken,
    /// Nothing more will move.
    Over,
}

impl Direction {
    fn new(prefix: Vec<u8>) -> Self {
        Self {
            owed: Owed::bytes(prefix),
            pace: Pace::Copy(0),
            stage: Stage::Open,
            source_broke: false,
            is_last: false,
            activity: 0,
            written: 0,
            spliced: 0,
        }
    }

    fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Moves what can be moved. Ready when the direction has just come to its end or broken.
    fn poll<S: Transport, D: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut S,
        sink: &mut D,
    ) -> Poll<Result<(), Broken>> {
        let enough = self.written + ENOUGH;
        for _ in 0..ROUNDS {
            if self.written >= enough {
                break;
            }
            match self.poll_owed(cx, sink) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return self.over(Err(Broken::Sink)),
                Poll::Ready(Ok(())) => {}
            }
            match self.stage {
                Stage::Over => return Poll::Pending,
                Stage::SourceBroken => return self.over(Err(Broken::Source)),
                Stage::Finishing if self.is_last && !sink.says_goodbye() => {
                    return self.over(Ok(()));
                }
                Stage::Finishing => {
                    return match Pin::new(&mut *sink).poll_shutdown(cx) {
                        Poll::Pending => Poll::Pending,
                        Poll::Ready(Ok(())) => self.over(Ok(())),
                        Poll::Ready(Err(_)) => self.over(Err(Broken::Sink)),
                    };
                }
                Stage::Open => match self.poll_open(cx, source, sink) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(stage)) => self.stage = stage,
                    Poll::Ready(Err(_)) => return self.over(Err(Broken::Sink)),
                },
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn over(&mut self, how: Result<(), Broken>) -> Poll<Result<(), Broken>> {
        self.stage = Stage::Over;
        self.owed = Owed::Nothing;
        Poll::Ready(how)
    }

    /// Passes on what was taken from the source and not yet given to the sink.
    fn poll_owed<D: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut D,
    ) -> Poll<io::Result<()>> {
        loop {
            let (count, is_done, is_spliced) = match &mut self.owed {
                // A sink of TLS may have taken what its socket has not. Of others there is nothing to flush.
                Owed::Nothing => return Pin::new(&mut *sink).poll_flush(cx),
                Owed::Bytes(owed) => {
                    let (bytes, from) = &mut **owed;
                    let rest = bytes.get(*from..).unwrap_or_default();
                    let count = ready!(Pin::new(&mut *sink).poll_write(cx, rest))?;
                    *from += count;
                    (count, *from >= bytes.len(), false)
                }
                Owed::Pipe(pipe) => {
                    // Only a socket is spliced to.
                    let Some(socket) = sink.as_socket() else { return Poll::Ready(Ok(())) };
                    let count = ready!(socket.poll_splice_from(cx, pipe.output(), pipe.holds))?;
                    pipe.holds = pipe.holds.saturating_sub(count);
                    (count, pipe.holds == 0, true)
                }
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.count(count);
            if is_spliced {
                self.spliced += count as u64;
            }
            if is_done && let Owed::Pipe(pipe) = std::mem::replace(&mut self.owed, Owed::Nothing) {
                pipes::give_back(*pipe);
            }
        }
    }

    /// Takes bytes from the source in the way that pays; tells the stage that follows.
    fn poll_open<S: Transport, D: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut S,
        sink: &mut D,
    ) -> Poll<io::Result<Stage>> {
        if let Pace::Splice(thin) = self.pace
            && let (Some(from), Some(_)) = (source.as_socket(), sink.as_socket())
        {
            match self.poll_splice(cx, from, thin) {
                Poll::Ready(None) => self.pace = Pace::Copy(0),
                Poll::Ready(Some(stage)) => return Poll::Ready(Ok(stage)),
                Poll::Pending => return Poll::Pending,
            }
        }
        self.poll_through(cx, source, sink)
    }

    /// Fills a pipe from the source once; none, if this cannot be.
    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        source: &Socket,
        thin: u8,
    ) -> Poll<Option<Stage>> {
        // A pipe is taken only for bytes that are there.
        ready!(source.poll_read_ready(cx));
        let Some(mut pipe) = pipes::take() else { return Poll::Ready(None) };
        let count = match source.poll_splice_into(cx, pipe.input(), pipe.size()) {
            Poll::Ready(Ok(count)) => count,
            other => {
                pipes::give_back(pipe);
                return match other {
                    Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::InvalidInput => {
                        self.pace = Pace::OnlyCopy;
                        Poll::Ready(None)
                    }
                    Poll::Ready(_) => Poll::Ready(Some(Stage::SourceBroken)),
                    Poll::Pending => Poll::Pending,
                };
            }
        };
        pipe.holds = count;
        if count == 0 {
            pipes::give_back(pipe);
            return Poll::Ready(Some(self.ended()));
        }
        self.owed = Owed::Pipe(Box::new(pipe));
        self.activity += 1;
        self.pace = match thin {
            _ if count >= THIN => Pace::Splice(0),
            MANY_THIN.. => Pace::Copy(0),
            thin => Pace::Splice(thin + 1),
        };
        Poll::Ready(Some(Stage::Open))
    }

    /// The stage after the source's last byte.
    fn ended(&self) -> Stage {
        if self.source_broke { Stage::SourceBroken } else { Stage::Finishing }
    }

    /// Reads once and writes at once; tells the stage that follows.
    fn poll_through<S: Transport, D: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut S,
        sink: &mut D,
    ) -> Poll<io::Result<Stage>> {
        buffer::with(|buffer| {
            let mut read = ReadBuf::new(buffer);
            match Pin::new(source).poll_read(cx, &mut read) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(Ok(Stage::SourceBroken)),
                Poll::Ready(Ok(())) => {}
            }
            let bytes = read.filled();
            if bytes.is_empty() {
                return Poll::Ready(Ok(self.ended()));
            }
            self.activity += 1;
            self.pace = match self.pace {
                Pace::Copy(_) if bytes.len() < LARGE => Pace::Copy(0),
                Pace::Copy(BULKY..) => Pace::Splice(0),
                Pace::Copy(full) => Pace::Copy(full + 1),
                other => other,
            };
            let count = match Pin::new(sink).poll_write(cx, bytes) {
                Poll::Pending => 0,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(count)) => count,
            };
            self.count(count);
            if let Some(rest @ [_, ..]) = bytes.get(count..) {
                self.owed = Owed::bytes(rest.to_vec());
            }
            Poll::Ready(Ok(Stage::Open))
        })
    }

    fn count(&mut self, bytes: usize) {
        self.activity += 1;
        self.written += bytes as u64;
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
