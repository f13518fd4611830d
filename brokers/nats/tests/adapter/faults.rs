//! Servers that die, stand still and come back, and connections that are cut, amid appends and reading.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tidegate_backbone::{Applied, Durability, Environment, ErrorKind, LogSpec, PartitionLog, Position, Record};
use tidegate_conformance::{Broker, Direction, Linked};
use tidegate_nats::NatsBroker;

use super::{HANG, STEP, event, id_of, open, options, partition, read, slot};

/// What became of the appends of one writer, in their order.
#[derive(Debug, Default)]
struct Written {
    acknowledged: Vec<(usize, Position)>,
    unknown: Vec<usize>,
    refused: Vec<usize>,
}

/// Appends numbered events, several at once, until it is told to stop.
async fn write(log: Arc<NatsBroker>, mut stop: tokio::sync::watch::Receiver<bool>) -> Written {
    let mut written = Written::default();
    let mut number = 0;
    while !*stop.borrow_and_update() {
        let appends: Vec<_> =
            (number..number + 8).map(|n| (n, log.append(&partition(0), event(n.to_string())))).collect();
        number += 8;
        for (n, append) in appends {
            match tokio::time::timeout(HANG, append).await.expect("every append has an outcome") {
                Ok(appended) => written.acknowledged.push((n, appended.position.expect("it is told"))),
                Err(error) if error.applied() == Applied::Unknown => written.unknown.push(n),
                Err(error) => {
                    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Backpressure { .. }), "{error}");
                    written.refused.push(n);
                }
            }
        }
    }
    written
}

/// Follows from the beginning until it has read that many, over whatever happens.
async fn follow(
    log: Arc<NatsBroker>,
    mut until: tokio::sync::watch::Receiver<Option<Position>>,
) -> Vec<(String, Position)> {
    let mut tail = log.tail(&partition(0), Position::ZERO).await.expect("it begins before the fault");
    let mut seen: Vec<(String, Position)> = Vec::new();
    loop {
        if until.borrow_and_update().is_some_and(|end| tail.position() >= end) {
            return seen;
        }
        let batch = tokio::select! {
            batch = tail.next(64 * 1024) => batch,
            _ = until.changed() => continue,
        };
        for stored in batch.expect("a reader outlasts the fault").records {
            seen.push((id_of(&stored), stored.position));
        }
    }
}

