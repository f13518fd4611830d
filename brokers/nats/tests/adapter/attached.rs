//! Streams of others, and what others write.

use bytes::Bytes;
use futures_util::StreamExt as _;
use tidegate_backbone::{Applied, ErrorKind, LogSpec, PartitionLog as _, Position, Record};
use tidegate_conformance::Broker;
use tidegate_schemas::event::Data;
use tidegate_schemas::{Event, Value, foreign};

use super::{HANG, event, id_of, open, options, partition, read};

/// Another program at the same server, which knows nothing of Tidegate.
async fn program(url: &str) -> (async_nats::Client, async_nats::jetstream::Context) {
    let client = async_nats::connect(url).await.unwrap();
    (client.clone(), async_nats::jetstream::new(client))
}

fn stored_event(record: &Record) -> &Event {
    match record {
        Record::Event(event) => event,
        Record::Frame(_) => panic!("a topic holds events"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_write_is_read_and_what_is_written_others_read() {
    let Some(broker) = Broker::start("nats").await else { return };
    let options = options(broker.url());
    let log = open(&options).await;
    log.create(LogSpec::topic("orders", 1)).await.unwrap();
    let subject = format!("{}orders.0", options.topic_prefix);
    let (client, stream) = program(broker.url()).await;

    // In binary mode, by another program.
    let mut headers = async_nats::HeaderMap::new();
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("Ce-Id", "a%20b"),
        ("ce-source", "/theirs"),
        ("ce-type", "t"),
        ("ce-datacontenttype", "text/plain"),
        ("Nats-Msg-Id", "77"),
    ] {
        headers.insert(name, value);
    }
    stream.publish_with_headers(subject.clone(), headers, "binary".into()).await.unwrap().await.unwrap();
    // In structured mode, with and without the header that says so.
    let body = r#"{"specversion":"1.0","id":"c","source":"/theirs","type":"t","sampledrate":3,"data":{"a":1}}"#;
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Content-Type", "application/cloudevents+json; charset=utf-8");
    stream.publish_with_headers(subject.clone(), headers, body.into()).await.unwrap().await.unwrap();
    stream.publish(subject.clone(), body.into()).await.unwrap().await.unwrap();
    // And what is no event.
    stream.publish(subject.clone(), "plain".into()).await.unwrap().await.unwrap();
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("ce-id", "1");
    stream.publish_with_headers(subject.clone(), headers, "half".into()).await.unwrap().await.unwrap();

    let records = read(log.as_ref(), &partition(0), Position::ZERO).await;
    let events: Vec<&Event> = records.iter().map(|stored| stored_event(&stored.record)).collect();
    let ids: Vec<&str> = events.iter().map(|event| &**event.id()).collect();
    assert_eq!(ids, ["a b", "c", "c", "0-3", "0-4"]);
    assert_eq!(events[0].data(), &Data::Text("binary".into()));
    assert_eq!(events[1].extension("sampledrate"), Some(&Value::Integer(3)));
    assert_eq!(events[1].data(), &Data::Json(Bytes::from_static(b"{\"a\":1}")));
    let is_foreign: Vec<bool> = events.iter().map(|event| foreign::is_foreign(event)).collect();
    assert_eq!(is_foreign, [false, false, false, true, true]);
    assert_eq!(events[3].source(), "//nats/orders");
    assert_eq!(events[3].data().as_bytes(), b"plain");
    let reason = events[4].attribute(foreign::REASON).unwrap();
    assert!(reason.contains("ce-specversion"), "{reason}");

    // The other way round: a program without Tidegate sees an event of the binding, and nothing beside it.
    let mut seen = client.subscribe(subject).await.unwrap();
    // A question on the same connection: once it is answered the server knows of the subscription, which flushing does not tell.
    stream.query_account().await.unwrap();
    let sent = Event::builder("1", "/ours", "t").extension("note", Value::String("a b".into())).build().unwrap();
    log.append(&partition(0), Record::Event(sent)).await.unwrap();
    let message = tokio::time::timeout(HANG, seen.next()).await.expect("the message comes").unwrap();
    let mut names: Vec<(String, String)> = message
        .headers
        .unwrap()
        .iter()
        .map(|(name, values)| (name.to_string(), values[0].as_str().to_owned()))
        .collect();
    names.sort();
    let expected =
        [("ce-id", "1"), ("ce-note", "a%20b"), ("ce-source", "/ours"), ("ce-specversion", "1.0"), ("ce-type", "t")];
    assert_eq!(names, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_others_are_attached_and_left_alone() {
    let Some(broker) = Broker::start("nats").await else { return };
    let log = open(&options(broker.url())).await;
    let (_, stream) = program(broker.url()).await;
    let create = |name: &'static str, subjects: &'static [&'static str]| {
        let subjects = subjects.iter().map(|subject| (*subject).to_owned()).collect();
        let config = async_nats::jetstream::stream::Config { name: name.to_owned(), subjects, ..Default::default() };
        stream.create_stream(config)
    };
    create("PARTED", &["parted.0", "parted.1"]).await.unwrap();
    create("WHOLE", &["whole.>"]).await.unwrap();
    for n in 0..10 {
        stream.publish(format!("parted.{}", n % 2), n.to_string().into()).await.unwrap().await.unwrap();
        stream.publish(format!("whole.{n}"), n.to_string().into()).await.unwrap().await.unwrap();
    }
    let before = stream.get_stream("PARTED").await.unwrap().cached_info().config.clone();

    let error = log.attach("orders", "NONE").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound, "{error}");
    assert_eq!(log.attach("orders", "PARTED").await.unwrap(), 2);
    let payloads = |records: Vec<tidegate_backbone::Stored>| -> Vec<String> {
        let text = |record: &Record| String::from_utf8(stored_event(record).data().to_bytes().to_vec()).unwrap();
        records.iter().map(|stored| text(&stored.record)).collect()
    };
    assert_eq!(payloads(read(log.as_ref(), &partition(1), Position::ZERO).await), ["1", "3", "5", "7", "9"]);
    let position = log.append(&partition(1), event("ours")).await.unwrap().position.unwrap();
    let records = read(log.as_ref(), &partition(1), position).await;
    assert_eq!(records.iter().map(id_of).collect::<Vec<_>>(), ["ours"]);
    assert_eq!(log.list().await.unwrap().len(), 2);

    assert_eq!(log.attach("orders", "WHOLE").await.unwrap(), 1, "the topic is another one from now on");
    assert_eq!(read(log.as_ref(), &partition(0), Position::ZERO).await.len(), 10);
    let error = log.append(&partition(0), event("ours")).await.unwrap_err();
    assert_eq!((error.kind(), error.applied()), (&ErrorKind::Misconfigured, Applied::No), "no one subject is its own");
    // Limits of the other program take records from the front: that is told.
    stream.get_stream("WHOLE").await.unwrap().purge().sequence(6).await.unwrap();
    let error = log.tail(&partition(0), Position(3)).await.err().expect("it is gone");
    assert_eq!(*error.kind(), ErrorKind::PositionLost { earliest: Position(5) });

    log.delete(LogSpec::topic("orders", 1)).await.unwrap();
    assert_eq!(log.list().await.unwrap().len(), 0);
    let after = stream.get_stream("PARTED").await.unwrap().cached_info().config.clone();
    assert_eq!(before, after, "attaching and letting go change nothing");
    assert_eq!(stream.get_stream("WHOLE").await.unwrap().cached_info().state.messages, 5);
}

/// A stream that has a topic's name and was made by somebody else is neither used nor deleted as one of ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_somebody_else_is_no_topic() {
    let Some(broker) = Broker::start("nats").await else { return };
    let options = options(broker.url());
    let log = open(&options).await;
    let (_, stream) = program(broker.url()).await;
    let prefix = &options.topic_prefix;
    let config = async_nats::jetstream::stream::Config {
        name: format!("{prefix}orders").replace('.', "~"),
        subjects: vec![format!("{prefix}orders.0")],
        ..Default::default()
    };
    stream.create_stream(config.clone()).await.unwrap();
    assert_eq!(log.list().await.unwrap().len(), 0);
    for spec in [LogSpec::topic("orders", 1), LogSpec::topic("orders", 2)] {
        let error = log.create(spec.clone()).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Conflict, "{error}");
        assert_eq!(*log.delete(spec).await.unwrap_err().kind(), ErrorKind::Conflict);
    }
    assert!(stream.get_stream(&config.name).await.is_ok(), "it is still there");
    // The control: one of ours of another name is created and deleted.
    log.create(LogSpec::topic("others", 1)).await.unwrap();
    log.delete(LogSpec::topic("others", 1)).await.unwrap();
}
