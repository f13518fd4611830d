//! The dead letters of a subscription: looked at, grouped by their cause, sent again, dropped.
//!
//! A redrive parks each letter by reference, like an event that waits for its retry, so what was asked for survives a
//! restart, and so does its rate: the moments at which the letters are due are written down with them.
//!
//! An edited letter never changes what is stored. The edited event is written to the dead-letter topic as a letter of its
//! own, which names the one that it stands for, and that one is redriven. A crash between the two leaves both to be seen.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::ops::ControlFlow;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use serde::de::value::StrDeserializer;
use serde::{Deserialize, Serialize};
use tidegate_schemas::{Event, limits};

use super::checkpoint;
use super::core::Partition;
use super::dead_letter::{self, Cause, Reason};
use super::engine::Consume;
use super::others::event_text;
use super::router::READ_BYTES;
use crate::catalogue::{ChangeError, Subscription, Topic};
use crate::error::{Error, ErrorKind, Result};
use crate::log::{LogId, Position, Record};
use crate::slot::Command;

/// Letters that one commit deals with.
const COMMIT_LETTERS: usize = 500;

/// Names one dead letter of a subscription: its partition and position, written `PARTITION-POSITION`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its name.
    pub id: LetterId,
    /// When it was written, in milliseconds since 1970.
    pub at: u64,
    /// The original event.
    #[serde(with = "event_text")]
    pub event: Event,
    /// Why it is here.
    pub cause: Cause,
}

/// What dead letters have in common: why, and what the sink answered. Written `REASON` or `REASON-STATUS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kind {
    /// Why.
    pub reason: Reason,
    /// The last answer, where there was one.
    pub status: Option<u16>,
}

impl Kind {
    /// That of a cause.
    pub fn of(cause: &Cause) -> Self {
        Self { reason: cause.reason, status: cause.status }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = serde_json::to_value(self.reason).unwrap_or_default();
        formatter.write_str(reason.as_str().unwrap_or_default())?;
        self.status.map_or(Ok(()), |status| write!(formatter, "-{status}"))
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let refuse = || format!("{text:?} names no group of dead letters; a name looks like exhausted-503");
        let (word, status) = match text.rsplit_once('-') {
            Some((word, digits)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                (word, Some(digits.parse().map_err(|_| refuse())?))
            }
            _ => (text, None),
        };
        let reason = reason(word)?;
        Ok(Self { reason, status })
    }
}

/// The reason of that word.
pub fn reason(word: &str) -> std::result::Result<Reason, String> {
    Reason::deserialize(StrDeserializer::<serde::de::value::Error>::new(word))
        .map_err(|error| format!("{word:?} is no reason of a dead letter: {error}"))
}

/// Which dead letters are meant: all that every condition here fits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// Those.
    pub ids: Option<HashSet<LetterId>>,
    /// Of that kind.
    pub kind: Option<Kind>,
    /// With that reason, whatever was answered.
    pub reason: Option<Reason>,
    /// With that last answer.
    pub status: Option<u16>,
    /// Written at that time or later, in milliseconds since 1970.
    pub since: Option<u64>,
}

impl Selection {
    /// Those with these names.
    pub fn of(ids: impl IntoIterator<Item = LetterId>) -> Self {
        Self { ids: Some(ids.into_iter().collect()), ..Self::default() }
    }

    fn takes(&self, letter: &DeadLetter) -> bool {
        let cause = &letter.cause;
        self.ids.as_ref().is_none_or(|ids| ids.contains(&letter.id))
            && self.kind.is_none_or(|kind| kind == Kind::of(cause))
            && self.reason.is_none_or(|reason| reason == cause.reason)
            && self.status.is_none_or(|status| Some(status) == cause.status)
            && self.since.is_none_or(|since| letter.at >= since)
    }
}

