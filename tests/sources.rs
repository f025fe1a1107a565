//! The watched file or folder, on a real file system with the real watcher.
//!
//! Each test changes files as an operator, an editor or Kubernetes does, and waits for the set
//! that must follow. That something does *not* change is proven by asking for a reload and looking
//! at what is told then.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the verdict"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mse_proxy::clock::{Clock, SystemClock, Timestamp};
use mse_proxy::source::fault::FaultKind;
use mse_proxy::source::file::{self, Reload, Settings, Watched};
use mse_proxy::source::{RouteSet, Source};
use mse_proxy::units::Percent;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Far more than any machine needs: below the 30 s after which a look would hide a missed event.
const PATIENCE: Duration = Duration::from_secs(20);

struct Watching {
    dir: TempDir,
    sets: mpsc::Receiver<RouteSet>,
    reload: Reload,
    task: JoinHandle<()>,
}

impl Watching {
    /// Watches `path` in a new folder, which `prepare` fills first.
    fn start(path: &str, strict: bool, prepare: impl FnOnce(&Path)) -> Self {
        let settings = Settings { path: Some(path.into()), strict, ..Settings::default() };
        Self::with(settings, Arc::new(SystemClock), prepare)
    }

    /// Watches the path of the settings in a new folder, which `prepare` fills first.
    fn with(settings: Settings, clock: Arc<dyn Clock>, prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let (sender, sets) = mpsc::channel(16);
        let reload = Reload::default();
        let path = settings.path.map(|path| dir.path().join(path));
        let settings = Settings { path, ..settings };
        let source = Watched::new(&settings, reload.clone(), clock).unwrap();
        let task = tokio::spawn(source.run(sender));
        Self { dir, sets, reload, task }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn next(&mut self) -> RouteSet {
        let set = tokio::time::timeout(PATIENCE, self.sets.recv()).await;
        set.expect("no set came in time").expect("the source has ended")
    }

    /// Waits for a set with exactly these routes and as many faults.
    async fn until(&mut self, routes: &[&str], faults: usize) -> RouteSet {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while Instant::now() < deadline {
            let set = tokio::time::timeout(PATIENCE, self.sets.recv()).await;
            let Ok(Some(set)) = set else { break };
            if ids(&set) == routes && set.faults.len() == faults {
                return set;
            }
            seen.push((ids(&set).join(" "), told(&set)));
        }
        panic!("no set with {routes:?} and {faults} faults came, but {seen:#?}");
    }

    /// What is told if everything is read anew.
    async fn reloaded(&mut self) -> RouteSet {
        while self.sets.try_recv().is_ok() {}
        self.reload.now();
        self.next().await
    }
}

fn ids(set: &RouteSet) -> Vec<&str> {
    set.claims.routes().map(|route| &*route.id).collect()
}

fn told(set: &RouteSet) -> Vec<String> {
    set.faults.iter().map(|fault| format!("{}: {}", fault.place.origin, fault.kind)).collect()
}

fn route(id: &str) -> String {
    format!("[[route]]\nid = \"{id}\"\nhosts = [\"{id}.test\"]\nbackends = [\"127.0.0.1:1\"]\n")
}

fn routes(ids: &[&str]) -> String {
    ids.iter().map(|id| route(id)).collect()
}

/// As a careful program does it: a new file takes the old one's place at once.
fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(&beside, path).unwrap();
}

fn many(count: usize, first: &str) -> String {
    let ids = (0..count).map(|id| if id == 0 { first.to_owned() } else { format!("r{id}") });
    ids.map(|id| route(&id)).collect()
}

/// Where the passages of a set lie in memory: what is shared was neither read nor cloned.
fn addresses(set: &RouteSet) -> Vec<usize> {
    set.claims.passages().iter().map(mse_proxy::routing::claims::Passage::address).collect()
}

