//! Dead-letter queues as sources, and what the gateway cannot take.

use lapin::BasicProperties;
use lapin::types::AMQPValue;
use tidegate_schemas::limits::EVENT_BYTES;
use tidegate_tests::bindings::{events, input, legacy, status, wait_for};
use tidegate_tests::cluster::until;
use tidegate_tests::home::Home;

use crate::shared;
use crate::somebody::{Somebody, arguments, quorum, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_queue_is_a_source_and_the_queues_stay_as_they_are() {
    let Some(broker) = shared().await else { return };
    let theirs = Somebody::at(broker).await;
    let own = |name: &str| {
        arguments(&[
            ("x-queue-type", text("quorum")),
            ("x-dead-letter-exchange", text("")),
            ("x-dead-letter-routing-key", text(&format!("{name}.dead"))),
            ("x-delivery-limit", AMQPValue::LongInt(5)),
        ])
    };
    theirs.queue("dead.orders.dead", arguments(&[("x-max-length", AMQPValue::LongInt(10_000))])).await;
    theirs.queue("dead.orders", own("dead.orders")).await;
    let event = [("specversion", "1.0"), ("id", "e"), ("source", "/s"), ("type", "t")];
    let named = event.map(|(name, value)| (format!("cloudEvents_{name}"), text(value)));
    let carried = arguments(&named.each_ref().map(|(name, value)| (name.as_str(), value.clone())));
    theirs.publish("", "dead.orders", "raw", BasicProperties::default().with_message_id("m".into())).await;
    theirs.publish("", "dead.orders", "event", BasicProperties::default().with_headers(carried)).await;
    let home = Home::new();
    home.write_resource(
        "bindings.yaml",
        &(legacy(broker) + &input("dead", "queue: dead.orders.dead, topic: orders-lost")),
    );
    let gateway = home.start().await;
    let client = gateway.client();
    wait_for(client, "dead", "running").await;
    theirs.reject("dead.orders").await;
    theirs.reject("dead.orders").await;
    let came = events(client, "orders-lost", 2).await;
    for id in ["m", "e"] {
        let event = came.iter().find(|event| event["id"] == id).unwrap_or_else(|| panic!("{id} is there: {came:?}"));
        let told = (&event["deathreason"], &event["deathqueue"], &event["deathcount"]);
        assert_eq!(told, (&"rejected".into(), &"dead.orders".into(), &1.into()), "{event}");
    }
    assert!(Somebody::has(broker, "dead.orders", own("dead.orders")).await, "its arguments are what they were");
    assert!(
        Somebody::has(broker, "dead.orders.dead", arguments(&[("x-max-length", AMQPValue::LongInt(10_000))])).await,
        "its arguments are what they were"
    );
    // The control: other arguments would be told from these.
    assert!(
        !Somebody::has(broker, "dead.orders", quorum()).await
            && !Somebody::has(broker, "dead.orders.dead", arguments(&[])).await
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_can_be_no_event_stops_its_input_and_is_kept() {
    let Some(broker) = shared().await else { return };
    let theirs = Somebody::at(broker).await;
    theirs.queue("large.queue", quorum()).await;
    let home = Home::new();
    home.write_resource(
        "bindings.yaml",
        &(legacy(broker) + &input("large", "queue: large.queue, topic: large, key: queue")),
    );
    let gateway = home.start().await;
    let client = gateway.client();
    let large = "x".repeat(EVENT_BYTES + 1);
    theirs.publish("", "large.queue", "before", BasicProperties::default()).await;
    theirs.publish("", "large.queue", &large, BasicProperties::default().with_message_id("large".into())).await;
    theirs.publish("", "large.queue", "behind", BasicProperties::default()).await;
    let paused = wait_for(client, "large", "paused").await;
    let reason = paused["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("\"large\"") && reason.contains("allowed"), "{paused}");
    until("that the queue has back what was not taken", async || theirs.ready("large.queue").await == 2).await;
    assert_eq!(events(client, "large", 1).await.len(), 1, "what stood before it was taken");
    // Resumed, it stands still at the same message.
    client.post("/bindings/large/resume", &[], "").await.unwrap().expect(200);
    until("that it stands still again", async || {
        status(client, "large").await["state"] == "paused" && theirs.ready("large.queue").await == 2
    })
    .await;
    // Somebody takes it away, and it goes on.
    theirs.reject("large.queue").await;
    assert_eq!(theirs.ready("large.queue").await, 1);
    client.post("/bindings/large/resume", &[], "").await.unwrap().expect(200);
    assert_eq!(events(client, "large", 2).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_can_be_no_event_goes_where_its_queue_says_where_that_is_asked_for() {
    let Some(broker) = shared().await else { return };
    let theirs = Somebody::at(broker).await;
    let own = [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text("refused.dead"))];
    theirs.queue("refused.dead", arguments(&[])).await;
    theirs.queue("refused.queue", arguments(&own)).await;
    let home = Home::new();
    let spec = "queue: refused.queue, topic: refused, key: queue, onRefused: reject";
    home.write_resource("bindings.yaml", &(legacy(broker) + &input("refused", spec)));
    let gateway = home.start().await;
    let client = gateway.client();
    theirs.publish("", "refused.queue", &"x".repeat(EVENT_BYTES + 1), BasicProperties::default()).await;
    theirs.publish("", "refused.queue", "behind", BasicProperties::default()).await;
    assert_eq!(events(client, "refused", 1).await.len(), 1);
    assert_eq!(theirs.take_some("refused.dead", 1).await[0].data.len(), EVENT_BYTES + 1);
    let status = wait_for(client, "refused", "running").await;
    assert_eq!((&status["taken"], &status["rejected"]), (&1.into(), &1.into()));
}
