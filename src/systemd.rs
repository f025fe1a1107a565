//! What systemd is told of this process, and what it hands over: notifications, the watchdog's
//! interval, listening sockets.
//!
//! It may assume nothing: without systemd's variables in the environment every function here says
//! "nothing" and does nothing. It knows neither proxy nor configuration. A notification never
//! blocks a runtime's thread, because a systemd that does not read must not delay the expiry of a
//! route.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;
use socket2::SockRef;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::warn;

/// How long a caller waits until systemd has read. A datagram is handed over in microseconds,
/// unless its queue is full because systemd stands still.
const PATIENCE: Duration = Duration::from_secs(2);

/// A listening socket that was open before this process was.
#[derive(Debug)]
pub struct Inherited {
    /// What its unit calls it (`FileDescriptorName=`).
    pub name: String,
    /// The socket: non-blocking, and not passed on to children.
    pub socket: TcpListener,
}

/// Why the inherited sockets cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// The variables contradict each other or name descriptors that are not there.
    #[error("the sockets that LISTEN_FDS announces cannot be taken: {0}")]
    Environment(#[source] io::Error),
    /// Something else than a door for TCP clients.
    #[error("inherited descriptor {number} (`{name}`) is no listening TCP socket")]
    NotListening {
        /// The descriptor.
        number: usize,
        /// Its name.
        name: String,
    },
    /// It cannot be made non-blocking.
    #[error("inherited descriptor {number} (`{name}`) cannot be used: {error}")]
    Unusable {
        /// The descriptor.
        number: usize,
        /// Its name.
        name: String,
        /// What the kernel says.
        #[source]
        error: io::Error,
    },
}

/// The first descriptor that is passed (`SD_LISTEN_FDS_START`).
const FIRST_DESCRIPTOR: usize = 3;

/// Takes the sockets that systemd passes to this process: all of them, or none. Call it once, and
/// before there is a second thread: the variables that announce them are removed.
///
/// # Errors
/// One that is no listening TCP socket: better not to start than to leave a door unattended.
pub fn inherited() -> Result<Vec<Inherited>, InheritError> {
    // `sd-notify` judges whom the variables are meant for, but gives bare numbers; `listenfd` makes
    // sockets of them. Asked alone, that one would also take what is not addressed to anybody.
    let count = sd_notify::listen_fds().map_err(InheritError::Environment)?.len();
    if count == 0 {
        return Ok(Vec::new());
    }
    // Not by sd-notify: names that are too few, or not ours at all, are no reason not to serve.
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':').map(str::to_owned);
    let mut passed = ListenFd::from_env();
    let take = |index| take(&mut passed, index, names.next().unwrap_or_default());
    (0..count).map(take).collect()
}

fn take(passed: &mut ListenFd, index: usize, name: String) -> Result<Inherited, InheritError> {
    let number = FIRST_DESCRIPTOR + index;
    let Ok(Some(socket)) = passed.take_tcp_listener(index) else {
        return Err(InheritError::NotListening { number, name });
    };
    // A connection (`Accept=yes`) is a TCP socket too, and could only be misunderstood.
    if !SockRef::from(&socket).is_listener().unwrap_or(false) {
        return Err(InheritError::NotListening { number, name });
    }
    match socket.set_nonblocking(true) {
        Ok(()) => Ok(Inherited { name, socket }),
        Err(error) => Err(InheritError::Unusable { number, name, error }),
    }
}

/// Something that systemd can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Clients are served; or: what was re-read is in force.
    Ready,
    /// The configuration is being read again. [`Notice::Ready`] must follow.
    Reloading,
    /// The end has begun.
    Stopping,
    /// A line for people.
    Status(String),
    /// The process does its work.
    Watchdog,
    /// Starting or stopping goes on, and is not stuck for at least this long.
    Extend(Duration),
}

impl Notice {
    /// The lines of the protocol. Some of them belong together in one datagram.
    fn states(&self) -> Vec<NotifyState<'_>> {
        match self {
            Self::Ready => vec![NotifyState::Ready],
            // systemd takes a reload for begun only if it is told when, after its own SIGHUP.
            Self::Reloading => {
                let mut states = vec![NotifyState::Reloading];
                states.extend(NotifyState::monotonic_usec_now().ok());
                states
            }
            Self::Stopping => vec![NotifyState::Stopping],
            Self::Status(line) => vec![NotifyState::Status(line)],
            Self::Watchdog => vec![NotifyState::Watchdog],
            Self::Extend(time) => {
                let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
                vec![NotifyState::ExtendTimeoutUsec(micros)]
            }
        }
    }
}

/// Whether somebody wants to be told.
#[must_use]
pub fn is_told() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// Tells systemd, in one datagram. That it cannot be told is logged and harms nobody.
pub async fn tell(notices: Vec<Notice>) {
    if !is_told() {
        return;
    }
    let send = move || {
        let states: Vec<_> = notices.iter().flat_map(Notice::states).collect();
        sd_notify::notify(&states)
    };
    match timeout(PATIENCE, spawn_blocking(send)).await {
        Ok(Ok(Err(error))) => warn!(%error, "systemd cannot be told"),
        Err(_) => warn!(patience = ?PATIENCE, "systemd does not read what it is told"),
        Ok(_) => {}
    }
}

/// How long systemd waits for [`Notice::Watchdog`] before it ends and restarts this process.
#[must_use]
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(notice: &Notice) -> Vec<String> {
        notice.states().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn notices_are_the_lines_of_the_protocol() {
        assert_eq!(text(&Notice::Ready), ["READY=1"]);
        assert_eq!(text(&Notice::Stopping), ["STOPPING=1"]);
        assert_eq!(text(&Notice::Watchdog), ["WATCHDOG=1"]);
        assert_eq!(text(&Notice::Status("2 routes".into())), ["STATUS=2 routes"]);
        assert_eq!(
            text(&Notice::Extend(Duration::from_secs(20))),
            ["EXTEND_TIMEOUT_USEC=20000000"]
        );
        let reloading = text(&Notice::Reloading);
        assert_eq!(reloading[0], "RELOADING=1");
        assert!(reloading[1].starts_with("MONOTONIC_USEC="), "{reloading:?}");
    }

    #[test]
    fn more_than_the_protocol_can_say_is_the_most_it_can_say() {
        let day = Notice::Extend(Duration::from_hours(24));
        assert_eq!(text(&day), ["EXTEND_TIMEOUT_USEC=4294967295"]);
    }
}
