//! In front of any adapter, one that refuses appends to some logs for a while, lets readers of topics or deletions wait, and tells
//! the time that the case holds.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tidegate_backbone::{
    Appended, Batch, BoxFuture, Capability, Error, ErrorKind, LogId, LogInfo, LogSpec, PartitionLog, Position, Record,
    Result, Tail,
};
use tokio::sync::watch;

use crate::clock::HeldClock;

type Chooses = Box<dyn Fn(&LogId) -> bool + Send>;

/// See the module.
pub struct Refusing {
    inner: Arc<dyn PartitionLog>,
    refuses: Mutex<Option<Chooses>>,
    refused: AtomicU64,
    opened: AtomicU64,
    held: watch::Sender<bool>,
    clock: Option<Arc<HeldClock>>,
    deletes_held: watch::Sender<bool>,
}

impl fmt::Debug for Refusing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Refusing").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Refusing {
    /// In front of that one, refusing nothing.
    pub fn new(inner: Arc<dyn PartitionLog>) -> Arc<Self> {
        Self::make(inner, None)
    }

    /// The same; the broker stamps records with the machine's time, and readers are told where that clock stood then.
    pub fn retimed(inner: Arc<dyn PartitionLog>, clock: Arc<HeldClock>) -> Arc<Self> {
        Self::make(inner, Some(clock))
    }

    fn make(inner: Arc<dyn PartitionLog>, clock: Option<Arc<HeldClock>>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            inner,
            refuses: Mutex::new(None),
            refused: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            held: watch::Sender::new(false),
            deletes_held: watch::Sender::new(false),
        })
    }

    /// Refuses appends to the logs that are chosen, until told otherwise.
    pub fn refuse(&self, chosen: impl Fn(&LogId) -> bool + Send + 'static) {
        *self.refuses.lock() = Some(Box::new(chosen));
    }

    /// Refuses nothing any more.
    pub fn allow(&self) {
        *self.refuses.lock() = None;
    }

    /// Lets every reader of a topic wait, those that are open and those to come, or go on. Slots are read all the same: where
    /// a broker tells no positions, nobody commits anything without reading it back.
    pub fn hold_readers(&self, hold: bool) {
        self.held.send_replace(hold);
    }

    /// Lets every deletion of logs wait, or go on.
    pub fn hold_deletes(&self, hold: bool) {
        self.deletes_held.send_replace(hold);
    }

    /// How many readers of topics were opened.
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::SeqCst)
    }

    /// How many appends were refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::SeqCst)
    }
}

impl PartitionLog for Refusing {
    fn capability(&self) -> &Capability {
        self.inner.capability()
    }

    fn create(&self, spec: LogSpec) -> BoxFuture<'_, Result<()>> {
        self.inner.create(spec)
    }

    fn delete(&self, spec: LogSpec) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            until(&mut self.deletes_held.subscribe(), false).await;
            self.inner.delete(spec).await
        })
    }

    fn attach<'a>(&'a self, topic: &'a str, to: &'a str) -> BoxFuture<'a, Result<u32>> {
        self.inner.attach(topic, to)
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<LogInfo>>> {
        self.inner.list()
    }

    fn info<'a>(&'a self, id: &'a LogId) -> BoxFuture<'a, Result<LogInfo>> {
        self.inner.info(id)
    }

    fn count<'a>(&'a self, id: &'a LogId, from: Position) -> BoxFuture<'a, Result<u64>> {
        self.inner.count(id, from)
    }

    fn append(&self, id: &LogId, record: Record) -> BoxFuture<'static, Result<Appended>> {
        if self.refuses.lock().as_ref().is_some_and(|chosen| chosen(id)) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            let context = format!("{id} takes nothing, as the case wants it");
            return Box::pin(async move { Err(Error::new(ErrorKind::Unavailable, context)) });
        }
        self.inner.append(id, record)
    }

    fn tail<'a>(&'a self, id: &'a LogId, from: Position) -> BoxFuture<'a, Result<Box<dyn Tail>>> {
        Box::pin(async move {
            let inner = self.inner.tail(id, from).await?;
            let held = match id {
                LogId::Topic { .. } => {
                    self.opened.fetch_add(1, Ordering::SeqCst);
                    self.held.subscribe()
                }
                LogId::Slot { .. } | LogId::Outcomes { .. } => watch::channel(false).1,
            };
            let clock = self.clock.clone();
            Ok(Box::new(Held { inner, held, clock }) as Box<dyn Tail>)
        })
    }

    fn lookup(&self, id: &LogId, unix_milliseconds: u64) -> BoxFuture<'_, Result<Position>> {
        let time = match &self.clock {
            Some(clock) => clock.first_at(unix_milliseconds).unwrap_or(u64::MAX),
            None => unix_milliseconds,
        };
        self.inner.lookup(id, time)
    }

    fn trim<'a>(&'a self, id: &'a LogId, before: Position) -> BoxFuture<'a, Result<()>> {
        self.inner.trim(id, before)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

/// A reader that waits while it is told to.
struct Held {
    inner: Box<dyn Tail>,
    held: watch::Receiver<bool>,
    clock: Option<Arc<HeldClock>>,
}

/// Waits until readers are to wait, or until they may go on.
async fn until(held: &mut watch::Receiver<bool>, wanted: bool) {
    // The sender lives in the adapter; once that is gone nobody holds a reader any more.
    if held.wait_for(|held| *held == wanted).await.is_err() && wanted {
        std::future::pending::<()>().await;
    }
}

impl Tail for Held {
    fn next(&mut self, bytes_max: usize) -> BoxFuture<'_, Result<Batch>> {
        Box::pin(async move {
            let mut next = self.inner.next(bytes_max);
            loop {
                until(&mut self.held, false).await;
                tokio::select! {
                    biased;
                    () = until(&mut self.held, true) => {}
                    batch = &mut next => {
                        let mut batch = batch?;
                        if let Some(clock) = &self.clock {
                            for stored in &mut batch.records {
                                stored.appended_at = clock.at(stored.appended_at);
                            }
                        }
                        return Ok(batch);
                    }
                }
            }
        })
    }

    fn position(&self) -> Position {
        self.inner.position()
    }
}
