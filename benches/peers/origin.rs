//! The cheap origin behind the proxies: it reads a hello, does what the hello orders, and counts
//! the connections that live.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::net::RecvFlags;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::crew;
use crate::hello::{ORDER_END, Order};
use crate::web;

/// How much is sent or swallowed at once: what a busy server's buffers hold.
pub(crate) const CHUNK: usize = 256 << 10;
/// How long the last connections of a run may take to go.
const PATIENCE: Duration = Duration::from_secs(5);

/// What an origin speaks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Speech {
    /// It obeys hellos; the byte that it sends is its mark.
    Hellos(u8),
    /// HTTP/1.1 in the clear.
    Http,
}

/// An origin that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Origin {
    address: SocketAddr,
    live: Arc<AtomicUsize>,
    stop: watch::Sender<bool>,
    threads: Vec<std::thread::JoinHandle<io::Result<()>>>,
}

impl Origin {
    /// Starts an origin on a free port of loopback.
    pub(crate) fn start(speech: Speech) -> io::Result<Self> {
        let listener = crate::ports::listen()?;
        let address = listener.local_addr()?;
        let live = Arc::new(AtomicUsize::new(0));
        let (stop, stopping) = watch::channel(false);
        let start = |_| {
            let (listener, live) = (listener.try_clone()?, Arc::clone(&live));
            let stopping = stopping.clone();
            std::thread::Builder::new()
                .name("origin".into())
                .spawn(move || crew::run(accept(listener, speech, live, stopping)))
        };
        let threads = (0..crew::threads()).map(start).collect::<io::Result<_>>()?;
        Ok(Self { address, live, stop, threads })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until its connections are gone; gives up after a few seconds.
    pub(crate) fn wait_until_idle(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.live.load(Ordering::Relaxed) > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for thread in self.threads.drain(..) {
            // A thread that panicked has told so already.
            let _ = thread.join();
        }
    }
}

async fn accept(
    listener: std::net::TcpListener,
    speech: Speech,
    live: Arc<AtomicUsize>,
    mut stopping: watch::Receiver<bool>,
) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let serving = async {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of descriptors, or a client that has left already.
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            };
            let guest = Guest::new(&live);
            tokio::task::spawn_local(async move {
                // A client that leaves in the middle is part of the work; it counts itself.
                let _ = serve(stream, speech).await;
                drop(guest);
            });
        }
    };
    tokio::select! {
        () = serving => {}
        _ = stopping.wait_for(|stop| *stop) => {}
    }
}

/// A connection that is counted while it lives.
struct Guest(Arc<AtomicUsize>);

impl Guest {
    fn new(live: &Arc<AtomicUsize>) -> Self {
        live.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(live))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve(mut stream: TcpStream, speech: Speech) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mark = match speech {
        Speech::Hellos(mark) => mark,
        Speech::Http => return web::serve(&mut stream).await,
    };
    match read_hello(&mut stream).await? {
        Order::Answer(bytes) | Order::Send(bytes) => send(&mut stream, bytes, mark).await,
        Order::Echo(bytes) => {
            stream.write_all(&[mark]).await?;
            let mut message = vec![0; usize::try_from(bytes).unwrap_or(CHUNK)];
            loop {
                stream.read_exact(&mut message).await?;
                stream.write_all(&message).await?;
            }
        }
        Order::Swallow => {
            stream.write_all(&[mark]).await?;
            let mut space = vec![0; CHUNK];
            while swallow(&stream, &mut space).await? > 0 {}
            Ok(())
        }
    }
}

async fn read_hello(stream: &mut TcpStream) -> io::Result<Order> {
    let mut hello = [0; 4 << 10];
    let mut have = 0;
    loop {
        let free = hello.get_mut(have..).filter(|free| !free.is_empty());
        let free = free.ok_or_else(|| io::Error::other("a hello that is too long"))?;
        match stream.read(free).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => have += count,
        }
        let length = 5 + usize::from(u16::from_be_bytes([hello[3], hello[4]]));
        if have >= ORDER_END.max(length) {
            return Order::read(&hello);
        }
    }
}

/// Sends so many bytes.
pub(crate) async fn send(stream: &mut TcpStream, mut bytes: u64, mark: u8) -> io::Result<()> {
    let chunk = vec![mark; usize::try_from(bytes).unwrap_or(CHUNK).min(CHUNK)];
    while bytes > 0 {
        let now = usize::try_from(bytes).unwrap_or(CHUNK).min(CHUNK);
        let sent = stream.write(chunk.get(..now).unwrap_or(&chunk)).await?;
        bytes -= sent as u64;
    }
    Ok(())
}

/// Takes what a socket has without copying it, so that the reader costs the machine little;
/// `space` bounds how much, and stays as it is.
pub(crate) async fn swallow(stream: &TcpStream, space: &mut [u8]) -> io::Result<usize> {
    stream
        .async_io(Interest::READABLE, || {
            Ok(rustix::net::recv(stream, &mut *space, RecvFlags::TRUNC)?.1)
        })
        .await
}
