//! Watched routes on a real file system: whatever happens to the files, nothing that works is lost
//! and nothing is missed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the verdict"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mse_proxy::source::file::{Reload, Settings, Watched, read_once};
use mse_proxy::source::{RouteSet, Source};
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(20);

/// A source that runs, and what it has said last.
struct Watching {
    sets: mpsc::Receiver<RouteSet>,
    reload: Reload,
    last: RouteSet,
    told: usize,
}

impl Watching {
    async fn start(path: &Path) -> Self {
        Self::with(path, false).await
    }

    async fn with(path: &Path, strict: bool) -> Self {
        let reload = Reload::default();
        let settings = Settings { path: Some(path.to_owned()), strict };
        let (sender, mut sets) = mpsc::channel(16);
        let source = Watched::new(&settings, reload.clone()).unwrap();
        tokio::spawn(source.run(sender));
        let first = tokio::time::timeout(PATIENCE, sets.recv()).await.unwrap().unwrap();
        Self { sets, reload, last: first, told: 1 }
    }

    /// Waits until the source has said something that satisfies.
    async fn until(&mut self, what: &str, is_so: impl Fn(&RouteSet) -> bool) {
        let waiting = async {
            while !is_so(&self.last) {
                self.last = self.sets.recv().await.unwrap();
                self.told += 1;
            }
        };
        let done = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(done.is_ok(), "{what}; the last set was {:#?}", self.last);
    }

    async fn until_ids(&mut self, wanted: &[&str]) {
        let what = format!("{wanted:?} are the routes");
        self.until(&what, |set| ids(set) == wanted).await;
    }

    async fn until_fault(&mut self, words: &str) {
        let has =
            |set: &RouteSet| set.faults.iter().any(|fault| fault.kind.to_string().contains(words));
        self.until(&format!("a fault says `{words}`"), has).await;
    }
}

fn ids(set: &RouteSet) -> Vec<&str> {
    set.claims.iter().map(|claim| &*claim.route.id).collect()
}

fn route(host: &str) -> String {
    format!("[[route]]\nhosts = [\"{host}\"]\nbackends = [\"127.0.0.1:1\"]\n")
}

fn replace(path: &Path, text: &str) {
    let fresh = path.with_extension("new");
    fs::write(&fresh, text).unwrap();
    fs::rename(&fresh, path).unwrap();
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("routes.toml");
    (folder, path)
}

#[tokio::test]
async fn writes_in_place_and_atomic_renames_are_seen() {
    let (_folder, path) = folder();
    fs::write(&path, route("a.test")).unwrap();
    let mut watching = Watching::start(&path).await;
    assert_eq!(ids(&watching.last), ["a.test"]);
    for host in ["b.test", "c.test"] {
        fs::write(&path, route(host)).unwrap();
        watching.until_ids(&[host]).await;
    }
    // One rename after another: the first ends a watch that stood on the file itself.
    for host in ["d.test", "e.test", "f.test"] {
        replace(&path, &route(host));
        watching.until_ids(&[host]).await;
    }
}

#[tokio::test]
async fn a_config_map_is_followed_through_its_symlink_swaps() {
    let (folder, path) = folder();
    let publish = |version: u32, host: &str| {
        let data = folder.path().join(format!("..v{version}"));
        fs::create_dir(&data).unwrap();
        fs::write(data.join("routes.toml"), route(host)).unwrap();
        let fresh = folder.path().join("..data_tmp");
        symlink(format!("..v{version}"), &fresh).unwrap();
        fs::rename(&fresh, folder.path().join("..data")).unwrap();
        if version > 1 {
            fs::remove_dir_all(folder.path().join(format!("..v{}", version - 1))).unwrap();
        }
    };
    publish(1, "one.test");
    symlink("..data/routes.toml", &path).unwrap();
    let mut file = Watching::start(&path).await;
    let mut whole = Watching::start(folder.path()).await;
    for (version, host) in [(2, "two.test"), (3, "three.test"), (4, "four.test")] {
        publish(version, host);
        file.until_ids(&[host]).await;
        whole.until_ids(&[host]).await;
    }
}

