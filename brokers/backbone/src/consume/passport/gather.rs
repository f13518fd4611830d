//! Finds the events and the outcomes that a passport is made of.

use std::collections::BTreeMap;

use bytestring::ByteString;
use tidegate_schemas::{Event, limits};
use tracing::{debug, warn};

use super::judge::Case;
use super::sight::{Gathered, Sighted};
use super::{Coverage, Passport, Passports, State};
use crate::consume::core::Partition;
use crate::consume::dead_letter;
use crate::consume::engine::Consume;
use crate::consume::others::Question;
use crate::consume::outcomes::{Outcome, decode};
use crate::error::{Error, ErrorKind, Result};
use crate::log::{LogId, Position, Record, Stored};

/// Candidates that are read for one question; more of one hash are not told.
const CANDIDATES: usize = 10 * limits::PASSPORT_PLACES;
/// How often a question is asked anew because deliveries were settled while it was answered.
const ROUNDS: u32 = 3;

impl Consume {
    /// What became of the events of that id, and of that source where it is given.
    ///
    /// # Errors
    /// What the log says where an event or outcomes cannot be read.
    pub async fn passports(&self, id: &str, source: Option<&str>) -> Result<Passports> {
        let mut rounds = 1;
        loop {
            let found = self.passports_now(id, source).await?;
            let unknown = |passport: &Passport| {
                passport.places.iter().flat_map(|place| &place.fates).any(|fate| fate.state == State::Unknown)
            };
            // What was settled between two looks has its outcome by the next.
            if rounds == ROUNDS || !found.passports.iter().any(unknown) {
                return Ok(found);
            }
            rounds += 1;
        }
    }

    async fn passports_now(&self, id: &str, source: Option<&str>) -> Result<Passports> {
        let question = |_| Question::Passports { id: id.to_owned(), source: source.map(str::to_owned) };
        let (here, (others, missing)) = tokio::join!(self.gather(id, source), self.ask::<Gathered>(question));
        let all: Vec<Gathered> = std::iter::once(here?).chain(others).collect();
        let complete = missing.is_empty() && all.iter().all(|gathered| gathered.complete);
        let mut more = all.iter().any(|gathered| gathered.more);
        let mut outcomes = Vec::new();
        let mut by_source: BTreeMap<ByteString, Vec<Sighted>> = BTreeMap::new();
        for gathered in all {
            outcomes.extend(gathered.outcomes);
            for sighted in gathered.places {
                by_source.entry(sighted.source.clone()).or_default().push(sighted);
            }
        }
        outcomes.sort_by_key(|outcome| (outcome.at, outcome.attempt));
        let mut passports = Vec::new();
        for (source, mut sighted) in by_source {
            sighted.sort_by_key(|place| (place.appended_at, place.position));
            let case = Case::new(self, sighted, outcomes.iter().filter(|outcome| outcome.source == *source));
            let mut places = case.judge()?;
            let excess = places.len().saturating_sub(limits::PASSPORT_PLACES);
            more |= excess > 0;
            places.drain(..excess);
            passports.push(Passport { source, id: id.into(), places });
        }
        let age = u64::try_from(limits::OUTCOMES_AGE.as_millis()).unwrap_or(u64::MAX);
        let searched_back_to = self.shared.environment.clock.unix_milliseconds().saturating_sub(age);
        Ok(Passports { passports, coverage: Coverage { searched_back_to, complete, more, missing } })
    }