/// Dead letters of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// What they have in common.
    pub kind: Kind,
    /// How many.
    pub count: u64,
    /// When the first and the last were written, in milliseconds since 1970.
    pub first_at: u64,
    /// The last.
    pub last_at: u64,
    /// The last of them.
    pub example: LetterId,
    /// What the sink said to that one.
    pub detail: String,
}

/// How dead letters are sent again.
#[derive(Clone, Debug, Default)]
pub struct Redrive {
    /// The time from one letter to the next; all at once where nothing is said.
    pub interval: Option<Duration>,
    /// Events that go out in the place of those of these letters.
    pub edits: HashMap<LetterId, Event>,
    /// Only tells which would be sent.
    pub dry: bool,
}

/// What a redrive took up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redriven {
    /// The letters, at most as many as make [`limits::REDRIVE_LETTERS`] with those that still wait.
    pub ids: Vec<LetterId>,
    /// Whether there are more, which another redrive takes up.
    pub more: bool,
}

impl Consume {
    /// What [`Consume::dead_letters`] gives of the partitions that are delivered here.
    pub(super) async fn dead_letters_here(
        &self,
        name: &ByteString,
        selection: &Selection,
        after: Option<LetterId>,
        limit: usize,
    ) -> std::result::Result<Vec<DeadLetter>, ChangeError> {
        let subscription = self.subscription_of(name)?;
        let mut letters = Vec::new();
        if limit > 0 {
            self.visit(&subscription, selection, after, |letter| {
                letters.push(letter);
                if letters.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
            .await?;
        }
        Ok(letters)
    }

    /// What [`Consume::dead_letter_groups`] gives of the partitions that are delivered here.
    pub(super) async fn dead_letter_groups_here(
        &self,
        name: &ByteString,
        selection: &Selection,
    ) -> std::result::Result<Vec<Group>, ChangeError> {
        let subscription = self.subscription_of(name)?;
        let mut groups: BTreeMap<String, Group> = BTreeMap::new();
        self.visit(&subscription, selection, None, |letter| {
            let kind = Kind::of(&letter.cause);
            let group = groups.entry(kind.to_string()).or_insert_with(|| Group {
                kind,
                count: 0,
                first_at: letter.at,
                last_at: 0,
                example: letter.id,
                detail: String::new(),
            });
            group.count += 1;
            group.first_at = group.first_at.min(letter.at);
            if letter.at >= group.last_at {
                group.last_at = letter.at;
                group.example = letter.id;
                group.detail = letter.cause.detail;
            }
            ControlFlow::Continue(())
        })
        .await?;
        let mut groups: Vec<Group> = groups.into_values().collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.count));
        Ok(groups)
    }

