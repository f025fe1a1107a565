//! How certificates lie on disk: folders, files, lists of both, links that are swung, and files that
//! cannot be read.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::process::geteuid;

use crate::daemon::until;
use crate::support::{Leaf, Scene, is_shown, text};

/// Points a link elsewhere in one step.
fn swing(target: impl AsRef<Path>, link: &Path) {
    let beside = link.parent().unwrap().join("swung");
    symlink(target, &beside).unwrap();
    fs::rename(beside, link).unwrap();
}

fn write(folder: &Path, names: [&str; 2], leaf: &Leaf) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join(names[0]), &leaf.chain).unwrap();
    fs::write(folder.join(names[1]), &leaf.key).unwrap();
}

/// Serves what lies at these paths of the scene.
fn serve(scene: &mut Scene, paths: &[&str]) {
    let paths: Vec<_> = paths.iter().map(|path| scene.path(path)).collect();
    let paths: Vec<_> = paths.iter().map(|path| text(path)).collect();
    let routes = scene.all_apps();
    scene.serve_with(&routes, &[("MSE_PROXY_TERMINATE_CERTIFICATES", &paths.join(","))]);
}

#[test]
fn folders_and_files_may_be_listed_and_each_is_watched() {
    let mut scene = Scene::new();
    let issue = |scene: &Scene, names: &[&str]| {
        names.iter().map(|name| scene.operator.issue(&[name])).collect::<Vec<_>>()
    };
    let hosts = ["a.apps.test", "b.apps.test", "c.apps.test", "d.apps.test"];
    let lay = |scene: &Scene, leaves: &[Leaf]| {
        write(&scene.path("one"), ["a.pem", "a.key"], &leaves[0]);
        write(&scene.path("two"), ["b.crt", "b.key"], &leaves[1]);
        write(&scene.path("three"), ["c.pem", "c.key"], &leaves[2]);
        let both = format!("{}{}", leaves[3].chain, leaves[3].key);
        fs::write(scene.path("three/d.txt"), both).unwrap();
    };
    let leaves = issue(&scene, &hosts);
    lay(&scene, &leaves);
    // Beside a file that is named nothing else counts.
    let other = scene.operator.issue(&["e.apps.test"]);
    write(&scene.path("three"), ["e.pem", "e.key"], &other);
    serve(&mut scene, &["one", "two", "three/c.pem", "three/d.txt"]);
    for (host, leaf) in hosts.iter().zip(&leaves) {
        assert!(is_shown(&scene, host, leaf), "{host}");
    }
    scene.connect("e.apps.test").unwrap_err();
    let fresh = issue(&scene, &hosts);
    lay(&scene, &fresh);
    for (host, leaf) in hosts.iter().zip(&fresh) {
        until("the new one answers", || is_shown(&scene, host, leaf));
    }
    // A path whose certificates are gone keeps them, whatever the others have.
    for name in ["a.pem", "a.key"] {
        fs::remove_file(scene.path("one").join(name)).unwrap();
    }
    fs::remove_file(scene.path("three/c.pem")).unwrap();
    scene.daemon().wait_seen("which looks like a missing mount");
    scene.daemon().wait_seen("it cannot be read: No such file or directory");
    assert!(is_shown(&scene, hosts[0], &fresh[0]) && is_shown(&scene, hosts[2], &fresh[2]));
}

#[test]
fn a_secret_of_kubernetes_is_swapped_by_its_link() {
    let mut scene = Scene::new();
    let mount = scene.path("mount");
    let (old, new) =
        (scene.operator.issue(&["a.apps.test"]), scene.operator.issue(&["a.apps.test"]));
    let names = ["tls.crt", "tls.key"];
    write(&mount.join("..v1"), names, &old);
    fs::write(mount.join("..v1/ca.crt"), &scene.operator.pem).unwrap();
    symlink("..v1", mount.join("..data")).unwrap();
    for name in ["tls.crt", "tls.key", "ca.crt"] {
        symlink(Path::new("..data").join(name), mount.join(name)).unwrap();
    }
    serve(&mut scene, &["mount"]);
    assert!(is_shown(&scene, "a.apps.test", &old));
    write(&mount.join("..v2"), names, &new);
    swing("..v2", &mount.join("..data"));
    fs::remove_dir_all(mount.join("..v1")).unwrap();
    until("the new one answers", || is_shown(&scene, "a.apps.test", &new));
    scene.daemon().admin();
    assert_eq!(scene.daemon().metric("mse_proxy_certificates{state=\"good\"}"), 1);
    // ca.crt, and that it is gone, is nobody's fault.
    assert_eq!(scene.daemon().metric("mse_proxy_certificates{state=\"faulty\"}"), 0);
}