    /// Everything that is known here of the events of that id, and of that source where it is given.
    pub(in crate::consume) async fn gather(&self, id: &str, source: Option<&str>) -> Result<Gathered> {
        let all = self.shared.owned_all();
        let fill = futures_util::future::try_join_all(all.iter().map(|owned| owned.index.fill()));
        let filled = tokio::time::timeout(limits::PASSPORT_FILL_TIMEOUT, fill).await;
        match &filled {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => warn!(%error, "the index of passports could not be filled"),
            Err(_) => debug!("the index of passports is still being filled"),
        }
        let wanted = |outcome: &Outcome| outcome.id == id && source.is_none_or(|source| outcome.source == source);
        // Before the index is asked: what leaves here is in the index by then.
        let mut outcomes: Vec<Outcome> = all.iter().flat_map(|owned| owned.outcomes.unwritten(wanted)).collect();
        let (mut events, mut more, mut complete) = (Vec::new(), false, matches!(filled, Ok(Ok(_))));
        for owned in &all {
            let mut candidates = owned.index.search(id, source).await;
            complete &= candidates.complete;
            more |= candidates.events.len() > CANDIDATES || candidates.frames.len() > limits::PASSPORT_FRAMES;
            let excess = candidates.events.len().saturating_sub(CANDIDATES);
            events.extend(candidates.events.drain(..).skip(excess));
            let excess = candidates.frames.len().saturating_sub(limits::PASSPORT_FRAMES);
            for position in candidates.frames.drain(..).skip(excess) {
                outcomes.extend(self.outcomes_at(owned.slot(), position).await?.into_iter().filter(wanted));
            }
        }
        outcomes.sort_by_key(|outcome| (outcome.at, outcome.attempt));
        // One that was being written may have been found in both places.
        let mut unique: Vec<Outcome> = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            if !unique.iter().rev().take_while(|other| other.at == outcome.at).any(|other| *other == outcome) {
                unique.push(outcome);
            }
        }
        let mut places = Vec::new();
        for (partition, position) in events {
            match self.place(&partition, position, (id, source), &unique).await {
                Ok(Some(mut place)) => {
                    self.sight(&partition, &mut place)?;
                    places.push(place);
                }
                Ok(None) => {}
                // What is on other brokers is told all the same.
                Err(_) if self.shared.is_elsewhere(&partition) => complete = false,
                Err(error) => return Err(error),
            }
        }
        Ok(Gathered { outcomes: unique, places, complete, more })
    }

    async fn outcomes_at(&self, slot: u32, position: Position) -> Result<Vec<Outcome>> {
        let id = LogId::Outcomes { slot };
        match self.read_at(&id, position).await {
            Ok(Some(Stored { record: Record::Frame(frame), .. })) => decode(&frame),
            Ok(_) => Ok(Vec::new()),
            // It was trimmed by its age meanwhile.
            Err(error) if matches!(error.kind(), ErrorKind::PositionLost { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// The record at exactly that position.
    async fn read_at(&self, id: &LogId, position: Position) -> Result<Option<Stored>> {
        if position >= self.shared.log.info(id).await?.end {
            return Ok(None);
        }
        let mut tail = self.shared.log.tail(id, position).await?;
        let first = tail.next(1).await?.records.into_iter().next();
        Ok(first.filter(|stored| stored.position == position))
    }

    /// The event at a place, if it is the one that is asked for.
    async fn place(
        &self,
        partition: &Partition,
        position: Position,
        (id, source): (&str, Option<&str>),
        outcomes: &[Outcome],
    ) -> Result<Option<Sighted>> {
        let mut place = Sighted {
            source: ByteString::new(),
            topic: partition.topic.as_byte_string().clone(),
            partition: partition.number,
            position,
            appended_at: None,
            event: None,
            dead_letter: None,
            window: 0,
            duplicate: None,
            moved: false,
            sights: Vec::new(),
        };
        match self.read_at(&partition.log(), position).await {
            Ok(Some(Stored { appended_at, record: Record::Event(event), .. })) => {
                if *event.id() != *id || source.is_some_and(|source| *event.source() != *source) {
                    return Ok(None);
                }
                place.appended_at = Some(appended_at);
                place.source = event.source().clone();
                let (event, cause) = original(event);
                place.event = Some(event);
                place.dead_letter = cause;
                Ok(Some(place))
            }
            Ok(_) => Ok(None),
            Err(error) if is_gone(&error) => {
                // Only its hash is known; an outcome, or the source that was asked for, tells that it is this one.
                let told = outcomes.iter().find(|outcome| {
                    (outcome.topic.as_str(), outcome.partition, outcome.position)
                        == (partition.topic.as_str(), partition.number, position.0)
                });
                let source = told.map(|outcome| outcome.source.as_str()).or(source);
                Ok(source.map(|source| Sighted { source: ByteString::from(source), ..place }))
            }
            Err(error) => Err(error),
        }
    }
}

fn original(event: Event) -> (Event, Option<dead_letter::Cause>) {
    if event.extension(dead_letter::ATTRIBUTE).is_none() {
        return (event, None);
    }
    dead_letter::open(&event)
}

fn is_gone(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::PositionLost { .. } | ErrorKind::NotFound)
}
