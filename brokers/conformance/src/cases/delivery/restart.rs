//! What a restart and a crash cost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidegate_backbone::consume::{Attempt, Delivery, Selection, Start};

use crate::clock::HeldClock;
use crate::expect::{Failure, Outcome, holds, same};
use crate::fixture::Fixture;
use crate::process::{EXHAUSTED, Process, Sink, answer, event, events, ids, subscription};

const HOUR: Duration = Duration::from_secs(3600);

fn id(delivery: &Delivery) -> String {
    delivery.event().id().to_string()
}

pub(super) async fn settled_stays_settled(fixture: Arc<dyn Fixture>) -> Outcome {
    let clock = Arc::<HeldClock>::default();
    for round in 0..3 {
        let process = Process::start(&fixture, &clock).await?;
        let topic = process.topic("orders", 2).await?;
        let sink = if round == 0 {
            process.subscribe(subscription("s", "orders"), Start::Latest).await?
        } else {
            process.resume("s")?
        };
        sink.nothing("of what was settled before").await?;
        process.publish_all(&topic, events(round * 100..round * 100 + 100, 10)).await?;
        let mut seen: Vec<usize> = sink.take(100).await?.iter().map(|id| id.parse()).collect::<Result<_, _>>()?;
        seen.sort_unstable();
        same("this time", seen, (round * 100..round * 100 + 100).collect())?;
        process.stop().await;
    }
    Ok(())
}

pub(super) async fn attempts(fixture: Arc<dyn Fixture>) -> Outcome {
    let clock = Arc::<HeldClock>::default();
    let process = Process::start(&fixture, &clock).await?;
    let topic = process.topic("orders", 1).await?;
    process.subscribe(subscription("s", "orders"), Start::Latest).await?;
    process.publish_all(&topic, events(0..2, 1)).await?;
    process.stop().await;
    for attempt in 1..=5 {
        let process = Process::start(&fixture, &clock).await?;
        let sink = process.resume("s")?;
        process.advance(HOUR, &sink).await?;
        let delivery = sink.expect("0").await?;
        same("attempt", delivery.attempt(), attempt)?;
        same("age", delivery.age(), HOUR * (attempt - 1))?;
        delivery.retry(HOUR, &answer(503));
        process.stop().await;
    }
    let process = Process::start(&fixture, &clock).await?;
    let sink = process.resume("s")?;
    process.advance(HOUR, &sink).await?;
    sink.expect("0").await?.dead_letter(EXHAUSTED, &answer(503)).await;
    let cause = &process.consume.dead_letters(&"s".into(), &Selection::default(), None, 1).await?.value[0].cause;
    same("attempts of the cause", cause.attempts, 6)?;
    let next = sink.expect("1").await?;
    same("attempts of the next", next.attempt(), 1)
}

pub(super) async fn crash(fixture: Arc<dyn Fixture>) -> Outcome {
    let clock = Arc::<HeldClock>::default();
    let process = Process::start(&fixture, &clock).await?;
    let topic = process.topic("orders", 1).await?;
    let sink = process.subscribe(subscription("s", "orders"), Start::Latest).await?;
    process.publish_all(&topic, events(0..200, 0)).await?;
    let mut held = BTreeMap::new();
    // Out of order: of the first sixty, those divisible by three stay out.
    for _ in 0..60 {
        let delivery = sink.next().await?;
        let number: usize = id(&delivery).parse()?;
        if number.is_multiple_of(3) { drop(held.insert(number, delivery)) } else { delivery.done(&Attempt::default()) }
    }
    process.checkpointed().await;
    // These are settled after the last thing that was written down, unless that happened to be written in time.
    for _ in 0..20 {
        sink.next().await?.done(&Attempt::default());
    }
    process.crash(&fixture).await;
    drop(held);

    let process = Process::start(&fixture, &clock).await?;
    let sink = process.resume("s")?;
    let mut seen = BTreeSet::new();
    let last = loop {
        let delivery = sink.next().await?;
        let number: usize = id(&delivery).parse()?;
        holds("each comes once", seen.insert(number), number)?;
        delivery.done(&Attempt::default());
        if seen.contains(&199) && (0..200).filter(|n| n % 3 == 0 && *n < 60).all(|n| seen.contains(&n)) {
            break number;
        }
    };
    sink.nothing("after all events").await?;
    let settled_and_written: BTreeSet<usize> = (0..60).filter(|n| n % 3 != 0).collect();
    let again: Vec<_> = seen.intersection(&settled_and_written).collect();
    holds("what was settled and written down does not come again", again.is_empty(), (again, last))?;
    let lost: Vec<usize> = (80..200).filter(|n| !seen.contains(n)).collect();
    holds("nothing is lost", lost.is_empty(), lost)
}

