//! Keys of a subscription that stand still because an event of theirs used up its attempts
//! ([`OnExhausted::PauseKey`](crate::catalogue::OnExhausted)): looked at, and let go on.

use std::sync::Arc;

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use tidegate_routing::partition::key_of;
use tidegate_schemas::Event;
use xxhash_rust::xxh3::xxh3_128;

use super::core::PausedLane;
use super::dead_letter::{Cause, Reason};
use super::delivery::write_letter;
use super::engine::Consume;
use super::others::maybe_event_text;
use super::outcomes::{Ending, Outcome};
use super::progress::LaneKey;
use crate::catalogue::{ChangeError, Subscription};
use crate::error::{Error, ErrorKind, Result};
use crate::log::{Position, Record};

/// A key that stands still, at an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PausedKey {
    /// The key; none where the event has none, or is gone.
    pub key: Option<ByteString>,
    /// The event, unless it was trimmed.
    #[serde(with = "maybe_event_text")]
    pub event: Option<Event>,
    /// Where the event is: topic,
    pub topic: ByteString,
    /// partition,
    pub partition: u32,
    /// and position.
    pub position: Position,
    /// Attempts that the event had.
    pub attempts: u32,
    /// Since when the key stands still, in milliseconds since 1970.
    pub since: u64,
}

/// Which keys go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Which {
    /// All that stand still.
    All,
    /// That one.
    Key(String),
    /// The one that stands at that event.
    At {
        /// The event's topic.
        topic: String,
        /// And partition.
        partition: u32,
        /// And position.
        position: Position,
    },
}

/// What becomes of the event that a key stands at when it goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Head {
    /// It is delivered, and has all its attempts again.
    #[default]
    Retry,
    /// It is dead-lettered.
    DeadLetter,
    /// It is let go of; it stays in its topic.
    Drop,
}

impl Which {
    fn names(&self, lane: &PausedLane) -> bool {
        match self {
            Self::All => true,
            Self::Key(key) => lane.lane == LaneKey::Key(xxh3_128(key.as_bytes())),
            Self::At { topic, partition, position } => {
                lane.partition.topic.as_str() == topic
                    && lane.partition.number == *partition
                    && lane.position == *position
            }
        }
    }
}

impl Consume {
    /// Keys of a subscription that stand still in the partitions that are delivered here, at most `limit`.
    pub(super) async fn paused_keys_here(&self, uid: u64, limit: usize) -> Result<Vec<PausedKey>> {
        let Some(core) = self.shared.cores.lock().get(&uid).cloned() else { return Ok(Vec::new()) };
        let mut keys = Vec::new();
        for lane in core.paused_lanes().into_iter().take(limit) {
            let event = self.event_of(&lane).await?.map(|(event, _)| event);
            keys.push(PausedKey {
                key: event.as_ref().and_then(|event| Some(key_of(event, lane.key_from)?.into_owned().into())),
                event,
                topic: lane.partition.topic.as_byte_string().clone(),
                partition: lane.partition.number,
                position: lane.position,
                attempts: lane.attempts,
                since: lane.since,
            });
        }
        Ok(keys)
    }

    /// Lets keys of a subscription go on that stand still in the partitions that are delivered here; gives how many. It is
    /// durable when this returns.
    pub(super) async fn resume_keys_here(
        &self,
        name: &ByteString,
        which: &Which,
        head: Head,
    ) -> std::result::Result<usize, ChangeError> {
        let _changing = self.changing.lock().await;
        let Some(subscription) = self.shared.catalogue.subscription(name) else {
            return Err(ChangeError::NotFound { what: "subscription", name: name.to_string() });
        };
        let Some(core) = self.shared.cores.lock().get(&subscription.uid).cloned() else { return Ok(0) };
        let mut count = 0;
        for lane in core.paused_lanes().into_iter().filter(|lane| which.names(lane)) {
            if head != Head::Retry {
                self.put_away(&subscription, &lane, head).await?;
            }
            count += usize::from(core.resume_lane(&lane, head != Head::Retry));
        }
        if count > 0 {
            self.checkpoint().await.map_err(ChangeError::Commit)?;
        }
        Ok(count)
    }

    /// Deals with the event that a key stands at, which is not delivered any more.
    async fn put_away(
        &self,
        subscription: &Arc<Subscription>,
        lane: &PausedLane,
        head: Head,
    ) -> std::result::Result<(), ChangeError> {
        let shared = &self.shared;
        let Some(owned) = shared.owned_of(&lane.partition) else {
            let context = format!("{} has another owner", lane.partition.log());
            return Err(Error::new(ErrorKind::Unavailable, context).into());
        };
        let now = shared.environment.clock.unix_milliseconds();
        let (event, appended_at) = match self.event_of(lane).await? {
            Some((event, appended_at)) => (Some(Arc::new(event)), appended_at),
            None => (None, now),
        };
        if let (Some(event), Head::DeadLetter) = (&event, head) {
            let cause = Cause {
                subscription: subscription.spec.name.clone(),
                sink: subscription.spec.sink.clone(),
                topic: lane.partition.topic.as_byte_string().clone(),
                partition: lane.partition.number,
                position: lane.position.0,
                reason: Reason::Exhausted,
                status: None,
                detail: "its key was paused, and somebody let it go on without this event".to_owned(),
                attempts: lane.attempts,
                first_attempt_at: lane.since,
                last_attempt_at: lane.since,
                edited_from: None,
            };
            if !write_letter(shared, &owned, subscription, event, cause).await {
                let context = "the gateway stops or loses the slot before the dead letter is written";
                return Err(Error::new(ErrorKind::Closed, context).into());
            }
        }
        let text =
            |of: fn(&Event) -> &ByteString| event.as_deref().map_or_else(String::new, |event| of(event).to_string());
        let outcome = Outcome {
            epoch: owned.journal.epoch(),
            at: now,
            took: 0,
            subscription: subscription.spec.name.to_string(),
            uid: Some(subscription.uid),
            topic: lane.partition.topic.to_string(),
            partition: lane.partition.number,
            position: lane.position.0,
            source: text(Event::source),
            id: text(Event::id),
            attempt: lane.attempts,
            ending: if head == Head::DeadLetter && event.is_some() { Ending::Dead } else { Ending::Dropped },
            status: None,
            detail: "its key was paused, and somebody let it go on without this event".to_owned(),
        };
        shared.observer.settled(&outcome, appended_at);
        owned.outcomes.push(outcome);
        Ok(())
    }

    async fn event_of(&self, lane: &PausedLane) -> Result<Option<(Event, u64)>> {
        let mut tail = match self.shared.log.tail(&lane.partition.log(), lane.position).await {
            Ok(tail) => tail,
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        match tail.next(1).await {
            Ok(batch) => Ok(batch.records.into_iter().find_map(|stored| match stored.record {
                Record::Event(event) if stored.position == lane.position => Some((event, stored.appended_at)),
                _ => None,
            })),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn is_gone(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::PositionLost { .. } | ErrorKind::NotFound)
}
