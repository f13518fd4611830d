//! What each subscription made of an event.

use std::sync::Arc;

use tidegate_routing::Matcher;
use tidegate_routing::filter::explain;
use tidegate_schemas::limits;

use super::{Fate, Letter, Place, State};
use crate::catalogue::Subscription;
use crate::consume::checkpoint;
use crate::consume::core::{Feed, Found, Partition};
use crate::consume::engine::{Consume, Standing};
use crate::consume::letters::LetterId;
use crate::consume::outcomes::{Ending, Outcome};
use crate::consume::progress::Whereabouts;
use crate::error::Result;
use crate::log::Position;

/// A place by what names it.
type Site = (String, u32, u64);

/// The events of one source and id with everything that is known of them.
pub(super) struct Case<'a> {
    consume: &'a Consume,
    subscriptions: Vec<(Arc<Subscription>, Matcher)>,
    outcomes: Vec<&'a Outcome>,
    /// Dead letters with their places.
    letters: Vec<(Site, Letter)>,
}

fn site(place: &Place) -> Site {
    (place.topic.to_string(), place.partition, place.position.0)
}

impl<'a> Case<'a> {
    pub(super) fn new(consume: &'a Consume, places: &[Place], outcomes: impl Iterator<Item = &'a Outcome>) -> Self {
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
        Self { consume, subscriptions, outcomes: outcomes.collect(), letters: letters.collect() }
    }

    /// Fills in what became of the events.
    pub(super) fn judge(&self, places: &mut [Place]) -> Result<()> {
        for index in 0..places.len() {
            let (duplicate, of) = self.duplicate(&places[..index], &places[index]);
            places[index].duplicate = duplicate;
            places[index].duplicate_of = of;
            let place = &places[index];
            let Some(partition) = self.partition(place) else { continue };
            let mut fates = Vec::new();
            for (subscription, reader) in &self.subscriptions {
                if reader.reads(&partition.topic) {
                    fates.push(self.fate(subscription, place, &partition)?);
                }
            }
            self.add_former(place, &mut fates);
            places[index].fates = fates;
        }
        Ok(())
    }

    fn partition(&self, place: &Place) -> Option<Partition> {
        let topic = self.consume.shared.catalogue.topic(&place.topic)?;
        Some(Partition { topic: topic.spec.name.clone(), number: place.partition })
    }

    /// Whether the event is dropped as a duplicate: what its router found, or what follows from the places before it.
    fn duplicate(&self, before: &[Place], place: &Place) -> (bool, Option<Position>) {
        let Some(partition) = self.partition(place) else { return (false, None) };
        let router = self.consume.shared.router(&partition);
        let topic = self.consume.shared.catalogue.topic(&place.topic);
        let window = match (&router, topic) {
            (Some(router), _) => router.window(),
            (None, Some(topic)) => topic.spec.dedupe_window,
            (None, None) => return (false, None),
        };
        let window = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        let earlier = before
            .iter()
            .rev()
            .filter(|other| (&other.topic, other.partition) == (&place.topic, place.partition))
            .find(|other| {
                let (Some(first), Some(second)) = (other.appended_at, place.appended_at) else { return false };
                let apart = place.position.0.saturating_sub(other.position.0);
                window > 0 && second.saturating_sub(first) <= window && apart < limits::DEDUPE_EVENTS as u64
            })
            .map(|other| other.position);
        let found = router.filter(|router| place.position < router.peek());
        let duplicate =
            found.and_then(|router| router.is_duplicate(place.position)).unwrap_or_else(|| earlier.is_some());
        (duplicate, earlier.filter(|_| duplicate))
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
    fn chain(&self, subscription: &Subscription, place: &Place) -> Result<Vec<Letter>> {
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
            let partition = letter_partition(letter);
            let owned = partition.as_ref().and_then(|partition| self.consume.shared.owned_of(partition));
            let handled = match (&partition, owned) {
                (Some(partition), Some(owned)) => {
                    checkpoint::handled(&owned.journal, subscription.uid, partition)?.contains(letter.id.position)
                }
                _ => false,
            };
            chain.push(Letter { handled, redrives: self.outcomes_at(subscription, at), ..letter.clone() });
            from = at.clone();
        }
        Ok(chain)
    }

    fn fate(&self, subscription: &Arc<Subscription>, place: &Place, partition: &Partition) -> Result<Fate> {
        let shared = &self.consume.shared;
        let core = shared.cores.lock().get(&subscription.uid).cloned();
        // Looked up before the outcomes are: what is settled by now has its outcome.
        let found = core.as_ref().and_then(|core| core.find(partition, place.position, place.event.as_deref()));
        let attempts = self.outcomes_at(subscription, &site(place));
        let letters = self.chain(subscription, place)?;
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
            let redriven = letter_partition(letter).and_then(|partition| {
                core.as_ref()?.find(&partition, letter.id.position, place.event.as_deref())?.whereabouts
            });
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
                match &found {
                    Some(found) => self.open_state(found, place, partition),
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
        let standing = self.consume.status(subscription.uid).map(|status| status.standing);
        fate.hold = standing.filter(|standing| waits && *standing != Standing::Active);
        Ok(fate)
    }

    /// Where an event is that no outcome settles.
    fn open_state(&self, found: &Found, place: &Place, partition: &Partition) -> State {
        if let Some(whereabouts) = found.whereabouts {
            return state_of(whereabouts);
        }
        let routed = self.consume.shared.router(partition).map_or(Position::ZERO, |router| router.peek());
        let read = match found.feed {
            Feed::Own(read) => read,
            Feed::Router(from) => from.max(routed),
        };
        match &place.event {
            Some(_) if place.position >= read => State::Behind { read },
            Some(_) => State::Unknown,
            None => State::Trimmed,
        }
    }

    /// Adds what subscriptions did that are not there any more, or do not read the topic any more.
    fn add_former(&self, place: &Place, fates: &mut Vec<Fate>) {
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

fn letter_partition(letter: &Letter) -> Option<Partition> {
    let topic = tidegate_routing::TopicName::parse(letter.topic.clone()).ok()?;
    Some(Partition { topic, number: letter.id.partition })
}

fn state_of(whereabouts: Whereabouts) -> State {
    match whereabouts {
        Whereabouts::Queued { .. } => State::Queued,
        Whereabouts::InFlight { attempts } => State::InFlight { attempt: attempts + 1 },
        Whereabouts::Waiting { attempts, due } => State::Waiting { attempt: attempts + 1, due },
        Whereabouts::Behind { head, due } => State::KeyWaits { head, due },
    }
}
