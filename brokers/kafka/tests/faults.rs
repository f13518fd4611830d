//! The broker is killed, stands still, or its connections are cut, while it is written to and read: each test on a broker of
//! its own.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use common::*;
use tidegate_backbone::{Applied, Environment, ErrorKind, LogId, PartitionLog as _, Position, Record};
use tidegate_conformance::{Broker, Linked};
use tidegate_kafka::KafkaBroker;

/// What was acknowledged: the event, and where.
type Acknowledged = BTreeMap<Position, String>;

/// What was told as not stored.
type Refused = BTreeSet<String>;

/// Appends one after the other until told to stop; gives what was acknowledged, and what was refused.
async fn append(
    broker: Arc<KafkaBroker>,
    log: LogId,
    stop: tokio_util::sync::CancellationToken,
) -> (Acknowledged, Refused) {
    let (mut acknowledged, mut refused) = (Acknowledged::new(), Refused::new());
    let mut n = 0;
    while !stop.is_cancelled() {
        // Several at once, so that some are under way whenever it happens.
        let calls: Vec<_> =
            (n..n + 20).map(|n| (n.to_string(), broker.append(&log, Record::Event(event(&n.to_string()))))).collect();
        n += 20;
        for (id, call) in calls {
            match call.await {
                Ok(appended) => {
                    acknowledged.insert(appended.position.expect("Kafka tells positions"), id);
                }
                Err(error) if error.applied() == Applied::No => {
                    assert_eq!(error.kind(), &ErrorKind::Unavailable, "{error}");
                    refused.insert(id);
                }
                Err(_) => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (acknowledged, refused)
}

/// What a tail gave, against what was acknowledged or refused and what a fresh reader finds.
fn verify(
    acknowledged: &Acknowledged,
    refused: &Refused,
    followed: &Acknowledged,
    stored: &Acknowledged,
) -> Result<(), String> {
    if let Some(id) = stored.values().find(|id| refused.contains(*id)) {
        return Err(format!("event {id} was told as not stored, and is there"));
    }
    for (position, id) in acknowledged {
        if stored.get(position) != Some(id) {
            return Err(format!("event {id} was acknowledged at {position}, where {:?} stands", stored.get(position)));
        }
    }
    if followed != stored {
        return Err(format!("a tail gave {} records, and {} are stored", followed.len(), stored.len()));
    }
    Ok(())
}

async fn follow(
    broker: Arc<KafkaBroker>,
    log: LogId,
    until: tokio::sync::watch::Receiver<Option<Position>>,
) -> Acknowledged {
    let mut tail = broker.tail(&log, Position::ZERO).await.expect("the log can be read");
    let mut seen = Acknowledged::new();
    let mut until = until;
    loop {
        let end = *until.borrow_and_update();
        if end.is_some_and(|end| tail.position() >= end) {
            return seen;
        }
        tokio::select! {
            batch = tail.next(4096) => {
                for stored in batch.expect("a tail goes on over outages").records {
                    let before = seen.insert(stored.position, id(&stored).to_owned());
                    assert!(before.is_none(), "position {} came twice", stored.position);
                }
            }
            _ = until.changed() => {}
        }
    }
}

async fn through(url: &str, name: &str, fault: impl AsyncFnOnce()) {
    let (broker, environment) = open(url, name).await;
    let log = topic(&broker, "orders").await;
    let stop = tokio_util::sync::CancellationToken::new();
    let (end, until) = tokio::sync::watch::channel(None);
    let appends = environment.spawn(append(Arc::clone(&broker), log.clone(), stop.clone()));
    let follows = environment.spawn(follow(Arc::clone(&broker), log.clone(), until));
    tokio::time::sleep(Duration::from_secs(1)).await;
    fault().await;
    // It is written to again, without being opened anew.
    let before = eventually(&broker, &log).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.cancel();
    let (acknowledged, refused) = tokio::time::timeout(HANG, appends).await.expect("appends end").unwrap();
    assert!(acknowledged.keys().next_back() > Some(&before), "nothing was acknowledged after the fault");
    end.send_replace(Some(broker.info(&log).await.unwrap().end));
    let followed = tokio::time::timeout(HANG, follows).await.expect("the tail gets to the end").unwrap();
    let stored: Acknowledged = read(&broker, &log, Position::ZERO)
        .await
        .iter()
        .map(|stored| (stored.position, id(stored).to_owned()))
        .collect();
    assert_eq!(verify(&acknowledged, &refused, &followed, &stored), Ok(()));
    // The control: the same check finds a record that is gone, a tail that left one out, and a refusal that was none.
    let (some, some_id) = acknowledged.iter().next().expect("something was acknowledged");
    let mut less = stored.clone();
    less.remove(some);
    assert!(verify(&acknowledged, &refused, &less, &less).is_err(), "a lost record must be found");
    assert!(verify(&acknowledged, &refused, &less, &stored).is_err(), "a gap must be found");
    let wrong = Refused::from([some_id.clone()]);
    assert!(verify(&acknowledged, &wrong, &followed, &stored).is_err(), "a refusal of what is stored must be found");
    broker.close().await;
}

/// The end of the log, as soon as the broker answers again.
async fn eventually(broker: &KafkaBroker, log: &LogId) -> Position {
    for _ in 0..60 {
        match broker.info(log).await {
            Ok(info) => return info.end,
            Err(error) => assert_eq!(error.kind(), &ErrorKind::Unavailable, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    panic!("the broker does not come back: {:?}", broker.unreachable());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_loses_and_repeats_nothing() {
    let Some(server) = Broker::start("kafka").await else { return };
    if !server.is_ours() {
        return;
    }
    through(server.url(), "killed", async || server.restart(None).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_cut_lose_and_repeat_nothing() {
    let Some(linked) = Linked::start("kafka").await else { return };
    through(&linked.url(), "cut", async || {
        for _ in 0..10 {
            for proxy in linked.proxies() {
                proxy.cut();
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_stands_still_leaves_outcomes_unknown_and_is_used_again() {
    let Some(server) = Broker::start("kafka").await else { return };
    if !server.is_ours() {
        return;
    }
    let environment = Environment::system();
    let mut slow = options(server.url(), "paused");
    slow.settings.insert("message.timeout.ms".to_owned(), "3000".to_owned());
    let broker = KafkaBroker::open(slow, &environment).await.unwrap();
    let log = topic(&broker, "orders").await;
    // The control: while it runs the same append is acknowledged.
    broker.append(&log, Record::Event(event("before"))).await.unwrap();
    server.pause(None).await;
    let error = broker.append(&log, Record::Event(event("unknown"))).await.unwrap_err();
    assert_eq!((error.kind(), error.applied()), (&ErrorKind::Unknown, Applied::Unknown), "{error}");
    assert!(broker.unreachable().is_some(), "it is told that nothing is acknowledged");
    server.resume(None).await;
    eventually(&broker, &log).await;
    for n in 0..20 {
        match broker.append(&log, Record::Event(event("after"))).await {
            Ok(_) => break,
            Err(error) => assert!(n < 19, "it is not used again: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let stored = read(&broker, &log, Position::ZERO).await;
    assert_eq!((id(&stored[0]), id(stored.last().unwrap())), ("before", "after"));
    // A client that is not used may hear last that the broker is there; it is asked once a second.
    let reachable = async {
        while broker.unreachable().is_some() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(HANG, reachable).await.expect("it is told that the broker is there again");
    broker.close().await;
}
