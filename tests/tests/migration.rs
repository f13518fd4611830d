//! Everything is moved from the embedded log to Kafka and back, while events are published and delivered; see docs/migration.md.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test beside the product, not inside it"
)]

use std::collections::HashSet;
use std::time::Duration;

use serde_json::Value;
use tidegate_conformance::Broker;
use tidegate_tests::client::{Answer, Client, Outgoing};
use tidegate_tests::cluster::{Member, acknowledged, broker, order, until};
use tidegate_tests::gateway::Gateway;
use tidegate_tests::home::Home;
use tidegate_tests::load::{self, Load, Running};
use tidegate_tests::sink::{Delivery, Reply, Sink};
use tidegate_tests::subscriptions::{Subscription, dead_letters, wait_for_dead_letters};

const PRODUCERS: usize = 6;
/// The producer some of whose events the failing sink takes at a later attempt.
const STUBBORN: &str = "p3-";
/// An event that a sink never takes.
const POISON: &str = "p2-7";

/// Where the subscriptions of a load deliver.
struct Sinks {
    steady: Sink,
    slow: Sink,
    failing: Sink,
    paused: Sink,
}

impl Sinks {
    async fn start() -> Self {
        Self {
            steady: Sink::accepting().await,
            slow: Sink::start(|_| Reply::Late(204, Duration::from_millis(20))).await,
            failing: Sink::start(|delivery| match delivery {
                Delivery { id, .. } if id == POISON => Reply::Status(422),
                Delivery { id, attempt, .. }
                    if id.starts_with(STUBBORN) && id.ends_with('0') && attempt.is_some_and(|attempt| attempt < 3) =>
                {
                    Reply::Status(500)
                }
                _ => Reply::Status(204),
            })
            .await,
            paused: Sink::accepting().await,
        }
    }

    fn all(&self) -> [(&str, &Sink); 4] {
        [("steady", &self.steady), ("slow", &self.slow), ("failing", &self.failing), ("paused", &self.paused)]
    }

    /// The resources of a gateway that delivers the load, and knows another backbone as `new`.
    fn resources(&self, new: &str) -> String {
        let topic = "apiVersion: tidegate.dev/v1\nkind: Topic\nmetadata: {name: load}\nspec: {partitions: 4}\n---\n";
        let broker = format!(
            "apiVersion: tidegate.dev/v1\nkind: Broker\nmetadata: {{name: new}}\nspec: {{url: '{new}'}}\n---\n"
        );
        let delivery = ["order: key", "retry: {maxAttempts: 20, initial: 100ms, max: 300ms}"];
        let subscriptions = self.all().map(|(name, sink)| {
            let to = sink.url();
            Subscription { name, topics: &["load"], filters: &[], sink: &to, delivery: &delivery }.yaml() + "---\n"
        });
        topic.to_owned() + &broker + &subscriptions.concat()
    }
}

/// Why something was refused.
fn detail(answer: Answer, status: u16) -> String {
    answer.expect_problem(&[status]);
    answer.json()["detail"].to_string()
}

/// How a migration stands.
async fn shown(client: &Client) -> Value {
    client.get("/migration").await.unwrap_or_else(|error| panic!("/migration: {error}")).expect(200).json()
}

