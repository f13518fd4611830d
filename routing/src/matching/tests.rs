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

/// How many subscriptions of the topic `t` are asked about an event.
fn asked(matcher: &Matcher, event: &Event) -> usize {
    let mut rules = HashSet::new();
    matcher.topics["t"].search(event, |found| rules.extend(found.iter().copied()));
    rules.len()
}

#[test]
fn subscriptions_are_found_without_asking_the_others() {
    let subscriptions: Vec<_> = (0..1_000)
        .map(|id| {
            let filters = match id % 10 {
                0 => json!([{"exact": {"type": format!("type-{id}")}}]),
                1 => json!([{"sql": format!("type = 'type-{id}' AND NOT EXISTS region")}]),
                2 => json!([{"sql": format!("LENGTH(id) = 1 AND type IN ('type-{id}')")}]),
                3 => json!([{"exact": {"source": "/s", "subject": format!("subject-{id}")}}]),
                4 => json!([{"prefix": {"type": format!("type-{id}")}}, {"not": {"exact": {"id": "9"}}}]),
                5 => json!([{"suffix": {"subject": format!("-{id}")}}]),
                6 => json!([{"sql": format!("subject LIKE 'subject-{id}%' OR type LIKE '%-{id}'")}]),
                7 => json!([{"any": [{"exact": {"type": format!("type-{id}")}}, {"prefix": {"subject": format!("subject-{id}")}}]}]),
                8 => json!([{"cel": format!("event.type in ['type-{id}'] && !has(event.data)")}]),
                _ => json!([{"cel": format!("event.subject.endsWith('-{id}') || 'type-{id}' == event.type")}]),
            };
            subscription(id, &["t".to_owned()], &filters)
        })
        .collect();
    let matcher = build(&subscriptions);
    assert!(matcher.topics["t"].others().is_empty());
    let mut found = vec![SubscriptionId(9)];
    for id in 500..510 {
        let event = event(&format!("type-{id}"), Some(&format!("subject-{id}")));
        matcher.matches(&topic("t"), &event, &mut found);
        assert_eq!(found, [SubscriptionId(id)]);
        assert!(asked(&matcher, &event) <= 3, "{id}");
    }
    // What demands nothing is asked always, and costs the others nothing.
    let filters = json!([{"not": {"exact": {"type": "a"}}}]);
    let matcher =
        build(&[subscription(1, &["t".to_owned()], &filters), subscription(2, &["t".to_owned()], &json!([]))]);
    assert_eq!(matcher.topics["t"].others(), [0, 1]);
}

#[test]
fn a_subscription_stands_under_its_rarest_demand() {
    let filters =
        |id: u32| json!([{"exact": {"type": "placed", "subject": format!("{id}")}}, {"prefix": {"source": "/"}}]);
    let subscriptions: Vec<_> = (0..100).map(|id| subscription(id, &["t".to_owned()], &filters(id))).collect();
    let matcher = build(&subscriptions);
    assert_eq!(asked(&matcher, &event("placed", Some("7"))), 1);
    assert_eq!(asked(&matcher, &event("placed", Some("700"))), 0);
    // An exact text that all share says less than an end that each has for itself.
    let filters = |id: u32| json!([{"sql": format!("type = 'placed' AND subject LIKE 'order-%-{id}'")}]);
    let subscriptions: Vec<_> = (0..100).map(|id| subscription(id, &["t".to_owned()], &filters(id))).collect();
    let matcher = build(&subscriptions);
    assert_eq!(asked(&matcher, &event("placed", Some("order-x-7"))), 1);
    // And an exact text that is nearly as rare comes before a beginning that every event may have.
    let filters =
        |id: u32| json!([{"prefix": {"source": "/".repeat(id as usize + 1)}}, {"exact": {"type": format!("t{id}")}}]);
    let subscriptions: Vec<_> = (0..100).map(|id| subscription(id, &["t".to_owned()], &filters(id))).collect();
    assert_eq!(asked(&build(&subscriptions), &event("placed", None)), 0);
}

#[test]
fn thousands_of_wildcards_are_not_tried_one_by_one() {
    let subscriptions: Vec<_> = (0..3_000)
        .map(|id| {
            let pattern = match id % 3 {
                0 => format!("a.t{id}.*"),
                1 => format!("*.t{id}.**"),
                _ => format!("t{id}.**"),
            };
            subscription(id, &[pattern], &json!([]))
        })
        .collect();
    let matcher = build(&subscriptions);
    for (name, expected) in [("a.t300.x", 300), ("b.t301.x.y", 301), ("t302.x", 302)] {
        let mut met = 0;
        matcher.reached(&topic(name), |_| {
            met += 1;
            false
        });
        assert_eq!(met, 1, "{name}");
        let mut found = Vec::new();
        matcher.matches(&topic(name), &event("t", None), &mut found);
        assert_eq!(found, [SubscriptionId(expected)], "{name}");
    }
    assert!(!matcher.reads(&topic("a.t300")));
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
                prop::collection::vec(prop_oneof!["[pq]", "[pq]\\.[pq]", "[pq*](\\.[pq*]){0,2}", "([pq*]\\.){0,2}\\*\\*"], 1..3),
                prop::collection::vec(filter_json(), 0..3),
            ),
            0..12,
        ),
        topic_name in "[pq](\\.[pq]){0,2}",
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
