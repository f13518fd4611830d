//! Publishing and delivery by the primitives of the product against the client library: no HTTP, no sinks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::compose::Opened;
use tidegate_backbone::catalogue::{
    Catalogue, OnExhausted, Order, Origin, RequestSpec, SubscriptionSpec, Topic, TopicSpec,
};
use tidegate_backbone::consume::{Attempt, Consume, Silent, Start};
use tidegate_backbone::publish::Publisher;
use tidegate_backbone::slot::placement::delivery_slots;
use tidegate_backbone::{Environment, Record};
use tidegate_routing::retry::RetryPolicy;
use tidegate_routing::topic::{TopicName, TopicPattern};
use tidegate_schemas::limits;

use super::bare::{self, Bare};
use super::{HANG, OnBroker, Operation, event, own_slots, rate};
use crate::Failure;
use crate::figures::{Figures, print_table};
use crate::process::wait_for_quiet;

pub(super) async fn run(
    arguments: &OnBroker,
    events: usize,
    opened: Opened,
    environment: Environment,
) -> Result<(), Failure> {
    let journals = own_slots(&opened, &environment).await?;
    let slots = opened.log.capability().slots;
    let log = || Arc::clone(&opened.log);
    let catalogue = Catalogue::open(log(), Arc::new(journals[0].clone()), &environment).await?;
    let consume = Consume::start(log(), Arc::clone(&catalogue), slots, environment.child(), Arc::new(Silent)).await?;
    let publisher = Publisher::new(log(), catalogue);
    let topic = topic(&consume, "bench.published").await?;
    let bare = bare::open(&arguments.backbone, &opened, "published").await?;
    publishes(arguments, &publisher, &topic, &*bare, "published").await?;

    // From now on every event is read again as well: routed, and written into the index of what became of it.
    for slot in delivery_slots(slots) {
        consume.acquire(journals[slot as usize].clone()).await?;
    }
    let topic = self::topic(&consume, "bench.routed").await?;
    let bare = bare::open(&arguments.backbone, &opened, "routed").await?;
    publishes(arguments, &publisher, &topic, &*bare, "published and routed").await?;

    let topic = self::topic(&consume, "bench.delivered").await?;
    let bare = bare::open(&arguments.backbone, &opened, "delivered").await?;
    fill(arguments.depth, events, &publish(&publisher, &topic)).await?;
    fill(arguments.depth, events, &bare.append(Record::Event(event(0)?))).await?;
    let mut figures = vec![Figures::default(); 3];
    for round in 0..arguments.rounds {
        wait_for_quiet(&arguments.common);
        figures[0].push(read(events, &*bare).await?);
        wait_for_quiet(&arguments.common);
        figures[1].push(deliver(events, &consume, &format!("bench-{round}")).await?);
        wait_for_quiet(&arguments.common);
        figures[2].push(read(events, &*bare).await?);
    }
    let name = format!("{events} events from the beginning");
    show(&name, ["read by the client library", "delivered", "read by the client library, again"], &figures);
    consume.finish().await;
    Ok(())
}

fn show(head: &str, names: [&str; 3], figures: &[Figures]) {
    let rows: Vec<Vec<String>> =
        names.iter().zip(figures).map(|(name, figures)| vec![(*name).to_owned(), figures.text(0)]).collect();
    print_table(&[head, "events/s"], &rows);
    print_table(
        &["of the same round", "ratio"],
        &[
            vec![format!("**{} / {}**", names[1], names[0]), format!("**{}**", figures[1].ratio(&figures[0]).text(2))],
            vec![format!("control: {} / {}", names[2], names[0]), figures[2].ratio(&figures[0]).text(2)],
        ],
    );
}

async fn publishes(
    arguments: &OnBroker,
    publisher: &Publisher,
    topic: &Arc<Topic>,
    bare: &dyn Bare,
    name: &str,
) -> Result<(), Failure> {
    let operations =
        [bare.append(Record::Event(event(0)?)), publish(publisher, topic), bare.append(Record::Event(event(0)?))];
    let mut figures = vec![Figures::default(); 3];
    for _ in 0..arguments.rounds {
        for (operation, figures) in operations.iter().zip(&mut figures) {
            wait_for_quiet(&arguments.common);
            figures.push(rate(arguments.depth, arguments.seconds, operation).await?);
        }
    }
    let head = format!("{} in flight", arguments.depth);
    show(&head, ["appended by the client library", name, "appended by the client library, again"], &figures);
    Ok(())
}

async fn topic(consume: &Consume, name: &str) -> Result<Arc<Topic>, Failure> {
    let mut spec = TopicSpec::new(TopicName::parse(name)?, 1, Origin::Api);
    // Another measurement on the same broker may have sent the same ids.
    spec.dedupe_window = Duration::ZERO;
    Ok(consume.create_topic(spec).await?.0)
}

fn publish(publisher: &Publisher, topic: &Arc<Topic>) -> Operation {
    let (publisher, topic) = (publisher.clone(), Arc::clone(topic));
    Arc::new(move |number| {
        let published = event(number).map(|event| publisher.publish(&topic, event, HANG));
        Box::pin(async move {
            published?.await?;
            Ok(())
        })
    })
}

/// Does it so many times, so many at once.
async fn fill(depth: usize, count: usize, operation: &Operation) -> Result<(), Failure> {
    use futures_util::{StreamExt as _, TryStreamExt as _};
    let all = futures_util::stream::iter((0..count as u64).map(|number| operation(number)));
    all.buffer_unordered(depth).try_collect::<Vec<()>>().await?;
    Ok(())
}

/// Events a second.
async fn read(events: usize, bare: &dyn Bare) -> Result<f64, Failure> {
    let began = Instant::now();
    bare.read(events).await?;
    Ok(events as f64 / began.elapsed().as_secs_f64())
}

/// Takes and settles every event by a new subscription; events a second, its creation counted.
async fn deliver(events: usize, consume: &Arc<Consume>, name: &str) -> Result<f64, Failure> {
    let spec = SubscriptionSpec {
        name: name.into(),
        topics: vec![TopicPattern::parse("bench.delivered")?],
        filters: Vec::new(),
        sink: "https://sink.example/".to_owned(),
        request: RequestSpec::default(),
        from: Start::Earliest,
        order: Order::Key,
        max_in_flight: limits::DELIVERIES_IN_FLIGHT_MAX,
        timeout: limits::DELIVERY_TIMEOUT,
        retry: RetryPolicy::default(),
        on_exhausted: OnExhausted::Continue,
        reply_to: None,
        dead_letter_topic: TopicName::dead_letter_of(name)?,
        origin: Origin::Api,
    };
    let began = Instant::now();
    let subscription = consume.create_subscription(spec).await?;
    let consumer = consume.consumer(subscription.uid).ok_or("the subscription does not run")?;
    for taken in 0..events {
        let next = tokio::time::timeout(HANG, consumer.next()).await;
        let delivery = next.map_err(|_| format!("no delivery came after {taken}"))?.ok_or("deliveries have ended")?;
        delivery.done(&Attempt::default());
    }
    let rate = events as f64 / began.elapsed().as_secs_f64();
    drop(consumer);
    consume.remove_subscription(&name.into()).await?;
    Ok(rate)
}
