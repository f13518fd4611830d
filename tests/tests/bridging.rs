//! Events go from the embedded log to NATS, on to Kafka and back, while those brokers are killed; see docs/bridging.md.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test beside the product, not inside it"
)]

use std::collections::HashMap;
use std::fmt::Write;

use serde_json::Value;
use tidegate_conformance::Broker;
use tidegate_tests::client::{Client, Outgoing};
use tidegate_tests::cluster::{Member, acknowledged, broker, order, until};
use tidegate_tests::home::Home;
use tidegate_tests::load::Load;
use tidegate_tests::sink::Sink;
use tidegate_tests::subscriptions::{Subscription, dead_letters, wait_for_dead_letters};

/// What a topic is called on the brokers.
const THERE: &str = "mesh";
/// Partitions there, more than one so that order is that of keys.
const PARTITIONS: u32 = 3;
const PRODUCERS: usize = 6;
/// The count that a bridge changes.
const HOPS: &str = "tidegatehops";

fn broker_of(name: &str, broker: &Broker) -> String {
    format!(
        "apiVersion: tidegate.dev/v1\nkind: Broker\nmetadata: {{name: {name}}}\nspec: {{url: '{}'}}\n---\n",
        broker.url()
    )
}

fn topic_on(name: &str, broker: &str, more: &str) -> String {
    format!(
        "apiVersion: tidegate.dev/v1\nkind: Topic\nmetadata: {{name: {name}}}\nspec: {{attach: {{name: {THERE}, broker: \
         {broker}}}{more}}}\n---\n"
    )
}

fn bridge(name: &str, from: &str, to: &str, delivery: &[&str]) -> String {
    let sink = format!("topic://{to}");
    Subscription { name, topics: &[from], filters: &[], sink: &sink, delivery }.yaml() + "---\n"
}

