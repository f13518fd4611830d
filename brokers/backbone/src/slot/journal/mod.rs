//! The owner of a slot: conditional commits that are linearizable, atomic and idempotent by command id; reads and watches
//! of what they add up to; rolls to the next generation.

mod command;
mod judge;
mod lease;
mod open;
mod owner;
mod roll;
#[cfg(test)]
mod tests;
mod watch;
mod writer;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tidegate_schemas::limits;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use command::{Change, Command, CommandId, CommitError, Committed, Expect, Head, Step};
pub(crate) use open::Taken;
pub(crate) use watch::Watches;
pub use watch::{Watch, Watched};

use crate::environment::Environment;
use crate::error::Result;
use crate::lane::NodeId;
use crate::log::PartitionLog;
use crate::slot::accept::Acceptor;
use crate::slot::frame::{HEADER_BYTES, Named};
use crate::slot::state::{Reads, State};

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
    /// How often a frame whose fate is not known is sent again before the owner gives up; none where it goes on until it is
    /// superseded or closed, so that a broker that was away finds its owners again.
    pub resends_max: Option<u32>,
    /// What a commit waits at most; its outcome is unknown then. None where it waits for as long as the owner tries.
    pub commit_timeout: Option<Duration>,
    /// What one call of the log may take until its outcome is unknown.
    pub call_timeout: Duration,
    /// Who owns, as its frames say; none for a name that is drawn at random each time.
    pub identity: Option<Identity>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            frame_bytes_max: limits::JOURNAL_FRAME_BYTES,
            frames_in_flight_max: limits::JOURNAL_FRAMES_IN_FLIGHT,
            queue_commits: limits::JOURNAL_QUEUE_COMMITS,
            roll_bytes: limits::JOURNAL_ROLL_BYTES,
            create: true,
            resends_max: Some(limits::JOURNAL_RESENDS),
            commit_timeout: None,
            call_timeout: limits::JOURNAL_CALL_TIMEOUT,
            identity: None,
        }
    }
}

/// A process as the frames that it writes name it: every attempt to own a slot has an id of its own, whose low 16 bits
/// number the attempts.
#[derive(Clone, Debug)]
pub struct Identity {
    node: NodeId,
    attempts: Arc<AtomicU64>,
}

impl Identity {
    const ATTEMPTS: u64 = 0xffff;

    /// The identity of a process; the low 16 bits of its id are not used.
    pub fn new(node: NodeId) -> Self {
        Self { node: Self::node_of(node.0), attempts: Arc::default() }
    }

    /// The process that an owner id names.
    pub fn node_of(owner: u64) -> NodeId {
        NodeId(owner & !Self::ATTEMPTS)
    }

    /// An owner id for the next attempt. They repeat after 65,536 attempts, which takes hours.
    fn attempt(&self) -> u64 {
        self.node.0 | (self.attempts.fetch_add(1, Ordering::Relaxed) & Self::ATTEMPTS)
    }
}

impl Options {
    /// For a log that several processes share: the owner does not give up because the broker is away, and commits are
    /// answered all the same.
    pub fn shared(identity: Identity) -> Self {
        Self::default().for_shared(identity)
    }

    pub(crate) fn for_shared(self, identity: Identity) -> Self {
        Self {
            resends_max: None,
            commit_timeout: Some(limits::JOURNAL_COMMIT_TIMEOUT),
            call_timeout: limits::JOURNAL_SHARED_CALL_TIMEOUT,
            identity: Some(identity),
            ..self
        }
    }

    fn owner(&self, environment: &Environment) -> u64 {
        self.identity.as_ref().map_or_else(|| environment.random.bits(), Identity::attempt)
    }

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

/// Where a follower goes on when an ownership has ended: the shared state is what this prefix of the log adds up to.
#[derive(Clone, Debug)]
pub(crate) struct Left {
    pub(crate) acceptor: Acceptor,
    pub(crate) bytes_behind: u64,
}

/// What an owner shares with its handles.
#[derive(Clone, Debug)]
struct Shared {
    state: Arc<RwLock<State>>,
    lease: Arc<lease::Lease>,
    /// Whether watches end with the owner; not where a follower goes on.
    last: bool,
    /// Why the owner ended, for those who ask later.
    why: Arc<OnceLock<CommitError>>,
    left: Arc<Mutex<Option<Left>>>,
    /// The owner is told to close, or nobody is left who could.
    closing: CancellationToken,
    ended: CancellationToken,
}

/// A slot's journal, owned by this process. Clones are handles of the same owner.
#[derive(Clone, Debug)]
pub struct Journal {
    slot: u32,
    epoch: u64,
    frame_bytes: usize,
    commit_timeout: Option<Duration>,
    requests: mpsc::Sender<Request>,
    shared: Shared,
    _used: Arc<DropGuard>,
}

impl Journal {
    /// Takes the slot over: finds its valid generation, creating the first where there is none, finishes what an earlier
    /// owner left half done, replays, announces a new epoch and reads that back.
    ///
    /// On a broker that several processes share, opening a slot supersedes its owner; whether that is wanted must be
    /// known before.
    ///
    /// # Errors
    /// [`crate::ErrorKind::DataLoss`] where records are missing or damaged, [`crate::ErrorKind::Fenced`] where another
    /// candidate was faster, and whatever the log says.
    pub async fn open(
        log: Arc<dyn PartitionLog>,
        slot: u32,
        environment: Environment,
        options: Options,
    ) -> Result<Self> {
        let opened = open::open(&log, slot, &environment, &options).await?;
        Ok(Self::run(log, slot, environment, options, opened, true))
    }

