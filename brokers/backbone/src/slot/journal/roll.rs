//! Rolling to the next generation while commits go on in the current one.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use tidegate_schemas::limits;

use super::writer::{Begun, Manner, Outcome, Stop, Writer};
use crate::error::{Error, ErrorKind, Result};
use crate::log::{BoxFuture, LogSpec, PartitionLog};
use crate::slot::accept::Acceptor;
use crate::slot::frame::{Frame, Generation, HEADER_BYTES, Kind, Part, PartCommand, PartHead};
use crate::slot::heads::{Cursor, Heads};
use crate::slot::reader::within;
use crate::slot::state::State;

/// A roll under way.
pub(super) struct Roll {
    generation: Generation,
    starting: Option<BoxFuture<'static, Result<Writer>>>,
    writer: Option<Writer>,
    /// How far the snapshot is; none when it is written.
    cursor: Option<Cursor>,
    /// The last revision whose command is written, once all commands of the snapshot are.
    commands: u64,
    /// Keys that changed since the snapshot or the last round.
    changed: BTreeSet<Bytes>,
    rounds: u32,
    frame_bytes: usize,
}

/// What woke a roll.
pub(super) enum Event {
    Started(Box<Result<Writer>>),
    Told(Outcome),
}

impl Roll {
    /// Begins a generation named by the owner's epoch, whose first frame is the first part of the snapshot.
    pub(super) fn new(
        log: &Arc<dyn PartitionLog>,
        owner: &Acceptor,
        generation: Generation,
        heads: &Heads,
        frame_bytes: usize,
        manner: &Manner,
    ) -> Self {
        let mut cursor = Cursor::default();
        let part = heads.snapshot(&mut cursor, frame_bytes).unwrap_or_default();
        let slot = owner.slot();
        let first = Frame {
            slot,
            epoch: generation.epoch,
            owner: owner.owner().unwrap_or(0),
            sequence: 0,
            known: 0,
            previous_hash: generation.genesis(slot),
            kind: Kind::Snapshot(part),
        };
        // Until the Seal a generation that cannot be written ends the roll and nothing else.
        let manner = Manner { resends_max: Some(limits::JOURNAL_RESENDS), ..manner.clone() };
        let log = Arc::clone(log);
        let starting = async move {
            let id = generation.log(slot);
            within(&id, "creating it", log.create(LogSpec::Single(id.clone()))).await?;
            match Writer::begin(log, Acceptor::new(slot, generation), first, manner).await? {
                Begun::Owner(writer) => Ok(*writer),
                Begun::Void | Begun::Fenced { .. } => {
                    Err(Error::new(ErrorKind::Conflict, format!("{id} was begun by another owner")))
                }
            }
        };
        Self {
            generation,
            starting: Some(Box::pin(starting)),
            writer: None,
            cursor: Some(cursor),
            commands: 0,
            changed: BTreeSet::new(),
            rounds: 0,
            frame_bytes,
        }
    }

    pub(super) fn generation(&self) -> Generation {
        self.generation
    }

    /// Notes a key that a commit changed.
    pub(super) fn changed(&mut self, key: &Bytes) {
        self.changed.insert(key.clone());
    }

    /// What comes next of the roll, waiting for it. Losing the race of a `select` loses nothing.
    pub(super) async fn event(&mut self) -> Event {
        if let Some(starting) = &mut self.starting {
            let result = starting.await;
            self.starting = None;
            return Event::Started(Box::new(result));
        }
        match &mut self.writer {
            Some(writer) if writer.waits() => match writer.outcome().await {
                Some(outcome) => Event::Told(outcome),
                None => std::future::pending().await,
            },
            _ => std::future::pending().await,
        }
    }

