//! The index that finds the subscriptions of an event without asking each of them.
//!
//! Subscriptions are grouped by the patterns that they name. Within a group, those whose filters demand certain values
//! of `type` are found by one look-up of the event's type; the others are asked one by one. So the cost of an event
//! grows with the subscriptions that could match it, not with all that exist, as long as they filter on `type`.

use std::collections::{HashMap, HashSet};

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use tidegate_schemas::Event;

use crate::filter::{Filter, matches_all};
use crate::topic::{TopicName, TopicPattern};

/// A subscription as the index knows it; its owner says what the number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SubscriptionId(pub u32);

/// The compiled rules of many subscriptions. It never changes: a new set of subscriptions is a new matcher.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    rules: Vec<Rule>,
    topics: HashMap<TopicName, Index>,
    wildcards: Vec<(TopicPattern, Index)>,
    dead_letter_topics: HashSet<TopicName>,
}

#[derive(Clone, Debug)]
struct Rule {
    id: SubscriptionId,
    filters: Box<[Filter]>,
}

/// Rules of one pattern, as indices into [`Matcher::rules`].
#[derive(Clone, Debug, Default)]
struct Index {
    by_type: HashMap<ByteString, Vec<usize>>,
    others: Vec<usize>,
}

impl Matcher {
    /// Compiles subscriptions, each with the topics that it reads and the filters that must all match.
    pub fn build<'a>(
        subscriptions: impl IntoIterator<Item = (SubscriptionId, &'a [TopicPattern], &'a [Filter])>,
    ) -> Self {
        let mut matcher = Self::default();
        let mut wildcards: HashMap<TopicPattern, Index> = HashMap::new();
        for (id, patterns, filters) in subscriptions {
            let rule = matcher.rules.len();
            matcher.rules.push(Rule { id, filters: filters.into() });
            let types = demanded_types_of_all(filters);
            for pattern in patterns {
                let index = match pattern.literal() {
                    Some(topic) => matcher.topics.entry(topic.clone()).or_default(),
                    None => wildcards.entry(pattern.clone()).or_default(),
                };
                index.add(rule, types.as_deref());
            }
        }
        matcher.wildcards = wildcards.into_iter().collect();
        matcher
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
        found.clear();
        if let Some(index) = self.topics.get(topic) {
            self.search(index, event, found);
        }
        if !self.dead_letter_topics.contains(topic) {
            for (pattern, index) in &self.wildcards {
                if pattern.matches(topic) {
                    self.search(index, event, found);
                }
            }
        }
        found.sort_unstable();
        found.dedup();
    }

    /// Whether any subscription reads that topic, whatever its filters say.
    pub fn reads(&self, topic: &TopicName) -> bool {
        self.topics.contains_key(topic)
            || (!self.dead_letter_topics.contains(topic)
                && self.wildcards.iter().any(|(pattern, _)| pattern.matches(topic)))
    }

    fn search(&self, index: &Index, event: &Event, found: &mut Vec<SubscriptionId>) {
        let typed = index.by_type.get(event.kind()).into_iter().flatten();
        for rule in typed.chain(&index.others) {
            let rule = &self.rules[*rule];
            if matches_all(&rule.filters, event) {
                found.push(rule.id);
            }
        }
    }
}

impl Index {
    fn add(&mut self, rule: usize, types: Option<&[ByteString]>) {
        match types {
            Some(types) => {
                for kind in types {
                    let rules = self.by_type.entry(kind.clone()).or_default();
                    // A subscription that names a pattern twice is still one.
                    if rules.last() != Some(&rule) {
                        rules.push(rule);
                    }
                }
            }
            None if self.others.last() == Some(&rule) => {}
            None => self.others.push(rule),
        }
    }
}

/// Values of `type` such that an event of any other type passes not all of these filters; nothing where there is no
/// such list.
fn demanded_types_of_all(filters: &[Filter]) -> Option<Vec<ByteString>> {
    // Any one of them will do, and the shortest asks the fewest rules.
    filters.iter().filter_map(demanded_types).min_by_key(Vec::len)
}

