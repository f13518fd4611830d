//! Dead letters.

use std::sync::Arc;
use std::time::Duration;

use tidegate_backbone::consume::{Attempt, DEAD_LETTER_ATTRIBUTE, Reason, Start, open_dead_letter};
use tidegate_backbone::{Clock as _, LogId, PartitionLog as _, Position};
use tidegate_routing::topic::TopicPattern;

use crate::expect::{Failure, Outcome, holds, same};
use crate::fixture::Fixture;
use crate::process::{EXHAUSTED, Process, answer, event, event_of, events, ids, subscription};

pub(super) async fn redrive(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 1).await?;
    let failing = process.subscribe(subscription("failing", "orders"), Start::Latest).await?;
    let other = process.subscribe(subscription("other", "orders"), Start::Latest).await?;
    let everything = process.subscribe(subscription("everything", "**"), Start::Latest).await?;
    let began = process.clock.unix_milliseconds();
    process.publish_all(&topic, events(0..3, 1)).await?;
    let first = failing.expect("0").await?;
    let original = first.event().as_ref().clone();
    first.retry(Duration::ZERO, &answer(503));
    process.clock.advance(Duration::from_secs(7));
    failing.expect("0").await?.dead_letter(EXHAUSTED, &answer(502)).await;
    same("the key goes on behind it", failing.take(2).await?, ids(1..3))?;
    same("the other subscription", other.take(3).await?, ids(0..3))?;
    same("a wildcard does not take dead letters in", everything.take(3).await?, ids(0..3))?;
    let letters = process.consume.dead_letters(&"failing".into(), None, 10).await?;
    same("letters", letters.len(), 1)?;
    let letter = &letters[0];
    same("the original event", letter.event.clone(), original.clone())?;
    let cause = &letter.cause;
    same(
        "the cause",
        (
            cause.subscription.as_ref(),
            cause.topic.as_ref(),
            cause.partition,
            cause.status,
            cause.attempts,
            cause.reason,
        ),
        ("failing", "orders", 0, Some(502), 2, Reason::Exhausted),
    )?;
    same("what the sink said", cause.detail.clone(), "answer 502".to_owned())?;
    same("its attempts", (cause.first_attempt_at, cause.last_attempt_at), (began, began + 7_000))?;
    same("of another subscription", process.consume.dead_letters(&"other".into(), None, 10).await?.len(), 0)?;
    // Stored as an event that any other client can read.
    let id = LogId::Topic { topic: "dead.failing".into(), partition: 0 };
    let mut stored = Vec::new();
    for info in process.log.list().await? {
        if matches!(&info.id, LogId::Topic { topic, .. } if topic == "dead.failing") {
            stored.extend(process.records(&info.id, Position::ZERO).await?);
        }
    }
    same(&format!("records of {id}"), stored.len(), 1)?;
    let raw = event_of(&stored[0])?;
    holds("it carries its cause", raw.extension(DEAD_LETTER_ATTRIBUTE).is_some(), raw)?;
    same("what it opens to", open_dead_letter(raw).0, original.clone())?;

    same("redriven", process.consume.redrive(&"failing".into(), None).await?, 1)?;
    let again = failing.expect("0").await?;
    same("attempts begin anew", again.attempt(), 1)?;
    same("the original event", again.event().as_ref().clone(), original)?;
    again.done(&Attempt::default());
    for sink in [&failing, &other, &everything] {
        sink.nothing("beyond the redriven event").await?;
    }
    same("redriven again", process.consume.redrive(&"failing".into(), None).await?, 0)?;
    same("letters", process.consume.dead_letters(&"failing".into(), None, 10).await?.len(), 0)
}

pub(super) async fn refused(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Arc::new(Process::start(&fixture, &Arc::default()).await?);
    let topic = process.topic("orders", 1).await?;
    let sink = process.subscribe(subscription("s", "orders"), Start::Latest).await?;
    process.publish_all(&topic, events(0..3, 1)).await?;
    process.log.refuse(|id| matches!(id, LogId::Topic { topic, .. } if topic == "dead.s"));
    let dead = sink.expect("0").await?;
    let writing = process.environment.spawn(async move { dead.dead_letter(EXHAUSTED, &answer(500)).await });
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        while process.log.refused() < 3 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    waited.await.map_err(|_| Failure("expected the letter to be tried again, seen fewer than 3 tries".into()))?;
    sink.nothing("of its key").await?;
    same("out", process.status(&sink)?.in_flight, 1)?;
    process.log.allow();
    writing.await?;
    same("the key goes on", sink.take(2).await?, ids(1..3))?;
    let letters = process.consume.dead_letters(&"s".into(), None, 10).await?;
    same("letters", letters.len(), 1)?;
    same("the event", letters[0].event.id().to_string(), "0".to_owned())?;
    // Given up while it cannot be written, the event comes again.
    process.log.refuse(|id| matches!(id, LogId::Topic { topic, .. } if topic == "dead.s"));
    process.publish(&topic, event("3", "k0")).await?;
    let dead = sink.expect("3").await?;
    let given_up = tokio::time::timeout(Duration::from_millis(20), dead.dead_letter(EXHAUSTED, &answer(500))).await;
    holds("it waits for the letter", given_up.is_err(), ())?;
    process.log.allow();
    same("it comes again", sink.take(1).await?, vec!["3".to_owned()])
}

pub(super) async fn listed(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 1).await?;
    let sink = process.subscribe(subscription("s", "orders"), Start::Latest).await?;
    process.publish_all(&topic, events(0..25, 25)).await?;
    for delivery in sink.hold(25).await? {
        delivery.dead_letter(Reason::Rejected, &answer(400)).await;
    }
    let name = "s".into();
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let some = process.consume.dead_letters(&name, after, 10).await?;
        holds("a part keeps to its limit", some.len() <= 10, some.len())?;
        let Some(last) = some.last() else { break };
        after = Some(last.id);
        all.extend(some);
    }
    let mut seen: Vec<usize> = all.iter().map(|letter| letter.event.id().parse()).collect::<Result<_, _>>()?;
    seen.sort_unstable();
    same("letters", seen, (0..25).collect())?;
    let parsed = all.iter().all(|letter| letter.id.to_string().parse() == Ok(letter.id));
    holds("names are read back", parsed, ())?;
    let some = [all[3].id, all[7].id];
    same("dropped", process.consume.drop_dead_letters(&name, Some(&some)).await?, 2)?;
    same("dropped again", process.consume.drop_dead_letters(&name, Some(&some)).await?, 0)?;
    same("redriven one", process.consume.redrive(&name, Some(&[all[4].id, all[3].id])).await?, 1)?;
    same("it comes", sink.take(1).await?, vec![all[4].event.id().to_string()])?;
    same("left", process.consume.dead_letters(&name, None, 100).await?.len(), 22)?;
    same("dropped all", process.consume.drop_dead_letters(&name, None).await?, 22)?;
    sink.nothing("of what was dropped").await?;
    same("left", process.consume.dead_letters(&name, None, 100).await?.len(), 0)
}

pub(super) async fn subscribed(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 1).await?;
    let sink = process.subscribe(subscription("s", "orders"), Start::Latest).await?;
    let mut spec = subscription("watch", "dead.s");
    spec.topics = vec![TopicPattern::parse("dead.s")?];
    let watch = process.subscribe(spec, Start::Latest).await?;
    process.publish_all(&topic, events(0..10, 1)).await?;
    for n in 0..10 {
        sink.expect(&n.to_string()).await?.dead_letter(Reason::Rejected, &answer(400)).await;
    }
    same("letters, as events", watch.take(10).await?, ids(0..10))
}
