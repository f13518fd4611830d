//! Lanes: each node has a queue of its own that goes with its connection, bound by the node's name to `NAMESPACE~lane`, and to
//! `NAMESPACE~lanes`, which gives each message to every queue.
//!
//! A message to a node that has no queue comes back, so [`Lane::send`] fails with [`ErrorKind::NotFound`] where nobody is there. A
//! queue is bounded, and lets go of its oldest messages beyond that.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Consumer, ExchangeKind};
use tidegate_backbone::{BoxFuture, Error, ErrorKind, Inbox, Lane, NodeId, Result};
use tidegate_schemas::limits;

use crate::adapter::RabbitBroker;
use crate::connection::{Link, Open};
use crate::error::failed;
use crate::name::{Names, key};
use crate::publisher::{Message, Publisher, Taken};

/// Makes sure of the exchanges.
pub(crate) async fn establish(link: &Link, names: &Names) -> Result<()> {
    let action = "creating the exchanges of the lanes";
    let channel = link.require(action)?.channel(action).await?;
    for (name, kind) in [(names.lane(), ExchangeKind::Direct), (names.lanes(), ExchangeKind::Fanout)] {
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        channel
            .exchange_declare(name.as_str().into(), kind, options, FieldTable::default())
            .await
            .map_err(|error| failed(action, error, false))?;
    }
    Ok(())
}

/// A queue that delivers to this node.
struct Session {
    channel: Channel,
    messages: Consumer,
    open: Open,
    /// Messages that were taken and not acknowledged.
    taken: u64,
}

async fn begin(link: Arc<Link>, names: Names, node: NodeId, open: Open) -> Result<Session> {
    let action = "receiving messages of gateways";
    let begun = async {
        let channel = open.channel(action).await?;
        let messages = queue(&channel, &names, node).await.map_err(|error| failed(action, error, false))?;
        Ok(Session { channel, messages, open, taken: 0 })
    };
    match tokio::time::timeout(limits::RABBITMQ_CALL_TIMEOUT, begun).await {
        Ok(begun) => begun,
        Err(_) => Err(link.down(action)),
    }
}

async fn queue(channel: &Channel, names: &Names, node: NodeId) -> std::result::Result<Consumer, lapin::Error> {
    let most = |number: usize| AMQPValue::LongLongInt(i64::try_from(number).unwrap_or(i64::MAX));
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), most(limits::RABBITMQ_LANE_INBOX));
    arguments.insert("x-max-length-bytes".into(), most(limits::RABBITMQ_LANE_INBOX_BYTES));
    // Named by the broker: one of a connection that is half dead may still be there.
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare("".into(), options, arguments).await?;
    for (exchange, key) in [(names.lane(), key(node)), (names.lanes(), String::new())] {
        let (exchange, key) = (exchange.as_str().into(), key.as_str().into());
        channel
            .queue_bind(queue.name().clone(), exchange, key, QueueBindOptions::default(), FieldTable::default())
            .await?;
    }
    channel.basic_qos(limits::RABBITMQ_LANE_PREFETCH, BasicQosOptions::default()).await?;
    channel.basic_consume(queue.name().clone(), "".into(), BasicConsumeOptions::default(), FieldTable::default()).await
}

struct RabbitInbox {
    link: Arc<Link>,
    names: Names,
    node: NodeId,
    session: Option<Session>,
    beginning: Option<BoxFuture<'static, Result<Session>>>,
}

impl RabbitInbox {
    /// The next session, which is kept where this is dropped while it waits.
    async fn begin(&mut self) {
        let beginning = self.beginning.get_or_insert_with(|| {
            let (link, names, node) = (Arc::clone(&self.link), self.names.clone(), self.node);
            Box::pin(async move {
                let open = link.wait().await?;
                begin(link, names, node, open).await
            })
        });
        let begun = beginning.await;
        self.beginning = None;
        match begun {
            Ok(session) => self.session = Some(session),
            Err(error) => {
                tracing::debug!(%error, "no messages of gateways for now");
                tokio::time::sleep(limits::RABBITMQ_RECONNECT_DELAY_MAX / 4).await;
            }
        }
    }
}

