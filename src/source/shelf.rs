//! The route files of one path, and what was last good in each.
//!
//! Reading is idempotent: a [`Shelf`] is asked to look again as often as somebody suspects a
//! change, opens only files whose fingerprint moved and parses only those whose bytes did. Nothing
//! here empties the table by accident: what vanished, is unreadable, hollow or no TOML keeps its
//! last good routes and says so; only a file that is gone from a folder that still has others
//! takes its routes with it. Blocking: to be called where that is allowed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tracing::info;

use crate::routing::claims::Claims;
use crate::routing::snapshot::Snapshot;
use crate::source::fault::{Fault, FaultKind};
use crate::source::guard::Guard;
use crate::source::place::Place;
use crate::source::sheet::Sheet;

/// The route files of one path.
#[derive(Debug)]
pub(super) struct Shelf {
    path: PathBuf,
    judgement: Judgement,
    sheets: BTreeMap<PathBuf, Sheet>,
    /// What was last told to be good.
    last_good: Claims,
}

/// How a new set is judged before it takes the place of the last good one.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    /// Whether one fault keeps it out.
    pub(super) strict: bool,
    /// What keeps it out if it takes too much away.
    pub(super) guard: Option<Guard>,
}

impl Shelf {
    pub(super) fn new(path: PathBuf, judgement: Judgement) -> Self {
        Self { path, judgement, sheets: BTreeMap::new(), last_good: Claims::default() }
    }

    /// Looks at every file, opens those that changed (all of them, if `again`), and tells what is
    /// wanted now.
    pub(super) fn look(&mut self, again: bool) -> (Claims, Vec<Fault>) {
        let kept = self.sheets.values().map(Sheet::routes).sum();
        let faults = match list(&self.path) {
            Err(error) => vec![self.fault(FaultKind::unreadable(&error, kept))],
            Ok(files) if files.is_empty() && kept > 0 => {
                vec![self.fault(FaultKind::NoFiles { kept })]
            }
            Ok(files) => {
                self.read(&files, again);
                self.sheets.values().flat_map(Sheet::faults).collect()
            }
        };
        let claims = self.sheets.values().flat_map(Sheet::passages).cloned().collect();
        self.judge(claims, faults, again)
    }

    /// How many routes are left out because something is wrong with them.
    pub(super) fn left_out(&self) -> usize {
        self.sheets.values().map(Sheet::left_out).sum()
    }

    /// Reads what is listed and lets go of what is not. `files` are sorted.
    fn read(&mut self, files: &[PathBuf], again: bool) {
        self.sheets.retain(|path, sheet| {
            let stays = files.binary_search(path).is_ok();
            if !stays {
                let routes = sheet.routes();
                info!(file = %path.display(), routes, "is gone, and its routes with it");
            }
            stays
        });
        for path in files {
            let sheet = self.sheets.entry(path.clone());
            sheet.or_insert_with(|| Sheet::new(path)).look(path, again);
        }
    }

    /// Decides whether the new set may take the place of the last good one.
    fn judge(
        &mut self,
        claims: Claims,
        mut faults: Vec<Fault>,
        is_asked: bool,
    ) -> (Claims, Vec<Fault>) {
        let strict = self.judgement.strict;
        if strict && faults.is_empty() {
            let conflicts = Snapshot::after(&Snapshot::default(), &claims).1;
            faults.extend(conflicts.into_iter().map(|(claim, conflict)| Fault {
                place: Place::of_origin(&claim.origin),
                kind: conflict.into(),
            }));
        }
        let kept = self.last_good.len();
        if strict && !faults.is_empty() {
            faults.push(self.fault(FaultKind::HeldBack { kept }));
            return (self.last_good.clone(), faults);
        }
        if claims.is_empty() && kept > 0 && !faults.is_empty() {
            faults.push(self.fault(FaultKind::NoneGood { kept }));
            return (self.last_good.clone(), faults);
        }
        let guard = self.judgement.guard.as_mut();
        if let Some(kind) = guard.and_then(|guard| guard.judge(&self.last_good, &claims, is_asked))
        {
            faults.push(self.fault(kind));
            return (self.last_good.clone(), faults);
        }
        self.last_good = claims.clone();
        (claims, faults)
    }

    fn fault(&self, kind: FaultKind) -> Fault {
        Fault { place: Place::of_source(&self.path.display().to_string().into()), kind }
    }
}

/// The files of a path: itself, or the `*.toml` of a folder, sorted by name.
fn list(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        if is_routes_file(&name) {
            files.push(path.join(name));
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Whether a file of a folder is meant to hold routes: not what editors and Kubernetes put beside
/// it (`.x.toml.swp`, `.#x.toml`, `x.toml~`, `..data`).
pub(super) fn is_routes_file(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.ends_with(b".toml") && !name.starts_with(b".")
}
