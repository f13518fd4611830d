//! Topics and publishing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate_backbone::catalogue::{ChangeError, Origin, TopicSpec};
use tidegate_backbone::consume::Start;
use tidegate_backbone::{Applied, ErrorKind, LogId, LogSpec, PartitionLog as _, Position, Record};
use tidegate_routing::topic::TopicName;
use tidegate_schemas::event::{Data, Timestamp};
use tidegate_schemas::limits::{self, Limits};
use tidegate_schemas::{Event, Value};

use super::table;
use crate::clock::HeldClock;
use crate::expect::{Failure, Outcome, holds, same};
use crate::fixture::Fixture;
use crate::process::{Process, environment, event, event_of, events, ids, records, sized, stamping, subscription};
use crate::runner::Case;

pub(super) fn cases() -> Vec<Case> {
    table! {
        "PUB-01" "creating a topic twice gives the same topic, with what it holds" [] create_is_idempotent;
        "PUB-02" "the number of partitions of a topic never changes" [] other_partitions_are_refused;
        "PUB-03" "publishing to a topic that is not there is refused, and creates nothing" [] unknown_topic;
        "PUB-04" "what was acknowledged is read by a tail that is opened afterwards" [] acknowledged_is_readable;
        "PUB-05" "10,000 events published without waiting keep their order in each partition" [] order;
        "PUB-06" "the partition of a key and of an identity is the same on every broker" [] partitions;
        "PUB-07" "attributes come back as they went: Unicode, empty, 16 KiB in all" [] attributes;
        "PUB-08" "every attribute and type of CloudEvents comes back" [] types;
        "PUB-09" "an event without data is an event, and differs from one with empty data" [] no_data;
        "PUB-10" "an event of the greatest size passes; a record beyond the broker's is refused without effect" [] sizes;
        "PUB-11" "a repeat within the window is stored and not delivered; outside of it, it is" [] duplicates;
        "PUB-14" "no event that was acknowledged is missing after a crash amid publishing" [Crash] crash;
        "PUB-18" "a full disk refuses, loses nothing, and takes events again when there is room" [StorageFull] storage_full;
        "PUB-19" "receipts that nobody waits for leave nothing behind and undo nothing" [] dropped_receipts;
        "PUB-20" "the time of an event is not before its publishing, and never goes back" [] times;
    }
}

async fn create_is_idempotent(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 3).await?;
    process.publish_all(&topic, events(0..9, 9)).await?;
    let spec = topic.spec.clone();
    let (again, created) = process.consume.create_topic(spec).await?;
    same("created again", (again, created), (Arc::clone(&topic), false))?;
    process.log.create(LogSpec::topic("orders", 3)).await?;
    let more = process.log.create(LogSpec::topic("orders", 2)).await;
    same("fewer partitions", more.map_err(|error| error.kind().clone()), Err(ErrorKind::Conflict))?;
    let mut count = 0;
    for id in topic.logs() {
        count += process.records(&id, Position::ZERO).await?.len();
    }
    same("events afterwards", count, 9)
}

async fn other_partitions_are_refused(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    process.topic("orders", 2).await?;
    let spec = TopicSpec::new(TopicName::parse("orders")?, 3, Origin::Api);
    match process.consume.create_topic(spec).await {
        Err(ChangeError::OtherPartitions { existing: 2, wanted: 3, .. }) => {}
        other => return Err(Failure::new(format!("expected OtherPartitions, seen {other:?}"))),
    }
    let logs = process.log.list().await?;
    same("partitions", logs.iter().filter(|info| matches!(info.id, LogId::Topic { .. })).count(), 2)
}

async fn unknown_topic(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 1).await?;
    process.consume.delete_topic(&topic.spec.name).await?;
    let before = process.log.list().await?.len();
    same("topic", process.publisher.topic("orders").unwrap_err().kind().clone(), ErrorKind::NotFound)?;
    let error = process.publisher.publish(&topic, event("1", ""), Duration::from_secs(60)).await.unwrap_err();
    same("publish", (error.kind().clone(), error.applied()), (ErrorKind::NotFound, Applied::No))?;
    same("logs", process.log.list().await?.len(), before)
}

