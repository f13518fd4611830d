//! Events on their way to many subscriptions at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tidegate_backbone::catalogue::SubscriptionSpec;
use tidegate_backbone::consume::{Attempt, Start, Status};
use tidegate_backbone::{LogId, PartitionLog as _, Position};
use tidegate_schemas::limits;

use crate::expect::{Failure, Outcome, holds, same};
use crate::fixture::Fixture;
use crate::process::{Process, Sink, event, events, ids, sized, subscription};

pub(super) async fn each_gets_all(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topics = [process.topic("orders.new", 3).await?, process.topic("orders.old", 1).await?];
    let mut sinks = Vec::new();
    for (name, pattern) in [("one", "orders.*"), ("two", "orders.**"), ("three", "orders.new")] {
        sinks.push(process.subscribe(subscription(name, pattern), Start::Latest).await?);
    }
    process.publish_all(&topics[0], events(0..200, 10)).await?;
    process.publish_all(&topics[1], events(200..300, 10)).await?;
    for (sink, count) in sinks.iter().zip([300, 300, 200]) {
        let mut seen: Vec<usize> = sink.take(count).await?.iter().map(|id| id.parse()).collect::<Result<_, _>>()?;
        seen.sort_unstable();
        same(&sink.name, seen, (0..count).collect())?;
    }
    for sink in &sinks {
        sink.nothing("after all events").await?;
    }
    Ok(())
}

pub(super) async fn competing(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 4).await?;
    let sink = process.subscribe(subscription("s", "orders"), Start::Latest).await?;
    let seen: Arc<Mutex<BTreeMap<String, Vec<usize>>>> = Arc::default();
    let count = Arc::new(AtomicUsize::new(0));
    let members: Vec<_> = (0..8)
        .map(|_| {
            let (sink, seen, count) = (sink.clone(), Arc::clone(&seen), Arc::clone(&count));
            process.environment.spawn(async move {
                while count.load(Ordering::SeqCst) < 2_000 {
                    // Every member must be woken for what is there, or ends when all are through.
                    let Ok(Some(delivery)) =
                        tokio::time::timeout(std::time::Duration::from_millis(500), sink.consumer.next()).await
                    else {
                        continue;
                    };
                    let key = delivery.event().partition_key().unwrap_or_default().to_owned();
                    let number = delivery.event().id().parse().unwrap_or(usize::MAX);
                    seen.lock().entry(key).or_default().push(number);
                    tokio::task::yield_now().await;
                    count.fetch_add(1, Ordering::SeqCst);
                    delivery.done(&Attempt::default());
                }
            })
        })
        .collect();
    process.publish_all(&topic, events(0..2_000, 40)).await?;
    for member in members {
        member.await?;
    }
    let seen = seen.lock().clone();
    same("keys", seen.len(), 40)?;
    for (key, numbers) in seen {
        let first: usize = key[1..].parse()?;
        same(&key, numbers, (first..2_000).step_by(40).collect())?;
    }
    Ok(())
}

pub(super) async fn in_flight(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 4).await?;
    for (name, max) in [("one", 1), ("seven", 7)] {
        let mut spec = subscription(name, "orders");
        spec.max_in_flight = max;
        let sink = process.subscribe(spec, Start::Latest).await?;
        process.publish_all(&topic, events(0..40, 0)).await?;
        let mut held = sink.hold(max as usize).await?;
        let mut seen: Vec<String> = held.iter().map(|delivery| delivery.event().id().to_string()).collect();
        while seen.len() < 40 {
            same("out", process.status(&sink)?.in_flight, max)?;
            sink.nothing("beyond what may be out").await?;
            held.swap_remove(0).done(&Attempt::default());
            let next = sink.next().await?;
            seen.push(next.event().id().to_string());
            held.push(next);
        }
        for delivery in held {
            delivery.done(&Attempt::default());
        }
        seen.sort_by_key(|id| id.parse::<usize>().unwrap_or(usize::MAX));
        same("events", seen, ids(0..40))?;
        same("out", process.status(&sink)?.in_flight, 0)?;
    }
    // Several consumers that wait at once are all woken, though none of them comes back.
    let mut spec = subscription("waiting", "orders");
    spec.max_in_flight = 16;
    let sink = process.subscribe(spec, Start::Latest).await?;
    let waiting: Vec<_> = (0..16)
        .map(|_| {
            let sink = sink.clone();
            process.environment.spawn(async move { sink.next().await })
        })
        .collect();
    process.publish_all(&topic, events(0..16, 0)).await?;
    let mut held = Vec::new();
    for waiting in waiting {
        held.push(waiting.await??);
    }
    same("out to consumers that waited", process.status(&sink)?.in_flight, 16)
}

