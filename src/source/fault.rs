//! What can be wrong with routes as they are written down, or with the files that hold them.
//!
//! A [`Fault`] keeps values; its words come from `Display`: what is wrong, what is allowed, the
//! nearest valid word, what to do. Whatever was written is shown without control characters and
//! cut to a readable length, because it ends on terminals and in logs.

use std::fmt::{self, Display, Write as _};
use std::io;

use rustix::io::Errno;

use crate::endpoint::EndpointError;
use crate::hostname::HostnameError;
use crate::registry::keys;
use crate::routing::route::Origin;
use crate::routing::snapshot::Conflict;
use crate::routing::termination::NotADigest;
use crate::source::instant::NotAnInstant;
use crate::source::place::Place;
use crate::store;
use crate::units::{Percent, UnitError};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub place: Place,
    /// What.
    pub kind: FaultKind,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultKind {
    /// The text is no TOML.
    #[error(
        "this is no TOML: {}; until that is mended the whole text is set aside (a running proxy keeps its last good routes)",
        Shown(_0)
    )]
    NotToml(String),
    /// A value that is no TOML value. The text around it is sound.
    #[error("the value of `{}` is no TOML: {}", Shown(key), Shown(why))]
    NotAValue {
        /// The key.
        key: String,
        /// What the TOML parser says.
        why: String,
    },
    /// No such key in a route.
    #[error(
        "`{}` is not a key of a route{}",
        Shown(key),
        Meant { nearest: *nearest, else_one_of: allowed }
    )]
    UnknownKey {
        /// What was written.
        key: String,
        /// The nearest key.
        nearest: Option<&'static str>,
        /// All keys.
        allowed: &'static [&'static str],
    },
    /// Something beside the routes.
    #[error("`{}` is not known here; a routes file has nothing but [[route]] tables", Shown(_0))]
    UnknownTable(String),
    /// A route's key outside of every route.
    #[error("`{0}` belongs to a route; write it below a line [[route]]")]
    StrayKey(&'static str),
    /// A `route` that is no list of tables.
    #[error("write [[route]], in two pairs of brackets, above the keys of each route")]
    NotAList,
    /// A key that says something of TLS that is not ended here.
    #[error("`{0}` is only for a route with mode = \"terminate\"")]
    OnlyTerminating(&'static str),
    /// A key that says something of TLS to a backend that is spoken to in the clear.
    #[error("`{0}` says nothing with backend_tls = \"off\": leave one of them out")]
    OnlyVerified(&'static str),
    /// Two ways to prove who a backend is.
    #[error("give `backend_ca` or `pin`, not both")]
    TwoProofs,
    /// A protocol that a route which passes on requests cannot offer.
    #[error(
        "with protocol = \"http\", `alpn` may hold h2 and http/1.1; for anything else write protocol = \"tcp\""
    )]
    NotHttp,
    /// A name of a backend that is none.
    #[error("`backend_name`: {0}")]
    BackendName(HostnameError),
    /// A digest that is none.
    #[error("`pin`: {0}")]
    Pin(NotADigest),
    /// A path that depends on where the proxy was started.
    #[error("`{key}` must be an absolute path")]
    Path {
        /// The key.
        key: &'static str,
    },
    /// A value of another type.
    #[error("`{key}` must be {expected}, not {found}")]
    Type {
        /// The key.
        key: &'static str,
        /// What it takes.
        expected: &'static str,
        /// What was there.
        found: &'static str,
    },
    /// A key that every route needs.
    #[error("`{key}` is missing; write {key} = [\"{example}\"], for example")]
    Missing {
        /// The key.
        key: &'static str,
        /// A value that it takes.
        example: &'static str,
    },
    /// An empty list.
    #[error("`{key}` is empty; give at least one, as [\"{example}\"]")]
    Empty {
        /// The key.
        key: &'static str,
        /// A value that it takes.
        example: &'static str,
    },
    /// A host that is none.
    #[error(
        "`{}` is not a host: {why}; write a name, *.name (one label more) or **.name (any depth)",
        Shown(host)
    )]
    Host {
        /// What was written.
        host: String,
        /// What is wrong with it.
        why: HostnameError,
    },
    /// The same host twice in one route.
    #[error("`{}` is already listed at {first}", Shown(host))]
    RepeatedHost {
        /// What was written.
        host: String,
        /// Where it stands first.
        first: Origin,
    },
    /// A backend that is none.
    #[error("`{}` is not a backend: {}", Shown(backend), Shown(why))]
    Backend {
        /// What was written.
        backend: String,
        /// What is wrong with it.
        why: EndpointError,
    },
    /// A time that names no instant.
    #[error("`{key}`: {why}")]
    Time {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        why: NotAnInstant,
    },
    /// A route that could never be live.
    #[error("the route ends at {end} but only begins at {start}: it would never be live")]
    NeverLive {
        /// Its `not_before`.
        start: jiff::Timestamp,
        /// Its `expires_at`.
        end: jiff::Timestamp,
    },
    /// A length of time that is none.
    #[error("`{key}`: {why}")]
    Period {
        /// The key.
        key: &'static str,
        /// What is wrong.
        why: UnitError,
    },
    /// A word that the key does not take.
    #[error(
        "`{}` is not a {key}{}",
        Shown(word),
        Meant { nearest: *nearest, else_one_of: allowed }
    )]
    Word {
        /// The key.
        key: &'static str,
        /// What was written.
        word: String,
        /// The nearest that it takes.
        nearest: Option<&'static str>,
        /// All that it takes.
        allowed: &'static [&'static str],
    },
    /// A number out of bounds.
    #[error("`{key}` must be a whole number from {least} to {most}")]
    Number {
        /// The key.
        key: &'static str,
        /// The least.
        least: u32,
        /// The most.
        most: u32,
    },
    /// A label that cannot be printed on one line.
    #[error("`{key}` must be 1 to {most} printable characters")]
    Label {
        /// The key.
        key: &'static str,
        /// The limit.
        most: usize,
    },
    /// A protocol name that cannot stand in ALPN.
    #[error("a protocol name has 1 to 255 bytes (RFC 7301), as \"acme-tls/1\"")]
    Protocol,
    /// More text without a `[[route]]` line than is read at once.
    #[error(
        "{bytes} bytes lie between one line [[route]] and the next, {most} are allowed; split the route, or begin each with a line [[route]]"
    )]
    TooLong {
        /// How many there are.
        bytes: usize,
        /// The limit.
        most: usize,
    },
    /// More faults than are kept.
    #[error("{0} more faults are not shown; mend those above first")]
    Untold(usize),
    /// A route that cannot stand beside another one.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// A file or folder that is not there.
    #[error("does not exist, or is a link to nothing{}{}", Kept(*kept), remedy(*kept))]
    Gone {
        /// How many of its routes stay.
        kept: usize,
    },
    /// A file or folder that cannot be read.
    #[error("cannot be read: {why}{}", Kept(*kept))]
    Unreadable {
        /// What the system says.
        why: Errno,
        /// How many of its routes stay.
        kept: usize,
    },
    /// Something with the name of a routes file that is none.
    #[error("is {found}, not a file with routes{}", Kept(*kept))]
    NotAFile {
        /// What it is.
        found: &'static str,
        /// How many of its routes stay.
        kept: usize,
    },
    /// A file that is not text.
    #[error("is not UTF-8: byte {offset} of the file belongs to no character{}", Kept(*kept))]
    NotUtf8 {
        /// Where, from 0.
        offset: usize,
        /// How many of its routes stay.
        kept: usize,
    },
    /// A file over the limit.
    #[error("has more than the {most} bytes that are allowed{}", Kept(*kept))]
    TooLarge {
        /// The limit.
        most: u64,
        /// How many of its routes stay.
        kept: usize,
    },
    /// A file that does not stay the same for as long as it takes to read it.
    #[error("was written to each time it was read{}; write a new file and rename it", Kept(*kept))]
    Unsettled {
        /// How many of its routes stay.
        kept: usize,
    },
    /// A file without a byte that had routes before.
    #[error("is empty, which looks half-written{}{}", Kept(*kept), remedy(*kept))]
    Hollow {
        /// How many of its routes stay.
        kept: usize,
    },
    /// A folder without routes files that had some before.
    #[error("has no *.toml any more, which looks like a missing mount{}{}", Kept(*kept), remedy(*kept))]
    NoFiles {
        /// How many of its routes stay.
        kept: usize,
    },
    /// A set that removes more than `routes.max_removed_percent` lets it.
    #[error(
        "would remove {removed} of {of} routes, and routes.max_removed_percent is {most}: nothing \
         of it applies{}; to confirm it, reload twice within a minute (systemctl reload mse-proxy, \
         or SIGHUP), or restart",
        Kept(*kept)
    )]
    TooMuchRemoved {
        /// How many would go.
        removed: usize,
        /// Of how many that have not ended.
        of: usize,
        /// The limit.
        most: Percent,
        /// How many routes stay.
        kept: usize,
    },
    /// A text that should be one route.
    #[error("must be one [[route]] and nothing else; {found} stand here")]
    NotOneRoute {
        /// How many there are.
        found: usize,
    },
    /// A stored route that says it is another one.
    #[error("the route says that its id is \"{}\", its key says otherwise", Shown(id))]
    OtherId {
        /// What it says.
        id: String,
    },
    /// A store that does not do what it was asked.
    #[error("{why}{}", Kept(*kept))]
    Store {
        /// What it says.
        why: store::Error,
        /// How many of its routes stay.
        kept: usize,
    },
    /// A store that was written by a later version.
    #[error(
        "has the format \"{}\", which this version of mse-proxy does not know{}",
        Shown(found),
        Kept(*kept)
    )]
    StoreFormat {
        /// What is noted there.
        found: String,
        /// How many of its routes stay.
        kept: usize,
    },
    /// A store whose history has no end that can be read.
    #[error("{}: {}; nothing can be written until that is mended", keys::HEAD, Shown(why))]
    StoreHead {
        /// What is wrong with it.
        why: String,
    },
    /// A store without anything that had routes before.
    #[error(
        "is empty, which looks like another or a new one{}; if it is meant, restart",
        Kept(*kept)
    )]
    StoreHollow {
        /// How many of its routes stay.
        kept: usize,
    },
    /// Reading failed by a fault of ours.
    #[error("could not be read, by a fault of this program{}", Kept(*kept))]
    StoreUnread {
        /// How many of its routes stay.
        kept: usize,
    },
    /// A record of the store that is none.
    #[error("this record cannot be read: {}; it is left out", Shown(_0))]
    Record(String),
    /// A set in which no route is good, after one that had some.
    #[error("not one route is good{}", Kept(*kept))]
    NoneGood {
        /// How many routes stay.
        kept: usize,
    },
    /// A set that `routes.strict` keeps out.
    #[error("has faults, and routes.strict is set: nothing of it applies{}", Kept(*kept))]
    HeldBack {
        /// How many routes stay.
        kept: usize,
    },
}

