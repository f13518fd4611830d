//! Inputs while gateways and the broker are killed: nothing is lost, and keys keep their order.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lapin::BasicProperties;
use lapin::types::FieldTable;
use serde_json::Value;
use tidegate_conformance::Broker;
use tidegate_tests::bindings::{input, legacy, status, wait_for};
use tidegate_tests::client::Client;
use tidegate_tests::cluster::{Member, Order, broker, order, until};
use tidegate_tests::home::Home;
use tidegate_tests::load::{id, key};
use tidegate_tests::sink::Sink;
use tidegate_tests::subscriptions::Subscription;
use tokio::task::JoinSet;

use crate::outputs::FIRST_QUORUM_REST;
use crate::shared;
use crate::somebody::{Somebody, arguments, quorum, text};

const PRODUCERS: usize = 4;
/// How long a program rests behind each message: no more are to be sent than a slow machine carries.
const PACE: Duration = Duration::from_millis(20);

/// Programs that send messages, each until the broker has confirmed it and only then the next one.
struct Senders {
    sent: Arc<[AtomicU64]>,
    stop: Arc<AtomicBool>,
    running: JoinSet<()>,
}

impl Senders {
    fn begin(broker: &'static Broker, queue: &'static str, pace: Duration) -> Self {
        let sent: Arc<[AtomicU64]> = (0..PRODUCERS).map(|_| AtomicU64::new(0)).collect();
        let (stop, mut running) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
        for producer in 0..PRODUCERS {
            let (sent, stop) = (Arc::clone(&sent), Arc::clone(&stop));
            running.spawn(async move {
                let mut theirs = Somebody::at(broker).await;
                while !stop.load(Ordering::SeqCst) {
                    let n = sent[producer].load(Ordering::SeqCst);
                    let properties = BasicProperties::default()
                        .with_message_id(id(producer, n).into())
                        .with_headers(arguments(&[("key", text(&key(producer)))]));
                    if theirs.tries("", queue, "{}", properties).await {
                        sent[producer].store(n + 1, Ordering::SeqCst);
                        tokio::time::sleep(pace).await;
                    } else {
                        theirs = Somebody::at(broker).await;
                    }
                }
            });
        }
        Self { sent, stop, running }
    }

    fn count(&self) -> u64 {
        self.sent.iter().map(|sent| sent.load(Ordering::SeqCst)).sum()
    }

    /// Waits until so many more were confirmed.
    async fn more(&self, count: u64) {
        let before = self.count();
        until("that messages are sent", async || self.count() >= before + count).await;
    }

    /// Ends them; gives the ids of all that were confirmed.
    async fn finish(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = self.running.join_next().await {
            ended.expect("a sender fails at nothing");
        }
        let of = |(producer, sent): (usize, &AtomicU64)| {
            (0..sent.load(Ordering::SeqCst)).map(move |n| id(producer, n)).collect::<Vec<_>>()
        };
        self.sent.iter().enumerate().flat_map(of).collect()
    }
}

fn resources(broker: &Broker, queue: &str, sink: &Sink) -> String {
    let to = sink.url();
    let subscription =
        Subscription { name: "end", topics: &["load"], filters: &[], sink: &to, delivery: &["order: key"] };
    legacy(broker)
        + &input("in", &format!("queue: {queue}, topic: load, key: header key"))
        + "---\n"
        + &subscription.yaml()
}

