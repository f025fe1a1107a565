//! Backends that speak HTTP/2 alone: WebSocket over it (RFC 8441), and those that die.

use std::process::Command;

use crate::programs::{client, said, scene_before};
use crate::support::{Scene, text};

/// What curl makes of a path: whether all of it came, and what that was.
fn ask(scene: &Scene, path: &str, flag: &str) -> (bool, String) {
    let port = scene.address().port();
    let output = Command::new("curl")
        .args(["-sS", "-D-", "--max-time", "60", flag, "--resolve"])
        .arg(format!("a.apps.test:{port}:127.0.0.1"))
        .args(["--cacert", text(&scene.path("operator.pem"))])
        .arg(format!("https://a.apps.test:{port}{path}"))
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_websocket_passes_to_a_backend_that_speaks_http_2_alone() {
    let (mut scene, _server) = scene_before("backend.py", &[]);
    assert_eq!(said(&client(&scene, "websocket.py", &["talk"])), "talked");
    assert_eq!(said(&client(&scene, "streams.py", &["websocket"])), "talked");
    let mut asked: Vec<_> = (0..4).map(|_| scene.daemon().record()).collect();
    asked.retain(|record| !record["method"].is_null());
    let told: Vec<_> = asked
        .iter()
        .map(|record| {
            ["protocol", "method", "status", "outcome"].map(|key| record[key].to_string())
        })
        .collect();
    let expected =
        [["http/1.1", "GET", "101", "closed"], ["h2", "CONNECT", "200", "closed"]].map(|line| {
            line.map(
                |word| if word.parse::<u16>().is_ok() { word.into() } else { format!("{word:?}") },
            )
        });
    assert_eq!(told, expected);
}

#[test]
fn a_backend_of_http_2_without_websockets_is_told_at_once() {
    let (mut scene, _server) = scene_before("backend.py", &["mute"]);
    for case in ["upgrade", "tunnel"] {
        let told = said(&client(&scene, "refused.py", &[case]));
        assert_eq!(
            told,
            "502 mse-proxy; error=http_upgrade_failed; details=\"the app takes no WebSocket\" 502 the app takes no WebSocket"
        );
        let record = scene.daemon().record();
        let told = (&record["outcome"], &record["reason"], &record["status"]);
        assert_eq!(told, (&"backend_protocol".into(), &"no_websocket".into(), &502.into()));
        // Well before the time of a handshake.
        assert!(record["duration_s"].as_f64() < Some(5.0), "{record}");
        scene.ended();
    }
}

#[test]
fn a_websocket_that_the_backend_refuses_is_refused_in_its_words() {
    let (scene, _server) = scene_before("backend.py", &[]);
    for case in ["upgrade", "tunnel"] {
        let told = said(&client(&scene, "refused.py", &[case, "/refused"]));
        assert!(told.starts_with("403 None"), "{told}");
    }
}

#[test]
fn a_backend_of_http_2_that_dies_is_told_apart_from_one_that_finished() {
    let (mut scene, _server) = scene_before("backend.py", &[]);
    for (path, status, outcome, body) in [
        ("/whole", "200", "closed", Some("half")),
        ("/trailers", "200", "closed", Some("half")),
        ("/close-before-head", "502", "backend_", None),
        ("/reset-before-head", "502", "backend_reset", None),
        ("/refuse-stream", "502", "backend_", None),
        ("/goaway", "502", "backend_", None),
        ("/half-head", "502", "backend_", None),
        ("/no-status", "502", "backend_", None),
        ("/garbage", "502", "backend_", None),
        ("/close-after-head", "200", "backend_reset", None),
        ("/close-in-body", "200", "backend_reset", None),
        ("/reset-in-body", "200", "backend_reset", None),
        ("/end-in-body", "200", "backend_reset", None),
        ("/close-before-trailers", "200", "backend_reset", None),
    ] {
        for flag in ["--http1.1", "--http2"] {
            let (is_whole, told) = ask(&scene, path, flag);
            let case = format!("{path} {flag}: {told}");
            let (head, rest) = told.split_once("\r\n\r\n").unwrap_or((&told, ""));
            assert_eq!(head.split(' ').nth(1), Some(status), "{case}");
            // A client must see that something is missing, and only then.
            assert_eq!(is_whole, body.is_some() || status == "502", "{case}");
            if let Some(body) = body {
                // Where curl shows trailers, these come next.
                let more = rest.strip_prefix(body).map(str::trim_end);
                assert!(matches!(more, Some("" | "x-sum: 1")), "{case}");
            }
            if status == "502" {
                assert!(head.contains("proxy-status: mse-proxy; error="), "{case}");
            }
            let record = scene.daemon().record();
            assert!(record["outcome"].as_str().unwrap().starts_with(outcome), "{case} {record}");
            assert_eq!(record["status"].to_string(), status, "{case}");
            assert_eq!(record["path"], path, "{case}");
            scene.daemon().record();
        }
    }
}