pub(super) async fn order_through_crashes(fixture: Arc<dyn Fixture>) -> Outcome {
    const KEYS: usize = 8;
    const EVENTS: usize = 800;
    let clock = Arc::<HeldClock>::default();
    let process = Process::start(&fixture, &clock).await?;
    let topic = process.topic("orders", 2).await?;
    process.subscribe(subscription("s", "orders"), Start::Latest).await?;
    process.publish_all(&topic, events(0..EVENTS, KEYS)).await?;
    process.crash(&fixture).await;
    let mut seen: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut round = 0;
    while seen.values().filter(|of_key| of_key.iter().any(|number| *number >= EVENTS - KEYS)).count() < KEYS {
        let process = Process::start(&fixture, &clock).await?;
        let sink = process.resume("s")?;
        for n in 0..150 + round * 40 {
            let next = tokio::time::timeout(Duration::from_secs(1), sink.consumer.next()).await;
            let Ok(Some(delivery)) = next else { break };
            let number: usize = id(&delivery).parse()?;
            let of_key = seen.entry(number % KEYS).or_default();
            let expected = of_key.iter().max().map_or(number % KEYS, |last| last + KEYS);
            // Again from anywhere behind, but never beyond one that was not seen.
            holds("no event of a key is passed over", number <= expected, (number, expected))?;
            of_key.push(number);
            match n % 7 {
                3 => delivery.retry(Duration::ZERO, &answer(503)),
                5 => drop(delivery),
                _ => delivery.done(&Attempt::default()),
            }
            if n % 50 == 49 {
                process.checkpointed().await;
            }
        }
        process.crash(&fixture).await;
        round += 1;
        if round > 40 {
            return Err(Failure::new(format!("expected an end, seen {round} restarts without one")));
        }
    }
    Ok(())
}

async fn begun(
    fixture: &Arc<dyn Fixture>,
    clock: &Arc<HeldClock>,
    count: usize,
    keys: usize,
) -> Result<(Process, Sink), Failure> {
    let process = Process::start(fixture, clock).await?;
    let topic = process.topic("orders", 1).await?;
    let sink = process.subscribe(subscription("s", "orders"), Start::Latest).await?;
    process.publish_all(&topic, events(0..count, keys)).await?;
    Ok((process, sink))
}

pub(super) async fn in_flight(fixture: Arc<dyn Fixture>) -> Outcome {
    let clock = Arc::<HeldClock>::default();
    let (process, sink) = begun(&fixture, &clock, 100, 0).await?;
    let mut held = Vec::new();
    for n in 0..100 {
        let delivery = sink.next().await?;
        if n % 10 == 4 { held.push(delivery) } else { delivery.done(&Attempt::default()) }
    }
    let out: BTreeSet<String> = held.iter().map(id).collect();
    drop(sink);
    // Written down while they are out; what becomes of them afterwards is not known to the next process.
    process.stop().await;
    drop(held);
    // Twice, as the first restart settles nothing and reads over old ground.
    for _ in 0..2 {
        let process = Process::start(&fixture, &clock).await?;
        let sink = process.resume("s")?;
        let again = sink.hold(out.len()).await?;
        same("what comes again", again.iter().map(id).collect::<BTreeSet<_>>(), out.clone())?;
        sink.nothing("but what was out").await?;
        drop(again);
        drop(sink);
        process.stop().await;
    }
    // A process that never came to reading over the old ground forgets nothing of it.
    let process = Process::start(&fixture, &clock).await?;
    process.consume.pause(&"s".into(), Some("for a restart".to_owned())).await?;
    process.stop().await;
    for paused in [true, false] {
        let process = Process::start(&fixture, &clock).await?;
        let sink = process.resume("s")?;
        sink.nothing("while it is paused").await?;
        if !paused {
            process.consume.pause(&"s".into(), None).await?;
            let again = sink.hold(out.len()).await?;
            same("what comes again", again.iter().map(id).collect::<BTreeSet<_>>(), out.clone())?;
            sink.nothing("but what was out").await?;
        }
        drop(sink);
        process.stop().await;
    }
    Ok(())
}

