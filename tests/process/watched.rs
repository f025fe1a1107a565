//! `config/alerts.yml` and `config/grafana.json`, judged by Prometheus's own tool and against what
//! the binary really exports.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::Command;

use serde_json::Value;

use crate::support::{Daemon, route, text};
use crate::web::{Samples, get};

const ALERTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/alerts.yml");
const DASHBOARD: &str = include_str!("../../config/grafana.json");

fn promtool(arguments: &[&str]) -> (bool, String) {
    let output = Command::new("promtool").args(arguments).output().unwrap();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn prometheus_takes_the_alert_rules_and_they_fire_when_they_should() {
    let (is_good, words) = promtool(&["check", "rules", "--lint=all", "--lint-fatal", ALERTS]);
    assert!(is_good, "{words}");
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/alerts-test.yml");
    let (is_good, words) = promtool(&["test", "rules", tests]);
    assert!(is_good, "{words}");
}

/// Every query of the dashboard.
fn queries(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

/// Every expression of the alert rules; promtool has said that the file is well-formed.
fn expressions() -> Vec<String> {
    let text = std::fs::read_to_string(ALERTS).unwrap();
    let rules = text.split("- alert: ").skip(1);
    let expression = |rule: &str| {
        let (_, after) = rule.split_once("expr: ").unwrap();
        let ends = ["\n        for:", "\n        labels:"].map(|key| after.find(key));
        after[..ends.into_iter().flatten().min().unwrap()].to_owned()
    };
    rules.map(expression).collect()
}

/// The metrics that an expression names.
fn metrics(expression: &str) -> BTreeSet<String> {
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = expression.split(|letter| !is_word(letter));
    let ours = ["mse_proxy_", "process_"];
    words.filter(|word| ours.iter().any(|own| word.starts_with(own))).map(str::to_owned).collect()
}

/// The values that an expression asks of a label.
fn values(expression: &str, label: &str) -> Vec<String> {
    let mut found = Vec::new();
    for operator in ["=~", "!=", "="] {
        for (at, key) in expression.match_indices(&format!("{label}{operator}\"")) {
            let rest = &expression[at + key.len()..];
            found.extend(rest.split('"').next().unwrap().split('|').map(str::to_owned));
        }
    }
    found
}

#[test]
fn what_alerts_and_dashboard_ask_for_is_there_and_the_dashboard_leaves_nothing_out() {
    let folder = tempfile::tempdir().unwrap();
    let routes = folder.path().join("routes.toml");
    let end = "expires_at = 2099-01-01T00:00:00Z";
    std::fs::write(&routes, route("app.test", "127.0.0.1:1", end)).unwrap();
    let made = rcgen::generate_simple_self_signed(["app.test".to_owned()]).unwrap();
    let pair = folder.path().join("pair.pem");
    std::fs::write(&pair, made.cert.pem() + &made.signing_key.serialize_pem()).unwrap();
    let store = folder.path().join("store.redb");
    let settings = [
        ("MSE_PROXY_TERMINATE_CERTIFICATES", pair.to_str().unwrap()),
        ("MSE_PROXY_STORE_PATH", store.to_str().unwrap()),
    ];
    let mut daemon = Daemon::serve(&routes, &settings);
    let samples = Samples::read(&get(daemon.admin(), "/metrics").body);
    let exported: BTreeSet<_> = samples.names().into_iter().map(str::to_owned).collect();

    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let (queries, expressions) = (queries(&dashboard), expressions());
    assert!(queries.len() > 30 && expressions.len() > 15, "both were really read");
    for expression in queries.iter().chain(&expressions) {
        let missing: Vec<_> = metrics(expression).difference(&exported).cloned().collect();
        assert!(missing.is_empty(), "{missing:?} of {expression}");
        for (label, family) in [
            ("outcome", "mse_proxy_sessions_total"),
            ("state", "mse_proxy_routes"),
            ("within", "mse_proxy_routes_ending"),
            ("direction", "mse_proxy_relayed_bytes_total"),
            ("kind", "mse_proxy_accept_errors_total"),
            ("fault", "mse_proxy_probe_faulty_routes"),
            ("event", "mse_proxy_registry_events_total"),
        ] {
            for value in values(expression, label) {
                let open = value.strip_suffix(".*");
                let wanted = open.map_or(format!("\"{value}\""), |open| format!("\"{open}"));
                let has = |series: &&str| series.contains(&format!("{label}={wanted}"));
                let known = samples.series(family);
                assert!(known.iter().any(has), "no {label}={value} in {known:?}");
            }
        }
    }

    let shown: BTreeSet<_> = queries.iter().flat_map(|query| metrics(query)).collect();
    let beside = ["process_threads", "process_virtual_memory_bytes"];
    let part_of = |name: &str| {
        ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end).map(str::to_owned))
    };
    for name in exported.iter().filter(|name| !beside.contains(&name.as_str())) {
        let is_shown = match part_of(name) {
            Some(whole) => shown.contains(&format!("{whole}_bucket")),
            None => shown.contains(name),
        };
        assert!(is_shown, "{name} is exported and not on the dashboard");
    }
}

#[test]
fn the_dashboard_is_whole_and_prometheus_takes_its_queries() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let source = Value::from("${datasource}");
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "ids are unique");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert_eq!(panel["datasource"]["uid"], source, "{}", panel["title"]);
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"], source, "{}", panel["title"]);
        }
    }
    // No panel covers another.
    let cells = panels.iter().flat_map(|panel| {
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        let (x, y, w, h) = (at("x"), at("y"), at("w"), at("h"));
        (y..y + h).flat_map(move |row| (x..x + w).map(move |column| (row, column)))
    });
    let cells: Vec<_> = cells.collect();
    assert_eq!(cells.iter().collect::<BTreeSet<_>>().len(), cells.len());
    assert!(cells.iter().all(|(_, column)| *column < 24));
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<_> = variables.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["datasource", "job", "instance", "route"]);

    // As rules, with the variables filled in, promtool judges them.
    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    for (number, query) in queries(&dashboard).iter().enumerate() {
        let query = query.replace("$__rate_interval", "5m");
        let query = ["job", "instance", "route"]
            .iter()
            .fold(query, |query, name| query.replace(&format!("${name}"), ".*"));
        assert!(!query.contains('$'), "{query}");
        let query = Value::from(query);
        let _ = writeln!(rules, "      - record: query:{number}\n        expr: {query}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules.yml");
    std::fs::write(&path, rules).unwrap();
    let (is_good, words) = promtool(&["check", "rules", path.to_str().unwrap()]);
    assert!(is_good, "{words}");
}
