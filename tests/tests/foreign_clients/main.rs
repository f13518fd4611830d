//! Clients that are not ours write into and read from the gateway's topics on a broker, and the gateway theirs: Python's
//! `nats-py`, `confluent-kafka` and `pika`, with events read and written by the `cloudevents` package.
//!
//! With queues and exchanges of RabbitMQ, bindings stand in between.
//!
//! Events are compared whole, as documents in the JSON format: every attribute, and the data.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test beside the product, not inside it"
)]

mod bindings;
mod python;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};
use tidegate_conformance::Broker;
use tidegate_tests::client::Client;
use tidegate_tests::cluster::{Member, broker, settled, until};
use tidegate_tests::sink::{Delivery, Sink};
use tidegate_tests::subscriptions::Subscription;
use tokio::sync::OnceCell;

use python::Foreign;

/// A topic of the gateway that its own API publishes to.
const PUBLISHED: &str = "orders.eu";
/// A topic of the gateway that the foreign client writes into.
const WRITTEN: &str = "orders.foreign";
/// What a topic is called here that the foreign client has made, and what it called it.
const ATTACHED: &str = "legacy";
const THEIRS: &str = "LEGACY-orders";

/// An extension attribute with characters that bindings encode in different ways, and how HTTP headers carry it.
const NOTE: &str = "Gr\u{fc}\u{df}e, 100 % \"w\u{f6}rtlich\" \u{6771}\u{4eac}";
const NOTE_ENCODED: &str = "Gr%C3%BC%C3%9Fe,%20100%20%25%20%22w%C3%B6rtlich%22%20%E6%9D%B1%E4%BA%AC";
/// Bytes that are no text.
const BYTES: [u8; 6] = [0xff, 0x00, 0xfe, b'\n', 0x80, b'"'];

/// Events with data of JSON, text and bytes.
fn events(prefix: &str) -> Vec<Value> {
    let event = |kind: &str, media_type: &str, member: &str, data: Value| {
        json!({
            "specversion": "1.0", "id": format!("{prefix}-{kind}"), "source": "/shops/1?a=b", "type": "com.example.order.placed",
            "time": "2026-01-02T03:04:05.123456Z", "subject": "an order", "datacontenttype": media_type,
            "partitionkey": format!("customer \u{e9} {kind}"), "note": NOTE, member: data,
        })
    };
    vec![
        event("json", "application/json", "data", json!({"amount": 12.5, "items": ["\u{e4}\"", null, true, {}]})),
        event("text", "text/plain; charset=utf-8", "data", json!("line one\nline two: 5 \u{20ac}, 100%")),
        event("bytes", "application/octet-stream", "data_base64", json!(STANDARD.encode(BYTES))),
    ]
}

/// Records that are no events: their headers, their bodies, and what they must be wrapped into, but for what depends on where
/// they stand. The last one differs from an event by one attribute that is missing.
fn raw() -> Vec<(Value, &'static [u8], Value, &'static str)> {
    vec![
        (
            json!({"Content-Type": "text/csv"}),
            b"id;amount\n7;12,50\n",
            json!({"datacontenttype": "text/csv", "data": "id;amount\n7;12,50\n"}),
            "",
        ),
        (Value::Null, &BYTES, json!({"data_base64": STANDARD.encode(BYTES)}), ""),
        (
            json!({"Content-Type": "application/json", "-specversion": "1.0", "-source": "/s", "-type": "t"}),
            b"{\"a\": 1}",
            json!({"datacontenttype": "application/json", "data": {"a": 1}}),
            "id",
        ),
    ]
}

/// Events by source and id. One that comes more than once must be the same each time.
#[track_caller]
fn by_id(documents: impl IntoIterator<Item = Value>) -> BTreeMap<(String, String), Value> {
    let mut found: BTreeMap<_, Value> = BTreeMap::new();
    for document in documents {
        let text = |name: &str| document[name].as_str().unwrap_or_else(|| panic!("no {name}: {document}")).to_owned();
        let key = (text("source"), text("id"));
        if let Some(before) = found.get(&key) {
            assert_eq!(before, &document, "one event came in two forms");
        }
        found.insert(key, document);
    }
    found
}

/// A gateway on a broker, with a foreign client of that broker.
struct Stage {
    kind: &'static str,
    member: Member,
    foreign: Foreign,
    sink: Sink,
}

