//! A broker that takes no messages for now, because its memory is short.

use std::collections::HashSet;

use lapin::BasicProperties;
use tidegate_conformance::Broker;
use tidegate_tests::bindings::{events, input, legacy, output, status, to, wait_for};
use tidegate_tests::client::{Client, Outgoing};
use tidegate_tests::cluster::{broker, until};
use tidegate_tests::home::Home;
use tidegate_tests::subscriptions::{dead_letters, standing};

use crate::outputs::early;
use crate::somebody::{Somebody, arguments, id, text};

const EVENTS: usize = 30;

async fn publish(client: &Client, numbers: std::ops::Range<usize>) {
    for n in numbers {
        let event = Outgoing { id: &format!("p0-{n}"), key: Some("k"), ..Outgoing::default() };
        client.publish("orders", &event).await.unwrap().expect(202);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_wait_while_the_broker_blocks_its_publishers_and_its_queues_are_read() {
    let Some(broker) = broker("rabbitmq").await.filter(Broker::is_ours) else { return };
    let theirs = Somebody::at(&broker).await;
    theirs.queue("blocked.out", arguments(&[])).await;
    theirs.queue("blocked.in", arguments(&[])).await;
    // What is refused here goes to the queue that is read without anybody's sending it.
    let moves = [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text("blocked.in"))];
    theirs.queue("blocked.held", arguments(&moves)).await;
    for n in 0..3 {
        let properties = BasicProperties::default().with_message_id(format!("m-{n}").into());
        theirs.publish("", "blocked.held", "x", properties).await;
    }
    let home = Home::new();
    // The only attempt: one that an outage used up would be a dead letter.
    let resources = legacy(&broker)
        + &input("in", "queue: blocked.in, topic: came")
        + &output("out", "queue: blocked.out")
        + &to("to-out", "orders", "out", &["order: key", "retry: {maxAttempts: 1}"]);
    home.write_resource("bindings.yaml", &resources);
    let gateway = home.start().await;
    let client = gateway.client();
    wait_for(client, "in", "running").await;
    publish(client, 0..1).await;
    until("that it can be sent to", async || theirs.ready("blocked.out").await == 1).await;

    broker.control(&["set_vm_memory_high_watermark", "0"]).await;
    publish(client, 1..EVENTS).await;
    until("that it is waited for", async || standing(client, "to-out").await == "unreachable").await;
    until("that it is told why", async || {
        let told = status(client, "out").await;
        told["state"] == "waiting" && told["reason"].as_str().is_some_and(|told| told.contains("takes no messages"))
    })
    .await;
    for _ in 0..3 {
        theirs.reject("blocked.held").await;
    }
    let came = events(client, "came", 3).await;
    assert!(came.iter().all(|event| event["deathqueue"] == "blocked.held"), "{came:?}");
    wait_for(client, "in", "running").await;
    client.get("/readyz").await.unwrap().expect(200);
    // The control: the broker does take nothing.
    let there = theirs.ready("blocked.out").await as usize;
    assert!(there < EVENTS, "{there} of {EVENTS} got through");
    assert_eq!(standing(client, "to-out").await, "unreachable");

    broker.control(&["set_vm_memory_high_watermark", "0.4"]).await;
    let wanted: HashSet<String> = (0..EVENTS).map(|n| format!("p0-{n}")).collect();
    let all = |taken: &[lapin::message::Delivery]| wanted.is_subset(&taken.iter().map(id).collect());
    let came: Vec<String> = theirs.take("blocked.out", all).await.iter().map(id).collect();
    assert!(early(&came).is_empty(), "out of order: {came:?}");
    until("that it goes on", async || standing(client, "to-out").await == "active").await;
    assert!(dead_letters(client, "to-out").await.is_empty(), "no attempt was used up");
    wait_for(client, "out", "running").await;
}
