//! A lane that does with messages what a script says.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::super::wire::Message;
use crate::environment::Environment;
use crate::error::{Error, ErrorKind, Result};
use crate::lane::{Inbox, Lane, NodeId};
use crate::log::BoxFuture;

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It arrives.
    Arrives,
    /// It does not, and that is not told.
    Lost,
    /// It arrives twice.
    Twice,
    /// It arrives so much later, behind what was sent meanwhile.
    Late(Duration),
    /// So many bytes of it arrive.
    Cut(usize),
    /// The lane has no room.
    Full,
    /// The lane says that nobody receives.
    Nobody,
    /// The lane cannot be reached.
    Away,
}

type Script = Box<dyn FnMut(&Message) -> Fate + Send>;

pub(super) struct Faulty {
    lane: Arc<dyn Lane>,
    environment: Environment,
    message_bytes_max: usize,
    script: Mutex<Script>,
}

impl fmt::Debug for Faulty {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Faulty").finish_non_exhaustive()
    }
}

impl Faulty {
    pub(super) fn new(
        lane: Arc<dyn Lane>,
        message_bytes_max: usize,
        script: impl FnMut(&Message) -> Fate + Send + 'static,
    ) -> Arc<Self> {
        let script: Mutex<Script> = Mutex::new(Box::new(script));
        Arc::new(Self { lane, environment: Environment::system(), message_bytes_max, script })
    }

    /// Whole messages, and that script.
    pub(super) fn whole(lane: Arc<dyn Lane>, script: impl FnMut(&Message) -> Fate + Send + 'static) -> Arc<Self> {
        let most = lane.message_bytes_max();
        Self::new(lane, most, script)
    }

    fn carry(
        &self,
        message: &Bytes,
        send: impl Fn(Bytes) -> BoxFuture<'static, Result<()>> + Send + 'static,
    ) -> BoxFuture<'static, Result<()>> {
        let fate = (self.script.lock())(&Message::decode(message).unwrap());
        let refused = |kind, text: &str| Box::pin(std::future::ready(Err(Error::new(kind, text)))) as BoxFuture<'_, _>;
        match fate {
            Fate::Arrives => send(message.clone()),
            Fate::Lost => Box::pin(std::future::ready(Ok(()))),
            Fate::Twice => {
                drop(send(message.clone()));
                send(message.clone())
            }
            Fate::Late(by) => {
                let message = message.clone();
                self.environment.spawn(async move {
                    tokio::time::sleep(by).await;
                    let _ = send(message).await;
                });
                Box::pin(std::future::ready(Ok(())))
            }
            Fate::Cut(bytes) => send(message.slice(..bytes.min(message.len()))),
            Fate::Full => refused(ErrorKind::Backpressure { retry_after: Duration::from_millis(10) }, "full"),
            Fate::Nobody => refused(ErrorKind::NotFound, "nobody"),
            Fate::Away => refused(ErrorKind::Unavailable, "away"),
        }
    }
}

impl Lane for Faulty {
    fn message_bytes_max(&self) -> usize {
        self.message_bytes_max
    }

    fn receive(&self, node: NodeId) -> BoxFuture<'_, Result<Box<dyn Inbox>>> {
        self.lane.receive(node)
    }

    fn send(&self, to: NodeId, message: Bytes) -> BoxFuture<'static, Result<()>> {
        let lane = Arc::clone(&self.lane);
        self.carry(&message, move |message| lane.send(to, message))
    }

    fn broadcast(&self, message: Bytes) -> BoxFuture<'static, Result<()>> {
        let lane = Arc::clone(&self.lane);
        self.carry(&message, move |message| lane.broadcast(message))
    }
}
