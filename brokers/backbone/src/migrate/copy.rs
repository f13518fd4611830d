//! One partition, from one backbone to another. What counts as copied is what was read back from where it was written, in its
//! order, byte for byte: so it does not matter what a broker told of an append, or did not.
//!
//! What was written and not told, or was told and lost, shows when it is read back: what is missing at the end is written
//! again. A write that arrives late stands in the log a second time, and is known by what was read back shortly before. One that
//! was lost while a later one arrived leaves a hole that cannot be filled: written behind it, the event would come after one
//! that may be of its key, and repeats that are dropped by what stands before them would hide it. Then the copy is
//! [`Failure::Unordered`], and the topic has to be begun anew; nobody has read it yet.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Poll;

use tidegate_schemas::limits;

use super::digest::Digest;
use super::entry::Copied;
use crate::error::{Error, ErrorKind, Result};
use crate::log::{LogId, PartitionLog, Position, Record, Stored, Tail};

/// Events that are remembered to know what arrives late.
const RECENT: usize = 4 * limits::MIGRATION_BATCH_EVENTS;

/// Both backbones.
#[derive(Clone, Debug)]
pub(super) struct Copier {
    pub(super) source: Arc<dyn PartitionLog>,
    pub(super) target: Arc<dyn PartitionLog>,
}

/// Why a partition is not copied.
#[derive(Debug)]
pub(super) enum Failure {
    /// What a broker said.
    Broker(Error),
    /// Events stand on the new backbone without one that comes before them.
    Unordered,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Broker(error)
    }
}

/// An event that is to be read back.
struct Sent {
    position: Position,
    digest: Digest,
    record: Record,
}

/// Whether trying again later may help.
pub(super) fn may_pass(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Unavailable | ErrorKind::Unknown | ErrorKind::Backpressure { .. } | ErrorKind::StorageFull => true,
        ErrorKind::Conflict
        | ErrorKind::Fenced { .. }
        | ErrorKind::NotFound
        | ErrorKind::TooLarge { .. }
        | ErrorKind::PositionLost { .. }
        | ErrorKind::Denied
        | ErrorKind::Misconfigured
        | ErrorKind::DataLoss
        | ErrorKind::Closed => false,
    }
}

impl Copier {
    /// How a partition begins to be copied.
    pub(super) async fn begin(&self, id: &LogId) -> Result<Copied> {
        let (source, target) = (self.source.info(id).await?, self.target.info(id).await?);
        Ok(Copied::none(source.begin, target.begin))
    }

    /// Copies what stands before that position of the old backbone, at most about so many events; whether that is all.
    ///
    /// # Errors
    /// See [`Failure`]; [`ErrorKind::Conflict`] where the new backbone holds what does not come from here. What was read back
    /// until then is noted in `copied`.
    pub(super) async fn copy(
        &self,
        id: &LogId,
        copied: &mut Copied,
        until: Position,
        events_max: u64,
    ) -> std::result::Result<bool, Failure> {
        if copied.source >= until {
            return Ok(true);
        }
        let mut reader = open_at(&self.source, id, copied.source).await?;
        let mut back = Back::open(&self.target, id, copied.target).await?;
        let mut recent = VecDeque::new();
        // What an earlier attempt left there.
        let mut end = self.target.info(id).await?.end;
        let enough = copied.count.saturating_add(events_max);
        while reader.position() < until && copied.count < enough {
            let batch = reader.next(limits::MIGRATION_BATCH_BYTES).await?;
            let reached = reader.position().min(until);
            let mut records = batch.records.into_iter().filter(|stored| stored.position < until).peekable();
            while records.peek().is_some() {
                let mut sent: VecDeque<Sent> =
                    records.by_ref().take(limits::MIGRATION_BATCH_EVENTS).map(sent).collect::<Result<_>>()?;
                self.settle(&mut back, end, &mut sent, copied, &mut recent).await?;
                while !sent.is_empty() {
                    let failed = self.write(id, &sent).await;
                    end = self.target.info(id).await?.end;
                    self.settle(&mut back, end, &mut sent, copied, &mut recent).await?;
                    match failed.filter(|_| !sent.is_empty()) {
                        None => {}
                        Some(error) => match error.kind() {
                            ErrorKind::Backpressure { retry_after } => tokio::time::sleep(*retry_after).await,
                            // Whoever called tries again; what is written by then is found.
                            _ => return Err(error.into()),
                        },
                    }
                }
            }
            // Positions that hold nothing are passed as well.
            copied.source = copied.source.max(reached);
        }
        Ok(copied.source >= until)
    }

