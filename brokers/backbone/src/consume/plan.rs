//! What another set of subscriptions would do to events that are recorded: both sets are matched against them as a
//! router would, duplicates and all, and nothing is delivered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use tidegate_routing::{Matcher, SubscriptionId, TopicName};
use tidegate_schemas::limits;

use super::core::Partition;
use super::dedupe::identity;
use super::engine::Consume;
use super::router::{READ_BYTES, open_judged};
use crate::catalogue::{SubscriptionSpec, Topic};
use crate::error::Result;
use crate::log::{Position, Record};

/// How many times as far as their number the newest events of a partition are looked for.
const GAPS: u64 = 4;

/// What is compared.
#[derive(Clone, Debug)]
pub struct Question {
    /// The whole set of subscriptions as it would be.
    pub after: Vec<SubscriptionSpec>,
    /// Which topics are looked at; nothing for every topic that a subscription of either set reads.
    pub topics: Option<Vec<TopicName>>,
    /// How many events of each topic, the newest.
    pub last: usize,
    /// How many events are named as examples of each kind of change.
    pub examples: usize,
}

/// What a set of subscriptions would change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prediction {
    /// What was looked at, by the name of the topic.
    pub topics: Vec<Looked>,
    /// For each subscription of either set that reads one of those topics, what would change.
    pub subscriptions: BTreeMap<ByteString, Tally>,
}

/// The events of a topic that were looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// The topic.
    pub topic: TopicName,
    /// Events that were matched.
    pub events: u64,
    /// Events among the last that are dropped as duplicates, and so matched by nobody.
    pub duplicates: u64,
    /// Events that the topic holds; on brokers whose positions have gaps there are no more than that.
    pub recorded: u64,
    /// When the oldest of those looked at was appended, in milliseconds since 1970.
    pub since: Option<u64>,
    /// Whether fewer were looked at than asked for, because their bytes reach a limit
    /// ([`limits::PLAN_SCAN_BYTES`]).
    pub limited: bool,
}

/// Deliveries of one subscription, before and after.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events that it gets as it is.
    pub before: u64,
    /// Events that it would get.
    pub after: u64,
    /// Events that it would get and does not.
    pub added: Sample,
    /// Events that it gets and would not.
    pub removed: Sample,
    /// Events that it gets either way, at another sink.
    pub moved: Sample,
}

/// A number of events, with the newest as examples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// How many.
    pub count: u64,
    /// Some of them, the newest first.
    pub examples: Vec<Example>,
}

/// An event that stands for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Its `id`,
    pub id: ByteString,
    /// its `source`,
    pub source: ByteString,
    /// its topic,
    pub topic: TopicName,
    /// its partition,
    pub partition: u32,
    /// and its position.
    pub position: Position,
}

/// One set of subscriptions, as numbers into the names of both.
struct Set<'a> {
    specs: Vec<Option<&'a SubscriptionSpec>>,
    matcher: Matcher,
}

impl<'a> Set<'a> {
    fn new(names: &[ByteString], specs: &BTreeMap<ByteString, &'a SubscriptionSpec>) -> Self {
        let specs: Vec<Option<&SubscriptionSpec>> = names.iter().map(|name| specs.get(name).copied()).collect();
        let there = specs.iter().zip(0..).filter_map(|(spec, number)| Some((SubscriptionId(number), (*spec)?)));
        let matcher = Matcher::build(there.map(|(id, spec)| (id, spec.topics.as_slice(), spec.filters.as_slice())))
            .with_dead_letter_topics(specs.iter().flatten().map(|spec| spec.dead_letter_topic.clone()));
        Self { specs, matcher }
    }

    fn takes(&self, number: u32, matched: &[SubscriptionId]) -> Option<&'a SubscriptionSpec> {
        let taken = matched.binary_search(&SubscriptionId(number)).is_ok();
        self.specs[number as usize].filter(|_| taken)
    }
}

/// One event as both sets see it.
struct Seen {
    appended_at: u64,
    duplicate: bool,
    example: Example,
    before: Vec<SubscriptionId>,
    after: Vec<SubscriptionId>,
}

impl Consume {
    /// What the deliveries of recorded events would be with another set of subscriptions, beside those with this one.
    ///
    /// # Errors
    /// What the log says where events cannot be read.
    pub async fn predict(&self, question: &Question) -> Result<Prediction> {
        let view = self.shared.catalogue.view().clone();
        let before: BTreeMap<ByteString, &SubscriptionSpec> =
            view.subscriptions.iter().map(|(name, subscription)| (name.clone(), &subscription.spec)).collect();
        let after: BTreeMap<ByteString, &SubscriptionSpec> =
            question.after.iter().map(|spec| (spec.name.clone(), spec)).collect();
        let mut names: Vec<ByteString> = before.keys().chain(after.keys()).cloned().collect();
        names.sort();
        names.dedup();
        let (before, after) = (Set::new(&names, &before), Set::new(&names, &after));
        let mut topics: Vec<&Arc<Topic>> = view
            .topics
            .values()
            .filter(|topic| match &question.topics {
                Some(named) => named.contains(&topic.spec.name),
                None => before.matcher.reads(&topic.spec.name) || after.matcher.reads(&topic.spec.name),
            })
            .collect();
        topics.sort_by(|one, other| one.spec.name.cmp(&other.spec.name));
        let mut prediction = Prediction::default();
        let mut tallies: Vec<Tally> = vec![Tally::default(); names.len()];
        let mut room = limits::PLAN_SCAN_BYTES;
        for topic in topics {
            let (looked, seen) = self.look(topic, question.last, &mut room, (&before, &after)).await?;
            prediction.topics.push(looked);
            for event in seen.iter().rev().filter(|event| !event.duplicate) {
                for (tally, number) in tallies.iter_mut().zip(0..) {
                    let taken = (before.takes(number, &event.before), after.takes(number, &event.after));
                    tally.count(taken, &event.example, question.examples);
                }
            }
        }
        prediction.subscriptions = names.into_iter().zip(tallies).collect();
        Ok(prediction)
    }

