//! Topics that keep their events for a while only.

use std::sync::Arc;
use std::time::Duration;

use tidegate_backbone::catalogue::{Origin, Retention, Topic, TopicSpec};
use tidegate_backbone::consume::{Attempt, Start};
use tidegate_backbone::{ErrorKind, PartitionLog as _, Position};
use tidegate_routing::topic::TopicName;

use super::table;
use crate::expect::{Failure, Outcome, holds, same};
use crate::fixture::Fixture;
use crate::process::{Process, event, event_of, events, ids, sized, subscription};
use crate::runner::Case;

pub(super) fn cases() -> Vec<Case> {
    table! {
        "RET-01" "events older than a topic keeps them go, and no younger ones" [] by_age;
        "RET-02" "a partition beyond its bytes loses its oldest events, and keeps what fits" [] by_bytes;
        "RET-03" "a subscription that lags loses what goes, is told how much, and goes on with the rest" [] lagging;
        "RET-04" "a subscription that keeps up loses nothing, and what waits for a retry is told when it goes" [] keeping_up;
        "RET-05" "a topic without retention keeps everything, and what is set anew holds at once" [Reopen] set_anew;
    }
}

const HOUR: Duration = Duration::from_secs(3600);

async fn topic(process: &Process, name: &str, retention: Retention) -> Result<Arc<Topic>, Failure> {
    let mut spec = TopicSpec::new(TopicName::parse(name)?, 1, Origin::Api);
    spec.dedupe_window = Duration::ZERO;
    spec.retention = retention;
    Ok(process.consume.create_topic(spec).await?.0)
}

fn age(age: Duration) -> Retention {
    Retention { age: Some(age), bytes: None }
}

/// The ids that are left.
async fn left(process: &Process, topic: &Topic) -> Result<Vec<String>, Failure> {
    let begin = process.log.info(&topic.log(0)).await?.begin;
    let records = process.records(&topic.log(0), begin).await?;
    records.iter().map(|stored| Ok(event_of(stored)?.id().to_string())).collect()
}

async fn by_age(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = topic(&process, "orders", age(HOUR)).await?;
    let other = process.topic("others", 1).await?;
    process.publish_all(&topic, events(0..10, 0)).await?;
    process.publish_all(&other, events(0..10, 0)).await?;
    process.clock.advance(HOUR / 2);
    process.publish_all(&topic, events(10..20, 0)).await?;
    same("what goes before its time", process.consume.retain().await, 0)?;
    process.clock.advance(HOUR / 2 + Duration::from_millis(1));
    holds("something goes", process.consume.retain().await > 0, ())?;
    same("what is left", left(&process, &topic).await?, ids(10..20))?;
    same("of a topic that keeps its events for longer", left(&process, &other).await?.len(), 10)?;
    match process.log.tail(&topic.log(0), Position::ZERO).await {
        Err(error) if matches!(error.kind(), ErrorKind::PositionLost { .. }) => {}
        outcome => {
            return Err(Failure::new(format!("expected that a trimmed position is told, seen {:?}", outcome.err())));
        }
    }
    process.clock.advance(HOUR);
    process.consume.retain().await;
    same("what is left in the end", left(&process, &topic).await?.len(), 0)?;
    process.publish(&topic, event("20", "")).await?;
    same("what comes afterwards", left(&process, &topic).await?, ids(20..21))
}

async fn by_bytes(fixture: Arc<dyn Fixture>) -> Outcome {
    const BYTES: u64 = 1024 * 1024;
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = topic(&process, "orders", Retention { age: None, bytes: Some(BYTES) }).await?;
    for n in 0..40 {
        process.publish(&topic, sized(n.to_string(), "", 20_000)).await?;
    }
    same("what goes while all fit", process.consume.retain().await, 0)?;
    for n in 40..160 {
        process.publish(&topic, sized(n.to_string(), "", 20_000)).await?;
    }
    holds("something goes", process.consume.retain().await > 0, ())?;
    let bytes = process.log.info(&topic.log(0)).await?.bytes;
    // A broker may count what it stores around an event, so a little less than what fits may be left.
    holds("what is left fits, and is about what fits", (BYTES * 3 / 4..=BYTES).contains(&bytes), bytes)?;
    let left = left(&process, &topic).await?;
    same("the newest are left", left.clone(), ids(160 - left.len()..160))
}

async fn lagging(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = topic(&process, "orders", age(HOUR)).await?;
    let sink = process.subscribe(subscription("s", "orders"), Start::Latest).await?;
    process.consume.pause(&"s".into(), Some("for a look".to_owned())).await?;
    // More than waits in memory, so that the rest has to be read again.
    process.publish_all(&topic, events(0..3_000, 0)).await?;
    process.until("that it reads for itself", &sink, |status| status.behind > 0).await?;
    let waiting = process.status(&sink)?.queued;
    process.clock.advance(HOUR * 2);
    process.publish_all(&topic, events(3_000..3_010, 0)).await?;
    process.consume.retain().await;
    let trimmed = process.status(&sink)?.trimmed;
    same("what it is told that it lost", trimmed, 3_000 - waiting as u64)?;
    process.consume.retain().await;
    same("told once", process.status(&sink)?.trimmed, trimmed)?;
    process.consume.pause(&"s".into(), None).await?;
    let mut seen = sink.take(waiting + 10).await?;
    let last = seen.split_off(waiting);
    seen.sort_by_key(|id| id.parse::<usize>().unwrap_or_default());
    same("what it had read is delivered", seen, ids(0..waiting))?;
    same("what comes after the gap", last, ids(3_000..3_010))?;
    sink.nothing("of what is gone").await
}

async fn keeping_up(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = topic(&process, "orders", age(HOUR)).await?;
    let sink = process.subscribe(subscription("s", "orders"), Start::Latest).await?;
    process.publish_all(&topic, events(0..20, 20)).await?;
    sink.expect("0").await?.retry(HOUR * 3, &Attempt::default());
    same("the others", sink.take(19).await?, ids(1..20))?;
    process.until("that all were read", &sink, |status| status.behind == 0 && status.queued == 0).await?;
    process.clock.advance(HOUR * 2);
    process.consume.retain().await;
    same("what it lost", process.status(&sink)?.trimmed, 0)?;
    process.advance(HOUR * 2, &sink).await?;
    process.until("that the event which waited is told", &sink, |status| status.trimmed == 1).await?;
    process.publish(&topic, event("20", "k0")).await?;
    same("its key goes on", sink.take(1).await?, ids(20..21))
}

async fn set_anew(fixture: Arc<dyn Fixture>) -> Outcome {
    let clock = Arc::default();
    let process = Process::start(&fixture, &clock).await?;
    let topic = topic(&process, "orders", Retention::default()).await?;
    process.publish_all(&topic, events(0..10, 0)).await?;
    process.clock.advance(HOUR * 24 * 365);
    same("what goes", process.consume.retain().await, 0)?;
    let mut spec = topic.spec.clone();
    spec.retention = age(HOUR);
    let (changed, created) = process.consume.create_topic(spec).await?;
    same("set anew", (changed.spec.retention, created), (age(HOUR), false))?;
    process.stop().await;
    let process = Process::start(&fixture, &clock).await?;
    holds("something goes after a restart", process.consume.retain().await > 0, ())?;
    same("what is left", left(&process, &topic).await?.len(), 0)
}
