//! Queues and exchanges of somebody else's on a broker beside the logs: an optional ability, which the brokers have whose
//! programs use queues. Nothing of the backbone is built on it.
//!
//! [`Queues`] is what an adapter implements, [`QueueBrokers`] which brokers there are, by name.
//!
//! | | promise |
//! |---|---|
//! | theirs | a queue or an exchange that is named is never created, changed or deleted; what cannot be used as it is fails |
//! | durable | [`Queues::send`] says [`Sent::Stored`] when the broker has confirmed the message for every queue that it went to, and that there was one |
//! | honest | a message that no queue takes is [`Sent::Nobody`], one that the broker refuses [`Sent::Refused`]; whether one was stored whose confirmation is missing is not known ([`crate::Applied::Unknown`]) |
//! | at least once | a message that [`Intake::next`] gave is the broker's until [`Intake::done`] was told of it, and comes again where that does not happen |
//! | in order | messages come in the order that the queue gives them in; which is that of the queue as long as one reads it and none comes again |
//! | never dropped | nothing is given back in a loop, which queues with a limit of deliveries would end by dropping the message |
//! | apart | what fails at one address ends nothing that is on its way to another |
//! | bounded | more than the adapter's limits is [`crate::ErrorKind::Backpressure`] |
//! | reconnecting | a connection is made when it is first needed, and again for ever after it was lost; until then calls fail at once with the reason |

pub mod bound;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytestring::ByteString;
use parking_lot::RwLock;
use tidegate_schemas::Event;
use tidegate_schemas::message::Message;

use crate::error::{Error, ErrorKind, Result};
use crate::log::BoxFuture;

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An exchange, which knows by the routing key which queues it is for.
    Exchange {
        /// Its name.
        exchange: ByteString,
        /// At most [`tidegate_schemas::limits::QUEUE_NAME_BYTES`].
        routing_key: ByteString,
    },
    /// A queue.
    Queue(ByteString),
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchange { exchange, routing_key } => {
                write!(formatter, "the exchange {exchange} with the routing key {routing_key:?}")
            }
            Self::Queue(queue) => write!(formatter, "the queue {queue}"),
        }
    }
}

/// What became of a message that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Every queue that it was for has it; there was one.
    Stored,
    /// No queue takes what goes there; nothing was stored.
    Nobody,
    /// The broker refused it, because a queue is full and says so, or could not store it. One of several queues may have it.
    Refused,
}

/// Where messages come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A queue.
    Queue(ByteString),
    /// An exchange, by a queue of the reader's own: durable, of the kind that survives the loss of a node, named after the reader.
    /// It is created where it is not there, bound by these keys, and unbound from those that are gone; it is never deleted.
    Exchange {
        /// Its name.
        exchange: ByteString,
        /// By which routing keys the queue is bound.
        keys: Vec<ByteString>,
        /// By which it may be bound from before, and is not to be.
        gone: bound::Bound,
    },
}

/// A message that a queue has given.
#[derive(Debug)]
pub struct Received {
    /// By which it is told what became of it.
    pub receipt: u64,
    /// Whether it was given before, to anybody.
    pub redelivered: bool,
    /// What it is.
    pub message: Message,
}

/// A reader of a queue. Dropped, it gives back whatever it was not told of.
pub trait Intake: Send {
    /// The next message, waiting for one. May be dropped while it waits, without losing one.
    ///
    /// # Errors
    /// The reader has ended, and must be opened anew: what it was not told of comes again.
    fn next(&mut self) -> BoxFuture<'_, Result<Received>>;

    /// The queue may forget the message.
    fn done(&mut self, receipt: u64) -> BoxFuture<'_, Result<()>>;

    /// The queue gets the message back as refused: it goes where the queue's owner says such go, or is dropped where nothing is
    /// said.
    fn refuse(&mut self, receipt: u64) -> BoxFuture<'_, Result<()>>;

    /// Ends the reader in order: what it was told of has arrived, and the rest is the queue's again.
    fn close(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// Queues and exchanges of a broker.
pub trait Queues: Send + Sync + fmt::Debug {
    /// Sends an event, in the broker's binding of CloudEvents. Dropping the future does not undo it.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] where the broker does not carry it. Everything else is about the broker and not the event.
    fn send(&self, to: &Address, event: Event) -> BoxFuture<'static, Result<Sent>>;

    /// Begins to read; `reader` is a name for whoever looks at the broker. At most `prefetch` messages are given ahead of what
    /// was told of them.
    fn receive<'a>(
        &'a self,
        reader: &'a str,
        source: &'a Source,
        prefetch: u16,
    ) -> BoxFuture<'a, Result<Box<dyn Intake>>>;

    /// Since when and why the broker cannot be reached, as far as it was tried; none where it can.
    fn unreachable(&self) -> Option<String>;

    /// Ends what runs. Calls fail from now on.
    fn close(&self);
}

/// The brokers with queues that are known, by name. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct QueueBrokers(Arc<RwLock<HashMap<ByteString, Arc<dyn Queues>>>>);

impl QueueBrokers {
    /// Uses a broker under that name from now on, in place of the one that had it, which is closed.
    pub fn put(&self, name: ByteString, queues: Arc<dyn Queues>) {
        let former = self.0.write().insert(name, queues);
        if let Some(former) = former {
            former.close();
        }
    }

    /// Lets go of a broker, which is closed.
    pub fn remove(&self, name: &str) {
        let former = self.0.write().remove(name);
        if let Some(former) = former {
            former.close();
        }
    }

    /// The broker of that name.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] where none is known.
    pub fn get(&self, name: &str) -> Result<Arc<dyn Queues>> {
        self.0.read().get(name).cloned().ok_or_else(|| {
            let context =
                format!("this gateway knows no broker {name} with queues; declare it in the gateway's resources");
            Error::new(ErrorKind::Unavailable, context)
        })
    }
}