    /// The last events of a topic as both sets see them, the oldest first.
    async fn look(
        &self,
        topic: &Topic,
        last: usize,
        room: &mut u64,
        (before, after): (&Set<'_>, &Set<'_>),
    ) -> Result<(Looked, Vec<Seen>)> {
        let name = &topic.spec.name;
        let mut seen: Vec<Seen> = Vec::new();
        let (mut recorded, mut limited) = (0, false);
        for number in 0..topic.spec.partitions {
            let partition = Partition { topic: name.clone(), number };
            let info = self.shared.log.info(&partition.log()).await?;
            let held = self.shared.log.count(&partition.log(), Position::ZERO).await?;
            recorded += held;
            let wanted = held.min(last as u64);
            // What a record takes is not known before it is read; their mean is.
            let mean = (info.bytes / held.max(1)).max(1);
            let count = wanted.min(*room / mean);
            limited |= count < wanted;
            *room -= count * mean;
            if count == 0 {
                continue;
            }
            let window = self.shared.router(&partition).map_or(topic.spec.dedupe_window, |router| router.window());
            let mut span = count;
            loop {
                let start = Position(info.end.0.saturating_sub(span)).max(info.begin);
                let found = self.look_at(&partition, (start, info.end), window, (before, after)).await?;
                // Where positions have gaps, so many events lie further back than their number.
                if found.len() as u64 >= count || start == info.begin || span / count >= GAPS {
                    seen.extend(found);
                    break;
                }
                span = span.saturating_mul(2);
            }
            seen.sort_by_key(|event| (event.appended_at, event.example.partition, event.example.position));
            let excess = seen.len().saturating_sub(last);
            seen.drain(..excess);
        }
        let duplicates = seen.iter().filter(|event| event.duplicate).count() as u64;
        let looked = Looked {
            topic: name.clone(),
            events: seen.len() as u64 - duplicates,
            duplicates,
            recorded,
            since: seen.first().map(|event| event.appended_at),
            limited,
        };
        Ok((looked, seen))
    }

    /// The events of a partition between two positions as both sets see them.
    async fn look_at(
        &self,
        partition: &Partition,
        (start, end): (Position, Position),
        window: Duration,
        (before, after): (&Set<'_>, &Set<'_>),
    ) -> Result<Vec<Seen>> {
        let name = &partition.topic;
        let mut seen = Vec::new();
        let (mut window, mut tail) = open_judged(self.shared.log.as_ref(), partition, start, window).await?;
        while tail.position() < end {
            for stored in tail.next(READ_BYTES).await?.records {
                let Record::Event(event) = stored.record else { continue };
                if stored.position >= end {
                    break;
                }
                let duplicate = window.observe(identity(&event), stored.appended_at);
                let mut each = Seen {
                    appended_at: stored.appended_at,
                    duplicate,
                    example: Example {
                        id: event.id().clone(),
                        source: event.source().clone(),
                        topic: name.clone(),
                        partition: partition.number,
                        position: stored.position,
                    },
                    before: Vec::new(),
                    after: Vec::new(),
                };
                if !duplicate {
                    before.matcher.matches(name, &event, &mut each.before);
                    after.matcher.matches(name, &event, &mut each.after);
                }
                // An event shares the buffer that it was read with; what is kept must not.
                each.example.id = each.example.id.to_string().into();
                each.example.source = each.example.source.to_string().into();
                seen.push(each);
            }
            tokio::task::yield_now().await;
        }
        Ok(seen)
    }
}

impl Tally {
    fn count(
        &mut self,
        (before, after): (Option<&SubscriptionSpec>, Option<&SubscriptionSpec>),
        example: &Example,
        examples: usize,
    ) {
        self.before += u64::from(before.is_some());
        self.after += u64::from(after.is_some());
        let sample = match (before, after) {
            (None, Some(_)) => &mut self.added,
            (Some(_), None) => &mut self.removed,
            (Some(one), Some(other)) if one.sink != other.sink => &mut self.moved,
            _ => return,
        };
        sample.count += 1;
        if sample.examples.len() < examples {
            sample.examples.push(example.clone());
        }
    }
}
