//! What each subscription made of an event.

use std::sync::Arc;

use tidegate_routing::Matcher;
use tidegate_routing::filter::explain;
use tidegate_schemas::limits;

use super::sight::{Sight, Sighted};
use super::{Fate, Letter, Place, State};
use crate::catalogue::Subscription;
use crate::consume::checkpoint;
use crate::consume::core::Partition;
use crate::consume::engine::{Consume, Standing};
use crate::consume::letters::LetterId;
use crate::consume::outcomes::{Ending, Outcome};
use crate::consume::progress::Whereabouts;
use crate::error::Result;
use crate::log::Position;

/// A place by what names it.
type Site = (String, u32, u64);

/// The events of one source and id with everything that is known of them, by whichever owner.
pub(super) struct Case<'a> {
    consume: &'a Consume,
    places: Vec<Sighted>,
    subscriptions: Vec<(Arc<Subscription>, Matcher)>,
    outcomes: Vec<&'a Outcome>,
    /// Dead letters with their places.
    letters: Vec<(Site, Letter)>,
}

fn site(place: &Sighted) -> Site {
    (place.topic.to_string(), place.partition, place.position.0)
}

impl<'a> Case<'a> {
    pub(super) fn new(consume: &'a Consume, places: Vec<Sighted>, outcomes: impl Iterator<Item = &'a Outcome>) -> Self {
        let view = consume.shared.catalogue.view().clone();
        let mut subscriptions: Vec<_> = view
            .subscriptions
            .values()
            .map(|subscription| (Arc::clone(subscription), consume.reader_of(&subscription.spec)))
            .collect();
        subscriptions.sort_by(|(one, _), (other, _)| one.spec.name.cmp(&other.spec.name));
        let letters = places.iter().filter_map(|place| {
            let letter = Letter {
                id: LetterId { partition: place.partition, position: place.position },
                topic: place.topic.clone(),
                at: place.appended_at?,
                cause: place.dead_letter.clone()?,
                handled: false,
                redrives: Vec::new(),
            };
            Some((site(place), letter))
        });
        let letters = letters.collect();
        Self { consume, places, subscriptions, outcomes: outcomes.collect(), letters }
    }

    /// What became of the events.
    pub(super) fn judge(&self) -> Result<Vec<Place>> {
        let mut places = Vec::new();
        for (index, sighted) in self.places.iter().enumerate() {
            let (duplicate, duplicate_of) = self.duplicate(&self.places[..index], sighted);
            let mut place = Place {
                topic: sighted.topic.clone(),
                partition: sighted.partition,
                position: sighted.position,
                appended_at: sighted.appended_at,
                event: sighted.event.clone().map(Arc::new),
                duplicate,
                duplicate_of,
                dead_letter: sighted.dead_letter.clone(),
                fates: Vec::new(),
            };
            if let Some(partition) = self.partition(sighted) {
                let mut fates = Vec::new();
                for (subscription, reader) in &self.subscriptions {
                    if reader.reads(&partition.topic) {
                        fates.push(self.fate(subscription, (sighted, &place), &partition)?);
                    }
                }
                self.add_former(sighted, &mut fates);
                place.fates = fates;
            }
            places.push(place);
        }
        Ok(places)
    }

    fn partition(&self, place: &Sighted) -> Option<Partition> {
        let topic = self.consume.shared.catalogue.topic(&place.topic)?;
        Some(Partition { topic: topic.spec.name.clone(), number: place.partition })
    }

    /// Whether the event is dropped as a duplicate: what its router found, or what follows from the places before it.
    fn duplicate(&self, before: &[Sighted], place: &Sighted) -> (bool, Option<Position>) {
        if self.partition(place).is_none() {
            return (false, None);
        }
        let earlier = before
            .iter()
            .rev()
            .filter(|other| (&other.topic, other.partition) == (&place.topic, place.partition))
            .find(|other| {
                let (Some(first), Some(second)) = (other.appended_at, place.appended_at) else { return false };
                let apart = place.position.0.saturating_sub(other.position.0);
                place.window > 0 && second.saturating_sub(first) <= place.window && apart < limits::DEDUPE_EVENTS as u64
            })
            .map(|other| other.position);
        let duplicate = place.duplicate.unwrap_or_else(|| earlier.is_some());
        (duplicate, earlier.filter(|_| duplicate))
    }

    /// How an event stood with a subscription when its owner looked.
    fn sight(&self, at: &Site, uid: u64) -> Option<&Sight> {
        let place = self.places.iter().find(|place| site(place) == *at)?;
        place.sights.iter().find(|(of, _)| *of == uid).map(|(_, sight)| sight)
    }

    fn outcomes_at(&self, subscription: &Subscription, at: &Site) -> Vec<Outcome> {
        let own = |outcome: &&&Outcome| {
            *outcome.subscription == *subscription.spec.name
                && outcome.uid.is_none_or(|uid| uid == subscription.uid)
                && is_at(outcome, at)
        };
        self.outcomes.iter().filter(own).map(|outcome| (*outcome).clone()).collect()
    }

    /// The dead letters of an event, each of the redrive of the one before.
    fn chain(&self, subscription: &Subscription, place: &Sighted) -> Vec<Letter> {
        let mut chain: Vec<Letter> = Vec::new();
        let mut from = site(place);
        while let Some((at, letter)) = self.letters.iter().rfind(|(at, letter)| {
            let cause = &letter.cause;
            cause.subscription == subscription.spec.name
                && (&*cause.topic, cause.partition, cause.position) == (&*from.0, from.1, from.2)
                && *at != from
        }) {
            if chain.iter().any(|known| known.id == letter.id && known.topic == letter.topic) {
                break;
            }
            let handled = self.sight(at, subscription.uid).is_some_and(|sight| sight.handled);
            chain.push(Letter { handled, redrives: self.outcomes_at(subscription, at), ..letter.clone() });
            from = at.clone();
        }
        chain
    }