pub(super) async fn order(fixture: Arc<dyn Fixture>) -> Outcome {
    let clock = Arc::<HeldClock>::default();
    let (mut process, mut sink) = begun(&fixture, &clock, 60, 3).await?;
    let mut next = [0, 1, 2];
    for round in 0..6 {
        for n in 0..10 {
            let Ok(Some(delivery)) = tokio::time::timeout(Duration::from_secs(2), sink.consumer.next()).await else {
                break;
            };
            let number: usize = id(&delivery).parse()?;
            same("the next of its key", number, next[number % 3])?;
            match (n + round) % 5 {
                0 => delivery.retry(HOUR, &answer(503)),
                1 => delivery.retry(Duration::ZERO, &answer(503)),
                2 => drop(delivery),
                _ => {
                    next[number % 3] += 3;
                    delivery.done(&Attempt::default());
                }
            }
            process.advance(HOUR, &sink).await?;
        }
        let held = sink.next().await?;
        drop(held);
        process.stop().await;
        process = Process::start(&fixture, &clock).await?;
        sink = process.resume("s")?;
        process.advance(HOUR, &sink).await?;
    }
    while next.iter().any(|next| *next < 60) {
        let delivery = sink.next().await?;
        let number: usize = id(&delivery).parse()?;
        same("the next of its key", number, next[number % 3])?;
        next[number % 3] += 3;
        delivery.done(&Attempt::default());
    }
    sink.nothing("after all events").await
}

pub(super) async fn graceful(fixture: Arc<dyn Fixture>) -> Outcome {
    let clock = Arc::<HeldClock>::default();
    let (process, sink) = begun(&fixture, &clock, 50, 50).await?;
    let holder = {
        let sink = sink.clone();
        let held = sink.hold(20).await?;
        process.environment.spawn(async move {
            // Ends with the subscription's deliveries, and gives back what it holds.
            let ended = sink.consumer.next();
            let more = ended.await;
            drop(held);
            more.is_none()
        })
    };
    // It waits for a twenty-first, which comes; that one is dropped with the rest.
    let _ = holder.await?;
    let waiting = sink.hold(32).await?;
    same("out at once", waiting.len(), 32)?;
    let waiter = {
        let sink = sink.clone();
        process.environment.spawn(async move { sink.consumer.next().await.is_none() })
    };
    drop(sink);
    let dropped = process.environment.spawn(async move {
        tokio::task::yield_now().await;
        drop(waiting);
    });
    process.stop().await;
    dropped.await?;
    let _ = waiter.await?;
    let process = Process::start(&fixture, &clock).await?;
    same(
        "dead letters",
        process.consume.dead_letters(&"s".into(), &Selection::default(), None, 10).await?.value.len(),
        0,
    )?;
    let sink = process.resume("s")?;
    let mut seen = Vec::new();
    while seen.len() < 50 {
        let delivery = sink.next().await?;
        same("attempts counted", delivery.attempt(), 1)?;
        seen.push(id(&delivery).parse::<usize>()?);
        delivery.done(&Attempt::default());
    }
    seen.sort_unstable();
    same("all events", seen, (0..50).collect())
}

pub(super) async fn duplicates(fixture: Arc<dyn Fixture>) -> Outcome {
    let clock = Arc::<HeldClock>::default();
    let process = Process::start(&fixture, &clock).await?;
    let topic = process.topic_with("orders", 1, Duration::from_secs(60)).await?;
    let sink = process.subscribe(subscription("s", "orders"), Start::Latest).await?;
    process.publish_all(&topic, events(0..20, 0)).await?;
    same("at first", sink.take(20).await?.len(), 20)?;
    process.stop().await;
    clock.advance(Duration::from_secs(30));
    let process = Process::start(&fixture, &clock).await?;
    let sink = process.resume("s")?;
    // Repeats of what an earlier process delivered, and one that is new.
    process.publish_all(&topic, events(0..21, 0)).await?;
    same("the new one alone", sink.take(1).await?, vec!["20".to_owned()])?;
    clock.advance(Duration::from_secs(61));
    process.publish_all(&topic, events(0..3, 0)).await?;
    same("outside of the window", sorted(sink.take(3).await?), ids(0..3))?;
    sink.nothing("beyond these").await?;
    // One that comes later and reads all of it by itself comes to the same.
    let late = process.subscribe(subscription("late", "orders"), Start::Earliest).await?;
    let mut expected = [ids(0..21), ids(0..3)].concat();
    expected.sort();
    same("of a subscription that catches up", sorted(late.take(24).await?), expected)?;
    late.nothing("beyond these").await?;
    // And so does one that begins right before a repeat.
    let records = process.records(&topic.log(0), tidegate_backbone::Position::ZERO).await?;
    let start = Start::At(tidegate_backbone::Cursor(vec![records[25].position]));
    let middle = process.subscribe(subscription("middle", "orders"), start).await?;
    let mut expected = [ids(20..21), ids(0..3)].concat();
    expected.sort();
    same("of a subscription that begins among repeats", sorted(middle.take(4).await?), expected)?;
    middle.nothing("beyond these").await?;
    process.publish(&topic, event("end", "")).await?;
    for sink in [&sink, &late, &middle] {
        same("afterwards", sink.take(1).await?, vec!["end".to_owned()])?;
    }
    Ok(())
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort();
    ids
}
