//! Following a slot whoever owns it: its frames by the same rule, through all its generations, into the state that this
//! process reads from.

use std::sync::Arc;

use parking_lot::RwLock;
use tidegate_schemas::limits;

use super::accept::{Acceptor, Link, Phase, Verdict};
use super::frame::{Frame, Kind, hash};
use super::heads::Heads;
use super::journal::{Identity, Left, Taken};
use super::reader::{Chain, data_loss, decode, replay, within};
use super::state::State;
use crate::error::{Error, ErrorKind, Result};
use crate::lane::NodeId;
use crate::log::{LogId, PartitionLog, Position, Stored, Tail};

/// A reader that has folded a slot up to some place, and goes on from there.
pub(crate) struct Follower {
    log: Arc<dyn PartitionLog>,
    acceptor: Acceptor,
    /// Where reading goes on.
    next: Position,
    bytes_behind: u64,
    state: Arc<RwLock<State>>,
    /// Where the current generation is not opened yet: the sealed one before it, and what stands in the unfinished snapshot.
    /// The state is what the sealed one stands for.
    unopened: Option<(Acceptor, Heads)>,
    tail: Option<Box<dyn Tail>>,
}

impl Follower {
    /// Reads the slot from its logs, into that state where there is one already; none where the slot has no log at all.
    ///
    /// # Errors
    /// As [`replay`]; [`ErrorKind::DataLoss`] also where the logs stand for less than what was read before.
    pub(crate) async fn find(
        log: &Arc<dyn PartitionLog>,
        slot: u32,
        state: Option<&Arc<RwLock<State>>>,
    ) -> Result<Option<Self>> {
        let Some(Chain { current, before, .. }) = replay(log, slot).await? else { return Ok(None) };
        let (heads, unopened) = match before {
            None => (current.heads, None),
            Some(before) => (before.heads, Some((before.acceptor, current.heads))),
        };
        let state = match state {
            None => State::new(heads),
            Some(state) => {
                let mut held = state.write();
                let (seen, found) = (held.heads.revision(), heads.revision());
                if found < seen {
                    let context =
                        format!("slot {slot} ends at revision {found}, though revision {seen} was read before");
                    return Err(Error::new(ErrorKind::DataLoss, context));
                }
                if found > seen {
                    held.replace(heads);
                }
                Arc::clone(state)
            }
        };
        Ok(Some(Self {
            log: Arc::clone(log),
            acceptor: current.acceptor,
            next: current.next,
            bytes_behind: current.bytes_behind,
            state,
            unopened,
            tail: None,
        }))
    }

    /// Goes on where an ownership of this process ended.
    pub(crate) fn resume(log: &Arc<dyn PartitionLog>, left: Left, state: Arc<RwLock<State>>) -> Self {
        Self {
            log: Arc::clone(log),
            next: left.acceptor.read().map_or(Position::ZERO, Position::next),
            acceptor: left.acceptor,
            bytes_behind: left.bytes_behind,
            state,
            unopened: None,
            tail: None,
        }
    }

    /// Waits for more of the log and folds it; gives how many frames were accepted. May be dropped while it waits, without
    /// losing a record.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] and [`ErrorKind::PositionLost`] where the generation went while it was read, so that the slot
    /// must be found again; [`ErrorKind::DataLoss`] where the log contradicts itself; and whatever the log says.
    pub(crate) async fn step(&mut self) -> Result<u32> {
        if let Phase::Sealed(next) = self.acceptor.phase() {
            let building = Acceptor::new(self.slot(), next);
            let sealed = std::mem::replace(&mut self.acceptor, building);
            self.unopened = Some((sealed, Heads::default()));
            self.next = Position::ZERO;
            self.bytes_behind = 0;
            self.tail = None;
        }
        if self.tail.is_none() {
            let id = self.id();
            self.tail = Some(within(&id, "following it", self.log.tail(&id, self.next)).await?);
        }
        let Some(tail) = &mut self.tail else { return Ok(0) };
        let batch = match tail.next(limits::JOURNAL_READ_BYTES).await {
            Ok(batch) => batch,
            Err(error) => {
                self.tail = None;
                return Err(error);
            }
        };
        let position = tail.position();
        let mut accepted = 0;
        for stored in &batch.records {
            accepted += u32::from(self.fold(stored)?);
        }
        self.next = self.next.max(position);
        Ok(accepted)
    }