pub(super) async fn slow(fixture: Arc<dyn Fixture>) -> Outcome {
    const EVENTS: usize = 20_000;
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 2).await?;
    let stuck = process.subscribe(subscription("stuck", "orders"), Start::Latest).await?;
    let fast = process.subscribe(subscription("fast", "orders"), Start::Latest).await?;
    let limit = limits::DELIVERY_QUEUE_EVENTS * 2;
    let mut seen = 0;
    for some in events(0..EVENTS, 50).chunks(1_000) {
        process.publish_all(&topic, some.to_vec()).await?;
        seen += fast.take(some.len()).await?.len();
        let status = process.status(&stuck)?;
        holds("the queue keeps to its limit", status.queued <= limit, &status)?;
    }
    same("events of the other subscription", seen, EVENTS)?;
    let status = process.until("that it is behind by what its queue does not hold", &stuck, |status| {
        // At least: positions of some brokers have gaps, and are counted all the same.
        status.behind + status.queued as u64 >= EVENTS as u64
    });
    holds("it is behind", status.await?.behind > 0, ())?;
    let numbers =
        in_order(&stuck, EVENTS, |queued| holds("the queue keeps to its limit", queued <= limit, queued), &process)
            .await?;
    same("events of the slow one", numbers, EVENTS)?;
    stuck.nothing("after all events").await?;
    process.until("that it has caught up", &stuck, |status| status.behind == 0 && status.queued == 0).await?;
    // Large events are bounded by their bytes.
    let large: Vec<_> = (0..60).map(|n| sized(n.to_string(), "", 512 * 1024)).collect();
    process.publish_all(&topic, large).await?;
    same("large events of the fast one", fast.take(60).await?.len(), 60)?;
    let most = 2 * (limits::DELIVERY_QUEUE_BYTES / (512 * 1024) + 1);
    let status = process.status(&stuck)?;
    holds("the queue keeps to its bytes", status.queued <= most, &status)?;
    same("large events of the slow one", stuck.take(60).await?.len(), 60)
}

/// Takes and settles that many events of [`events`] over 50 keys, looking after each hundred; in the order of keys.
async fn in_order(
    sink: &Sink,
    count: usize,
    look: impl Fn(usize) -> Outcome,
    process: &Process,
) -> Result<usize, Failure> {
    let mut last: BTreeMap<usize, usize> = BTreeMap::new();
    for taken in 0..count {
        let id = sink.take(1).await?.remove(0);
        let number: usize = id.parse()?;
        if let Some(before) = last.insert(number % 50, number) {
            same("the next of its key", number, before + 50)?;
        }
        if taken % 100 == 0 {
            look(process.status(sink)?.queued)?;
        }
    }
    Ok(count)
}

/// A subscription whose attempts may take long, so that each change waits for what is out, however busy the machine is.
fn patient(name: &str, topics: &str) -> SubscriptionSpec {
    SubscriptionSpec { timeout: std::time::Duration::from_secs(60), ..subscription(name, topics) }
}

