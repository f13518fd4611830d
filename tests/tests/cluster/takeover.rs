//! An owner dies, or stands still beyond its lease.

use std::time::{Duration, Instant};

use tidegate_conformance::Broker;
use tidegate_tests::cluster::{Member, acknowledged, broker, figure, order, settled, shown};
use tidegate_tests::home::Home;
use tidegate_tests::load::Load;
use tidegate_tests::machine::long_faults;
use tidegate_tests::sink::Sink;

use super::{PRODUCERS, TOPIC, finish, subscription};

/// Three gateways that share a load, and the slots of its topic among them.
async fn three(broker: &Broker, sink: &Sink) -> [Member; 3] {
    let home = Home::new();
    home.write_resource("load.yaml", &subscription("load", &sink.url()));
    let members = [Member::start_in(home, broker).await, Member::start(broker).await, Member::start(broker).await];
    settled(&members.each_ref()).await;
    members
}

/// Waits until the slots that a gateway owned have other owners; gives how long it took.
async fn taken_over(from: &str, by: &Member) -> Duration {
    let began = Instant::now();
    loop {
        let document = shown(by.client()).await;
        let owned = |slot: &serde_json::Value| slot["owner"].as_str().is_some_and(|owner| owner == from);
        if !document["slots"].as_array().into_iter().flatten().any(owned) {
            return began.elapsed();
        }
        assert!(began.elapsed() < tidegate_tests::PATIENCE, "never taken over: {document:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The id of the process behind a gateway, as the cluster knows it.
async fn node(member: &Member) -> String {
    let (document, address) = (shown(member.client()).await, member.client().address().to_string());
    let nodes = document["nodes"].as_array().cloned().unwrap_or_default();
    let found = nodes.iter().find(|node| node["http"] == address.as_str());
    found.and_then(|node| node["id"].as_str()).unwrap_or_else(|| panic!("{address}: {document:#}")).to_owned()
}

async fn an_owner_is_killed_under_load(name: &str) {
    let Some(broker) = broker(name).await else { return };
    let sink = Sink::accepting().await;
    let [first, second, third] = three(&broker, &sink).await;
    let load = Load::new(TOPIC, PRODUCERS);
    let running = load.begin(second.client());
    sink.wait_until("a hundred deliveries", |deliveries| deliveries.len() >= 100).await;
    let taken = async |member: &Member| figure(member.client(), "tidegate_slot_changes_total", "taken-over").await;
    let before = taken(&second).await + taken(&third).await;
    let dead = node(&first).await;
    first.gateway.kill().await;
    let took = taken_over(&dead, &second).await;
    println!("{name}: the slots of a killed gateway are owned by others after {took:?}");
    settled(&[&second, &third]).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let counts = finish(running).await;
    let deliveries = sink.wait_for_ids(&acknowledged(&load.acknowledged())).await;
    let order = order(&deliveries);
    println!("{name}: {} acknowledged, {} delivered, {} repeats", counts.acknowledged, order.distinct, order.repeats);
    assert!(order.early.is_empty(), "out of order: {order:?}");
    assert!(taken(&second).await + taken(&third).await > before, "no takeover was counted");
    assert_eq!(counts.unanswered, 0, "nobody is cut off by another gateway's death");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_is_killed_under_load_on_nats() {
    an_owner_is_killed_under_load("nats").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_is_killed_under_load_on_kafka() {
    an_owner_is_killed_under_load("kafka").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_is_killed_under_load_on_rabbitmq() {
    an_owner_is_killed_under_load("rabbitmq").await;
}

/// The control: where nobody is left to take over, what the dead owner had in hand does not come.
async fn without_a_takeover(name: &str) {
    let Some(broker) = broker(name).await else { return };
    let sink = Sink::start(|_| tidegate_tests::sink::Reply::Late(204, Duration::from_millis(20))).await;
    let home = Home::new();
    home.write_resource("load.yaml", &subscription("load", &sink.url()));
    let only = Member::start_in(home, &broker).await;
    settled(&[&only]).await;
    let load = Load::new(TOPIC, PRODUCERS);
    let running = load.begin(only.client());
    sink.wait_until("a hundred deliveries", |deliveries| deliveries.len() >= 100).await;
    only.gateway.kill().await;
    running.finish().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let missing = |sink: &Sink| {
        let came: std::collections::HashSet<String> = sink.ids().into_iter().collect();
        acknowledged(&load.acknowledged()).iter().filter(|id| !came.contains(*id)).count()
    };
    let lacked = missing(&sink);
    assert!(lacked > 0, "the owner's death met nothing in hand, so that the other case shows nothing");
    println!("{name}: without a takeover {lacked} events are missing");
    // The next gateway takes over, whenever it comes.
    let next = Member::start(&broker).await;
    sink.wait_for_ids(&acknowledged(&load.acknowledged())).await;
    assert_eq!(missing(&sink), 0);
    drop(next);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_takeover_events_are_missing() {
    without_a_takeover("nats").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_takeover_events_are_missing_on_rabbitmq() {
    without_a_takeover("rabbitmq").await;
}

async fn an_owner_stands_still(name: &str) {
    let Some(broker) = broker(name).await else { return };
    let sink = Sink::accepting().await;
    let [first, second, third] = three(&broker, &sink).await;
    let load = Load::new(TOPIC, PRODUCERS);
    let running = load.begin(second.client());
    sink.wait_until("a hundred deliveries", |deliveries| deliveries.len() >= 100).await;
    let lost = async || figure(first.client(), "tidegate_slot_changes_total", "lost").await;
    assert!(lost().await.abs() < f64::EPSILON);
    let frozen = node(&first).await;
    first.gateway.freeze();
    let took = taken_over(&frozen, &second).await;
    println!("{name}: the slots of a gateway that stands still are owned by others after {took:?}");
    let (between, _) = settled(&[&second, &third]).await;
    let settled_before = sink.deliveries().len();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(sink.deliveries().len() > settled_before, "the others deliver meanwhile");
    first.gateway.thaw();
    let rejected = tidegate_tests::cluster::until("that the gateway knows what it lost", async || lost().await > 0.0);
    println!("{name}: it knows that it lost slots after {:?}", rejected.await);
    // What it wrote as an owner counts nowhere: the epochs are those of the others, or later ones.
    let (after, _) = settled(&[&first, &second, &third]).await;
    for (slot, (_, epoch)) in &between {
        assert!(after[slot].1 >= *epoch, "slot {slot} went back from epoch {epoch} to {:?}", after[slot]);
    }
    let counts = finish(running).await;
    let deliveries = sink.wait_for_ids(&acknowledged(&load.acknowledged())).await;
    let order = order(&deliveries);
    println!("{} acknowledged, {} delivered, {} repeats", counts.acknowledged, order.distinct, order.repeats);
    assert!(order.early.is_empty(), "out of order: {order:?}");
    let answer = second.client().get("/subscriptions/load/dead-letters").await.unwrap().expect(200).json();
    assert_eq!(answer["deadLetters"].as_array().map(Vec::len), Some(0), "{answer:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_stood_still_has_no_effect_any_more() {
    an_owner_stands_still("nats").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_stood_still_has_no_effect_any_more_on_rabbitmq() {
    if long_faults("an owner stands still on rabbitmq") {
        an_owner_stands_still("rabbitmq").await;
    }
}
