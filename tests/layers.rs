//! The floors: every file imports only from lower floors, or from rooms of its own floor that are
//! written before its own; inside a room there is no loop; pure rooms name no socket, file or
//! clock; and some rooms never know some others. Reads the sources as text, with std alone.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the verdict"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Every room, from the lowest floor up, those to come included. On one floor, rooms may import
/// from those before them.
const FLOORS: [&[&str]; 9] = [
    &["hostname", "clock", "units", "nearest", "systemd", "watch"],
    &["endpoint", "wire"],
    &["store", "resolve", "outcome", "routing"],
    &["registry", "source", "admission", "telemetry"],
    &["probe", "proxy"],
    &["reconcile", "registrar", "admin", "control", "upgrade"],
    &["config"],
    &["server"],
    &["cli"],
];

/// Who never knows whom, whatever the floors would allow.
const NEVER: [(&str, &[&str]); 2] = [
    ("proxy", &["source", "registry", "store", "admission", "probe", "control", "admin", "config"]),
    ("source", &["telemetry"]),
];

/// Rooms and files that know no socket, file or clock.
const PURE: [&str; 17] = [
    "hostname",
    "units",
    "nearest",
    "endpoint",
    "wire",
    "outcome",
    "routing",
    "admission",
    "registry",
    "source::document",
    "source::fault",
    "source::instant",
    "source::place",
    "source::values",
    "proxy::cohort",
    "proxy::connections",
    "proxy::handle",
];

/// What IO looks like. Addresses are values, and channels are no IO.
const IO: [&str; 13] = [
    "std::fs",
    "fs::read",
    "File::open",
    "std::net::Tcp",
    "std::net::Udp",
    "TcpStream",
    "TcpListener",
    "UnixStream",
    "tokio::net",
    "tokio::fs",
    "SystemTime::now",
    "Instant::now",
    "Timestamp::now",
];

const MAX_LINES: usize = 600;

struct Source {
    /// `proxy::relay::pump`; `mod.rs` and `lib.rs` stand for their folder.
    module: String,
    text: String,
}

impl Source {
    fn room(&self) -> &str {
        self.module.split("::").next().unwrap()
    }

    /// The code without tests, comments and their examples.
    fn product(&self) -> String {
        let text = self.text.split("#[cfg(test)]").next().unwrap();
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        lines.collect::<Vec<_>>().join("\n")
    }
}

fn sources() -> Vec<Source> {
    fn walk(folder: &Path, prefix: &str, found: &mut Vec<Source>) {
        let mut entries: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let module = if prefix.is_empty() { name.clone() } else { format!("{prefix}::{name}") };
            if path.is_dir() {
                walk(&path, &module, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let module = if name == "mod" { prefix.to_owned() } else { module };
                found.push(Source { module, text: fs::read_to_string(&path).unwrap() });
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut found);
    found
}

/// The modules of this crate that some code names: `crate::a::b`, groups and `super` included.
fn imports(module: &str, code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        paths("", &code[at + "crate::".len()..], &mut found);
    }
    for (at, _) in code.match_indices("super::") {
        if code[..at].ends_with("super::") {
            continue;
        }
        let mut rest = &code[at..];
        let mut parent: Vec<&str> = module.split("::").collect();
        while let Some(after) = rest.strip_prefix("super::") {
            parent.pop();
            rest = after;
        }
        paths(&parent.join("::"), rest, &mut found);
    }
    found
}

/// Reads one path, or a group of them, and adds what it leads to.
fn paths(prefix: &str, code: &str, found: &mut BTreeSet<String>) {
    let join = |prefix: &str, word: &str| match (prefix, word) {
        ("", word) => word.to_owned(),
        (prefix, "") => prefix.to_owned(),
        (prefix, word) => format!("{prefix}::{word}"),
    };
    if let Some(group) = code.strip_prefix('{') {
        let mut depth = 0;
        let mut start = 0;
        for (at, letter) in group.char_indices() {
            match letter {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    let item = group[start..at].trim();
                    if !item.is_empty() {
                        paths(prefix, item, found);
                    }
                    start = at + 1;
                    if letter == '}' {
                        return;
                    }
                }
                _ => {}
            }
        }
        return;
    }
    let end =
        code.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(code.len());
    let path = join(prefix, &code[..end]);
    match code[end..].strip_prefix("::") {
        Some(rest) => paths(&path, rest, found),
        None => drop(found.insert(path)),
    }
}

fn rank(room: &str) -> Option<(usize, usize)> {
    FLOORS.iter().enumerate().find_map(|(floor, rooms)| {
        rooms.iter().position(|known| *known == room).map(|place| (floor, place))
    })
}

