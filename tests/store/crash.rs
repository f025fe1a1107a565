//! `kill -9` at any moment: what was acknowledged is there and whole, and nothing else is.
//!
//! The child writes sets: four keys of one content, a head that counts them, and the removal of
//! an old set, all in one transaction, and says so after the answer. Whatever it was doing when it
//! was killed, each writer's head is that of its last acknowledged set or of the one after, and
//! exactly the sets that belong to that head are there. A killed process leaves its writes in the
//! kernel, so that an answer waits for the disk is looked at separately.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use mse_proxy::store::embedded::Embedded;
use mse_proxy::store::{Change, Check, Committed, Entry, Range, Revision, Store, Transaction};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::child::{Other, role, say, start};

const WRITERS: usize = 6;
const PARTS: usize = 4;
/// How many sets of a writer there are at a time.
const KEPT: u64 = 3;

/// What a part of a set holds: now some bytes, now several pages.
fn content(writer: usize, number: u64, part: usize) -> Vec<u8> {
    let size = (number * 37 + part as u64 * 1_009) % 97 * 61 + 1;
    format!("{writer} {number} {part};")
        .into_bytes()
        .into_iter()
        .cycle()
        .take(usize::try_from(size).unwrap())
        .collect()
}

fn head(writer: usize) -> String {
    format!("head/{writer}")
}

fn part(writer: usize, number: u64, part: usize) -> String {
    format!("set/{writer}/{number:08}/{part}")
}

/// Writes sets, up to this many, and says each that is acknowledged.
async fn write(store: &Embedded, writer: usize, most: u64) {
    let last = store.get(&head(writer)).await.unwrap();
    let (mut number, mut revision) = last.map_or((0, 0), |entry| (count(&entry), entry.revision));
    for _ in 0..most {
        number += 1;
        let mut changes =
            vec![Change { key: head(writer), value: Some(number.to_string().into_bytes()) }];
        for at in 0..PARTS {
            let value = Some(content(writer, number, at));
            changes.push(Change { key: part(writer, number, at), value });
            if number > KEPT {
                changes.push(Change { key: part(writer, number - KEPT, at), value: None });
            }
        }
        let checks = vec![Check { key: head(writer), revision }];
        match store.commit(Transaction { checks, changes }).await.unwrap() {
            Committed::Done(done) => revision = done,
            Committed::Conflict => panic!("nobody else writes here"),
        }
        say(format_args!("{writer} {number} {revision}"));
    }
}

/// The child's role.
fn write_all(path: &Path, writers: usize, most: u64) {
    say("opening");
    let store = Embedded::open(path).unwrap();
    let writing = (0..writers).map(|writer| write(&store, writer, most));
    Runtime::new().unwrap().block_on(futures_util::future::join_all(writing));
}

fn count(entry: &Entry) -> u64 {
    str::from_utf8(&entry.value).unwrap().parse().unwrap()
}

/// The last set of each writer that is known to be acknowledged, and its revision.
type Acknowledged = BTreeMap<usize, (u64, Revision)>;

/// Hears what the child has acknowledged, up to some number of sets.
fn hear(child: &mut Other, most: usize, acknowledged: &mut Acknowledged) -> usize {
    let mut heard = 0;
    while heard < most
        && let Some(line) = child.hear()
    {
        let words: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        if let [writer, number, revision] = words[..] {
            acknowledged.insert(usize::try_from(writer).unwrap(), (number, revision));
            heard += 1;
        }
    }
    heard
}

/// Looks at what is in the file, which is what counts from then on.
fn judge(path: &Path, acknowledged: &mut Acknowledged) {
    let store = Embedded::open(path).unwrap();
    let Range { revision, entries } = Runtime::new().unwrap().block_on(store.range("")).unwrap();
    let mut found: BTreeMap<String, Entry> =
        entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
    for writer in 0..WRITERS {
        let (number, written) = acknowledged.get(&writer).copied().unwrap_or_default();
        let head = found.remove(&head(writer));
        let there = head.as_ref().map_or(0, count);
        assert!(
            there == number || there == number + 1,
            "writer {writer}: {number} was acknowledged, {there} is there"
        );
        let Some(head) = head else { continue };
        assert!(there != number || head.revision == written, "{head:?} and not {written}");
        assert!(head.revision <= revision);
        for number in there.saturating_sub(KEPT - 1).max(1)..=there {
            for at in 0..PARTS {
                let entry = found.remove(&part(writer, number, at));
                let entry = entry.unwrap_or_else(|| panic!("{writer} {number} {at} is lost"));
                assert!(entry.value == content(writer, number, at), "{}", entry.key);
                assert!(number != there || entry.revision == head.revision, "{}", entry.key);
            }
        }
        acknowledged.insert(writer, (there, head.revision));
    }
    assert!(found.is_empty(), "left over: {:?}", found.keys());
}

