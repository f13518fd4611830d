//! The index that finds the subscriptions of an event without asking each of them.
//!
//! Subscriptions are grouped by the patterns of topics that they name, and patterns with wildcards are found by their
//! segments. Within a group a subscription stands under something that its filters demand: a text that an attribute is,
//! begins with or ends with. An event's attributes are looked up, and only the subscriptions found there are asked. So the
//! cost of an event grows with the subscriptions that could match it, not with all that exist. Those that demand nothing of
//! this kind, such as `not` or `sql: "LENGTH(subject) > 5"` alone, are asked for every event of their topics.

mod attributes;
#[cfg(test)]
mod tests;
mod topics;
mod tree;

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use tidegate_schemas::Event;

use crate::filter::{Filter, matches_all_view};
use crate::topic::{TopicName, TopicPattern};
use crate::view::EventView;
use attributes::{Builder, Index};
use topics::Patterns;

/// A subscription as the index knows it; its owner says what the number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SubscriptionId(pub u32);

/// The compiled rules of many subscriptions. It never changes: a new set of subscriptions is a new matcher.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    rules: Vec<Rule>,
    topics: HashMap<TopicName, Index>,
    wildcards: Patterns<Index>,
    dead_letter_topics: HashSet<TopicName>,
}

#[derive(Clone, Debug)]
struct Rule {
    id: SubscriptionId,
    filters: Box<[Filter]>,
}

impl Matcher {
    /// Compiles subscriptions, each with the topics that it reads and the filters that must all match.
    pub fn build<'a>(
        subscriptions: impl IntoIterator<Item = (SubscriptionId, &'a [TopicPattern], &'a [Filter])>,
    ) -> Self {
        let mut rules = Vec::new();
        let mut topics: HashMap<TopicName, Builder> = HashMap::new();
        let mut wildcards: Patterns<Builder> = Patterns::default();
        for (id, patterns, filters) in subscriptions {
            let rule = u32::try_from(rules.len()).expect("an id has 32 bits, so there are no more subscriptions");
            rules.push(Rule { id, filters: filters.into() });
            let demands: Vec<_> = filters.iter().flat_map(Filter::demands).collect();
            for pattern in patterns {
                let builder = match pattern.literal() {
                    Some(topic) => topics.entry(topic.clone()).or_default(),
                    None => wildcards.entry(pattern, Builder::default),
                };
                builder.add(rule, &demands);
            }
        }
        Self {
            rules,
            topics: topics.into_iter().map(|(topic, builder)| (topic, builder.build())).collect(),
            wildcards: wildcards.map(Builder::build),
            dead_letter_topics: HashSet::new(),
        }
    }

    /// Names the dead-letter topics that do not begin with `dead.`, so that no wildcard reaches them either.
    #[must_use]
    pub fn with_dead_letter_topics(mut self, topics: impl IntoIterator<Item = TopicName>) -> Self {
        self.dead_letter_topics = topics.into_iter().collect();
        self
    }

    /// Writes into `found` the subscriptions that the event of that topic goes to, ascending and each once. What
    /// `found` held before is dropped, so that one buffer serves for many events.
    pub fn matches(&self, topic: &TopicName, event: &Event, found: &mut Vec<SubscriptionId>) {
        self.matches_view(topic, &EventView::new(event), found);
    }

    /// As [`Matcher::matches`], with what other filters have worked out of the event.
    pub fn matches_view(&self, topic: &TopicName, view: &EventView<'_>, found: &mut Vec<SubscriptionId>) {
        found.clear();
        // First the buffer holds rules, each perhaps several times, and then the subscriptions whose filters match.
        let mut collect = |rules: &[u32]| found.extend(rules.iter().copied().map(SubscriptionId));
        if let Some(index) = self.topics.get(topic) {
            index.search(view.event(), &mut collect);
        }
        self.reached(topic, |index| {
            index.search(view.event(), &mut collect);
            false
        });
        found.sort_unstable();
        found.dedup();
        found.retain_mut(|slot| {
            let rule = &self.rules[slot.0 as usize];
            *slot = rule.id;
            matches_all_view(&rule.filters, view)
        });
        found.sort_unstable();
        found.dedup();
    }

    /// Whether any subscription reads that topic, whatever its filters say.
    pub fn reads(&self, topic: &TopicName) -> bool {
        self.topics.contains_key(topic) || self.reached(topic, |_| true)
    }

    /// Calls `found` with the index of each pattern with wildcards that reaches the topic, until it gives true.
    fn reached(&self, topic: &TopicName, found: impl FnMut(&Index) -> bool) -> bool {
        !self.dead_letter_topics.contains(topic) && self.wildcards.any(topic, found)
    }
}
