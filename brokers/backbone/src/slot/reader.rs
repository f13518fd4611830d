//! Folding a slot without owning it, by the same rule as its owner. What the owner needs to open a slot is here too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate_schemas::limits;

use crate::error::{Applied, Error, ErrorKind, Result};
use crate::log::{LogId, PartitionLog, Position, Record, Stored};
use crate::slot::accept::{Acceptor, Broken, Link, Phase, Verdict};
use crate::slot::frame::{Frame, Generation, HEADER_BYTES, Kind, hash};
use crate::slot::heads::Heads;
use crate::slot::journal::Taken;
use crate::slot::state::State;

/// One generation of a slot, folded up to where it was read.
#[derive(Clone, Debug)]
pub struct Folded {
    /// The rule's state.
    pub acceptor: Acceptor,
    /// What accepted frames add up to. Before the generation is opened, an unfinished snapshot.
    pub heads: Heads,
    /// Bytes of accepted frames behind the snapshot.
    pub bytes_behind: u64,
    /// Where reading goes on.
    pub next: Position,
}

impl Folded {
    /// The state before the first record of that generation.
    pub fn new(slot: u32, generation: Generation) -> Self {
        Self {
            acceptor: Acceptor::new(slot, generation),
            heads: Heads::default(),
            bytes_behind: 0,
            next: Position::ZERO,
        }
    }

    /// Judges a record and, where it is accepted, carries it out.
    ///
    /// # Errors
    /// [`ErrorKind::DataLoss`] where the log contradicts itself or cannot be read, [`ErrorKind::Misconfigured`] where a
    /// newer program wrote it.
    pub fn fold(&mut self, stored: &Stored) -> Result<Verdict> {
        let (slot, generation, position) = (self.acceptor.slot(), self.acceptor.generation(), stored.position);
        let (frame, bytes) = decode(generation.log(slot), stored)?;
        let link = frame.link(hash(bytes));
        let verdict = self.acceptor.accept(&link, position);
        self.next = position.next();
        match verdict {
            Verdict::Broken(broken) => return Err(data_loss(&self.acceptor, &link, position, &broken)),
            Verdict::Accepted => {
                self.take(&frame, bytes.len()).map_err(|broken| data_loss(&self.acceptor, &link, position, &broken))?;
            }
            _ => {}
        }
        Ok(verdict)
    }

    fn take(&mut self, frame: &Frame, bytes: usize) -> std::result::Result<(), Broken> {
        match &frame.kind {
            Kind::Commit { commits } => {
                self.bytes_behind += bytes as u64;
                for each in commits {
                    self.heads.commit(each)?;
                }
            }
            Kind::Snapshot(part) => self.heads.part(part),
            Kind::Opened { revision, .. } => self.heads.opened(*revision),
            Kind::Announce { .. } | Kind::Heartbeat | Kind::Release | Kind::Seal { .. } => {
                self.bytes_behind += HEADER_BYTES as u64;
            }
        }
        Ok(())
    }

    /// Reads on until the log's end as it is now.
    ///
    /// # Errors
    /// As [`Folded::fold`], and whatever the log says.
    pub async fn read_to_end(&mut self, log: &dyn PartitionLog) -> Result<()> {
        let id = self.acceptor.generation().log(self.acceptor.slot());
        let end = within(&id, "asking for its end", log.info(&id)).await?.end;
        if self.next >= end {
            return Ok(());
        }
        let mut tail = within(&id, "following it", log.tail(&id, self.next)).await?;
        while tail.position() < end {
            let batch = within(&id, "reading it", tail.next(limits::JOURNAL_READ_BYTES)).await?;
            for stored in &batch.records {
                self.fold(stored)?;
            }
        }
        self.next = self.next.max(tail.position());
        Ok(())
    }
}

/// A slot as its accepted frames tell it.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The generation that goes on.
    pub current: Folded,
    /// Where the current generation is not opened yet: the sealed one before it, which holds the state.
    pub before: Option<Folded>,
    /// Other generations that exist: done with, or never finished.
    pub others: Vec<Generation>,
}

impl Chain {
    /// The slot's state.
    pub fn heads(&self) -> &Heads {
        self.before.as_ref().map_or(&self.current.heads, |before| &before.heads)
    }

    /// The slot for whoever goes on with it.
    pub(crate) fn taken(self) -> Taken {
        let Folded { acceptor, heads, bytes_behind, .. } = self.current;
        match self.before {
            None => Taken { acceptor, state: State::new(heads), bytes_behind, unopened: None },
            Some(before) => {
                let unopened = Some((before.acceptor, heads));
                Taken { acceptor, state: State::new(before.heads), bytes_behind, unopened }
            }
        }
    }
}

/// Folds a slot from its logs; none where it has no log at all.
///
/// # Errors
/// [`ErrorKind::DataLoss`] where records that counted are missing or damaged, and whatever the log says.
pub async fn replay(log: &Arc<dyn PartitionLog>, slot: u32) -> Result<Option<Chain>> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        match find(log.as_ref(), slot).await {
            // A generation that goes while it is read means that an owner has just rolled.
            Err(error) if *error.kind() == ErrorKind::NotFound && attempt < limits::JOURNAL_OPEN_ATTEMPTS => {}
            result => return result,
        }
    }
}

