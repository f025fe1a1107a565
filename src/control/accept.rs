//! From a listening socket to connections that know who is at their other end.
//!
//! There are at most [`MOST`] connections; one more is closed, which its client sees at once instead
//! of waiting for nobody knows how long. Whoever connects and says nothing holds a place only for
//! [`PATIENCE`]. Those who have not shown a certificate yet hold none.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;
use tracing::{debug, info, warn};

use crate::control::peer::Peer;
use crate::control::tls::Tls;

/// How many connections there may be: operators, scripts and watchers of one proxy.
pub(super) const MOST: usize = 64;
/// How many may be there who have not shown a certificate yet.
const MOST_STRANGERS: usize = 64;
/// How long a client may take until its first byte is there, TLS included.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long, and for how many bytes, a client that is refused is listened to.
const LINGER: Duration = Duration::from_secs(1);
const MOST_UNREAD: u64 = 64 << 10;
/// How long is waited when no connection can be accepted, for want of descriptors.
const PAUSE: Duration = Duration::from_millis(200);
/// How often, at the most, one kind of trouble is told.
const SELDOM: Duration = Duration::from_secs(10);

/// A socket that listens.
#[derive(Debug)]
pub(super) enum Listener {
    /// For whoever may open its file.
    Unix(UnixListener),
    /// For whoever has a certificate.
    Tcp(TcpListener, Arc<Tls>),
}

enum Stream {
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection that was let in.
pub(super) struct Admitted {
    stream: Stream,
    peer: Peer,
    /// Until when its first byte must be there, while it is not.
    silent: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

/// Accepts for as long as somebody takes connections.
pub(super) async fn accept(listener: Listener, admitted: mpsc::Sender<io::Result<Admitted>>) {
    let hall = Hall { places: Arc::new(Semaphore::new(MOST)), admitted };
    let mut seldom = Seldom::default();
    let mut strangers = Strangers::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = hall.admitted.closed() => return,
        };
        let began = Instant::now();
        match accepted {
            Ok(Raw::Unix(stream)) => {
                let peer = Peer::of_unix(&stream);
                hall.admit(Stream::Unix(stream), peer, began).await;
            }
            Ok(Raw::Tcp(stream, tls)) => {
                let hall = hall.clone();
                strangers.receive(async move {
                    if let Some((stream, peer)) = shake(stream, &tls, began + PATIENCE).await {
                        hall.admit(Stream::Tls(Box::new(stream)), peer, began).await;
                    }
                });
            }
            Err(error) => {
                if seldom.is_due() {
                    warn!(%error, "admin.grpc: a connection cannot be accepted");
                }
                sleep(PAUSE).await;
            }
        }
    }
}

/// Where those are who may come in.
#[derive(Clone)]
struct Hall {
    places: Arc<Semaphore>,
    admitted: mpsc::Sender<io::Result<Admitted>>,
}

impl Hall {
    /// Lets somebody in who is known, if there is a place; else the connection is closed.
    async fn admit(&self, stream: Stream, peer: Peer, began: Instant) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return info!(%peer, most = MOST, "admin.grpc: too many connections; one more was closed");
        };
        let silent = Some(Box::pin(sleep_until(began + PATIENCE)));
        let whole = Admitted { stream, peer, silent, _place: place };
        // Nobody takes it any more when the proxy stops.
        let _ = self.admitted.send(Ok(whole)).await;
    }
}

/// Those who have not shown a certificate yet. When there are too many, the oldest makes room: whoever
/// is in earnest needs some milliseconds, and strangers keep nobody out by standing about.
#[derive(Default)]
struct Strangers {
    running: JoinSet<()>,
    order: VecDeque<AbortHandle>,
}

impl Strangers {
    fn receive(&mut self, shaking: impl Future<Output = ()> + Send + 'static) {
        while self.running.try_join_next().is_some() {}
        self.order.retain(|stranger| !stranger.is_finished());
        if self.order.len() >= MOST_STRANGERS
            && let Some(oldest) = self.order.pop_front()
        {
            oldest.abort();
        }
        self.order.push_back(self.running.spawn(shaking));
    }
}

enum Raw {
    Unix(UnixStream),
    Tcp(TcpStream, Arc<Tls>),
}

impl Listener {
    async fn accept(&self) -> io::Result<Raw> {
        match self {
            Self::Unix(listener) => Ok(Raw::Unix(listener.accept().await?.0)),
            Self::Tcp(listener, tls) => Ok(Raw::Tcp(listener.accept().await?.0, Arc::clone(tls))),
        }
    }
}

/// Finds out who it is. None, if it may not come in: then it was told so, or left.
async fn shake(
    stream: TcpStream,
    tls: &Tls,
    until: Instant,
) -> Option<(TlsStream<TcpStream>, Peer)> {
    let address = stream.peer_addr().ok()?;
    // Small frames go to and fro; a socket that does not take this is still a good one.
    let _ = stream.set_nodelay(true);
    let shaking = TlsAcceptor::from(tls.current()).accept(stream).into_fallible();
    match timeout_at(until, shaking).await.ok()? {
        Ok(stream) => {
            let peer = Peer::of_certificate(stream.get_ref().1.peer_certificates()?.first()?);
            Some((stream, peer))
        }
        Err((error, stream)) => {
            // No louder: anybody can cause it, as often as he likes.
            debug!(%address, %error, "admin.grpc: no TLS with a client");
            see_off(stream).await;
            None
        }
    }
}

/// Lets a client read why it is refused: were its socket closed while there are bytes of its own to
/// be read, it would find a reset in the place of our alert.
async fn see_off(mut stream: TcpStream) {
    let farewell = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(MOST_UNREAD), &mut tokio::io::sink()).await
    };
    let _ = timeout(LINGER, farewell).await;
}

/// Keeps a trouble that goes on from filling the log.
#[derive(Debug, Default)]
struct Seldom(Option<Instant>);

impl Seldom {
    fn is_due(&mut self) -> bool {
        let is_due = self.0.is_none_or(|last| last.elapsed() >= SELDOM);
        if is_due {
            self.0 = Some(Instant::now());
        }
        is_due
    }
}

impl Connected for Admitted {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Admitted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = match &mut self.stream {
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        if read.is_ready() {
            self.silent = None;
        } else if let Some(silent) = &mut self.silent
            && silent.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Admitted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
