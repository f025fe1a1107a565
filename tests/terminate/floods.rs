//! Clients of HTTP/2 that mean harm.

use crate::daemon::route;
use crate::origin::Origin;
use crate::programs::{client, said};
use crate::support::Scene;

#[test]
fn a_client_that_means_harm_is_cut_off_and_harms_nobody() {
    let mut scene = Scene::new();
    scene.install("a", &scene.operator.issue(&["a.apps.test"]));
    let origin = Origin::start(scene.platform.issue(&["a.apps.test"]).server(), &["h2"]);
    let quiet = [("MSE_PROXY_LOG_LEVEL", "info"), ("MSE_PROXY_LOG_ACCESS", "off")];
    scene.serve_with(&route("a.apps.test", origin.address, &scene.terminating("")), &quiet);
    let good = |scene: &Scene| {
        assert_eq!(said(&client(scene, "streams.py", &["good"])), "status 200");
    };
    good(&scene);
    let before = scene.daemon().peak_memory();
    for case in [
        "rapid_reset",
        "paced_reset",
        "window_of_nothing",
        "window_too_large",
        "data_after_end",
        "head_after_end",
        "priority_of_no_length",
        "depends_on_itself",
        "continuation",
        "empty_continuation",
        "bomb",
        "pings",
        "settings",
        "empty_data",
    ] {
        let asked = origin.requests();
        let told = said(&client(&scene, "floods.py", &[case]));
        let opened = told.strip_prefix("cut ").map(|count| count.parse::<usize>().unwrap());
        let opened = opened.unwrap_or_else(|| panic!("{case}: {told}"));
        if case == "paced_reset" {
            // Each was looked at before it was taken back, so all of them are counted.
            assert!((500..=510).contains(&opened), "{told}");
        }
        let asked = origin.requests() - asked;
        assert!(asked <= 600, "{case}: {asked} requests reached the backend");
        let after = scene.daemon().peak_memory();
        assert!(after < before + 8 * 1024, "{case}: {before} KiB, then {after}");
        good(&scene);
    }
}
