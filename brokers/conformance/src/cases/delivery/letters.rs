//! Dead letters.

use std::sync::Arc;
use std::time::Duration;

use tidegate_backbone::consume::{
    Attempt, DEAD_LETTER_ATTRIBUTE, LetterId, Reason, Redrive, Selection, Start, open_dead_letter,
};
use tidegate_backbone::{Clock as _, LogId, PartitionLog as _, Position};
use tidegate_routing::topic::TopicPattern;

use crate::clock::HeldClock;
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
    let letters = process.consume.dead_letters(&"failing".into(), &Selection::default(), None, 10).await?.value;
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
    same(
        "of another subscription",
        process.consume.dead_letters(&"other".into(), &Selection::default(), None, 10).await?.value.len(),
        0,
    )?;
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

    same(
        "redriven",
        process.consume.redrive(&"failing".into(), &Selection::default(), &Redrive::default()).await?.value.ids.len(),
        1,
    )?;
    let again = failing.expect("0").await?;
    same("attempts begin anew", again.attempt(), 1)?;
    same("the original event", again.event().as_ref().clone(), original)?;
    again.done(&Attempt::default());
    for sink in [&failing, &other, &everything] {
        sink.nothing("beyond the redriven event").await?;
    }
    same(
        "redriven again",
        process.consume.redrive(&"failing".into(), &Selection::default(), &Redrive::default()).await?.value.ids.len(),
        0,
    )?;
    same(
        "letters",
        process.consume.dead_letters(&"failing".into(), &Selection::default(), None, 10).await?.value.len(),
        0,
    )
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
    waited.await.map_err(|_| Failure::late("expected the letter to be tried again, seen fewer than 3 tries"))?;
    sink.nothing("of its key").await?;
    same("out", process.status(&sink)?.in_flight, 1)?;
    process.log.allow();
    writing.await?;
    same("the key goes on", sink.take(2).await?, ids(1..3))?;
    let letters = process.consume.dead_letters(&"s".into(), &Selection::default(), None, 10).await?.value;
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
        let some = process.consume.dead_letters(&name, &Selection::default(), after, 10).await?.value;
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
    same("dropped", process.consume.drop_dead_letters(&name, &Selection::of(some)).await?.value, 2)?;
    same("dropped again", process.consume.drop_dead_letters(&name, &Selection::of(some)).await?.value, 0)?;
    same(
        "redriven one",
        process
            .consume
            .redrive(&name, &Selection::of([all[4].id, all[3].id]), &Redrive::default())
            .await?
            .value
            .ids
            .len(),
        1,
    )?;
    same("it comes", sink.take(1).await?, vec![all[4].event.id().to_string()])?;
    same("left", process.consume.dead_letters(&name, &Selection::default(), None, 100).await?.value.len(), 22)?;
    same("dropped all", process.consume.drop_dead_letters(&name, &Selection::default()).await?.value, 22)?;
    sink.nothing("of what was dropped").await?;
    same("left", process.consume.dead_letters(&name, &Selection::default(), None, 100).await?.value.len(), 0)
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

/// Letters of a subscription over one key, in the order in which they came.
async fn letters_of(process: &Process, count: usize) -> Result<Vec<LetterId>, Failure> {
    let topic = process.topic("orders", 1).await?;
    let sink = process.subscribe(subscription("s", "orders"), Start::Latest).await?;
    process.publish_all(&topic, events(0..count, 1)).await?;
    for n in 0..count {
        let (reason, status) = if n == 0 { (EXHAUSTED, 503) } else { (Reason::Rejected, 422) };
        sink.expect(&n.to_string()).await?.dead_letter(reason, &answer(status)).await;
    }
    let letters = process.consume.dead_letters(&"s".into(), &Selection::default(), None, 100).await?.value;
    Ok(letters.iter().map(|letter| letter.id).collect())
}

