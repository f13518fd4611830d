//! What the suite of all brokers does not ask of this one: records of others, refusals, a broker that dies, stands still and
//! takes nothing more.

mod bare;
mod clusters;
mod ends;
mod faults;
mod journals;
mod leaders;
mod records;
mod secured;

use std::sync::Arc;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use tidegate_backbone::{Environment, LogId, LogSpec, PartitionLog as _, Position, Record, Stored};
use tidegate_conformance::Broker;
use tidegate_rabbitmq::{Options, RabbitBroker};
use tidegate_schemas::Event;
use tokio::sync::OnceCell;

/// Against hanging alone.
const HANG: Duration = Duration::from_secs(60);

static SHARED: OnceCell<Option<Broker>> = OnceCell::const_new();

/// A broker that all tests of this process share; none where it cannot be had, which has been told.
async fn shared() -> Option<&'static Broker> {
    SHARED.get_or_init(|| Broker::start("rabbitmq")).await.as_ref()
}

fn options(url: &str, name: &str) -> Options {
    let mut options = Options::from_url(url).expect("the script prints URLs");
    options.namespace = format!("ns.{name}");
    options.topic_prefix = format!("{name}.");
    options
}

async fn open(url: &str, name: &str) -> (Arc<RabbitBroker>, Environment) {
    let environment = Environment::system();
    let broker = RabbitBroker::open(options(url, name), &environment).await.expect("the broker answers");
    (broker, environment)
}

fn log(topic: &str) -> LogId {
    LogId::Topic { topic: topic.into(), partition: 0 }
}

async fn topic(broker: &RabbitBroker, name: &str) -> LogId {
    broker.create(LogSpec::topic(name, 1)).await.expect("the topic can be created");
    log(name)
}

fn event(id: &str) -> Event {
    Event::builder(id, "/tests", "com.example.test").build().expect("a valid event")
}

fn event_of(stored: &Stored) -> &Event {
    match &stored.record {
        Record::Event(event) => event,
        Record::Frame(_) => panic!("a frame in a topic"),
    }
}

/// Appends an event, again until it is confirmed, as a publisher does.
async fn appended(broker: &RabbitBroker, log: &LogId, id: &str) {
    let deadline = tokio::time::Instant::now() + HANG;
    while let Err(error) = broker.append(log, Record::Event(event(id))).await {
        assert!(tokio::time::Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Everything from there to the end as it is now.
async fn read(broker: &RabbitBroker, log: &LogId, from: Position) -> Vec<Stored> {
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

/// A channel of somebody else's, whose connection ends with it.
async fn somebody(url: &str) -> Channel {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("the broker takes anybody");
    let channel = connection.create_channel().await.expect("a channel");
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirmations");
    channel
}

async fn declare(channel: &Channel, name: &str, kind: &str) {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(LongString::from(kind)));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(name.into(), options, arguments).await.expect("it can be declared");
}

async fn publish(channel: &Channel, stream: &str, body: &str, properties: BasicProperties) {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let confirm = channel.basic_publish("".into(), stream.into(), options, body.as_bytes(), properties).await;
    let confirm = confirm.expect("it is sent").await.expect("it is confirmed");
    assert!(confirm.take_message().is_none(), "nobody takes it");
}