/// Runs a fault amid appends and reading, and checks what the contract promises over it.
async fn over<F: Future<Output = ()>>(url: &str, fault: impl FnOnce(Arc<NatsBroker>) -> F) -> Written {
    let options = options(url);
    let (writer, reader) = (open(&options).await, open(&options).await);
    writer.create(LogSpec::topic("orders", 2)).await.unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let (end, ended) = tokio::sync::watch::channel(None);
    let writing = tokio::spawn(write(Arc::clone(&writer), stopped));
    let reading = tokio::spawn(follow(Arc::clone(&reader), ended));
    tokio::time::sleep(Duration::from_millis(200)).await;
    fault(Arc::clone(&writer)).await;
    // Appends go on by themselves: nothing is opened anew.
    let resumed = tokio::time::timeout(HANG, async {
        while writer.append(&partition(1), event("resumed")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    resumed.await.expect("appends go on after the fault");
    tokio::time::sleep(Duration::from_millis(200)).await;
    stop.send_replace(true);
    let written = tokio::time::timeout(HANG, writing).await.expect("the writer ends").unwrap();
    let stored = read(writer.as_ref(), &partition(0), Position::ZERO).await;
    let stored: Vec<(String, Position)> = stored.iter().map(|stored| (id_of(stored), stored.position)).collect();
    end.send_replace(stored.last().map(|(_, position)| position.next()));
    let seen = tokio::time::timeout(HANG, reading).await.expect("the reader comes to the end").unwrap();
    assert_eq!(seen, stored, "the reader saw every record once, in order, where it stands");

    assert!(!written.acknowledged.is_empty());
    let standing: HashSet<&(String, Position)> = stored.iter().collect();
    for (n, position) in &written.acknowledged {
        assert!(standing.contains(&(n.to_string(), *position)), "{n} was acknowledged at {position} and is gone");
    }
    let ids: Vec<usize> = stored.iter().map(|(id, _)| id.parse().unwrap()).collect();
    let unique: BTreeSet<usize> = ids.iter().copied().collect();
    assert_eq!(unique.len(), ids.len(), "no append was written twice");
    for n in &written.refused {
        assert!(!unique.contains(n), "{n} was refused without effect and is there");
    }
    let acknowledged: HashSet<usize> = written.acknowledged.iter().map(|(n, _)| *n).collect();
    let order: Vec<usize> = ids.into_iter().filter(|n| acknowledged.contains(n)).collect();
    assert!(order.is_sorted(), "what was acknowledged stands in the order of the calls");
    written
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_fault_nothing_is_refused_and_nothing_unknown() {
    let Some(broker) = Broker::start("nats").await else { return };
    let written = over(broker.url(), |_| async {}).await;
    assert_eq!((written.unknown.len(), written.refused.len()), (0, 0), "the control");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_killed_and_comes_back() {
    for server in ["nats", "nats-2.9"] {
        let Some(broker) = Broker::start(server).await.filter(Broker::is_ours) else { continue };
        let written = over(broker.url(), |writer| {
            let broker = &broker;
            async move {
                broker.kill(None).await;
                // Longer than an append may take, so that both kinds of outcome come about.
                let refusal = tokio::time::timeout(HANG, async {
                    loop {
                        match writer.append(&partition(1), event("down")).await {
                            Err(error) if *error.kind() == ErrorKind::Unavailable => return error,
                            _ => tokio::time::sleep(Duration::from_millis(50)).await,
                        }
                    }
                });
                let refusal = refusal.await.expect("the outage is told");
                assert!(refusal.to_string().contains("cannot be reached"), "{refusal}");
                assert!(writer.unreachable().is_some());
                assert_eq!(*writer.info(&partition(0)).await.unwrap_err().kind(), ErrorKind::Unavailable);
                broker.restart(None).await;
            }
        })
        .await;
        assert!(!written.unknown.is_empty() || !written.refused.is_empty(), "the outage was felt");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_stands_still_and_goes_on() {
    let Some(broker) = Broker::start("nats").await.filter(Broker::is_ours) else { return };
    let written = over(broker.url(), |writer| {
        let broker = &broker;
        async move {
            broker.pause(None).await;
            let error = writer.append(&partition(1), event("still")).await.unwrap_err();
            assert_eq!(error.applied(), Applied::Unknown, "it may be done when the server goes on: {error}");
            broker.resume(None).await;
        }
    })
    .await;
    assert!(!written.unknown.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_cut_again_and_again() {
    let Some(linked) = Linked::start("nats").await else { return };
    over(&linked.url(), |_| {
        let proxy = &linked.proxies()[0];
        async move {
            for round in 0..20_u64 {
                match round % 3 {
                    0 => proxy.cut(),
                    1 => proxy.reset_after(Direction::ToBroker, 1_000 * round),
                    _ => proxy.reset_after(Direction::FromBroker, 700 * round),
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_server_of_a_cluster_dies_and_comes_back() {
    let Some(broker) = Broker::start("nats3").await.filter(Broker::is_ours) else { return };
    over(broker.url(), |writer| {
        let broker = &broker;
        async move {
            assert_eq!(writer.capability().durability, Durability::Replicated, "three servers keep three copies");
            for node in 1..=3 {
                broker.kill(Some(node)).await;
                // The others go on without it.
                let appended = tokio::time::timeout(HANG, async {
                    while writer.append(&partition(1), event("without one")).await.is_err() {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                });
                appended.await.expect("two of three are enough");
                broker.restart(Some(node)).await;
            }
        }
    })
    .await;
}

/// A connection that is open and silent is noticed, and mended where it can be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_connection_is_noticed() {
    let Some(linked) = Linked::start("nats").await else { return };
    over(&linked.url(), |writer| {
        let proxy = &linked.proxies()[0];
        async move {
            proxy.half_open();
            let noticed = tokio::time::timeout(HANG, async {
                while writer.unreachable().is_none() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
            noticed.await.expect("the silence is noticed");
            proxy.heal();
        }
    })
    .await;
}

/// A reader whose caller drops `next` again and again, as who waits for other things as well, goes on after an outage. The
/// control is what it reads before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_impatient_caller_reads_on_after_an_outage() {
    let Some(linked) = Linked::start("nats").await else { return };
    let (proxy, near) = (&linked.proxies()[0], options(linked.broker().url()));
    let mut far = options(&linked.url());
    far.namespace.clone_from(&near.namespace);
    let (writer, reader) = (open(&near).await, open(&far).await);
    writer.create(LogSpec::from(slot())).await.unwrap();
    let mut tail = reader.tail(&slot(), Position::ZERO).await.unwrap();
    for round in 0..3_usize {
        let frame = format!("{round}");
        writer.append(&slot(), Record::Frame(frame.clone().into())).await.unwrap();
        let read = tokio::time::timeout(HANG, async {
            loop {
                if let Ok(batch) = tokio::time::timeout(STEP, tail.next(1024)).await {
                    break batch.expect("a reader outlasts the fault").records;
                }
            }
        });
        let read = read.await.expect("it reads on");
        assert_eq!(read.iter().map(id_of).collect::<Vec<_>>(), [frame], "each record comes once");
        // Long enough that the reader gives its consumer up, and tries in vain to have another one for a while.
        proxy.half_open();
        while reader.unreachable().is_none() {
            assert!(tokio::time::timeout(STEP, tail.next(1024)).await.is_err(), "nothing comes through");
        }
        proxy.heal();
    }
}

/// The reader of a log whose stream goes is told, and does not wait for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_deleted_under_its_reader() {
    let Some(broker) = Broker::start("nats").await else { return };
    let options = options(broker.url());
    let (log, other) = (open(&options).await, open(&options).await);
    log.create(LogSpec::topic("orders", 1)).await.unwrap();
    log.append(&partition(0), event("1")).await.unwrap();
    let mut tail = log.tail(&partition(0), Position::ZERO).await.unwrap();
    assert_eq!(tail.next(1024).await.unwrap().records.len(), 1);
    other.delete(LogSpec::topic("orders", 1)).await.unwrap();
    // One of the same name at once is another log.
    other.create(LogSpec::topic("orders", 1)).await.unwrap();
    let error = tokio::time::timeout(HANG, tail.next(1024)).await.expect("it is told").unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound, "{error}");
}

/// Closing waits for what is on its way, and ends readers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_ends_everything_and_loses_nothing() {
    let Some(broker) = Broker::start("nats").await else { return };
    let options = options(broker.url());
    let environment = Environment::system();
    let log = NatsBroker::open(options.clone(), &environment).await.unwrap();
    log.create(LogSpec::topic("orders", 1)).await.unwrap();
    let appends: Vec<_> = (0..100).map(|n| log.append(&partition(0), event(n.to_string()))).collect();
    let mut tail = log.tail(&partition(0), Position(1_000)).await.unwrap();
    let waiting = tokio::spawn(async move { tail.next(1024).await });
    log.close().await;
    for append in appends {
        append.await.expect("it was called before the close");
    }
    let error = tokio::time::timeout(HANG, waiting).await.expect("readers end").unwrap().unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Closed);
    assert_eq!(*log.append(&partition(0), event("late")).await.unwrap_err().kind(), ErrorKind::Closed);
    assert!(environment.stop(Duration::from_secs(5)).await);
    let again = open(&options).await;
    assert_eq!(read(again.as_ref(), &partition(0), Position::ZERO).await.len(), 100);
}