#[tokio::test]
async fn a_link_into_another_folder_is_followed_there() {
    let (_folder, path) = folder();
    let elsewhere = tempfile::tempdir().unwrap();
    for (release, host) in [("1", "one.test"), ("2", "two.test")] {
        fs::create_dir(elsewhere.path().join(release)).unwrap();
        fs::write(elsewhere.path().join(release).join("r.toml"), route(host)).unwrap();
    }
    let current = elsewhere.path().join("current");
    symlink("1", &current).unwrap();
    symlink(current.join("r.toml"), &path).unwrap();
    let mut watching = Watching::start(&path).await;
    assert_eq!(ids(&watching.last), ["one.test"]);
    let fresh = elsewhere.path().join("fresh");
    symlink("2", &fresh).unwrap();
    fs::rename(&fresh, &current).unwrap();
    watching.until_ids(&["two.test"]).await;
    fs::write(elsewhere.path().join("2/r.toml"), route("three.test")).unwrap();
    watching.until_ids(&["three.test"]).await;
}

#[tokio::test]
async fn files_come_and_go_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("b.toml"), route("b.test")).unwrap();
    let mut watching = Watching::start(folder.path()).await;
    assert_eq!(ids(&watching.last), ["b.test"]);
    fs::write(at("a.toml"), route("a.test")).unwrap();
    watching.until_ids(&["a.test", "b.test"]).await;
    // None of these is a routes file.
    fs::write(at(".c.toml"), route("hidden.test")).unwrap();
    fs::write(at("c.toml~"), route("backup.test")).unwrap();
    fs::write(at("c.txt"), route("text.test")).unwrap();
    fs::write(at("c.toml"), route("c.test")).unwrap();
    watching.until_ids(&["a.test", "b.test", "c.test"]).await;
    fs::remove_file(at("b.toml")).unwrap();
    watching.until_ids(&["a.test", "c.test"]).await;
    fs::rename(at("c.toml"), at("0.toml")).unwrap();
    watching.until_ids(&["c.test", "a.test"]).await;
    assert!(watching.last.faults.is_empty());
}

#[tokio::test]
async fn a_burst_ends_in_its_last_state_with_few_sets() {
    let (_folder, path) = folder();
    fs::write(&path, route("start.test")).unwrap();
    let mut watching = Watching::start(&path).await;
    for number in 0..200 {
        replace(&path, &route(&format!("r{number}.test")));
    }
    watching.until_ids(&["r199.test"]).await;
    assert!(watching.told < 40, "200 writes became {} sets", watching.told);
}

#[tokio::test]
async fn a_half_written_file_is_a_fault_until_it_is_whole() {
    let (_folder, path) = folder();
    let whole = route("a.test") + &route("b.test");
    fs::write(&path, &whole[..whole.len() - 9]).unwrap();
    let mut watching = Watching::start(&path).await;
    assert!(watching.last.claims.is_empty() && !watching.last.faults.is_empty());
    fs::write(&path, &whole).unwrap();
    watching.until_ids(&["a.test", "b.test"]).await;
    // Half-written again: what was good stays.
    fs::write(&path, &whole[..30]).unwrap();
    watching.until("a fault is told", |set| !set.faults.is_empty()).await;
    assert_eq!(ids(&watching.last), ["a.test", "b.test"]);
    fs::write(&path, route("c.test")).unwrap();
    watching.until_ids(&["c.test"]).await;
    assert!(watching.last.faults.is_empty());
}

#[tokio::test]
async fn nothing_empties_the_table_by_accident() {
    let (_folder, path) = folder();
    fs::write(&path, route("a.test")).unwrap();
    let mut watching = Watching::start(&path).await;
    fs::write(&path, "").unwrap();
    watching.until_fault("half-written").await;
    assert_eq!(ids(&watching.last), ["a.test"]);
    fs::remove_file(&path).unwrap();
    watching.until_fault("No such file").await;
    assert_eq!(ids(&watching.last), ["a.test"]);
    fs::create_dir(&path).unwrap();
    watching.until_fault("no *.toml any more").await;
    assert_eq!(ids(&watching.last), ["a.test"]);
    fs::remove_dir(&path).unwrap();
    fs::write(&path, b"\xff\xfe").unwrap();
    watching.until_fault("not UTF-8 from byte 0").await;
    assert_eq!(ids(&watching.last), ["a.test"]);
    symlink("/nowhere/routes.toml", path.with_extension("link")).unwrap();
    fs::rename(path.with_extension("link"), &path).unwrap();
    watching.until_fault("No such file").await;
    assert_eq!(ids(&watching.last), ["a.test"]);
    replace(&path, &route("b.test"));
    watching.until_ids(&["b.test"]).await;
    // On purpose is another matter.
    fs::write(&path, "# no routes any more\n").unwrap();
    watching.until_ids(&[]).await;
    assert!(watching.last.faults.is_empty());
}

