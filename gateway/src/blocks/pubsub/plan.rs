//! What resource files would do: which subscriptions and topics they create, change and end, and which of the recorded
//! events would be delivered otherwise. Nothing is changed and nothing is delivered.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytestring::ByteString;
use tidegate_backbone::Result;
use tidegate_backbone::catalogue::{Origin, RequestSpec, Retention, Start, SubscriptionSpec, Topic};
use tidegate_backbone::consume::{Looked, Question, Tally};
use tidegate_resources::{self as resources, Resources};
use tidegate_routing::{TopicName, TopicPattern};
use tidegate_schemas::limits;

use super::PubSub;
use super::resources::spec_of;

/// What is asked.
#[derive(Debug)]
pub struct Proposal<'a> {
    /// What the files declare.
    pub resources: &'a Resources,
    /// Whether they are the whole set: subscriptions of files that they do not declare end.
    pub complete: bool,
    /// Which topics are looked at; nothing for all that a subscription reads.
    pub topics: Option<Vec<TopicName>>,
    /// How many events of each topic, the newest.
    pub last: usize,
    /// How many events are named as examples of each kind of change.
    pub examples: usize,
}

/// What resource files would do.
#[derive(Debug)]
pub struct Plan {
    /// Every subscription of either set, by name.
    pub subscriptions: Vec<PlannedSubscription>,
    /// The topics that the files declare, by name.
    pub topics: Vec<PlannedTopic>,
    /// What the declared subscriptions name and nobody has created or declares.
    pub missing: Vec<MissingTopic>,
    /// The topics whose events were looked at, by name.
    pub looked: Vec<Looked>,
}

/// What becomes of a subscription or a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is made.
    Create,
    /// It is there and becomes what the files say.
    Change,
    /// It stays as it is.
    Keep,
    /// It ends.
    End,
    /// The files ask for what cannot be, for that reason.
    Refuse(String),
}

/// What becomes of one subscription.
#[derive(Debug)]
pub struct PlannedSubscription {
    /// Its name.
    pub name: ByteString,
    /// What becomes of it.
    pub action: Action,
    /// What changes of it, as the keys are called in a file.
    pub changes: Vec<&'static str>,
    /// Where it begins to read, where it is new.
    pub from: Option<Start>,
    /// The deliveries of the events that were looked at.
    pub tally: Tally,
}

/// What becomes of one declared topic.
#[derive(Debug)]
pub struct PlannedTopic {
    /// Its name.
    pub name: TopicName,
    /// What becomes of it.
    pub action: Action,
}

/// A topic, or a pattern that no topic matches, with the subscriptions that name it.
#[derive(Debug, PartialEq, Eq)]
pub struct MissingTopic {
    /// As it is written.
    pub topic: String,
    /// Who names it, by name.
    pub subscriptions: Vec<ByteString>,
}

impl PubSub {
    /// What files would do.
    ///
    /// # Errors
    /// What the log says where recorded events cannot be read.
    pub async fn plan(&self, proposal: &Proposal<'_>) -> Result<Plan> {
        let there = self.subscriptions();
        let mut after: BTreeMap<ByteString, SubscriptionSpec> = there
            .iter()
            .filter(|subscription| !proposal.complete || !matches!(subscription.spec.origin, Origin::File(_)))
            .map(|subscription| (subscription.spec.name.clone(), subscription.spec.clone()))
            .collect();
        let mut from = HashMap::new();
        for declared in &proposal.resources.subscriptions {
            let spec = spec_of(declared, Origin::File(declared.origin.file.to_string()));
            from.insert(spec.name.clone(), spec.from.clone());
            after.insert(spec.name.clone(), spec);
        }
        let question = Question {
            after: after.values().cloned().collect(),
            topics: proposal.topics.clone(),
            last: proposal.last,
            examples: proposal.examples,
        };
        let mut prediction = self.0.consume.predict(&question).await?;
        let mut names: Vec<&ByteString> =
            there.iter().map(|subscription| &subscription.spec.name).chain(after.keys()).collect();
        names.sort();
        names.dedup();
        let subscriptions = names.into_iter().map(|name| {
            let existing = there.iter().find(|subscription| subscription.spec.name == *name);
            let (action, changes) = difference(existing.map(|existing| &existing.spec), after.get(name));
            let from = from.get(name).cloned().filter(|_| action == Action::Create);
            let tally = prediction.subscriptions.remove(name).unwrap_or_default();
            PlannedSubscription { name: name.clone(), action, changes, from, tally }
        });
        Ok(Plan {
            subscriptions: subscriptions.collect(),
            topics: self.planned_topics(proposal.resources),
            missing: self.missing_topics(proposal.resources),
            looked: prediction.topics,
        })
    }

    fn planned_topics(&self, resources: &Resources) -> Vec<PlannedTopic> {
        let existing = self.topics();
        let mut planned: Vec<PlannedTopic> = resources
            .topics
            .iter()
            .map(|declared| PlannedTopic { name: declared.name.clone(), action: self.action_of(declared, &existing) })
            .collect();
        planned.sort_by(|one, other| one.name.cmp(&other.name));
        planned
    }

