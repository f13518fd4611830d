//! Partitions that share a stream.

use tidegate_backbone::{ErrorKind, LogSpec, PartitionLog as _, Position, Record};
use tidegate_conformance::Broker;

use super::{event, id_of, open, options, partition, read, slot};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_share_a_stream_and_nothing_else() {
    let Some(broker) = Broker::start("nats").await else { return };
    let options = options(broker.url());
    let log = open(&options).await;
    log.create(LogSpec::topic("orders", 3)).await.unwrap();
    let empty = log.info(&partition(2)).await.unwrap();
    assert_eq!((empty.begin, empty.end), (Position::ZERO, Position::ZERO), "an empty partition begins where it ends");
    let mut positions = Vec::new();
    for n in 0..30 {
        let appended = log.append(&partition(n % 2), event(n.to_string())).await.unwrap();
        positions.push(appended.position.unwrap());
    }
    for number in 0..2 {
        let ids: Vec<String> = read(log.as_ref(), &partition(number), Position::ZERO).await.iter().map(id_of).collect();
        let expected: Vec<String> = (0..30).filter(|n| n % 2 == number).map(|n| n.to_string()).collect();
        assert_eq!(ids, expected);
    }
    assert_eq!(log.info(&partition(2)).await.unwrap().end, Position::ZERO, "what others append moves no end");
    let info = log.info(&partition(0)).await.unwrap();
    assert_eq!((info.begin, info.end), (positions[0], positions[28].next()));
    assert!(info.bytes > 0);

    // A reader that has everything stands at the end, and loses nothing when all of it is trimmed.
    let mut tail = log.tail(&partition(0), positions[28]).await.unwrap();
    assert_eq!(tail.next(1024).await.unwrap().records.len(), 1);
    log.trim(&partition(0), Position(positions[29].0 + 1)).await.unwrap();
    let info = log.info(&partition(0)).await.unwrap();
    assert_eq!((info.begin, info.end, tail.position()), (info.end, tail.position(), info.end));
    assert_eq!(read(log.as_ref(), &partition(1), Position::ZERO).await.len(), 15, "the other partition keeps its own");
    let again = log.tail(&partition(0), tail.position()).await;
    assert!(again.is_ok(), "a reader at the end has lost nothing");
    // The control: whoever had not read it all is told, here and through another client.
    let other = open(&options).await;
    for log in [&log, &other] {
        let error = log.tail(&partition(0), positions[28]).await.err().expect("it was trimmed");
        assert_eq!(*error.kind(), ErrorKind::PositionLost { earliest: info.begin });
    }
    let next = log.append(&partition(0), event("30")).await.unwrap().position.unwrap();
    assert_eq!(tail.next(1024).await.unwrap().records[0].position, next);

    // A topic that is created anew remembers nothing of the one before.
    log.delete(LogSpec::topic("orders", 3)).await.unwrap();
    let error = log.append(&partition(0), event("31")).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound);
    log.create(LogSpec::topic("orders", 3)).await.unwrap();
    log.append(&partition(0), event("32")).await.unwrap();
    for log in [&log, &other] {
        let ids: Vec<String> = read(log.as_ref(), &partition(0), Position::ZERO).await.iter().map(id_of).collect();
        assert_eq!(ids, ["32"]);
    }
}

/// A reader that lags while another gateway trims is told of it amid its reading, and not left with a jump.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_is_overtaken_by_a_trim_of_another_gateway() {
    let Some(broker) = Broker::start("nats").await else { return };
    let mut options = options(broker.url());
    options.tail_bytes = 1;
    let (log, other) = (open(&options).await, open(&options).await);
    log.create(LogSpec::topic("orders", 2)).await.unwrap();
    let mut last = Position::ZERO;
    for n in 0..2_000 {
        let id = partition(u32::from(n % 4 == 0));
        last = log.append(&id, event(format!("{n}-{}", "x".repeat(2_000)))).await.unwrap().position.unwrap();
    }
    let mut tail = log.tail(&partition(0), Position::ZERO).await.unwrap();
    let mut control = other.tail(&partition(1), Position::ZERO).await.unwrap();
    let first = tail.next(1).await.unwrap();
    assert_eq!(first.records.len(), 1);
    other.trim(&partition(0), last).await.unwrap();
    let mut count = 1;
    let error = loop {
        match tail.next(1).await {
            Ok(batch) => count += batch.records.len(),
            Err(error) => break error,
        }
    };
    let begin = log.info(&partition(0)).await.unwrap().begin;
    assert_eq!(*error.kind(), ErrorKind::PositionLost { earliest: begin }, "after {count} records");
    assert!(count < 1_499, "it read {count} of 1,500 before");
    let mut read = 0;
    while read < 500 {
        read += control.next(64 * 1024).await.unwrap().records.len();
    }
    assert_eq!(read, 500, "the partition beside it lost nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_of_a_slot_have_no_gaps() {
    for server in ["nats", "nats-2.9"] {
        let Some(broker) = Broker::start(server).await else { continue };
        let options = options(broker.url());
        let (log, other) = (open(&options).await, open(&options).await);
        log.create(LogSpec::from(slot())).await.unwrap();
        let mut expected = 0;
        for n in 0..50 {
            // Eight at once of one owner, and one of another who interferes.
            let appends: Vec<_> =
                (0..8).map(|m| log.append(&slot(), Record::Frame(format!("{n}-{m}").into()))).collect();
            let mut positions = Vec::new();
            for append in appends {
                positions.push(append.await.unwrap().position.unwrap().0);
            }
            assert!(positions.is_sorted(), "in the order of the calls: {positions:?}");
            let interfering = other.append(&slot(), Record::Frame("other".into())).await.unwrap();
            expected += 9;
            assert_eq!(interfering.position, Some(Position(expected - 1)));
        }
        let records = read(log.as_ref(), &slot(), Position::ZERO).await;
        let positions: Vec<u64> = records.iter().map(|stored| stored.position.0).collect();
        assert_eq!(positions, (0..450).collect::<Vec<_>>());
        // Generations are told by their whole name.
        let listed: Vec<_> = log.list().await.unwrap().into_iter().map(|info| (info.id, info.end)).collect();
        assert_eq!(listed, [(slot(), Position(450))]);
    }
}
