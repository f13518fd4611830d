//! Keys that stand still, events that come later or never, and retries that wait for their budget.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidegate_backbone::catalogue::OnExhausted;
use tidegate_backbone::consume::{Attempt, Head, Reason, Redrive, Selection, Start, Which};
use tidegate_routing::schedule::{DELIVER_AT, EXPIRY_TIME};
use tidegate_schemas::{Event, Value, limits};

use crate::clock::HeldClock;
use crate::expect::{Outcome, holds, same};
use crate::fixture::Fixture;
use crate::process::{Process, answer, event, events, ids, subscription};

const HOUR: Duration = Duration::from_secs(3_600);

pub(super) async fn paused(fixture: Arc<dyn Fixture>) -> Outcome {
    let clock = Arc::<HeldClock>::default();
    let process = Process::start(&fixture, &clock).await?;
    let topic = process.topic("orders", 2).await?;
    let mut spec = subscription("s", "orders");
    spec.on_exhausted = OnExhausted::PauseKey;
    let sink = process.subscribe(spec, Start::Latest).await?;
    process.publish_all(&topic, events(0..2, 2)).await?;
    for _ in 0..2 {
        let delivery = sink.next().await?;
        if &**delivery.event().id() == "0" { delivery.pause_key(&answer(500)) } else { delivery.done(&answer(200)) }
    }
    process.publish_all(&topic, events(2..1_000, 2)).await?;
    let odd: Vec<String> = (3..1_000).step_by(2).map(|n| n.to_string()).collect();
    same("the other key", sink.take(499).await?, odd)?;
    process.advance(HOUR, &sink).await?;
    sink.nothing("of the key that stands still").await?;
    let status = process.status(&sink)?;
    same(
        "keys that stand still, that wait, events in memory",
        (status.paused_keys, status.parked, status.queued),
        (1, 0, 0),
    )?;
    process.stop().await;

    let process = Process::start(&fixture, &clock).await?;
    let sink = process.resume("s")?;
    sink.nothing("of the key that stands still, after a restart").await?;
    let keys = process.consume.paused_keys(sink.uid, 10).await?.value;
    let told = keys
        .first()
        .map(|paused| (paused.key.as_deref(), paused.attempts, paused.event.as_ref().map(|event| &**event.id())));
    same("it is told", told, Some((Some("k0"), 1, Some("0"))))?;
    let resume = |key: &str| {
        let which = Which::Key(key.to_owned());
        let consume = Arc::clone(&process.consume);
        async move { consume.resume_keys(&"s".into(), &which, Head::Retry).await }
    };
    same("keys of another name", resume("k1").await?.value, 0)?;
    same("keys that go on", resume("k0").await?.value, 1)?;
    let head = sink.expect("0").await?;
    same("nothing counts that was before", (head.attempt(), head.age()), (1, Duration::ZERO))?;
    head.done(&Attempt::default());
    let even: Vec<String> = (2..1_000).step_by(2).map(|n| n.to_string()).collect();
    same("its key in order", sink.take(499).await?, even)?;
    sink.nothing("after all events").await
}

pub(super) async fn skipped(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 1).await?;
    let sink = process.subscribe(subscription("s", "orders"), Start::Latest).await?;
    let name = "s".into();
    process.publish_all(&topic, events(0..3, 1)).await?;
    sink.expect("0").await?.pause_key(&answer(500));
    sink.nothing("behind the first").await?;
    same("keys", process.consume.resume_keys(&name, &Which::All, Head::DeadLetter).await?.value, 1)?;
    let letters = process.consume.dead_letters(&name, &Selection::default(), None, 10).await?.value;
    let told = letters.first().map(|letter| (&**letter.event.id(), letter.cause.reason, letter.cause.attempts));
    same("the dead letter", told, Some(("0", Reason::Exhausted, 1)))?;
    let second = sink.expect("1").await?;
    let (_, partition, position) = second.place();
    second.pause_key(&answer(500));
    let at = |position| Which::At { topic: "orders".to_owned(), partition, position };
    same("no key", process.consume.resume_keys(&name, &at(position.next()), Head::Drop).await?.value, 0)?;
    same("keys", process.consume.resume_keys(&name, &at(position), Head::Drop).await?.value, 1)?;
    same("what is left", sink.take(1).await?, ids(2..3))?;
    same("dead letters", process.consume.dead_letters(&name, &Selection::default(), None, 10).await?.value.len(), 1)?;
    let status = process.until("that nothing waits", &sink, |status| status.paused_keys + status.parked == 0).await?;
    holds("nothing is out", status.in_flight == 0, &status)
}

/// An event with a time.
fn timed(id: &str, key: &str, attribute: &'static str, unix_seconds: u64) -> Event {
    let days = unix_seconds / 86_400;
    // The cases begin on 2023-11-14, and none takes longer than to the end of that month.
    let (day, rest) = (days - 19_675 + 14, unix_seconds % 86_400);
    let time = format!("2023-11-{day:02}T{:02}:{:02}:{:02}Z", rest / 3_600, rest / 60 % 60, rest % 60);
    event(id, key).into_builder().extension(attribute, Value::String(time.into())).build().expect("the parts are valid")
}

