//! A client of a broker that asks for no acknowledgement: the control of what the gateway promises on the same broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lapin::options::{BasicPublishOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};
use tidegate_conformance::Broker;
use tidegate_tests::cluster::until;
use tokio::task::JoinHandle;

/// The topic, the subject of the stream, or the queue that it writes to.
const TOPIC: &str = "bare";
const MESSAGE_BYTES: usize = 1_000;
/// Sent at a time, with a pause behind them: about half a mebibyte a second.
const MESSAGES: usize = 10;
const PAUSE: Duration = Duration::from_millis(20);
/// What the clients of Kafka and RabbitMQ wait at the most for a broker that is gone, or reads nothing.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// A client that knows no outcome but that what it had was sent.
#[derive(Clone)]
pub(super) enum Bare {
    Nats(async_nats::Client),
    Kafka { address: String, producer: FutureProducer },
    RabbitMq { url: String, channel: Channel, _connection: Arc<Connection> },
}

impl Bare {
    /// A client with a stream, a topic or a queue of its own.
    pub(super) async fn connect(broker: &Broker) -> Self {
        if broker.url().starts_with("amqp://") {
            let url = broker.url().to_owned();
            let (connection, channel) = rabbitmq(&url).await.expect("the broker runs");
            let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            let declared = channel.queue_declare(TOPIC.into(), options, FieldTable::default()).await;
            declared.expect("the queue is created");
            return Self::RabbitMq { url, channel, _connection: Arc::new(connection) };
        }
        let Some(address) = broker.url().strip_prefix("kafka://") else {
            let client = async_nats::connect(broker.url()).await.expect("the server runs");
            let body = json!({ "name": "BARE", "subjects": [TOPIC] });
            assert!(ask(&client, "STREAM.CREATE.BARE", &body).await.is_some(), "the stream is created");
            return Self::Nats(client);
        };
        let mut config = kafka(address);
        let admin: AdminClient<DefaultClientContext> = config.create().expect("the settings fit");
        let topic = NewTopic::new(TOPIC, 1, TopicReplication::Fixed(1));
        let created = admin.create_topics([&topic], &AdminOptions::new()).await.expect("the broker runs");
        created[0].as_ref().expect("the topic is created");
        config.set("acks", "0").set("linger.ms", "0");
        config.set("message.timeout.ms", SEND_TIMEOUT.as_millis().to_string());
        let producer = config.create().expect("the settings fit");
        Self::Kafka { address: address.to_owned(), producer }
    }

    /// Sends to its stream or topic until it is ended.
    pub(super) fn begin(&self) -> Sending {
        let messages: Arc<AtomicU64> = Arc::default();
        let (client, ended) = (self.clone(), Arc::new(AtomicBool::new(false)));
        let (count, ends) = (Arc::clone(&messages), Arc::clone(&ended));
        let task = tokio::spawn(async move {
            while !ends.load(Ordering::Relaxed) {
                count.fetch_add(client.send().await, Ordering::Relaxed);
                tokio::time::sleep(PAUSE).await;
            }
        });
        Sending { client: self.clone(), messages, ended, task }
    }

    /// Sends some messages; how many of them it was told were sent.
    async fn send(&self) -> u64 {
        match self {
            Self::Nats(client) => {
                for _ in 0..MESSAGES {
                    if client.publish(TOPIC, vec![b'x'; MESSAGE_BYTES].into()).await.is_err() {
                        return 0;
                    }
                }
                if client.flush().await.is_ok() { MESSAGES as u64 } else { 0 }
            }
            Self::Kafka { producer, .. } => {
                let payload = vec![b'x'; MESSAGE_BYTES];
                let sends = (0..MESSAGES)
                    .map(|_| producer.send(FutureRecord::<(), _>::to(TOPIC).payload(&payload), Duration::ZERO));
                futures_util::future::join_all(sends).await.iter().filter(|sent| sent.is_ok()).count() as u64
            }
            Self::RabbitMq { channel, .. } => {
                let payload = vec![b'x'; MESSAGE_BYTES];
                let send = async |_| {
                    let properties = BasicProperties::default().with_delivery_mode(2);
                    let sent = channel.basic_publish(
                        "".into(),
                        TOPIC.into(),
                        BasicPublishOptions::default(),
                        &payload,
                        properties,
                    );
                    // It is sent once it is written to the connection.
                    tokio::time::timeout(SEND_TIMEOUT, sent).await.is_ok_and(|sent| sent.is_ok())
                };
                let sends = (0..MESSAGES).map(send);
                futures_util::future::join_all(sends).await.into_iter().filter(|sent| *sent).count() as u64
            }
        }
    }

    /// How many messages the broker holds, where it can be asked.
    async fn held(&self) -> Option<u64> {
        match self {
            Self::Nats(client) => ask(client, "STREAM.INFO.BARE", &json!({})).await?["state"]["messages"].as_u64(),
            Self::Kafka { address, .. } => {
                let reader: BaseConsumer = kafka(address).create().expect("the settings fit");
                // It waits on its own thread only.
                let ask = move || reader.fetch_watermarks(TOPIC, 0, SEND_TIMEOUT).ok();
                let (begin, end) = tokio::task::spawn_blocking(ask).await.expect("it cannot panic")?;
                u64::try_from(end - begin).ok()
            }
            Self::RabbitMq { url, .. } => {
                let (_connection, channel) = rabbitmq(url).await.ok()?;
                let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
                let queue = channel.queue_declare(TOPIC.into(), options, FieldTable::default()).await.ok()?;
                Some(queue.message_count().into())
            }
        }
    }
}

async fn rabbitmq(url: &str) -> lapin::Result<(Connection, Channel)> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    Ok((connection, channel))
}

fn kafka(address: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address);
    config
}

/// Asks JetStream; nothing where it refuses or does not answer.
async fn ask(client: &async_nats::Client, subject: &str, body: &Value) -> Option<Value> {
    let answer = client.request(format!("$JS.API.{subject}"), body.to_string().into()).await.ok()?;
    let answer: Value = serde_json::from_slice(&answer.payload).ok()?;
    answer["error"].is_null().then_some(answer)
}

/// A client that sends until it is ended.
pub(super) struct Sending {
    client: Bare,
    /// Messages that were told as sent.
    messages: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Sending {
    /// Waits until that many messages were told as sent.
    pub(super) async fn wait_for(&self, messages: u64) {
        let what = format!("that {messages} messages were told as sent");
        until(&what, async || self.messages.load(Ordering::Relaxed) >= messages).await;
    }

    /// Sends no more.
    pub(super) async fn end(self) -> Sent {
        self.ended.store(true, Ordering::Relaxed);
        self.task.await.expect("it cannot panic");
        Sent { client: self.client, messages: self.messages.load(Ordering::Relaxed) }
    }
}

/// What such a client was told.
pub(super) struct Sent {
    client: Bare,
    /// Told as sent.
    pub(super) messages: u64,
}

impl Sent {
    /// How many messages the broker holds, once it can be asked.
    pub(super) async fn held(&self) -> u64 {
        let mut held = None;
        until("that the broker tells what it holds", async || {
            held = self.client.held().await;
            held.is_some()
        })
        .await;
        held.expect("it was told")
    }
}