/// What is wrong with one file's imports.
fn judge(source: &Source) -> Vec<String> {
    let room = source.room();
    if ["main", "lib"].contains(&room) {
        return Vec::new();
    }
    let Some(own) = rank(room) else {
        return vec![format!("{}: no floor is known for this room", source.module)];
    };
    let code = source.product();
    let mut faults = Vec::new();
    for import in imports(&source.module, &code) {
        let other = import.split("::").next().unwrap();
        match rank(other) {
            _ if other == room => {}
            Some(theirs) if theirs < own => {}
            Some(_) => {
                faults.push(format!("{} imports {import}, which is not below it", source.module));
            }
            None => {}
        }
        let never = NEVER.iter().filter(|(who, _)| *who == room).flat_map(|(_, whom)| *whom);
        if never.clone().any(|whom| *whom == other) {
            faults.push(format!("{} imports {import}, which it must never know", source.module));
        }
    }
    let is_pure = PURE
        .iter()
        .any(|pure| source.module == *pure || source.module.starts_with(&format!("{pure}::")));
    if is_pure {
        for word in IO.iter().filter(|word| code.contains(**word)) {
            faults.push(format!("{} is pure and names {word}", source.module));
        }
    }
    faults
}

#[test]
fn imports_run_downhill_and_pure_rooms_are_pure() {
    let all = sources();
    assert!(all.len() > 30, "the sources are read");
    let faults: Vec<String> = all.iter().flat_map(judge).collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn inside_a_room_there_is_no_loop() {
    let all = sources();
    let modules: BTreeSet<&str> = all.iter().map(|source| source.module.as_str()).collect();
    let folders: BTreeSet<&str> = modules
        .iter()
        .filter_map(|module| module.rsplit_once("::"))
        .map(|(folder, _)| folder)
        .collect();
    let mut edges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for source in &all {
        // A folder's own file names its parts, and re-exports of theirs.
        if folders.contains(source.module.as_str()) && source.module != "cli" {
            continue;
        }
        for import in imports(&source.module, &source.product()) {
            let target = modules
                .iter()
                .filter(|module| import == **module || import.starts_with(&format!("{module}::")))
                .max_by_key(|module| module.len());
            if let Some(target) =
                target.filter(|target| **target != source.module && !folders.contains(**target))
            {
                edges.entry(&source.module).or_default().insert(target);
            }
        }
    }
    for start in edges.keys() {
        let mut seen = BTreeSet::new();
        let mut open: Vec<&str> = edges[start].iter().copied().collect();
        while let Some(module) = open.pop() {
            assert_ne!(module, *start, "{start} imports itself by way of others: {edges:#?}");
            if seen.insert(module) {
                open.extend(edges.get(module).into_iter().flatten());
            }
        }
    }
}

#[test]
fn every_file_says_what_it_is_for_and_stays_small() {
    for source in sources() {
        let head = source.text.lines().take_while(|line| line.starts_with("//!")).count();
        let least = usize::from(source.module != "main") + 1;
        let most = if source.module == "lib" { 40 } else { 30 };
        assert!((least.min(1)..=most).contains(&head), "{}: {head} lines of //!", source.module);
        let lines = source.product().lines().count();
        assert!(lines <= MAX_LINES, "{}: {lines} lines", source.module);
        assert!(!source.module.ends_with("util"), "{}", source.module);
    }
}

#[test]
fn the_judge_can_say_no() {
    let judge_text =
        |module: &str, text: &str| judge(&Source { module: module.into(), text: text.into() });
    assert!(judge_text("wire::alert", "use crate::hostname::Hostname;").is_empty());
    assert!(judge_text("routing::route", "use crate::outcome::Outcome;").is_empty());
    assert!(judge_text("proxy::peek", "// use crate::config;").is_empty());
    assert!(
        judge_text("proxy::peek", "#[cfg(test)]\nmod tests { use crate::config::Config; }")
            .is_empty()
    );
    for (module, text) in [
        ("wire::alert", "use crate::routing::route::Route;"),
        ("outcome", "use crate::routing::route::Route;"),
        ("hostname", "use crate::{clock::{Clock, Timestamp}, units};"),
        ("proxy::peek", "use crate::{wire::alert::Alert, source::{RouteSet, file}};"),
        ("proxy::relay::pump", "fn f() -> crate::config::Config"),
        ("proxy::peek", "use super::super::config::Config;"),
        ("source::file", "use crate::telemetry::logging;"),
        ("routing::table", "use tokio::net::TcpStream;"),
        ("source::document", "fn f() { std::fs::read(\"x\") }"),
        ("wire::clock", "let now = Timestamp::now();"),
        ("util", "fn anything() {}"),
    ] {
        assert!(!judge_text(module, text).is_empty(), "{module}: {text}");
    }
}
