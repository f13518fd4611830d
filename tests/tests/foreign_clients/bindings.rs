//! Programs with `pika` on queues and exchanges, and bindings that bring what they send into topics and back to them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tidegate_conformance::Broker;
use tidegate_tests::bindings::{self, input, legacy, output, to, wait_for};
use tidegate_tests::client::Client;
use tidegate_tests::home::Home;
use tidegate_tests::sink::{Delivery, Sink};
use tidegate_tests::subscriptions::{Subscription, dead_letters};

use crate::python::Foreign;
use crate::{BYTES, NOTE, by_id, check_binary, events};

/// The properties of plain messages, as `pika` calls them.
const TIMESTAMP_SECONDS: u64 = 1_767_323_045;
const TIME: &str = "2026-01-02T03:04:05Z";

/// An event with an attribute of every type that CloudEvents has. Bytes and what is written as text are text in JSON.
fn typed(mut event: Value) -> Value {
    let attributes = [
        ("dataschema", json!("https://example.com/schemas/order?v=1#it")),
        ("urgent", json!(true)),
        ("quiet", json!(false)),
        ("most", json!(i32::MAX)),
        ("least", json!(i32::MIN)),
        ("link", json!("https://example.com/a%20b?c=d")),
        ("reference", json!("../orders/7#lines")),
        ("due", json!("2027-01-02T03:04:05.25+02:00")),
        ("signature", json!(STANDARD.encode(BYTES))),
    ];
    for (name, value) in attributes {
        event[name] = value;
    }
    event
}

/// What `pika` is to send with a key, and the documents that the gateway must make of it, for what is read by a binding with
/// `key: routingKey`. Events by both modes of the package, and plain messages with their own id, type and time.
fn messages(prefix: &str, exchange: &str, key: &str) -> (Vec<Value>, Vec<Value>) {
    let (mut messages, mut expected) = (Vec::new(), Vec::new());
    for mode in ["binary", "structured"] {
        for event in events(&format!("{prefix}-{mode}")) {
            let mut event = typed(event);
            let mut message = json!({"mode": mode, "event": event, "key": key});
            if mode == "binary" {
                // As bytes of AMQP, and the package writes times in milliseconds.
                let bytes = message["event"].as_object_mut().unwrap().remove("signature").unwrap();
                message["attributes_base64"] = json!({"signature": bytes});
                event["time"] = json!("2026-01-02T03:04:05.123Z");
            }
            messages.push(message);
            expected.push(event);
        }
    }
    let plain: [(&str, Option<&str>, &[u8], Value); 3] = [
        ("json", Some("application/json"), b"{ \"amount\" : 12.50 }", json!({"data": {"amount": 12.5}})),
        ("text", Some("text/csv"), "id;name\n7;\u{fc}\n".as_bytes(), json!({"data": "id;name\n7;\u{fc}\n"})),
        ("bytes", None, &BYTES, json!({"data_base64": STANDARD.encode(BYTES)})),
    ];
    for (name, content_type, body, mut document) in plain {
        let id = format!("{prefix}-plain-{name}");
        let mut properties = json!({"message_id": id, "type": "OrderPlaced", "timestamp": TIMESTAMP_SECONDS});
        if let Some(content_type) = content_type {
            properties["content_type"] = json!(content_type);
            document["datacontenttype"] = json!(content_type);
        }
        messages.push(json!({
            "mode": "plain", "key": key, "properties": properties, "headers": {"customer": 7, "note": NOTE},
            "body_base64": STANDARD.encode(body),
        }));
        let from = if exchange.is_empty() { key } else { exchange };
        let attributes = [
            ("specversion", "1.0"),
            ("id", id.as_str()),
            ("source", &format!("//legacy/{from}")),
            ("type", "OrderPlaced"),
            ("time", TIME),
            ("exchange", exchange),
            ("routingkey", key),
            ("partitionkey", key),
        ];
        for (name, value) in attributes {
            document[name] = json!(value);
        }
        expected.push(document);
    }
    (messages, expected)
}

/// Checks that a topic has these events and no others, and that the bodies of deliveries in binary mode are the bytes that
/// were sent, where a message was the payload and nothing else.
async fn arrived(client: &Client, sink: &Sink, topic: &str, (messages, expected): (&[Value], &[Value]), sent: &Value) {
    let read = bindings::events(client, topic, expected.len()).await;
    assert_eq!(read.len(), expected.len(), "{read:#?}");
    assert_eq!(by_id(read), by_id(expected.iter().cloned()), "what became of what was sent to {topic}");
    let id = |document: &Value| document["id"].as_str().unwrap().to_owned();
    let ids: Vec<String> = expected.iter().map(id).collect();
    let deliveries = sink.wait_for_ids(&ids).await;
    let by_id: BTreeMap<&str, &Delivery> = deliveries.iter().map(|delivery| (&*delivery.id, delivery)).collect();
    for ((message, document), sent) in messages.iter().zip(expected).zip(sent.as_array().unwrap()) {
        let delivery = by_id[&*id(document)];
        if message["mode"] != "plain" {
            check_binary(delivery, document);
        }
        if message["mode"] != "structured" {
            assert_eq!(delivery.body, STANDARD.decode(sent.as_str().unwrap()).unwrap(), "{delivery:?}");
        }
    }
}