    fn fold(&mut self, stored: &Stored) -> Result<bool> {
        let position = stored.position;
        let (frame, bytes) = decode(self.id(), stored)?;
        let link = frame.link(hash(bytes));
        let verdict = self.acceptor.accept(&link, position);
        self.next = position.next();
        match verdict {
            Verdict::Broken(broken) => Err(data_loss(&self.acceptor, &link, position, &broken)),
            Verdict::Accepted => self.take(&frame, &link, bytes.len()).map(|()| true),
            _ => Ok(false),
        }
    }

    fn take(&mut self, frame: &Frame, link: &Link, bytes: usize) -> Result<()> {
        match &frame.kind {
            Kind::Commit { commits } => {
                let mut state = self.state.write();
                for commit in commits {
                    let position = self.acceptor.last_position().unwrap_or_default();
                    state.commit(commit).map_err(|broken| data_loss(&self.acceptor, link, position, &broken))?;
                }
            }
            Kind::Snapshot(part) => {
                if let Some((_, unfinished)) = &mut self.unopened {
                    unfinished.part(part);
                }
                return Ok(());
            }
            Kind::Opened { revision, .. } => {
                // The generation stands for what was read of the one before, to its Seal.
                let seen = self.state.read().heads.revision();
                if *revision != seen {
                    let context = format!("{} stands for revision {revision}, though {seen} was read", self.id());
                    return Err(Error::new(ErrorKind::DataLoss, context));
                }
                self.unopened = None;
                return Ok(());
            }
            Kind::Announce { .. } | Kind::Heartbeat | Kind::Release | Kind::Seal { .. } => {}
        }
        self.bytes_behind += bytes as u64;
        Ok(())
    }

    /// What a candidate takes over that has read up to here.
    pub(crate) fn taken(&self) -> Taken {
        Taken {
            acceptor: self.acceptor.clone(),
            state: Arc::clone(&self.state),
            bytes_behind: self.bytes_behind,
            unopened: self.unopened.clone(),
        }
    }

    /// The generation that is read.
    pub(crate) fn id(&self) -> LogId {
        self.acceptor.generation().log(self.slot())
    }

    fn slot(&self) -> u32 {
        self.acceptor.slot()
    }

    /// Where reading goes on.
    pub(crate) fn next(&self) -> Position {
        self.next
    }

    /// What was read, for whoever reads.
    pub(crate) fn state(&self) -> &Arc<RwLock<State>> {
        &self.state
    }

    /// Whether a candidate can announce itself in the current generation: its snapshot has begun, and it is not sealed.
    pub(crate) fn announceable(&self) -> bool {
        self.acceptor.begun() && !matches!(self.acceptor.phase(), Phase::Sealed(_))
    }

    /// The epoch of the last accepted frame.
    pub(crate) fn epoch(&self) -> u64 {
        self.acceptor.epoch()
    }

    /// The process that wrote the last accepted frame; none before the first.
    pub(crate) fn owner(&self) -> Option<NodeId> {
        let before = || self.unopened.as_ref().and_then(|(sealed, _)| sealed.owner());
        self.acceptor.owner().or_else(before).map(Identity::node_of)
    }