const BEGIN: u64 = 1_700_000_000;

pub(super) async fn delayed(fixture: Arc<dyn Fixture>) -> Outcome {
    let clock = Arc::<HeldClock>::default();
    let process = Process::start(&fixture, &clock).await?;
    let topic = process.topic("orders", 1).await?;
    let sink = process.subscribe(subscription("s", "orders"), Start::Latest).await?;
    process.publish(&topic, timed("later", "k0", DELIVER_AT, BEGIN + 7_200)).await?;
    process.publish(&topic, timed("soon", "k0", DELIVER_AT, BEGIN + 3_600)).await?;
    process.publish(&topic, timed("past", "k0", DELIVER_AT, BEGIN - 3_600)).await?;
    process.publish_all(&topic, events(0..20, 1)).await?;
    let mut seen = sink.take(21).await?;
    let past = seen.iter().position(|id| id == "past");
    seen.retain(|id| id != "past");
    holds("one whose time has passed comes at once", past.is_some(), &seen)?;
    same("its key goes on", seen, ids(0..20))?;
    let status = process.status(&sink)?;
    same("waiting, in memory", (status.parked, status.queued), (2, 0))?;
    process.stop().await;
    let process = Process::start(&fixture, &clock).await?;
    let sink = process.resume("s")?;
    sink.nothing("before its time, after a restart").await?;
    process.advance(HOUR - Duration::from_secs(1), &sink).await?;
    sink.nothing("before its time").await?;
    process.advance(Duration::from_secs(1), &sink).await?;
    let delivery = sink.expect("soon").await?;
    same("waiting is no attempt", (delivery.attempt(), delivery.age()), (1, Duration::ZERO))?;
    delivery.retry(Duration::from_secs(60), &answer(503));
    process.advance(HOUR, &sink).await?;
    let mut seen = sink.take(2).await?;
    seen.sort();
    same("both", seen, vec!["later".to_owned(), "soon".to_owned()])?;
    sink.nothing("after all events").await
}

pub(super) async fn expired(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 1).await?;
    let sink = process.subscribe(subscription("s", "orders"), Start::Latest).await?;
    process.publish(&topic, timed("x", "k0", EXPIRY_TIME, BEGIN + 60)).await?;
    process.publish_all(&topic, events(0..1, 1)).await?;
    let first = sink.expect("x").await?;
    same("it has not expired", first.expired_at(), None)?;
    first.retry(HOUR, &answer(503));
    process.advance(HOUR, &sink).await?;
    let again = sink.expect("x").await?;
    same("it has expired", again.expired_at(), Some((BEGIN + 60) * 1_000))?;
    again.expire().await;
    same("its key goes on", sink.take(1).await?, ids(0..1))?;
    let letters = process.consume.dead_letters(&"s".into(), &Selection::default(), None, 10).await?.value;
    let told = letters.first().map(|letter| (&**letter.event.id(), letter.cause.reason, letter.cause.attempts));
    same("the dead letter", told, Some(("x", Reason::Expired, 1)))?;
    process.consume.redrive(&"s".into(), &Selection::default(), &Redrive::default()).await?;
    let redriven = sink.expect("x").await?;
    same("whoever redrives it wants it", redriven.expired_at(), None)?;
    redriven.done(&Attempt::default());
    Ok(())
}

pub(super) async fn budget(fixture: Arc<dyn Fixture>) -> Outcome {
    const KEYS: usize = 200;
    let at_once = (limits::RETRY_BUDGET_PER_SECOND * limits::RETRY_BUDGET_WINDOW.as_secs()) as usize;
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 1).await?;
    let mut spec = subscription("s", "orders");
    spec.max_in_flight = 1_000;
    let sink = process.subscribe(spec, Start::Latest).await?;
    process.publish_all(&topic, events(0..KEYS, KEYS)).await?;
    for delivery in sink.hold(KEYS).await? {
        delivery.refused(Duration::ZERO, &answer(404));
    }
    process.advance(Duration::from_millis(1), &sink).await?;
    for delivery in sink.hold(at_once).await? {
        delivery.refused(HOUR * 24, &answer(404));
    }
    sink.nothing("beyond the budget").await?;
    process.publish(&topic, event("first", "first")).await?;
    same("a first attempt does not wait for it", sink.take(1).await?, vec!["first".to_owned()])?;
    // Each second brings some more, and those that succeed cost nothing.
    process.advance(Duration::from_secs(1), &sink).await?;
    let mut left: BTreeSet<String> = BTreeSet::new();
    while left.len() < KEYS - at_once {
        left.extend(sink.take(1).await?);
    }
    sink.nothing("after all retries").await
}
