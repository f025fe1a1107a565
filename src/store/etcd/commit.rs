//! Changing several keys at once, if all that was checked still is as expected.

use std::collections::HashSet;

use super::calls::{Calls, Failure};
use super::rpc::compare::{CompareResult, CompareTarget, TargetUnion};
use super::rpc::request_op::Request;
use super::rpc::{Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};
use super::settings::Prefix;
use crate::store::{Committed, Error, MAX_KEY, MAX_VALUE, Transaction};

/// Carries out a transaction of at most so many changes.
pub(super) async fn commit(
    calls: &Calls,
    prefix: &Prefix,
    transaction: Transaction,
    most: usize,
) -> Result<Committed, Error> {
    judge(&transaction, most)?;
    let proof = proof(prefix, &transaction);
    let (count, request) = (transaction.changes.len(), request(prefix, transaction)?);
    match calls.change(request).await {
        Ok(answer) if answer.succeeded => {
            let revision = answer.header.unwrap_or_default().revision;
            Ok(Committed::Done(u64::try_from(revision).unwrap_or(0)))
        }
        Ok(_) => Ok(Committed::Conflict),
        Err(Failure::Final(error)) => Err(error),
        Err(Failure::TooManyChanges) => Err(Error::Refused(format!(
            "etcd does not take {count} changes in one transaction: start it with a larger \
             --max-txn-ops, or lower `store.etcd.max_changes` to it"
        ))),
        Err(Failure::RequestTooLarge) => Err(Error::Refused(format!(
            "etcd does not take so many bytes in one transaction (of {count} changes): start it \
             with a larger --max-request-bytes, or change less at once"
        ))),
        Err(Failure::Full) => Err(full(calls, proof).await),
        Err(Failure::Compacted | Failure::AnswerTooLarge) => Err(unknown("an odd answer")),
    }
}

/// What can be told without asking.
fn judge(transaction: &Transaction, most: usize) -> Result<(), Error> {
    let count = transaction.changes.len().max(transaction.checks.len());
    if count > most {
        return Err(Error::Refused(format!(
            "{count} changes or checks are more than one transaction may hold: \
             `store.etcd.max_changes` is {most}, and etcd takes as many as its --max-txn-ops says \
             (128 by default)"
        )));
    }
    let mut seen = HashSet::new();
    for change in &transaction.changes {
        if change.key.is_empty() || change.key.len() > MAX_KEY {
            return Err(Error::Refused(format!(
                "a key of {} bytes; it must have 1 to {MAX_KEY}",
                change.key.len()
            )));
        }
        let size = change.value.as_ref().map_or(0, Vec::len);
        if size > MAX_VALUE {
            return Err(Error::Refused(format!(
                "{}: a value of {size} bytes; it may have {MAX_VALUE}",
                change.key
            )));
        }
        if !seen.insert(&change.key) {
            return Err(Error::Refused(format!("{} is changed twice at once", change.key)));
        }
    }
    Ok(())
}

fn request(prefix: &Prefix, transaction: Transaction) -> Result<TxnRequest, Error> {
    let mut compare = Vec::with_capacity(transaction.checks.len());
    for check in transaction.checks {
        // etcd counts in signed numbers; a larger one is a revision that cannot be.
        let revision = i64::try_from(check.revision)
            .map_err(|_| Error::Refused(format!("there is no revision {}", check.revision)))?;
        compare.push(Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key: prefix.with(&check.key),
            // A key that is not there has the revision 0.
            target_union: Some(TargetUnion::ModRevision(revision)),
        });
    }
    let success = transaction.changes.into_iter().map(|change| {
        let key = prefix.with(&change.key);
        let request = match change.value {
            Some(value) => Request::RequestPut(PutRequest { key, value }),
            None => Request::RequestDeleteRange(DeleteRangeRequest { key }),
        };
        RequestOp { request: Some(request) }
    });
    let success = success.collect();
    Ok(TxnRequest { compare, success })
}

/// A key that shows whether a transaction happened: it is checked and written; with the revision
/// that it has as long as it has not.
fn proof(prefix: &Prefix, transaction: &Transaction) -> Option<(Vec<u8>, i64)> {
    let written = |key: &String| transaction.changes.iter().any(|change| change.key == *key);
    let check = transaction.checks.iter().find(|check| written(&check.key))?;
    Some((prefix.with(&check.key), i64::try_from(check.revision).ok()?))
}

/// etcd says that it is full also of the very transaction that filled it, which it keeps.
async fn full(calls: &Calls, proof: Option<(Vec<u8>, i64)>) -> Error {
    let remedy = "etcd's database is full: compact and defragment it, raise its \
                  --quota-backend-bytes if that is not enough, then `etcdctl alarm disarm`";
    if let Some((key, revision)) = proof {
        let request = RangeRequest { key, ..RangeRequest::default() };
        if let Ok(answer) = calls.range(request).await
            && answer.kvs.first().map_or(0, |kv| kv.mod_revision) == revision
        {
            return Error::Refused(remedy.to_owned());
        }
    }
    unknown(remedy)
}

fn unknown(why: &str) -> Error {
    let why = format!("{why}; whether it was done is not known");
    Error::Unavailable { why, tried: std::time::Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Change, Check};

    fn change(key: &str, value: Option<usize>) -> Change {
        Change { key: key.into(), value: value.map(|size| vec![b'x'; size]) }
    }

    #[test]
    fn what_no_store_takes_is_refused_here() {
        let refuse = |changes: Vec<Change>, words: &str| {
            let error = judge(&Transaction { checks: vec![], changes }, 3).unwrap_err();
            assert!(matches!(&error, Error::Refused(why) if why.contains(words)), "{error}");
        };
        refuse(vec![change("", Some(1))], "1 to 1024");
        refuse(vec![change(&"k".repeat(MAX_KEY + 1), Some(1))], "1 to 1024");
        refuse(vec![change("a", Some(MAX_VALUE + 1))], "a value of 262145 bytes");
        refuse(vec![change("a", Some(1)), change("a", None)], "a is changed twice");
        let many = (0..4).map(|at| change(&at.to_string(), None)).collect();
        refuse(many, "--max-txn-ops");
        let good = vec![change("a", Some(MAX_VALUE)), change(&"k".repeat(MAX_KEY), None)];
        assert_eq!(judge(&Transaction { checks: vec![], changes: good }, 3), Ok(()));
    }

    #[test]
    fn a_checked_and_written_key_is_the_proof() {
        let prefix = Prefix::try_from("p/".to_owned()).unwrap();
        let checks =
            vec![Check { key: "a".into(), revision: 1 }, Check { key: "b".into(), revision: 2 }];
        let transaction = Transaction { checks, changes: vec![change("b", Some(1))] };
        assert_eq!(proof(&prefix, &transaction), Some((b"p/b".to_vec(), 2)));
        assert_eq!(proof(&prefix, &Transaction::default()), None);
    }
}