    /// Whether it has written that it writes no more.
    pub(crate) fn released(&self) -> bool {
        self.acceptor.released()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;

    use super::*;
    use crate::slot::state::Reads;
    use crate::slot::{Command, Expect, Journal, Options, Watched};
    use crate::testing::{MemoryBroker, environment};

    /// Owners come and go and roll, while a follower reads now and then.
    #[tokio::test(start_paused = true)]
    async fn a_follower_comes_to_the_owners_state_through_generations_and_takeovers() {
        for lag in [1, 7, 1_000] {
            let broker = MemoryBroker::shared(1);
            let log: Arc<dyn PartitionLog> = broker.client();
            let options = Options { roll_bytes: 2_000, frame_bytes_max: 600, ..Options::default() };
            let open = |seed| Journal::open(Arc::clone(&log), 0, environment(seed), options.clone());
            let mut owner = open(0).await.unwrap();
            let mut follower = Follower::find(&log, 0, None).await.unwrap().unwrap();
            let state = Arc::clone(follower.state());
            let mut watch = state.follow_prefix(Bytes::new());
            let (mut found_again, mut rescans, mut taken) = (0, 0, 0);
            let mut watched: BTreeMap<Bytes, (u64, Bytes)> = BTreeMap::new();
            for round in 1..=200_u64 {
                let key = format!("key {}", round % 13);
                let command = if round % 5 == 0 {
                    Command::new().delete(key, Expect::Any)
                } else {
                    Command::new().put(key, Expect::Any, "x".repeat((round % 90) as usize))
                };
                owner.commit(command).await.unwrap();
                if round % 40 == 0 {
                    owner = open(round).await.unwrap();
                }
                if round % lag != 0 && round != 200 {
                    continue;
                }
                if lag == 1_000 {
                    // Long enough for generations that are done with to go.
                    tokio::time::sleep(limits::JOURNAL_SEALED_AGE * 2).await;
                }
                while follower.state().read_revision() < round || follower.epoch() < owner.epoch() {
                    if let Err(error) = follower.step().await {
                        let gone = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PositionLost { .. });
                        assert!(gone, "{error}");
                        follower = Follower::find(&log, 0, Some(&state)).await.unwrap().unwrap();
                        found_again += 1;
                    }
                }
                assert_eq!(state.read_prefix(b""), owner.scan(b""), "round {round}, lag {lag}");
                if round % 70 == 0 && follower.announceable() {
                    // Taken over from what was followed, and followed again when it is lost.
                    let own =
                        Journal::take_over(Arc::clone(&log), follower.taken(), environment(round), options.clone());
                    let own = own.await.unwrap();
                    own.commit(Command::new().put("taken", Expect::Any, "")).await.unwrap();
                    own.commit(Command::new().delete("taken", Expect::Any)).await.unwrap();
                    assert_eq!(own.revision(), round + 2);
                    own.close().await;
                    let left = own.left().unwrap();
                    follower = Follower::resume(&log, left, Arc::clone(&state));
                    taken += 1;
                    break;
                }
            }
            while let Ok(change) = tokio::time::timeout(std::time::Duration::from_secs(1), watch.next()).await {
                match change.unwrap() {
                    Watched::Rescan => {
                        rescans += 1;
                        watched =
                            state.read_prefix(b"").into_iter().map(|(key, at, value)| (key, (at, value))).collect();
                    }
                    Watched::Changed { key, revision, value: Some(value) } => {
                        drop(watched.insert(key, (revision, value)))
                    }
                    Watched::Changed { key, value: None, .. } => drop(watched.remove(&key)),
                }
            }
            let watched: Vec<_> = watched.into_iter().map(|(key, (at, value))| (key, at, value)).collect();
            assert_eq!(watched, state.read_prefix(b""), "what the watch told adds up to the state");
            assert_eq!((found_again > 0, rescans > 0), (lag == 1_000, lag == 1_000), "lag {lag}");
            assert_eq!(taken, u32::from(lag < 1_000));
            assert!(follower.released() || lag == 1_000);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_that_stands_for_less_than_was_read_is_refused() {
        let broker = MemoryBroker::default();
        let log: Arc<dyn PartitionLog> = broker.client();
        let owner = Journal::open(Arc::clone(&log), 0, environment(1), Options::default()).await.unwrap();
        for _ in 0..3 {
            owner.commit(Command::new().put("a", Expect::Any, "1")).await.unwrap();
        }
        let follower = Follower::find(&log, 0, None).await.unwrap().unwrap();
        let again = Follower::find(&log, 0, Some(follower.state())).await;
        assert!(again.is_ok(), "control");
        broker.lose(&LogId::Slot { slot: 0, epoch: 0, suffix: 0 }, 1);
        let error = Follower::find(&log, 0, Some(follower.state())).await.err().unwrap();
        assert_eq!(*error.kind(), ErrorKind::DataLoss, "{error}");
    }
}