fn demanded_types(filter: &Filter) -> Option<Vec<ByteString>> {
    match filter {
        Filter::Exact(pairs) => pairs.get("type").map(|kind| vec![kind.clone()]),
        Filter::Sql(expression) => {
            expression.required_values("type").map(|types| types.into_iter().map(ByteString::from).collect())
        }
        Filter::All(filters) => demanded_types_of_all(filters),
        Filter::Any(filters) => {
            let mut types = Vec::new();
            for filter in filters {
                types.extend(demanded_types(filter)?);
            }
            types.sort_unstable();
            types.dedup();
            Some(types)
        }
        Filter::Prefix(_) | Filter::Suffix(_) | Filter::Not(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::filter::parse_filters;
    use crate::filter::testing::{events, filter_json};

    fn event(kind: &str, subject: Option<&str>) -> Event {
        let mut builder = Event::builder("1", "/s", kind.to_owned());
        if let Some(subject) = subject {
            builder = builder.subject(subject.to_owned());
        }
        builder.build().unwrap()
    }

    fn topic(text: &str) -> TopicName {
        TopicName::parse(text).unwrap()
    }

    struct Subscription {
        id: SubscriptionId,
        topics: Vec<TopicPattern>,
        filters: Vec<Filter>,
    }

    fn subscription(id: u32, topics: &[String], filters: &Value) -> Subscription {
        Subscription {
            id: SubscriptionId(id),
            topics: topics.iter().map(|text| TopicPattern::parse(text.as_str()).unwrap()).collect(),
            filters: parse_filters(filters).unwrap(),
        }
    }

    fn build(subscriptions: &[Subscription]) -> Matcher {
        Matcher::build(subscriptions.iter().map(|each| (each.id, &each.topics[..], &each.filters[..])))
    }

    #[test]
    fn exact_types_are_found_without_asking_the_others() {
        let subscriptions: Vec<_> = (0..1_000)
            .map(|id| {
                let filter = match id % 3 {
                    0 => json!({"exact": {"type": format!("type-{id}")}}),
                    1 => json!({"sql": format!("type = 'type-{id}' AND NOT EXISTS region")}),
                    _ => json!({"sql": format!("LENGTH(id) = 1 AND type IN ('type-{id}')")}),
                };
                subscription(id, &["t".to_owned()], &json!([filter]))
            })
            .collect();
        let matcher = build(&subscriptions);
        let mut found = vec![SubscriptionId(9)];
        for id in [6, 7, 8] {
            matcher.matches(&topic("t"), &event(&format!("type-{id}"), None), &mut found);
            assert_eq!(found, [SubscriptionId(id)]);
        }
        let index = &matcher.topics["t"];
        assert!(index.others.is_empty());
        assert!(index.by_type.values().all(|rules| rules.len() == 1));
    }

    #[test]
    fn a_subscription_is_found_once_and_dead_letter_topics_by_name_only() {
        let topics = ["a.b", "a.*", "**", "a.b"].map(str::to_owned);
        let matcher = build(&[subscription(3, &topics, &json!([])), subscription(1, &["a.b".to_owned()], &json!([]))]);
        let found = |matcher: &Matcher, name: &str| {
            let mut found = Vec::new();
            matcher.matches(&topic(name), &event("t", None), &mut found);
            (found.iter().map(|id| id.0).collect::<Vec<_>>(), matcher.reads(&topic(name)))
        };
        assert_eq!(found(&matcher, "a.b"), (vec![1, 3], true));
        assert_eq!(found(&matcher, "orders-dead"), (vec![3], true));
        assert_eq!(found(&matcher, "dead.x"), (vec![], false));
        let matcher = matcher.with_dead_letter_topics([topic("orders-dead"), topic("a.b")]);
        assert_eq!(found(&matcher, "orders-dead"), (vec![], false));
        assert_eq!(found(&matcher, "a.b"), (vec![1, 3], true), "named, so the rule about wildcards does not apply");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn the_index_finds_what_asking_each_finds(
            subscriptions in prop::collection::vec(
                (
                    prop::collection::vec(prop_oneof!["[pq]", "[pq]\\.[pq]", Just("*".to_owned()), Just("p.*".to_owned()), Just("**".to_owned())], 1..3),
                    prop::collection::vec(filter_json(), 0..3),
                ),
                0..12,
            ),
            topic_name in "[pq](\\.[pq])?",
            event in events(),
        ) {
            let subscriptions: Vec<_> = subscriptions
                .iter()
                .zip(0..)
                .map(|((topics, filters), id)| subscription(id, topics, &Value::Array(filters.clone())))
                .collect();
            let topic = topic(&topic_name);
            let naive: Vec<_> = subscriptions
                .iter()
                .filter(|each| each.topics.iter().any(|pattern| pattern.matches(&topic)))
                .filter(|each| each.filters.iter().all(|filter| filter.matches(&event)))
                .map(|each| each.id)
                .collect();
            let mut found = Vec::new();
            build(&subscriptions).matches(&topic, &event, &mut found);
            prop_assert_eq!(found, naive);
        }
    }
}
