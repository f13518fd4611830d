//! Keys, retries, and who waits for whom.

use std::sync::Arc;
use std::time::Duration;

use tidegate_backbone::catalogue::Order;
use tidegate_backbone::consume::{Attempt, Delivery, Start};
use tidegate_schemas::limits;

use crate::expect::{Failure, Outcome, holds, same};
use crate::fixture::Fixture;
use crate::process::{Process, answer, event, events, ids, subscription};

const HOUR: Duration = Duration::from_secs(3600);

pub(super) async fn dropped(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 1).await?;
    let sink = process.subscribe(subscription("s", "orders"), Start::Latest).await?;
    process.publish_all(&topic, events(0..3, 1)).await?;
    for _ in 0..5 {
        let delivery = sink.expect("0").await?;
        same("attempt", delivery.attempt(), 1)?;
        drop(delivery);
    }
    // Given back after a failure, it keeps what was counted before.
    sink.expect("0").await?.retry(Duration::ZERO, &answer(503));
    for _ in 0..2 {
        same("attempt", sink.expect("0").await?.attempt(), 2)?;
    }
    same("all in order", sink.take(3).await?, ids(0..3))?;
    sink.nothing("after all events").await
}

pub(super) async fn not_before(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 1).await?;
    let sink = process.subscribe(subscription("s", "orders"), Start::Latest).await?;
    process.publish_all(&topic, vec![event("later", ""), event("sooner", "")]).await?;
    sink.expect("later").await?.retry(HOUR, &answer(503));
    sink.expect("sooner").await?.retry(HOUR / 2, &answer(503));
    process.advance(HOUR / 2 - Duration::from_millis(1), &sink).await?;
    sink.nothing("before its time").await?;
    process.advance(Duration::from_millis(1), &sink).await?;
    sink.expect("sooner").await?.done(&Attempt::default());
    sink.nothing("before its time").await?;
    process.advance(HOUR, &sink).await?;
    let delivery = sink.expect("later").await?;
    same("age", delivery.age(), HOUR + HOUR / 2)?;
    delivery.done(&Attempt::default());
    Ok(())
}

pub(super) async fn other_keys_go_on(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 1).await?;
    let mut spec = subscription("s", "orders");
    // One at a time: what waits for a retry takes no place.
    spec.max_in_flight = 1;
    let sink = process.subscribe(spec, Start::Latest).await?;
    process.publish(&topic, event("bad", "bad")).await?;
    sink.expect("bad").await?.retry(HOUR, &answer(503));
    process.publish_all(&topic, events(0..100, 10)).await?;
    same("other keys", sink.take(100).await?.len(), 100)?;
    same("waiting", process.status(&sink)?.parked, 1)
}

pub(super) async fn key_waits(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 1).await?;
    let sink = process.subscribe(subscription("s", "orders"), Start::Latest).await?;
    process.publish_all(&topic, events(0..40, 1)).await?;
    for attempt in 1..=3 {
        let delivery = sink.expect("0").await?;
        same("attempt", delivery.attempt(), attempt)?;
        delivery.retry(HOUR, &answer(503));
        process.publish(&topic, event(format!("{}", 39 + attempt), "k0")).await?;
        sink.nothing("of a key that waits").await?;
        process.advance(HOUR, &sink).await?;
    }
    same("in order afterwards", sink.take(43).await?, ids(0..43))?;
    process.until("that nothing waits", &sink, |status| status.parked == 0).await?;
    Ok(())
}

pub(super) async fn many_delayed(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 1).await?;
    let mut spec = subscription("s", "orders");
    spec.max_in_flight = 300;
    let sink = process.subscribe(spec, Start::Latest).await?;
    // Twenty events of each of 300 keys; the first of each fails.
    process.publish_all(&topic, events(0..6_000, 300)).await?;
    for n in 0..300 {
        // Refused and not failed, so that the sink itself is not taken to be at fault.
        sink.expect(&n.to_string()).await?.refused(HOUR, &answer(404));
    }
    sink.nothing("of keys that wait").await?;
    let more: Vec<_> = (0..500).map(|n| event(format!("more-{n}"), "")).collect();
    process.publish_all(&topic, more).await?;
    holds("others go on", sink.take(500).await?.iter().all(|id| id.starts_with("more")), ())?;
    same("waiting", process.status(&sink)?.parked, 300)?;
    process.advance(HOUR, &sink).await?;
    let mut next: Vec<usize> = (0..300).collect();
    // Some are out for a long while, so that others are read again beside them.
    let slow = sink.hold(30).await?;
    for taken in 0..4_000 {
        settle(sink.next().await?, &mut next)?;
        let queued = process.status(&sink)?.queued;
        holds("what is read again keeps to its limit", queued <= limits::RETRY_QUEUE_EVENTS, (taken, queued))?;
    }
    for delivery in slow {
        settle(delivery, &mut next)?;
    }
    for _ in 4_030..6_000 {
        settle(sink.next().await?, &mut next)?;
    }
    process.until("that nothing waits", &sink, |status| status.parked == 0 && status.queued == 0).await?;
    Ok(())
}

