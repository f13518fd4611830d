//! In front of any lane, one that repeats messages, or keeps some back for a while.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tidegate_backbone::request::wire::{Kind, Message};
use tidegate_backbone::{BoxFuture, Inbox, Lane, NodeId, Result};

type Chooses = fn(&Kind) -> bool;

/// See the module.
pub struct Meddling {
    inner: Arc<dyn Lane>,
    repeats: AtomicBool,
    keeps: Mutex<Option<Chooses>>,
    kept: Mutex<Vec<(NodeId, Bytes)>>,
}

impl fmt::Debug for Meddling {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Meddling").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Meddling {
    /// In front of that one, doing nothing.
    pub fn new(inner: Arc<dyn Lane>) -> Arc<Self> {
        Arc::new(Self { inner, repeats: AtomicBool::new(false), keeps: Mutex::new(None), kept: Mutex::new(Vec::new()) })
    }

    /// Sends every message to one node twice from now on.
    pub fn repeat(&self) {
        self.repeats.store(true, Ordering::SeqCst);
    }

    /// Keeps back the messages that are chosen.
    pub fn keep(&self, chosen: Chooses) {
        *self.keeps.lock() = Some(chosen);
    }

    /// How many are kept back.
    pub fn kept(&self) -> usize {
        self.kept.lock().len()
    }

    /// Sends what was kept back, and keeps nothing any more. A node may be gone meanwhile, and a lane may say so.
    pub async fn release(&self) {
        *self.keeps.lock() = None;
        let kept = std::mem::take(&mut *self.kept.lock());
        for (to, message) in kept {
            let _ = self.inner.send(to, message).await;
        }
    }
}

impl Lane for Meddling {
    fn message_bytes_max(&self) -> usize {
        self.inner.message_bytes_max()
    }

    fn receive(&self, node: NodeId) -> BoxFuture<'_, Result<Box<dyn Inbox>>> {
        self.inner.receive(node)
    }

    fn send(&self, to: NodeId, message: Bytes) -> BoxFuture<'static, Result<()>> {
        let chosen = *self.keeps.lock();
        let keeps = chosen.is_some_and(|chosen| Message::decode(&message).is_ok_and(|message| chosen(&message.kind)));
        if keeps {
            self.kept.lock().push((to, message));
            return Box::pin(std::future::ready(Ok(())));
        }
        if self.repeats.load(Ordering::SeqCst) {
            drop(self.inner.send(to, message.clone()).now_or_never());
        }
        self.inner.send(to, message)
    }

    fn broadcast(&self, message: Bytes) -> BoxFuture<'static, Result<()>> {
        self.inner.broadcast(message)
    }
}
