//! Circles over brokers, and gateways that start while a broker is away.

use tidegate_tests::client::Outgoing;
use tidegate_tests::cluster::{broker, order};
use tidegate_tests::home::Home;
use tidegate_tests::sink::Sink;
use tidegate_tests::subscriptions::{dead_letters, wait_for_dead_letters};

use super::{THERE, bridge, broker_of, broker_of_ours, end, topic_on, topics_on};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_circle_over_a_broker_ends_in_a_dead_letter() {
    let Some(nats) = broker("nats").await else { return };
    topics_on(&nats, &[THERE]).await;
    let home = Home::new();
    let window = ", dedupe: {window: 0s}";
    let here = "apiVersion: tidegate.dev/v1\nkind: Topic\nmetadata: {name: here}\nspec: {dedupe: {window: 0s}}\n---\n";
    let resources = broker_of("n", nats.url(), "")
        + &topic_on("on-nats", "n", THERE, window)
        + here
        + &bridge("there", "here", "on-nats", &[]);
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
    let Some(nats) = broker_of_ours("nats").await else { return };
    topics_on(&nats, &[THERE]).await;
    nats.kill(None).await;
    let (sink, home) = (Sink::accepting().await, Home::new());
    let resources = broker_of("n", nats.url(), "")
        + &topic_on("on-nats", "n", THERE, "")
        + &bridge("out", "load", "on-nats", &["order: key"])
        + &end("end", "on-nats", &sink, &[]);
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
    for (topic, durability) in [("on-nats", "os"), ("load", "fsync")] {
        let event = Outgoing { id: "receipt", ..Outgoing::default() };
        let receipt = client.publish(topic, &event).await.unwrap().expect(202).json();
        assert_eq!(
            receipt["durability"], durability,
            "a receipt tells the class of the broker that the topic is on: {receipt}"
        );
    }
}