impl FaultKind {
    /// What a failure to read means for an operator.
    #[must_use]
    pub fn unreadable(error: &io::Error, kept: usize) -> Self {
        match Errno::from_io_error(error).unwrap_or(Errno::IO) {
            Errno::NOENT => Self::Gone { kept },
            why => Self::Unreadable { why, kept },
        }
    }
}

/// What was probably meant, else everything that could have been.
pub(crate) struct Meant<'a> {
    pub(crate) nearest: Option<&'static str>,
    pub(crate) else_one_of: &'a [&'static str],
}

impl Display for Meant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.nearest {
            Some(word) => write!(f, "; did you mean `{word}`?"),
            None => write!(f, "; allowed: {}", self.else_one_of.join(", ")),
        }
    }
}

/// How many routes are in force in spite of a fault.
struct Kept(usize);

impl Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            1 => f.write_str("; the last good route stays"),
            count => write!(f, "; the last good {count} routes stay"),
        }
    }
}

/// What to do where somebody did mean to take everything away.
const fn remedy(kept: usize) -> &'static str {
    if kept == 0 { "" } else { " (to remove every route, leave a comment in the file)" }
}

/// Something that was written, fit for a terminal.
pub(crate) struct Shown<'a, T>(pub(crate) &'a T);

/// The longest text that is shown of what was written, in characters. Longer than any valid name.
const MAX_SHOWN: usize = 300;

