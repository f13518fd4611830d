//! The control of `faults.rs` and of the gateways' tests: what the broker loses by itself, where a client asks it for less than
//! the adapter does; and that the adapter, on the same broker in the same moment, loses nothing.
#![allow(clippy::disallowed_methods, reason = "a test beside the product, not inside it")]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::*;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::Consumer as _;
use rdkafka::message::Message as _;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};
use tidegate_backbone::{PartitionLog as _, Position, Record};
use tidegate_conformance::Broker;

/// The node that leads the first partition of a topic.
fn leader(url: &str, topic: &str) -> Option<u32> {
    let metadata = consumer(url, "read_uncommitted").fetch_metadata(Some(topic), Duration::from_secs(5)).ok()?;
    let partition = metadata.topics().first()?.partitions().first()?;
    u32::try_from(partition.leader()).ok()
}

/// Every key of a topic of one partition.
fn keys(url: &str, topic: &str) -> BTreeSet<String> {
    let reader = consumer(url, "read_uncommitted");
    let (begin, end) = reader.fetch_watermarks(topic, 0, Duration::from_secs(30)).expect("it has a leader");
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, 0, Offset::Offset(begin)).unwrap();
    reader.assign(&assignment).unwrap();
    let mut keys = BTreeSet::new();
    let mut next = begin;
    let began = Instant::now();
    while next < end {
        assert!(began.elapsed() < HANG, "{topic} is read up to {next} and ends at {end}");
        // A node that is dead is an error to those who try it, and the next one answers.
        let Some(Ok(message)) = reader.poll(Duration::from_secs(1)) else { continue };
        next = message.offset() + 1;
        keys.insert(String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned());
    }
    keys
}

/// The followers stand still, the leader goes on and is killed, and the followers go on without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_dies_with_what_it_alone_has() {
    if std::env::var("TIDEGATE_FAULTS").as_deref() != Ok("all") {
        println!("left out without TIDEGATE_FAULTS=all: what kafka3 loses by itself");
        return;
    }
    let Some(server) = Broker::start("kafka3").await.filter(Broker::is_ours) else { return };
    let url = server.url();
    let admin: AdminClient<DefaultClientContext> = config(url).create().unwrap();
    let theirs = NewTopic::new("bare", 1, TopicReplication::Fixed(3));
    let waits = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
    admin.create_topics([&theirs], &waits).await.unwrap()[0].as_ref().unwrap();
    let (broker, environment) = open(url, "bare").await;
    let log = topic(&broker, "orders").await;
    broker.append(&log, Record::Event(event("before"))).await.unwrap();
    let bare: FutureProducer = config(url).set("acks", "1").set("linger.ms", "0").create().unwrap();
    let send = async |topic: &str, key: String| {
        bare.send(FutureRecord::<_, str>::to(topic).key(&key).payload("x"), Duration::from_secs(10)).await.is_ok()
    };
    assert!(send("bare", "before".to_owned()).await);

    // Both topics lie on the node that is to die, or the other one would be no control.
    let leading = leader(url, "bare").expect("it has a leader");
    let same = leader(url, "bare.orders") == Some(leading);
    for node in (1..=3).filter(|node| *node != leading) {
        server.pause(Some(node)).await;
    }
    let mut acknowledged = BTreeSet::new();
    for n in 0..50 {
        if send("bare", format!("bare-{n}")).await {
            acknowledged.insert(format!("bare-{n}"));
        }
    }
    assert!(!acknowledged.is_empty(), "the leader answers alone");
    let appends = {
        let (broker, log) = (Arc::clone(&broker), log.clone());
        environment.spawn(async move {
            let calls = (0..50).map(|n| (n, broker.append(&log, Record::Event(event(&n.to_string())))));
            let mut stored = Vec::new();
            for (n, call) in calls.collect::<Vec<_>>() {
                if call.await.is_ok() {
                    stored.push(n.to_string());
                }
            }
            stored
        })
    };
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!appends.is_finished(), "the adapter tells nothing before a follower has it");
    server.kill(Some(leading)).await;
    for node in (1..=3).filter(|node| *node != leading) {
        server.resume(Some(node)).await;
    }
    let stored = tokio::time::timeout(HANG, appends).await.expect("every append is answered").unwrap();
    let elected = async {
        while leader(url, "bare").is_none_or(|node| node == leading) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(HANG, elected).await.expect("a follower leads");
    let there = keys(url, "bare");
    let lost = acknowledged.difference(&there).count();
    println!(
        "a client with acks=1: {} acknowledged, {lost} lost (one leader for both topics: {same})",
        acknowledged.len()
    );
    assert!(lost > 0, "the fault did not bite: {there:?}");
    assert!(there.contains("before"), "what the followers had is there");

    let mut ids = BTreeSet::new();
    let reading = async {
        // The reader may begin while its partition has no leader yet.
        while broker.info(&log).await.is_err() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        read(&broker, &log, Position::ZERO).await
    };
    for record in tokio::time::timeout(HANG, reading).await.expect("it can be read again") {
        ids.insert(id(&record).to_owned());
    }
    let missing: Vec<_> = stored.iter().filter(|id| !ids.contains(*id)).collect();
    println!("the adapter: {} acknowledged, {} lost", stored.len() + 1, missing.len());
    assert!(missing.is_empty() && ids.contains("before"), "{missing:?}");
    broker.close().await;
}