pub(super) async fn updates(fixture: Arc<dyn Fixture>) -> Outcome {
    const EVENTS: usize = 2_000;
    let process = Arc::new(Process::start(&fixture, &Arc::default()).await?);
    let topic = process.topic("orders", 2).await?;
    process.subscribe(patient("s", "orders"), Start::Latest).await?;
    let publisher = {
        let (process, topic) = (Arc::clone(&process), Arc::clone(&topic));
        process.clone().environment.spawn(async move {
            for some in events(0..EVENTS, 20).chunks(25) {
                process.publish_all(&topic, some.to_vec()).await?;
            }
            Ok::<_, Failure>(())
        })
    };
    let seen: Arc<Mutex<Vec<usize>>> = Arc::default();
    let taker = {
        let (process, seen) = (Arc::clone(&process), Arc::clone(&seen));
        process.clone().environment.spawn(async move {
            while seen.lock().len() < EVENTS {
                // After each change the subscription is taken up again, as whoever delivers it does.
                let Ok(sink) = process.resume("s") else {
                    tokio::task::yield_now().await;
                    continue;
                };
                while let Some(delivery) = sink.consumer.next().await {
                    seen.lock().push(delivery.event().id().parse().unwrap_or(usize::MAX));
                    tokio::task::yield_now().await;
                    delivery.done(&Attempt::default());
                    if seen.lock().len() >= EVENTS {
                        break;
                    }
                }
                tokio::task::yield_now().await;
            }
        })
    };
    for round in 0..10 {
        let reached = || seen.lock().len() >= EVENTS / 12 * (round as usize + 1);
        let waited = tokio::time::timeout(std::time::Duration::from_secs(60), async {
            while !reached() {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        });
        waited.await.map_err(|_| Failure::late(format!("expected progress, seen {} events", seen.lock().len())))?;
        let mut spec = patient("s", "orders");
        spec.max_in_flight = 5 + round;
        process.consume.update_subscription(spec).await?;
    }
    publisher.await??;
    let waited = tokio::time::timeout(std::time::Duration::from_secs(60), taker).await;
    waited.map_err(|_| Failure::late(format!("expected {EVENTS} events, seen {}", seen.lock().len())))??;
    let mut last: BTreeMap<usize, usize> = BTreeMap::new();
    let seen = seen.lock().clone();
    for number in &seen {
        // What was out was waited for, so that each event comes once.
        let before = last.insert(number % 20, *number);
        same("the next of its key", *number, before.map_or(number % 20, |before| before + 20))?;
    }
    same("events", seen.len(), EVENTS)
}

pub(super) async fn counted(fixture: Arc<dyn Fixture>) -> Outcome {
    const EVENTS: usize = 4_000;
    let process = Process::start(&fixture, &Arc::default()).await?;
    // Records of its partitions come in turn, which on some brokers stand in one row.
    let topic = process.topic("orders", 4).await?;
    let sink = process.subscribe(subscription("s", "orders"), Start::Latest).await?;
    let all = process.subscribe(subscription("all", "orders"), Start::Latest).await?;
    process.consume.pause(&"s".into(), Some("for a look".to_owned())).await?;
    process.publish_all(&topic, events(0..EVENTS, 40)).await?;
    let held = async || {
        let mut held = Vec::new();
        for id in topic.logs() {
            held.push(process.log.count(&id, Position::ZERO).await?);
        }
        Ok::<_, Failure>(held)
    };
    let lag = async || Ok::<_, Failure>(process.consume.lag(sink.uid).await?.map(|lag| lag.events));
    let before = held().await?;
    same("events of the topic", before.iter().sum::<u64>(), EVENTS as u64)?;
    same("lag of a subscription that is paused", lag().await?, Some(EVENTS as u64))?;
    // Once another one had them all, all of them were routed.
    all.take(EVENTS).await?;
    let behind = until(&process, &sink, EVENTS as u64, |status| status.queued as u64 + status.behind).await?;
    holds("it reads for itself", behind > 0, behind)?;
    process.consume.pause(&"s".into(), None).await?;
    sink.take(EVENTS).await?;
    until(&process, &sink, 0, |status| status.queued as u64 + status.behind).await?;
    process.publish_all(&topic, events(0..6, 3)).await?;
    let out = sink.hold(3).await?;
    same("lag in the midst of the topic", lag().await?, Some(6))?;
    drop(out);
    let first = topic.log(0);
    let middle = process.records(&first, Position::ZERO).await?[before[0] as usize / 2].position;
    process.log.trim(&first, middle).await?;
    let left = process.records(&first, middle).await?.len() as u64;
    same("events that are left of a partition", held().await?[0], left)
}

/// Waits until a figure of the status of a subscription, as users are shown it, is what is expected; gives what it is behind.
async fn until(process: &Process, sink: &Sink, expected: u64, of: impl Fn(&Status) -> u64) -> Result<u64, Failure> {
    let mut seen = None;
    let waiting = async {
        loop {
            seen = process.consume.statuses(&[sink.uid]).await.value.remove(&sink.uid);
            if let Some(status) = seen.as_ref().filter(|status| of(status) == expected) {
                return status.behind;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(std::time::Duration::from_secs(60), waiting).await;
    waited.map_err(|_| Failure::late(format!("expected {expected} events, seen {seen:?}")))
}

pub(super) async fn failed_update(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::join(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 1).await?;
    let sink = process.subscribe(subscription("s", "orders"), Start::Latest).await?;
    process.publish(&topic, event("1", "k")).await?;
    same("before", sink.take(1).await?, vec!["1".to_owned()])?;
    process.log.refuse(|id| matches!(id, LogId::Slot { .. }));
    let mut spec = subscription("s", "orders");
    let before = spec.max_in_flight;
    spec.max_in_flight = 3;
    let refused = process.consume.update_subscription(spec).await.is_err();
    process.log.allow();
    holds("the change is refused while the slot cannot be written", refused, refused)?;
    process.publish(&topic, event("2", "k")).await?;
    let delivering = async {
        loop {
            // As after a change that was made, whoever delivers it takes it up again where it ended.
            while let Ok(sink) = process.resume("s")
                && let Some(delivery) = sink.consumer.next().await
            {
                let id = delivery.event().id().to_string();
                delivery.done(&Attempt::default());
                // The first may come again: that it was settled could not be written either.
                if id != "1" {
                    return id;
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let seen = tokio::time::timeout(std::time::Duration::from_secs(60), delivering).await;
    let seen = seen.map_err(|_| Failure::late("expected that deliveries go on, none came"))?;
    same("afterwards", seen.as_str(), "2")?;
    let spec = process.consume.catalogue().subscription("s").map(|subscription| subscription.spec.max_in_flight);
    // Where the slot is shared its owner writes what it has begun as soon as it can, and whoever asked was told that this is
    // not known.
    let late = (!process.log.capability().exclusive).then_some(3);
    holds("it is as it was", spec == Some(before) || spec == late, spec)?;
    process.stop().await;
    Ok(())
}