    /// Takes over a slot that this process has followed to its end, without reading it again. The follower's state is the
    /// journal's from now on.
    ///
    /// # Errors
    /// As [`Journal::open`]; the follower then goes on from where it was.
    pub(crate) async fn take_over(
        log: Arc<dyn PartitionLog>,
        taken: Taken,
        environment: Environment,
        options: Options,
    ) -> Result<Self> {
        let slot = taken.acceptor.slot();
        let opened = open::take_over(&log, taken, &environment, &options).await?;
        Ok(Self::run(log, slot, environment, options, opened, false))
    }

    fn run(
        log: Arc<dyn PartitionLog>,
        slot: u32,
        environment: Environment,
        options: Options,
        opened: open::Opened,
        last: bool,
    ) -> Self {
        let open::Opened { writer, state, bytes_behind } = opened;
        let epoch = writer.acceptor().epoch();
        let (frame_bytes, commit_timeout) = (options.frame_bytes(log.as_ref()), options.commit_timeout);
        let (requests, received) = mpsc::channel(options.queue_commits.max(1));
        let exclusive = log.capability().exclusive;
        let lease = lease::Lease::new(Arc::clone(&environment.clock), exclusive, writer.accepted_sent());
        let shared = Shared {
            state,
            lease: Arc::new(lease),
            last,
            why: Arc::default(),
            left: Arc::default(),
            closing: CancellationToken::new(),
            ended: CancellationToken::new(),
        };
        let owner = owner::Owner::new(log, environment.clone(), options, writer, shared.clone(), bytes_behind);
        environment.spawn(owner.run(received));
        tracing::debug!(slot, epoch, "owns the slot");
        let used = Arc::new(shared.closing.clone().drop_guard());
        Self { slot, epoch, frame_bytes, commit_timeout, requests, shared, _used: used }
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
    ///
    /// Where the log is shared with other processes it is true for [`limits::CLAIM_LEASE`] from the sending of the newest
    /// frame that is known accepted, which heartbeats renew, and false again while the broker does not answer. Where it is
    /// exclusive it is true until the journal ends.
    pub fn holds(&self) -> bool {
        self.shared.lease.holds()
    }

    /// When the newest frame that is known accepted was sent, since the machine booted.
    pub(crate) fn renewed(&self) -> Duration {
        self.shared.lease.renewed()
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
        let unknown = |reason: String| Err(CommitError::Unknown { reason });
        let answered = match self.commit_timeout {
            None => answered.await,
            Some(timeout) => match tokio::time::timeout(timeout, answered).await {
                Ok(answered) => answered,
                Err(_) => return unknown(format!("the slot's log has not taken it within {timeout:?}")),
            },
        };
        // The owner answers whatever it was sent, unless its task was torn down with the process.
        answered.unwrap_or_else(|_| unknown("the owner ended".to_owned()))
    }

    /// What the key is at a moment between the call and its return, whoever owned the slot before: at once under a valid
    /// lease, otherwise after [`Journal::verify`].
    ///
    /// # Errors
    /// As [`Journal::verify`].
    pub async fn read(&self, key: &[u8]) -> std::result::Result<Option<Head>, CommitError> {
        let head = self.get(key);
        // Asked after the reading: nobody else had owned the slot up to then.
        if self.holds() {
            return Ok(head);
        }
        self.verify().await?;
        Ok(self.get(key))
    }

    fn why(&self) -> CommitError {
        self.shared.why.get().cloned().unwrap_or(CommitError::Closed)
    }

    /// Where a follower goes on, once the journal has ended; none where it has to read the slot again.
    pub(crate) fn left(&self) -> Option<Left> {
        self.shared.left.lock().take()
    }

    /// Waits until the journal has ended, and tells why: [`CommitError::Closed`] after [`Journal::close`], otherwise what
    /// made it give the slot up. Reads go on answering from the state at that point.
    pub async fn ended(&self) -> CommitError {
        self.shared.ended.cancelled().await;
        self.why()
    }

    /// What the key is, as of [`Journal::revision`].
    pub fn get(&self, key: &[u8]) -> Option<Head> {
        self.shared.state.read_key(key)
    }

    /// Every key with that prefix with its revision and value, in byte order, all as of one revision.
    pub fn scan(&self, prefix: &[u8]) -> Vec<(Bytes, u64, Bytes)> {
        self.shared.state.read_prefix(prefix)
    }

    /// The revision of the last commit that is known accepted; 0 before the first.
    pub fn revision(&self) -> u64 {
        self.shared.state.read_revision()
    }

    /// Follows changes of the keys with that prefix, from now on. To see all, watch first and scan then: a change that
    /// falls between is told twice, by its revision.
    pub fn watch(&self, prefix: impl Into<Bytes>) -> Watch {
        self.shared.state.follow_prefix(prefix.into())
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
                self.shared.ended.cancelled().await;
                Err(self.why())
            }
        }
    }

    /// Commits what is queued, gives the slot up and waits until that is written. Later commands are
    /// [`CommitError::Closed`].
    ///
    /// On a log that several processes share a broker that is away is waited for no longer than
    /// [`limits::JOURNAL_CLOSE_TIMEOUT`].
    pub async fn close(&self) {
        self.shared.closing.cancel();
        let (answer, answered) = oneshot::channel();
        if self.requests.send(Request::Close { answer }).await.is_ok() {
            // An owner that ended without an answer is closed as well.
            answered.await.ok();
        }
        self.shared.ended.cancelled().await;
    }
}