async fn migrate(client: &Client) {
    let headers = [("content-type", "application/json")];
    client.post("/migration", &headers, r#"{"to": "new"}"#).await.unwrap().expect(202);
}

async fn done(client: &Client) -> Value {
    until("that the backbone was moved", async || {
        let shown = shown(client).await;
        assert_ne!(shown["phase"], "failed", "{shown:#}");
        shown["done"] == true
    })
    .await;
    shown(client).await
}

/// The ids that did not come.
fn missing(ids: &[String], deliveries: &[Delivery]) -> Vec<String> {
    let came: HashSet<&String> = deliveries.iter().map(|delivery| &delivery.id).collect();
    ids.iter().filter(|id| !came.contains(id)).cloned().collect()
}

/// Arrivals of events at sinks that take everything at once.
fn repeats(sinks: &Sinks) -> usize {
    [&sinks.steady, &sinks.slow, &sinks.paused].iter().map(|sink| order(&sink.deliveries()).repeats).sum()
}

async fn grows(sink: &Sink) {
    let seen = sink.deliveries().len();
    sink.wait_until("more deliveries", |deliveries| deliveries.len() >= seen + 200).await;
}

/// Kafka, and a gateway on the embedded log that delivers a load: where to, where it lives, itself, what is published, and by whom.
async fn loaded() -> Option<(Broker, Sinks, Home, Gateway, Load, Running)> {
    let kafka = broker("kafka").await?;
    let sinks = Sinks::start().await;
    let home = Home::new();
    home.write_resource("all.yaml", &sinks.resources(kafka.url()));
    let first = home.start().await;
    let load = Load::new("load", PRODUCERS);
    let running = load.begin(first.client());
    grows(&sinks.steady).await;
    Some((kafka, sinks, home, first, load, running))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_moves_to_kafka_and_back_under_load() {
    let Some((kafka, sinks, home, first, load, running)) = loaded().await else { return };
    first.client().post("/subscriptions/paused/pause", &[], "").await.unwrap().expect(200);
    wait_for_dead_letters(first.client(), "failing", 1).await;

    // It goes on after the gateway was killed in the middle of it.
    migrate(first.client()).await;
    first.kill().await;
    running.finish().await;
    let first = home.start().await;
    let running = load.begin(first.client());
    let moved = done(first.client()).await;
    println!("moved to Kafka: {} events, {} attempts", moved["events"], moved["attempts"]);
    let before = load.acknowledged();
    until("that publishing goes on after the move", async || {
        load.acknowledged().iter().zip(&before).all(|(now, before)| *now >= before + 20)
    })
    .await;
    let refused = first.client().send(http::Method::PUT, "/topics/other", &[], "{}").await.unwrap();
    assert!(detail(refused, 503).contains("moved"), "nothing changes here any more");

    let seen = repeats(&sinks);
    let back = Home::new();
    let second_home = Home::new();
    second_home.write_resource("all.yaml", &sinks.resources(&format!("embedded:{}", back.data().display())));
    let second = Member::start_in(second_home, &kafka).await;
    grows(&sinks.steady).await;
    let counts = running.finish().await;
    assert_eq!(counts.unanswered, 0, "publishing went on while the backbone was moved");
    println!("{counts:?} on the way to Kafka");
    first.terminate().await;
    let running = load.begin(second.client());
    grows(&sinks.steady).await;
    assert_eq!(dead_letters(second.client(), "failing").await.len(), 1, "dead letters are taken along");

    migrate(second.client()).await;
    let moved = done(second.client()).await;
    println!("moved back: {} events, {} attempts", moved["events"], moved["attempts"]);
    let counts = running.finish().await;
    assert_eq!(counts.unanswered, 0, "publishing went on while the backbone was moved back");
    println!("{counts:?} on the way back");
    let Member { gateway: second, home: _second_home } = second;
    second.terminate().await;
    let third_home = Home::with_data(back.data());
    third_home.write_resource("all.yaml", &sinks.resources("embedded:./nowhere"));
    let third = third_home.start().await;
    let running = load.begin(third.client());
    grows(&sinks.steady).await;
    running.finish().await;
    third.client().post("/subscriptions/paused/resume", &[], "").await.unwrap().expect(200);

    let ids = acknowledged(&load.acknowledged());
    for (name, sink) in sinks.all() {
        let deliveries = sink.wait_for_ids(&ids).await;
        assert_eq!(missing(&ids, &deliveries), Vec::<String>::new(), "{name}");
        let order = order(&deliveries);
        assert!(order.early.is_empty(), "{name} is out of order: {order:?}");
        println!("{name}: {} distinct, {} repeats", order.distinct, order.repeats);
    }
    assert_eq!(repeats(&sinks), seen, "no move delivers again what was delivered");
    assert_eq!(dead_letters(third.client(), "failing").await.len(), 1);
    let events: u64 = moved["partitions"]
        .as_array()
        .expect("partitions are listed")
        .iter()
        .map(|partition| {
            assert_eq!(partition["sha256"].as_str().map(str::len), Some(64), "{partition}");
            if partition["topic"] == "load" { partition["events"].as_u64().unwrap_or(0) } else { 0 }
        })
        .sum();
    assert!(events > 0, "{moved:#}");
}

/// Gateways on the new backbone without what the old one holds: what is checked above must find that out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_control_without_a_migration_loses_what_was_not_delivered() {
    let Some((kafka, sinks, _home, first, load, running)) = loaded().await else { return };
    running.finish().await;
    first.kill().await;
    let ids = acknowledged(&load.acknowledged());
    let second_home = Home::new();
    second_home.write_resource("all.yaml", &sinks.resources("embedded:./nowhere"));
    let second = Member::start_in(second_home, &kafka).await;
    let running = load.begin(second.client());
    grows(&sinks.steady).await;
    running.finish().await;
    let all = acknowledged(&load.acknowledged());
    let after: Vec<String> = all.iter().filter(|id| !ids.contains(id)).cloned().collect();
    let deliveries = sinks.slow.wait_for_ids(&after).await;
    assert!(!missing(&ids, &deliveries).is_empty(), "the slow sink had not been given everything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_moved_is_told_and_nothing_changes() {
    let Some(kafka) = broker("kafka").await else { return };
    let used = Member::start(&kafka).await;
    let home = Home::new();
    let broker = |name: &str, url: &str| {
        format!("apiVersion: tidegate.dev/v1\nkind: Broker\nmetadata: {{name: {name}}}\nspec: {{url: '{url}'}}\n---\n")
    };
    home.write_resource("all.yaml", &(broker("new", kafka.url()) + &broker("away", "nats://127.0.0.1:1")));
    let gateway = home.start().await;
    let client = gateway.client();
    assert_eq!(shown(client).await["phase"], "none");
    let headers = [("content-type", "application/json")];
    let start = async |body: &'static str| client.post("/migration", &headers, body).await.unwrap();
    assert!(detail(start(r#"{"to": "nowhere"}"#).await, 400).contains("knows no broker nowhere"));
    start(r#"{"to": "away"}"#).await.expect_problem(&[503]);
    start("{}").await.expect_problem(&[400]);
    let cancel = async || client.send(http::Method::DELETE, "/migration", &[], "").await.unwrap();
    assert!(detail(cancel().await, 409).contains("no migration"));

    // A gateway works on the new backbone already.
    start(r#"{"to": "new"}"#).await.expect(202);
    until("that it is refused", async || shown(client).await["phase"] == "failed").await;
    let told = shown(client).await["error"].to_string();
    assert!(told.contains("a gateway runs on"), "{told}");
    client.publish("load", &Outgoing::default()).await.unwrap().expect(202);
    used.client().send(http::Method::PUT, "/topics/theirs", &[], "{}").await.unwrap().expect(201);
    let Member { gateway: used, home: _used } = used;
    used.terminate().await;
    // Nor does one work there that has left what it knew.
    start(r#"{"to": "new"}"#).await.expect(202);
    until("that it is refused", async || shown(client).await["error"].to_string().contains("is in use")).await;
    cancel().await.expect(204);
    assert_eq!(shown(client).await["phase"], "none");
}

/// A gateway that cannot reach the new backbone puts the move off, and nothing stands still for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_cannot_go_along_puts_the_move_off() {
    let (Some(old), Some(new)) = (broker("nats").await, broker("nats").await) else { return };
    let sinks = Sinks::start().await;
    let (knows, knows_not) = (Home::new(), Home::new());
    knows.write_resource("all.yaml", &sinks.resources(new.url()));
    let first = Member::start_in(knows, &old).await;
    let second = Member::start_in(knows_not, &old).await;
    let load = Load::new("load", PRODUCERS);
    let running = load.begin(second.client());
    grows(&sinks.steady).await;
    migrate(first.client()).await;
    until("that it was tried", async || {
        let shown = shown(first.client()).await;
        shown["error"].is_string() && shown["phase"] == "copying"
    })
    .await;
    let (error, attempts) =
        (shown(first.client()).await["error"].to_string(), shown(first.client()).await["attempts"].clone());
    assert_eq!(attempts, 0, "nobody waits for what cannot be");
    assert!(error.contains(&second.client().address().to_string()) && error.contains("knows no broker new"), "{error}");
    grows(&sinks.steady).await;
    assert_eq!(shown(second.client()).await["done"], false);
    second.home.write_resource("all.yaml", &sinks.resources(new.url()));
    done(first.client()).await;
    let home = Home::new();
    home.write_resource("all.yaml", &sinks.resources("embedded:./nowhere"));
    let _third = Member::start_in(home, &new).await;
    grows(&sinks.steady).await;
    running.finish().await;
    let ids = acknowledged(&load.acknowledged());
    for (name, sink) in sinks.all() {
        let order = order(&sink.wait_for_ids(&ids).await);
        assert!(order.early.is_empty(), "{name} is out of order: {order:?}");
        println!("{name}: {} distinct, {} repeats", order.distinct, order.repeats);
    }
}

/// Three gateways on NATS move to Kafka; the one that does the work is killed while the others hold theirs, another stands still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_moves_though_the_gateway_that_does_it_is_killed() {
    let (Some(nats), Some(kafka)) = (broker("nats").await, broker("kafka").await) else { return };
    let sinks = Sinks::start().await;
    let member = async |broker: &Broker, new: &str| {
        let home = Home::new();
        home.write_resource("all.yaml", &sinks.resources(new));
        Member::start_in(home, broker).await
    };
    let mut old = Vec::new();
    for _ in 0..3 {
        old.push(member(&nats, kafka.url()).await);
    }
    let load = Load::new("load", PRODUCERS);
    let running = load.begin(old[1].client());
    grows(&sinks.steady).await;
    // Deliveries that are out make the switch last.
    sinks.slow.answer(|_| Reply::Late(204, Duration::from_secs(2)));
    let seen = sinks.slow.deliveries().len();
    sinks.slow.wait_until("that some are out", |deliveries| deliveries.len() > seen + 3).await;
    migrate(old[0].client()).await;
    until("that gateways are asked to hold their work", async || shown(old[0].client()).await["phase"] == "switching")
        .await;
    let Member { gateway: killed, home: _killed } = old.remove(0);
    killed.kill().await;
    sinks.slow.answer(|_| Reply::Status(204));
    // One stands still meanwhile, with an event in its hands, and misses the move.
    old[1].gateway.freeze();
    let asleep = old[1].client().clone();
    let late =
        tokio::spawn(async move { asleep.publish("load", &Outgoing { id: "asleep", ..Outgoing::default() }).await });
    let moved = done(old[0].client()).await;
    old[1].gateway.thaw();
    drop(late.await);
    println!("moved: {} events, {} attempts", moved["events"], moved["attempts"]);
    // A gateway that starts on the old backbone passes events on.
    let late = member(&nats, kafka.url()).await;
    late.client().publish("load", &Outgoing { id: "late", ..Outgoing::default() }).await.unwrap().expect(202);
    let new = member(&kafka, "embedded:./nowhere").await;
    grows(&sinks.steady).await;
    let counts = running.finish().await;
    assert_eq!(counts.unanswered, 0);
    println!("{counts:?}");
    let mut ids = acknowledged(&load.acknowledged());
    for (name, sink) in sinks.all() {
        let deliveries = sink.wait_for_ids(&ids).await;
        let order = order(&deliveries);
        assert!(order.early.is_empty(), "{name} is out of order: {order:?}");
        println!("{name}: {} distinct, {} repeats", order.distinct, order.repeats);
    }
    ids.push("late".to_owned());
    until("that an event of a gateway that missed the move is taken", async || {
        let event = Outgoing { id: "asleep", ..Outgoing::default() };
        old[1].client().publish("load", &event).await.is_ok_and(|answer| answer.status == 202)
    })
    .await;
    ids.push("asleep".to_owned());
    sinks.steady.wait_for_ids(&ids).await;
    assert_eq!(shown(new.client()).await["phase"], "none");
    assert_eq!(load::parse_id(POISON), Some((2, 7)));
}
