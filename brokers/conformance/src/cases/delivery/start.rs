//! Where subscriptions begin, and topics that come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate_backbone::consume::{Attempt, Start};
use tidegate_backbone::{Clock as _, Cursor, PartitionLog as _, Position};

use crate::clock::HeldClock;
use crate::expect::{Failure, Outcome, holds, same};
use crate::fixture::Fixture;
use crate::process::{Process, event, events, ids, subscription};

pub(super) async fn starts(fixture: Arc<dyn Fixture>) -> Outcome {
    let clock = Arc::<HeldClock>::default();
    let process = Process::start(&fixture, &clock).await?;
    let topic = process.topic("orders", 1).await?;
    process.publish_all(&topic, events(0..2_000, 1)).await?;
    clock.advance(Duration::from_secs(60));
    let time = clock.unix_milliseconds();
    process.publish_all(&topic, events(2_000..2_100, 1)).await?;
    let records = process.records(&topic.log(0), Position::ZERO).await?;
    let at = Cursor(vec![records[1_990].position]);
    let wanted = [
        ("earliest", Start::Earliest, 0),
        ("time", Start::Time(time), 2_000),
        ("at", Start::At(at), 1_990),
        ("latest", Start::Latest, 2_100),
        ("beyond", Start::At(Cursor(vec![Position(u64::MAX)])), 2_100),
        ("future", Start::Time(u64::MAX), 2_100),
    ];
    for (name, start, _) in &wanted {
        process.subscribe(subscription(name, "orders"), start.clone()).await?;
    }
    // Before anything was taken: where they begin is known to the next process all the same.
    process.checkpointed().await;
    process.publish_all(&topic, events(2_100..2_110, 1)).await?;
    process.stop().await;
    let process = Process::start(&fixture, &clock).await?;
    for (name, _, first) in wanted {
        let sink = process.resume(name)?;
        same(name, sink.take(2_110 - first).await?, ids(first..2_110))?;
        sink.nothing("after all events").await?;
    }
    Ok(())
}

pub(super) async fn ahead_of_the_router(fixture: Arc<dyn Fixture>) -> Outcome {
    let clock = Arc::<HeldClock>::default();
    let process = Process::start(&fixture, &clock).await?;
    let topic = process.topic("orders", 1).await?;
    let first = process.subscribe(subscription("first", "orders"), Start::Latest).await?;
    process.publish(&topic, event("0", "k")).await?;
    same("at first", first.take(1).await?, ids(0..1))?;
    // What is published now is in the topic, and nobody has read it when the next subscription begins at its end.
    process.log.hold_readers(true);
    process.publish_all(&topic, events(1..50, 1)).await?;
    let late = process.subscribe(subscription("late", "orders"), Start::Latest).await?;
    late.nothing("of what was before it").await?;
    process.checkpointed().await;
    process.stop().await;
    let process = Process::start(&fixture, &clock).await?;
    let (first, late) = (process.resume("first")?, process.resume("late")?);
    process.publish_all(&topic, events(50..60, 1)).await?;
    same("of the first", first.take(59).await?, ids(1..60))?;
    same("of the late one", late.take(10).await?, ids(50..60))
}

pub(super) async fn amid_publishing(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Arc::new(Process::start(&fixture, &Arc::default()).await?);
    let topic = process.topic("orders", 1).await?;
    process.subscribe(subscription("first", "orders"), Start::Latest).await?;
    let ended = Arc::new(AtomicBool::new(false));
    let publisher = {
        let (process, topic, ended) = (Arc::clone(&process), Arc::clone(&topic), Arc::clone(&ended));
        process.clone().environment.spawn(async move {
            let mut next = 0;
            while !ended.load(Ordering::SeqCst) {
                process.publish_all(&topic, events(next..next + 3, 1)).await?;
                next += 3;
            }
            Ok::<_, Failure>(())
        })
    };
    for round in 0..60 {
        let sink = process.subscribe(subscription("late", "orders"), Start::Latest).await?;
        let numbers: Vec<usize> = sink.take(40).await?.iter().map(|id| id.parse()).collect::<Result<_, _>>()?;
        same(&format!("of round {round}"), numbers.clone(), (numbers[0]..numbers[0] + 40).collect())?;
        process.consume.remove_subscription(&"late".into()).await?;
    }
    ended.store(true, Ordering::SeqCst);
    publisher.await?
}

pub(super) async fn trimmed(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 1).await?;
    let sink = process.subscribe(subscription("s", "orders"), Start::Latest).await?;
    process.publish_all(&topic, events(0..40, 1)).await?;
    sink.expect("0").await?.retry(Duration::from_secs(3600), &Attempt::default());
    process.until("that all were read", &sink, |status| status.queued == 0 && status.behind == 0).await?;
    let records = process.records(&topic.log(0), Position::ZERO).await?;
    process.log.trim(&topic.log(0), records[10].position).await?;
    let begin = process.log.info(&topic.log(0)).await?.begin;
    let first = records.iter().position(|stored| stored.position >= begin).unwrap_or(records.len());
    holds("no younger record was taken", first <= 10, first)?;
    process.advance(Duration::from_secs(3600), &sink).await?;
    same("what is left of the key", sink.take(40 - first).await?, ids(first..40))?;
    process.publish(&topic, event("40", "k0")).await?;
    same("afterwards", sink.take(1).await?, ids(40..41))
}

