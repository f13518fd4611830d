//! The program that is there already: it knows RabbitMQ, and neither events nor the gateway.

use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicRejectOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer, ExchangeKind};

use crate::{Failure, until};

const ORDERS: &str = "example.orders";
const PARCELS: &str = "example.parcels";
const LOST: &str = "example.lost";
/// The queue by which the gateway reads the exchange.
const OF_THE_GATEWAY: &str = "tidegate~binding~orders-in";

/// See the module.
pub(crate) struct Shop {
    channel: Channel,
    _connection: Connection,
}

/// Connects, and goes on trying while the broker comes up.
async fn connect(url: &str) -> Connection {
    loop {
        match Connection::connect(url, ConnectionProperties::default()).await {
            Ok(connection) => return connection,
            Err(error) => println!("            RabbitMQ does not take the shop yet: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

impl Shop {
    /// Connects, and makes the exchange and the queues that it uses.
    pub(crate) async fn open(url: &str) -> Result<Self, Failure> {
        let connection = until("RabbitMQ", connect(url)).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let shop = Self { channel, _connection: connection };
        // What an earlier run left that did not come to its end.
        shop.clear().await?;
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        shop.channel.exchange_declare(ORDERS.into(), ExchangeKind::Topic, durable, FieldTable::default()).await?;
        let mut to_lost = FieldTable::default();
        for (name, value) in [("x-dead-letter-exchange", ""), ("x-dead-letter-routing-key", LOST)] {
            to_lost.insert(name.into(), AMQPValue::LongString(LongString::from(value)));
        }
        for (queue, arguments) in [(LOST, FieldTable::default()), (PARCELS, to_lost)] {
            let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            shop.channel.queue_declare(queue.into(), durable, arguments).await?;
        }
        Ok(shop)
    }

    /// Sends an order to its exchange: a message of JSON with an id, as it has always done.
    pub(crate) async fn order(&self, id: &str, routing_key: &str, body: &str) -> Result<(), Failure> {
        let properties = BasicProperties::default()
            .with_message_id(id.into())
            .with_type("OrderPlaced".into())
            .with_content_type("application/json".into())
            .with_delivery_mode(2);
        // Whoever is bound gets it; it comes back where nobody is.
        let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let sent =
            self.channel.basic_publish(ORDERS.into(), routing_key.into(), mandatory, body.as_bytes(), properties);
        let confirmed = until("a confirmation", sent.await?).await??;
        if confirmed.is_ack() && confirmed.take_message().is_none() {
            return Ok(());
        }
        Err(format!("nobody took the order {id}").into())
    }

    /// Works on so many parcels, of which it refuses those that it cannot handle; gives the ids and types of all.
    pub(crate) async fn work(
        &self,
        count: usize,
        can_handle: impl Fn(&str) -> bool,
    ) -> Result<Vec<(String, String)>, Failure> {
        let consumed = self.channel.basic_consume(
            PARCELS.into(),
            "shop".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let mut parcels: Consumer = consumed.await?;
        let mut seen = Vec::new();
        while seen.len() < count {
            let parcel = until("a parcel", parcels.next()).await?.ok_or("the queue is gone")??;
            let text =
                |text: &Option<lapin::types::ShortString>| text.as_ref().map(ToString::to_string).unwrap_or_default();
            let (id, kind) = (text(parcel.properties.message_id()), text(parcel.properties.kind()));
            if can_handle(&id) {
                parcel.acker.ack(BasicAckOptions::default()).await?;
            } else {
                parcel.acker.reject(BasicRejectOptions { requeue: false }).await?;
            }
            seen.push((id, kind));
        }
        Ok(seen)
    }

    /// Deletes what the example has made.
    pub(crate) async fn clear(&self) -> Result<(), Failure> {
        for queue in [PARCELS, LOST, OF_THE_GATEWAY] {
            self.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await?;
        }
        self.channel.exchange_delete(ORDERS.into(), ExchangeDeleteOptions::default()).await?;
        Ok(())
    }
}
