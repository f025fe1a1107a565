//! What is answered when something cannot be done: gRPC's code and our words, in one place.

use tonic::{Code, Status};

use crate::control::convert::Faulty;
use crate::control::write::Failed;
use crate::registry::refusal::Refusal;
use crate::store;

/// The most words of a message, in bytes: it travels as a header, for which clients take 8 KiB with all
/// others, and some letters take three bytes there.
const MAX_WORDS: usize = 3 * 1024;

/// Words that fit.
pub(super) fn told(code: Code, words: &str) -> Status {
    let end = words.floor_char_boundary(MAX_WORDS);
    match words.get(..end) {
        Some(start) if end < words.len() => Status::new(code, format!("{start}…")),
        _ => Status::new(code, words),
    }
}

impl From<Faulty> for Status {
    fn from(faulty: Faulty) -> Self {
        told(Code::InvalidArgument, &faulty.to_string())
    }
}

impl From<Failed> for Status {
    fn from(failed: Failed) -> Self {
        let code = match &failed {
            Failed::Refused(refusal) => match refusal {
                Refusal::Stale { .. } => Code::Aborted,
                Refusal::NotFound { .. } => Code::NotFound,
                Refusal::Taken { .. } | Refusal::Elsewhere { .. } => Code::AlreadyExists,
                Refusal::TooMuchRemoved { .. } => Code::FailedPrecondition,
                Refusal::TooMany { .. } => Code::ResourceExhausted,
                Refusal::NoHead => Code::DataLoss,
                Refusal::Sealed { .. }
                | Refusal::Within { .. }
                | Refusal::TooLong { .. }
                | Refusal::Id { .. }
                | Refusal::RequestId
                | Refusal::Reused { .. } => Code::InvalidArgument,
            },
            Failed::Busy => Code::ResourceExhausted,
            Failed::Away(Some(why)) | Failed::Unknown(Some(why)) => code(why),
            Failed::Outrun | Failed::Away(None) | Failed::Unknown(None) => Code::Unavailable,
        };
        told(code, &failed.to_string())
    }
}

/// What a store that fails to read or to tell is answered as.
pub(super) fn of_store(error: &store::Error) -> Status {
    told(code(error), &error.to_string())
}

fn code(error: &store::Error) -> Code {
    match error {
        store::Error::TooOld { .. } => Code::OutOfRange,
        // Full disks, full databases, too much at once: asking again alone does not help.
        store::Error::TooSlow | store::Error::Refused(_) => Code::ResourceExhausted,
        store::Error::Unavailable { .. } => Code::Unavailable,
        store::Error::Damaged(_) => Code::DataLoss,
    }
}

/// The answer to all that needs a store, where there is none.
pub(super) fn no_store() -> Status {
    Status::failed_precondition(
        "this proxy keeps nothing of its own: set store.path (a file) or store.etcd.endpoints",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_are_too_many_are_cut_between_letters() {
        let long = "ä".repeat(MAX_WORDS);
        let status = Status::from(Faulty(vec![long]));
        assert!(status.message().len() <= MAX_WORDS + '…'.len_utf8());
        assert!(status.message().ends_with("ä…"));
        assert_eq!(Status::from(Faulty(vec!["x".into(), "y".into()])).message(), "x\ny");
    }
}
