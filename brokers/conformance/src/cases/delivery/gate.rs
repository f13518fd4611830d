//! Subscriptions to which nothing goes out for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidegate_backbone::consume::{Attempt, Delivery, Standing, Start};
use tidegate_schemas::limits;

use crate::clock::HeldClock;
use crate::expect::{Failure, Outcome, holds, same};
use crate::fixture::Fixture;
use crate::process::{Process, Sink, answer, event, events, ids, subscription};

pub(super) async fn paused(fixture: Arc<dyn Fixture>) -> Outcome {
    let clock = Arc::<HeldClock>::default();
    let process = Process::start(&fixture, &clock).await?;
    let topic = process.topic("orders", 1).await?;
    let sink = process.subscribe(subscription("s", "orders"), Start::Latest).await?;
    process.publish_all(&topic, events(0..10, 1)).await?;
    let held = sink.expect("0").await?;
    process.consume.pause(&"s".into(), Some("for a look".to_owned())).await?;
    held.done(&Attempt::default());
    sink.nothing("while it is paused").await?;
    same("standing", process.status(&sink)?.standing, Standing::Paused("for a look".to_owned()))?;
    process.publish_all(&topic, events(10..3_000, 1)).await?;
    drop(sink);
    process.stop().await;
    let process = Process::start(&fixture, &clock).await?;
    let sink = process.resume("s")?;
    sink.nothing("while it is paused, after a restart").await?;
    same("standing", process.status(&sink)?.standing, Standing::Paused("for a look".to_owned()))?;
    let waiting = {
        let sink = sink.clone();
        process.environment.spawn(async move { sink.next().await })
    };
    process.consume.pause(&"s".into(), None).await?;
    let first = waiting.await??;
    same("a consumer that waited", first.event().id().to_string(), "1".to_owned())?;
    first.done(&Attempt::default());
    same("afterwards", sink.take(2_998).await?, ids(2..3_000))?;
    same("standing", process.status(&sink)?.standing, Standing::Active)
}

pub(super) async fn unreachable(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 2).await?;
    let sink = process.subscribe(subscription("s", "orders"), Start::Latest).await?;
    process.publish_all(&topic, events(0..100, 0)).await?;
    // Several are out when the sink goes away, and come back one after the other.
    let mut out = sink.hold(5).await?;
    out.remove(0).unreachable(&Attempt::default());
    let standing = process.status(&sink)?.standing;
    holds("it is told", matches!(standing, Standing::Unreachable(_)), &standing)?;
    sink.nothing("while the sink is out of reach").await?;
    for round in 0..6 {
        process.advance(limits::SINK_PROBE_INTERVAL, &sink).await?;
        let probe = sink.next().await?;
        same("attempts counted", probe.attempt(), 1)?;
        sink.nothing("beside the probe").await?;
        if let Some(late) = out.pop() {
            late.unreachable(&Attempt::default());
            process.advance(limits::SINK_PROBE_INTERVAL, &sink).await?;
            sink.nothing("beside the probe, when one of before comes back").await?;
        }
        if round % 2 == 0 {
            probe.unreachable(&Attempt::default());
            sink.nothing("before the next probe").await?;
        } else {
            // Not settled at all: the next probe goes all the same.
            drop(probe);
        }
    }
    process.advance(limits::SINK_PROBE_INTERVAL, &sink).await?;
    let probe = sink.next().await?;
    same("attempts counted", probe.attempt(), 1)?;
    // The probe ends a failure of its event, but of the event alone: the sink is there.
    probe.done(&Attempt::default());
    same("standing", process.status(&sink)?.standing, Standing::Active)?;
    let mut seen = Vec::new();
    while seen.len() < 99 {
        let delivery = sink.next().await?;
        same("attempts counted", delivery.attempt(), 1)?;
        seen.push(delivery.event().id().to_string());
        delivery.done(&Attempt::default());
    }
    process.publish(&topic, event("last", "")).await?;
    same("afterwards", sink.take(1).await?, vec!["last".to_owned()])?;
    let status = process.status(&sink)?;
    holds("nothing is left", status.queued == 0 && status.in_flight == 0 && status.parked == 0, &status)
}