impl Stage {
    fn client(&self) -> &Client {
        self.member.client()
    }

    /// Subscribes the sink to a topic from its beginning, in both modes, by files of the running gateway.
    fn subscribe(&self, topic: &str, prefix: &str) {
        for (mode, delivery) in [("structured", &["mode: structured"][..]), ("binary", &[])] {
            let (name, url) = (format!("{prefix}-{mode}"), self.sink.url_of(&format!("/{mode}")));
            let subscription = Subscription { name: &name, topics: &[topic], filters: &[], sink: &url, delivery };
            self.member.home.write_resource(&format!("{name}.yaml"), &subscription.yaml());
        }
    }

    /// What foreign clients write: each event in both modes, and records that are no events; and the documents that the
    /// gateway must make of them, those of no events without their places.
    fn messages(&self, prefix: &str, partitions: u32) -> (Vec<Value>, Vec<Value>) {
        let (mut messages, mut expected) = (Vec::new(), Vec::new());
        for mode in ["binary", "structured"] {
            for mut event in events(&format!("{prefix}-{mode}")) {
                messages.push(json!({"mode": mode, "event": event}));
                // The package writes times into properties of AMQP in milliseconds.
                if self.kind == "rabbitmq" && mode == "binary" {
                    event["time"] = json!("2026-01-02T03:04:05.123Z");
                }
                expected.push(event);
            }
        }
        let binding = match self.kind {
            "kafka" => "ce_",
            "rabbitmq" => "cloudEvents_",
            _ => "ce-",
        };
        for (headers, body, mut document, _) in raw() {
            let headers: Option<serde_json::Map<String, Value>> = headers.as_object().map(|headers| {
                let whole = |name: &String| {
                    name.strip_prefix('-').map_or_else(|| name.clone(), |name| format!("{binding}{name}"))
                };
                headers.iter().map(|(name, value)| (whole(name), value.clone())).collect()
            });
            let mut message = json!({"mode": "raw", "headers": headers, "body_base64": STANDARD.encode(body)});
            // Only Kafka knows keys.
            if self.kind == "kafka" {
                message["key"] = json!("a key");
                document["partitionkey"] = json!("a key");
            }
            messages.push(message);
            expected.push(document);
        }
        if partitions > 1 {
            for (index, message) in messages.iter_mut().enumerate() {
                message["partition"] = json!(index % partitions as usize);
            }
        }
        (messages, expected)
    }

    /// Gives the documents of no events what follows from the places that they were written to.
    fn place(&self, topic: &str, expected: &mut [Value], written: &Value) {
        let written = written.as_array().unwrap();
        assert_eq!(written.len(), expected.len());
        for (document, place) in expected.iter_mut().zip(written) {
            if document.get("id").is_none() {
                document["specversion"] = json!("1.0");
                document["id"] = json!(format!("{}-{}", place["partition"], place["position"]));
                document["source"] = json!(format!("//{}/{topic}", self.kind));
                document["type"] = json!("dev.tidegate.foreign");
            }
        }
    }

    /// Checks that a topic has these events and no others, and that both subscriptions deliver them.
    async fn check(&self, topic: &str, expected: Vec<Value>) {
        let expected = by_id(expected);
        let path = format!("/topics/{topic}/events?from=earliest&limit=1000");
        let mut read = Vec::new();
        until("that all can be read", async || {
            read = self.client().get(&path).await.unwrap().expect(200).json().as_array().unwrap().clone();
            read.len() >= expected.len()
        })
        .await;
        assert_eq!(read.len(), expected.len(), "{read:#?}");
        assert_eq!(by_id(read.into_iter().map(without_reason)), expected, "as {topic} is read back");

        let is_of = |delivery: &Delivery, path: &str| {
            delivery.path == path && expected.contains_key(&(delivery.source.clone(), delivery.id.clone()))
        };
        let count = |deliveries: &[Delivery], path: &str| {
            let ids = deliveries.iter().filter(|delivery| is_of(delivery, path)).map(|delivery| &delivery.id);
            ids.collect::<std::collections::BTreeSet<_>>().len()
        };
        let all = |deliveries: &[Delivery]| {
            ["/structured", "/binary"].into_iter().all(|path| count(deliveries, path) == expected.len())
        };
        let deliveries = self.sink.wait_until(&format!("all of {topic} twice"), all).await;
        let structured = deliveries.iter().filter(|delivery| is_of(delivery, "/structured"));
        let documents = structured.map(|delivery| serde_json::from_slice(&delivery.body).unwrap()).map(without_reason);
        assert_eq!(by_id(documents), expected, "as {topic} is delivered");
        for delivery in deliveries.iter().filter(|delivery| is_of(delivery, "/binary")) {
            check_binary(delivery, &expected[&(delivery.source.clone(), delivery.id.clone())]);
        }
    }
}