async fn find(log: &dyn PartitionLog, slot: u32) -> Result<Option<Chain>> {
    let mut folded = BTreeMap::new();
    for id in log.generations(slot).await? {
        let LogId::Slot { epoch, suffix, .. } = id else { continue };
        let generation = Generation { epoch, suffix };
        let mut fold = Folded::new(slot, generation);
        let read = fold.read_to_end(log).await;
        match read {
            Err(error) if matches!(error.kind(), ErrorKind::DataLoss | ErrorKind::Misconfigured) => {
                folded.insert(generation, Err(error));
            }
            read => {
                read?;
                folded.insert(generation, Ok(fold));
            }
        }
    }
    if folded.is_empty() {
        return Ok(None);
    }
    let generations: Vec<Generation> = folded.keys().copied().collect();
    // Opened is written only after the accepted Seal before it, so a generation that has it is valid.
    let mut start: Option<(u64, Generation)> = None;
    for (generation, fold) in &folded {
        let Ok(fold) = fold else { continue };
        let valid = fold.acceptor.phase() != Phase::Building;
        if valid && start.is_none_or(|(ordinal, _)| fold.acceptor.ordinal() >= ordinal) {
            start = Some((fold.acceptor.ordinal(), *generation));
        }
    }
    let Some((_, mut at)) = start else {
        let first = folded.into_values().find_map(std::result::Result::err);
        return Err(first.unwrap_or_else(|| {
            let context = format!("slot {slot} has only generations that were never opened; its valid one is gone");
            Error::new(ErrorKind::DataLoss, context)
        }));
    };
    let mut before: Option<Folded> = None;
    loop {
        let current = match folded.remove(&at) {
            Some(fold) => fold?,
            None => {
                let from = before.as_ref().map_or(Generation::FIRST, |before| before.acceptor.generation());
                let context = format!("{} was sealed for {}, which is gone", from.log(slot), at.log(slot));
                return Err(Error::new(ErrorKind::DataLoss, context));
            }
        };
        match current.acceptor.phase() {
            Phase::Sealed(next) => {
                at = next;
                before = Some(current);
            }
            phase => {
                if phase == Phase::Building && !current.acceptor.begun() {
                    let context = format!("{} was sealed for, but its snapshot is gone", at.log(slot));
                    return Err(Error::new(ErrorKind::DataLoss, context));
                }
                let before = if phase == Phase::Building { before } else { None };
                let others = generations.into_iter().filter(|generation| *generation != at).collect();
                return Ok(Some(Chain { current, before, others }));
            }
        }
    }
}

/// The frame in a record of a slot's log.
pub(crate) fn decode(id: LogId, stored: &Stored) -> Result<(Frame, &[u8])> {
    let Record::Frame(bytes) = &stored.record else {
        let context = format!("{id} holds an event at position {}; something else writes there", stored.position);
        return Err(Error::new(ErrorKind::DataLoss, context));
    };
    match Frame::decode(bytes) {
        Ok(frame) => Ok((frame, bytes)),
        Err(error) => {
            let kind = match error {
                crate::slot::frame::FrameError::Version { .. } => ErrorKind::Misconfigured,
                _ => ErrorKind::DataLoss,
            };
            Err(Error::new(kind, format!("{id} cannot be read at position {}", stored.position)).with_source(error))
        }
    }
}

/// The error of a frame that contradicts what was read before it: what both are, and who wrote them, which is what can be known
/// of the cause.
pub(crate) fn data_loss(before: &Acceptor, frame: &Link, position: Position, broken: &Broken) -> Error {
    let id = before.generation().log(before.slot());
    let Link { epoch, owner, sequence, known, hash, .. } = frame;
    let last = match before.last_position() {
        None => "nothing was accepted before it".to_owned(),
        Some(last) => format!(
            "accepted before it was frame {} of epoch {} at position {last}, hash {:016x}, by {:x}",
            before.last_sequence(),
            before.epoch(),
            before.last_hash(),
            before.owner().unwrap_or_default(),
        ),
    };
    let context = format!(
        "{id} contradicts itself at position {position}, where frame {sequence} of epoch {epoch} stands, hash {hash:016x}, by \
         {owner:x}, who had relied on frames up to {known}; {last}"
    );
    Error::new(ErrorKind::DataLoss, context).with_source(*broken)
}

/// A call of the log that is given up after a while, its outcome being unknown then.
pub(crate) async fn within<T>(id: &LogId, what: &str, call: impl Future<Output = Result<T>>) -> Result<T> {
    within_time(limits::JOURNAL_CALL_TIMEOUT, id, what, call).await
}

/// The same with another bound.
pub(crate) async fn within_time<T>(
    timeout: Duration,
    id: &LogId,
    what: &str,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(timeout, call).await {
        Ok(result) => result,
        Err(_) => {
            let context = format!("{id}: {what} took longer than {timeout:?}");
            let error = Error::new(ErrorKind::Unavailable, context);
            debug_assert_eq!(error.applied(), Applied::No);
            Err(error.outcome_unknown())
        }
    }
}