fn settle(delivery: Delivery, next: &mut [usize]) -> Outcome {
    let number: usize = delivery.event().id().parse()?;
    same("the next of its key", number, next[number % 300])?;
    next[number % 300] += 300;
    delivery.done(&Attempt::default());
    Ok(())
}

pub(super) async fn without_order(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 1).await?;
    let mut spec = subscription("s", "orders");
    spec.order = Order::None;
    let sink = process.subscribe(spec, Start::Latest).await?;
    process.publish_all(&topic, events(0..50, 1)).await?;
    let slow = sink.expect("0").await?;
    sink.expect("1").await?.retry(HOUR, &answer(503));
    same("others of its key", sink.take(48).await?, ids(2..50))?;
    process.advance(HOUR, &sink).await?;
    sink.expect("1").await?.done(&Attempt::default());
    slow.done(&Attempt::default());
    Ok(())
}

pub(super) async fn retries_survive_changes(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 1).await?;
    let sink = process.subscribe(subscription("s", "orders"), Start::Latest).await?;
    process.publish_all(&topic, events(0..20, 1)).await?;
    sink.expect("0").await?.retry(HOUR, &answer(503));
    // Behind the others in the log: once it comes, all of them are known to wait.
    process.publish_all(&topic, vec![event("of another key", "other")]).await?;
    sink.expect("of another key").await?.done(&Attempt::default());
    let mut spec = subscription("s", "orders");
    spec.max_in_flight = 2;
    process.consume.update_subscription(spec.clone()).await?;
    holds("the old consumer has ended", sink.consumer.next().await.is_none(), ())?;
    let sink = process.resume("s")?;
    sink.nothing("of a key that waits").await?;
    // Giving up order, it does not give up the events that waited for it.
    spec.order = Order::None;
    process.consume.update_subscription(spec).await?;
    let sink = process.resume("s")?;
    process.publish_all(&topic, events(20..30, 1)).await?;
    same("new ones wait no more", sink.take(10).await?, ids(20..30))?;
    process.advance(HOUR, &sink).await?;
    let delivery = sink.expect("0").await?;
    same("attempt", delivery.attempt(), 2)?;
    delivery.done(&Attempt::default());
    same("what waited behind it", sink.take(19).await?, ids(1..20))?;
    sink.nothing("after all events").await
}

pub(super) async fn poisoned(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 1).await?;
    let sink = process.subscribe(subscription("s", "orders"), Start::Latest).await?;
    process.publish_all(&topic, events(0..1, 1)).await?;
    sink.expect("0").await?.retry(HOUR, &answer(503));
    for some in 0..6 {
        process.publish_all(&topic, events(some * 1_000 + 1..some * 1_000 + 1_001, 2)).await?;
        // Half of them are of the poisoned key: even numbers.
        for id in sink.take(500).await? {
            let number: usize = id.parse()?;
            if number.is_multiple_of(2) {
                return Err(Failure::new(format!("expected nothing of the poisoned key, seen {number}")));
            }
        }
        // The last of the batch may be routed a moment later.
        let status = process.until("that the key behind is one entry", &sink, |status| status.queued == 0).await?;
        same("waiting", (status.parked, status.in_flight), (1, 0))?;
    }
    process.advance(HOUR, &sink).await?;
    let expected: Vec<String> = (0..6_001).step_by(2).map(|n| n.to_string()).collect();
    same("of the poisoned key, in order", sink.take(3_001).await?, expected)?;
    sink.nothing("after all events").await
}
