//! What connections cost that do nothing: user memory for each, as the slope between few and many,
//! so that what a proxy allocates once does not count.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::hello::{Hello, Order, Size};
use crate::measure::memory;
use crate::origin::Origin;
use crate::process::Running;
use crate::programs::{Contestant, Duty};

/// In which way a connection does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Idleness {
    /// It was relayed, and both sides are silent.
    Relayed,
    /// The second segment of its post-quantum hello never comes.
    Stalled,
    /// The origin sends all it can, and the client does not read.
    Blocked,
}

/// Bytes that a client that does not read lets come: bounds what the kernel holds for the test.
const SMALL_WINDOW: usize = 64 << 10;
/// More than all buffers on the way can hold.
const FLOOD: u64 = 1 << 30;
/// How long memory must stand still to count as settled, and how long to wait for that.
const STILL: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(5);

impl Idleness {
    /// How many connections there are at the first look, and at the second.
    fn counts(self) -> (usize, usize) {
        match self {
            Self::Relayed | Self::Stalled => (1000, 4000),
            Self::Blocked => (8, 40),
        }
    }
}

/// Bytes of user memory for each connection, and how many connections failed.
pub(crate) fn measure(
    idleness: Idleness,
    contestant: &Contestant,
    origin: &Origin,
) -> io::Result<(f64, u64)> {
    let listen = crate::ports::free()?;
    let duty = Duty::of(listen, origin.address());
    let proxy = Running::start(contestant, &duty)?;
    let (few, many) = idleness.counts();
    let mut connections: Vec<TcpStream> = Vec::with_capacity(many);
    let mut errors = 0;
    let mut fill = |count: usize| {
        while connections.len() + errors < count {
            match open(idleness, listen) {
                Ok(connection) => connections.push(connection),
                Err(_) => errors += 1,
            }
        }
        settled_memory(&proxy)
    };
    let (first, second) = (fill(few), fill(many));
    // Those that were closed in the meantime cost nothing, which would flatter.
    let gone = connections.into_iter().filter(|connection| is_closed(connection, idleness)).count();
    let slope = (second as f64 - first as f64) / (many - few) as f64;
    Ok((slope, (errors + gone) as u64))
}

fn open(idleness: Idleness, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    if idleness == Idleness::Blocked {
        socket.set_recv_buffer_size(SMALL_WINDOW)?;
    }
    socket.connect(&address.into())?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    let (size, order) = match idleness {
        Idleness::Relayed => (Size::Small, Order::Swallow),
        Idleness::Stalled => (Size::PostQuantum, Order::Swallow),
        Idleness::Blocked => (Size::Small, Order::Send(FLOOD)),
    };
    let hello = Hello::new(size, order);
    stream.write_all(hello.segments().0)?;
    if idleness != Idleness::Stalled {
        stream.read_exact(&mut [0])?;
    }
    Ok(stream)
}

/// Waits until a proxy's memory stands still.
fn settled_memory(proxy: &Running) -> u64 {
    let family = proxy.family();
    let give_up = Instant::now() + PATIENCE;
    let mut last = memory(&family);
    loop {
        std::thread::sleep(STILL);
        let now = memory(&family);
        if now == last || Instant::now() > give_up {
            return now;
        }
        last = now;
    }
}

fn is_closed(mut connection: &TcpStream, idleness: Idleness) -> bool {
    if connection.set_nonblocking(true).is_err() {
        return true;
    }
    match connection.read(&mut [0]) {
        Ok(0) => true,
        Ok(_) => idleness != Idleness::Blocked,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}