    fn fate(
        &self,
        subscription: &Arc<Subscription>,
        (sighted, place): (&Sighted, &Place),
        partition: &Partition,
    ) -> Result<Fate> {
        let shared = &self.consume.shared;
        let found = self.sight(&site(sighted), subscription.uid);
        let attempts = self.outcomes_at(subscription, &site(sighted));
        let letters = self.chain(subscription, sighted);
        let mut fate = Fate {
            subscription: subscription.spec.name.clone(),
            sink: Some(subscription.spec.sink.clone()),
            created_at: subscription.created_at,
            changed_after: subscription.changed_at.filter(|at| place.appended_at.is_some_and(|came| *at >= came)),
            state: State::Unknown,
            hold: None,
            attempts,
            letters,
        };
        if let Some(letter) = fate.letters.last() {
            let at = (letter.topic.to_string(), letter.id.partition, letter.id.position.0);
            let redriven = self.sight(&at, subscription.uid).and_then(|sight| sight.whereabouts);
            fate.state = match (letter.redrives.last(), redriven) {
                (Some(Outcome { ending: Ending::Done, at, .. }), _) => State::Delivered { at: *at },
                (_, Some(whereabouts)) => state_of(whereabouts),
                (Some(Outcome { ending: Ending::Dead, .. }), None) => State::DeadLettered,
                (Some(_), None) => State::Unknown,
                (None, None) if letter.handled => State::Dropped,
                (None, None) => State::DeadLettered,
            };
        } else if let Some(last) = fate.attempts.last().filter(|last| last.ending == Ending::Done) {
            fate.state = State::Delivered { at: last.at };
        } else if fate.attempts.last().is_some_and(|last| matches!(last.ending, Ending::Dead | Ending::Expired)) {
            fate.state = State::DeadLettered;
        } else if fate.attempts.last().is_some_and(|last| last.ending == Ending::Dropped) {
            fate.state = State::Dropped;
        } else if sighted.moved && fate.attempts.is_empty() {
            fate.state = State::DeadLettered;
        } else if place.duplicate && fate.attempts.is_empty() {
            fate.state = State::Duplicate;
        } else {
            let begins_at = checkpoint::start(shared.catalogue.slot().as_ref(), subscription.uid, partition)?;
            let explanation = place.event.as_deref().map(|event| explain(&subscription.spec.filters, event));
            let refused = explanation.filter(|explanation| !explanation.matched && fate.attempts.is_empty());
            fate.state = if place.position < begins_at {
                State::NotYetSubscribed { begins_at }
            } else if let Some(explanation) = refused {
                State::Filtered(explanation)
            } else {
                match found {
                    Some(found) => open_state(found, place),
                    None => State::Unknown,
                }
            };
        }
        let waits = matches!(
            fate.state,
            State::Behind { .. }
                | State::Queued
                | State::Waiting { .. }
                | State::KeyWaits { .. }
                | State::InFlight { .. }
        );
        let standing = found.and_then(|found| found.standing.clone());
        fate.hold = standing.filter(|standing| waits && *standing != Standing::Active);
        Ok(fate)
    }

    /// Adds what subscriptions did that are not there any more, or do not read the topic any more.
    fn add_former(&self, place: &Sighted, fates: &mut Vec<Fate>) {
        let at = site(place);
        let told = |fate: &Fate, outcome: &Outcome| fate.attempts.iter().any(|attempt| attempt == outcome);
        for outcome in self.outcomes.iter().filter(|outcome| is_at(outcome, &at)) {
            // A redrive is told with the event that the dead letter was made of.
            let redrive = place.dead_letter.as_ref().is_some_and(|cause| *cause.subscription == *outcome.subscription);
            if redrive || fates.iter().any(|fate| told(fate, outcome)) {
                continue;
            }
            let former = fates.iter_mut().find(|fate| {
                fate.sink.is_none()
                    && *fate.subscription == *outcome.subscription
                    && fate.attempts.first().is_some_and(|first| first.uid == outcome.uid)
            });
            let state = match outcome.ending {
                Ending::Done => State::Delivered { at: outcome.at },
                Ending::Dead | Ending::Expired => State::DeadLettered,
                _ => State::Ended,
            };
            match former {
                Some(fate) => {
                    fate.state = state;
                    fate.attempts.push((*outcome).clone());
                }
                None => fates.push(Fate {
                    subscription: outcome.subscription.as_str().into(),
                    sink: None,
                    created_at: None,
                    changed_after: None,
                    state,
                    hold: None,
                    attempts: vec![(*outcome).clone()],
                    letters: Vec::new(),
                }),
            }
        }
    }
}

fn is_at(outcome: &Outcome, at: &Site) -> bool {
    (outcome.topic.as_str(), outcome.partition, outcome.position) == (at.0.as_str(), at.1, at.2)
}

/// Where an event is that no outcome settles.
fn open_state(found: &Sight, place: &Place) -> State {
    if let Some(whereabouts) = found.whereabouts {
        return state_of(whereabouts);
    }
    match &place.event {
        Some(_) if place.position >= found.read => State::Behind { read: found.read },
        Some(_) => State::Unknown,
        None => State::Trimmed,
    }
}

fn state_of(whereabouts: Whereabouts) -> State {
    match whereabouts {
        Whereabouts::Queued { .. } => State::Queued,
        Whereabouts::InFlight { attempts } => State::InFlight { attempt: attempts + 1 },
        Whereabouts::Waiting { attempts, due } => State::Waiting { attempt: attempts + 1, due },
        Whereabouts::Behind { head, due } => State::KeyWaits { head, due },
    }
}