async fn acknowledged_is_readable(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 1).await?;
    for n in 0..50 {
        let receipt = process.publish(&topic, event(n.to_string(), "k")).await?;
        let records = process.records(&topic.log(0), Position::ZERO).await?;
        let last = records.last().ok_or_else(|| Failure::new("expected the event, seen an empty log"))?;
        same("the last event", event_of(last)?.id().to_string(), n.to_string())?;
        if let Some(position) = receipt.position {
            same("its position", position, last.position)?;
        }
    }
    Ok(())
}

async fn order(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 4).await?;
    process.publish_all(&topic, events(0..10_000, 100)).await?;
    let mut count = 0;
    for id in topic.logs() {
        let mut last: BTreeMap<String, usize> = BTreeMap::new();
        let mut position = None;
        for stored in process.records(&id, Position::ZERO).await? {
            let event = event_of(&stored)?;
            let number: usize = event.id().parse()?;
            holds("positions increase", position < Some(stored.position), (position, stored.position))?;
            position = Some(stored.position);
            let key = event.partition_key().unwrap_or_default().to_owned();
            if let Some(before) = last.insert(key.clone(), number) {
                holds("the order of a key is kept", before + 100 == number, (key, before, number))?;
            }
            count += 1;
        }
    }
    same("events", count, 10_000)
}

async fn partitions(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 7).await?;
    // From the definition of the function, by the reference implementation of XXH3.
    for (key, partition) in [("a", 1), ("abc", 2), ("customer-42", 3), ("orders/placed", 4), ("\u{fc}n\u{ef}code", 5)] {
        same(key, process.publish(&topic, event("1", key)).await?.partition, partition)?;
    }
    let plain = |source: &'static str, id: &'static str| Event::builder(id, source, "t").build().expect("valid");
    for (source, id, partition) in [("/s", "1", 2), ("ab", "c", 5), ("a", "bc", 6)] {
        same(source, process.publish(&topic, plain(source, id)).await?.partition, partition)?;
    }
    Ok(())
}

/// What went in, in the canonical form of each attribute, and what comes out.
async fn round_trip(process: &Process, name: &str, sent: Vec<Event>) -> Outcome {
    let topic = process.topic(name, 1).await?;
    process.publish_all(&topic, sent.clone()).await?;
    let stored = process.records(&topic.log(0), Position::ZERO).await?;
    same("count", stored.len(), sent.len())?;
    for (sent, stored) in sent.iter().zip(&stored) {
        let seen = event_of(stored)?;
        for name in ["id", "source", "type", "subject", "time", "datacontenttype", "dataschema"] {
            same(name, seen.attribute(name), sent.attribute(name))?;
        }
        let canonical = |event: &Event| -> BTreeMap<String, String> {
            event.extensions().map(|(name, value)| (name.to_string(), value.canonical().into_owned())).collect()
        };
        same("extensions", canonical(seen), canonical(sent))?;
        // The kind is what fits the content type: bindings carry bytes, and whether there are any.
        let payload = |event: &Event| (event.data().is_none(), event.data().to_bytes());
        same("data", payload(seen), payload(sent))?;
    }
    Ok(())
}

async fn attributes(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let text = |text: &str| Value::String(text.into());
    let unicode = Event::builder("\u{fc}-\u{1f30a}", "/quelle/%C3%A4", "com.example.\u{3b1}")
        .subject("a \"b\" 100% \u{10ffff}".replace('\u{10ffff}', "\u{10fffd}"))
        .extension("empty", text(""))
        .extension("percent", text("%20 %zz \u{e9}"))
        .build()?;
    let mut large = Event::builder("large", "/conformance", "com.example.case");
    for n in 0..15 {
        large = large.extension(format!("large{n}"), text(&"\u{e4}".repeat(500)));
    }
    round_trip(&process, "orders", vec![unicode, large.build()?]).await
}

