//! Each of three nodes is killed under load, one after the other, and with them the leaders of everything; then a gateway too.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidegate_conformance::Broker;
use tidegate_tests::client::Client;
use tidegate_tests::cluster::{Member, acknowledged, broker, figure, order, owned, settled, until};
use tidegate_tests::machine::long_faults;

use super::subscribed;

/// Events that must be acknowledged before the next step: so the fault is met, and outlasted.
const PROGRESS: u64 = 200;

/// Creates one subscription after the other until it is told to stop, each again until it is acknowledged; gives their ids.
async fn commit(client: Client, sink: String, stop: Arc<AtomicBool>) -> BTreeSet<String> {
    let mut committed = BTreeSet::new();
    let mut n = 0;
    while !stop.load(Ordering::SeqCst) {
        let id = format!("commit-{n}");
        let body = format!(r#"{{"id": "{id}", "sink": "{sink}", "config": {{"topics": ["other"]}}}}"#);
        let answer = client.post("/subscriptions", &[("content-type", "application/json")], body).await;
        match answer {
            // One whose outcome was unknown may be there when it is sent again.
            Ok(answer) if matches!(answer.status, 201 | 409) => {
                committed.insert(id);
                n += 1;
            }
            Ok(answer) => {
                answer.expect_problem(&[429, 503, 504]);
            }
            Err(error) => panic!("a gateway that lives answers: {error}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    committed
}

async fn nodes(name: &str) {
    let Some(broker) = broker(name).await.filter(Broker::is_ours) else { return };
    let (sink, home, load) = subscribed(8).await;
    let (one, two) = (Member::start_in(home, &broker).await, Member::start(&broker).await);
    settled(&[&one, &two]).await;
    let total = || load.acknowledged().iter().sum::<u64>();
    let running = load.begin(two.client());
    let stop = Arc::new(AtomicBool::new(false));
    let commits = tokio::spawn(commit(two.client().clone(), sink.url_of("/other"), Arc::clone(&stop)));
    sink.wait_until("fifty deliveries", |deliveries| deliveries.len() >= 50).await;

    let progress = async |what: &str| {
        let before = total();
        until(what, async || total() >= before + PROGRESS).await
    };
    let taken_over = async || {
        let of = async |member: &Member| figure(member.client(), "tidegate_slot_changes_total", "taken-over").await;
        of(&one).await + of(&two).await
    };
    let before = taken_over().await;
    for node in 1..=3 {
        broker.kill(Some(node)).await;
        let took = progress("that two nodes go on without the third").await;
        println!("{name}: {PROGRESS} events more {took:?} after node {node} was killed");
        // Slots rest until the logs that the node led have another leader.
        let (_, took) = owned(&[&one, &two]).await;
        let delivered = sink.deliveries().len();
        sink.wait_until("deliveries go on", |deliveries| deliveries.len() > delivered + 50).await;
        println!("{name}: both gateways agree {took:?} later, {} slots moved so far", taken_over().await - before);
        broker.restart(Some(node)).await;
        progress("that three nodes go on").await;
    }
    // A node and an owner at once.
    broker.kill(Some(1)).await;
    one.gateway.kill().await;
    let began = std::time::Instant::now();
    // The broker elects first, which a busy machine makes long; then the slots are taken over.
    progress("that the other gateway goes on with two nodes").await;
    settled(&[&two]).await;
    let took = began.elapsed();
    println!("{name}: the slots of a killed gateway are owned by the other after {took:?}, with two of three nodes");
    progress("that it goes on with two nodes and one gateway").await;
    broker.restart(Some(1)).await;

    stop.store(true, Ordering::SeqCst);
    let committed = commits.await.unwrap();
    let counts = running.finish().await;
    assert_eq!(counts.unanswered, 0, "nobody is cut off by a node's death");
    assert!(counts.put_off > 0, "no publish met a fault, so that nothing is shown: {counts:?}");
    let order = order(&sink.wait_for_ids(&acknowledged(&load.acknowledged())).await);
    println!(
        "{name}: {} acknowledged, {} put off, {} delivered, {} repeats, {} commits",
        counts.acknowledged,
        counts.put_off,
        order.distinct,
        order.repeats,
        committed.len()
    );
    assert!(order.early.is_empty(), "out of order: {order:?}");
    assert!(committed.len() >= 10, "there were no commits amid the faults: {committed:?}");
    // As a gateway sees it that has followed nothing of it.
    drop(two);
    let fresh = Member::start(&broker).await;
    settled(&[&fresh]).await;
    for id in committed {
        let answer = fresh.client().get(&format!("/subscriptions/{id}")).await.unwrap();
        assert_eq!(answer.status, 200, "{id} was acknowledged: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_die_on_nats() {
    nodes("nats3").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_die_on_kafka() {
    if long_faults("the nodes of kafka3 die") {
        nodes("kafka3").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_die_on_rabbitmq() {
    if long_faults("the nodes of rabbitmq3 die") {
        nodes("rabbitmq3").await;
    }
}
