//! `route history --verify`: the whole chain of records, checked here and not by the proxy.
//!
//! The chain shows what was changed, taken out or put in. Whoever can write all of the store can
//! write a whole new chain as well: against that stands a digest that was noted elsewhere before
//! (`--known`).

use std::fmt::Write as _;
use std::str::FromStr;

use serde_json::json;

use crate::cli::progress::Progress;
use crate::cli::remote::Remote;
use crate::cli::report::print;
use crate::cli::words::{clean, counted};
use crate::cli::{Format, Status};
use crate::control::client::Error;
use crate::control::proto::{HistoryRecord, HistoryRequest, HistoryResponse};
use crate::registry::digest::{digest, hexadecimal};
use crate::registry::history::Head;
use crate::registry::verify::{Broken, Chain};

/// Records of a page: some of them may be large.
const PAGE: u32 = 500;

/// A record as it was noted before: `number:digest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    number: u64,
    digest: String,
}

impl FromStr for Known {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fault = "write NUMBER:DIGEST, as --verify has printed it";
        let (number, digest) = text.split_once(':').ok_or(fault)?;
        let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = number.parse().map_err(|_| fault)?;
        if is_digest { Ok(Self { number, digest: digest.to_lowercase() }) } else { Err(fault) }
    }
}

/// What came of it.
struct Found {
    records: u64,
    oldest: u64,
    head: Head,
    /// What is wrong first, and with which record.
    fault: Option<(u64, String)>,
    /// Whether the record that was noted before is still there to be compared.
    known_is_kept: bool,
}

pub(super) async fn run(known: Option<&Known>, remote: &Remote) -> Result<Status, Error> {
    let found = walk(known, remote).await?;
    print(&match remote.voice.format {
        Format::Json => format!("{}\n", found.json()),
        Format::Table => found.prose(known, remote),
    });
    Ok(if found.fault.is_none() { Status::Done } else { Status::Refused })
}

async fn walk(known: Option<&Known>, remote: &Remote) -> Result<Found, Error> {
    let mut request = HistoryRequest { page_size: PAGE, ..HistoryRequest::default() };
    let mut page = remote.client.history(request.clone()).await?;
    let mut found = Found {
        records: 0,
        oldest: page.oldest,
        head: head(&page),
        fault: None,
        known_is_kept: false,
    };
    if page.head_number == 0 && page.records.is_empty() {
        return Ok(found);
    }
    let progress =
        Progress::new(page.head_number.saturating_sub(page.oldest) + 1, "checking", remote.voice);
    let mut chain = Chain::new(page.oldest);
    loop {
        for record in &page.records {
            if let Err(broken) = chain.check(record.number, &record.stored) {
                return Ok(found.broken(&broken));
            }
            if let Some(fault) = found.compare(known, record) {
                return Ok(Found { fault: Some((record.number, fault)), ..found });
            }
            found.records += 1;
            request.after = record.number;
            progress.step();
        }
        // Others write meanwhile: the end is that of the last page.
        found.head = head(&page);
        if !page.more || page.records.is_empty() {
            break;
        }
        page = remote.client.history(request.clone()).await?;
    }
    match chain.finish(&found.head) {
        Ok(()) => Ok(found),
        Err(broken) => Ok(found.broken(&broken)),
    }
}

fn head(page: &HistoryResponse) -> Head {
    let digest = hexadecimal(&page.head_digest);
    Head { number: page.head_number, digest, oldest: page.oldest }
}

impl Found {
    fn broken(self, broken: &Broken) -> Self {
        Self { fault: Some((broken.number(), broken.to_string())), ..self }
    }

    /// Whether a record is the one that was noted, but not as it was.
    fn compare(&mut self, known: Option<&Known>, record: &HistoryRecord) -> Option<String> {
        let known = known.filter(|known| known.number == record.number)?;
        self.known_is_kept = true;
        let is_same = known.digest == digest(&record.stored);
        let number = record.number;
        (!is_same).then(|| format!("record {number} or one before it is not what was noted down"))
    }

    fn prose(&self, known: Option<&Known>, remote: &Remote) -> String {
        let style = remote.voice.style;
        if let Some((_, fault)) = &self.fault {
            return format!(
                "{}: {}; {} before it are as they were written\n",
                style.bad("tampered with"),
                clean(fault),
                counted(self.records, "record")
            );
        }
        if self.records == 0 {
            return "there are no records yet\n".to_owned();
        }
        let mut text = format!(
            "{}: {} ({} to {}) are as they were written\n",
            style.good("verified"),
            counted(self.records, "record"),
            self.oldest,
            self.head.number
        );
        if let Some(known) = known.filter(|_| !self.known_is_kept) {
            let _ = writeln!(
                text,
                "{}: record {} is not kept any more and could not be compared",
                style.warning("but"),
                known.number
            );
        }
        let noted = format!("{}:{}", self.head.number, self.head.digest);
        let _ = writeln!(text, "  {} {}", style.faint("head"), style.strong(&noted));
        let hint = "note it down: --verify --known NUMBER:DIGEST compares it later";
        let _ = writeln!(text, "  {}", style.faint(hint));
        text
    }

    fn json(&self) -> serde_json::Value {
        let fault = self.fault.as_ref();
        json!({
            "verified": fault.is_none(),
            "records": self.records,
            "oldest": self.oldest,
            "head": { "number": self.head.number, "digest": self.head.digest },
            "known_is_kept": self.known_is_kept,
            "fault": fault.map(|(number, why)| json!({ "number": number, "why": why })),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_read_as_it_was_printed() {
        let digest = "0A".repeat(32);
        let known = Known { number: 17, digest: digest.to_lowercase() };
        assert_eq!(format!("17:{digest}").parse(), Ok(known));
        for text in ["", "17", "x:00", "17:00"] {
            assert!(text.parse::<Known>().is_err(), "{text}");
        }
    }
}
