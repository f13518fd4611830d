//! In front of any adapter, one whose broker breaks its word: it loses or repeats appends, keeps what it was told back, and
//! shows readers less or other than what was written. The journal must notice.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tidegate_backbone::{
    Appended, Batch, BoxFuture, Capability, Error, ErrorKind, LogId, LogInfo, LogSpec, PartitionLog, Position, Record,
    Result, Stored, Tail,
};
use tokio::sync::watch;

/// What becomes of one append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is written and told.
    None,
    /// It is not written, and its outcome is told unknown.
    Lost,
    /// It is written, and its outcome is told unknown.
    Untold,
    /// It is written twice.
    Twice,
    /// It is written and told, and not kept: gone with [`Misbehaving::lose`], before it or behind it.
    Unkept,
    /// It is on its way until [`Misbehaving::release`].
    Held,
}

/// What readers see of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// Nothing.
    Gone,
    /// One of its bits is another.
    Flipped,
}

type Script = Box<dyn FnMut(&LogId, &Record) -> Fault + Send>;
type Harms = Arc<Mutex<Harmed>>;

/// What readers do not see as it was written.
#[derive(Default)]
struct Harmed {
    at: BTreeMap<(LogId, Position), Harm>,
    /// By what they hold, because where they stand is not known before a reader may come.
    unkept: Vec<Bytes>,
    /// Whether those are gone.
    lost: bool,
}

/// See the module.
pub(crate) struct Misbehaving {
    inner: Arc<dyn PartitionLog>,
    script: Mutex<Script>,
    harms: Harms,
    faults: AtomicU64,
    released: watch::Sender<bool>,
}

impl fmt::Debug for Misbehaving {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Misbehaving").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Misbehaving {
    /// In front of that one; the script says what becomes of each append.
    pub(crate) fn new(
        inner: Arc<dyn PartitionLog>,
        script: impl FnMut(&LogId, &Record) -> Fault + Send + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            inner,
            script: Mutex::new(Box::new(script)),
            harms: Harms::default(),
            faults: AtomicU64::new(0),
            released: watch::Sender::new(false),
        })
    }

    /// From now on readers see that of a record, those that are open and those to come.
    pub(crate) fn harm(&self, id: &LogId, position: Position, harm: Harm) {
        self.harms.lock().at.insert((id.clone(), position), harm);
    }

    /// The broker loses what it has not kept, as with its power.
    pub(crate) fn lose(&self) {
        self.harms.lock().lost = true;
    }

    /// The same broker for another client, whose appends meet no fault.
    pub(crate) fn beside(&self) -> Arc<dyn PartitionLog> {
        let (inner, harms) = (Arc::clone(&self.inner), Arc::clone(&self.harms));
        let (faults, released) = (AtomicU64::new(0), watch::Sender::new(false));
        Arc::new(Self { inner, script: Mutex::new(Box::new(|_, _| Fault::None)), harms, faults, released })
    }

    /// Lets appends that are held come to the broker.
    pub(crate) fn release(&self) {
        self.released.send_replace(true);
    }

    /// How many appends met a fault.
    pub(crate) fn faults(&self) -> u64 {
        self.faults.load(Ordering::SeqCst)
    }
}

impl PartitionLog for Misbehaving {
    fn capability(&self) -> &Capability {
        self.inner.capability()
    }

    fn create(&self, spec: LogSpec) -> BoxFuture<'_, Result<()>> {
        self.inner.create(spec)
    }

    fn delete(&self, spec: LogSpec) -> BoxFuture<'_, Result<()>> {
        self.inner.delete(spec)
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
        let fault = (self.script.lock())(id, &record);
        if fault != Fault::None {
            self.faults.fetch_add(1, Ordering::SeqCst);
        }
        let unknown = Error::new(ErrorKind::Unknown, format!("{id}: the acknowledgement was lost"));
        match fault {
            Fault::None => self.inner.append(id, record),
            Fault::Unkept => {
                if let Record::Frame(bytes) = &record {
                    self.harms.lock().unkept.push(bytes.clone());
                }
                self.inner.append(id, record)
            }
            Fault::Lost => Box::pin(std::future::ready(Err(unknown))),
            Fault::Untold => {
                let appending = self.inner.append(id, record);
                Box::pin(async move { appending.await.and(Err(unknown)) })
            }
            Fault::Twice => {
                let appending = self.inner.append(id, record.clone());
                let repeat = self.inner.append(id, record);
                Box::pin(async move {
                    let appended = appending.await;
                    repeat.await?;
                    appended
                })
            }
            Fault::Held => {
                let (inner, id) = (Arc::clone(&self.inner), id.clone());
                let mut released = self.released.subscribe();
                Box::pin(async move {
                    // The sender lives in the adapter; without it nobody waits for the outcome.
                    let _ = released.wait_for(|released| *released).await;
                    inner.append(&id, record).await
                })
            }
        }
    }

    fn tail<'a>(&'a self, id: &'a LogId, from: Position) -> BoxFuture<'a, Result<Box<dyn Tail>>> {
        Box::pin(async move {
            let inner = self.inner.tail(id, from).await?;
            Ok(Box::new(HarmedTail { inner, id: id.clone(), harms: Arc::clone(&self.harms) }) as Box<dyn Tail>)
        })
    }

    fn lookup(&self, id: &LogId, unix_milliseconds: u64) -> BoxFuture<'_, Result<Position>> {
        self.inner.lookup(id, unix_milliseconds)
    }

    fn trim<'a>(&'a self, id: &'a LogId, before: Position) -> BoxFuture<'a, Result<()>> {
        self.inner.trim(id, before)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

/// A reader that sees records harmed.
struct HarmedTail {
    inner: Box<dyn Tail>,
    id: LogId,
    harms: Harms,
}

impl HarmedTail {
    fn seen(&self, mut stored: Stored) -> Option<Stored> {
        let harms = self.harms.lock();
        if harms.lost && matches!(&stored.record, Record::Frame(bytes) if harms.unkept.contains(bytes)) {
            return None;
        }
        match harms.at.get(&(self.id.clone(), stored.position)) {
            None => {}
            Some(Harm::Gone) => return None,
            Some(Harm::Flipped) => {
                if let Record::Frame(bytes) = &mut stored.record {
                    let mut other = bytes.to_vec();
                    let middle = other.len() / 2;
                    other[middle] ^= 1;
                    *bytes = Bytes::from(other);
                }
            }
        }
        Some(stored)
    }
}

impl Tail for HarmedTail {
    fn next(&mut self, bytes_max: usize) -> BoxFuture<'_, Result<Batch>> {
        Box::pin(async move {
            let batch = self.inner.next(bytes_max).await?;
            // It may be empty then, as where positions have gaps.
            Ok(Batch { records: batch.records.into_iter().filter_map(|stored| self.seen(stored)).collect() })
        })
    }

    fn position(&self) -> Position {
        self.inner.position()
    }
}