/// A broker of this test's own, which it may kill; it stays until the test's process ends.
async fn own_broker() -> Option<&'static Broker> {
    broker("rabbitmq").await.filter(Broker::is_ours).map(|broker| &*Box::leak(Box::new(broker)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_the_gateway_is_killed() {
    let Some(broker) = shared().await else { return };
    let theirs = Somebody::at(broker).await;
    theirs.queue("kills.queue", quorum()).await;
    let (sink, home) = (Sink::accepting().await, Home::new());
    home.write_resource("bindings.yaml", &resources(broker, "kills.queue", &sink));
    let senders = Senders::begin(broker, "kills.queue", PACE);
    for _ in 0..4 {
        let gateway = home.start().await;
        let before = sink.deliveries().len();
        sink.wait_until("deliveries", |deliveries| deliveries.len() >= before + 50).await;
        gateway.kill().await;
        senders.more(20).await;
    }
    let gateway = home.start().await;
    let ids = senders.finish().await;
    let deliveries = sink.wait_for_ids(&ids).await;
    let order = order(&deliveries);
    let status = status(gateway.client(), "in").await;
    println!("{} confirmed, {} came, {} repeats; {status}", ids.len(), order.distinct, order.repeats);
    assert!(order.early.is_empty(), "out of order: {order:?}");
    until("that nothing is left", async || theirs.ready("kills.queue").await == 0).await;
}

/// Who lets the broker forget what it has only been given loses it, which is found out by counting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_control_who_acknowledges_before_loses() {
    let Some(broker) = shared().await else { return };
    let theirs = Somebody::at(broker).await;
    theirs.queue("careless.queue", quorum()).await;
    for n in 0..200 {
        let properties = BasicProperties::default().with_message_id(id(0, n).into());
        theirs.publish("", "careless.queue", "{}", properties).await;
    }
    let mut kept: HashSet<String> = HashSet::new();
    let of = |message: &lapin::message::Delivery| message.properties.message_id().as_ref().map(ToString::to_string);
    kept.extend(Somebody::takes_all_and_dies(broker, "careless.queue", 50).await.iter().filter_map(of));
    until("that the broker knows of its death", async || theirs.readers("careless.queue").await == 0).await;
    let left = theirs.ready("careless.queue").await as usize;
    kept.extend(theirs.take_some("careless.queue", left).await.iter().filter_map(of));
    assert!(kept.len() < 200, "nothing was lost by who acknowledges before it has it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_the_order_of_keys_is_kept_while_the_broker_of_a_classic_queue_is_killed() {
    let Some(order) = while_the_broker_is_killed(arguments(&[])).await else { return };
    assert!(order.early.is_empty(), "out of order: {order:?}");
}

/// After its broker was killed a quorum queue of RabbitMQ 3.10 may give what was in hand behind what is new, to any client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_the_broker_of_a_quorum_queue_is_killed() {
    while_the_broker_is_killed(quorum()).await;
}

/// Kills the broker twice amid a load, and waits until all has come.
async fn while_the_broker_is_killed(kind: FieldTable) -> Option<Order> {
    let broker = own_broker().await?;
    let theirs = Somebody::at(broker).await;
    theirs.queue("outage.queue", kind).await;
    drop(theirs);
    tokio::time::sleep(FIRST_QUORUM_REST).await;
    let (sink, home) = (Sink::accepting().await, Home::new());
    home.write_resource("bindings.yaml", &resources(broker, "outage.queue", &sink));
    let gateway = home.start().await;
    let client = gateway.client();
    let senders = Senders::begin(broker, "outage.queue", PACE);
    for _ in 0..2 {
        let before = sink.deliveries().len();
        sink.wait_until("deliveries", |deliveries| deliveries.len() >= before + 50).await;
        broker.kill(None).await;
        let waits = wait_for(client, "in", "waiting").await;
        assert!(waits["since"].is_string() && waits["reason"].is_string(), "{waits}");
        client.get("/readyz").await.unwrap().expect(200);
        broker.restart(None).await;
        wait_for(client, "in", "running").await;
        senders.more(20).await;
    }
    let ids = senders.finish().await;
    let deliveries = sink.wait_for_ids(&ids).await;
    let order = order(&deliveries);
    println!("{} confirmed, {} came, {} repeats", ids.len(), order.distinct, order.repeats);
    Some(order)
}

/// While the backbone is away what was read is held, and no more than the prefetch of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_little_is_taken_while_the_backbone_is_killed() {
    let (Some(backbone), Some(queues)) = (broker("nats").await.filter(Broker::is_ours), shared().await) else { return };
    let theirs = Somebody::at(queues).await;
    theirs.queue("held.queue", quorum()).await;
    let (sink, home) = (Sink::accepting().await, Home::new());
    home.write_resource(
        "bindings.yaml",
        &resources(queues, "held.queue", &sink).replace("key: header", "prefetch: 50, key: header"),
    );
    let member = Member::start_in(home, &backbone).await;
    let client = member.client();
    let mut ids = Vec::new();
    for away in [false, true, false] {
        if away {
            backbone.kill(None).await;
        }
        let first = ids.len() as u64 / PRODUCERS as u64;
        for n in first..first + 50 {
            for producer in 0..PRODUCERS {
                let properties = BasicProperties::default()
                    .with_message_id(id(producer, n).into())
                    .with_headers(arguments(&[("key", text(&key(producer)))]));
                theirs.publish("", "held.queue", "{}", properties).await;
                ids.push(id(producer, n));
            }
        }
        if away {
            let waits = wait_for(client, "in", "waiting").await;
            assert!(waits["reason"].is_string(), "{waits}");
            let left = theirs.ready("held.queue").await;
            assert!(left >= 150, "{left} of 200 messages are in the queue, and 50 may be in hand");
            backbone.restart(None).await;
            wait_for(client, "in", "running").await;
        }
        sink.wait_for_ids(&ids).await;
    }
    let order = order(&sink.deliveries());
    assert!(order.early.is_empty(), "out of order: {order:?}");
    until("that nothing is left", async || theirs.ready("held.queue").await == 0).await;
}

