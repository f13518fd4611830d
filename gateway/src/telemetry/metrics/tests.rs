//! What is rendered is what the table says, and so is what documents, dashboards and alerts name.
#![allow(clippy::disallowed_methods, reason = "a test reads files of the repository")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::*;

const DOCUMENT: &str = "docs/metrics.md";
/// Files that ask for figures.
const USERS: [&str; 2] = ["deploy/grafana/dashboard.json", "deploy/prometheus/alerts.yaml"];

/// Every figure with one value.
fn observed() -> Arc<Metrics> {
    let metrics = Metrics::new();
    metrics.http_request("/topics/{topic}", &http::Method::POST, http::StatusCode::ACCEPTED);
    metrics.connection_opened();
    metrics.connection_refused("total");
    metrics.published("accepted", Duration::from_millis(3));
    metrics.appended(Duration::from_millis(4));
    metrics.committed(12, 3_000);
    metrics.delivered("large-orders", "done", Duration::from_millis(5));
    metrics.delivered_at_age("large-orders", Duration::from_secs(60));
    metrics.dead_lettered("rejected");
    metrics.duplicate_dropped();
    metrics.events_trimmed("large-orders", 2);
    metrics.subscriptions_stand([("large-orders", Standing { active: true, queued: 3, ..Standing::default() })]);
    metrics.bindings_stand([("orders-in", true, [("taken", 3), ("redelivered", 1), ("rejected", 0)])]);
    metrics.memory(&Budget::new(1_600));
    metrics.flights(1, 2);
    metrics.cluster(true, 3, 6, 1);
    metrics.slot_changed("acquired");
    metrics.gateway_requests([("sent", 4)]);
    metrics.spans("exported", 2);
    drop(metrics.follower("sse"));
    metrics
}

