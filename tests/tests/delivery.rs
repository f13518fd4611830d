//! Publish, match, deliver, retry, dead-letter, redrive: the whole way, from outside.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test beside the product, not inside it"
)]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate_tests::client::{Client, Outgoing};
use tidegate_tests::home::Home;
use tidegate_tests::sink::{Delivery, Reply, Sink};
use tidegate_tests::subscriptions::{
    PATIENT_RETRY, QUICK_RETRY, Subscription, dead_letter_id, dead_letters, redrive_all, wait_for_dead_letters,
};

/// A subscription to the topic `t` with nothing special about it.
fn subscription<'a>(name: &'a str, sink: &'a str, delivery: &'a [&'a str]) -> Subscription<'a> {
    Subscription { name, topics: &["t"], filters: &[], sink, delivery }
}

/// Publishes events of these ids to the topic `t`, the key being what stands before the dash.
async fn publish(client: &Client, ids: &[String]) {
    for id in ids {
        let data = format!(r#"{{"id":"{id}"}}"#);
        let key = id.split_once('-').map(|(key, _)| key);
        let event = Outgoing { id, key, data: &data, ..Outgoing::default() };
        client.publish("t", &event).await.expect("the gateway answers").expect(202);
    }
}

fn ids(prefix: &str, numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|n| format!("{prefix}-{n}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_arrives_as_it_was_published() {
    let (home, sink) = (Home::new(), Sink::accepting().await);
    home.write_resource("s.yaml", &subscription("plain", &sink.url(), &["order: key"]).yaml());
    let gateway = home.start().await;
    let event = Outgoing {
        id: "a-1",
        source: "/orders/eu",
        kind: "com.example.order.placed",
        key: Some("customer 1"),
        data: r#"{"amount": 1.50, "note": "ä"}"#,
    };
    let headers = [
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-id", event.id),
        ("ce-source", event.source),
        ("ce-subject", "caf%C3%A9"),
        ("ce-type", event.kind),
        ("ce-partitionkey", "customer%201"),
        ("ce-region", "eu"),
    ];
    let answer = gateway.client().post("/topics/t", &headers, event.data).await.expect("an answer").expect(202);
    let receipt = answer.json();
    assert_eq!((&receipt["id"], &receipt["source"]), (&event.id.into(), &event.source.into()), "{answer}");
    assert_eq!((&receipt["topic"], &receipt["partition"]), (&"t".into(), &0.into()), "{answer}");
    assert_eq!(receipt["durability"], "fsync", "{answer}");

    let deliveries = sink.wait_until("the event", |deliveries| !deliveries.is_empty()).await;
    let delivery = &deliveries[0];
    let header = |name: &str| delivery.headers.get(name).and_then(|value| value.to_str().ok());
    assert_eq!(delivery.body, event.data, "the payload's bytes are kept");
    assert_eq!((delivery.path.as_str(), delivery.attempt), ("/hook", Some(1)));
    assert_eq!(header("content-type"), Some("application/json"));
    assert_eq!(header("ce-specversion"), Some("1.0"));
    assert_eq!(header("ce-id"), Some("a-1"));
    assert_eq!(header("ce-source"), Some(event.source));
    assert_eq!(header("ce-subject"), Some("caf%C3%A9"));
    assert_eq!(header("ce-type"), Some(event.kind));
    assert_eq!(header("ce-partitionkey"), Some("customer%201"));
    assert_eq!(header("ce-region"), Some("eu"));
    assert!(delivery.webhook_id.as_ref().is_some_and(|id| !id.is_empty()), "{:?}", delivery.headers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_decide_who_receives() {
    let (home, all, some) = (Home::new(), Sink::accepting().await, Sink::accepting().await);
    home.write_resource("all.yaml", &subscription("all", &all.url(), &["order: key"]).yaml());
    let wanted = Subscription {
        filters: &[r#"exact: {type: com.example.wanted}"#, r#"prefix: {id: "x-"}"#],
        ..subscription("some", "SINK", &["order: key"])
    };
    home.write_resource("some.yaml", &Subscription { sink: &some.url(), ..wanted }.yaml());
    let gateway = home.start().await;
    let events = [("x-1", "wanted"), ("x-2", "unwanted"), ("y-3", "wanted"), ("x-4", "wanted")];
    for (id, kind) in events {
        let event = Outgoing { id, kind: &format!("com.example.{kind}"), key: Some("k"), ..Outgoing::default() };
        gateway.client().publish("t", &event).await.expect("an answer").expect(202);
    }
    all.wait_until("all four", |deliveries| deliveries.len() == 4).await;
    // The last event is wanted and of the same key: once it is there, those before it were decided.
    some.wait_until("the last", |deliveries| deliveries.iter().any(|delivery| delivery.id == "x-4")).await;
    assert_eq!(some.ids(), ["x-1", "x-4"]);
    assert_eq!(all.ids(), ["x-1", "x-2", "y-3", "x-4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_sink_is_tried_again_with_the_same_identity() {
    let home = Home::new();
    let sink = Sink::start(|delivery| Reply::Status(if delivery.attempt < Some(3) { 503 } else { 204 })).await;
    home.write_resource("s.yaml", &subscription("retried", &sink.url(), &["order: key", PATIENT_RETRY]).yaml());
    let gateway = home.start().await;
    publish(gateway.client(), &ids("k", 0..1)).await;
    let deliveries = sink.wait_until("three attempts", |deliveries| deliveries.len() >= 3).await;
    let attempts: Vec<_> = deliveries.iter().map(|delivery| delivery.attempt).collect();
    assert_eq!(attempts, [Some(1), Some(2), Some(3)]);
    assert!(deliveries.iter().all(|delivery| delivery.webhook_id == deliveries[0].webhook_id));
    assert!(deliveries.iter().all(|delivery| delivery.body == deliveries[0].body));
    assert!(dead_letters(gateway.client(), "retried").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_at_fault_is_dead_lettered_at_once_and_redriven() {
    let home = Home::new();
    let sink = Sink::start(|delivery| match delivery.id.as_str() {
        "k-1" => Reply::Body(400, "text/plain", "no such customer".to_owned()),
        _ => Reply::Status(204),
    })
    .await;
    home.write_resource("s.yaml", &subscription("picky", &sink.url(), &["order: key", PATIENT_RETRY]).yaml());
    let gateway = home.start().await;
    publish(gateway.client(), &ids("k", 0..3)).await;
    sink.wait_for_ids(&ids("k", 0..3)).await;
    let letters = wait_for_dead_letters(gateway.client(), "picky", 1).await;
    assert_eq!(dead_letter_id(&letters[0]), "k-1");
    assert_eq!(letters[0]["cause"]["attempts"], 1, "{:#}", letters[0]);
    assert!(letters[0].to_string().contains("400"), "the cause names the status: {:#}", letters[0]);
    let of_the_fault = |deliveries: &[Delivery]| deliveries.iter().filter(|delivery| delivery.id == "k-1").count();
    assert_eq!(of_the_fault(&sink.deliveries()), 1, "a 400 is not tried again");

    sink.answer(|_| Reply::Status(204));
    redrive_all(gateway.client(), "picky").await;
    sink.wait_until("the redriven event", |deliveries| of_the_fault(deliveries) == 2).await;
    wait_for_dead_letters_to_go(gateway.client(), "picky").await;
    assert_eq!(sink.deliveries().len(), 4, "only the dead letter went out again: {:?}", sink.ids());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_that_are_used_up_end_in_a_dead_letter() {
    let home = Home::new();
    let sink = Sink::start(|delivery| Reply::Status(if delivery.id == "k-0" { 500 } else { 204 })).await;
    home.write_resource("s.yaml", &subscription("limited", &sink.url(), &["order: key", QUICK_RETRY]).yaml());
    let gateway = home.start().await;
    publish(gateway.client(), &ids("k", 0..2)).await;
    let letters = wait_for_dead_letters(gateway.client(), "limited", 1).await;
    assert_eq!(dead_letter_id(&letters[0]), "k-0");
    assert_eq!(letters[0]["cause"]["attempts"], 4, "{:#}", letters[0]);
    let deliveries = sink.wait_for_ids(&ids("k", 1..2)).await;
    let tried: Vec<&str> = deliveries.iter().map(|delivery| delivery.id.as_str()).collect();
    assert_eq!(tried, ["k-0", "k-0", "k-0", "k-0", "k-1"], "the key waits for its first event, then goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_keep_their_order_through_failures() {
    const KEYS: usize = 10;
    const EVENTS: usize = 30;
    let home = Home::new();
    // Every third request fails, whichever it is; one key's failures must neither reorder it nor hold up the others.
    let sink = Sink::start(|delivery| Reply::Status(if delivery.arrival % 3 == 1 { 503 } else { 204 })).await;
    home.write_resource("s.yaml", &subscription("ordered", &sink.url(), &["order: key", PATIENT_RETRY]).yaml());
    let gateway = home.start().await;
    let all: Vec<String> = (0..EVENTS).flat_map(|n| (0..KEYS).map(move |key| format!("{key}-{n}"))).collect();
    publish(gateway.client(), &all).await;
    let succeeded = |deliveries: &[Delivery]| deliveries.iter().filter(|delivery| delivery.arrival % 3 != 1).count();
    let deliveries = sink.wait_until("every event", |deliveries| succeeded(deliveries) >= all.len()).await;

    let mut next: HashMap<&str, usize> = HashMap::new();
    for delivery in &deliveries {
        let (key, n) = delivery.id.split_once('-').expect("our own id");
        let n: usize = n.parse().expect("our own id");
        assert_eq!(delivery.key.as_deref(), Some(key));
        let expected = next.entry(key).or_default();
        assert_eq!(n, *expected, "key {key}: event {n} came where {expected} was due: {:?}", sink.ids());
        *expected += usize::from(delivery.arrival % 3 != 1);
    }
    let failures = deliveries.len() - succeeded(&deliveries);
    assert!(failures >= all.len() / 4, "the sink failed only {failures} times, which shows nothing");
    assert!(next.values().all(|count| *count == EVENTS), "{next:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poisoned_key_delays_no_other_key() {
    let home = Home::new();
    let sink = Sink::start(|delivery| Reply::Status(if delivery.id.starts_with("bad-") { 503 } else { 204 })).await;
    home.write_resource("s.yaml", &subscription("keyed", &sink.url(), &["order: key", PATIENT_RETRY]).yaml());
    let gateway = home.start().await;
    publish(gateway.client(), &ids("bad", 0..3)).await;
    let good: Vec<String> = (0..200).map(|n| format!("good{}-{n}", n % 7)).collect();
    publish(gateway.client(), &good).await;
    let deliveries = sink.wait_for_ids(&good).await;
    let bad: Vec<&Delivery> = deliveries.iter().filter(|delivery| delivery.id.starts_with("bad-")).collect();
    assert!(bad.iter().all(|delivery| delivery.id == "bad-0"), "the poisoned key stands at its first event");
    assert!(!bad.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_hanging_subscriber_stops_no_other() {
    const EVENTS: usize = 150;
    let home = Home::new();
    let hanging = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&hanging);
    let (first, second) = (Sink::accepting().await, Sink::accepting().await);
    let stuck =
        Sink::start(move |_| if switch.load(Ordering::SeqCst) { Reply::Hang } else { Reply::Status(204) }).await;
    let delivery = ["order: key", "timeout: 2s", PATIENT_RETRY];
    for (name, sink) in [("first", &first), ("second", &second), ("stuck", &stuck)] {
        home.write_resource(&format!("{name}.yaml"), &subscription(name, &sink.url(), &delivery).yaml());
    }
    let gateway = home.start().await;

    let before = ids("before", 0..EVENTS);
    publish(gateway.client(), &before).await;
    for sink in [&first, &second, &stuck] {
        sink.wait_for_ids(&before).await;
    }

    hanging.store(true, Ordering::SeqCst);
    let during: Vec<String> = (0..EVENTS).map(|n| format!("during{}-{n}", n % 50)).collect();
    publish(gateway.client(), &during).await;
    for sink in [&first, &second] {
        sink.wait_for_ids(&during).await;
    }
    let stuck_keys: std::collections::HashSet<String> =
        stuck.ids().into_iter().filter(|id| id.starts_with("during")).collect();
    assert!(!stuck_keys.is_empty(), "the stuck sink was not even tried, so its hanging showed nothing");
    assert!(stuck_keys.len() < EVENTS, "the stuck sink was sent everything, so it did not hang");

    hanging.store(false, Ordering::SeqCst);
    let after = ids("after", 0..EVENTS);
    publish(gateway.client(), &after).await;
    for sink in [&first, &second] {
        sink.wait_for_ids(&after).await;
    }
    for events in [&during, &after] {
        stuck.wait_for_ids(events).await;
    }
    assert!(dead_letters(gateway.client(), "stuck").await.is_empty());
    for sink in [&first, &second] {
        assert_eq!(sink.deliveries().len(), 3 * EVENTS, "a healthy subscriber gets every event once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_that_is_down_is_not_the_events_failure() {
    const EVENTS: usize = 20;
    let (home, mut sink) = (Home::new(), Sink::accepting().await);
    home.write_resource("s.yaml", &subscription("down", &sink.url(), &["order: key", QUICK_RETRY]).yaml());
    let gateway = home.start().await;
    publish(gateway.client(), &ids("k", 0..1)).await;
    sink.wait_for_ids(&ids("k", 0..1)).await;

    sink.refuse().await;
    publish(gateway.client(), &ids("k", 1..EVENTS)).await;
    // Longer than four quick attempts take, so that counted attempts would be used up by now.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(dead_letters(gateway.client(), "down").await.is_empty());
    sink.listen_again().await;
    sink.wait_for_ids(&ids("k", 1..EVENTS)).await;
    assert!(dead_letters(gateway.client(), "down").await.is_empty());
    assert_eq!(sink.ids(), ids("k", 0..EVENTS), "in order, each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_survives_a_restart() {
    let (home, sink) = (Home::new(), Sink::accepting().await);
    home.write_resource("s.yaml", &subscription("steady", &sink.url(), &["order: key", PATIENT_RETRY]).yaml());
    let gateway = home.start().await;
    publish(gateway.client(), &ids("k", 0..20)).await;
    sink.wait_for_ids(&ids("k", 0..20)).await;
    assert!(gateway.terminate().await.success());

    let gateway = home.start().await;
    publish(gateway.client(), &ids("k", 20..40)).await;
    sink.wait_for_ids(&ids("k", 20..40)).await;
    assert_eq!(sink.ids(), ids("k", 0..40), "after an orderly end nothing is delivered twice");
    drop(gateway);
}

/// Waits until a subscription has no dead letter left.
async fn wait_for_dead_letters_to_go(client: &Client, name: &str) {
    let deadline = tokio::time::Instant::now() + tidegate_tests::PATIENCE;
    while !dead_letters(client, name).await.is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "the redriven dead letters stay");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
