//! One direction of a relay: bytes from one socket to the other.
//!
//! Bytes go from the socket into the thread's buffer and out again in one poll. What the sink does
//! not take at once is kept, and the source is not read until it is gone: back-pressure needs no
//! more memory than one buffer. A direction that proves bulky moves to splice(2), where the kernel
//! passes pages on through a pipe, and comes back when it does not pay any more; the rules of
//! closing are the same on both ways. A FIN that has come with the last bytes leaves with them, in
//! one packet. It knows nothing of the other direction but whether it is over.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;

use crate::proxy::engine::socket::Socket;
use crate::proxy::relay::buffer;
use crate::proxy::relay::pipes::{self, Pipe};
use crate::proxy::transport::Transport;

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

/// Which end of a direction broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    Source,
    Sink,
}

/// One direction: what was read and not yet written, and how far it has come.
#[derive(Debug)]
pub(super) struct Direction {
    owed: Owed,
    pace: Pace,
    stage: Stage,
    /// The source broke while it was written to: its end is no clean one.
    pub(super) source_broke: bool,
    /// The other direction is over: closing both sockets says all that is left to be said.
    pub(super) is_last: bool,
    /// Rises with every read and write.
    pub(super) activity: u64,
    pub(super) written: u64,
    pub(super) spliced: u64,
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
    pub(super) fn new(prefix: Vec<u8>) -> Self {
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

    pub(super) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Moves what can be moved. Ready when the direction has just come to its end or broken.
    pub(super) fn poll<S: Transport, D: Transport>(
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
                Stage::Finishing if self.is_last => return self.over(Ok(())),
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
                Owed::Nothing => return Poll::Ready(Ok(())),
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
            match Pin::new(&mut *source).poll_read(cx, &mut read) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(Ok(Stage::SourceBroken)),
                Poll::Ready(Ok(())) => {}
            }
            if read.filled().is_empty() {
                return Poll::Ready(Ok(self.ended()));
            }
            let next = self.read_end(cx, source, &mut read);
            let bytes = read.filled();
            self.activity += 1;
            self.pace = match self.pace {
                Pace::Copy(_) if bytes.len() < LARGE => Pace::Copy(0),
                Pace::Copy(BULKY..) => Pace::Splice(0),
                Pace::Copy(full) => Pace::Copy(full + 1),
                other => other,
            };
            let written = match sink.as_socket() {
                Some(socket) if next == Stage::Finishing => socket.poll_write_last(cx, bytes),
                _ => Pin::new(sink).poll_write(cx, bytes),
            };
            let count = match written {
                Poll::Pending => 0,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(count)) => count,
            };
            self.count(count);
            if let Some(rest @ [_, ..]) = bytes.get(count..) {
                self.owed = Owed::bytes(rest.to_vec());
            }
            Poll::Ready(Ok(next))
        })
    }

    /// Reads on from a source that is known to have ended, so that its FIN can leave together with
    /// its last bytes. The call that finds the end is only made earlier than it would be anyway.
    fn read_end<S: Transport>(
        &self,
        cx: &mut Context<'_>,
        source: &mut S,
        read: &mut ReadBuf<'_>,
    ) -> Stage {
        while read.remaining() > 0 && source.as_socket().is_some_and(Socket::has_ended) {
            let before = read.filled().len();
            match Pin::new(&mut *source).poll_read(cx, read) {
                Poll::Ready(Ok(())) if read.filled().len() == before => return self.ended(),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Stage::SourceBroken,
                Poll::Pending => break,
            }
        }
        Stage::Open
    }

    fn count(&mut self, bytes: usize) {
        self.activity += 1;
        self.written += bytes as u64;
    }
}