/// Fails what goes out until the breaker opens; gives how many attempts of each event were counted.
async fn fail_until_open(process: &Process, sink: &Sink) -> Result<BTreeMap<String, u32>, Failure> {
    let mut counted = BTreeMap::new();
    while process.status(sink)?.standing == Standing::Active {
        let delivery = sink.next().await?;
        counted.insert(delivery.event().id().to_string(), delivery.attempt());
        // Later than now: what fails next is another key.
        delivery.retry(Duration::from_secs(1), &answer(500));
    }
    Ok(counted)
}

pub(super) async fn breaker(fixture: Arc<dyn Fixture>) -> Outcome {
    const KEYS: usize = 20;
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 2).await?;
    let sink = process.subscribe(subscription("s", "orders"), Start::Latest).await?;
    process.publish_all(&topic, events(0..100, KEYS)).await?;
    let mut late = sink.hold(3).await?;
    process.until("that the others are there", &sink, |status| status.queued == 97).await?;
    let mut counted = fail_until_open(&process, &sink).await?;
    let attempts: u32 = counted.values().sum();
    same("attempts until it opens", attempts, limits::BREAKER_FAILURES)?;
    let standing = process.status(&sink)?.standing;
    holds("it is told", matches!(standing, Standing::BreakerOpen(_)), &standing)?;
    sink.nothing("while the sink fails").await?;
    // What was out was answered, and an answer counts.
    for delivery in late.drain(..) {
        counted.insert(delivery.event().id().to_string(), delivery.attempt());
        delivery.retry(Duration::ZERO, &answer(500));
    }
    // What failed is read again from the log, which takes a broker its time; a key whose events are not there is not probed.
    process.advance(limits::SINK_PROBE_INTERVAL, &sink).await?;
    process.until("that all events are there", &sink, |status| status.queued == 100).await?;
    let mut probed = BTreeSet::new();
    for _ in 0..KEYS * 2 {
        process.advance(limits::SINK_PROBE_INTERVAL, &sink).await?;
        let probe = sink.next().await?;
        holds("it says that it is one", probe.is_probe(), probe.event())?;
        let id = probe.event().id().to_string();
        same(&id, probe.attempt(), counted.get(&id).map_or(1, |attempts| attempts + 1))?;
        probed.insert(id);
        probe.retry(Duration::from_secs(3_600), &answer(500));
        sink.nothing("beside the probe and behind it").await?;
    }
    same("keys that were probed, those that failed before and those that did not", probed.len(), KEYS)?;
    process.advance(limits::SINK_PROBE_INTERVAL, &sink).await?;
    let probe = sink.next().await?;
    let mut next: BTreeMap<usize, usize> = (0..KEYS).map(|key| (key, key)).collect();
    let mut settle = |delivery: Delivery| -> Outcome {
        let id = delivery.event().id().to_string();
        same(&id, delivery.attempt(), counted.get(&id).map_or(1, |attempts| attempts + 1))?;
        let number: usize = id.parse()?;
        let expected = next.entry(number % KEYS).or_default();
        same("the next of its key", number, *expected)?;
        *expected += KEYS;
        delivery.done(&Attempt::default());
        Ok(())
    };
    settle(probe)?;
    same("one success wakes what waited", process.status(&sink)?.standing, Standing::Active)?;
    for _ in 1..100 {
        settle(sink.next().await?)?;
    }
    sink.nothing("after all events").await
}

pub(super) async fn breaker_control(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 1).await?;
    let sink = process.subscribe(subscription("s", "orders"), Start::Latest).await?;
    // One key too few fails, for ever, and nothing else is there to succeed.
    process.publish_all(&topic, events(0..40, limits::BREAKER_KEYS - 1)).await?;
    for round in 0..limits::BREAKER_FAILURES * 10 {
        sink.next().await?.retry(Duration::ZERO, &answer(500));
        same("standing", process.status(&sink)?.standing, Standing::Active)?;
        // Time for the budget of retries, which is not what this is about.
        process.advance(Duration::from_secs(1), &sink).await?;
        if round % 10 == 9 {
            process.publish(&topic, event(format!("good-{round}"), "good")).await?;
            loop {
                let delivery = sink.next().await?;
                if delivery.event().id().starts_with("good") {
                    delivery.done(&Attempt::default());
                    break;
                }
                delivery.retry(Duration::ZERO, &answer(500));
            }
        }
    }
    Ok(())
}