/// The gateway that reads the queue, by what each says; the same for all of them.
async fn reader(clients: &[&Client]) -> Option<String> {
    let mut told: Vec<Value> = Vec::new();
    for client in clients {
        let status = status(client, "in").await;
        if status["state"] != "running" {
            return None;
        }
        told.push(status["gateway"].clone());
    }
    told.dedup();
    if told.len() == 1 { told[0].as_str().map(str::to_owned) } else { None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_cluster_one_gateway_reads_a_queue_and_another_takes_over() {
    let (Some(backbone), Some(queues)) = (broker("nats").await, shared().await) else { return };
    let theirs = Somebody::at(queues).await;
    theirs.queue("cluster.queue", quorum()).await;
    let sink = Sink::accepting().await;
    let start = async || {
        let home = Home::new();
        home.write_resource("bindings.yaml", &resources(queues, "cluster.queue", &sink));
        Member::start_in(home, &backbone).await
    };
    let mut members = vec![start().await, start().await];
    let senders = Senders::begin(queues, "cluster.queue", 5 * PACE);
    let mut seen = HashSet::new();
    for round in 0..3 {
        let clients: Vec<&Client> = members.iter().map(Member::client).collect();
        let mut owner = None;
        until("that both say who reads the queue", async || {
            owner = reader(&clients).await;
            owner.is_some()
        })
        .await;
        let owner = owner.expect("somebody reads it");
        let before = sink.deliveries().len();
        sink.wait_until("deliveries", |deliveries| deliveries.len() >= before + 50).await;
        assert!(theirs.readers("cluster.queue").await <= 1, "one reads it at a time");
        seen.insert(owner.clone());
        let at = members.iter().position(|member| member.client().address().to_string() == owner);
        let ended = members.swap_remove(at.expect("it is one of them"));
        if round == 0 {
            // In order, with what it has in hand acknowledged.
            ended.gateway.terminate().await;
        } else {
            ended.gateway.kill().await;
        }
        members.push(start().await);
    }
    let ids = senders.finish().await;
    let deliveries = sink.wait_for_ids(&ids).await;
    let order = order(&deliveries);
    println!("{} confirmed, {} came, {} repeats, read by {}", ids.len(), order.distinct, order.repeats, seen.len());
    assert!(order.early.is_empty(), "out of order: {order:?}");
    assert!(seen.len() >= 3, "the queue was taken over: {seen:?}");
    // Whoever is asked resumes it at whoever reads it.
    for member in &members {
        member.client().post("/bindings/in/resume", &[], "").await.unwrap().expect(200);
    }
}
