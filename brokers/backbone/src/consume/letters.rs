//! The dead letters of a subscription: looked at, sent again, dropped.

use std::fmt;
use std::str::FromStr;

use bytestring::ByteString;
use tidegate_schemas::Event;

use super::checkpoint;
use super::core::Partition;
use super::dead_letter::{self, Cause};
use super::engine::Consume;
use super::router::READ_BYTES;
use crate::catalogue::{ChangeError, Subscription, Topic};
use crate::error::Result;
use crate::log::{Position, Record};
use crate::slot::Command;

/// Names one dead letter of a subscription: its partition and position, written `PARTITION-POSITION`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterId {
    /// The partition of the dead-letter topic.
    pub partition: u32,
    /// The position in it.
    pub position: Position,
}

impl fmt::Display for LetterId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.partition, self.position)
    }
}

impl FromStr for LetterId {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let refuse = || format!("{text:?} names no dead letter; a name looks like 0-17");
        let (partition, position) = text.split_once('-').ok_or_else(refuse)?;
        let partition = partition.parse().map_err(|_| refuse())?;
        Ok(Self { partition, position: Position(position.parse().map_err(|_| refuse())?) })
    }
}

/// One dead letter.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// Its name.
    pub id: LetterId,
    /// When it was written, in milliseconds since 1970.
    pub at: u64,
    /// The original event.
    pub event: Event,
    /// Why it is here.
    pub cause: Cause,
}

impl Consume {
    /// Dead letters of a subscription that were neither redriven nor dropped, in the order in which they came, after
    /// `after` and at most `limit`.
    pub async fn dead_letters(
        &self,
        name: &ByteString,
        after: Option<LetterId>,
        limit: usize,
    ) -> std::result::Result<Vec<DeadLetter>, ChangeError> {
        let subscription = self.subscription_of(name)?;
        let Some(topic) = self.letters_topic(&subscription) else { return Ok(Vec::new()) };
        let mut letters = Vec::new();
        for number in 0..topic.spec.partitions {
            if letters.len() >= limit || after.is_some_and(|after| number < after.partition) {
                continue;
            }
            let position =
                after.filter(|after| after.partition == number).map_or(Position::ZERO, |after| after.position.next());
            let from = LetterId { partition: number, position };
            let room = limit - letters.len();
            letters.extend(self.read_letters(&subscription, &topic, from, room).await?);
        }
        Ok(letters)
    }

    async fn read_letters(
        &self,
        subscription: &Subscription,
        topic: &Topic,
        from: LetterId,
        limit: usize,
    ) -> Result<Vec<DeadLetter>> {
        let mut letters = Vec::new();
        let number = from.partition;
        let shared = &self.shared;
        let partition = Partition { topic: topic.spec.name.clone(), number };
        let handled = checkpoint::handled(&shared.journal, subscription.uid, &partition)?;
        let info = shared.log.info(&partition.log()).await?;
        let mut tail = shared.log.tail(&partition.log(), from.position.max(info.begin)).await?;
        while tail.position() < info.end {
            for stored in tail.next(READ_BYTES).await?.records {
                let Record::Event(letter) = &stored.record else { continue };
                if handled.contains(stored.position) {
                    continue;
                }
                let (event, Some(cause)) = dead_letter::open(letter) else { continue };
                if cause.subscription != subscription.spec.name {
                    continue;
                }
                let id = LetterId { partition: number, position: stored.position };
                letters.push(DeadLetter { id, at: stored.appended_at, event, cause });
                if letters.len() >= limit {
                    return Ok(letters);
                }
            }
        }
        Ok(letters)
    }

    /// Sends dead letters to their subscription again, and to no other: those named, or all that there are now. Gives
    /// how many.
    pub async fn redrive(
        &self,
        name: &ByteString,
        ids: Option<&[LetterId]>,
    ) -> std::result::Result<usize, ChangeError> {
        self.handle(name, ids, true).await
    }

    /// Lets go of dead letters: those named, or all that there are now. Gives how many. They stay readable in their
    /// topic until it is trimmed.
    pub async fn drop_dead_letters(
        &self,
        name: &ByteString,
        ids: Option<&[LetterId]>,
    ) -> std::result::Result<usize, ChangeError> {
        self.handle(name, ids, false).await
    }

    async fn handle(
        &self,
        name: &ByteString,
        ids: Option<&[LetterId]>,
        redrive: bool,
    ) -> std::result::Result<usize, ChangeError> {
        let _changing = self.changing.lock().await;
        let subscription = self.subscription_of(name)?;
        let Some(topic) = self.letters_topic(&subscription) else { return Ok(0) };
        let core = self.shared.cores.lock().get(&subscription.uid).cloned();
        let now = self.shared.environment.clock.unix_milliseconds();
        let mut count = 0;
        for number in 0..topic.spec.partitions {
            let from = LetterId { partition: number, position: Position::ZERO };
            let letters = self.read_letters(&subscription, &topic, from, usize::MAX).await?;
            let positions: Vec<Position> = letters
                .iter()
                .filter(|letter| ids.is_none_or(|ids| ids.contains(&letter.id)))
                .map(|letter| letter.id.position)
                .collect();
            if positions.is_empty() {
                continue;
            }
            let partition = Partition { topic: topic.spec.name.clone(), number };
            let mut handled = checkpoint::handled(&self.shared.journal, subscription.uid, &partition)?;
            handled.insert(positions.iter().copied());
            let mut command = checkpoint::put_handled(Command::new(), subscription.uid, &partition, &handled);
            if redrive {
                command = checkpoint::put_parked(command, subscription.uid, &partition, &positions, now);
            }
            self.shared.journal.commit(command).await?;
            if let (true, Some(core)) = (redrive, &core) {
                core.add_redrive(partition.clone(), super::progress::Checkpoint::default());
                core.redrive(&partition, &positions, now);
            }
            count += positions.len();
        }
        Ok(count)
    }

    fn subscription_of(&self, name: &ByteString) -> std::result::Result<std::sync::Arc<Subscription>, ChangeError> {
        self.shared
            .catalogue
            .subscription(name)
            .ok_or_else(|| ChangeError::NotFound { what: "subscription", name: name.to_string() })
    }

    fn letters_topic(&self, subscription: &Subscription) -> Option<std::sync::Arc<Topic>> {
        self.shared.catalogue.topic(subscription.spec.dead_letter_topic.as_str())
    }
}