#[test]
fn what_certbot_renews_is_taken_over_link_by_link() {
    let mut scene = Scene::new();
    let (live, archive) = (scene.path("live/a"), scene.path("archive/a"));
    fs::create_dir_all(&live).unwrap();
    let lay = |number: u32, leaf: &Leaf, ca: &str| {
        write(&archive, [&format!("cert{number}.pem"), &format!("privkey{number}.pem")], leaf);
        fs::write(archive.join(format!("chain{number}.pem")), ca).unwrap();
        let whole = leaf.chain.clone() + ca;
        fs::write(archive.join(format!("fullchain{number}.pem")), whole).unwrap();
        for name in ["cert", "privkey", "chain", "fullchain"] {
            let target = format!("../../archive/a/{name}{number}.pem");
            swing(target, &live.join(format!("{name}.pem")));
        }
    };
    let (old, new) =
        (scene.operator.issue(&["a.apps.test"]), scene.operator.issue(&["a.apps.test"]));
    lay(1, &old, &scene.operator.pem);
    fs::write(live.join("README"), "This directory contains your keys and certificates.").unwrap();
    serve(&mut scene, &["live/a"]);
    assert!(is_shown(&scene, "a.apps.test", &old));
    lay(2, &new, &scene.operator.pem);
    until("the new one answers", || is_shown(&scene, "a.apps.test", &new));
    scene.daemon().admin();
    scene.daemon().wait_metric("mse_proxy_certificates{state=\"faulty\"}", |count| count == 0);
    assert_eq!(scene.daemon().metric("mse_proxy_certificates{state=\"good\"}"), 1);
}

#[test]
fn a_whole_folder_is_swapped_by_its_link() {
    let mut scene = Scene::new();
    let names = ["a.pem", "a.key"];
    let (old, new) =
        (scene.operator.issue(&["a.apps.test"]), scene.operator.issue(&["a.apps.test"]));
    write(&scene.path("v1"), names, &old);
    write(&scene.path("v1"), ["b.pem", "b.key"], &scene.operator.issue(&["b.apps.test"]));
    write(&scene.path("v2"), names, &new);
    symlink("v1", scene.path("current")).unwrap();
    serve(&mut scene, &["current"]);
    assert!(is_shown(&scene, "a.apps.test", &old));
    scene.connect("b.apps.test").unwrap();
    swing("v2", &scene.path("current"));
    until("the new one answers", || is_shown(&scene, "a.apps.test", &new));
    scene.connect("b.apps.test").unwrap_err();
    // One that leads nowhere takes nothing away.
    swing("v3", &scene.path("current"));
    scene.daemon().wait_seen("it cannot be read: No such file or directory");
    assert!(is_shown(&scene, "a.apps.test", &new));
}

#[test]
fn a_pair_that_cannot_be_read_or_is_half_replaced_leaves_the_good_one() {
    let mut scene = Scene::new();
    let old = scene.operator.issue(&["a.apps.test"]);
    scene.install("a", &old);
    let routes = scene.all_apps();
    // Root may read everything, unless it is taken from it.
    let under = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
    if geteuid().is_root() {
        scene.serve_under(&under, &routes);
    } else {
        scene.serve(&routes);
    }
    let permit = |scene: &Scene, name: &str, mode: u32| {
        let path = scene.path("certificates").join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let fresh = scene.operator.issue(&["a.apps.test"]);
    for name in ["a.key", "a.pem"] {
        permit(&scene, name, 0);
        let told = scene.daemon().wait_log("it cannot be read: Permission denied");
        assert!(told.contains("a.pem") && told.contains("\"is_kept\":true"), "{told}");
        assert!(is_shown(&scene, "a.apps.test", &old), "{name}");
        permit(&scene, name, 0o600);
        scene.daemon().wait_log("faults of certificates were mended");
    }
    // The chain first: for a moment it stands beside the old key.
    scene.put("a.pem", &fresh.chain);
    let told = scene.daemon().wait_log("its key is not that of the certificate");
    assert!(told.contains("\"is_kept\":true"), "{told}");
    assert!(is_shown(&scene, "a.apps.test", &old));
    scene.put("a.key", &fresh.key);
    until("the new one answers", || is_shown(&scene, "a.apps.test", &fresh));
    // In place, cut in its middle, and whole again: it looks as it did, and its times do not.
    let path = scene.path("certificates/a.pem");
    fs::write(&path, &fresh.chain[..fresh.chain.len() / 2]).unwrap();
    scene.daemon().wait_log("it is no PEM");
    assert!(is_shown(&scene, "a.apps.test", &fresh));
    fs::write(&path, &fresh.chain).unwrap();
    scene.daemon().wait_log("faults of certificates were mended");
    // A folder, or what would keep its reader waiting, is no file.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    scene.daemon().wait_log("it cannot be read");
    assert!(is_shown(&scene, "a.apps.test", &fresh));
    fs::remove_dir(&path).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
    scene.daemon().admin();
    scene.daemon().wait_metric("mse_proxy_certificates{state=\"faulty\"}", |count| count == 1);
    assert!(is_shown(&scene, "a.apps.test", &fresh));
}
