//! A slot as a process sees it that may not own it: commands go to the owner.

mod wire;

use std::sync::{Arc, Weak};

use bytes::Bytes;
use tidegate_schemas::limits;
use tokio::time::Instant;

use super::peers::{CallError, Handler};
use super::seat::{Seat, Shared};
use crate::lane::NodeId;
use crate::log::BoxFuture;
use crate::slot::state::Reads as _;
use crate::slot::{Command, CommandId, CommitError, Committed, Head, SlotHandle, Watch};
use wire::{Answer, Forwarded};

/// A slot, whoever owns it.
#[derive(Debug)]
pub(super) struct Handle {
    shared: Arc<Shared>,
    seat: Arc<Seat>,
}

/// What one attempt to commit came to.
enum Attempt {
    Done(Result<Committed, CommitError>),
    /// It had no effect: nobody is known who owns the slot, or who was asked does not.
    Nobody(String),
    /// It may have had its effect.
    Unknown(String),
    /// It had no effect, and that process may own the slot.
    Ask(NodeId),
}

impl Handle {
    pub(super) fn new(shared: &Arc<Shared>, seat: Arc<Seat>) -> Self {
        Self { shared: Arc::clone(shared), seat }
    }

    async fn run(&self, mut command: Command) -> Result<Committed, CommitError> {
        let deadline = Instant::now() + limits::JOURNAL_COMMIT_TIMEOUT;
        if command.id.is_none() {
            // So that it can be sent again when an answer was lost.
            let bits = || u128::from(self.shared.environment.random.bits());
            command.id = Some(CommandId(bits() << 64 | bits()));
        }
        let mut changed = self.shared.changed.subscribe();
        let mut unknown: Option<String> = None;
        let mut nobody = "no owner is known".to_owned();
        let mut ask = None;
        let mut hints = 0_u32;
        while Instant::now() < deadline {
            changed.borrow_and_update();
            let attempt = match self.seat.owned() {
                Some(journal) => match journal.commit(command.clone()).await {
                    // Nothing of it counts, and it is somebody else's by now.
                    Err(error @ (CommitError::Fenced { .. } | CommitError::Closed)) => {
                        Attempt::Nobody(error.to_string())
                    }
                    result => Attempt::Done(result),
                },
                None => self.ask(ask.take(), &command, deadline).await,
            };
            match attempt {
                Attempt::Done(Ok(committed)) => return self.seen(committed, deadline).await,
                // What was sent before and not answered may come yet, whatever is said of this one.
                Attempt::Done(Err(error)) => {
                    return Err(match unknown {
                        Some(reason) => CommitError::Unknown { reason },
                        None => error,
                    });
                }
                Attempt::Ask(node) if hints < limits::CLAIM_HINTS => {
                    hints += 1;
                    ask = Some(node);
                    continue;
                }
                Attempt::Ask(_) => {}
                Attempt::Nobody(reason) => nobody = reason,
                Attempt::Unknown(reason) => unknown = Some(reason),
            }
            // Until it may look otherwise, and not for longer than there is time.
            let wait = limits::CLAIM_RETRY_DELAY.min(deadline.saturating_duration_since(Instant::now()));
            tokio::time::timeout(wait, changed.changed()).await.ok();
        }
        let slot = self.seat.slot;
        Err(match unknown {
            Some(reason) => CommitError::Unknown { reason },
            None => CommitError::Unavailable { reason: format!("slot {slot}: {nobody}") },
        })
    }

