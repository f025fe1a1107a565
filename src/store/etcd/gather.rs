//! etcd's answers to a watch, put together to whole transactions.
//!
//! Pure. An answer may hold the events of many revisions, and a large one comes in fragments that
//! may end in the midst of a revision. A revision is told once it is whole: when a later one
//! begins, or with the last fragment of an answer.

use super::rpc::event::EventType;
use super::rpc::{Event, WatchResponse};
use super::settings::Prefix;
use crate::store::{Batch, Change, Revision};

/// What has been told, and what is not whole yet.
#[derive(Debug)]
pub(super) struct Gather {
    /// The last revision that is known: told, or where the watch began.
    pub(super) last: Revision,
    open: Option<Batch>,
}

impl Gather {
    /// That begins behind a revision.
    pub(super) fn after(last: Revision) -> Self {
        Self { last, open: None }
    }

    /// Drops what is not whole: another connection tells it anew.
    pub(super) fn forget_open(&mut self) {
        self.open = None;
    }

    /// The transactions that are whole with this answer.
    pub(super) fn take(&mut self, prefix: &Prefix, answer: WatchResponse) -> Vec<Batch> {
        let mut whole = Vec::new();
        for event in answer.events {
            self.event(prefix, event, &mut whole);
        }
        if !answer.fragment {
            self.close(&mut whole);
        }
        whole
    }

    fn event(&mut self, prefix: &Prefix, event: Event, whole: &mut Vec<Batch>) {
        let is_gone = event.r#type() == EventType::Delete;
        let Some(kv) = event.kv else { return };
        let revision = u64::try_from(kv.mod_revision).unwrap_or(0);
        if self.open.as_ref().is_some_and(|open| open.revision < revision) {
            self.close(whole);
        }
        // The watch begins with what is known already.
        if revision <= self.last {
            return;
        }
        let open = self.open.get_or_insert_with(|| Batch { revision, changes: Vec::new() });
        // A key that is no text is not ours.
        if let Some(key) = prefix.strip(&kv.key) {
            open.changes.push(Change { key, value: (!is_gone).then_some(kv.value) });
        }
    }

    fn close(&mut self, whole: &mut Vec<Batch>) {
        if let Some(batch) = self.open.take() {
            self.last = batch.revision;
            if !batch.changes.is_empty() {
                whole.push(batch);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rpc::KeyValue;
    use super::*;

    fn put(key: &str, revision: i64) -> Event {
        let kv = KeyValue { key: key.into(), mod_revision: revision, value: b"v".to_vec() };
        Event { r#type: EventType::Put.into(), kv: Some(kv) }
    }

    fn gone(key: &str, revision: i64) -> Event {
        let kv = KeyValue { key: key.into(), mod_revision: revision, value: vec![] };
        Event { r#type: EventType::Delete.into(), kv: Some(kv) }
    }

    fn answer(fragment: bool, events: Vec<Event>) -> WatchResponse {
        WatchResponse { fragment, events, ..WatchResponse::default() }
    }

    /// Revisions, each with its keys; a removed one with a `-`.
    fn told(batches: &[Batch]) -> Vec<(Revision, String)> {
        let keys = |batch: &Batch| {
            let keys = batch.changes.iter().map(|change| {
                format!("{}{}", if change.value.is_some() { "" } else { "-" }, change.key)
            });
            keys.collect::<Vec<_>>().join(" ")
        };
        batches.iter().map(|batch| (batch.revision, keys(batch))).collect()
    }

    #[test]
    fn a_revision_is_told_once_and_whole() {
        let prefix = Prefix::try_from("p/".to_owned()).unwrap();
        let mut gather = Gather::after(5);
        let batches = gather.take(
            &prefix,
            answer(false, vec![put("p/a", 5), put("p/a", 6), gone("p/b", 6), put("p/c", 9)]),
        );
        assert_eq!(told(&batches), [(6, "a -b".into()), (9, "c".into())]);
        assert_eq!(gather.last, 9);
        assert!(gather.take(&prefix, answer(false, vec![put("p/c", 9)])).is_empty());
    }

    #[test]
    fn fragments_that_cut_a_revision_are_joined() {
        let prefix = Prefix::try_from("p/".to_owned()).unwrap();
        let mut gather = Gather::after(0);
        let first = answer(true, vec![put("p/a", 2), put("p/b", 3)]);
        assert_eq!(told(&gather.take(&prefix, first)), [(2, "a".into())]);
        let second = answer(true, vec![put("p/c", 3)]);
        assert!(gather.take(&prefix, second).is_empty());
        // The connection breaks off here: revision 3 comes again, as a whole.
        gather.forget_open();
        assert_eq!(gather.last, 2);
        let whole = vec![put("p/a", 2), put("p/b", 3), put("p/c", 3), put("p/d", 3)];
        let again = gather.take(&prefix, answer(false, whole));
        assert_eq!(told(&again), [(3, "b c d".into())]);
    }

    #[test]
    fn keys_of_others_are_passed_over() {
        let prefix = Prefix::try_from("p/".to_owned()).unwrap();
        let mut gather = Gather::after(0);
        let mut odd = put("p/x", 2);
        odd.kv.as_mut().unwrap().key = b"p/\xff".to_vec();
        let batches = gather.take(&prefix, answer(false, vec![odd, put("p/a", 3)]));
        assert_eq!(told(&batches), [(3, "a".into())]);
    }
}