    /// Writes events in their order, and none any more behind one that was refused at once. Gives the first error.
    async fn write(&self, id: &LogId, sent: &VecDeque<Sent>) -> Option<Error> {
        let (mut appends, mut failed) = (Vec::with_capacity(sent.len()), None);
        for one in sent {
            let mut append = self.target.append(id, one.record.clone());
            match futures_util::poll!(&mut append) {
                Poll::Pending => appends.push(append),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        for outcome in futures_util::future::join_all(appends).await {
            failed = outcome.err().or(failed);
        }
        failed
    }

    /// Takes from `sent` what stands before `end`.
    async fn settle(
        &self,
        back: &mut Back,
        end: Position,
        sent: &mut VecDeque<Sent>,
        copied: &mut Copied,
        recent: &mut VecDeque<Digest>,
    ) -> std::result::Result<(), Failure> {
        while let Some(expected) = sent.front() {
            let Some((position, digest)) = back.next_before(end).await? else { return Ok(()) };
            if digest == expected.digest {
                copied.one_more(expected.position, position, digest);
                sent.pop_front();
                recent.push_back(digest);
                if recent.len() > RECENT {
                    recent.pop_front();
                }
            } else if recent.contains(&digest) {
                copied.target = position.next();
            } else if self.is_soon(&back.id, expected.position, digest).await? {
                return Err(Failure::Unordered);
            } else {
                let context = format!(
                    "{} of the new backbone holds an event at position {position} that does not come from here; nobody else may \
                     write to it before the move, and it has to be empty when that begins",
                    back.id
                );
                return Err(Error::new(ErrorKind::Conflict, context).into());
            }
            back.pass();
        }
        Ok(())
    }

    /// Whether an event is among the next ones of the old backbone.
    async fn is_soon(&self, id: &LogId, from: Position, digest: Digest) -> Result<bool> {
        let end = self.source.info(id).await?.end;
        let mut ahead = Back::open(&self.source, id, from).await?;
        for _ in 0..RECENT {
            match ahead.next_before(end).await? {
                None => break,
                Some((_, next)) if next == digest => return Ok(true),
                Some(_) => ahead.pass(),
            }
        }
        Ok(false)
    }

    /// Passes on what stands before that position, without reading it back: others write there by now. Gives how many.
    ///
    /// # Errors
    /// What either broker says; what was acknowledged until then is noted in `copied`.
    pub(super) async fn pass_on(&self, id: &LogId, copied: &mut Copied, until: Position) -> Result<u64> {
        let mut reader = open_at(&self.source, id, copied.source).await?;
        let mut passed = 0;
        while reader.position() < until {
            let batch = reader.next(limits::MIGRATION_BATCH_BYTES).await?;
            for stored in batch.records.into_iter().filter(|stored| stored.position < until) {
                self.target.append(id, stored.record).await?;
                copied.source = stored.position.next();
                copied.late += 1;
                passed += 1;
            }
            copied.source = copied.source.max(reader.position().min(until));
        }
        Ok(passed)
    }
}

/// Reads a log from a position on, or from its first record where that one was trimmed.
async fn open_at(log: &Arc<dyn PartitionLog>, id: &LogId, from: Position) -> Result<Box<dyn Tail>> {
    match log.tail(id, from).await {
        Err(error) => match error.kind() {
            ErrorKind::PositionLost { earliest } => log.tail(id, *earliest).await,
            _ => Err(error),
        },
        tail => tail,
    }
}

fn sent(Stored { position, record, .. }: Stored) -> Result<Sent> {
    let digest = digest_of(&record)?;
    Ok(Sent { position, digest, record })
}

fn digest_of(record: &Record) -> Result<Digest> {
    match record {
        Record::Event(event) => Ok(Digest::of(event)),
        Record::Frame(_) => Err(Error::new(ErrorKind::DataLoss, "a topic holds a frame of a slot")),
    }
}

/// What stands in a log, event by event, as it is read back.
pub(super) struct Back {
    id: LogId,
    tail: Box<dyn Tail>,
    ahead: VecDeque<(Position, Digest)>,
}

impl Back {
    pub(super) async fn open(log: &Arc<dyn PartitionLog>, id: &LogId, from: Position) -> Result<Self> {
        Ok(Self { id: id.clone(), tail: open_at(log, id, from).await?, ahead: VecDeque::new() })
    }

    /// The next event that stands before `end`.
    pub(super) async fn next_before(&mut self, end: Position) -> Result<Option<(Position, Digest)>> {
        while self.ahead.is_empty() && self.tail.position() < end {
            for stored in self.tail.next(limits::MIGRATION_BATCH_BYTES).await?.records {
                self.ahead.push_back((stored.position, digest_of(&stored.record)?));
            }
        }
        Ok(self.ahead.front().copied().filter(|(position, _)| *position < end))
    }

    /// The one that was given last is done with.
    pub(super) fn pass(&mut self) {
        self.ahead.pop_front();
    }

    /// The next event before `end` that is the same.
    pub(super) async fn find(&mut self, digest: Digest, end: Position) -> Result<Option<Position>> {
        while let Some((position, found)) = self.next_before(end).await? {
            self.pass();
            if found == digest {
                return Ok(Some(position));
            }
        }
        Ok(None)
    }
}