fn fill_file(dir: &Path) {
    fs::write(dir.join("routes.toml"), routes(&["a", "b"])).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_told_at_once_and_after_each_write_and_rename() {
    let mut watching = Watching::start("routes.toml", false, fill_file);
    let set = watching.next().await;
    assert_eq!((ids(&set), set.faults.len(), &*set.source), (vec!["a", "b"], 0, "file"));
    let path = watching.path("routes.toml");
    assert_eq!(
        set.claims.iter().nth(1).unwrap().origin.to_string(),
        format!("{}:5:1", path.display())
    );
    for round in 0..3 {
        let (written, renamed) = (format!("w{round}"), format!("r{round}"));
        fs::write(&path, route(&written)).unwrap();
        watching.until(&[&written], 0).await;
        replace(&path, &route(&renamed));
        watching.until(&[&renamed], 0).await;
    }
    // Removed and made anew, as some editors do.
    fs::remove_file(&path).unwrap();
    fs::write(&path, route("new")).unwrap();
    watching.until(&["new"], 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_does_not_exist_yet_is_told_and_awaited() {
    let mut watching = Watching::start("not/yet/routes.toml", false, |_| {});
    let set = watching.next().await;
    assert_eq!(ids(&set), Vec::<&str>::new());
    assert!(matches!(set.faults[0].kind, FaultKind::Gone { kept: 0 }), "{:?}", told(&set));
    fs::create_dir(watching.path("not")).unwrap();
    fs::create_dir(watching.path("not/yet")).unwrap();
    fs::write(watching.path("not/yet/routes.toml"), route("a")).unwrap();
    watching.until(&["a"], 0).await;
}

/// A version of a mounted `ConfigMap`, not yet in force.
fn config_map(mount: &Path, version: &str, files: &[(&str, String)]) {
    let folder = mount.join(version);
    fs::create_dir_all(&folder).unwrap();
    for (name, text) in files {
        fs::write(folder.join(name), text).unwrap();
    }
}

/// Puts it in force as the kubelet does, and removes the one before.
fn swap(mount: &Path, version: &str, before: Option<&str>) {
    symlink(version, mount.join("..data_tmp")).unwrap();
    fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    if let Some(before) = before {
        fs::remove_dir_all(mount.join(before)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubernetes_swaps_are_seen_each_time() {
    for path in ["mount/routes.toml", "mount", "link/routes.toml"] {
        let mut watching = Watching::start(path, false, |dir| {
            let mount = dir.join("mount");
            config_map(&mount, "..v0", &[("routes.toml", route("v0"))]);
            swap(&mount, "..v0", None);
            symlink("..data/routes.toml", mount.join("routes.toml")).unwrap();
            symlink("mount", dir.join("link")).unwrap();
        });
        watching.until(&["v0"], 0).await;
        let mount = watching.path("mount");
        for round in 1..5 {
            let (old, new) = (format!("..v{}", round - 1), format!("..v{round}"));
            config_map(&mount, &new, &[("routes.toml", route(&new[2..]))]);
            swap(&mount, &new, Some(&old));
            watching.until(&[&new[2..]], 0).await;
        }
        // The directory that the link leads to now is watched as well.
        fs::write(mount.join("..v4/routes.toml"), route("in-place")).unwrap();
        watching.until(&["in-place"], 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_into_another_folder_is_followed_there() {
    let elsewhere = tempfile::tempdir().unwrap();
    let current = elsewhere.path().join("current");
    for release in ["one", "two"] {
        fs::create_dir(elsewhere.path().join(release)).unwrap();
        fs::write(elsewhere.path().join(release).join("r.toml"), route(release)).unwrap();
    }
    symlink("one", &current).unwrap();
    for path in ["routes.d/routes.toml", "routes.d"] {
        let mut watching = Watching::start(path, false, |dir| {
            fs::create_dir(dir.join("routes.d")).unwrap();
            symlink(current.join("r.toml"), dir.join("routes.d/routes.toml")).unwrap();
        });
        watching.until(&["one"], 0).await;
        symlink("two", elsewhere.path().join("fresh")).unwrap();
        fs::rename(elsewhere.path().join("fresh"), &current).unwrap();
        watching.until(&["two"], 0).await;
        fs::write(elsewhere.path().join("two/r.toml"), route("three")).unwrap();
        watching.until(&["three"], 0).await;
        fs::write(elsewhere.path().join("two/r.toml"), route("two")).unwrap();
        fs::remove_file(&current).unwrap();
        symlink("one", &current).unwrap();
        watching.until(&["one"], 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_folder_come_and_go() {
    let mut watching = Watching::start("routes.d", false, |dir| {
        let folder = dir.join("routes.d");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("20-b.toml"), route("b")).unwrap();
        for name in [".hidden.toml", "x.toml~", "#x.toml#", ".#x.toml", "x.toml.bak", "README"] {
            fs::write(folder.join(name), route("never")).unwrap();
        }
        fs::create_dir(folder.join("below")).unwrap();
        fs::write(folder.join("below/x.toml"), route("never")).unwrap();
    });
    watching.until(&["b"], 0).await;
    fs::write(watching.path("routes.d/10-a.toml"), route("a")).unwrap();
    watching.until(&["a", "b"], 0).await;
    fs::write(watching.path("routes.d/20-b.toml"), routes(&["b", "c"])).unwrap();
    watching.until(&["a", "b", "c"], 0).await;
    fs::remove_file(watching.path("routes.d/10-a.toml")).unwrap();
    watching.until(&["b", "c"], 0).await;
    fs::rename(watching.path("routes.d/20-b.toml"), watching.path("routes.d/b.toml")).unwrap();
    let set = watching.until(&["b", "c"], 0).await;
    assert!(set.claims.iter().next().unwrap().origin.source.ends_with("/b.toml"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_ends_in_the_last_state_after_few_sets() {
    let mut watching = Watching::start("routes.toml", false, fill_file);
    watching.until(&["a", "b"], 0).await;
    let path = watching.path("routes.toml");
    let begun = Instant::now();
    let burst = tokio::task::spawn_blocking(move || {
        for round in 0..200 {
            fs::write(&path, route(&format!("r{round}"))).unwrap();
        }
    });
    burst.await.unwrap();
    let took = begun.elapsed();
    let mut sets = 0;
    loop {
        sets += 1;
        if ids(&watching.next().await) == ["r199"] {
            break;
        }
    }
    // A writer that was held up for 50 ms looks like one that has finished.
    assert!(sets <= 2 + took.as_millis() / 50, "{sets} sets in {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_half_written_harms_nothing() {
    let whole = routes(&["a", "b", "c"]);
    let half = &whole[..whole.len() - 8];
    let mut watching = Watching::start("routes.toml", false, |dir| {
        fs::write(dir.join("routes.toml"), half).unwrap();
    });
    let path = watching.path("routes.toml");
    let set = watching.until(&[], 1).await;
    assert!(matches!(set.faults[0].kind, FaultKind::NotToml(_)), "{:?}", told(&set));
    assert_eq!(set.faults[0].place.origin.line, 12);
    fs::write(&path, &whole).unwrap();
    watching.until(&["a", "b", "c"], 0).await;
    fs::write(&path, half).unwrap();
    watching.until(&["a", "b", "c"], 1).await;
    fs::write(&path, &whole).unwrap();
    watching.until(&["a", "b", "c"], 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_vanishes_stays_in_force_until_it_comes_back() {
    let mut watching = Watching::start("dir/routes.toml", false, |dir| {
        fs::create_dir(dir.join("dir")).unwrap();
        fill_file(&dir.join("dir"));
    });
    let path = watching.path("dir/routes.toml");
    watching.until(&["a", "b"], 0).await;
    fs::remove_file(&path).unwrap();
    let set = watching.until(&["a", "b"], 1).await;
    assert!(told(&set)[0].contains("does not exist"), "{:?}", told(&set));
    assert!(told(&set)[0].contains("the last good 2 routes stay"), "{:?}", told(&set));
    assert!(told(&set)[0].contains("to remove every route, leave a comment"), "{:?}", told(&set));
    // The same bytes again: the fault must go.
    fs::write(&path, routes(&["a", "b"])).unwrap();
    watching.until(&["a", "b"], 0).await;
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
    watching.until(&["a", "b"], 1).await;
    fs::create_dir(path.parent().unwrap()).unwrap();
    fs::write(&path, route("back")).unwrap();
    watching.until(&["back"], 0).await;
    // Another folder takes the place of the one that is watched.
    fs::create_dir(watching.path("other")).unwrap();
    fs::write(watching.path("other/routes.toml"), route("other")).unwrap();
    fs::rename(watching.path("dir"), watching.path("old")).unwrap();
    fs::rename(watching.path("other"), watching.path("dir")).unwrap();
    watching.until(&["other"], 0).await;
    fs::write(&path, route("more")).unwrap();
    watching.until(&["more"], 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_file_is_a_fault_and_a_comment_is_none() {
    let mut watching = Watching::start("routes.toml", false, fill_file);
    let path = watching.path("routes.toml");
    watching.until(&["a", "b"], 0).await;
    fs::write(&path, "").unwrap();
    let set = watching.until(&["a", "b"], 1).await;
    assert!(matches!(set.faults[0].kind, FaultKind::Hollow { kept: 2 }), "{:?}", told(&set));
    fs::write(&path, "# no routes for now\n").unwrap();
    watching.until(&[], 0).await;
    // Now there is nothing to lose.
    fs::write(&path, "").unwrap();
    assert_eq!(watching.reloaded().await.faults, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_loses_its_last_file_or_itself_stays_in_force() {
    let mut watching = Watching::start("routes.d", false, |dir| {
        fs::create_dir(dir.join("routes.d")).unwrap();
        fill_file(&dir.join("routes.d"));
    });
    let folder = watching.path("routes.d");
    watching.until(&["a", "b"], 0).await;
    fs::remove_file(folder.join("routes.toml")).unwrap();
    let set = watching.until(&["a", "b"], 1).await;
    assert!(matches!(set.faults[0].kind, FaultKind::NoFiles { kept: 2 }), "{:?}", told(&set));
    fs::remove_dir(&folder).unwrap();
    loop {
        let set = watching.next().await;
        assert_eq!(ids(&set), ["a", "b"]);
        if matches!(set.faults[..], [ref fault] if fault.kind == FaultKind::Gone { kept: 2 }) {
            break;
        }
    }
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("none.toml"), "# no routes for now\n").unwrap();
    watching.until(&[], 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_without_one_good_route_does_not_empty_the_table() {
    let mut watching = Watching::start("routes.d", false, |dir| {
        fs::create_dir(dir.join("routes.d")).unwrap();
        fill_file(&dir.join("routes.d"));
    });
    watching.until(&["a", "b"], 0).await;
    let path = watching.path("routes.d/routes.toml");
    let bad = routes(&["a", "b"]).replace("hosts", "host");
    fs::write(&path, &bad).unwrap();
    let set = watching.until(&["a", "b"], 5).await;
    assert!(matches!(set.faults[4].kind, FaultKind::NoneGood { kept: 2 }), "{:?}", told(&set));
    // One good route is a set; the bad ones are left out.
    fs::write(&path, bad + &route("c")).unwrap();
    watching.until(&["c"], 4).await;
    fs::remove_file(&path).unwrap();
    fs::write(watching.path("routes.d/renamed.toml"), "[[route").unwrap();
    watching.until(&["c"], 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_reads_and_tells_in_any_case() {
    let mut watching = Watching::start("routes.toml", false, fill_file);
    let first = watching.next().await;
    for _ in 0..3 {
        assert_eq!(watching.reloaded().await, first);
    }
    // Asking many times at once is asking once or twice.
    for _ in 0..100 {
        watching.reload.now();
    }
    assert_eq!(watching.next().await, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_takes_a_set_whole_or_not_at_all() {
    let mut watching = Watching::start("routes.d", true, |dir| {
        fs::create_dir(dir.join("routes.d")).unwrap();
        fs::write(dir.join("routes.d/a.toml"), routes(&["a", "x"]).replace("x.test", "*")).unwrap();
    });
    let path = |name: &str| watching.dir.path().join("routes.d").join(name);
    let (a, b) = (path("a.toml"), path("b.toml"));
    let set = watching.until(&[], 2).await;
    assert!(matches!(set.faults[1].kind, FaultKind::HeldBack { kept: 0 }), "{:?}", told(&set));
    fs::write(&a, routes(&["a", "x"])).unwrap();
    watching.until(&["a", "x"], 0).await;
    // A good new file does not come in beside a bad one.
    fs::write(&a, routes(&["a"]) + "mode = \"terminate\"\n").unwrap();
    watching.until(&["a", "x"], 2).await;
    fs::write(&b, route("b")).unwrap();
    let set = watching.reloaded().await;
    assert_eq!((ids(&set), set.faults.len()), (vec!["a", "x"], 2));
    fs::write(&a, route("a")).unwrap();
    watching.until(&["a", "b"], 0).await;
    // Two routes that claim the same name are a fault as well, at the later one's place.
    fs::write(&b, route("b").replace("b.test", "A.test")).unwrap();
    let set = watching.until(&["a", "b"], 2).await;
    assert!(told(&set)[0].contains("b.toml:1:1: a.test is already claimed"), "{:?}", told(&set));
    assert!(told(&set)[0].contains("a.toml:1:1"), "{:?}", told(&set));
    fs::remove_file(&b).unwrap();
    watching.until(&["a"], 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_stands_in_a_files_place_is_survived() {
    let mut watching = Watching::start("routes.toml", false, fill_file);
    let path = watching.path("routes.toml");
    watching.until(&["a", "b"], 0).await;
    let clear = || fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path)).unwrap();
    let stand_ins: [(&str, &dyn Fn()); 7] = [
        ("link to nothing", &|| symlink("nowhere", &path).unwrap()),
        ("symbolic links", &|| symlink("routes.toml", &path).unwrap()),
        ("no *.toml any more", &|| fs::create_dir(&path).unwrap()),
        ("is a pipe", &|| {
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)
                .unwrap();
        }),
        ("is a socket", &|| drop(std::os::unix::net::UnixListener::bind(&path).unwrap())),
        ("is a device", &|| symlink("/dev/zero", &path).unwrap()),
        ("is not UTF-8: byte 16", &|| fs::write(&path, b"[[route]]\nid = \"\xff\"\n").unwrap()),
    ];
    for (words, stand_in) in stand_ins {
        clear();
        stand_in();
        loop {
            let set = watching.next().await;
            assert_eq!(ids(&set), ["a", "b"], "{words}: {:?}", told(&set));
            if told(&set).len() == 1 && told(&set)[0].contains(words) {
                break;
            }
        }
        clear();
        fs::write(&path, routes(&["a", "b"])).unwrap();
        watching.until(&["a", "b"], 0).await;
    }
    fs::write(&path, b"[[route]]\nid = \"\xff\"\n").unwrap();
    let set = watching.until(&["a", "b"], 1).await;
    assert_eq!((set.faults[0].place.origin.line, set.faults[0].place.origin.column), (2, 7));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_file_among_many_costs_nobody_else() {
    let mut watching = Watching::start("routes.d", false, |dir| {
        let folder = dir.join("routes.d");
        fs::create_dir(&folder).unwrap();
        for id in ["a", "b", "c"] {
            fs::write(folder.join(id).with_extension("toml"), route(id)).unwrap();
        }
        fs::create_dir(folder.join("folder.toml")).unwrap();
        symlink("nowhere", folder.join("dangling.toml")).unwrap();
        symlink("loop.toml", folder.join("loop.toml")).unwrap();
        fs::write(folder.join("binary.toml"), [0xff; 100]).unwrap();
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        let pipe = folder.join("pipe.toml");
        rustix::fs::mknodat(rustix::fs::CWD, pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    });
    let set = watching.until(&["a", "b", "c"], 5).await;
    let faults = told(&set);
    let expected = [
        "binary.toml:1:1: is not UTF-8",
        "dangling.toml: does not exist",
        "folder.toml: is a folder",
        "loop.toml: cannot be read",
        "pipe.toml: is a pipe",
    ];
    for (fault, expected) in faults.iter().zip(expected) {
        assert!(fault.contains(expected), "{fault} / {expected}");
    }
    // A good file goes bad: its own last good routes stay, and the others move on.
    fs::write(watching.path("routes.d/b.toml"), "[[route").unwrap();
    watching.until(&["a", "b", "c"], 6).await;
    fs::write(watching.path("routes.d/c.toml"), route("d")).unwrap();
    watching.until(&["a", "b", "d"], 6).await;
    fs::write(watching.path("routes.d/b.toml"), routes(&["b", "b2"])).unwrap();
    watching.until(&["a", "b", "b2", "d"], 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_may_become_a_folder_and_a_folder_a_file() {
    let mut watching = Watching::start("routes.toml", false, fill_file);
    let path = watching.path("routes.toml");
    watching.until(&["a", "b"], 0).await;
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    fs::write(path.join("x.toml"), route("x")).unwrap();
    watching.until(&["x"], 0).await;
    fs::remove_dir_all(&path).unwrap();
    fs::write(&path, route("y")).unwrap();
    watching.until(&["y"], 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_ends_when_nobody_listens() {
    let Watching { dir: _dir, mut sets, task, .. } =
        Watching::start("routes.toml", false, fill_file);
    assert!(sets.recv().await.is_some());
    drop(sets);
    tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap();
}

/// A write through another name of the file makes no event where it is watched, as on a network
/// file system. Time is held: the 30 seconds pass as soon as there is nothing else to do.
#[tokio::test(start_paused = true)]
async fn what_inotify_does_not_tell_is_found_by_looking() {
    let mut watching = Watching::start("here/routes.toml", false, |dir| {
        fs::create_dir(dir.join("here")).unwrap();
        fs::create_dir(dir.join("there")).unwrap();
        fill_file(&dir.join("there"));
        fs::hard_link(dir.join("there/routes.toml"), dir.join("here/routes.toml")).unwrap();
    });
    assert_eq!(ids(&watching.next().await), ["a", "b"]);
    let begun = tokio::time::Instant::now();
    fs::write(watching.path("there/routes.toml"), route("c")).unwrap();
    let set = tokio::time::timeout(Duration::from_mins(5), watching.sets.recv()).await;
    assert_eq!(ids(&set.unwrap().unwrap()), ["c"]);
    assert!(begun.elapsed() >= Duration::from_secs(29), "{:?}", begun.elapsed());
}

#[test]
fn the_example_of_a_routes_file_is_free_of_faults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/routes.toml");
    let set = file::read_once(&path);
    assert_eq!(told(&set), Vec::<String>::new());
    assert_eq!(ids(&set), ["hello", "shop.example.com", "shop-acme"]);
    let conflicts = mse_proxy::routing::snapshot::Snapshot::build(set.claims.iter()).1;
    assert_eq!(conflicts, []);
    // Every key that this version knows is explained.
    let text = fs::read_to_string(path).unwrap();
    for key in [
        "hosts",
        "backends",
        "not_before",
        "expires_at",
        "grace",
        "id",
        "app",
        "mode",
        "alpn",
        "refusal",
        "max_connections",
    ] {
        assert!(text.lines().any(|line| line.starts_with(&format!("{key} = "))), "{key}");
    }
}

#[test]
fn reading_once_tells_what_cannot_be_read() {
    let set = file::read_once(Path::new("does/not/exist.toml"));
    assert_eq!(told(&set), ["does/not/exist.toml: does not exist, or is a link to nothing"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_did_not_change_is_shared_between_sets() {
    let count = 4_000;
    let mut watching = Watching::start("routes", false, |dir| {
        fs::create_dir(dir.join("routes")).unwrap();
        fs::write(dir.join("routes/a.toml"), many(count, "one")).unwrap();
        fs::write(dir.join("routes/b.toml"), route("b")).unwrap();
    });
    let before = watching.next().await;
    let (old, most) = (addresses(&before), before.claims.passages().len());
    assert!(most > 4, "{most} passages");
    // Another file: the first stays as it is.
    replace(&watching.path("routes/b.toml"), &route("c"));
    let after = watching.next().await;
    let new = addresses(&after);
    assert_eq!((&new[..most - 1], new.len()), (&old[..most - 1], most));
    assert_ne!(new[most - 1], old[most - 1]);
    // One route of very many: its passage alone is new, and even there the others are the same.
    replace(&watching.path("routes/a.toml"), &("\n\n".to_owned() + &many(count, "two")));
    let last = watching.next().await;
    let shared = addresses(&last).iter().filter(|address| new.contains(address)).count();
    assert!(shared + 3 >= most && shared < most, "{shared} of {most}");
    let pairs = after.claims.routes().zip(last.claims.routes());
    let replaced: Vec<_> =
        pairs.filter(|(one, other)| !std::sync::Arc::ptr_eq(one, other)).collect();
    assert_eq!(replaced.len(), 1);
    assert_eq!((&*replaced[0].0.id, &*replaced[0].1.id), ("one", "two"));
    let second = last.claims.iter().nth(1).unwrap();
    assert_eq!((&*second.route.id, second.origin.line), ("r1", 7));
}

/// A clock whose time since boot a test holds.
#[derive(Debug, Default)]
struct Held(Mutex<Duration>);

impl Held {
    fn pass(&self, time: Duration) {
        *self.0.lock().unwrap() += time;
    }
}

impl Clock for Held {
    fn now(&self) -> Timestamp {
        "2026-11-24T00:00:00Z".parse().unwrap()
    }

    fn since_boot(&self) -> Duration {
        *self.0.lock().unwrap()
    }
}

fn guarded(percent: i64, clock: &Arc<Held>, text: &str) -> Watching {
    let max_removed_percent = Percent::try_from(percent).unwrap();
    let path = Some("routes.toml".into());
    let settings = Settings { path, max_removed_percent, ..Settings::default() };
    let fill = |dir: &Path| fs::write(dir.join("routes.toml"), text).unwrap();
    Watching::with(settings, Arc::clone(clock) as _, fill)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_removes_too_much_waits_until_it_is_asked_for_twice_within_a_minute() {
    let clock = Arc::new(Held::default());
    let mut watching = guarded(50, &clock, &routes(&["a", "b", "c", "d"]));
    watching.until(&["a", "b", "c", "d"], 0).await;
    let path = watching.path("routes.toml");
    // Half of them may go.
    replace(&path, &routes(&["a", "b"]));
    watching.until(&["a", "b"], 0).await;
    replace(&path, &routes(&["a", "b", "c", "d"]));
    watching.until(&["a", "b", "c", "d"], 0).await;
    // Not more, whoever is new.
    replace(&path, &routes(&["a", "x", "y"]));
    let set = watching.until(&["a", "b", "c", "d"], 1).await;
    let words = "would remove 3 of 4 routes, and routes.max_removed_percent is 50: nothing of it \
                 applies; the last good 4 routes stay; to confirm it, reload twice within a minute";
    assert!(told(&set)[0].contains(words), "{:?}", told(&set));
    // Once is what a log rotation does every night.
    assert_eq!(ids(&watching.reloaded().await), ["a", "b", "c", "d"]);
    clock.pass(Duration::from_hours(24));
    assert_eq!(ids(&watching.reloaded().await), ["a", "b", "c", "d"]);
    // Another set than the one that was asked for before is not confirmed with it.
    replace(&path, &routes(&["x"]));
    watching.next().await;
    assert_eq!(ids(&watching.reloaded().await), ["a", "b", "c", "d"]);
    clock.pass(Duration::from_secs(50));
    let set = watching.reloaded().await;
    assert_eq!((ids(&set), set.faults.len()), (vec!["x"], 0));
    // From here on that is what is in force.
    replace(&path, &routes(&["x", "z"]));
    watching.until(&["x", "z"], 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_that_have_ended_may_all_be_tidied_up() {
    let clock = Arc::new(Held::default());
    let ended = |id: &str| route(id) + "expires_at = 2026-11-23T00:00:00Z\n";
    let text = routes(&["a", "b"]) + &ended("c") + &ended("d") + &ended("e");
    let mut watching = guarded(0, &clock, &text);
    watching.until(&["a", "b", "c", "d", "e"], 0).await;
    let path = watching.path("routes.toml");
    replace(&path, &routes(&["a", "b"]));
    watching.until(&["a", "b"], 0).await;
    replace(&path, &routes(&["a"]));
    watching.until(&["a", "b"], 1).await;
}