/// Checks what each event that stands for a record says of why it is none, and takes that away.
fn without_reason(mut document: Value) -> Value {
    if document["type"] == "dev.tidegate.foreign" {
        let reason = document.as_object_mut().unwrap().remove("foreignreason");
        let reason =
            reason.as_ref().and_then(Value::as_str).unwrap_or_else(|| panic!("no reason: {document:#}")).to_owned();
        let wanted = raw()
            .into_iter()
            .find(|(_, _, raw, _)| raw["data"] == document["data"] && raw["data_base64"] == document["data_base64"]);
        let (_, _, _, wanted) = wanted.unwrap_or_else(|| panic!("nobody wrote that: {document:#}"));
        assert!(!reason.is_empty() && reason.contains(wanted), "{reason:?} does not say {wanted:?}: {document:#}");
    }
    document
}

/// Checks a delivery in binary mode: the content type, the attributes that are hard to carry, and the bytes of the body.
fn check_binary(delivery: &Delivery, expected: &Value) {
    let header = |name: &str| delivery.headers.get(name).map(|value| value.to_str().unwrap());
    assert_eq!(header("content-type"), expected["datacontenttype"].as_str(), "{delivery:?}");
    assert_eq!(header("ce-type"), expected["type"].as_str(), "{delivery:?}");
    if expected.get("note").is_some() {
        assert_eq!(header("ce-note"), Some(NOTE_ENCODED), "{delivery:?}");
        assert_eq!(header("ce-time"), expected["time"].as_str(), "{delivery:?}");
    }
    match (&expected["data"], expected["data_base64"].as_str()) {
        (_, Some(encoded)) => assert_eq!(delivery.body, STANDARD.decode(encoded).unwrap()),
        (Value::String(text), None) => assert_eq!(delivery.body, text),
        (json, None) => assert_eq!(serde_json::from_slice::<Value>(&delivery.body).unwrap(), *json),
    }
    let raw = raw().into_iter().find(|(_, body, ..)| delivery.body == *body);
    assert!(raw.is_some() || expected.get("note").is_some(), "a body was touched: {delivery:?}");
}

