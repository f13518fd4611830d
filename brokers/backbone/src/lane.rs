//! The second thing that a broker is asked for: a lane, on which gateways send each other short messages that nothing
//! stores.
//!
//! | | promise of a lane |
//! |---|---|
//! | bounded | a message has at most [`Lane::message_bytes_max`] bytes; an adapter queues no more than its options say, and refuses beyond that with [`crate::ErrorKind::Backpressure`] |
//! | addressed | what is sent to a node is received by that node alone; what is broadcast by every node that receives, the sender among them |
//! | ready | once [`Lane::receive`] has returned, whatever is sent afterwards to this node is received, as long as the broker can be reached |
//! | ordered | two messages of one sender to one node arrive in their order, or not at all |
//! | honest | an error of [`Lane::send`] says whether the message may have been sent; that no error came does not say that anybody received |
//!
//! Not promised: that a message arrives, or arrives once; that a sender is told where nobody receives. A lane that knows may
//! fail with [`crate::ErrorKind::NotFound`], as the one inside a process does; those of brokers do not know, and it is presence,
//! in the module `request`, that tells a caller so, before anything is sent. Deadlines, repetition, replies and larger bodies
//! are built above, in the module `request`, once for all brokers.

use std::fmt;

use bytes::Bytes;

use crate::error::Result;
use crate::log::BoxFuture;

/// One process of the cluster, from its start to its end: drawn at random, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

impl std::str::FromStr for NodeId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

/// What arrives at a node.
pub trait Inbox: Send {
    /// The next message, waiting for it; none when the adapter is closed. A broker that goes away is waited for, and what
    /// was sent meanwhile may be lost. May be dropped while it waits, without losing a message.
    fn next(&mut self) -> BoxFuture<'_, Option<Bytes>>;
}

/// What an adapter implements beside [`crate::PartitionLog`].
pub trait Lane: Send + Sync + fmt::Debug {
    /// The most bytes of one message.
    fn message_bytes_max(&self) -> usize;

    /// Begins to receive as that node; returns when the broker has confirmed that it delivers.
    fn receive(&self, node: NodeId) -> BoxFuture<'_, Result<Box<dyn Inbox>>>;

    /// Sends to one node. It is queued when this is called, not when the future is first polled; the future resolves when
    /// the broker has it, or on brokers that do not tell, when it was handed to the connection.
    fn send(&self, to: NodeId, message: Bytes) -> BoxFuture<'static, Result<()>>;

    /// Sends to every node that receives.
    fn broadcast(&self, message: Bytes) -> BoxFuture<'static, Result<()>>;
}
