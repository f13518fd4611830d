//! What others write, what does not fit, and what is refused: on one broker that all tests share.

mod common;

use std::time::Duration;

use common::*;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::Consumer as _;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, FutureRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};
use tidegate_backbone::{
    Applied, Environment, ErrorKind, Inbox, Lane as _, LogSpec, NodeId, PartitionLog as _, Position, Record,
};
use tidegate_kafka::{KafkaBroker, Options};
use tidegate_schemas::event::Data;
use tidegate_schemas::foreign::{REASON, is_foreign};

async fn create(url: &str, name: &str, settings: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> = config(url).create().expect("the client can be made");
    let mut wanted = NewTopic::new(name, 1, TopicReplication::Fixed(1));
    for (name, value) in settings {
        wanted = wanted.set(name, value);
    }
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(10)));
    let created = admin.create_topics([&wanted], &options).await.expect("the broker answers");
    assert!(created[0].is_ok(), "{created:?}");
}

/// Attaches a topic that somebody has just created, which the broker shows a moment later.
async fn attach(broker: &KafkaBroker, topic: &str, to: &str) -> u32 {
    for _ in 0..100 {
        match broker.attach(topic, to).await {
            Ok(partitions) => return partitions,
            Err(error) => assert_eq!(error.kind(), &ErrorKind::NotFound, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("topic {to} does not appear");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_others_are_events() {
    let Some(server) = shared().await else { return };
    let (broker, _environment) = open(server.url(), "foreign").await;
    create(server.url(), "of-others", &[]).await;
    assert_eq!(attach(&broker, "theirs", "of-others").await, 1);
    let producer = producer(server.url());
    let header = |key, value| Header { key, value: Some(value) };
    let structured = r#"{"specversion":"1.0","id":"s","source":"/s","type":"t","data":{"a":1}}"#;
    let ours = OwnedHeaders::new()
        .insert(header("ce_specversion", "1.0"))
        .insert(header("ce_id", "b"))
        .insert(header("ce_source", "/s"))
        .insert(header("ce_type", "t"))
        .insert(header("content-type", "application/json"));
    let as_json = OwnedHeaders::new().insert(header("content-type", "application/cloudevents+json; charset=utf-8"));
    let half = OwnedHeaders::new().insert(header("ce_id", "half"));
    let records = [
        (Some(structured), Some(as_json.clone())),
        (Some("{\"b\": 2}"), Some(ours.clone())),
        (None, Some(ours)),
        (Some("plain"), None),
        (Some("{"), Some(as_json)),
        (Some("x"), Some(half)),
    ];
    for (payload, headers) in records {
        let mut record = FutureRecord::to("of-others").key("customer-1");
        record.payload = payload;
        record.headers = headers;
        producer.send(record, HANG).await.expect("the record is stored");
    }
    let stored = read(&broker, &log("theirs"), Position::ZERO).await;
    let events: Vec<_> = stored
        .iter()
        .map(|stored| match &stored.record {
            Record::Event(event) => event,
            Record::Frame(_) => panic!("a frame in a topic"),
        })
        .collect();
    assert_eq!((&**events[0].id(), events[0].data()), ("s", &Data::Json("{\"a\":1}".into())));
    assert_eq!((&**events[1].id(), events[1].data()), ("b", &Data::Json("{\"b\": 2}".into())));
    assert_eq!((&**events[2].id(), events[2].data()), ("b", &Data::None), "a null value is no payload");
    assert!(events[..3].iter().all(|event| !is_foreign(event)));
    for (event, reason) in events[3..].iter().zip(["neither", "EOF", "ce_source"]) {
        assert!(is_foreign(event), "{event:?}");
        let told = event.attribute(REASON).unwrap_or_default();
        assert!(told.contains(reason), "{told}");
        assert_eq!(event.partition_key(), Some("customer-1"));
        assert_eq!(&**event.source(), "//kafka/theirs");
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
async fn transactions_of_others_leave_gaps_that_a_tail_passes() {
    let Some(server) = shared().await else { return };
    let (broker, _environment) = open(server.url(), "transactions").await;
    create(server.url(), "in-transactions", &[]).await;
    attach(&broker, "theirs", "in-transactions").await;
    let id_of = log("theirs");
    let mut tail = broker.tail(&id_of, Position::ZERO).await.unwrap();
    let producer: BaseProducer =
        config(server.url()).set("transactional.id", "somebody").create().expect("the client can be made");
    let url = server.url().to_owned();
    let work = std::thread::Builder::new().spawn(move || {
        producer.init_transactions(HANG).unwrap();
        for (payload, commit) in [("one", true), ("aborted", false), ("two", true), ("aborted", false)] {
            producer.begin_transaction().unwrap();
            producer.send(BaseRecord::<(), str>::to("in-transactions").payload(payload)).ok().unwrap();
            producer.flush(HANG).unwrap();
            if commit { producer.commit_transaction(HANG) } else { producer.abort_transaction(HANG) }.unwrap();
        }
        // The control: what was taken back stands there, and another kind of reader gets it.
        let consumer = consumer(&url, "read_uncommitted");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("in-transactions", 0, Offset::Offset(0)).unwrap();
        consumer.incremental_assign(&list).unwrap();
        (0..4).filter(|_| matches!(consumer.poll(HANG), Some(Ok(_)))).count()
    });
    let seen_by_others = tokio::task::block_in_place(|| work.expect("a thread").join()).unwrap();
    assert_eq!(seen_by_others, 4);
    let end = broker.info(&id_of).await.unwrap().end;
    assert_eq!(end, Position(8), "four records, and what ended each transaction");
    let mut bodies = Vec::new();
    while tail.position() < end {
        let batch = tokio::time::timeout(HANG, tail.next(1024)).await.expect("the tail gets to the end").unwrap();
        for stored in &batch.records {
            let Record::Event(event) = &stored.record else { panic!("a frame in a topic") };
            bodies.push(String::from_utf8_lossy(event.data().as_bytes()).into_owned());
        }
    }
    assert_eq!(bodies, ["one", "two"]);
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_read_again_and_again_is_read_whole() {
    let Some(server) = shared().await else { return };
    let (broker, _environment) = open(server.url(), "again").await;
    let log = topic(&broker, "orders").await;
    for n in 0..3 {
        broker.append(&log, Record::Event(event(&n.to_string()))).await.unwrap();
    }
    // The client reads each time where another reader has just left, and must not go on where that one stood. A former reader
    // leaves at any moment: with all taken, with some, or before anything came.
    for round in 0..200 {
        if round % 4 != 0 {
            let mut left = broker.tail(&log, Position::ZERO).await.unwrap();
            if round % 4 > 1 {
                let bytes_max = if round % 4 == 2 { 1 } else { 1024 };
                tokio::time::timeout(HANG, left.next(bytes_max)).await.expect("a record comes").unwrap();
            }
        }
        let stored = read(&broker, &log, Position::ZERO).await;
        let ids: Vec<&str> = stored.iter().map(id).collect();
        assert_eq!(ids, ["0", "1", "2"], "round {round}");
    }
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_on_a_new_topic_is_stored() {
    let Some(server) = shared().await else { return };
    let (broker, _environment) = open(server.url(), "new").await;
    for round in 0..30 {
        let topic = format!("orders-{round}");
        broker.create(LogSpec::topic(topic.as_str(), 1)).await.unwrap();
        let log = log(&topic);
        // One after the other without waiting, so that several batches are under way before the first is acknowledged.
        let calls: Vec<_> = (0..20).map(|n| broker.append(&log, Record::Event(event(&n.to_string())))).collect();
        let mut acknowledged = Vec::new();
        for (n, call) in calls.into_iter().enumerate() {
            match call.await {
                Ok(appended) => acknowledged.push((appended.position.expect("a position"), n.to_string())),
                Err(error) => assert_eq!(error.applied(), Applied::Unknown, "{error}"),
            }
        }
        let stored = read(&broker, &log, Position::ZERO).await;
        for (position, id_of) in acknowledged {
            let found = stored.iter().find(|stored| stored.position == position).map(id);
            assert_eq!(found, Some(&*id_of), "round {round}, position {position}");
        }
    }
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_refused_without_effect() {
    let Some(server) = shared().await else { return };
    let (broker, _environment) = open(server.url(), "large").await;
    let log = topic(&broker, "orders").await;
    let most = broker.capability().record_bytes_max;
    let frames = tidegate_backbone::LogId::Outcomes { slot: 0 };
    broker.create(LogSpec::Single(frames.clone())).await.unwrap();
    // The control: what just fits is taken by the broker.
    broker.append(&frames, Record::Frame(vec![7; most].into())).await.unwrap();
    let error = broker.append(&frames, Record::Frame(vec![7; most + 1].into())).await.unwrap_err();
    assert_eq!((error.kind(), error.applied()), (&ErrorKind::TooLarge { limit_bytes: most }, Applied::No));
    assert_eq!(broker.info(&frames).await.unwrap().end, Position(1));
    broker.append(&log, Record::Event(event("after"))).await.unwrap();
    // An event whose payload is there and empty, beside one that has none.
    let empty = event("empty").into_builder().data(Data::Binary(Default::default())).build().unwrap();
    broker.append(&log, Record::Event(empty.clone())).await.unwrap();
    let stored = read(&broker, &log, Position::ZERO).await;
    assert_eq!(stored[1].record, Record::Event(empty));
    assert_eq!(stored[0].record, Record::Event(event("after")));
    broker.close().await;
    let closed = broker.append(&log, Record::Event(event("late"))).await.unwrap_err();
    assert_eq!(closed.kind(), &ErrorKind::Closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_there_is_compared() {
    let Some(server) = shared().await else { return };
    let (broker, _environment) = open(server.url(), "compared").await;
    create(server.url(), "compared.compacted", &[("cleanup.policy", "compact")]).await;
    let refused = broker.create(LogSpec::topic("compacted", 1)).await.unwrap_err();
    assert_eq!(refused.kind(), &ErrorKind::Misconfigured);
    assert!(refused.context().contains("cleanup.policy=compact"), "{refused}");
    let partitions = broker.create(LogSpec::topic("compacted", 2)).await.unwrap_err();
    assert_eq!(partitions.kind(), &ErrorKind::Conflict);
    // The control: one that differs in nothing that matters is taken.
    create(server.url(), "compared.plain", &[("retention.ms", "3600000")]).await;
    broker.create(LogSpec::topic("plain", 1)).await.unwrap();
    broker.append(&log("plain"), Record::Event(event("1"))).await.unwrap();
    broker.delete(LogSpec::topic("plain", 1)).await.unwrap();
    let gone = broker.append(&log("plain"), Record::Event(event("2"))).await.unwrap_err();
    assert_eq!((gone.kind(), gone.applied()), (&ErrorKind::NotFound, Applied::No));
    broker.close().await;
}

async fn next(inbox: &mut dyn Inbox) -> String {
    let message = tokio::time::timeout(HANG, inbox.next()).await.expect("a message comes").expect("it is open");
    String::from_utf8_lossy(&message).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_carry_what_is_for_a_node_to_it_alone() {
    let Some(server) = shared().await else { return };
    let (one, _environment) = open(server.url(), "lanes").await;
    let (two, _other) = open(server.url(), "lanes").await;
    // On one partition, so that each has to pass over what is for the other.
    let nodes = [NodeId(1 << 16), NodeId((1 << 16) + (16 << 16))];
    let mut first = one.receive(nodes[0]).await.unwrap();
    let mut second = two.receive(nodes[1]).await.unwrap();
    for n in 0..100 {
        one.send(nodes[1], format!("second {n}").into()).await.unwrap();
        two.send(nodes[0], format!("first {n}").into()).await.unwrap();
    }
    for n in 0..100 {
        assert_eq!(next(first.as_mut()).await, format!("first {n}"));
        assert_eq!(next(second.as_mut()).await, format!("second {n}"));
    }
    two.broadcast("all".into()).await.unwrap();
    assert_eq!((next(first.as_mut()).await, next(second.as_mut()).await), ("all".to_owned(), "all".to_owned()));
    let large = one.send(nodes[0], vec![0; one.message_bytes_max() + 1].into()).await.unwrap_err();
    assert!(matches!(large.kind(), ErrorKind::TooLarge { .. }), "{large}");
    one.send(nodes[0], vec![1; one.message_bytes_max()].into()).await.unwrap();
    assert_eq!(next(first.as_mut()).await.len(), one.message_bytes_max());
    one.close().await;
    assert_eq!(first.next().await, None);
    two.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_without_a_broker_is_told_in_time() {
    let environment = Environment::system();
    let began = tokio::time::Instant::now();
    let error = KafkaBroker::open(Options::from_url("kafka://127.0.0.1:1").unwrap(), &environment).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Unavailable);
    assert!(error.context().contains("127.0.0.1:1") && error.context().contains("refused"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

/// A process may stop what runs for it before it closes the broker, and must not wait for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_for_a_broker_ends_with_its_environment() {
    let Some(server) = shared().await else { return };
    let (broker, environment) = open(server.url(), "ends").await;
    let log = topic(&broker, "orders").await;
    broker.append(&log, Record::Event(event("1"))).await.unwrap();
    assert!(environment.stop(HANG).await, "something runs on");
    broker.close().await;
}