/// What the gateway's API publishes is read from the broker under the topic's own name, and nothing stands beside it.
async fn published_events_are_read(stage: &Stage) {
    let created = stage.client().send(Method::PUT, &format!("/topics/{PUBLISHED}"), &[], r#"{"partitions": 2}"#).await;
    created.unwrap().expect(201);
    let events = events("published");
    let mut places = BTreeMap::new();
    for event in &events {
        let headers = [("content-type", "application/cloudevents+json")];
        let answer = stage.client().post(&format!("/topics/{PUBLISHED}"), &headers, event.to_string()).await;
        let receipt = answer.unwrap().expect(202).json();
        places.insert(event["id"].to_string(), (receipt["partition"].clone(), receipt["offset"].clone()));
    }
    let found = stage.foreign.call("read", &[PUBLISHED, &events.len().to_string()], &Value::Null).await;
    let found = found.as_array().unwrap();
    for record in found {
        let event = &record["event"];
        let stream = if stage.kind == "nats" { PUBLISHED.replace('.', "~") } else { PUBLISHED.to_owned() };
        assert_eq!(record["stream"], json!(stream));
        assert_eq!(record["mode"], "binary");
        // RabbitMQ tells no position of what it takes, so the receipt has none.
        let position = if stage.kind == "rabbitmq" { Value::Null } else { record["position"].clone() };
        let place = (record["partition"].clone(), position);
        assert_eq!(places[&event["id"].to_string()], place, "where the receipt says: {record:#}");
        let attributes = ["id", "note", "partitionkey", "source", "specversion", "subject", "time", "type"];
        let mut headers: Vec<String> = match stage.kind {
            "kafka" => {
                assert_eq!(record["key"], event["partitionkey"]);
                attributes.iter().map(|name| format!("ce_{name}")).chain(["content-type".to_owned()]).collect()
            }
            "rabbitmq" => {
                // The two that brokers/rabbitmq/README.md tells of, because streams have neither.
                let ours = ["tidegate-append", "tidegate-appended-at"].map(str::to_owned);
                attributes.iter().map(|name| format!("cloudEvents_{name}")).chain(ours).collect()
            }
            _ => attributes.iter().chain(&["datacontenttype"]).map(|name| format!("ce-{name}")).collect(),
        };
        headers.sort();
        assert_eq!(record["headers"], json!(headers), "nothing of ours: {record:#}");
    }
    assert_eq!(by_id(found.iter().map(|record| record["event"].clone())), by_id(events));
}

/// What the foreign client writes into a topic of the gateway is delivered and read back; what is no event is wrapped.
async fn written_events_are_delivered(stage: &Stage) {
    let created = stage.client().send(Method::PUT, &format!("/topics/{WRITTEN}"), &[], r#"{"partitions": 3}"#).await;
    created.unwrap().expect(201);
    stage.subscribe(WRITTEN, "written");
    let (messages, mut expected) = stage.messages("written", 3);
    let written = stage.foreign.call("write", &[WRITTEN], &Value::Array(messages)).await;
    stage.place(WRITTEN, &mut expected, &written);
    stage.check(WRITTEN, expected).await;
}

/// What the foreign client has made by itself is attached, and read from its beginning and as it goes on.
async fn topics_of_others_are_attached(stage: &Stage) {
    // NATS: a stream of one subject is one partition. The subject is not the stream's name. RabbitMQ: a stream is one partition.
    let (made, target) = match stage.kind {
        "kafka" => ("2", THEIRS),
        "rabbitmq" => ("1", THEIRS),
        _ => ("legacy.orders", "legacy.orders"),
    };
    let partitions = if stage.kind == "kafka" { 2 } else { 1 };
    stage.foreign.call("create", &[THEIRS, made], &Value::Null).await;
    let (messages, mut expected) = stage.messages("before", partitions);
    let written = stage.foreign.call("write", &[target], &Value::Array(messages)).await;
    stage.place(ATTACHED, &mut expected, &written);

    // The control: nobody knows it before.
    let unknown = stage.client().get(&format!("/topics/{ATTACHED}/events?from=earliest")).await.unwrap();
    assert_eq!(unknown.expect_problem(&[404]), "topic-not-found");
    let body = json!({"attach": {"name": THEIRS}}).to_string();
    stage.client().send(Method::PUT, &format!("/topics/{ATTACHED}"), &[], body).await.unwrap().expect(201);
    stage.subscribe(ATTACHED, "attached");
    stage.check(ATTACHED, expected.clone()).await;

    let (messages, mut later) = stage.messages("after", partitions);
    let written = stage.foreign.call("write", &[target], &Value::Array(messages)).await;
    stage.place(ATTACHED, &mut later, &written);
    expected.extend(later);
    stage.check(ATTACHED, expected).await;
}

/// One gateway and one client of each kind for all of it: brokers and environments of Python are slow to start.
async fn foreign_clients_of(kind: &'static str, broker: Option<&Broker>) {
    let Some(broker) = broker else { return };
    let Some(foreign) = Foreign::of(broker).await else { return };
    let sink = Sink::accepting().await;
    let member = Member::start(broker).await;
    settled(&[&member]).await;
    let stage = Stage { kind, member, foreign, sink };
    published_events_are_read(&stage).await;
    written_events_are_delivered(&stage).await;
    topics_of_others_are_attached(&stage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_nats_read_and_write() {
    foreign_clients_of("nats", broker("nats").await.as_ref()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_kafka_read_and_write() {
    foreign_clients_of("kafka", broker("kafka").await.as_ref()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_rabbitmq_read_and_write() {
    foreign_clients_of("rabbitmq", rabbitmq().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_of_queues_meet_topics_by_bindings() {
    let Some(broker) = rabbitmq().await else { return };
    let Some(foreign) = Foreign::with(broker, "queues").await else { return };
    bindings::between_programs(broker, &foreign).await;
}

/// The broker that the tests of RabbitMQ share.
async fn rabbitmq() -> Option<&'static Broker> {
    static SHARED: OnceCell<Option<Broker>> = OnceCell::const_new();
    SHARED.get_or_init(|| broker("rabbitmq")).await.as_ref()
}