async fn types(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let time = Timestamp::parse("2026-02-28T23:59:59.123456789+01:30").map_err(Failure::new)?;
    let all = Event::builder("1", "urn:example:source", "com.example.case")
        .subject("subject")
        .time("2026-01-02T03:04:05Z")
        .data_content_type("application/json; charset=utf-8")
        .data_schema("https://example.com/schema")
        .extension("yes", Value::Boolean(true))
        .extension("no", Value::Boolean(false))
        .extension("least", Value::Integer(i32::MIN))
        .extension("most", Value::Integer(i32::MAX))
        .extension("binary", Value::Binary(vec![0, 255, 10].into()))
        .extension("uri", Value::Uri("https://example.com/a?b#c".into()))
        .extension("reference", Value::UriReference("../a".into()))
        .extension("moment", Value::Timestamp(time))
        .data(Data::Text("{\"a\": [1, 2.50]}".into()))
        .build()?;
    let binary = Event::builder("2", "/s", "t").data(Data::Binary((0..=255).collect::<Vec<u8>>().into())).build()?;
    round_trip(&process, "orders", vec![all, binary]).await
}

async fn no_data(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let build = |data| Event::builder("1", "/s", "t").data(data).build();
    let sent = vec![build(Data::None)?, build(Data::Binary(Vec::new().into()))?, build(Data::Text("".into()))?];
    round_trip(&process, "orders", sent).await
}

async fn sizes(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 1).await?;
    let around = event("1", "k").bytes();
    let largest = sized("1", "k", limits::EVENT_BYTES - around);
    same("bytes of the event", largest.bytes(), limits::EVENT_BYTES)?;
    process.publish(&topic, largest.clone()).await?;
    let beyond = process.log.capability().record_bytes_max + 1;
    let unlimited = Limits { event_bytes: usize::MAX, ..Limits::default() };
    let data = Data::Binary(vec![b'x'; beyond].into());
    let larger = Event::builder("2", "/s", "t").data(data).build_within(&unlimited)?;
    let error = process.publisher.publish(&topic, larger, Duration::from_secs(60)).await.unwrap_err();
    holds("it is too large", matches!(error.kind(), ErrorKind::TooLarge { .. }), &error)?;
    same("effect", error.applied(), Applied::No)?;
    let stored = process.records(&topic.log(0), Position::ZERO).await?;
    same("stored", stored.len(), 1)?;
    same("data", event_of(&stored[0])?.data(), largest.data())
}

async fn duplicates(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = process.topic_with("orders", 1, Duration::from_secs(60)).await?;
    let sink = process.subscribe(subscription("s", "orders"), Start::Latest).await?;
    for id in ["a", "b", "a", "a", "c"] {
        process.publish(&topic, event(id, "")).await?;
    }
    same("within the window", sorted(sink.take(3).await?), ["a", "b", "c"].map(str::to_owned).to_vec())?;
    process.clock.advance(Duration::from_secs(61));
    process.publish(&topic, event("a", "")).await?;
    process.publish(&topic, event("d", "")).await?;
    same("outside of the window", sorted(sink.take(2).await?), ["a", "d"].map(str::to_owned).to_vec())?;
    // Another source is another event.
    let other = Event::builder("d", "/other", "t").build()?;
    process.publish(&topic, other).await?;
    same("of another source", sink.take(1).await?, vec!["d".to_owned()])?;
    sink.nothing("beyond these").await?;
    same("stored", process.records(&topic.log(0), Position::ZERO).await?.len(), 8)
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort();
    ids
}