#[tokio::test]
async fn a_folder_that_loses_all_its_files_keeps_its_routes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mount");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("a.toml"), route("a.test")).unwrap();
    let mut watching = Watching::start(&path).await;
    fs::remove_file(path.join("a.toml")).unwrap();
    watching.until_fault("missing mount").await;
    assert_eq!(ids(&watching.last), ["a.test"]);
    fs::remove_dir(&path).unwrap();
    watching.until_fault("No such file").await;
    assert_eq!(ids(&watching.last), ["a.test"]);
    // Another folder takes its place: the watch must follow.
    fs::create_dir(&path).unwrap();
    fs::write(path.join("b.toml"), route("b.test")).unwrap();
    watching.until_ids(&["b.test"]).await;
    fs::write(path.join("b.toml"), route("c.test")).unwrap();
    watching.until_ids(&["c.test"]).await;
}

#[tokio::test]
async fn one_bad_file_or_route_leaves_the_others_alone() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("a.toml"), route("a.test")).unwrap();
    fs::write(at("b.toml"), route("b.test")).unwrap();
    let mut watching = Watching::start(folder.path()).await;
    fs::write(at("b.toml"), "[[route]\n").unwrap();
    watching.until("a fault is told", |set| !set.faults.is_empty()).await;
    assert_eq!(ids(&watching.last), ["a.test", "b.test"]);
    let half = route("c.test") + "[[route]]\nhosts = [\"d.test\"]\nbackend = [\"127.0.0.1:1\"]\n";
    fs::write(at("c.toml"), half).unwrap();
    watching.until_ids(&["a.test", "b.test", "c.test"]).await;
    let words: Vec<String> = watching
        .last
        .faults
        .iter()
        .map(|fault| format!("{}: {}", fault.place.origin, fault.kind))
        .collect();
    assert!(words.iter().any(|words| words.contains("c.toml:6:1") && words.contains("did you mean `backends`?")), "{words:#?}");
    // Pipes and folders in the place of files block nobody.
    fs::create_dir(at("d.toml")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, at("e.toml"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    fs::write(at("f.toml"), route("f.test")).unwrap();
    watching.until_ids(&["a.test", "b.test", "c.test", "f.test"]).await;
    fs::write(at("b.toml"), route("g.test")).unwrap();
    watching.until_ids(&["a.test", "g.test", "c.test", "f.test"]).await;
}

#[tokio::test]
async fn strict_keeps_the_last_good_set_as_a_whole() {
    let (_folder, path) = folder();
    fs::write(&path, route("a.test")).unwrap();
    let mut watching = Watching::with(&path, true).await;
    fs::write(&path, route("b.test") + "[[route]]\nhosts = []\n").unwrap();
    watching.until("a fault is told", |set| !set.faults.is_empty()).await;
    assert_eq!(ids(&watching.last), ["a.test"]);
    // Two routes that claim one name are a fault as well.
    fs::write(&path, route("b.test") + &route("b.test")).unwrap();
    watching.until_fault("b.test is already claimed").await;
    assert_eq!(ids(&watching.last), ["a.test"]);
    fs::write(&path, route("b.test")).unwrap();
    watching.until_ids(&["b.test"]).await;
}

#[tokio::test]
async fn a_path_that_does_not_exist_yet_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("later/deeper/routes.toml");
    let mut watching = Watching::start(&path).await;
    assert!(watching.last.claims.is_empty() && watching.last.faults.len() == 1);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, route("a.test")).unwrap();
    watching.until_ids(&["a.test"]).await;
}

#[tokio::test]
async fn asked_to_reload_it_reads_what_seems_unchanged() {
    let (_folder, path) = folder();
    fs::write(&path, route("a.test")).unwrap();
    let mut watching = Watching::start(&path).await;
    watching.reload.now();
    let again = tokio::time::timeout(PATIENCE, watching.sets.recv()).await.unwrap().unwrap();
    assert_eq!(again, watching.last);
}

#[test]
fn the_example_files_have_no_faults() {
    let set = read_once(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/config/routes.toml")));
    assert!(set.faults.is_empty(), "{:#?}", set.faults);
    assert!(set.claims.len() >= 3);
}
