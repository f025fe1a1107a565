//! The last things that happened beside the paths of connections, for whoever looks at the status
//! page: what became of projects, apps and domains, and what was odd about certificates of backends.
//! The log has them all; here are the newest.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::Timestamp;

/// How many are kept.
const MOST: usize = 100;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    /// When.
    pub at: Timestamp,
    /// Its word.
    pub event: &'static str,
    /// To whom: a project, an app, a domain, a route.
    pub whom: String,
    /// What, in words.
    pub message: String,
}

/// The newest of them.
#[derive(Debug, Default)]
pub struct Chronicle(Mutex<VecDeque<Happening>>);

impl Chronicle {
    /// Notes one.
    pub fn note(&self, happening: Happening) {
        let mut all = self.all();
        all.truncate(MOST - 1);
        all.push_front(happening);
    }

    /// The newest, newest first.
    #[must_use]
    pub fn newest(&self, most: usize) -> Vec<Happening> {
        self.all().iter().take(most).cloned().collect()
    }

    fn all(&self) -> MutexGuard<'_, VecDeque<Happening>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept() {
        let chronicle = Chronicle::default();
        for number in 0..MOST + 5 {
            chronicle.note(Happening {
                at: Timestamp::UNIX_EPOCH,
                event: "found",
                whom: number.to_string(),
                message: String::new(),
            });
        }
        let whom: Vec<_> = chronicle.newest(MOST * 2).into_iter().map(|one| one.whom).collect();
        assert_eq!((whom.len(), &*whom[0], &*whom[MOST - 1]), (MOST, "104", "5"));
        assert_eq!(chronicle.newest(1).len(), 1);
    }
}