async fn crash(fixture: Arc<dyn Fixture>) -> Outcome {
    let clock = Arc::<HeldClock>::default();
    let mut acknowledged: Vec<(String, Option<Position>)> = Vec::new();
    for round in 0..5 {
        let process = Process::start(&fixture, &clock).await?;
        let topic = process.topic("orders", 1).await?;
        let stored = process.records(&topic.log(0), Position::ZERO).await?;
        let there: Vec<(String, Option<Position>)> = stored
            .iter()
            .map(|stored| Ok((event_of(stored)?.id().to_string(), Some(stored.position))))
            .collect::<Result<_, Failure>>()?;
        for (id, position) in &acknowledged {
            let found = there.iter().any(|(seen, at)| seen == id && (position.is_none() || position == at));
            holds("what was acknowledged is there", found, (id, position))?;
        }
        let calls: Vec<_> = (0..400)
            .map(|n| {
                process.publisher.publish(&topic, sized(format!("{round}-{n}"), "k", 300), Duration::from_secs(60))
            })
            .collect();
        let mut calls: Vec<_> = calls.into_iter().map(|call| process.environment.spawn(call)).collect();
        // Dies while most of them are under way.
        for call in calls.drain(..40 * (round + 1)) {
            let receipt = call.await??;
            acknowledged.push((receipt.id.to_string(), receipt.position));
        }
        process.crash(&fixture).await;
        for call in calls {
            if let Ok(Ok(receipt)) = call.await {
                acknowledged.push((receipt.id.to_string(), receipt.position));
            }
        }
    }
    Ok(())
}

async fn storage_full(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 1).await?;
    let mut stored = Vec::new();
    process.publish(&topic, event("first", "k")).await?;
    stored.push("first".to_owned());
    fixture.fill(true);
    let mut refused = None;
    for n in 0..2_000 {
        let id = n.to_string();
        match process.publisher.publish(&topic, sized(id.clone(), "k", 64 * 1024), Duration::from_secs(60)).await {
            Ok(_) => stored.push(id),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    let error = refused.ok_or_else(|| Failure::new("expected a refusal, seen 2,000 acknowledgements"))?;
    let kind_fits = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::Backpressure { .. });
    holds("the disk is said to be full", kind_fits && error.applied() == Applied::No, &error)?;
    fixture.fill(false);
    process.publish(&topic, event("last", "k")).await?;
    stored.push("last".to_owned());
    let records = process.records(&topic.log(0), Position::ZERO).await?;
    let seen =
        records.iter().map(|stored| Ok(event_of(stored)?.id().to_string())).collect::<Result<Vec<_>, Failure>>()?;
    same("stored", seen, stored)
}

async fn dropped_receipts(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::start(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 1).await?;
    for n in 0..500 {
        drop(process.publisher.publish(&topic, event(n.to_string(), "k"), Duration::from_secs(60)));
    }
    process.publish(&topic, event("500", "k")).await?;
    let records = process.records(&topic.log(0), Position::ZERO).await?;
    let seen =
        records.iter().map(|stored| Ok(event_of(stored)?.id().to_string())).collect::<Result<Vec<_>, Failure>>()?;
    same("stored, in the order of the calls", seen, ids(0..501))
}

async fn times(fixture: Arc<dyn Fixture>) -> Outcome {
    let clock = Arc::<HeldClock>::default();
    // The adapter as it is: what it tells is what the case is about.
    let log = fixture.open(&environment(&clock)).await?;
    let id = LogId::Topic { topic: "orders".into(), partition: 0 };
    log.create(LogSpec::from(id.clone())).await?;
    let stamps = stamping(&fixture, &clock);
    let mut began = Vec::new();
    for n in 0..100 {
        clock.advance(Duration::from_millis(n % 7));
        began.push(stamps.unix_milliseconds());
        log.append(&id, Record::Event(event(n.to_string(), "k"))).await?;
    }
    let mut before = 0;
    let stored = records(log.as_ref(), &id, Position::ZERO).await?;
    same("events", stored.len(), began.len())?;
    for (stored, began) in stored.iter().zip(began) {
        holds("a time is not before the publish", stored.appended_at >= began, (stored.appended_at, began))?;
        holds("times do not go back", stored.appended_at >= before, (stored.appended_at, before))?;
        before = stored.appended_at;
    }
    let ended = stamps.unix_milliseconds();
    holds("no time is after the reading", before <= ended, (before, ended))
}
