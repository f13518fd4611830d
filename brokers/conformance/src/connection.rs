//! In front of any adapter, a connection that can be cut, stall, lose one direction or die, as that of one process among
//! several.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tidegate_backbone::{
    Appended, Batch, BoxFuture, Capability, Environment, Error, ErrorKind, LogId, LogInfo, LogSpec, PartitionLog,
    Position, Record, Result, Tail,
};
use tokio::sync::{oneshot, watch};

/// How a process is connected to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Well.
    Up,
    /// Not at all: calls fail, and of an append it is not known whether it was written.
    Cut,
    /// As if the process was stopped: calls wait, and what it appends is written when it goes on.
    Stalled,
    /// It can write, and hears nothing.
    Deaf,
    /// It can read, and what it writes is lost.
    Mute,
    /// The process is dead.
    Dead,
}

type Held = (LogId, Record, oneshot::Sender<Result<Appended>>);

/// See the module.
pub struct Connection {
    inner: Arc<dyn PartitionLog>,
    link: watch::Sender<Link>,
    held: Mutex<Vec<Held>>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Connection").field("inner", &self.inner).finish_non_exhaustive()
    }
}

fn away() -> Error {
    Error::new(ErrorKind::Unavailable, "the broker cannot be reached, as the case wants it")
}

fn dead() -> Error {
    Error::new(ErrorKind::Closed, "the process is dead, as the case wants it")
}

/// Waits while the process is stopped, and tells whether it can read then.
async fn reads(link: &watch::Sender<Link>) -> Result<()> {
    let mut link = link.subscribe();
    loop {
        match *link.borrow_and_update() {
            Link::Up | Link::Mute => return Ok(()),
            Link::Cut | Link::Deaf => return Err(away()),
            Link::Dead => return Err(dead()),
            Link::Stalled => {}
        }
        link.changed().await.map_err(|_| dead())?;
    }
}

impl Connection {
    /// To that adapter, well.
    pub fn new(inner: Arc<dyn PartitionLog>) -> Arc<Self> {
        Arc::new(Self { inner, link: watch::Sender::new(Link::Up), held: Mutex::default() })
    }

    /// From now on it is like this.
    pub fn set(&self, link: Link) {
        // Under the lock, so that what was held is written before anything that is appended afterwards.
        let mut held = self.held.lock();
        if link == Link::Dead {
            held.clear();
        } else if link != Link::Stalled {
            for (id, record, answer) in held.drain(..) {
                let append = self.inner.append(&id, record);
                // Who asked may be gone.
                drop(Environment::system().spawn(async move { answer.send(append.await) }));
            }
        }
        self.link.send_replace(link);
    }
}

impl PartitionLog for Connection {
    fn capability(&self) -> &Capability {
        self.inner.capability()
    }

    fn create(&self, spec: LogSpec) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            reads(&self.link).await?;
            self.inner.create(spec).await
        })
    }

    fn delete(&self, spec: LogSpec) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            reads(&self.link).await?;
            self.inner.delete(spec).await
        })
    }

    fn attach<'a>(&'a self, topic: &'a str, to: &'a str) -> BoxFuture<'a, Result<u32>> {
        self.inner.attach(topic, to)
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<LogInfo>>> {
        Box::pin(async move {
            reads(&self.link).await?;
            self.inner.list().await
        })
    }

    fn info<'a>(&'a self, id: &'a LogId) -> BoxFuture<'a, Result<LogInfo>> {
        Box::pin(async move {
            reads(&self.link).await?;
            let info = self.inner.info(id).await;
            reads(&self.link).await?;
            info
        })
    }

    fn count<'a>(&'a self, id: &'a LogId, from: Position) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            reads(&self.link).await?;
            self.inner.count(id, from).await
        })
    }

    fn append(&self, id: &LogId, record: Record) -> BoxFuture<'static, Result<Appended>> {
        let mut held = self.held.lock();
        let link = *self.link.borrow();
        let failed = match link {
            Link::Up => return self.watched(id, record),
            Link::Stalled => {
                let (answer, answered) = oneshot::channel();
                held.push((id.clone(), record, answer));
                return Box::pin(async move { answered.await.unwrap_or_else(|_| Err(dead().outcome_unknown())) });
            }
            Link::Deaf => {
                // It is written, and nobody hears of it.
                drop(Environment::system().spawn(self.inner.append(id, record)));
                away()
            }
            Link::Cut | Link::Mute => away(),
            Link::Dead => dead(),
        };
        Box::pin(async move { Err(failed.outcome_unknown()) })
    }

    fn tail<'a>(&'a self, id: &'a LogId, from: Position) -> BoxFuture<'a, Result<Box<dyn Tail>>> {
        Box::pin(async move {
            reads(&self.link).await?;
            let inner = self.inner.tail(id, from).await?;
            Ok(Box::new(Reader { inner, link: self.link.subscribe() }) as Box<dyn Tail>)
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

impl Connection {
    /// An append whose answer waits while the process is stopped meanwhile, and is lost where the connection is.
    fn watched(&self, id: &LogId, record: Record) -> BoxFuture<'static, Result<Appended>> {
        let (append, link) = (self.inner.append(id, record), self.link.clone());
        Box::pin(async move {
            let result = append.await;
            match reads(&link).await {
                Ok(()) => result,
                Err(error) => Err(error.outcome_unknown()),
            }
        })
    }
}

/// A reader that waits while the broker cannot be heard.
struct Reader {
    inner: Box<dyn Tail>,
    link: watch::Receiver<Link>,
}

impl Tail for Reader {
    fn next(&mut self, bytes_max: usize) -> BoxFuture<'_, Result<Batch>> {
        Box::pin(async move {
            let mut next = self.inner.next(bytes_max);
            loop {
                let hears = match *self.link.borrow_and_update() {
                    Link::Up | Link::Mute => true,
                    Link::Cut | Link::Stalled | Link::Deaf => false,
                    Link::Dead => return Err(dead()),
                };
                tokio::select! {
                    biased;
                    changed = self.link.changed() => changed.map_err(|_| dead())?,
                    batch = &mut next, if hears => return batch,
                }
            }
        })
    }

    fn position(&self) -> Position {
        self.inner.position()
    }
}