#[test]
fn a_killed_writer_loses_nothing_acknowledged() {
    if let Some(path) = role() {
        return write_all(&path, WRITERS, u64::MAX);
    }
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store.db");
    let mut acknowledged = Acknowledged::new();
    let mut heard = 0;
    for round in 0_u32..40 {
        let mut child = start("crash::a_killed_writer_loses_nothing_acknowledged", &path, &[]);
        // Now while it opens, now in the middle of many commits.
        let most = [0, 1, 7, 40, 150][round as usize % 5];
        while child.hear().is_some_and(|line| line != "opening") {}
        heard += hear(&mut child, most, &mut acknowledged);
        spin(Duration::from_micros(u64::from(round * 7_919 % 4_001)));
        child.kill();
        heard += hear(&mut child, usize::MAX, &mut acknowledged);
        judge(&path, &mut acknowledged);
    }
    assert!(heard > 1_000, "there was something to lose: {heard}");
}

/// Lets a moment pass, precisely: not to wait for anything, but to choose the moment of a death.
fn spin(moment: Duration) {
    let until = Instant::now() + moment;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

/// The child dies at its first, second, third... call of everything that changes a file, from the
/// making of the store on.
#[test]
fn a_death_at_any_system_call_leaves_a_whole_store() {
    if let Some(path) = role() {
        return write_all(&path, 1, 4);
    }
    let calls =
        ["pwrite64", "fdatasync", "fsync", "ftruncate", "fallocate", "rename,renameat,renameat2"];
    let deaths: Vec<(&str, u32)> = thread::scope(|scope| {
        let dying = calls.map(|call| scope.spawn(move || (call, die_at_each(call))));
        dying.into_iter().map(|deaths| deaths.join().unwrap()).collect()
    });
    for (call, deaths) in deaths {
        assert!(deaths >= if call == "pwrite64" { 20 } else { 1 }, "{call}: {deaths}");
    }
}

/// How many calls of a kind the child makes: at each of them, one died.
fn die_at_each(call: &str) -> u32 {
    for nth in 1.. {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("store.db");
        let inject = format!("inject={call}:signal=KILL:when={nth}");
        let trace = format!("trace={call}");
        let under = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
        let test = "crash::a_death_at_any_system_call_leaves_a_whole_store";
        let mut child = start(test, &path, &under);
        let mut acknowledged = Acknowledged::new();
        let heard = hear(&mut child, usize::MAX, &mut acknowledged);
        let is_done = child.ended_well();
        assert!(!is_done || heard == 4, "it says what it has done: {heard}");
        judge(&path, &mut acknowledged);
        if is_done {
            return nth - 1;
        }
    }
    unreachable!("the calls of a kind are not without end")
}

#[test]
fn an_answer_comes_after_the_disk_has_it() {
    if let Some(path) = role() {
        return write_all(&path, 1, 20);
    }
    let folder = TempDir::new().unwrap();
    let trace = folder.path().join("trace");
    let under = [
        "strace",
        "-f",
        "-qq",
        "-o",
        trace.to_str().unwrap(),
        "-e",
        "trace=fdatasync,pwrite64,write",
    ];
    let test = "crash::an_answer_comes_after_the_disk_has_it";
    let mut child = start(test, &folder.path().join("store.db"), &under);
    assert_eq!(hear(&mut child, usize::MAX, &mut Acknowledged::new()), 20);
    assert!(child.ended_well());
    let (mut answers, mut unsynced, mut syncs) = (0, false, 0);
    for line in fs::read_to_string(trace).unwrap().lines() {
        let is_done = line.ends_with("= 0");
        if line.contains("pwrite64(") {
            unsynced = true;
        } else if line.contains("fdatasync") && is_done {
            (unsynced, syncs) = (false, syncs + 1);
        } else if line.contains("write(1, \"child: 0 ") {
            assert!(!unsynced && syncs > 0, "answer {answers}: {line}");
            (answers, syncs) = (answers + 1, 0);
        }
    }
    assert_eq!(answers, 20);
}

/// Many who wait at once share commits: with each on its own there would be two syncs for each.
#[test]
fn who_waits_together_is_committed_together() {
    const CALLERS: usize = 1_000;
    if let Some(path) = role() {
        return write_all(&path, CALLERS, 1);
    }
    let folder = TempDir::new().unwrap();
    let trace = folder.path().join("trace");
    let under = ["strace", "-f", "-qq", "-o", trace.to_str().unwrap(), "-e", "trace=fdatasync"];
    let test = "crash::who_waits_together_is_committed_together";
    let mut child = start(test, &folder.path().join("store.db"), &under);
    assert_eq!(hear(&mut child, usize::MAX, &mut Acknowledged::new()), CALLERS);
    assert!(child.ended_well());
    let trace = fs::read_to_string(trace).unwrap();
    let syncs = trace.lines().filter(|line| line.ends_with("= 0")).count();
    assert!((2..CALLERS).contains(&syncs), "{syncs}");
}
