//! The outcomes of deliveries, one record an attempt, in a log of their own beside the slot's journal: delivery volume
//! must not force rolls of live state.
//!
//! A frame of the log is `TGOC`, a version byte (1), three zero bytes, the CRC-32C of what follows (little endian), and
//! a JSON array of [`Outcome`]. Frames are written at most every [`limits::CHECKPOINT_INTERVAL`] and trimmed by age
//! ([`limits::OUTCOMES_AGE`]). What was not yet written when a process is killed is not known afterwards: the log tells
//! of attempts that were made, and may miss the last ones. Frames of other kinds are the [`super::index`]'s.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tidegate_schemas::limits;
use tracing::warn;

use super::index::Index;
use crate::environment::Environment;
use crate::error::{Error, ErrorKind, Result};
use crate::log::{LogId, LogSpec, PartitionLog, Record};

const MAGIC: &[u8; 4] = b"TGOC";
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 12;
/// Outcomes that wait to be written; beyond it the oldest are given up and counted.
const PENDING_MAX: usize = 65_536;
/// Outcomes of one frame.
const FRAME_OUTCOMES: usize = 1_000;
/// About the bytes of one frame; one outcome alone may take more.
const FRAME_BYTES: usize = 256 * 1024;

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// The sink took the event.
    Done,
    /// It will be tried again.
    Retry,
    /// It was dead-lettered.
    Dead,
    /// The sink could not be reached; nothing was counted.
    Unreachable,
    /// The answer paused the subscription; nothing was counted.
    Paused,
    /// Its attempts are used up, and its key stands still until somebody resumes it.
    KeyPaused,
    /// Somebody let go of it.
    Dropped,
    /// It was dead-lettered because its `expirytime` had passed.
    Expired,
    /// It was trimmed from its topic before this subscription had it. Only its place is known, or the first place of
    /// several.
    Trimmed,
    /// The sink, which failed whatever it was sent, failed a probe; nothing was counted.
    Probe,
}

/// One attempt of one delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Outcome {
    /// The epoch of the slot's owner that made it.
    pub epoch: u64,
    /// When it ended, in milliseconds since 1970.
    pub at: u64,
    /// How long it took, in milliseconds.
    pub took: u64,
    /// The subscription's name.
    pub subscription: String,
    /// Its uid: one of the same name that was declared later is another. Absent where an early version wrote it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub uid: Option<u64>,
    /// The event's topic.
    pub topic: String,
    /// And partition.
    pub partition: u32,
    /// And position.
    pub position: u64,
    /// The event's `source`.
    pub source: String,
    /// The event's `id`.
    pub id: String,
    /// Which attempt it was, from 1.
    pub attempt: u32,
    /// How it ended.
    pub ending: Ending,
    /// What the sink answered, where it did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<u16>,
    /// What went wrong, where something did.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub detail: String,
}

/// Writes outcomes to the slot's log.
#[derive(Debug)]
pub(super) struct Outcomes {
    log: Arc<dyn PartitionLog>,
    id: LogId,
    unwritten: Mutex<Unwritten>,
}

#[derive(Debug, Default)]
struct Unwritten {
    pending: Vec<Outcome>,
    /// On its way into the log.
    writing: Arc<[Outcome]>,
}

impl Outcomes {
    pub(super) async fn open(log: Arc<dyn PartitionLog>, slot: u32) -> Result<Self> {
        let id = LogId::Outcomes { slot };
        log.create(LogSpec::Single(id.clone())).await?;
        Ok(Self { log, id, unwritten: Mutex::default() })
    }

    pub(super) fn push(&self, outcome: Outcome) {
        let pending = &mut self.unwritten.lock().pending;
        if pending.len() >= PENDING_MAX {
            let given_up = pending.len() / 2;
            pending.drain(..given_up);
            warn!(count = given_up, "outcomes of deliveries could not be written fast enough and were given up");
        }
        pending.push(outcome);
    }

    /// Writes what waits, and tells the index where it stands.
    pub(super) async fn flush(&self, index: &Index) {
        let outcomes: Arc<[Outcome]> = {
            let mut unwritten = self.unwritten.lock();
            unwritten.writing = std::mem::take(&mut unwritten.pending).into();
            Arc::clone(&unwritten.writing)
        };
        let mut rest = &outcomes[..];
        while !rest.is_empty() {
            let (some, following) = rest.split_at(frame_of(rest));
            rest = following;
            let frame = encode(some);
            let bytes = frame.len() as u64;
            match self.log.append(&self.id, Record::Frame(frame)).await {
                Ok(appended) => index.note_outcomes(appended.position, some, bytes),
                Err(error) => {
                    warn!(count = some.len(), %error, "outcomes of deliveries could not be written");
                    // They may have been all the same: the index is to read what is there.
                    index.note_outcomes(None, &[], 0);
                }
            }
        }
        self.unwritten.lock().writing = Arc::default();
    }

