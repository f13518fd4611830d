//! What the tests of this folder share: a broker, the client under test, and a bare client beside it.

#![allow(dead_code, reason = "each test takes of it what it needs")]

use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::producer::FutureProducer;
use tidegate_backbone::{Environment, LogId, LogSpec, PartitionLog, Position, Record, Stored};
use tidegate_conformance::Broker;
use tidegate_kafka::{KafkaBroker, Options};
use tidegate_schemas::Event;
use tokio::sync::OnceCell;

/// Against hanging alone.
pub(crate) const HANG: Duration = Duration::from_secs(60);

static SHARED: OnceCell<Option<Broker>> = OnceCell::const_new();

/// A broker that all tests of this process share; none where it cannot be had, which has been told.
pub(crate) async fn shared() -> Option<&'static Broker> {
    SHARED.get_or_init(|| Broker::start("kafka")).await.as_ref()
}

pub(crate) fn options(url: &str, name: &str) -> Options {
    let mut options = Options::from_url(url).expect("the script prints URLs");
    options.namespace = format!("ns.{name}");
    options.topic_prefix = format!("{name}.");
    options
}

pub(crate) async fn open(url: &str, name: &str) -> (Arc<KafkaBroker>, Environment) {
    let environment = Environment::system();
    let broker = KafkaBroker::open(options(url, name), &environment).await.expect("the broker answers");
    (broker, environment)
}

pub(crate) fn log(topic: &str) -> LogId {
    LogId::Topic { topic: topic.into(), partition: 0 }
}

pub(crate) async fn topic(broker: &KafkaBroker, name: &str) -> LogId {
    broker.create(LogSpec::topic(name, 1)).await.expect("the topic can be created");
    log(name)
}

pub(crate) fn event(id: &str) -> Event {
    Event::builder(id, "/tests", "com.example.test").build().expect("a valid event")
}

pub(crate) fn id(stored: &Stored) -> &str {
    match &stored.record {
        Record::Event(event) => event.id(),
        Record::Frame(_) => panic!("a frame in a topic"),
    }
}

/// Everything from there to the end as it is now.
pub(crate) async fn read(broker: &KafkaBroker, log: &LogId, from: Position) -> Vec<Stored> {
    let end = broker.info(log).await.expect("the log is there").end;
    let mut tail = broker.tail(log, from).await.expect("the log can be read");
    let mut records = Vec::new();
    while tail.position() < end {
        let batch = tokio::time::timeout(HANG, tail.next(1024 * 1024)).await;
        let batch = batch.unwrap_or_else(|_| panic!("the tail stands at {} and the end is {end}", tail.position()));
        records.extend(batch.expect("the log can be read").records);
    }
    records
}

pub(crate) fn address(url: &str) -> &str {
    url.strip_prefix("kafka://").expect("the URL of a Kafka broker")
}

/// A client of somebody else's.
pub(crate) fn config(url: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address(url));
    config
}

pub(crate) fn producer(url: &str) -> FutureProducer {
    config(url).set("linger.ms", "0").create().expect("the client can be made")
}

pub(crate) fn consumer(url: &str, isolation: &str) -> BaseConsumer {
    config(url)
        .set("group.id", "somebody")
        .set("isolation.level", isolation)
        .set("enable.auto.commit", "false")
        .create()
        .expect("the client can be made")
}
