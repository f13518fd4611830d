//! The figures of a gateway that delivers, from outside.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test beside the product, not inside it"
)]

use std::time::{Duration, Instant};

use tidegate_tests::PATIENCE;
use tidegate_tests::client::{Client, Outgoing};
use tidegate_tests::home::Home;
use tidegate_tests::sink::{Reply, Sink};
use tidegate_tests::subscriptions::{PATIENT_RETRY, Subscription};

/// The value of a series, given as it is exposed; 0 where it is not there.
async fn figure(client: &Client, series: &str) -> f64 {
    let answer = client.get("/metrics").await.expect("an answer").expect(200);
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned));
    value.map_or(0.0, |value| value.parse().unwrap_or_else(|_| panic!("{series} is no number: {value}")))
}

async fn wait_for(client: &Client, series: &str, condition: impl Fn(f64) -> bool) -> f64 {
    let until = Instant::now() + PATIENCE;
    loop {
        let value = figure(client, series).await;
        if condition(value) {
            return value;
        }
        assert!(Instant::now() < until, "{series} is {value}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lag_and_ages_are_those_of_the_events() {
    const LAG: &str = r#"tidegate_subscription_lag_events{subscription="hook"}"#;
    const OLDEST: &str = r#"tidegate_oldest_undelivered_seconds{subscription="hook"}"#;
    const AGES: &str = r#"tidegate_delivery_age_seconds_count{subscription="hook"}"#;
    const AGES_SUM: &str = r#"tidegate_delivery_age_seconds_sum{subscription="hook"}"#;
    let home = Home::new();
    let sink = Sink::start(|_| Reply::Status(503)).await;
    let delivery = ["order: key", PATIENT_RETRY];
    let hook = Subscription { name: "hook", topics: &["t"], filters: &[], sink: &sink.url(), delivery: &delivery };
    home.write_resource("hook.yaml", &hook.yaml());
    let gateway = home.start().await;
    let client = gateway.client();
    for id in ["k-1", "k-2", "k-3"] {
        let event = Outgoing { id, key: Some("k"), ..Outgoing::default() };
        client.publish("t", &event).await.expect("an answer").expect(202);
    }
    // One key: the first holds the others back, and all three are behind.
    wait_for(client, LAG, |lag| lag == 3.0).await;
    let oldest = wait_for(client, OLDEST, |seconds| seconds >= 1.0).await;
    assert_eq!(figure(client, AGES).await, 0.0);
    assert!(figure(client, r#"tidegate_deliveries_total{subscription="hook",outcome="retry"}"#).await >= 1.0);

    // The first is at fault, the others are taken.
    sink.answer(|delivery| Reply::Status(if delivery.id == "k-1" { 400 } else { 204 }));
    wait_for(client, AGES, |count| count == 2.0).await;
    wait_for(client, LAG, |lag| lag == 0.0).await;
    assert_eq!(figure(client, OLDEST).await, 0.0);
    assert_eq!(figure(client, r#"tidegate_dead_letters_total{reason="rejected"}"#).await, 1.0);
    assert!(figure(client, AGES_SUM).await >= 2.0 * oldest - 2.0, "both waited as long as the first was failing");
    assert_eq!(figure(client, r#"tidegate_subscription_active{subscription="hook"}"#).await, 1.0);
    assert!(figure(client, "process_resident_memory_bytes").await > 1e6);
    assert!(figure(client, "process_open_fds").await > 3.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lag_counts_over_a_restart() {
    const LAG: &str = r#"tidegate_subscription_lag_events{subscription="hook"}"#;
    let home = Home::new();
    let mut sink = Sink::accepting().await;
    sink.refuse().await;
    let hook = Subscription { name: "hook", topics: &["t"], filters: &[], sink: &sink.url(), delivery: &[] };
    home.write_resource("hook.yaml", &hook.yaml());
    let gateway = home.start().await;
    for id in ["a", "b"] {
        gateway.client().publish("t", &Outgoing { id, ..Outgoing::default() }).await.expect("an answer").expect(202);
    }
    wait_for(gateway.client(), LAG, |lag| lag == 2.0).await;
    wait_for(gateway.client(), r#"tidegate_subscription_active{subscription="hook"}"#, |active| active == 0.0).await;
    assert!(gateway.terminate().await.success());
    let gateway = home.start().await;
    wait_for(gateway.client(), LAG, |lag| lag == 2.0).await;
    sink.listen_again().await;
    wait_for(gateway.client(), LAG, |lag| lag == 0.0).await;
    assert_eq!(sink.ids().len(), 2);
}
