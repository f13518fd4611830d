//! Subscriptions to which nothing goes out for a while.

use std::sync::Arc;

use tidegate_backbone::consume::{Attempt, Standing, Start};
use tidegate_schemas::limits;

use crate::clock::HeldClock;
use crate::expect::{Outcome, holds, same};
use crate::fixture::Fixture;
use crate::process::{Process, event, events, ids, subscription};

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
    same("standing", process.status(&sink)?.standing, Standing::Unreachable)?;
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
