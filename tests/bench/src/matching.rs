//! What it costs to find the subscriptions of an event, against how many subscriptions there are that it does not match.

use std::hint::black_box;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate_routing::filter::{Filter, matches_all, parse_filters};
use tidegate_routing::{Matcher, SubscriptionId, TopicName, TopicPattern};
use tidegate_schemas::{Data, Event, Value as Attribute};

use crate::figures::{Figures, print_table};
use crate::process::{load_average, wait_for_quiet};
use crate::{Common, Failure};

/// The subscriptions that every event matches: one of each kind.
const MATCHING: usize = 3;
/// Events that differ in what they are about.
const EVENTS: usize = 64;

/// A set of subscriptions and the event's way through it.
struct Contender {
    name: String,
    matcher: Matcher,
    topic: TopicName,
    matching: usize,
    figures: Figures,
}

/// Measures both numbers of subscriptions in the same round, and the worst cases beside them.
pub(crate) fn run(common: &Common, few: usize, many: usize, rounds: usize, seconds: f64) -> Result<(), Failure> {
    let events = (0..EVENTS).map(event).collect::<Result<Vec<_>, _>>()?;
    let mixed = |count: usize| (0..count).map(mixed_filters).collect::<Result<Vec<_>, _>>();
    let one_by_one = mixed(many)?;
    let mut contenders = vec![
        Contender::build(format!("{few} in the mix"), &mixed(few)?, MATCHING)?,
        Contender::build(format!("{many} in the mix"), &one_by_one, MATCHING)?,
        Contender::build(format!("{few} in the mix, again"), &mixed(few)?, MATCHING)?,
        wildcards(few)?,
        wildcards(many)?,
        Contender::build(format!("{MATCHING} that look at the data"), &data_filters(MATCHING)?, MATCHING)?,
        Contender::build(format!("{many} that demand nothing"), &vec![open_filters()?; many], 0)?,
    ];
    println!("Load average {} before the first.\n", load_average());
    let mut brute_force = Figures::default();
    for _ in 0..rounds {
        for contender in &mut contenders {
            wait_for_quiet(common);
            let figure = contender.measure(&events, Duration::from_secs_f64(seconds))?;
            contender.figures.push(figure);
        }
        let began = Instant::now();
        for event in &events {
            let found = one_by_one.iter().filter(|filters| matches_all(filters, event)).count();
            if found != MATCHING {
                return Err(format!("asking each finds {found} subscriptions").into());
            }
        }
        brute_force.push(began.elapsed().as_secs_f64() * 1e9 / EVENTS as f64);
    }
    let mut rows: Vec<Vec<String>> = contenders
        .iter()
        .map(|contender| vec![contender.name.clone(), contender.figures.text(0), contender.matching.to_string()])
        .collect();
    rows.push(vec![format!("{many} in the mix, without an index"), brute_force.text(0), MATCHING.to_string()]);
    print_table(&["subscriptions of the topic", "ns/event", "of them match"], &rows);
    let ratio = |one: usize, other: usize| contenders[one].figures.ratio(&contenders[other].figures).text(2);
    print_table(
        &["of the same round", "ratio"],
        &[
            vec![format!("**{many} / {few} in the mix**"), format!("**{}**", ratio(1, 0))],
            vec![format!("control: {few} again / {few} in the mix"), ratio(2, 0)],
            vec![format!("{many} / {few} patterns with wildcards"), ratio(4, 3)],
            vec![format!("worst case: {many} that demand nothing / {few} in the mix"), ratio(6, 0)],
        ],
    );
    Ok(())
}

impl Contender {
    fn build(name: String, subscriptions: &[Vec<Filter>], matching: usize) -> Result<Self, Failure> {
        let topic = TopicName::parse("orders.placed")?;
        let patterns = [TopicPattern::from(topic.clone())];
        let numbered = (0..).zip(subscriptions);
        let matcher =
            Matcher::build(numbered.map(|(id, filters)| (SubscriptionId(id), &patterns[..], filters.as_slice())));
        Ok(Self { name, matcher, topic, matching, figures: Figures::default() })
    }

    /// Nanoseconds for each event.
    fn measure(&self, events: &[Event], time: Duration) -> Result<f64, Failure> {
        let mut found = Vec::new();
        let mut matched = 0;
        let began = Instant::now();
        let mut rounds = 0_u32;
        while rounds == 0 || began.elapsed() < time {
            for event in events {
                self.matcher.matches(&self.topic, black_box(event), &mut found);
                matched += found.len();
            }
            rounds += 1;
        }
        let elapsed = began.elapsed().as_secs_f64();
        let count = events.len() * rounds as usize;
        if matched != count * self.matching {
            return Err(format!("{}: {matched} matches of {count} events", self.name).into());
        }
        Ok(elapsed * 1e9 / count as f64)
    }
}

