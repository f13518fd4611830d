//! The lane inside one process: for a gateway that has its broker within it, and for tests with several nodes.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use tidegate_schemas::limits;
use tokio::sync::mpsc;

use crate::error::{Error, ErrorKind, Result};
use crate::lane::{Inbox, Lane, NodeId};
use crate::log::BoxFuture;

type Inboxes = Arc<RwLock<HashMap<NodeId, mpsc::Sender<Bytes>>>>;

/// Joins the lanes of several nodes in one process. Clones are the same hub.
#[derive(Clone, Default)]
pub struct Hub {
    inboxes: Inboxes,
}

impl fmt::Debug for Hub {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Hub").field("nodes", &self.inboxes.read().len()).finish()
    }
}

/// A lane that joins nobody but the nodes that receive on it.
pub fn local() -> Arc<dyn Lane> {
    Hub::default().lane()
}

impl Hub {
    /// A lane of this hub.
    pub fn lane(&self) -> Arc<dyn Lane> {
        Arc::new(self.clone())
    }
}

fn full(node: NodeId) -> Error {
    let kind = ErrorKind::Backpressure { retry_after: limits::LANE_RETRY_AFTER };
    Error::new(kind, format!("{} messages wait at node {node}, and no more are taken", limits::LANE_QUEUE_MESSAGES))
}

fn nobody(node: NodeId) -> Error {
    Error::new(ErrorKind::NotFound, format!("node {node} does not receive"))
}

impl Hub {
    fn check(&self, message: &Bytes) -> Result<()> {
        let limit_bytes = self.message_bytes_max();
        if message.len() > limit_bytes {
            let text = format!("a message of {} bytes is larger than the lane's {limit_bytes}", message.len());
            return Err(Error::new(ErrorKind::TooLarge { limit_bytes }, text));
        }
        Ok(())
    }
}

impl Lane for Hub {
    fn message_bytes_max(&self) -> usize {
        limits::LANE_CHUNK_BYTES + limits::LANE_HEADER_BYTES
    }

    fn receive(&self, node: NodeId) -> BoxFuture<'_, Result<Box<dyn Inbox>>> {
        let (sender, receiver) = mpsc::channel(limits::LANE_QUEUE_MESSAGES);
        self.inboxes.write().insert(node, sender);
        let inbox = LocalInbox { node, inboxes: Arc::clone(&self.inboxes), receiver };
        Box::pin(std::future::ready(Ok(Box::new(inbox) as Box<dyn Inbox>)))
    }

    fn send(&self, to: NodeId, message: Bytes) -> BoxFuture<'static, Result<()>> {
        let sent = self.check(&message).and_then(|()| {
            let inboxes = self.inboxes.read();
            let inbox = inboxes.get(&to).ok_or_else(|| nobody(to))?;
            inbox.try_send(message).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => full(to),
                mpsc::error::TrySendError::Closed(_) => nobody(to),
            })
        });
        Box::pin(std::future::ready(sent))
    }

    fn broadcast(&self, message: Bytes) -> BoxFuture<'static, Result<()>> {
        let sent = self.check(&message).map(|()| {
            for inbox in self.inboxes.read().values() {
                // One that is full misses it, as a slow reader of any broker does.
                let _ = inbox.try_send(message.clone());
            }
        });
        Box::pin(std::future::ready(sent))
    }
}

struct LocalInbox {
    node: NodeId,
    inboxes: Inboxes,
    receiver: mpsc::Receiver<Bytes>,
}

impl Inbox for LocalInbox {
    fn next(&mut self) -> BoxFuture<'_, Option<Bytes>> {
        Box::pin(self.receiver.recv())
    }
}

impl Drop for LocalInbox {
    fn drop(&mut self) {
        self.inboxes.write().remove(&self.node);
    }
}