pub(crate) async fn between_programs(broker: &Broker, foreign: &Foreign) {
    let lost = json!({"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "pika.dead"});
    let declared = json!({"exchanges": ["pika.shop", "pika.out"], "queues": [
        {"name": "pika.queue", "arguments": {"x-queue-type": "quorum"}},
        {"name": "pika.dead"},
        {"name": "pika.work", "arguments": lost},
        {"name": "pika.orders", "bind": [["pika.out", "order.#"]]},
    ]});
    foreign.call("declare", &[], &declared).await;
    let (sink, home) = (Sink::accepting().await, Home::new());
    let (url, spec) = (sink.url(), "exchange: {name: pika.shop, bind: ['order.*', 'parcel.#']}, topic: from-exchange");
    let topics = ["from-exchange", "from-queue", "from-dead"];
    let all = Subscription { name: "all", topics: &topics, filters: &[], sink: &url, delivery: &[] }.yaml();
    let resources = legacy(broker)
        + &input("from-exchange", &format!("{spec}, key: routingKey"))
        + &input("from-queue", "queue: pika.queue, topic: from-queue, key: routingKey")
        + &input("from-dead", "queue: pika.dead, topic: from-dead")
        + &output("out", "exchange: pika.out, routingKey: 'order.{type}'")
        + &to("to-out", "orders", "out", &[])
        + "---\n"
        + &all;
    home.write_resource("bindings.yaml", &resources);
    let gateway = home.start().await;
    let client = gateway.client();
    for name in topics {
        wait_for(client, name, "running").await;
    }
    for (topic, exchange, key) in [("from-exchange", "pika.shop", "order.eu"), ("from-queue", "", "pika.queue")] {
        let (messages, expected) = messages(topic, exchange, key);
        let sent = foreign.call("send", &[exchange], &Value::Array(messages.clone())).await;
        arrived(client, &sink, topic, (&messages, &expected), &sent).await;
    }
    refused_messages_arrive(client, foreign).await;
    events_are_consumed(client, foreign).await;
}

/// What a program refuses for good goes to its queue's dead-letter queue, and from there into a topic; what it takes does not.
async fn refused_messages_arrive(client: &Client, foreign: &Foreign) {
    let (mut messages, _) = messages("work", "", "pika.work");
    // An event and three plain messages, of which the last one is not refused.
    messages.retain(|message| {
        message["mode"] == "plain" || (message["mode"] == "binary" && message["event"]["id"] == "work-binary-json")
    });
    foreign.call("send", &[""], &Value::Array(messages)).await;
    // The control: nothing comes before somebody refuses it.
    let before = client.get("/topics/from-dead/events?from=earliest").await.unwrap();
    assert!(before.status == 404 || before.json().as_array().is_some_and(Vec::is_empty), "{before}");
    foreign.call("nack", &["pika.work", "3"], &Value::Null).await;
    let came = bindings::events(client, "from-dead", 3).await;
    assert_eq!(came.len(), 3, "the fourth was not refused: {came:#?}");
    for event in &came {
        let told = (&event["deathreason"], &event["deathqueue"], &event["deathcount"]);
        assert_eq!(told, (&json!("rejected"), &json!("pika.work"), &json!(1)), "{event}");
    }
    let by_id = |id: &str| came.iter().find(|event| event["id"] == id).unwrap_or_else(|| panic!("{id}: {came:#?}"));
    let event = by_id("work-binary-json");
    assert_eq!((&event["signature"], &event["most"]), (&json!(STANDARD.encode(BYTES)), &json!(i32::MAX)), "{event}");
    assert_eq!(by_id("work-plain-json")["data"], json!({"amount": 12.5}));
}

/// Events of a topic, taken by `pika` and read by the package: every attribute with its type, and the payload's bytes.
async fn events_are_consumed(client: &Client, foreign: &Foreign) {
    let mut published: Vec<Value> = events("out").into_iter().map(typed).collect();
    let mut none = typed(events("none").remove(0));
    for name in ["data", "datacontenttype"] {
        none.as_object_mut().unwrap().remove(name);
    }
    published.push(none);
    // Its own payload would be taken for it in binary mode.
    let mut nested = typed(events("nested").remove(0));
    nested["datacontenttype"] = json!("application/cloudevents+json");
    published.push(nested);
    for event in &published {
        let headers = [("content-type", "application/cloudevents+json")];
        client.post("/topics/orders", &headers, event.to_string()).await.unwrap().expect(202);
    }
    let count = published.len().to_string();
    let found = foreign.call("take", &["pika.orders", &count], &Value::Null).await;
    let found = found.as_array().unwrap();
    let expected = published.iter().map(|event| {
        let mut event = event.clone();
        event["tidegatehops"] = json!(1);
        event
    });
    assert_eq!(by_id(found.iter().map(|message| message["event"].clone())), by_id(expected));
    for message in found {
        let event = &message["event"];
        assert_eq!((&message["exchange"], &message["delivery_mode"]), (&json!("pika.out"), &json!(2)), "{message:#}");
        assert_eq!(message["key"], "order.com.example.order.placed");
        assert_eq!((&message["message_id"], &message["type"]), (&event["id"], &event["type"]), "{message:#}");
        assert_eq!(message["timestamp"], TIMESTAMP_SECONDS, "{message:#}");
        let is_nested = event["datacontenttype"] == "application/cloudevents+json";
        assert_eq!(message["mode"], if is_nested { "structured" } else { "binary" }, "{message:#}");
        let body = STANDARD.decode(message["body_base64"].as_str().unwrap()).unwrap();
        match (&event["data"], event["data_base64"].as_str()) {
            _ if is_nested => {}
            (_, Some(encoded)) => assert_eq!(body, STANDARD.decode(encoded).unwrap()),
            (Value::String(text), None) => assert_eq!(body, text.as_bytes()),
            (Value::Null, None) => assert!(body.is_empty(), "{message:#}"),
            // As it was published: nobody parses it on its way.
            (json, None) => assert_eq!(body, json.to_string().as_bytes()),
        }
    }
    assert!(dead_letters(client, "to-out").await.is_empty());
}