#[test]
fn what_is_rendered_is_what_the_table_says() {
    let text = observed().render();
    let typed: BTreeSet<(&str, &str)> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let told: BTreeSet<(&str, &str)> = names::ALL.iter().map(|figure| (figure.name, figure.kind.name())).collect();
    assert_eq!(typed, told);
    for figure in names::ALL {
        let name = format!("{}{}", figure.name, figure.kind.suffixes().last().unwrap());
        let line = text.lines().find(|line| line.strip_prefix(&name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        let line = line.unwrap_or_else(|| panic!("{name} has no value:\n{text}"));
        let labels = line.split_once('{').map_or("", |(_, rest)| rest);
        let labels: Vec<&str> =
            labels.split(',').filter_map(|label| label.split_once("=\"")).map(|(label, _)| label).collect();
        assert_eq!(labels, figure.labels, "{line}");
        let help = format!("# HELP {} {}.", figure.name, figure.help);
        assert!(text.contains(&help), "{help}");
    }
    let line = r#"tidegate_http_requests_total{route="/topics/{topic}",method="POST",status="2xx"} 1"#;
    assert!(text.contains(line), "{text}");
    assert!(text.contains("tidegate_followers{protocol=\"sse\"} 0"));
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn labels_do_not_grow_with_what_clients_make_up() {
    let metrics = Metrics::new();
    let names: Vec<String> = (0..METRICS_SUBSCRIPTIONS + 50).map(|index| format!("subscription-{index}")).collect();
    for (index, name) in names.iter().enumerate() {
        metrics.delivered(name, "done", Duration::ZERO);
        let method = http::Method::from_bytes(format!("M{index}").as_bytes()).unwrap();
        metrics.http_request("none", &method, http::StatusCode::NOT_FOUND);
    }
    let standing = Standing { active: true, lag: 7, ..Standing::default() };
    metrics.subscriptions_stand(names.iter().map(|name| (name.as_str(), standing)));
    let text = metrics.render();
    let lines = |prefix: &str| text.lines().filter(|line| line.starts_with(prefix)).count();
    assert_eq!(lines("tidegate_deliveries_total{"), METRICS_SUBSCRIPTIONS + 1);
    assert_eq!(lines("tidegate_delivery_seconds_count{"), METRICS_SUBSCRIPTIONS + 1);
    assert_eq!(lines("tidegate_subscription_lag_events{"), METRICS_SUBSCRIPTIONS + 1);
    assert_eq!(lines("tidegate_http_requests_total{"), 1);
    assert!(text.contains(r#"tidegate_deliveries_total{subscription="other",outcome="done"} 50"#));
    assert!(text.contains(r#"tidegate_subscription_lag_events{subscription="other"} 7"#));
}

#[test]
fn a_subscription_that_is_gone_stands_nowhere() {
    let metrics = Metrics::new();
    metrics.subscriptions_stand([("a", Standing::default()), ("b", Standing::default())]);
    metrics.subscriptions_stand([("b", Standing::default())]);
    let text = metrics.render();
    assert!(text.contains("tidegate_subscription_active{subscription=\"b\"} 0"), "{text}");
    assert!(!text.contains("subscription=\"a\""), "{text}");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn document() -> String {
    let mut text = "# Metrics\n\n\
        `GET /metrics` answers in the OpenMetrics text format. Labels have a bounded number of values: subscriptions beyond the\n\
        first `METRICS_SUBSCRIPTIONS` ([limits.md](limits.md)) are told together as `other`. The table is made from\n\
        `gateway/src/telemetry/metrics/names.rs`, and a test compares the two, as well as the dashboard and the alert rules in\n\
        [deploy](../deploy/README.md). Names stand as they are exposed.\n\n\
        | name | kind | labels | says |\n|---|---|---|---|\n"
        .to_owned();
    for figure in names::ALL {
        let suffix = if figure.kind == names::Kind::Histogram { "" } else { figure.kind.suffixes()[0] };
        let labels: Vec<String> = figure.labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = if labels.is_empty() { "-".to_owned() } else { labels.join(", ") };
        let _ = writeln!(text, "| `{}{suffix}` | {} | {labels} | {} |", figure.name, figure.kind.name(), figure.help);
    }
    text
}

#[test]
fn the_documented_figures_are_those_of_the_code() {
    let path = root().join(DOCUMENT);
    if std::env::var_os("TIDEGATE_REWRITE").is_some() {
        std::fs::write(&path, document()).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == document(),
        "{DOCUMENT} differs; write it anew: TIDEGATE_REWRITE=1 cargo test -p tidegate --lib figures"
    );
}

/// The figures that a text names: words of the form `tidegate_a_b` and `process_a_b`.
fn named(text: &str) -> BTreeSet<&str> {
    text.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'))
        .filter(|word| word.starts_with("tidegate_") || word.starts_with("process_"))
        .collect()
}

#[test]
fn dashboards_and_alerts_ask_only_for_figures_that_there_are() {
    let exposed: BTreeSet<String> = names::ALL
        .iter()
        .flat_map(|figure| figure.kind.suffixes().iter().map(|suffix| format!("{}{suffix}", figure.name)))
        .collect();
    let unknown = |text: &str| -> Vec<String> {
        named(text).into_iter().filter(|name| !exposed.contains(*name)).map(str::to_owned).collect()
    };
    // The control: a name that was mistyped is found.
    assert_eq!(unknown("rate(tidegate_publish_total[5m]) > 0"), ["tidegate_publish_total"]);
    for user in USERS {
        let text = std::fs::read_to_string(root().join(user)).unwrap_or_else(|error| panic!("{user}: {error}"));
        assert!(named(&text).len() > 8, "{user} was not understood: {:?}", named(&text));
        assert_eq!(unknown(&text), [""; 0], "{user}");
    }
    let dashboard = std::fs::read_to_string(root().join(USERS[0])).unwrap();
    serde_json::from_str::<serde_json::Value>(&dashboard).expect("the dashboard is JSON");
}