impl<T: Display> Display for Shown<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut clean = Clean { to: f, left: MAX_SHOWN };
        match write!(clean, "{}", self.0) {
            // A text that was cut ends in an error of ours, which is none of the formatter's.
            Err(_) if clean.left == 0 => f.write_char('…'),
            outcome => outcome,
        }
    }
}

struct Clean<'a, 'b> {
    to: &'a mut fmt::Formatter<'b>,
    left: usize,
}

impl fmt::Write for Clean<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            self.left = self.left.checked_sub(1).ok_or(fmt::Error)?;
            if letter.is_control() {
                write!(self.to, "{}", letter.escape_default())?;
            } else {
                self.to.write_char(letter)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_shown_clean_and_short() {
        let kind = FaultKind::UnknownTable("a\u{1b}[31m\n".to_owned());
        assert!(kind.to_string().starts_with("`a\\u{1b}[31m\\n` is not known"), "{kind}");
        let kind = FaultKind::UnknownTable("x".repeat(100_000));
        assert!(kind.to_string().starts_with(&format!("`{}…` is", "x".repeat(300))), "{kind}");
        let exact = FaultKind::UnknownTable("x".repeat(300)).to_string();
        assert!(exact.contains("x` is"), "{exact}");
    }

    #[test]
    fn what_stays_is_counted_and_what_to_do_is_said() {
        assert_eq!(
            FaultKind::Gone { kept: 0 }.to_string(),
            "does not exist, or is a link to nothing"
        );
        assert_eq!(
            FaultKind::Hollow { kept: 2 }.to_string(),
            "is empty, which looks half-written; the last good 2 routes stay (to remove every \
             route, leave a comment in the file)"
        );
        assert_eq!(
            FaultKind::Unsettled { kept: 2 }.to_string(),
            "was written to each time it was read; the last good 2 routes stay; write a new file \
             and rename it"
        );
        let why = Errno::LOOP;
        assert!(FaultKind::Unreadable { why, kept: 1 }.to_string().contains("symbolic links"));
    }
}
