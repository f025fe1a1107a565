//! `History`: who changed what and when, as the store has kept it.
//!
//! Records are read a hundred at a time and told until a page is full, so that neither a long
//! history nor large records make this process hold more than a page and a hundred records.

use tonic::Status;

use crate::control::{proto, status};
use crate::registry::history::{Head, Kept, Record};
use crate::registry::keys;
use crate::store::{Entry, Shared};

/// How many records a page has if nobody says how many, and at the most.
const PAGE: usize = 1_000;
const MOST: usize = 10_000;
/// A page with this many bytes is full: clients take messages of 4 MiB if nobody tells them otherwise,
/// and one record may have 256 KiB, which are told twice.
const FULL: usize = 2 << 20;
/// Records whose keys begin alike but for two digits.
const BLOCK: u64 = 100;

/// One page of the history.
pub(super) async fn page(
    store: &Shared,
    request: &proto::HistoryRequest,
) -> Result<proto::HistoryResponse, Status> {
    let most = match usize::try_from(request.page_size) {
        Ok(0) => PAGE,
        Ok(size) => size.min(MOST),
        Err(_) => MOST,
    };
    let mut answer = proto::HistoryResponse::default();
    let Some(head) = head(store).await? else { return Ok(answer) };
    answer.head_number = head.number;
    answer.head_digest = unhex(&head.digest);
    answer.oldest = head.oldest;
    // Whoever has read before the oldest that is kept has missed some.
    if request.after > 0 && request.after.saturating_add(1) < head.oldest {
        return Err(Status::out_of_range(format!(
            "records before number {} are no longer kept",
            head.oldest
        )));
    }
    let first = (request.after.saturating_add(1)).max(head.oldest);
    let mut size = 0;
    for block in first / BLOCK..=head.number / BLOCK {
        let prefix = block_of(block);
        let range = store.range(&prefix).await.map_err(|error| status::of_store(&error))?;
        for entry in range.entries {
            let is_due = |number: &u64| (first..=head.number).contains(number);
            let Some(number) = keys::record_number(&entry.key).filter(is_due) else { continue };
            let told = record(number, entry);
            if !request.id.is_empty() && !told.changes.iter().any(|change| change.id == request.id)
            {
                continue;
            }
            if answer.records.len() == most || size >= FULL {
                answer.more = true;
                return Ok(answer);
            }
            size += told.stored.len();
            answer.records.push(told);
        }
    }
    Ok(answer)
}

async fn head(store: &Shared) -> Result<Option<Head>, Status> {
    let entry = store.get(keys::HEAD).await.map_err(|error| status::of_store(&error))?;
    let Some(entry) = entry else { return Ok(None) };
    Head::read(&entry.value).map(Some).map_err(|error| Status::data_loss(error.to_string()))
}

/// What the keys of a block begin with.
fn block_of(block: u64) -> String {
    let mut key = keys::record(block.saturating_mul(BLOCK));
    // The last two digits.
    key.truncate(key.len() - 2);
    key
}

/// A record; one that cannot be read is told by its bytes alone, for whoever verifies.
fn record(number: u64, entry: Entry) -> proto::HistoryRecord {
    let Entry { value: stored, revision, .. } = entry;
    let Ok(Record { at, by, request, changes, .. }) = Record::read(&stored) else {
        return proto::HistoryRecord {
            number,
            revision,
            stored,
            ..proto::HistoryRecord::default()
        };
    };
    let changes = changes.into_iter().map(|change| proto::history_record::Change {
        id: change.id,
        before: change.before.unwrap_or_default(),
        after: change.after.unwrap_or_default(),
    });
    proto::HistoryRecord {
        number,
        revision,
        at: at.to_string(),
        by,
        request_id: request,
        changes: changes.collect(),
        stored,
    }
}

/// The bytes of a digest; what is no hexadecimal gives none, which no record has.
fn unhex(digest: &str) -> Vec<u8> {
    let pairs = digest.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).ok());
    let bytes = pairs.map(|pair| u8::from_str_radix(pair?, 16).ok());
    bytes.collect::<Option<_>>().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_has_a_hundred_records() {
        for number in [0, 1, 99, 100, 12_345] {
            assert!(keys::record(number).starts_with(&block_of(number / BLOCK)));
            assert!(!keys::record(number + BLOCK).starts_with(&block_of(number / BLOCK)));
        }
    }

    #[test]
    fn digests_become_bytes() {
        assert_eq!(unhex("00ff10"), [0, 255, 16]);
        assert_eq!((unhex(""), unhex("xy"), unhex("ä")), (vec![], vec![], vec![]));
    }
}
