//! The outcomes of deliveries, one record an attempt, in a log of their own beside the slot's journal: delivery volume
//! must not force rolls of live state.
//!
//! A frame of the log is `TGOC`, a version byte (1), three zero bytes, the CRC-32C of what follows (little endian), and
//! a JSON array of [`Outcome`]. Frames are written at most every [`limits::CHECKPOINT_INTERVAL`] and trimmed by age
//! ([`limits::OUTCOMES_AGE`]). What was not yet written when a process is killed is not known afterwards: the log tells
//! of attempts that were made, and may miss the last ones.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tidegate_schemas::limits;
use tracing::warn;

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
    pending: Mutex<Vec<Outcome>>,
}

impl Outcomes {
    pub(super) async fn open(log: Arc<dyn PartitionLog>, slot: u32) -> Result<Self> {
        let id = LogId::Outcomes { slot };
        log.create(LogSpec { id: id.clone() }).await?;
        Ok(Self { log, id, pending: Mutex::new(Vec::new()) })
    }

    pub(super) fn push(&self, outcome: Outcome) {
        let mut pending = self.pending.lock();
        if pending.len() >= PENDING_MAX {
            let given_up = pending.len() / 2;
            pending.drain(..given_up);
            warn!(count = given_up, "outcomes of deliveries could not be written fast enough and were given up");
        }
        pending.push(outcome);
    }

    /// Writes what waits.
    pub(super) async fn flush(&self) {
        let outcomes = std::mem::take(&mut *self.pending.lock());
        for some in outcomes.chunks(FRAME_OUTCOMES) {
            if let Err(error) = self.log.append(&self.id, Record::Frame(encode(some))).await {
                warn!(count = some.len(), %error, "outcomes of deliveries could not be written");
            }
        }
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

/// The frame of some outcomes.
pub(super) fn encode(outcomes: &[Outcome]) -> Bytes {
    let body =
        serde_json::to_vec(outcomes).expect("outcomes are structs of strings and numbers, which always serialise");
    let mut frame = BytesMut::with_capacity(HEADER_BYTES + body.len());
    frame.put_slice(MAGIC);
    frame.put_slice(&[VERSION, 0, 0, 0]);
    frame.put_u32_le(crc32c::crc32c(&body));
    frame.put_slice(&body);
    frame.freeze()
}

/// The outcomes of a frame.
///
/// # Errors
/// [`ErrorKind::DataLoss`] for a frame that is damaged or of an unknown version.
pub fn decode(frame: &[u8]) -> Result<Vec<Outcome>> {
    let refuse = |what: String| Error::new(ErrorKind::DataLoss, format!("a frame of delivery outcomes {what}"));
    let (header, body) = frame.split_at_checked(HEADER_BYTES).ok_or_else(|| refuse("is cut short".to_owned()))?;
    if header[..4] != *MAGIC || header[4..8] != [VERSION, 0, 0, 0] {
        return Err(refuse(format!("begins with {:02x?}, which this version does not know", &header[..8])));
    }
    if header[8..] != crc32c::crc32c(body).to_le_bytes() {
        return Err(refuse("is damaged: its checksum does not match".to_owned()));
    }
    serde_json::from_slice(body).map_err(|error| refuse("cannot be read".to_owned()).with_source(error))
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
