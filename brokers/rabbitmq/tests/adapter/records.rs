use lapin::BasicProperties;
use lapin::options::BasicGetOptions;
use lapin::types::{AMQPValue, FieldTable, LongString};
use tidegate_backbone::{ErrorKind, Lane as _, LogSpec, NodeId, PartitionLog as _, Position, Record};
use tidegate_schemas::event::Data;
use tidegate_schemas::foreign::{REASON, is_foreign};

use crate::*;

fn headers(of: &[(&str, &str)]) -> FieldTable {
    let mut headers = FieldTable::default();
    for (name, value) in of {
        headers.insert((*name).into(), AMQPValue::LongString(LongString::from(*value)));
    }
    headers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_others_are_events() {
    let Some(server) = shared().await else { return };
    let (broker, _environment) = open(server.url(), "foreign").await;
    let theirs = somebody(server.url()).await;
    declare(&theirs, "of-others", "stream").await;
    assert_eq!(broker.attach("theirs", "of-others").await.unwrap(), 1);
    let properties = BasicProperties::default;
    let as_json = || properties().with_content_type("application/cloudevents+json; charset=utf-8".into());
    let attributes = |prefix: &str| {
        let named = ["specversion", "id", "source", "type"].map(|name| format!("{prefix}{name}"));
        headers(&[(&named[0], "1.0"), (&named[1], "b"), (&named[2], "/s"), (&named[3], "t")])
    };
    let structured = r#"{"specversion":"1.0","id":"s","source":"/s","type":"t","data":{"a":1}}"#;
    publish(&theirs, "of-others", structured, as_json()).await;
    let json = || properties().with_content_type("application/json".into());
    for prefix in ["cloudEvents_", "cloudEvents:"] {
        publish(&theirs, "of-others", "{\"b\": 2}", json().with_headers(attributes(prefix))).await;
    }
    publish(&theirs, "of-others", "plain", properties()).await;
    publish(&theirs, "of-others", "{", as_json()).await;
    publish(&theirs, "of-others", "x", properties().with_headers(headers(&[("cloudEvents_id", "half")]))).await;

    let stored = read(&broker, &log("theirs"), Position::ZERO).await;
    let events: Vec<&Event> = stored.iter().map(event_of).collect();
    assert_eq!((&**events[0].id(), events[0].data()), ("s", &Data::Json("{\"a\":1}".into())));
    for event in &events[1..3] {
        assert_eq!((&**event.id(), event.data()), ("b", &Data::Json("{\"b\": 2}".into())));
    }
    assert!(events[..3].iter().all(|event| !is_foreign(event)));
    for (event, reason) in events[3..].iter().zip(["neither", "EOF", "source"]) {
        assert!(is_foreign(event), "{event:?}");
        let told = event.attribute(REASON).unwrap_or_default();
        assert!(told.contains(reason), "{told}");
        assert_eq!(&**event.source(), "//rabbitmq/theirs");
    }
    // Letting go of it leaves it as it is.
    broker.delete(LogSpec::topic("theirs", 1)).await.unwrap();
    assert_eq!(broker.info(&log("theirs")).await.unwrap_err().kind(), &ErrorKind::NotFound);
    assert_eq!(broker.attach("again", "of-others").await.unwrap(), 1);
    assert_eq!(read(&broker, &log("again"), Position::ZERO).await.len(), 6);
    assert_eq!(broker.attach("none", "not-there").await.unwrap_err().kind(), &ErrorKind::NotFound);
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_of_others_is_not_read_and_a_super_stream_has_partitions() {
    let Some(server) = shared().await else { return };
    let (broker, _environment) = open(server.url(), "attached").await;
    let theirs = somebody(server.url()).await;
    declare(&theirs, "a-queue", "classic").await;
    publish(&theirs, "a-queue", "keep me", BasicProperties::default()).await;
    let error = broker.attach("theirs", "a-queue").await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Misconfigured, "{error}");
    let left = theirs.basic_get("a-queue".into(), BasicGetOptions::default()).await.unwrap();
    assert!(left.is_some_and(|left| !left.redelivered), "it was never given to anybody");
    for partition in ["super-0", "super-1"] {
        declare(&theirs, partition, "stream").await;
    }
    assert_eq!(broker.attach("theirs", "super").await.unwrap(), 2);
    publish(&theirs, "super-1", "second", BasicProperties::default()).await;
    let second = LogId::Topic { topic: "theirs".into(), partition: 1 };
    assert_eq!(read(&broker, &second, Position::ZERO).await.len(), 1);
    assert_eq!(read(&broker, &log("theirs"), Position::ZERO).await.len(), 0, "and the first has none");
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_read_what_is_written_here() {
    let Some(server) = shared().await else { return };
    let (broker, _environment) = open(server.url(), "ours").await;
    let orders = topic(&broker, "orders").await;
    let event = event("1").into_builder().data_content_type("text/plain").data(Data::Text("hello".into()));
    broker.append(&orders, Record::Event(event.build().unwrap())).await.unwrap();
    // By the name of the stream that the documentation tells, and the names of the binding.
    let theirs = somebody(server.url()).await;
    let (reader, _environment) = open(server.url(), "reader").await;
    assert_eq!(reader.attach("orders", "ours.orders-0").await.unwrap(), 1);
    let read = read(&reader, &log("orders"), Position::ZERO).await;
    assert_eq!(event_of(&read[0]).data(), &Data::Text("hello".into()));
    let found = theirs.queue_declare(
        "ours.orders-0".into(),
        lapin::options::QueueDeclareOptions { passive: true, ..Default::default() },
        FieldTable::default(),
    );
    found.await.expect("it has that name");
    for broker in [broker, reader] {
        broker.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_to_nobody_is_told() {
    let Some(server) = shared().await else { return };
    let (broker, _environment) = open(server.url(), "nobody").await;
    let error = broker.send(NodeId(7 << 16), "hello".into()).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::NotFound, "{error}");
    // The control: somebody is there.
    let mut inbox = broker.receive(NodeId(7 << 16)).await.unwrap();
    broker.send(NodeId(7 << 16), "hello".into()).await.unwrap();
    let got = tokio::time::timeout(HANG, inbox.next()).await.expect("it comes");
    assert_eq!(got.as_deref(), Some(&b"hello"[..]));
    // Of an inbox that is gone the queue goes too.
    drop(inbox);
    let deadline = tokio::time::Instant::now() + HANG;
    while broker.send(NodeId(7 << 16), "hello".into()).await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "the queue stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    broker.close().await;
}