    fn action_of(&self, declared: &resources::Topic, existing: &[Arc<Topic>]) -> Action {
        let Some(topic) = existing.iter().find(|topic| topic.spec.name == declared.name) else {
            return match existing.iter().find(|topic| topic.spec.name.collides_with(&declared.name)) {
                Some(other) => Action::Refuse(format!(
                    "it differs only in '.' and '_' from the topic {}, which exists",
                    other.spec.name
                )),
                None => Action::Create,
            };
        };
        let partitions = declared.partitions.map_or_else(|| self.partitions_default(), std::num::NonZeroU32::get);
        if partitions != topic.spec.partitions {
            return Action::Refuse(format!(
                "it exists with {} partitions, not {partitions}; the number of partitions never changes",
                topic.spec.partitions
            ));
        }
        if declared.key_from != topic.spec.key_from {
            return Action::Refuse("it exists with another keyFrom, which never changes".to_owned());
        }
        let window = declared.dedupe_window.unwrap_or(limits::DEDUPE_WINDOW);
        let retention = Retention { age: declared.retention.age, bytes: declared.retention.bytes };
        let same = window == topic.spec.dedupe_window && retention == topic.spec.retention;
        if same { Action::Keep } else { Action::Change }
    }

    /// What declared subscriptions read that is not there and is not declared either.
    fn missing_topics(&self, resources: &Resources) -> Vec<MissingTopic> {
        let existing = self.topics();
        let names: Vec<&TopicName> = existing
            .iter()
            .map(|topic| &topic.spec.name)
            .chain(resources.topics.iter().map(|topic| &topic.name))
            .collect();
        let there = |pattern: &TopicPattern| names.iter().any(|name| pattern.matches(name));
        let mut missing: BTreeMap<String, Vec<ByteString>> = BTreeMap::new();
        for subscription in &resources.subscriptions {
            for pattern in subscription.topics.iter().filter(|pattern| !there(pattern)) {
                missing.entry(pattern.to_string()).or_default().push(subscription.name.as_str().into());
            }
        }
        missing.into_iter().map(|(topic, subscriptions)| MissingTopic { topic, subscriptions }).collect()
    }
}

/// What becomes of a subscription, and which of its settings change.
fn difference(before: Option<&SubscriptionSpec>, after: Option<&SubscriptionSpec>) -> (Action, Vec<&'static str>) {
    let (before, after) = match (before, after) {
        (None, _) => return (Action::Create, Vec::new()),
        (Some(_), None) => return (Action::End, Vec::new()),
        (Some(before), Some(after)) => (before, after),
    };
    // Every member by name, so that one that comes later cannot be forgotten here.
    let SubscriptionSpec {
        name: _,
        topics,
        filters,
        sink,
        request: RequestSpec { mode, signatures, headers, handshake, ca },
        from,
        order,
        max_in_flight,
        timeout,
        retry,
        on_exhausted,
        dead_letter_topic,
        reply_to,
        origin: _,
    } = after;
    let differs = [
        ("topics", before.topics != *topics),
        ("filters", before.filters != *filters),
        ("sink", before.sink != *sink),
        ("replyTo", before.reply_to != *reply_to),
        ("signing", before.request.signatures != *signatures),
        ("headers", before.request.headers != *headers),
        ("handshake", before.request.handshake != *handshake),
        ("tls", before.request.ca != *ca),
        ("delivery.mode", before.request.mode != *mode),
        ("delivery.order", before.order != *order),
        ("delivery.maxInFlight", before.max_in_flight != *max_in_flight),
        ("delivery.timeout", before.timeout != *timeout),
        ("delivery.retry", before.retry != *retry),
        ("delivery.onExhausted", before.on_exhausted != *on_exhausted),
        ("delivery.from", before.from != *from),
        ("delivery.deadLetterTopic", before.dead_letter_topic != *dead_letter_topic),
    ];
    let changes: Vec<&str> = differs.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect();
    if changes.is_empty() { (Action::Keep, changes) } else { (Action::Change, changes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(lines: &str) -> SubscriptionSpec {
        let text = format!(
            "apiVersion: tidegate.dev/v1\nkind: Subscription\nmetadata: {{name: s}}\nspec: {{topics: [t], {lines}}}\n"
        );
        let read = resources::parse("s.yaml", &text, &|_| Some("hush".to_owned()))
            .unwrap_or_else(|faults| panic!("{faults:?}"));
        spec_of(&read.subscriptions[0], Origin::Api)
    }

    #[test]
    fn every_setting_that_changes_is_told_by_its_name() {
        let there = spec("sink: 'http://h/'");
        for (lines, name) in [
            ("sink: 'http://other/'", "sink"),
            ("sink: 'http://h/', filters: [{exact: {type: a}}]", "filters"),
            ("sink: 'http://h/', replyTo: 'topic://replies'", "replyTo"),
            ("sink: 'http://h/', headers: {x-key: '${env:KEY}'}", "headers"),
            ("sink: 'http://h/', handshake: {origin: gateway.example.com}", "handshake"),
            ("sink: 'http://h/', delivery: {mode: structured}", "delivery.mode"),
            ("sink: 'http://h/', delivery: {order: none}", "delivery.order"),
            ("sink: 'http://h/', delivery: {maxInFlight: 7}", "delivery.maxInFlight"),
            ("sink: 'http://h/', delivery: {timeout: 7s}", "delivery.timeout"),
            ("sink: 'http://h/', delivery: {retry: {maxAttempts: 7}}", "delivery.retry"),
            ("sink: 'http://h/', delivery: {onExhausted: pauseKey}", "delivery.onExhausted"),
            ("sink: 'http://h/', delivery: {from: earliest}", "delivery.from"),
            ("sink: 'http://h/', delivery: {deadLetterTopic: dead}", "delivery.deadLetterTopic"),
        ] {
            assert_eq!(difference(Some(&there), Some(&spec(lines))), (Action::Change, vec![name]), "{lines}");
        }
        let elsewhere = SubscriptionSpec { origin: Origin::FirstUse, ..there.clone() };
        assert_eq!(difference(Some(&elsewhere), Some(&there)), (Action::Keep, vec![]), "who declared it is no setting");
        assert_eq!(difference(None, Some(&there)).0, Action::Create);
        assert_eq!(difference(Some(&there), None).0, Action::End);
    }
}