pub(super) async fn anew(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 1).await?;
    let sink = process.subscribe(subscription("s", "orders"), Start::Latest).await?;
    process.publish_all(&topic, events(0..10, 10)).await?;
    let held = sink.expect("0").await?;
    sink.expect("1").await?.retry(Duration::from_secs(3600), &Attempt::default());
    process.checkpointed().await;
    process.consume.remove_subscription(&"s".into()).await?;
    holds("deliveries have ended", sink.consumer.next().await.is_none(), ())?;
    let left = process.keys("delivery/exception/") + process.keys("delivery/parked/");
    same("what is left of its progress", left, 0)?;
    let again = process.subscribe(subscription("s", "orders"), Start::Earliest).await?;
    holds("it is another", again.uid != sink.uid, again.uid)?;
    held.done(&Attempt::default());
    same("all from the start", again.take(10).await?, ids(0..10))?;
    process.consume.remove_subscription(&"s".into()).await?;
    let latest = process.subscribe(subscription("s", "orders"), Start::Latest).await?;
    latest.nothing("of what was before it").await?;
    process.publish(&topic, event("10", "k")).await?;
    same("what comes", latest.take(1).await?, ids(10..11))
}

pub(super) async fn later_topics(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let sink = process.subscribe(subscription("s", "orders.*"), Start::Latest).await?;
    let named = process.subscribe(subscription("named", "orders.new"), Start::Latest).await?;
    for round in 0..5 {
        let topic = process.topic("orders.new", 2).await?;
        process.publish_all(&topic, events(0..20, 1)).await?;
        same("by pattern", sink.take(20).await?, ids(0..20))?;
        same("by name", named.take(10).await?, ids(0..10))?;
        let held = named.expect("10").await?;
        // Deleted while one is out and others wait.
        process.consume.delete_topic(&topic.spec.name).await?;
        held.done(&Attempt::default());
        named.nothing("of a topic that is gone").await?;
        process.checkpointed().await;
        same(&format!("routed positions in round {round}"), process.keys("delivery/routed/"), 0)?;
    }
    Ok(())
}

pub(super) async fn catch_up(fixture: Arc<dyn Fixture>) -> Outcome {
    const BEFORE: usize = 5_000;
    const ALL: usize = 9_000;
    let process = Arc::new(Process::start(&fixture, &Arc::default()).await?);
    let topic = process.topic_with("orders", 2, Duration::from_secs(120)).await?;
    // Another one keeps the routers at work.
    let other = process.subscribe(subscription("other", "orders"), Start::Latest).await?;
    process.publish_all(&topic, events(0..BEFORE, 20)).await?;
    same("the other one", other.take(BEFORE).await?.len(), BEFORE)?;
    let publisher = {
        let (process, topic) = (Arc::clone(&process), Arc::clone(&topic));
        process.clone().environment.spawn(async move {
            for some in events(BEFORE..ALL, 20).chunks(40) {
                process.publish_all(&topic, some.to_vec()).await?;
                // Each a second time: that is dropped, whoever reads it.
                process.publish_all(&topic, some[..5].to_vec()).await?;
            }
            Ok::<_, Failure>(())
        })
    };
    let mut late = Vec::new();
    for name in ["one", "two", "three"] {
        late.push(process.subscribe(subscription(name, "orders"), Start::Earliest).await?);
    }
    let takers: Vec<_> = late
        .iter()
        .map(|sink| {
            let sink = sink.clone();
            process.environment.spawn(async move { sink.take(ALL).await })
        })
        .collect();
    for taker in takers {
        let mut next: Vec<usize> = (0..20).collect();
        for id in taker.await?? {
            let number: usize = id.parse()?;
            same("the next of its key", number, next[number % 20])?;
            next[number % 20] += 20;
        }
    }
    publisher.await??;
    for sink in &late {
        sink.nothing("after all events").await?;
        process.until("that it has caught up", sink, |status| status.behind == 0).await?;
    }
    // Reading goes on where it waited for room: a reader that must begin anew reads a whole window of repeats first.
    let before = process.log.opened();
    let lone = process.subscribe(subscription("lone", "orders"), Start::Earliest).await?;
    same("of one that is alone", lone.take(ALL).await?.len(), ALL)?;
    let opened = process.log.opened() - before;
    holds("it keeps its readers", opened <= 5, opened)
}

pub(super) async fn deleted_topic(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let (gone, stays) = (process.topic("gone", 1).await?, process.topic("stays", 1).await?);
    let sink = process.subscribe(subscription("s", "*"), Start::Latest).await?;
    process.publish_all(&gone, events(0..3_000, 3)).await?;
    process.publish_all(&stays, events(0..100, 0)).await?;
    let held = sink.hold(3).await?;
    let dead_or_not = process.consume.delete_topic(&gone.spec.name).await;
    same("deleted", dead_or_not.is_ok(), true)?;
    for delivery in held {
        let topic = delivery.place().0.clone();
        if topic == "gone" {
            delivery.retry(Duration::ZERO, &Attempt::default());
        }
        // Those of the other topic are given back.
    }
    let mut seen: Vec<usize> = Vec::new();
    while seen.len() < 100 {
        let delivery = sink.next().await?;
        same("the topic", delivery.place().0.to_string(), "stays".to_owned())?;
        seen.push(delivery.event().id().parse()?);
        delivery.done(&Attempt::default());
    }
    seen.sort_unstable();
    same("of the other topic", seen, (0..100).collect())?;
    sink.nothing("of the topic that is gone").await?;
    let status = process.status(&sink)?;
    same("what is left", (status.queued, status.parked, status.in_flight), (0, 0, 0))
}
