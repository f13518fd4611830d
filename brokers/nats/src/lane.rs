//! Lanes on subjects that no stream takes: `NAMESPACE.lane.NODE` for one gateway, `NAMESPACE.lane.all` for all.
//!
//! A message is handed to the connection and that is all that is known of it: the server tells a sender only by an answer
//! that it would have to wait for whether anybody receives. So [`Lane::send`] never fails with
//! [`ErrorKind::NotFound`]; presence, which is built above, knows who is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_nats::Subscriber;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tidegate_backbone::{BoxFuture, Environment, Error, ErrorKind, Inbox, Lane, NodeId, Result};
use tidegate_schemas::limits;
use tokio::sync::{mpsc, oneshot};

use crate::adapter::{NatsBroker, Shared};
use crate::connection::Connection;
use crate::error::closed;

struct Outgoing {
    subject: String,
    message: Bytes,
    sent: oneshot::Sender<Result<()>>,
}

/// Sends in the order of the calls.
#[derive(Debug)]
pub(crate) struct Sender {
    connection: Arc<Connection>,
    queue: mpsc::Sender<Outgoing>,
    bytes: Arc<AtomicUsize>,
}

impl Sender {
    pub(crate) fn start(connection: Arc<Connection>, environment: &Environment) -> Self {
        let (queue, outgoing) = mpsc::channel(limits::NATS_LANE_QUEUE);
        let bytes = Arc::new(AtomicUsize::new(0));
        environment.spawn(write(Arc::clone(&connection), outgoing, Arc::clone(&bytes), environment.clone()));
        Self { connection, queue, bytes }
    }

    fn send(&self, subject: String, message: Bytes) -> BoxFuture<'static, Result<()>> {
        let queued = self.push(subject, message);
        Box::pin(async move { queued?.await.unwrap_or_else(|_| Err(closed())) })
    }

    fn push(&self, subject: String, message: Bytes) -> Result<oneshot::Receiver<Result<()>>> {
        let limit_bytes = self.connection.record_bytes_max;
        if message.len() > limit_bytes {
            let context = format!("a message of {} bytes is too large for a lane of NATS", message.len());
            return Err(Error::new(ErrorKind::TooLarge { limit_bytes }, context));
        }
        // A message that waits for a connection is too late in any case.
        if self.connection.is_closed() || !self.connection.is_connected() {
            return Err(self.connection.down("sending to another gateway"));
        }
        let full = || {
            let kind = ErrorKind::Backpressure { retry_after: limits::APPEND_RETRY_AFTER };
            Error::new(kind, "too many messages wait for the connection to NATS")
        };
        let length = message.len();
        if self.bytes.fetch_add(length, Ordering::AcqRel) + length > limits::NATS_LANE_QUEUE_BYTES {
            self.bytes.fetch_sub(length, Ordering::AcqRel);
            return Err(full());
        }
        let (sent, outcome) = oneshot::channel();
        self.queue.try_send(Outgoing { subject, message, sent }).map_err(|_| {
            self.bytes.fetch_sub(length, Ordering::AcqRel);
            if self.queue.is_closed() { closed() } else { full() }
        })?;
        Ok(outcome)
    }
}

async fn write(
    connection: Arc<Connection>,
    mut outgoing: mpsc::Receiver<Outgoing>,
    bytes: Arc<AtomicUsize>,
    environment: Environment,
) {
    loop {
        let next = tokio::select! {
            () = environment.stopping().cancelled() => return,
            next = outgoing.recv() => next,
        };
        let Some(Outgoing { subject, message, sent }) = next else { return };
        bytes.fetch_sub(message.len(), Ordering::AcqRel);
        let outcome = if connection.is_connected() {
            let published = tokio::select! {
                () = environment.stopping().cancelled() => return,
                published = connection.client.publish(subject, message) => published,
            };
            published.map_err(|error| connection.down("sending to another gateway").with_source(error))
        } else {
            Err(connection.down("sending to another gateway"))
        };
        let _ = sent.send(outcome);
    }
}

struct NatsInbox {
    shared: Arc<Shared>,
    own: Subscriber,
    all: Subscriber,
}

impl Inbox for NatsInbox {
    fn next(&mut self) -> BoxFuture<'_, Option<Bytes>> {
        Box::pin(async move {
            let mut link = self.shared.connection.link();
            let is_closed = || self.shared.connection.is_closed();
            tokio::select! {
                message = self.own.next() => message.map(|message| message.payload),
                message = self.all.next() => message.map(|message| message.payload),
                _ = link.wait_for(|_| is_closed()) => None,
            }
        })
    }
}

impl Lane for NatsBroker {
    fn message_bytes_max(&self) -> usize {
        self.shared.connection.record_bytes_max
    }

    fn receive(&self, node: NodeId) -> BoxFuture<'_, Result<Box<dyn Inbox>>> {
        Box::pin(async move {
            let (connection, names) = (&self.shared.connection, &self.shared.targets.names);
            let subscribe = |subject: String| async move {
                let subscribed = connection.client.subscribe(subject).await;
                subscribed.map_err(|error| connection.down("receiving messages of gateways").with_source(error))
            };
            if connection.is_closed() || !connection.is_connected() {
                return Err(connection.down("receiving messages of gateways"));
            }
            let own = subscribe(names.lane(node)).await?;
            let all = subscribe(names.lanes()).await?;
            connection.settle("receiving messages of gateways", names.nobody()).await?;
            let inbox: Box<dyn Inbox> = Box::new(NatsInbox { shared: Arc::clone(&self.shared), own, all });
            Ok(inbox)
        })
    }

    fn send(&self, to: NodeId, message: Bytes) -> BoxFuture<'static, Result<()>> {
        self.lane.send(self.shared.targets.names.lane(to), message)
    }

    fn broadcast(&self, message: Bytes) -> BoxFuture<'static, Result<()>> {
        self.lane.send(self.shared.targets.names.lanes(), message)
    }
}