/// Makes the topic on a broker, as whoever owns it there would.
async fn make_topic(broker: &Broker) {
    let member = Member::start(broker).await;
    let path = format!("/topics/{THERE}");
    let body = format!(r#"{{"partitions": {PARTITIONS}}}"#);
    until("that the topic is there", async || {
        let made = member.client().send(http::Method::PUT, &path, &[], body.clone()).await;
        made.is_ok_and(|answer| matches!(answer.status, 200 | 201))
    })
    .await;
}

/// NATS and Kafka with the topic, and the resources of a gateway that bridges from `load` over both to `returned`.
async fn stage(delivery: &[&str]) -> Option<(Broker, Broker, String)> {
    let (nats, kafka) = (broker("nats").await?, broker("kafka").await?);
    if !nats.is_ours() || !kafka.is_ours() {
        tidegate_tests::machine::not_had("an outage of brokers", "the environment gives them");
        return None;
    }
    make_topic(&nats).await;
    make_topic(&kafka).await;
    let resources = broker_of("n", &nats)
        + &broker_of("k", &kafka)
        + &topic_on("on-nats", "n", "")
        + &topic_on("on-kafka", "k", "")
        + &bridge("out", "load", "on-nats", delivery)
        + &bridge("over", "on-nats", "on-kafka", delivery)
        + &bridge("back", "on-kafka", "returned", delivery);
    Some((nats, kafka, resources))
}

/// Every event of a topic by its id, whole, but for the count of hops, which is given beside it; the first where one came twice.
async fn events(client: &Client, topic: &str) -> HashMap<String, (Value, Value)> {
    let mut events = HashMap::new();
    let mut path = format!("/topics/{topic}/events?from=earliest&limit=1000");
    loop {
        let page = client.get(&path).await.unwrap_or_else(|error| panic!("{path}: {error}")).expect(200);
        let batch = page.json();
        let batch = batch.as_array().expect("a batch is an array");
        for event in batch {
            let mut event = event.clone();
            let hops = event.as_object_mut().and_then(|event| event.remove(HOPS)).unwrap_or(Value::Null);
            let id = event["id"].as_str().expect("an event has an id").to_owned();
            events.entry(id).or_insert((event, hops));
        }
        match page.next_page() {
            Some(next) if !batch.is_empty() => path = next,
            _ => return events,
        }
    }
}

/// How an event differs from what it was; nothing where it does not.
fn difference(before: &Value, after: &Value) -> Option<String> {
    (before != after).then(|| {
        let mut text = String::new();
        let _ = write!(text, "{before} became {after}");
        text
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_go_over_three_brokers_and_back_while_brokers_are_killed() {
    let Some((nats, kafka, resources)) = stage(&["order: key"]).await else { return };
    let (sink, home) = (Sink::accepting().await, Home::new());
    let to = sink.url();
    let end = Subscription { name: "end", topics: &["returned"], filters: &[], sink: &to, delivery: &["order: key"] };
    home.write_resource("bridges.yaml", &(resources + &end.yaml()));
    let gateway = home.start().await;
    let client = gateway.client();
    let load = Load::new("load", PRODUCERS);
    let running = load.begin(client);
    for broker in [&kafka, &nats] {
        let seen = sink.deliveries().len();
        sink.wait_until("deliveries", |deliveries| deliveries.len() >= seen + 200).await;
        broker.kill(None).await;
        let (name, topic) = if broker.name() == "kafka" { ("over", "on-kafka") } else { ("out", "on-nats") };
        until("that the bridge waits for its broker", async || {
            let shown = client.get(&format!("/subscriptions/{name}")).await.unwrap().expect(200).json();
            shown["status"]["standing"] == "unreachable"
        })
        .await;
        let event = Outgoing { id: "while-away", ..Outgoing::default() };
        client.publish(topic, &event).await.unwrap().expect_problem(&[503, 504]);
        until("that the topic says why it is not told", async || {
            let listed = client.get("/topics").await.unwrap().expect(200).json();
            let topics = listed["topics"].as_array().unwrap_or_else(|| panic!("topics are listed: {listed:#}"));
            topics.iter().any(|shown| shown["name"] == topic && shown["unavailable"].is_string())
        })
        .await;
        client.get("/passports?id=p0-0").await.unwrap().expect(200);
        assert_eq!(
            client.get("/readyz").await.unwrap().status,
            200,
            "a further broker is no reason to send nobody here"
        );
        broker.restart(None).await;
    }
    let seen = sink.deliveries().len();
    sink.wait_until("deliveries after the outages", |deliveries| deliveries.len() >= seen + 200).await;
    let counts = running.finish().await;
    assert_eq!((counts.unanswered, counts.put_off), (0, 0), "who publishes here waits for no other broker");
    let deliveries = sink.wait_for_ids(&acknowledged(&load.acknowledged())).await;
    let order = order(&deliveries);
    println!("{} acknowledged, {} came back, {} repeats", counts.acknowledged, order.distinct, order.repeats);
    assert!(order.early.is_empty(), "out of order: {order:?}");
    for name in ["out", "over", "back"] {
        assert!(dead_letters(client, name).await.is_empty(), "an outage is no failure of events: {name}");
    }
    let (before, after) = (events(client, "load").await, events(client, "returned").await);
    for id in acknowledged(&load.acknowledged()) {
        let ((was, none), (is, hops)) = (&before[&id], &after[&id]);
        assert_eq!(difference(was, is), None);
        assert_eq!((none, hops.as_i64().or_else(|| hops.as_str()?.parse().ok())), (&Value::Null, Some(3)), "{id}");
    }
    let passports = client.get("/passports?id=p0-0").await.unwrap().expect(200).json();
    let text = passports.to_string();
    assert!(["out", "over", "back"].iter().all(|name| text.contains(&format!("\"{name}\""))), "{passports:#}");
}

/// Without order the same outage must show in what is checked above.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_control_bridges_without_order_are_found_out() {
    let Some((_nats, kafka, resources)) = stage(&["order: none"]).await else { return };
    let (sink, home) = (Sink::accepting().await, Home::new());
    let to = sink.url();
    let end = Subscription { name: "end", topics: &["returned"], filters: &[], sink: &to, delivery: &["order: none"] };
    home.write_resource("bridges.yaml", &(resources + &end.yaml()));
    let gateway = home.start().await;
    let load = Load::new("load", PRODUCERS);
    let running = load.begin(gateway.client());
    until("that the order is broken", async || {
        let seen = sink.deliveries().len();
        sink.wait_until("deliveries", |deliveries| deliveries.len() >= seen + 100).await;
        kafka.kill(None).await;
        kafka.restart(None).await;
        sink.wait_until("deliveries after it", |deliveries| deliveries.len() >= seen + 200).await;
        !order(&sink.deliveries()).early.is_empty()
    })
    .await;
    running.finish().await;
    let (event, other) = (serde_json::json!({"id": "1", "data": "a"}), serde_json::json!({"id": "1", "data": "b"}));
    assert!(difference(&event, &other).is_some(), "a changed byte is found out");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_circle_over_a_broker_ends_in_a_dead_letter() {
    let Some(nats) = broker("nats").await else { return };
    make_topic(&nats).await;
    let home = Home::new();
    let window = ", dedupe: {window: 0s}";
    let here = "apiVersion: tidegate.dev/v1\nkind: Topic\nmetadata: {name: here}\nspec: {dedupe: {window: 0s}}\n---\n";
    let resources =
        broker_of("n", &nats) + &topic_on("on-nats", "n", window) + here + &bridge("there", "here", "on-nats", &[]);
    home.write_resource("circle.yaml", &resources);
    let gateway = home.start().await;
    let client = gateway.client();
    // In one set of files it is refused; a request is checked against itself only.
    let back = bridge("back", "on-nats", "here", &[]);
    let headers = [("content-type", "application/yaml")];
    client.post("/apply", &headers, back).await.unwrap().expect(200);
    client.publish("here", &Outgoing { id: "round", ..Outgoing::default() }).await.unwrap().expect(202);
    let letters = wait_for_dead_letters(client, "there", 1).await;
    let letter = letters[0].to_string();
    assert!(letter.contains("loop") && letter.contains("has made 16 hops"), "{letter}");
    assert!(dead_letters(client, "back").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_starts_while_a_further_broker_is_away_and_loses_nothing() {
    let Some(nats) = broker("nats").await.filter(Broker::is_ours) else { return };
    make_topic(&nats).await;
    nats.kill(None).await;
    let (sink, home) = (Sink::accepting().await, Home::new());
    let to = sink.url();
    let end = Subscription { name: "end", topics: &["on-nats"], filters: &[], sink: &to, delivery: &[] };
    let resources = broker_of("n", &nats)
        + &topic_on("on-nats", "n", "")
        + &bridge("out", "load", "on-nats", &["order: key"])
        + &end.yaml();
    home.write_resource("bridges.yaml", &resources);
    let gateway = home.start().await;
    let client = gateway.client();
    let ids: Vec<String> = (0..20).map(|n| format!("p0-{n}")).collect();
    for id in &ids {
        client.publish("load", &Outgoing { id, key: Some("k"), ..Outgoing::default() }).await.unwrap().expect(202);
    }
    client.publish("on-nats", &Outgoing::default()).await.unwrap().expect_problem(&[503]);
    assert!(sink.deliveries().is_empty());
    nats.restart(None).await;
    let deliveries = sink.wait_for_ids(&ids).await;
    assert!(order(&deliveries).early.is_empty(), "out of order");
    assert!(dead_letters(client, "out").await.is_empty(), "what waited is no failure of events");
}