    /// Outcomes of an event that are not yet in the log.
    pub(super) fn unwritten(&self, takes: impl Fn(&Outcome) -> bool) -> Vec<Outcome> {
        let unwritten = self.unwritten.lock();
        unwritten.writing.iter().chain(&unwritten.pending).filter(|outcome| takes(outcome)).cloned().collect()
    }

    /// Lets go of what is older than it is kept.
    pub(super) async fn trim(&self, environment: &Environment) -> Result<()> {
        let now = environment.clock.unix_milliseconds();
        let before = now.saturating_sub(u64::try_from(limits::OUTCOMES_AGE.as_millis()).unwrap_or(u64::MAX));
        let position = self.log.lookup(&self.id, before).await?;
        if position > self.log.info(&self.id).await?.begin {
            self.log.trim(&self.id, position).await?;
        }
        Ok(())
    }
}

/// How many of these fit into one frame.
fn frame_of(outcomes: &[Outcome]) -> usize {
    let mut bytes = 0;
    let fitting = outcomes.iter().take(FRAME_OUTCOMES).take_while(|outcome| {
        // Names and numbers take about this much, and JSON may write a byte as six.
        bytes += 256 + 6 * (outcome.id.len() + outcome.source.len() + outcome.detail.len());
        bytes <= FRAME_BYTES
    });
    fitting.count().max(1)
}

/// The frame of some outcomes.
pub(super) fn encode(outcomes: &[Outcome]) -> Bytes {
    let body =
        serde_json::to_vec(outcomes).expect("outcomes are structs of strings and numbers, which always serialise");
    seal_frame(MAGIC, &body)
}

/// The outcomes of a frame.
///
/// # Errors
/// [`ErrorKind::DataLoss`] for a frame that is damaged or of an unknown version.
pub fn decode(frame: &[u8]) -> Result<Vec<Outcome>> {
    serde_json::from_slice(open_frame(MAGIC, frame)?).map_err(|error| {
        Error::new(ErrorKind::DataLoss, "a frame of delivery outcomes cannot be read").with_source(error)
    })
}

/// Whether a frame of the log holds outcomes; the others are the index's.
pub(super) fn holds_outcomes(frame: &[u8]) -> bool {
    frame.starts_with(MAGIC)
}

/// A frame of the outcomes log around a body.
pub(super) fn seal_frame(magic: &[u8; 4], body: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEADER_BYTES + body.len());
    frame.put_slice(magic);
    frame.put_slice(&[VERSION, 0, 0, 0]);
    frame.put_u32_le(crc32c::crc32c(body));
    frame.put_slice(body);
    frame.freeze()
}

/// The body of a frame of that kind.
///
/// # Errors
/// [`ErrorKind::DataLoss`] for a frame that is damaged, or of another kind or version.
pub(super) fn open_frame<'a>(magic: &[u8; 4], frame: &'a [u8]) -> Result<&'a [u8]> {
    let refuse = |what: String| Error::new(ErrorKind::DataLoss, format!("a frame of delivery outcomes {what}"));
    let (header, body) = frame.split_at_checked(HEADER_BYTES).ok_or_else(|| refuse("is cut short".to_owned()))?;
    if header[..4] != *magic || header[4..8] != [VERSION, 0, 0, 0] {
        return Err(refuse(format!("begins with {:02x?}, which this version does not know", &header[..8])));
    }
    if header[8..] != crc32c::crc32c(body).to_le_bytes() {
        return Err(refuse("is damaged: its checksum does not match".to_owned()));
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_back_and_damage_is_refused() {
        let outcome = Outcome {
            epoch: 3,
            at: 1_000,
            took: 5,
            subscription: "s".into(),
            uid: Some(u64::MAX),
            topic: "t".into(),
            partition: 0,
            position: 9,
            source: "/s".into(),
            id: "1".into(),
            attempt: 2,
            ending: Ending::Retry,
            status: Some(503),
            detail: String::new(),
        };
        let frame = encode(std::slice::from_ref(&outcome));
        assert_eq!(decode(&frame).unwrap(), [outcome]);
        for index in 0..frame.len() {
            let mut damaged = frame.to_vec();
            damaged[index] ^= 1;
            assert!(decode(&damaged).is_err(), "a flipped bit at {index} was not seen");
        }
        assert!(decode(&frame[..5]).is_err());
    }
}