impl Inbox for RabbitInbox {
    fn next(&mut self) -> BoxFuture<'_, Option<Bytes>> {
        Box::pin(async move {
            loop {
                if self.link.is_closed() {
                    return None;
                }
                let mut state = self.link.state();
                let Some(session) = &mut self.session else {
                    tokio::select! {
                        () = self.begin() => {}
                        _ = state.wait_for(|state| state.closed) => return None,
                    }
                    continue;
                };
                let generation = session.open.generation;
                let delivery = tokio::select! {
                    biased;
                    delivery = session.messages.next() => delivery,
                    _ = state.wait_for(|state| {
                        state.closed || state.open.as_ref().is_none_or(|open| open.generation != generation)
                    }) => None,
                };
                let Some(Ok(delivery)) = delivery else {
                    self.session = None;
                    continue;
                };
                session.taken += 1;
                if session.taken >= u64::from(limits::RABBITMQ_LANE_PREFETCH / 2) {
                    session.taken = 0;
                    let options = BasicAckOptions { multiple: true };
                    // It is on its way with the first look; nothing waits for it.
                    let _ = session.channel.basic_ack(delivery.delivery_tag, options).now_or_never();
                }
                return Some(Bytes::from(delivery.data));
            }
        })
    }
}

/// Sends in the order of the calls.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) publisher: Publisher,
    pub(crate) names: Names,
}

impl Sender {
    fn send(&self, exchange: String, key: String, mandatory: bool, body: Bytes) -> BoxFuture<'static, Result<()>> {
        let bytes = body.len();
        let queued = if bytes > limits::RABBITMQ_LANE_MESSAGE_BYTES {
            let limit_bytes = limits::RABBITMQ_LANE_MESSAGE_BYTES;
            let context = format!("the message has {bytes} bytes, and at most {limit_bytes} fit on a lane");
            Err(Error::new(ErrorKind::TooLarge { limit_bytes }, context))
        } else {
            let message = Message { exchange, key, mandatory, properties: BasicProperties::default(), body };
            self.publisher.push(message, Arc::from("a message to another gateway"), None)
        };
        Box::pin(async move {
            match queued?.await {
                Ok(Ok(Taken::Yes)) => Ok(()),
                Ok(Ok(Taken::Nobody)) => {
                    Err(Error::new(ErrorKind::NotFound, "no gateway receives what was sent to it over RabbitMQ"))
                }
                Ok(Err(error)) => Err(error),
                Err(_) => Err(crate::error::closed().outcome_unknown()),
            }
        })
    }
}

impl Lane for RabbitBroker {
    fn message_bytes_max(&self) -> usize {
        limits::RABBITMQ_LANE_MESSAGE_BYTES
    }

    fn receive(&self, node: NodeId) -> BoxFuture<'_, Result<Box<dyn Inbox>>> {
        Box::pin(async move {
            let link = Arc::clone(self.lane_link());
            let names = self.lane.names.clone();
            let open = link.require("receiving messages of gateways")?;
            let session = begin(Arc::clone(&link), names.clone(), node, open).await?;
            let inbox = RabbitInbox { link, names, node, session: Some(session), beginning: None };
            Ok(Box::new(inbox) as Box<dyn Inbox>)
        })
    }

    fn send(&self, to: NodeId, message: Bytes) -> BoxFuture<'static, Result<()>> {
        self.lane.send(self.lane.names.lane(), key(to), true, message)
    }

    fn broadcast(&self, message: Bytes) -> BoxFuture<'static, Result<()>> {
        self.lane.send(self.lane.names.lanes(), String::new(), false, message)
    }
}
