//! Lanes in memory that can be cut, and some that break a promise.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tidegate_backbone::request::Hub;
use tidegate_backbone::{BoxFuture, Error, ErrorKind, Inbox, Lane, NodeId, Result};

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Nothing.
    None,
    /// What is sent to all arrives nowhere.
    NoBroadcast,
    /// Of a large message its first part arrives.
    Cuts,
}

#[derive(Clone, Debug)]
pub(crate) struct Lanes {
    hub: Hub,
    flaw: Flaw,
    cut: Arc<AtomicBool>,
}

impl Lanes {
    pub(crate) fn new(flaw: Flaw) -> Self {
        Self { hub: Hub::default(), flaw, cut: Arc::default() }
    }

    pub(crate) fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::SeqCst);
    }

    fn away(&self) -> Result<()> {
        let away = || Error::new(ErrorKind::Unavailable, "the lane is cut");
        if self.cut.load(Ordering::SeqCst) { Err(away()) } else { Ok(()) }
    }
}

impl Lane for Lanes {
    fn message_bytes_max(&self) -> usize {
        self.hub.message_bytes_max()
    }

    fn receive(&self, node: NodeId) -> BoxFuture<'_, Result<Box<dyn Inbox>>> {
        self.hub.receive(node)
    }

    fn send(&self, to: NodeId, mut message: Bytes) -> BoxFuture<'static, Result<()>> {
        if let Err(error) = self.away() {
            return Box::pin(std::future::ready(Err(error)));
        }
        if self.flaw == Flaw::Cuts {
            message.truncate(32 * 1024);
        }
        self.hub.send(to, message)
    }

    fn broadcast(&self, message: Bytes) -> BoxFuture<'static, Result<()>> {
        match self.away() {
            Err(error) => Box::pin(std::future::ready(Err(error))),
            Ok(()) if self.flaw == Flaw::NoBroadcast => Box::pin(std::future::ready(Ok(()))),
            Ok(()) => self.hub.broadcast(message),
        }
    }
}
