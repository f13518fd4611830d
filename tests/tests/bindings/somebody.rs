//! A program of somebody else's that uses the broker by its own client: queues, exchanges, messages.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, BasicQosOptions, BasicRejectOptions,
    ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use tidegate_conformance::Broker;
use tidegate_tests::PATIENCE;

/// How long nothing more comes before that is all: only for what must not come.
const QUIET: Duration = Duration::from_millis(500);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct Somebody {
    channel: Channel,
    _connection: Connection,
}

/// Arguments of a queue.
pub(crate) fn arguments(of: &[(&str, AMQPValue)]) -> FieldTable {
    let mut arguments = FieldTable::default();
    for (name, value) in of {
        arguments.insert((*name).into(), value.clone());
    }
    arguments
}

pub(crate) fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(text))
}

/// A quorum queue.
pub(crate) fn quorum() -> FieldTable {
    arguments(&[("x-queue-type", text("quorum"))])
}

impl Somebody {
    /// Connects, and goes on trying while the broker comes up.
    pub(crate) async fn at(broker: &Broker) -> Self {
        let began = Instant::now();
        loop {
            // A broker that is killed over it may leave the client library waiting for ever.
            match tokio::time::timeout(CONNECT_TIMEOUT, Self::connect(broker)).await {
                Ok(Ok(somebody)) => return somebody,
                Ok(Err(error)) => assert!(began.elapsed() < PATIENCE, "the broker takes nobody: {error}"),
                Err(_) => assert!(began.elapsed() < PATIENCE, "the broker does not answer anybody"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn connect(broker: &Broker) -> lapin::Result<Self> {
        let connection = Connection::connect(broker.url(), ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        channel.basic_qos(1_000, BasicQosOptions::default()).await?;
        Ok(Self { channel, _connection: connection })
    }

    /// Declares a durable queue. One that is there with other arguments is refused by the broker, which a test may ask for.
    pub(crate) async fn queue(&self, name: &str, arguments: FieldTable) {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let declared = self.channel.queue_declare(name.into(), options, arguments).await;
        declared.unwrap_or_else(|error| panic!("{name} cannot be declared like this: {error}"));
    }

    /// Declares a topic exchange.
    pub(crate) async fn exchange(&self, name: &str) {
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let declared = self.channel.exchange_declare(name.into(), ExchangeKind::Topic, options, FieldTable::default());
        declared.await.expect("the exchange can be declared");
    }

    pub(crate) async fn bind(&self, queue: &str, exchange: &str, key: &str) {
        let options = QueueBindOptions::default();
        let bound = self.channel.queue_bind(queue.into(), exchange.into(), key.into(), options, FieldTable::default());
        bound.await.expect("the queue can be bound");
    }

    /// Sends a message that some queue must take.
    pub(crate) async fn publish(&self, exchange: &str, key: &str, body: &str, properties: BasicProperties) {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = properties.with_delivery_mode(2);
        let sent = self.channel.basic_publish(exchange.into(), key.into(), options, body.as_bytes(), properties).await;
        let confirmed = sent.expect("it is sent").await.expect("it is confirmed");
        assert!(confirmed.is_ack() && confirmed.take_message().is_none(), "nobody takes {key}");
    }

    /// Sends a message; whether the broker has confirmed it.
    pub(crate) async fn tries(&self, exchange: &str, key: &str, body: &str, properties: BasicProperties) -> bool {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = properties.with_delivery_mode(2);
        let confirmed = async {
            let sent =
                self.channel.basic_publish(exchange.into(), key.into(), options, body.as_bytes(), properties).await?;
            sent.await
        };
        // One that a broker does not confirm which has just come up is sent again.
        let confirmed = tokio::time::timeout(CONFIRM_TIMEOUT, confirmed).await;
        confirmed.is_ok_and(|confirmed| confirmed.is_ok_and(|told| told.is_ack() && told.take_message().is_none()))
    }

    /// Whether a queue is there with exactly these arguments: the broker refuses a declaration with others.
    pub(crate) async fn has(broker: &Broker, name: &str, arguments: FieldTable) -> bool {
        // The broker ends the channel over a refusal.
        let asks = Self::at(broker).await;
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        asks.channel.queue_declare(name.into(), options, arguments).await.is_ok()
    }

    /// Gets one message and refuses it, as a program that cannot use it.
    pub(crate) async fn reject(&self, queue: &str) {
        let began = Instant::now();
        loop {
            let got = self.channel.basic_get(queue.into(), BasicGetOptions::default()).await.expect("it can be asked");
            if let Some(message) = got {
                let rejected = message.delivery.acker.reject(BasicRejectOptions { requeue: false }).await;
                rejected.expect("it can be refused");
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{queue} stays empty");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How many programs read a queue.
    pub(crate) async fn readers(&self, queue: &str) -> u32 {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let there = self.channel.queue_declare(queue.into(), options, FieldTable::default()).await;
        there.unwrap_or_else(|error| panic!("{queue} is not there: {error}")).consumer_count()
    }

    /// Takes messages as somebody does for whom the broker need not wait, works on some of them, and dies: gives those.
    pub(crate) async fn takes_all_and_dies(broker: &Broker, queue: &str, works_on: usize) -> Vec<Delivery> {
        let careless = Self::at(broker).await;
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consumed = careless.channel.basic_consume(queue.into(), "careless".into(), options, FieldTable::default());
        let mut messages = consumed.await.expect("the queue can be read");
        let mut worked_on = Vec::new();
        while worked_on.len() < works_on {
            worked_on.push(messages.next().await.expect("there are more").expect("the broker is there"));
        }
        worked_on
    }

    /// How many messages a queue holds that nobody has in hand.
    pub(crate) async fn ready(&self, queue: &str) -> u32 {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let there = self.channel.queue_declare(queue.into(), options, FieldTable::default()).await;
        there.unwrap_or_else(|error| panic!("{queue} is not there: {error}")).message_count()
    }

    /// Takes messages of a queue until `enough` of them have come; gives them in their order.
    pub(crate) async fn take(&self, queue: &str, enough: impl Fn(&[Delivery]) -> bool) -> Vec<Delivery> {
        let (mut taken, began) = (Vec::new(), Instant::now());
        let options = BasicConsumeOptions::default();
        let tag = format!("takes-{queue}");
        let consumed = self.channel.basic_consume(queue.into(), tag.as_str().into(), options, FieldTable::default());
        let mut messages = consumed.await.unwrap_or_else(|error| panic!("{queue} cannot be read: {error}"));
        while !enough(&taken) {
            let next = tokio::time::timeout(PATIENCE.saturating_sub(began.elapsed()), messages.next()).await;
            let Ok(Some(Ok(delivery))) = next else { panic!("{} messages of {queue} came: {next:?}", taken.len()) };
            delivery.acker.ack(BasicAckOptions::default()).await.expect("it can be acknowledged");
            taken.push(delivery);
        }
        self.channel.basic_cancel(tag.as_str().into(), Default::default()).await.expect("it can be ended");
        taken
    }

    /// The first messages of a queue.
    pub(crate) async fn take_some(&self, queue: &str, count: usize) -> Vec<Delivery> {
        self.take(queue, |taken| taken.len() >= count).await
    }

    /// Fails where a queue gets something.
    pub(crate) async fn gets_nothing(&self, queue: &str) {
        tokio::time::sleep(QUIET).await;
        assert_eq!(self.ready(queue).await, 0, "{queue} got something");
    }
}

/// The properties of a message that are texts in its header table.
pub(crate) fn headers(delivery: &Delivery) -> BTreeMap<String, String> {
    let headers = delivery.properties.headers().iter().flat_map(|headers| headers.inner());
    let text = |value: &AMQPValue| match value {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        AMQPValue::LongLongInt(number) => Some(number.to_string()),
        _ => None,
    };
    headers.filter_map(|(name, value)| Some((name.to_string(), text(value)?))).collect()
}

/// The id of the event in a message.
pub(crate) fn id(delivery: &Delivery) -> String {
    headers(delivery).remove("cloudEvents_id").unwrap_or_else(|| panic!("a message is an event: {delivery:?}"))
}