pub(super) async fn redrive_rate(fixture: Arc<dyn Fixture>) -> Outcome {
    const INTERVAL: Duration = Duration::from_secs(10);
    let clock = Arc::<HeldClock>::default();
    let process = Process::start(&fixture, &clock).await?;
    same("letters", letters_of(&process, 5).await?.len(), 5)?;
    let name = "s".into();
    let redrive = Redrive { interval: Some(INTERVAL), ..Redrive::default() };
    let redriven = process.consume.redrive(&name, &Selection::default(), &redrive).await?.value;
    same("redriven", (redriven.ids.len(), redriven.more), (5, false))?;
    process.stop().await;
    // What was asked for is written down with its moments.
    let process = Process::start(&fixture, &clock).await?;
    let sink = process.resume("s")?;
    same("on their way", process.status(&sink)?.redriving, 5)?;
    same("none is listed", process.consume.dead_letters(&name, &Selection::default(), None, 9).await?.value.len(), 0)?;
    same("the first comes at once", sink.take(1).await?, ids(0..1))?;
    sink.nothing("before the interval is over").await?;
    process.advance(INTERVAL, &sink).await?;
    same("the next after the interval", sink.take(1).await?, ids(1..2))?;
    sink.nothing("before the interval is over again").await?;
    process.stop().await;
    let process = Process::start(&fixture, &clock).await?;
    let sink = process.resume("s")?;
    sink.nothing("earlier because of a restart").await?;
    process.advance(INTERVAL, &sink).await?;
    same("the next one", sink.take(1).await?, ids(2..3))?;
    process.advance(INTERVAL * 2, &sink).await?;
    let mut last = sink.take(2).await?;
    last.sort();
    same("both that are due", last, ids(3..5))?;
    process.until("nothing on its way", &sink, |status| status.redriving == 0).await.map(|_| ())
}

pub(super) async fn edited(fixture: Arc<dyn Fixture>) -> Outcome {
    let clock = Arc::<HeldClock>::default();
    let process = Process::start(&fixture, &clock).await?;
    let letters = letters_of(&process, 4).await?;
    let name = "s".into();
    let groups = process.consume.dead_letter_groups(&name, &Selection::default()).await?.value;
    let told: Vec<_> = groups.iter().map(|group| (group.kind.to_string(), group.count, group.example)).collect();
    let expected = vec![("rejected-422".to_owned(), 3, letters[3]), ("exhausted-503".to_owned(), 1, letters[0])];
    same("groups", told, expected)?;
    let rejected = Selection { kind: Some(groups[0].kind), ..Selection::default() };
    same("of a kind", process.consume.dead_letters(&name, &rejected, None, 9).await?.value.len(), 3)?;

    let edit = event("1", "k0").into_builder().subject("mended").build()?;
    let edits = [(letters[1], edit)].into_iter().collect();
    let chosen = Selection::of([letters[1], letters[2]]);
    let dry = Redrive { edits, dry: true, ..Redrive::default() };
    let would = process.consume.redrive(&name, &chosen, &dry).await?.value;
    same("a dry run tells which", would.ids, letters[1..3].to_vec())?;
    same(
        "and does nothing",
        process.consume.dead_letters(&name, &Selection::default(), None, 9).await?.value.len(),
        4,
    )?;
    let redrive = Redrive { dry: false, ..dry };
    process.consume.redrive(&name, &chosen, &redrive).await?;
    process.stop().await;

    let process = Process::start(&fixture, &clock).await?;
    let sink = process.resume("s")?;
    let mut seen = Vec::new();
    for delivery in sink.hold(2).await? {
        seen.push((delivery.event().id().to_string(), delivery.event().subject().map(ToString::to_string)));
        delivery.done(&Attempt::default());
    }
    seen.sort();
    same(
        "the edited event, and the other as it was",
        seen,
        vec![("1".to_owned(), Some("mended".to_owned())), ("2".to_owned(), None)],
    )?;
    sink.nothing("beyond the two").await?;
    let left = process.consume.dead_letters(&name, &Selection::default(), None, 9).await?.value;
    same("left", left.iter().map(|letter| letter.id).collect::<Vec<_>>(), vec![letters[0], letters[3]])?;
    // The stored event is what it was, and the edited one names it.
    let topic = LogId::Topic { topic: "dead.s".into(), partition: letters[1].partition };
    let records = process.records(&topic, letters[1].position).await?;
    same("the stored event", open_dead_letter(event_of(&records[0])?).0.subject(), None)?;
    let names = records.iter().filter_map(|stored| open_dead_letter(event_of(stored).ok()?).1?.edited_from);
    same("the letter that stands for it", names.collect::<Vec<_>>(), vec![letters[1].to_string()])
}