    /// Draws what follows and writes more; gives whether only the last step is left.
    pub(super) async fn step(&mut self, event: Event, heads: &parking_lot::RwLock<State>) -> Result<bool> {
        let mut accepted = Vec::new();
        match event {
            Event::Started(writer) => self.writer = Some((*writer)?),
            Event::Told(outcome) => {
                let Some(writer) = &mut self.writer else { return Ok(false) };
                writer.settle(outcome, &mut accepted).await.map_err(stopped)?;
            }
        }
        let Some(writer) = &mut self.writer else { return Ok(false) };
        while writer.out() < limits::JOURNAL_ROLL_FRAMES_IN_FLIGHT as u64 {
            let state = heads.read();
            if let Some(cursor) = &mut self.cursor {
                match state.heads.snapshot(cursor, self.frame_bytes) {
                    Some(part) => {
                        if let Some(command) = part.commands.last() {
                            self.commands = command.revision;
                        }
                        writer.push(Kind::Snapshot(part));
                    }
                    None => self.cursor = None,
                }
                continue;
            }
            if writer.out() > 0 {
                break;
            }
            let keys: Vec<PartHead> = self.changed.iter().map(|key| state.heads.part_head(key)).collect();
            let bytes: usize = keys.iter().map(PartHead::bytes_bound).sum();
            self.rounds += 1;
            if bytes <= self.frame_bytes || self.rounds > limits::JOURNAL_ROLL_ROUNDS {
                return Ok(true);
            }
            self.changed.clear();
            for part in parts(keys, Vec::new(), self.frame_bytes) {
                writer.push(Kind::Snapshot(part));
            }
        }
        Ok(false)
    }

    /// What the last step writes, after the accepted Seal: what changed since the last round, then Opened.
    pub(super) fn rest(&self, sealed: &Acceptor, heads: &Heads) -> (Vec<Part>, Kind) {
        let keys = self.changed.iter().map(|key| heads.part_head(key)).collect();
        let commands = heads.commands_after(self.commands, usize::MAX);
        (parts(keys, commands, self.frame_bytes), opened(heads.revision(), sealed))
    }

    /// Writes the rest; gives the writer of the generation that goes on.
    pub(super) async fn finish(
        mut self,
        rest: Vec<Part>,
        opened: Kind,
        resends_max: Option<u32>,
    ) -> std::result::Result<Writer, Stop> {
        let Some(mut writer) = self.writer.take() else {
            let error = Error::new(ErrorKind::Closed, "a generation was sealed for one that was never begun");
            return Err(Stop::GaveUp { possible: true, error });
        };
        writer.resend(resends_max);
        write(&mut writer, rest).await?;
        writer.push(opened);
        writer.drain(&mut Vec::new()).await?;
        Ok(writer)
    }
}

/// Writes parts, a few at a time.
pub(super) async fn write(writer: &mut Writer, parts: Vec<Part>) -> std::result::Result<(), Stop> {
    let mut accepted = Vec::new();
    for part in parts {
        if writer.out() >= limits::JOURNAL_ROLL_FRAMES_IN_FLIGHT as u64 {
            writer.drain(&mut accepted).await?;
        }
        writer.push(Kind::Snapshot(part));
    }
    Ok(())
}

/// The frame that completes the generation which follows the sealed one.
pub(super) fn opened(revision: u64, sealed: &Acceptor) -> Kind {
    Kind::Opened {
        revision,
        ordinal: sealed.ordinal() + 1,
        previous: sealed.generation(),
        seal_hash: sealed.last_hash(),
    }
}

/// Keys and commands in parts of at most about that many bytes.
pub(super) fn parts(keys: Vec<PartHead>, commands: Vec<PartCommand>, bytes_max: usize) -> Vec<Part> {
    let mut parts = Vec::new();
    let (mut part, mut bytes) = (Part::default(), HEADER_BYTES);
    for head in keys {
        let length = head.bytes_bound();
        if bytes + length > bytes_max && !part.heads.is_empty() {
            parts.push(std::mem::take(&mut part));
            bytes = HEADER_BYTES;
        }
        bytes += length;
        part.heads.push(head);
    }
    if !part.heads.is_empty() {
        parts.push(part);
    }
    let count = (bytes_max / PartCommand::BYTES_BOUND).max(1);
    parts.extend(commands.chunks(count).map(|chunk| Part { heads: Vec::new(), commands: chunk.to_vec() }));
    parts
}

fn stopped(stop: Stop) -> Error {
    match stop {
        Stop::Fenced { epoch } => Error::new(ErrorKind::Fenced { epoch }, format!("epoch {epoch} took over")),
        Stop::DataLoss(error) | Stop::GaveUp { error, .. } => error,
    }
}