    async fn ask(&self, hint: Option<NodeId>, command: &Command, deadline: Instant) -> Attempt {
        let seen = *self.seat.seen.lock();
        let Some(owner) = hint.or_else(|| seen.current()) else {
            return Attempt::Nobody("no owner is known".to_owned());
        };
        if owner == self.shared.node {
            return Attempt::Nobody("this process is about to own it".to_owned());
        }
        let body = Forwarded { slot: self.seat.slot, command: command.clone() }.encode();
        // An owner that died does not answer, and by then there may be another: it knows the command's id.
        let timeout = deadline.saturating_duration_since(Instant::now()).min(limits::CLAIM_CALL_TIMEOUT);
        match self.shared.peers.call(owner, body, timeout).await {
            Err(CallError::NotMade { reason }) => Attempt::Nobody(format!("its owner {owner}: {reason}")),
            Err(CallError::NotAnswered { reason }) => Attempt::Unknown(format!("its owner {owner}: {reason}")),
            Ok(answer) => match Answer::decode(&answer) {
                Ok(Answer::Owner(Err(error @ (CommitError::Fenced { .. } | CommitError::Closed)))) => {
                    Attempt::Nobody(error.to_string())
                }
                Ok(Answer::Owner(result)) => Attempt::Done(result),
                Ok(Answer::NotOwner { epoch, owner: Some(other) }) if other != owner && epoch >= seen.epoch => {
                    Attempt::Ask(other)
                }
                Ok(Answer::NotOwner { .. }) => Attempt::Nobody(format!("{owner} does not own it")),
                Err(error) => Attempt::Unknown(format!("the answer of {owner} is not understood: {error}")),
            },
        }
    }

    /// Waits until this process has read what was committed.
    async fn seen(&self, committed: Committed, deadline: Instant) -> Result<Committed, CommitError> {
        let mut seen = self.seat.state.state().read().seen.subscribe();
        let read = seen.wait_for(|revision| *revision >= committed.revision);
        // Also when the time was used up by the commit: the follower is a moment behind its owner.
        let wait = deadline.saturating_duration_since(Instant::now()).max(limits::CLAIM_RETRY_DELAY);
        match tokio::time::timeout(wait, read).await {
            Ok(Ok(_)) => Ok(committed),
            _ => {
                let revision = committed.revision;
                let reason = format!("it took effect as revision {revision}, which this process has not read yet");
                Err(CommitError::Unknown { reason })
            }
        }
    }
}

impl SlotHandle for Handle {
    fn slot(&self) -> u32 {
        self.seat.slot
    }

    fn get(&self, key: &[u8]) -> Option<Head> {
        self.seat.state.read_key(key)
    }

    fn scan(&self, prefix: &[u8]) -> Vec<(Bytes, u64, Bytes)> {
        self.seat.state.read_prefix(prefix)
    }

    fn revision(&self) -> u64 {
        self.seat.state.read_revision()
    }

    fn watch(&self, prefix: Bytes) -> Watch {
        self.seat.state.follow_prefix(prefix)
    }

    fn commit(&self, command: Command) -> BoxFuture<'_, Result<Committed, CommitError>> {
        Box::pin(self.run(command))
    }
}

/// Answers the commands that others send to the owner.
#[derive(Debug)]
pub(super) struct Answering {
    // The process holds whoever calls, who holds this.
    shared: Weak<Shared>,
}

impl Answering {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::downgrade(shared) }
    }

    async fn carry_out(&self, body: &[u8]) -> Answer {
        let unavailable = |reason: String| Answer::Owner(Err(CommitError::Unavailable { reason }));
        let Forwarded { slot, command } = match Forwarded::decode(body) {
            Ok(forwarded) => forwarded,
            Err(error) => return unavailable(format!("the command is not understood: {error}")),
        };
        let Some(shared) = self.shared.upgrade() else { return unavailable("the owner has ended".to_owned()) };
        let Some(seat) = shared.seat(slot) else { return Answer::NotOwner { epoch: 0, owner: None } };
        match seat.owned() {
            Some(journal) => Answer::Owner(journal.commit(command).await),
            None => {
                let seen = *seat.seen.lock();
                Answer::NotOwner { epoch: seen.epoch, owner: seen.current() }
            }
        }
    }
}

impl Handler for Answering {
    fn answer(&self, body: Bytes) -> BoxFuture<'_, Bytes> {
        Box::pin(async move { self.carry_out(&body).await.encode() })
    }
}
