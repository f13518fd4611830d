//! Input bindings: messages of queues become events.

use lapin::BasicProperties;
use serde_json::Value;
use tidegate_tests::bindings::{events, input, legacy, status, wait_for};
use tidegate_tests::cluster::until;
use tidegate_tests::home::Home;

use crate::shared;
use crate::somebody::{Somebody, arguments, quorum, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_classic_and_quorum_queues_become_events() {
    let Some(broker) = shared().await else { return };
    let theirs = Somebody::at(broker).await;
    theirs.queue("in.classic", arguments(&[])).await;
    theirs.queue("in.quorum", quorum()).await;
    let home = Home::new();
    let resources = legacy(broker)
        + &input("classic", "queue: in.classic, topic: classic, key: header customer")
        + &input("quorum", "queue: in.quorum, topic: quorum, type: com.example.order, source: /legacy, key: queue");
    home.write_resource("bindings.yaml", &resources);
    let gateway = home.start().await;
    let client = gateway.client();
    for queue in ["in.classic", "in.quorum"] {
        for n in 0..50 {
            let headers = arguments(&[("customer", text(&format!("c{}", n % 3)))]);
            let properties = BasicProperties::default()
                .with_message_id(format!("m-{n}").into())
                .with_type("OrderPlaced".into())
                .with_timestamp(86_400)
                .with_content_type("application/json".into())
                .with_headers(headers);
            theirs.publish("", queue, &format!("{{\"n\": {n}}}"), properties).await;
        }
    }
    let came = events(client, "classic", 50).await;
    let expected = |n: usize| {
        serde_json::json!({
            "specversion": "1.0", "id": format!("m-{n}"), "source": "//legacy/in.classic", "type": "OrderPlaced",
            "time": "1970-01-02T00:00:00Z", "datacontenttype": "application/json", "data": {"n": n}, "exchange": "",
            "routingkey": "in.classic", "partitionkey": format!("c{}", n % 3),
        })
    };
    for key in 0..3 {
        let of_key: Vec<&Value> = came.iter().filter(|event| event["partitionkey"] == format!("c{key}")).collect();
        let sent: Vec<Value> = (0..50).filter(|n| n % 3 == key).map(expected).collect();
        assert_eq!(of_key, sent.iter().collect::<Vec<_>>(), "the order of a key");
    }
    let came = events(client, "quorum", 50).await;
    let ids: Vec<&str> = came.iter().map(|event| event["id"].as_str().unwrap_or_default()).collect();
    let sent: Vec<String> = (0..50).map(|n| format!("m-{n}")).collect();
    assert_eq!(ids, sent, "the order of the queue");
    assert_eq!((&came[0]["type"], &came[0]["source"]), (&"com.example.order".into(), &"/legacy".into()));
    for (name, queue) in [("classic", "in.classic"), ("quorum", "in.quorum")] {
        let status = wait_for(client, name, "running").await;
        assert_eq!((&status["taken"], &status["rejected"]), (&50.into(), &0.into()), "{status}");
        assert_eq!(status["gateway"], client.address().to_string());
        assert_eq!(theirs.ready(queue).await, 0);
    }
    // What the gateway was given back to: a message that nobody acknowledged would come again.
    drop(gateway);
    assert_eq!((theirs.ready("in.classic").await, theirs.ready("in.quorum").await), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_carry_events_are_those_events() {
    let Some(broker) = shared().await else { return };
    let theirs = Somebody::at(broker).await;
    theirs.queue("in.events", arguments(&[])).await;
    let home = Home::new();
    home.write_resource(
        "bindings.yaml",
        &(legacy(broker) + &input("events", "queue: in.events, topic: events, key: queue")),
    );
    let gateway = home.start().await;
    let named = [
        ("specversion", "1.0"),
        ("id", "b"),
        ("source", "/s"),
        ("type", "t"),
        ("partitionkey", "mine"),
        ("tidegatehops", "3"),
    ];
    for prefix in ["cloudEvents_", "cloudEvents:"] {
        let named = named.map(|(name, value)| (format!("{prefix}{name}"), text(value)));
        let headers = arguments(&named.each_ref().map(|(name, value)| (name.as_str(), value.clone())));
        theirs.publish("", "in.events", "body", BasicProperties::default().with_headers(headers)).await;
    }
    let structured = r#"{"specversion":"1.0","id":"s","source":"/s","type":"t","data":{"a":1}}"#;
    let as_json = BasicProperties::default().with_content_type("application/cloudevents+json".into());
    theirs.publish("", "in.events", structured, as_json.clone()).await;
    theirs.publish("", "in.events", "{", as_json.with_message_id("broken".into())).await;
    let came = events(gateway.client(), "events", 4).await;
    let of = |id: &str| came.iter().filter(|event| event["id"] == id).collect::<Vec<_>>();
    for event in of("b") {
        assert_eq!((&event["partitionkey"], &event["tidegatehops"]), (&"mine".into(), &"3".into()), "{event}");
        assert!(event.get("routingkey").is_none() && event.get("exchange").is_none(), "{event}");
    }
    assert_eq!(of("b").len(), 2, "{came:?}");
    assert_eq!(of("s")[0]["partitionkey"], "in.events", "the key of one that has none");
    let broken = of("broken")[0];
    assert!(broken["foreignreason"].is_string() && broken["data_base64"].is_string(), "{broken}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_is_read_by_a_queue_of_the_gateways_own() {
    let Some(broker) = shared().await else { return };
    let theirs = Somebody::at(broker).await;
    theirs.exchange("in.exchange").await;
    let home = Home::new();
    let spec = "exchange: {name: in.exchange, bind: ['order.#', 'payment.*']}, topic: from-exchange, key: routingKey";
    home.write_resource("bindings.yaml", &(legacy(broker) + &input("from-exchange", spec)));
    let gateway = home.start().await;
    let client = gateway.client();
    wait_for(client, "from-exchange", "running").await;
    let own = "tidegate~binding~from-exchange";
    assert!(Somebody::has(broker, own, quorum()).await, "the queue is of the kind that survives");
    for (key, body) in [("order.eu.placed", "1"), ("payment.eu", "2")] {
        theirs.publish("in.exchange", key, body, BasicProperties::default()).await;
    }
    let came = events(client, "from-exchange", 2).await;
    let told: Vec<(&Value, &Value)> = came.iter().map(|event| (&event["routingkey"], &event["exchange"])).collect();
    assert!(told.contains(&(&"order.eu.placed".into(), &"in.exchange".into())), "{came:?}");
    assert_ne!(came[0]["id"], came[1]["id"], "an id of its own where the message has none");
    // What comes while no gateway is there is kept.
    gateway.terminate().await;
    theirs.publish("in.exchange", "order.late", "3", BasicProperties::default()).await;
    let gateway = home.start().await;
    assert_eq!(events(gateway.client(), "from-exchange", 3).await[2]["routingkey"], "order.late");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_bound_no_longer_brings_nothing() {
    let Some(broker) = shared().await else { return };
    let theirs = Somebody::at(broker).await;
    for exchange in ["keys.first", "keys.second"] {
        theirs.exchange(exchange).await;
    }
    let home = Home::new();
    let binds = |exchange: &str, keys: &str| {
        let spec = format!("exchange: {{name: {exchange}, bind: [{keys}]}}, topic: keys, key: routingKey");
        home.write_resource("bindings.yaml", &(legacy(broker) + &input("keys", &spec)));
    };
    // A message comes back where nobody is bound by its key.
    let taken = async |exchange: &str, key: &str| theirs.tries(exchange, key, key, BasicProperties::default()).await;
    binds("keys.first", "a, b");
    let gateway = home.start().await;
    wait_for(gateway.client(), "keys", "running").await;
    assert!(taken("keys.first", "a").await && taken("keys.first", "b").await, "the control: it was bound by both");
    // Changed while no gateway runs, which ended as it liked.
    gateway.kill().await;
    binds("keys.first", "b, c");
    let gateway = home.start().await;
    let client = gateway.client();
    wait_for(client, "keys", "running").await;
    assert!(!taken("keys.first", "a").await, "it is bound no longer");
    assert!(taken("keys.first", "b").await && taken("keys.first", "c").await);
    // And while one runs: another key, and another exchange.
    binds("keys.first", "c");
    until("that one more is unbound", async || !taken("keys.first", "b").await).await;
    assert!(taken("keys.first", "c").await);
    binds("keys.second", "c");
    until("that the other exchange is unbound", async || !taken("keys.first", "c").await).await;
    wait_for(client, "keys", "running").await;
    assert!(taken("keys.second", "c").await);
    until("that it arrives", async || {
        events(client, "keys", 1).await.iter().any(|event| event["exchange"] == "keys.second")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_is_not_there_is_waited_for_and_a_stream_is_refused() {
    let Some(broker) = shared().await else { return };
    let theirs = Somebody::at(broker).await;
    theirs.queue("in.stream", arguments(&[("x-queue-type", text("stream"))])).await;
    let home = Home::new();
    let resources = legacy(broker)
        + &input("late", "queue: in.late, topic: late")
        + &input("stream", "queue: in.stream, topic: stream");
    home.write_resource("bindings.yaml", &resources);
    let gateway = home.start().await;
    let client = gateway.client();
    let waits = wait_for(client, "late", "waiting").await;
    assert!(waits["reason"].as_str().unwrap_or_default().contains("no queue 'in.late'"), "{waits}");
    theirs.queue("in.late", arguments(&[])).await;
    theirs.publish("", "in.late", "x", BasicProperties::default()).await;
    assert_eq!(events(client, "late", 1).await.len(), 1);
    wait_for(client, "late", "running").await;
    theirs.publish("", "in.stream", "x", BasicProperties::default()).await;
    let refused = wait_for(client, "stream", "waiting").await;
    assert!(refused["reason"].as_str().unwrap_or_default().contains("attach it as a topic"), "{refused}");
    client.get("/bindings/none-such").await.unwrap().expect_problem(&[404]);
    assert_eq!(status(client, "late").await["taken"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bindings_come_and_go_with_their_files() {
    let Some(broker) = shared().await else { return };
    let theirs = Somebody::at(broker).await;
    theirs.queue("in.reloaded", arguments(&[])).await;
    let home = Home::new();
    home.write_resource("broker.yaml", &legacy(broker));
    let gateway = home.start().await;
    let client = gateway.client();
    theirs.publish("", "in.reloaded", "1", BasicProperties::default()).await;
    let file = home.write_resource("binding.yaml", &input("reloaded", "queue: in.reloaded, topic: one"));
    assert_eq!(events(client, "one", 1).await.len(), 1);
    home.write_resource("binding.yaml", &input("reloaded", "queue: in.reloaded, topic: two"));
    until("that it goes elsewhere", async || {
        client.get("/bindings/reloaded").await.unwrap().expect(200).json()["topic"] == "two"
    })
    .await;
    theirs.publish("", "in.reloaded", "2", BasicProperties::default()).await;
    assert_eq!(events(client, "two", 1).await[0]["data_base64"], "Mg==");
    std::fs::remove_file(file).expect("the folder is ours");
    until("that it is gone", async || client.get("/bindings/reloaded").await.unwrap().status == 404).await;
    until("that nobody reads it", async || theirs.readers("in.reloaded").await == 0).await;
    theirs.publish("", "in.reloaded", "3", BasicProperties::default()).await;
    assert_eq!(theirs.take_some("in.reloaded", 1).await[0].data, b"3", "it is not taken any more");
    assert_eq!(events(client, "two", 1).await.len(), 1);
}