fn event(number: usize) -> Result<Event, Failure> {
    let data = json!({
        "amount": 120 + number, "currency": "EUR", "customer": {"id": format!("customer-{number}"), "tier": "gold"},
        "lines": [{"sku": "a-1", "count": 2, "price": 12.5}, {"sku": "b-2", "count": 1, "price": 95.0}],
        "note": "leave it with the neighbours at number twelve",
    });
    let event = Event::builder(format!("event-{number}"), "/shop/berlin", "com.example.order.placed")
        .subject(format!("orders/order-{number}"))
        .time("2026-11-25T12:00:00Z")
        .extension("partitionkey", Attribute::String(format!("customer-{number}").into()))
        .extension("region", Attribute::String("eu".into()))
        .extension("count", Attribute::Integer(3))
        .data(Data::Json(data.to_string().into()));
    Ok(event.build()?)
}

/// The filters of a subscription: 60 % `exact` on varied attributes, 15 % `prefix` or `suffix`, 25 % expressions. The
/// first three match every event, the others none.
fn mixed_filters(number: usize) -> Result<Vec<Filter>, Failure> {
    let n = number;
    let filter = match number {
        0 => json!({"exact": {"type": "com.example.order.placed"}}),
        1 => json!({"prefix": {"source": "/shop/"}}),
        2 => json!({"sql": "type LIKE 'com.example.order.%' AND region IN ('eu', 'us') AND count > 2"}),
        // Seven has no factor in common with twenty: any ten in a row are mixed as all are.
        _ => match (number * 7) % 20 {
            0..=2 => json!({"exact": {"type": format!("com.example.order.placed.v{n}")}}),
            3 | 4 => json!({"exact": {"source": format!("/shop/berlin/{n}")}}),
            5 | 6 => json!({"exact": {"subject": format!("orders/order-x{n}")}}),
            7 | 8 => json!({"exact": {"type": "com.example.order.placed", "partitionkey": format!("customer-x{n}")}}),
            9 | 10 => json!({"exact": {"region": "eu", "tenant": format!("tenant-{n}")}}),
            11 => json!({"exact": {"type": "com.example.order.placed", "source": format!("/shop/{n}")}}),
            12 => json!({"prefix": {"type": format!("com.example.order.team{n}.")}}),
            13 => json!({"prefix": {"subject": format!("orders/order-x{n}/")}}),
            14 => json!({"suffix": {"subject": format!("-x{n}")}}),
            15 => {
                json!({"sql": format!("type = 'com.example.order.placed' AND subject = 'orders/order-x{n}' AND count > 1")})
            }
            16 => {
                json!({"sql": format!("type IN ('com.example.a{n}', 'com.example.b{n}') AND region IN ('eu', 'us')")})
            }
            17 => json!({"sql": format!("source LIKE '/tenant-{n}/%' AND NOT (subject LIKE '%test%')")}),
            18 => {
                json!({"sql": format!("(tenant = 'tenant-{n}' OR partitionkey = 'customer-x{n}') AND EXISTS subject")})
            }
            _ => json!({"sql": format!("region = 'eu' AND subject LIKE 'orders/%-x{n}'")}),
        },
    };
    filters(&json!([filter]))
}

fn data_filters(count: usize) -> Result<Vec<Vec<Filter>>, Failure> {
    (0..count)
        .map(|number| {
            let text = format!(
                "event.type == 'com.example.order.placed' && event.data.amount > {number} && event.data.lines.exists(l, l.price > 90.0)"
            );
            filters(&json!([{"cel": text}]))
        })
        .collect()
}

/// What no index can help with.
fn open_filters() -> Result<Vec<Filter>, Failure> {
    filters(&json!([{"not": {"exact": {"region": "eu"}}}, {"sql": "LENGTH(subject) > 5"}]))
}

fn filters(list: &Value) -> Result<Vec<Filter>, Failure> {
    parse_filters(list).map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ").into())
}

/// Subscriptions that read topics by patterns, of which three reach the event's.
fn wildcards(count: usize) -> Result<Contender, Failure> {
    let pattern = |number: usize| match number {
        0 => "orders.*".to_owned(),
        1 => "*.placed".to_owned(),
        2 => "**".to_owned(),
        number if number % 2 == 0 => format!("orders.team{number}.**"),
        number => format!("*.team{number}"),
    };
    let patterns = (0..count).map(|number| TopicPattern::parse(pattern(number))).collect::<Result<Vec<_>, _>>()?;
    let numbered = (0..).zip(patterns.chunks(1));
    let matcher = Matcher::build(numbered.map(|(id, patterns)| (SubscriptionId(id), patterns, &[] as &[Filter])));
    let topic = TopicName::parse("orders.placed")?;
    let name = format!("{count} patterns with wildcards");
    Ok(Contender { name, matcher, topic, matching: MATCHING, figures: Figures::default() })
}
