//! What a refusal of etcd means for whoever asked.
//!
//! Pure. etcd's own words are looked at, because its codes differ between versions and say less.
//! What is not known for sure counts as [`Verdict::Unknown`]: the request may have been carried out.

use std::fmt;

use tonic::{Code, Status};

use super::link::LinkError;

/// What came of a request that was not answered as wished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Not done: log in again.
    Token,
    /// Not done, but it may be elsewhere, or later.
    NotDone(String),
    /// Not done, and it never will be like this.
    Refused(String),
    /// Not done: what was asked about is no longer kept, or not known yet.
    Compacted,
    /// Not done: more operations than etcd takes at once.
    TooManyChanges,
    /// Not done: more bytes than etcd takes at once.
    RequestTooLarge,
    /// Read, but the answer is larger than we take.
    AnswerTooLarge,
    /// etcd's database is full. It was done nevertheless, if this was what filled it.
    Full,
    /// Members disagree about what they hold.
    Damaged(String),
    /// Perhaps done.
    Unknown(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotDone(why) | Self::Refused(why) | Self::Damaged(why) | Self::Unknown(why) => {
                why
            }
            Self::Token => "it accepts no token, not even a new one",
            Self::Compacted => "that revision is not kept",
            Self::TooManyChanges => "too many operations at once",
            Self::RequestTooLarge => "the request is too large",
            Self::AnswerTooLarge => "the answer is too large",
            Self::Full => "its database is full",
        })
    }
}

/// Words of etcd's messages, and what they mean.
const WORDS: [(&str, Meaning); 19] = [
    ("invalid auth token", Meaning::Token),
    ("revision of auth store is old", Meaning::Token),
    ("user name is empty", Meaning::Token),
    ("no leader", Meaning::NotDone),
    ("too many requests", Meaning::NotDone),
    ("not capable", Meaning::NotDone),
    ("not supported for learner", Meaning::NotDone),
    ("required revision has been compacted", Meaning::Compacted),
    ("required revision is a future revision", Meaning::Compacted),
    ("too many operations in txn request", Meaning::TooManyChanges),
    ("request is too large", Meaning::RequestTooLarge),
    ("received message larger than max", Meaning::RequestTooLarge),
    ("decoded message length too large", Meaning::AnswerTooLarge),
    ("database space exceeded", Meaning::Full),
    ("corrupt cluster", Meaning::Damaged),
    ("authentication failed", Meaning::Refused),
    ("permission denied", Meaning::Refused),
    ("duplicate key", Meaning::Refused),
    ("key is not provided", Meaning::Refused),
];

#[derive(Clone, Copy)]
enum Meaning {
    Token,
    NotDone,
    Refused,
    Compacted,
    TooManyChanges,
    RequestTooLarge,
    AnswerTooLarge,
    Full,
    Damaged,
}

/// Judges a call that failed.
pub(super) fn judge(status: &Status) -> Verdict {
    let source = std::error::Error::source(status).and_then(|error| error.downcast_ref());
    if let Some(error @ LinkError::NotSent(_)) = source {
        return Verdict::NotDone(error.to_string());
    }
    let said = status.message().to_owned();
    match meaning(&said) {
        Some(Meaning::Token) => Verdict::Token,
        Some(Meaning::NotDone) => Verdict::NotDone(said),
        Some(Meaning::Refused) => Verdict::Refused(said),
        Some(Meaning::Compacted) => Verdict::Compacted,
        Some(Meaning::TooManyChanges) => Verdict::TooManyChanges,
        Some(Meaning::RequestTooLarge) => Verdict::RequestTooLarge,
        Some(Meaning::AnswerTooLarge) => Verdict::AnswerTooLarge,
        Some(Meaning::Full) => Verdict::Full,
        Some(Meaning::Damaged) => Verdict::Damaged(said),
        None => match status.code() {
            // It was looked at and not carried out, or nobody there knows of etcd.
            Code::InvalidArgument | Code::PermissionDenied | Code::Unimplemented => {
                Verdict::Refused(said)
            }
            Code::Unauthenticated => Verdict::Token,
            code => Verdict::Unknown(if said.is_empty() { format!("{code:?}") } else { said }),
        },
    }
}

fn meaning(said: &str) -> Option<Meaning> {
    WORDS.iter().find(|(words, _)| said.contains(words)).map(|(_, meaning)| *meaning)
}

/// Whether a watch that etcd cancelled was not allowed to us, perhaps for want of a valid token:
/// etcd 3.4 says the same for both.
pub(super) fn is_denied(cancel_reason: &str) -> bool {
    matches!(meaning(cancel_reason), Some(Meaning::Token | Meaning::Refused))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etcds_words_go_before_its_codes() {
        for (code, words, verdict) in [
            (Code::Unauthenticated, "etcdserver: invalid auth token", Verdict::Token),
            (Code::InvalidArgument, "etcdserver: revision of auth store is old", Verdict::Token),
            (Code::InvalidArgument, "etcdserver: user name is empty", Verdict::Token),
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
                Verdict::Compacted,
            ),
            (
                Code::InvalidArgument,
                "etcdserver: too many operations in txn request",
                Verdict::TooManyChanges,
            ),
            (
                Code::ResourceExhausted,
                "grpc: received message larger than max (2900000 vs. 2097152)",
                Verdict::RequestTooLarge,
            ),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", Verdict::Full),
        ] {
            assert_eq!(judge(&Status::new(code, words)), verdict, "{words}");
        }
        let no_leader = Status::new(Code::Unavailable, "etcdserver: no leader");
        assert_eq!(judge(&no_leader), Verdict::NotDone("etcdserver: no leader".into()));
    }

    #[test]
    fn what_is_not_known_for_sure_may_have_happened() {
        for (code, words) in [
            (Code::Unavailable, "etcdserver: request timed out"),
            (Code::Unavailable, "etcdserver: leader changed"),
            (Code::Unavailable, "etcdserver: server stopped"),
            (Code::Unknown, "h2 protocol error"),
            (Code::DeadlineExceeded, "context deadline exceeded"),
            (Code::Cancelled, ""),
            (Code::Internal, "anything"),
        ] {
            assert!(matches!(judge(&Status::new(code, words)), Verdict::Unknown(_)), "{words}");
        }
    }

    #[test]
    fn a_denied_watch_is_known_by_its_reason() {
        assert!(is_denied(
            "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
        ));
        assert!(is_denied("etcdserver: invalid auth token"));
        assert!(!is_denied("etcdserver: no leader"));
        assert!(!is_denied(""));
    }
}
