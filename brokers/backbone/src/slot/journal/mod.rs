//! The owner of a slot: conditional commits that are linearizable, atomic and idempotent by command id; reads and watches
//! of what they add up to; rolls to the next generation.

mod command;
mod judge;
mod open;
mod owner;
mod roll;
#[cfg(test)]
mod tests;
mod watch;
mod writer;

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use tidegate_schemas::limits;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub use command::{Change, Command, CommandId, CommitError, Committed, Expect, Head, Step};
pub use watch::{Watch, Watched};

use crate::environment::Environment;
use crate::error::Result;
use crate::log::PartitionLog;
use crate::slot::frame::{HEADER_BYTES, Named};
use crate::slot::heads::Heads;

/// How a journal is run. The defaults are the limits of the product.
#[derive(Clone, Debug)]
pub struct Options {
    /// The most bytes of one frame; a broker that carries less has the last word.
    pub frame_bytes_max: usize,
    /// Frames that are not yet known accepted, at most.
    pub frames_in_flight_max: usize,
    /// Commands that wait for a frame, at most.
    pub queue_commits: usize,
    /// Bytes behind its snapshot at which the journal begins a new generation, or the bytes of all keys and values where
    /// those are more, so that rolling never writes more than commits did.
    pub roll_bytes: u64,
    /// Whether a slot without any log is begun anew. Off where the slot is known to have existed, so that a lost log is
    /// [`crate::ErrorKind::DataLoss`] and not an empty slot.
    pub create: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            frame_bytes_max: limits::JOURNAL_FRAME_BYTES,
            frames_in_flight_max: limits::JOURNAL_FRAMES_IN_FLIGHT,
            queue_commits: limits::JOURNAL_QUEUE_COMMITS,
            roll_bytes: limits::JOURNAL_ROLL_BYTES,
            create: true,
        }
    }
}

impl Options {
    /// What the body of one frame may take on that broker.
    fn frame_bytes(&self, log: &dyn PartitionLog) -> usize {
        // Behind the header stand at most two counts.
        self.frame_bytes_max.min(log.capability().record_bytes_max).saturating_sub(HEADER_BYTES + 20)
    }
}

type Answer = oneshot::Sender<std::result::Result<Committed, CommitError>>;

#[derive(Debug)]
enum Request {
    Commit { steps: Vec<Step>, named: Option<Named>, bytes: usize, answer: Answer },
    Verify { answer: oneshot::Sender<()> },
    Close { answer: oneshot::Sender<()> },
}

#[derive(Debug, Default)]
struct State {
    heads: Heads,
    watches: watch::Watches,
    /// Why the owner ended, for those who ask later.
    ended: Option<CommitError>,
}

/// A slot's journal, owned by this process. Clones are handles of the same owner.
#[derive(Clone, Debug)]
pub struct Journal {
    slot: u32,
    epoch: u64,
    frame_bytes: usize,
    requests: mpsc::Sender<Request>,
    state: Arc<RwLock<State>>,
    ended: CancellationToken,
}

impl Journal {
    /// Takes the slot over: finds its valid generation, creating the first where there is none, finishes what an earlier
    /// owner left half done, replays, announces a new epoch and reads that back.
    ///
    /// On a broker that several processes share, opening a slot supersedes its owner; whether that is wanted must be
    /// known before.
    ///
    /// # Errors
    /// [`crate::ErrorKind::DataLoss`] where records are missing or damaged, [`crate::ErrorKind::Fenced`] where another candidate was
    /// faster, and whatever the log says.
    pub async fn open(
        log: Arc<dyn PartitionLog>,
        slot: u32,
        environment: Environment,
        options: Options,
    ) -> Result<Self> {
        let opened = open::open(&log, slot, &environment, &options).await?;
        let epoch = opened.writer.acceptor().epoch();
        let frame_bytes = options.frame_bytes(log.as_ref());
        let (requests, received) = mpsc::channel(options.queue_commits.max(1));
        let state = Arc::new(RwLock::new(State { heads: opened.heads, ..State::default() }));
        let ended = CancellationToken::new();
        let owner = owner::Owner::new(
            log,
            environment.clone(),
            options,
            opened.writer,
            owner::Shared { state: Arc::clone(&state), ended: ended.clone() },
        );
        environment.spawn(owner.run(received, opened.bytes_behind));
        tracing::info!(slot, epoch, "owns the slot");
        Ok(Self { slot, epoch, frame_bytes, requests, state, ended })
    }