    /// Gives every letter that a selection takes to `found`, one at a time, until it has enough.
    async fn visit(
        &self,
        subscription: &Subscription,
        selection: &Selection,
        after: Option<LetterId>,
        mut found: impl FnMut(DeadLetter) -> ControlFlow<()>,
    ) -> Result<()> {
        let Some(topic) = self.letters_topic(subscription) else { return Ok(()) };
        let shared = &self.shared;
        for number in 0..topic.spec.partitions {
            if after.is_some_and(|after| number < after.partition) {
                continue;
            }
            let first =
                after.filter(|after| after.partition == number).map_or(Position::ZERO, |after| after.position.next());
            let partition = Partition { topic: topic.spec.name.clone(), number };
            // Only its owner knows which are dealt with.
            let Some(owned) = shared.owned_of(&partition) else { continue };
            let handled = checkpoint::handled(&owned.journal, subscription.uid, &partition)?;
            let info = shared.log.info(&partition.log()).await?;
            let mut tail = shared.log.tail(&partition.log(), first.max(info.begin)).await?;
            while tail.position() < info.end {
                for stored in tail.next(READ_BYTES).await?.records {
                    let Record::Event(letter) = &stored.record else { continue };
                    if stored.position >= info.end || handled.contains(stored.position) {
                        continue;
                    }
                    let (event, Some(cause)) = dead_letter::open(letter) else { continue };
                    if cause.subscription != subscription.spec.name {
                        continue;
                    }
                    let id = LetterId { partition: number, position: stored.position };
                    let letter = DeadLetter { id, at: stored.appended_at, event, cause };
                    if selection.takes(&letter) && found(letter).is_break() {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// What [`Consume::redrive`] does in the partitions that are delivered here, the first letter after `offset`.
    pub(super) async fn redrive_here(
        &self,
        name: &ByteString,
        selection: &Selection,
        redrive: &Redrive,
        offset: Duration,
    ) -> std::result::Result<Redriven, ChangeError> {
        let _changing = self.changing.lock().await;
        let subscription = self.subscription_of(name)?;
        let mut redriven = Redriven::default();
        let mut edited = Vec::new();
        let core = self.shared.cores.lock().get(&subscription.uid).cloned();
        let waiting = core.filter(|_| !redrive.dry).map_or(0, |core| core.redriving());
        let room = limits::REDRIVE_LETTERS.saturating_sub(waiting);
        self.visit(&subscription, selection, None, |letter| {
            if redriven.ids.len() == room {
                redriven.more = true;
                return ControlFlow::Break(());
            }
            redriven.ids.push(letter.id);
            if redrive.edits.contains_key(&letter.id) {
                edited.push((letter.id, letter.cause));
            }
            ControlFlow::Continue(())
        })
        .await?;
        if redrive.dry {
            return Ok(redriven);
        }
        let mut instead = HashMap::new();
        for (id, cause) in edited {
            let event = redrive.edits.get(&id).cloned().map(Arc::new);
            if let (Some(event), false) = (event, instead.contains_key(&id)) {
                instead.insert(id, self.write_edited(&subscription, id, &event, cause).await?);
            }
        }
        let now = self.shared.environment.clock.unix_milliseconds();
        let interval = redrive.interval.unwrap_or_default();
        let due = |index: usize| {
            let wait = interval.saturating_mul(u32::try_from(index).unwrap_or(u32::MAX)).saturating_add(offset);
            now.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
        };
        let planned: Vec<(LetterId, Option<(LetterId, u64)>)> = redriven
            .ids
            .iter()
            .enumerate()
            .map(|(index, id)| (*id, Some((instead.get(id).copied().unwrap_or(*id), due(index)))))
            .collect();
        self.handle(&subscription, &planned).await?;
        Ok(redriven)
    }

    /// What [`Consume::drop_dead_letters`] does in the partitions that are delivered here.
    pub(super) async fn drop_here(
        &self,
        name: &ByteString,
        selection: &Selection,
    ) -> std::result::Result<usize, ChangeError> {
        let _changing = self.changing.lock().await;
        let subscription = self.subscription_of(name)?;
        let mut ids = Vec::new();
        self.visit(&subscription, selection, None, |letter| {
            ids.push((letter.id, None));
            ControlFlow::Continue(())
        })
        .await?;
        self.handle(&subscription, &ids).await?;
        Ok(ids.len())
    }

    /// Notes letters as dealt with and, where one is to go out, that it waits until it is due: both in one commit of the
    /// slot that owns their partition, so that no letter is lost between the two.
    async fn handle(
        &self,
        subscription: &Subscription,
        letters: &[(LetterId, Option<(LetterId, u64)>)],
    ) -> std::result::Result<(), ChangeError> {
        let Some(topic) = self.letters_topic(subscription) else { return Ok(()) };
        let uid = subscription.uid;
        for some in letters.chunk_by(|(one, _), (other, _)| one.partition == other.partition) {
            let partition = Partition { topic: topic.spec.name.clone(), number: some[0].0.partition };
            let Some(owned) = self.shared.owned_of(&partition) else {
                let context = format!("{} has another owner since a moment ago", partition.log());
                return Err(Error::new(ErrorKind::Unavailable, context).into());
            };
            for some in some.chunks(COMMIT_LETTERS) {
                let out: Vec<(Position, u64)> =
                    some.iter().filter_map(|(_, out)| out.map(|(out, due)| (out.position, due))).collect();
                let mut known = checkpoint::handled(&owned.journal, uid, &partition)?;
                known.insert(some.iter().map(|(id, _)| id.position).chain(out.iter().map(|(position, _)| *position)));
                let command = checkpoint::put_handled(Command::new(), uid, &partition, &known);
                let command = checkpoint::put_parked(command, uid, &partition, &out);
                let command = checkpoint::put_incarnation(command, &owned.journal, self.shared.incarnation(&topic));
                owned.journal.commit(command).await?;
                let core = self.shared.cores.lock().get(&uid).cloned();
                if let Some(core) = core.filter(|_| !out.is_empty()) {
                    let _standing = owned.standing.lock();
                    if !owned.is_over() {
                        core.add_redrive(&owned, partition.clone(), super::progress::Checkpoint::default());
                        core.redrive(&partition, &out);
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes an edited event as a letter of its own; gives its name.
    async fn write_edited(
        &self,
        subscription: &Subscription,
        id: LetterId,
        event: &Arc<Event>,
        cause: Cause,
    ) -> std::result::Result<LetterId, ChangeError> {
        let cause = Cause { edited_from: Some(id.to_string()), ..cause };
        let refused =
            |what: &str| Error::new(ErrorKind::Conflict, format!("the edited event of the letter {id} {what}"));
        let letter = dead_letter::letter(event, cause).map_err(|faults| refused(&format!("is not valid: {faults}")))?;
        // Beside the one that it stands for, so that both belong to one slot, whatever key it has now.
        let partition = id.partition;
        let Some(topic) = self.letters_topic(subscription) else { return Err(refused("has no topic").into()) };
        let log = topic.log(partition);
        let end = self.shared.log.info(&log).await?.end;
        let position = match self.shared.log.append(&log, Record::Event(letter)).await?.position {
            Some(position) => position,
            // The broker does not tell where it is; it lies behind what was the end, and names the letter.
            None => self.find_edited(&log, end, id).await?.ok_or_else(|| refused("was written and is not found"))?,
        };
        Ok(LetterId { partition, position })
    }

    async fn find_edited(&self, log: &LogId, from: Position, id: LetterId) -> Result<Option<Position>> {
        let end = self.shared.log.info(log).await?.end;
        let mut tail = self.shared.log.tail(log, from).await?;
        let mut found = None;
        while tail.position() < end {
            for stored in tail.next(READ_BYTES).await?.records {
                if let Record::Event(letter) = &stored.record
                    && let (_, Some(cause)) = dead_letter::open(letter)
                    && cause.edited_from.as_deref() == Some(&*id.to_string())
                {
                    found = Some(stored.position);
                }
            }
        }
        Ok(found)
    }

    fn subscription_of(&self, name: &ByteString) -> std::result::Result<Arc<Subscription>, ChangeError> {
        self.shared
            .catalogue
            .subscription(name)
            .ok_or_else(|| ChangeError::NotFound { what: "subscription", name: name.to_string() })
    }

    fn letters_topic(&self, subscription: &Subscription) -> Option<Arc<Topic>> {
        self.shared.catalogue.topic(subscription.spec.dead_letter_topic.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_back() {
        for (text, reason, status) in [
            ("rejected-422", Reason::Rejected, Some(422)),
            ("exhausted", Reason::Exhausted, None),
            ("loop", Reason::Loop, None),
        ] {
            assert_eq!(text.parse(), Ok(Kind { reason, status }));
            assert_eq!(Kind { reason, status }.to_string(), text);
        }
        for text in ["", "503", "lost", "rejected-x", "rejected-", "rejected-99999"] {
            assert!(text.parse::<Kind>().is_err(), "{text}");
        }
    }
}