    /// Which slot.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// The epoch of this ownership: larger than that of every earlier one of the slot.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether this process owns the slot at this moment, so that what it does for it now is done by nobody else: to be asked
    /// before each delivery, and before whatever else has an effect outside.
    pub fn holds(&self) -> bool {
        !self.ended.is_cancelled()
    }

    /// Commits a command. Queued when first polled; two calls polled one after the other are judged in that order.
    /// Dropping the future does not undo it.
    ///
    /// # Errors
    /// See [`CommitError`]; only [`CommitError::Unknown`] leaves open whether it took effect.
    pub async fn commit(&self, command: Command) -> std::result::Result<Committed, CommitError> {
        let (named, bytes) = judge::examine(&command, self.frame_bytes)?;
        let (answer, answered) = oneshot::channel();
        let request = Request::Commit { steps: command.steps, named, bytes, answer };
        self.requests.try_send(request).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                CommitError::Backpressure { retry_after: limits::JOURNAL_RETRY_AFTER }
            }
            mpsc::error::TrySendError::Closed(_) => self.why(),
        })?;
        // The owner answers whatever it was sent, unless its task was torn down with the process.
        answered.await.unwrap_or_else(|_| Err(CommitError::Unknown { reason: "the owner ended".to_owned() }))
    }

    fn why(&self) -> CommitError {
        self.state.read().ended.clone().unwrap_or(CommitError::Closed)
    }

    /// Waits until the journal has ended, and tells why: [`CommitError::Closed`] after [`Journal::close`], otherwise what
    /// made it give the slot up. Reads go on answering from the state at that point.
    pub async fn ended(&self) -> CommitError {
        self.ended.cancelled().await;
        self.why()
    }

    /// What the key is, as of [`Journal::revision`].
    pub fn get(&self, key: &[u8]) -> Option<Head> {
        self.state.read().heads.get(key).cloned()
    }

    /// Every key with that prefix with its revision and value, in byte order, all as of one revision.
    pub fn scan(&self, prefix: &[u8]) -> Vec<(Bytes, u64, Bytes)> {
        let state = self.state.read();
        state.heads.scan(prefix).map(|(key, head)| (key.clone(), head.revision, head.value.clone())).collect()
    }

    /// The revision of the last commit that is known accepted; 0 before the first.
    pub fn revision(&self) -> u64 {
        self.state.read().heads.revision()
    }

    /// Follows changes of the keys with that prefix, from now on. To see all, watch first and scan then: a change that
    /// falls between is told twice, by its revision.
    pub fn watch(&self, prefix: impl Into<Bytes>) -> Watch {
        self.state.write().watches.add(prefix.into())
    }

    /// Reads the log back up to its end, and compares the last frame that was relied on: to be called when the broker was
    /// away, or may have lost what it acknowledged. It is a linearizable read as well: the owner is one when it returns.
    ///
    /// # Errors
    /// What made the journal end: [`CommitError::DataLoss`], [`CommitError::Fenced`], [`CommitError::Unavailable`].
    pub async fn verify(&self) -> std::result::Result<(), CommitError> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request::Verify { answer }).await.map_err(|_| self.why())?;
        match answered.await {
            Ok(()) => Ok(()),
            Err(_) => {
                self.ended.cancelled().await;
                Err(self.why())
            }
        }
    }

    /// Commits what is queued, gives the slot up and waits until that is written. Later commands are
    /// [`CommitError::Closed`].
    pub async fn close(&self) {
        let (answer, answered) = oneshot::channel();
        if self.requests.send(Request::Close { answer }).await.is_ok() {
            // An owner that ended without an answer is closed as well.
            answered.await.ok();
        }
        self.ended.cancelled().await;
    }
}
